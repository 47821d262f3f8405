"""PayPal. https://developer.paypal.com/api/rest/webhooks/event-names/ (REST v1 and v2, read 2026-11-23).

In: webhooks of both generations. Money is told by captures and by sales (of subscriptions and of the v1 API), never by
orders, approvals or invoices. Neither says who paid: that stands in the order or the subscription, for which they wait.
`began:<subscription>:<date>` is known where a first payment is due on that date, `trial:<subscription>` after a trial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from relay.contract import (
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    Variant,
    conversion,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import paypal_signature

Json = Mapping[str, Any]


def _is_sandbox(item: Item) -> bool:
    """Only the links say so."""
    links = [*(item.body.get("links") or ()), *((item.body.get("resource") or {}).get("links") or ())]
    return any(".sandbox.paypal.com/" in (link.get("href") or "") for link in links)


provider = Provider(
    name="paypal",
    title="PayPal",
    docs="https://developer.paypal.com/api/rest/webhooks/",
    verifier=paypal_signature(),
    notification_id=field("id"),
    notification_type=field("event_type"),
    is_test=_is_sandbox,
    secret=SecretShape(
        meaning="PayPal Developer Dashboard > Apps & Credentials > your app > Webhooks: the Webhook ID",
        mistaken={"https://": "the URL of the webhook", "WH-": "the id of an event", "A21AA": "an access token"},
    ),
)

#: Twins of what is mapped, steps on the way to it, the catalogue, and money that goes out.
TWINS = """
BILLING.PLAN.ACTIVATED BILLING.PLAN.CREATED BILLING.PLAN.DEACTIVATED BILLING.PLAN.PRICING-CHANGE.ACTIVATED
BILLING.PLAN.UPDATED BILLING_AGREEMENTS.AGREEMENT.CANCELLED BILLING_AGREEMENTS.AGREEMENT.CREATED CATALOG.PRODUCT.CREATED
CATALOG.PRODUCT.UPDATED CHECKOUT.CHECKOUT.BUYER-APPROVED CHECKOUT.ORDER.DECLINED CHECKOUT.ORDER.PROCESSED
CHECKOUT.ORDER.SAVED CHECKOUT.ORDER.VOIDED CHECKOUT.PAYMENT-APPROVAL.REVERSED CUSTOMER.DISPUTE.UPDATED
INVOICING.INVOICE.CANCELLED INVOICING.INVOICE.CREATED INVOICING.INVOICE.REFUNDED INVOICING.INVOICE.SCHEDULED
INVOICING.INVOICE.UPDATED PAYMENT.AUTHORIZATION.CREATED PAYMENT.AUTHORIZATION.VOIDED PAYMENT.CAPTURE.PENDING
PAYMENT.ORDER.CANCELLED PAYMENT.ORDER.CREATED PAYMENT.PAYOUTS-ITEM.BLOCKED PAYMENT.PAYOUTS-ITEM.CANCELED
PAYMENT.PAYOUTS-ITEM.DENIED PAYMENT.PAYOUTS-ITEM.FAILED PAYMENT.PAYOUTS-ITEM.HELD PAYMENT.PAYOUTS-ITEM.REFUNDED
PAYMENT.PAYOUTS-ITEM.RETURNED PAYMENT.PAYOUTS-ITEM.SUCCEEDED PAYMENT.PAYOUTS-ITEM.UNCLAIMED PAYMENT.PAYOUTSBATCH.DENIED
PAYMENT.PAYOUTSBATCH.PROCESSING PAYMENT.PAYOUTSBATCH.SUCCESS PAYMENT.SALE.PENDING RISK.DISPUTE.CREATED
VAULT.PAYMENT-TOKEN.CREATED VAULT.PAYMENT-TOKEN.DELETED VAULT.PAYMENT-TOKEN.DELETION-INITIATED
"""
provider.ignores(*TWINS.split())


def _at(*texts: str | None) -> datetime:
    """The first that is there. PayPal's own samples have an impossible one for the time of the notification."""
    return datetime.fromisoformat(next(text for text in texts if text)).astimezone(UTC)


def _ms(*texts: str | None) -> int:
    return (_at(*texts) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _money(amount: Json) -> tuple[Decimal, str]:
    """What it is, without its sign, in the words of v2 or v1: refunds of v1 were negative once."""
    value = amount["value"] if "value" in amount else amount["total"]
    return abs(from_major(value)), (amount.get("currency_code") or amount["currency"]).upper()


def _unpaid(amount: Json | None) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return dict(zip(("amount", "currency"), _money(amount), strict=True)) if amount else {}


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value not in (None, "")}


