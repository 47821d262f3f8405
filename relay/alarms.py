"""The alarms: what an operator must hear of without looking. Silence, failing signatures, events that do not leave, ...

In: what the store says. Out: the alarms that hold now, the worst first, each with what to do. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Literal

from relay.books import RECONCILED, drift_of
from relay.sources import Source
from relay.store.base import Bookmark, Depth, DestinationState, Store
from relay.store.counting import HOUR_MS
from relay.store.rejected import Cause
from relay.store.schema import Outcome

#: Bookmarks: the alarms that hold, and what is usual for a source, in milliseconds.
ALARM, GAP = "alarm:", "gap:"
_SHADOW = "shadow:"
_DAY_MS = 24 * HOUR_MS
#: A source is silent when it was quiet for so many times its longest pause of late, and for so long at least.
_TIMES, _AT_LEAST_MS = 2, 2 * HOUR_MS
_LOOKS_BACK_MS = 14 * _DAY_MS
#: Fewer hours with deliveries say nothing about what is usual.
_ENOUGH_HOURS = 6
#: So many refused signatures within so long are more than a stranger who tries.
_FAILING, _FAILING_MS = 3, 900_000
#: Events that wait for longer do not leave.
OLD_MS = 600_000
_RECONCILED_MS = 2 * _DAY_MS


class Kind(StrEnum):
    """What an alarm is about."""

    SILENT = "silent"
    SIGNATURES = "signatures"
    SHADOW = "shadow"
    OUTBOX = "outbox"
    PAUSED = "paused"
    DEAD = "dead"
    IN_DOUBT = "in_doubt"
    FAILED = "failed"
    DRIFT = "drift"
    NOT_RECONCILED = "not_reconciled"
    DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    kind: Kind
    #: The source or the destination; empty where it is about the relay itself.
    subject: str
    words: str
    remedy: str
    severity: Literal["critical", "warning"] = "warning"

    @property
    def name(self) -> str:
        return f"{self.kind.value}:{self.subject}"


# --- looking ----------------------------------------------------------------------------------------------------------


def usual_gap_ms(hours: Sequence[int]) -> int | None:
    """The longest pause between hours in which something came; None where too few are known."""
    if len(hours) < _ENOUGH_HOURS:
        return None
    return max(later - earlier for earlier, later in pairwise(sorted(hours)))


def is_silent(last_ms: int | None, gap_ms: int | None, *, now_ms: int) -> bool:
    """Whether a source was quiet for longer than is usual."""
    if last_ms is None or gap_ms is None or not may_be_silent(last_ms, now_ms=now_ms):
        return False
    return now_ms - last_ms > _TIMES * gap_ms


def may_be_silent(last_ms: int | None, *, now_ms: int) -> bool:
    """Whether it was quiet for so long that what is usual must be known."""
    return last_ms is not None and now_ms - last_ms > _AT_LEAST_MS


def shadow_until_ms(marks: Mapping[str, Bookmark], source: str) -> int:
    """Until when a source takes webhooks whatever their signature; 0: it never did."""
    mark = marks.get(_SHADOW + source)
    return 0 if mark is None else min(int(mark.position), mark.noted_at_ms + _DAY_MS)


async def gaps(store: Store, *, now_ms: int) -> dict[str, int]:
    """By source, the longest pause of the last two weeks, in milliseconds."""
    counted = await store.console.counted(width_ms=HOUR_MS, since_ms=now_ms - _LOOKS_BACK_MS)
    hours: dict[str, set[int]] = {}
    for count in counted.counts:
        if count.measure == "deliveries" and count.n > 0:
            hours.setdefault(count.source, set()).add(count.bucket_ms)
    found = {source: usual_gap_ms(sorted(of_source)) for source, of_source in hours.items()}
    return {source: gap for source, gap in found.items() if gap is not None}


async def look(
    store: Store, *, sources: Mapping[str, Source], destinations: Iterable[str], now_ms: int, trouble: str | None
) -> list[Alarm]:
    """The alarms that hold now, the worst first."""
    marks = await store.bookmarks("")
    last = await store.console.last_seen()
    causes = await store.rejected.causes(since_ms=now_ms - _FAILING_MS)
    failed, _ = await store.console.parked_groups(Outcome.FAILED)
    found = [
        *_disk(trouble),
        *_destinations({name: await store.destination(name) for name in destinations}),
        *_depths(await store.depths(), now_ms),
        *_sources(sources, last, marks, causes, now_ms),
        *(
            Alarm(
                kind=Kind.FAILED,
                subject=source,
                severity="critical",
                words=f"{_many(n, 'notification')} could not be mapped, the newest reason: {reason}",
                remedy="They are kept. Correct the mapper, then: relay remap --yes",
            )
            for source, n, reason in _by_source((one.source, one.n, one.reason) for one in failed)
        ),
        *_books(marks, now_ms),
    ]
    return sorted(found, key=lambda alarm: (alarm.severity != "critical", alarm.name))


def _disk(trouble: str | None) -> Iterator[Alarm]:
    if trouble:
        yield Alarm(
            kind=Kind.DISK,
            subject="",
            severity="critical",
            words=f"providers are told to come later: {trouble}",
            remedy="Make room, or lower RELAY_RETAIN_BODIES_DAYS.",
        )


def _destinations(states: Mapping[str, DestinationState]) -> Iterator[Alarm]:
    for name, state in states.items():
        if state.paused:
            yield Alarm(
                kind=Kind.PAUSED,
                subject=name,
                severity="critical",
                words=f"the destination is paused: {state.paused}",
                remedy="Correct its key or its project. Nothing is lost, and it goes on by itself.",
            )


def _depths(depths: Sequence[Depth], now_ms: int) -> Iterator[Alarm]:
    for depth in depths:
        waiting = depth.pending + depth.batched - depth.held
        if waiting > 0 and depth.oldest_ms is not None and now_ms - depth.oldest_ms > OLD_MS:
            minutes = (now_ms - depth.oldest_ms) // 60_000
            yield Alarm(
                kind=Kind.OUTBOX,
                subject=depth.destination,
                severity="critical",
                words=f"{_many(waiting, 'event')} do not leave, the oldest for {minutes} min",
                remedy="relay outbox says what the events API answers; relay doctor tries it.",
            )
        if depth.dead:
            yield Alarm(
                kind=Kind.DEAD,
                subject=depth.destination,
                words=f"{_many(depth.dead, 'dead letter')}",
                remedy="relay dead list says why; relay dead resend sends them again.",
            )
        if depth.held:
            yield Alarm(
                kind=Kind.IN_DOUBT,
                subject=depth.destination,
                words=f"{_many(depth.held, 'event')} held in doubt",
                remedy="Look whether they arrived, then: relay outbox release",
            )


def _sources(
    sources: Mapping[str, Source],
    last: Mapping[str, int],
    marks: Mapping[str, Bookmark],
    causes: Sequence[Cause],
    now_ms: int,
) -> Iterator[Alarm]:
    for slug in sources:
        gap = marks.get(GAP + slug)
        gap_ms = int(gap.position) if gap else None
        if is_silent(last.get(slug), gap_ms, now_ms=now_ms):
            hours = (now_ms - last[slug]) // HOUR_MS
            yield Alarm(
                kind=Kind.SILENT,
                subject=slug,
                words=f"nothing came for {hours} h; its longest pause of late was {(gap_ms or 0) // HOUR_MS} h",
                remedy="Is the webhook still switched on at the provider? relay backfill fetches what is missing.",
            )
        refused = [cause for cause in causes if cause.source == slug and cause.reason != "missing"]
        if sum(cause.n for cause in refused) >= _FAILING:
            worst = max(refused, key=lambda cause: cause.n)
            yield Alarm(
                kind=Kind.SIGNATURES,
                subject=slug,
                severity="critical",
                words=f"{sum(cause.n for cause in refused)} signatures were refused in 15 min ({worst.cause})",
                remedy=f"relay doctor --source {slug}. {worst.words}",
            )
        if (until_ms := shadow_until_ms(marks, slug)) > now_ms:
            minutes = (until_ms - now_ms) // 60_000
            yield Alarm(
                kind=Kind.SHADOW,
                subject=slug,
                severity="critical",
                words=f"SHADOW MODE: webhooks are taken whatever their signature, for {minutes} min more",
                remedy=f"relay shadow {slug} --off ends it.",
            )


def _books(marks: Mapping[str, Bookmark], now_ms: int) -> Iterator[Alarm]:
    for name, mark in marks.items():
        if not name.startswith(RECONCILED):
            continue
        source = name.removeprefix(RECONCILED)
        drift = {currency: amount for currency, amount in drift_of(mark.position).items() if amount}
        if drift:
            amounts = ", ".join(f"{amount} {currency}" for currency, amount in sorted(drift.items()))
            yield Alarm(
                kind=Kind.DRIFT,
                subject=source,
                words=f"the provider's books differ by {amounts}",
                remedy=f"relay reconcile {source} says where; relay backfill {source} sends what is missing.",
            )
        if now_ms - mark.noted_at_ms > _RECONCILED_MS:
            days = (now_ms - mark.noted_at_ms) // _DAY_MS
            yield Alarm(
                kind=Kind.NOT_RECONCILED,
                subject=source,
                words=f"not compared with its books for {days} days",
                remedy=f"relay reconcile {source} --since {days + 1}d",
            )


def _by_source(groups: Iterable[tuple[str, int, str]]) -> Iterator[tuple[str, int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for source, n, reason in groups:
        before, first = found.get(source, (0, reason))
        found[source] = (before + n, first)
    for source, (n, reason) in found.items():
        yield source, n, reason


def _many(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
