"""Chargebee. https://apidocs.chargebee.com/docs/api/events (API v1 and v2, both product catalogues, read 2026-11-23).

In: events of a site. Money is told by its transaction: what came in by `payment_succeeded`, what went back by
`payment_refunded`; invoices, credit notes and renewals are twins. The content holds the customer nearly always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from relay.contract import Draft, Learned, Notification, Person, Provider, SecretShape, conversion, event, field
from relay.money import from_minor
from relay.signatures import basic_auth

Json = Mapping[str, Any]

provider = Provider(
    name="chargebee",
    title="Chargebee",
    docs="https://apidocs.chargebee.com/docs/api/events",
    verifier=basic_auth(),
    notification_id=field("id"),
    notification_type=field("event_type"),
    secret=SecretShape(
        meaning="user:password, as typed in at Chargebee > Settings > Configure Chargebee > Webhooks > your webhook: "
        "Protect webhook URL with basic authentication",
        mistaken={"live_": "an API key", "test_": "an API key of a test site"},
    ),
)

#: Twins of what is mapped, steps on the way to it, reminders, and the catalogue.
TWINS = """
add_usages_reminder addon_created addon_deleted addon_updated authorization_succeeded authorization_voided card_added
card_deleted card_expired card_expiry_reminder card_updated coupon_codes_added coupon_codes_deleted coupon_codes_updated
coupon_created coupon_deleted coupon_set_created coupon_set_deleted coupon_set_updated coupon_updated
credit_note_created credit_note_created_with_backdating credit_note_deleted credit_note_updated customer_deleted
dunning_updated
invoice_deleted invoice_generated invoice_generated_with_backdating invoice_updated item_created item_deleted
item_family_created item_family_deleted item_family_updated item_price_created item_price_deleted item_price_updated
item_updated mrr_updated order_created order_updated payment_due_reminder payment_initiated payment_intent_created
payment_intent_updated payment_source_added payment_source_deleted payment_source_expired payment_source_expiring
payment_source_updated pending_invoice_created pending_invoice_updated plan_created plan_deleted plan_updated
promotional_credits_added promotional_credits_deducted quote_created quote_deleted quote_updated refund_initiated
subscription_cancellation_reminder subscription_changes_scheduled subscription_deleted subscription_items_renewed
subscription_renewal_reminder subscription_renewed subscription_scheduled_changes_removed
subscription_shipping_address_updated subscription_trial_end_reminder transaction_created transaction_deleted
transaction_updated unbilled_charges_created unbilled_charges_deleted unbilled_charges_invoiced unbilled_charges_voided
virtual_bank_account_added virtual_bank_account_deleted virtual_bank_account_updated
"""
provider.ignores(*TWINS.split())


def _keys(*ids: tuple[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{kind}:{value}" for kind, value in ids if value)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value not in (None, "")}


def _part(n: Notification, name: str) -> Json:
    """An entity of the content, which may lack it."""
    return n.body["content"].get(name) or {}


def _metadata(n: Notification) -> dict[str, Any]:
    """What the site left on the customer and, better, on the subscription: meta data and fields of its own (`cf_`)."""
    found: dict[str, Any] = {}
    for entity in (_part(n, "customer"), _part(n, "subscription")):
        own = {name.removeprefix("cf_"): value for name, value in entity.items() if name.startswith("cf_")}
        given = entity.get("meta_data")
        found |= own | (given if isinstance(given, dict) else {})
    return found


def _ids(n: Notification) -> tuple[str | None, str | None]:
    """The customer and the subscription that it is about."""
    parts = [_part(n, name) for name in ("transaction", "invoice", "credit_note")]
    customer = _part(n, "customer").get("id") or _part(n, "subscription").get("customer_id")
    subscription = _part(n, "subscription").get("id")
    return (
        customer or next((part["customer_id"] for part in parts if part.get("customer_id")), None),
        subscription or next((part["subscription_id"] for part in parts if part.get("subscription_id")), None),
    )


def _bought(n: Notification) -> dict[str, Any]:
    """The plan in the words of either catalogue: of what was invoiced, else of the subscription."""
    subscription = _part(n, "subscription")
    lines: list[Json] = _part(n, "invoice").get("line_items") or [{}]
    items = [item for item in subscription.get("subscription_items") or () if item.get("item_type", "plan") == "plan"]
    line, item = next(filter(_is_plan, lines), lines[0]), items[0] if items else {}
    return {
        "plan": (_is_plan(line) and line.get("entity_id")) or item.get("item_price_id") or subscription.get("plan_id"),
        "product": None if _is_plan(line) else line.get("entity_id"),
        "quantity": line.get("quantity") or item.get("quantity") or subscription.get("plan_quantity"),
        "billing_interval": subscription.get("billing_period_unit"),
    }


def _is_plan(line: Json) -> bool:
    return (line.get("entity_type") or "").startswith("plan")


def _about(n: Notification, properties: Json) -> dict[str, Any]:
    """What all drafts have; where the content does not hold the customer, they wait for whoever told of it."""
    customer, subscription = _ids(n)
    address = _part(n, "invoice").get("billing_address") or _part(n, "customer").get("billing_address") or {}
    email = _part(n, "customer").get("email") or address.get("email")
    told = {"subscription_id": subscription, **properties, **_bought(n), "country": address.get("country")}
    return {
        "person": Person(email=email, customer_id=customer),
        "metadata": _metadata(n),
        "joins": _keys(("customer", customer), ("subscription", subscription)),
        "waits": not _part(n, "customer") and bool(customer or subscription),
        "properties": _known(told),
    }


def _learned(n: Notification, *more: tuple[str, str | None]) -> Iterator[Learned]:
    """Who stands behind the ids, where the content says so."""
    draft = _about(n, {})
    if _part(n, "customer"):
        yield Learned(keys=draft["joins"] + _keys(*more), person=draft["person"], metadata=draft["metadata"])


# --- who --------------------------------------------------------------------------------------------------------------


@provider.on("customer_created", "customer_changed")
def customer(n: Notification) -> Iterator[Learned]:
    yield from _learned(n)


# --- payments ---------------------------------------------------------------------------------------------------------


def _name(n: Notification) -> str:
    """What the payment is: by its invoice, and by where in the subscription's life the invoice stands."""
    invoice, subscription = _part(n, "invoice"), _part(n, "subscription")
    lines: list[Json] = invoice.get("line_items") or []
    starts = [line.get("date_from") for line in lines if _is_plan(line)]
    trial_end, term = subscription.get("trial_end"), subscription.get("current_term_start")
    if not invoice.get("recurring", bool(_ids(n)[1])) or (lines and not any(map(_is_recurring, lines))):
        return "purchase"
    is_after_trial = trial_end and invoice.get("first_invoice") and (invoice.get("date") or 0) >= trial_end
    if is_after_trial or (trial_end and trial_end in starts):
        return "trial_converted"
    if invoice.get("first_invoice"):
        return "subscription_started"
    # of a change amid the term the plan is billed from then on
    is_change = bool(term and starts) and all(start and start > term for start in starts)
    return "plan_changed" if is_change else "subscription_renewed"


