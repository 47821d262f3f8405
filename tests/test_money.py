"""Money: to the cent, from every notation, in every currency."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st
from iso4217 import Currency

from relay.contract import UnmappableError
from relay.money import exponent, from_major, from_minor

CODES = [currency.value for currency in Currency]


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        (1999, "EUR", "19.99"),
        (1999, "eur", "19.99"),
        ("65215", "USD", "652.15"),
        (500, "JPY", "500"),
        (500, "KRW", "500"),
        (12345, "KWD", "12.345"),
        (12345, "BHD", "12.345"),
        (0, "EUR", "0.00"),
        (-1999, "EUR", "-19.99"),
        (1, "EUR", "0.01"),
        (1000, "HRK", "10.00"),  # withdrawn in 2023
        (1000, "BYR", "1000"),  # withdrawn in 2016
        (10**20, "EUR", "1000000000000000000.00"),
    ],
)
def test_minor_units_follow_the_currency(amount: int | str, currency: str, expected: str) -> None:
    found = from_minor(amount, currency)

    assert expected == str(found)


@pytest.mark.parametrize(("currency", "decimals"), [("ISK", 2), ("UGX", 2), ("CLP", 2), ("CVE", 0)])
def test_a_providers_exceptions_go_before_the_standard(currency: str, decimals: int) -> None:
    assert Decimal(10_000).scaleb(-decimals) == from_minor(10_000, currency.lower(), {currency: decimals})


@pytest.mark.parametrize("amount", [19.99, 20.0, "19.99", "", "x", None, True, [], Decimal(1)])
def test_minor_units_are_whole(amount: object) -> None:
    with pytest.raises(UnmappableError, match="is not an integer of minor units"):
        from_minor(amount, "EUR")  # type: ignore[arg-type]


@pytest.mark.parametrize("currency", ["XYZ", "", "EURO", "€"])
def test_an_unknown_currency_cannot_be_mapped(currency: str) -> None:
    with pytest.raises(UnmappableError, match="is not an ISO 4217 currency"):
        from_minor(1, currency)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("19.90", "19.90"), (19.9, "19.9"), (0.1, "0.1"), (20, "20"), ("-5", "-5"), (Decimal("1.230"), "1.230")],
)
def test_major_units_keep_the_digits_that_were_written(amount: str | float | Decimal, expected: str) -> None:
    assert expected == str(from_major(amount))


@pytest.mark.parametrize("amount", ["", "x", "1,50", None, True, [], float("nan"), float("inf"), "NaN", "Infinity"])
def test_what_is_no_finite_number_is_no_amount(amount: object) -> None:
    with pytest.raises(UnmappableError, match="is not an amount"):
        from_major(amount)  # type: ignore[arg-type]


@given(st.integers(-(10**18), 10**18), st.sampled_from(CODES))
def test_no_unit_is_lost_in_any_currency(minor: int, currency: str) -> None:
    assert minor == from_minor(minor, currency).scaleb(exponent(currency))


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_string_is_taken_as_it_is(amount: Decimal) -> None:
    assert str(amount) == str(from_major(str(amount)))


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.sampled_from(["EUR", "JPY", "KWD"]))))
def test_a_sum_of_amounts_is_the_amount_of_the_sum(amounts: list[tuple[int, str]]) -> None:
    for currency in ("EUR", "JPY", "KWD"):
        minors = [minor for minor, code in amounts if code == currency]

        assert sum(from_minor(minor, currency) for minor in minors) == from_minor(sum(minors), currency)
