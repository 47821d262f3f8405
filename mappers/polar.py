"""Polar. https://polar.sh/docs/integrate/webhooks/events (API 2026-10, read 2026-11-23).

In: snapshots of orders, refunds, subscriptions, customers and checkouts. Out: a sale, told by `order.paid` alone; a
refund, by its own id and with its tax; the steps of a subscription. Refunds name nobody: they wait for their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
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
    identify,
)
from relay.money import from_minor
from relay.signatures import standard_webhooks

provider = Provider(
    name="polar",
    title="Polar",
    docs="https://polar.sh/docs/integrate/webhooks/endpoints",
    verifier=standard_webhooks(key="standard_or_text"),  # Polar signs with the text of the secret, its prefix included
    notification_id=header("webhook-id"),
    notification_type=field("type"),
    secret=SecretShape(
        meaning="Polar Dashboard > Settings > Webhooks > your endpoint > Secret",
        mistaken={"polar_oat_": "an organization access token", "polar_pat_": "a personal access token"},
    ),
    options={"identify": "An identify event for every new customer."},
)

#: Twins of what is mapped, steps on the way to it, and what is not about money or people.
TWINS = """
benefit.created benefit.updated benefit_grant.created benefit_grant.cycled benefit_grant.revoked benefit_grant.updated
checkout.created checkout.updated customer.deleted customer.state_changed customer_seat.assigned customer_seat.claimed
customer_seat.revoked discount.created discount.deleted discount.updated member.created member.deleted member.updated
order.created order.refunded order.updated organization.updated product.created product.updated subscription.active
subscription.cycled subscription.migrated subscription.updated
"""
provider.ignores(*TWINS.split())

Json = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _at_ms(n: Notification, moment: str | None = None) -> int:
    """The time of the fact where the object has one, else the time at which Polar said it."""
    said = moment or n.body.get("timestamp") or n.body["data"].get("modified_at") or n.body["data"]["created_at"]
    return (datetime.fromisoformat(said) - EPOCH) // timedelta(milliseconds=1)


def _keys(o: Json, **kinds: str) -> tuple[str, ...]:
    """`_keys(order, order="id")` is `("order:...",)`; what has no id is left out."""
    return tuple(f"{kind}:{o[name]}" for kind, name in kinds.items() if o.get(name))


def _about(o: Json) -> dict[str, Any]:
    """Who it was and where from: the nearest metadata has the last word."""
    customer = o.get("customer") or {}
    person = Person(
        email=customer.get("email") or o.get("customer_email"),
        external_id=customer.get("external_id") or o.get("external_customer_id"),
        customer_id=o.get("customer_id") or customer.get("id"),
    )
    metadata = {**(customer.get("metadata") or {}), **(o.get("customer_metadata") or {}), **(o.get("metadata") or {})}
    return {"person": person, "metadata": metadata}


def _bought(o: Json) -> dict[str, Any]:
    """What was bought: properties of an order, a subscription or a checkout."""
    subscription = o.get("subscription") or o
    discount, address = o.get("discount") or {}, o.get("billing_address") or o.get("customer_billing_address") or {}
    return {
        "subscription_id": o.get("subscription_id"),
        "product": (o.get("product") or {}).get("name"),
        "product_id": o.get("product_id"),
        "quantity": o.get("seats") or o.get("units"),
        "coupon": discount.get("code") or discount.get("name"),
        "billing_interval": subscription.get("recurring_interval"),
        "country": address.get("country"),
    }


def _unpaid(o: Json, amount: int | None) -> dict[str, Any]:
    """Money that did not move: properties, never revenue."""
    return {"amount": from_minor(amount, o["currency"]), "currency": o["currency"].upper()} if amount else {}


# --- orders -----------------------------------------------------------------------------------------------------------

#: What a paid order is, by `billing_reason`; every other order is a purchase.
SALES = {
    "subscription_create": "subscription_started",
    "subscription_cycle": "subscription_renewed",
    "subscription_meter_cycle": "subscription_renewed",
    "subscription_update": "plan_changed",
}


def _total(order: Json) -> int:
    """Tax included. Before 2025-04 an order said its net amount and its tax only."""
    if order.get("total_amount") is not None:
        return int(order["total_amount"])
    net = order["amount"] if order.get("net_amount") is None else order["net_amount"]
    return int(net + order["tax_amount"])


@provider.on("order.paid")
def order_paid(n: Notification) -> Iterator[Draft | Learned]:
    """Its revenue is what was charged: the total, and what the customer's balance added to it or took off."""
    order, who = n.body["data"], _about(n.body["data"])
    subscription_id, subscription = order.get("subscription_id"), order.get("subscription") or {}
    yield Learned(keys=_keys(order, order="id", subscription="subscription_id", customer="customer_id"), **who)
    if subscription.get("trial_end") and subscription["trial_end"] == subscription.get("current_period_start"):
        yield Learned(keys=_keys(order, trial="subscription_id"), marks=("trial",))
    total = _total(order)
    paid, tax, currency = total + (order.get("applied_balance_amount") or 0), order.get("tax_amount"), order["currency"]
    if paid <= 0:
        return
    name = SALES.get(order["billing_reason"], "purchase") if subscription_id else "purchase"
    properties = {"order_id": order["id"], **_bought(order)}
    if order.get("discount_amount"):
        properties["discount"] = from_minor(order["discount_amount"], currency)
    if 0 < paid < total:
        tax = round(Fraction(tax or 0) * paid / total)
    variants = {"trial": Variant(name="trial_converted", once=f"trial_converted:{subscription_id}")}
    can_convert = name in ("subscription_renewed", "plan_changed")
    yield conversion(
        name,
        once=f"order:{order['id']}",
        at_ms=_at_ms(n),
        revenue=from_minor(paid, currency),
        currency=currency.upper(),
        tax=from_minor(tax, currency) if tax else None,
        properties=properties,
        joins=_keys(order, **({"trial": "subscription_id"} if can_convert else {}), subscription="subscription_id"),
        variants=variants if can_convert else {},
        **who,
    )


