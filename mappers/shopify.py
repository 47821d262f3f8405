"""Shopify. https://shopify.dev/docs/api/webhooks (API 2026-10, read 2026-11-23).

In: the JSON of the webhook topics, whether an app or the store's admin subscribed to them. A sale is its order, told by
`orders/paid`; a refund is told by `refunds/create`, or where that said "pending", by the transaction that settles it.
Money is in the shop's currency. Orders say who it was and where from; refunds, disputes and attempts join their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from relay.contract import (
    HOME,
    Draft,
    Forgotten,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    identify,
)
from relay.money import from_major
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]


def _header(name: str) -> Callable[[Item], str | None]:
    """Of a webhook, or of the newer kind that Shopify calls Events, whose headers have no `X-`."""
    return lambda item: item.headers.get(f"x-shopify-{name}") or item.headers.get(f"shopify-{name}")


def _is_test(item: Item) -> bool:
    """Sent by the admin's test button, or paid through a gateway in test mode."""
    sent = [item.body, *(item.body.get("transactions") or ())]
    return item.headers.get("x-shopify-test") == "true" or any(each.get("test") is True for each in sent)


provider = Provider(
    name="shopify",
    title="Shopify",
    docs="https://shopify.dev/docs/api/webhooks",
    verifier=hmac_sha256(header=("X-Shopify-Hmac-Sha256", "Shopify-Hmac-Sha256"), encoding="base64"),
    notification_id=_header("webhook-id"),
    notification_type=_header("topic"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="Of an app: its client secret. Of webhooks made in the admin: the key that stands below their list "
        "in Settings > Notifications > Webhooks",
        mistaken={"shpat_": "an access token of the Admin API", "shpca_": "an access token of a custom app"},
    ),
    options={
        "orders_create": "A sale when the order is placed, paid or not (cash on delivery).",
        "identify": "An identify event for every new customer.",
    },
)

#: Twins of what is mapped, steps on the way to it, and what is about goods rather than sales.
TWINS = """
app/uninstalled carts/create carts/update checkouts/create checkouts/delete checkouts/update customers/data_request
customers/delete customers/disable customers/enable draft_orders/create draft_orders/delete draft_orders/update
fulfillments/create fulfillments/update orders/delete orders/edited orders/fulfilled orders/partially_fulfilled
orders/updated shop/redact shop/update subscription_billing_attempts/challenged subscription_contracts/activate
subscription_contracts/fail subscription_contracts/pause subscription_contracts/update tender_transactions/create
"""
provider.ignores(*TWINS.split())


def _at_ms(*texts: str | None) -> int:
    """The first that is there: ISO 8601 with the shop's offset. The admin's test button leaves all of them out."""
    at = datetime.fromisoformat(next((text for text in texts if text), "1970-01-01"))
    return round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def _told_ms(n: Notification) -> int:
    """When it happened, for bodies without a time: repeats carry the same."""
    return _at_ms(n.headers.get("x-shopify-triggered-at"))


def _text(number: Any) -> str | None:
    return str(number) if number else None


# --- orders: who, and where from --------------------------------------------------------------------------------------

ORIGIN = {"gclid", "fbclid", "msclkid", "ref"}


def _is_origin(key: str) -> bool:
    return key.startswith("utm_") or key in ORIGIN


def _attributes(order: Json) -> dict[str, str]:
    """What the theme or an app put into the cart."""
    return {each["name"]: each["value"] for each in order.get("note_attributes") or ()}


def _metadata(order: Json) -> dict[str, str]:
    """The cart's attributes, and before them the campaign in the address of the landing page."""
    landing = dict(parse_qsl(urlsplit(order.get("landing_site") or "").query))
    return {key: value for key, value in landing.items() if _is_origin(key)} | _attributes(order)


def _landing(order: Json) -> str | None:
    """The landing page without its parameters, on the shop's own domain, which stands in the link to the order."""
    shop, page = urlsplit(order.get("order_status_url") or ""), urlsplit(order.get("landing_site") or "")
    return f"{shop.scheme}://{shop.netloc}{page.path or '/'}" if shop.netloc and order.get("landing_site") else None


