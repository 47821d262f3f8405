"""The event: what the events API takes, told in plain words where it is not that."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from relay.event import DAY_MS, Event, Problem, check, from_json, to_json

NOON = 1_795_000_000_000


def raw(**values: Any) -> dict[str, Any]:
    return {"event_type": "conversion", "event_name": "purchase", **values}


def problems(**values: Any) -> list[str]:
    found = check(raw(**values))
    return [] if isinstance(found, Event) else [str(problem) for problem in found]


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_a_whole_event_is_taken() -> None:
    whole = raw(
        user_id="ab" * 32,
        url="https://shop.example.com/thanks?order=1",
        properties={"order_id": "pi_1", "quantity": 2, "weight": 0.5, "livemode": False},
        revenue=19.99,
        currency="EUR",
        timestamp=NOON,
    )

    found = check(whole)

    assert isinstance(found, Event)
    assert Decimal("19.99") == found.revenue
    assert whole == orjson.loads(to_json(found))


@pytest.mark.parametrize("event_type", ["pageview", "identify"])
def test_some_types_need_no_name(event_type: str) -> None:
    assert isinstance(check({"event_type": event_type}), Event)


def test_null_is_as_good_as_absent() -> None:
    assert check(raw()) == check(raw(user_id=None, url=None, revenue=None, currency=None, timestamp=None))


@pytest.mark.parametrize("revenue", [19.99, "19.99", -5, 0, Decimal("0.001")])
def test_revenue_is_any_finite_decimal(revenue: object) -> None:
    assert [] == problems(revenue=revenue, currency="EUR")


def test_fifty_properties_are_taken() -> None:
    assert [] == problems(properties={f"key_{number}": number for number in range(50)})


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 1, "text", [], [{}]])
def test_an_event_is_an_object(thing: object) -> None:
    assert (Problem("", "must be a JSON object"),) == check(thing)


@pytest.mark.parametrize("event_type", ["event", "conversion"])
def test_an_event_and_a_conversion_need_a_name(event_type: str) -> None:
    expected = Problem("event_name", "is required for the types event and conversion")

    assert (expected,) == check({"event_type": event_type})


@pytest.mark.parametrize("event_type", ["sale", "Event", "", 1, None])
def test_other_types_are_refused(event_type: object) -> None:
    assert problems(event_type=event_type) == ["event_type must be one of pageview, event, identify, conversion"]


@pytest.mark.parametrize("name", ["Purchase", "purchase made", "1st_purchase", "_x", "", "kauf_ü", "a" * 101, 5, "a\n"])
def test_a_name_is_snake_case(name: object) -> None:
    assert problems(event_name=name) == [
        "event_name must be snake_case: a letter, then letters, digits and underscores, at most 100"
    ]


@pytest.mark.parametrize("url", ["shop.example.com", "ftp://example.com", "https://", "https://a b", "javascript:x", 1])
def test_a_url_is_http(url: object) -> None:
    assert problems(url=url) == ["url must be an http or https URL of at most 4096 characters"]


@pytest.mark.parametrize("value", [None, [], {}, {"a": 1}, float("nan"), float("inf"), 2**64, "\ud800", b"x"])
def test_a_property_is_text_number_or_boolean(value: object) -> None:
    assert problems(properties={"ok": 1, "bad": value}) == [
        "properties.bad must be a text, a boolean or a finite number, whole numbers within 64 bits"
    ]


def test_fifty_one_properties_are_too_many() -> None:
    assert problems(properties={str(number): 1 for number in range(51)}) == ["properties must have at most 50 keys"]


def test_properties_are_an_object() -> None:
    assert problems(properties=[1]) == ["properties must be a JSON object"]


def test_a_key_has_a_length() -> None:
    assert problems(properties={"": 1}) == ["properties. key must have 1 to 128 letters"]


@pytest.mark.parametrize("revenue", ["x", float("nan"), float("inf"), "1e99", [], True])
def test_revenue_is_no_other_thing(revenue: object) -> None:
    assert problems(revenue=revenue, currency="EUR") == ["revenue must be a finite decimal number of at most 28 digits"]


@pytest.mark.parametrize("currency", ["eur", "EURO", "XYZ", "€", "", 978])
def test_a_currency_is_an_iso_code_in_capitals(currency: object) -> None:
    assert problems(revenue=1, currency=currency) == ["currency must be an ISO 4217 currency in capital letters"]


def test_revenue_and_currency_come_together() -> None:
    assert problems(revenue=1) == ["currency is missing: revenue and currency come together"]
    assert problems(currency="EUR") == ["revenue is missing: revenue and currency come together"]


@pytest.mark.parametrize("at", [NOON // 1000, NOON * 1000, 0, -1, float(NOON), str(NOON), True])
def test_a_time_is_in_milliseconds(at: object) -> None:
    assert problems(timestamp=at) == ["timestamp must be Unix milliseconds between the years 2001 and 2100"]


def test_a_time_far_ahead_is_refused_where_now_is_known() -> None:
    ahead = raw(timestamp=NOON + DAY_MS + 1)

    assert (Problem("timestamp", "lies more than a day in the future"),) == check(ahead, now_ms=NOON)
    assert isinstance(check(ahead, now_ms=NOON + 1), Event)
    assert isinstance(check(ahead), Event)


def test_an_unknown_field_is_refused() -> None:
    assert problems(email="buyer@example.com") == ["email is not a known field"]


def test_every_problem_is_told_at_once() -> None:
    assert len(problems(event_name="No", url="no", properties={"a": None, "b": []}, timestamp=1, extra=1)) == 6


def test_a_problem_never_repeats_the_value() -> None:
    secret = "buyer@example.com"

    told = problems(event_name=secret, url=secret, currency=secret, revenue=secret, properties={"a": [secret]})

    assert len(told) == 5
    assert not any(secret in problem for problem in told)


def test_an_event_does_not_change() -> None:
    event = Event(event_type="pageview")

    with pytest.raises(ValidationError, match="frozen"):
        event.user_id = "x"  # type: ignore[misc]


# --- as JSON ----------------------------------------------------------------------------------------------------------


def test_the_fields_have_one_order_and_none_is_left_out() -> None:
    event = Event(
        timestamp=NOON,
        currency="EUR",
        revenue=Decimal("19.90"),
        properties={"b": 1, "a": "x"},
        event_name="purchase",
        event_type="conversion",
    )

    expected = (
        b'{"event_type":"conversion","event_name":"purchase","properties":{"b":1,"a":"x"},'
        b'"revenue":19.90,"currency":"EUR","timestamp":1795000000000}'
    )

    assert expected == to_json(event)


@pytest.mark.parametrize(
    "written", ["19.90", "0.001", "-19.99", "12345678901234567890.12", "0.1000000000000000000001", "1E+3", "1E-7", "0"]
)
def test_a_decimal_goes_out_digit_for_digit(written: str) -> None:
    amount = Decimal(written)
    event = Event(event_type="event", event_name="x", revenue=amount, currency="EUR", properties={"tax": amount})

    payload = to_json(event)

    assert f'"revenue":{amount:f},'.encode() in payload
    assert f'"tax":{amount:f}}}'.encode() in payload
    assert payload == to_json(from_json(payload))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**18), max_value=10**18))
def test_no_decimal_is_changed_by_a_round_trip(amount: Decimal) -> None:
    event = Event(event_type="event", event_name="x", revenue=amount, currency="KWD")

    assert event == from_json(to_json(event))


@given(st.integers(0, 10**15 - 1), st.integers(0, 4))
def test_fifteen_digits_of_a_json_number_survive_the_check(minor: int, places: int) -> None:
    written = f"{Decimal(minor).scaleb(-places):f}"

    found = check(orjson.loads(f'{{"event_type":"event","event_name":"x","revenue":{written},"currency":"EUR"}}'))

    assert isinstance(found, Event)
    assert Decimal(written) == found.revenue


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.none() | st.booleans() | st.integers() | st.floats(-1e15, 1e15) | st.text(max_size=9) | st.lists(st.none()),
        max_size=5,
    )
)
def test_what_is_taken_can_be_sent_and_stored(properties: dict[str, Any]) -> None:
    found = check(raw(properties=properties))

    if isinstance(found, Event):
        sent = orjson.loads(to_json(found))
        assert properties == sent.get("properties", {})
        assert sent == orjson.loads(to_json(from_json(to_json(found))))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda more: st.lists(more) |
                    st.dictionaries(st.sampled_from([*Event.model_fields, "other"]), more)))  # fmt: skip
def test_a_check_never_raises(thing: object) -> None:
    assert check(thing)
