"""The short form of `make chaos`: a relay under load is killed with SIGKILL, and the books are balanced afterwards."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.verdict import unsent
from relay.store import is_shared, sqlite_path
from relay.store.base import Store, Verified
from tests.conftest import until
from tests.things import NOON, arrival, mapped, purchase

ROOT = Path(__file__).resolve().parent.parent


def rage(tmp_path: Path, *options: str) -> dict[str, Any]:
    figures = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "bench.chaos", "--longest-ms=400", f"--json={figures}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    storm: dict[str, Any] = json.loads(figures.read_text())
    return storm


def test_what_was_acknowledged_outlives_kill_9_and_is_told_once(tmp_path: Path) -> None:
    storm = rage(tmp_path, "--kills=4")
    verdict = storm["verdict"]
    assert storm["kills"] == 4
    assert storm["kills_while_starting"] == 1
    assert verdict["acknowledged"] > 0
    assert set(verdict["violations"].values()) == {0}
    assert verdict["arrived"] - verdict["copies"] == verdict["kept"] == verdict["acknowledged"] == storm["checkouts"]
    assert verdict["more_than_once"] <= verdict["in_doubt"]


def test_it_is_so_too_while_the_destination_misbehaves(tmp_path: Path) -> None:
    storm = rage(tmp_path, "--kills=2", "--faults")
    assert storm["blows"] > 0
    assert set(storm["verdict"]["violations"].values()) == {0}


class TestWhatIsWaitedForAtTheEnd:
    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["sqlite", "postgresql"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def database(self, database_url: str) -> Path | str:
        return database_url if is_shared(database_url) else sqlite_path(database_url)

    async def test_a_delivery_counts_from_the_inbox_until_its_event_is_sent(
        self, store: Store, database: Path | str
    ) -> None:
        assert await asyncio.to_thread(unsent, database) == 0
        await store.take(Verified(source="shop", received_at_ms=NOON, secret=0, headers={}, body=b"{}"))
        assert await asyncio.to_thread(unsent, database) == 1

        await store.unbox(await store.inbox(limit=1), [arrival(mapped(1, purchase(1)))])
        assert await asyncio.to_thread(unsent, database) >= 1

        batch = await store.claim("default", limit=10, lease_ms=1000, owner="me")
        assert batch is not None
        await store.sent(batch)
        await until(lambda: is_empty(database))


async def is_empty(database: Path | str) -> bool:
    return await asyncio.to_thread(unsent, database) == 0
