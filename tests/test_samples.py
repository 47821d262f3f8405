"""Samples: new to the relay each time, the same again for the same id, and always as the provider would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.contract import Accepted, Delivery, Draft, Provider
from relay.registry import load_providers
from relay.samples import Case, Fresh, SampleError, cases_of, choose, fresh, notification_id, signed, similar
from relay.specimens import specimen
from tests import acme
from tests.commands import CAPTURED, mount_acme
from tests.things import NOON

PROVIDERS = load_providers(None)
ALL = [(provider, case) for provider in PROVIDERS.values() for case in cases_of(provider, None)]

every_sample = pytest.mark.parametrize(
    "provider, case", ALL, ids=[f"{provider.name}-{case.type}-{case.variant}" for provider, case in ALL]
)

CASE = Case(
    type="payment.captured", variant="card", about="", headers={}, body=None, is_json=True, fresh=Fresh(), drafts=1,
    waits=False, pays=True, is_test=False,
)  # fmt: skip


def case(body: Any, **values: Any) -> Case:
    ids, headers = values.pop("ids", ()), values.pop("headers", {})
    return replace(CASE, body=body, headers=headers, fresh=Fresh(ids=ids, **values))


def body(made: Delivery) -> Any:
    return json.loads(made.body)


def sent(it: Case, *, id: str | None = None, token: str = "t") -> Any:  # noqa: A002
    return body(fresh(it, id=id, now_ms=NOON, token=token))


SALE = case({"id": "ntf_1A", "payment": {"id": "pay_2B", "of": "ntf_1A"}}, ids=("ntf_1A", "pay_2B"))


def test_each_token_gives_other_ids() -> None:
    first, second = sent(SALE, token="1"), sent(SALE, token="2")

    assert first["id"] != second["id"]
    assert first["payment"]["id"] != second["payment"]["id"]


def test_the_same_id_gives_the_same_delivery() -> None:
    first = fresh(SALE, id="ntf_mine", now_ms=NOON, token="1")

    assert first == fresh(SALE, id="ntf_mine", now_ms=NOON, token="2")


def test_the_first_id_is_the_notifications_and_the_others_follow_from_it() -> None:
    mine, other = sent(SALE, id="ntf_mine"), sent(SALE, id="ntf_other")

    assert ("ntf_mine", "ntf_mine") == (mine["id"], mine["payment"]["of"])
    assert mine["payment"]["id"] != other["payment"]["id"]


@pytest.mark.parametrize(
    "old, form",
    [
        ("evt_1A", r"evt_[0-9A-Z]{16}"),
        ("cs_live_a1B2c3", r"cs_live_[0-9a-zA-Z]{16}"),
        ("820982911946154508", r"1[0-9]{17}"),
        ("1001", r"1[0-9]{13}"),
        ("0b5e61a5-6f0d-4a63-9bb4-b62f2f6e2d1a", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
        ("gid://shopify/Order/450789469", r"gid://shopify/Order/[0-9]{16}"),
        ("<20261123.1a2b@mail.example>", r"<20261123.[0-9a-z]{16}@mail.example>"),
        ("5f7c8a9b0d1e2f3a4b5c6d7e", r"[0-9a-f]{24}"),
        ("WH-COC-KR1", r"WH-COC-[0-9A-Z]{16}"),
    ],
)
def test_a_new_id_has_the_form_of_the_old_one(old: str, form: str) -> None:
    made = similar(old, "seed")

    assert re.fullmatch(form, made), made
    assert made == similar(old, "seed") != similar(old, "another seed")


def test_a_number_stays_a_number() -> None:
    made = sent(case({"id": 1001, "quantity": 2, "lines": [1001]}, ids=("1001",)))

    assert isinstance(made["id"], int)
    assert (made["id"], 2) == (made["lines"][0], made["quantity"])


def test_an_id_that_is_no_number_cannot_take_the_place_of_one() -> None:
    with pytest.raises(SampleError, match="is a number"):
        sent(case({"id": 1001}, ids=("1001",)), id="mine")


def test_an_id_is_replaced_inside_texts_and_headers_but_not_inside_other_words() -> None:
    it = case(
        {"url": "https://pay.example/i/in_1?x=in_1_secret", "other": "in_12 join_1"},
        ids=("in_1",), headers={"X-Delivery": "in_1"},
    )  # fmt: skip
    made = fresh(it, id="in_9", now_ms=NOON, token="")

    assert {"url": "https://pay.example/i/in_9?x=in_9_secret", "other": "in_12 join_1"} == body(made)
    assert "in_9" == made.headers["x-delivery"]


def test_a_body_that_is_not_json_is_made_fresh_too() -> None:
    it = replace(case("txn_id=1001&at=1760000000", ids=("1001",), seconds=(1_760_000_000,)), is_json=False)

    assert b"txn_id=77&at=1795000000" == fresh(it, id="77", now_ms=NOON, token="").body


@pytest.mark.parametrize(
    "text, kind",
    [
        ("a=1&b[c]=%20", "application/x-www-form-urlencoded"),
        ("a=", "application/x-www-form-urlencoded"),
        ("<?xml version='1.0'?><a b='1'/>", "text/xml"),
        ("\n<a/>", "text/xml"),
        ("it is so = it is", "text/plain"),
        ("", "text/plain"),
    ],
)
def test_a_body_that_is_not_json_is_sent_as_what_it_looks_like(text: str, kind: str) -> None:
    made = fresh(replace(case(text), is_json=False), id=None, now_ms=NOON, token="t")

    assert kind == made.headers["content-type"]


def test_the_first_time_becomes_now_and_the_others_keep_their_distance() -> None:
    it = case(
        {
            "created": 1_760_000_000,
            "ends": 1_760_003_600,
            "ms": 1_760_000_000_500,
            "iso": "2025-10-09T08:53:20Z",
            "precise": "2025-10-09T10:53:20.250+02:00",
            "day": "2025-10-09",
            "untouched": 1_750_000_000,
        },
        seconds=(1_760_000_000, 1_760_003_600),
        millis=(1_760_000_000_500,),
        iso=("2025-10-09T08:53:20Z", "2025-10-09T10:53:20.250+02:00", "2025-10-09"),
    )

    assert {
        "created": 1_795_000_000,
        "ends": 1_795_003_600,
        "ms": 1_795_000_000_500,
        "iso": "2026-11-18T11:06:40Z",
        "precise": "2026-11-18T13:06:40.250+02:00",
        "day": "2026-11-18",
        "untouched": 1_750_000_000,
    } == sent(it)


def test_a_time_that_is_not_iso_is_told() -> None:
    with pytest.raises(SampleError, match="'Oct 9' among the fresh times is not ISO 8601"):
        sent(case({}, iso=("Oct 9",)))


# --- case files -------------------------------------------------------------------------------------------------------


def write(folder: Path, **files: Any) -> Sequence[Case]:
    samples = folder / "samples" / "acme"
    samples.mkdir(parents=True)
    for name, content in files.items():
        (samples / f"payment.captured__{name}.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
    return cases_of(acme.make(), folder)


def test_the_plainest_case_is_taken_unless_a_variant_is_named(tmp_path: Path) -> None:
    test = CAPTURED | {"body": {**acme.captured(1), "test": True}}
    waits = CAPTURED | {"drafts": [{"waits": True}]}
    paid = CAPTURED | {"drafts": [{"revenue": "19.99"}]}
    cases = write(
        tmp_path, zero=CAPTURED | {"drafts": []}, test=test, waits=waits, free=CAPTURED, bank_transfer=paid, card=paid
    )

    plainest, named = choose(cases, "payment.captured", None), choose(cases, "payment.captured", "test")

    assert (plainest and plainest.variant, named and named.variant) == ("card", "test")
    assert choose(cases, "payment.captured", "no_such") is None


def test_a_case_of_a_type_that_is_not_mapped_is_no_sample(tmp_path: Path) -> None:
    assert [] == write(tmp_path, ignored={**CAPTURED, "body": {**acme.captured(1), "type": "payment.authorized"}})


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"body": {}, "fresh": {"ids": 1}}', '{"body": {}, "fresh": {"x": []}}']
)
def test_a_file_that_is_no_case_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(SampleError, match=r"payment.captured__broken.json is not a case file"):
        write(tmp_path, broken=content)


def test_a_mounted_mapper_brings_its_samples(tmp_path: Path) -> None:
    mount_acme(tmp_path)

    assert ["card"] == [case.variant for case in cases_of(acme.make(), tmp_path / "mappers")]


@every_sample
def test_every_sample_is_accepted_as_the_providers(provider: Provider, case: Case) -> None:
    known = specimen(provider.verifier, prefix=provider.secret.prefix)
    delivery = replace(fresh(case, id=None, now_ms=NOON, token="t"), certificates=known.certificates)
    sent = signed(delivery, provider, known.signing, now_ms=NOON)

    assert Accepted(0) == provider.verifier.verify(sent, [known.secret], now_ms=NOON)


@every_sample
def test_every_sample_says_the_same_with_fresh_ids_but_under_other_keys(provider: Provider, case: Case) -> None:
    def said(token: str) -> tuple[list[str], list[str], set[str]]:
        delivery = fresh(case, id=None, now_ms=NOON, token=token)
        drafts = [
            draft
            for notification in provider.notifications(delivery)
            for draft in provider.mappers[notification.type](notification)
            if isinstance(draft, Draft)
        ]
        return (
            [draft.name for draft in drafts],
            [notification_id(provider, delivery)],
            {key for draft in drafts for key in draft.once},
        )

    (names, ids, keys), (other_names, other_ids, other_keys) = said("1"), said("2")

    assert (case.drafts, names) == (len(names), other_names)
    assert not {*ids} & {*other_ids}
    assert not keys & other_keys