def _who(order: Json) -> Person:
    customer = order.get("customer") or {}
    email = order.get("email") or order.get("contact_email") or customer.get("email")
    return Person(email=email, external_id=customer.get("multipass_identifier"), customer_id=_text(customer.get("id")))


def _of_customer(order: Json) -> tuple[str, ...]:
    customer = (order.get("customer") or {}).get("id")
    return (f"customer:{customer}",) if customer else ()


def _learned(order: Json) -> Iterator[Learned]:
    """Where this order came from is no news about the customer's other orders."""
    person, metadata = _who(order), _metadata(order)
    yield Learned(keys=(f"order:{order['id']}",), person=person, metadata=metadata)
    if customer := _of_customer(order):
        own = {key: value for key, value in metadata.items() if not _is_origin(key)}
        yield Learned(keys=customer, person=person, metadata=own)


def _properties(order: Json) -> dict[str, Any]:
    lines, codes = order.get("line_items") or [], order.get("discount_codes") or []
    address = order.get("shipping_address") or order.get("billing_address") or {}
    return {
        "order_id": str(order["id"]),
        "order_number": order.get("order_number"),
        "product": lines[0].get("title") if len(lines) == 1 else None,
        "quantity": sum(line.get("quantity") or 0 for line in lines) or None,
        "coupon": codes[0].get("code") if codes else None,
        "country": address.get("country_code"),
        "sales_channel": order.get("source_name"),
    }


#: How Shopify, and the apps that bill by themselves, mark what a subscription made.
SALES = {
    "subscription_contract": "subscription_renewed",
    "subscription_contract_checkout_one": "subscription_renewed",
    "subscription recurring order": "subscription_renewed",
    "subscription first order": "subscription_started",
}


def _kind_of(order: Json) -> str:
    marks = [order.get("source_name") or "", *(tag.strip().lower() for tag in (order.get("tags") or "").split(","))]
    return next((SALES[mark] for mark in marks if mark in SALES), "purchase")


def _extras(order: Json) -> dict[str, Any]:
    """What is in the price, in the shop's currency; and what the buyer saw, where that was another."""
    shipping = ((order.get("total_shipping_price_set") or {}).get("shop_money") or {}).get("amount")
    found = {"discount": order.get("total_discounts"), "shipping": shipping}
    amounts: dict[str, Any] = {name: from_major(amount) for name, amount in found.items() if amount}
    shown = (order.get("total_price_set") or {}).get("presentment_money") or {}
    is_foreign = shown.get("currency_code") not in (None, order["currency"])
    return {name: amount for name, amount in amounts.items() if amount} | (_shown(shown) if is_foreign else {})


def _shown(money: Json) -> dict[str, Any]:
    return {"presentment_amount": from_major(money["amount"]), "presentment_currency": money["currency_code"]}


def _unmoved(amount: str, o: Json) -> dict[str, Any]:
    """Money that did not come in: properties, never revenue."""
    return {"amount": from_major(amount), "currency": o["currency"]} if o.get("currency") else {}


def _about(order: Json, extras: dict[str, Any]) -> dict[str, Any]:
    return {
        "person": _who(order),
        "url": _landing(order),
        "properties": _properties(order) | extras,
        "metadata": _metadata(order),
        "joins": _of_customer(order),
    }


@provider.on("orders/paid", "orders/create")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    order = n.body
    yield from _learned(order)
    total, tax = from_major(order["total_price"]), order.get("total_tax")
    if total:
        yield conversion(
            _kind_of(order),
            once=f"order:{order['id']}",
            at_ms=_at_ms(order.get("processed_at"), order.get("created_at")),
            revenue=total,
            currency=order["currency"],
            tax=from_major(tax) if tax else None,
            option=None if n.type == "orders/paid" else "orders_create",
            **_about(order, _extras(order)),
        )


@provider.on("orders/cancelled")
def cancelled(n: Notification) -> Iterator[Draft | Learned]:
    """No money by itself: what is given back comes as a refund."""
    order = n.body
    yield from _learned(order)
    extras = _unmoved(order["total_price"], order) | {"reason": order.get("cancel_reason")}
    once, at_ms = f"order_canceled:{order['id']}", _at_ms(order.get("cancelled_at"))
    yield event("order_canceled", once=once, at_ms=at_ms, **_about(order, extras))


