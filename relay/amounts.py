"""Amounts: what a draft says of money, as an event tells it.

In: a draft, and how its source counts refunds and tax. Out: revenue, for conversions; properties for all else. Exact:
decimals stay what they are. Pure; raises `UnmappableError` for what is no amount, or of no currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from relay.contract import HOME, Draft, EventType, Scalar, UnmappableError
from relay.money import exponent, from_major

_REFUNDS = {"refund": Decimal(-1), "refund_reversed": Decimal(1)}


@dataclass(slots=True, unsafe_hash=True)
class Amounts:
    """What moved."""

    event_type: EventType
    revenue: Decimal | None
    currency: str | None
    #: What is told of it beside revenue: tax, and the amount of an event that is no conversion.
    properties: Mapping[str, Scalar]


def amounts_of(
    draft: Draft,
    *,
    refunds: Literal["event", "conversion"] = "event",
    revenue: Literal["gross", "net"] = "gross",
    home: str | None = None,
) -> Amounts:
    """What moved. Nothing, for zero: a free order is an order, but no revenue. `home` is the source's own currency."""
    if draft.revenue is None or draft.event_type == "identify":
        return Amounts(draft.event_type, None, None, {})
    amount = _decimal(draft.revenue, "revenue")
    tax = None if draft.tax is None else _decimal(draft.tax, "tax").copy_sign(amount)
    if revenue == "net" and tax is not None:
        amount -= tax
    if not amount:
        return Amounts(draft.event_type, None, None, {})
    currency = _currency(draft.currency, home)
    if currency is None:
        return Amounts(draft.event_type, None, None, {"amount_in_home_currency": abs(amount)})
    told: dict[str, Scalar] = {} if tax is None else {"tax": tax}
    if draft.name in _REFUNDS and refunds == "conversion":
        sign = _REFUNDS[draft.name]
        told = {} if tax is None else {"tax": tax.copy_sign(sign)}
        return Amounts("conversion", amount.copy_sign(sign), currency, told)
    if draft.event_type == "conversion" and draft.name not in _REFUNDS:
        return Amounts("conversion", amount, currency, told)
    told = {"amount": abs(amount), "currency": currency}
    if tax is not None:
        told["tax"] = abs(tax)
    return Amounts("event", None, None, told)


def _currency(told: str | None, home: str | None) -> str | None:
    """In capitals; None where it is the account's own, and nobody says which that is."""
    if told and told != HOME:
        currency = told.strip().upper()
        exponent(currency)  # raises for a currency that there is not
        return currency
    if not told and home is None:
        msg = "revenue needs a currency: the provider tells none, and the source has none of its own (`currency`)"
        raise UnmappableError(msg)
    return home


def _decimal(value: Any, name: str) -> Decimal:
    if isinstance(value, Decimal) and value.is_finite():
        return value
    try:
        return from_major(value)
    except UnmappableError:
        msg = f"{name} is not a finite decimal number"
        raise UnmappableError(msg) from None
