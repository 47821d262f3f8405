"""What the relay counts, for Prometheus. One `Metrics` a process; the names are an interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from relay.store.base import Depth

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


class Metrics:
    """Counters, gauges and histograms of one relay."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.deliveries = Counter(
            "relay_deliveries",
            "Deliveries, by source and what they were answered: accepted, refused_<reason>, too_large, overload.",
            ["source", "answer"],
            registry=registry,
        )
        self.notifications = Counter(
            "relay_notifications",
            "Notifications of accepted deliveries: mapped, ignored, not_mapped, test, failed, repeated.",
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
        self.sent = Counter("relay_events_sent", "Events that the API accepted.", ["destination"], registry=registry)
        self.in_doubt = Counter(
            "relay_events_in_doubt", "Events sent without an answer.", ["destination"], registry=registry
        )
        self.dead = Counter("relay_events_dead", "Events that became dead letters.", ["destination"], registry=registry)
        self.paused = Gauge(
            "relay_destination_paused", "1 while a destination refuses our credentials.", ["destination"],
            registry=registry,
        )  # fmt: skip
        self.breaker_open = Gauge(
            "relay_destination_breaker_open", "1 while calls are held back after failures.", ["destination"],
            registry=registry,
        )  # fmt: skip
        self.outbox = Gauge(
            "relay_outbox_events", "Events that are not settled, by state.", ["destination", "state"], registry=registry
        )
        self.outbox_age = Gauge(
            "relay_outbox_oldest_seconds", "Age of the oldest event that is not sent.", ["destination"],
            registry=registry,
        )  # fmt: skip
        self.drift = Gauge(
            "relay_drift", "What the destination accepted beyond the provider's books, in major units.",
            ["source", "currency"], registry=registry,
        )  # fmt: skip
        self.reconciled = Gauge(
            "relay_reconciled_timestamp_seconds", "When a source was last compared with its provider's books.",
            ["source"], registry=registry,
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
                self.outbox.labels(depth.destination, state).set(getattr(depth, state))
            age_ms = 0 if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms)
            self.outbox_age.labels(depth.destination).set(age_ms / 1000)

    def show_drift(self, source: str, drift: Mapping[str, Decimal], *, at_ms: int) -> None:
        """Refresh the gauges of a source's last reconciliation, in which these were the currencies."""
        self.drift.remove_by_labels({"source": source})
        for currency, amount in drift.items():
            self.drift.labels(source, currency).set(float(amount))
        self.reconciled.labels(source).set(at_ms / 1000)

    def render(self) -> bytes:
        """The Prometheus text format."""
        self.show_tallies()
        return generate_latest(self.registry)
