"""Acme Pay: a made-up provider with everything that a provider can have, for tests of the relay itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relay.contract import (
    Delivery,
    Draft,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    field,
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

SECRET = "acme_secret_1"


def _items(body: Any) -> Any:
    return body if isinstance(body, list) else (body,)


def make() -> Provider:
    """A fresh one, so that a test may change it."""
    provider = Provider(
        name="acme",
        title="Acme Pay",
        docs="https://docs.acme.example/webhooks",
        verifier=hmac_sha256(header="X-Acme-Signature"),
        notification_id=field("id"),
        notification_type=field("type"),
        items=_items,
        is_test=lambda item: bool(item.body.get("test")),
        secret=SecretShape(meaning="Settings, Webhooks, Signing secret", prefix="acme_"),
        options={"lookups": "also count lookups"},
    )

    @provider.on("payment.captured")
    def purchase(n: Notification) -> Iterator[Draft]:
        payment = n.body["payment"]
        yield conversion(
            "purchase",
            once=f"payment:{payment['id']}",
            person=Person(email=payment["email"]),
            revenue=from_minor(payment["amount"], payment["currency"]),
            currency=payment["currency"],
            at_ms=payment["captured_at"] * 1000,
            properties={"order_id": payment["id"]},
        )

    @provider.on("lookup", option="lookups")
    def lookup(n: Notification) -> Iterator[Draft]:
        yield conversion("lookup", once=n.id, at_ms=1_795_000_000_000)

    provider.ignores("payment.authorized")
    return provider


def captured(number: int | str, *, notification: str | None = None, **payment: Any) -> dict[str, Any]:
    """A notification of a sale of 19.99 EUR."""
    return {
        "id": notification or f"ntf_{number}",
        "type": "payment.captured",
        "payment": {"id": f"pay_{number}", "email": "buyer@example.com", "amount": 1999, "currency": "eur",
                    "captured_at": 1_795_000_000, **payment},
    }  # fmt: skip


def signed(body: bytes, *, secret: str = SECRET, now_ms: int = 0) -> dict[str, str]:
    """The headers with which Acme sends this body."""
    return dict(make().verifier.sign(Delivery(body=body, headers={}), secret, now_ms=now_ms).headers)
