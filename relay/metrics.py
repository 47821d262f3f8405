"""What the relay counts, for Prometheus. One `Metrics` a process; the names are an interface.

Where one relay is several processes, each counts into files of its own in a folder that they share, and whichever is
asked adds up all of them. What is looked up in the store is not counted: who is asked looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from relay.store.base import Depth, InboxDepth

_GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class Tally:
    """A counter of the hot path: a plain number, brought to Prometheus when somebody looks."""

    __slots__ = ("_child", "_shown", "n")

    def __init__(self, child: Counter) -> None:
        self._child = child
        self._shown = 0
        self.n = 0

    def show(self) -> None:
        new = self.n - self._shown
        if new:
            self._shown += new
            self._child.inc(new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One of several processes that are counted as one relay."""

    #: Where each counts into files of its own.
    folder: Path
    #: What this one's files are called: the next process of this name goes on with them.
    name: str
    #: The parent of them all.
    leader: int


class Metrics:
    """Counters, gauges and histograms of one relay, whose process this is, or one of whose processes."""

    def __init__(self, group: Group | None = None) -> None:
        self.registry = CollectorRegistry()
        PlatformCollector(registry=self.registry)
        self._looked_up = _LookedUp()
        self.registry.register(self._looked_up)
        registry: CollectorRegistry | None = self.registry
        if group is None:
            ProcessCollector(registry=self.registry)
        else:
            _count_into_files(group)
            MultiProcessCollector(self.registry, path=str(group.folder))  # type: ignore[no-untyped-call]
            self.registry.register(_Processes(group.leader))
            registry = None  # the files are collected, and not what this process put into them
        self.deliveries = Counter(
            "relay_deliveries",
            "Deliveries, by source and what they were answered: accepted, refused_<reason>, too_large, overload.",
            ["source", "answer"],
            registry=registry,
        )
        self.notifications = Counter(
            "relay_notifications",
            "Notifications of accepted deliveries: mapped, ignored, not_mapped, test, failed, to_do, repeated.",
            ["source", "outcome"],
            registry=registry,
        )
        self.not_mapped = Counter(
            "relay_not_mapped",
            "Notifications of a type without a mapper, by type (the first 100 types of a source, then 'other').",
            ["source", "type"],
            registry=registry,
        )
        self.events = Counter("relay_events", "Events put into the outbox.", ["source"], registry=registry)
        self.duplicates = Counter(
            "relay_duplicates", "Events not sent, as another notification told the same.", ["source"], registry=registry
        )
        self.guard_findings = Counter(
            "relay_guard_findings", "Personal data that the guard took out.", ["source", "kind"], registry=registry
        )
        self.secrets = Counter(
            "relay_secrets_used", "Accepted deliveries, by which of the source's secrets fitted.", ["source", "secret"],
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "relay_signatures_refused", "Deliveries whose signature was refused, by the cause that fits best.",
            ["source", "cause"], registry=registry,
        )  # fmt: skip
        self.answer_seconds = Histogram(
            "relay_answer_seconds", "From the first byte to the answer.", buckets=_SECONDS, registry=registry
        )
        self.commit_group = Histogram(
            "relay_commit_group_size", "Deliveries that shared one commit.", buckets=_GROUP_SIZES, registry=registry
        )
        self.attempts = Counter(
            "relay_attempts", "Calls of the events API, by answer.", ["destination", "answer"], registry=registry
        )
        self.batch_events = Histogram(
            "relay_batch_events", "Events per call of the events API.", buckets=_BATCH_SIZES, registry=registry
        )
        self.asks = Counter(
            "relay_asks", "Calls of a provider's API for what a notification did not say, by answer.",
            ["source", "answer"], registry=registry,
        )  # fmt: skip
        self.sent = Counter("relay_events_sent", "Events that the API accepted.", ["destination"], registry=registry)
        self.in_doubt = Counter(
            "relay_events_in_doubt", "Events sent without an answer.", ["destination"], registry=registry
        )
        self.dead = Counter("relay_events_dead", "Events that became dead letters.", ["destination"], registry=registry)
        self.paused = Gauge(
            "relay_destination_paused", "1 while a destination refuses our credentials.", ["destination"],
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.breaker_open = Gauge(
            "relay_destination_breaker_open", "1 while calls are held back after failures.", ["destination"],
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self._types_seen: dict[str, set[str]] = {}
        self._tallies: list[Tally] = []

    def tally(self, counter: Counter, *labels: str) -> Tally:
        """A cheap way to count one combination of labels often."""
        found = Tally(counter.labels(*labels))
        self._tallies.append(found)
        return found

    def show_tallies(self) -> None:
        """Bring what was tallied to Prometheus."""
        for tally in self._tallies:
            tally.show()

    def saw_unmapped(self, source: str, kind: str) -> None:
        """Count a type without a mapper; the number of labels stays bounded, whatever the sender writes."""
        seen = self._types_seen.setdefault(source, set())
        if kind not in seen and len(seen) >= 100:  # noqa: PLR2004
            kind = "other"
        seen.add(kind)
        self.not_mapped.labels(source, kind).inc()

    def show_outbox(self, depths: Iterable[Depth], *, now_ms: int) -> None:
        """Refresh the gauges of the outbox."""
        for depth in depths:
            for state in ("pending", "batched", "waiting", "held", "dead"):
                self._looked_up.outbox[depth.destination, state] = getattr(depth, state)
            age_ms = 0 if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms)
            self._looked_up.outbox_age[depth.destination,] = age_ms / 1000

    def show_inbox(self, depth: InboxDepth, *, now_ms: int) -> None:
        """Refresh the gauges of the inbox."""
        age_ms = 0 if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms)
        self._looked_up.inbox[()], self._looked_up.inbox_age[()] = depth.deliveries, age_ms / 1000
        if depth.spooled is not None:
            self._looked_up.spool[()] = depth.spooled

    def show_to_do(self, waiting: Mapping[str, int]) -> None:
        """Refresh the gauge of what providers are still to be asked about, by source."""
        self._looked_up.to_do = {(source,): number for source, number in waiting.items()}

    def show_drift(self, source: str, drift: Mapping[str, Decimal], *, at_ms: int) -> None:
        """Refresh the gauges of a source's last reconciliation, in which these were the currencies."""
        for labels in [labels for labels in self._looked_up.drift if labels[0] == source]:
            del self._looked_up.drift[labels]
        for currency, amount in drift.items():
            self._looked_up.drift[source, currency] = float(amount)
        self._looked_up.reconciled[source,] = at_ms / 1000

    def show_sources(self, last_ms: Mapping[str, int], marks: Mapping[str, str]) -> None:
        """Refresh the gauges of sources and alarms: when something came last, and the bookmarks about them."""
        looked_up = self._looked_up
        looked_up.last_seen = {(source,): at_ms / 1000 for source, at_ms in last_ms.items()}
        looked_up.gap, looked_up.shadow, looked_up.alarms = {}, {}, {}
        for name, mark in marks.items():
            kind, _, subject = name.partition(":")
            match kind:
                case "gap":
                    looked_up.gap[subject,] = int(mark) / 1000
                case "shadow":
                    looked_up.shadow[subject,] = int(mark) / 1000
                case "alarm":
                    alarm, _, subject = subject.partition(":")
                    looked_up.alarms[alarm, subject] = 1
                case _:
                    pass

    def show_disk(self, free_bytes: int | None) -> None:
        """Refresh the gauge of the disk; None: it is somebody else's."""
        self._looked_up.disk = {} if free_bytes is None else {(): free_bytes}

    def render(self) -> bytes:
        """The Prometheus text format."""
        self.show_tallies()
        return generate_latest(self.registry)