_ENTITY = re.compile(r"/(order|capture|sale|refund)s?/([A-Za-z0-9-]+)(?:\?.*)?$")


def _linked(o: Json) -> dict[str, str]:
    """Ids of other entities, by kind, which stand in the addresses of links."""
    found = [_ENTITY.search(link.get("href") or "") for link in o.get("links") or ()]
    related = (o.get("supplementary_data") or {}).get("related_ids") or {}
    named = {kind: related.get(f"{kind}_id") for kind in ("order", "capture")}
    return {match[1]: match[2] for match in found if match} | _known(named)


def _custom(*texts: str | None) -> dict[str, Any]:
    """The site's own field, which may hold several things as a query string: `user_id=42&utm_source=news`."""
    text = next((text for text in texts if text), "")
    return {"custom_id": text, **dict(parse_qsl(text))} if text else {}


def _payer(payer: Json | None) -> Person:
    """In the words of v2 or v1."""
    who: Json = payer or {}
    who = {**who, **(who.get("payer_info") or {})}
    return Person(
        email=who.get("email_address") or who.get("email"), customer_id=who.get("payer_id") or who.get("account_id")
    )


# --- who --------------------------------------------------------------------------------------------------------------


@provider.on("CHECKOUT.ORDER.APPROVED", "CHECKOUT.ORDER.COMPLETED")
def order(n: Notification) -> Iterator[Learned]:
    o = n.body["resource"]
    units: list[Json] = o.get("purchase_units") or [{}]
    captures = [each for unit in units for each in (unit.get("payments") or {}).get("captures") or ()]
    paid = [("payment", capture["id"]) for capture in captures]
    payer = o.get("payer") or (o.get("payment_source") or {}).get("paypal")
    custom = _custom(*(unit.get("custom_id") for unit in units))
    yield Learned(keys=_keys(("order", o["id"]), *paid), person=_payer(payer), metadata=custom)


@provider.on("PAYMENTS.PAYMENT.CREATED")
def payment_created(n: Notification) -> Iterator[Learned]:
    """The v1 API's order."""
    o = n.body["resource"]
    custom = _custom(*(each.get("custom") for each in o.get("transactions") or ()))
    yield Learned(keys=_keys(("order", o["id"])), person=_payer(o.get("payer")), metadata=custom)


@provider.on("INVOICING.INVOICE.PAID")
def invoice(n: Notification) -> Iterator[Learned]:
    o = n.body["resource"]["invoice"]
    told = o.get("payments") or ()
    payments = (told.get("transactions") or ()) if isinstance(told, dict) else told
    paid = [("payment", each.get("payment_id") or each.get("transaction_id")) for each in payments]
    asked = [each.get("billing_info") or {} for each in o.get("primary_recipients") or ()] + (
        o.get("billing_info") or []
    )
    yield Learned(keys=_keys(("invoice", o["id"]), *paid), person=_payer(asked[0] if asked else None))


# --- money ------------------------------------------------------------------------------------------------------------


def _about(o: Json, payment: str | None, properties: Json) -> dict[str, Any]:
    """What the drafts about a payment have."""
    subscription, of_order = o.get("billing_agreement_id"), _linked(o).get("order") or o.get("parent_payment")
    told = {"subscription_id": subscription, "checkout_id": of_order}
    return {
        "metadata": _custom(o.get("custom_id"), o.get("custom")),
        "joins": _keys(("subscription", subscription), ("order", of_order), ("payment", payment)),
        "waits": True,
        "properties": _known({**properties, **told, "invoice_id": o.get("invoice_id") or o.get("invoice_number")}),
    }


def _tax(o: Json) -> Decimal | None:
    tax = (o["amount"].get("details") or {}).get("tax")
    return from_major(tax) if tax else None


