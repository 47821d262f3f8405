"""Close: promises that take more than one notification, and its times."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from mappers.close import provider
from relay.contract import Accepted, Delivery
from relay.rehearsal import Sent, rehearse
from relay.store.schema import Outcome

CASES = Path(__file__).parent / "mappers" / "close"
ERIKA = hashlib.sha256(b"erika@example.com").hexdigest()


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def told(*bodies: Any) -> list[Sent]:
    with rehearse(provider) as stage:
        stage.clock.now_ms = 1_795_170_000_000  # after all that the cases tell
        life = stage.begin()
        for one in bodies:
            life.tell(Delivery(body=json.dumps(one).encode(), headers={}))
        life.finish()
        return life.sent


def with_data(one: Any, **data: Any) -> Any:
    return one | {"event": one["event"] | {"data": one["event"]["data"] | data}}


def test_the_key_is_what_the_digits_spell() -> None:
    """As text it would be twice as long, and no signature would fit."""
    key, said = "a1b2" * 16, b'{"event":{}}'
    digest = hmac.new(bytes.fromhex(key), b"1795169734" + said, "sha256").hexdigest()
    sent = Delivery(body=said, headers={"close-sig-hash": digest, "close-sig-timestamp": "1795169734"})

    assert Accepted(0) == provider.verifier.verify(sent, (key,), now_ms=1_795_169_734_000)


def test_an_opportunity_is_of_its_contact_else_of_its_lead() -> None:
    lead, contact = body("lead.created__with_a_contact"), body("contact.created__of_a_lead")
    lead_id, contact_id = lead["event"]["object_id"], contact["event"]["object_id"]
    won = body("opportunity.updated__won")
    by_contact = with_data(won, contact_id=contact_id)
    by_lead = with_data(body("opportunity.updated__won_last_month"), lead_id=lead_id)

    sent = [event for event in told(by_contact, by_lead, lead, contact) if event["event_name"] == "deal_won"]

    assert [ERIKA, ERIKA] == [event["user_id"] for event in sent]


@pytest.mark.parametrize(
    "day, at_ms",
    [
        ("2026-11-20", 1795169734395),  # the same day: the change is more exact
        ("2026-11-19", 1795169734395),  # yesterday: somewhere it still was
        ("2026-11-21", 1795169734395),  # tomorrow
        ("2026-11-18", 1794960000000),
        (None, 1795169734395),
    ],
)
def test_the_day_that_was_written_counts_where_it_lies_further_back(day: str | None, at_ms: int) -> None:
    (won,) = told(with_data(body("opportunity.updated__won"), date_won=day))

    assert at_ms == won["timestamp"]


def test_what_has_no_data_any_more_is_parked() -> None:
    """Close leaves `data` out for those who may not see it."""
    bare = body("opportunity.updated__won")
    said = bare | {"event": bare["event"] | {"data": None}}
    with rehearse(provider) as stage:
        (mapped,) = stage.map(Delivery(body=json.dumps(said).encode(), headers={}))

    assert Outcome.FAILED is mapped.outcome
