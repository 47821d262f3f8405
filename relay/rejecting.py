"""What becomes of a delivery whose signature was refused: it is diagnosed, told, and kept in a ring.

In: refused deliveries, as receiving sees them. Out: a line in the log and a number in the metrics with the cause, and
the newest of them in the store. The sender has its answer before any of this begins. While a source is in shadow mode
its refused deliveries are taken all the same, for a limited time and loudly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import structlog
from structlog.contextvars import get_contextvars

from relay.contract import Accepted, Delivery, Provider, Reason
from relay.diagnosing import Diagnosis, Known, asks_query, diagnose
from relay.metrics import Metrics
from relay.sources import Source
from relay.store.base import Store, StoreUnavailableError, Verified
from relay.store.rejected import Rejected, Rejection

log = structlog.get_logger("relay.rejecting")

#: Bookmarks of the sources in shadow mode: until when, in Unix milliseconds.
SHADOW = "shadow:"
#: No longer than this at once.
LONGEST_SHADOW_MS = 86_400_000
#: Which of a source's secrets fitted a delivery that was taken in shadow mode: none.
NO_SECRET = -1
#: What was not looked at, since too many came at once.
UNEXAMINED = "unexamined"

_WAITING = 200
#: Of a source, in `_WINDOW_MS`: strangers choose how many come.
_MOST, _WINDOW_MS = 30, 60_000
_POLL_S = 2.0
_KNOWN_FOR_MS = 60_000
#: Never kept: they would let a reader of the store act as the sender.
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})


@dataclass(frozen=True, slots=True)
class _Refused:
    source: Source
    delivery: Delivery
    reason: Reason
    at_ms: int
    #: What the log says of all that happens in that request.
    context: Mapping[str, object]


class Rejecting:
    """Told of each refused delivery; `run` looks at them, one after the other, until it is cancelled."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        providers: Mapping[str, Provider],
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._sources = sources
        self._providers = providers
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._queue: deque[_Refused] = deque()
        self._woken = asyncio.Event()
        self._shadows: Mapping[str, int] = {}
        self._windows: dict[str, tuple[int, int]] = {}
        self._outcomes: Mapping[str, Collection[str]] = {}
        self._outcomes_due_ms = 0

    def refused(self, source: Source, delivery: Delivery, reason: Reason, *, now_ms: int) -> bool:
        """Take note. Returns whether it is to be taken all the same, since the source is in shadow mode."""
        if self._may_look(source.slug, now_ms) and len(self._queue) < _WAITING:
            self._queue.append(_Refused(source, delivery, reason, now_ms, get_contextvars()))
            self._woken.set()
        else:
            self._metrics.refused.labels(source.slug, UNEXAMINED).inc()
        until_ms = self._shadows.get(source.slug, 0)
        if now_ms >= until_ms:
            return False
        log.error("taken although its signature was refused: the source is in shadow mode", source=source.slug,
                  reason=reason.value, minutes_left=(until_ms - now_ms) // 60_000)  # fmt: skip
        return True

    def _may_look(self, source: str, now_ms: int) -> bool:
        began_ms, n = self._windows.get(source, (now_ms, 0))
        if now_ms - began_ms >= _WINDOW_MS:
            began_ms, n = now_ms, 0
        self._windows[source] = (began_ms, n + 1)
        return n < _MOST

    async def run(self) -> None:
        """For ever. Trouble is logged, and it goes on."""
        while True:
            try:
                await self.step()
            except StoreUnavailableError as error:
                log.warning("the store is unavailable", error=str(error))
            except Exception:
                log.exception("looking at a refused delivery stumbled; it goes on")
            self._woken.clear()
            if not self._queue:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), _POLL_S)

    async def step(self) -> int:
        """Look at what came by now, and at which sources are in shadow mode. Returns how many were looked at."""
        self._shadows = await shadows(self._store)
        looked_at: list[tuple[_Refused, Diagnosis]] = []
        rows: Sequence[int] = ()
        try:
            while self._queue:
                one = self._queue.popleft()
                known = await self._known()
                found = await asyncio.to_thread(
                    diagnose, one.source, one.delivery, one.reason, known=known, now_ms=one.at_ms
                )
                looked_at.append((one, found))
            if looked_at:
                kept = [_rejection(one, found, self._providers[one.source.provider]) for one, found in looked_at]
                rows = await self._store.rejected.keep(kept)
        finally:  # what could not be kept is told all the same
            for (one, found), row in zip_longest(looked_at, rows):
                self._tell(one, found, row)
        return len(looked_at)

    async def _known(self) -> Known:
        now_ms = self._clock()
        if now_ms >= self._outcomes_due_ms:
            self._outcomes_due_ms = now_ms + _KNOWN_FOR_MS
            self._outcomes = await outcomes(self._store)
        return Known(sources=self._sources, providers=self._providers, outcomes=self._outcomes)

    def _tell(self, one: _Refused, found: Diagnosis, row: int | None) -> None:
        """`row`: where it is kept, to be looked at; None where it could not be."""
        self._metrics.refused.labels(one.source.slug, found.cause.value).inc()
        log.warning(
            "why a signature was refused", source=one.source.slug, reason=one.reason.value, cause=found.cause.value,
            is_proved=found.is_proved, why=found.words, remedy=found.remedy, rejected=row, **one.context,
        )  # fmt: skip


