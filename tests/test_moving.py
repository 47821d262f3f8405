"""A store moves from an SQLite file to PostgreSQL: whole, once, and where it is cut off it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from relay.contract import Learned, Person
from relay.store import open_store
from relay.store.base import Store, Verified
from relay.store.moving import MoveError, Progress, move
from relay.store.schema import EventState, metadata
from relay.store.stats import table_sizes
from relay.vault import Vault
from tests import postgres_server
from tests.conftest import STORE_KEY
from tests.things import NOON, Clock, arrival, mapped, purchase

pytestmark = pytest.mark.anyio


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'relay.db'}"


@pytest.fixture
def target(postgres: str) -> Iterator[str]:
    with postgres_server.database(postgres, "relay_moved") as url:
        yield url


async def opened(url: str, clock: Clock) -> Store:
    return await open_store(url, vault=Vault([STORE_KEY]), clock=clock)


async def fill(source: str, clock: Clock, sales: int = 5) -> None:
    """Sales of all states, something learned, and a delivery that is not mapped yet."""
    store = await opened(source, clock)
    who = Learned(keys=("customer:cus_1",), person=Person(email="buyer@example.com"))
    for number in range(sales):
        await store.accept(arrival(mapped(number, purchase(number), learned=[who])))
    first = await store.claim("default", limit=2, lease_ms=60_000, owner="me")
    assert first is not None
    await store.sent(first)
    second = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
    assert second is not None
    await store.refuse(second, reason="no")
    await store.take(Verified(source="shop", received_at_ms=NOON, secret=0, headers={"a": "b"}, body=b"{}"))
    await store.close()


def moved(source: str, target: str) -> dict[str, int]:
    return {one.table: one.rows for one in move(source, target, now_ms=lambda: NOON)}


def counts(url: str) -> dict[str, int]:
    return {one.table: one.rows for one in table_sizes(url)}


async def test_everything_is_there_afterwards_and_goes_on_where_it_was(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock)

    rows = await asyncio.to_thread(moved, source, target)

    assert {*metadata.tables, "inbox"} == set(rows)
    assert rows == counts(source) == counts(target)
    store = await opened(target, clock)
    by_state = [row.state for row in await store.events()]
    assert [2, 1, 2] == [by_state.count(state) for state in (EventState.SENT, EventState.DEAD, EventState.PENDING)]
    (waiting,) = await store.inbox(limit=10)
    assert (b"{}", {"a": "b"}) == (waiting.body, waiting.headers)
    again = await store.accept(arrival(mapped(4, purchase(4))))
    assert (0, 1, 0) == (again.new, again.repeated, again.events)
    left = await store.claim("default", limit=10, lease_ms=60_000, owner="you")
    assert left is not None
    assert 2 == len(left.events)
    await store.close()


async def test_where_it_was_cut_off_it_goes_on(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock)

    def cut_off(progress: Progress) -> None:
        if progress.table == "keys":
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await asyncio.to_thread(move, source, target, now_ms=clock, tell=cut_off)

    rows = await asyncio.to_thread(moved, source, target)

    assert rows == counts(source) == counts(target)


async def test_what_changed_in_between_is_not_mixed(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock)

    def cut_off(_progress: Progress) -> None:
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await asyncio.to_thread(move, source, target, now_ms=clock, tell=cut_off)
    store = await opened(source, clock)
    batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
    assert batch is not None
    await store.sent(batch)
    await store.close()

    with pytest.raises(MoveError, match="has changed since the move began"):
        await asyncio.to_thread(moved, source, target)


async def test_a_database_that_is_in_use_is_left_alone(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock)
    store = await opened(target, clock)
    await store.accept(arrival(mapped(100, purchase(100))))
    await store.close()

    with pytest.raises(MoveError, match="not empty"):
        await asyncio.to_thread(moved, source, target)


async def test_a_difference_is_found(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock)

    def tamper(progress: Progress) -> None:
        if progress.table == "events":
            with psycopg.connect(target) as connection:
                connection.execute("UPDATE events SET name = 'other' WHERE id = (SELECT max(id) FROM events)")

    with pytest.raises(MoveError, match="events differs: 5 rows, but not the same ones"):
        await asyncio.to_thread(move, source, target, now_ms=clock, tell=tamper)


async def test_a_text_that_postgresql_does_not_take_does_not_stop_it(source: str, target: str, clock: Clock) -> None:
    await fill(source, clock, sales=3)
    with contextlib.closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE notifications SET error = 'a' || char(0) || 'b'")
        connection.commit()

    await asyncio.to_thread(moved, source, target)

    with psycopg.connect(target) as there:
        assert [("a\ufffdb",)] == there.execute("SELECT DISTINCT error FROM notifications").fetchall()
