"""Joining: what a waiting event becomes once more is known."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from relay.contract import Draft, Learned, Notification, Person, Variant, conversion
from relay.guard import Finding
from relay.identity import hash_email
from relay.joining import complete, dump_waiting, is_told_elsewhere, load_waiting
from relay.personal import Kind
from relay.sealing import Adjusted, Entity, Sealed, SourcePolicy, learn, seal

NOON = 1_795_000_000_000
POLICY = SourcePolicy(source="shop", provider="acme", url_key="landing")
TRIAL = Variant(name="trial_converted", once="trial_end:1")


def said(account: str = "") -> Notification:
    return Notification(id="evt_1", type="invoice.paid", body={}, headers={}, account=account)


def invoice(**values: Any) -> Draft:
    """A paid invoice that knows a customer id only."""
    return conversion(
        "subscription_renewed",
        **{
            "once": "invoice:1",
            "at_ms": NOON,
            "person": Person(customer_id="cus_1"),
            "revenue": Decimal("19.90"),
            "currency": "EUR",
            "joins": ("subscription:1", "customer:1"),
            "waits": True,
            **values,
        },
    )


def sealed(draft: Draft, account: str = "") -> Sealed:
    found = seal(draft, said(account), POLICY)
    assert isinstance(found, Sealed)
    return found


def entity(*keys: str, account: str = "", **values: Any) -> Entity:
    return learn(Learned(keys=keys, **values), said(account), POLICY)


def joined(waiting: Sealed, *entities: Entity, taken: bool = False) -> Sealed:
    return complete(waiting, entities, is_free=lambda _: not taken)


# --- who --------------------------------------------------------------------------------------------------------------


def test_a_better_user_takes_the_place_of_the_fallback() -> None:
    waiting = sealed(invoice())

    done = joined(waiting, entity("customer:1", person=Person(email="buyer@example.com")))

    sent = orjson.loads(done.payload)
    assert sent["user_id"] == done.identity.user_id == hash_email("buyer@example.com")
    assert orjson.loads(waiting.payload)["properties"]["identity"] == "customer_id"
    assert "identity" not in sent["properties"]
    assert sent["properties"]["event_id"] == waiting.event_id == done.event_id


def test_the_best_rule_wins_over_the_better_join() -> None:
    done = joined(
        sealed(invoice()),
        entity("subscription:1", person=Person(email="buyer@example.com")),
        entity("customer:1", metadata={"user_id": "ab" * 32}),
    )

    assert done.event.user_id == "ab" * 32
    assert done.identity.rank == 0


def test_a_user_that_is_as_good_stays() -> None:
    waiting = sealed(invoice(person=Person(email="own@example.com")))

    done = joined(waiting, entity("customer:1", person=Person(email="other@example.com")))

    assert done.event.user_id == hash_email("own@example.com")


def test_a_customer_id_from_elsewhere_is_marked_as_the_last_resort() -> None:
    waiting = sealed(invoice(person=Person()))

    done = joined(waiting, entity("customer:1", person=Person(customer_id="cus_1")))

    assert done.event.properties["identity"] == "customer_id"
    assert done.event.user_id == sealed(invoice()).event.user_id


def test_a_mark_says_that_the_fact_is_told_elsewhere() -> None:
    waiting = replace(sealed(invoice()), unless=("of_invoice",))

    assert is_told_elsewhere(waiting, [entity("customer:1", marks=("of_invoice",))])
    assert not is_told_elsewhere(waiting, [entity("customer:1", marks=("trial",))])
    assert not is_told_elsewhere(waiting, [entity("customer:2", marks=("of_invoice",))])


def test_entities_of_other_keys_are_left_aside() -> None:
    waiting = sealed(invoice())

    assert joined(waiting, entity("customer:2", person=Person(email="other@example.com"))) is waiting
    assert joined(waiting, entity("customer:1", account="acct_1", person=Person(email="x@example.com"))) is waiting
    assert joined(waiting) is waiting


# --- where from -------------------------------------------------------------------------------------------------------


def test_lacking_attribution_is_filled_from_the_better_join_first() -> None:
    waiting = sealed(invoice(metadata={"utm_source": "own"}))

    done = joined(
        waiting,
        entity("customer:1", metadata={"utm_source": "c", "utm_medium": "c", "gclid": "c"}),
        entity("subscription:1", metadata={"utm_source": "s", "utm_medium": "s"}),
    )

    found = orjson.loads(done.payload)["properties"]
    assert (found["utm_source"], found["utm_medium"], found["gclid"]) == ("own", "s", "c")


def test_the_landing_url_is_filled_too() -> None:
    known = entity("customer:1", metadata={"landing": "https://shop.example.com/a"})

    assert joined(sealed(invoice()), known).event.url == "https://shop.example.com/a"
    assert "url" not in joined(sealed(invoice()), known).event.properties
    own = sealed(invoice(url="https://shop.example.com/own"))
    assert joined(own, known).event.url == "https://shop.example.com/own"


def test_attribution_never_makes_too_many_properties() -> None:
    waiting = sealed(invoice(properties={f"key_{number}": 1 for number in range(44)}))

    done = joined(waiting, entity("customer:1", metadata={"utm_source": "a", "utm_medium": "b", "gclid": "c"}))

    assert len(waiting.event.properties) == 49
    assert len(done.event.properties) == 50


# --- variants ---------------------------------------------------------------------------------------------------------


def test_a_mark_makes_an_event_what_it_is() -> None:
    waiting = sealed(invoice(variants={"trial": TRIAL}))

    done = joined(waiting, entity("subscription:1", marks=("trial",)))

    assert orjson.loads(done.payload)["event_name"] == done.event.event_name == "trial_converted"
    assert done.once == ("invoice:1", "trial_end:1")
    assert done.event_id == waiting.event_id
    assert joined(done, entity("subscription:1", marks=("trial",))).once == done.once


def test_a_variant_whose_key_is_taken_is_not_applied() -> None:
    done = joined(sealed(invoice(variants={"trial": TRIAL})), entity("subscription:1", marks=("trial",)), taken=True)

    assert done.event.event_name == "subscription_renewed"
    assert done.once == ("invoice:1",)


def test_without_the_mark_an_event_stays_what_it_was() -> None:
    done = joined(sealed(invoice(variants={"trial": TRIAL})), entity("subscription:1", marks=("other",)))

    assert done.event.event_name == "subscription_renewed"


def test_the_first_variant_that_fits_counts() -> None:
    variants = {"a": Variant(name="first", once="a:1"), "b": Variant(name="second", once="b:1")}

    done = joined(sealed(invoice(variants=variants)), entity("subscription:1", marks=("b", "a")))

    assert done.event.event_name == "first"


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_a_waiting_event_comes_back_as_it_was() -> None:
    draft = invoice(
        properties={"seats": 3, "discount": Decimal("1.00"), "note": "jane@example.com", "livemode": True},
        variants={"trial": TRIAL},
        url="no url",
    )
    waiting = sealed(draft, account="acct_1")

    found = load_waiting(dump_waiting(waiting))

    assert found == waiting
    assert found.payload == waiting.payload
    assert found.findings == (Adjusted("url", "not_a_url"), Finding("properties.note", Kind.EMAIL))


def test_it_is_completed_as_it_would_have_been() -> None:
    waiting = sealed(invoice(revenue=Decimal("12345678901234567.890"), variants={"trial": TRIAL}))
    known = entity("customer:1", person=Person(email="buyer@example.com"), metadata={"ref": "x"}, marks=("trial",))

    assert joined(load_waiting(dump_waiting(waiting)), known) == joined(waiting, known)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.floats(-1e9, 1e9)))
def test_no_property_changes_in_the_store(properties: dict[str, Any]) -> None:
    waiting = sealed(invoice(properties=properties))

    again = complete(load_waiting(dump_waiting(waiting)), [entity("customer:1")], is_free=lambda _: True)

    assert orjson.loads(waiting.payload) == orjson.loads(again.payload)


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b'{"payload":"x"}'])
def test_what_was_not_stored_by_us_is_a_bug(stored: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        load_waiting(stored)