# --- refunds ----------------------------------------------------------------------------------------------------------


@provider.on("refund.created", "refund.updated")
def refund(n: Notification) -> Iterator[Draft]:
    """Told once it succeeded. Of one that fails later nobody says whether it had: it is told there and back."""
    o, status = n.body["data"], n.body["data"]["status"]
    is_back = n.type == "refund.updated" and status in ("failed", "canceled")
    amount = from_minor(o["amount"] + o["tax_amount"], o["currency"])  # `amount` is without tax
    about: dict[str, Any] = {
        "tax": from_minor(o["tax_amount"], o["currency"]) if o["tax_amount"] else None,
        "currency": o["currency"].upper(),
        "joins": _keys(o, order="order_id", subscription="subscription_id", customer="customer_id"),
        "waits": True,
        "properties": {
            "order_id": o["order_id"],
            "refund_id": o["id"],
            "subscription_id": o.get("subscription_id"),
            "reason": o.get("reason"),
            "dispute_id": (o.get("dispute") or {}).get("id"),
        },
        **_about(o),
    }
    if amount and (status == "succeeded" or is_back):
        at_ms = _at_ms(n, o["created_at"])
        yield event("refund", once=f"refund:{o['id']}", at_ms=at_ms, revenue=-amount, **about)
    if amount and is_back:
        yield event("refund_reversed", once=f"refund_reversed:{o['id']}", at_ms=_at_ms(n), revenue=amount, **about)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _learned(subscription: Json) -> Iterator[Learned]:
    yield Learned(keys=_keys(subscription, subscription="id", customer="customer_id"), **_about(subscription))
    if subscription.get("status") == "trialing":
        yield Learned(keys=_keys(subscription, trial="id"), marks=("trial",))


