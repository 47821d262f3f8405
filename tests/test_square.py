"""Square: what takes more than one notification, and the URL in its signature."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from mappers.square import provider
from relay.contract import Accepted, Delivery, Draft, Forgotten, Learned, Reason, Refused
from relay.rehearsal import rehearse

CASES = Path(__file__).parent / "mappers" / "square"
NOW_MS = 1_795_170_000_000


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def delivery(said: Any) -> Delivery:
    return Delivery(body=json.dumps(said).encode(), headers={})


def told(said: Any) -> list[Draft | Learned | Forgotten]:
    (notification,) = provider.notifications(delivery(said))
    return list(provider.mappers[notification.type](notification))


@pytest.mark.parametrize(
    "url, verdict",
    [
        ("https://relay.example/webhooks/square", Accepted(0)),
        ("https://relay.example/webhooks/square/", Refused(Reason.MISMATCH_OR_URL)),
        ("https://other.example/webhooks/square", Refused(Reason.MISMATCH_OR_URL)),
    ],
)
def test_the_url_that_square_knows_is_signed_with_the_body(url: str, verdict: object) -> None:
    raw = b'{"type":"payment.updated"}'
    mac = hmac.digest(b"key", b"https://relay.example/webhooks/square" + raw, "sha256")
    signature = base64.b64encode(mac).decode()
    sent = Delivery(body=raw, headers={"x-square-hmacsha256-signature": signature}, url=url)

    assert verdict == provider.verifier.verify(sent, ("key",), now_ms=NOW_MS)


def test_the_first_invoice_of_a_subscription_starts_it() -> None:
    """The invoice says whose order it is, the subscription which invoice was its first."""
    invoice, subscription = body("invoice.created__subscription"), body("subscription.updated__first_invoice")
    payment = body("payment.updated__invoice")
    payment["data"]["object"]["payment"]["order_id"] = invoice["data"]["object"]["invoice"]["order_id"]
    with rehearse(provider) as stage:
        life = stage.begin()
        for said in (invoice, subscription, payment):
            life.tell(delivery(said))
        life.leave()

    assert ["subscription_started"] == [event["event_name"] for event in life.sent]


def test_a_failed_charge_and_the_invoice_that_tells_of_it_are_one_attempt() -> None:
    invoice, payment = body("invoice.scheduled_charge_failed__subscription"), body("payment.updated__invoice_failed")
    payment["data"]["object"]["payment"]["order_id"] = invoice["data"]["object"]["invoice"]["order_id"]
    keys = [set(draft.once) for said in (invoice, payment) for draft in told(said) if isinstance(draft, Draft)]

    assert keys[0] & keys[1]


@pytest.mark.parametrize("kind", ["order.updated", "invoice.refunded", "dispute.evidence.created", "payout.paid"])
def test_a_twin_is_silent(kind: str) -> None:
    assert (True, False) == (kind in provider.ignored, kind in provider.mappers)
