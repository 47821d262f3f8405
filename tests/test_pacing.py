"""How fast a destination is called, by all that share a store."""

from __future__ import annotations

import asyncio

import pytest

from relay.store import open_store
from relay.store.base import Store
from relay.store.pacing import Pace
from relay.vault import Vault
from tests import postgres_server
from tests.conftest import STORE_KEY
from tests.things import NOON, Clock, sale

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def filled(url: str, clock: Clock, pace: Pace, events: int) -> Store:
    store = await open_store(url, vault=Vault([STORE_KEY]), clock=clock, pace=pace)
    await asyncio.gather(*(store.accept(sale(number)) for number in range(events)))
    return store


async def sizes(*stores: Store) -> list[int]:
    """Of the next claim of each."""
    batches = [await store.claim("default", limit=100, lease_ms=1000, owner=str(id(store))) for store in stores]
    return [0 if batch is None else len(batch.events) for batch in batches]


async def test_no_more_events_a_second_than_are_allowed(database_url: str, clock: Clock) -> None:
    store = await filled(database_url, clock, Pace(events_per_s=40), 100)

    assert [40, 0] == await sizes(store, store)
    due = await store.next_due("default")
    assert NOON < (due or 0) < NOON + 100
    clock.advance(ms=500)
    assert [20, 0] == await sizes(store, store)
    clock.advance(seconds=60)
    assert [40] == await sizes(store)
    await store.close()


async def test_no_more_calls_at_once_than_are_allowed(database_url: str, clock: Clock) -> None:
    store = await filled(database_url, clock, Pace(calls_at_once=2), 400)

    assert [100, 100, 0] == await sizes(store, store, store)
    assert NOON + 50 == await store.next_due("default")
    clock.advance(ms=1000)  # both leases are over: what they sent is in doubt, and their places are free

    assert [100, 100, 0] == await sizes(store, store, store)
    await store.close()


async def test_limits_hold_across_replicas(postgres: str, clock: Clock) -> None:
    postgres_server.empty(postgres)
    pace = Pace(calls_at_once=3, events_per_s=250)
    first = await filled(postgres, clock, pace, 500)
    others = [await filled(postgres, clock, pace, 0) for _ in range(3)]

    claims = await asyncio.gather(
        *(store.claim("default", limit=100, lease_ms=1000, owner=str(place)) for place, store in
          enumerate([first, *others]))
    )  # fmt: skip

    assert [50, 100, 100] == sorted(len(batch.events) for batch in claims if batch is not None)
    for store in (first, *others):
        await store.close()
