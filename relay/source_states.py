"""How each source is doing: one rule, for the console, the terminal and the alarms.

In: what the store says of the last day. Out: by source a state, and the likely cause where it is not well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.alarms import GAP, gaps, is_silent, may_be_silent, shadow_until_ms
from relay.contract import Reason
from relay.sources import Source
from relay.store.base import Store
from relay.store.counting import HOUR_MS
from relay.store.rejected import Cause

DAY_MS = 24 * HOUR_MS
#: So many refusals after the last one that was taken are no stranger's; before the first, a single one tells.
_SEVERAL = 3
_SILENT = (
    "Is the webhook still switched on at the provider, and can it reach the URL? "
    "What is missing, its books tell: relay backfill fetches it."
)


class State(StrEnum):
    """How a source is doing."""

    HEALTHY = "healthy"
    NEVER_SEEN = "never seen"
    SILENT = "silent"
    FAILING = "signatures failing"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    slug: str
    state: State
    #: The likely cause, and what to do; empty where it is well.
    why: str = ""
    last_ms: int | None = None
    #: Its longest pause of late.
    gap_ms: int | None = None
    #: Until when its webhooks are taken whatever their signature; 0: they are not.
    shadow_until_ms: int = 0
    #: What was refused in the last day, the newest first.
    causes: Sequence[Cause] = ()

    @property
    def refused(self) -> int:
        """How many were refused in the last day."""
        return sum(cause.n for cause in self.causes)


async def source_states(store: Store, sources: Mapping[str, Source], *, now_ms: int) -> list[SourceState]:
    """In the order of their names."""
    last, marks = await store.console.last_seen(), await store.bookmarks("")
    longest = {name.removeprefix(GAP): int(mark.position) for name, mark in marks.items() if name.startswith(GAP)}
    if any(slug not in longest and may_be_silent(last.get(slug), now_ms=now_ms) for slug in sources):
        longest = await gaps(store, now_ms=now_ms) | longest
    causes = await store.rejected.causes(since_ms=now_ms - DAY_MS)
    return [
        _state(
            SourceState(
                slug=slug, state=State.HEALTHY, last_ms=last.get(slug), gap_ms=longest.get(slug),
                shadow_until_ms=shadow_until_ms(marks, slug),
                causes=[cause for cause in causes if cause.source == slug],
            ),
            now_ms,
        )
        for slug in sorted(sources)
    ]  # fmt: skip


def _state(one: SourceState, now_ms: int) -> SourceState:
    since = [
        cause
        for cause in one.causes
        if one.last_ms is None or (cause.newest_ms > one.last_ms and cause.reason != Reason.MISSING)
    ]
    why = f"{since[0].n} refused ({since[0].cause}). {since[0].words}" if since else ""
    if one.shadow_until_ms > now_ms:
        return _as(one, State.SHADOW, f"Webhooks are taken whatever their signature. {why}".strip())
    if since and (one.last_ms is None or sum(cause.n for cause in since) >= _SEVERAL):
        return _as(one, State.FAILING, why)
    if one.last_ms is None:
        return _as(one, State.NEVER_SEEN)
    if is_silent(one.last_ms, one.gap_ms, now_ms=now_ms):
        return _as(one, State.SILENT, _SILENT)
    return one


def _as(one: SourceState, state: State, why: str = "") -> SourceState:
    return SourceState(
        slug=one.slug, state=state, why=why, last_ms=one.last_ms, gap_ms=one.gap_ms,
        shadow_until_ms=one.shadow_until_ms if state is State.SHADOW else 0, causes=one.causes,
    )  # fmt: skip
