"""What Stripe's objects say, in whatever shape their API version gives them. No provider: `stripe.py` reads with it.

Before 2025-03-31 (basil) an invoice names its payment, charge and subscription, and a payment its invoice; since then
the invoice has `parent` and `payments`, its lines have `pricing`, periods stand on subscription items, and a payment
names its invoice in `order_reference` (late 2025) or not at all. A reference is an id or, expanded, the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from relay.contract import Person
from relay.money import from_minor

Json = Mapping[str, Any]

#: Where Stripe counts other decimals than ISO 4217, and codes that ISO withdrew and Stripe still sends. That HUF and
#: TWD have none is true of payouts only. https://docs.stripe.com/currencies#special-cases (read 2026-11-23)
DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0} | dict.fromkeys(("ANG", "BGN", "HRK", "SLL", "STD"), 2)

#: What Stripe writes on the payment of an invoice: from basil until late 2025 the only sign of the invoice.
INVOICED = ("Subscription creation", "Subscription update", "Payment for Invoice")

MONTHS = {"day": Fraction(12, 365), "week": Fraction(84, 365), "month": Fraction(1), "year": Fraction(12)}

#: Where the buyer's e-mail address may stand, and the free metadata, nearest first.
EMAILS = (
    "customer_details.email",
    "customer_email",
    "receipt_email",
    "billing_details.email",
    "latest_charge.billing_details.email",
    "charges.data.0.billing_details.email",
    "customer.email",
)
METADATA = (
    "metadata",
    "parent.subscription_details.metadata",
    "subscription_details.metadata",
    "lines.data.0.metadata",
    "customer.metadata",
)
PRORATION = ("proration", "parent.subscription_item_details.proration", "parent.invoice_item_details.proration")


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path; None where a step is missing, null, or an id that was not expanded."""
    for step in path.split("."):
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def ref(value: Any) -> Any:
    return value.get("id") if isinstance(value, Mapping) else value


def keys(*ids: tuple[str, Any]) -> tuple[str, ...]:
    """`("payment", "pi_1")` is `payment:pi_1`; pairs without an id are left out."""
    return tuple(dict.fromkeys(f"{kind}:{ref(value)}" for kind, value in ids if ref(value)))


def known(**properties: Any) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value not in (None, "")}


def money(amount: int | None, currency: str | None) -> Decimal | None:
    """Major units; None for nothing, which is no money."""
    return from_minor(amount, currency, DECIMALS) if amount and currency else None


def unpaid(amount: int | None, currency: str | None) -> dict[str, Any]:
    """Money that did not move: properties, never revenue."""
    return known(amount=money(amount, currency), currency=(currency or "").upper())


# --- drafts -----------------------------------------------------------------------------------------------------------


def about(o: Json, *joins: tuple[str, Any], **properties: Any) -> dict[str, Any]:
    """What the drafts of all objects have: who it was, what is known of it, and who may know more."""
    customer = ref(o.get("customer")) or o.get("customer_account")
    return {
        "person": Person(
            email=next((email for path in EMAILS if (email := dig(o, path))), None),
            external_id=o.get("client_reference_id"),
            customer_id=customer,
        ),
        "metadata": {key: value for path in reversed(METADATA) for key, value in (dig(o, path) or {}).items()},
        "joins": keys(*joins, ("customer", customer)),
        "properties": known(**properties),
    }


def sold(draft: dict[str, Any], o: Json, amount: int, **parts: int | None) -> dict[str, Any]:
    """The draft with its money, in the currency of the payment and so of its refunds; what the buyer saw, where
    adaptive pricing showed another currency, is a property. `parts`: tax, discount, shipping. All in minor units."""
    currency, seen = o["currency"], o.get("presentment_details") or {}
    properties = known(
        discount=money(parts["discount"], currency),
        shipping=money(parts["shipping"], currency),
        presentment_amount=money(seen.get("presentment_amount"), seen.get("presentment_currency")),
        presentment_currency=(seen.get("presentment_currency") or "").upper(),
    )
    return draft | {
        "revenue": money(amount, currency),
        "currency": currency.upper(),
        "tax": money(parts["tax"], currency),
        "properties": draft["properties"] | properties,
    }


