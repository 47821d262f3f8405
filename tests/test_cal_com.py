"""Cal.com: what it sends where no secret is set, and seats in one booking."""

from __future__ import annotations

import json

from mappers.cal_com import provider
from relay.contract import Delivery, Refused
from relay.rehearsal import START_MS, rehearse


def booked(uid: str, seat: str, email: str) -> Delivery:
    payload = {"uid": uid, "attendeeSeatId": seat, "responses": {"email": {"value": email}}, "attendees": []}
    body = {"triggerEvent": "BOOKING_CREATED", "createdAt": f"2026-11-20T10:20:0{seat}Z", "payload": payload}
    return Delivery(body=json.dumps(body).encode(), headers={})


def test_no_secret_provided_is_no_signature() -> None:
    sent = Delivery(body=b"{}", headers={"x-cal-signature-256": "no-secret-provided"})

    assert isinstance(provider.verifier.verify(sent, ("no-secret-provided",), now_ms=START_MS), Refused)


def test_each_seat_of_a_booking_is_a_meeting_booked() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(booked("b1", "1", "erika@example.com"))
        life.tell(booked("b1", "2", "max@example.com"))
        life.tell(booked("b1", "2", "max@example.com"))
        life.finish()

        assert 2 == len({event["user_id"] for event in life.sent}) == len(life.sent)