#: By `entity_type` of a line: what is charged once.
ONCE_ONLY = ("adhoc", "charge_item_price")


def _is_recurring(line: Json) -> bool:
    return line.get("entity_type") not in ONCE_ONLY


def _tax(n: Notification, paid: int, currency: str) -> Decimal | None:
    """The tax in what was paid: a share of it where the payment is a share of the invoice."""
    tax, total = _part(n, "invoice").get("tax"), _part(n, "invoice").get("total")
    return from_minor(round(Fraction(tax * paid, total)), currency) if tax and total else None


def _currency(n: Notification) -> str:
    return str(_part(n, "transaction").get("currency_code") or _part(n, "invoice")["currency_code"])


def _coupon(n: Notification) -> str | None:
    discounts = _part(n, "invoice").get("discounts") or ()
    return next((each["entity_id"] for each in discounts if each.get("entity_id")), None)


@provider.on("payment_succeeded")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    """An invoice that is paid in parts is several payments."""
    paid, invoice, currency = _part(n, "transaction"), _part(n, "invoice"), _currency(n)
    yield from _learned(n, ("invoice", invoice.get("id")), ("transaction", paid["id"]))
    told = {"order_id": invoice.get("id") or paid["id"], "transaction_id": paid["id"], "coupon": _coupon(n)}
    draft, at_ms = _about(n, told), (paid.get("date") or n.body["occurred_at"]) * 1000
    if amount := from_minor(paid["amount"], currency):
        money = {"revenue": amount, "currency": currency, "tax": _tax(n, paid["amount"], currency)}
        if (name := _name(n)) == "plan_changed":
            draft["properties"] |= _known({"to_plan": draft["properties"].get("plan")})
        yield conversion(name, once=f"transaction:{paid['id']}", at_ms=at_ms, **money, **draft)


