"""Sealing: from a draft to the event that goes out."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from relay.contract import (
    HOME,
    Draft,
    Learned,
    Notification,
    Person,
    UnmappableError,
    Variant,
    conversion,
    event,
    identify,
)
from relay.event import MAX_PROPERTIES, Event, check
from relay.guard import Finding, inspect
from relay.identity import FALLBACK_RANK, NOBODY_RANK
from relay.personal import Kind
from relay.sealing import ATTRIBUTION, LONGEST_TEXT, Adjusted, Sealed, SourcePolicy, Withheld, event_id_of, learn, seal

NOON = 1_795_000_000_000
POLICY = SourcePolicy(source="shop", provider="acme")
BUYER = Person(email="Buyer@example.com ", customer_id="cus_1")
BUYER_HASH = hashlib.sha256(b"buyer@example.com").hexdigest()


def said(**values: Any) -> Notification:
    return Notification(**{"id": "evt_1", "type": "payment.captured", "body": {}, "headers": {}, **values})


def sale(**values: Any) -> Draft:
    """A sale of 19.99 EUR with 3.19 of tax."""
    return conversion(
        "purchase",
        **{
            "once": "payment:1",
            "at_ms": NOON,
            "person": BUYER,
            "revenue": Decimal("19.99"),
            "currency": "eur",
            "tax": Decimal("3.19"),
            **values,
        },
    )


def refund(name: str = "refund", **values: Any) -> Draft:
    """Ten euros given back, of which 1.60 are tax."""
    return event(
        name,
        **{
            "once": "refund:1",
            "at_ms": NOON,
            "revenue": Decimal("-10.00"),
            "currency": "EUR",
            "tax": Decimal("1.60"),
            **values,
        },
    )


def policy(**values: Any) -> SourcePolicy:
    return SourcePolicy(**{"source": "shop", "provider": "acme", **values})


def sealed(draft: Draft, rules: SourcePolicy = POLICY, **notification: Any) -> Sealed:
    found = seal(draft, said(**notification), rules)
    assert isinstance(found, Sealed)
    return found


def sent(draft: Draft, rules: SourcePolicy = POLICY, **notification: Any) -> dict[str, Any]:
    """What the API gets."""
    return dict(orjson.loads(sealed(draft, rules, **notification).payload))


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_draft_becomes_the_event_that_the_api_takes() -> None:
    found = sealed(sale(properties={"order_id": "o_1", "coupon": None}))

    expected = (
        b'{"event_type":"conversion","event_name":"purchase","user_id":"%b",'
        b'"properties":{"provider":"acme","source":"shop","event_id":"%b","provider_event":"payment.captured",'
        b'"tax":3.19,"order_id":"o_1"},"revenue":19.99,"currency":"EUR","timestamp":1795000000000}'
    )

    assert expected % (BUYER_HASH.encode(), found.event_id.encode()) == found.payload
    assert isinstance(check(orjson.loads(found.payload), now_ms=NOON), Event)
    assert found.findings == ()


def test_the_same_draft_becomes_the_same_bytes() -> None:
    assert sealed(sale()).payload == sealed(sale()).payload


def test_an_identify_carries_no_money() -> None:
    draft = identify(once="customer:1", at_ms=NOON, person=BUYER, revenue=Decimal(5), properties={"plan": "pro"})

    found = sent(draft)

    assert found["event_type"] == "identify"
    assert found["properties"]["plan"] == "pro"
    assert "revenue" not in found


# --- the id -----------------------------------------------------------------------------------------------------------


def test_the_id_is_that_of_the_business_fact() -> None:
    first = sealed(sale(once=["payment:1", "checkout:1"])).event_id

    assert first == "evt_" + hashlib.sha256(b"4:shop0:payment:1").hexdigest()[:32]
    assert first == sealed(sale(once="payment:1", revenue=Decimal(1)), id="evt_2").event_id
    assert first != sealed(sale(once="payment:2")).event_id
    assert first != sealed(sale(), policy(source="other")).event_id
    assert first != sealed(sale(), account="acct_1").event_id


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_no_two_facts_share_an_id(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (event_id_of(*one) == event_id_of(*other)) is (one == other)


def test_a_connected_account_is_part_of_every_key() -> None:
    draft = sale(
        once=["payment:1", "checkout:1"],
        joins=("customer:1",),
        variants={"trial": Variant(name="trial_converted", once="trial:1")},
    )

    found = sealed(draft, account="acct_1")

    assert found.once == ("acct_1/payment:1", "acct_1/checkout:1")
    assert found.joins == ("acct_1/customer:1",)
    assert found.variants == {"trial": Variant(name="trial_converted", once="acct_1/trial:1")}
    assert found.event.user_id == BUYER_HASH


# --- the person -------------------------------------------------------------------------------------------------------


def test_only_a_hash_of_the_person_leaves() -> None:
    found = sealed(sale())

    assert found.event.user_id == BUYER_HASH
    assert (found.identity.user_id, found.identity.by) == (BUYER_HASH, "email")
    assert b"example.com" not in found.payload
    assert b"cus_1" not in found.payload


def test_the_fallback_to_the_customer_id_is_marked() -> None:
    assert sent(sale(person=Person(customer_id="cus_1")))["properties"]["identity"] == "customer_id"
    assert "identity" not in sent(sale())["properties"]
    assert "identity" not in sent(sale(person=Person()))["properties"]


def test_an_event_of_nobody_goes_out_without_a_user() -> None:
    assert "user_id" not in sent(sale(person=Person()))


def test_the_person_may_stand_in_the_metadata() -> None:
    rules = policy(identity_keys=("member",), external_ids="pass")

    assert sent(sale(metadata={"member": "m_1"}), rules)["user_id"] == "m_1"
    assert "member" not in sent(sale(metadata={"member": "m_1"}), rules)["properties"]


# --- the money --------------------------------------------------------------------------------------------------------


def test_revenue_is_gross_or_net() -> None:
    net = sent(sale(), policy(revenue="net"))

    assert net["revenue"] == 16.80
    assert net["properties"]["tax"] == 3.19
    assert sent(sale())["revenue"] == 19.99
    assert sent(sale(tax=None), policy(revenue="net"))["revenue"] == 19.99


@pytest.mark.parametrize("revenue", [None, Decimal(0), Decimal("0.00"), Decimal("-0.0")])
def test_zero_is_no_revenue(revenue: Decimal | None) -> None:
    found = sent(sale(revenue=revenue))

    assert "revenue" not in found
    assert "currency" not in found


def test_all_digits_of_an_amount_leave() -> None:
    found = sealed(sale(revenue=Decimal("12345678901234567.890"), properties={"discount": Decimal("1.00")}))

    assert b'"revenue":12345678901234567.890,' in found.payload
    assert b'"discount":1.00' in found.payload


@pytest.mark.parametrize("told", [None, HOME])
def test_an_amount_without_a_currency_is_in_that_of_the_source(told: str | None) -> None:
    found = sent(sale(currency=told), policy(currency="CHF"))

    assert "CHF" == found["currency"]
    assert "EUR" == sent(sale(currency="eur"), policy(currency="CHF"))["currency"]


def test_an_amount_in_a_currency_that_nobody_tells_is_no_revenue() -> None:
    """A guessed one would be worse."""
    found, back = sent(sale(currency=HOME)), sent(refund(currency=HOME))

    assert ("conversion", None, 19.99) == (
        found["event_type"],
        found.get("revenue"),
        found["properties"]["amount_in_home_currency"],
    )
    assert ("event", 10.00) == (back["event_type"], back["properties"]["amount_in_home_currency"])
    assert "currency" not in found | found["properties"] | back | back["properties"]


def test_a_refund_is_an_event_with_an_amount() -> None:
    found = sent(refund())

    assert (found["event_type"], found["event_name"]) == ("event", "refund")
    assert "revenue" not in found
    assert {"amount": 10.00, "currency": "EUR", "tax": 1.60}.items() <= found["properties"].items()


def test_a_refund_can_be_a_conversion_with_negative_revenue() -> None:
    rules = policy(refunds="conversion")

    back, again = sent(refund(), rules), sent(refund("refund_reversed", revenue=Decimal("10.00")), rules)

    assert (back["event_type"], back["revenue"], back["currency"]) == ("conversion", -10.00, "EUR")
    assert back["properties"]["tax"] == -1.60
    assert "amount" not in back["properties"]
    assert back["revenue"] + again["revenue"] == 0
    assert back["properties"]["tax"] + again["properties"]["tax"] == 0


@pytest.mark.parametrize("tax", [Decimal("1.60"), Decimal("-1.60")])
def test_a_refund_can_be_net(tax: Decimal) -> None:
    """Whether the mapper gives the tax of a refund a sign or not."""
    assert sent(refund(tax=tax), policy(refunds="conversion", revenue="net"))["revenue"] == -8.40
    assert sent(refund(tax=tax), policy(revenue="net"))["properties"]["amount"] == 8.40


def test_other_events_with_money_carry_its_magnitude() -> None:
    found = sent(refund("dispute_lost", tax=None), policy(refunds="conversion"))

    assert found["event_type"] == "event"
    assert found["properties"]["amount"] == 10.00
    assert "revenue" not in found


# --- the properties ---------------------------------------------------------------------------------------------------


def test_allow_listed_metadata_goes_out_and_no_other() -> None:
    given_keys = {key: f"{key}_value" for key in (*ATTRIBUTION, "campaign", "note", "first_name")}

    found = sent(sale(metadata=given_keys), policy(metadata_keys=frozenset({"campaign"})))["properties"]

    assert {key: f"{key}_value" for key in (*ATTRIBUTION, "campaign")}.items() <= found.items()
    assert not {"note", "first_name"} & found.keys()


def test_metadata_values_become_text_and_empty_ones_stay_away() -> None:
    metadata = {"ref": 17, "gclid": True, "utm_source": " news ", "utm_medium": " ", "utm_term": None, "fbclid": [1]}

    found = sent(sale(metadata=metadata))["properties"]

    assert {"ref": "17", "gclid": "true", "utm_source": "news"}.items() <= found.items()
    assert not {"utm_medium", "utm_term", "fbclid"} & found.keys()


@pytest.mark.parametrize("metadata", [None, [], "x", 1])
def test_metadata_that_is_no_object_counts_as_none(metadata: object) -> None:
    assert sealed(sale(metadata=metadata)).payload == sealed(sale()).payload
    assert sealed(sale(properties=metadata)).payload == sealed(sale()).payload


def test_the_mappers_properties_go_before_metadata_and_the_relays_own_before_both() -> None:
    draft = sale(properties={"ref": "mapper", "source": "mapper", "tax": 1}, metadata={"ref": "metadata"})

    found = sent(draft)["properties"]

    assert (found["ref"], found["source"], found["tax"]) == ("mapper", "shop", 3.19)


def test_test_mode_is_marked() -> None:
    assert sent(sale(), is_test=True)["properties"]["livemode"] is False
    assert "livemode" not in sent(sale())["properties"]


def test_a_long_text_is_cut() -> None:
    found = sent(sale(properties={"plan": "ä" * 600, "short": "x" * 500}, metadata={"ref": "y" * 9999}))["properties"]

    assert found["plan"] == "ä" * LONGEST_TEXT
    assert found["short"] == "x" * 500
    assert found["ref"] == "y" * LONGEST_TEXT


def test_the_guard_sees_what_the_cut_would_divide() -> None:
    text = "x" * (LONGEST_TEXT - 14) + " jane.doe@example.com"

    assert sent(sale(properties={"plan": text}))["properties"]["plan"] == "[redacted]"


def test_too_many_properties_are_dropped_from_the_end_and_told() -> None:
    draft = sale(properties={f"key_{number:02}": number for number in range(60)}, metadata={"ref": "x"})

    found = sealed(draft)

    assert len(found.event.properties) == MAX_PROPERTIES
    assert [*found.event.properties][:5] == ["provider", "source", "event_id", "provider_event", "tax"]
    assert [*found.event.properties][-1] == "key_44"
    assert found.findings[0] == Adjusted("properties.key_45", "too_many_properties")
    assert found.findings[-1] == Adjusted("properties.ref", "too_many_properties")
    assert len(found.findings) == 16


def test_a_lone_surrogate_does_not_stop_an_event() -> None:
    found = sent(sale(properties={"plan": "a\ud800b"}, metadata={"ref": "\udfff", "user_id": "\ud800"}))

    assert found["properties"]["plan"] == "a?b"
    assert found["properties"]["ref"] == "?"


# --- the URL ----------------------------------------------------------------------------------------------------------


def test_the_landing_url_may_stand_in_the_metadata() -> None:
    rules = policy(url_key="landing", metadata_keys=frozenset({"landing"}))
    landing = {"landing": "https://shop.example.com/?utm_source=a"}

    found = sent(sale(metadata=landing), rules)

    assert found["url"] == "https://shop.example.com/?utm_source=a"
    assert "landing" not in found["properties"]
    assert sent(sale(url="https://shop.example.com/own", metadata=landing), rules)["url"].endswith("/own")
    assert sent(sale(url="own", metadata=landing), rules)["url"] == found["url"]


@pytest.mark.parametrize("url", ["shop.example.com/a", "ftp://x.example/", "https://a b", "https://" + "a" * 5000])
def test_what_is_no_url_stays_away_and_is_told(url: str) -> None:
    found = sealed(sale(url=url))

    assert found.event.url is None
    assert found.findings == (Adjusted("url", "not_a_url"),)


def test_a_long_url_loses_its_query() -> None:
    assert sent(sale(url="https://shop.example.com/a?b=" + "c" * 5000))["url"] == "https://shop.example.com/a"


# --- the guard --------------------------------------------------------------------------------------------------------

LEAKY: dict[str, Any] = {
    "url": "https://shop.example.com/?email=jane%40example.com&a=1",
    "properties": {"note": "call +49 151 2345678", "customer_name": "Jane", "order_id": "o_1"},
    "metadata": {"utm_term": "jane@example.com"},
}


def test_personal_data_is_taken_out_and_told() -> None:
    found = sealed(sale(**LEAKY))

    assert found.event.url == "https://shop.example.com/?a=1"
    assert found.event.properties["note"] == found.event.properties["utm_term"] == "[redacted]"
    assert "customer_name" not in found.event.properties
    assert found.event.properties["order_id"] == "o_1"
    assert set(found.findings) == {
        Finding("url", Kind.KEY),
        Finding("properties.note", Kind.PHONE),
        Finding("properties.customer_name", Kind.KEY),
        Finding("properties.utm_term", Kind.EMAIL),
    }


def test_a_source_that_rejects_gets_the_places_and_no_values() -> None:
    found = seal(sale(**LEAKY), said(), policy(guard="reject"))

    assert isinstance(found, Withheld)
    assert found.reason == (
        "the guard found personal_key in url, phone in properties.note, personal_key in properties.customer_name, "
        "email in properties.utm_term"
    )
    assert "jane" not in repr(found).lower()


def test_a_source_that_rejects_takes_what_is_clean() -> None:
    assert sealed(sale(), policy(guard="reject")).payload == sealed(sale()).payload


def test_an_id_that_is_passed_on_and_is_personal_data_is_hashed() -> None:
    found = sealed(sale(person=Person(external_id="+4915112345678")), policy(external_ids="pass"))

    assert found.event.user_id == found.identity.user_id == hashlib.sha256(b"+4915112345678").hexdigest()
    assert found.findings == (Finding("user_id", Kind.PHONE),)


# --- what cannot be sealed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, message",
    [
        ({"currency": None}, "revenue needs a currency"),
        ({"currency": "XXY"}, "'XXY' is not an ISO 4217 currency"),
        ({"revenue": Decimal("NaN")}, "revenue is not a finite decimal number"),
        ({"revenue": "much"}, "revenue is not a finite decimal number"),
        ({"tax": Decimal("Infinity")}, "tax is not a finite decimal number"),
        ({"at_ms": NOON // 1000}, "timestamp must be Unix milliseconds between the years 2001 and 2100"),
        ({"at_ms": None}, "a draft needs a once key and a time"),
        ({"at_ms": float(NOON)}, "timestamp must be Unix milliseconds"),
        ({"properties": {"items": [1]}}, "properties.items must be a text"),
        ({"properties": {"rate": float("nan")}}, "properties.rate must be a text"),
        ({"properties": {"": 1}}, "key must have 1 to 128 letters"),
    ],
)
def test_a_draft_that_is_wrong_is_told_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnmappableError, match=message):
        seal(sale(**values), said(), POLICY)


def test_a_name_that_is_wrong_is_told_in_words() -> None:
    with pytest.raises(UnmappableError, match="the event would be invalid: event_name must be snake_case"):
        seal(event("Refund!", once="refund:1", at_ms=NOON), said(), POLICY)


def test_a_draft_without_a_once_key_is_refused() -> None:
    with pytest.raises(UnmappableError, match="a draft needs a once key and a time"):
        seal(Draft(event_type="event", name="x", once=(), at_ms=NOON), said(), POLICY)


scalars = st.none() | st.text() | st.integers() | st.floats() | st.booleans() | st.decimals()


@given(
    properties=st.dictionaries(st.text(min_size=1, max_size=9), scalars, max_size=60),
    metadata=st.dictionaries(st.sampled_from([*ATTRIBUTION, "user_id", "landing", "other"]), scalars),
    person=st.builds(Person, email=st.none() | st.text() | st.emails(), external_id=st.none() | st.text()),
    url=st.none() | st.text(),
    kind=st.text(),
)
def test_whatever_a_mapper_says_the_event_is_valid_clean_or_unmappable(
    properties: dict[str, Any], metadata: dict[str, Any], person: Person, url: str | None, kind: str
) -> None:
    draft = sale(properties=properties, metadata=metadata, person=person, url=url)
    try:
        found = sealed(draft, policy(url_key="landing"), type=kind)
    except UnmappableError:
        return

    assert isinstance(check(orjson.loads(found.payload)), Event)
    assert inspect(found.event) == (found.event, ())


# --- what is learned --------------------------------------------------------------------------------------------------


def test_what_is_learned_is_kept_as_hashes() -> None:
    fact = Learned(
        keys=("customer:1", "subscription:1"),
        person=BUYER,
        metadata={"utm_source": "news", "landing": "https://shop.example.com/?email=x", "name": "Jane"},
        marks=("trial",),
    )

    found = learn(fact, said(account="acct_1"), policy(url_key="landing"))

    assert found.keys == ("acct_1/customer:1", "acct_1/subscription:1")
    assert (found.user_id, found.rank) == (BUYER_HASH, 2)
    assert found.attribution == {"utm_source": "news", "url": "https://shop.example.com/"}
    assert found.marks == {"trial"}


def test_personal_data_in_attribution_is_not_learned() -> None:
    fact = Learned(keys=("customer:1",), metadata={"utm_term": "jane@example.com", "ref": "z" * 999})

    assert learn(fact, said(), POLICY).attribution == {"ref": "z" * LONGEST_TEXT}


def test_a_customer_id_alone_does_not_tell_who() -> None:
    found = learn(Learned(keys=("customer:1",), person=Person(customer_id="cus_1")), said(), POLICY)

    assert found.rank == FALLBACK_RANK
    assert learn(Learned(keys=("customer:1",)), said(), POLICY).rank == NOBODY_RANK


def test_later_facts_add_and_do_not_take_away() -> None:
    weak = learn(
        Learned(keys=("c:1",), person=Person(customer_id="1"), metadata={"ref": "a"}, marks=("x",)), said(), POLICY
    )
    strong = learn(
        Learned(keys=("c:1",), person=BUYER, metadata={"ref": "b", "gclid": "g"}, marks=("y",)), said(), POLICY
    )

    assert weak.merged(strong).user_id == strong.merged(weak).user_id == BUYER_HASH
    assert weak.merged(strong).attribution == {"ref": "a", "gclid": "g"}
    assert weak.merged(strong).marks == {"x", "y"}
    assert strong.merged(strong) == strong
