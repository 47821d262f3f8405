"""Lemon Squeezy. https://docs.lemonsqueezy.com/help/webhooks (API v1, read 2026-11-23).

In: notifications of a store's webhook. A sale is told by its order, a later payment by the subscription's invoice; the
first invoice repeats the order. No order says whether it began a subscription: it waits for `start:<order>`, known once
a subscription named it. `trial:<subscription>` is known once it was said whether the subscription began as a trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

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
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]


def _is_test(item: Item) -> bool:
    said = (item.body["meta"], item.body["data"]["attributes"])
    return any(each.get("test_mode") is True for each in said)


provider = Provider(
    name="lemon_squeezy",
    title="Lemon Squeezy",
    docs="https://docs.lemonsqueezy.com/help/webhooks",
    verifier=hmac_sha256(header="X-Signature"),
    # without it, as in older webhooks, the digest of the body; X-Event-Name is not signed
    notification_id=field("meta.webhook_id"),
    notification_type=field("meta.event_name"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="Lemon Squeezy > Settings > Webhooks > your webhook: the signing secret that you chose",
        mistaken={"eyJ": "an API key"},
    ),
    options={"plan_changes": "Changes of plan as such, beside the invoices that bill them: for those that none bills."},
)

provider.ignores(
    "affiliate_activated",
    "license_key_created",
    "license_key_updated",
    "subscription_payment_recovered",  # always sent alongside subscription_payment_success
)


def _ms(text: str) -> int:
    """ISO 8601, as Unix milliseconds."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _text(number: int | str | None) -> str | None:
    return None if number is None else str(number)


