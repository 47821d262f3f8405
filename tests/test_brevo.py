"""Brevo: what is said twice, how it proves itself, and which of its times is true."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from mappers.brevo import provider
from relay.contract import Accepted, Delivery, Draft
from relay.rehearsal import rehearse


def item(event: str, **fields: Any) -> dict[str, Any]:
    return {
        "event": event,
        "email": "ada@example.com",
        "id": 1,
        "message-id": "<202611181106.17112967201@smtp-relay.mailin.fr>",
        "ts_epoch": 1_795_000_000_462,
        **fields,
    }


def delivery(said: Any, **headers: str) -> Delivery:
    return Delivery(body=orjson.dumps(said), headers=headers)


def draft(said: Any) -> Draft:
    (notification,) = provider.notifications(delivery(said))
    (found,) = provider.mappers[notification.type](notification)
    assert isinstance(found, Draft)
    return found


def sent(*told: Any) -> list[str]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for said in told:
            life.tell(delivery(said))
        life.finish()
        return [event["event_name"] for event in life.sent]


def test_the_first_opening_counts_once_under_both_of_its_names() -> None:
    later = item("opened", ts_epoch=1_795_000_060_000)

    assert ["email_opened"] * 2 == sent(item("unique_opened"), item("opened"), later)


def test_two_webhooks_that_tell_the_same_count_once() -> None:
    assert ["email_unsubscribed"] == sent(item("unsubscribed"), [item("unsubscribed", id=2)])


def test_two_recipients_of_one_message_are_two() -> None:
    assert ["email_complained"] * 2 == sent([item("spam"), item("spam", email="bob@example.com")])


@pytest.mark.parametrize(
    "times, at_ms",
    [
        ({"ts_epoch": 1_795_000_000_462, "ts_event": 1_794_967_600, "ts": 1_794_967_600}, 1_795_000_000_462),
        ({"ts_epoch": 1_795_000_000, "ts_event": 1_795_000_001}, 1_795_000_001_000),
        ({"ts_epoch": None, "ts_event": 1_795_000_001, "ts": 1_795_000_007}, 1_795_000_001_000),
        ({"ts_epoch": None, "ts": "1795000007"}, 1_795_000_007_000),
    ],
    ids=["milliseconds", "seconds", "none", "the least"],
)
def test_the_time_is_the_events_own(times: dict[str, Any], at_ms: int) -> None:
    assert at_ms == draft(item("click", **times)).at_ms


@pytest.mark.parametrize(
    "given, metadata",
    [
        ('{"user_id": "user_42"}', {"user_id": "user_42"}),
        ("user_id:user_42|utm_source: mail", {"user_id": "user_42", "utm_source": "mail"}),
        ("some words", {}),
        ("{{ contact.ID }}", {}),
        ("", {}),
        (None, {}),
    ],
    ids=str,
)
def test_what_the_sender_gave_along_is_read_in_each_of_its_forms(given: str | None, metadata: dict[str, str]) -> None:
    assert metadata == draft(item("spam", **{"X-Mailin-custom": given})).metadata


@pytest.mark.parametrize(
    "secret, authorization",
    [("user:password", f"Basic {base64.b64encode(b'user:password').decode()}"), ("token", "Bearer token")],
    ids=["basic", "bearer"],
)
def test_a_login_or_a_token_proves_it(secret: str, authorization: str) -> None:
    told = delivery(item("spam"), authorization=authorization)

    assert Accepted(0) == provider.verifier.verify(told, [secret], now_ms=0)
    assert ("authorization",) == provider.verifier.credentials