@provider.on("PAYMENT.CAPTURE.COMPLETED", "PAYMENT.SALE.COMPLETED")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    """Of a subscription's payments the one on the day on which it began is its first; the next may convert a trial."""
    o = n.body["resource"]
    subscription, (amount, currency) = o.get("billing_agreement_id"), _money(o["amount"])
    draft, at = _about(o, o["id"], {"order_id": o["id"]}), _at(o.get("create_time"), n.body.get("create_time"))
    yield Learned(keys=draft["joins"], metadata=draft["metadata"], same=True)
    if subscription:
        days = (at, at - timedelta(days=1))  # it may have been due before midnight
        draft["joins"] += _keys(*(("began", f"{subscription}:{day:%Y-%m-%d}") for day in days), ("trial", subscription))
        draft["variants"] = {
            "new": Variant(name="subscription_started", once=f"subscription_started:{subscription}"),
            "trial": Variant(name="trial_converted", once=f"trial_converted:{subscription}"),
        }
    if amount:
        money = {"revenue": amount, "currency": currency, "tax": _tax(o)}
        name = "subscription_renewed" if subscription else "purchase"
        yield conversion(name, once=f"payment:{o['id']}", at_ms=_ms(at.isoformat()), **money, **draft)


@provider.on("PAYMENT.CAPTURE.REFUNDED", "PAYMENT.SALE.REFUNDED")
def refund(n: Notification) -> Iterator[Draft]:
    o, linked = n.body["resource"], _linked(n.body["resource"])
    payment = linked.get("capture") or o.get("sale_id") or o.get("capture_id") or linked.get("sale")
    own, (amount, currency) = o.get("id") or linked["refund"], _money(o["amount"])
    draft = _about(o, payment, {"order_id": payment, "refund_id": own, "reason": o.get("refund_reason_code")})
    if (o.get("status") or o.get("state") or "").lower() not in ("failed", "cancelled"):
        at_ms = _ms(o.get("create_time"), n.body.get("create_time"))
        yield event("refund", once=f"refund:{own}", at_ms=at_ms, revenue=-amount, currency=currency, **draft)


@provider.on("PAYMENT.CAPTURE.DENIED", "PAYMENT.CAPTURE.DECLINED", "PAYMENT.SALE.DENIED")
def denied(n: Notification) -> Iterator[Draft]:
    o = n.body["resource"]
    reason = (o.get("status_details") or {}).get("reason") or o.get("reason_code")
    draft = _about(o, o["id"], {"order_id": o["id"], "reason": reason, **_unpaid(o.get("amount"))})
    at_ms = _ms(o.get("update_time"), o.get("create_time"), n.body.get("create_time"))
    yield event("payment_failed", once=f"payment_failed:{o['id']}", at_ms=at_ms, **draft)


# --- disputes ---------------------------------------------------------------------------------------------------------

#: By `outcome_code`; with a payout PayPal's own protection bore it. Both spellings are sent.
OUTCOMES = {
    "ACCEPTED": "dispute_lost",
    "RESOLVED_BUYER_FAVOR": "dispute_lost",
    "RESOLVED_BUYER_FAVOUR": "dispute_lost",
    "CANCELED_BY_BUYER": "dispute_won",
    "DENIED": "dispute_won",
    "RESOLVED_SELLER_FAVOR": "dispute_won",
    "RESOLVED_SELLER_FAVOUR": "dispute_won",
    "RESOLVED_WITH_PAYOUT": "dispute_won",
}


@provider.on("PAYMENT.CAPTURE.REVERSED", "PAYMENT.SALE.REVERSED")
def reversed_(n: Notification) -> Iterator[Draft]:
    """A chargeback or PayPal's own reversal: the beginning of a dispute, which may be told as such too."""
    o, linked = n.body["resource"], _linked(n.body["resource"])
    payment = linked.get("capture") or o.get("sale_id") or linked.get("sale") or o["id"]
    draft = _about(o, payment, {"order_id": payment, **_unpaid(o.get("amount"))})
    at_ms = _ms(o.get("create_time"), n.body.get("create_time"))
    yield event("dispute_opened", once=f"dispute_opened:{payment}", at_ms=at_ms, **draft)


