"""Stripe. https://docs.stripe.com/api/events/types (API 2026-10-28.endive, read 2026-11-23)

In: snapshot events of any API version, read through `_stripe_objects`. A sale is told by its invoice, else by its
Checkout session; bare payments and charges are opt-in. It has the keys of all its objects that are known, a refund the
key of its own. Two entities say that something is known at all: `origin:x` (where x came from: a Checkout session, or
the invoice of a payment) and `trial:x` (whether x began as a trial). What waits for one names it first in `joins`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from mappers._stripe_objects import (
    DECIMALS,
    Json,
    about,
    contents,
    dig,
    invoice_keys,
    invoice_of,
    invoice_tax,
    is_invoiced,
    items,
    keys,
    known,
    lines,
    move,
    period,
    plan,
    ref,
    reference,
    sold,
    subscription_of,
    unpaid,
    worth,
)
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
    is_test=lambda item: field("livemode")(item) == "False",
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
    options={
        "payment_intents": "Payments with neither an invoice nor a Checkout session (Elements, mobile, Terminal).",
        "charges": "Charges without a PaymentIntent (the old Charges API).",
        "identify": "An identify event for every new customer.",
    },
)

#: Twins of what is mapped, and steps on the way to it.
provider.ignores(
    *"""
    charge.dispute.funds_reinstated charge.dispute.funds_withdrawn charge.dispute.updated
    charge.expired charge.pending charge.updated
    credit_note.updated credit_note.voided customer.deleted
    customer.subscription.pending_update_applied customer.subscription.pending_update_expired
    customer.subscription.trial_will_end
    invoice.created invoice.deleted invoice.finalization_failed invoice.finalized invoice.marked_uncollectible
    invoice.overdue invoice.overpaid invoice.payment_action_required invoice.payment_attempt_required
    invoice.payment_succeeded invoice.sent invoice.upcoming invoice.updated invoice.voided invoice.will_be_due
    payment_intent.amount_capturable_updated payment_intent.canceled payment_intent.created
    payment_intent.partially_funded payment_intent.processing payment_intent.requires_action
    """.split()
)


def _object(n: Notification) -> Any:
    return n.body["data"]["object"]


def _said_at(n: Notification) -> int:
    return int(n.body["created"]) * 1000


# --- Checkout ---------------------------------------------------------------------------------------------------------


def _about_session(session: Json, **properties: Any) -> dict[str, Any]:
    page = urlsplit(session.get("success_url") or session.get("return_url") or "")
    is_ours = page.hostname and not f".{page.hostname}".endswith(".stripe.com")
    draft = about(
        session,
        order_id=ref(session.get("invoice") or session.get("payment_intent") or session["id"]),
        payment_link=ref(session.get("payment_link")),
        country=dig(session, "customer_details.address.country"),
        coupon=ref(dig(session, "discounts.0.coupon") or dig(session, "discounts.0.promotion_code")),
        **properties,
    )
    # the origin alone: path and query of a success page hold ids and placeholders
    return draft | {"url": f"{page.scheme}://{page.netloc}" if is_ours else None}


@provider.on("checkout.session.completed", "checkout.session.async_payment_succeeded")
def checkout(n: Notification) -> Iterator[Draft | Learned]:
    """Who is behind all that the session made; and the sale, unless an invoice that it does not name will tell it."""
    session, draft = _object(n), _about_session(_object(n))
    invoice, payment, subscription = (session.get(name) for name in ("invoice", "payment_intent", "subscription"))
    sale = keys(("invoice", invoice), ("payment", payment), ("checkout", session["id"]))
    made = keys(("subscription", subscription), *(("origin", thing) for thing in (subscription, invoice, payment)))
    yield Learned(keys=sale + made + draft["joins"], person=draft["person"], metadata=draft["metadata"])
    mode = session.get("mode") or ("subscription" if subscription else "payment")
    told_later = session.get("payment_status", "paid") != "paid"
    told_by_invoice = mode != "payment" or (dig(session, "invoice_creation.enabled") and not invoice)
    if session.get("amount_total") and not told_later and not told_by_invoice:
        totals = session.get("total_details") or {}
        parts = {part: totals.get(f"amount_{part}") for part in ("tax", "discount", "shipping")}
        draft = sold(draft, session, session["amount_total"], **parts)
        yield conversion("purchase", once=sale, at_ms=_said_at(n), **draft)


@provider.on("checkout.session.expired", "checkout.session.async_payment_failed")
def unfinished_checkout(n: Notification) -> Iterator[Draft]:
    session = _object(n)
    name = "checkout_expired" if n.type == "checkout.session.expired" else "payment_failed"
    draft = _about_session(session, **unpaid(session.get("amount_total"), session.get("currency")))
    yield event(name, once=f"{name}:{session['id']}", at_ms=_said_at(n), **draft)


# --- invoices ---------------------------------------------------------------------------------------------------------

#: What a subscription's paid invoice is, by `billing_reason`; every other invoice is a purchase.
SALES = {
    "subscription": "subscription_renewed",  # until 2018-05 Stripe said no more than this
    "subscription_create": "subscription_started",
    "subscription_cycle": "subscription_renewed",
    "subscription_threshold": "subscription_renewed",
    "subscription_update": "plan_changed",
}


def _about_invoice(invoice: Json, **properties: Any) -> dict[str, Any]:
    subscription = subscription_of(invoice)
    main = next(iter((*lines(invoice, prorated=False), *reversed(lines(invoice, prorated=True)))), {})
    return about(
        invoice,
        ("origin", subscription or invoice["id"]),
        ("subscription", subscription),
        order_id=invoice["id"],
        payment_id=ref(invoice.get("payment_intent") or invoice.get("charge")),
        subscription_id=subscription,
        billing_reason=invoice.get("billing_reason"),
        country=dig(invoice, "customer_address.country"),
        **plan(main),
        **properties,
    )


@provider.on("invoice.paid")
def invoice_paid(n: Notification) -> Iterator[Draft | Learned]:
    invoice, draft, sale = _object(n), _about_invoice(_object(n)), invoice_keys(_object(n))
    yield Learned(keys=sale + draft["joins"][1:], person=draft["person"], metadata=draft["metadata"])
    reason, subscription = invoice.get("billing_reason") or "subscription", subscription_of(invoice)
    name = SALES.get(reason, "purchase") if subscription else "purchase"
    at_ms = (dig(invoice, "status_transitions.paid_at") or n.body["created"]) * 1000
    if name == "plan_changed":
        draft["properties"] |= _plan_of_invoice(invoice)
    if name in ("plan_changed", "subscription_renewed"):
        draft["joins"] = (f"trial:{subscription}", *draft["joins"])
        draft["variants"] = {"trial": Variant(name="trial_converted", once=f"trial_converted:{subscription}")}
    if paid := invoice.get("amount_paid", invoice.get("amount_due")):
        draft["waits"] = bool(subscription) or invoice.get("collection_method") != "send_invoice"
        draft["properties"] |= known(
            coupon=ref(dig(invoice, "discount.coupon")), paid_out_of_band=invoice.get("paid_out_of_band") or None
        )
        discount = sum(each["amount"] for each in invoice.get("total_discount_amounts") or ())
        shipping, tax = invoice.get("amount_shipping"), invoice_tax(invoice, paid)
        draft = sold(draft, invoice, paid, tax=tax, discount=discount, shipping=shipping)
        yield conversion(name, once=sale, at_ms=at_ms, **draft)
    elif {"from_plan", "to_plan"} <= draft["properties"].keys():
        yield event(name, once=sale, at_ms=at_ms, **draft | {"variants": {}})


def _plan_of_invoice(invoice: Json) -> dict[str, Any]:
    """Prorated lines give back for the plan that was left and take for the new one."""
    prorated = lines(invoice, prorated=True)
    left, taken = ([line for line in prorated if line["amount"] * sign > 0] for sign in (-1, 1))
    return move(left, taken, sum(line["amount"] for line in prorated))


@provider.on("invoice.payment_failed")
def invoice_failed(n: Notification) -> Iterator[Draft]:
    invoice = _object(n)
    properties = {"attempt": invoice.get("attempt_count"), **unpaid(invoice.get("amount_due"), invoice.get("currency"))}
    attempt = f"{invoice['id']}:{n.body['created']}"
    once = keys(("payment_failed", attempt), ("payment_failed", invoice.get("charge")))
    yield event("payment_failed", once=once, at_ms=_said_at(n), **_about_invoice(invoice, **properties))


@provider.on("invoice_payment.paid")
def invoice_payment(n: Notification) -> Iterator[Learned]:
    """Since basil the link between an invoice and its payment."""
    payment, charge = (dig(_object(n), f"payment.{name}") for name in ("payment_intent", "charge"))
    origin = payment or charge
    yield Learned(
        keys=keys(("invoice", _object(n)["invoice"]), ("payment", payment), ("charge", charge), ("origin", origin))
    )


@provider.on("credit_note.created")
def credit_note(n: Notification) -> Iterator[Learned]:
    """Whose refunds these are. Its money is told by the refunds, and by later invoices that credit makes smaller."""
    note, draft = _object(n), about(_object(n))
    refunds = [note.get("refund"), *(each.get("refund") for each in note.get("refunds") or ())]
    links = keys(("invoice", note["invoice"]), *(("refund", refund) for refund in refunds))
    yield Learned(keys=links + draft["joins"], person=draft["person"])


# --- payments without an invoice --------------------------------------------------------------------------------------


def _payment(n: Notification, **properties: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The keys of a PaymentIntent or a charge, and the draft without its money."""
    o, is_charge = _object(n), n.type.startswith("charge.")
    payment = o.get("payment_intent") if is_charge else o["id"]
    charge = o["id"] if is_charge else o.get("latest_charge") or dig(o, "charges.data.0.id")
    draft = about(o, ("origin", payment or charge), order_id=ref(payment or charge), **properties)
    # with neither field the shape cannot say whether there is an invoice
    draft["waits"] = not {"invoice", "payment_details"} & o.keys() or reference(o).startswith("cs_")
    return keys(("invoice", invoice_of(o)), ("payment", payment), ("charge", charge)), draft


