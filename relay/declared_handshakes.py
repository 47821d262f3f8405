"""What a sender wants to hear before it sends anything, for a declared source: a value of its own, echoed.

In: `[sources.<slug>.handshake]`. Out: answers to a GET with the parameter, and to a POST whose body says what it is.
Anyone may ask, and gets back no more than what he sent; a handshake has no effect, and is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from relay.contract import Answer, Delivery, Item, parse_json
from relay.declarations import HandshakeTable
from relay.expressions import Expression, NameOf, is_true
from relay.places import pairs
from relay.verification import Reason, Refused, Verdict, Verifier

#: No challenge is longer.
_LONGEST = 1000
#: A handshake is short: the body of anything else is not read twice.
_LONGEST_BODY = 10_000

Greeting = Callable[[Delivery], Answer | None]


def greeting_of(table: HandshakeTable, name_of: NameOf) -> Greeting:
    """The answer to a POST that is a handshake; None to every other."""
    if table.when is None or table.answer is None:
        return lambda _delivery: None
    when = Expression(table.when, name_of("handshake.when"))
    answer = Expression(table.answer, name_of("handshake.answer"))

    def greet(delivery: Delivery) -> Answer | None:
        if len(delivery.body) > _LONGEST_BODY:
            return None
        try:
            item = Item(parse_json(delivery.body), delivery.headers)
            return _echo(answer.value(item)) if is_true(when.value(item)) else None
        except Exception:  # noqa: BLE001  strangers choose the bytes, and whatever these are, they are none
            return None

    return greet


def challenge_of(table: HandshakeTable) -> Callable[[Delivery, str], Answer | None]:
    """The answer to a GET with the parameter; None without it, and where it comes twice."""

    def answer(delivery: Delivery, _secret: str) -> Answer | None:
        found = [value for name, value in pairs(delivery.query) if name == table.query]
        return _echo(found[0]) if len(found) == 1 else None

    return answer


def _echo(value: Any) -> Answer | None:
    """A text or number as it is, an object as JSON."""
    match value:
        case dict():
            raw, kind = orjson.dumps(value), "application/json"
        case str() | int() if not isinstance(value, bool):
            raw, kind = str(value).encode(errors="replace"), "text/plain; charset=utf-8"
        case _:
            return None
    return Answer(body=raw, content_type=kind) if len(raw) <= _LONGEST else None


@dataclass(frozen=True, slots=True)
class Greeted:
    """A verifier that takes no handshake for a webhook, even where the sender signs it as one."""

    verifier: Verifier
    greeting: Greeting

    @property
    def family(self) -> str:
        return self.verifier.family

    @property
    def tolerance_s(self) -> int | None:
        return self.verifier.tolerance_s

    @property
    def signs_url(self) -> bool:
        return self.verifier.signs_url

    @property
    def credentials(self) -> tuple[str, ...]:
        return self.verifier.credentials

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        if self.greeting(delivery) is not None:
            return Refused(Reason.MISSING)
        return self.verifier.verify(delivery, secrets, now_ms=now_ms, tolerance_s=tolerance_s)

    def fault(self, secret: str) -> str | None:
        return self.verifier.fault(secret)

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        return self.verifier.sign(delivery, secret, now_ms=now_ms)