@provider.on("CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.RESOLVED")
def dispute(n: Notification) -> Iterator[Draft]:
    o, is_new = n.body["resource"], n.type == "CUSTOMER.DISPUTE.CREATED"
    outcome = (o.get("dispute_outcome") or {}).get("outcome_code") or ""
    name = "dispute_opened" if is_new else OUTCOMES.get(outcome)
    bought = (o.get("disputed_transactions") or [{}])[0]
    payment = bought.get("seller_transaction_id")
    told = {"order_id": payment, "dispute_id": o["dispute_id"], "reason": o.get("reason"), "outcome": outcome}
    draft = _about({**bought, "links": ()}, payment, {**told, **_unpaid(o.get("dispute_amount"))})
    draft["person"] = _payer(bought.get("buyer"))
    draft["waits"] = bool(payment)
    if name:
        once = _keys((name, payment), (name, o["dispute_id"]))
        at_ms = _ms(o.get("create_time" if is_new else "update_time"), n.body.get("create_time"))
        yield event(name, once=once, at_ms=at_ms, **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------

#: What happens to a subscription. PayPal sends no more payments after a cancellation, and says nothing at the end.
CHANGES = {
    "BILLING.SUBSCRIPTION.CANCELLED": "subscription_ended",
    "BILLING.SUBSCRIPTION.EXPIRED": "subscription_ended",
    "BILLING.SUBSCRIPTION.SUSPENDED": "subscription_paused",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED": "subscription_resumed",
}


def _subscription(n: Notification, properties: Json) -> dict[str, Any]:
    o = n.body["resource"]
    told = {"subscription_id": o["id"], "plan": o.get("plan_id"), "quantity": o.get("quantity"), **properties}
    return {
        "person": _payer(o.get("subscriber") or o.get("payer")),
        "metadata": _custom(o.get("custom_id")),
        "joins": _keys(("subscription", o["id"])),
        "properties": _known(told),
    }


def _learned(n: Notification) -> Iterator[Learned]:
    """Who it is, on which days a payment is the first one, and whether it begins with a trial.

    The time of the next payment is none to go by: at the beginning of a trial it may be that of the beginning.
    """
    o, draft = n.body["resource"], _subscription(n, {})
    person = draft["person"]
    if person.email or person.customer_id or o.get("custom_id"):
        yield Learned(keys=draft["joins"], person=person, metadata=draft["metadata"])
    is_active = n.type == "BILLING.SUBSCRIPTION.ACTIVATED"
    starts = (o.get("start_time") or o.get("start_date"), o.get("status_update_time") if is_active else None)
    days = dict.fromkeys(f"{o['id']}:{_at(start):%Y-%m-%d}" for start in starts if start)
    if days and not _began(o):
        yield Learned(keys=_keys(*(("began", day) for day in days)), marks=("new",))
    if _is_trial(o):
        yield Learned(keys=(f"trial:{o['id']}",), marks=("trial",))


def _cycles(o: Json, kind: str) -> list[Json]:
    cycles = (o.get("billing_info") or {}).get("cycle_executions") or ()
    return [cycle for cycle in cycles if cycle.get("tenure_type") == kind]


def _began(o: Json) -> bool:
    """Whether a regular payment was made already: this is no news of its beginning then."""
    return any(cycle.get("cycles_completed") for cycle in _cycles(o, "REGULAR"))


def _is_trial(o: Json) -> bool:
    return bool(_cycles(o, "TRIAL")) and not _began(o)


@provider.on("BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """Of the changes none can be seen: what was before is not said."""
    o = n.body["resource"]
    yield from _learned(n)
    if n.type == "BILLING.SUBSCRIPTION.ACTIVATED" and _is_trial(o):
        at_ms = _ms(o.get("start_time"), o.get("status_update_time"), n.body.get("create_time"))
        yield conversion("trial_started", once=f"trial_started:{o['id']}", at_ms=at_ms, **_subscription(n, {}))


@provider.on(*CHANGES)
def changed(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["resource"]
    yield from _learned(n)
    at = o.get("status_update_time") or n.body["create_time"]
    reason = n.type.rpartition(".")[2].lower() if CHANGES[n.type] == "subscription_ended" else None
    draft = _subscription(n, {"reason": reason})
    yield event(CHANGES[n.type], once=f"{CHANGES[n.type]}:{o['id']}:{at}", at_ms=_ms(at), **draft)


@provider.on("BILLING.SUBSCRIPTION.PAYMENT.FAILED")
def payment_failed(n: Notification) -> Iterator[Draft | Learned]:
    """One for each attempt."""
    o = n.body["resource"]
    yield from _learned(n)
    billing = o.get("billing_info") or {}
    failed = billing.get("last_failed_payment") or {}
    at = failed.get("time") or n.body["create_time"]
    told = {"reason": failed.get("reason_code"), "attempt": billing.get("failed_payments_count")}
    draft = _subscription(n, {**told, **_unpaid(failed.get("amount"))})
    yield event("payment_failed", once=f"payment_failed:{o['id']}:{at}", at_ms=_ms(at), **draft)
