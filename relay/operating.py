"""What goes on beside receiving and forwarding: overdue waits, retention, the disk, the gauges, parked deliveries.

`Keeper` does each when it is due. None of it is on the way of a webhook, and each step is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from relay.books import RECONCILED, drift_of
from relay.contract import Delivery, Provider
from relay.mapping import map_delivery
from relay.metrics import Metrics
from relay.sources import Source
from relay.store.base import Depth, Kept, Receipt, Store, StoreUnavailableError
from relay.store.schema import Outcome

log = structlog.get_logger("relay.operating")

_TICK_S = 1.0
_DISK_EVERY_MS = 5_000
_PRUNE_EVERY_MS = 60_000
_DAY_MS = 86_400_000
_MB = 1_000_000
#: Of several replicas one counts. It says so now and then; when it no longer does, another one goes on.
_COUNTING = "leads:counting"
_COUNTING_LEASE_MS = 20_000
_ASK_EVERY_MS = 5_000
#: While more than this waits to be mapped, nothing is counted, for so long at most.
_PEAK = 500
_UNCOUNTED_MS = 30_000
#: Pieces that are counted in one go.
_COUNTED_AT_ONCE = 10
#: A pause between two pieces of a prune, so that it never hinders receiving.
_BREATH_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    bodies_days: int
    keys_days: int


class Disk:
    """Whether there is room left where the store lives. Looked up now and then, asked on the hot path."""

    def __init__(self, folder: Path | None, *, min_free_mb: int) -> None:
        self._folder = folder
        self._min_free = min_free_mb * _MB
        self._trouble: str | None = None
        #: In bytes; None: it is somebody else's.
        self.free: int | None = None
        self.look()

    def look(self) -> None:
        """Measure again."""
        if self._folder is None:
            return
        free = self.free = shutil.disk_usage(self._folder).free
        was = self._trouble
        self._trouble = None
        if free < self._min_free:
            self._trouble = f"only {free // _MB} MB of disk are free, {self._min_free // _MB} MB are needed"
        if self._trouble != was:
            log.warning("the disk is nearly full: providers are told to come later" if self._trouble else "the disk "
                        "has room again", free_mb=free // _MB)  # fmt: skip

    def trouble(self) -> str | None:
        """Why nothing can be taken now, or None."""
        return self._trouble


class Keeper:
    """Runs the chores. `tick` does what is due at that moment, `run` ticks until it is cancelled."""

    def __init__(
        self,
        *,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
        wake: Callable[[str], None],
        disk: Disk,
        retention: Retention,
        owner: str | None = None,
    ) -> None:
        """`owner`: who this is among several replicas; None: there is no other one."""
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._disk = disk
        self._retention = retention
        self._disk_due_ms = 0
        self._prune_due_ms = 0
        self._owner = owner
        self._counts = owner is None
        self._ask_due_ms = 0
        self._counted_ms = 0

    async def run(self) -> None:
        """Tick for ever. Trouble is logged, and the next tick tries again."""
        while True:
            try:
                await self.tick()
            except StoreUnavailableError as error:
                log.warning("the store is unavailable", error=str(error))
            except Exception:
                log.exception("a chore stumbled; it goes on")
            await asyncio.sleep(_TICK_S)

    async def tick(self) -> None:
        """Do what is due."""
        now_ms = self._clock()
        for destination in await self._store.release_overdue():
            self._wake(destination)
        if now_ms >= self._disk_due_ms:
            self._disk_due_ms = now_ms + _DISK_EVERY_MS
            self._disk.look()
        if now_ms >= self._prune_due_ms:
            self._prune_due_ms = now_ms + _PRUNE_EVERY_MS
            await self.prune()
        if await self._is_to_count(now_ms) and not await self._is_behind(now_ms):
            self._counted_ms = now_ms
            await self._count()

    async def _is_to_count(self, now_ms: int) -> bool:
        if self._owner is not None and now_ms >= self._ask_due_ms:
            self._counts = await self._store.lead(_COUNTING, owner=self._owner, lease_ms=_COUNTING_LEASE_MS)
            self._ask_due_ms = now_ms + _ASK_EVERY_MS
        return self._counts

    async def _is_behind(self, now_ms: int) -> bool:
        """Whether mapping has so much to do that counting had better wait, for a while."""
        if now_ms >= self._counted_ms + _UNCOUNTED_MS:
            return False
        return (await self._store.inbox_depth()).deliveries > _PEAK

    async def _count(self) -> None:
        """For the console: what came since, piece by piece."""
        for _ in range(_COUNTED_AT_ONCE):
            if not await self._store.console.count_up():
                return
            await asyncio.sleep(_BREATH_S)

    async def prune(self) -> int:
        """Forget all that is older than the retention, piece by piece. Returns how many rows went."""
        total = 0
        while True:
            now_ms = self._clock()
            pruned = await self._store.prune(
                bodies_before_ms=now_ms - self._retention.bodies_days * _DAY_MS,
                keys_before_ms=now_ms - self._retention.keys_days * _DAY_MS,
            )
            total += pruned
            if not pruned:
                return total
            await asyncio.sleep(_BREATH_S)

    async def depths(self) -> Sequence[Depth]:
        """The outbox now, in the gauges too."""
        return await depths(self._store, self._metrics, now_ms=self._clock())


async def depths(store: Store, metrics: Metrics, *, now_ms: int) -> Sequence[Depth]:
    """Inbox and outbox now, in the gauges too, beside the drift that each source had when it was last reconciled."""
    metrics.show_inbox(await store.inbox_depth(), now_ms=now_ms)
    found = await store.depths()
    metrics.show_outbox(found, now_ms=now_ms)
    metrics.show_to_do(await store.to_do())
    marks = await store.bookmarks("")
    for name, bookmark in marks.items():
        if name.startswith(RECONCILED):
            drift = drift_of(bookmark.position)
            metrics.show_drift(name.removeprefix(RECONCILED), drift, at_ms=bookmark.noted_at_ms)
    last = await store.console.last_seen()
    metrics.show_sources(last, {name: bookmark.position for name, bookmark in marks.items()})
    return found


async def readiness(store: Store, destinations: Iterable[str], *, trouble: str | None, now_ms: int) -> dict[str, Any]:
    """What `/readyz` says. `unavailable` only when webhooks cannot be taken.

    A destination that is away is told, and does not turn providers away; nor does a database that is away, where a
    spool takes what comes.
    """
    inbox: dict[str, Any] = {}
    outbox: list[dict[str, Any]] = []
    states: dict[str, Any] = {}
    is_spooling = False
    try:
        depth = await store.inbox_depth()
        is_spooling = depth.spooled is not None
        inbox = {"deliveries": depth.deliveries, "oldest_s": _age_s(depth.oldest_ms, now_ms)}
        if is_spooling:
            inbox["spooled"] = depth.spooled
        await store.check()
        outbox = [
            {"destination": one.destination, "pending": one.pending + one.batched, "held": one.held, "dead": one.dead,
             "oldest_s": _age_s(one.oldest_ms, now_ms)}
            for one in await store.depths()
        ]  # fmt: skip
        for name in destinations:
            paused = (await store.destination(name)).paused
            states[name] = {"state": "paused", "reason": paused} if paused else {"state": "open"}
    except StoreUnavailableError as error:
        if is_spooling and trouble is None:
            return _readiness("degraded", f"the database is away: {error}", inbox, outbox, states)
        trouble = str(error)
    is_degraded = any(state["state"] == "paused" for state in states.values())
    return _readiness("unavailable" if trouble else "degraded" if is_degraded else "ok", trouble, inbox, outbox, states)


def _readiness(
    status: str, reason: str | None, inbox: dict[str, Any], outbox: list[dict[str, Any]], destinations: dict[str, Any]
) -> dict[str, Any]:
    return {"status": status, "reason": reason, "inbox": inbox, "outbox": outbox, "destinations": destinations,
            "pid": os.getpid()}  # fmt: skip


def _age_s(at_ms: int | None, now_ms: int) -> int | None:
    return None if at_ms is None else max(0, now_ms - at_ms) // 1000


@dataclass(slots=True)
class Remapped:
    """What mapping again changed."""

    deliveries: int = 0
    notifications: int = 0
    events: int = 0
    still_parked: int = 0


async def remap(
    store: Store,
    *,
    sources: Mapping[str, Source],
    providers: Mapping[str, Provider],
    outcomes: Sequence[Outcome] = (Outcome.FAILED, Outcome.NOT_MAPPED),
    wake: Callable[[str], None] = lambda _destination: None,
) -> Remapped:
    """Map kept deliveries again, with the mappers of now: for after a fix, or after a mapper was added.

    Their signature was checked when they came and is not checked against today's clock. Keys hold as for a fresh
    delivery, so that nothing is told twice.
    """
    done = Remapped()
    for outcome in outcomes:
        after = 0
        while kept := await store.unmapped(outcome=outcome, after=after):
            for one in kept:
                after = one.delivery
                source = sources.get(one.source)
                if source is None:
                    continue
                receipt = await remap_one(store, source, providers[source.provider], one, done)
                for destination in receipt.destinations:
                    wake(destination)
    return done


async def remap_one(store: Store, source: Source, provider: Provider, one: Kept, done: Remapped) -> Receipt:
    """Map one kept delivery again, and add what that changed to `done`."""
    delivery = Delivery(body=one.body, headers=one.headers, url=source.public_url or "", answers=one.answers)
    mapped = map_delivery(provider, source, delivery, received_at_ms=one.received_at_ms)
    parked = [m for m in mapped if m.outcome in {Outcome.FAILED, Outcome.NOT_MAPPED}]
    done.deliveries += 1
    done.still_parked += sum(m.notification_id in one.notifications for m in parked)
    if len(parked) == len(mapped):
        return Receipt()
    still = {m.notification_id for m in parked}
    rest = {name: row for name, row in one.notifications.items() if name not in still}
    receipt = await store.remap(replace(one, notifications=rest), [m for m in mapped if m not in parked])
    done.notifications += receipt.new - sum(m.outcome is Outcome.TO_DO for m in mapped)
    done.events += receipt.events
    return receipt


async def watch(disk: Disk, metrics: Metrics) -> None:
    """For ever, the chores of a process that only receives: look at the disk, show the others what it has counted."""
    try:
        while True:
            await asyncio.sleep(_TICK_S)
            disk.look()
            metrics.show_tallies()
    finally:
        metrics.show_tallies()


@contextlib.asynccontextmanager
async def beside(chores: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let a keeper run, or the disk be watched, while the block runs."""
    task = asyncio.create_task(chores, name="chores")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
