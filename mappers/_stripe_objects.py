"""What Stripe's objects say, in whatever shape their API version gives them: `stripe.py` reads with it.

Before 2025-03-31 (basil) an invoice names its payment, charge and subscription, and a payment its invoice. Since then
the invoice has `parent` and `payments`, its lines have `pricing`, periods stand on subscription items, and a payment
names its invoice in `order_reference` (late 2025) or not at all.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from mappers._stripe_values import Json, Path, dig, keys, known, money, move, plan_of, ref, rows, unpaid
from relay.contract import Person, Variant

#: What Stripe writes on the payment of an invoice: from basil until late 2025 the only sign of the invoice.
INVOICED = ("Subscription creation", "Subscription update", "Payment for Invoice")

#: Where the buyer's e-mail address may stand, nearest first: a field, which most objects lack, and the rest of the way.
EMAILS: tuple[tuple[str, Path], ...] = (
    ("customer_details", ("email",)),
    ("customer_email", ()),
    ("receipt_email", ()),
    ("billing_details", ("email",)),
    ("latest_charge", ("billing_details", "email")),
    ("last_payment_error", ("payment_method", "billing_details", "email")),
    ("charges", ("data", 0, "billing_details", "email")),
    ("customer", ("email",)),
)
#: Where the free metadata may stand, nearest last: it has the last word.
METADATA: tuple[tuple[str, Path], ...] = (
    ("customer", ("metadata",)),
    ("lines", ("data", 0, "metadata")),
    ("subscription_details", ("metadata",)),
    ("parent", ("subscription_details", "metadata")),
    ("metadata", ()),
)


# --- drafts -----------------------------------------------------------------------------------------------------------


def about(o: Json, properties: Json, joins: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the drafts of all objects have: who it was, what is known of it, and who may know more."""
    customer = ref(o.get("customer")) or o.get("customer_account")
    return {
        "person": Person(email=email_of(o), external_id=o.get("client_reference_id"), customer_id=customer),
        "metadata": metadata_of(o),
        "joins": (*joins, f"customer:{customer}") if customer else joins,
        "properties": known(properties),
    }


def email_of(o: Json) -> Any:
    for field, rest in EMAILS:
        if (found := o.get(field)) and (email := dig(found, rest)):
            return email
    return None


def metadata_of(o: Json) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for field, rest in METADATA:
        if isinstance(found := o.get(field), dict) and (nearer := dig(found, rest)):
            metadata |= nearer
    return metadata


def _sold(
    draft: dict[str, Any], o: Json, amount: int, *, tax: int | None, discount: int | None, shipping: int | None
) -> dict[str, Any]:
    """The draft with its money, in the currency of the payment and so of its refunds. All in minor units.

    What the buyer saw, where adaptive pricing showed another currency, is a property.
    """
    currency, shown, properties = o["currency"], o.get("presentment_details"), draft["properties"]
    if discount:
        properties["discount"] = money(discount, currency)
    if shipping:
        properties["shipping"] = money(shipping, currency)
    if shown:
        seen = unpaid(shown.get("presentment_amount"), shown.get("presentment_currency"))
        properties |= {f"presentment_{name}": value for name, value in seen.items()}
    draft["revenue"], draft["tax"], draft["currency"] = money(amount, currency), money(tax, currency), currency.upper()
    return draft


# --- Checkout sessions ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)  # a shop has few of them
def origin_of(page: str) -> str | None:
    """The origin alone: path and query of a success page hold ids and placeholders. None for a page of Stripe's."""
    parts = urlsplit(page)
    is_ours = parts.hostname and not f".{parts.hostname}".endswith(".stripe.com")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if is_ours else None


def coupon_of(session: Json) -> Any:
    if not session.get("discounts"):
        return None
    return ref(dig(session, ("discounts", 0, "coupon")) or dig(session, ("discounts", 0, "promotion_code")))


def about_session(session: Json) -> dict[str, Any]:
    page = session.get("success_url") or session.get("return_url")
    draft = about(
        session,
        {
            "order_id": ref(session.get("invoice") or session.get("payment_intent") or session["id"]),
            "payment_link": ref(session.get("payment_link")),
            "country": dig(session, ("customer_details", "address", "country")),
            "coupon": coupon_of(session),
        },
    )
    draft["url"] = origin_of(page) if page else None
    return draft


def sold_by_session(draft: dict[str, Any], session: Json, amount: int) -> dict[str, Any]:
    tax, discount, shipping = (
        dig(session, ("total_details", f"amount_{name}")) for name in ("tax", "discount", "shipping")
    )
    return _sold(draft, session, amount, tax=tax, discount=discount, shipping=shipping)


# --- invoices ---------------------------------------------------------------------------------------------------------


def is_prorated(line: Json) -> bool:
    """Before basil the line says so itself, since then what it comes from."""
    return bool(
        line.get("proration")
        or dig(line, ("parent", "subscription_item_details", "proration"))
        or dig(line, ("parent", "invoice_item_details", "proration"))
    )


def _started(line: Json) -> Any:
    return dig(line, ("period", "start")) or 0


