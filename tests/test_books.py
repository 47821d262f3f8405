"""The provider's books beside the events, without any network: what fits, and what does not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from relay.books import (
    Entry,
    Kind,
    Line,
    Outcome,
    Report,
    Told,
    Total,
    compare,
    drift_of,
    extra,
    note_of,
    parted,
    sales,
    told_by,
)
from relay.store.base import EventRow
from relay.store.schema import EventState
from tests.things import NOON


def entry(id_: str = "pi_1", amount: str = "19.99", *, kind: Kind = "payment", currency: str = "EUR",
          keys: tuple[str, ...] = (), **values: Any) -> Entry:  # fmt: skip
    return Entry(
        kind=kind, id=id_, at_ms=NOON, amount=Decimal(amount), currency=currency, keys=keys or (f"payment:{id_}",),
        **values,
    )  # fmt: skip


def row(name: str = "purchase", *, state: EventState = EventState.SENT, doubts: int = 0, **event: Any) -> EventRow:
    payload = orjson.dumps({"event_type": "conversion", "event_name": name, "timestamp": NOON, **event})
    return EventRow(
        id=1, event_id="evt_1", name=name, source="stripe", destination="default", state=state, payload=payload,
        made_at_ms=NOON, settled_at_ms=None, reason=None, doubts=doubts, notification_id="n", batch=None,
    )  # fmt: skip


def told(amount: str = "19.99", *, row: int = 1, currency: str = "EUR", state: EventState = EventState.SENT,
         **values: Any) -> Told:  # fmt: skip
    given = {"name": "purchase", "is_in_doubt": False, "tax": Decimal(0), "is_test": False, **values}
    return Told(
        row=row, event_id=f"evt_{row}", state=state, at_ms=NOON, amount=Decimal(amount), currency=currency, **given
    )


def line(*entries: Entry, by: tuple[Told, ...] = (), **values: Any) -> Line:
    found = compare(entries, by, **values)
    assert found is not None
    return found


# --- what an event tells ----------------------------------------------------------------------------------------------


def test_a_conversion_tells_its_revenue_digit_for_digit() -> None:
    read = told_by(row(revenue=orjson.Fragment(b"0.10"), currency="EUR", properties={"tax": 0.02}))

    assert read is not None
    assert (Decimal("0.10"), "0.10", "EUR", Decimal("0.02")) == (read.amount, str(read.amount), read.currency, read.tax)


@pytest.mark.parametrize("name, amount", [("refund", "-5.00"), ("refund_reversed", "5.00")])
def test_a_refund_that_is_no_conversion_tells_its_amount_with_its_sign(name: str, amount: str) -> None:
    read = told_by(row(name, properties={"amount": orjson.Fragment(b"5.00"), "currency": "EUR"}))

    assert read is not None
    assert (Decimal(amount), "EUR") == (read.amount, read.currency)


def test_a_refund_that_is_a_conversion_tells_its_revenue() -> None:
    read = told_by(row("refund", revenue=-5, currency="EUR"))

    assert read is not None
    assert Decimal(-5) == read.amount


def test_what_failed_and_what_was_free_tell_no_money() -> None:
    assert told_by(row("payment_failed", properties={"amount": 5, "currency": "EUR"})) is None
    assert told_by(row("purchase")) is None


def test_an_event_of_the_test_mode_is_known_by_its_mark() -> None:
    read = told_by(row(revenue=1, currency="EUR", properties={"livemode": False}))

    assert read is not None
    assert read.is_test


@pytest.mark.parametrize(
    "state, doubts, words",
    [
        (EventState.WAITING, 0, "waiting"),
        (EventState.PENDING, 0, "pending"),
        (EventState.BATCHED, 0, "being sent"),
        (EventState.BATCHED, 1, "in doubt"),
        (EventState.SENT, 1, "accepted"),
        (EventState.DEAD, 0, "dead letter"),
    ],
)
def test_where_an_event_is_on_its_way(state: EventState, doubts: int, words: str) -> None:
    read = told_by(row(state=state, doubts=doubts, revenue=1, currency="EUR"))

    assert read is not None
    assert words == read.where


# --- one line ---------------------------------------------------------------------------------------------------------


def test_the_same_amount_accepted_is_ok() -> None:
    found = line(entry(), by=(told(),))

    assert (Outcome.OK, Decimal("19.99"), {"EUR": Decimal("19.99")}) == (found.outcome, found.books, found.accepted)


def test_what_no_event_tells_is_missing() -> None:
    found = line(entry())

    assert (Outcome.MISSING, {}) == (found.outcome, found.accepted)


@pytest.mark.parametrize(
    "state", [EventState.WAITING, EventState.PENDING, EventState.BATCHED, EventState.DEAD], ids=str
)
def test_what_is_told_and_not_accepted_is_neither_ok_nor_missing(state: EventState) -> None:
    found = line(entry(), by=(told(state=state),))

    assert (Outcome.NOT_ACCEPTED, {}) == (found.outcome, found.accepted)


@pytest.mark.parametrize(
    "by",
    [
        (told("19.98"),),
        (told(currency="USD"),),
        (told(), told(row=2)),
        (told(), told(row=2, state=EventState.PENDING)),
        (told("19.98", state=EventState.PENDING),),
    ],
    ids=["another amount", "another currency", "told twice", "told twice, once pending", "another amount, pending"],
)
def test_another_amount_differs(by: tuple[Told, ...]) -> None:
    assert Outcome.DIFFERS is line(entry(), by=by).outcome


def test_a_difference_within_the_tolerance_is_ok() -> None:
    cent = Decimal("0.01")

    assert Outcome.OK is line(entry(), by=(told("19.98"),), tolerance=cent).outcome
    assert Outcome.DIFFERS is line(entry(), by=(told("19.97"),), tolerance=cent).outcome


def test_net_revenue_is_compared_with_the_books_without_its_tax() -> None:
    by = (told("16.80", tax=Decimal("3.19")),)

    assert (Outcome.OK, Decimal("16.80")) == (
        line(entry(), by=by, is_net=True).outcome,
        line(entry(), by=by, is_net=True).books,
    )
    assert Outcome.DIFFERS is line(entry(), by=by).outcome


def test_parts_of_one_sale_are_compared_with_its_one_event() -> None:
    assert Outcome.OK is line(entry("pi_1", "10"), entry("pi_2", "19"), by=(told("29.00"),)).outcome


def test_a_refund_that_failed_is_nothing_unless_it_was_told_and_not_taken_back() -> None:
    failed = entry("re_1", "0", kind="refund")
    there, back = told("-5", name="refund"), told("5", row=2, name="refund_reversed")

    assert compare([failed], []) is None
    assert Outcome.OK is line(failed, by=(there, back)).outcome
    assert Outcome.DIFFERS is line(failed, by=(there,)).outcome


def test_what_the_buyer_saw_is_compared_where_the_event_tells_that() -> None:
    sold = entry("pi_1", "19.99", shown=(Decimal("21.86"), "USD"))

    assert Outcome.OK is line(sold, by=(told("19.99"),)).outcome
    found = line(sold, by=(told("21.86", currency="USD"),))
    assert (Outcome.OK, Decimal("21.86"), "USD") == (found.outcome, found.books, found.currency)


# --- what belongs together --------------------------------------------------------------------------------------------


def test_entries_that_share_a_key_are_one_sale() -> None:
    first, other = entry("pi_1", keys=("payment:pi_1", "invoice:in_1")), entry("pi_2")
    second = entry("pi_3", keys=("payment:pi_3", "invoice:in_1"))

    assert [(first, second), (other,)] == sales([first, other, second])


def test_an_entry_that_shares_keys_with_two_sales_makes_them_one() -> None:
    first, second = entry("pi_1", keys=("invoice:in_1",)), entry("pi_2", keys=("invoice:in_2",))
    both, fourth = entry("pi_3", keys=("invoice:in_1", "invoice:in_2")), entry("pi_4", keys=("invoice:in_2",))

    assert [{first, second, both, fourth}] == [set(sale) for sale in sales([first, second, both, fourth])]


def test_a_key_of_a_connected_account_is_read_with_it() -> None:
    assert ("", "payment", "pi_1") == parted("payment:pi_1")
    assert ("acct_1", "refund", "ch_1:500:17") == parted("acct_1/refund:ch_1:500:17")


# --- the report -------------------------------------------------------------------------------------------------------


def test_totals_are_per_currency_and_kind_and_the_drift_is_what_is_too_much() -> None:
    report = Report(
        lines=(
            line(entry(), by=(told(),)),
            line(entry("pi_2", "500", currency="JPY")),
            line(entry("re_1", "-5", kind="refund"), by=(told("-5"),)),
            extra(told("1.00", row=9), ""),
        )
    )

    assert {"EUR": Total(Decimal("14.99"), Decimal("15.99")), "JPY": Total(Decimal(500))} == report.totals()
    assert {"EUR": Total(Decimal(-5), Decimal(-5))} == report.totals("refund")
    assert {"EUR": Decimal("1.00"), "JPY": Decimal(-500)} == drift_of(note_of(report))
    assert {Outcome.OK: 2, Outcome.MISSING: 1, Outcome.EXTRA: 1} == {o: n for o, n in report.counts.items() if n}
    assert not report.is_equal


def test_nothing_at_all_is_equal() -> None:
    assert Report(lines=()).is_equal
