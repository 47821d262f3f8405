"""Calendly: rescheduling is told twice, and routing forms name nobody."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from mappers.calendly import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse

API = "https://api.calendly.com"
AT = "2026-11-20T10:20:00.000000Z"


def told(event: str, **payload: Any) -> Delivery:
    body = {"event": event, "created_at": AT, "created_by": f"{API}/users/A", "payload": {"created_at": AT, **payload}}
    return Delivery(body=json.dumps(body).encode(), headers={})


def invitee(name: str) -> str:
    return f"{API}/scheduled_events/e-{name}/invitees/{name}"


BOOKED = told("invitee.created", uri=invitee("i1"), email="erika@example.com", old_invitee=None)
OLD_DATE = told("invitee.canceled", uri=invitee("i1"), email="erika@example.com", rescheduled=True)
NEW_DATE = told("invitee.created", uri=invitee("i2"), email="erika@example.com", old_invitee=invitee("i1"))


@pytest.mark.parametrize("order", list(permutations((BOOKED, OLD_DATE, NEW_DATE))))
def test_a_meeting_that_was_rescheduled_was_booked_once_and_not_canceled(order: tuple[Delivery, ...]) -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        for delivery in order:
            life.tell(delivery)
        life.finish()

        assert ["meeting_booked", "meeting_rescheduled"] == sorted(event["event_name"] for event in life.sent)


def test_a_routing_form_is_of_the_one_who_books_afterwards() -> None:
    form = f"{API}/routing_form_submissions/s1"
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(told("routing_form_submission.created", uri=form, result={"type": "event_type"}))
        life.leave()

        assert [] == life.sent

        life.tell(told("invitee.created", uri=invitee("i1"), email="erika@example.com", routing_form_submission=form))
        life.leave()

        assert ["form_submitted", "meeting_booked"] == sorted(event["event_name"] for event in life.sent)
        assert 1 == len({event["user_id"] for event in life.sent})


def test_what_was_paid_is_told_to_those_who_ask_for_it_only() -> None:
    payment = {"external_id": "ch_1", "amount": 49.5, "currency": "EUR", "successful": True}
    paid = told("invitee.created", uri=invitee("i1"), email="erika@example.com", payment=payment)
    with rehearse(provider, options=()) as stage:
        life = stage.begin()
        life.tell(paid)
        life.finish()

        assert ["meeting_booked"] == [event["event_name"] for event in life.sent]
