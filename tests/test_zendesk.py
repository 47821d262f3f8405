"""Zendesk: promises that take more than one notification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mappers.zendesk import provider
from relay.contract import Accepted, Delivery
from relay.rehearsal import START_MS, Life, rehearse


@pytest.fixture
def life() -> Iterator[Life]:
    with rehearse(provider) as stage:
        yield stage.begin()


def told(event_id: str, kind: str, **detail: Any) -> Delivery:
    said = {"type": f"zen:event-type:{kind}", "id": event_id, "time": "2026-11-20T10:20:18Z", "detail": detail}
    return Delivery(body=json.dumps(said).encode(), headers={})


def test_an_event_and_a_trigger_that_tell_one_ticket_are_one(life: Life) -> None:
    life.tell(told("e1", "ticket.created", id=35436, requester_id=7))
    life.tell(told("trigger-35436", "ticket.created", id="35436", requester={"email": "erika@example.com"}))
    life.finish()

    assert ["support_ticket_created"] == [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("is_first", [True, False], ids=["before it", "after it"])
def test_a_ticket_is_its_requesters_whenever_that_is_told(life: Life, *, is_first: bool) -> None:
    who = told("e1", "user.created", id="7", email="erika@example.com", role="end-user")
    what = told("e2", "ticket.created", id="35436", requester_id="7")
    for delivery in (who, what) if is_first else (what, who):
        life.tell(delivery)
    life.finish()

    assert (2, 1) == (len(life.sent), len({event["user_id"] for event in life.sent}))


def test_the_time_may_have_nine_decimals(life: Life) -> None:
    body = json.loads(told("e1", "user.created", id="7", email="erika@example.com").body)
    life.tell(Delivery(body=json.dumps({**body, "time": "2026-11-18T10:20:18.465719851Z"}).encode(), headers={}))
    life.finish()

    assert [1_794_997_218_465] == [event["timestamp"] for event in life.sent]


def test_a_signature_made_elsewhere_fits() -> None:
    """Base64 of the HMAC-SHA256 of `2024-04-17T17:18:10Z{}` under the key, by `openssl dgst`."""
    headers = {
        "x-zendesk-webhook-signature": "xyWszgtAHXH0OZMVvmw/tIc4KPWUg8Y2yvnZiCxSuxg=",
        "x-zendesk-webhook-signature-timestamp": "2024-04-17T17:18:10Z",
    }

    assert Accepted(0) == provider.verifier.verify(Delivery(body=b"{}", headers=headers), ["a-key"], now_ms=START_MS)
