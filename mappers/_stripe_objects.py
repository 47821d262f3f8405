"""What Stripe's objects say, in whatever shape their API version gives them: `stripe.py` reads with it.

Before 2025-03-31 (basil) an invoice names its payment, charge and subscription, and a payment its invoice. Since then
the invoice has `parent` and `payments`, its lines have `pricing`, periods stand on subscription items, and a payment
names its invoice in `order_reference` (late 2025) or not at all. A reference is an id or, expanded, the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from relay.contract import Person
from relay.money import from_minor

Json = Mapping[str, Any]
#: The steps to a value: fields and, in lists, positions.
Path = tuple[Any, ...]

#: Where Stripe counts other decimals than ISO 4217. That HUF and TWD have none is true of payouts only.
#: https://docs.stripe.com/currencies#special-cases (read 2026-11-23)
DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0}

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


def dig(value: Any, path: Path) -> Any:
    """The value at the end of a path; None where a step is missing, null, or an id that was not expanded."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            value = value[step] if step < len(value) else None
        else:
            return None
    return value


def ref(value: Any) -> Any:
    return value.get("id") if isinstance(value, dict) else value


def keys(*ids: tuple[str, Any]) -> tuple[str, ...]:
    """`("payment", "pi_1")` is `payment:pi_1`; what has no id is left out."""
    made: dict[str, None] = {}
    for kind, value in ids:
        if value and (name := ref(value)):
            made[f"{kind}:{name}"] = None
    return tuple(made)


def known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None and value != ""}


def money(amount: int | None, currency: str | None) -> Decimal | None:
    """Major units; None for nothing, which is no money."""
    return from_minor(amount, currency, DECIMALS) if amount and currency else None


def unpaid(amount: int | None, currency: str | None) -> dict[str, Any]:
    """Money that did not move: properties, never revenue."""
    return known({"amount": money(amount, currency), "currency": (currency or "").upper()})


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


def sold(
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


# --- plans: subscription items and invoice lines say the same ---------------------------------------------------------


def price_of(row: Json) -> Json:
    found = row.get("price") or row.get("plan") or dig(row, ("pricing", "price_details", "price"))
    return found if isinstance(found, dict) else {"id": found}


def plan_of(row: Json) -> dict[str, Any]:
    price = price_of(row)
    return {
        "plan": price.get("id"),
        "product": ref(price.get("product") or dig(row, ("pricing", "price_details", "product"))),
        "billing_interval": dig(price, ("recurring", "interval")) or price.get("interval"),
        "quantity": row.get("quantity"),
    }


def gain(left: Sequence[Json], taken: Sequence[Json]) -> int | None:
    """What the second costs more a period, as an invoice would bill it; None where that depends on use."""
    costs = [
        [(price_of(row).get("unit_amount", price_of(row).get("amount")), row.get("quantity")) for row in rows]
        for rows in (left, taken)
    ]
    if any(unit is None for rows in costs for unit, _ in rows):
        return None
    before, after = (sum(unit * (1 if quantity is None else quantity) for unit, quantity in rows) for rows in costs)
    return int(after - before)


def move(left: Sequence[Json], taken: Sequence[Json], more: int | None) -> dict[str, Any]:
    """From one plan to another: of several, the first that does not stand on both sides."""
    gone, come = ([price_of(row).get("id") for row in rows] for rows in (left, taken))
    return known(
        {
            "from_plan": next((plan for plan in gone if plan not in come), next(iter(gone), None)),
            "to_plan": next((plan for plan in come if plan not in gone), next(iter(come), None)),
            "direction": ("upgrade" if more > 0 else "downgrade") if more else None,
        }
    )


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


# --- invoices ---------------------------------------------------------------------------------------------------------


def lines_of(invoice: Json) -> Sequence[Json]:
    return dig(invoice, ("lines", "data")) or ()


def is_prorated(line: Json) -> bool:
    """Before basil the line says so itself, since then what it comes from."""
    return bool(
        line.get("proration")
        or dig(line, ("parent", "subscription_item_details", "proration"))
        or dig(line, ("parent", "invoice_item_details", "proration"))
    )


def bought_by(invoice: Json) -> Json:
    """The line that says what was bought: the first that is no proration, else the last that is one."""
    line: Json = {}
    for line in lines_of(invoice):
        if not is_prorated(line):
            break
    return line


def began(invoice: Json) -> Any:
    """When the period began that is paid."""
    return dig(bought_by(invoice), ("period", "start"))


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
    for each in dig(invoice, ("payments", "data")) or ():
        payment = each.get("payment") or {}
        payments.append(("payment", payment.get("payment_intent")))
        charges.append(("charge", payment.get("charge")))
    return keys(("invoice", invoice["id"]), *payments, *charges)


def invoice_tax(invoice: Json, paid: int) -> int:
    """The tax in what was paid: a share of it where credit paid a share of the invoice."""
    taxes, total = invoice.get("total_taxes") or invoice.get("total_tax_amounts"), invoice.get("total") or paid
    tax: int = sum([each["amount"] for each in taxes]) if taxes else invoice.get("tax") or 0
    return tax if paid >= total else round(Fraction(tax * paid, total))


def invoice_move(invoice: Json) -> dict[str, Any]:
    """Prorated lines give back for the plan that was left and take for the new one."""
    lines = [line for line in lines_of(invoice) if is_prorated(line)]
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
    return draft


def about_paid(o: Json, charge: Any, properties: Json) -> dict[str, Any]:
    """What refunds and disputes have: all that they know is whose payment it was."""
    payment = o.get("payment_intent")
    joins = keys(("payment", payment), ("charge", charge), ("refund", properties.get("refund_id")))
    draft = about(o, {"order_id": ref(payment or charge), **properties}, joins)
    draft["waits"] = True
    return draft


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _alone(subscription: Json) -> Json:
    return {"plan": subscription.get("plan"), "quantity": subscription.get("quantity")}


def items_of(subscription: Json) -> Sequence[Json]:
    return dig(subscription, ("items", "data")) or [_alone(subscription)]


def items_before(was: Json, before: Json) -> Sequence[Json]:
    """The items before the change. Each renewal lists them since basil, because their periods changed."""
    if before.get("items") or not {"plan", "quantity"} & before.keys():
        return items_of(was)
    return [_alone(was)]


def contents(items: Sequence[Json]) -> list[tuple[str, int]]:
    return sorted([(price_of(item).get("id") or "", item.get("quantity") or 0) for item in items])


def is_ending(subscription: Json) -> bool:
    return bool(subscription.get("cancel_at_period_end") or subscription.get("cancel_at"))


def is_billed_at_once(now: Json, was: Json) -> bool:
    """Whether an invoice of its own was made for the change, which then tells it with its money."""
    start, end = (
        o.get(f"current_period_{edge}") or dig(o, ("items", "data", 0, f"current_period_{edge}")) or 0
        for o, edge in ((now, "start"), (was, "end"))
    )
    is_renewed = start >= end > 0
    is_made = now.get("latest_invoice") != was.get("latest_invoice")
    return is_made and not is_renewed and now.get("status") != "trialing"


def about_subscription(subscription: Json) -> dict[str, Any]:
    itself = subscription["id"]
    draft = about(subscription, {"subscription_id": itself}, (f"origin:{itself}", f"subscription:{itself}"))
    draft["waits"] = True
    return draft
