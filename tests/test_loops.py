"""Loops: promises that take more than one notification."""

from __future__ import annotations

import json
from typing import Any

from mappers.loops import provider
from relay.contract import Delivery
from relay.rehearsal import START_MS, rehearse

NOW_S = START_MS // 1000


def told(message_id: str, name: str, *, at: int = NOW_S, **more: Any) -> Delivery:
    contact = {"id": "cmh1a2b3", "email": "erika@example.com", "userId": None}
    said = {"eventName": name, "eventTime": at, "webhookSchemaVersion": "1.0.0", "contactIdentity": contact, **more}
    return Delivery(body=json.dumps(said).encode(), headers={"webhook-id": message_id})


def names(*deliveries: Delivery) -> list[str]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for delivery in deliveries:
            life.tell(delivery)
        life.finish()
        return [event["event_name"] for event in life.sent]


def test_leaving_by_a_link_is_told_once() -> None:
    left = told("msg_1", "email.unsubscribed", sourceType="campaign", campaignId="cmhc")

    assert ["email_unsubscribed"] == names(left, told("msg_2", "contact.unsubscribed", at=NOW_S + 2))


def test_a_bounce_is_nobodys_leaving() -> None:
    """Loops takes a contact off the list after a hard bounce, and says so as if it had left."""
    bounce = told("msg_1", "email.hardBounced", sourceType="campaign", campaignId="cmhc")

    assert ["email_bounced"] == names(bounce, told("msg_2", "contact.unsubscribed", at=NOW_S + 2))


def test_a_soft_bounce_does_not_hide_that_somebody_left() -> None:
    bounce = told("msg_1", "email.softBounced", sourceType="campaign", campaignId="cmhc")

    assert ["email_bounced", "email_unsubscribed"] == names(bounce, told("msg_2", "contact.unsubscribed"))


def test_the_test_event_is_of_the_test_mode() -> None:
    said = {"eventName": "testing.testEvent", "eventTime": NOW_S, "message": "Hello", "webhookSchemaVersion": "1.0.0"}
    sent = Delivery(body=json.dumps(said).encode(), headers={"webhook-id": "msg_1"})

    assert [True] == [one.is_test for one in provider.notifications(sent)]