@dataclass(slots=True, eq=False)
class _LookedUp(Collector):
    """Gauges of what the store says, by the values of their labels."""

    outbox: dict[tuple[str, ...], float] = field(default_factory=dict)
    outbox_age: dict[tuple[str, ...], float] = field(default_factory=dict)
    inbox: dict[tuple[str, ...], float] = field(default_factory=dict)
    inbox_age: dict[tuple[str, ...], float] = field(default_factory=dict)
    spool: dict[tuple[str, ...], float] = field(default_factory=dict)
    to_do: dict[tuple[str, ...], float] = field(default_factory=dict)
    drift: dict[tuple[str, ...], float] = field(default_factory=dict)
    reconciled: dict[tuple[str, ...], float] = field(default_factory=dict)
    last_seen: dict[tuple[str, ...], float] = field(default_factory=dict)
    gap: dict[tuple[str, ...], float] = field(default_factory=dict)
    shadow: dict[tuple[str, ...], float] = field(default_factory=dict)
    alarms: dict[tuple[str, ...], float] = field(default_factory=dict)
    disk: dict[tuple[str, ...], float] = field(default_factory=dict)

    def collect(self) -> Iterator[Metric]:
        for found, name, words, labels in (
            (self.outbox, "relay_outbox_events", "Events that are not settled, by state.", ("destination", "state")),
            (self.outbox_age, "relay_outbox_oldest_seconds", "Age of the oldest event that is not sent.",
             ("destination",)),
            (self.inbox, "relay_inbox_deliveries", "Deliveries that are committed and not mapped yet.", ()),
            (self.inbox_age, "relay_inbox_oldest_seconds", "Age of the oldest of them.", ()),
            (self.spool, "relay_spool_deliveries", "Those that wait on this machine for the database.", ()),
            (self.to_do, "relay_to_do", "Notifications that the provider is still to be asked about.", ("source",)),
            (self.drift, "relay_drift", "What the destination accepted beyond the provider's books, in major units.",
             ("source", "currency")),
            (self.reconciled, "relay_reconciled_timestamp_seconds",
             "When a source was last compared with its provider's books.", ("source",)),
            (self.last_seen, "relay_source_last_seen_timestamp_seconds", "When something new came from a source last.",
             ("source",)),
            (self.gap, "relay_source_usual_gap_seconds", "The longest pause of a source within the last two weeks.",
             ("source",)),
            (self.shadow, "relay_source_shadow_until_timestamp_seconds",
             "Until when a source takes webhooks whatever their signature.", ("source",)),
            (self.alarms, "relay_alarm", "1 while an alarm holds.", ("alarm", "subject")),
            (self.disk, "relay_disk_free_bytes", "Free disk where the store lives.", ()),
        ):  # fmt: skip
            family = GaugeMetricFamily(name, words, labels=labels)
            for label_values, value in found.items():
                family.add_metric(label_values, value)
            yield family


# --- several processes, counted as one --------------------------------------------------------------------------------

#: Of the metrics of a process, those of which the least is told: when the oldest began, how many files each may open.
_NOT_ADDED_UP = frozenset({"process_start_time_seconds", "process_max_fds"})


def _count_into_files(group: Group) -> None:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(group.folder)  # where the library looks, and nowhere else
    values.ValueClass = values.MultiProcessValue(lambda: group.name)  # type: ignore[no-untyped-call]


class _Processes(Collector):
    """Memory, CPU and files of a process and its children, added up. Where the system does not tell them: nothing."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def collect(self) -> Iterator[Metric]:
        found: dict[str, list[Metric]] = {}
        for pid in (self._leader, *_children(self._leader)):
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                found.setdefault(family.name, []).append(family)
        for name, families in found.items():
            samples = [family.samples[0] for family in families]
            add_up = min if name in _NOT_ADDED_UP else sum
            families[0].samples = [samples[0]._replace(value=add_up(sample.value for sample in samples))]
            yield families[0]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
