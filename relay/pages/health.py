"""How well it goes, in words: what needs attention first, and how each source is doing.

In: what the store and the counters say. Out: findings, the worst first, each with where to go about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.alarms import OLD_MS
from relay.pages.rendering import CAUSES, ago, instant, number, sentence, span
from relay.source_states import SourceState, State
from relay.store.base import Depth
from relay.store.search import Seen

#: So many are named, the others are only said to be.
_NAMED = 3
_TONES = {
    State.HEALTHY: "ok", State.NEVER_SEEN: "quiet", State.SILENT: "warn", State.FAILING: "bad", State.SHADOW: "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that somebody should look at."""

    #: `bad`, `warn` or `info`.
    tone: str
    words: str
    what_to_do: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    slug: str
    tone: str
    state: str
    words: str
    last_ms: int | None
    #: How many deliveries were refused in the last day.
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationHealth:
    name: str
    paused: str | None
    depth: Depth | None


def source_health(one: SourceState, *, now_ms: int) -> SourceHealth:
    """How a source is doing, in words."""
    match one.state:
        case State.HEALTHY:
            words = f"Last delivery {ago(one.last_ms, now_ms)}."
            if one.refused:
                cause = one.causes[0].cause
                words += f" {number(one.refused)} refused in the last day: {CAUSES.get(cause, cause)}."
        case State.NEVER_SEEN:
            words = "Nothing has come yet. Set it up at the provider with the steps below."
        case State.SILENT:
            quiet = span((now_ms - (one.last_ms or 0)) / 1000)
            words = f"Nothing for {quiet}; its longest pause of late was {span((one.gap_ms or 0) / 1000)}. {one.why}"
        case State.FAILING:
            newest = one.causes[0]
            words = f"{number(one.refused)} refused, the last {ago(newest.newest_ms, now_ms)}. {sentence(newest.words)}"
        case State.SHADOW:
            words = f"Shadow mode until {instant(one.shadow_until_ms)} UTC. {one.why}"
    return SourceHealth(
        slug=one.slug, tone=_TONES[one.state], state=one.state.value, words=words, last_ms=one.last_ms,
        refused=one.refused,
    )  # fmt: skip


def attention(
    *,
    sources: Sequence[SourceHealth],
    destinations: Sequence[DestinationHealth],
    kinds: Sequence[Seen],
    trouble: str | None,
    now_ms: int,
) -> list[Attention]:
    """What somebody should look at, the worst first."""
    found = [*_of_the_store(trouble), *_of_destinations(destinations, now_ms), *_of_sources(sources), *_parked(kinds)]
    return sorted(found, key=lambda one: ("bad", "warn", "info").index(one.tone))


def _of_the_store(trouble: str | None) -> Iterator[Attention]:
    if trouble:
        yield Attention(
            "bad", f"No webhook can be taken: {trouble}.", "Make room; providers are told to come later.", ""
        )


def _of_destinations(destinations: Sequence[DestinationHealth], now_ms: int) -> Iterator[Attention]:
    for one in destinations:
        if one.paused:
            yield Attention(
                "bad", f"Destination {one.name} is paused: {one.paused}",
                "Correct the key or the project; nothing is lost, and it resumes by itself.", "/admin#destinations",
            )  # fmt: skip
        depth = one.depth
        if depth is None:
            continue
        if depth.dead:
            yield Attention("bad", f"{_many(depth.dead, 'dead letter')} for {one.name}.",
                            "See why, and send them again when the reason is gone.", "/admin/repair")  # fmt: skip
        if depth.held:
            yield Attention("warn", f"{_many(depth.held, 'event')} held in doubt for {one.name}.",
                            "Look whether they arrived, and decide.", "/admin/repair?tab=doubt")  # fmt: skip
        waiting = depth.pending + depth.batched - depth.held
        if waiting > 0 and depth.oldest_ms is not None and now_ms - depth.oldest_ms > OLD_MS and not one.paused:
            yield Attention("warn", f"{_many(waiting, 'event')} wait for {one.name}, the oldest for "
                            f"{span((now_ms - depth.oldest_ms) / 1000)}.",
                            "It is away or slow; they are tried again by themselves.",
                            "/admin/deliveries?status=pending")  # fmt: skip


def _of_sources(sources: Sequence[SourceHealth]) -> Iterator[Attention]:
    for one in sources:
        match one.state:
            case State.SHADOW:
                yield Attention("bad", f"Source {one.slug} takes anything.", one.words, f"/admin/sources#{one.slug}")
            case State.FAILING:
                words = f"Source {one.slug}: signatures are failing."
                yield Attention("bad", words, one.words, f"/admin/repair?tab=refused&source={one.slug}")
            case State.SILENT:
                yield Attention("warn", f"Source {one.slug} is silent.", one.words, f"/admin/sources#{one.slug}")
            case _:
                pass


def _parked(kinds: Sequence[Seen]) -> Iterator[Attention]:
    failed = sorted({f"{kind.source} {kind.type}" for kind in kinds if kind.outcome == "failed"})
    if failed:
        todo = "The deliveries are kept; map them again after the fix."
        yield Attention("bad", f"A mapper failed on {_some(failed)}.", todo, "/admin/repair?tab=failed")
    unmapped = sorted({f"{kind.source} {kind.type}" for kind in kinds if kind.outcome == "not_mapped"})
    if unmapped:
        words = f"{_many(len(unmapped), 'type')} without a mapper: {_some(unmapped)}."
        yield Attention("info", words,
                        "Kept, and mapped as soon as there is one.", "/admin/repair?tab=not_mapped")  # fmt: skip
    asked = sorted({kind.source for kind in kinds if kind.outcome == "to_do"})
    if asked:
        yield Attention("info", f"Notifications of {', '.join(asked)} wait until the provider's API has answered.",
                        "Is its API key set, and right?", "/admin/deliveries?status=to_do")  # fmt: skip


def _some(names: Sequence[str]) -> str:
    """The first of them."""
    return ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")


def _many(n: int, noun: str) -> str:
    return f"{number(n)} {noun}{'' if n == 1 else 's'}"
