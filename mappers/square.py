"""Square. https://developer.squareup.com/docs/webhooks/overview (API 2026-09-16, read 2026-11-23).

In: payments, refunds, disputes, invoices, subscriptions and customers, as they stand after each change. A sale is told
by its payment, once it is completed; invoices say whose it is, and whether a subscription made it. `order:x` is known
once an invoice told of that order. Subscriptions do not say what they cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
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
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="square",
    title="Square",
    docs="https://developer.squareup.com/docs/webhooks/overview",
    verifier=hmac_sha256(header="x-square-hmacsha256-signature", encoding="base64", message="{url}{body}"),
    notification_id=field("event_id"),
    notification_type=field("type"),
    account=field("merchant_id"),
    is_test=lambda item: item.headers.get("square-environment", "").lower() == "sandbox",
    secret=SecretShape(
        meaning="Square Developer Console > your application > Webhooks > your subscription > Signature key",
        mistaken={
            "EAAA": "an access token",
            "sq0idp-": "an application id",
            "sq0csp-": "an application secret",
            "sandbox-sq0": "an application id of the sandbox",
        },
    ),
)

#: Twins of what is mapped, and what is not about money or people.
TWINS = """
bank_account.created bank_account.disabled bank_account.verified card.automatically_updated card.created card.disabled
card.forgotten card.updated catalog.version.updated customer.deleted dispute.evidence.added dispute.evidence.created
dispute.evidence.deleted dispute.evidence.removed inventory.count.updated invoice.canceled invoice.deleted
invoice.refunded location.created location.updated order.created order.custom_attribute.updated
order.fulfillment.updated order.updated payout.failed payout.paid payout.sent
"""
provider.ignores(*TWINS.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _object(n: Notification, kind: str) -> Any:
    return n.body["data"]["object"][kind]


def _at_ms(n: Notification, moment: str | None = None) -> int:
    """The time of the fact where the object has one, else the time at which Square said it."""
    return (datetime.fromisoformat(moment or n.body["created_at"]) - EPOCH) // timedelta(milliseconds=1)


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _unmoved(money: Json | None) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return {"amount": from_minor(money["amount"], money["currency"]), "currency": money["currency"]} if money else {}


# --- payments ---------------------------------------------------------------------------------------------------------

#: Square's product that charges for an invoice, and for a subscription by its invoice.
INVOICES = "INVOICES"


def _channel(o: Json) -> str | None:
    return (o.get("application_details") or {}).get("square_product")


def _about_payment(o: Json) -> dict[str, Any]:
    person = Person(email=o.get("buyer_email_address") or None, customer_id=o.get("customer_id") or None)
    order, customer = ("order", o.get("order_id")), ("customer", person.customer_id)
    card = o.get("card_details") or {}
    return {
        "person": person,
        "joins": _keys(order, customer) if _channel(o) == INVOICES else _keys(customer, order),
        "properties": {
            "order_id": o.get("order_id") or o["id"],
            "payment_id": o["id"],
            "reference_id": o.get("reference_id") or None,
            "location_id": o.get("location_id"),
            "channel": (_channel(o) or "").lower() or None,
            "payment_method": (card.get("card") or {}).get("card_brand") or o.get("source_type"),
            "country": (o.get("billing_address") or o.get("shipping_address") or {}).get("country"),
        },
    }


@provider.on("payment.created", "payment.updated")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    """It is told again with every change, also when a part of it is given back: the sale has the payment's key."""
    o, draft = _object(n, "payment"), _about_payment(_object(n, "payment"))
    person, at_ms, status = draft["person"], _at_ms(n, o.get("created_at")), o["status"]
    is_invoice = _channel(o) == INVOICES
    if person.email or person.customer_id:
        yield Learned(keys=_keys(("payment", o["id"]), ("customer", person.customer_id)), person=person)
    if status == "COMPLETED":
        money, tip = o.get("total_money") or o["amount_money"], o.get("tip_money") or {}
        revenue, key = from_minor(money["amount"], money["currency"]), f"payment:{o['id']}"
        if tip.get("amount"):
            draft["properties"]["tip"] = from_minor(tip["amount"], tip["currency"])
        draft["variants"] = {
            "first": Variant(name="subscription_started", once=f"subscription_{key}"),
            "subscription": Variant(name="subscription_renewed", once=f"subscription_{key}"),
        }
        # at a till there is no customer, and nobody will tell of one
        draft["waits"] = is_invoice or bool(person.customer_id and not person.email)
        if revenue:
            yield conversion("purchase", once=key, at_ms=at_ms, revenue=revenue, currency=money["currency"], **draft)
    elif status == "FAILED":
        errors = (o.get("card_details") or {}).get("errors") or [{}]
        draft["properties"] |= {"reason": errors[0].get("code"), **_unmoved(o.get("total_money"))}
        once = _keys(("payment_failed", o["id"]), ("payment_failed", _attempt(n, o) if is_invoice else None))
        yield event("payment_failed", once=once, at_ms=at_ms, **draft)


def _attempt(n: Notification, o: Json) -> str | None:
    """What a failed charge of an invoice has in common with the invoice that tells of it: the order and the day."""
    return f"{o['order_id']}:{n.body['created_at'][:10]}" if o.get("order_id") else None


# --- refunds and disputes ---------------------------------------------------------------------------------------------


