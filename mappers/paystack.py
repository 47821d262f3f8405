"""Paystack. https://paystack.com/docs/payments/webhooks/ (read 2026-11-23).

In: all events of an integration, which has one webhook. Money is told by `charge.success` and `refund.processed`;
invoices and payment requests are twins. A charge of a plan does not say whether it is the first: it waits for
`plan:<customer>:<plan>`, and `began:<customer>:<plan>:<date>` is known where a subscription began on that date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
from relay.signatures import hmac_sha512

Json = Mapping[str, Any]


def _is_test(item: Item) -> bool:
    """Lists (of cards that expire) do not say."""
    data = item.body.get("data")
    return isinstance(data, dict) and data.get("domain") == "test"


provider = Provider(
    name="paystack",
    title="Paystack",
    docs="https://paystack.com/docs/payments/webhooks/",
    verifier=hmac_sha512(header="x-paystack-signature"),
    notification_type=field("event"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="Paystack Dashboard > Settings > API Keys & Webhooks: the secret key, which signs the webhooks too",
        prefix="sk_",
        mistaken={"pk_": "the public key"},
    ),
)

#: Twins of what is mapped, steps on the way to it, and money that goes out.
TWINS = """
charge.dispute.remind customeridentification.failed customeridentification.success dedicatedaccount.assign.failed
dedicatedaccount.assign.success paymentrequest.pending paymentrequest.success refund.failed refund.pending
refund.processing subscription.expiring_cards transfer.failed transfer.reversed transfer.success
"""
provider.ignores(*TWINS.split())

#: Paystack counts hundredths of these too, which ISO 4217 does not have.
HUNDREDTHS = {"RWF": 2, "XOF": 2}

#: Refunds and cancellations do not say when they happened: such a draft has no time of its own.
UNSAID = 0


def _at(*texts: str | None) -> datetime | None:
    """The first that is there."""
    found = next((text for text in texts if text), None)
    return datetime.fromisoformat(found).astimezone(UTC) if found else None


def _ms(*texts: str | None) -> int:
    at = _at(*texts)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) if at else UNSAID


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value not in (None, "")}


def _part(o: Json, name: str) -> Json:
    """An object within; Paystack writes `{}`, `null`, `""` or `0` where there is none."""
    part = o.get(name)
    return part if isinstance(part, dict) else {}


def _amount(amount: Any, currency: str) -> Decimal:
    return from_minor(amount, currency, HUNDREDTHS)


def _unpaid(amount: Any, currency: str | None) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return {"amount": _amount(amount, currency), "currency": currency} if amount and currency else {}


def _who(o: Json) -> Person:
    customer = _part(o, "customer")
    return Person(email=customer.get("email"), customer_id=customer.get("customer_code"))


def _metadata(o: Json) -> dict[str, Any]:
    """The site's own, and what it showed to the customer as `custom_fields`."""
    found = dict(_part(o, "metadata"))
    fields = found.pop("custom_fields", None)
    shown = {each["variable_name"]: each.get("value") for each in fields or () if each.get("variable_name")}
    return {**_part(_part(o, "customer"), "metadata"), **shown, **found}


CLICKS = ("gclid", "fbclid", "msclkid", "ref")


def _lasting(metadata: Json) -> dict[str, Any]:
    """Where this payment came from is no news about the customer's other payments."""
    return {name: value for name, value in metadata.items() if not name.startswith("utm_") and name not in CLICKS}


def _about(o: Json, properties: Json, *joins: tuple[str, str | None]) -> dict[str, Any]:
    who = _who(o)
    return {
        "person": who,
        "metadata": _metadata(o),
        "joins": _keys(*joins, ("customer", who.customer_id)),
        "properties": _known(properties),
    }


def _plan(o: Json) -> dict[str, Any]:
    plan = _part(o, "plan")
    code = plan.get("plan_code") or (o.get("plan") if isinstance(o.get("plan"), str) else None)
    return {"plan": code or None, "billing_interval": plan.get("interval")}


# --- payments ---------------------------------------------------------------------------------------------------------


@provider.on("charge.success")
def charge(n: Notification) -> Iterator[Draft | Learned]:
    """Of a plan's charges the one on the day on which the subscription began is its first."""
    o, plan = n.body["data"], _plan(n.body["data"])
    reference, currency, code = o["reference"], o["currency"], plan["plan"]
    told = {
        "order_id": reference,
        "channel": o.get("channel"),
        "country": _part(o, "authorization").get("country_code"),
    }
    draft, at = (
        _about(o, {**told, **plan}, ("payment", reference)),
        _at(o.get("paid_at"), o.get("paidAt"), o.get("created_at")),
    )
    yield Learned(keys=draft["joins"][:1], person=draft["person"], metadata=draft["metadata"])
    yield Learned(keys=draft["joins"][1:], person=draft["person"], metadata=_lasting(draft["metadata"]))
    if code and at and draft["person"].customer_id:
        bought = f"{draft['person'].customer_id}:{code}"
        days = [f"{bought}:{day:%Y-%m-%d}" for day in (at, at - timedelta(days=1))]
        draft["joins"] = _keys(("plan", bought), *(("began", day) for day in days)) + draft["joins"]
        draft["waits"] = True
        started = Variant(name="subscription_started", once=f"subscription_started:{days[0]}")
        draft["variants"] = {"new": started}
    amount = _amount(o["amount"], currency)
    if amount and (o.get("status") or "success") == "success":
        name, at_ms = "subscription_renewed" if code else "purchase", _ms(at.isoformat() if at else None)
        yield conversion(name, once=f"payment:{reference}", at_ms=at_ms, revenue=amount, currency=currency, **draft)


