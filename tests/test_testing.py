"""The conformance kit finds what it promises to find: a sound provider passes, and each way of breaking one is told."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import testing
from relay.cases import read_cases
from relay.contract import (
    Accepted,
    Delivery,
    Draft,
    Item,
    Mapper,
    Notification,
    Person,
    Provider,
    SecretShape,
    Verdict,
    Verifier,
    conversion,
    field,
)
from relay.money import from_minor
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Scenario, check_scenario, read_scenarios, stage_for
from relay.signatures import field_token, hmac_sha256, query_token
from relay.testing import PROMISES, Promise

NUMBERS = itertools.count()


def sale(n: Notification, **changed: Any) -> Draft:
    payment = n.body["payment"]
    given: dict[str, Any] = {
        "once": f"payment:{payment['id']}",
        "at_ms": payment["at"] * 1000,
        "person": Person(email=payment["customer"]["email"]),
        "currency": payment["currency"],
        "properties": {"order_id": payment["id"]},
    }
    if "revenue" not in changed:
        given["revenue"] = from_minor(payment["amount"], payment["currency"])
    return conversion("purchase", **given | changed)


def sound(n: Notification) -> Iterator[Draft]:
    yield sale(n)


def make(mapper: Mapper = sound, **changed: Any) -> Provider:
    given: dict[str, Any] = {
        "name": "acme",
        "title": "Acme",
        "docs": "https://acme.example",
        "verifier": hmac_sha256(header="X-Acme-Signature"),
        "notification_id": field("id"),
        "notification_type": field("type"),
        "secret": SecretShape(meaning="Settings"),
    }
    provider = Provider(**given | changed)
    provider.on("payment.captured")(mapper)
    return provider


def body(number: int, amount: int) -> dict[str, Any]:
    customer = {"name": "Ada Example", "email": f"ada{number}@example.com", "number": f"cus_{number}"}
    payment = {"id": f"pay_{number}", "amount": amount, "currency": "eur", "at": 1795000000, "customer": customer}
    return {"id": f"ntf_{number}", "type": "payment.captured", "payment": payment}


def case(number: int, amount: int, **changed: Any) -> dict[str, Any]:
    draft = {
        "event_type": "conversion", "name": "purchase", "once": [f"payment:pay_{number}"], "at_ms": 1795000000000,
        "person": {"email": f"ada{number}@example.com"}, "revenue": f"{Decimal(amount) / 100:.2f}", "currency": "eur",
        "properties": {"order_id": f"pay_{number}"},
    }  # fmt: skip
    return {"about": "A sale.", "body": body(number, amount), "drafts": [draft],
            "fresh": {"ids": [f"ntf_{number}", f"pay_{number}"], "seconds": [1795000000]}, **changed}  # fmt: skip


CASES = {"payment.captured__small": case(1, 1999), "payment.captured__large": case(2, 49900)}


def written(folder: Path, files: Mapping[str, Any]) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def broken(provider: Provider, promise: Promise, folder: Path) -> list[str]:
    with rehearse(provider) as stage:
        return list(promise(stage, read_cases(provider, folder)))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_sound_provider_passes(promise: Promise, tmp_path: Path) -> None:
    assert [] == broken(make(), promise, written(tmp_path, CASES))


# --- one broken thing each --------------------------------------------------------------------------------------------


class Gullible:
    """Signs, and takes everybody's word."""

    family = "none"
    tolerance_s = None
    signs_url = False
    credentials = ()

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del delivery, secrets, now_ms, tolerance_s
        return Accepted(0)

    def fault(self, secret: str) -> str | None:
        del secret
        return None

    def __init__(self, signer: Verifier | None = None) -> None:
        self.signer = signer or hmac_sha256(header="X-Acme-Signature")

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        return self.signer.sign(delivery, secret, now_ms=now_ms)


class Eager(dict[str, Mapper]):
    """Thinks that it knows every type."""

    def get(self, key: str, default: Any = None) -> Any:
        del key, default
        return sound


def eager() -> Provider:
    provider = make()
    provider.mappers = Eager(provider.mappers)
    return provider


