"""`relay migrate`, `relay store stats`, `relay store move`: what is typed, what is said, and the exit code."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli import app
from relay.store import open_store
from relay.store.base import Verified
from relay.vault import Vault
from tests import postgres_server
from tests.conftest import STORE_KEY
from tests.things import NOON, Clock, arrival, mapped, purchase

Invoke = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
def invoke(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("RELAY_", "OAA_"))]:
        monkeypatch.delenv(name)

    def run(*words: str, **variables: str) -> Result:
        return CliRunner().invoke(app, words, env={"RELAY_DATABASE_URL": f"sqlite:///{database}", **variables})

    return run


@pytest.fixture
def target(postgres: str) -> Iterator[str]:
    with postgres_server.database(postgres, "relay_moved_by_command") as url:
        yield url


@pytest.fixture
def filled(database: Path, clock: Clock) -> Path:
    """Two sales that are not sent, and a delivery that is not mapped."""

    async def fill() -> None:
        store = await open_store(f"sqlite:///{database}", vault=Vault([STORE_KEY]), clock=clock)
        for number in (1, 2):
            await store.accept(arrival(mapped(number, purchase(number))))
        await store.take(Verified(source="shop", received_at_ms=NOON, secret=0, headers={}, body=b"{}"))
        await store.close()

    asyncio.run(fill())
    return database


def test_migrate_makes_the_tables_and_may_be_said_again(invoke: Invoke, database: Path) -> None:
    first, second = invoke("migrate", "--json"), invoke("migrate")

    assert database.exists()
    assert [0, 0] == [first.exit_code, second.exit_code]
    assert json.loads(first.stdout)["revision"] in second.stdout


def test_migrate_says_why_it_cannot(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = invoke("migrate", RELAY_DATABASE_URL=f"sqlite:///{tmp_path / 'file' / 'relay.db'}")

    assert 1 == done.exit_code
    assert "cannot be opened" in done.stderr


def test_stats_tell_what_is_not_done_and_how_large_the_tables_are(invoke: Invoke, filled: Path) -> None:
    del filled
    done = invoke("store", "stats", "--json")
    found = json.loads(done.stdout)

    assert {"deliveries": 1, "oldest": "2026-11-18T11:06:40Z"} == found["inbox"]
    assert [("default", 2)] == [(row["destination"], row["unsent"]) for row in found["outbox"]]
    rows = {one["table"]: one["rows"] for one in found["tables"]}
    assert (2, 2, 1) == (rows["events"], rows["notifications"], rows["inbox"])
    assert "alembic_version" not in rows
    told = invoke("store", "stats").stdout
    assert "1 deliveries are not mapped yet" in told
    assert "2 events are not sent" in told


def test_stats_of_postgresql(invoke: Invoke, target: str) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    done = invoke("store", "stats", "--json", RELAY_DATABASE_URL=target, RELAY_ENCRYPTION_KEYS=key)
    found = json.loads(done.stdout)

    assert {"deliveries": 0, "oldest": None} == found["inbox"]
    assert {"events", "inbox", "keys"} <= {one["table"] for one in found["tables"]}
    assert all(one["bytes"] > 0 and not one["is_estimate"] for one in found["tables"])


def test_move_tells_what_it_moved_and_which_key_the_replicas_need(invoke: Invoke, filled: Path, target: str) -> None:
    key = filled.with_name("relay.db.key")
    key.write_text("it is only named")
    done = invoke("store", "move", "--from", f"sqlite:///{filled}", "--to", target, "--json")
    found = json.loads(done.stdout)

    assert 0 == done.exit_code
    assert {"events": 2, "inbox": 1}.items() <= {one["table"]: one["rows"] for one in found["tables"]}.items()
    assert str(key) == found["key_file"]


def test_a_file_that_is_served_is_not_moved(invoke: Invoke, filled: Path, target: str) -> None:
    with filled.with_name("relay.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = invoke("store", "move", "--from", f"sqlite:///{filled}", "--to", target)

    assert 1 == done.exit_code
    assert "another relay serves" in done.stderr


@pytest.mark.parametrize(
    ("source", "to", "why"),
    [
        ("relay.db", "postgresql://nobody@127.0.0.1:1/x", "--from must be"),
        ("sqlite:///none.db", "postgresql://nobody@127.0.0.1:1/x", "There is no database"),
        ("sqlite:///relay.db", "sqlite:///other.db", "--to must be"),
    ],
)
def test_what_cannot_be_moved_is_said_before_anything_happens(invoke: Invoke, source: str, to: str, why: str) -> None:
    done = invoke("store", "move", "--from", source, "--to", to)

    assert 2 == done.exit_code
    assert why in done.stderr
