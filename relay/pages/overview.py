"""The first page: what needs attention, how much came and went, charts, and each source and destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from relay.pages.charts import Chart, chart
from relay.pages.health import (
    DestinationHealth,
    SourceHealth,
    answers_of,
    attention,
    hours_of,
    source_health,
)
from relay.pages.visits import Visit
from relay.store.counting import HOUR_MS, MINUTE_MS, Count, Counted

_DAY_MS = 24 * HOUR_MS
_WEEKS_MS = 14 * _DAY_MS


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
        charts=_charts(counted, unsent, window, since_ms, visit.now_ms), totals=_totals(counted, unsent),
        by_source=_by(counted.counts, lambda count: count.source),
        by_destination=_by(counted.counts, lambda count: count.destination),
        unsent_by=_by(unsent.counts, lambda count: count.destination),
        money=_money(counted, unsent), is_complete=counted.is_complete and unsent.is_complete,
    )  # fmt: skip


async def healths(visit: Visit) -> list[SourceHealth]:
    """How each source is doing."""
    seen = await visit.console.last_seen()
    weeks = await visit.console.counted(width_ms=HOUR_MS, since_ms=visit.now_ms - _WEEKS_MS)
    answers = answers_of(visit.things.metrics)
    causes = await visit.things.store.rejected.causes(since_ms=visit.now_ms - _DAY_MS)
    newest = {cause.source: cause for cause in sorted(causes, key=lambda cause: cause.newest_ms)}
    return [
        source_health(
            source, last_ms=seen.get(slug), hours=hours_of(weeks.counts, slug), answers=answers.get(slug, {}),
            now_ms=visit.now_ms, cause=newest.get(slug),
        )
        for slug, source in sorted(visit.things.settings.sources.items())
    ]  # fmt: skip


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


def _totals(counted: Counted, unsent: Counted) -> Mapping[str, int]:
    totals: Counter[str] = Counter()
    for count in counted.counts:
        totals[count.measure] += count.n
    for count in unsent.counts:
        if count.measure in {"pending", "dead"}:
            totals["unsent"] += count.n
    totals["sent"] = max(0, totals["events"] - totals["unsent"])
    return totals


def _by(counts: Sequence[Count], key: Any) -> Mapping[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for count in counts:
        found.setdefault(key(count), Counter())[count.measure] += count.n
    return found


@dataclass(frozen=True, slots=True)
class Money:
    currency: str
    #: In millionths: what was accepted as revenue, what is still to be, and what was given back.
    forwarded: int
    waiting: int
    refunded: int


def _money(counted: Counted, unsent: Counted) -> list[Money]:
    made: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for count in counted.counts:
        made[count.measure] += count.n
    for count in unsent.counts:
        waiting[count.measure] += count.n
    currencies = sorted({measure.partition(":")[2] for measure in made if ":" in measure})
    found = [
        Money(
            currency, made[f"revenue:{currency}"] - waiting[f"revenue:{currency}"], waiting[f"revenue:{currency}"],
            made[f"refunded:{currency}"],
        )
        for currency in currencies
    ]  # fmt: skip
    return sorted(found, key=lambda one: -one.forwarded)
