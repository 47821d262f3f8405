"""MailerSend: its signature covers the bytes as they came."""

from __future__ import annotations

from mappers.mailersend import provider
from relay.contract import Accepted, Delivery
from relay.rehearsal import START_MS


def test_a_signature_made_elsewhere_fits() -> None:
    r"""HMAC-SHA256 of the body under the key, by `openssl dgst`; MailerSend writes each slash as `\/`."""
    body = rb'{"type":"activity.sent","url":"https:\/\/relay.example\/"}'
    headers = {
        "signature": "7d0a6156761739b68f3d3d82e9478e5e772056933e9a420f8ca99278b40064ad",
    }

    assert Accepted(0) == provider.verifier.verify(Delivery(body=body, headers=headers), ["a-key"], now_ms=START_MS)


def test_the_first_of_several_clicks_is_told_with_all_of_them() -> None:
    assert {"activity.clicked_unique", "activity.opened_unique"} <= provider.ignored
