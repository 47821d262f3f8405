"""Mollie. https://docs.mollie.com/reference/webhooks (API v2, read 2026-11-23).

In: classic webhooks, which are a form with nothing but an id, and next-gen events, with or without the object. What is
not there is asked for: a payment with its refunds and chargebacks says all that can be told of it, so that every
notification of a payment is mapped in one way, and each fact in it has a key of its own and counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from relay.contract import (
    RECEIVED,
    Api,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    composed,
    conversion,
    event,
    field,
    header,
    parse_json,
)
from relay.money import from_major
from relay.signatures import either, hmac_sha256, query_token

Json = Mapping[str, Any]

#: The kinds of a classic webhook, and of an object without an event around it, by how the id begins.
KINDS = {"tr": "payment", "pl": "payment-link", "re": "refund", "chb": "chargeback", "ord": "order"}


def _parse(raw: bytes) -> Any:
    return parse_json(raw) if raw.lstrip()[:1] in (b"{", b"[") else dict(parse_qsl(raw.decode()))


def _type(item: Item) -> str | None:
    told = item.body.get("type")
    return str(told) if told else KINDS.get(str(item.body["id"]).partition("_")[0], "classic")


def _event_id(item: Item) -> str | None:
    return str(item.body["id"]) if item.body.get("resource") == "event" else None


def _id(item: Item) -> str | None:
    """A classic webhook has no id, and says the same whenever something changed."""
    return _event_id(item) or composed(field("id"), header(RECEIVED))(item)


def _is_test(item: Item) -> bool:
    """Neither says so but the object."""
    told = [_embedded(item.body), *(item.answers or {}).values()]
    return any(isinstance(o, dict) and o.get("mode") == "test" for o in told)


def _embedded(body: Json) -> Json:
    """The object of a next-gen event with its full payload; some senders leave the event around it out."""
    return (body.get("_embedded") or {}).get("entity") or (body if "amount" in body else {})


provider = Provider(
    name="mollie",
    title="Mollie",
    docs="https://docs.mollie.com/reference/webhooks",
    verifier=either(hmac_sha256(header="X-Mollie-Signature", prefix="sha256=", separator=","), query_token("token")),
    parse=_parse,
    notification_id=_id,
    notification_type=_type,
    is_test=_is_test,
    secret=SecretShape(
        meaning="The signing secret of a next-gen webhook; for classic ones one of your own, in their URL: ?token=",
        mistaken={"live_": "an API key", "test_": "an API key", "access_": "an access token"},
    ),
    api_key=SecretShape(
        meaning="Mollie > Developers > API keys (live_...), or an organization access token that may read payments, "
        "refunds, customers and events",
    ),
    api=Api(base="https://api.mollie.com/v2", each_is_news=True, is_needed=True),
)

#: Twins of payment.paid, and steps that are no facts.
TWINS = """
classic order payment.authorized payment.pending sales-invoice.paid sales-invoice.created sales-invoice.issued
sales-invoice.canceled balance-transaction.created refund.queued refund.pending refund.processing
refund.failed refund.canceled
"""
provider.ignores(*TWINS.split())


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _metadata(o: Json) -> dict[str, Any]:
    """What the site stored with it: an object, or a text that often is one too."""
    told = o.get("metadata")
    if isinstance(told, dict):
        return told
    pairs = re.findall(r'"([\w.-]+)"\s*:\s*(?:"([^"\\]*)"|(-?\d+))', told) if isinstance(told, str) else ()
    return {name: text or number for name, text, number in pairs}


# --- who --------------------------------------------------------------------------------------------------------------


def _person(n: Notification, payment: Json) -> tuple[Person, dict[str, Any]]:
    """Who paid, and what the site stored with them and with the payment."""
    customer_id = payment.get("customerId")
    customer = (n.look_up("/customers/{}", customer_id) if customer_id else None) or {}
    billing = payment.get("billingAddress") or {}
    email = billing.get("email") or customer.get("email") or payment.get("billingEmail")
    return Person(email=email, customer_id=customer_id), {**_metadata(customer), **_metadata(payment)}


def _about(n: Notification, payment: Json) -> dict[str, Any]:
    """What the drafts of a payment have."""
    person, metadata = _person(n, payment)
    properties = {
        "order_id": payment["id"],
        "subscription_id": payment.get("subscriptionId"),
        "method": payment.get("method"),
        "country": payment.get("countryCode"),
    }
    return {"person": person, "metadata": metadata, "properties": _known(properties)}


# --- payments ---------------------------------------------------------------------------------------------------------

#: What a payment that was made is, by its `sequenceType`.
SALES = {"oneoff": "purchase", "first": "subscription_started", "recurring": "subscription_renewed"}

#: Ends of a checkout that nobody paid, with the time of each.
UNFINISHED = {"expired": "expiredAt", "canceled": "canceledAt"}


def _payment(n: Notification, payment: Json) -> Iterator[Draft | Learned]:
    """All that is true of a payment now."""
    about = _about(n, payment)
    yield from _learned(payment, about)
    key, status, amount = payment["id"], payment["status"], payment["amount"]
    if status == "paid":
        paid = payment.get("amountCaptured") or amount
        revenue = from_major(paid["value"])
        name = SALES.get(payment.get("sequenceType") or "oneoff", "purchase")
        if revenue:
            money = {"revenue": revenue, "currency": paid["currency"]}
            yield conversion(name, once=f"payment:{key}", at_ms=_ms(payment["paidAt"]), **money, **about)
    elif status == "failed":
        details = payment.get("details") or {}
        reason = (payment.get("statusReason") or {}).get("code") or details.get("failureReason")
        told = {**about, "properties": about["properties"] | _known({**_amount(amount), "reason": reason})}
        at_ms = _ms(payment.get("failedAt") or payment["createdAt"])
        yield event("payment_failed", once=f"payment_failed:{key}", at_ms=at_ms, **told)
    elif status in UNFINISHED and payment.get("sequenceType") != "recurring":
        told = {**about, "properties": about["properties"] | {**_amount(amount), "reason": status}}
        at_ms = _ms(payment.get(UNFINISHED[status]) or payment["createdAt"])
        yield event("checkout_expired", once=f"checkout_expired:{key}", at_ms=at_ms, **told)
    for kind in ("refunds", "chargebacks"):
        for o in (payment.get("_embedded") or {}).get(kind) or ():
            yield from GIVEN_BACK[kind](o, about)


def _learned(payment: Json, about: Json) -> Iterator[Learned]:
    kinds = (("payment", payment["id"]), ("customer", payment.get("customerId")))
    keys = tuple(f"{kind}:{value}" for kind, value in kinds if value)
    yield Learned(keys=keys, person=about["person"], metadata=about["metadata"])


def _amount(amount: Json) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return {"amount": from_major(amount["value"]), "currency": amount["currency"].upper()}


def _refund(o: Json, about: Json) -> Iterator[Draft]:
    """Told when the money has left: until then a refund can be canceled, and may fail."""
    if o["status"] == "refunded":
        properties = about["properties"] | {"refund_id": o["id"]}
        money = {"revenue": -from_major(o["amount"]["value"]), "currency": o["amount"]["currency"]}
        told = {**about, "properties": properties}
        yield event("refund", once=f"refund:{o['id']}", at_ms=_ms(o["createdAt"]), **money, **told)


def _chargeback(o: Json, about: Json) -> Iterator[Draft]:
    told = {**about, "properties": about["properties"] | {"dispute_id": o["id"], **_amount(o["amount"])}}
    yield event("dispute_opened", once=f"dispute_opened:{o['id']}", at_ms=_ms(o["createdAt"]), **told)
    if o.get("reversedAt"):
        yield event("dispute_won", once=f"dispute_won:{o['id']}", at_ms=_ms(o["reversedAt"]), **told)


GIVEN_BACK = {"refunds": _refund, "chargebacks": _chargeback}


def _whole(n: Notification, payment_id: str) -> Json:
    found: Json = n.ask("/payments/{}?embed=refunds,chargebacks", payment_id)
    return found


@provider.on("payment", "payment.paid", "payment.failed", "payment.canceled", "payment.expired")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    yield from _payment(n, _embedded(n.body) or _whole(n, n.body.get("entityId") or n.body["id"]))


@provider.on("payment-link", "payment-link.paid")
def payment_link(n: Notification) -> Iterator[Draft | Learned]:
    """Its payments, of which each may have been told by itself."""
    link = n.body.get("entityId") or n.body["id"]
    for made in n.ask("/payment-links/{}/payments", link)["_embedded"]["payments"]:
        yield from _payment(n, made)


# --- refunds and chargebacks, told by themselves ----------------------------------------------------------------------


def _object(n: Notification) -> Json:
    """The object of an event. Refunds and chargebacks cannot be asked for by their id alone, but events can."""
    found = _embedded(n.body) or _embedded(n.ask("/events/{}", n.body["id"]))
    if not found:
        msg = "the event has no object"
        raise UnmappableError(msg)
    return found


@provider.on("refund", "refund.refunded")
def refund(n: Notification) -> Iterator[Draft]:
    o = _object(n)
    yield from _refund({**o, "status": o.get("status") or "refunded"}, _by_payment(n, o))


@provider.on("chargeback", "chargeback.received", "chargeback.reversed")
def chargeback(n: Notification) -> Iterator[Draft]:
    o = _object(n)
    yield from _chargeback(o, _by_payment(n, o))


def _by_payment(n: Notification, o: Json) -> dict[str, Any]:
    """Who it was is known by the payment: looked up, or learned when that was told."""
    found = n.look_up("/payments/{}?embed=refunds,chargebacks", o["paymentId"])
    about = _about(n, found) if found else {"properties": {"order_id": o["paymentId"]}, "metadata": _metadata(o)}
    return {**about, "joins": (f"payment:{o['paymentId']}",), "waits": not found}
