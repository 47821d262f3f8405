"""Razorpay. https://razorpay.com/docs/webhooks/ (read 2026-11-23).

In: events with snapshots of the entities that they are about. One payment is told by up to five types at once, so all
of them have its key. The payment of an invoice, which may be that of a subscription, waits for `billed:<payment>`:
known once `subscription.charged` or `invoice.paid` told what it was for. `trial:<subscription>` is known once it was
said whether the subscription began as a trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from relay.contract import (
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    Variant,
    conversion,
    event,
    field,
    header,
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="razorpay",
    title="Razorpay",
    docs="https://razorpay.com/docs/webhooks/",
    verifier=hmac_sha256(header="X-Razorpay-Signature"),
    notification_id=header("x-razorpay-event-id"),
    notification_type=field("event"),
    secret=SecretShape(
        meaning="Razorpay Dashboard > Account & Settings > Webhooks > your webhook: the secret that you typed in there",
        mistaken={"rzp_live_": "an API key", "rzp_test_": "an API key of the test mode"},
    ),
)

#: Twins of what is mapped, steps on the way to it, and what is not about a customer's money.
TWINS = """
account.app.authorization_revoked fund_account.validation.completed fund_account.validation.failed invoice.expired
payment.authorized payment.dispute.action_required payment.dispute.closed payment.dispute.under_review
payment.downtime.resolved payment.downtime.started payment.downtime.updated payment_link.cancelled payout.failed
payout.initiated payout.pending payout.processed payout.queued payout.rejected payout.reversed payout.updated
product.route.activated product.route.needs_clarification product.route.under_review qr_code.closed qr_code.created
qr_code.credited refund.failed refund.speed_changed settlement.processed transfer.failed transfer.processed
virtual_account.closed virtual_account.created virtual_account.credited
"""
provider.ignores(*TWINS.split())


def _entity(n: Notification, kind: str) -> Json:
    """What the event says of it; nothing where it says none."""
    return (n.body["payload"].get(kind) or {}).get("entity") or {}


def _said(n: Notification) -> int:
    """When Razorpay told it, which older webhooks have beside the entities; 0 where it does not say."""
    return int(n.body.get("created_at") or n.body["payload"].get("created_at") or 0)


def _at_ms(n: Notification, seconds: int | None = None) -> int:
    return int(seconds or _said(n)) * 1000


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _notes(*entities: Json) -> dict[str, Any]:
    """The site's own notes; none are an empty list. The last entity has the last word."""
    return {key: value for o in entities if isinstance(o.get("notes"), dict) for key, value in o["notes"].items()}


#: What stands where a merchant does not ask for the address.
NO_EMAIL = "void@razorpay.com"


def _person(*entities: Json) -> Person:
    """The first that is there, of each."""
    customers = [o.get("customer_details") or {} for o in entities]
    emails = [o.get("email") or o.get("customer_email") for o in (*entities, *customers)]
    ids = [o.get("customer_id") or o.get("id") for o in customers]
    return Person(
        email=next((email for email in emails if email and email != NO_EMAIL), None),
        customer_id=next((each for each in (*(o.get("customer_id") for o in entities), *ids) if each), None),
    )


def _unmoved(o: Json) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    is_told = o.get("amount") and o.get("currency")  # payments that failed may have an empty currency
    return {"amount": from_minor(o["amount"], o["currency"]), "currency": o["currency"]} if is_told else {}


# --- payments ---------------------------------------------------------------------------------------------------------


def _about_payment(n: Notification) -> dict[str, Any]:
    payment, order, subscription = _entity(n, "payment"), _entity(n, "order"), _entity(n, "subscription")
    link, invoice = _entity(n, "payment_link"), _entity(n, "invoice")
    person = _person(payment, link.get("customer") or {}, invoice, subscription)
    order_id, subscription_id = payment.get("order_id") or order.get("id"), subscription.get("id")
    return {
        "person": person,
        "metadata": _notes(subscription, invoice, order, link, payment),
        "joins": _keys(("customer", person.customer_id), ("order", order_id), ("subscription", subscription_id)),
        "properties": {
            "order_id": order_id or payment["id"],
            "payment_id": payment["id"],
            "receipt": order.get("receipt") or None,
            "invoice_id": payment.get("invoice_id"),
            "subscription_id": subscription_id or invoice.get("subscription_id"),
            "plan": subscription.get("plan_id"),
            "quantity": subscription.get("quantity"),
            "coupon": order.get("offer_id") or subscription.get("offer_id"),
            "payment_method": payment.get("method"),
            "is_international": payment.get("international") or None,
        },
    }


