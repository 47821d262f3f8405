"""Mailchimp: it asks with a GET, and signs nothing."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from mappers.mailchimp import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from tests import acme
from tests.conftest import RunRelay

pytestmark = pytest.mark.anyio

FORM = {
    "type": "subscribe",
    "fired_at": "2026-11-20 13:10:40",
    "data[id]": "94826aa750",
    "data[list_id]": "f1243a3b12",
    "data[email]": "ada@example.com",
}


def form(**fields: str) -> bytes:
    return urlencode({**FORM, **fields}).encode()


async def test_whoever_asks_hears_that_somebody_is_there_and_whoever_tells_needs_the_token(run_relay: RunRelay) -> None:
    known = {"acme": acme.make(), "mailchimp": provider}
    async with run_relay(known, RELAY_MAILCHIMP_SECRET="long and random") as relay:
        asked = await relay.http.get("/webhooks/mailchimp")
        told = [
            (await relay.http.post("/webhooks/mailchimp", params=params, content=form())).status_code
            for params in ({}, {"token": "guessed"}, {"token": "long and random"})
        ]

    assert (200, [401, 401, 200]) == (asked.status_code, told)


def test_what_is_told_again_counts_once_and_who_comes_back_counts_again() -> None:
    left = form(type="unsubscribe", fired_at="2026-11-21 09:00:00", **{"data[action]": "unsub"})
    back = form(fired_at="2026-11-22 09:00:00")
    with rehearse(provider) as stage:
        life = stage.begin()
        for body in (form(), form(), left, left, back):
            life.tell(Delivery(body=body, headers={}))
        life.finish()

        names = [event["event_name"] for event in life.sent]

    assert ["newsletter_subscribed", "email_unsubscribed", "newsletter_subscribed"] == names


def test_no_key_holds_an_address() -> None:
    cleaned = {"type": "cleaned", "fired_at": "2026-11-20 13:10:40", "data[email]": "ada@example.com"}
    (notification,) = provider.notifications(Delivery(body=urlencode(cleaned).encode(), headers={}))

    assert "@" not in notification.id
