"""Mandrill: the URL is signed with the form, it asks before there is a key, and its events come in batches."""

from __future__ import annotations

import base64
import hmac
import json
import sqlite3
from typing import Any
from urllib.parse import urlencode

import pytest

from mappers.mandrill import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from tests import acme
from tests.conftest import RunningRelay, RunRelay

pytestmark = pytest.mark.anyio

KEY = "key of the webhook"
URL = "https://user:password@relay.example/webhooks/mandrill"
KNOWN = {"acme": acme.make(), "mandrill": provider}


def click(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event": "click",
        "_id": f"message{number}",
        "ts": 1_795_000_000,
        "url": "https://shop.example.com/",
        "msg": {"_id": f"message{number}", "email": f"reader{number}@example.com", "metadata": []},
        **fields,
    }


def signed(events: str, *, key: str = KEY, url: str = URL) -> Delivery:
    mac = hmac.digest(key.encode(), f"{url}mandrill_events{events}".encode(), "sha1")
    body = urlencode({"mandrill_events": events}).encode()
    return Delivery(body=body, headers={"x-mandrill-signature": base64.b64encode(mac).decode()}, url=URL)


def test_the_url_is_signed_as_it_was_typed_in_and_the_field_decoded() -> None:
    events = json.dumps([click(1, subject="Grüße & more")])
    verify = provider.verifier.verify

    assert Accepted(0) == verify(signed(events), [KEY], now_ms=0)
    assert Refused(Reason.MISMATCH_OR_URL) == verify(
        signed(events, url=URL.replace("user:password@", "")), [KEY], now_ms=0
    )


# --- over a socket ----------------------------------------------------------------------------------------------------

AT = {"RELAY_MANDRILL_SECRET": KEY, "RELAY_PUBLIC_URL": "https://relay.example"}
THERE = "https://relay.example/webhooks/mandrill"


async def post(relay: RunningRelay, events: Any, **how: str) -> int:
    sent = signed(json.dumps(events), url=THERE, **how)
    return (await relay.post(sent.body, source="mandrill", headers=dict(sent.headers))).status_code


def count(relay: RunningRelay, table: str, where: str = "1") -> int:
    with sqlite3.connect(relay.database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


async def test_it_hears_that_somebody_is_there_before_it_gives_the_key(run_relay: RunRelay) -> None:
    """With a HEAD, and if that is not answered with an empty batch, signed with a key that everybody knows."""
    async with run_relay(KNOWN, **AT) as relay:
        head = await relay.http.head("/webhooks/mandrill")

        assert (200, 200) == (head.status_code, await post(relay, [], key="test-webhook"))
        assert 401 == await post(relay, [click(1)], key="test-webhook")
        assert 0 == count(relay, "deliveries")


async def test_a_bad_item_parks_alone_and_what_comes_again_counts_once(run_relay: RunRelay) -> None:
    batch = [click(number) for number in range(300)]
    batch[41] |= {"ts": "soon"}
    async with run_relay(KNOWN, **AT) as relay:
        assert (200, 200) == (await post(relay, batch), await post(relay, batch[:100]))

        assert (1, 299) == (count(relay, "deliveries"), count(relay, "events"))
        assert 1 == count(relay, "notifications", "outcome = 'failed'")


async def test_lists_of_addresses_are_known_and_left_out(run_relay: RunRelay) -> None:
    change = {"type": "denylist", "action": "add", "ts": 1_795_000_000, "reject": {"email": "ada@example.com"}}
    async with run_relay(KNOWN, **AT) as relay:
        await post(relay, [change, click(1)])

        assert 1 == count(relay, "events")
        assert 1 == count(relay, "notifications", "outcome = 'ignored'")