# --- plans: subscription items and invoice lines say the same ---------------------------------------------------------


def price(row: Json) -> Json:
    found = row.get("price") or row.get("plan") or dig(row, "pricing.price_details.price")
    return found if isinstance(found, Mapping) else {"id": found}


def plan(row: Json) -> dict[str, Any]:
    bought = price(row)
    return {
        "plan": bought.get("id"),
        "product": ref(bought.get("product")) or ref(dig(row, "pricing.price_details.product")),
        "billing_interval": dig(bought, "recurring.interval") or bought.get("interval"),
        "quantity": row.get("quantity"),
    }


def worth(rows: Sequence[Json]) -> Fraction | None:
    """What the items cost a month; None where that depends on use (tiers, meters)."""
    total = Fraction(0)
    for row in rows:
        bought, quantity = price(row), row.get("quantity")
        every, unit = bought.get("recurring") or bought, bought.get("unit_amount", bought.get("amount"))
        months = MONTHS.get(every.get("interval") or "", Fraction(0)) * (every.get("interval_count") or 1)
        if unit is None or not months:
            return None
        total += Fraction(unit * (1 if quantity is None else quantity)) / months
    return total


def move(left: Sequence[Json], taken: Sequence[Json], gain: Fraction | int | None) -> dict[str, Any]:
    """From one plan to another: of several, the first that does not stand on both sides."""
    gone, come = ([price(row).get("id") for row in rows] for rows in (left, taken))
    return known(
        from_plan=next((each for each in gone if each not in come), next(iter(gone), None)),
        to_plan=next((each for each in come if each not in gone), next(iter(come), None)),
        direction=("upgrade" if gain > 0 else "downgrade") if gain else None,
    )


# --- subscriptions ----------------------------------------------------------------------------------------------------


def items(subscription: Json) -> Sequence[Json]:
    alone = {"plan": subscription.get("plan"), "quantity": subscription.get("quantity")}
    return dig(subscription, "items.data") or [alone]


def contents(rows: Sequence[Json]) -> list[tuple[str, int]]:
    return sorted((price(row).get("id") or "", row.get("quantity") or 0) for row in rows)


def period(subscription: Json, edge: str) -> int | None:
    """The `start` or `end` of the current period, in Unix seconds."""
    field = f"current_period_{edge}"
    found: int | None = subscription.get(field) or dig(subscription, f"items.data.0.{field}")
    return found


# --- invoices and payments --------------------------------------------------------------------------------------------


def lines(invoice: Json, *, prorated: bool) -> list[Json]:
    every = dig(invoice, "lines.data") or []
    return [line for line in every if any(dig(line, path) for path in PRORATION) == prorated]


def subscription_of(invoice: Json) -> Any:
    return ref(invoice.get("subscription") or dig(invoice, "parent.subscription_details.subscription"))


def invoice_keys(invoice: Json) -> tuple[str, ...]:
    paid_by = [invoice, *(each.get("payment") or {} for each in dig(invoice, "payments.data") or ())]
    kinds = (("payment", "payment_intent"), ("charge", "charge"))
    return keys(("invoice", invoice["id"]), *((kind, o.get(name)) for kind, name in kinds for o in paid_by))


def invoice_tax(invoice: Json, paid: int) -> int:
    """The tax in what was paid: a share of it where credit paid a share of the invoice."""
    taxes, total = invoice.get("total_taxes") or invoice.get("total_tax_amounts"), invoice.get("total") or paid
    tax: int = sum(each["amount"] for each in taxes) if taxes else invoice.get("tax") or 0
    return tax if paid >= total else round(Fraction(tax * paid, total))


def reference(payment: Json) -> str:
    """What the payment is for: an invoice (`in_`), a Checkout session (`cs_`, at times cut off), or the site's word."""
    return dig(payment, "payment_details.order_reference") or ""


def invoice_of(payment: Json) -> str | None:
    named = reference(payment)
    return ref(payment.get("invoice")) or (named if named.startswith("in_") else None)


def is_invoiced(payment: Json) -> bool:
    return bool(invoice_of(payment)) or (payment.get("description") or "").startswith(INVOICED)