def _sale(n: Notification, name: str, draft: Mapping[str, Any], *, is_told_later: bool = False) -> Iterator[Draft]:
    """`tax` is that on Razorpay's fee, so that it is no part of the sale."""
    payment = _entity(n, "payment")
    revenue, currency = from_minor(payment["amount"], payment["currency"]), payment["currency"]
    at_ms, more = _at_ms(n, payment.get("created_at")), dict(draft)
    if is_told_later:
        more |= {"joins": (f"billed:{payment['id']}", *draft["joins"]), "waits": True}
    if revenue:
        once = f"payment:{payment['id']}"
        yield conversion(name, once=once, at_ms=at_ms, revenue=revenue, currency=currency, **more)


def _learned(n: Notification, draft: Mapping[str, Any]) -> Iterator[Learned]:
    """Who is behind the payment, and all that the event says it belongs to; of a customer not where this came from."""
    payment, person = _entity(n, "payment"), draft["person"]
    subscription = ("subscription", draft["properties"]["subscription_id"])
    keys = _keys(("payment", payment["id"]), ("order", payment.get("order_id")), subscription)
    yield Learned(keys=keys, person=person, metadata=draft["metadata"])
    if person.customer_id and person.email:
        yield Learned(keys=_keys(("customer", person.customer_id)), person=person)


@provider.on("payment.captured", "order.paid", "payment_link.paid", "payment_link.partially_paid")
def payment_captured(n: Notification) -> Iterator[Draft | Learned]:
    if _entity(n, "payment"):  # an order may be marked as paid by hand
        draft = _about_payment(n)
        yield from _learned(n, draft)
        yield from _sale(n, "purchase", draft, is_told_later=bool(_entity(n, "payment").get("invoice_id")))


@provider.on("invoice.paid", "invoice.partially_paid")
def invoice_paid(n: Notification) -> Iterator[Draft | Learned]:
    """An invoice of a subscription is told by `subscription.charged`, which knows whether it is the first."""
    payment, subscription = _entity(n, "payment"), _entity(n, "invoice").get("subscription_id")
    if payment:
        draft = _about_payment(n)
        yield from _learned(n, draft)
        if not subscription:
            yield Learned(keys=_keys(("billed", payment["id"])))
        yield from _sale(
            n, "subscription_renewed" if subscription else "purchase", draft, is_told_later=bool(subscription)
        )


@provider.on("subscription.charged")
def subscription_charged(n: Notification) -> Iterator[Draft | Learned]:
    payment, subscription = _entity(n, "payment"), _entity(n, "subscription")
    if payment:
        draft = _about_payment(n)
        yield from _learned(n, draft)
        yield Learned(keys=_keys(("billed", payment["id"])))
        is_first, key = subscription.get("paid_count") == 1, f"trial_converted:{subscription['id']}"
        if is_first:
            draft["joins"], draft["waits"] = (f"trial:{subscription['id']}", *draft["joins"]), True
            draft["variants"] = {"trial": Variant(name="trial_converted", once=key)}
        yield from _sale(n, "subscription_started" if is_first else "subscription_renewed", draft)


