"""WooCommerce. https://woocommerce.com/document/webhooks/ (REST API v3, read 2026-11-23).

In: orders and subscriptions as they stand when WooCommerce gets round to sending them. There is no topic for "paid" or
"refunded", and an order may be paid before its `order.created` leaves: so all topics of an order are mapped by state,
and each fact that the state shows (paid, failed, each of its refunds) has a key of its own and counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from relay.contract import (
    Answer,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    Variant,
    composed,
    conversion,
    digest_of,
    event,
    header,
    identify,
)
from relay.money import from_major
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]


def _shop(item: Item) -> str | None:
    """Orders are numbered by each shop for itself."""
    return urlsplit(item.headers.get("x-wc-webhook-source", "")).netloc.removeprefix("www.") or None


def _meta(o: Json) -> dict[str, Any]:
    found = {each["key"]: each.get("value") for each in o.get("meta_data") or () if each.get("key")}
    return {key: value for key, value in found.items() if isinstance(value, (str, int)) and value != ""}


#: How payment plugins write on an order that it was paid in test mode. WooCommerce itself has none.
TEST_MODES = {("_wcpay_mode", "test"), ("_ppcp_paypal_payment_mode", "sandbox")}

PING = re.compile(rb"webhook_id=\d{1,20}")

provider = Provider(
    name="woocommerce",
    title="WooCommerce",
    docs="https://woocommerce.com/document/webhooks/",
    verifier=hmac_sha256(header="X-WC-Webhook-Signature", encoding="base64"),
    # Its own delivery id is the same for all that one webhook sends within a second.
    notification_id=composed(header("X-WC-Webhook-Topic"), _shop, lambda item: digest_of(item.body)),
    notification_type=header("X-WC-Webhook-Topic"),
    account=_shop,
    is_test=lambda item: not TEST_MODES.isdisjoint(_meta(item.body).items()),
    secret=SecretShape(
        meaning="WooCommerce > Settings > Advanced > Webhooks > your webhook > Secret, the same in all of them",
        mistaken={"ck_": "a consumer key of the REST API", "cs_": "a consumer secret of the REST API"},
    ),
    # On saving a webhook the shop asks, unsigned, whether somebody is there, and shows an error unless it gets 200.
    handshake=lambda delivery: Answer() if PING.fullmatch(delivery.body) else None,
    options={"identify": "An identify event for every new customer."},
)

#: What is gone tells only its number; a switch is told by its order; the rest is about goods.
TWINS = """
coupon.created coupon.deleted coupon.restored coupon.updated customer.deleted order.deleted product.created
product.deleted product.restored product.updated subscription.deleted subscription.switched
"""
provider.ignores(*TWINS.split())


def _at_ms(*texts: str | None) -> int:
    """The first that is there: ISO 8601 in UTC, without saying so."""
    found = next((text for text in texts if text), None)
    at = datetime.fromisoformat(found) if found else datetime(1970, 1, 1, tzinfo=UTC)
    return round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def _time(o: Json, name: str) -> str | None:
    """The first version of the API has the shop's own time only."""
    return o.get(f"{name}_gmt") or o.get(name) or None


def _modified_ms(o: Json) -> int:
    return _at_ms(_time(o, "date_modified"), _time(o, "date_created"))


#: What the API before that, which webhooks may still be set to, calls what an order holds.
LEGACY = {
    "number": "order_number",
    "billing": "billing_address",
    "shipping": "shipping_address",
    "date_created_gmt": "created_at",
    "date_modified_gmt": "updated_at",
    "date_completed_gmt": "completed_at",
}


def _order(body: Json) -> Json:
    old = body.get("order")
    return {**old, **{name: old.get(word) for name, word in LEGACY.items()}} if isinstance(old, dict) else body


#: A change to an order is news of its payment for this long; after that its key may be forgotten.
NEWS_MS = 60 * 24 * 3600 * 1000


# --- who, and where from ----------------------------------------------------------------------------------------------