@provider.on("payment_failed")
def payment_failed(n: Notification) -> Iterator[Draft]:
    """One for each attempt; without a way to pay there is no transaction."""
    tried, invoice = _part(n, "transaction"), _part(n, "invoice")
    amount = tried.get("amount") or invoice.get("amount_due")
    told: dict[str, Any] = {"order_id": invoice.get("id"), "reason": tried.get("error_code")}
    told["attempt"] = len(invoice.get("dunning_attempts") or ()) or None
    if amount:
        told |= {"amount": from_minor(amount, _currency(n)), "currency": _currency(n)}
    at_ms = (tried.get("date") or n.body["occurred_at"]) * 1000
    yield event("payment_failed", once=f"payment_failed:{tried.get('id') or n.id}", at_ms=at_ms, **_about(n, told))


@provider.on("payment_refunded")
def refund(n: Notification) -> Iterator[Draft]:
    given, notes = _part(n, "transaction"), _part(n, "transaction").get("linked_credit_notes") or [{}]
    invoice = _part(n, "invoice").get("id") or notes[0].get("cn_reference_invoice_id")
    reason = notes[0].get("cn_create_reason_code") or notes[0].get("cn_reason_code")
    told = {"order_id": invoice or given.get("refunded_txn_id"), "refund_id": given["id"], "reason": reason}
    draft, currency = _about(n, told), _currency(n)
    amount, at_ms = from_minor(given["amount"], currency), (given.get("date") or n.body["occurred_at"]) * 1000
    yield event("refund", once=f"refund:{given['id']}", at_ms=at_ms, revenue=-amount, currency=currency, **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _told(n: Notification, name: str, at: int | None, **properties: Any) -> Draft:
    """One for each time that it happens."""
    o, tell = _part(n, "subscription"), conversion if name == "trial_started" else event
    at = at or n.body["occurred_at"]
    return tell(name, once=f"{name}:{o['id']}:{at}", at_ms=at * 1000, **_about(n, properties))


@provider.on("subscription_created", "subscription_created_with_backdating", "subscription_started")
def created(n: Notification) -> Iterator[Draft | Learned]:
    """The money of what begins without a trial comes with its payment."""
    o = _part(n, "subscription")
    yield from _learned(n)
    if o.get("status") == "in_trial":
        yield _told(n, "trial_started", o.get("trial_start"))


@provider.on("subscription_activated", "subscription_activated_with_backdating", "subscription_trial_extended")
def known(n: Notification) -> Iterator[Learned]:
    yield from _learned(n)


@provider.on("subscription_changed", "subscription_changed_with_backdating")
def changed(n: Notification) -> Iterator[Draft | Learned]:
    """A change that is billed at once is told by its payment."""
    yield from _learned(n)
    if not _part(n, "invoice"):
        draft = _told(n, "plan_changed", None)
        draft.properties = {**draft.properties, **_known({"to_plan": draft.properties.get("plan")})}
        yield draft


@provider.on("subscription_cancellation_scheduled")
def cancel_scheduled(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(n)
    o = _part(n, "subscription")
    reason = o.get("cancel_reason_code") or o.get("cancel_reason")
    yield _told(n, "subscription_cancel_scheduled", o.get("cancel_schedule_created_at"), reason=reason)


@provider.on("subscription_cancelled", "subscription_canceled_with_backdating")
def ended(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(n)
    o = _part(n, "subscription")
    reason = o.get("cancel_reason_code") or o.get("cancel_reason")
    yield _told(n, "subscription_ended", o.get("cancelled_at"), reason=reason)


#: What else happens to a subscription, and its reason.
STATES = {
    "subscription_paused": ("subscription_paused", None),
    "subscription_resumed": ("subscription_resumed", None),
    "subscription_reactivated": ("subscription_resumed", "reactivated"),
    "subscription_reactivated_with_backdating": ("subscription_resumed", "reactivated"),
    "subscription_scheduled_cancellation_removed": ("subscription_resumed", "cancellation_withdrawn"),
}


@provider.on(*STATES)
def state(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(n)
    name, reason = STATES[n.type]
    yield _told(n, name, None, reason=reason)
