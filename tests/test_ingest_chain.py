"""A relay whose destination is another relay: what the other one says of an event that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from relay.metrics import Metrics
from relay.openanalytics import OpenAnalytics
from relay.store.base import Store
from relay.store.schema import EventState
from tests.conftest import EventsApi, RunningRelay, RunRelay, until
from tests.test_forwarding import drain, make_lane, sell
from tests.test_ingesting import BATCH, KEY
from tests.things import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(run_relay: RunRelay, tmp_path: Path) -> AsyncIterator[RunningRelay]:
    """The relay that is the destination; `store` is that of the one before it."""
    database = f"sqlite:///{tmp_path / 'other.db'}"
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_DATABASE_URL=database) as relay:
        yield relay


async def forward(other: RunningRelay, store: Store, clock: Clock) -> None:
    """Until nothing of the first relay's outbox is due."""
    async with OpenAnalytics(other.url, "42", KEY, timeout_s=5, clock=clock) as client:
        await drain(make_lane(client, store, Metrics(), clock))


async def post(other: RunningRelay, *payloads: bytes) -> None:
    """Bring it these events, as a call whose answer was lost would have done."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = await other.http.post(BATCH, content=b"[%b]" % b",".join(payloads), headers=headers)
    assert 202 == answer.status_code


async def payloads(store: Store) -> list[bytes]:
    return [event.payload for event in await store.events(state=EventState.PENDING)]


async def arrived(events_api: EventsApi, number: int) -> Counter[str]:
    async def are_there() -> bool:
        return len(await events_api.orders()) >= number

    await until(are_there)
    return Counter(await events_api.orders())


async def test_what_the_other_has_already_is_sent(
    other: RunningRelay, store: Store, events_api: EventsApi, clock: Clock
) -> None:
    await sell(store, 1, 2, 3)
    await post(other, (await payloads(store))[1])

    await forward(other, store, clock)

    assert {"order_1": 1, "order_2": 1, "order_3": 1} == await arrived(events_api, 3)
    assert ([], 3) == (await store.events(state=EventState.DEAD), len(await store.events(state=EventState.SENT)))


async def test_an_id_that_the_other_has_with_another_content_is_a_dead_letter_by_itself(
    other: RunningRelay, store: Store, events_api: EventsApi, clock: Clock
) -> None:
    """It would be refused for ever, and taking it for the other one could lose a sale: a person decides."""
    await sell(store, *range(20))
    third = orjson.loads((await payloads(store))[3])
    await post(other, orjson.dumps({**third, "revenue": 5}))

    await forward(other, store, clock)

    (dead,) = await store.events(state=EventState.DEAD)
    assert third == orjson.loads(dead.payload)
    assert "events[0]: properties.event_id came before with another content" == dead.reason
    assert {f"order_{number}": 1 for number in range(20)} == await arrived(events_api, 20)
    assert [] == await payloads(store)