#: Where WooCommerce's own order attribution keeps what it saw.
ATTRIBUTION = "_wc_order_attribution_"
CLICKS = {"gclid", "fbclid", "msclkid", "ref"}


def _metadata(o: Json) -> dict[str, Any]:
    """The order's own meta data, and the campaign; `(direct)` and its like are none."""
    meta = _meta(o)
    entry = parse_qsl(urlsplit(str(meta.get(ATTRIBUTION + "session_entry", ""))).query)
    seen = {key.removeprefix(ATTRIBUTION): text for key, text in meta.items() if key.startswith(ATTRIBUTION + "utm_")}
    campaign = {key: text for key, text in seen.items() if not str(text).startswith("(")}
    own = {key: value for key, value in meta.items() if not key.startswith("_")}
    return {key: value for key, value in entry if key in CLICKS} | campaign | own


def _landing(o: Json) -> str | None:
    page = urlsplit(str(_meta(o).get(ATTRIBUTION + "session_entry", "")))
    return f"{page.scheme}://{page.netloc}{page.path or '/'}" if page.netloc else None


def _customer(o: Json) -> str | None:
    """The WordPress user; guests have none."""
    return str(o["customer_id"]) if o.get("customer_id") else None


def _who(o: Json) -> Person:
    return Person(email=(o.get("billing") or {}).get("email"), customer_id=_customer(o))


def _of_customer(o: Json) -> tuple[str, ...]:
    return (f"customer:{_customer(o)}",) if _customer(o) else ()


def _learned(key: str, o: Json, *marks: str) -> Iterator[Learned]:
    """Where this order came from is no news about the customer's other orders."""
    yield Learned(keys=(key,), person=_who(o), metadata=_metadata(o), marks=marks)
    if _customer(o):
        own = {
            name: value for name, value in _metadata(o).items() if not name.startswith("utm_") and name not in CLICKS
        }
        yield Learned(keys=_of_customer(o), person=_who(o), metadata=own)


# --- orders -----------------------------------------------------------------------------------------------------------

#: How the Subscriptions extension says whose order it is, and what such an order tells.
SALES = {
    "_subscription_renewal": "subscription_renewed",
    "_subscription_switch": "plan_changed",
    "_subscription_resubscribe": "subscription_started",
}
PAID = ("processing", "completed")


def _properties(o: Json) -> dict[str, Any]:
    lines, coupons = o.get("line_items") or [], o.get("coupon_lines") or []
    return {
        "order_id": str(o["id"]),
        "order_number": o.get("number"),
        "product": lines[0].get("name") if len(lines) == 1 else None,
        "quantity": sum(line.get("quantity") or 0 for line in lines) or None,
        "coupon": coupons[0].get("code") if coupons else None,
        "country": (o.get("shipping") or {}).get("country") or (o.get("billing") or {}).get("country") or None,
        "payment_method": o.get("payment_method") or None,
    }


def _part_of(o: Json, name: str) -> dict[str, Any]:
    amount = from_major(o.get(f"{name}_total") or "0")
    return {name: amount} if amount else {}


def _unmoved(o: Json) -> dict[str, Any]:
    """Money that did not come in: properties, never revenue."""
    return {"amount": from_major(o["total"]), "currency": o["currency"]} if o.get("currency") else {}