@provider.on("payment.failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """The same payment may succeed later, in the shopper's second try."""
    payment, draft = _entity(n, "payment"), _about_payment(n)
    draft["properties"] |= {"reason": payment.get("error_reason") or payment.get("error_code") or None}
    draft["properties"] |= _unmoved(payment)
    once = f"payment_failed:{payment['id']}"
    yield event("payment_failed", once=once, at_ms=_at_ms(n, payment.get("created_at")), **draft)


@provider.on("payment_link.expired")
def link_expired(n: Notification) -> Iterator[Draft]:
    o = _entity(n, "payment_link")
    yield event(
        "checkout_expired",
        once=f"checkout_expired:{o['id']}",
        at_ms=_at_ms(n, o.get("expired_at")),
        person=_person(o.get("customer") or {}),
        metadata=_notes(o),
        properties={"order_id": o.get("order_id") or o["id"], "payment_link_id": o["id"], **_unmoved(o)},
    )


# --- refunds and disputes ---------------------------------------------------------------------------------------------


def _about_paid(n: Notification, payment_id: str | None, **properties: Any) -> dict[str, Any]:
    """Of what happened to a payment; the event mostly repeats whose it was."""
    payment = _entity(n, "payment")
    person, order_id = _person(payment), payment.get("order_id")
    return {
        "person": person,
        "metadata": _notes(payment),
        "joins": _keys(("payment", payment_id), ("order", order_id), ("customer", person.customer_id)),
        "waits": bool(payment_id) and not person.email,
        "properties": {"order_id": order_id or payment_id, "payment_id": payment_id, **properties},
    }


def _was_no_sale(payment: Json) -> bool:
    """What is authorised and not captured in time, Razorpay gives back by itself."""
    return payment.get("captured") in (False, "0", "false")


@provider.on("refund.created", "refund.processed")
def refund(n: Notification) -> Iterator[Draft]:
    """Told once it is processed, which it may be at once."""
    o = _entity(n, "refund")
    if _was_no_sale(_entity(n, "payment")):
        return
    amount = from_minor(o["amount"], o.get("currency") or _entity(n, "payment")["currency"])
    draft = _about_paid(n, o.get("payment_id"), refund_id=o["id"])
    money = {"revenue": -amount, "currency": o.get("currency") or _entity(n, "payment")["currency"]}
    if amount and (n.type == "refund.processed" or o.get("status") == "processed"):
        yield event("refund", once=f"refund:{o['id']}", at_ms=_at_ms(n, o.get("created_at")), **money, **draft)


DISPUTES = {
    "payment.dispute.created": "dispute_opened",
    "payment.dispute.won": "dispute_won",
    "payment.dispute.lost": "dispute_lost",
}


@provider.on(*DISPUTES)
def dispute(n: Notification) -> Iterator[Draft]:
    o, name = _entity(n, "dispute"), DISPUTES[n.type]
    about = {"dispute_id": o["id"], "reason": o.get("reason_code"), "stage": o.get("phase"), **_unmoved(o)}
    at_ms = _at_ms(n, o.get("created_at") if name == "dispute_opened" else None)
    yield event(name, once=f"{name}:{o['id']}", at_ms=at_ms, **_about_paid(n, o.get("payment_id"), **about))


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _about_subscription(n: Notification) -> dict[str, Any]:
    o, payment = _entity(n, "subscription"), _entity(n, "payment")
    person = _person(payment, o)
    return {
        "person": person,
        "metadata": _notes(payment, o),
        "joins": _keys(("subscription", o["id"]), ("customer", person.customer_id)),
        "waits": not person.email,
        "properties": {"subscription_id": o["id"], "plan": o.get("plan_id"), "quantity": o.get("quantity")},
    }


def _known(draft: Mapping[str, Any]) -> Iterator[Learned]:
    """Only where it says who it is: what waits for a subscription waits for that."""
    if draft["person"].email or draft["metadata"]:
        yield Learned(keys=draft["joins"][:1], person=draft["person"], metadata=draft["metadata"])


@provider.on("subscription.authenticated")
def subscription_authenticated(n: Notification) -> Iterator[Draft | Learned]:
    """The mandate was given. One that is charged only from a later day on is how Razorpay does trials."""
    o, draft = _entity(n, "subscription"), _about_subscription(n)
    yield from _known(draft)
    is_trial = (o.get("start_at") or 0) > _said(n) and not o.get("paid_count")
    yield Learned(keys=(f"trial:{o['id']}",), marks=("trial",) if is_trial else ())
    if is_trial:
        yield conversion("trial_started", once=f"trial_started:{o['id']}", at_ms=_at_ms(n), **draft)


#: What ends a subscription, or may happen to it more than once: the event and its reason.
STATES = {
    "subscription.cancelled": ("subscription_ended", "cancelled"),
    "subscription.completed": ("subscription_ended", "completed"),
    "subscription.halted": ("subscription_paused", "payment_failed"),
    "subscription.paused": ("subscription_paused", None),
    "subscription.resumed": ("subscription_resumed", None),
}


@provider.on(*STATES)
def subscription_state(n: Notification) -> Iterator[Draft | Learned]:
    o, draft, (name, reason) = _entity(n, "subscription"), _about_subscription(n), STATES[n.type]
    yield from _known(draft)
    draft["properties"]["reason"] = reason
    is_end = name == "subscription_ended"
    once = f"{name}:{o['id']}" if is_end else f"{name}:{o['id']}:{_said(n)}"
    yield event(name, once=once, at_ms=_at_ms(n, o.get("ended_at") if is_end else None), **draft)


@provider.on("subscription.updated")
def subscription_updated(n: Notification) -> Iterator[Draft | Learned]:
    """A change that is due later is told when it is made."""
    o, draft = _entity(n, "subscription"), _about_subscription(n)
    yield from _known(draft)
    draft["properties"]["to_plan"] = o.get("plan_id")
    if not o.get("has_scheduled_changes"):
        yield event("plan_changed", once=f"plan_changed:{o['id']}:{_said(n)}", at_ms=_at_ms(n), **draft)


@provider.on("subscription.activated", "subscription.pending")
def subscription_known(n: Notification) -> Iterator[Draft | Learned]:
    """Twins of a payment, or of a failed one, which is told here too where the event names it."""
    payment, draft = _entity(n, "payment"), _about_subscription(n)
    yield from _known(draft)
    if n.type == "subscription.pending" and payment.get("status") == "failed":
        reason = payment.get("error_reason") or payment.get("error_code") or None
        draft["properties"] |= {"payment_id": payment["id"], "reason": reason, **_unmoved(payment)}
        once = f"payment_failed:{payment['id']}"
        yield event("payment_failed", once=once, at_ms=_at_ms(n, payment.get("created_at")), **draft)
