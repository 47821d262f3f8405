"""Xendit. https://docs.xendit.co/docs/set-up-webhooks (invoices v2, payments v1 to v3, subscriptions, read 2026-11-23).

In: webhooks of several generations, which an account may mix. Newer ones name their event; of the flat older ones the
type is read from what they hold (`invoice.paid`, `virtual_account.paid`). One payment may be told by its invoice, its
session, its subscription's cycle and itself: all have its id among their keys. Amounts are in major units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from relay.contract import (
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    header,
)
from relay.money import from_major
from relay.signatures import header_token

Json = Mapping[str, Any]

#: What only one kind of the flat webhooks holds, and how that kind is called here.
FLAT = {
    "merchant_name": "invoice",
    "callback_virtual_account_id": "virtual_account",
    "fixed_payment_code_id": "retail_outlet",
    "disbursement_description": "disbursement",
    "is_closed": "virtual_account_state",
}


def _type(item: Item) -> str | None:
    """Of a flat one: its kind and its status, which is "paid" where it has none."""
    body = item.body
    if body.get("event"):
        return str(body["event"])
    kind = next((name for mark, name in FLAT.items() if mark in body), None)
    return f"{kind}.{(body.get('status') or 'paid').lower()}" if kind else None


provider = Provider(
    name="xendit",
    title="Xendit",
    docs="https://docs.xendit.co/docs/set-up-webhooks",
    verifier=header_token("x-callback-token"),
    notification_id=header("webhook-id"),
    notification_type=_type,
    secret=SecretShape(
        meaning="Xendit Dashboard > Settings > Webhooks: the webhook verification token",
        mistaken={"xnd_": "an API key"},
    ),
)

#: Twins of what is mapped, steps on the way to it, and money that goes out.
TWINS = """
credit_card.authentication credit_card.tokenization disbursement.completed disbursement.failed
invoice.pending payment.authorization payment.awaiting_capture payment.pending payment_method.activated
payment_method.expired payment_method.expiring payment_request.expired payment_token.activation payment_token.expiry
payment_token.failure payout.failed payout.succeeded recurring.cycle.created recurring.cycle.force_attempt_failed
refund.failed virtual_account_state.active virtual_account_state.inactive virtual_account_state.pending
"""
provider.ignores(*TWINS.split())

#: Flat webhooks of Indonesian banks and shops name no currency.
FLAT_CURRENCY = "IDR"


def _ms(*texts: str | None) -> int:
    """The first that is there. `created` of the envelope is when it was sent."""
    at = datetime.fromisoformat(next(text for text in texts if text))
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value not in (None, "")}


def _data(n: Notification) -> Json:
    """The object that it is about: of newer webhooks in an envelope (in two, in some of the documentation)."""
    data: Json = n.body.get("data") or n.body
    return data["data"] if isinstance(data.get("data"), dict) else data


def _dict(o: Json, name: str) -> Json:
    part = o.get(name)
    return part if isinstance(part, dict) else {}


def _who(o: Json) -> Person:
    customer = _dict(o, "customer")
    email = o.get("payer_email") or customer.get("email")
    return Person(email=email, customer_id=o.get("customer_id") or customer.get("id"))


def _about(o: Json, properties: Json, *joins: tuple[str, str | None]) -> dict[str, Any]:
    who = _who(o)
    told = {"channel": o.get("payment_channel") or o.get("channel_code"), "country": o.get("country")}
    return {
        "person": who,
        "metadata": _dict(o, "metadata"),
        "joins": _keys(*joins, ("customer", who.customer_id)),
        "properties": _known({**properties, **told}),
    }


def _unpaid(amount: Any, currency: str | None) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return {"amount": from_major(amount), "currency": currency} if amount is not None and currency else {}


CLICKS = ("gclid", "fbclid", "msclkid", "ref")


def _sale(name: str, draft: dict[str, Any], *, once: tuple[str, ...], **money: Any) -> Iterator[Draft | Learned]:
    """The payment, and who stands behind its names. Where it came from is no news about the customer's others."""
    person, given = draft["person"], draft["metadata"]
    lasting = {key: value for key, value in given.items() if not key.startswith("utm_") and key not in CLICKS}
    yield Learned(keys=once, person=person, metadata=given)
    if draft["joins"]:
        yield Learned(keys=draft["joins"], person=person, metadata=lasting)
    if money["revenue"]:
        yield conversion(name, once=once, **money, **draft)


# --- payments ---------------------------------------------------------------------------------------------------------

