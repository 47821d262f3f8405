"""GoCardless. https://developer.gocardless.com/api-reference/#core-endpoints-events (2015-07-06, read 2026-11-23).

In: up to 250 events a delivery, each an id, what happened to it, and links. Amounts and persons are asked for: the
payment, its mandate, its customer. A payment counts when it is confirmed, before it is paid out, and may bounce then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="gocardless",
    title="GoCardless",
    docs="https://developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks",
    verifier=hmac_sha256(header="Webhook-Signature"),
    items=lambda body: body["events"],
    notification_id=field("id"),
    notification_type=composed(field("resource_type"), field("action"), separator="."),
    account=field("links.organisation"),
    secret=SecretShape(
        meaning="GoCardless > Developers > your webhook endpoint > Secret",
        mistaken={"live_": "an access token", "sandbox_": "an access token"},
    ),
    api_key=SecretShape(meaning="GoCardless > Developers > Create > Access token, read-only"),
    api=Api(
        base="https://api.gocardless.com",
        bases={"sandbox_": "https://api-sandbox.gocardless.com"},
        headers={"gocardless-version": "2015-07-06"},
        is_needed=True,
    ),
)

#: Steps on the way, twins (`paid_out` of `confirmed`), and what is about the bank or about us.
TWINS = {
    "payments": "created customer_approval_granted customer_approval_denied submitted cancelled paid_out "
    "surcharge_fee_debited surcharge_fee_credited resubmission_requested",
    "refunds": "paid refund_settled",
    "subscriptions": "created customer_approval_granted customer_approval_denied payment_created "
    "scheduled_pause scheduled_pause_cancelled scheduled_resume",
    "mandates": "created customer_approval_granted customer_approval_skipped active cancelled failed transferred "
    "expired submitted resubmission_requested reinstated replaced consumed blocked suspended_by_payer",
    "instalment_schedules": "created creation_failed completed cancelled errored resumed",
    "payouts": "paid fx_rate_confirmed tax_exchange_rates_confirmed",
    "billing_requests": "created flow_created flow_visited flow_exited fulfilled cancelled collect_customer_details "
    "collect_bank_account payer_details_confirmed bank_authorisation_authorised bank_authorisation_visited accepted",
    "creditors": "updated new_payout_currency_added account_auto_frozen account_auto_frozen_reverted bounced_payout",
}
for kind, actions in TWINS.items():
    provider.ignores(*(f"{kind}.{action}" for action in actions.split()))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _at_ms(n: Notification) -> int:
    return _ms(n.body["created_at"])


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


# --- who --------------------------------------------------------------------------------------------------------------


def _about(n: Notification, o: Json, properties: Json) -> dict[str, Any]:
    """What the drafts of a payment or subscription have; who it was stands two links away."""
    mandate = _of(n.look_up("/mandates/{}", o["links"]["mandate"])) if o["links"].get("mandate") else {}
    customer_id = (mandate.get("links") or {}).get("customer") or o["links"].get("customer")
    customer = _of(n.look_up("/customers/{}", customer_id)) if customer_id else {}
    return {
        "person": Person(email=customer.get("email"), customer_id=customer_id),
        "metadata": {**(customer.get("metadata") or {}), **(o.get("metadata") or {})},
        "properties": _known({**properties, "country": customer.get("country_code"), "scheme": mandate.get("scheme")}),
    }


def _of(answer: Json | None) -> Json:
    """The object in an answer, which stands under the name of its kind."""
    return next(iter(answer.values())) if answer else {}


def _learned(about: Json, **ids: str | None) -> Learned:
    kinds = {**ids, "customer": about["person"].customer_id}
    keys = tuple(f"{kind}:{value}" for kind, value in kinds.items() if value)
    return Learned(keys=keys, person=about["person"], metadata=about["metadata"])


# --- payments ---------------------------------------------------------------------------------------------------------

#: A payment that stands behind one of these was made.
MADE = {"confirmed", "paid_out", "charged_back"}


def _asked(n: Notification) -> tuple[Json, dict[str, Any]]:
    o: Json = n.ask("/payments/{}", n.body["links"]["payment"])["payments"]
    links = o["links"]
    schedule = links.get("instalment_schedule")
    properties = {"order_id": o["id"], "subscription_id": links.get("subscription"), "instalment_schedule_id": schedule}
    return o, _about(n, o, properties)


def _is_first(n: Notification, o: Json) -> bool:
    """Whether no payment of its subscription was made before it; without a word of that, it is a later one."""
    path = "/payments?subscription={}&created_at[lt]={}"
    told = n.look_up(path, o["links"]["subscription"], o["created_at"])
    return told is not None and not any(earlier["status"] in MADE for earlier in told["payments"])


@provider.on("payments.confirmed")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    o, about = _asked(n)
    subscription, name = o["links"].get("subscription"), "purchase"
    if subscription:
        name = "subscription_started" if _is_first(n, o) else "subscription_renewed"
    yield _learned(about, payment=o["id"], subscription=subscription)
    money = {"revenue": from_minor(o["amount"], o["currency"]), "currency": o["currency"]}
    yield conversion(name, once=f"payment:{o['id']}", at_ms=_at_ms(n), **money, **about)


def _unpaid(o: Json, about: Json, **more: Any) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    amount = {"amount": from_minor(o["amount"], o["currency"]), "currency": o["currency"].upper()}
    return {**about, "properties": about["properties"] | amount | _known(more)}


@provider.on("payments.failed")
def failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt: a payment may be tried again, and fail again."""
    o, about = _asked(n)
    details = n.body.get("details") or {}
    told = _unpaid(o, about, reason=details.get("cause"), is_retried=details.get("will_attempt_retry"))
    yield event("payment_failed", once=f"payment_failed:{n.id}", at_ms=_at_ms(n), **told)


