"""Identity: the same person is the same pseudonym for ever, and no name leaves."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, strategies as st

from relay.contract import NOBODY as NO_ONE, Person
from relay.identity import (
    FALLBACK_RANK,
    NOBODY,
    NOBODY_RANK,
    RULES,
    Identity,
    IdentityPolicy,
    hash_email,
    is_hash,
    resolve,
)

KEY = b"a key of the site"
POLICY = IdentityPolicy(provider="acme")
PASS = IdentityPolicy(provider="acme", external_ids="pass")
KEYED = IdentityPolicy(provider="acme", hash_key=KEY)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(text: str) -> str:
    return hmac.new(KEY, text.encode(), "sha256").hexdigest()


def user_id(policy: IdentityPolicy = POLICY, *, metadata: Any = None, account: str = "", **person: Any) -> str | None:
    return resolve(Person(**person), metadata or {}, policy, account=account).user_id


# --- the order --------------------------------------------------------------------------------------------------------


def test_the_best_candidate_by_the_policy_wins() -> None:
    person = Person(email="a@example.com", external_id="u_1", customer_id="cus_1")

    assert resolve(person, {"user_id": "u_2"}, POLICY) == Identity(sha256("u_2"), 0, "metadata")
    assert resolve(person, {}, POLICY) == Identity(sha256("u_1"), 1, "external_id")
    assert resolve(Person(email="a@example.com", customer_id="cus_1"), {}, POLICY) == Identity(
        sha256("a@example.com"), 2, "email"
    )
    assert resolve(Person(customer_id="cus_1"), {}, POLICY) == Identity(
        sha256("acme:cus_1"), FALLBACK_RANK, "customer_id"
    )
    assert resolve(NO_ONE, {}, POLICY) == NOBODY


def test_a_source_can_have_another_order() -> None:
    policy = IdentityPolicy(provider="acme", order=("email", "external_id"))
    person = Person(email="a@example.com", external_id="u_1", customer_id="cus_1")

    assert resolve(person, {"user_id": "u_2"}, policy) == Identity(sha256("a@example.com"), 0, "email")
    assert resolve(Person(customer_id="cus_1"), {"user_id": "u_2"}, policy) == NOBODY


def test_only_a_customer_id_that_stands_last_is_a_fallback() -> None:
    first = IdentityPolicy(provider="acme", order=("customer_id", "email"))
    alone = IdentityPolicy(provider="acme", order=("customer_id",))
    person = Person(customer_id="cus_1")

    assert resolve(person, {}, POLICY).is_fallback
    assert not resolve(person, {}, first).is_fallback
    assert not resolve(person, {}, alone).is_fallback


def test_nobody_ranks_after_everybody() -> None:
    assert len(RULES) < FALLBACK_RANK < NOBODY_RANK
    assert NOBODY.is_fallback


def test_the_first_of_the_sites_metadata_keys_counts() -> None:
    policy = IdentityPolicy(provider="acme", metadata_keys=("visitor", "user_id"))

    assert user_id(policy, metadata={"user_id": "u_1", "visitor": "v_1"}) == sha256("v_1")
    assert user_id(policy, metadata={"user_id": "u_1", "visitor": " "}) == sha256("u_1")
    assert user_id(policy, metadata={"oa_user_id": "u_1"}) is None


# --- e-mail addresses -------------------------------------------------------------------------------------------------


def test_an_address_is_hashed_as_the_api_documents_it() -> None:
    """The well-known digest of an address, so that nobody can change the form by accident."""
    expected = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"

    assert expected == hash_email("test@example.com")
    assert expected == user_id(email="test@example.com")


@pytest.mark.parametrize(
    "written",
    ["Buyer@Example.com", "  buyer@example.com\n", "Buyer <buyer@example.com>", '"B, Er" < Buyer@example.com >'],
)
def test_an_address_is_trimmed_and_lower_cased(written: str) -> None:
    assert sha256("buyer@example.com") == hash_email(written)
    assert sha256("buyer@example.com") == user_id(email=written)


def test_dots_and_tags_are_left_alone() -> None:
    assert sha256("b.uyer+shop@gmail.com") == user_id(email="B.uyer+Shop@gmail.com")


def test_with_a_key_hashes_are_keyed() -> None:
    assert keyed("buyer@example.com") == hash_email(" Buyer@example.com", KEY)
    assert keyed("buyer@example.com") == user_id(KEYED, email=" Buyer@example.com")
    assert keyed("u_1") == user_id(KEYED, external_id="u_1")
    assert keyed("acme:cus_1") == user_id(KEYED, customer_id="cus_1")


@pytest.mark.parametrize("address", ["", " ", "no address", "@", "a@", "noreply@shop.example.com", "x@nobody.invalid"])
def test_what_is_no_persons_address_counts_as_absent(address: str) -> None:
    assert user_id(email=address) is None


# --- ids of the site --------------------------------------------------------------------------------------------------


def test_an_id_of_the_site_is_hashed_with_its_case_kept() -> None:
    assert sha256("User-1") == user_id(external_id=" User-1 ")


def test_an_id_of_the_site_can_go_out_as_it_is() -> None:
    assert user_id(PASS, external_id=" User-1 ") == "User-1"
    assert user_id(PASS, metadata={"user_id": 17}) == "17"


@pytest.mark.parametrize("text", ["Jane Doe", "jané", "a" * 257, "a\x00b"])
def test_what_is_not_opaque_is_hashed_all_the_same(text: str) -> None:
    assert sha256(text) == user_id(PASS, external_id=text)


@pytest.mark.parametrize("policy", [POLICY, PASS])
def test_an_address_given_as_an_id_is_an_address(policy: IdentityPolicy) -> None:
    assert sha256("buyer@example.com") == user_id(policy, external_id="Buyer@Example.com")
    assert sha256("buyer@example.com") == user_id(policy, metadata={"user_id": "Buyer@Example.com"})


@pytest.mark.parametrize("size", [32, 40, 64, 96, 128])
@pytest.mark.parametrize("policy", [POLICY, PASS, KEYED])
def test_what_is_a_hash_already_passes(size: int, policy: IdentityPolicy) -> None:
    digest = ("0123456789abcdef" * 8)[:size]

    assert digest == user_id(policy, external_id=digest)
    assert digest == user_id(policy, email=digest)
    assert digest == user_id(policy, metadata={"user_id": f" {digest}"})
    assert digest.upper() == user_id(policy, external_id=digest.upper())


@pytest.mark.parametrize("text", ["a" * 31, "a" * 65, "g" * 64, "0x" + "a" * 62])
def test_what_only_resembles_a_hash_does_not(text: str) -> None:
    assert not is_hash(text)


@pytest.mark.parametrize(
    "nothing",
    ["", "  ", "null", "None", "undefined", "N/A", "(not set)", "[object Object]", "guest", "0", 0, "-", "{{user_id}}",
     "{CUSTOMER}", "%user%", "00000000-0000-0000-0000-000000000000", None, True, [], {}, 1.5],
)  # fmt: skip
def test_placeholders_count_as_absent(nothing: object) -> None:
    assert user_id(metadata={"user_id": nothing}) is None
    assert user_id(external_id=nothing) is None
    assert user_id(customer_id=nothing) is None
    assert user_id(metadata={"user_id": nothing}, external_id="u_1") == sha256("u_1")


# --- ids of the provider ----------------------------------------------------------------------------------------------


def test_a_customer_id_is_hashed_with_its_provider_and_account() -> None:
    assert sha256("acme:cus_1") == user_id(customer_id="cus_1")
    assert sha256("acme:17") == user_id(customer_id=17)
    assert sha256("acme:acct_1:cus_1") == user_id(customer_id="cus_1", account="acct_1")


def test_a_customer_id_is_hashed_even_if_it_looks_like_a_hash() -> None:
    assert sha256("acme:" + "ab" * 16) == user_id(customer_id="ab" * 16)


# --- for all ----------------------------------------------------------------------------------------------------------

anything = st.none() | st.text() | st.integers() | st.booleans() | st.emails()


@given(anything, anything, anything, st.dictionaries(st.sampled_from(POLICY.metadata_keys), anything))
def test_no_candidate_leaves_as_it_came(email: Any, external: Any, customer: Any, metadata: dict[str, Any]) -> None:
    person = Person(email=email, external_id=external, customer_id=customer)

    found = resolve(person, metadata, POLICY)

    assert found == resolve(person, metadata, POLICY)
    assert found.user_id is None or is_hash(found.user_id)


@given(st.emails(), st.sampled_from(["", " ", "\t", "\n"]))
def test_the_same_address_is_the_same_user_however_it_is_written(address: str, space: str) -> None:
    assert hash_email(address) == hash_email(space + address.upper().lower() + space)
