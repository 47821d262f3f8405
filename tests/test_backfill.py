"""Backfilling: what was dropped comes from Stripe's API, over HTTP from a stand-in, and nothing comes twice."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay import bookkeeping
from relay.backfilling import Backfilled, Stretch, backfill
from relay.bookkeeping import OpenBooks, books_of
from relay.books import BooksError
from relay.clock import unix_ms
from relay.contract import Delivery
from relay.serving import serving
from relay.sources import Source
from relay.store.base import Store
from relay.store.schema import Outcome
from relay.stripe_books import DECIMALS, StripeBooks
from tests import acme
from tests.commands import Commands
from tests.conftest import EventsApi, RunRelay, until
from tests.stripe_api import API_KEY, PROVIDERS, SECRET, STRIPE, StripeApi, bodies, deliver, source_of
from tests.things import DAY, NOON, Clock

pytestmark = pytest.mark.anyio

NOON_S = NOON // 1000
HOUR_S = 3600


@pytest.fixture
def api() -> StripeApi:
    return StripeApi()


@pytest.fixture
async def api_base(api: StripeApi) -> AsyncIterator[str]:
    async with serving(api.app) as served:
        yield served.url


@pytest.fixture
def source(api_base: str, tmp_path: Path) -> Source:
    return source_of(api_base, tmp_path)


@pytest.fixture
def waited() -> list[float]:
    """The seconds that the reader would have slept."""
    return []


@pytest.fixture
async def books(api_base: str, waited: list[float]) -> AsyncIterator[OpenBooks]:
    async with bookkeeping.opened(StripeBooks(API_KEY, api_base=api_base, sleep=waited.append)) as opened:
        yield opened


def days(count: float, *, types: Sequence[str] = (), accounts: Sequence[str] = ()) -> Stretch:
    """The last days before noon."""
    since_ms = NOON - int(count * DAY)
    return Stretch(since_ms=since_ms, until_ms=NOON, types=tuple(types), accounts=tuple(accounts))


async def run(
    books: OpenBooks, store: Store, source: Source, stretch: Stretch | None = None, **more: Any
) -> Backfilled:
    given = {"provider": STRIPE, "stretch": stretch or days(7), "clock": lambda: NOON, **more}
    return await backfill(books, store, source=source, **given)


async def orders(store: Store) -> list[str]:
    """What the events are about, in the order in which they came."""
    return [orjson.loads(row.payload)["properties"]["order_id"] for row in (await store.events(limit=10_000))[::-1]]


# --- what is missing, and nothing else --------------------------------------------------------------------------------


async def test_dropped_deliveries_are_sent_and_no_others(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    for number in range(10):
        api.sold(number, NOON_S - 5 * HOUR_S + number * 60)
    await deliver(store, source, *bodies(api, 0, 1, 2, 4, 5, 7, 8))

    done = await run(books, store, source)

    assert (10, 3, 3, 0) == (done.seen, done.new, done.events, done.duplicates)
    assert [f"pi_{number}" for number in (0, 1, 2, 4, 5, 7, 8, 3, 6, 9)] == await orders(store)


async def test_a_second_run_sends_nothing(api: StripeApi, books: OpenBooks, store: Store, source: Source) -> None:
    for number in range(5):
        api.sold(number, NOON_S - HOUR_S - number)
    await run(books, store, source)

    again = await run(books, store, source)

    assert (5, 0, 0, 0) == (again.seen, again.new, again.events, again.duplicates)
    assert 5 == len(await store.events())


async def test_a_sale_that_another_notification_told_is_not_sent_again(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.sold(1, NOON_S - HOUR_S)
    await deliver(store, source, {**told, "id": "evt_other"})

    done = await run(books, store, source)

    assert (1, 0, 1) == (done.new, done.events, done.duplicates)


async def test_the_oldest_comes_first(api: StripeApi, books: OpenBooks, store: Store, source: Source) -> None:
    """The first invoice after a trial is the conversion, so it must not be overtaken."""
    api.page = 3
    for number in range(20):
        api.sold(number, NOON_S - 6 * 86_400 + number * 7 * HOUR_S)

    await run(books, store, source)

    assert [f"pi_{number}" for number in range(20)] == await orders(store)


async def test_many_at_once_are_read_piece_by_piece(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    """A burst of more than are held in memory, and of more than that within one second."""
    for number in range(60):
        api.sold(number, NOON_S - 3 * HOUR_S + min(number, 30))

    done = await run(books, store, source, days(1), most=25)

    assert (60, 60) == (done.seen, done.events)


async def test_the_times_are_from_the_first_second_to_before_the_last(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    since_s = NOON_S - 7 * 86_400
    for number, at_s in enumerate([since_s - 1, since_s, NOON_S - 1, NOON_S]):
        api.sold(number, at_s - 1)  # Stripe says it a second later

    await run(books, store, source)

    assert ["pi_1", "pi_2"] == await orders(store)


async def test_only_the_types_that_were_asked_for(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.sold(1, NOON_S - HOUR_S)
    api.refunded(2, NOON_S - HOUR_S, of=1)
    api.billed(3, NOON_S - HOUR_S)

    two = await run(books, store, source, days(7, types=["refund.created", "invoice.paid"]))
    one = await run(books, store, source, days(7, types=["checkout.session.completed"]))

    assert (2, 1) == (two.seen, one.seen)
    assert {"type": "checkout.session.completed"}.items() <= api.requests[-1][1].items()


async def test_types_that_become_no_events_are_not_kept(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    """The webhook has the types that were ticked; the API has all that ever happens."""
    api.said(1, "payout.paid", {"id": "po_1"}, NOON_S - HOUR_S)
    api.said(2, "invoice.payment_succeeded", {"id": "in_1"}, NOON_S - HOUR_S)

    done = await run(books, store, source)

    assert (2, 2, 0) == (done.seen, done.left_out, done.new)
    assert [] == await store.unmapped(outcome=Outcome.NOT_MAPPED)


async def test_what_cannot_be_mapped_is_kept_and_the_rest_goes_on(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.sold(1, NOON_S - HOUR_S)
    api.said(2, "checkout.session.completed", {}, NOON_S - HOUR_S + 1)
    api.sold(3, NOON_S - HOUR_S + 2)

    done = await run(books, store, source)

    assert (3, 2, 1) == (done.new, done.events, done.parked)
    assert 1 == len(await store.unmapped(outcome=Outcome.FAILED))


async def test_the_test_mode_is_as_the_source_has_it(
    api: StripeApi, api_base: str, books: OpenBooks, store: Store, source: Source, tmp_path: Path
) -> None:
    api.is_live = False
    api.sold(1, NOON_S - HOUR_S)
    forwarding = source_of(api_base, tmp_path, RELAY_TEST_MODE="forward")

    dropped = await run(books, store, source)
    api.sold(2, NOON_S - HOUR_S)
    forwarded = await run(books, store, forwarding)

    assert ((0, 1), (1, 0)) == ((dropped.events, dropped.tests), (forwarded.events, forwarded.tests))


# --- connected accounts -----------------------------------------------------------------------------------------------


async def test_a_connected_account_has_the_keys_of_its_webhooks(
    api: StripeApi, api_base: str, store: Store, source: Source
) -> None:
    api.sold(1, NOON_S - HOUR_S)
    there = api.sold(2, NOON_S - HOUR_S, account="acct_1")
    await deliver(store, source, there)
    del there["account"]  # asked as that account, Stripe need not repeat it

    async with bookkeeping.opened(books_of(source, accounts=["acct_1"])) as books:
        done = await run(books, store, source, days(7, accounts=["acct_1"]))

    assert (2, 1, 1) == (done.seen, done.new, done.events)
    assert ["pi_2", "pi_1"] == await orders(store)


# --- interrupted ------------------------------------------------------------------------------------------------------


class InterruptedRun(Exception):  # noqa: N818  it is none of ours
    pass


async def interrupted(books: OpenBooks, store: Store, source: Source, stretch: Stretch, *, after: int) -> None:
    """A run that ends when so many were seen."""

    def stop(_at_ms: int, done: Backfilled) -> None:
        if done.seen >= after:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        await run(books, store, source, stretch, progress=stop)


async def test_an_interrupted_run_goes_on_where_it_stopped(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    for number in range(14):
        api.sold(number, NOON_S - 7 * 86_400 + number * 12 * HOUR_S)
    await interrupted(books, store, source, days(7), after=5)
    api.requests.clear()

    done = await run(books, store, source, days(6.9))  # "7d" a while later

    assert 14 == done.new + len(await store.events()) - done.events
    assert done.seen < 10
    assert done.since_ms > days(6.9).since_ms
    assert [f"pi_{number}" for number in range(14)] == await orders(store)


async def test_a_run_that_is_done_is_not_continued(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    await run(books, store, source)
    api.sold(1, NOON_S - 6 * 86_400)

    assert 1 == (await run(books, store, source)).events
    assert await store.bookmark("backfill:stripe") is None


@pytest.mark.parametrize(
    "other",
    [days(30), days(7, types=["invoice.paid"]), days(7, accounts=["acct_1"])],
    ids=["longer", "types", "account"],
)
async def test_another_question_is_begun_anew(
    api: StripeApi, books: OpenBooks, store: Store, source: Source, other: Stretch
) -> None:
    for number in range(7):
        api.sold(number, NOON_S - 7 * 86_400 + number * 86_400)
    await interrupted(books, store, source, days(7), after=3)

    assert other.since_ms == (await run(books, store, source, other)).since_ms


async def test_trouble_at_the_provider_keeps_what_was_done(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    for number in range(7):
        api.sold(number, NOON_S - 7 * 86_400 + number * 86_400)

    def forbid(_at_ms: int, done: Backfilled) -> None:
        if done.seen >= 3:
            api.forbidden.add("events")

    with pytest.raises(BooksError, match="Give the key read access to /v1/events"):
        await run(books, store, source, progress=forbid)
    api.forbidden.clear()
    done = await run(books, store, source)

    assert 7 == len(await store.events())
    assert done.seen < 7


# --- the API ----------------------------------------------------------------------------------------------------------


async def test_too_many_requests_and_trouble_are_waited_out(
    api: StripeApi, books: OpenBooks, store: Store, source: Source, waited: list[float]
) -> None:
    api.sold(1, NOON_S - HOUR_S)
    api.answers = [429, 429, 500]

    assert 1 == (await run(books, store, source)).events
    assert [1, 2] == waited


async def test_too_many_requests_for_too_long_are_told(
    api: StripeApi, books: OpenBooks, store: Store, source: Source, waited: list[float]
) -> None:
    api.answers = [429] * 100

    with pytest.raises(BooksError, match="Try again later"):
        await run(books, store, source)
    assert 60 < sum(waited)


async def test_a_wrong_key_is_told_without_showing_it(api_base: str, store: Store, source: Source) -> None:
    async with bookkeeping.opened(StripeBooks("rk_live_wrong", api_base=api_base)) as books:
        with pytest.raises(BooksError, match=r"Invalid API Key provided\. Correct the API key\.") as told:
            await run(books, store, source)

    assert "rk_live_wrong" not in str(told.value)


async def test_more_types_than_stripe_takes_are_told(books: OpenBooks, store: Store, source: Source) -> None:
    with pytest.raises(BooksError, match="at most 20 types"):
        await run(books, store, source, days(1, types=[f"type.{number}" for number in range(21)]))


def test_the_key_tells_whether_its_books_are_those_of_the_test_mode() -> None:
    assert [False, True, True] == [StripeBooks(f"{kind}_1").is_test for kind in ("rk_live", "rk_test", "sk_test")]


def test_the_books_count_decimals_as_the_mapper_does() -> None:
    from mappers._stripe_values import DECIMALS as OF_THE_MAPPER  # noqa: PLC0415  only to compare

    assert OF_THE_MAPPER == DECIMALS


async def test_only_sources_with_a_reader_and_a_key_have_books(source: Source) -> None:
    with pytest.raises(BooksError, match="cannot read the books of acme"):
        books_of(replace(source, provider="acme"))
    with pytest.raises(BooksError, match="has no API key"):
        books_of(replace(source, api_key=None))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(api_base: str) -> dict[str, str]:
    return {
        "RELAY_STRIPE_SECRET": SECRET,
        "RELAY_STRIPE_API_KEY": API_KEY,
        "RELAY_STRIPE_API_BASE": api_base,
        "RELAY_ENCRYPTION_KEYS": base64.b64encode(b"k" * 32).decode(),
        "RELAY_JOIN_WAIT_S": "0",
    }


@pytest.fixture
def command(tmp_path: Path, variables: dict[str, str], store_variables: dict[str, str]) -> Commands:
    return Commands(tmp_path, {**variables, **store_variables})


async def test_the_command_sends_what_is_missing_through_a_running_relay(
    api: StripeApi,
    command: Commands,
    variables: dict[str, str],
    run_relay: RunRelay,
    events_api: EventsApi,
    clock: Clock,
) -> None:
    clock.now_ms = unix_ms()
    for number in range(5):
        api.sold(number, clock() // 1000 - HOUR_S + number)
    async with run_relay({**PROVIDERS, "acme": acme.make()}, **variables) as relay:
        for event in bodies(api, 0, 3):
            raw = orjson.dumps(event)
            signed = STRIPE.verifier.sign(Delivery(body=raw, headers={}), SECRET, now_ms=clock())
            assert 200 == (await relay.post(raw, source="stripe", headers=dict(signed.headers))).status_code

        ended = await command("backfill", "stripe", "--since", "1d", "--json")

        async def all_are_there() -> bool:
            return 5 <= len(await events_api.received())

        await until(all_are_there)

    assert (0, "") == (ended.code, ended.err)
    assert {"seen": 5, "new": 3, "events": 3, "duplicates": 0, "parked": 0}.items() <= ended.json.items()
    assert [f"pi_{number}" for number in range(5)] == sorted(await events_api.orders())


async def test_an_interrupted_command_says_that_it_can_be_continued(
    api: StripeApi, command: Commands, store: Store
) -> None:
    """`store` makes the database."""
    now_s = unix_ms() // 1000
    for number in range(40):
        api.sold(number, now_s - (40 - number) * HOUR_S)
    api.answers = [429] * 4
    process = await command._start(("backfill", "stripe", "--since", "2d"), {})

    async def is_waiting() -> bool:
        return len(api.answers) < 4

    await until(is_waiting, tries=4000)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    api.answers.clear()
    again = await command("backfill", "stripe", "--since", "2d", "--json")

    assert 130 == process.returncode, err.decode()
    assert "goes on where this one stopped" in err.decode()
    assert "Traceback" not in err.decode()
    assert (0, 40) == (again.code, len(await store.events()))


@pytest.mark.parametrize(
    "words, expected",
    [
        (["stripe"], "Missing option"),
        (["stripe", "--since", "soon"], "--since 'soon' is no time: write 7d"),
        (["stripe", "--since", "1d", "--until", "2d"], "--since must lie before --until"),
        (["strip", "--since", "1d"], "No source is called 'strip'. Did you mean stripe?"),
    ],
)
async def test_what_cannot_be_asked_exits_with_2(command: Commands, words: list[str], expected: str) -> None:
    ended = await command("backfill", *words)

    assert (2, "") == (ended.code, ended.out)
    assert expected in ended.err


async def test_without_an_api_key_it_says_where_to_get_one(command: Commands) -> None:
    ended = await command("backfill", "stripe", "--since", "1d", RELAY_STRIPE_API_KEY="", RELAY_STRIPE_API_BASE="")

    assert 2 == ended.code
    assert "set RELAY_STRIPE_API_KEY. Stripe Dashboard" in ended.err


async def test_more_than_stripe_keeps_is_told(command: Commands, store: Store) -> None:
    ended = await command("backfill", "stripe", "--since", "2026-01-01")

    assert 0 == ended.code
    assert "Stripe keeps what it said for 30 days" in ended.err
    assert "0 new events are in the outbox" in ended.out
