"""Braintree. https://developer.paypal.com/braintree/docs/guides/webhooks/overview (read 2026-11-23).

In: forms with XML in `bt_payload`. Out: what subscriptions were charged, settled payments and refunds of the methods
that say so, disputes. A sale has the key of its transaction. Cards that are charged once have no webhook at all.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.parsers import expat

from relay.contract import (
    HOME,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    conversion,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import braintree_answer, braintree_form, form_of

Json = Mapping[str, Any]


# --- the form, and the XML in it --------------------------------------------------------------------------------------

#: Deeper than anything that Braintree sends.
DEEPEST = 30


def _parse(body: bytes) -> Any:
    """The notification in the form: XML in base64; samples have it as it is."""
    payload = form_of(body)["bt_payload"]
    return _read(payload.encode() if payload.startswith("<") else b64decode(payload))


def _read(xml: bytes) -> Any:
    """XML as dicts, lists and texts, by Braintree's `type` and `nil`; `-` in names becomes `_`.

    Raises `ExpatError` for what is no XML, `UnmappableError` for a document type, so that no entity is ever expanded.
    """
    open_elements: list[tuple[str, Json, list[tuple[str, Any]], list[str]]] = [("", {}, [], [])]

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > DEEPEST:
            msg = "the payload is too deep"
            raise UnmappableError(msg)
        open_elements.append((name.replace("-", "_"), attributes, [], []))

    def end(_name: str) -> None:
        name, attributes, children, texts = open_elements.pop()
        open_elements[-1][2].append((name, _value(attributes, children, "".join(texts).strip())))

    def read(text: str) -> None:
        open_elements[-1][3].append(text)

    def refuse(*_declared: object) -> None:
        msg = "the payload declares a document type"
        raise UnmappableError(msg)

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = read
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(xml, True)  # noqa: FBT003  it takes no names
    return open_elements[0][2][0][1]


def _value(attributes: Json, children: list[tuple[str, Any]], text: str) -> Any:
    if attributes.get("nil") == "true":
        return None
    match attributes.get("type"):
        case "array":
            return [value for _, value in children]
        case "boolean":
            return text == "true"
        case "integer":
            return int(text) if text else None
        case _:
            return dict(children) if children else text or None


provider = Provider(
    name="braintree",
    title="Braintree",
    docs="https://developer.paypal.com/braintree/docs/guides/webhooks/overview",
    verifier=braintree_form(),
    challenge=braintree_answer,
    parse=_parse,
    notification_type=field("kind"),
    secret=SecretShape(
        meaning="Braintree Control Panel > Settings > API > Keys: public key:private key, with a colon between them",
    ),
)

#: Twins of what is mapped, steps on the way to it, and what is not about a customer's money.
TWINS = """
account_updater_daily_report check connected_merchant_paypal_status_changed connected_merchant_status_transitioned
disbursement disbursement_exception dispute_disputed dispute_under_review grantor_updated_granted_payment_method
granted_payment_instrument_revoked granted_payment_method_revoked local_payment_completed local_payment_expired
local_payment_funded local_payment_reversed oauth_access_revoked partner_merchant_connected partner_merchant_declined
partner_merchant_disconnected payment_method_customer_data_updated payment_method_revoked_by_customer
recipient_updated_granted_payment_method sub_merchant_account_approved sub_merchant_account_declined
subscription_billing_skipped subscription_trial_ended subscription_went_active subscription_went_past_due
transaction_disbursed transaction_retried transaction_reviewed
"""
provider.ignores(*TWINS.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _at_ms(n: Notification, moment: str | None = None) -> int:
    """The time of the fact where the object has one, else the time at which Braintree said it."""
    at = datetime.fromisoformat(moment or n.body["timestamp"])
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


# --- transactions -----------------------------------------------------------------------------------------------------


def _about(transaction: Json, subscription: Json) -> dict[str, Any]:
    customer, coupons = transaction.get("customer") or {}, subscription.get("discounts") or [{}]
    subscription_id = subscription.get("id") or transaction.get("subscription_id")
    person = Person(email=customer.get("email"), customer_id=customer.get("id"))
    return {
        "person": person,
        "metadata": transaction.get("custom_fields") or {},
        "joins": _keys(("subscription", subscription_id), ("customer", person.customer_id)),
        "properties": {
            "order_id": transaction.get("order_id") or transaction.get("id"),
            "payment_id": transaction.get("id"),
            "subscription_id": subscription_id,
            "plan": subscription.get("plan_id") or transaction.get("plan_id"),
            "coupon": coupons[0].get("id"),
            "country": (transaction.get("billing") or {}).get("country_code_alpha2"),
            "payment_method": transaction.get("payment_instrument_type"),
        },
    }


def _money(transaction: Json) -> dict[str, Any]:
    tax = transaction.get("tax_amount")
    return {
        "revenue": from_major(transaction["amount"]),
        "currency": transaction.get("currency_iso_code") or HOME,  # the vendor's samples leave it out
        "tax": from_major(tax) or None if tax else None,
    }


def _unmoved(o: Json, amount: str | None) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    currency = o.get("currency_iso_code")
    return {"amount": from_major(amount), "currency": currency} if amount and currency else {}


def _learned(transaction: Json, draft: Mapping[str, Any]) -> Iterator[Learned]:
    """Of a customer not where this payment came from."""
    person, subscription = draft["person"], ("subscription", draft["properties"]["subscription_id"])
    if transaction.get("id"):
        keys = _keys(("payment", transaction["id"]), subscription)
        yield Learned(keys=keys, person=person, metadata=draft["metadata"])
    if person.customer_id and person.email:
        yield Learned(keys=_keys(("customer", person.customer_id)), person=person)


@provider.on("subscription_charged_successfully")
def charged(n: Notification) -> Iterator[Draft | Learned]:
    """The latest transaction stands first. The first cycle of a subscription that had a trial ends that trial."""
    subscription = n.body["subject"]["subscription"]
    transaction = subscription["transactions"][0]
    draft, money = _about(transaction, subscription), _money(transaction)
    yield from _learned(transaction, draft)
    yield Learned(keys=(f"billed:{transaction['id']}",))
    is_first = subscription.get("current_billing_cycle") == 1
    first = "trial_converted" if subscription.get("trial_period") else "subscription_started"
    if money["revenue"]:
        once, at_ms = f"payment:{transaction['id']}", _at_ms(n, transaction.get("created_at"))
        yield conversion(first if is_first else "subscription_renewed", once=once, at_ms=at_ms, **money, **draft)


def _failed(n: Notification, transaction: Json, draft: dict[str, Any], key: str, **properties: Any) -> Draft:
    reason = transaction.get("processor_response_code") or transaction.get("status")
    draft["properties"] |= {"reason": reason, **properties, **_unmoved(transaction, transaction.get("amount"))}
    draft["waits"] = not draft["person"].email
    at_ms = _at_ms(n, transaction.get("updated_at") or transaction.get("created_at"))
    return event("payment_failed", once=f"payment_failed:{key}", at_ms=at_ms, **draft)


@provider.on("subscription_charged_unsuccessfully")
def declined(n: Notification) -> Iterator[Draft | Learned]:
    subscription = n.body["subject"]["subscription"]
    transaction: Json = (subscription.get("transactions") or [{}])[0]
    draft = _about(transaction, subscription)
    yield from _learned(transaction, draft)
    key = transaction.get("id") or f"{subscription['id']}:{n.body['timestamp']}"
    yield _failed(n, transaction, draft, key, attempt=subscription.get("failure_count"))


@provider.on("transaction_settled")
def settled(n: Notification) -> Iterator[Draft | Learned]:
    """A payment, or a refund: that is a transaction of its own."""
    transaction = n.body["subject"]["transaction"]
    draft, money = _about(transaction, {}), _money(transaction)
    once, at_ms = f"payment:{transaction['id']}", _at_ms(n, transaction.get("created_at"))
    if transaction.get("type") == "credit":
        yield from _refund(n, transaction)
        return
    yield from _learned(transaction, draft)
    name = "subscription_renewed" if transaction.get("subscription_id") else "purchase"
    if transaction.get("subscription_id"):  # its charge tells it, and knows whether it is the first
        draft |= {"joins": (f"billed:{transaction['id']}", *draft["joins"]), "waits": True}
    if money["revenue"]:
        yield conversion(name, once=once, at_ms=at_ms, **money, **draft)


@provider.on("transaction_settlement_declined", "refund_failed")
def bounced(n: Notification) -> Iterator[Draft | Learned]:
    """A refund may have been told as settled before: it is told there and back. A subscription's charge was told."""
    transaction = n.body["subject"]["transaction"]
    if transaction.get("type") == "credit" or n.type == "refund_failed":
        yield from _refund(n, transaction)
        yield from _refund(n, transaction, is_back=True)
    elif transaction.get("subscription_id"):
        yield from _refund(n, transaction, reason="settlement_declined")
    else:
        draft = _about(transaction, {})
        yield from _learned(transaction, draft)
        yield _failed(n, transaction, draft, transaction["id"])


