"""What arrived at the sandbox, and whether it is what was acknowledged: every webhook once, with its own amount."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import orjson

from bench.checkout import number_of, revenue_of

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A comparison of what was acknowledged and what arrived, in numbers of checkouts."""

    acknowledged: int
    events: int
    #: Acknowledged, and not there.
    lost: int
    #: There more than once.
    twice: int
    #: There, and never acknowledged (which is no fault: the answer may have been lost).
    unasked: int
    #: With another amount, or of no checkout of ours.
    wrong: int

    @property
    def exactly_once(self) -> bool:
        """Every acknowledged webhook is there once, with its amount, and nothing else is."""
        return not (self.lost or self.twice or self.unasked or self.wrong)

    @property
    def words(self) -> str:
        """For the console."""
        if self.exactly_once:
            return f"{self.acknowledged:,} acknowledged, {self.events:,} events: [green]each once[/]"
        faults = f"{self.lost} lost, {self.twice} twice, {self.unasked} never acknowledged, {self.wrong} wrong"
        return f"{self.acknowledged:,} acknowledged, {self.events:,} events: [bold red]{faults}[/]"


def compare(acknowledged: AbstractSet[int], events: Iterable[Json]) -> Arrived:
    """Hold what arrived against what was acknowledged."""
    seen: Counter[int] = Counter()
    wrong = total = 0
    for event in events:
        total += 1
        number = number_of(event)
        if number is None or Decimal(str(event.get("revenue"))) != revenue_of(number):
            wrong += 1
        else:
            seen[number] += 1
    return Arrived(
        acknowledged=len(acknowledged),
        events=total,
        lost=len(acknowledged - seen.keys()),
        twice=sum(times > 1 for times in seen.values()),
        unasked=len(seen.keys() - acknowledged),
        wrong=wrong,
    )


def received(sandbox: httpx.Client) -> Iterator[Json]:
    """The events that the sandbox accepted."""
    events: list[Json] = orjson.loads(sandbox.get("/received").raise_for_status().content)
    yield from events


def count(sandbox: httpx.Client) -> int:
    """How many events the sandbox has accepted."""
    return int(sandbox.get("/received", params={"count": 1}).raise_for_status().json()["count"])


def forget(sandbox: httpx.Client) -> None:
    """Let the sandbox begin anew."""
    sandbox.delete("/received").raise_for_status()


def last_at(sandbox: httpx.Client) -> float:
    """When the sandbox last accepted an event, in Unix seconds."""
    calls: list[Json] = sandbox.get("/requests").raise_for_status().json()
    return float(max(call["at_ms"] for call in calls if call["events"])) / 1000


def wait_for(found: Callable[[], int], expected: int, *, within_s: float, every_s: float = 0.01) -> float:
    """Wait until there are so many (or nothing has come for `within_s`). Returns when that was, in Unix seconds."""
    last, quiet_since = -1, time.time()
    while True:
        now_there, now = found(), time.time()
        if now_there >= expected:
            return now
        if now_there != last:
            last, quiet_since = now_there, now
        elif now - quiet_since > within_s:
            return quiet_since
        time.sleep(every_s)