@provider.on("payment_intent.succeeded", option="payment_intents")
@provider.on("charge.succeeded", "charge.captured", option="charges")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    o, (sale, draft) = _object(n), _payment(n)
    learned = draft["joins"] if is_invoiced(o) else draft["joins"][1:]
    yield Learned(keys=sale + learned, person=draft["person"], metadata=draft["metadata"])
    amount = next((o[name] for name in ("amount_received", "amount_captured", "amount") if o.get(name) is not None), 0)
    if amount and o.get("captured", True) and not is_invoiced(o):
        parts = {"tax": "tax.total_tax_amount", "discount": "discount_amount", "shipping": "shipping.amount"}
        details = {part: dig(o, f"amount_details.{path}") for part, path in parts.items()}
        yield conversion("purchase", once=sale, at_ms=_said_at(n), **sold(draft, o, amount, **details))


@provider.on("payment_intent.payment_failed", option="payment_intents")
@provider.on("charge.failed", option="charges")
def payment_failed(n: Notification) -> Iterator[Draft]:
    o = _object(n)
    error = o.get("last_payment_error") or o.get("outcome") or {}
    reason = error.get("decline_code") or error.get("reason") or error.get("code") or o.get("failure_code")
    attempt = o["id"] if n.type == "charge.failed" else ref(error.get("charge")) or n.id
    _, draft = _payment(n, reason=reason, **unpaid(o.get("amount"), o.get("currency")))
    if not is_invoiced(o):
        yield event("payment_failed", once=f"payment_failed:{attempt}", at_ms=_said_at(n), **draft)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _is_ending(subscription: Json) -> bool:
    return bool(subscription.get("cancel_at_period_end") or subscription.get("cancel_at"))


