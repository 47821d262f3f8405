"""The spool: what a replica takes while its database is away."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from relay.metrics import Metrics
from relay.operating import readiness
from relay.store import open_store
from relay.store.base import Inboxed, Store, StoreUnavailableError, Verified
from relay.store.bodies import pack, pack_all
from relay.store.inbox import inbox_path
from relay.vault import Vault
from tests.conftest import STORE_KEY, until
from tests.lifeline import Lifeline
from tests.things import NOON, Clock, arrival, mapped

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def taken(number: int) -> Verified:
    return Verified(source="shop", received_at_ms=NOON, secret=0, headers={"n": str(number)}, body=b"%d" % number)


@asynccontextmanager
async def opened(url: str, file: Path, clock: Clock, *, min_free_mb: int = 0) -> AsyncIterator[Store]:
    store = await open_store(url, vault=Vault([STORE_KEY]), clock=clock, spool=file, spool_min_free_mb=min_free_mb)
    try:
        yield store
    finally:
        await store.close()


async def found(store: Store, number: int) -> list[Inboxed]:
    """What is in the inbox of the database as soon as it is so many."""
    seen: list[Inboxed] = []

    async def are_there() -> bool:
        with contextlib.suppress(StoreUnavailableError):  # for a moment yet
            seen[:] = await store.inbox(limit=100)
        return len(seen) >= number

    await until(are_there)
    return seen


async def until_not_mapped(store: Store, deliveries: int) -> None:
    """Wait until so many are in the inbox of the database, and none in the file."""

    async def is_so() -> bool:
        depth = await store.inbox_depth()
        return (depth.deliveries, depth.spooled) == (deliveries, 0)

    await until(is_so)


async def spooled(url: str, file: Path, clock: Clock, *numbers: int) -> None:
    """Leave these in the file, as a replica does that ends while its database is away."""
    async with Lifeline(url) as line, opened(line.url, file, clock) as store:
        line.cut()
        for number in numbers:
            await store.take(taken(number))


async def test_what_comes_while_the_database_is_away_is_kept_and_mapped_when_it_is_back(
    database_url: str, file: Path, clock: Clock
) -> None:
    async with Lifeline(database_url) as line, opened(line.url, file, clock) as store:
        await store.take(taken(1))
        line.cut()
        await asyncio.gather(*(store.take(taken(number)) for number in range(2, 30)))
        assert 28 == (await store.inbox_depth()).spooled
        line.mend()

        assert {b"%d" % number for number in range(1, 30)} == {one.body for one in await found(store, 29)}
        assert 0 == (await store.inbox_depth()).spooled


async def test_a_database_that_does_not_answer_is_as_good_as_away(database_url: str, file: Path, clock: Clock) -> None:
    async with Lifeline(database_url) as line, opened(line.url, file, clock) as store:
        await store.take(taken(1))
        line.hold()
        async with asyncio.timeout(4):
            await asyncio.gather(*(store.take(taken(number)) for number in range(2, 5)))
            await store.take(taken(5))
        line.let_go()

        assert {b"1", b"2", b"3", b"4", b"5"} == {one.body for one in await found(store, 5)}


async def test_it_outlives_the_process(database_url: str, file: Path, clock: Clock) -> None:
    await spooled(database_url, file, clock, 1)

    async with opened(database_url, file, clock) as again:
        (one,) = await found(again, 1)

    assert ({"n": "1"}, b"1", NOON) == (one.headers, one.body, one.received_at_ms)


async def test_what_a_crash_left_in_the_file_after_it_was_brought_over_is_not_brought_again(
    database_url: str, file: Path, clock: Clock
) -> None:
    await spooled(database_url, file, clock, 1, 2)
    before = inbox_path(file).read_bytes()
    async with opened(database_url, file, clock) as first:
        for one in await found(first, 2):
            await first.unbox([one], [arrival(mapped(one.body.decode()))])
        await until_not_mapped(first, 0)
    inbox_path(file).write_bytes(before)

    async with opened(database_url, file, clock) as again:
        assert 2 == (await again.inbox_depth()).spooled
        await again.take(taken(3))
        await until_not_mapped(again, 1)
        (left,) = await found(again, 1)

    assert b"3" == left.body


async def test_one_whose_id_another_replica_drew_too_is_not_lost(database_url: str, file: Path, clock: Clock) -> None:
    await spooled(database_url, file, clock, 1, 2)
    with contextlib.closing(sqlite3.connect(inbox_path(file))) as connection:
        row = connection.execute("SELECT min(id) FROM inbox").fetchone()[0]
    other = pack_all([(9, pack({"source": "shop", "secret": 0, "headers": {}}, b"other"))])
    with psycopg.connect(database_url) as there:
        there.execute("INSERT INTO inbox VALUES (%s, 1, %s)", [row, Vault([STORE_KEY]).seal(other, row=row)])

    async with opened(database_url, file, clock) as store:
        bodies = sorted(one.body for one in await found(store, 3))

    assert [b"1", b"2", b"other"] == bodies


async def test_what_comes_later_stands_behind_whatever_the_clock_says(
    database_url: str, file: Path, clock: Clock
) -> None:
    await spooled(database_url, file, clock, 1)
    clock.advance(days=-1)
    await spooled(database_url, file, clock, 2)

    async with opened(database_url, file, clock) as store:
        assert {b"1", b"2"} == {one.body for one in await found(store, 2)}


async def test_two_replicas_do_not_share_a_file(database_url: str, file: Path, clock: Clock) -> None:
    async with opened(database_url, file, clock):
        with pytest.raises(StoreUnavailableError, match="RELAY_SPOOL_FILE of its own"):
            async with opened(database_url, file, clock):
                pass


async def test_a_disk_that_is_nearly_full_takes_nothing(database_url: str, file: Path, clock: Clock) -> None:
    async with Lifeline(database_url) as line, opened(line.url, file, clock, min_free_mb=10**9) as store:
        line.cut()

        with pytest.raises(StoreUnavailableError, match="nearly full"):
            await store.take(taken(1))


async def test_a_replica_that_spools_is_ready(database_url: str, file: Path, clock: Clock) -> None:
    async with Lifeline(database_url) as line, opened(line.url, file, clock) as store:
        line.cut()
        await store.take(taken(1))

        ready = await readiness(store, ["default"], trouble=None, now_ms=NOON + 5000)
        metrics = Metrics()
        metrics.show_inbox(await store.inbox_depth(), now_ms=NOON)

    assert ("degraded", {"deliveries": 1, "oldest_s": 5, "spooled": 1}) == (ready["status"], ready["inbox"])
    assert "relay_spool_deliveries 1.0" in metrics.render().decode()
