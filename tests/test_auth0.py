"""Auth0: two streams that tell the same, and one secret that may be sent in three ways."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from mappers.auth0 import provider
from relay.contract import Accepted, Delivery, Refused
from relay.rehearsal import START_MS, rehearse
from relay.store.schema import Outcome

USER = "auth0|635f6a1b2c3d4e5f60718293"
AT = "2026-11-20T10:20:00.000Z"


def entry(number: int, **fields: Any) -> dict[str, Any]:
    log = {"type": "ss", "date": AT, "user_id": f"auth0|{number}", "user_name": f"u{number}@example.com", **fields}
    return {"log_id": f"log{number}", "data": log}


def delivery(body: str) -> Delivery:
    return Delivery(body=body.encode(), headers={"content-type": "application/json"})


def test_the_test_of_an_event_stream_is_nobodys_sign_up() -> None:
    user = {"user_id": USER, "email": "erika@example.com", "created_at": AT}
    event = {"specversion": "1.0", "id": "evt_1", "type": "user.created", "time": AT, "data": {"object": user}}
    sent = [{**event, "a0purpose": "test"}, event]

    assert [True, False] == [one.is_test for body in sent for one in provider.notifications(delivery(json.dumps(body)))]


def test_a_sign_up_that_both_streams_tell_counts_once() -> None:
    user = {"user_id": USER, "email": "erika@example.com", "created_at": AT}
    event = {"specversion": "1.0", "id": "evt_1", "type": "user.created", "time": AT, "data": {"object": user}}
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(delivery(json.dumps([entry(1, user_id=USER, user_name="erika@example.com")])))
        life.tell(delivery(json.dumps(event)))
        life.finish()

        assert ["signup"] == [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("bad", [{"date": "soon"}, {"date": None}], ids=str)
def test_one_bad_entry_keeps_its_siblings_from_nothing(bad: dict[str, Any]) -> None:
    operation = entry(3, type="sapi", user_name=None)
    with rehearse(provider) as stage:
        mapped = stage.map(delivery(json.dumps([entry(1), entry(2, **bad), operation, entry(4)])))

    assert [Outcome.MAPPED, Outcome.FAILED, Outcome.IGNORED, Outcome.MAPPED] == [one.outcome for one in mapped]


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ("\n".join(json.dumps(entry(number)) for number in range(3)), 3),
        ("\r\n".join(json.dumps(entry(number)) for number in range(2)) + "\r\n\r\n", 2),
        (json.dumps(entry(1), indent=2), 1),
        (json.dumps([entry(1), entry(2)], indent=2), 2),
        (json.dumps([]), 0),
    ],
    ids=["lines", "lines of windows", "an object over lines", "an array over lines", "nothing"],
)
def test_all_formats_of_a_log_stream_are_read(body: str, number: int) -> None:
    assert number == len(list(provider.notifications(delivery(body))))


@pytest.mark.parametrize(
    ("secret", "sent"),
    [
        ("a-long-text", "a-long-text"),
        ("a-long-text", "Bearer a-long-text"),
        ("Bearer a-long-text", "Bearer a-long-text"),
        ("relay:a-long-text", "Basic " + b64encode(b"relay:a-long-text").decode()),
    ],
)
def test_the_token_may_be_sent_in_each_way_that_auth0_offers(secret: str, sent: str) -> None:
    verify = provider.verifier.verify
    right, wrong = (Delivery(body=b"[]", headers={"authorization": value}) for value in (sent, sent + "x"))

    assert Accepted(0) == verify(right, (secret,), now_ms=START_MS)
    assert isinstance(verify(wrong, (secret,), now_ms=START_MS), Refused)
    assert "authorization" in provider.verifier.credentials
