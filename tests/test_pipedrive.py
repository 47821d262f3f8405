"""Pipedrive: promises that take more than one notification."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mappers.pipedrive import provider
from relay.contract import Delivery
from relay.rehearsal import Sent, rehearse

CASES = Path(__file__).parent / "mappers" / "pipedrive"
ERIKA = hashlib.sha256(b"erika@example.com").hexdigest()


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def told(*bodies: Any) -> list[Sent]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for one in bodies:
            life.tell(Delivery(body=json.dumps(one).encode(), headers={}))
        life.finish()
        return life.sent


def with_person(one: Any, person_id: int) -> Any:
    return one | {"data": one["data"] | {"person_id": person_id}}


@pytest.mark.parametrize("is_person_first", [True, False])
def test_a_person_and_the_lead_made_with_them_are_one(*, is_person_first: bool) -> None:
    person, lead = body("create.person__v2"), with_person(body("create.lead__with_value"), 80001)

    sent = told(*((person, lead) if is_person_first else (lead, person)))

    assert [("lead_created", ERIKA)] == [(event["event_name"], event["user_id"]) for event in sent]


def test_a_deal_is_of_the_person_behind_the_id() -> None:
    sent = told(with_person(body("change.deal__won"), 80003), body("change.person__address"))

    assert [("deal_won", ERIKA)] == [(event["event_name"], event["user_id"]) for event in sent]


def test_a_deal_that_is_won_again_was_won_once() -> None:
    won = body("change.deal__won")
    again = won | {"meta": won["meta"] | {"id": "another", "timestamp": "2026-11-21T10:15:34.512Z"}}

    assert ["deal_won"] == [event["event_name"] for event in told(won, again)]


def test_a_retry_is_the_same_notification() -> None:
    """Version 1 says in `meta.id` which object it is about, and nowhere which notification it is."""
    first = body("updated.deal__v1_won")
    later = first["meta"] | {"timestamp_micro": first["meta"]["timestamp_micro"] + 1}
    said = (first, first | {"retry": 1}, first | {"meta": later})
    ids = [
        found.id
        for one in said
        for found in provider.notifications(Delivery(body=json.dumps(one).encode(), headers={}))
    ]

    assert (True, False) == (ids[0] == ids[1], ids[0] == ids[2])
