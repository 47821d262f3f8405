"""Outbox → events API: the table of answers, against the sandbox behind a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from relay.forwarding import ForwardingRules, Lane
from relay.metrics import Metrics
from relay.openanalytics import OpenAnalytics
from relay.store.base import Store
from relay.store.schema import EventState
from tests.conftest import API_KEY, EventsApi
from tests.things import Clock, arrival, mapped, purchase, sale

pytestmark = pytest.mark.anyio


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def api_key() -> str:
    return API_KEY


@pytest.fixture
async def client(events_api: EventsApi, clock: Clock, api_key: str) -> AsyncIterator[OpenAnalytics]:
    async with OpenAnalytics(events_api.url, "42", api_key, timeout_s=2, clock=clock) as client:
        yield client


@pytest.fixture
def lane(client: OpenAnalytics, store: Store, metrics: Metrics, clock: Clock) -> Lane:
    return make_lane(client, store, metrics, clock)


def make_lane(client: OpenAnalytics, store: Store, metrics: Metrics, clock: Clock, **rules: int) -> Lane:
    return Lane(
        "default",
        client=client,
        store=store,
        metrics=metrics,
        clock=clock,
        owner="lane",
        rules=ForwardingRules(**rules),
        random=lambda: 1.0,
    )


async def sell(store: Store, *numbers: int) -> None:
    for number in numbers:
        await store.accept(sale(number))


async def drain(lane: Lane, *, steps: int = 200) -> int:
    """Step until nothing is due. Returns the pause that the lane asks for."""
    for _ in range(steps):
        pause = await lane.step()
        if pause:
            return pause
    pytest.fail("the lane never came to rest")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_all_that_is_pending_leaves_in_one_call(lane: Lane, store: Store, events_api: EventsApi) -> None:
    await sell(store, *range(50))

    await drain(lane)

    assert await events_api.orders() == [f"order_{number}" for number in range(50)]
    assert (await events_api.stats())["requests"] == 1


async def test_what_was_accepted_is_not_sent_again(lane: Lane, store: Store, events_api: EventsApi) -> None:
    await sell(store, 1)
    await drain(lane)

    await drain(lane)

    assert len(await events_api.received()) == 1
    assert [row.state for row in await store.events()] == [EventState.SENT]


async def test_a_batch_is_never_longer_than_its_limit(
    client: OpenAnalytics, store: Store, metrics: Metrics, clock: Clock, events_api: EventsApi
) -> None:
    await sell(store, *range(7))

    await drain(make_lane(client, store, metrics, clock, batch_size=3))

    assert (await events_api.stats())["requests"] == 3
    assert len(await events_api.received()) == 7


async def test_one_poisoned_event_does_not_hold_back_its_batch(
    lane: Lane, store: Store, events_api: EventsApi, metrics: Metrics
) -> None:
    await store.accept(arrival(*(mapped(number, purchase(number)) for number in range(1000))))
    await events_api.misbehave(reject={"property": {"order_id": "order_333"}})

    await drain(lane)

    (dead,) = await store.events(state=EventState.DEAD)
    assert orjson.loads(dead.payload)["properties"]["order_id"] == "order_333"
    assert dead.reason
    assert len(set(await events_api.orders())) == len(await events_api.orders()) == 999
    assert (await events_api.stats())["requests"] <= 2 * 10 + 1
    assert value(metrics, "relay_events_dead_total", destination="default") == 1


async def test_a_batch_that_is_too_large_is_halved_and_the_size_remembered(
    lane: Lane, store: Store, events_api: EventsApi
) -> None:
    await events_api.misbehave(max_bytes=4000)
    await sell(store, *range(20))

    await drain(lane)

    assert len(await events_api.received()) == 20
    size = (await store.destination("default")).batch_size
    assert size is not None
    assert size < 20


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 425])
async def test_not_now_means_the_same_batch_again_later(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock, status: int
) -> None:
    await sell(store, 1)
    await events_api.misbehave(status=status, times=1)

    assert await drain(lane) > 0
    assert await events_api.received() == []
    assert [f"{status}: "] == [str(batch.words)[:5] for batch in await store.open_batches()]
    clock.advance(seconds=2)
    await drain(lane)

    assert await events_api.orders() == ["order_1"]


async def test_retry_after_is_obeyed(lane: Lane, store: Store, events_api: EventsApi, clock: Clock) -> None:
    await sell(store, 1)
    await events_api.misbehave(status=429, retry_after="120", times=1)
    await drain(lane)

    clock.advance(seconds=119)
    await drain(lane)
    assert (await events_api.stats())["requests"] == 1
    clock.advance(seconds=2)
    await drain(lane)

    assert await events_api.orders() == ["order_1"]


async def test_three_days_of_outage_lose_nothing_and_double_nothing(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
) -> None:
    await events_api.misbehave(status=503)
    for hour in range(72):
        await sell(store, hour)
        for _ in range(12):
            await drain(lane)
            clock.advance(seconds=300)
    await events_api.behave()
    clock.advance(seconds=600)

    while any(depth.pending + depth.batched for depth in await store.depths()):
        await drain(lane)
        clock.advance(seconds=60)

    assert sorted(await events_api.orders()) == sorted(f"order_{hour}" for hour in range(72))
    assert value(metrics, "relay_events_sent_total", destination="default") == 72
    assert value(metrics, "relay_attempts_total", destination="default", answer="503") <= 72 * 12


async def test_an_event_is_given_up_after_the_limit_and_kept_as_a_dead_letter(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock
) -> None:
    await sell(store, 1)
    await events_api.misbehave(status=503)
    await drain(lane)
    clock.advance(days=7, seconds=120)

    await drain(lane)

    (dead,) = await store.events(state=EventState.DEAD)
    assert "7 days" in (dead.reason or "")
    await events_api.behave()
    await store.resend([dead.id])
    clock.advance(seconds=600)
    await drain(lane)
    assert await events_api.orders() == ["order_1"]


class TestTheWrongKey:
    @pytest.fixture
    def api_key(self) -> str:
        return "oa_live_wrong"

    async def test_it_pauses_the_destination_and_gives_nothing_up(
        self, lane: Lane, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
    ) -> None:
        await sell(store, 1, 2)

        await drain(lane)

        paused = (await store.destination("default")).paused
        assert paused is not None
        assert paused.startswith("401")
        assert value(metrics, "relay_destination_paused", destination="default") == 1
        clock.advance(days=1)
        await drain(lane)
        assert await store.events(state=EventState.DEAD) == []
        assert await events_api.received() == []

    async def test_another_replica_does_not_try_what_one_found_closed(
        self, lane: Lane, client: OpenAnalytics, store: Store, clock: Clock, metrics: Metrics, events_api: EventsApi
    ) -> None:
        other = make_lane(client, store, metrics, clock)
        await drain(other)  # it knows the destination as it was
        await sell(store, 1)
        await drain(lane)
        calls = (await events_api.stats())["requests"]
        clock.advance(seconds=2)

        await drain(other)

        assert calls == (await events_api.stats())["requests"]

    async def test_it_resumes_by_itself_when_a_probe_succeeds(
        self, lane: Lane, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
    ) -> None:
        await sell(store, 1)
        await drain(lane)
        clock.advance(seconds=31)
        async with OpenAnalytics(events_api.url, "42", API_KEY, timeout_s=2, clock=clock) as client:
            await drain(make_lane(client, store, metrics, clock))

        assert await events_api.orders() == ["order_1"]
        assert (await store.destination("default")).paused is None


async def test_a_batch_that_was_claimed_before_a_standstill_is_left_to_the_others(
    client: OpenAnalytics, store: Store, metrics: Metrics, clock: Clock, events_api: EventsApi
) -> None:
    standing_still = make_lane(client, store, metrics, clock, lease_ms=0)
    await sell(store, 1)

    assert 0 == await standing_still.step()

    assert [] == await events_api.received()
    await drain(make_lane(client, store, metrics, clock))
    assert ["order_1"] == await events_api.orders()
    assert [1] == [row.doubts for row in await store.events()]


async def test_a_missing_batch_endpoint_means_one_by_one(lane: Lane, store: Store, events_api: EventsApi) -> None:
    await events_api.misbehave(close_batch=True)
    await sell(store, *range(5))

    await drain(lane)

    assert sorted(await events_api.orders()) == [f"order_{number}" for number in range(5)]
    assert (await store.destination("default")).single


async def test_a_dropped_answer_is_in_doubt_and_the_same_batch_goes_again_under_the_same_key(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
) -> None:
    await sell(store, 1, 2)
    await events_api.misbehave(drop_answer=True, times=1)
    await drain(lane)
    await sell(store, 3)
    clock.advance(seconds=5)

    await drain(lane)

    assert sorted(await events_api.orders()) == ["order_1", "order_1", "order_2", "order_2", "order_3"]
    assert value(metrics, "relay_events_in_doubt_total", destination="default") == 2
    assert sorted(row.doubts for row in await store.events()) == [0, 1, 1]


async def test_where_the_api_honours_the_key_a_dropped_answer_doubles_nothing(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock
) -> None:
    await sell(store, 1, 2)
    await events_api.misbehave(drop_answer=True, times=1, honor_idempotency=True)
    await drain(lane)
    clock.advance(seconds=5)

    await drain(lane)

    assert sorted(await events_api.orders()) == ["order_1", "order_2"]


class TestHolding:
    @pytest.fixture
    def hold(self) -> bool:
        return True

    async def test_in_doubt_is_left_to_a_person_and_others_go_on(
        self, lane: Lane, store: Store, events_api: EventsApi, clock: Clock
    ) -> None:
        await sell(store, 1)
        await events_api.misbehave(drop_answer=True, times=1)
        await drain(lane)
        await sell(store, 2)
        clock.advance(days=1)

        await drain(lane)

        assert await events_api.orders() == ["order_1", "order_2"]
        assert [batch.state for batch in await store.open_batches()] == ["held"]


async def test_an_event_that_makes_the_api_fail_does_not_hold_the_others_for_ever(
    client: OpenAnalytics, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
) -> None:
    """The API answers 500 to whatever batch holds the bad one; fresh batches pass meanwhile."""
    lane = make_lane(client, store, metrics, clock)
    await sell(store, *range(8))
    await events_api.misbehave(reject={"property": {"order_id": "order_3"}, "status": 400})

    await drain(lane)

    assert len(await events_api.received()) == 7


async def test_an_open_breaker_spares_a_destination_that_is_down(
    lane: Lane, store: Store, events_api: EventsApi, clock: Clock, metrics: Metrics
) -> None:
    await events_api.misbehave(status=503)
    for number in range(30):
        await sell(store, number)
        await drain(lane)
        clock.advance(ms=10)

    assert value(metrics, "relay_attempts_total", destination="default", answer="503") <= 6
    assert value(metrics, "relay_destination_breaker_open", destination="default") == 1
