"""Mailjet: one event or many, and numbers beyond what many can count."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from mappers.mailjet import provider
from relay.contract import Delivery, Draft
from relay.rehearsal import rehearse


def item(event: str, **fields: Any) -> dict[str, Any]:
    return {
        "event": event,
        "time": 1_795_000_000,
        "MessageID": 94_857_068_804_950_691,
        "email": "ada@example.com",
        **fields,
    }


def delivery(said: Any) -> Delivery:
    return Delivery(body=orjson.dumps(said), headers={})


def sent(*told: Any) -> list[str]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for said in told:
            life.tell(delivery(said))
        life.finish()
        return [event["event_name"] for event in life.sent]


def draft(said: Any) -> Draft:
    (notification,) = provider.notifications(delivery(said))
    (found,) = provider.mappers[notification.type](notification)
    assert isinstance(found, Draft)
    return found


def test_an_event_counts_once_alone_and_in_a_group() -> None:
    assert ["email_unsubscribed"] == sent(item("unsub"), [item("unsub"), item("unsub")])


def test_two_recipients_of_one_message_are_two() -> None:
    assert ["email_complained"] * 2 == sent([item("spam"), item("spam", email="bob@example.com")])


def test_the_id_of_a_message_stays_exact() -> None:
    assert "94857068804950691" == draft(item("spam")).properties["message_id"]


@pytest.mark.parametrize("payload", ["", "order 1001", "{{var:user_id}}", "[1, 2]", None], ids=str)
def test_what_the_sender_gave_along_may_be_anything(payload: str | None) -> None:
    assert {} == draft(item("spam", Payload=payload)).metadata
