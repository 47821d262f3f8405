"""Inbox → outbox: each committed delivery is mapped, and what it tells is committed in one transaction.

In: deliveries of the store's inbox, oldest first, many at once. Out: their notifications and events. A crash between
the two leaves them in the inbox, and they are mapped again: mapping is pure, and the keys hold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from relay.contract import Delivery, Provider
from relay.mapping import map_delivery, parked
from relay.metrics import Metrics
from relay.sources import Source
from relay.store.base import Arrival, Inboxed, Mapped, Receipt, Store, StoreUnavailableError
from relay.store.schema import Outcome

log = structlog.get_logger("relay.unfolding")

#: Deliveries that share a transaction.
_AT_ONCE = 256
#: Without a wake-up, look again after this long: for what other processes put into the store.
_POLL_S = 1.0


class Unfolding:
    """Maps what stands in the inbox. `step` does one piece; `run` steps until `stop`."""

    def __init__(
        self,
        *,
        store: Store,
        sources: Mapping[str, Source],
        providers: Mapping[str, Provider],
        metrics: Metrics,
        wake: Callable[[str], None],
        keep_bodies: bool = True,
    ) -> None:
        """`wake` is told which destination has something new to send."""
        self._store = store
        self._sources = sources
        self._providers = providers
        self._metrics = metrics
        self._counters = {slug: _Counters(metrics, slug) for slug in sources}
        self._wake = wake
        self._keep_bodies = keep_bodies
        self._woken = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Something new is in the inbox."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` once the inbox is empty."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Map until `stop`. Whatever goes wrong is logged and tried again."""
        while True:
            self._woken.clear()
            await self.empty()
            if self._stopping:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _POLL_S)

    async def empty(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Map what stands in the inbox, as long as it is to `go_on`. Whatever goes wrong is logged."""
        try:
            while go_on() and (found := await self._store.inbox(limit=_AT_ONCE)):
                await self._commit(found, [self._arrival(one) for one in found])
        except StoreUnavailableError as error:
            log.warning("the store is unavailable", error=str(error))
        except Exception:
            log.exception("mapping stumbled; it goes on")

    async def _commit(self, found: Sequence[Inboxed], arrivals: Sequence[Arrival]) -> None:
        receipts = await self._store.unbox(found, arrivals)
        destinations: set[str] = set()
        for arrival, receipt in zip(arrivals, receipts, strict=True):
            self._count(arrival, receipt)
            destinations |= receipt.destinations
        for destination in destinations:
            self._wake(destination)

    def _arrival(self, one: Inboxed) -> Arrival:
        return Arrival(
            source=one.source,
            received_at_ms=one.received_at_ms,
            secret=one.secret,
            headers=one.headers,
            body=one.body,
            keep_body=self._keep_bodies,
            notifications=self._mapped(one),
            delivery=one.delivery,
            bundle=one.bundle,
            sealed=one.sealed,
        )

    def _mapped(self, one: Inboxed) -> Sequence[Mapped]:
        source = self._sources.get(one.source)
        name = f"delivery:{one.delivery}"
        if source is None:
            return [parked(name, f"no source {one.source!r} is configured any more")]
        delivery = Delivery(body=one.body, headers=one.headers, url=source.public_url or "")
        return map_delivery(self._providers[source.provider], source, delivery, received_at_ms=one.received_at_ms)

    def _count(self, arrival: Arrival, receipt: Receipt) -> None:
        counters = self._counters.get(arrival.source)
        if counters is None:
            return
        counters.events.n += receipt.events
        counters.duplicates.n += receipt.duplicates
        counters.repeated.n += receipt.repeated
        if not receipt.new:
            return
        for mapped in arrival.notifications:
            counters.outcomes[mapped.outcome].n += 1
            if mapped.outcome is Outcome.NOT_MAPPED:
                self._metrics.saw_unmapped(arrival.source, mapped.type)
            elif mapped.outcome is Outcome.FAILED:
                log.error("could not be mapped, kept", source=arrival.source, delivery=arrival.delivery,
                          notification=mapped.notification_id, type=mapped.type, error=mapped.error)  # fmt: skip
            for outgoing in mapped.events:
                for finding in outgoing.sealed.findings:
                    self._metrics.guard_findings.labels(arrival.source, finding.kind).inc()


class _Counters:
    """Of one source, every label resolved."""

    def __init__(self, metrics: Metrics, slug: str) -> None:
        self.repeated = metrics.tally(metrics.notifications, slug, "repeated")
        self.events = metrics.tally(metrics.events, slug)
        self.duplicates = metrics.tally(metrics.duplicates, slug)
        self.outcomes = {outcome: metrics.tally(metrics.notifications, slug, outcome.value) for outcome in Outcome}