@provider.on("refund.created", "refund.updated")
def refund(n: Notification) -> Iterator[Draft]:
    o = _object(n, "refund")
    money = o["amount_money"]
    amount, payment_id = from_minor(money["amount"], money["currency"]), o.get("payment_id")
    if o["status"] == "COMPLETED" and amount:
        yield event(
            "refund",
            once=f"refund:{o['id']}",
            at_ms=_at_ms(n, o.get("created_at")),
            revenue=-amount,
            currency=money["currency"],
            joins=_keys(("payment", payment_id)),
            waits=bool(payment_id),
            properties={
                "order_id": o.get("order_id") or payment_id,
                "payment_id": payment_id,
                "refund_id": o["id"],
                "location_id": o.get("location_id"),
            },
        )


DISPUTES = {"WON": "dispute_won", "LOST": "dispute_lost", "ACCEPTED": "dispute_lost"}


@provider.on("dispute.created", "dispute.state.updated", "dispute.state.changed")
def dispute(n: Notification) -> Iterator[Draft]:
    o, is_new = _object(n, "dispute"), n.type == "dispute.created"
    entity, listed = o.get("id") or o["dispute_id"], o.get("disputed_payments") or [{}]  # before 2021 it was a list
    disputed: Json = o.get("disputed_payment") or listed[0]
    name = "dispute_opened" if is_new else DISPUTES.get(o["state"])
    payment_id = disputed.get("payment_id")
    properties = {
        "dispute_id": entity,
        "payment_id": payment_id,
        "reason": o.get("reason"),
        **_unmoved(o.get("amount_money")),
    }
    if name:
        yield event(
            name,
            once=f"{name}:{entity}",
            at_ms=_at_ms(n, o.get("created_at") if is_new else o.get("updated_at")),
            joins=_keys(("payment", payment_id)),
            waits=bool(payment_id),
            properties=properties,
        )


# --- invoices and subscriptions ---------------------------------------------------------------------------------------


def _recipient(o: Json) -> Person:
    recipient = o.get("primary_recipient") or {}
    return Person(email=recipient.get("email_address") or None, customer_id=recipient.get("customer_id") or None)


@provider.on("invoice.created", "invoice.published", "invoice.updated", "invoice.payment_made")
def invoice(n: Notification) -> Iterator[Learned]:
    """Its money is that of its payments: this says whose they are, and that a subscription made them."""
    o, person = _object(n, "invoice"), _recipient(_object(n, "invoice"))
    names = _keys(("order", o.get("order_id")), ("invoice", o["id"]))
    yield Learned(keys=names, same=True, person=person, marks=("subscription",) if o.get("subscription_id") else ())
    yield Learned(
        keys=_keys(("subscription", o.get("subscription_id")), ("customer", person.customer_id)), person=person
    )


@provider.on("invoice.scheduled_charge_failed")
def invoice_failed(n: Notification) -> Iterator[Draft]:
    o, person = _object(n, "invoice"), _recipient(_object(n, "invoice"))
    requests = o.get("payment_requests") or [{}]
    yield event(
        "payment_failed",
        once=f"payment_failed:{_attempt(n, o) or n.id}",
        at_ms=_at_ms(n),
        person=person,
        joins=_keys(("customer", person.customer_id)),
        properties={
            "order_id": o.get("order_id") or o["id"],
            "invoice_id": o["id"],
            "subscription_id": o.get("subscription_id"),
            "location_id": o.get("location_id"),
            **_unmoved(requests[0].get("computed_amount_money")),
        },
    )


@provider.on("subscription.created", "subscription.updated")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """Of what was before nothing is said: only the steps towards its end can be seen."""
    o, status = _object(n, "subscription"), _object(n, "subscription").get("status")
    customer, invoices = o.get("customer_id") or None, list(o.get("invoice_ids") or ())
    yield Learned(keys=_keys(("subscription", o["id"])), person=Person(customer_id=customer))
    if len(invoices) == 1:
        yield Learned(keys=_keys(("invoice", invoices[0])), marks=("first",))
    about: dict[str, Any] = {
        "person": Person(customer_id=customer),
        "joins": _keys(("customer", customer)),
        "waits": bool(customer),
        "properties": {
            "subscription_id": o["id"],
            "plan": o.get("plan_variation_id") or o.get("plan_id"),
            "location_id": o.get("location_id"),
        },
    }
    last_day = o.get("canceled_date")
    if status in ("CANCELED", "DEACTIVATED"):
        about["properties"]["reason"] = status.lower()
        yield event("subscription_ended", once=f"subscription_ended:{o['id']}", at_ms=_at_ms(n), **about)
    elif last_day:
        name = "subscription_cancel_scheduled"
        yield event(name, once=f"{name}:{o['id']}:{last_day}", at_ms=_at_ms(n), **about)
    if status == "PAUSED":
        once = f"subscription_paused:{o['id']}:{o.get('charged_through_date') or ''}"
        yield event("subscription_paused", once=once, at_ms=_at_ms(n), **about)


# --- customers --------------------------------------------------------------------------------------------------------


@provider.on("customer.created", "customer.updated")
def customer(n: Notification) -> Iterator[Learned]:
    o = _object(n, "customer")
    person = Person(
        email=o.get("email_address") or None, external_id=o.get("reference_id") or None, customer_id=o["id"]
    )
    yield Learned(keys=_keys(("customer", o["id"])), person=person)
