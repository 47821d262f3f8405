"""MailerSend: its signature covers the bytes as they came, and it asks before there is a secret."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from mappers.mailersend import provider
from relay.contract import Accepted, Answer, Delivery
from relay.rehearsal import START_MS
from tests import acme
from tests.conftest import RunRelay

CHECK = {"type": "webhook.test", "message": "Is anybody there?", "created_at": "2026-11-20T10:15:30.577080Z"}


def test_a_signature_made_elsewhere_fits() -> None:
    r"""HMAC-SHA256 of the body under the key, by `openssl dgst`; MailerSend writes each slash as `\/`."""
    body = rb'{"type":"activity.sent","url":"https:\/\/relay.example\/"}'
    headers = {
        "signature": "7d0a6156761739b68f3d3d82e9478e5e772056933e9a420f8ca99278b40064ad",
    }

    assert Accepted(0) == provider.verifier.verify(Delivery(body=body, headers=headers), ["a-key"], now_ms=START_MS)


def test_the_first_of_several_clicks_is_told_with_all_of_them() -> None:
    assert {"activity.clicked_unique", "activity.opened_unique"} <= provider.ignored


@pytest.mark.anyio
async def test_it_hears_that_somebody_is_there_before_the_webhook_is_made(run_relay: RunRelay) -> None:
    """The check of the URL is signed with a key that everybody knows, and so it has no effect."""
    known = {"acme": acme.make(), "mailersend": provider}
    async with run_relay(known, RELAY_MAILERSEND_SECRET="any long text") as relay:
        answers = [
            await relay.post(json.dumps(body).encode(), source="mailersend", headers={"signature": "0" * 64})
            for body in (CHECK, {**CHECK, "type": "activity.clicked", "data": {"id": "1"}})
        ]

        assert [200, 401] == [answer.status_code for answer in answers]
        with sqlite3.connect(relay.database) as connection:
            assert (0,) == connection.execute("SELECT count(*) FROM deliveries").fetchone()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"type":',
        json.dumps({**CHECK, "type": "activity.sent"}),
        json.dumps({**CHECK, "x": "x" * 1000}),
    ],
)
def test_only_the_check_is_answered_unsigned(body: Any) -> None:
    raw = body if isinstance(body, bytes) else body.encode()

    assert provider.handshake(Delivery(body=raw, headers={})) is None
    assert Answer() == provider.handshake(Delivery(body=json.dumps(CHECK).encode(), headers={}))
