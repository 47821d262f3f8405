"""Gumroad. https://gumroad.com/ping and https://gumroad.com/api#resource-subscriptions (read 2026-11-23).

In: pings, a form each (or JSON), which nobody signs: whoever knows the URL with its token can send them. Amounts are
cents of US dollars, whatever the product's currency. No ping but those of subscriptions tells when it happened: a
refund and a dispute have the time of their sale, and of a partial refund the amount is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
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
    parse_json,
)
from relay.money import from_minor
from relay.signatures import form_of, query_token

Form = Mapping[str, str]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """JSON as the fields of the form that says the same."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}[{key}]" if name else key)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif not isinstance(value, list):
        yield name, "" if value is None else str(value)


def _parse(body: bytes) -> Form:
    return dict(_flat(parse_json(body))) if body.lstrip().startswith(b"{") else form_of(body)


def _kind(item: Item) -> str:
    return item.body.get("resource_name") or "sale"


#: What tells two pings about one thing apart; a repeat has `retry_count` in addition.
TELLING = ("sale_id", "subscription_id", "refunded", "cancelled_at", "ended_at", "restarted_at", "effective_as_of")


def _notification_id(item: Item) -> str | None:
    named = [item.body.get(name, "") for name in TELLING]
    return ":".join([_kind(item), *filter(None, named)]) if any(named[:2]) else None


provider = Provider(
    name="gumroad",
    title="Gumroad",
    docs="https://gumroad.com/ping",
    verifier=query_token("token"),
    parse=_parse,
    notification_id=_notification_id,
    notification_type=_kind,
    is_test=lambda item: item.body.get("test") == "true",
    overload_status=503,  # of what asks for a repeat, Gumroad knows only 499, 500, 502, 503 and 504
    secret=SecretShape(
        meaning="Your own choice, long and random: the end of the URL that you give to Gumroad, behind ?token="
    ),
)


def _ms(text: str) -> int:
    """RFC 3339, as Unix milliseconds."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _within(form: Form, name: str) -> dict[str, str]:
    """The fields `name[key]`, by their keys."""
    return {key[len(name) + 1 : -1]: value for key, value in form.items() if key.startswith(f"{name}[")}


def _known(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value}


def _keys(**ids: str | None) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids.items() if value)


# --- sales ------------------------------------------------------------------------------------------------------------


def _is_gift(form: Form) -> bool:
    return form.get("is_gift_receiver_purchase") == "true"


def _money(form: Form) -> dict[str, Any]:
    """Of a gift, the ping is about the one who got it, for nothing."""
    cents = form.get("gift_price") or "0" if _is_gift(form) else form["price"]
    return {"revenue": from_minor(cents, "USD"), "currency": "USD"}


def _sale(form: Form) -> str:
    """Older pings have the number of the order only."""
    return form.get("sale_id") or form["order_number"]


def _about_sale(form: Form) -> dict[str, Any]:
    payer = form.get("gifter_email") if _is_gift(form) else form.get("email")
    quantity = form.get("quantity")
    properties = {
        "order_id": _sale(form),
        "order_number": form.get("order_number"),
        "subscription_id": form.get("subscription_id"),
        "product": form.get("short_product_id") or form.get("product_id"),
        "quantity": int(quantity) if quantity else None,
        "coupon": form.get("offer_code"),
        "billing_interval": form.get("recurrence"),
        "is_gift": _is_gift(form),
    }
    return {
        "at_ms": _ms(form["sale_timestamp"]) if form.get("sale_timestamp") else 0,
        "person": Person(email=payer or None, customer_id=None if _is_gift(form) else form.get("purchaser_id")),
        "metadata": _within(form, "custom_fields") | _within(form, "url_params"),
        "properties": _known(properties),
    }


@provider.on("sale")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    """Of a pre-order nothing is paid yet: it gets a sale of its own."""
    form: Form = n.body
    draft, money, subscription = _about_sale(form), _money(form), form.get("subscription_id")
    keys = _keys(sale=_sale(form), subscription=subscription)
    yield Learned(keys=keys, person=draft["person"], metadata=draft["metadata"])
    if money["revenue"] and form.get("is_preorder_authorization") != "true":
        again = form.get("is_recurring_charge") == "true"
        name = "subscription_renewed" if again else "subscription_started" if subscription else "purchase"
        yield conversion(name, once=f"sale:{_sale(form)}", **money, **draft)


@provider.on("refund")
def refund(n: Notification) -> Iterator[Draft]:
    """All of it, or a part that is not told."""
    form: Form = n.body
    draft, money, key = _about_sale(form), _money(form), f"refund:{_sale(form)}"
    if form.get("refunded") != "true":
        draft["properties"] |= {"is_partial": True}
        yield event("refund", once=f"{key}:part", **draft)
    elif money["revenue"]:
        yield event("refund", once=key, **money | {"revenue": -money["revenue"]}, **draft)


@provider.on("dispute", "dispute_won")
def dispute(n: Notification) -> Iterator[Draft]:
    form: Form = n.body
    draft, money = _about_sale(form), _money(form)
    draft["properties"] |= {"amount": money["revenue"], "currency": money["currency"]}
    name = "dispute_won" if n.type == "dispute_won" else "dispute_opened"
    yield event(name, once=f"{name}:{_sale(form)}", **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------

#: By type, what becomes of it, and the field that tells when.
CHANGES = {
    "cancellation": ("subscription_cancel_scheduled", "cancelled_at"),
    "subscription_ended": ("subscription_ended", "ended_at"),
    "subscription_restarted": ("subscription_resumed", "restarted_at"),
    "subscription_updated": ("plan_changed", "effective_as_of"),
}

CANCELED_BY = ("buyer", "seller", "admin")


def _canceled_by(form: Form) -> str | None:
    if form.get("cancelled_due_to_payment_failures") == "true":
        return "payment_failures"
    return next((who for who in CANCELED_BY if form.get(f"cancelled_by_{who}") == "true"), None)


@provider.on(*CHANGES)
def changed(n: Notification) -> Iterator[Draft | Learned]:
    """A cancellation and a downgrade have the day on which they take effect."""
    form: Form = n.body
    subscription = form["subscription_id"]
    name, when = CHANGES[n.type]
    person = Person(email=form.get("user_email") or None, customer_id=form.get("user_id") or None)
    properties = {
        "subscription_id": subscription,
        "product": form.get("product_id"),
        "billing_interval": form.get("recurrence"),
        "reason": form.get("ended_reason") or _canceled_by(form),
        "direction": form.get("type"),
        "from_plan": form.get("old_plan[tier][id]"),
        "to_plan": form.get("new_plan[tier][id]"),
    }
    keys = _keys(subscription=subscription)
    yield Learned(keys=keys, person=person)
    yield event(
        name,
        once=f"{name}:{subscription}:{form[when]}",
        at_ms=_ms(form[when]),
        person=person,
        metadata=_within(form, "custom_fields"),
        joins=keys,
        properties=_known(properties),
    )