#: The changes of a subscription: the event, its reason, and what is true after it and was not before.
CHANGES: tuple[tuple[str, str | None, Callable[[Json], bool]], ...] = (
    ("trial_started", None, lambda subscription: subscription.get("status") == "trialing"),
    ("subscription_cancel_scheduled", None, _is_ending),
    ("subscription_resumed", "cancellation_withdrawn", lambda subscription: not _is_ending(subscription)),
    ("subscription_paused", "collection_paused", lambda subscription: bool(subscription.get("pause_collection"))),
    ("subscription_resumed", "collection_resumed", lambda subscription: not subscription.get("pause_collection")),
)

#: What is told by a type of its own.
STATES = {
    "customer.subscription.paused": "subscription_paused",
    "customer.subscription.resumed": "subscription_resumed",
    "customer.subscription.deleted": "subscription_ended",
}


def _about_subscription(subscription: Json, **properties: Any) -> dict[str, Any]:
    joins = (("origin", subscription["id"]), ("subscription", subscription["id"]))
    details = plan(items(subscription)[0]) | properties
    return about(subscription, *joins, subscription_id=subscription["id"], **details) | {"waits": True}


def _learned(subscription: Json, was: Json) -> Iterator[Learned]:
    draft = _about_subscription(subscription)
    yield Learned(keys=draft["joins"][1:], person=draft["person"], metadata=draft["metadata"])
    is_trial = "trialing" in (subscription.get("status"), was.get("status"))
    is_new = was.get("status") is None
    if is_trial or is_new or not subscription.get("trial_start"):
        yield Learned(keys=(f"trial:{subscription['id']}",), marks=("trial",) if is_trial else ())


