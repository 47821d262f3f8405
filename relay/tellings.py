"""How often a sale counts, told in words: what an operator asks first of a sale that looks double.

In: notifications that have a name in common. Out: for each sale among them, the events that count and those held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import orjson

from relay.store.base import EventRow
from relay.store.schema import EventState
from relay.store.search import Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """One sale, and how often it was told."""

    name: str
    order: str
    #: The events that count, or will: none is a dead letter.
    counted: Sequence[EventRow]
    #: Of one destination more than one counts.
    is_double: bool
    #: How often it was told again, and held back.
    held_back: int
    #: How often the provider sent a notification once more.
    repeats: int

    @property
    def words(self) -> str:
        if self.is_double:
            ids = ", ".join(event.event_id for event in self.counted)
            return f"{self.name} of {self.order} counts {len(self.counted)} times: {ids}"
        often = "once" if self.counted else "not at all"
        rest = [f"{verb} {_more(n)}" for verb, n in (("told", self.held_back), ("sent", self.repeats)) if n]
        return f"{self.name} of {self.order} counts {often}" + (f" ({', '.join(rest)}: held back)" if rest else "")


def tellings(found: Sequence[Told]) -> list[Telling]:
    """The sales among these, each once. Money given back is no sale: an order may have several refunds."""
    sales: dict[tuple[str, str], dict[int, EventRow]] = {}
    for told in found:
        for event in told.events:
            order = _order_of_sale(event)
            if order is not None:
                sales.setdefault((event.name, order), {})[event.id] = event
    held_back = sum(told.duplicates for told in found)
    repeats = sum(told.repeats for told in found)
    return [
        _telling(name, order, list(events.values()), *((held_back, repeats) if len(sales) == 1 else (0, 0)))
        for (name, order), events in sales.items()
    ]


def _more(n: int) -> str:
    return "once more" if n == 1 else f"{n} times more"


def _telling(name: str, order: str, events: Sequence[EventRow], held_back: int, repeats: int) -> Telling:
    counted = sorted((event for event in events if event.state is not EventState.DEAD), key=lambda event: event.id)
    places = [event.destination for event in counted]
    return Telling(name=name, order=order, counted=counted, is_double=len(places) > len(set(places)),
                   held_back=held_back, repeats=repeats)  # fmt: skip


def _order_of_sale(event: EventRow) -> str | None:
    """What a sale is of; None where it is no sale, or does not say."""
    said = orjson.loads(event.payload)
    try:
        is_sale = Decimal(str(said.get("revenue"))) > 0
    except InvalidOperation:
        return None
    order = said.get("properties", {}).get("order_id")
    return str(order) if is_sale and order is not None else None