PAID = ("succeeded", "completed", "captured", "settled", "paid")
FAILED = ("failed", "expired", "canceled", "cancelled")


def _payment(o: Json) -> str | None:
    return o.get("payment_id") or o.get("id")


def _paid(o: Json) -> Decimal:
    """What was captured; without captures, what was asked for, in the words of each generation."""
    captured = [from_major(each["capture_amount"]) for each in o.get("captures") or ()]
    words = ("capture_amount", "charge_amount", "amount", "request_amount")
    return sum(captured, Decimal()) or from_major(next(o[word] for word in words if o.get(word) is not None))


@provider.on(
    "payment.capture", "payment.succeeded", "capture.succeeded", "ewallet.capture", "qr.payment", "direct_debit.payment"
)
@provider.on("payment.failure", "payment.failed", "capture.failed", "ewallet.payment", "paylater.payment")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    """The status decides: some types tell of both."""
    o = _data(n)
    own, status = _payment(o), (o.get("status") or n.type.rpartition(".")[2]).lower()
    code, captures = _dict(o, "qr_code"), o.get("captures") or [{}]
    reference = o.get("reference_id") or code.get("external_id") or o.get("external_id")
    currency = o.get("currency") or (FLAT_CURRENCY if code or n.type == "ewallet.payment" else None)
    told, request = {"order_id": reference or own, "payment_id": own}, ("request", o.get("payment_request_id"))
    draft = _about({**o, "metadata": o.get("metadata") or code.get("metadata")}, told, request)
    at = captures[-1].get("capture_timestamp") or o.get("updated")
    at_ms = _ms(at, o.get("created"), n.body.get("created"))
    if status in PAID:
        once = _keys(("payment", own))
        yield from _sale("purchase", draft, once=once, at_ms=at_ms, revenue=_paid(o), currency=currency)
    elif status in FAILED or status == "failure":
        amount = next((o[word] for word in ("amount", "request_amount", "charge_amount") if o.get(word)), None)
        draft["properties"] |= _known({"reason": o.get("failure_code")}) | _unpaid(amount, currency)
        yield event("payment_failed", once=f"payment_failed:{own}", at_ms=at_ms, **draft)


@provider.on("payment_session.completed")
def session(n: Notification) -> Iterator[Draft | Learned]:
    """The twin of its payment; one that only saved a card has none."""
    o = _data(n)
    own, paid = o.get("payment_session_id") or o.get("id"), o.get("payment_id")
    draft = _about(o, {"order_id": o.get("reference_id") or own, "payment_id": paid}, ("session", own))
    if paid:
        at_ms = _ms(o.get("updated"), o.get("created"), n.body.get("created"))
        once, amount = _keys(("payment", paid), ("session", own)), from_major(o["amount"])
        yield from _sale("purchase", draft, once=once, at_ms=at_ms, revenue=amount, currency=o["currency"])


# --- invoices, and other flat webhooks --------------------------------------------------------------------------------


@provider.on("invoice.paid", "invoice.settled")
def invoice(n: Notification) -> Iterator[Draft | Learned]:
    """Payment links too. Those of the older subscriptions name one."""
    o, subscription = n.body, n.body.get("recurring_payment_id")
    told = {"order_id": o.get("external_id") or o["id"], "invoice_id": o["id"], "subscription_id": subscription}
    draft = _about(o, told, ("subscription", subscription))
    once = _keys(("invoice", o["id"]), ("payment", o.get("payment_id")))
    amount = from_major(o["amount"] if o.get("paid_amount") is None else o["paid_amount"])
    at_ms, currency = _ms(o.get("paid_at"), o.get("updated")), o.get("currency") or FLAT_CURRENCY
    name = "subscription_renewed" if subscription else "purchase"
    yield from _sale(name, draft, once=once, at_ms=at_ms, revenue=amount, currency=currency)