def bought_by(invoice: Json) -> Json:
    """The line that says what was bought: the first of the latest period, else the last proration.

    What is billed by use belongs to the period before.
    """
    lines = rows(invoice.get("lines"))
    bought = [line for line in lines if not is_prorated(line)]
    return max(bought, key=_started) if bought else lines[-1] if lines else {}


def subscription_of(invoice: Json) -> Any:
    return ref(invoice.get("subscription") or dig(invoice, ("parent", "subscription_details", "subscription")))


def about_invoice(invoice: Json, subscription: Any) -> dict[str, Any]:
    bought = plan_of(bought_by(invoice))
    if not subscription:
        bought["plan"] = None
    return about(
        invoice,
        {
            "order_id": invoice["id"],
            "payment_id": ref(invoice.get("payment_intent") or invoice.get("charge")),
            "subscription_id": subscription,
            "billing_reason": invoice.get("billing_reason"),
            "country": dig(invoice, ("customer_address", "country")),
            **bought,
        },
        (f"origin:{subscription}", f"subscription:{subscription}") if subscription else (f"origin:{invoice['id']}",),
    )


def invoice_keys(invoice: Json) -> tuple[str, ...]:
    payments, charges = [("payment", invoice.get("payment_intent"))], [("charge", invoice.get("charge"))]
    for each in rows(invoice.get("payments")):
        payment = each.get("payment") or {}
        payments.append(("payment", payment.get("payment_intent")))
        charges.append(("charge", payment.get("charge")))
    return keys(("invoice", invoice["id"]), *payments, *charges)


def may_have_session(invoice: Json, subscription: Any) -> bool:
    """Whether it may be the invoice of a Checkout session that sold something once."""
    is_sent = invoice.get("collection_method") == "send_invoice"
    return not subscription and invoice.get("billing_reason") == "manual" and not is_sent


def after_trial(draft: dict[str, Any], invoice: Json, subscription: str) -> dict[str, Any]:
    """It waits for its session and for the word whether a trial ended where its period begins: then it converts it.

    A proration begins where no period does: for that, the word that it had a trial is enough.
    """
    bought, trial = bought_by(invoice), f"trial:{subscription}"
    began = f"{trial}:{_started(bought)}"
    words = (trial, began) if is_prorated(bought) or not _started(bought) else (began, trial)
    return {
        "joins": (*words, *draft["joins"]),
        "waits_for": draft["joins"][:1],
        "variants": {"trial": Variant(name="trial_converted", once=f"trial_converted:{subscription}")},
    }


def payments_of(invoice: Json, sale: tuple[str, ...], *, has_session: bool, at_ms: int) -> tuple[str, ...]:
    """The payments that the invoice tells: those that it names, else those that are like it."""
    named = keys(*(("origin", key.partition(":")[2]) for key in sale if not key.startswith("invoice:")))
    if not has_session:
        return named
    return () if named else alike(invoice, paid_of(invoice), *(at_ms + hours * _HOUR_MS for hours in (-1, 0, 1)))


_HOUR_MS = 3_600_000


def alike(o: Json, amount: int, *times_ms: int) -> tuple[str, ...]:
    """Where an invoice and the payment of a session meet, which since basil do not name each other."""
    customer = ref(o.get("customer"))
    if not customer or not amount:
        return ()
    return tuple([f"alike:{customer}:{amount}:{o['currency']}:{at_ms // _HOUR_MS}" for at_ms in times_ms])


def paid_of(invoice: Json) -> Any:
    """What came in for it."""
    return invoice.get("amount_paid", invoice.get("amount_due"))


def _invoice_tax(invoice: Json, paid: int) -> int:
    """The tax in what was paid: a share of it where credit paid a share of the invoice."""
    taxes, total = invoice.get("total_taxes") or invoice.get("total_tax_amounts"), invoice.get("total") or paid
    tax: int = sum([each["amount"] for each in taxes]) if taxes else invoice.get("tax") or 0
    return tax if paid >= total else round(Fraction(tax * paid, total))


def sold_by_invoice(draft: dict[str, Any], invoice: Json, paid: int) -> dict[str, Any]:
    coupon, is_outside = ref(dig(invoice, ("discount", "coupon"))), invoice.get("paid_out_of_band") or None
    draft["properties"] |= known({"coupon": coupon, "paid_out_of_band": is_outside})
    discount = sum([each["amount"] for each in invoice.get("total_discount_amounts") or ()])
    shipping, tax = invoice.get("amount_shipping"), _invoice_tax(invoice, paid)
    return _sold(draft, invoice, paid, tax=tax, discount=discount, shipping=shipping)


def invoice_move(invoice: Json) -> dict[str, Any]:
    """Prorated lines give back for the plan that was left and take for the new one."""
    lines = [line for line in rows(invoice.get("lines")) if is_prorated(line)]
    left, taken = ([line for line in lines if line["amount"] * sign > 0] for sign in (-1, 1))
    return move(left, taken, sum(line["amount"] for line in lines))


# --- payments, charges, and what is done to them later ----------------------------------------------------------------


