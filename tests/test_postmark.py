"""Postmark: one fact in two records, and keys without addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mappers.postmark import provider
from relay.contract import Delivery, Draft
from relay.rehearsal import rehearse

CASES = Path(__file__).parent / "mappers" / "postmark"


def body(name: str, **changes: Any) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"] | changes


def delivery(said: Any) -> Delivery:
    return Delivery(body=json.dumps(said).encode(), headers={})


def sent(*told: Any) -> list[str]:
    """The names of the events that leave."""
    with rehearse(provider) as stage:
        life = stage.begin()
        for said in told:
            life.tell(delivery(said))
        life.finish()
        return [event["event_name"] for event in life.sent]


MESSAGE = {"MessageID": "883953f4-6105-42a2-a16a-77a8eac79483"}
PAIRS = [
    ("Bounce__hard", "SubscriptionChange__hard_bounce", "email_bounced"),
    ("SpamComplaint__plain", "SubscriptionChange__complaint", "email_complained"),
]


@pytest.mark.parametrize("record, suppression, name", PAIRS, ids=[name for _, _, name in PAIRS])
def test_a_suppression_tells_again_what_a_record_has_told(record: str, suppression: str, name: str) -> None:
    pair = [body(record, **MESSAGE), body(suppression, **MESSAGE)]

    assert [name] == sent(*pair)
    assert [name] == sent(*reversed(pair))
    assert [name, name] == sent(pair[0], pair[1] | {"Recipient": "bob@example.com"})


def test_two_clicks_are_two_and_one_told_twice_is_one() -> None:
    click = body("Click__link")

    assert 2 == len(sent(click, click | {"ReceivedAt": "2026-11-23T15:21:12Z"}, click))


def test_no_key_holds_an_address() -> None:
    for path in CASES.glob("*.json"):
        (notification,) = provider.notifications(delivery(body(path.stem)))
        drafts = [draft for draft in provider.mappers[notification.type](notification) if isinstance(draft, Draft)]
        keys = [notification.id, *(key for draft in drafts for key in draft.once)]

        assert not [key for key in keys if "@" in key or "ada" in key]


@pytest.mark.parametrize("name", ["Delivery__plain", "Bounce__hard", "SpamComplaint__plain", "Click__link",
                                  "Open__first", "SubscriptionChange__unsubscribed"])  # fmt: skip
def test_a_record_that_does_not_name_its_kind_is_known_by_its_fields(name: str) -> None:
    said = body(name)
    kind = said.pop("RecordType")
    (notification,) = provider.notifications(delivery(said))

    assert kind == notification.type
