"""What every store promises (`relay.store.base`), on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from secrets import token_bytes
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, event, text

from relay.contract import Forgotten, Learned, Person, Variant
from relay.identity import hash_email
from relay.store import open_store
from relay.store.base import Arrival, Batch, Bookmark, DestinationState, Inboxed, Mapped, Store, Verified
from relay.store.bodies import read
from relay.store.schema import EventState, Outcome
from relay.vault import Vault
from tests.conftest import STORE_KEY
from tests.things import DAY, NOON, Clock, arrival, mapped, purchase, sale

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def claim(store: Store, limit: int = 1000, owner: str = "me", destination: str = "default") -> Batch:
    batch = await store.claim(destination, limit=limit, lease_ms=60_000, owner=owner)
    assert batch is not None
    return batch


async def nothing_to_claim(store: Store) -> bool:
    return await store.claim("default", limit=1000, lease_ms=60_000, owner="me") is None


def orders(batch: Batch) -> list[str]:
    return [orjson.loads(event.payload)["properties"]["order_id"] for event in batch.events]


async def states(store: Store) -> dict[str, EventState]:
    return {orjson.loads(row.payload)["properties"]["order_id"]: row.state for row in await store.events()}


def taken(number: int, **fields: Any) -> Verified:
    """A delivery as the receiver hands it over."""
    given = {"source": "shop", "received_at_ms": NOON, "secret": 0, "headers": {"x-number": str(number)},
             "body": b"%d" % number}  # fmt: skip
    return Verified(**{**given, **fields})


def unboxed(one: Inboxed, *notifications: Mapped) -> Arrival:
    """What was made of a delivery of the inbox."""
    return replace(arrival(*notifications), delivery=one.delivery, headers=one.headers, body=one.body)


class TestTheInbox:
    async def test_what_was_taken_is_there_when_the_store_opens_again(
        self, store: Store, database_url: str, clock: Clock
    ) -> None:
        await store.take(taken(1, secret=1))
        await store.close()

        again = await open_store(database_url, vault=Vault([STORE_KEY]), clock=clock)
        (found,) = await again.inbox(limit=10)
        await again.close()

        assert (found.source, found.secret, found.headers, found.body) == ("shop", 1, {"x-number": "1"}, b"1")
        assert found.received_at_ms == NOON

    async def test_the_oldest_come_first_and_no_more_than_fit(self, store: Store) -> None:
        for number in range(5):
            await store.take(taken(number))

        assert [one.body for one in await store.inbox(limit=3)] == [b"0", b"1", b"2"]

    async def test_large_ones_come_a_few_at_a_time(self, store: Store) -> None:
        await asyncio.gather(*(store.take(taken(number, body=token_bytes(900_000))) for number in range(4)))

        assert len(await store.inbox(limit=100)) < 4

    async def test_it_leaves_with_the_commit_of_its_events(self, store: Store) -> None:
        await store.take(taken(1))
        (found,) = await store.inbox(limit=10)

        (receipt,) = await store.unbox([found], [unboxed(found, mapped(1, purchase(1)))])

        assert (receipt.new, receipt.events, receipt.destinations) == (1, 1, {"default"})
        assert await store.inbox(limit=10) == []
        assert await states(store) == {"order_1": EventState.PENDING}

    async def test_one_that_was_committed_and_had_not_left_yet_is_told_once(self, store: Store) -> None:
        await store.take(taken(1))
        (found,) = await store.inbox(limit=10)
        await store.unbox([found], [unboxed(found, mapped(1, purchase(1)))])

        (again,) = await store.unbox([found], [unboxed(found, mapped(1, purchase(1)))])

        assert (again.new, again.repeated, again.events) == (0, 1, 0)
        assert len(await store.events()) == 1

    async def test_its_body_can_be_read_back_to_be_mapped_again(self, store: Store) -> None:
        await store.take(taken(7))
        (found,) = await store.inbox(limit=10)

        await store.unbox([found], [unboxed(found, mapped(7, outcome=Outcome.NOT_MAPPED))])

        (kept,) = await store.unmapped(outcome=Outcome.NOT_MAPPED)
        assert (kept.delivery, kept.headers, kept.body) == (found.delivery, {"x-number": "7"}, b"7")

    async def test_one_that_the_store_cannot_take_is_kept_and_does_not_hold_up_the_others(self, store: Store) -> None:
        await store.take(taken(1))
        await store.take(taken(2))
        first, second = await store.inbox(limit=10)

        receipts = await store.unbox(
            [first, second], [unboxed(first, mapped("\ud800", purchase(1))), unboxed(second, mapped(2, purchase(2)))]
        )

        assert [receipt.events for receipt in receipts] == [0, 1]
        assert await store.inbox(limit=10) == []
        (kept,) = await store.unmapped(outcome=Outcome.FAILED)
        assert kept.body == b"1"

    async def test_bodies_that_came_together_are_kept_together_and_read_one_by_one(self, store: Store) -> None:
        await asyncio.gather(*(store.take(taken(number)) for number in range(5)))
        found = await store.inbox(limit=10)

        await store.unbox(found, [unboxed(one, mapped(int(one.body), purchase(int(one.body)))) for one in found])

        with store._reading.connect() as connection:  # type: ignore[attr-defined]
            kept = [read(connection, Vault([STORE_KEY]), one.delivery) for one in found]
        assert kept == [(one.headers, one.body) for one in found]

    async def test_what_the_retention_keeps_not_is_gone_with_its_bundle(self, store: Store, clock: Clock) -> None:
        await asyncio.gather(store.take(taken(1)), store.take(taken(2)))
        first, second = await store.inbox(limit=10)
        parked = unboxed(second, mapped(2, outcome=Outcome.NOT_MAPPED))
        await store.unbox([first, second], [unboxed(first, mapped(1, purchase(1))), parked])
        clock.now_ms += 8 * DAY

        while await store.prune(bodies_before_ms=NOON + 7 * DAY, keys_before_ms=NOON - DAY):
            pass

        with store._reading.connect() as connection:  # type: ignore[attr-defined]
            kept = [read(connection, Vault([STORE_KEY]), one.delivery) for one in (first, second)]
        assert kept == [None, (second.headers, second.body)]

    async def test_one_whose_key_is_gone_waits_for_its_key(self, store: Store, database_url: str, clock: Clock) -> None:
        await store.take(taken(1))
        await store.close()

        clock.advance(seconds=1)
        other = await open_store(database_url, vault=Vault([b"o" * 32]), clock=clock)
        await other.take(taken(2))
        for _ in range(2):
            assert [one.body for one in await other.inbox(limit=10)] == [taken(2).body]
        assert (await other.inbox_depth()).deliveries == 2
        await other.close()

        again = await open_store(database_url, vault=Vault([b"o" * 32, STORE_KEY]), clock=clock)
        found = await again.inbox(limit=10)
        await again.close()

        assert [one.body for one in found] == [taken(1).body, taken(2).body]


class TestAccepting:
    async def test_a_sale_becomes_one_pending_event(self, store: Store) -> None:
        receipt = await store.accept(sale(1))

        assert (receipt.new, receipt.events, receipt.destinations) == (1, 1, {"default"})
        assert await states(store) == {"order_1": EventState.PENDING}

    async def test_the_same_notification_twice_becomes_one_event(self, store: Store) -> None:
        await store.accept(sale(1))

        again = await store.accept(sale(1))

        assert (again.new, again.repeated, again.events) == (0, 1, 0)
        assert len(await store.events()) == 1

    async def test_the_same_notification_twice_in_one_commit_becomes_one_event(self, store: Store) -> None:
        receipts = await asyncio.gather(*(store.accept(sale(1)) for _ in range(50)))

        assert sum(receipt.events for receipt in receipts) == 1
        assert len(await store.events()) == 1

    async def test_one_sale_told_by_two_notifications_is_one_event_and_a_recorded_duplicate(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, purchase(1))))

        receipt = await store.accept(arrival(mapped(2, purchase(1))))

        assert (receipt.new, receipt.events, receipt.duplicates) == (1, 0, 1)
        assert len(await store.events()) == 1

    async def test_a_duplicate_makes_its_other_keys_names_of_the_same_fact(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, purchase(1, once=("checkout:1", "payment:1")))))
        await store.accept(arrival(mapped(2, purchase(1, once=("payment:1", "charge:1")))))

        receipt = await store.accept(arrival(mapped(3, purchase(1, once="charge:1"))))

        assert (receipt.events, receipt.duplicates) == (0, 1)

    async def test_a_duplicate_is_shown_with_the_event_that_counts(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, purchase(1))))
        await store.accept(arrival(mapped(2, purchase(1))))
        (event,) = await store.events()

        (duplicate,) = await store.duplicates()

        assert (duplicate.notification_id, duplicate.key, duplicate.event_id) == ("evt_2", "payment:1", event.event_id)
        assert await store.duplicates(event_id=event.event_id) == [duplicate]
        assert await store.duplicates(event_id="evt_other") == []

    async def test_the_same_key_at_two_sources_is_two_facts(self, store: Store) -> None:
        await store.accept(sale(1))

        receipt = await store.accept(arrival(mapped(1, purchase(1)), source="other-shop"))

        assert receipt.events == 1

    async def test_two_events_of_one_notification_are_both_kept(self, store: Store) -> None:
        receipt = await store.accept(arrival(mapped(1, purchase(1), purchase(2))))

        assert receipt.events == 2

    async def test_a_delivery_of_a_thousand_notifications_is_one_commit(self, store: Store) -> None:
        receipt = await store.accept(arrival(*(mapped(number, purchase(number)) for number in range(1000))))

        assert (receipt.new, receipt.events) == (1000, 1000)

    async def test_many_at_once_share_commits_and_none_is_lost(self, store: Store) -> None:
        receipts = await asyncio.gather(*(store.accept(sale(number)) for number in range(500)))

        assert sum(receipt.events for receipt in receipts) == 500
        assert (await store.depths())[0].pending == 500

    async def test_what_comes_at_once_is_one_transaction(self, store: Store) -> None:
        engine: Engine = store._writer._connect.__self__  # type: ignore[attr-defined]
        begun: list[object] = []
        event.listen(engine, "begin", begun.append)

        await asyncio.gather(*(store.accept(sale(number)) for number in range(20)))

        assert 1 == len(begun)

    async def test_one_arrival_that_cannot_be_written_does_not_take_others_with_it(self, store: Store) -> None:
        broken = arrival(mapped(1, purchase(1)), secret=object())

        results = await asyncio.gather(store.accept(broken), store.accept(sale(2)), return_exceptions=True)

        assert isinstance(results[0], Exception)
        assert await states(store) == {"order_2": EventState.PENDING}


class TestForwarding:
    async def test_a_batch_holds_up_to_the_limit_in_the_order_of_arrival(self, store: Store) -> None:
        for number in range(5):
            await store.accept(sale(number))

        first, second = await claim(store, limit=3), await claim(store, limit=3)

        assert orders(first) == ["order_0", "order_1", "order_2"]
        assert orders(second) == ["order_3", "order_4"]
        assert await nothing_to_claim(store)

    async def test_another_destinations_events_are_not_in_it(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, purchase(1), destination="test")))

        assert await nothing_to_claim(store)
        assert orders(await claim(store, destination="test")) == ["order_1"]

    async def test_what_was_sent_is_settled(self, store: Store) -> None:
        await store.accept(sale(1))
        batch = await claim(store)

        assert await store.sent(batch)

        assert await states(store) == {"order_1": EventState.SENT}
        assert not await store.sent(batch)

    async def test_a_retry_is_the_same_batch_with_the_same_key(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        batch = await claim(store)
        await store.later(batch, due_at_ms=NOON + 5000, words="503")
        await store.accept(sale(2))

        assert orders(await claim(store)) == ["order_2"]
        assert await nothing_to_claim(store)
        assert await store.next_due("default") == NOON + 5000
        clock.advance(ms=5000)
        again = await claim(store)

        assert (again.id, again.idempotency_key, again.attempts) == (batch.id, batch.idempotency_key, 1)
        assert orders(again) == ["order_1"]

    async def test_a_lost_lease_settles_nothing(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        frozen = await claim(store, owner="frozen")
        clock.advance(seconds=61)
        other = await claim(store, owner="other")

        assert not await store.sent(frozen)
        assert await store.sent(other)

    async def test_a_batch_whose_lease_ran_out_is_in_doubt(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        await claim(store, owner="dead")
        clock.advance(seconds=61)

        await claim(store, owner="other")

        assert [row.doubts for row in await store.events()] == [1]

    async def test_in_doubt_is_counted_and_retried_under_the_same_key(self, store: Store) -> None:
        await store.accept(sale(1))
        batch = await claim(store)

        await store.in_doubt(batch, due_at_ms=NOON, words="no answer")
        again = await claim(store)

        assert again.idempotency_key == batch.idempotency_key
        assert (await store.depths())[0].doubted == 1

    async def test_recovery_puts_what_a_dead_process_was_sending_in_doubt(self, store: Store) -> None:
        await store.accept(sale(1))
        await claim(store, owner="dead process")

        assert await store.recover(owner="new process") == 1
        assert orders(await claim(store)) == ["order_1"]
        assert [row.doubts for row in await store.events()] == [1]

    async def test_halves_hold_what_the_whole_held(self, store: Store) -> None:
        for number in range(5):
            await store.accept(sale(number))
        whole = await claim(store)

        await store.split(whole, first=2, words="400")
        halves = [await claim(store), await claim(store)]

        assert [orders(half) for half in halves] == [["order_0", "order_1"], ["order_2", "order_3", "order_4"]]
        assert len({whole.idempotency_key, *(half.idempotency_key for half in halves)}) == 3

    async def test_a_refused_event_is_a_dead_letter_with_the_words_and_can_be_sent_again(self, store: Store) -> None:
        await store.accept(sale(1))
        await store.refuse(await claim(store), reason="event_name is too long")

        (dead,) = await store.events(state=EventState.DEAD)
        assert dead.reason == "event_name is too long"
        assert await store.resend([dead.id]) == {"default"}
        assert orders(await claim(store)) == ["order_1"]

    async def test_some_of_a_batch_can_be_given_up_while_the_rest_goes_on(self, store: Store, clock: Clock) -> None:
        for number in range(3):
            await store.accept(sale(number))
        batch = await claim(store)

        await store.refuse(batch, reason="too old", only=[batch.events[0].id], due_at_ms=NOON + 1)
        clock.advance(ms=1)

        rest = await claim(store)
        assert orders(rest) == ["order_1", "order_2"]
        assert rest.idempotency_key != batch.idempotency_key, "one key stands for one composition"
        assert (await states(store))["order_0"] is EventState.DEAD

    async def test_what_is_known_of_a_destination_is_kept(self, store: Store) -> None:
        state = DestinationState(paused="401: no such key", probe_at_ms=NOON, batch_size=500, single=True)

        assert await store.destination("default") == DestinationState()
        await store.set_destination("default", DestinationState(batch_size=1))
        await store.set_destination("default", state)

        assert await store.destination("default") == state


class TestHolding:
    @pytest.fixture
    def hold(self) -> bool:
        return True

    async def test_a_batch_in_doubt_waits_for_a_person(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        batch = await claim(store)
        await store.in_doubt(batch, due_at_ms=NOON, words="no answer")
        clock.advance(days=1)

        assert await nothing_to_claim(store)
        assert (await store.depths())[0].held == 1

    @pytest.mark.parametrize(("accepted", "then"), [(True, EventState.SENT), (False, EventState.BATCHED)])
    async def test_a_person_decides(self, store: Store, *, accepted: bool, then: EventState) -> None:
        await store.accept(sale(1))
        batch = await claim(store)
        await store.in_doubt(batch, due_at_ms=NOON, words="no answer")

        assert await store.settle_held(batch.id, accepted=accepted)

        assert await states(store) == {"order_1": then}
        assert not await store.settle_held(batch.id, accepted=accepted)


def customer(email: str, *keys: str, marks: Sequence[str] = ()) -> Learned:
    return Learned(keys=keys, person=Person(email=email), metadata={"utm_source": "news"}, marks=tuple(marks))


class TestJoining:
    async def test_what_was_learned_before_completes_an_event(self, store: Store) -> None:
        known = customer("known@example.com", "customer:1")
        await store.accept(arrival(mapped(1, learned=[known])))
        await store.accept(
            arrival(mapped(2, purchase(2, person=Person(customer_id="1"), joins=("customer:1",), waits=True),
                           wait_until_ms=NOON + 1000))
        )  # fmt: skip
        named = await store.accept(sale(3, person=Person(email="known@example.com")))

        users = {orjson.loads(event.payload)["user_id"] for event in (await claim(store)).events}

        assert named.events == 1
        assert len(users) == 1

    async def test_an_event_waits_for_the_fact_and_leaves_when_it_comes(self, store: Store) -> None:
        waiting = purchase(1, person=Person(customer_id="1"), joins=("customer:1",), waits=True)
        receipt = await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))
        assert (receipt.events, receipt.destinations) == (1, set())
        assert await nothing_to_claim(store)

        receipt = await store.accept(arrival(mapped(2, learned=[customer("late@example.com", "customer:1")])))

        assert receipt.destinations == {"default"}
        payload = orjson.loads((await claim(store)).events[0].payload)
        assert payload["properties"]["utm_source"] == "news"

    async def test_it_leaves_without_the_fact_when_the_deadline_is_over(self, store: Store, clock: Clock) -> None:
        waiting = purchase(1, person=Person(customer_id="1"), joins=("customer:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        assert await store.release_overdue() == set()
        clock.advance(ms=1000)
        assert await store.release_overdue() == {"default"}

        assert orders(await claim(store)) == ["order_1"]

    async def test_the_first_payment_after_a_trial_becomes_its_variant_and_the_second_does_not(
        self, store: Store
    ) -> None:
        variants = {"trial": Variant(name="trial_converted", once="trial_converted:s")}
        trial = customer("a@example.com", "subscription:s", marks=["trial"])
        await store.accept(arrival(mapped(1, learned=[trial])))
        for number in (2, 3):
            await store.accept(arrival(mapped(number, purchase(number, joins=("subscription:s",), variants=variants))))

        names = [orjson.loads(event.payload)["event_name"] for event in (await claim(store)).events]

        assert names == ["trial_converted", "purchase"]

    async def test_a_waiting_event_takes_its_keys_when_it_leaves_so_that_another_may_tell_the_fact_first(
        self, store: Store, clock: Clock
    ) -> None:
        waiting = purchase(1, joins=("origin:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        told = await store.accept(arrival(mapped(2, purchase(1, properties={"order_id": "from_the_invoice"}))))
        clock.advance(ms=1000)

        assert (told.events, told.duplicates) == (1, 0)
        assert await store.release_overdue() == set()
        assert orders(await claim(store)) == ["from_the_invoice"]
        assert len(await store.events()) == 1

    async def test_of_two_that_wait_to_tell_the_same_one_leaves(self, store: Store, clock: Clock) -> None:
        for number in (1, 2):
            waiting = purchase(1, joins=("origin:1",), waits=True)
            await store.accept(arrival(mapped(number, waiting, wait_until_ms=NOON + 1000)))
        clock.advance(ms=1000)

        await store.release_overdue()

        assert orders(await claim(store)) == ["order_1"]

    async def test_a_mark_of_its_entity_makes_an_event_a_duplicate_of_what_is_told_elsewhere(
        self, store: Store
    ) -> None:
        waiting = purchase(1, joins=("origin:1",), waits=True, unless=("of_invoice",))
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        await store.accept(arrival(mapped(2, learned=[Learned(keys=("origin:1",), marks=("of_invoice",))])))
        late = await store.accept(arrival(mapped(3, waiting, wait_until_ms=NOON + 1000)))

        assert await nothing_to_claim(store)
        assert late.duplicates == 1

    async def test_only_the_first_of_its_joins_ends_the_wait(self, store: Store) -> None:
        waiting = purchase(1, joins=("subscription:1", "customer:1"), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        await store.accept(arrival(mapped(2, learned=[customer("a@example.com", "customer:1")])))
        assert await nothing_to_claim(store)
        await store.accept(arrival(mapped(3, learned=[Learned(keys=("subscription:1",))])))

        payload = orjson.loads((await claim(store)).events[0].payload)
        assert payload["properties"]["utm_source"] == "news"

    async def test_the_wait_ends_when_all_that_it_is_for_is_known(self, store: Store) -> None:
        waiting = purchase(1, joins=("trial:1", "origin:1"), waits=True, waits_for=("origin:1",))
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        await store.accept(arrival(mapped(2, learned=[Learned(keys=("trial:1",))])))
        assert await nothing_to_claim(store)
        await store.accept(arrival(mapped(3, learned=[customer("a@example.com", "origin:1")])))

        assert orders(await claim(store)) == ["order_1"]

    async def test_somebody_whom_the_site_does_not_know_ends_no_wait(self, store: Store) -> None:
        waiting = purchase(1, person=Person(), joins=("payment:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        learned = Learned(keys=("payment:1",), person=Person(customer_id="1"))
        await store.accept(arrival(mapped(2, learned=[learned])))
        assert await nothing_to_claim(store)
        await store.accept(arrival(mapped(3, learned=[customer("a@example.com", "payment:1")])))

        assert orders(await claim(store)) == ["order_1"]

    async def test_what_a_customer_was_known_for_is_known_of_the_next_payment(self, store: Store) -> None:
        site = Learned(keys=("customer:1",), person=Person(external_id="user_42"))
        await store.accept(arrival(mapped(1, learned=[site])))
        await store.accept(arrival(mapped(2, learned=[customer("a@example.com", "payment:1", "customer:1")])))

        sale = purchase(3, person=Person(external_id="user_42"))
        refund = purchase(4, person=Person(), joins=("payment:1",), waits=True)
        await store.accept(arrival(mapped(3, sale), mapped(4, refund, wait_until_ms=NOON + 1000)))

        users = {orjson.loads(event.payload)["user_id"] for event in (await claim(store)).events}
        assert len(users) == 1

    async def test_a_link_and_what_waits_for_it_may_come_in_one_commit(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, learned=[customer("a@example.com", "invoice:1")])))

        link = arrival(mapped(2, learned=[Learned(keys=("invoice:1", "payment:1"), same=True)]))
        waiting = purchase(3, person=Person(), joins=("payment:1",), waits=True)
        await asyncio.gather(store.accept(link), store.accept(arrival(mapped(3, waiting, wait_until_ms=NOON + 1000))))

        payload = orjson.loads((await claim(store)).events[0].payload)
        assert (payload["user_id"] is not None, payload["properties"]["utm_source"]) == (True, "news")

    @pytest.mark.parametrize("link_comes_first", [True, False])
    async def test_what_is_learned_of_one_name_of_a_thing_is_known_of_all(
        self, store: Store, *, link_comes_first: bool
    ) -> None:
        link = Learned(keys=("invoice:1", "payment:1"), same=True)
        facts = [link, customer("late@example.com", "invoice:1")]
        for number, fact in enumerate(facts if link_comes_first else reversed(facts)):
            await store.accept(arrival(mapped(number, learned=[fact])))

        await store.accept(arrival(mapped(9, purchase(9, person=Person(), joins=("payment:1",)))))

        payload = orjson.loads((await claim(store)).events[0].payload)
        assert payload["user_id"] == hash_email("late@example.com")


async def user_behind(store: Store, key: str, number: int) -> tuple[str | None, str | None]:
    """Whose an event is that joins only this, and where they came from."""
    await store.accept(arrival(mapped(number, purchase(number, person=Person(), joins=(key,)))))
    payload = orjson.loads((await claim(store)).events[-1].payload)
    return payload.get("user_id"), payload["properties"].get("utm_source")


class TestFollowing:
    """A deal is like its contact, who may have other deals, and of whom it may not be the only one."""

    link = Learned(keys=("deal:1",), like=("contact:1",))

    @pytest.mark.parametrize("link_comes_first", [True, False])
    async def test_what_follows_gets_to_know_what_it_is_like(self, store: Store, *, link_comes_first: bool) -> None:
        facts = [self.link, customer("a@example.com", "contact:1")]
        for number, fact in enumerate(facts if link_comes_first else reversed(facts)):
            await store.accept(arrival(mapped(number, learned=[fact])))

        assert await user_behind(store, "deal:1", 9) == (hash_email("a@example.com"), "news")

    async def test_both_may_come_in_one_commit(self, store: Store) -> None:
        facts = [arrival(mapped(1, learned=[self.link])), arrival(mapped(2, learned=[customer("a@b.c", "contact:1")]))]
        await asyncio.gather(*map(store.accept, facts))

        assert await user_behind(store, "deal:1", 9) == (hash_email("a@b.c"), "news")

    async def test_it_tells_nothing_back(self, store: Store) -> None:
        for number, fact in enumerate([self.link, customer("other@example.com", "deal:1", marks=["told"])]):
            await store.accept(arrival(mapped(number, learned=[fact])))

        assert await user_behind(store, "contact:1", 9) == (None, None)
        assert await user_behind(store, "deal:1", 10) == (hash_email("other@example.com"), "news")

    async def test_a_mark_is_of_the_thing_itself(self, store: Store) -> None:
        trial = customer("a@example.com", "contact:1", marks=["told"])
        for number, fact in enumerate([self.link, trial]):
            await store.accept(arrival(mapped(number, learned=[fact])))
        told = await store.accept(arrival(mapped(9, purchase(9, joins=("deal:1",), unless=("told",)))))

        assert (told.events, told.duplicates) == (1, 0)

    async def test_an_event_that_waits_for_it_leaves_when_the_other_is_known(self, store: Store) -> None:
        waiting = purchase(1, person=Person(), joins=("deal:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))
        await store.accept(arrival(mapped(2, learned=[self.link])))
        assert await nothing_to_claim(store)

        await store.accept(arrival(mapped(3, learned=[customer("a@example.com", "contact:1")])))

        assert orders(await claim(store)) == ["order_1"]

    async def test_a_link_alone_is_no_answer(self, store: Store) -> None:
        waiting = purchase(1, person=Person(), joins=("contact:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))
        await store.accept(arrival(mapped(2, learned=[self.link])))

        assert await nothing_to_claim(store)

    async def test_names_of_one_thing_are_followed_together(self, store: Store) -> None:
        merged = Learned(keys=("contact:1", "contact:2"), same=True)
        for number, fact in enumerate([self.link, merged, customer("a@example.com", "contact:2")]):
            await store.accept(arrival(mapped(number, learned=[fact])))

        assert await user_behind(store, "deal:1", 9) == (hash_email("a@example.com"), "news")

    async def test_it_is_heard_along_a_chain_and_around_a_ring(self, store: Store) -> None:
        links = [Learned(keys=(f"link:{n}",), like=(f"link:{(n + 1) % 3}",)) for n in range(3)]
        for number, fact in enumerate([*links, customer("a@example.com", "link:2")]):
            await store.accept(arrival(mapped(number, learned=[fact])))

        assert await user_behind(store, "link:0", 9) == (hash_email("a@example.com"), "news")


class TestForgetting:
    link = Learned(keys=("deal:1",), like=("contact:1",))

    async def told(self, store: Store, *facts: Learned | Forgotten) -> None:
        for number, fact in enumerate(facts):
            await store.accept(arrival(mapped(f"fact_{number}", learned=[fact])))

    async def test_nobody_is_known_any_more(self, store: Store) -> None:
        await self.told(store, customer("a@example.com", "contact:1"), Forgotten(keys=("contact:1",)))

        assert await user_behind(store, "contact:1", 9) == (None, None)

    async def test_nor_under_another_name_of_theirs_nor_behind_what_followed_them(self, store: Store) -> None:
        merged = Learned(keys=("contact:1", "contact:2"), same=True)
        known = customer("a@example.com", "contact:1")
        await self.told(store, self.link, merged, known, Forgotten(keys=("contact:2",)))

        assert await user_behind(store, "contact:1", 8) == (None, None)
        assert await user_behind(store, "deal:1", 9) == (None, None)

    async def test_what_followed_them_and_is_somebody_elses_stays(self, store: Store) -> None:
        other = customer("other@example.com", "deal:1")
        await self.told(store, self.link, customer("a@example.com", "contact:1"), other, Forgotten(keys=("contact:1",)))

        assert await user_behind(store, "deal:1", 9) == (hash_email("other@example.com"), "news")

    async def test_of_whom_nothing_is_known_there_is_nothing_to_forget(self, store: Store) -> None:
        await self.told(store, Forgotten(keys=("contact:1",)))

        assert await user_behind(store, "contact:1", 9) == (None, None)

    async def test_who_comes_back_is_known_again(self, store: Store) -> None:
        known = customer("a@example.com", "contact:1")
        await self.told(store, known, Forgotten(keys=("contact:1",)), known)

        assert await user_behind(store, "contact:1", 9) == (hash_email("a@example.com"), "news")


class TestKeeping:
    async def test_a_parked_delivery_is_read_back_and_mapped_later(self, store: Store) -> None:
        parked = mapped(1, outcome=Outcome.FAILED, error="KeyError: 'amount'")
        await store.accept(arrival(parked, body=b'{"odd":1}', headers={"x-id": "1"}))

        (kept,) = await store.unmapped(outcome=Outcome.FAILED)
        receipt = await store.remap(kept, [mapped(1, purchase(1))])

        assert (kept.body, kept.headers, kept.source) == (b'{"odd":1}', {"x-id": "1"}, "shop")
        assert (receipt.new, receipt.events) == (1, 1)
        assert await store.unmapped(outcome=Outcome.FAILED) == []

    async def test_mapping_twice_tells_once(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, outcome=Outcome.NOT_MAPPED)))
        (kept,) = await store.unmapped(outcome=Outcome.NOT_MAPPED)

        receipts = [await store.remap(kept, [mapped(1, purchase(1))]) for _ in range(2)]

        assert [receipt.events for receipt in receipts] == [1, 0]

    async def test_a_body_is_kept_for_the_parked_even_where_none_is_kept(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, outcome=Outcome.FAILED), keep_body=False))

        assert len(await store.unmapped(outcome=Outcome.FAILED)) == 1

    async def test_bodies_go_before_keys_and_keys_outlive_them(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        await store.sent(await claim(store))
        clock.advance(days=8)

        await self.prune(store, clock)

        assert (await store.accept(sale(1))).repeated == 1

    async def test_what_is_older_than_the_keys_is_gone(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        await store.sent(await claim(store))
        clock.advance(days=91)

        assert await self.prune(store, clock) > 0

        assert await store.events() == []
        with store._reading.connect() as connection:  # type: ignore[attr-defined]
            assert 0 == connection.execute(text("SELECT count(*) FROM payloads")).scalar()
        assert (await store.accept(sale(1))).new == 1

    async def test_what_is_not_sent_stays_however_old(self, store: Store, clock: Clock) -> None:
        await store.accept(sale(1))
        clock.advance(days=365)

        await self.prune(store, clock)

        assert orders(await claim(store)) == ["order_1"]
        assert (await store.accept(sale(1))).events == 0

    async def test_a_parked_body_stays_as_long_as_its_keys(self, store: Store, clock: Clock) -> None:
        await store.accept(arrival(mapped(1, outcome=Outcome.NOT_MAPPED)))
        clock.advance(days=30)

        await self.prune(store, clock)

        assert len(await store.unmapped(outcome=Outcome.NOT_MAPPED)) == 1

    async def prune(self, store: Store, clock: Clock) -> int:
        total = 0
        while pruned := await store.prune(bodies_before_ms=clock() - 7 * DAY, keys_before_ms=clock() - 90 * DAY):
            total += pruned
        return total

    async def test_an_event_is_found_by_its_row_and_by_its_id(self, store: Store) -> None:
        await store.accept(sale(1))
        (row,) = await store.events()

        assert await store.events(reference=str(row.id)) == [row]
        assert await store.events(reference=row.event_id) == [row]
        assert await store.events(reference="evt_other") == []


class TestLookingUp:
    async def test_an_event_is_found_by_every_key_that_leads_to_it(self, store: Store) -> None:
        await store.accept(arrival(mapped(1, purchase(1, once=("checkout:1", "payment:1")))))
        await store.accept(arrival(mapped(2, purchase(1, once=("payment:1", "charge:1")))))
        (row,) = await store.events()

        found = await store.holders("shop", ["checkout:1", "charge:1", "charge:2"])

        assert found == {"checkout:1": row, "charge:1": row}
        assert await store.holders("other-shop", ["checkout:1"]) == {}
        assert await store.once_keys([row.id, 1]) == {row.id: ("charge:1", "checkout:1", "payment:1")}

    async def test_an_event_that_waits_is_found_by_the_keys_that_it_will_take(self, store: Store) -> None:
        waiting = purchase(1, person=Person(customer_id="1"), joins=("customer:1",), waits=True)
        await store.accept(arrival(mapped(1, waiting, wait_until_ms=NOON + 1000)))

        found = await store.holders("shop", ["payment:1", "payment:2"])

        assert {"payment:1": EventState.WAITING} == {key: row.state for key, row in found.items()}

    async def test_thousands_are_looked_up_at_once(self, store: Store) -> None:
        await store.accept(arrival(*(mapped(number, purchase(number)) for number in range(1200))))

        found = await store.holders("shop", [f"payment:{number}" for number in range(2000)])
        listed = await store.revenue_events("shop", since_ms=NOON, until_ms=NOON + 1)

        assert (1200, 1200) == (len(found), len(listed))
        assert 1200 == len(await store.once_keys([row.id for row in listed]))

    async def test_revenue_is_listed_by_the_time_of_the_fact(self, store: Store, clock: Clock) -> None:
        clock.advance(days=3)  # told late
        times = {"before": NOON - 1, "first": NOON, "last": NOON + DAY - 1, "after": NOON + DAY}
        for name, at_ms in times.items():
            await store.accept(sale(name, at_ms=at_ms))
        await store.accept(sale("free", revenue=None, currency=None))
        await store.accept(arrival(mapped("other", purchase("other")), source="other-shop"))

        listed = await store.revenue_events("shop", since_ms=NOON, until_ms=NOON + DAY)

        assert ["order_first", "order_last"] == [orjson.loads(row.payload)["properties"]["order_id"] for row in listed]

    async def test_a_bookmark_is_kept_moved_and_forgotten(self, store: Store, clock: Clock) -> None:
        assert await store.bookmark("backfill:shop") is None
        await store.set_bookmark("backfill:shop", "page 1")
        clock.advance(seconds=1)
        await store.set_bookmark("backfill:shop", "page 2")
        await store.set_bookmark("backfill:shop-eu", "page 7")

        assert await store.bookmark("backfill:shop") == Bookmark("page 2", NOON + 1000)
        assert {"backfill:shop", "backfill:shop-eu"} == set(await store.bookmarks("backfill:"))
        await store.set_bookmark("backfill:shop", None)
        assert await store.bookmark("backfill:shop") is None