def with_a_type_more() -> Provider:
    provider = make()
    provider.on("payment.refunded")(sound)
    return provider


def a_number(_item: Item) -> str:
    return str(next(NUMBERS))


def random_keys(n: Notification) -> Iterator[Draft]:
    yield sale(n, once=f"payment:{next(NUMBERS)}")


def one_key_for_all(n: Notification) -> Iterator[Draft]:
    yield sale(n, once="payment")


def one_key_for_two(n: Notification) -> Iterator[Draft]:
    yield sale(n)
    yield sale(n)


def guessed_amount(n: Notification) -> Iterator[Draft]:
    yield sale(n, revenue=from_minor(n.body["payment"].get("amount", 100), "eur"))


def waits_for_nothing(n: Notification) -> Iterator[Draft]:
    yield sale(n, joins=(n.body["payment"]["customer"].get("number"),), waits=True)


def needs_an_address(n: Notification) -> Iterator[Draft]:
    yield sale(n, person=Person(email=n.body["payment"]["customer"]["email"].lower()))


def always_cents(n: Notification) -> Iterator[Draft]:
    yield sale(n, revenue=Decimal(n.body["payment"]["amount"]) / 100)


def tells_the_name(n: Notification) -> Iterator[Draft]:
    yield sale(
        n, properties={"order_id": n.body["payment"]["id"], "note": f"for {n.body['payment']['customer']['name']}"}
    )


def another_property(n: Notification) -> Iterator[Draft]:
    yield sale(n, properties={"order": n.body["payment"]["id"]})


BREAKING: list[tuple[Promise, Callable[[], Provider], str]] = [
    (testing.each_mapped_type_has_a_case, with_a_type_more, "payment.refunded has no case"),
    (testing.each_case_becomes_what_it_says, lambda: make(another_property), "drafts.0.properties.order is 'pay_1'"),
    (testing.a_signature_is_asked_for, lambda: make(verifier=Gullible()), "accepted with another secret"),
    (testing.a_signature_is_asked_for, lambda: make(verifier=Gullible()), "accepted with byte 0 of its body changed"),
    (testing.a_signature_is_asked_for, lambda: make(verifier=Gullible()), "accepted with no header x-acme-signature"),
    (testing.a_signature_is_asked_for, lambda: make(verifier=Gullible(query_token("token"))),
     "accepted with character 6 of its query changed"),
    (testing.a_signature_is_asked_for, lambda: make(verifier=Gullible(field_token("json:token"))),
     "of its body changed"),
    (testing.a_signature_is_asked_for,
     lambda: make(verifier=Gullible(hmac_sha256(header="X-Acme", message="{url}{body}"))), "accepted with another URL"),
    (testing.an_event_has_one_id_for_ever, lambda: make(random_keys), "something else the second time"),
    (testing.an_event_has_one_id_for_ever, lambda: make(one_key_for_two), "the same first once key"),
    (testing.any_order_counts_the_same, lambda: make(one_key_for_all), "instead of"),
    (testing.what_was_dropped_counts_when_it_is_backfilled, lambda: make(one_key_for_all), "a long time"),
    (testing.an_unheard_of_type_is_kept_and_makes_no_event, eager, "payment.captured_of_tomorrow it is mapped"),
    (testing.a_missing_part_makes_no_wrong_amount, lambda: make(guessed_amount), "without payment.amount: tells 1"),
    (testing.a_missing_part_makes_no_wrong_amount, lambda: make(waits_for_nothing), "number: cannot be committed"),
    (testing.nobody_known_loses_no_money, lambda: make(needs_an_address), "where nobody is named"),
    (testing.another_currency_has_its_own_decimals, lambda: make(always_cents),
     "JPY in the place of EUR, 19.99 becomes 19.99"),
    (testing.nobody_is_named, lambda: make(tells_the_name), "'Ada Example' leaves with purchase"),
]  # fmt: skip


@pytest.mark.parametrize("promise, provider, words", BREAKING, ids=[words for *_, words in BREAKING])
def test_a_broken_promise_is_told(
    promise: Promise, provider: Callable[[], Provider], words: str, tmp_path: Path
) -> None:
    found = broken(provider(), promise, written(tmp_path, CASES))

    assert [True] == [any(words in sentence for sentence in found)]