def _keys(*ids: tuple[str, int | str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _about(
    n: Notification, properties: Json, *joins: tuple[str, int | str | None], waits: bool = True
) -> dict[str, Any]:
    """What the drafts of all objects have. Older invoices carry no custom data: their subscription does."""
    o = n.body["data"]["attributes"]
    return {
        "person": Person(email=o.get("user_email"), customer_id=_text(o.get("customer_id"))),
        "metadata": n.body["meta"].get("custom_data") or {},
        "joins": _keys(*joins, ("customer", o.get("customer_id"))),
        "waits": waits,
        "properties": _known(properties),
    }


def _share(o: Json, amount: int) -> Decimal:
    """The tax in a part of the total."""
    tax, total = o.get("tax") or 0, o.get("total") or amount
    return from_minor(tax if amount >= total else round(Fraction(tax * amount, total)), o["currency"])


def _money(o: Json, amount: int) -> dict[str, Any]:
    return {"revenue": from_minor(amount, o["currency"]), "tax": _share(o, amount), "currency": o["currency"]}


def _refund(n: Notification, draft: dict[str, Any], once: str) -> Iterator[Draft]:
    """Lemon Squeezy says the sum of all refunds and not the last: the first is told, and no more than was paid back."""
    o = n.body["data"]["attributes"]
    amount = o["total"] if o.get("refunded") else o["refunded_amount"]
    if amount:
        money = _money(o, amount)
        money |= {"revenue": -money["revenue"], "tax": -money["tax"]}
        yield event("refund", once=once, at_ms=_ms(o.get("refunded_at") or o["updated_at"]), **money, **draft)


# --- orders -----------------------------------------------------------------------------------------------------------

#: Paid once, whatever was given back since.
PAID = ("paid", "refunded", "partial_refund")


def _about_order(n: Notification, *joins: tuple[str, int | str | None]) -> dict[str, Any]:
    order, o = n.body["data"]["id"], n.body["data"]["attributes"]
    item = o.get("first_order_item") or {}
    discount = from_minor(o["discount_total"], o["currency"]) if o.get("discount_total") else None
    properties = {
        "order_id": order,
        "order_number": o.get("order_number"),
        "product": _text(item.get("product_id")),
        "plan": _text(item.get("variant_id")),
        "quantity": item.get("quantity"),
        "discount": discount,
    }
    return _about(n, properties, *joins)


@provider.on("order_created")
def order(n: Notification) -> Iterator[Draft | Learned]:
    order, o = n.body["data"]["id"], n.body["data"]["attributes"]
    draft = _about_order(n, ("start", order))
    learned = _keys(("order", order), ("customer", o.get("customer_id")))
    yield Learned(keys=learned, person=draft["person"], metadata=draft["metadata"])
    if o["status"] in PAID and o["total"]:
        started = Variant(name="subscription_started", once=f"subscription_started:{order}")
        money, once = _money(o, o["total"]), f"order:{order}"
        at_ms = _ms(o["created_at"])
        yield conversion("purchase", once=once, at_ms=at_ms, variants={"subscription": started}, **money, **draft)


@provider.on("order_refunded")
def order_refunded(n: Notification) -> Iterator[Draft]:
    order = n.body["data"]["id"]
    yield from _refund(n, _about_order(n, ("order", order)), f"refund:order:{order}")


# --- the invoices of subscriptions ------------------------------------------------------------------------------------

#: By `billing_reason`. The first invoice, `initial`, is the order once more.
SALES = {"renewal": "subscription_renewed", "updated": "plan_changed"}


def _about_invoice(n: Notification, *first: tuple[str, int | str | None]) -> dict[str, Any]:
    o = n.body["data"]["attributes"]
    subscription = o.get("subscription_id")
    properties = {
        "invoice_id": n.body["data"]["id"],
        "subscription_id": _text(subscription),
        "billing_reason": o.get("billing_reason"),
    }
    return _about(n, properties, *first, ("subscription", subscription))


@provider.on("subscription_payment_success")
def invoice_paid(n: Notification) -> Iterator[Draft]:
    o, once = n.body["data"]["attributes"], f"invoice:{n.body['data']['id']}"
    name, subscription, at_ms = SALES.get(o["billing_reason"]), o["subscription_id"], _ms(o["updated_at"])
    if name and o["total"]:
        converted = Variant(name="trial_converted", once=f"trial_converted:{subscription}")
        draft = _about_invoice(n, ("trial", subscription))
        yield conversion(name, once=once, at_ms=at_ms, variants={"trial": converted}, **_money(o, o["total"]), **draft)
    elif name == "plan_changed":
        yield event(name, once=once, at_ms=at_ms, **_about_invoice(n))


@provider.on("subscription_payment_failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt, which has no id of its own."""
    o = n.body["data"]["attributes"]
    draft = _about_invoice(n)
    draft["properties"] |= {"amount": from_minor(o["total"], o["currency"]), "currency": o["currency"]}
    once = f"payment_failed:{n.body['data']['id']}:{o['updated_at']}"
    yield event("payment_failed", once=once, at_ms=_ms(o["updated_at"]), **draft)


@provider.on("subscription_payment_refunded")
def payment_refunded(n: Notification) -> Iterator[Draft]:
    """Of the first invoice the order tells it."""
    if n.body["data"]["attributes"]["billing_reason"] != "initial":
        yield from _refund(n, _about_invoice(n), f"refund:invoice:{n.body['data']['id']}")


# --- subscriptions ----------------------------------------------------------------------------------------------------

CHANGES = {
    "subscription_cancelled": "subscription_cancel_scheduled",
    "subscription_resumed": "subscription_resumed",
    "subscription_paused": "subscription_paused",
    "subscription_unpaused": "subscription_resumed",
    "subscription_plan_changed": "plan_changed",
}


def _about_subscription(n: Notification) -> dict[str, Any]:
    subscription, o = n.body["data"]["id"], n.body["data"]["attributes"]
    properties = {
        "subscription_id": subscription,
        "product": _text(o.get("product_id")),
        "plan": _text(o.get("variant_id")),
        "quantity": (o.get("first_subscription_item") or {}).get("quantity"),
    }
    return _about(n, properties, ("subscription", subscription), ("order", o.get("order_id")), waits=False)


def _learned(n: Notification, draft: dict[str, Any]) -> Iterator[Learned]:
    """Who it is, what the order began, and whether as a trial: of one that left its trial that is not said again."""
    subscription, o = n.body["data"]["id"], n.body["data"]["attributes"]
    yield Learned(keys=draft["joins"], person=draft["person"], metadata=draft["metadata"])
    if o.get("order_id"):
        yield Learned(keys=_keys(("start", o["order_id"])), marks=("subscription",))
    if o.get("status") == "on_trial" or not o.get("trial_ends_at"):
        is_trial = o.get("status") == "on_trial"
        yield Learned(keys=_keys(("trial", subscription)), marks=("trial",) if is_trial else ())


@provider.on("subscription_created", "subscription_updated")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """The payment tells that it started, unless as a trial. An update says what is, and not what was."""
    o, draft = n.body["data"]["attributes"], _about_subscription(n)
    yield from _learned(n, draft)
    if o.get("status") == "on_trial":
        once = f"trial_started:{n.body['data']['id']}"
        yield conversion("trial_started", once=once, at_ms=_ms(o["created_at"]), **draft)


@provider.on("subscription_plan_changed", option="plan_changes")
@provider.on("subscription_cancelled", "subscription_resumed", "subscription_paused", "subscription_unpaused")
def changed(n: Notification) -> Iterator[Draft | Learned]:
    o, draft, name = n.body["data"]["attributes"], _about_subscription(n), CHANGES[n.type]
    yield from _learned(n, draft)
    if name == "plan_changed":
        draft["properties"] |= _known({"to_plan": draft["properties"].get("plan")})
    once = f"{name}:{n.body['data']['id']}:{o['updated_at']}"
    yield event(name, once=once, at_ms=_ms(o["updated_at"]), **draft)


@provider.on("subscription_expired")
def ended(n: Notification) -> Iterator[Draft | Learned]:
    o, draft = n.body["data"]["attributes"], _about_subscription(n)
    yield from _learned(n, draft)
    once = f"subscription_ended:{n.body['data']['id']}"
    yield event("subscription_ended", once=once, at_ms=_ms(o.get("ends_at") or o["updated_at"]), **draft)