def _rejection(one: _Refused, found: Diagnosis, provider: Provider) -> Rejection:
    delivery, credentials = one.delivery, _CREDENTIALS | {*provider.credentials, *provider.verifier.credentials}
    headers = {name: value for name, value in delivery.headers.items() if name not in credentials}
    body = delivery.body
    with contextlib.suppress(Exception):  # nobody vouches for these bytes
        body = provider.redact(body)
    return Rejection(
        source=one.source.slug, reason=one.reason.value, cause=found.cause.value,
        words=f"{found.words}. {found.remedy}", headers=headers, body=body,
        query="" if asks_query(provider.verifier) else delivery.query,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def looking(rejecting: Rejecting) -> AsyncIterator[Rejecting]:
    """Look at what is refused while the block runs; and afterwards once more, at what is left."""
    with contextlib.suppress(StoreUnavailableError):
        await rejecting.step()
    task = asyncio.create_task(rejecting.run(), name="rejecting")
    try:
        yield rejecting
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with contextlib.suppress(StoreUnavailableError):
            await rejecting.step()


async def outcomes(store: Store) -> dict[str, set[str]]:
    """By source, the outcomes of what was taken so far."""
    found: dict[str, set[str]] = {}
    for kind in await store.console.kinds():
        found.setdefault(kind.source, set()).add(kind.outcome)
    return found


# --- shadow mode ------------------------------------------------------------------------------------------------------


async def shadows(store: Store) -> dict[str, int]:
    """By source, until when its refused deliveries are taken all the same, in Unix milliseconds; over or not."""
    marks = await store.bookmarks(SHADOW)
    return {
        name.removeprefix(SHADOW): min(int(mark.position), mark.noted_at_ms + LONGEST_SHADOW_MS)
        for name, mark in marks.items()
    }


async def set_shadow(store: Store, source: str, until_ms: int | None) -> None:
    """Until then, but no longer than a day from now; None ends it. Running relays know within seconds."""
    await store.set_bookmark(SHADOW + source, None if until_ms is None else str(until_ms))


# --- what was refused and is to be taken after all --------------------------------------------------------------------


def judge(rejected: Rejected, source: Source, provider: Provider) -> int | None:
    """Which of the source's secrets fits it by now, its time against that of its arrival; None where none does."""
    if rejected.body is None:
        return None
    url = source.public_url or ""
    delivery = Delivery(
        body=rejected.body, headers=rejected.headers or {}, query=rejected.query,
        url=f"{url}?{rejected.query}" if url and rejected.query else url,
    )  # fmt: skip
    secrets = [secret.get_secret_value() for secret in source.secrets]
    verdict = provider.verifier.verify(delivery, secrets, now_ms=rejected.at_ms, tolerance_s=source.tolerance_s)
    return verdict.secret if isinstance(verdict, Accepted) else None


async def take_after_all(store: Store, rejected: Rejected, secret: int) -> None:
    """Commit it to the inbox as it came; the keys hold, so that it may have come again meanwhile."""
    await store.take(
        Verified(source=rejected.source, received_at_ms=rejected.at_ms, secret=secret,
                 headers=dict(rejected.headers or {}), body=rejected.body or b"")
    )  # fmt: skip
    await store.rejected.drop([rejected.id])


def fitting(
    rows: Iterable[Rejected], *, sources: Mapping[str, Source], providers: Mapping[str, Provider]
) -> dict[int, int]:
    """By id, which secret of its source fits by now; of those that fit."""
    found = {}
    for one in rows:
        owner = sources.get(one.source)
        secret = None if owner is None else judge(one, owner, providers[owner.provider])
        if secret is not None:
            found[one.id] = secret
    return found
