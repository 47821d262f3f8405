"""The chores beside receiving and forwarding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from relay.contract import Draft, Notification, Person
from relay.metrics import Metrics
from relay.operating import Disk, Keeper, Retention, remap
from relay.settings import load
from relay.sources import Source
from relay.store.base import Store
from relay.store.schema import Outcome
from tests import acme
from tests.things import Clock, arrival, mapped, purchase, sale

pytestmark = pytest.mark.anyio


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make_keeper(
    store: Store, metrics: Metrics, clock: Clock, woken: list[str], tmp_path: Path
) -> Callable[..., Keeper]:
    """One of this owner."""

    def make(owner: str | None = None) -> Keeper:
        return Keeper(
            store=store,
            metrics=metrics,
            clock=clock,
            wake=woken.append,
            disk=Disk(tmp_path, min_free_mb=0),
            retention=Retention(bodies_days=7, keys_days=90),
            owner=owner,
        )

    return make


@pytest.fixture
def keeper(make_keeper: Callable[..., Keeper]) -> Keeper:
    return make_keeper()


async def test_overdue_events_are_let_go_and_their_lane_is_woken(
    keeper: Keeper, store: Store, clock: Clock, woken: list[str]
) -> None:
    waiting = purchase(1, person=Person(customer_id="1"), joins=("customer:1",), waits=True)
    await store.accept(arrival(mapped(1, waiting, wait_until_ms=clock() + 5000)))
    await keeper.tick()
    assert woken == []

    clock.advance(seconds=6)
    await keeper.tick()

    assert woken == ["default"]


async def test_what_is_older_than_the_retention_goes(keeper: Keeper, store: Store, clock: Clock) -> None:
    for number in range(3):
        await store.accept(sale(number))
    batch = await store.claim("default", limit=10, lease_ms=1000, owner="me")
    assert batch is not None
    await store.sent(batch)
    clock.advance(days=91)

    await keeper.tick()

    assert await store.events() == []


async def test_the_gauges_show_the_outbox(keeper: Keeper, store: Store, clock: Clock, metrics: Metrics) -> None:
    await store.accept(sale(1))
    clock.advance(seconds=90)

    await keeper.depths()

    labels = {"destination": "default"}
    assert metrics.registry.get_sample_value("relay_outbox_oldest_seconds", labels) == 90
    assert metrics.registry.get_sample_value("relay_outbox_events", {**labels, "state": "pending"}) == 1


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_of_several_replicas_one_counts_and_another_one_does_once_it_is_silent(
    make_keeper: Callable[..., Keeper], store: Store, clock: Clock
) -> None:
    first, second = make_keeper("first"), make_keeper("second")

    async def counted_by(keeper: Keeper, number: int) -> bool:
        """Whether a tick of this one counts a sale that came some seconds ago."""
        await store.accept(sale(number))
        clock.advance(seconds=8)
        before = await store.bookmarks("counted:")
        await keeper.tick()
        return await store.bookmarks("counted:") != before

    assert await counted_by(first, 1)
    assert not await counted_by(second, 2)
    assert await counted_by(first, 3)
    clock.advance(seconds=20)
    assert await counted_by(second, 4)
    assert not await counted_by(first, 5)


def test_a_disk_with_room_is_no_trouble_and_a_full_one_is(tmp_path: Path) -> None:
    assert Disk(tmp_path, min_free_mb=1).trouble() is None
    assert "MB" in (Disk(tmp_path, min_free_mb=10**9).trouble() or "")


class TestRemap:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        environ = {"RELAY_ACME_SECRET": "acme_1", "OAA_API_KEY": "oa_live_1", "OAA_PROJECT_ID": "42"}
        return load({"acme": acme.make()}, environ=environ, env_file=tmp_path / "none").sources["acme"]

    async def keep(self, store: Store, outcome: Outcome, number: int = 1) -> None:
        body = orjson.dumps(acme.captured(number, notification=f"evt_{number}"))
        await store.accept(arrival(mapped(number, outcome=outcome), source="acme", body=body))

    async def test_what_was_parked_is_mapped_once_the_mapper_works(self, store: Store, source: Source) -> None:
        await self.keep(store, Outcome.FAILED)

        done = [await remap(store, sources={"acme": source}, providers={"acme": acme.make()}) for _ in range(2)]

        assert [(one.deliveries, one.events) for one in done] == [(1, 1), (0, 0)]
        assert len(await store.events()) == 1

    async def test_a_type_that_gets_a_mapper_later_is_mapped_then(self, store: Store, source: Source) -> None:
        provider = acme.make()

        @provider.on("invented.later")
        def later(n: Notification) -> list[Draft]:
            return [purchase(n.id)]

        body = orjson.dumps({"id": "evt_1", "type": "invented.later"})
        await store.accept(arrival(mapped(1, outcome=Outcome.NOT_MAPPED), source="acme", body=body))

        done = await remap(store, sources={"acme": source}, providers={"acme": provider})

        assert (done.notifications, done.events, done.still_parked) == (1, 1, 0)

    async def test_what_still_fails_stays_and_is_counted(self, store: Store, source: Source) -> None:
        await store.accept(
            arrival(mapped(1, outcome=Outcome.FAILED), source="acme",
                    body=b'{"id":"evt_1","type":"payment.captured"}')
        )  # fmt: skip

        done = await remap(store, sources={"acme": source}, providers={"acme": acme.make()})

        assert (done.deliveries, done.events, done.still_parked) == (1, 0, 1)
        assert len(await store.unmapped(outcome=Outcome.FAILED)) == 1

    async def test_what_still_fails_beside_what_is_mapped_now_stays(self, store: Store, source: Source) -> None:
        fixed, broken = acme.captured(1, notification="evt_1"), {"id": "evt_2", "type": "payment.captured"}
        parked = [mapped(number, outcome=Outcome.FAILED) for number in (1, 2)]
        await store.accept(arrival(*parked, source="acme", body=orjson.dumps([fixed, broken])))

        done = await remap(store, sources={"acme": source}, providers={"acme": acme.make()})

        assert (done.notifications, done.events, done.still_parked) == (1, 1, 1)
        assert [list(kept.notifications) for kept in await store.unmapped(outcome=Outcome.FAILED)] == [["evt_2"]]

    async def test_a_source_that_is_gone_leaves_its_deliveries_alone(self, store: Store) -> None:
        await self.keep(store, Outcome.FAILED)

        done = await remap(store, sources={}, providers={})

        assert done.deliveries == 0
        assert len(await store.unmapped(outcome=Outcome.FAILED)) == 1

    async def test_a_body_that_could_not_be_read_is_mapped_under_its_own_ids_later(
        self, store: Store, source: Source
    ) -> None:
        unreadable = mapped("unreadable", outcome=Outcome.FAILED)
        await store.accept(arrival(unreadable, source="acme", body=orjson.dumps(acme.captured(1))))

        done = await remap(store, sources={"acme": source}, providers={"acme": acme.make()})

        assert done.events == 1
        assert await store.unmapped(outcome=Outcome.FAILED) == []
