"""The first page: what needs attention, how much came and went, charts, and each source and destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from relay.alarms import OLD_MS
from relay.pages.charts import Bar, Chart, chart, spark
from relay.pages.health import DestinationHealth, SourceHealth, attention, source_health
from relay.pages.visits import Visit
from relay.source_states import source_states
from relay.store.counting import HOUR_MS, MINUTE_MS, Counted
from relay.totals import Money, grouped, money, totals

_DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time up to now, and how finely it is drawn."""

    name: str
    words: str
    length_ms: int
    width_ms: int


WINDOWS = {
    window.name: window
    for window in (
        Window("hour", "Last hour", HOUR_MS, MINUTE_MS),
        Window("day", "Last day", _DAY_MS, 30 * MINUTE_MS),
        Window("month", "Last 30 days", 30 * _DAY_MS, _DAY_MS),
    )
}

_OF_NOTIFICATIONS = {"good": "mapped", "quiet": "left out", "bad": "parked"}
_OF_EVENTS = {"good": "sent", "wait": "not yet sent", "bad": "dead"}
_PARTS = {
    "mapped": "good", "ignored": "quiet", "test": "quiet", "failed": "bad", "not_mapped": "bad", "to_do": "bad",
}  # fmt: skip


async def show(visit: Visit) -> Response:
    """The page, or for a script that asks again, its changing part."""
    window = WINDOWS.get(visit.query.get("window", "day"), WINDOWS["day"])
    since_ms = (visit.now_ms - window.length_ms) // window.width_ms * window.width_ms + window.width_ms
    counted = await visit.console.counted(width_ms=window.width_ms, since_ms=since_ms)
    unsent = await visit.console.unsent(width_ms=window.width_ms, since_ms=since_ms)
    sources = await healths(visit)
    destinations = await _destinations(visit)
    found = attention(
        sources=sources, destinations=destinations, kinds=await visit.console.kinds(), trouble=visit.things.trouble(),
        now_ms=visit.now_ms,
    )  # fmt: skip
    template = "overview_live.html" if visit.is_fragment else "overview.html"
    return visit.page(
        template,
        windows=WINDOWS.values(), window=window, attention=found, sources=sources, destinations=destinations,
        charts=_charts(counted, unsent, window, since_ms, visit.now_ms), totals=totals(counted, unsent),
        by_source=grouped(counted.counts, lambda count: count.source),
        by_destination=grouped(counted.counts, lambda count: count.destination),
        unsent_by=grouped(unsent.counts, lambda count: count.destination),
        money=[(one, _spark(one, window, since_ms, visit.now_ms)) for one in money(counted, unsent)], old_ms=OLD_MS,
        is_complete=counted.is_complete and unsent.is_complete,
    )  # fmt: skip


async def healths(visit: Visit) -> list[SourceHealth]:
    """How each source is doing."""
    states = await source_states(visit.things.store, visit.things.settings.sources, now_ms=visit.now_ms)
    return [source_health(one, now_ms=visit.now_ms) for one in states]


async def _destinations(visit: Visit) -> list[DestinationHealth]:
    depths = {depth.destination: depth for depth in await visit.things.store.depths()}
    names = sorted({*visit.things.settings.destinations, *depths})
    return [
        DestinationHealth(name=name, paused=(await visit.things.store.destination(name)).paused, depth=depths.get(name))
        for name in names
    ]


def _charts(counted: Counted, unsent: Counted, window: Window, since_ms: int, now_ms: int) -> list[Chart]:
    told: dict[int, Counter[str]] = {}
    made: dict[int, Counter[str]] = {}
    for count in counted.counts:
        if count.measure in _PARTS:
            told.setdefault(count.bucket_ms, Counter())[_PARTS[count.measure]] += count.n
        elif count.measure == "events":
            made.setdefault(count.bucket_ms, Counter())["good"] += count.n
    for count in unsent.counts:
        if count.measure in {"pending", "dead"} and count.bucket_ms in made:
            part = "wait" if count.measure == "pending" else "bad"
            made[count.bucket_ms][part] += count.n
            made[count.bucket_ms]["good"] -= count.n
    span = {"since_ms": since_ms, "until_ms": now_ms, "width_ms": window.width_ms}
    return [
        chart("What providers said", _OF_NOTIFICATIONS, told, **span),
        chart("Events to your analytics", _OF_EVENTS, made, **span),
    ]


def _spark(one: Money, window: Window, since_ms: int, now_ms: int) -> Sequence[Bar]:
    return spark(one.over_time, since_ms=since_ms, until_ms=now_ms, width_ms=window.width_ms)
