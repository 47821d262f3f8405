"""What counts add up to: the numbers of the overview, in the console and in the terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.store.counting import Count, Counted


@dataclass(frozen=True, slots=True)
class Money:
    """Of one currency, in millionths."""

    currency: str
    #: What was accepted as revenue, what is still to be, and what was given back.
    forwarded: int
    waiting: int
    refunded: int
    #: What was made of sales, by the beginning of the bucket.
    over_time: Mapping[int, int]


def totals(counted: Counted, unsent: Counted) -> Counter[str]:
    """By measure; `sent` are the events that were accepted, `unsent` the others."""
    found: Counter[str] = Counter()
    for count in counted.counts:
        found[count.measure] += count.n
    for count in unsent.counts:
        if count.measure in {"pending", "dead"}:
            found["unsent"] += count.n
    found["sent"] = max(0, found["events"] - found["unsent"])
    return found


def grouped(counts: Sequence[Count], key: Callable[[Count], str]) -> dict[str, Counter[str]]:
    """By this key, and by measure."""
    found: dict[str, Counter[str]] = {}
    for count in counts:
        found.setdefault(key(count), Counter())[count.measure] += count.n
    return found


def money(counted: Counted, unsent: Counted) -> list[Money]:
    """By currency, the largest first."""
    made: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    over_time: dict[str, Counter[int]] = {}
    for count in counted.counts:
        made[count.measure] += count.n
        if count.measure.startswith("revenue:"):
            over_time.setdefault(count.measure.removeprefix("revenue:"), Counter())[count.bucket_ms] += count.n
    for count in unsent.counts:
        waiting[count.measure] += count.n
    found = []
    for currency in sorted({measure.partition(":")[2] for measure in made if ":" in measure}):
        late = waiting[f"revenue:{currency}"]
        forwarded, refunded = made[f"revenue:{currency}"] - late, made[f"refunded:{currency}"]
        found.append(Money(currency, forwarded, late, refunded, over_time.get(currency, {})))
    return sorted(found, key=lambda one: -one.forwarded)
