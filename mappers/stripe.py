"""Stripe. https://docs.stripe.com/api/events/types (API 2026-10-28.endive, read 2026-11-23).

In: snapshot events of any API version. A sale is told by its invoice, else by its Checkout session; bare payments and
charges are opt-in. A sale has the keys of all its objects that are known, a refund its own. `origin:x` is known once it
was said where x came from, `trial:x` whether x began as a trial: what waits for them names them first in its `joins`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mappers._stripe_objects import (
    OF_INVOICE,
    about,
    about_invoice,
    about_paid,
    about_payment,
    about_session,
    about_subscription,
    after_trial,
    came_in,
    delayed,
    invoice_keys,
    invoice_move,
    invoice_of,
    is_invoiced,
    may_have_session,
    named,
    paid_of,
    payment_keys,
    payments_of,
    refunds_of,
    sold_by_invoice,
    sold_by_payment,
    sold_by_session,
    subscription_of,
    taught_by,
    why_failed,
)
from mappers._stripe_values import (
    DECIMALS,
    Json,
    contents,
    converted_at,
    dig,
    gain,
    is_billed_at_once,
    is_ending,
    items_before,
    items_of,
    keys,
    known,
    move,
    periods,
    plan_of,
    ref,
    rows,
    unpaid,
    why_ended,
)
from relay.contract import (
    Draft,
    EventType,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    field,
    identify,
)
from relay.money import from_minor
from relay.signatures import stripe_signature

provider = Provider(
    name="stripe",
    title="Stripe",
    docs="https://docs.stripe.com/webhooks",
    verifier=stripe_signature(),
    notification_id=field("id"),
    notification_type=field("type"),
    account=field("account"),
    is_test=lambda item: item.body.get("livemode") is False,
    secret=SecretShape(
        meaning="Stripe Dashboard > Workbench > Webhooks > your endpoint > Signing secret",
        prefix="whsec_",
        mistaken={
            "sk_": "a secret API key",
            "rk_": "a restricted API key",
            "pk_": "a publishable API key",
            "we_": "the id of the webhook endpoint",
        },
    ),
    api_key=SecretShape(
        meaning="Stripe Dashboard > Developers > API keys > Create restricted key, which may read Events, Charges and "
        "Refunds, Checkout Sessions and Invoices",
        prefix="rk_",
        mistaken={
            "sk_": "a secret API key, which may do everything",
            "pk_": "a publishable API key",
            "whsec_": "the signing secret of a webhook",
        },
    ),
    options={
        "payment_intents": "Payments with neither an invoice nor a Checkout session (Elements, mobile, Terminal).",
        "charges": "Charges without a PaymentIntent (the old Charges API).",
        "identify": "An identify event for every new customer.",
    },
)

#: Twins of what is mapped, and steps on the way to it.
TWINS = """
charge.dispute.funds_reinstated charge.dispute.funds_withdrawn charge.dispute.updated charge.expired charge.pending
charge.updated credit_note.updated credit_note.voided customer.deleted customer.subscription.pending_update_applied
customer.subscription.pending_update_expired customer.subscription.trial_will_end invoice.created invoice.deleted
invoice.finalization_failed invoice.finalized invoice.marked_uncollectible invoice.overdue invoice.overpaid
invoice.payment_action_required invoice.payment_attempt_required invoice.payment_succeeded invoice.sent
invoice.upcoming invoice.updated invoice.voided invoice.will_be_due payment_intent.amount_capturable_updated
payment_intent.canceled payment_intent.created payment_intent.partially_funded payment_intent.processing
payment_intent.requires_action
"""
provider.ignores(*TWINS.split())


def _object(n: Notification) -> Any:
    return n.body["data"]["object"]


def _at_ms(n: Notification, seconds: int | None = None) -> int:
    """The time of the fact, where the object has one, else the time at which Stripe said it."""
    return int(seconds or n.body["created"]) * 1000


# Drafts are made by `Draft` itself: `conversion` and `event` would gather all that `about` found a second time.

# --- Checkout ---------------------------------------------------------------------------------------------------------


@provider.on("checkout.session.completed", "checkout.session.async_payment_succeeded")
def checkout(n: Notification) -> Iterator[Draft | Learned]:
    """Who is behind all that the session made; and the sale, unless an invoice that it does not name will tell it."""
    session = _object(n)
    draft = about_session(session)
    invoice, payment, subscription = session.get("invoice"), session.get("payment_intent"), session.get("subscription")
    paid = keys(("invoice", invoice), ("payment", payment))
    made = keys(("subscription", subscription), ("origin", subscription), ("origin", invoice), ("origin", payment))
    yield Learned(keys=paid + made + draft["joins"], person=draft["person"], metadata=draft["metadata"])
    mode = session.get("mode") or ("subscription" if subscription else "payment")
    told_later = session.get("payment_status", "paid") != "paid"
    told_by_invoice = mode != "payment" or (dig(session, ("invoice_creation", "enabled")) and not invoice)
    if (amount := session.get("amount_total")) and not told_later and not told_by_invoice:
        draft = sold_by_session(draft, session, amount)
        sale = (*paid, f"checkout:{session['id']}")
        yield Draft(event_type="conversion", name="purchase", once=sale, at_ms=_at_ms(n), **draft)


@provider.on("checkout.session.expired", "checkout.session.async_payment_failed")
def unfinished_checkout(n: Notification) -> Iterator[Draft]:
    session, draft = _object(n), about_session(_object(n))
    name = "checkout_expired" if n.type == "checkout.session.expired" else "payment_failed"
    draft["properties"] |= unpaid(session.get("amount_total"), session.get("currency"))
    draft["once"] = keys((name, session["id"]), (name, delayed(session)))
    yield Draft(event_type="event", name=name, at_ms=_at_ms(n), **draft)


# --- invoices ---------------------------------------------------------------------------------------------------------

#: What a subscription's paid invoice is, by `billing_reason`; every other invoice is a purchase.
SALES = {
    "subscription": "subscription_renewed",  # until 2018-05 Stripe said no more than this
    "subscription_create": "subscription_started",
    "subscription_cycle": "subscription_renewed",
    "subscription_threshold": "subscription_renewed",
    "subscription_update": "plan_changed",
}


#: Where a trial went before, these are its conversion.
AFTER_TRIAL = {"plan_changed", "subscription_renewed"}


@provider.on("invoice.paid")
def invoice_paid(n: Notification) -> Iterator[Draft | Learned]:
    invoice, subscription = _object(n), subscription_of(_object(n))
    draft, sale = about_invoice(invoice, subscription), invoice_keys(invoice)
    yield Learned(keys=sale + draft["joins"][1:], person=draft["person"], metadata=draft["metadata"])
    has_session = may_have_session(invoice, subscription)
    at_ms = _at_ms(n, dig(invoice, ("status_transitions", "paid_at")))
    if payments := payments_of(invoice, sale, has_session=has_session, at_ms=at_ms):
        yield Learned(keys=payments, marks=(OF_INVOICE,))
    name = SALES.get(invoice.get("billing_reason") or "subscription", "purchase") if subscription else "purchase"
    moved = invoice_move(invoice) if name == "plan_changed" else {}
    draft["properties"] |= moved
    if paid := paid_of(invoice):
        draft["waits"] = bool(subscription) or has_session
        draft |= after_trial(draft, invoice, subscription) if name in AFTER_TRIAL else {}
        draft = sold_by_invoice(draft, invoice, paid)
        yield Draft(event_type="conversion", name=name, once=sale, at_ms=at_ms, **draft)
    elif {"from_plan", "to_plan"} <= moved.keys():
        yield Draft(event_type="event", name=name, once=sale, at_ms=at_ms, **draft)


@provider.on("invoice.payment_failed")
def invoice_failed(n: Notification) -> Iterator[Draft]:
    invoice, draft = _object(n), about_invoice(_object(n), subscription_of(_object(n)))
    once = keys(("payment_failed", f"{invoice['id']}:{n.body['created']}"), ("payment_failed", invoice.get("charge")))
    draft["properties"] |= known({"attempt": invoice.get("attempt_count")})
    draft["properties"] |= unpaid(invoice.get("amount_due"), invoice.get("currency"))
    draft["waits"] = bool(subscription_of(invoice))
    yield Draft(event_type="event", name="payment_failed", once=once, at_ms=_at_ms(n), **draft)


@provider.on("invoice_payment.paid")
def invoice_payment(n: Notification) -> Iterator[Learned]:
    """Since basil the link between an invoice and its payment."""
    payment, charge = (dig(_object(n), ("payment", name)) for name in ("payment_intent", "charge"))
    yield Learned(keys=keys(("invoice", _object(n)["invoice"]), ("payment", payment), ("charge", charge)), same=True)
    yield Learned(keys=keys(("origin", payment or charge)), marks=(OF_INVOICE,))


@provider.on("credit_note.created")
def credit_note(n: Notification) -> Iterator[Learned]:
    """Whose refunds these are. Its money is told by the refunds, and by later invoices that credit makes smaller."""
    note, draft = _object(n), about(_object(n), {})
    refunds = [note.get("refund"), *(each.get("refund") for each in note.get("refunds") or ())]
    links = keys(("invoice", note["invoice"]), *(("refund", refund) for refund in refunds))
    yield Learned(keys=links + draft["joins"], person=draft["person"])


# --- payments without an invoice --------------------------------------------------------------------------------------


@provider.on("payment_intent.succeeded", option="payment_intents")
@provider.on("charge.succeeded", "charge.captured", option="charges")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    o, is_charge = _object(n), n.type.startswith("charge.")
    invoice, draft = invoice_of(o), about_payment(o, is_charge=is_charge)
    sale, is_told = payment_keys(o, invoice, is_charge=is_charge), is_invoiced(o, invoice)
    person, learned = draft["person"], taught_by(draft, is_told=is_told)
    if person.email or person.customer_id or draft["metadata"]:  # else it is no answer to what waits for one
        yield Learned(keys=sale + learned, person=person, metadata=draft["metadata"])
    if (amount := came_in(o)) and o.get("captured", True) and not is_told:
        draft = sold_by_payment(draft, o, amount, at_ms=_at_ms(n))
        yield Draft(event_type="conversion", name="purchase", once=sale, at_ms=_at_ms(n), **draft)


@provider.on("payment_intent.payment_failed", option="payment_intents")
@provider.on("charge.failed", option="charges")
def payment_failed(n: Notification) -> Iterator[Draft]:
    o, is_charge = _object(n), n.type.startswith("charge.")
    attempt = o["id"] if is_charge else ref(dig(o, ("last_payment_error", "charge"))) or n.id
    draft = about_payment(o, is_charge=is_charge)
    draft["properties"] |= known({"reason": why_failed(o)}) | unpaid(o.get("amount"), o.get("currency"))
    if not is_invoiced(o, invoice_of(o)):
        once = keys(("payment_failed", attempt), ("payment_failed", delayed(o)))
        yield Draft(event_type="event", name="payment_failed", once=once, at_ms=_at_ms(n), **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------

#: The changes of a subscription: the event, its reason, and what is true after it and was not before.
CHANGES: tuple[tuple[str, str | None, Callable[[Json], bool]], ...] = (
    ("trial_started", None, lambda subscription: subscription.get("status") == "trialing"),
    ("subscription_cancel_scheduled", None, is_ending),
    ("subscription_resumed", "cancellation_withdrawn", lambda subscription: not is_ending(subscription)),
    ("subscription_paused", "collection_paused", lambda subscription: bool(subscription.get("pause_collection"))),
    ("subscription_resumed", "collection_resumed", lambda subscription: not subscription.get("pause_collection")),
)

#: Where none of these fields changed, nothing of that happened.
DECISIVE = {"status", "cancel_at_period_end", "cancel_at", "pause_collection"}

#: What is told by a type of its own.
STATES = {
    "customer.subscription.paused": "subscription_paused",
    "customer.subscription.resumed": "subscription_resumed",
    "customer.subscription.deleted": "subscription_ended",
}

#: Events that happen to a subscription once: the others may repeat, and have their time in their key.
ONCE = {"trial_started": "trial_start", "subscription_ended": "ended_at"}


def _told(n: Notification, name: str, draft: dict[str, Any], properties: Json) -> Draft:
    subscription, itself = _object(n), named(_object(n))
    once = f"{name}:{itself}" if name in ONCE else f"{name}:{itself}:{n.body['created']}"
    at_ms = _at_ms(n, subscription.get(ONCE.get(name, "")))
    told = draft["properties"] | known({**plan_of(items_of(subscription)[0]), **properties})
    kind: EventType = "conversion" if name == "trial_started" else "event"
    return Draft(event_type=kind, name=name, once=(once,), at_ms=at_ms, **{**draft, "properties": told})


def _learned(n: Notification, draft: dict[str, Any]) -> Iterator[Learned]:
    subscription, was = _object(n), dig(n.body, ("data", "previous_attributes", "status"))
    trial, is_resumed = f"trial:{named(subscription)}", n.type.endswith(".resumed") or was == "paused"
    yield Learned(keys=draft["joins"][1:], person=draft["person"], metadata=draft["metadata"])
    yield Learned(keys=(trial, *(f"{trial}:{start}" for start in periods(subscription))))
    if paid_from := converted_at(subscription, is_resumed=is_resumed):
        yield Learned(keys=tuple(f"{trial}:{start}" for start in paid_from), marks=("trial",))


@provider.on("customer.subscription.created", "customer.subscription.updated")
def subscription_changed(n: Notification) -> Iterator[Draft | Learned]:
    now, is_new = _object(n), n.type.endswith("created")
    before = {"status": None} if is_new else n.body["data"].get("previous_attributes") or {}
    was, draft = {**now, **before}, about_subscription(now)
    yield from _learned(n, draft)
    for name, reason, is_so in CHANGES if DECISIVE & before.keys() else ():
        if is_so(now) and not is_so(was):
            yield _told(n, name, draft, {**why_ended(now), **known({"reason": reason})})
    left, taken = items_before(now, before), items_of(now)
    if left is not taken and contents(left) != contents(taken) and not is_billed_at_once(now, was):
        yield _told(n, "plan_changed", draft, move(left, taken, gain(left, taken)))


@provider.on(*STATES)
def subscription_state(n: Notification) -> Iterator[Draft | Learned]:
    subscription, draft = _object(n), about_subscription(_object(n))
    yield from _learned(n, draft)
    if subscription.get("status") != "incomplete_expired":  # its first invoice was never paid: it never began
        yield _told(n, STATES[n.type], draft, why_ended(subscription))


# --- refunds and disputes ---------------------------------------------------------------------------------------------

DISPUTES = {"won": "dispute_won", "lost": "dispute_lost"}  # what ends as `warning_closed` never took money

#: Before it `refund.created` leaves out charges, and since 2022-11-15 `charge.refunded` names no refunds.
#: https://docs.stripe.com/changelog/acacia/2024-10-28/refund-webhook-update (read 2026-11-23)
REFUNDS_TELL = "2024-10-28"


def _is_told_by_charge(n: Notification, since: str = "2022-11-15") -> bool:
    return since <= (n.body.get("api_version") or REFUNDS_TELL) < REFUNDS_TELL


def _refund(refund: Json, name: str, at_ms: int) -> Draft:
    amount, is_back = from_minor(refund["amount"], refund["currency"], DECIMALS), name == "refund_reversed"
    reason = refund.get("failure_reason" if is_back else "reason")
    draft = about_paid(refund, refund.get("charge"), {"refund_id": refund["id"], "reason": reason})
    draft["revenue"], draft["currency"] = amount if is_back else -amount, refund["currency"].upper()
    return Draft(event_type="event", name=name, once=(f"{name}:{refund['id']}",), at_ms=at_ms, **draft)


@provider.on("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")
def refund(n: Notification) -> Iterator[Draft]:
    """Told once it succeeded. One that fails later is told there and back: whichever comes first, the two cancel."""
    o, by_charge, is_back = _object(n), _is_told_by_charge(n), False
    status = o.get("status") or "succeeded"  # until 2015 there was no other
    if status in ("failed", "canceled"):
        was = dig(n.body, ("data", "previous_attributes", "status"))
        is_back = by_charge or was == "succeeded" or n.type == "refund.failed"
    if not by_charge and (is_back or status == "succeeded"):
        yield _refund(o, "refund", _at_ms(n, o.get("created")))
    if is_back:
        yield _refund(o, "refund_reversed", _at_ms(n))


@provider.on("charge.refunded")
def charge_refunded(n: Notification) -> Iterator[Draft | Learned]:
    """A twin of its refunds: says whose they are, tells those that it lists, and its last step where no other would."""
    charge, listed = _object(n), refunds_of(_object(n))
    draft = about_paid(charge, charge["id"], {})
    yield Learned(keys=draft["joins"][1:], person=draft["person"], metadata=draft["metadata"])
    for refund in listed:
        if (refund.get("status") or "succeeded") == "succeeded":
            yield _refund(refund, "refund", _at_ms(n, refund.get("created")))
    total, before = charge["amount_refunded"], dig(n.body, ("data", "previous_attributes", "amount_refunded")) or 0
    if total > before and not listed and (_is_told_by_charge(n, since="") or rows(charge.get("refunds"))):
        step, currency = from_minor(total - before, charge["currency"], DECIMALS), charge["currency"].upper()
        once, money = (f"refund:{charge['id']}:{total}:{n.body['created']}",), {"revenue": -step, "currency": currency}
        yield Draft(event_type="event", name="refund", once=once, at_ms=_at_ms(n), **money, **draft)


@provider.on("charge.dispute.created", "charge.dispute.closed")
def dispute(n: Notification) -> Iterator[Draft]:
    o, is_new = _object(n), n.type == "charge.dispute.created"
    name = "dispute_opened" if is_new else DISPUTES.get(o.get("status"))
    itself = o.get("id") or ref(o.get("charge")) or n.id  # until 2015 it had no id, and its charge no other
    properties = {"dispute_id": itself, "reason": o.get("reason"), **unpaid(o.get("amount"), o.get("currency"))}
    if name:
        draft, at_ms = about_paid(o, o.get("charge"), properties), _at_ms(n, o.get("created") if is_new else None)
        yield Draft(event_type="event", name=name, once=(f"{name}:{itself}",), at_ms=at_ms, **draft)


# --- customers --------------------------------------------------------------------------------------------------------


@provider.on("customer.created", "customer.updated")
def customer(n: Notification) -> Iterator[Draft | Learned]:
    o = _object(n)
    who: dict[str, Any] = {
        "person": Person(email=o.get("email"), customer_id=o["id"]),
        "metadata": o.get("metadata") or {},
    }
    yield Learned(keys=(f"customer:{o['id']}",), **who)
    if n.type == "customer.created":
        traits, at_ms = known({"country": dig(o, ("address", "country"))}), _at_ms(n, o.get("created"))
        yield identify(once=f"identify:{o['id']}", at_ms=at_ms, properties=traits, option="identify", **who)
