"""The guard: no personal data in any outgoing field, and no id, date or amount taken for any."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable
from datetime import UTC
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings, strategies as st

from relay.event import Event
from relay.guard import REDACTED, Finding, clean_url, inspect
from relay.personal import _BBAN, Kind, kind_of

NOON = 1_795_000_000_000


def event(**values: Any) -> Event:
    return Event(**{"event_type": "conversion", "event_name": "purchase", "timestamp": NOON, **values})


def inspected(key: str, value: object) -> tuple[object, tuple[Finding, ...]]:
    """A property after the guard, None where it is gone; and what was found."""
    found, findings = inspect(event(properties={"plan": "pro", key: value}))
    assert found.properties["plan"] == "pro"
    return found.properties.get(key), findings


# --- what is found ----------------------------------------------------------------------------------------------------

EMAILS = [
    "jane@example.com",
    "Jane.Doe+shop@mail.example.co.uk",
    "jané@exämple.de",
    "jane@xn--exmple-cua.xn--p1ai",
    "jane%40example.com",
    "jane%2540example.com",
    "jane&#64;example.com",
    "jane\uff20example.com",
    "mailto:jane@example.com?subject=x",
    '"jane doe"@example.com',
]
PHONES = [
    "+4915112345678",
    "+49 151 12345678",
    "+49 (0)151 2345-678",
    "+1 (555) 123-4567",
    "%2B49+151+1234567",
    "(555) 123-4567",
    "555-123-4567",
    "555.123.4567",
    "555 123 4567",
    "1-800-555-1234",
    "0151 23456789",
    "030/1234567",
    "(030) 1234567",
    "06 12 34 56 78",
    "020 7946 0958",
    "0049 151 1234567",
    "(11) 91234-5678",
    "tel:5551234567",
    "+\u0664\u0669\u0661\u0665\u0661\u0661\u0662\u0663\u0664\u0665",
    "\uff15\uff15\uff15\u2013\uff11\uff12\uff13\u2013\uff14\uff15\uff16\uff17",
    "+49\u200b151\u00a012345678",
]
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111+1111+1111+1111",
    "4222 2222 2222 2",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "3782 822463 10005",
    "30569309025904",
    "6011111111111117",
    "3530111333300000",
    "6200000000000005",
    "6304000000000000",
    "on 12 May 4111 1111 1111 1111 exp 12 28",
]
IBANS = [
    "DE89370400440532013000",
    "DE89 3704 0044 0532 0130 00",
    "de89 3704 0044 0532 0130 00",
    "GB82 WEST 1234 5698 7654 32",
    "NO9386011117947",
    "FR1420041010050500013M02606",
    "MT84MALT011000012345MTLCAST001S",
    "IBAN:NL91ABNA0417164300",
]
IPS = [
    "203.0.113.7",
    "10.0.0.1",
    "ip=203.0.113.7,",
    "203.0.113.7:443",
    "2001:db8::1",
    "[2001:db8::1]:443",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "::ffff:203.0.113.7",
    "fe80::1",
    "ip:2001:db8:0:0:0:0:0:1",
    "2001:db8::1: refused",
]
PERSONAL = [
    *[(text, Kind.EMAIL) for text in EMAILS],
    *[(text, Kind.PHONE) for text in PHONES],
    *[(text, Kind.CARD) for text in CARDS],
    *[(text, Kind.IBAN) for text in IBANS],
    *[(text, Kind.IP) for text in IPS],
]


@pytest.mark.parametrize("text, kind", PERSONAL)
def test_personal_data_in_a_property_is_redacted(text: str, kind: Kind) -> None:
    assert (REDACTED, (Finding("properties.note", kind),)) == inspected("note", text)


@pytest.mark.parametrize("text, kind", PERSONAL)
def test_it_is_found_within_a_longer_text(text: str, kind: Kind) -> None:
    assert kind == kind_of(f"Paid by {text} at the desk")


@pytest.mark.parametrize("text, kind", PERSONAL)
def test_a_parameter_of_a_url_with_personal_data_goes(text: str, kind: Kind) -> None:
    url = f"https://shop.example.com/thanks?a=1&x={quote(text, safe='+%')}&b=2#top"

    assert ("https://shop.example.com/thanks?a=1&b=2#top", (kind,)) == clean_url(url)


@pytest.mark.parametrize("text, kind", PERSONAL)
def test_a_fragment_with_personal_data_goes(text: str, kind: Kind) -> None:
    assert ("https://shop.example.com/a", (kind,)) == clean_url("https://shop.example.com/a#" + quote(text, safe="+%"))


@pytest.mark.parametrize("text, kind", PERSONAL)
def test_a_key_that_holds_personal_data_goes_and_is_not_named(text: str, kind: Kind) -> None:
    assert (None, (Finding("properties", kind),)) == inspected(text, "x")


@pytest.mark.parametrize(
    "number", [4111111111111111, 378282246310005, 4111111111111111.0, Decimal("5555555555554444.00")]
)
def test_a_card_number_that_is_a_number_is_redacted(number: object) -> None:
    assert (REDACTED, (Finding("properties.note", Kind.CARD),)) == inspected("note", number)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["name", "first_name", "lastName", "Customer-Email", "email", "phone", "billing_phone", "address",
     "shippingAddress", "billing_address.line1", "customer[email]", "postal_code", "zip", "ip", "IPAddress",
     "date_of_birth", "iban"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["x", 1, True])
def test_a_key_that_names_personal_data_goes(key: str, value: object) -> None:
    assert (None, (Finding(f"properties.{key}", Kind.KEY),)) == inspected(key, value)


@pytest.mark.parametrize(
    "key",
    ["product_name", "coupon_name", "plan_name", "utm_campaign", "order_id", "customer_id", "country", "email_count",
     "email_verified", "phone_model", "ip_version", "address_type", "shipping", "tax", "zipped", "namespace"],
)  # fmt: skip
def test_a_key_that_only_resembles_one_stays(key: str) -> None:
    assert ("x", ()) == inspected(key, "x")


@pytest.mark.parametrize("value", ["4915112345678", "0151 2345 678", "15112345678", 15112345678])
def test_bare_digits_are_a_phone_number_under_a_key_that_names_one(value: object) -> None:
    assert (REDACTED, (Finding("properties.whatsapp_of_agent", Kind.PHONE),)) == inspected("whatsapp_of_agent", value)
    assert (value, ()) == inspected("order_ref", value) or "0151" in str(value)


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, expected",
    [
        ("https://jane:secret@shop.example.com/a", "https://shop.example.com/a"),
        ("https://jane@shop.example.com/a?b=1", "https://shop.example.com/a?b=1"),
        ("https://shop.example.com/users/jane@example.com/orders", "https://shop.example.com/users/redacted/orders"),
        ("https://shop.example.com/?email=x&utm_source=a", "https://shop.example.com/?utm_source=a"),
        ("https://shop.example.com/?user[name]=jane&a=1", "https://shop.example.com/?a=1"),
        ("https://shop.example.com/?jane@example.com=1&a=1", "https://shop.example.com/?a=1"),
        ("https://shop.example.com/?next=https%3A%2F%2Fx.example%2F%3Fname%3DJane", "https://shop.example.com/"),
        ("https://shop.example.com/#/reset?email=jane", "https://shop.example.com/"),
        ("https://shop.example.com/?mobile_app_phone=4915112345678", "https://shop.example.com/"),
        ("https://203.0.113.7/a", None),
        ("https://[2001:db8::1]/a", None),
        ("https://jane@[2001:db8/a", None),
        ("https://shop.example.com/call/+49/151/2345678/now", "https://shop.example.com/redacted"),
    ],
)
def test_what_offends_in_a_url_goes_and_the_rest_stays(url: str, expected: str | None) -> None:
    cleaned, kinds = clean_url(url)

    assert expected == cleaned
    assert kinds


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com",
        "https://shop.example.com:8443/a/b?utm_source=news&gclid=Cj0KCQjw-abc_DEF.12#top",
        "https://shop.example.com/2026/11/20/logo@2x.png?v=1.2.3&at=2026-11-20T10%3A00%3A00Z",
        "https://shop.example.com/thanks?order=5123456789012&session=cs_test_a1B2c3D4&q=a+b%20c",
        "https://example.com/@maker/post?id=550e8400-e29b-41d4-a716-446655440000",
        "https://example.com/?name_of_plan=pro&product_name=a%26b",
    ],
)
def test_a_url_without_personal_data_is_not_touched(url: str) -> None:
    assert (url, ()) == clean_url(url)


def test_a_property_that_is_a_url_is_cleaned_as_one() -> None:
    kept, findings = inspected("landing_page", "https://shop.example.com/?name=Jane&utm_source=a")

    assert kept == "https://shop.example.com/?utm_source=a"
    assert findings == (Finding("properties.landing_page", Kind.KEY),)


def test_an_offending_url_of_an_event_is_cleaned() -> None:
    found, findings = inspect(event(url="https://shop.example.com/?email=jane%40example.com"))

    assert found.url == "https://shop.example.com/"
    assert findings == (Finding("url", Kind.KEY),)


# --- the other fields -------------------------------------------------------------------------------------------------


def test_a_user_id_that_is_personal_data_is_hashed() -> None:
    found, findings = inspect(event(user_id="Jane@example.com"))

    assert found.user_id == hashlib.sha256(b"jane@example.com").hexdigest()
    assert findings == (Finding("user_id", Kind.EMAIL),)


def test_a_name_that_is_personal_data_is_replaced() -> None:
    found, findings = inspect(event(event_name="paid_with_4111111111111111"))

    assert found.event_name == "redacted"
    assert findings == (Finding("event_name", Kind.CARD),)


def test_rejecting_changes_nothing_and_tells_the_same() -> None:
    bad = event(user_id="jane@example.com", properties={"email": "x", "note": "10.0.0.1"})

    kept, findings = inspect(bad, "reject")

    assert kept is bad
    assert findings == inspect(bad)[1]
    assert len(findings) == 3


def test_a_finding_never_repeats_the_value() -> None:
    _, findings = inspect(event(user_id=EMAILS[0], properties={EMAILS[0]: 1, "note": EMAILS[0]}))

    assert len(findings) == 3
    assert EMAILS[0] not in repr(findings)


def test_what_was_redacted_is_clean_and_in_its_place() -> None:
    found, _ = inspect(event(properties={"a": 1, "note": "jane@example.com", "b": 2}))

    assert [*found.properties] == ["a", "note", "b"]
    assert inspect(found) == (found, ())


# --- what is not found ------------------------------------------------------------------------------------------------

BUSINESS = [
    "in_1PabcDEF23456789",
    "cs_test_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0",
    "550e8400-e29b-41d4-a716-446655440000",
    "12345678-1234-4234-8234-123456789012",
    "2026-11-20",
    "2026-11-20T10:00:00Z",
    "2026-11-20T10:00:00.123456+01:00",
    "2026-11-20T10:00:00+0100",
    "2026-11-20 10:00:00",
    "20.11.2026 10:00",
    "01.02.2026 10:00",
    "11/20/2026",
    "20261120",
    "20261120100000",
    "1234.56",
    "-1234.56",
    "1,234,567.89",
    "1.2.3",
    "1.2.3+20260101",
    "2025-06-30.basil",
    "#1001",
    "1760000000000",
    "1760000000",
    "4501234567890",
    "5123456789012",
    "820982911946154508",
    "23851234567890123",
    "305-1234567-1234567",
    "026-1234567-1234567",
    "B7B3A1C2-0001",
    "WH-2WR32451HC0233532-67976317FL4543714",
    "8AC12345AB678901C",
    "gid://shopify/Order/5123456789012",
    "ab" * 32,
    "1" * 64,
    "sha256:" + "1a" * 20,
    "std::vector",
    "Foo::Bar",
    "a::b",
    "10:30:00",
    "10:30 - 11:45",
    "logo@2x.png",
    "@maker",
    "R&D + Support 100%",
    "Größe 38, blau",
    "Pro (monthly) 100/200",
    "1234567890 1234567890 1234567890",
    "0-306-40615-2",
    "customer.subscription.updated",
    "",
]


@pytest.mark.parametrize("text", BUSINESS)
def test_business_values_are_not_touched(text: str) -> None:
    assert (text, ()) == inspected("order_id", text)


@pytest.mark.parametrize("number", [0, -1, 19.99, 1760000000000, 4501234567890, 2**63, 1e300, Decimal("1E+30"), True])
def test_numbers_are_not_touched(number: object) -> None:
    assert (number, ()) == inspected("count", number)


ALNUM = string.ascii_letters + string.digits
FORMS: dict[str, Callable[[random.Random], str]] = {
    "stripe": lambda r: r.choice(["pi_", "in_", "cs_test_", "cus_", "sub_", "evt_1"]) + "".join(r.choices(ALNUM, k=24)),
    "paypal": lambda r: "".join(r.choices(string.ascii_uppercase + string.digits, k=17)),
    "paddle": lambda r: "txn_01" + "".join(r.choices(string.ascii_lowercase + string.digits, k=24)),
    "uuid": lambda r: (
        f"{r.getrandbits(32):08x}-{r.getrandbits(16):04x}-4{r.getrandbits(12):03x}-8{r.getrandbits(12):03x}"
        f"-{r.getrandbits(48):012x}"
    ),
    "sha256": lambda r: f"{r.getrandbits(256):064x}",
    "md5": lambda r: f"{r.getrandbits(128):032x}",
    "our own": lambda r: f"evt_{r.getrandbits(128):032x}",
    "mongo": lambda r: f"6{r.getrandbits(92):023x}",
    "click id": lambda r: "".join(r.choices(ALNUM + "-_", k=80)),
    "shopify": lambda r: str(r.randrange(10**12, 10**13)),
    "small number": lambda r: str(r.randrange(10**11)),
    "order": lambda r: f"#{r.randrange(10**6)}",
    "amount": lambda r: f"{r.randrange(10**9) / 100:.2f}",
    "version": lambda r: f"{r.randrange(30)}.{r.randrange(30)}.{r.randrange(30)}",
    "ms": lambda r: str(r.randrange(10**12, 2 * 10**12)),
}


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 2**64))
def test_random_ids_of_providers_are_not_touched(form: str, seed: int) -> None:
    text = FORMS[form](random.Random(seed))

    assert (text, ()) == inspected("order_id", text)


@given(st.datetimes().filter(lambda at: at.year > 1999), st.sampled_from(["T", " "]))
def test_times_are_not_touched(at: Any, separator: str) -> None:
    for text in (
        at.isoformat(separator),
        at.replace(tzinfo=UTC).isoformat(separator),
        f"{at:%Y%m%d}",
        f"{at:%d.%m.%Y}",
    ):
        assert kind_of(text) is None


# --- anywhere ---------------------------------------------------------------------------------------------------------

around = st.text(st.sampled_from(string.ascii_letters + "    _,;!?'\"\n()[]{}|<>äßé日="), max_size=30)
emails = st.builds(
    "{}@{}.{}".format,
    st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._+-]{0,20}", fullmatch=True),
    st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,5})?", fullmatch=True),
    st.sampled_from(["com", "de", "co.uk", "museum", "xn--p1ai", "рф"]),
)
phones = st.builds(
    lambda first, rest, gaps: "+" + first + "".join(gap + digit for gap, digit in zip(gaps, rest, strict=False)),
    st.sampled_from("123456789"),
    st.text(string.digits, min_size=7, max_size=14),
    st.lists(st.sampled_from(["", "", "", " ", "-", ".", " (", ") "]), min_size=14, max_size=14),
)
_ISSUED = [("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("37", 15), ("36", 14), ("6011", 16), ("3528", 16),
           ("62", 16), ("62", 19), ("6759", 18), ("2200", 16)]  # fmt: skip


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefix, length = draw(st.sampled_from(_ISSUED))
    body = prefix + draw(st.text(string.digits, min_size=length - 1 - len(prefix), max_size=length - 1 - len(prefix)))
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in body[::-2])
    digits = body + str(-(doubled + sum(int(digit) for digit in body[-2::-2])) % 10)
    separator = draw(st.sampled_from(["", " ", "-"]))
    return separator.join(digits[at : at + 4] for at in range(0, length, 4))


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country = draw(st.sampled_from(sorted(_BBAN)))
    letters = {"n": string.digits, "a": string.ascii_uppercase, "c": string.ascii_uppercase + string.digits}
    parts = _BBAN[country].replace("n", "n ").replace("a", "a ").replace("c", "c ").split()
    bban = "".join(draw(st.text(letters[part[-1]], min_size=int(part[:-1]), max_size=int(part[:-1]))) for part in parts)
    check = 98 - int("".join(str(int(letter, 36)) for letter in bban + country) + "00") % 97
    compact = f"{country}{check:02}{bban}"
    return draw(st.sampled_from([compact, " ".join(compact[at : at + 4] for at in range(0, len(compact), 4))]))


ips = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda ip: ip.exploded)


def is_found_anywhere(text: str, before: str, after: str) -> None:
    whole = f"{before}{text}{after}"

    assert kind_of(whole), whole
    assert kind_of(quote(whole)), quote(whole)
    assert inspected("note", whole)[0] == REDACTED
    cleaned, kinds = clean_url(f"https://shop.example.com/a/{quote(whole, safe='')}?x={quote(whole)}#{quote(whole)}")
    assert kinds
    assert cleaned is not None
    assert kind_of(cleaned) is None
    assert clean_url(cleaned) == (cleaned, ())


@given(emails, around, around)
def test_an_email_address_is_found_anywhere(text: str, before: str, after: str) -> None:
    is_found_anywhere(text, before, after)


@given(phones, around, around)
def test_a_phone_number_is_found_anywhere(text: str, before: str, after: str) -> None:
    is_found_anywhere(text, before, after)


@given(cards(), around, around)
def test_a_card_number_is_found_anywhere(text: str, before: str, after: str) -> None:
    is_found_anywhere(text, before, after)


@given(ibans(), around, around)
def test_an_iban_is_found_anywhere(text: str, before: str, after: str) -> None:
    is_found_anywhere(text, before, after)


@given(ips, around, around)
@example("2001:db8::1", "at ", "")
def test_an_ip_address_is_found_anywhere(text: str, before: str, after: str) -> None:
    assume(":" not in text or not (before[-1:].isalnum() or after[:1].isalnum()))
    is_found_anywhere(text, before, after)


@settings(max_examples=300)
@given(st.text(max_size=128), st.text(), st.text())
def test_the_guard_takes_any_text(key: str, value: str, rest: str) -> None:
    assume(key and not any("\ud800" <= character <= "\udfff" for character in key + value))
    found, findings = inspect(event(properties={key: value}))

    assert inspect(found) == (found, ())
    assert bool(findings) is (found.properties != {key: value})
    cleaned, _ = clean_url(f"https://shop.example.com/{rest}")
    assert cleaned is None or kind_of(cleaned) is None
