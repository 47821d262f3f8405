"""Recurly. https://docs.recurly.com/recurly-subscriptions/docs/webhooks (API v2021-02-25, read 2026-11-23).

In: JSON webhooks, which say what happened to which object, and nothing else; the object is asked for. A sale is told by
the charge invoice that was paid; payments and renewals accompany it and are left out. Money given back is told by the
refund's own transaction. XML webhooks are not signed, and not understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    basic_key,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import timestamped_list

Json = Mapping[str, Any]


def _site(item: Item) -> str | None:
    """Sites of one company may share an endpoint."""
    told = item.body.get("site_id")
    return str(told) if told else None


provider = Provider(
    name="recurly",
    title="Recurly",
    docs="https://docs.recurly.com/recurly-subscriptions/docs/webhooks",
    verifier=timestamped_list(header="recurly-signature", tolerance_s=300),
    # Whether `id` is that of the notification or of the object is not said.
    notification_id=composed(*map(field, ("id", "object_type", "event_type", "event_time", "uuid", "invoice_number"))),
    notification_type=composed(field("object_type"), field("event_type"), separator="."),
    account=_site,
    secret=SecretShape(meaning="Recurly > Integrations > Webhooks > your endpoint (JSON) > Signing key"),
    api_key=SecretShape(meaning="Recurly > Integrations > API Credentials > a private key that may only read"),
    api=Api(
        base="https://v3.recurly.com",
        auth=basic_key,
        headers={"accept": "application/vnd.recurly.v2021-02-25+json"},
        is_needed=True,
    ),
)

#: Twins of the invoices, steps on the way, and what is about addresses and cards.
TWINS = {
    "account": "created updated closed reopened canceled",
    "billing_info": "created updated failed deleted update_failed",
    "charge_invoice": "created processing past_due failed reopened updated",
    "credit_invoice": "created processing closed voided reopened opened updated",
    "invoice": "created pending processing past_due closed updated",
    "payment": "scheduled processing succeeded fraud_info_updated transaction_status_updated authorized",
    "subscription": "updated renewed reactivated prerenewal pending_change.scheduled pause.scheduled pause.modified "
    "pause.canceled",
    "credit_payment": "created voided",
}
for kind, events in TWINS.items():
    provider.ignores(*(f"{kind}.{name}" for name in events.split()))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _at_ms(n: Notification) -> int:
    return _ms(n.body["event_time"])


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


# --- what is asked for ------------------------------------------------------------------------------------------------


def _of_uuid(n: Notification, path: str) -> Json:
    uuid = n.body.get("uuid")
    found: Json = n.ask(path, f"uuid-{uuid}" if uuid else n.body["id"])
    return found


def _person(account: Json) -> Person:
    """The account's code is what the site calls it; some sites take the e-mail address."""
    code = account.get("code") or ""
    is_email = "@" in code
    email = account.get("email") or (code if is_email else None)
    return Person(email=email, external_id=None if is_email else code or None, customer_id=account.get("id"))


def _about(o: Json, properties: Json) -> dict[str, Any]:
    metadata = {each["name"]: each.get("value") for each in o.get("custom_fields") or ()}
    return {"person": _person(o.get("account") or {}), "metadata": metadata, "properties": _known(properties)}


def _learned(about: Json, **ids: str | None) -> Learned:
    kinds = {**ids, "customer": about["person"].customer_id}
    keys = tuple(f"{kind}:{value}" for kind, value in kinds.items() if value)
    return Learned(keys=keys, person=about["person"], metadata=about["metadata"])


# --- invoices ---------------------------------------------------------------------------------------------------------

#: What an invoice that was paid is, by its `origin`; all others are purchases.
SALES = {
    "purchase": "subscription_started",
    "renewal": "subscription_renewed",
    "immediate_change": "plan_changed",
}

#: An invoice that is made so soon after the end of a trial is the one that ends it.
SOON_MS = 2 * 24 * 3600 * 1000


def _bought(o: Json) -> Json:
    """The line of the plan, else the first."""
    told = o.get("line_items") or []
    lines: list[Json] = told["data"] if isinstance(told, dict) else told
    return next((line for line in lines if line.get("plan_code")), lines[0] if lines else {})


def _name(n: Notification, o: Json, subscription: str | None) -> str:
    if not subscription:
        return "purchase"
    name = SALES.get(o.get("origin") or "", "purchase")
    known = (n.look_up("/subscriptions/{}", subscription) if name == "subscription_renewed" else None) or {}
    trial_ends = known.get("trial_ends_at")
    if trial_ends and abs(_ms(o["created_at"]) - _ms(trial_ends)) < SOON_MS:
        return "trial_converted"
    return name


