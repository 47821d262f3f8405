"""Paddle Billing. https://developer.paddle.com/webhooks/overview (API version 1, read 2026-11-23).

In: notifications of a destination. A sale is told by `transaction.completed`, a refund or dispute by its adjustment.
Only the customer's own notifications hold an e-mail address: all else waits for `contact:<customer>`, known once the
customer was told. `trial:<subscription>` is known once it was said whether the subscription began as a trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

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
)
from relay.money import from_minor
from relay.signatures import timestamped_pairs

Json = Mapping[str, Any]

provider = Provider(
    name="paddle",
    title="Paddle",
    docs="https://developer.paddle.com/webhooks/overview",
    # Paddle's own libraries allow five seconds, which a clock that is a little off does not keep; repeats count once
    verifier=timestamped_pairs(
        header="Paddle-Signature", keys=("ts", "h1"), separator=";", message="{timestamp}:{body}", tolerance_s=300
    ),
    notification_id=field("event_id"),
    notification_type=field("event_type"),
    # Paddle's simulator; the sandbox is an account of its own, and its notifications do not say so
    is_test=lambda item: (item.body.get("event_id") or "").startswith("ntfsimevt_"),
    secret=SecretShape(
        meaning="Paddle > Developer tools > Notifications > your destination > Edit destination: Secret key",
        prefix="pdl_ntfset_",
        mistaken={
            "pdl_live_apikey_": "an API key",
            "pdl_sdbx_apikey_": "an API key of the sandbox",
            "ntfset_": "the id of the destination",
            "live_": "a client-side token",
            "test_": "a client-side token of the sandbox",
        },
    ),
)

#: Twins of what is mapped, steps on the way to it, and the catalogue.
TWINS = """
address.created address.imported address.updated business.created business.imported business.updated discount.created
discount.imported discount.updated discount_group.created discount_group.updated invoice.canceled invoice.created
invoice.issued invoice.overdue invoice.paid invoice.scheduled payment_method.deleted payment_method.saved payout.created
payout.paid price.created price.imported price.updated product.created product.imported product.updated report.created
report.updated subscription.imported subscription.past_due transaction.billed transaction.canceled transaction.created
transaction.paid transaction.past_due transaction.ready transaction.revised transaction.updated
"""
provider.ignores(*TWINS.split())


def _ms(text: str) -> int:
    """RFC 3339, as Unix milliseconds."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _about(o: Json, properties: Json, *first: tuple[str, str | None]) -> dict[str, Any]:
    """What the drafts of all entities have; `first` is what they wait for before anything else."""
    customer = o.get("customer_id")
    later = (("transaction", o.get("transaction_id")), ("subscription", o.get("subscription_id")))
    return {
        "person": Person(customer_id=customer),
        "metadata": o.get("custom_data") or {},
        "joins": _keys(*first, ("contact", customer), *later, ("customer", customer)),
        "waits": True,
        "properties": _known(properties),
    }


def _unpaid(amount: str, currency: str) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    return {"amount": from_minor(amount, currency), "currency": currency}


# --- who --------------------------------------------------------------------------------------------------------------


@provider.on("customer.created", "customer.updated", "customer.imported")
def customer(n: Notification) -> Iterator[Learned]:
    o = n.body["data"]
    person = Person(email=o.get("email"), customer_id=o["id"])
    yield Learned(
        keys=_keys(("contact", o["id"]), ("customer", o["id"])), person=person, metadata=o.get("custom_data") or {}
    )


# --- transactions -----------------------------------------------------------------------------------------------------

#: What the transaction of a subscription is, by its `origin`; every other transaction is a purchase.
SALES = {
    "web": "subscription_started",
    "api": "subscription_started",
    "subscription_recurring": "subscription_renewed",
    "subscription_update": "plan_changed",
    "subscription_charge": "purchase",
}