def reference(payment: Json) -> str:
    """What the payment is for: an invoice (`in_`), a Checkout session (`cs_`, at times cut off), or the site's word."""
    return dig(payment, ("payment_details", "order_reference")) or ""


def invoice_of(payment: Json) -> Any:
    named = reference(payment)
    return ref(payment.get("invoice")) or (named if named.startswith("in_") else None)


def is_invoiced(payment: Json, invoice: Any) -> bool:
    """Whether an invoice tells the payment: the one that it names, or one that its description speaks of."""
    return bool(invoice) or (payment.get("description") or "").startswith(INVOICED)


#: The mark of a payment that an invoice tells.
OF_INVOICE = "of_invoice"


def came_in(o: Json) -> Any:
    """What was paid: where that is zero, it is zero whatever was asked for."""
    for name in ("amount_received", "amount_captured", "amount"):
        if o.get(name) is not None:
            return o[name]
    return 0


def payment_keys(o: Json, invoice: Any, *, is_charge: bool) -> tuple[str, ...]:
    """The keys of a PaymentIntent or a charge."""
    payment, charge = (o.get("payment_intent"), o["id"]) if is_charge else (o["id"], o.get("latest_charge"))
    charge = charge or dig(o, ("charges", "data", 0, "id"))
    return keys(("invoice", invoice), ("payment", payment), ("charge", charge))


#: Methods whose payment fails days after the checkout, once, and is told by the session too.
DELAYED = frozenset(
    ("acss_debit", "au_becs_debit", "bacs_debit", "boleto", "customer_balance", "konbini", "multibanco",
     "nz_bank_account", "oxxo", "sepa_debit", "sofort", "us_bank_account")
)  # fmt: skip


def delayed(o: Json) -> str | None:
    """The payment that failed, where its checkout was complete: PaymentIntent, charge and session say it together."""
    error = dig(o, ("last_payment_error", "payment_method", "type"))
    is_late = {error, dig(o, ("payment_method_details", "type"))} & DELAYED or o.get("status") == "complete"
    return f"{ref(o.get('payment_intent')) or o['id']}:delayed" if is_late else None


def about_payment(o: Json, *, is_charge: bool) -> dict[str, Any]:
    payment = ref(o.get("payment_intent")) or o["id"] if is_charge else o["id"]
    draft = about(o, {"order_id": payment}, (f"origin:{payment}",))
    draft["unless"] = (OF_INVOICE,)
    # without this field no shape says whether a session tells it too, and better
    draft["waits"] = "payment_details" not in o or reference(o).startswith("cs_")
    person = draft["person"]
    if not draft["waits"] and person.customer_id and not person.email:
        draft["waits"], draft["joins"] = True, draft["joins"][::-1]  # for who the customer is
    return draft


def taught_by(draft: dict[str, Any], *, is_told: bool) -> tuple[str, ...]:
    """What a payment says more of than itself: not where it came from, while a session may know that better."""
    is_all = is_told or not draft["waits"]
    return tuple(join for join in draft["joins"] if is_all or not join.startswith("origin:"))


def sold_by_payment(draft: dict[str, Any], o: Json, amount: int, *, at_ms: int) -> dict[str, Any]:
    if o.get("payment_intent") or reference(o).startswith("cs_"):  # it may be of a session that makes an invoice
        draft["joins"] += alike(o, amount, at_ms)
    details = o.get("amount_details")
    tax, shipping = dig(details, ("tax", "total_tax_amount")), dig(details, ("shipping", "amount"))
    return _sold(draft, o, amount, tax=tax, discount=dig(details, ("discount_amount",)), shipping=shipping)


def why_failed(o: Json) -> Any:
    error = o.get("last_payment_error") or o.get("outcome") or {}
    return error.get("decline_code") or error.get("reason") or error.get("code") or o.get("failure_code")


def refunds_of(charge: Json) -> list[Json]:
    """The refunds that it lists (until 2022), with whose they are. Until 2014 they had no ids to tell them by."""
    payer = {name: charge.get(name) for name in ("customer", "payment_intent", "billing_details", "receipt_email")}
    listed = rows(charge.get("refunds"))
    return [{**payer, "charge": charge["id"], **refund} for refund in listed if refund.get("id")]


def about_paid(o: Json, charge: Any, properties: Json) -> dict[str, Any]:
    """What refunds and disputes have: all that they know is whose payment it was."""
    payment = o.get("payment_intent")
    paid = keys(("payment", payment), ("charge", charge))
    joins = keys(("origin", payment or charge)) + paid + keys(("refund", properties.get("refund_id")))
    draft = about(o, {"order_id": ref(payment or charge), **properties}, joins)
    draft["waits"], draft["waits_for"] = True, paid[:1]
    return draft


# --- subscriptions ----------------------------------------------------------------------------------------------------


def named(subscription: Json) -> str:
    """Its id. Until 2013 it had none, and its customer no other."""
    return str(subscription.get("id") or ref(subscription["customer"]))


def about_subscription(subscription: Json) -> dict[str, Any]:
    itself = named(subscription)
    draft = about(subscription, {"subscription_id": itself}, (f"origin:{itself}", f"subscription:{itself}"))
    draft["waits"] = True
    return draft
