"""Behind a real PgBouncer in transaction mode: nobody hears a bell, sessions change hands, and all else holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import psycopg
import pytest

from relay.store import open_bell, open_store
from relay.store.base import Store
from relay.store.schema import EventState
from relay.vault import Vault
from tests import postgres_server
from tests.conftest import STORE_KEY, EventsApi, until
from tests.pooler import pgbouncer
from tests.test_postgres import sums, taken, unfold
from tests.test_replicas import Start, post, start, until_received
from tests.things import Clock, sale

__all__ = ["start"]

pytestmark = pytest.mark.anyio

#: Fewer than two replicas would like to have at once.
CONNECTIONS = 4


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """An empty database without a table, through the pooler."""
    with (
        postgres_server.database(postgres, "relay_test_pooled") as url,
        pgbouncer(url, connections=CONNECTIONS) as pooled,
    ):
        yield pooled


@pytest.fixture
async def stores(database_url: str, clock: Clock) -> AsyncIterator[Sequence[Store]]:
    opened = [await open_store(database_url, vault=Vault([STORE_KEY]), clock=clock) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_replicas_take_map_and_send_each_delivery_once(stores: Sequence[Store]) -> None:
    await asyncio.gather(*(store.take(taken(number)) for number in range(200) for store in stores))

    receipts = await asyncio.gather(*(unfold(store) for store in stores))
    sent = 0
    for place, store in enumerate([*stores, *stores]):
        while batch := await store.claim("default", limit=30, lease_ms=60_000, owner=str(place)):
            sent += len(batch.events)
            assert await store.sent(batch)

    assert (200, 200) == sums([receipt for some in receipts for receipt in some])
    assert 200 == sent
    assert {EventState.SENT} == {row.state for row in await stores[0].events(limit=300)}


async def test_the_same_fact_at_both_is_one_event(stores: Sequence[Store]) -> None:
    receipts = await asyncio.gather(*(store.accept(sale(number)) for number in range(300) for store in stores))

    assert (300, 300) == sums(receipts)


async def test_sessions_leave_nothing_behind_for_whoever_gets_them_next(
    stores: Sequence[Store], database_url: str
) -> None:
    """No prepared statement, no setting, no lock."""
    for number in range(50):
        await stores[number % 2].accept(sale(number))
        await stores[number % 2].depths()

    for _ in range(CONNECTIONS * 2):
        with psycopg.connect(database_url) as connection:
            (prepared,) = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() or (None,)
            (timeout,) = connection.execute("SELECT current_setting('statement_timeout')").fetchone() or (None,)
        assert (0, "0") == (prepared, timeout)


async def test_nobody_listens_and_who_rings_does_no_harm(database_url: str) -> None:
    bell = open_bell(database_url)
    ringing = asyncio.create_task(bell.ringing())
    bell.ring()
    await asyncio.wait_for(bell.listening(lambda: None), 10)
    ringing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ringing

    assert bell._database.is_pooled


async def test_what_one_replica_receives_another_one_forwards(start: Start, events_api: EventsApi) -> None:
    receiving, _ = await start("receive"), await start("forward")

    assert [200] * 12 == [await post(receiving, number % 6) for number in range(12)]

    await until_received(events_api, 6)

    async def is_settled() -> bool:
        ready = (await receiving.get("/readyz")).json()
        return (0, "ok") == (ready["inbox"]["deliveries"], ready["status"])

    await until(is_settled)
