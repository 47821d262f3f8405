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
from tests import acme
from tests.conftest import RunRelay

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


@pytest.mark.anyio
@pytest.mark.parametrize(("signed", "expected"), [("hooks.example", 200), ("other.example", 401)])
async def test_no_header_says_what_the_url_is(run_relay: RunRelay, signed: str, expected: int) -> None:
    """Only the configured one counts: whoever may choose headers could choose what is signed."""
    raw = json.dumps(body("payment.updated__completed")).encode()
    mac = hmac.digest(b"key", f"https://{signed}/webhooks/square".encode() + raw, "sha256")
    headers = {
        "x-square-hmacsha256-signature": base64.b64encode(mac).decode(),
        "host": "other.example",
        "x-forwarded-host": "other.example",
        "x-forwarded-proto": "https",
        "forwarded": "host=other.example;proto=https",
    }
    settings = {"RELAY_SQUARE_SECRET": "key", "RELAY_PUBLIC_URL": "https://hooks.example"}
    async with run_relay({"acme": acme.make(), "square": provider}, **settings) as relay:
        answer = await relay.http.post("/webhooks/square", content=raw, headers=headers)

    assert expected == answer.status_code
