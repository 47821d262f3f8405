"""Supabase: hooks that are repeated under another id, and secrets with a comma in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mappers.supabase import provider
from relay.contract import Accepted, Delivery, Refused
from relay.rehearsal import START_MS, rehearse
from relay.signatures import standard_webhooks
from relay.sources import secrets_in

SECRETS = (
    "v1,whsec_c29tZS1zZWNyZXQtb2YtMzItYnl0ZXMtYW5kLW1vcmU=",
    "v1,whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtb3Itc28=",
)


def hook(name: str, uuid: str) -> Delivery:
    user: dict[str, Any] = {"id": "ff7fc9ae-3b1b-4642-9241-64adb9848a03", "email": "erika@example.com"}
    user |= {"created_at": "0001-01-01T00:00:00Z", "app_metadata": {"provider": "email"}, "is_anonymous": False}
    metadata = {"uuid": uuid, "time": "2026-11-20T10:20:00.755552-07:00", "name": name, "ip_address": "192.0.2.1"}
    return Delivery(body=json.dumps({"metadata": metadata, "user": user}).encode(), headers={})


def inserted() -> Delivery:
    user = {"id": "ff7fc9ae-3b1b-4642-9241-64adb9848a03", "created_at": "2026-11-20T17:20:00.1+00:00"}
    body = {"type": "INSERT", "schema": "auth", "table": "users", "record": user, "old_record": None}
    return Delivery(body=json.dumps(body).encode(), headers={})


def signed(delivery: Delivery, secret: str, webhook_id: str) -> Delivery:
    named = replace(delivery, headers={**delivery.headers, "webhook-id": webhook_id})
    return standard_webhooks().sign(named, secret, now_ms=START_MS)


def test_a_hook_that_is_tried_again_under_another_id_is_the_same_notification() -> None:
    once, again = (signed(hook("after-user-created", "u1"), SECRETS[0], found) for found in ("m1", "m2"))

    assert 1 == len({found.id for one in (once, again) for found in provider.notifications(one)})


def test_a_sign_up_that_both_hooks_and_the_table_tell_counts_once() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        for told in (hook("before-user-created", "u1"), inserted(), hook("after-user-created", "u2")):
            life.tell(told)
        life.finish()

        assert ["signup"] == [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("separator", [", ", " "])
def test_each_of_two_signatures_opens_the_door(separator: str) -> None:
    one, other = (signed(hook("after-user-created", "u1"), secret, "m1") for secret in SECRETS)
    both = separator.join(found.headers["webhook-signature"] for found in (one, other))
    sent = replace(one, headers={**one.headers, "webhook-signature": both})

    for secret in SECRETS:
        assert Accepted(0) == provider.verifier.verify(sent, (secret,), now_ms=START_MS)


def test_the_version_before_a_secret_is_no_token() -> None:
    secrets = secrets_in(", ".join(SECRETS))
    sent = Delivery(body=b"{}", headers={"authorization": "Bearer v1", "x-webhook-secret": "v1"})

    assert list(SECRETS) == secrets
    assert isinstance(provider.verifier.verify(sent, secrets, now_ms=START_MS), Refused)


@pytest.mark.parametrize("headers", [{"authorization": "Bearer a-long-text"}, {"x-webhook-secret": "a-long-text"}])
def test_a_database_webhook_carries_its_secret_in_a_header_that_is_not_stored(headers: dict[str, str]) -> None:
    sent = replace(inserted(), headers=headers)

    assert Accepted(0) == provider.verifier.verify(sent, ("a-long-text",), now_ms=START_MS)
    assert set(headers) <= set(provider.verifier.credentials)
