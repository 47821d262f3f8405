"""Mapping again: what is missing is sent, what was sent is not sent again, and what differs is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relay.contract import Draft, Notification, Person, Provider, conversion
from relay.money import from_minor
from relay.replaying import Replayed, replay
from relay.store.base import Store
from relay.store.replays import Difference, Scope
from relay.store.schema import EventState
from tests import acme
from tests.conftest import EventsApi, RunningRelay, RunRelay, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def mapper(*, factor: int = 1, name: str = "purchase", once: str = "payment", more: bool = False) -> Any:
    def purchase(n: Notification) -> Iterator[Draft]:
        payment = n.body["payment"]
        kept: dict[str, Any] = {"at_ms": payment["captured_at"] * 1000, "person": Person(email=payment["email"])}
        yield conversion(
            name, once=f"{once}:{payment['id']}", revenue=from_minor(payment["amount"] * factor, payment["currency"]),
            currency=payment["currency"], properties={"order_id": payment["id"]}, **kept,
        )  # fmt: skip
        if more:
            yield conversion("first_purchase", once=f"first:{payment['id']}", properties={"order_id": "f"}, **kept)

    return purchase


def provider(**changes: Any) -> Provider:
    made = acme.make()
    made.mappers["payment.captured"] = mapper(**changes)
    return made


async def again(
    relay: RunningRelay, with_: Provider, *, commits: bool = True, **scope: Any
) -> tuple[list[Difference], Replayed]:
    done = Replayed()
    settings = relay.app.state.parts.settings
    found = [
        one
        async for one in replay(relay.store, Scope(**scope), sources=settings.sources, providers={"acme": with_},
                                commits=commits, done=done)
    ]  # fmt: skip
    return found, done


async def sent(store: Store, number: int) -> None:
    async def all_sent() -> bool:
        return [EventState.SENT] * number == [event.state for event in await store.events()]

    await until(all_sent)


async def test_the_same_mapper_changes_nothing(relay: RunningRelay, events_api: EventsApi) -> None:
    for number in range(3):
        await relay.post(acme.captured(number))
    await sent(relay.store, 3)

    found, done = await again(relay, acme.make())

    assert ([], 3, 0) == (found, done.deliveries, done.events)
    assert 3 == len(await relay.store.events())
    assert [] == await relay.store.duplicates()


async def test_an_event_that_a_mapper_makes_by_now_is_sent_once(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))
    await sent(relay.store, 1)
    look, nothing = await again(relay, provider(more=True), commits=False)
    assert (["new"], 0, 1) == ([one.kind for one in look], nothing.events, len(await relay.store.events()))

    found, done = await again(relay, provider(more=True))
    assert (["new"], 1) == ([one.kind for one in found], done.events)
    await sent(relay.store, 2)
    assert ["pay_1", "f"] == await events_api.orders()

    assert [] == (await again(relay, provider(more=True)))[0]


async def test_what_was_sent_wrongly_is_listed_and_not_sent_again(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))
    await sent(relay.store, 1)

    (one,), done = await again(relay, provider(factor=2))

    assert ("changed", "sent", 0) == (one.kind, one.state, done.events)
    assert {"revenue": (19.99, 39.98)} == one.fields
    assert 1 == len(await events_api.received())


async def test_a_sale_under_another_key_is_not_doubled(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))
    await sent(relay.store, 1)

    found, done = await again(relay, provider(once="charge"))

    assert (["changed", "gone"], 0) == ([one.kind for one in found], done.events)
    assert 1 == len(await relay.store.events())


async def test_a_sale_that_was_sent_under_a_wrong_key_is_known_by_the_right_one_from_then_on(
    run_relay: RunRelay, events_api: EventsApi
) -> None:
    wrong, right = provider(once="charge"), acme.make()
    async with run_relay({"acme": wrong}) as relay:
        await relay.post(acme.captured(1))
        await sent(relay.store, 1)
    async with run_relay({"acme": right}) as relay:
        await again(relay, right)
        found, _ = await again(relay, right)
        await relay.post(acme.captured(1, notification="ntf_again"))

        assert [] == found
        assert [1, 1] == [len(await relay.store.events()), len(await relay.store.duplicates())]
    assert ["pay_1"] == await events_api.orders()


async def test_a_sale_that_was_counted_twice_is_listed_once(run_relay: RunRelay, events_api: EventsApi) -> None:
    wrong, right = provider(), acme.make()
    wrong.mappers["payment.captured"] = lambda n: mapper(once=n.id)(n)
    async with run_relay({"acme": wrong}) as relay:
        await relay.post(acme.captured(1))
        await relay.post(acme.captured(1, notification="ntf_again"))
        await sent(relay.store, 2)
        looked, _ = await again(relay, right, commits=False)
        done, _ = await again(relay, right)
        left, replayed = await again(relay, right)

    expected = [("changed", "ntf_1"), ("gone", "ntf_1"), ("gone", "ntf_again")]
    assert [expected, expected] == [[(one.kind, one.notification_id) for one in found] for found in (looked, done)]
    assert ([("gone", "ntf_again")], 0) == ([(one.kind, one.notification_id) for one in left], replayed.events)
    assert 2 == len(await events_api.received())


async def test_a_dead_letter_is_put_right_and_sent(run_relay: RunRelay, events_api: EventsApi) -> None:
    await events_api.misbehave(status=422)
    async with run_relay() as relay:
        await relay.post(acme.captured(1))

        async def is_dead() -> bool:
            return bool(await relay.store.events(state=EventState.DEAD))

        await until(is_dead)
        await events_api.behave()
        (one,), _ = await again(relay, provider(factor=2))
        await sent(relay.store, 1)

        assert "corrected" == one.kind
        assert [39.98] == [event["revenue"] for event in await events_api.received()]


async def test_what_was_parked_is_mapped_and_leaves_the_list(run_relay: RunRelay, events_api: EventsApi) -> None:
    broken = acme.make()
    del broken.mappers["payment.captured"]
    async with run_relay({"acme": broken}) as relay:
        await relay.post(acme.captured(1))
        await again(relay, acme.make())
        await sent(relay.store, 1)
        (told,) = await relay.store.console.find("ntf_1")

        assert "mapped" == told.outcome


async def test_two_notifications_of_one_sale_are_new_once(run_relay: RunRelay, events_api: EventsApi) -> None:
    broken = acme.make()
    del broken.mappers["payment.captured"]
    async with run_relay({"acme": broken}) as relay:
        await relay.post(acme.captured(1))
        await relay.post(acme.captured(1, notification="ntf_1_again"))
        look, _ = await again(relay, acme.make(), commits=False)
        await again(relay, acme.make())
        await sent(relay.store, 1)

        assert ["new"] == [one.kind for one in look]


async def test_a_scope_is_kept(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))
    scopes: list[dict[str, Any]] = [{"source": "other"}, {"types": ("x",)}, {"since_ms": 1 << 41}]

    assert [0, 0, 0] == [(await again(relay, acme.make(), **scope))[1].deliveries for scope in scopes]
