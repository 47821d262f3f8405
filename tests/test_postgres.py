"""Several replicas on one PostgreSQL: what they do at the same moment, and what they do without a database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from urllib.parse import urlencode

import orjson
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from relay.contract import Learned, Person
from relay.identity import hash_email
from relay.operating import beside
from relay.store import open_bell, open_store
from relay.store.base import Arrival, DestinationState, Inboxed, Mapped, Receipt, Store, StoreUnavailableError, Verified
from relay.store.database import Database
from relay.store.intake import Posted, Repeated, Taken
from relay.store.postgres_inbox import PostgresInbox
from relay.store.preparing import prepare_postgres
from relay.store.schema import EventState
from relay.vault import Vault
from tests import postgres_server
from tests.conftest import STORE_KEY, until
from tests.lifeline import Lifeline
from tests.things import NOON, Clock, arrival, mapped, purchase, sale

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend() -> str:
    return "postgresql"


Open = Callable[..., Awaitable[Sequence[Store]]]


@pytest.fixture
async def replicas(database_url: str, clock: Clock) -> AsyncIterator[Open]:
    """Opens so many stores on the same database."""
    opened: list[Store] = []

    async def several(number: int, *, url: str = database_url) -> Sequence[Store]:
        stores = [await open_store(url, vault=Vault([STORE_KEY]), clock=clock) for _ in range(number)]
        opened.extend(stores)
        return stores

    yield several
    for store in opened:
        await store.close()


def taken(number: int, **values: object) -> Verified:
    given = {"source": "shop", "received_at_ms": NOON, "secret": 0, "headers": {}, "body": b"%d" % number}
    return Verified(**{**given, **values})  # type: ignore[arg-type]


def told(one: Inboxed) -> Arrival:
    """A sale whose number is the body."""
    number = int(one.body)
    return replace(arrival(mapped(number, purchase(number))), delivery=one.delivery, headers=one.headers, body=one.body)


async def unfold(store: Store) -> list[Receipt]:
    """Map all that is left, as a replica does."""
    receipts: list[Receipt] = []
    while found := await store.inbox(limit=16):
        receipts += await store.unbox(found, [told(one) for one in found])
    return receipts


def sums(receipts: Sequence[Receipt]) -> tuple[int, int]:
    return sum(one.events for one in receipts), sum(one.repeated for one in receipts)


def told_at(place: int, number: int) -> Mapped:
    """A sale with two keys, told under an id of this place."""
    return mapped(f"{number}_{place}", purchase(number, once=(f"a:{number}", f"b:{number}")))


class TestTheSameAtOnce:
    async def test_a_notification_that_comes_to_four_replicas_is_one_event(self, replicas: Open) -> None:
        stores = await replicas(4)

        receipts = await asyncio.gather(
            *(store.accept(sale(number)) for number in range(1000) for store in stores)
        )  # fmt: skip

        assert (1000, 3000) == sums(receipts)
        assert 1000 == (await stores[0].depths())[0].pending

    async def test_a_fact_that_is_told_by_other_notifications_at_four_replicas_is_one_event(
        self, replicas: Open
    ) -> None:
        stores = await replicas(4)

        receipts = await asyncio.gather(
            *(
                store.accept(arrival(told_at(place, number)))
                for number in range(100)
                for place, store in enumerate(stores)
            )
        )

        assert 100 == sum(one.events for one in receipts)
        assert 300 == sum(one.duplicates for one in receipts)
        assert 300 == len(await stores[0].duplicates(limit=1000))

    async def test_the_same_webhook_taken_by_four_replicas_is_mapped_to_one_event(self, replicas: Open) -> None:
        stores = await replicas(4)
        await asyncio.gather(*(store.take(taken(number)) for number in range(1000) for store in stores))

        receipts = await asyncio.gather(*(unfold(store) for store in stores))

        assert (1000, 3000) == sums([receipt for some in receipts for receipt in some])
        assert 1000 == (await stores[0].depths())[0].pending

    async def test_crosswise_keys_do_not_lock_replicas_for_good(self, replicas: Open) -> None:
        stores = await replicas(4)

        def group(backwards: bool, number: int) -> Arrival:  # noqa: FBT001
            numbers = [number * 10 + place for place in range(10)]
            return arrival(*(mapped(one, purchase(one)) for one in (reversed(numbers) if backwards else numbers)))

        receipts = await asyncio.gather(
            *(store.accept(group(place % 2 == 1, number)) for number in range(30) for place, store in enumerate(stores))
        )

        assert (300, 900) == sums(receipts)

    async def test_what_replicas_learn_about_one_thing_is_all_known(self, replicas: Open) -> None:
        stores = await replicas(4)
        facts = [
            Learned(keys=("customer:1",), metadata={name: f"of {name}"}, person=Person())
            for name in ("utm_source", "utm_medium", "utm_campaign", "utm_term")
        ]

        await asyncio.gather(
            *(store.accept(arrival(mapped(place, learned=[facts[place]]))) for place, store in enumerate(stores))
        )
        await stores[0].accept(arrival(mapped(9, purchase(9, joins=("customer:1",)))))

        (row,) = await stores[0].events()
        known = orjson.loads(row.payload)["properties"]
        assert {fact_name: f"of {fact_name}" for fact_name in
                ("utm_source", "utm_medium", "utm_campaign", "utm_term")}.items() <= known.items()  # fmt: skip

    async def test_no_wait_is_missed_however_close_learner_and_waiter_are(self, replicas: Open) -> None:
        waiting, learning = await replicas(2)

        async def once(number: int) -> None:
            waits = purchase(number, person=Person(), joins=(f"customer:{number}",), waits=True)
            fact = Learned(keys=(f"customer:{number}",), person=Person(email="late@example.com"))
            await asyncio.gather(
                waiting.accept(arrival(mapped(f"w{number}", waits, wait_until_ms=NOON + 1000))),
                learning.accept(arrival(mapped(f"l{number}", learned=[fact]))),
            )

        for number in range(150):
            await once(number)

        rows = await waiting.events(limit=1000)
        assert {EventState.PENDING} == {row.state for row in rows}
        assert {hash_email("late@example.com")} == {orjson.loads(row.payload)["user_id"] for row in rows}

    async def test_two_that_learn_half_of_what_an_event_waits_for_release_it(self, replicas: Open) -> None:
        stores = await replicas(2)
        for number in range(60):
            keys = (f"a:{number}", f"b:{number}")
            waits = purchase(number, person=Person(), joins=keys, waits=True, waits_for=keys)
            await stores[0].accept(arrival(mapped(f"w{number}", waits, wait_until_ms=NOON + 1000)))
            facts = [Learned(keys=(key,), person=Person(email="late@example.com")) for key in keys]
            await asyncio.gather(
                *(store.accept(arrival(mapped(f"{fact.keys[0]}", learned=[fact])))
                  for store, fact in zip(stores, facts, strict=True))
            )  # fmt: skip

        assert {EventState.PENDING} == {row.state for row in await stores[0].events(limit=1000)}


class TestSideBySide:
    async def test_one_of_several_leads(self, replicas: Open, clock: Clock) -> None:
        stores = await replicas(4)

        async def leaders() -> int:
            return sum(
                await asyncio.gather(
                    *(store.lead("leads:it", owner=str(place), lease_ms=1000) for place, store in enumerate(stores))
                )
            )

        assert 1 == await leaders()
        assert 1 == await leaders()
        clock.advance(ms=1001)
        assert 1 == await leaders()

    async def test_a_call_with_a_key_that_comes_to_four_replicas_is_taken_once(self, replicas: Open) -> None:
        stores = await replicas(4)

        def posted(number: int) -> Posted:
            return Posted(arrival=sale(number), key=f"key_{number}", digest=b"d", answer=b"a")

        outcomes = await asyncio.gather(
            *(store.intake.take(posted(number)) for number in range(50) for store in stores)
        )

        assert (50, 150) == tuple(sum(isinstance(one, kind) for one in outcomes) for kind in (Taken, Repeated))
        assert 50 == (await stores[0].depths())[0].pending

    async def test_replicas_map_different_deliveries(self, replicas: Open) -> None:
        first, second = await replicas(2)
        for number in range(4):
            await first.take(taken(number))

        mine = await first.inbox(limit=2)
        theirs = await second.inbox(limit=10)

        assert [[b"0", b"1"], [b"2", b"3"]] == [[one.body for one in found] for found in (mine, theirs)]

    async def test_one_that_dies_leaves_its_deliveries_to_the_others(self, replicas: Open) -> None:
        first, second = await replicas(2)
        await first.take(taken(1))
        await first.inbox(limit=10)
        assert [] == list(await second.inbox(limit=10))

        await first.close()

        assert [b"1"] == [one.body for one in await second.inbox(limit=10)]

    async def test_one_that_was_frozen_beyond_its_lease_changes_nothing_when_it_wakes(self, replicas: Open) -> None:
        (other,) = await replicas(1)
        (frozen,) = await replicas(1)
        frozen._inbox._lease = "300ms"  # type: ignore[attr-defined]
        await frozen.take(taken(1))
        found = await frozen.inbox(limit=10)

        async def is_free() -> bool:
            return bool(await other.inbox(limit=10))

        await until(is_free)
        assert (1, 0) == sums(await unfold(other))
        with pytest.raises(StoreUnavailableError):
            await frozen.unbox(found, [told(one) for one in found])

        assert (0, 1) == sums(await frozen.unbox(found, [told(one) for one in found]))
        assert 1 == len(await other.events())

    async def test_claims_never_overlap_and_leave_nothing_out(self, replicas: Open) -> None:
        stores = await replicas(4)
        await asyncio.gather(*(stores[0].accept(sale(number)) for number in range(400)))

        async def drain(store: Store, owner: str) -> list[int]:
            ids: list[int] = []
            while batch := await store.claim("default", limit=30, lease_ms=60_000, owner=owner):
                ids += [event.id for event in batch.events]
                assert await store.sent(batch)
            return ids

        drained = await asyncio.gather(*(drain(store, str(place)) for place, store in enumerate(stores)))

        ids = [row_id for some in drained for row_id in some]
        assert (400, 400) == (len(ids), len(set(ids)))

    async def test_a_lease_that_is_renewed_is_kept(self, replicas: Open, clock: Clock) -> None:
        mine, other = await replicas(2)
        await mine.accept(sale(1))
        batch = await mine.claim("default", limit=10, lease_ms=1000, owner="me")
        assert batch is not None

        clock.advance(ms=900)
        await mine.renew(owner="me", lease_ms=1000)
        clock.advance(ms=900)

        assert await other.claim("default", limit=10, lease_ms=1000, owner="other") is None
        assert await mine.sent(batch)

    async def test_several_may_prune_and_release_at_once(self, replicas: Open, clock: Clock) -> None:
        stores = await replicas(4)
        await asyncio.gather(*(stores[0].accept(sale(number)) for number in range(300)))
        while batch := await stores[0].claim("default", limit=1000, lease_ms=60_000, owner="me"):
            await stores[0].sent(batch)
        clock.advance(days=91)

        async def prune(store: Store) -> None:
            while await store.prune(bodies_before_ms=clock(), keys_before_ms=clock()):
                await store.release_overdue()

        await asyncio.gather(*(prune(store) for store in stores))

        assert [] == list(await stores[0].events())


class TestStarting:
    async def test_replicas_that_start_at_once_migrate_once(self, postgres: str) -> None:
        with postgres_server.database(postgres, "relay_test_migrating") as url:
            await asyncio.gather(*(asyncio.to_thread(prepare_postgres, Database(url)) for _ in range(4)))

            with Database(url).engine().connect() as connection:
                assert 1 == connection.execute(text("SELECT count(*) FROM alembic_version")).scalar()

    async def test_a_replica_that_is_older_than_the_database_starts_and_is_ready(
        self, database_url: str, replicas: Open
    ) -> None:
        await replicas(1)
        with psycopg.connect(database_url, autocommit=True) as connection:
            (newest,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            try:
                (older,) = await replicas(1)
                await older.check()
            finally:
                connection.execute("UPDATE alembic_version SET version_num = %s", [newest])


class TestTheDatabaseAway:
    @asynccontextmanager
    async def cut(self, url: str) -> AsyncIterator[tuple[str, Lifeline]]:
        async with Lifeline(url) as line:
            yield line.url, line

    async def test_a_delivery_is_refused_at_once_and_taken_when_it_is_back(
        self, replicas: Open, database_url: str
    ) -> None:
        async with self.cut(database_url) as (url, line):
            (store,) = await replicas(1, url=url)
            await store.take(taken(1))
            line.cut()

            for number in (2, 3):
                with pytest.raises(StoreUnavailableError):
                    await asyncio.wait_for(store.take(taken(number)), 2)
            line.mend()

            async def is_back() -> bool:
                try:
                    await store.take(taken(4))
                except StoreUnavailableError:
                    return False
                return True

            await until(is_back)
            assert [b"1", b"4"] == [one.body for one in await store.inbox(limit=10)]

    async def test_one_that_does_not_answer_is_not_waited_for(
        self, replicas: Open, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relay.store.postgres_inbox._PATIENCE_S", 0.2)
        monkeypatch.setattr("relay.store.postgres_inbox._STUCK_S", 0.1)
        async with self.cut(database_url) as (url, line):
            (store,) = await replicas(1, url=url)
            await store.take(taken(1))
            line.hold()
            waiting = asyncio.create_task(store.take(taken(2)))
            await asyncio.sleep(0.15)

            with pytest.raises(StoreUnavailableError, match="some seconds"):
                await store.take(taken(3))
            with pytest.raises(StoreUnavailableError, match="within"):
                await waiting
            line.let_go()

            await store.take(taken(4))

    async def test_what_was_sent_is_settled_when_it_is_back(self, replicas: Open, database_url: str) -> None:
        async with self.cut(database_url) as (url, line):
            (store,) = await replicas(1, url=url)
            await store.accept(sale(1))
            batch = await store.claim("default", limit=10, lease_ms=60_000, owner="me")
            assert batch is not None
            line.cut()
            settling = asyncio.create_task(store.sent(batch))
            await asyncio.sleep(0.1)
            line.mend()

            assert await settling
            assert [EventState.SENT] == [row.state for row in await store.events()]

    async def test_a_database_that_is_read_only_is_an_outage_and_no_fault_of_the_delivery(
        self, replicas: Open, database_url: str
    ) -> None:
        (store,) = await replicas(1)
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            try:
                with pytest.raises(StoreUnavailableError, match="read-only"):
                    await store.take(taken(1))
                with pytest.raises(StoreUnavailableError, match="read-only"):
                    await store.accept(sale(1))
            finally:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

        assert 1 == (await store.accept(sale(1))).events

    async def test_a_database_without_a_free_connection_is_an_outage_and_taken_up_when_there_is_one(
        self, replicas: Open, postgres: str
    ) -> None:
        with (
            postgres_server.database(postgres, "relay_test_full") as url,
            psycopg.connect(url, autocommit=True) as operator,
        ):
            operator.execute("CREATE ROLE few LOGIN PASSWORD 'few'")
            operator.execute("ALTER DATABASE relay_test_full OWNER TO few")
            try:
                as_few = {**conninfo_to_dict(url), "user": "few", "password": "few"}
                (store,) = await replicas(1, url="postgresql://?" + urlencode(as_few))
                operator.execute("ALTER ROLE few CONNECTION LIMIT 0")
                with pytest.raises(StoreUnavailableError, match="too many connections"):
                    await store.take(taken(1))
                operator.execute("ALTER ROLE few CONNECTION LIMIT 10")

                async def is_taken() -> bool:
                    with contextlib.suppress(StoreUnavailableError):
                        await store.take(taken(2))
                        return True
                    return False

                await until(is_taken)
                await store.close()
            finally:
                operator.execute("REASSIGN OWNED BY few TO CURRENT_USER")
                operator.execute("DROP OWNED BY few")
                operator.execute("DROP ROLE few")

    async def test_a_destination_that_one_replica_paused_is_paused_for_all(self, replicas: Open) -> None:
        first, second = await replicas(2)

        await first.set_destination("default", DestinationState(paused="401: no such key", probe_at_ms=NOON))

        assert "401: no such key" == (await second.destination("default")).paused

    async def test_connections_are_tried_at_moments_that_differ(self) -> None:
        now = 0.0
        tried: list[float] = []

        class Refused(Database):
            def attempt(self) -> None:
                with pytest.raises((psycopg.Error, StoreUnavailableError)) as raised:
                    self.connect()
                if isinstance(raised.value, psycopg.Error):
                    tried.append(now)

        database = Refused("postgresql://127.0.0.1:1/none", monotonic=lambda: now, draw=lambda: 1.0)
        while now < 10:
            database.attempt()
            now += 0.01

        gaps = [later - earlier for earlier, later in pairwise(tried)]
        assert [pytest.approx(gap, abs=0.02) for gap in (0.1, 0.2, 0.4, 0.8, 1.6)] == gaps[:5]
        assert pytest.approx(2.0, abs=0.02) == gaps[-1]


async def test_behind_a_pooler_everything_works_and_nobody_listens(database_url: str, replicas: Open) -> None:
    async with Lifeline(database_url, pools=True) as line:
        (store,) = await replicas(1, url=line.url)
        bell = open_bell(line.url)
        for number in range(12):
            await store.take(taken(number))

        assert (12, 0) == sums(await unfold(store))
        batch = await store.claim("default", limit=100, lease_ms=1000, owner="me")
        assert batch is not None
        assert await store.sent(batch)
        await asyncio.wait_for(bell.listening(lambda: None), 5)
        assert bell._database.is_pooled


async def test_a_bell_is_heard_by_another_replica(database_url: str, replicas: Open) -> None:
    await replicas(1)
    ringing, listening = open_bell(database_url), open_bell(database_url)
    heard = asyncio.Event()
    async with beside(listening.listening(heard.set)), beside(ringing.ringing()):
        await heard.wait()  # once at the beginning, for what was rung before
        heard.clear()

        async def is_heard() -> bool:
            ringing.ring()
            return heard.is_set()

        await until(is_heard)


async def test_a_key_that_is_too_long_for_an_index_is_kept_as_failed(replicas: Open) -> None:
    from secrets import token_hex  # noqa: PLC0415

    (store,) = await replicas(1)
    await store.take(taken(1))
    found = await store.inbox(limit=10)
    long = replace(told(found[0]), notifications=[mapped(token_hex(8000), purchase(1))])

    (receipt,) = await store.unbox(found, [long])

    assert (1, 0) == (receipt.new, receipt.events)


async def test_an_inbox_connection_uses_what_it_says(database_url: str, clock: Clock, replicas: Open) -> None:
    """A receiving replica has one connection for deliveries, and opens the others when it needs them."""
    (store,) = await replicas(1)
    assert isinstance(store._inbox, PostgresInbox)  # type: ignore[attr-defined]
    await asyncio.gather(*(store.take(taken(number)) for number in range(50)))

    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'relay'"
        ).fetchone()
    assert row is not None
    assert 1 == row[0]
