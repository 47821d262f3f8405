"""GitHub: its published signature, and purchases that two webhooks tell."""

from __future__ import annotations

import json

from mappers.github import provider
from relay.contract import Accepted, Delivery
from relay.rehearsal import START_MS, rehearse

PLAN = {"id": 435, "name": "Basic", "price_model": "flat-rate", "monthly_price_in_cents": 1000}
PURCHASE = {"account": {"id": 1, "type": "User"}, "billing_cycle": "monthly", "unit_count": 1, "plan": PLAN}


def purchased(guid: str) -> Delivery:
    body = {
        "action": "purchased",
        "effective_date": "2026-11-20T00:00:00+00:00",
        "sender": {"id": 2, "email": "erika@example.com"},
        "marketplace_purchase": PURCHASE,
    }
    headers = {"x-github-event": "marketplace_purchase", "x-github-delivery": guid}
    return Delivery(body=json.dumps(body).encode(), headers=headers)


def test_the_signature_of_the_documentation_is_accepted() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (read 2026-11-24)."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    sent = Delivery(body=b"Hello, World!", headers={"x-hub-signature-256": signature})

    assert Accepted(0) == provider.verifier.verify(sent, ("It's a Secret to Everybody",), now_ms=START_MS)


def test_a_purchase_that_two_webhooks_tell_counts_once() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(purchased("guid-1"), purchased("guid-2"))
        life.finish()

        assert ["subscription_started"] == [event["event_name"] for event in life.sent]