@provider.on("customer.subscription.created", "customer.subscription.updated")
def subscription_changed(n: Notification) -> Iterator[Draft | Learned]:
    now, before = _object(n), n.body["data"].get("previous_attributes") or {}
    was = {**now, **before} if n.type.endswith("updated") else {**now, "status": None}
    yield from _learned(now, was)
    for name, reason, is_so in CHANGES:
        if is_so(now) and not is_so(was):
            is_trial = name == "trial_started"
            at_ms = now["trial_start"] * 1000 if is_trial and now.get("trial_start") else _said_at(n)
            once = f"{name}:{now['id']}" if is_trial else f"{name}:{now['id']}:{n.body['created']}"
            reason = reason or dig(now, "cancellation_details.reason")
            yield event(name, once=once, at_ms=at_ms, **_about_subscription(now, reason=reason))
    yield from _plan_changed(n, now, was)


def _plan_changed(n: Notification, now: Json, was: Json) -> Iterator[Draft]:
    """Told here where no invoice is made for it at once; such an invoice tells it with its money."""
    left, taken = items_before(now, n.body["data"].get("previous_attributes") or {}), items(now)
    is_invoiced_now = now.get("latest_invoice") != was.get("latest_invoice") and now.get("status") != "trialing"
    is_new_period = (period(now, "start") or 0) >= (period(was, "end") or 0) > 0
    if contents(left) != contents(taken) and (is_new_period or not is_invoiced_now):
        before, after = worth(left), worth(taken)
        gain = None if before is None or after is None else after - before
        once = f"plan_changed:{now['id']}:{n.body['created']}"
        draft = _about_subscription(now, **move(left, taken, gain))
        yield event("plan_changed", once=once, at_ms=_said_at(n), **draft)


@provider.on(*STATES)
def subscription_state(n: Notification) -> Iterator[Draft | Learned]:
    subscription, name = _object(n), STATES[n.type]
    yield from _learned(subscription, subscription)
    if subscription.get("status") == "incomplete_expired":  # its first invoice was never paid: it never began
        return
    ended = name == "subscription_ended"
    at_ms = subscription["ended_at"] * 1000 if ended and subscription.get("ended_at") else _said_at(n)
    once = f"{name}:{subscription['id']}" if ended else f"{name}:{subscription['id']}:{n.body['created']}"
    yield event(name, once=once, at_ms=at_ms, **_about_subscription(subscription, **_why(subscription)))


# --- refunds and disputes ---------------------------------------------------------------------------------------------


def _about_payment_of(o: Json, charge: Any, **properties: Any) -> dict[str, Any]:
    payment = o.get("payment_intent")
    joins = (("payment", payment), ("charge", charge), ("refund", properties.get("refund_id")))
    return about(o, *joins, order_id=ref(payment or charge), **properties) | {"waits": True}


def _is_told_by_charge(n: Notification) -> bool:
    """Between these versions `refund.created` leaves out charges, and `charge.refunded` names no refunds.

    https://docs.stripe.com/changelog/acacia/2024-10-28/refund-webhook-update (read 2026-11-23)
    """
    return "2022-11-15" <= (n.body.get("api_version") or "") < "2024-10-28"