#: Moves no money: https://developer.paddle.com/errors/transactions/transaction_payment_method_change_field_immutable
NO_SALE = "subscription_payment_method_change"


def _bought(o: Json) -> dict[str, Any]:
    """The first item that recurs, else the first: add-ons and one-time charges stand behind it."""
    items: list[Json] = o.get("items") or [{}]
    item = next((item for item in items if (item.get("price") or {}).get("billing_cycle")), items[0])
    price = item.get("price") or {}
    cycle = price.get("billing_cycle") or {}
    return {
        "plan": price.get("id") if cycle else None,
        "product": price.get("product_id"),
        "quantity": item.get("quantity"),
        "billing_interval": cycle.get("interval"),
    }


def _origin_of(page: str | None) -> str | None:
    """The origin of the site's own checkout page; None for a page of Paddle's."""
    parts = urlsplit(page or "")
    is_ours = parts.hostname and not f".{parts.hostname}".endswith((".paddle.com", ".paddle.io"))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if is_ours else None


def _about_transaction(o: Json, *first: tuple[str, str | None]) -> dict[str, Any]:
    totals, currency = o["details"]["totals"], o["currency_code"]
    discount = from_minor(totals.get("discount") or 0, currency)
    properties = {
        "order_id": o["id"],
        "invoice_id": o.get("invoice_id"),
        "subscription_id": o.get("subscription_id"),
        "origin": o.get("origin"),
        "coupon": o.get("discount_id"),
        "discount": discount or None,
        **_bought(o),
    }
    return {**_about(o, properties, *first), "url": _origin_of((o.get("checkout") or {}).get("url"))}


def _tax(totals: Json, currency: str) -> Decimal:
    """The tax in what was paid: a share of it where credit paid a share of the total."""
    tax, total, paid = (int(totals.get(name) or 0) for name in ("tax", "total", "grand_total"))
    return from_minor(tax if paid >= total else round(Fraction(tax * paid, total)), currency)


@provider.on("transaction.completed")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    subscription, totals, currency = o.get("subscription_id"), o["details"]["totals"], o["currency_code"]
    name = SALES.get(o.get("origin"), "subscription_renewed") if subscription else "purchase"
    is_later = name in ("subscription_renewed", "plan_changed")
    draft = _about_transaction(o, ("trial", subscription if is_later else None))
    known = _keys(("transaction", o["id"]), ("subscription", subscription), ("customer", o.get("customer_id")))
    yield Learned(keys=known, person=draft["person"], metadata=draft["metadata"])
    if name == "plan_changed":
        draft["properties"]["to_plan"] = draft["properties"].get("plan")
    # an invoice is billed long before it is paid
    is_invoice = o.get("collection_mode") == "manual"
    at_ms = _ms((not is_invoice and o.get("billed_at")) or n.body["occurred_at"])
    once, paid = f"transaction:{o['id']}", from_minor(totals["grand_total"], currency)
    if paid and o.get("origin") != NO_SALE:
        if is_later:
            draft["variants"] = {"trial": Variant(name="trial_converted", once=f"trial_converted:{subscription}")}
        money = {"revenue": paid, "tax": _tax(totals, currency), "currency": currency}
        yield conversion(name, once=once, at_ms=at_ms, **money, **draft)
    elif name == "plan_changed":
        yield event(name, once=once, at_ms=at_ms, **draft)


