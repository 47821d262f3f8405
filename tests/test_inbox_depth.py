"""What is committed and not mapped yet can be seen: by the store, in the metrics, at /readyz."""

from __future__ import annotations

import pytest

from relay.metrics import Metrics
from relay.store.base import InboxDepth, Store, Verified
from tests.conftest import RunningRelay
from tests.things import NOON, Clock, arrival, mapped

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def taken(number: int) -> Verified:
    return Verified(source="shop", received_at_ms=NOON, secret=0, headers={}, body=b"%d" % number)


async def test_an_empty_inbox_has_no_oldest(store: Store) -> None:
    assert InboxDepth(deliveries=0, oldest_ms=None) == await store.inbox_depth()


async def test_what_was_taken_is_counted_with_its_age_until_it_is_mapped(store: Store, clock: Clock) -> None:
    await store.take(taken(1))
    clock.advance(seconds=5)
    await store.take(taken(2))

    assert InboxDepth(deliveries=2, oldest_ms=NOON) == await store.inbox_depth()

    (first,) = (one for one in await store.inbox(limit=10) if one.body == b"1")
    await store.unbox([first], [arrival(mapped(1))])

    assert InboxDepth(deliveries=1, oldest_ms=NOON + 5000) == await store.inbox_depth()


async def test_the_gauges_say_how_many_and_how_old() -> None:
    metrics = Metrics()
    metrics.show_inbox(InboxDepth(deliveries=3, oldest_ms=NOON), now_ms=NOON + 1500)

    text = metrics.render().decode()

    assert "relay_inbox_deliveries 3.0" in text
    assert "relay_inbox_oldest_seconds 1.5" in text
    assert "\nrelay_spool_deliveries" not in text


async def test_readyz_and_the_metrics_of_a_relay_show_its_inbox(relay: RunningRelay) -> None:
    ready = (await relay.http.get("/readyz")).json()

    assert {"deliveries": 0, "oldest_s": None} == ready["inbox"]
    assert await relay.metric("relay_inbox_deliveries") == 0
    assert "relay_inbox_oldest_seconds" in (await relay.http.get("/metrics")).text