@provider.on("payments.late_failure_settled")
def bounced(n: Notification) -> Iterator[Draft]:
    """A payment that was confirmed and failed after all: the money went back."""
    o, about = _asked(n)
    about["properties"]["reason"] = "late_failure"
    money = {"revenue": -from_minor(o["amount"], o["currency"]), "currency": o["currency"]}
    yield event("refund", once=f"late_failure:{o['id']}", at_ms=_at_ms(n), **money, **about)


#: What the payer's bank took back, and how that ended.
DISPUTES = {
    "payments.charged_back": "dispute_opened",
    "payments.chargeback_cancelled": "dispute_won",
    "payments.chargeback_settled": "dispute_lost",
}


@provider.on(*DISPUTES)
def dispute(n: Notification) -> Iterator[Draft]:
    o, about = _asked(n)
    name, reason = DISPUTES[n.type], (n.body.get("details") or {}).get("cause")
    yield event(name, once=f"{name}:{o['id']}", at_ms=_at_ms(n), **_unpaid(o, about, reason=reason))


# --- refunds ----------------------------------------------------------------------------------------------------------


def _refund(n: Notification, name: str, sign: int) -> Draft:
    o: Json = n.ask("/refunds/{}", n.body["links"]["refund"])["refunds"]
    payment_id = o["links"].get("payment")
    about = _about(n, o, {"order_id": payment_id, "refund_id": o["id"]})
    joins = (f"payment:{payment_id}",) if payment_id else ()
    money = {"revenue": sign * from_minor(o["amount"], o["currency"]), "currency": o["currency"]}
    return event(name, once=f"{name}:{o['id']}", at_ms=_at_ms(n), joins=joins, **money, **about)


@provider.on("refunds.created")
def refund(n: Notification) -> Iterator[Draft]:
    yield _refund(n, "refund", -1)


@provider.on("refunds.failed", "refunds.bounced", "refunds.funds_returned")
def refund_reversed(n: Notification) -> Iterator[Draft]:
    """However many of these tell it."""
    yield _refund(n, "refund_reversed", 1)


# --- subscriptions ----------------------------------------------------------------------------------------------------

#: What a subscription's event is; the last two may come more than once.
CHANGES = {
    "subscriptions.cancelled": "subscription_ended",
    "subscriptions.finished": "subscription_ended",
    "subscriptions.amended": "plan_changed",
    "subscriptions.paused": "subscription_paused",
    "subscriptions.resumed": "subscription_resumed",
}


@provider.on(*CHANGES)
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    o: Json = n.ask("/subscriptions/{}", n.body["links"]["subscription"])["subscriptions"]
    name = CHANGES[n.type]
    is_end = name == "subscription_ended"
    reason = (n.body.get("details") or {}).get("cause") if is_end else None
    about = _about(n, o, {"subscription_id": o["id"], "billing_interval": o.get("interval_unit"), "reason": reason})
    yield _learned(about, subscription=o["id"])
    yield event(name, once=f"{name}:{o['id']}" if is_end else f"{name}:{n.id}", at_ms=_at_ms(n), **about)
