"""Reconciling: Stripe's own books, over HTTP from a stand-in, against what the destination accepted."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import bookkeeping
from relay.backfilling import Stretch, backfill
from relay.bookkeeping import OpenBooks, books_of
from relay.books import RECONCILED, BooksError, Line, Outcome, Report, drift_of
from relay.clock import unix_ms
from relay.reconciling import Question, reconcile
from relay.serving import serving
from relay.sources import Source
from relay.store.base import Store
from tests import acme
from tests.commands import Commands
from tests.conftest import EventsApi, RunRelay, until
from tests.stripe_api import API_KEY, PROVIDERS, SECRET, STRIPE, StripeApi, bodies, deliver, source_of
from tests.things import DAY, NOON, Clock

pytestmark = pytest.mark.anyio

NOON_S = NOON // 1000
HOUR_S = 3600
DAY_S = 86_400


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
async def books(source: Source) -> AsyncIterator[OpenBooks]:
    async with bookkeeping.opened(books_of(source)) as opened:
        yield opened


async def forward(store: Store) -> None:
    """The destination accepts all that is in the outbox, and all that waited for who it was."""
    await store.release_overdue()
    while batch := await store.claim("default", limit=1000, lease_ms=60_000, owner="me"):
        await store.sent(batch)


async def ask(books: OpenBooks, store: Store, source: Source, *, days: float = 7, **more: Any) -> Report:
    question = Question(since_ms=NOON - int(days * DAY), until_ms=NOON, **more)
    return await reconcile(books, store, source=source, question=question)


def found(report: Report) -> list[tuple[str, str]]:
    """What is not ok, with its id; of an extra that of the event, which nobody knows beforehand."""
    return [
        (line.outcome.value, "" if line.outcome is Outcome.EXTRA else line.id)
        for line in report.lines
        if line.outcome is not Outcome.OK
    ]


def the(outcome: Outcome, report: Report) -> Line:
    (line,) = [line for line in report.lines if line.outcome is outcome]
    return line


# --- what is found ----------------------------------------------------------------------------------------------------


async def test_a_week_that_went_well_is_equal(api: StripeApi, books: OpenBooks, store: Store, source: Source) -> None:
    api.sold(1, NOON_S - HOUR_S)
    api.sold(2, NOON_S - HOUR_S, cents=500, currency="jpy")
    api.billed(3, NOON_S - HOUR_S)
    api.refunded(4, NOON_S - 60, of=1)
    await deliver(store, source, *bodies(api, 1, 2, 3, "re_4"))
    await forward(store)

    report = await ask(books, store, source)

    assert ([], True) == (found(report), report.is_equal)
    assert {"EUR": (Decimal("43.99"), Decimal(0)), "JPY": (Decimal(500), Decimal(0))} == {
        currency: (total.accepted, total.drift) for currency, total in report.totals().items()
    }


async def test_a_payment_and_a_refund_that_were_dropped_are_missing_and_backfilled(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    for number in range(4):
        api.sold(number, NOON_S - HOUR_S + number)
    api.billed(5, NOON_S - HOUR_S)
    api.refunded(6, NOON_S - 60, of=1)
    await deliver(store, source, *bodies(api, 0, 1, 3))
    await forward(store)

    before = await ask(books, store, source)
    await backfill(books, store, source=source, provider=STRIPE, clock=lambda: NOON,
                   stretch=Stretch(since_ms=NOON - DAY, until_ms=NOON))  # fmt: skip
    await forward(store)
    after = await ask(books, store, source)

    assert {("missing", "pi_2"), ("missing", "pi_5"), ("missing", "re_6")} == set(found(before))
    assert {"EUR": Decimal("-43.99")} == {currency: total.drift for currency, total in before.totals().items()}
    assert ([], True) == (found(after), after.is_equal)


async def test_another_amount_is_found_with_both_amounts(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.sold(1, NOON_S - HOUR_S, cents=2000)
    told["data"] = {"object": {**told["data"]["object"], "amount_total": 1999}}
    await deliver(store, source, told)
    await forward(store)

    line = the(Outcome.DIFFERS, await ask(books, store, source))

    assert (Decimal("20.00"), {"EUR": Decimal("19.99")}) == (line.books, line.accepted)
    assert (await ask(books, store, source, tolerance=Decimal("0.01"))).is_equal


async def test_what_stripe_does_not_know_is_extra(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.sold(1, NOON_S - HOUR_S)
    api.sold(2, NOON_S - HOUR_S)
    api.billed(3, NOON_S - HOUR_S)
    await deliver(store, source, *bodies(api, 1, 2, 3))
    await forward(store)
    for kind in api.accounts[""]:
        api.accounts[""][kind] = [o for o in api.all(kind) if o["id"].endswith("_1")]

    report = await ask(books, store, source)

    assert [("extra", ""), ("extra", "")] == found(report)
    assert Decimal("48.99") == report.totals()["EUR"].drift


async def test_what_is_not_accepted_yet_says_where_it_is(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    for number in range(3):
        api.sold(number, NOON_S - HOUR_S + number)
    await deliver(store, source, *bodies(api, 0))
    batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
    assert batch is not None
    await store.refuse(batch, reason="no")
    await deliver(store, source, *bodies(api, 1))
    batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
    assert batch is not None
    await store.in_doubt(batch, due_at_ms=NOON, words="no answer")
    await deliver(store, source, *bodies(api, 2), api.billed(3, NOON_S - HOUR_S))

    report = await ask(books, store, source)

    assert {("pi_0", "dead letter"), ("pi_1", "in doubt"), ("pi_2", "pending"), ("pi_3", "waiting")} == {
        (line.id, line.told[0].where) for line in report.lines if line.outcome is Outcome.NOT_ACCEPTED
    }
    assert Decimal("-88.97") == report.totals()["EUR"].drift


async def test_what_never_became_money_is_not_looked_for(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.charged(1, NOON_S - HOUR_S, status="failed")
    api.charged(2, NOON_S - HOUR_S, status="pending", captured=True)
    api.charged(3, NOON_S - HOUR_S, captured=False, amount_captured=0)
    api.refunded(4, NOON_S - HOUR_S, of=1, status="pending")

    assert () == (await ask(books, store, source)).lines


async def test_a_charge_that_was_captured_in_part_is_that_part(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.charged(1, NOON_S - HOUR_S, amount_captured=1500)

    assert Decimal("15.00") == the(Outcome.MISSING, await ask(books, store, source)).books


async def test_many_pages_are_read_to_the_end(api: StripeApi, books: OpenBooks, store: Store, source: Source) -> None:
    api.page = 7
    for number in range(40):
        api.sold(number, NOON_S - HOUR_S + number)
    await deliver(store, source, *bodies(api, *range(40)))
    await forward(store)

    report = await ask(books, store, source)

    assert {Outcome.OK: 40} == {outcome: count for outcome, count in report.counts.items() if count}


# --- invoices ---------------------------------------------------------------------------------------------------------


async def test_an_invoice_that_was_made_before_the_time_is_found_by_its_payment(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    """Since basil neither names the other, and the list of what links them is by the time at which that was made."""
    api.billed(1, NOON_S - HOUR_S, made_s=NOON_S - 20 * DAY_S)
    await deliver(store, source, *bodies(api, 1))
    await forward(store)

    report = await ask(books, store, source)

    assert ([], 1) == (found(report), len(report.lines))


@pytest.mark.parametrize("made_s", [NOON_S - HOUR_S, NOON_S - 20 * DAY_S], ids=["within the time", "before it"])
async def test_a_sale_that_is_told_by_its_session_and_its_invoice_differs(
    api: StripeApi, books: OpenBooks, store: Store, source: Source, made_s: int
) -> None:
    """Two events that share no key: what only the books can show."""
    session = api.sold(1, NOON_S - HOUR_S, cents=2900)
    api.all("charges").clear()
    await deliver(store, source, session, api.billed(1, NOON_S - HOUR_S, made_s=made_s) | {"id": "evt_in"})
    await forward(store)

    line = the(Outcome.DIFFERS, await ask(books, store, source))

    assert (Decimal("29.00"), {"EUR": Decimal("58.00")}, 2) == (line.books, line.accepted, len(line.told))


async def test_an_invoice_in_two_payments_is_one_sale(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.billed(1, NOON_S - HOUR_S, cents=1000)
    api.charged(2, NOON_S - HOUR_S, cents=1900)
    api.put("invoice_payments", **{**api.all("invoice_payments")[0], "id": "inpay_2", "amount_paid": 1900,
                                   "payment": {"type": "payment_intent", "payment_intent": "pi_2"}})  # fmt: skip
    api.all("invoices")[0].update(amount_paid=2900, total=2900)
    await deliver(store, source, told)
    await forward(store)

    assert ["ok"] == [line.outcome for line in (await ask(books, store, source)).lines]


async def test_what_was_paid_of_an_invoice_without_a_charge_is_in_the_books(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.billed(1, NOON_S - HOUR_S)
    api.billed(2, NOON_S - HOUR_S)
    for kind in ("charges", "invoice_payments"):
        api.all(kind).clear()
    await deliver(store, source, told)
    await forward(store)

    report = await ask(books, store, source)

    assert [("ok", "in_1"), ("missing", "in_2")] == [(line.outcome, line.id) for line in report.lines]


async def test_an_api_before_basil_names_the_invoice_in_the_charge(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.billed(1, NOON_S - HOUR_S)
    api.all("charges")[0]["invoice"] = "in_1"
    api.unknown.add("invoice_payments")
    await deliver(store, source, told)
    await forward(store)

    assert ["ok"] == [line.outcome for line in (await ask(books, store, source)).lines]


# --- what lies across the edges of the time ---------------------------------------------------------------------------


async def test_a_payment_that_took_days_is_neither_extra_nor_counted(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    """A bank debit: its charge is as old as the order, its event as young as the money."""
    told = api.sold(1, NOON_S - 9 * DAY_S)
    await deliver(store, source, {**told, "type": "checkout.session.async_payment_succeeded",
                                  "created": NOON_S - HOUR_S})  # fmt: skip
    await forward(store)

    here, wider = await ask(books, store, source), await ask(books, store, source, days=10)

    assert (0, ["ok"]) == (len(here.lines), [line.outcome for line in wider.lines])


async def test_refunds_that_old_api_versions_tell_by_steps_are_found(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    """From 2022-11-15 to 2024-10-28 they name no refund, only how much the charge has given back so far."""
    charge = api.charged(1, NOON_S - 30 * DAY_S)
    for number, before in ((2, 0), (3, 500)):
        at_s = NOON_S - HOUR_S + number
        api.refunded(number, at_s, of=1)
        step = {**charge, "amount_refunded": before + 500, "refunded": False, "billing_details": {}}
        told = api.said(f"step_{number}", "charge.refunded", step, at_s + 1)
        told |= {"api_version": "2023-10-16"}
        told["data"] = {"object": step, "previous_attributes": {"amount_refunded": before}}
        await deliver(store, source, told)
    await forward(store)
    api.refunded(4, NOON_S - 60, of=1, cents=100)

    report = await ask(books, store, source)

    assert {("ok", "re_2"), ("ok", "re_3"), ("missing", "re_4")} == {(line.outcome, line.id) for line in report.lines}


@pytest.mark.parametrize(
    "key, expected",
    [
        ("payment:pi_1", {"payment:pi_1", "charge:ch_1", "invoice:in_1"}),
        ("charge:ch_1", {"payment:pi_1", "charge:ch_1"}),
        ("invoice:in_1", {"payment:pi_1", "invoice:in_1"}),
        ("checkout:cs_2", {"payment:pi_2", "checkout:cs_2"}),
        ("refund:re_3", {"refund:re_3", "refund_reversed:re_3"}),
        (f"refund:ch_2:500:{NOON_S}", {"refund:re_3"}),
        (f"refund:ch_2:499:{NOON_S + 2}", {"refund:re_3"}),
        (f"refund:ch_2:499:{NOON_S + 900}", None),
        ("payment:pi_9", None),
        ("charge:ch_9", None),
        ("invoice:in_9", None),
        ("checkout:cs_9", None),
        ("refund:re_9", None),
        ("payment:pi_4", None),
        ("charge:ch_4", None),
        ("trial_converted:sub_1", None),
    ],
)
async def test_a_key_leads_to_all_names_that_the_books_know(
    api: StripeApi, books: OpenBooks, key: str, expected: set[str] | None
) -> None:
    """What is not in them, or was not paid, has none."""
    api.billed(1, NOON_S)
    api.sold(2, NOON_S)
    api.refunded(3, NOON_S, of=2)
    api.charged(4, NOON_S, status="failed")

    names = await books.ask(lambda: books.books.names([key]))

    assert expected == (None if names is None else set(names))


# --- the source's rules -----------------------------------------------------------------------------------------------


async def test_a_source_that_counts_net_is_compared_net(
    api: StripeApi, api_base: str, books: OpenBooks, store: Store, tmp_path: Path
) -> None:
    net = source_of(api_base, tmp_path, RELAY_REVENUE="net", RELAY_REFUNDS="conversion")
    api.sold(1, NOON_S - HOUR_S, tax=319)
    api.refunded(2, NOON_S - 60, of=1)
    await deliver(store, net, *bodies(api, 1, "re_2"))
    await forward(store)

    report = await ask(books, store, net)

    assert ([], Decimal("16.80")) == (found(report), report.totals("payment")["EUR"].books)
    assert Decimal("-5.00") == report.totals("refund")["EUR"].accepted


async def test_a_refund_that_was_told_and_failed_nets_to_nothing(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    told = api.refunded(1, NOON_S - HOUR_S, of=1)
    await deliver(store, source, told)
    await forward(store)
    api.all("refunds")[0]["status"] = "failed"

    before = await ask(books, store, source)
    refund = {**api.all("refunds")[0], "failure_reason": "declined"}
    failed = api.said("re_1_failed", "refund.failed", refund, NOON_S - 60)
    await deliver(store, source, failed)
    await forward(store)
    after = await ask(books, store, source)

    assert ([("differs", "re_1")], []) == (found(before), found(after))


async def test_the_test_mode_and_the_real_one_do_not_mix(
    api: StripeApi, api_base: str, books: OpenBooks, store: Store, tmp_path: Path
) -> None:
    forwarding = source_of(api_base, tmp_path, RELAY_TEST_MODE="forward")
    api.is_live = False
    await deliver(store, forwarding, api.sold(1, NOON_S - HOUR_S))
    await forward(store)
    for kind in api.accounts[""]:
        api.all(kind).clear()

    assert () == (await ask(books, store, forwarding)).lines


async def test_a_connected_account_is_compared_when_it_is_named(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    await deliver(store, source, api.sold(1, NOON_S - HOUR_S, account="acct_1"))
    await forward(store)
    api.sold(2, NOON_S - HOUR_S, account="acct_1")

    without = await ask(books, store, source)
    async with bookkeeping.opened(books_of(source, accounts=["acct_1"])) as both:
        with_it = await ask(both, store, source, accounts=("acct_1",))

    assert (0, ("acct_1",)) == (len(without.lines), without.unread_accounts)
    assert {("ok", "pi_1", "acct_1"), ("missing", "pi_2", "acct_1")} == {
        (line.outcome, line.id, line.account) for line in with_it.lines
    }


async def test_a_key_that_may_not_read_is_told_what_it_lacks(
    api: StripeApi, books: OpenBooks, store: Store, source: Source
) -> None:
    api.forbidden.add("refunds")

    with pytest.raises(BooksError, match="Give the key read access to /v1/refunds"):
        await ask(books, store, source)


# --- the metric -------------------------------------------------------------------------------------------------------


async def test_the_drift_is_kept(api: StripeApi, books: OpenBooks, store: Store, source: Source) -> None:
    api.sold(1, NOON_S - HOUR_S)

    await ask(books, store, source)

    bookmark = await store.bookmark(RECONCILED + "stripe")
    assert bookmark is not None
    assert ({"EUR": Decimal("-19.99")}, NOON) == (drift_of(bookmark.position), bookmark.noted_at_ms)


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


def words_of(*more: str) -> Sequence[str]:
    return ("reconcile", "stripe", "--since", "1d", *more)


async def test_the_command_finds_what_is_missing_and_after_a_backfill_nothing(
    api: StripeApi,
    command: Commands,
    variables: dict[str, str],
    run_relay: RunRelay,
    events_api: EventsApi,
    clock: Clock,
    source: Source,
) -> None:
    clock.now_ms = unix_ms()
    for number in range(3):
        api.sold(number, clock() // 1000 - HOUR_S + number)
    async with run_relay({**PROVIDERS, "acme": acme.make()}, **variables) as relay:
        await deliver(relay.store, source, *bodies(api, 0, 2))
        await until(lambda: all_accepted(events_api, 2))

        table, before = await command(*words_of()), await command(*words_of("--json"))
        drift = await relay.metric("relay_drift", source="stripe", currency="EUR")
        when = await relay.metric("relay_reconciled_timestamp_seconds", source="stripe")
        await command("backfill", "stripe", "--since", "1d")
        await until(lambda: all_accepted(events_api, 3))
        after = await command(*words_of("--json"))
        no_drift = await relay.metric("relay_drift", source="stripe", currency="EUR")

    assert (1, 1, 0) == (table.code, before.code, after.code)
    assert "missing" in table.out
    assert "pi_1" in table.out
    assert "Not equal: 2 ok, 1 missing." in table.out
    assert "backfill stripe" in table.out
    assert {"books": "59.97", "accepted": "39.98", "drift": "-19.99"}.items() <= before.json["currencies"][
        "EUR"
    ].items()
    assert [("missing", "pi_1", "19.99")] == [
        (line["outcome"], line["id"], line["books"]) for line in before.json["lines"] if line["outcome"] != "ok"
    ]
    assert (True, {"missing": 0, "ok": 3}) == (
        after.json["equal"],
        {k: after.json["counts"][k] for k in ("missing", "ok")},
    )
    assert (-19.99, 0.0) == (drift, no_drift)
    assert when > 1_700_000_000


async def all_accepted(events_api: EventsApi, count: int) -> bool:
    return len(await events_api.received()) == count


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--tolerance", "much"], "--tolerance 'much' is no amount"),
        (["--until", "2d"], "--since must lie before --until"),
    ],
)
async def test_what_cannot_be_asked_exits_with_2(command: Commands, words: list[str], expected: str) -> None:
    ended = await command(*words_of(*words))

    assert (2, "") == (ended.code, ended.out)
    assert expected in ended.err


async def test_books_that_cannot_be_read_exit_with_2(api: StripeApi, command: Commands, store: Store) -> None:
    api.forbidden.add("charges")
    ended = await command(*words_of())

    assert (2, "") == (ended.code, ended.out)
    assert "Give the key read access to /v1/charges" in ended.err
    assert "Traceback" not in ended.err


async def test_what_is_noteworthy_is_said_before(command: Commands, store: Store) -> None:
    ended = await command("reconcile", "stripe", "--since", "200d", RELAY_STRIPE_API_KEY="rk_test_1")

    assert "forgets what is older than 90 days" in ended.err
    assert "the API key is of the test mode, whose notifications the source drops" in ended.err