@provider.on("virtual_account.paid", "virtual_account.completed", "retail_outlet.completed", "retail_outlet.settling")
def flat(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body
    paid = o.get("payment_id") or o.get("fixed_payment_code_payment_id")
    draft = _about(o, {"order_id": o.get("external_id") or o["id"], "channel": o.get("bank_code")})
    draft["properties"] |= _known({"channel": o.get("bank_code") or o.get("retail_outlet_name")})
    at_ms = _ms(o.get("transaction_timestamp"), o.get("updated"), o.get("created"))
    currency, once = o.get("currency") or FLAT_CURRENCY, _keys(("payment", paid), ("flat", o.get("id")))
    yield from _sale("purchase", draft, once=once, at_ms=at_ms, revenue=from_major(o["amount"]), currency=currency)


@provider.on("invoice.expired", "payment_session.expired")
def unfinished(n: Notification) -> Iterator[Draft]:
    o = _data(n)
    own, reference = o.get("payment_session_id") or o["id"], o.get("external_id") or o.get("reference_id")
    told = {"order_id": reference or own, **_unpaid(o.get("amount"), o.get("currency"))}
    at = o.get("updated") or o.get("expires_at") or o.get("created")
    yield event("checkout_expired", once=f"checkout_expired:{own}", at_ms=_ms(at), **_about(o, told))


# --- refunds ----------------------------------------------------------------------------------------------------------


@provider.on("refund.succeeded", "ewallet.refund")
def refund(n: Notification) -> Iterator[Draft]:
    """What it gives back of: a payment, of older ones an invoice or an e-wallet's charge, which tells failures too."""
    o = _data(n)
    if (o.get("status") or PAID[0]).lower() not in PAID:
        return
    paid, of_invoice = o.get("payment_id") or o.get("charge_id"), o.get("invoice_id")
    request = o.get("payment_request_id")
    told = {
        "order_id": of_invoice or paid or request,
        "payment_id": paid,
        "refund_id": o["id"],
        "reason": o.get("reason"),
    }
    draft = _about(o, told, ("payment", paid), ("invoice", of_invoice), ("request", request))
    draft["waits"] = bool(paid or of_invoice or request)
    amount = from_major(o["refund_amount" if n.type == "ewallet.refund" else "amount"])
    at_ms = _ms(o.get("updated"), o.get("created"), n.body.get("created"))
    yield event("refund", once=f"refund:{o['id']}", at_ms=at_ms, revenue=-amount, currency=o["currency"], **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _cycle(n: Notification, properties: Json) -> dict[str, Any]:
    o = _data(n)
    plan = o.get("plan_id") or o.get("recurring_plan_id")
    told = {"order_id": o["id"], "subscription_id": plan, **properties}
    return _about(o, told, ("subscription", plan))


def _attempts(o: Json) -> list[Json]:
    return o.get("attempt_details") or [{}]


@provider.on("recurring.cycle.succeeded")
def cycle(n: Notification) -> Iterator[Draft | Learned]:
    """The twin of its payment, which is the action that succeeded."""
    o = _data(n)
    paid = next((each for each in _attempts(o) if (each.get("status") or "").lower() == "succeeded"), {})
    is_first = o.get("cycle_number") == 1 or o.get("type") == "IMMEDIATE"
    name = "subscription_started" if is_first else "subscription_renewed"
    once = _keys(("payment", paid.get("action_id")), ("cycle", o["id"]))
    at_ms = _ms(paid.get("created"), o.get("updated"), o.get("created"), n.body.get("created"))
    draft, amount = _cycle(n, {"attempt": o.get("attempt_count")}), from_major(o["amount"])
    yield from _sale(name, draft, once=once, at_ms=at_ms, revenue=amount, currency=o["currency"])


@provider.on("recurring.cycle.retrying", "recurring.cycle.failed")
def cycle_failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt: that the cycle was given up is told by the last of them."""
    o = _data(n)
    tried = _attempts(o)[-1]
    number = tried.get("attempt_number") or o.get("attempt_count")
    told = {"attempt": number, "reason": tried.get("failure_code"), **_unpaid(o.get("amount"), o.get("currency"))}
    at_ms = _ms(tried.get("created"), o.get("updated"), n.body.get("created"))
    once = _keys(("payment_failed", f"{o['id']}:{number or n.type}"), ("payment_failed", tried.get("action_id")))
    yield event("payment_failed", once=once, at_ms=at_ms, **_cycle(n, told))


@provider.on("recurring.plan.activated", "recurring.plan.inactivated")
def plan(n: Notification) -> Iterator[Draft | Learned]:
    o = _data(n)
    schedule = _dict(o, "schedule")
    told = {"subscription_id": o["id"], "billing_interval": (schedule.get("interval") or "").lower()}
    draft = _about(o, told, ("subscription", o["id"]))
    yield Learned(keys=draft["joins"], person=draft["person"], metadata=draft["metadata"])
    if n.type == "recurring.plan.inactivated":
        at_ms = _ms(o.get("updated"), n.body.get("created"))
        yield event("subscription_ended", once=f"subscription_ended:{o['id']}", at_ms=at_ms, **draft)
