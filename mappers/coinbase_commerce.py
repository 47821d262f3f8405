"""Coinbase Commerce. https://docs.cdp.coinbase.com/commerce/introduction/webhooks (API 2018-03-22, read 2026-11-23).

In: notifications of a charge: fixed or free price, paid on-chain, in the older form (`addresses`) and in the newer one
(`web3_data`). A sale is told when it is confirmed, or when a payment too small, too large or too late was resolved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from relay.contract import Draft, Notification, Person, Provider, SecretShape, conversion, event, field
from relay.money import from_major
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="coinbase_commerce",
    title="Coinbase Commerce",
    docs="https://docs.cdp.coinbase.com/commerce/introduction/webhooks",
    verifier=hmac_sha256(header="X-CC-Webhook-Signature"),
    notification_id=field("event.id"),
    notification_type=field("event.type"),
    secret=SecretShape(
        meaning="Coinbase Commerce > Settings > Notifications > Webhook subscriptions: the shared secret"
    ),
)

# `pending` is the payment that `confirmed` tells once it is final, `delayed` one that waits to be resolved by hand
provider.ignores("charge:created", "charge:pending", "charge:delayed")


def _ms(text: str) -> int:
    """RFC 3339, as Unix milliseconds."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


Money = tuple[Decimal, str]


def _money(local: Json) -> Money:
    return from_major(local["amount"]), str(local["currency"].upper())


def _asked(charge: Json) -> Money | None:
    price = (charge.get("pricing") or {}).get("local")
    return _money(price) if price else None


def _came(charge: Json) -> Money | None:
    """What all payments were worth, in the currency of the charge."""
    paid = [_money(payment["value"]["local"]) for payment in charge["payments"]]
    return (sum((amount for amount, _ in paid), Decimal(0)), paid[0][1]) if paid else None


def _id(charge: Json) -> str:
    """Until 2021 its code was all that it had."""
    return str(charge.get("id") or charge["code"])


def _about(charge: Json) -> dict[str, Any]:
    metadata = charge.get("metadata") or {}
    last = (charge.get("payments") or [{}])[-1]
    properties = {
        "order_id": charge.get("code"),
        "charge_id": charge.get("id"),
        "checkout_id": (charge.get("checkout") or {}).get("id"),
        "network": last.get("network"),
        "paid_with": ((last.get("value") or {}).get("crypto") or {}).get("currency"),
    }
    return {
        "person": Person(email=metadata.get("email") or metadata.get("customer_email")),
        "metadata": metadata,
        "properties": {name: value for name, value in properties.items() if value},
    }


@provider.on("charge:confirmed", "charge:resolved")
def paid(n: Notification) -> Iterator[Draft]:
    """Confirmed is what was asked for; resolved whatever came."""
    charge, told = n.body["event"]["data"], n.body["event"]["created_at"]
    is_resolved = n.type == "charge:resolved"
    money = (_came(charge) if is_resolved else None) or _asked(charge) or _came(charge)
    if money and money[0]:
        yield conversion(
            "purchase",
            once=f"charge:{_id(charge)}",
            at_ms=_ms(charge.get("confirmed_at") or told),
            revenue=money[0],
            currency=money[1],
            **_about(charge),
        )


@provider.on("charge:failed")
def failed(n: Notification) -> Iterator[Draft]:
    """It expired without a payment, or what came was not enough."""
    charge, at_ms = n.body["event"]["data"], _ms(n.body["event"]["created_at"])
    draft, last = _about(charge), (charge.get("timeline") or [{}])[-1]
    name = (
        "payment_failed"
        if charge.get("payments") or last.get("status") not in {None, "EXPIRED"}
        else "checkout_expired"
    )
    if asked := _asked(charge):
        draft["properties"] |= {"amount": asked[0], "currency": asked[1]}
    if reason := last.get("context") or last.get("status"):
        draft["properties"] |= {"reason": reason.lower()}
    yield event(name, once=f"{name}:{_id(charge)}", at_ms=at_ms, **draft)