@provider.on("charge_invoice.paid")
def paid(n: Notification) -> Iterator[Draft | Learned]:
    """What was paid by card or transfer; what credit paid was paid before."""
    number = n.body.get("invoice_number")
    o: Json = n.ask("/invoices/{}", f"number-{number}" if number else n.body["id"])
    line, subscription = _bought(o), next(iter(o.get("subscription_ids") or ()), None)
    properties = {
        "order_id": o["id"],
        "invoice_number": str(o["number"]),
        "subscription_id": subscription,
        "plan": line.get("plan_code"),
        "quantity": line.get("quantity"),
        "country": (o.get("address") or {}).get("country"),
    }
    about = _about(o, properties)
    yield _learned(about, invoice=o["id"], subscription=subscription)
    revenue = from_major(o["paid"])
    if revenue:
        money = {"revenue": revenue, "tax": _share(o.get("tax"), revenue, o["total"]), "currency": o["currency"]}
        at_ms = _ms(o.get("closed_at") or n.body["event_time"])
        yield conversion(_name(n, o, subscription), once=f"invoice:{o['id']}", at_ms=at_ms, **money, **about)


def _share(tax: Any, revenue: Decimal, total: Any) -> Decimal | None:
    """The tax in what was paid: a share of it where credit paid a share of the total."""
    if tax is None:
        return None
    whole, of = from_major(tax), from_major(total)
    return whole if revenue >= of else (whole * revenue / of).quantize(Decimal("0.01"))


@provider.on("payment.failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt; the check of a card that moves no money is none."""
    o = _of_uuid(n, "/transactions/{}")
    if not from_major(o["amount"]) or o.get("type") not in ("purchase", "capture"):
        return
    invoice = (o.get("invoice") or {}).get("id")
    properties = {
        "order_id": invoice,
        "transaction_id": o["id"],
        "subscription_id": next(iter(o.get("subscription_ids") or ()), None),
        "amount": from_major(o["amount"]),
        "currency": o["currency"].upper(),
        "reason": o.get("status_code"),
    }
    at_ms = _ms(o.get("created_at") or n.body["event_time"])
    yield event("payment_failed", once=f"payment_failed:{o['id']}", at_ms=at_ms, **_about(o, properties))


# --- money given back -------------------------------------------------------------------------------------------------


@provider.on("payment.refunded")
def refund(n: Notification) -> Iterator[Draft]:
    """The transaction of the refund; where the one that was refunded is told, there is no amount to tell."""
    o = _of_uuid(n, "/transactions/{}")
    if o.get("type") != "refund":
        msg = "it names the payment that was refunded, and not the refund"
        raise UnmappableError(msg)
    original, invoice = o.get("original_transaction_id"), (o.get("invoice") or {}).get("id")
    about = _about(o, {"order_id": invoice or original, "refund_id": o["id"], "transaction_id": original})
    money = {"revenue": -from_major(o["amount"]), "currency": o["currency"]}
    at_ms = _ms(o.get("collected_at") or o.get("created_at") or n.body["event_time"])
    if money["revenue"]:
        yield event("refund", once=f"refund:{o['id']}", at_ms=at_ms, **money, **about)


@provider.on("payment.voided")
def voided(n: Notification) -> Iterator[Draft]:
    """A payment that is given back before the gateway settled it has no refund of its own: it never was."""
    o = _of_uuid(n, "/transactions/{}")
    money = {"revenue": -from_major(o["amount"]), "currency": o["currency"]}
    if not money["revenue"] or o.get("type") not in ("purchase", "capture"):
        return
    told = {"order_id": (o.get("invoice") or {}).get("id"), "transaction_id": o["id"], "reason": "voided"}
    at_ms = _ms(o.get("voided_at") or n.body["event_time"])
    yield event("refund", once=f"refund:{o['id']}", at_ms=at_ms, **money, **_about(o, told))


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _subscription(n: Notification) -> tuple[Json, dict[str, Any]]:
    o = _of_uuid(n, "/subscriptions/{}")
    plan = o.get("plan") or {}
    return o, _about(o, {"subscription_id": o["id"], "plan": plan.get("code"), "quantity": o.get("quantity")})


@provider.on("subscription.created")
def created(n: Notification) -> Iterator[Draft | Learned]:
    o, about = _subscription(n)
    yield _learned(about, subscription=o["id"])
    if o.get("trial_started_at") and o.get("trial_ends_at"):
        at_ms = _ms(o["trial_started_at"])
        yield conversion("trial_started", once=f"trial_started:{o['id']}", at_ms=at_ms, **about)


@provider.on("subscription.canceled")
def cancel_scheduled(n: Notification) -> Iterator[Draft | Learned]:
    """It goes on to the end of its term."""
    o, about = _subscription(n)
    at = o.get("canceled_at") or n.body["event_time"]
    yield _learned(about, subscription=o["id"])
    once = f"subscription_cancel_scheduled:{o['id']}:{at}"
    yield event("subscription_cancel_scheduled", once=once, at_ms=_ms(at), **about)


@provider.on("subscription.expired")
def ended(n: Notification) -> Iterator[Draft | Learned]:
    o, about = _subscription(n)
    about["properties"] |= _known({"reason": o.get("expiration_reason")})
    yield _learned(about, subscription=o["id"])
    yield event("subscription_ended", once=f"subscription_ended:{o['id']}", at_ms=_at_ms(n), **about)


@provider.on("subscription.paused", "subscription.resumed")
def paused(n: Notification) -> Iterator[Draft | Learned]:
    o, about = _subscription(n)
    name = n.type.replace(".", "_")
    yield _learned(about, subscription=o["id"])
    yield event(name, once=f"{name}:{o['id']}:{n.body['event_time']}", at_ms=_at_ms(n), **about)