def test_an_id_that_is_missing_among_the_fresh_ones_is_told(tmp_path: Path) -> None:
    stale = {"payment.captured__small": case(1, 1999, fresh={"ids": ["ntf_1"]})}

    found = broken(make(), testing.a_sample_is_new_each_time, written(tmp_path, stale))

    assert ["payment.captured__small: a sample makes 1 events; that one, another and that one again make 1"] == found


def test_what_the_provider_always_sends_is_not_left_out(tmp_path: Path) -> None:
    always = {"payment.captured__small": case(1, 1999, always=["payment.amount"])}

    assert [] == broken(make(guessed_amount), testing.a_missing_part_makes_no_wrong_amount, written(tmp_path, always))


# --- scenarios --------------------------------------------------------------------------------------------------------


def scenario(tmp_path: Path, ledger: Sequence[Sequence[str | None]], revenue: Mapping[str, str]) -> Scenario:
    life = [{"body": body(1, 1999)}, {"body": body(2, 500)}]
    written(tmp_path, {"two_sales": {"about": "Two sales.", "life": life, "ledger": ledger, "revenue": revenue}})
    (found,) = read_scenarios(tmp_path)
    return found


LEDGER = (("ada1@example.com", "purchase", "19.99", "EUR"), ("ada2@example.com", "purchase", "5.00", "EUR"))


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
def test_a_life_that_fits_its_ledger_passes(telling: Any, tmp_path: Path) -> None:
    told = scenario(tmp_path, LEDGER, {"EUR": "24.99"})
    with stage_for(told, make()) as stage:
        assert [] == check_scenario(stage, told, telling)


def test_what_differs_from_the_ledger_is_told(tmp_path: Path) -> None:
    told = scenario(tmp_path, [("bob@example.com", "purchase", "19.99", "EUR"), LEDGER[1]], {"EUR": "20.00"})
    with stage_for(told, make()) as stage:
        found = check_scenario(stage, told, TELLINGS[0])

    assert [
        "revenue is 24.99 EUR and must be 20.00",
        "missing: purchase 19.99 EUR of bob@example.com",
    ] == found[:2]
    assert found[2].startswith("too much: purchase 19.99 EUR of somebody else (")
    assert found[3:] == ["when told like this: payment.captured (1), then payment.captured (2)"]


def test_of_the_orders_that_go_wrong_the_simplest_is_told(tmp_path: Path) -> None:
    told = scenario(tmp_path, [LEDGER[0]], {"EUR": "19.99"})
    with stage_for(told, make(one_key_for_all)) as stage:
        found = check_scenario(stage, told, TELLINGS[2], examples=20)

    assert "when told like this: payment.captured (2), then payment.captured (1)" == found[-1]


# --- the page ---------------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "testing-a-mapper.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_page_tells_each_promise(promise: Promise) -> None:
    assert f"| `{promise.__name__}` | {promise.__doc__} |" in PAGE


def test_the_page_works_with_the_guides_mapper(tmp_path: Path) -> None:
    """As it stands, with the guide's one case: the kit asks for the other two, and for nothing else."""
    guide = (DOCS / "adding-a-provider.md").read_text(encoding="utf-8")
    (tmp_path / "acme_pay.py").write_text(blocks(guide, "python")[0])
    (tmp_path / "test_acme_pay.py").write_text(blocks(PAGE, "python")[0])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # so that none of a folder above is found
    for folder, name, content in (
        ("cases", "payment.captured__card", blocks(guide, "json")[0]),
        ("scenarios", "sale_and_refund", blocks(PAGE, "json")[0]),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.json").write_text(content)
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([str(tmp_path), root])
    said = subprocess.run([sys.executable, "-m", "pytest", "-q", "--rootdir", tmp_path, "-p", "no:cacheprovider"],
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True,
                          text=True).stdout  # fmt: skip

    assert f"1 failed, {len(PROMISES) - 1 + len(TELLINGS)} passed" in said
    assert blocks(PAGE, "text")[0] in said