# --- refunds and transactions -----------------------------------------------------------------------------------------

#: What a refund consists of: the list, the sums of each of its items, and whether they add or take away.
#: https://shopify.dev/docs/api/admin-rest/latest/resources/refund (read 2026-11-23)
PARTS = (
    ("refund_line_items", "subtotal_set", "total_tax_set", 1),
    ("refund_shipping_lines", "subtotal_amount_set", "tax_amount_set", 1),
    ("order_adjustments", "amount_set", "tax_amount_set", -1),
)


def _parts(refund: Json, *, is_tax_apart: bool) -> Iterator[tuple[int, Json]]:
    """Sums of money, each in the shop's and in the buyer's currency, and their signs."""
    adjusted = {each.get("kind") for each in refund.get("order_adjustments") or ()}
    for key, net, tax, sign in PARTS:
        is_twice = key == "refund_shipping_lines" and "shipping_refund" in adjusted  # API 2025-04 says both
        for item in () if is_twice else refund.get(key) or ():
            names = (net, tax) if is_tax_apart else (net,)
            yield from ((sign, item[name]) for name in names if item.get(name))
    if refund.get("total_duties_set"):
        yield 1, refund["total_duties_set"]


def _given_back(refund: Json, paid: list[Json]) -> tuple[Decimal, str, dict[str, Any]]:
    """Transactions are in the buyer's currency; where its parts explain them, a refund is told in the shop's."""
    amount = sum((from_major(each["amount"]) for each in paid), Decimal(0))
    listed = [part["presentment_money"]["currency_code"] for _, part in _parts(refund, is_tax_apart=True)]
    currency = next(filter(None, (*(each["currency"] for each in paid), *listed)), HOME)
    for is_tax_apart in (True, False):  # prices that include the tax say it once more
        parts = list(_parts(refund, is_tax_apart=is_tax_apart))
        shop = parts[0][1]["shop_money"]["currency_code"] if parts else currency
        seen, own = (
            sum((sign * from_major(part[money]["amount"]) for sign, part in parts), Decimal(0))
            for money in ("presentment_money", "shop_money")
        )
        if shop != currency and seen == amount:
            return own, shop, _shown({"amount": str(amount), "currency_code": currency})
    return amount, currency, {}


@provider.on("refunds/create")
def refund(n: Notification) -> Iterator[Draft | Learned]:
    """Restocking alone has no transactions; one that is pending is told by the transaction that settles it."""
    o = n.body
    back = [each for each in o.get("transactions") or () if each["kind"] == "refund"]
    done = [each for each in back if each["status"] == "success"]
    for each in back:
        marks = ("told",) if each in done else ("pending",)
        yield Learned(keys=(f"transaction:{each['id']}",), marks=marks)
    if done:
        amount, currency, shown = _given_back(o, done)
        quantity = sum(line.get("quantity") or 0 for line in o.get("refund_line_items") or ()) or None
        yield event(
            "refund",
            once=(f"refund:{o['id']}", *(f"transaction:{each['id']}" for each in done)),
            at_ms=_at_ms(o.get("processed_at"), o.get("created_at")),
            revenue=-amount,
            currency=currency,
            properties={"order_id": str(o["order_id"]), "refund_id": str(o["id"]), "quantity": quantity, **shown},
            joins=(f"order:{o['order_id']}",),
            waits=True,
        )


@provider.on("order_transactions/create")
def transaction(n: Notification) -> Iterator[Draft]:
    """Of a refund: it waits for the word of `refunds/create`, which mostly tells the same."""
    o, order = n.body, f"order:{n.body['order_id']}"
    at_ms, properties = _at_ms(o.get("processed_at"), o.get("created_at")), {"order_id": str(o["order_id"])}
    if o["kind"] == "refund" and o["status"] == "success":
        yield event(
            "refund",
            once=f"transaction:{o['id']}",
            at_ms=at_ms,
            revenue=-from_major(o["amount"]),
            currency=o["currency"] or HOME,
            properties=properties,
            joins=(f"transaction:{o['id']}", order),
            waits=True,
            unless=("told",),
        )
    elif o["kind"] != "refund" and o["status"] in ("failure", "error"):
        yield event(
            "payment_failed",
            once=f"payment_failed:{o['id']}",
            at_ms=at_ms,
            properties=properties | _unmoved(o["amount"], o) | {"reason": o.get("error_code")},
            joins=(order,),
            waits=True,
        )


