"""Stripe: each case, and the promises that take more than one notification."""

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from decimal import Decimal
from itertools import chain, permutations
from pathlib import Path
from typing import Any

import pytest

from mappers.stripe import provider
from relay.contract import Delivery, Draft, Forgotten, Learned, Notification

FOLDER = Path(__file__).parent / "mappers" / "stripe"
CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def said(body: object) -> Notification:
    (notification,) = provider.notifications(Delivery(body=json.dumps(body).encode(), headers={}))
    return notification


def told(body: object) -> list[Draft | Learned | Forgotten]:
    notification = said(body)
    return list(provider.mappers[notification.type](notification))


def drafts(*names: str) -> Iterator[Draft]:
    """What the cases tell, in this order."""
    return (thing for name in names for thing in told(CASES[name]["body"]) if isinstance(thing, Draft))


def plain(value: Any) -> Any:
    """As JSON has it: decimals in words, and nothing that is empty."""
    if isinstance(value, Mapping):
        found = {key: plain(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, {}, [], False)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def ledger(facts: Iterable[Draft]) -> list[tuple[str, Decimal | None]]:
    """Name and money of the facts that are new: one key taken before makes a duplicate, which then takes the others."""
    taken: set[str] = set()
    new = []
    for draft in facts:
        if taken.isdisjoint(draft.once):
            new.append((draft.name, draft.revenue))
        taken.update(draft.once)
    return new


def any_order(*names: str) -> list[tuple[str, ...]]:
    """These cases in each order, and each part of them."""
    return [order for size in range(1, len(names) + 1) for order in permutations(names, size)]


# --- each case --------------------------------------------------------------------------------------------------------


@each_case
def test_a_case_becomes_exactly_what_it_says(case: dict[str, Any]) -> None:
    things = told(case["body"])

    assert case["drafts"] == [plain(asdict(thing)) for thing in things if isinstance(thing, Draft)]
    assert case["learned"] == [plain(asdict(thing)) for thing in things if isinstance(thing, Learned)]


@each_case
def test_no_case_tells_a_sale_of_nothing(case: dict[str, Any]) -> None:
    assert [] == [thing for thing in told(case["body"]) if isinstance(thing, Draft) and thing.revenue == 0]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from chain.from_iterable(map(texts, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(texts, value))
    elif isinstance(value, str):
        yield value


PERSONAL = ("@", "Beispiel", "Erika", "Musterweg", "Beispielgasse", "10115", "203.0.113.9", "+43", "4242", "_secret_")
LINKS = ("invoice.stripe.com", "pay.stripe.com", "CHECKOUT_SESSION_ID")


@each_case
def test_what_goes_out_holds_nothing_personal(case: dict[str, Any]) -> None:
    out = [text for thing in told(case["body"]) if isinstance(thing, Draft) for text in texts([thing.properties])]
    out += [str(thing.url) for thing in told(case["body"]) if isinstance(thing, Draft)]

    assert [] == [text for text in out for mark in (*PERSONAL, *LINKS) if mark in text]


#: What every object of its kind has.
REQUIRED = {"id", "created", "amount", "currency", "amount_refunded"}
OWNED = {
    "invoice_payment.paid": {"invoice"},
    "credit_note.created": {"invoice"},
    "customer.subscription.updated": {"customer"},
}


@each_case
def test_any_field_that_may_be_missing_may_be_missing(case: dict[str, Any]) -> None:
    kind = case["body"]["type"]
    for name in case["body"]["data"]["object"].keys() - REQUIRED - OWNED.get(kind, set()):
        nulled, cut = deepcopy(case["body"]), deepcopy(case["body"])
        nulled["data"]["object"][name] = None
        del cut["data"]["object"][name]
        told(nulled)
        told(cut)


@each_case
def test_a_notification_tells_the_same_each_time(case: dict[str, Any]) -> None:
    assert told(case["body"]) == told(case["body"])


# --- one sale, whoever tells it ---------------------------------------------------------------------------------------

CHECKOUT = (
    "checkout.session.completed__card",
    "payment_intent.succeeded__of_checkout",
    "charge.succeeded__of_payment",
)


@pytest.mark.parametrize("order", any_order(*CHECKOUT), ids=" ".join)
def test_a_sale_of_a_session_is_told_once(order: tuple[str, ...]) -> None:
    assert [("purchase", Decimal("19.99"))] == ledger(drafts(*order))


@pytest.mark.parametrize(
    "order", any_order("checkout.session.completed__invoice_named", "invoice.paid__checkout"), ids=" ".join
)
def test_a_sale_of_a_session_that_makes_an_invoice_is_told_once(order: tuple[str, ...]) -> None:
    assert [("purchase", Decimal("19.99"))] == ledger(drafts(*order))


def test_a_session_whose_invoice_has_no_name_yet_leaves_the_sale_to_it() -> None:
    assert [] == list(drafts("checkout.session.completed__invoice_to_come"))


SINCE_BASIL = (
    "checkout.session.completed__subscription",
    "invoice_payment.paid__payment_intent",
    "payment_intent.succeeded__of_invoice",
    "charge.succeeded__of_invoice_by_description",
    "invoice.paid__subscription_create",
)
BEFORE_BASIL = (
    "payment_intent.succeeded__of_invoice_before_basil",
    "charge.succeeded__of_invoice",
    "invoice.paid__subscription_create_before_basil",
)


@pytest.mark.parametrize("names", [SINCE_BASIL, BEFORE_BASIL], ids=["since basil", "before basil"])
def test_the_sale_of_an_invoice_is_told_by_the_invoice_alone(names: tuple[str, ...]) -> None:
    for order in permutations(names):
        assert [("subscription_started", Decimal("29.00"))] == ledger(drafts(*order))


def like(body: Mapping[str, Any], paid: Mapping[str, Any], **values: Any) -> set[str]:
    """Where this payment meets an invoice that the same customer paid with as much."""
    other = deepcopy(dict(body))
    other["data"]["object"] |= {name: paid["data"]["object"][name] for name in ("customer", "currency")} | values
    other["created"] = paid["data"]["object"]["status_transitions"]["paid_at"] + 59 * 60
    amount = paid["data"]["object"]["amount_paid"]
    other["data"]["object"] |= {"amount": amount, "amount_received": amount}
    (draft,) = (thing for thing in told(other) if isinstance(thing, Draft))
    marked = {key for thing in told(paid) if isinstance(thing, Learned) and "of_invoice" in thing.marks
              for key in thing.keys}  # fmt: skip
    return marked & set(draft.joins)


def test_a_payment_of_a_session_is_left_to_the_invoice_that_is_like_it() -> None:
    """The session and the link between them may be lost, and since basil neither names the other."""
    payment, invoice = CASES["payment_intent.succeeded__of_checkout"]["body"], CASES["invoice.paid__checkout"]["body"]

    assert 1 == len(like(payment, invoice))


@pytest.mark.parametrize("case", ["payment_intent.succeeded__elements", "payment_intent.succeeded__unsure"])
def test_a_payment_that_names_no_session_is_never_taken_for_that_of_an_invoice(case: str) -> None:
    assert set[str]() == like(CASES[case]["body"], CASES["invoice.paid__checkout"]["body"])


def test_a_payment_that_fails_is_told_once_by_each_attempt() -> None:
    by_charge = deepcopy(CASES["charge.failed__declined"]["body"])
    by_charge["data"]["object"]["id"] = CASES["payment_intent.payment_failed__declined"]["body"]["data"]["object"][
        "last_payment_error"
    ]["charge"]
    both = [*drafts("payment_intent.payment_failed__declined"), *told(by_charge)]

    assert [("payment_failed", None)] == ledger(draft for draft in both if isinstance(draft, Draft))


def test_a_delayed_payment_is_a_sale_when_it_came_through() -> None:
    completed, succeeded = (
        "checkout.session.completed__async_unpaid",
        "checkout.session.async_payment_succeeded__sepa",
    )

    assert [] == list(drafts(completed))
    assert [("purchase", Decimal("19.99"))] == ledger(drafts(completed, succeeded))


# --- refunds ----------------------------------------------------------------------------------------------------------

BACK = (
    "refund.created__succeeded",
    "refund.updated__details",
    "refund.updated__failed",
    "refund.failed__after_success",
)


@pytest.mark.parametrize("order", list(permutations(BACK)), ids=" ".join)
def test_a_refund_that_came_back_cancels_itself_in_any_order(order: tuple[str, ...]) -> None:
    assert [("refund", Decimal("-19.99")), ("refund_reversed", Decimal("19.99"))] == sorted(ledger(drafts(*order)))


@pytest.mark.parametrize(
    "order",
    any_order("refund.updated__succeeded", "charge.refund.updated__twin"),
    ids=" ".join,
)
def test_a_refund_is_told_once_by_all_its_names(order: tuple[str, ...]) -> None:
    assert [("refund", Decimal("-19.99"))] == ledger(drafts("refund.created__pending", *order))


def test_a_refund_that_never_arrived_was_never_told() -> None:
    assert [] == list(drafts("refund.created__pending", "refund.updated__never_arrived"))


def refunded(total: int, before: int, version: str) -> dict[str, Any]:
    body: dict[str, Any] = deepcopy(CASES["charge.refunded__second_part_in_2023"]["body"])
    body["api_version"] = version
    body["data"]["object"]["amount_refunded"] = total
    body["data"]["previous_attributes"] = {"amount_refunded": before}
    return body


def test_where_the_charge_alone_tells_its_refunds_it_tells_the_steps() -> None:
    """Its figure is the sum of all: one part, another, and the second one again."""
    bodies = [refunded(1000, 0, "2023-10-16"), refunded(1500, 1000, "2023-10-16"), refunded(1500, 1000, "2023-10-16")]
    steps = [thing for body in bodies for thing in told(body) if isinstance(thing, Draft)]

    assert [("refund", Decimal("-10.00")), ("refund", Decimal("-5.00"))] == ledger(steps)


@pytest.mark.parametrize("version", ["2024-10-28.acacia", "2025-06-30.basil", "2026-10-28.endive"])
def test_where_refunds_tell_themselves_their_charge_tells_none(version: str) -> None:
    assert [] == [thing for thing in told(refunded(1000, 0, version)) if isinstance(thing, Draft)]


# --- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "currency, amount, revenue",
    [
        ("usd", 1, "0.01"),
        ("eur", 1999, "19.99"),
        ("jpy", 500, "500"),
        ("krw", 12000, "12000"),
        ("clp", 9990, "9990"),
        ("vnd", 250000, "250000"),
        ("xaf", 655, "655"),
        ("mga", 4000, "4000"),
        ("kwd", 12340, "12.340"),
        ("bhd", 10, "0.010"),
        ("tnd", 99990, "99.990"),
        ("isk", 50000, "500.00"),
        ("ugx", 500000, "5000.00"),
        ("huf", 199900, "1999.00"),
        ("twd", 30000, "300.00"),
        ("usd", 99999999999, "999999999.99"),
    ],
)
def test_amounts_are_exact_in_the_decimals_that_stripe_counts(currency: str, amount: int, revenue: str) -> None:
    body = deepcopy(CASES["checkout.session.completed__card"]["body"])
    body["data"]["object"] |= {"amount_total": amount, "currency": currency, "total_details": None}
    (draft,) = (thing for thing in told(body) if isinstance(thing, Draft))

    assert (revenue, currency.upper()) == (str(draft.revenue), draft.currency)


def test_a_sale_and_its_refund_are_in_one_currency_whatever_the_buyer_saw() -> None:
    names = ("checkout.session.completed__presentment", "checkout.session.completed__presentment_before_basil")

    assert [("EUR", "USD"), ("USD", None)] == [
        (draft.currency, draft.properties.get("presentment_currency")) for draft in drafts(*names)
    ]


def test_credit_takes_its_share_of_the_tax() -> None:
    (draft,) = drafts("invoice.paid__credit_pays_a_share")

    assert (Decimal("14.50"), Decimal("2.32")) == (draft.revenue, draft.tax)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_the_first_payment_after_a_trial_may_convert_it_once() -> None:
    (draft,) = drafts("invoice.paid__subscription_cycle")
    period, trial = (join for join in draft.joins if join.startswith("trial:"))
    began = CASES["invoice.paid__subscription_cycle"]["body"]["data"]["object"]["lines"]["data"][0]["period"]["start"]
    body = deepcopy(CASES["customer.subscription.created__trial"]["body"])
    body["data"]["object"]["trial_end"] = began  # the trial ends where the period begins that is paid
    marked = {key: thing.marks for thing in told(body) if isinstance(thing, Learned) for key in thing.keys}

    assert (period, {period: ("trial",), trial: ()}) == (
        f"{trial}:{began}",
        {key: marked[key] for key in (period, trial)},
    )
    assert {"trial": trial.replace("trial:", "trial_converted:")} == {
        mark: variant.once for mark, variant in draft.variants.items()
    }


def test_a_trial_that_was_paused_is_converted_where_the_subscription_goes_on() -> None:
    body = CASES["customer.subscription.resumed__payment_method"]["body"]
    subscription = body["data"]["object"]
    begins = subscription["items"]["data"][0]["current_period_start"]
    marked = {
        key for thing in told(body) if isinstance(thing, Learned) and "trial" in thing.marks for key in thing.keys
    }

    assert {f"trial:{subscription['id']}:{start}" for start in (subscription["trial_end"], begins)} == marked


def test_what_is_paid_waits_for_the_word_about_its_own_period() -> None:
    """A trial may have ended, or gone on after a pause, where it begins: to know the subscription is not enough."""
    (renewal,) = drafts("invoice.paid__subscription_cycle")
    _, subscription, began = renewal.joins[0].split(":")
    body = deepcopy(CASES["customer.subscription.updated__renewal"]["body"])
    body["data"]["object"]["id"] = subscription
    (item,) = body["data"]["object"]["items"]["data"]
    said = []
    for start in (int(began) - 1, int(began)):
        item["current_period_start"] = start
        said.append({key for thing in told(body) if isinstance(thing, Learned) for key in thing.keys})

    assert [False, True] == [renewal.joins[0] in keys for keys in said]


def test_a_proration_waits_for_no_period() -> None:
    """It begins where none does."""
    (change,) = drafts("invoice.paid__upgrade")

    assert f"trial:{change.properties['subscription_id']}" == change.joins[0]


def test_what_was_used_before_does_not_hide_what_is_bought() -> None:
    (draft,) = drafts("invoice.paid__subscription_cycle_with_usage")
    (simple,) = drafts("invoice.paid__subscription_cycle")

    assert (simple.joins, simple.properties) == (draft.joins, draft.properties)


def test_the_first_invoice_of_a_subscription_converts_no_trial() -> None:
    (draft,) = drafts("invoice.paid__subscription_create")

    assert {} == draft.variants


@pytest.mark.parametrize(
    "change, invoice",
    [
        ("customer.subscription.updated__billed_at_once", "invoice.paid__upgrade"),
        ("customer.subscription.updated__scheduled_change", "invoice.paid__subscription_cycle"),
        ("customer.subscription.updated__renewal", "invoice.paid__subscription_cycle"),
    ],
)
def test_a_change_of_plan_is_told_once_with_its_money_if_it_has_any(change: str, invoice: str) -> None:
    names = [draft.name for draft in drafts(change, invoice)]

    assert {
        "customer.subscription.updated__billed_at_once": ["plan_changed"],
        "customer.subscription.updated__scheduled_change": ["plan_changed", "subscription_renewed"],
        "customer.subscription.updated__renewal": ["subscription_renewed"],
    }[change] == names


def test_what_waits_names_first_what_it_waits_for() -> None:
    waiting = {(draft.name, draft.joins[0].partition(":")[0]) for draft in drafts(*CASES) if draft.waits}

    assert {
        ("subscription_started", "origin"),
        ("subscription_renewed", "trial"),
        ("plan_changed", "trial"),
        ("plan_changed", "origin"),
        ("purchase", "origin"),
        ("purchase", "customer"),
        ("payment_failed", "origin"),
        ("trial_started", "origin"),
        ("subscription_cancel_scheduled", "origin"),
        ("subscription_resumed", "origin"),
        ("subscription_paused", "origin"),
        ("subscription_ended", "origin"),
        ("refund", "origin"),
        ("refund_reversed", "origin"),
        ("dispute_opened", "origin"),
        ("dispute_won", "origin"),
        ("dispute_lost", "origin"),
    } == waiting


def test_a_refund_of_an_invoice_waits_for_no_session_once_the_invoice_was_told() -> None:
    invoice = CASES["invoice.paid__subscription_cycle_before_basil"]["body"]
    known = {key for thing in told(invoice) if isinstance(thing, Learned) for key in thing.keys}
    body = deepcopy(CASES["refund.created__succeeded"]["body"])
    body["data"]["object"] |= {name: invoice["data"]["object"][name] for name in ("payment_intent", "charge")}
    (refund,) = told(body)

    assert isinstance(refund, Draft)
    assert {refund.joins[0], *refund.waits_for} <= known


@each_case
def test_a_notification_does_not_answer_what_it_asks_itself(case: dict[str, Any]) -> None:
    """An event would not wait for what its own notification seems to bring. A bare customer id answers nothing."""
    things = told(case["body"])
    asked = {thing.joins[0] for thing in things if isinstance(thing, Draft) and thing.waits}
    learned = [thing for thing in things if isinstance(thing, Learned)]
    answered = {
        key for one in learned if one.person.email or one.metadata or not one.person.customer_id for key in one.keys
    }

    assert set[str]() == asked & answered


# --- notifications ----------------------------------------------------------------------------------------------------


def test_the_account_of_a_platform_is_told() -> None:
    assert "acct_1RExampleConnected" == said(CASES["invoice.paid__connect"]["body"]).account


def test_test_mode_is_told() -> None:
    names = ("checkout.session.completed__test_mode", "checkout.session.completed__card")

    assert [True, False] == [said(CASES[name]["body"]).is_test for name in names]


def test_a_thin_event_has_an_id_and_a_type_and_no_mapper() -> None:
    thin = {
        "id": "evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "livemode": False,
        "created": "2026-09-17T06:20:52.246Z",
        "related_object": {"id": "mtr_1RExample", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1RExample"},
    }
    notification = said(thin)

    assert (thin["id"], thin["type"], True) == (notification.id, notification.type, notification.is_test)
    assert notification.type not in {*provider.mappers, *provider.ignored}


def test_payments_and_charges_are_told_only_if_asked_for() -> None:
    assert {
        "payment_intent.succeeded": "payment_intents",
        "payment_intent.payment_failed": "payment_intents",
        "charge.succeeded": "charges",
        "charge.captured": "charges",
        "charge.failed": "charges",
    } == provider.optional


def test_a_customer_is_identified_only_if_asked_for() -> None:
    assert [("identify", "identify")] == [(draft.name, draft.option) for draft in drafts("customer.created__email")]


def test_twins_are_left_out_on_purpose() -> None:
    assert {"invoice.payment_succeeded", "charge.updated", "charge.dispute.funds_withdrawn"} <= provider.ignored
