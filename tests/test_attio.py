"""Attio: ids only, so that it is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from mappers.attio import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.store.schema import Outcome

CASES = Path(__file__).parent / "mappers" / "attio"


def case(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))


def delivery(found: Any, answers: Any = None) -> Delivery:
    headers = {name.lower(): value for name, value in found["headers"].items()}
    return Delivery(body=json.dumps(found["body"]).encode(), headers=headers, answers=answers)


def test_without_an_answer_it_is_kept_until_there_is_one() -> None:
    with rehearse(provider) as stage:
        (mapped,) = stage.map(delivery(case("record.created__person")))

    assert (Outcome.TO_DO, ()) == (mapped.outcome, tuple(mapped.events))


def test_what_is_gone_when_attio_is_asked_is_parked() -> None:
    found = case("record.created__person")
    answers = {path: None if "/records/" in path else answer for path, answer in found["answers"].items()}
    with rehearse(provider) as stage:
        (mapped,) = stage.map(delivery(found, answers))

    assert Outcome.FAILED is mapped.outcome


@pytest.mark.parametrize(
    "title, name",
    [
        ("Won 🎉", "deal_won"),
        ("Closed won", "deal_won"),
        ("WON", "deal_won"),
        ("Lost", "deal_lost"),
        ("Closed / lost", "deal_lost"),
        ("Wonderful prospects", "deal_stage_changed"),
        ("", "deal_stage_changed"),
    ],
)
def test_the_title_of_a_stage_says_what_it_means(title: str, name: str) -> None:
    found = case("record.updated__deal_won")
    answers = json.loads(json.dumps(found["answers"]).replace('"Won \\ud83c\\udf89"', json.dumps(title)))
    with rehearse(provider) as stage:
        (mapped,) = stage.map(delivery(found, answers))

    assert [name] == [outgoing.sealed.event.event_name for outgoing in mapped.events]


def test_the_same_change_of_another_delivery_is_another_notification() -> None:
    """Its body has nothing that tells two changes apart."""
    found = case("record.updated__deal_won")
    other = found | {"headers": {"Idempotency-Key": "another"}}
    ids = {one.id for said in (found, found, other) for one in provider.notifications(delivery(said))}

    assert 2 == len(ids)
