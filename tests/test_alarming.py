"""Alarms: what holds, what is told, and what is not told twice."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from relay.alarming import Alarming, Recipient
from relay.alarms import GAP, Kind, is_silent, usual_gap_ms
from relay.store.base import DestinationState, Store
from relay.store.rejected import Rejection
from tests.things import NOON, Clock, sale

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


HOUR = 3_600_000


class Chat:
    """Where messages go."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.messages.append(orjson.loads(request.content))
        return httpx.Response(self.status)


@pytest.fixture
def chat() -> Chat:
    return Chat()


def alarming(store: Store, clock: Clock, chat: Chat, *, owner: str = "me", trouble: str | None = None) -> Alarming:
    return Alarming(
        store=store, sources={"shop": None}, destinations=["default"], clock=clock,  # type: ignore[dict-item]
        trouble=lambda: trouble, owner=owner, recipient=Recipient(url="https://chat.example/hook", form="json"),
        http=httpx.AsyncClient(transport=httpx.MockTransport(chat)),
    )  # fmt: skip


async def paused(store: Store, words: str | None = "401 no such key") -> None:
    await store.set_destination("default", DestinationState(paused=words))


async def test_nothing_is_told_while_all_is_well(store: Store, clock: Clock, chat: Chat) -> None:
    assert [] == await alarming(store, clock, chat).tick()
    assert [] == chat.messages


async def test_an_alarm_is_told_once_it_has_held_for_two_looks_and_when_it_is_over(
    store: Store, clock: Clock, chat: Chat
) -> None:
    watch = alarming(store, clock, chat)
    await paused(store)
    for _ in range(4):
        await watch.tick()
        clock.advance(seconds=60)
    assert 1 == len(chat.messages)
    assert "401 no such key" in chat.messages[0]["text"]

    await paused(store, None)
    for _ in range(4):
        await watch.tick()
        clock.advance(seconds=60)

    assert [False, True] == [message["alarms"][0]["is_over"] for message in chat.messages]
    assert {} == await store.bookmarks("alarm:")


async def test_a_restart_tells_nothing_twice(store: Store, clock: Clock, chat: Chat) -> None:
    await paused(store)
    for owner in ("first", "first", "second", "second"):
        await alarming(store, clock, chat, owner=owner).tick()
        clock.advance(seconds=200)
    watch = alarming(store, clock, chat, owner="third")
    await watch.tick()

    assert len(chat.messages) <= 1


async def test_an_alarm_that_lasts_is_told_again_after_a_day(store: Store, clock: Clock, chat: Chat) -> None:
    watch = alarming(store, clock, chat)
    await paused(store)
    for _ in range(3):
        await watch.tick()
    clock.advance(days=1, seconds=1)
    await watch.tick()

    assert 2 == len(chat.messages)


async def test_a_message_that_was_not_taken_is_tried_again_but_not_for_ever(
    store: Store, clock: Clock, chat: Chat
) -> None:
    chat.status = 500
    watch = alarming(store, clock, chat)
    await paused(store)
    for _ in range(40):
        await watch.tick()
        clock.advance(seconds=30)

    assert 12 == len(chat.messages)


async def test_of_several_replicas_one_looks(store: Store, clock: Clock, chat: Chat) -> None:
    await paused(store)
    first, second = alarming(store, clock, chat, owner="one"), alarming(store, clock, chat, owner="two")

    assert [1, 0] == [len(await first.tick()), len(await second.tick())]
    clock.advance(seconds=151)
    assert [1, 0] == [len(await second.tick()), len(await first.tick())]


async def test_what_holds_is_found(store: Store, clock: Clock, chat: Chat) -> None:
    await store.accept(sale(1))
    batch = await store.claim("default", limit=1, lease_ms=1000, owner="me")
    assert batch is not None
    await store.refuse(batch, reason="bad")
    await store.accept(sale(2))
    await store.set_bookmark("reconciled:shop", '{"drift": {"EUR": "5.00"}}')
    await store.set_bookmark("shadow:shop", str(NOON + 5 * HOUR))
    await store.set_bookmark(GAP + "shop", str(HOUR))
    clock.advance(seconds=3 * 3600)
    wrong = Rejection(source="shop", reason="mismatch", cause="url", words="w", headers={}, query="", body=b"")
    await store.rejected.keep([wrong] * 3)

    found = await alarming(store, clock, chat, trouble="full").tick()

    wanted = {Kind.DISK, Kind.OUTBOX, Kind.DEAD, Kind.DRIFT, Kind.SHADOW, Kind.SILENT, Kind.SIGNATURES}
    assert wanted == {alarm.kind for alarm in found}


def test_silence_is_measured_by_what_is_usual() -> None:
    gap = usual_gap_ms([hour * HOUR for hour in (0, 1, 2, 12, 13, 14)])

    assert 10 * HOUR == gap
    assert (False, True) == (is_silent(0, gap, now_ms=20 * HOUR), is_silent(0, gap, now_ms=21 * HOUR))
    assert None is usual_gap_ms([0, HOUR])
    assert not is_silent(None, gap, now_ms=99 * HOUR)