@provider.on("order.created", "order.updated", "order.restored")
def order(n: Notification) -> Iterator[Draft | Learned]:
    o = _order(n.body)
    status, meta = o.get("status"), _meta(o)
    mark, subscription = next(((name, str(meta[name])) for name in SALES if name in meta), ("", ""))
    key, properties = f"order:{o['id']}", _properties(o) | ({"subscription_id": subscription} if subscription else {})
    joins = (f"subscription:{subscription}" if subscription else key, *_of_customer(o))
    about: dict[str, Any] = {"person": _who(o), "metadata": _metadata(o), "joins": joins, "url": _landing(o)}
    yield from _learned(key, o)
    is_paid = bool(_time(o, "date_paid")) or status in PAID
    paid_ms = _at_ms(*(_time(o, name) for name in ("date_paid", "date_completed", "date_created")))
    total, tax = from_major(o["total"]), o.get("total_tax")
    if is_paid and total and _modified_ms(o) - paid_ms <= NEWS_MS:
        after_trial = Variant(name="trial_converted", once=f"trial_converted:{subscription}")
        first = Variant(name="subscription_started", once=f"subscription_started:{o['id']}")
        yield conversion(
            SALES.get(mark, "purchase"),
            once=key,
            at_ms=paid_ms,
            revenue=total,
            currency=o["currency"],
            tax=from_major(tax) if tax else None,
            properties=properties | _part_of(o, "discount") | _part_of(o, "shipping"),
            variants={"trial": after_trial} if subscription else {"subscription": first},
            waits=bool(subscription),
            **about,
        )
    for refund in o.get("refunds") or ():
        back = abs(from_major(refund["total"]))
        if back:
            told = properties | {"refund_id": str(refund["id"])}
            money = {"revenue": -back, "currency": o["currency"]}
            yield event(
                "refund", once=f"refund:{refund['id']}", at_ms=_modified_ms(o), properties=told, **money, **about
            )
    ends = {"failed": "payment_failed", "cancelled": "order_canceled" if is_paid else "checkout_expired"}
    if status in ends:
        name, told = ends[status], properties | _unmoved(o)
        yield event(name, once=f"{name}:{o['id']}", at_ms=_modified_ms(o), properties=told, **about)


# --- the Subscriptions extension --------------------------------------------------------------------------------------

ENDED = {"cancelled", "expired"}


def _trial_end(o: Json) -> str | None:
    return _time(o, "trial_end_date")


@provider.on("subscription.created", "subscription.updated")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """Its money is that of its orders: this says which of them is the first, and which comes after a trial."""
    o, status, key = n.body, n.body.get("status"), f"subscription:{n.body['id']}"
    parent, trial_end = o.get("parent_id"), _trial_end(o)
    yield from _learned(key, o, *(("trial",) if trial_end else ()))
    if parent:
        yield Learned(keys=(f"order:{parent}",), marks=("subscription",))
    lines = o.get("line_items") or []
    about: dict[str, Any] = {
        "person": _who(o),
        "metadata": _metadata(o),
        "joins": (key, *_of_customer(o)),
        "properties": {
            "subscription_id": str(o["id"]),
            "order_id": str(parent) if parent else None,
            "plan": lines[0].get("name") if len(lines) == 1 else None,
            "billing_interval": o.get("billing_period"),
            "reason": status if status in ENDED else None,
        },
    }
    start_ms = _at_ms(_time(o, "start_date"), _time(o, "date_created"))
    if trial_end and status == "active" and _modified_ms(o) < _at_ms(trial_end):
        yield conversion("trial_started", once=f"trial_started:{o['id']}", at_ms=start_ms, **about)
    if status == "pending-cancel":
        at_ms = _at_ms(_time(o, "cancelled_date"), _time(o, "date_modified"))
        name = "subscription_cancel_scheduled"
        yield event(name, once=f"{name}:{o['id']}:{at_ms}", at_ms=at_ms, **about)
    if status in ENDED:
        at_ms = _at_ms(_time(o, "end_date"), _time(o, "date_modified"))
        yield event("subscription_ended", once=f"subscription_ended:{o['id']}", at_ms=at_ms, **about)


# --- customers --------------------------------------------------------------------------------------------------------


@provider.on("customer.created", "customer.updated")
def customer(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body
    who: dict[str, Any] = {"person": Person(email=o.get("email"), customer_id=str(o["id"])), "metadata": _metadata(o)}
    yield Learned(keys=(f"customer:{o['id']}",), **who)
    if n.type == "customer.created":
        country = (o.get("billing") or {}).get("country") or None
        at_ms = _at_ms(_time(o, "date_created"))
        once = f"identify:{o['id']}"
        yield identify(once=once, at_ms=at_ms, properties={"country": country}, option="identify", **who)
