"""FastSpring. https://developer.fastspring.com/reference/webhooks-overview (read 2026-11-23).

In: deliveries of several events each. A first sale is told by `order.completed`, each later charge of a subscription by
`subscription.charge.completed`, money given back by `return.created`. With "webhook expansion" accounts, orders and
subscriptions come whole, without it as their ids: what knows no e-mail address then waits for the account.
`trial:<subscription>` is known once `subscription.activated` said whether it began as a trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from relay.money import from_major
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]


def _is_test(item: Item) -> bool:
    return False in (item.body.get("live"), _whole(item.body.get("data")).get("live"))


provider = Provider(
    name="fastspring",
    title="FastSpring",
    docs="https://developer.fastspring.com/reference/webhooks-overview",
    verifier=hmac_sha256(header="X-FS-Signature", encoding="base64"),
    items=lambda body: list(body["events"]),
    notification_id=field("id"),
    notification_type=field("type"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="FastSpring > Developer Tools > Webhooks > your webhook > its URL: HMAC SHA256 Secret, which you chose"
    ),
)

#: Twins of what is mapped, steps on the way to it, and reminders.
TWINS = """
fulfillment.failed invoice.reminder.email mailingListEntry.abandoned mailingListEntry.removed mailingListEntry.updated
order.approval.pending order.canceled order.payment.pending payoutEntry.created quote.created quote.updated
subscription.payment.overdue subscription.payment.reminder subscription.trial.reminder subscription.updated
"""
provider.ignores(*TWINS.split())


def _whole(value: Any) -> Json:
    """An object that expansion made whole; nothing where only its id is told."""
    return value if isinstance(value, dict) else {}


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) else _whole(value).get("id")


def _keys(**ids: str | None) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids.items() if value)


def _person(*objects: Json) -> Person:
    """Of a sale, its customer before the owner of the account."""
    accounts = [one.get("account") for one in objects]
    people = [one.get("customer") for one in objects] + [_whole(account).get("contact") for account in accounts]
    return Person(
        email=next((email for one in people if (email := _whole(one).get("email"))), None),
        customer_id=next(filter(None, map(_id, accounts)), None),
    )


def _tags(*objects: Json) -> dict[str, Any]:
    return {key: value for one in reversed(objects) for key, value in _whole(one.get("tags")).items()}


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _at_ms(n: Notification, name: str = "changed") -> int:
    """The time of the object, else that of the event."""
    return int(n.body["data"].get(name) or n.body["created"])


def _about(*objects: Json, joins: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """What all drafts have. Where no address is told, the account knows it, once it was told."""
    person = _person(*objects)
    account = _keys(account=person.customer_id)
    return {
        "person": person,
        "metadata": _tags(*objects),
        "joins": (*joins, *account),
        "waits": bool(joins or account) and (bool(joins) or not person.email),
        "waits_for": account if joins and not person.email else (),
        "properties": _known(properties),
    }


def _learned(draft: Json, **ids: str | None) -> Iterator[Learned]:
    keys = _keys(**ids, account=draft["person"].customer_id)
    if keys and (draft["person"].email or draft["metadata"]):
        yield Learned(keys=keys, person=draft["person"], metadata=draft["metadata"])


# --- accounts and orders ----------------------------------------------------------------------------------------------


@provider.on("account.created", "account.updated")
def account(n: Notification) -> Iterator[Learned]:
    o = n.body["data"]
    person = Person(email=_whole(o.get("contact")).get("email"), customer_id=_id(o.get("account")) or _id(o))
    yield Learned(keys=_keys(account=person.customer_id), person=person)


def _about_order(o: Json) -> tuple[dict[str, Any], str | None]:
    """What is told of an order, and the subscription that it began."""
    items = o.get("items") or [{}]
    begun = next((item for item in items if item.get("subscription")), None)
    first = begun or items[0]
    subscription = _id(first.get("subscription"))
    draft = _about(
        o,
        _whole(first.get("subscription")),
        order_id=_id(o),
        order_reference=o.get("reference"),
        subscription_id=subscription,
        product=_product(first),
        quantity=first.get("quantity"),
        items=len(items) if len(items) > 1 else None,
        coupon=first.get("coupon") or None,
        country=_whole(o.get("address")).get("country"),
    )
    return draft, subscription


def _product(item: Json) -> str | None:
    product = item.get("product")
    return product if isinstance(product, str) else _whole(product).get("product")


@provider.on("order.completed")
def order(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    draft, subscription = _about_order(o)
    yield from _learned(draft, order=_id(o), subscription=subscription)
    if o["total"]:
        yield conversion(
            "subscription_started" if subscription else "purchase",
            once=f"order:{_id(o)}",
            at_ms=_at_ms(n),
            revenue=from_major(o["total"]),
            tax=from_major(o.get("tax") or 0),
            currency=o["currency"],
            **draft,
        )


@provider.on("order.failed")
def order_failed(n: Notification) -> Iterator[Draft]:
    o = n.body["data"]
    draft, _ = _about_order(o)
    draft["properties"] |= {"amount": from_major(o.get("total") or 0), "currency": o["currency"].upper()}
    yield event("payment_failed", once=f"payment_failed:{_id(o)}:{_at_ms(n)}", at_ms=_at_ms(n), **draft)


@provider.on("return.created")
def refund(n: Notification) -> Iterator[Draft]:
    """Of one that is not completed the money has not gone back."""
    o = n.body["data"]
    original = _whole(o.get("original"))
    sale = _id(original) or _id(o.get("original"))
    item = (o.get("items") or [{}])[0]
    draft = _about(
        o, original, joins=_keys(order=sale), order_id=sale, product=_product(item), quantity=item.get("quantity")
    )
    if o["totalReturn"] and o.get("completed") is not False:
        yield event(
            "refund",
            once=f"refund:{_id(o.get('return')) or _id(o)}",
            at_ms=_at_ms(n),
            revenue=-from_major(o["totalReturn"]),
            tax=-from_major(o.get("tax") or 0),
            currency=o["currency"],
            **draft,
        )


# --- subscriptions ----------------------------------------------------------------------------------------------------


@provider.on("subscription.charge.completed")
def charged(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    paid, subscription = _whole(o.get("order")), _whole(o.get("subscription"))
    sale, renewed = _id(o.get("order")), _id(o.get("subscription"))
    item = (paid.get("items") or [{}])[0]
    draft = _about(
        o,
        paid,
        subscription,
        joins=_keys(trial=renewed, subscription=renewed),
        order_id=sale,
        order_reference=paid.get("reference") or o.get("reference"),
        subscription_id=renewed,
        product=_product(subscription) or _product(item),
        quantity=subscription.get("quantity") or item.get("quantity"),
        period=o.get("sequence"),
        country=_whole(paid.get("address")).get("country"),
    )
    yield from _learned(draft, order=sale)
    if o["total"]:
        converted = Variant(name="trial_converted", once=f"trial_converted:{renewed}")
        yield conversion(
            "subscription_renewed",
            once=f"order:{sale or n.id}",
            at_ms=_at_ms(n, "timestamp"),
            revenue=from_major(o["total"]),
            tax=from_major(paid["tax"]) if paid.get("tax") else None,
            currency=o["currency"],
            variants={"trial": converted},
            **draft,
        )


@provider.on("subscription.charge.failed")
def charge_failed(n: Notification) -> Iterator[Draft]:
    """An attempt has no id and no time of its own."""
    o = n.body["data"]
    failed = _id(o.get("subscription"))
    draft = _about(
        o,
        _whole(o.get("subscription")),
        subscription_id=failed,
        product=_product(_whole(o.get("subscription"))),
        reason=o.get("reason"),
    )
    draft["joins"] = (*_keys(subscription=failed), *draft["joins"])
    draft["waits"] = draft["waits"] or not draft["person"].email
    yield event("payment_failed", once=f"payment_failed:{n.id}", at_ms=n.body["created"], **draft)


CHANGES = {
    "subscription.canceled": "subscription_cancel_scheduled",
    "subscription.uncanceled": "subscription_resumed",
    "subscription.paused": "subscription_paused",
    "subscription.resumed": "subscription_resumed",
}


def _about_subscription(o: Json) -> dict[str, Any]:
    return _about(
        o,
        subscription_id=_id(o),
        plan=_product(o),
        quantity=o.get("quantity"),
        billing_interval=o.get("intervalUnit"),
    )


def _is_trial(o: Json) -> bool:
    instructions = [_whole(one).get("type") for one in o.get("instructions") or ()]
    return o.get("state") == "trial" or o.get("inTrial") is True or "trial" in instructions


@provider.on("subscription.activated")
def activated(n: Notification) -> Iterator[Draft | Learned]:
    """The order tells that it started, unless as a trial."""
    o = n.body["data"]
    draft, is_trial = _about_subscription(o), _is_trial(o)
    yield from _learned(draft, subscription=_id(o))
    yield Learned(keys=_keys(trial=_id(o)), marks=("trial",) if is_trial else ())
    if is_trial:
        yield conversion("trial_started", once=f"trial_started:{_id(o)}", at_ms=_at_ms(n), **draft)


@provider.on(*CHANGES)
def changed(n: Notification) -> Iterator[Draft | Learned]:
    o, name = n.body["data"], CHANGES[n.type]
    draft = _about_subscription(o)
    yield from _learned(draft, subscription=_id(o))
    yield event(name, once=f"{name}:{_id(o)}:{_at_ms(n)}", at_ms=_at_ms(n), **draft)


@provider.on("subscription.deactivated")
def ended(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    draft = _about_subscription(o)
    yield from _learned(draft, subscription=_id(o))
    yield event("subscription_ended", once=f"subscription_ended:{_id(o)}", at_ms=_at_ms(n), **draft)