def _properties(subscription: Json, **more: Any) -> dict[str, Any]:
    return {**_bought(subscription), "subscription_id": subscription["id"], **more}


@provider.on("subscription.created")
def subscription_created(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    yield from _learned(o)
    if o["status"] == "trialing":
        once, at_ms = f"trial_started:{o['id']}", _at_ms(n, o.get("trial_start"))
        yield conversion("trial_started", once=once, at_ms=at_ms, properties=_properties(o), **_about(o))


@provider.on("subscription.canceled", "subscription.revoked")
def subscription_canceled(n: Notification) -> Iterator[Draft | Learned]:
    """Canceled for the end of its period it goes on; revoked at once, Polar says both."""
    o = n.body["data"]
    yield from _learned(o)
    is_over = n.type == "subscription.revoked" or o["status"] in ("canceled", "unpaid")
    name, moment = ("ended", "ended_at") if is_over else ("cancel_scheduled", "canceled_at")
    reason = "payment_failed" if o["status"] == "unpaid" else o.get("customer_cancellation_reason")
    at_ms = _at_ms(n, o.get(moment))
    once = f"subscription_ended:{o['id']}" if is_over else f"subscription_cancel_scheduled:{o['id']}:{at_ms}"
    yield event(f"subscription_{name}", once=once, at_ms=at_ms, properties=_properties(o, reason=reason), **_about(o))


#: What may happen to a subscription more than once: the event, its reason, and the field with its time.
STATES = {
    "subscription.paused": ("subscription_paused", None, "paused_at"),
    "subscription.resumed": ("subscription_resumed", "pause_ended", None),
    "subscription.uncanceled": ("subscription_resumed", "cancellation_withdrawn", None),
}


@provider.on(*STATES)
def subscription_state(n: Notification) -> Iterator[Draft | Learned]:
    o, (name, reason, moment) = n.body["data"], STATES[n.type]
    yield from _learned(o)
    at_ms = _at_ms(n, o.get(moment) if moment else None)
    once = f"{name}:{o['id']}:{at_ms}"
    yield event(name, once=once, at_ms=at_ms, properties=_properties(o, reason=reason), **_about(o))


@provider.on("subscription.past_due")
def payment_failed(n: Notification) -> Iterator[Draft | Learned]:
    """The first failed attempt of a period: Polar says nothing of the attempts that follow."""
    o = n.body["data"]
    yield from _learned(o)
    at_ms, properties = _at_ms(n, o.get("past_due_at")), _properties(o, **_unpaid(o, o.get("amount")))
    yield event(
        "payment_failed", once=f"payment_failed:{o['id']}:{at_ms}", at_ms=at_ms, properties=properties, **_about(o)
    )


# --- customers and checkouts ------------------------------------------------------------------------------------------


@provider.on("customer.created", "customer.updated")
def customer(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    person = Person(email=o.get("email"), external_id=o.get("external_id"), customer_id=o["id"])
    metadata = o.get("metadata") or {}
    yield Learned(keys=(f"customer:{o['id']}",), person=person, metadata=metadata)
    if n.type == "customer.created":
        traits, at_ms = {"country": (o.get("billing_address") or {}).get("country")}, _at_ms(n, o.get("created_at"))
        who: dict[str, Any] = {"person": person, "metadata": metadata, "option": "identify"}
        yield identify(once=f"identify:{o['id']}", at_ms=at_ms, properties=traits, **who)


@provider.on("checkout.expired")
def checkout_expired(n: Notification) -> Iterator[Draft]:
    o = n.body["data"]
    properties = {"checkout_id": o["id"], **_bought(o), **_unpaid(o, o.get("total_amount"))}
    properties["billing_interval"] = (o.get("product") or {}).get("recurring_interval")
    yield event(
        "checkout_expired", once=f"checkout_expired:{o['id']}", at_ms=_at_ms(n), properties=properties, **_about(o)
    )