@provider.on("transaction.payment_failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt; the latest stands first."""
    o = n.body["data"]
    failed = [attempt for attempt in o.get("payments") or () if attempt.get("status") == "error"]
    latest = failed[0] if failed else {}
    attempt = latest.get("payment_attempt_id") or f"{o['id']}:{n.body['occurred_at']}"
    draft = _about_transaction(o)
    draft["properties"] |= _unpaid(o["details"]["totals"]["grand_total"], o["currency_code"])
    draft["properties"] |= _known({"reason": latest.get("error_code"), "attempt": len(failed) or None})
    yield event("payment_failed", once=f"payment_failed:{attempt}", at_ms=_ms(n.body["occurred_at"]), **draft)


# --- adjustments: refunds and disputes --------------------------------------------------------------------------------

#: By the adjustment's `action`. Credit is no money given back: later transactions are smaller by it.
DISPUTES = {
    "chargeback": "dispute_opened",
    "chargeback_warning": "dispute_opened",
    "chargeback_reverse": "dispute_won",
    "chargeback_warning_reverse": "dispute_won",
}


@provider.on("adjustment.created", "adjustment.updated")
def adjustment(n: Notification) -> Iterator[Draft]:
    """A refund is told once Paddle approved it, a dispute at once."""
    o = n.body["data"]
    action, totals, currency = o["action"], o["totals"], o["currency_code"]
    order = {"order_id": o["transaction_id"], "subscription_id": o.get("subscription_id")}
    if action == "refund" and o["status"] == "approved":
        draft = _about(o, {**order, "refund_id": o["id"], "is_full": o.get("type") == "full" or None})
        amount, tax = from_minor(totals["total"], currency), from_minor(totals.get("tax") or 0, currency)
        at_ms = _ms(o.get("updated_at") or o.get("created_at") or n.body["occurred_at"])
        once = f"refund:{o['id']}"
        yield event("refund", once=once, at_ms=at_ms, revenue=-amount, tax=-tax, currency=currency, **draft)
    elif action in DISPUTES and o["status"] in ("approved", "reversed"):
        draft = _about(o, {**order, "dispute_id": o["id"], **_unpaid(totals["total"], currency)})
        at_ms = _ms(o.get("created_at") or n.body["occurred_at"])
        yield event(DISPUTES[action], once=f"{DISPUTES[action]}:{o['transaction_id']}", at_ms=at_ms, **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _told(n: Notification, name: str, at: str | None, *, each: str | None = None) -> Draft:
    """One for the subscription, or where it may happen again, one for `each`."""
    o = n.body["data"]
    draft = _about({**o, "subscription_id": o["id"]}, {"subscription_id": o["id"], **_bought(o)})
    tell = conversion if name == "trial_started" else event
    once = ":".join(filter(None, (name, o["id"], each)))
    return tell(name, once=once, at_ms=_ms(at or n.body["occurred_at"]), **draft)


def _learned(o: Json) -> Iterator[Learned]:
    """Who it is, and whether it began as a trial: of one that left its trial that is not said again."""
    known = _keys(("subscription", o["id"]), ("customer", o.get("customer_id")))
    yield Learned(keys=known, person=Person(customer_id=o.get("customer_id")), metadata=o.get("custom_data") or {})
    is_trial = o.get("status") == "trialing"
    if is_trial or not any(item.get("trial_dates") for item in o.get("items") or ()):
        yield Learned(keys=_keys(("trial", o["id"])), marks=("trial",) if is_trial else ())


@provider.on("subscription.created", "subscription.trialing", "subscription.activated", "subscription.updated")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """Of the changes only a cancellation can be seen: what was before is not said."""
    o = n.body["data"]
    yield from _learned(o)
    if o.get("status") == "trialing":
        yield _told(n, "trial_started", o.get("started_at"))
    change = o.get("scheduled_change") or {}
    if change.get("action") == "cancel":
        yield _told(n, "subscription_cancel_scheduled", None, each=change.get("effective_at"))


@provider.on("subscription.paused")
def paused(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    yield from _learned(o)
    yield _told(n, "subscription_paused", o.get("paused_at"), each=o.get("paused_at") or n.body["occurred_at"])


@provider.on("subscription.resumed")
def resumed(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(n.body["data"])
    yield _told(n, "subscription_resumed", None, each=n.body["occurred_at"])


@provider.on("subscription.canceled")
def ended(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["data"]
    yield from _learned(o)
    yield _told(n, "subscription_ended", o.get("canceled_at"))