# --- disputes ---------------------------------------------------------------------------------------------------------

DISPUTES = {"won": "dispute_won", "lost": "dispute_lost", "accepted": "dispute_lost"}


@provider.on("disputes/create", "disputes/update")
def dispute(n: Notification) -> Iterator[Draft]:
    o, is_new = n.body, n.type == "disputes/create"
    name = "dispute_opened" if is_new else DISPUTES.get(o["status"])
    if name:
        order = o.get("order_id")
        yield event(
            name,
            once=f"{name}:{o['id']}",
            at_ms=_at_ms(o.get("initiated_at" if is_new else "finalized_on"), n.headers.get("x-shopify-triggered-at")),
            properties={
                "order_id": _text(order),
                "dispute_id": str(o["id"]),
                "dispute_type": o.get("type"),
                "reason": o.get("reason"),
                **_unmoved(o["amount"], o),
            },
            joins=(f"order:{order}",) if order else (),
            waits=bool(order),
        )


# --- subscriptions: told to the app that owns the contract ------------------------------------------------------------

STATES = {"subscription_contracts/cancel": "cancelled", "subscription_contracts/expire": "expired"}


@provider.on("subscription_contracts/create", *STATES)
def contract(n: Notification) -> Iterator[Draft | Learned]:
    """Its money is that of its orders; who it was is known of the first of them."""
    o, subscription, customer = n.body, f"subscription:{n.body['id']}", _text(n.body.get("customer_id"))
    if o.get("origin_order_id"):
        yield Learned(keys=(subscription, f"order:{o['origin_order_id']}"), same=True)
    if n.type in STATES:
        interval = (o.get("billing_policy") or {}).get("interval")
        yield event(
            "subscription_ended",
            once=f"subscription_ended:{o['id']}",
            at_ms=_told_ms(n),
            person=Person(customer_id=customer),
            properties={"subscription_id": str(o["id"]), "billing_interval": interval, "reason": STATES[n.type]},
            joins=(*((f"customer:{customer}",) if customer else ()), subscription),
            waits=True,
        )


@provider.on("subscription_billing_attempts/success")
def billed(n: Notification) -> Iterator[Learned]:
    """The link between a contract and the order that it made; the order tells the money."""
    o = n.body
    if o.get("order_id"):
        yield Learned(keys=(f"subscription:{o['subscription_contract_id']}", f"order:{o['order_id']}"), same=True)


@provider.on("subscription_billing_attempts/failure")
def not_billed(n: Notification) -> Iterator[Draft]:
    o, subscription = n.body, str(n.body["subscription_contract_id"])
    once, joins = f"payment_failed:attempt:{o.get('id') or o['idempotency_key']}", (f"subscription:{subscription}",)
    told = {"subscription_id": subscription, "reason": o.get("error_code")}
    yield event("payment_failed", once=once, at_ms=_told_ms(n), properties=told, joins=joins, waits=True)


# --- customers --------------------------------------------------------------------------------------------------------


@provider.on("customers/create", "customers/update")
def customer(n: Notification) -> Iterator[Draft | Learned]:
    o, person = n.body, _who({"customer": n.body})
    yield Learned(keys=_of_customer({"customer": o}), person=person)
    if n.type == "customers/create":
        once, traits = f"identify:{o['id']}", {"country": (o.get("default_address") or {}).get("country_code")}
        at_ms = _at_ms(o.get("created_at"))
        yield identify(once=once, at_ms=at_ms, person=person, properties=traits, option="identify")


@provider.on("customers/redact")
def redacted(n: Notification) -> Iterator[Forgotten]:
    """Somebody asked the shop to be forgotten."""
    orders = tuple(f"order:{order}" for order in n.body.get("orders_to_redact") or ())
    if keys := _of_customer(n.body) + orders:
        yield Forgotten(keys=keys)