@provider.on("refund.processed")
def refund(n: Notification) -> Iterator[Draft]:
    o = n.body["data"]
    payment = o.get("transaction_reference") or _part(o, "transaction")["reference"]
    own = o.get("refund_reference") or o.get("id") or o["amount"]
    draft = _about(o, {"order_id": payment, "refund_id": o.get("refund_reference")}, ("payment", payment))
    amount, currency = _amount(o["amount"], o["currency"]), o["currency"]
    at_ms = _ms(o.get("refunded_at"), o.get("updatedAt"), o.get("createdAt"))
    yield event("refund", once=f"refund:{payment}:{own}", at_ms=at_ms, revenue=-amount, currency=currency, **draft)


#: By `resolution`: what was accepted is refunded.
OUTCOMES = {"auto-accepted": "dispute_lost", "merchant-accepted": "dispute_lost", "declined": "dispute_won"}


@provider.on("charge.dispute.create", "charge.dispute.resolve")
def dispute(n: Notification) -> Iterator[Draft]:
    o, is_new = n.body["data"], n.type == "charge.dispute.create"
    payment, resolution = (
        _part(o, "transaction").get("reference") or o.get("transaction_reference"),
        o.get("resolution"),
    )
    name = "dispute_opened" if is_new else OUTCOMES.get(resolution or "")
    told = {"order_id": payment, "dispute_id": str(o["id"]), "reason": o.get("category"), "outcome": resolution}
    draft = _about(o, {**told, **_unpaid(o.get("refund_amount"), o.get("currency"))}, ("payment", payment))
    times = ("created_at", "createdAt") if is_new else ("resolvedAt", "resolved_at", "updated_at", "updatedAt")
    if name:
        at_ms = _ms(*(o.get(time) for time in times))
        yield event(name, once=f"{name}:{o['id']}", at_ms=at_ms, **draft)


@provider.on("invoice.payment_failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """One for each invoice: Paystack tries once."""
    o, tried = n.body["data"], _part(n.body["data"], "transaction")
    told = {"order_id": o["invoice_code"], "subscription_id": _part(o, "subscription").get("subscription_code")}
    amount = _unpaid(o.get("amount"), tried.get("currency") or o.get("currency"))
    draft = _about(o, {**told, **amount, "reason": tried.get("gateway_response")})
    once = f"payment_failed:{o['invoice_code']}"
    yield event("payment_failed", once=once, at_ms=_ms(o.get("created_at"), o.get("createdAt")), **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


@provider.on("subscription.create")
def created(n: Notification) -> Iterator[Learned]:
    """The money comes with its charge: this says that it is the first."""
    o, plan = n.body["data"], _plan(n.body["data"])["plan"]
    draft = _about(o, {}, ("subscription", o["subscription_code"]))
    yield Learned(keys=draft["joins"], person=draft["person"], metadata=draft["metadata"])
    if plan:
        bought, at = f"{draft['person'].customer_id}:{plan}", _at(o.get("createdAt"), o.get("created_at"))
        yield Learned(keys=(f"plan:{bought}",))
        if at:
            yield Learned(keys=(f"began:{bought}:{at:%Y-%m-%d}",), marks=("new",))


@provider.on("invoice.create", "invoice.update")
def invoice(n: Notification) -> Iterator[Learned]:
    """A twin of its charge, which it knows: whose subscription that pays."""
    o = n.body["data"]
    paid, subscription = _part(o, "transaction").get("reference"), _part(o, "subscription").get("subscription_code")
    draft = _about(o, {}, ("payment", paid), ("subscription", subscription))
    yield Learned(keys=draft["joins"], person=draft["person"], metadata=draft["metadata"])


#: What happens to a subscription, and its reason.
CHANGES = {"subscription.not_renew": "subscription_cancel_scheduled", "subscription.disable": "subscription_ended"}


@provider.on(*CHANGES)
def changed(n: Notification) -> Iterator[Draft]:
    """`created_at` is when the subscription began."""
    o, name = n.body["data"], CHANGES[n.type]
    reason = o.get("status") if name == "subscription_ended" else None
    told = {"subscription_id": o["subscription_code"], **_plan(o), "reason": reason}
    draft = _about(o, told, ("subscription", o["subscription_code"]))
    yield event(name, once=f"{name}:{o['subscription_code']}", at_ms=_ms(o.get("cancelledAt")), **draft)
