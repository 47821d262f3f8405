"""How well it goes, in words: what needs attention first, and how each source is doing.

In: what the store and the counters say. Out: findings, the worst first, each with where to go about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from relay.metrics import Metrics
from relay.pages.rendering import ago, number, span
from relay.sources import Source
from relay.store.base import Depth
from relay.store.counting import HOUR_MS, Count
from relay.store.rejected import Cause
from relay.store.search import Seen

_OLD_MS = 5 * 60_000
#: A source is silent when it was quiet for so many times its longest pause, and for so long at least.
_TIMES, _AT_LEAST_MS = 2, 2 * HOUR_MS
#: Fewer hours with traffic than this say nothing about what is usual.
_ENOUGH_HOURS = 6
#: So many are named, the others are only said to be.
_NAMED = 3
#: So many refusals, none accepted since, are no stranger's.
_SEVERAL = 3

_CAUSES = {
    "mismatch": "the secret is another endpoint's, or a proxy changes the body",
    "missing": "the signature header is missing: somebody else calls, or a proxy drops headers",
    "malformed": "the signature header cannot be read",
    "stale": "the signed time is too old: our clock is ahead, or a delivery was replayed",
    "future": "the signed time is still to come: our clock is behind",
}


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
    #: `healthy`, `never seen`, `silent`, `signatures failing`.
    state: str
    words: str
    last_ms: int | None
    refused: Mapping[str, int] = field(default_factory=dict)
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationHealth:
    name: str
    paused: str | None
    depth: Depth | None


def answers_of(metrics: Metrics) -> dict[str, dict[str, int]]:
    """By source, what deliveries were answered since the relay started, and how often."""
    metrics.show_tallies()
    found: dict[str, dict[str, int]] = {}
    for family in metrics.registry.collect():
        if family.name != "relay_deliveries":
            continue
        for sample in family.samples:
            if sample.name == "relay_deliveries_total":
                found.setdefault(sample.labels["source"], {})[sample.labels["answer"]] = int(sample.value)
    return found


def source_health(
    source: Source,
    *,
    last_ms: int | None,
    hours: Sequence[int],
    answers: Mapping[str, int],
    now_ms: int,
    cause: Cause | None = None,
) -> SourceHealth:
    """How a source is doing.

    `hours`: those of the last weeks in which something came, oldest first. `cause`: why deliveries were refused last.
    """
    refused = {
        answer.removeprefix("refused_"): n for answer, n in answers.items() if answer.startswith("refused_") and n
    }
    accepted, failures = answers.get("accepted", 0), sum(refused.values())
    common = {"slug": source.slug, "last_ms": last_ms, "refused": refused, "accepted": accepted}
    if cause is not None and cause.n >= _SEVERAL and cause.newest_ms > (last_ms or 0):
        words = f"{number(cause.n)} refused, the last {ago(cause.newest_ms, now_ms)}. {cause.words}"
        return SourceHealth(tone="bad", state="signatures failing", words=words, **common)  # type: ignore[arg-type]
    if failures and failures >= accepted:
        worst = max(refused, key=lambda reason: refused[reason])
        words = f"{number(failures)} refused since the start, {number(accepted)} taken. Most likely {_cause(worst)}."
        return SourceHealth(tone="bad", state="signatures failing", words=words, **common)  # type: ignore[arg-type]
    if last_ms is None:
        words = "Nothing has come yet. Set it up at the provider with the steps below."
        return SourceHealth(tone="quiet", state="never seen", words=words, **common)  # type: ignore[arg-type]
    usual = _usual_pause_ms(hours)
    if usual is not None and now_ms - last_ms > max(_TIMES * usual, _AT_LEAST_MS):
        words = (
            f"Nothing for {span((now_ms - last_ms) / 1000)}; its longest pause of late was {span(usual / 1000)}. "
            "Is the webhook still switched on at the provider, and can it reach this URL?"
        )
        return SourceHealth(tone="warn", state="silent", words=words, **common)  # type: ignore[arg-type]
    words = f"Last delivery {ago(last_ms, now_ms)}."
    if failures:
        words += f" {number(failures)} were refused since the start: {', '.join(sorted(refused))}."
    return SourceHealth(tone="ok", state="healthy", words=words, **common)  # type: ignore[arg-type]


def _cause(reason: str) -> str:
    return _CAUSES.get(reason, f"it is: {reason}")


def _usual_pause_ms(hours: Sequence[int]) -> int | None:
    if len(hours) < _ENOUGH_HOURS:
        return None
    return max(later - earlier for earlier, later in pairwise(hours))


def hours_of(counts: Sequence[Count], source: str) -> list[int]:
    """The hours in which something came from a source."""
    return sorted({count.bucket_ms for count in counts if count.measure == "deliveries" and count.source == source})


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
        if depth.oldest_ms is not None and now_ms - depth.oldest_ms > _OLD_MS and not one.paused:
            waiting = depth.pending + depth.batched
            yield Attention("warn", f"{_many(waiting, 'event')} wait for {one.name}, the oldest for "
                            f"{span((now_ms - depth.oldest_ms) / 1000)}.",
                            "It is away or slow; they are tried again by themselves.",
                            "/admin/deliveries?status=pending")  # fmt: skip


def _of_sources(sources: Sequence[SourceHealth]) -> Iterator[Attention]:
    for one in sources:
        if one.state == "signatures failing":
            yield Attention(
                "bad", f"Source {one.slug}: signatures are failing.", one.words, f"/admin/sources#{one.slug}"
            )
        elif one.state == "silent":
            yield Attention("warn", f"Source {one.slug} is silent.", one.words, f"/admin/sources#{one.slug}")


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
