"""How a life is written down: what happens, in a function, and beside it the ledger that must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.scenarios.stripe.shop import Shop

OPTIONS = ("payment_intents", "charges")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What happens, in its own words (its docstring), and what must come of it."""

    happens: Callable[[Shop], None]
    ledger: str
    revenue: Mapping[str, str]
    #: Whether it is told with the options on, with them off, or in both ways.
    options: tuple[tuple[str, ...], ...] = ((), OPTIONS)
    policy: Mapping[str, Any] = field(default_factory=dict)
    #: Types that no drop may hit with the options on in basil: nothing else says that a payment has an invoice.
    links: tuple[str, ...] = ()
    #: Types that no drop may hit at all: nothing else says that a payment is the first after a trial.
    words: tuple[str, ...] = ()


LIVES: list[Life] = []


def life(ledger: str, **given: Any) -> Callable[[Callable[[Shop], None]], Callable[[Shop], None]]:
    """A life; of its ledger each line is who, what, and how much where there is money in it."""

    def register(happens: Callable[[Shop], None]) -> Callable[[Shop], None]:
        LIVES.append(Life(happens=happens, ledger=ledger, **given))
        return happens

    return register
