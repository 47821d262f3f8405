"""Things that tests need: a clock to set, sealed events, arrivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from relay.contract import Draft, Forgotten, Learned, Notification, Person, conversion
from relay.sealing import Entity, Sealed, SourcePolicy, forget, learn, seal
from relay.store.base import Arrival, Mapped, Outgoing
from relay.store.schema import Outcome

NOON = 1_795_000_000_000
DAY = 86_400_000
POLICY = SourcePolicy(source="shop", provider="acme")


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now_ms: int = NOON) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, *, days: float = 0, seconds: float = 0, ms: int = 0) -> None:
        self.now_ms += int(days * DAY + seconds * 1000) + ms


def notification(number: int | str, **values: Any) -> Notification:
    return Notification(**{"id": f"evt_{number}", "type": "payment.captured", "body": {}, "headers": {}, **values})


def purchase(number: int | str, **values: Any) -> Draft:
    """A draft of a sale of 19.99 EUR."""
    given: dict[str, Any] = {
        "once": f"payment:{number}",
        "at_ms": NOON,
        "person": Person(email="buyer@example.com"),
        "revenue": Decimal("19.99"),
        "currency": "EUR",
        "properties": {"order_id": f"order_{number}"},
        **values,
    }
    return conversion("purchase", **given)


def sealed(draft: Draft, number: int | str = 1, policy: SourcePolicy = POLICY) -> Sealed:
    found = seal(draft, notification(number), policy)
    assert isinstance(found, Sealed)
    return found


def mapped(
    number: int | str,
    *drafts: Draft,
    learned: Sequence[Learned | Forgotten] = (),
    outcome: Outcome = Outcome.MAPPED,
    wait_until_ms: int | None = None,
    destination: str = "default",
    error: str | None = None,
) -> Mapped:
    return Mapped(
        notification_id=f"evt_{number}",
        type="payment.captured",
        outcome=outcome,
        error=error,
        events=[
            Outgoing(
                sealed=sealed(draft, number),
                destination=destination,
                wait_until_ms=wait_until_ms if draft.waits else None,
            )
            for draft in drafts
        ],
        learned=[entity(fact, number) for fact in learned],
    )


def entity(fact: Learned | Forgotten, number: int | str = 1) -> Entity:
    if isinstance(fact, Forgotten):
        return forget(fact, notification(number))
    return learn(fact, notification(number), POLICY)


def arrival(*notifications: Mapped, source: str = "shop", headers: Mapping[str, str] | None = None,
            **values: Any) -> Arrival:  # fmt: skip
    return Arrival(
        **{
            "source": source,
            "received_at_ms": NOON,
            "secret": 0,
            "headers": dict(headers or {"content-type": "application/json"}),
            "body": b'{"id":1}',
            "notifications": notifications,
            **values,
        }
    )


def sale(number: int | str, **values: Any) -> Arrival:
    """A delivery with one notification that tells one sale."""
    return arrival(mapped(number, purchase(number, **values)))
