"""Money: from a provider's own notation to an exact `Decimal` in major units.

Every amount passes one of two doors: `from_minor` (integers of the smallest unit) or `from_major` (decimal strings and
JSON numbers). Exponents are those of ISO 4217; a provider's own exceptions are data that its module passes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from iso4217 import Currency

from relay.contract import UnmappableError

#: Currencies that were withdrawn while webhooks told of them, with their decimals: old sales are told again.
WITHDRAWN: Mapping[str, int] = {
    "ANG": 2, "BGN": 2, "BYR": 0, "CUC": 2, "EEK": 2, "HRK": 2, "LTL": 2, "LVL": 2, "MRO": 2, "SKK": 2, "SLL": 2,
    "STD": 2, "VEF": 2, "ZMK": 2, "ZWL": 2,
}  # fmt: skip
#: Every code that an event may carry.
CURRENCIES: tuple[str, ...] = tuple(sorted({*WITHDRAWN, *(code.value for code in Currency)}))
_NO_EXCEPTIONS: Mapping[str, int] = {}


@cache
def exponent(currency: str) -> int:
    """The number of decimals of an ISO 4217 currency (any case). Raises `UnmappableError` for an unknown code."""
    code = currency.upper()
    if code in WITHDRAWN:
        return WITHDRAWN[code]
    try:
        found = Currency(code).exponent
    except ValueError:
        msg = f"{currency!r} is not an ISO 4217 currency"
        raise UnmappableError(msg) from None
    return 0 if found is None else int(found)


def from_minor(amount: int | str, currency: str, exceptions: Mapping[str, int] = _NO_EXCEPTIONS) -> Decimal:
    """`from_minor(1999, "eur")` is `Decimal("19.99")`; `from_minor(500, "JPY")` is `Decimal("500")`.

    `exceptions` maps upper-case codes to the provider's own number of decimals. Raises `UnmappableError` for anything
    but an integer (or its decimal notation) and for an unknown currency.
    """
    minor = amount if type(amount) is int else _whole(amount)
    decimals = exceptions.get(currency.upper())
    return Decimal(minor).scaleb(-(exponent(currency) if decimals is None else decimals))


def _whole(amount: Any) -> int:
    msg = f"{amount!r} is not an integer of minor units"
    if isinstance(amount, bool) or not isinstance(amount, (int, str)):
        raise UnmappableError(msg)
    try:
        return int(amount)
    except ValueError:
        raise UnmappableError(msg) from None


def from_major(amount: str | float | Decimal) -> Decimal:
    """`from_major("19.90")` is `Decimal("19.90")`. A JSON number keeps the digits that it was written with.

    Raises `UnmappableError` for anything that is no finite decimal number.
    """
    if isinstance(amount, bool) or not isinstance(amount, (str, int, float, Decimal)):
        msg = f"{amount!r} is not an amount"
        raise UnmappableError(msg)
    try:
        value = Decimal(repr(amount) if isinstance(amount, float) else amount)
    except InvalidOperation:
        msg = f"{amount!r} is not an amount"
        raise UnmappableError(msg) from None
    if not value.is_finite():
        msg = f"{amount!r} is not an amount"
        raise UnmappableError(msg)
    return value