def _refund(n: Notification, transaction: Json, *, is_back: bool = False, reason: str | None = None) -> Iterator[Draft]:
    draft, money, given = _about(transaction, {}), _money(transaction), transaction.get("refunded_transaction_id")
    paid, name = transaction["id"] if reason else given, "refund_reversed" if is_back else "refund"
    moment = None if is_back or reason else transaction.get("created_at")
    draft["joins"] = _keys(("payment", paid)) + draft["joins"]
    draft["waits"] = bool(draft["joins"]) and not draft["person"].email
    draft["properties"] |= {"refund_id": transaction["id"], "payment_id": paid, "reason": reason}
    money["revenue"] *= 1 if is_back else -1
    if money["revenue"]:
        yield event(name, once=f"{name}:{transaction['id']}", at_ms=_at_ms(n, moment), **money, **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


@provider.on("subscription_canceled", "subscription_expired")
def ended(n: Notification) -> Iterator[Draft]:
    o = n.body["subject"]["subscription"]
    draft, listed = _about((o.get("transactions") or [{}])[0], o), ("subscription_id", "plan", "coupon")
    draft["properties"] = {name: draft["properties"][name] for name in listed}
    draft["properties"]["reason"] = n.type.removeprefix("subscription_")
    draft["waits"] = not draft["person"].email
    yield event("subscription_ended", once=f"subscription_ended:{o['id']}", at_ms=_at_ms(n), **draft)


# --- disputes ---------------------------------------------------------------------------------------------------------

#: One that is accepted, by the merchant or for want of an answer, is lost.
DISPUTES = {
    "dispute_opened": "dispute_opened",
    "dispute_won": "dispute_won",
    "dispute_lost": "dispute_lost",
    "dispute_accepted": "dispute_lost",
    "dispute_auto_accepted": "dispute_lost",
    "dispute_expired": "dispute_lost",
}


@provider.on(*DISPUTES)
def dispute(n: Notification) -> Iterator[Draft]:
    o, name = n.body["subject"]["dispute"], DISPUTES[n.type]
    transaction = o.get("transaction") or {}
    yield event(
        name,
        once=f"{name}:{o['id']}",
        at_ms=_at_ms(n, o.get("created_at") if name == "dispute_opened" else None),
        joins=_keys(("payment", transaction.get("id"))),
        waits=bool(transaction.get("id")),
        properties={
            "order_id": transaction.get("order_id") or transaction.get("id"),
            "payment_id": transaction.get("id"),
            "dispute_id": o["id"],
            "reason": o.get("reason"),
            "stage": o.get("kind"),
            **_unmoved(o, o.get("amount_disputed") or o.get("amount")),
        },
    )
