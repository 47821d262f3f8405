"""Outbox → events API. One `Lane` a destination: claim a batch, send it, settle it, again.

All that a restart must not change (batches, their keys and due times, pauses) is in the store; the breaker is not, as
it only saves calls. One bad event never holds up its batch, one bad destination never another: lanes share nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from random import random as draw
from typing import assert_never

import structlog

from relay.ids import made_at_ms
from relay.metrics import Metrics
from relay.openanalytics import Closed, InDoubt, Later, OpenAnalytics, Outcome, Rejected, Sent, TooLarge
from relay.retry import Breaker, Closed as BreakerClosed, ask, backoff_ms, failed, succeeded, wait_ms
from relay.store.base import Batch, DestinationState, Store, StoreUnavailableError

log = structlog.get_logger("relay.forwarding")

#: Without a wake-up, look again after this long: for what other processes put into the store.
_POLL_MS = 1_000
#: After so long what is known of the destination is asked for again: another replica may have paused it.
_KNOWN_FOR_MS = 2_000
#: After a batch that was not full, events of the next moments are gathered. A lone event never waits for this.
_LINGER_MS = 100
#: A paused destination is asked again after this long, and then less and less often.
_PROBE_FIRST_MS = 30_000
_PROBE_CAP_MS = 600_000
#: Answers that may mean "no batches here" rather than "no such project".
_NO_BATCHES = frozenset({404, 405})
_ATTEMPTS_BEFORE_HALVING = 2
#: So many dead letters are named in one line of the log.
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRules:
    batch_size: int = 1000
    #: After this long without being accepted an event becomes a dead letter.
    give_up_after_ms: int = 7 * 24 * 3_600_000
    #: For how long a claimed batch is ours alone; longer than a call can take.
    lease_ms: int = 120_000


class Lane:
    """The way to one destination. `step` does one thing; `run` steps until `stop`."""

    def __init__(
        self,
        name: str,
        *,
        client: OpenAnalytics,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
        owner: str,
        rules: ForwardingRules | None = None,
        random: Callable[[], float] = draw,
    ) -> None:
        self.name = name
        self._client = client
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._owner = owner
        self._rules = rules or ForwardingRules()
        self._random = random
        self._breaker: Breaker = BreakerClosed()
        self._state = DestinationState()
        self._ask_again_ms = 0
        self._probes = 0
        self._sent_at_ms = 0
        self._tries_single = False
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        metrics.paused.labels(name).set(0)
        metrics.breaker_open.labels(name).set(0)

    # --- running ---

    def wake(self) -> None:
        """Something new is in the outbox."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after the call that is in flight."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Forward until `stop`. Whatever goes wrong is logged and tried again."""
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                pause_ms = await self.step()
            except StoreUnavailableError as error:
                log.warning("the store is unavailable", destination=self.name, error=str(error))
                pause_ms = _POLL_MS
            except Exception:
                log.exception("forwarding stumbled; it goes on", destination=self.name)
                pause_ms = _POLL_MS
            if pause_ms:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), pause_ms / 1000)
            if not self._stopping.is_set() and self._lingers():
                await asyncio.sleep(_LINGER_MS / 1000)

    def _lingers(self) -> bool:
        return self._clock() - self._sent_at_ms < _LINGER_MS

    async def step(self) -> int:
        """Send one batch, if one may be sent now. Returns for how long nothing more will be due, in ms."""
        now_ms = self._clock()
        if now_ms >= self._ask_again_ms or self._state.paused is not None:
            self._know(await self._store.destination(self.name))
        if self._state.paused is not None and now_ms < (self._state.probe_at_ms or 0):
            return min((self._state.probe_at_ms or 0) - now_ms, _POLL_MS)
        if not self._may_call(now_ms):
            return min(wait_ms(self._breaker, now_ms=now_ms), _POLL_MS)
        limit = min(self._rules.batch_size, self._state.batch_size or self._rules.batch_size)
        batch = await self._store.claim(
            self.name,
            limit=1 if self._state.single else limit,
            lease_ms=self._rules.lease_ms,
            owner=self._owner,
        )
        if batch is None:
            self._breaker = self._unasked
            due = await self._store.next_due(self.name)
            return _POLL_MS if due is None else max(1, min(due - self._clock(), _POLL_MS))
        if self._clock() >= batch.lease_until_ms:  # this process stood still: another one may be sending it
            log.warning("the lease of a batch was over before it was sent", destination=self.name, batch=batch.id)
            return 0
        await self._send(batch)
        if len(batch.events) < limit:
            self._sent_at_ms = self._clock()
        return 0

    def _may_call(self, now_ms: int) -> bool:
        self._unasked = self._breaker
        self._breaker, may_call = ask(self._breaker, now_ms=now_ms)
        return may_call

    async def _send(self, batch: Batch) -> None:
        single = len(batch.events) == 1 and (self._state.single or self._tries_single)
        if self._state.single and not single:  # made before it was known that no batches are taken
            await self._settled(batch, self._store.split(batch, first=1, words="sent one by one"))
            return
        outcome = await self._client.send(
            [event.payload for event in batch.events], key=batch.idempotency_key, single=single
        )
        self._metrics.attempts.labels(self.name, _label(outcome)).inc()
        self._metrics.batch_events.observe(len(batch.events))
        say = log.debug if isinstance(outcome, Sent) else log.info
        say("a batch was tried", destination=self.name, batch=batch.id, events=len(batch.events),
            attempt=batch.attempts + 1, answer=_label(outcome))  # fmt: skip
        await self._settle(batch, outcome, single=single)

    # --- settling: the table of answers ---

    async def _settle(self, batch: Batch, outcome: Outcome, *, single: bool) -> None:
        if single and self._tries_single:
            await self._learn_single(works=isinstance(outcome, Sent))
        match outcome:
            case Sent():
                await self._accepted(batch, outcome)
            case Rejected(words=words):
                self._answered()
                await self._halve_or_refuse(batch, words)
            case TooLarge():
                self._answered()
                await self._shrink(batch)
            case Closed():
                await self._closed(batch, outcome, single=single)
            case Later():
                await self._later(batch, outcome)
            case InDoubt():
                await self._doubted(batch, outcome)
            case _:
                assert_never(outcome)

    async def _accepted(self, batch: Batch, outcome: Sent) -> None:
        self._answered()
        if not outcome.expected:
            log.warning("accepted with an unexpected status", destination=self.name, batch=batch.id,
                        status=outcome.status)  # fmt: skip
        if await self._settled(batch, self._store.sent(batch)):
            self._metrics.sent.labels(self.name).inc(len(batch.events))
        if self._state.paused is not None:
            log.warning("the destination takes events again", destination=self.name)
            self._probes = 0
            await self._remember(replace(self._state, paused=None, probe_at_ms=None))

    async def _halve_or_refuse(self, batch: Batch, words: str) -> None:
        if len(batch.events) > 1:
            await self._settled(batch, self._store.split(batch, first=len(batch.events) // 2, words=words))
            return
        if await self._settled(batch, self._store.refuse(batch, reason=words)):
            self._metrics.dead.labels(self.name).inc()
            log.error("an event was refused and is a dead letter now", destination=self.name, batch=batch.id,
                      dead_letter=batch.events[0].id, words=words)  # fmt: skip

    async def _shrink(self, batch: Batch) -> None:
        size = len(batch.events)
        if size > 1:
            half = size // 2
            if half < (self._state.batch_size or self._rules.batch_size):
                await self._remember(replace(self._state, batch_size=half))
        await self._halve_or_refuse(batch, f"413: too large ({size} events)")

    async def _closed(self, batch: Batch, outcome: Closed, *, single: bool) -> None:
        self._answered()
        if outcome.status in _NO_BATCHES and not single and self._state.paused is None:
            self._tries_single = True  # the next claim gets the first event alone
            if len(batch.events) > 1:
                await self._settled(batch, self._store.split(batch, first=1, words=outcome.words))
            else:
                await self._settled(batch, self._store.later(batch, due_at_ms=self._clock(), words=outcome.words))
            return
        now_ms = self._clock()
        await self._settled(batch, self._store.later(batch, due_at_ms=now_ms, words=outcome.words))
        wait = min(_PROBE_CAP_MS, _PROBE_FIRST_MS << min(self._probes, 10))
        self._probes += 1
        log.error("the destination refuses us: paused, nothing is lost", destination=self.name, batch=batch.id,
                  status=outcome.status, words=outcome.words, next_probe_s=wait // 1000)  # fmt: skip
        words = f"{outcome.status}: {outcome.words}"
        await self._remember(replace(self._state, paused=words, probe_at_ms=now_ms + wait))

    async def _learn_single(self, *, works: bool) -> None:
        self._tries_single = False
        if works:
            log.warning("the batch endpoint is missing: events are sent one by one", destination=self.name)
            await self._remember(replace(self._state, single=True))

    async def _later(self, batch: Batch, outcome: Later) -> None:
        others_pass = isinstance(self._breaker, BreakerClosed) and self._breaker.failures == 0
        words = outcome.words if outcome.status is None else f"{outcome.status}: {outcome.words}"
        now_ms = self._failed(outcome.retry_after_ms)
        due_at_ms = now_ms + backoff_ms(batch.attempts + 1, random=self._random, retry_after_ms=outcome.retry_after_ms)
        if await self._give_up_overdue(batch, words, due_at_ms):
            return
        stuck = outcome.status == 500 and others_pass and batch.attempts >= _ATTEMPTS_BEFORE_HALVING  # noqa: PLR2004
        if stuck and len(batch.events) > 1:  # one event of it may make the API fail: let the others go
            await self._settled(batch, self._store.split(batch, first=len(batch.events) // 2, words=words))
            return
        await self._settled(batch, self._store.later(batch, due_at_ms=due_at_ms, words=words))

    async def _doubted(self, batch: Batch, outcome: InDoubt) -> None:
        now_ms = self._failed(None)
        self._metrics.in_doubt.labels(self.name).inc(len(batch.events))
        log.warning("sent, and no answer came: in doubt", destination=self.name, batch=batch.id,
                    events=len(batch.events), words=outcome.words)  # fmt: skip
        due_at_ms = now_ms + backoff_ms(batch.attempts + 1, random=self._random)
        await self._settled(batch, self._store.in_doubt(batch, due_at_ms=due_at_ms, words=outcome.words))

    async def _give_up_overdue(self, batch: Batch, words: str, due_at_ms: int) -> bool:
        oldest = self._clock() - self._rules.give_up_after_ms
        overdue = [event.id for event in batch.events if made_at_ms(event.id) < oldest]
        if not overdue:
            return False
        reason = f"given up after {self._rules.give_up_after_ms / 86_400_000:g} days; the last answer: {words}"
        if await self._settled(batch, self._store.refuse(batch, reason=reason, only=overdue, due_at_ms=due_at_ms)):
            self._metrics.dead.labels(self.name).inc(len(overdue))
            log.error("events were given up", destination=self.name, batch=batch.id, events=len(overdue),
                      dead_letters=overdue[:_MOST_NAMED], reason=reason)  # fmt: skip
        return True

    # --- what is known of the destination ---

    def _know(self, state: DestinationState) -> None:
        self._state = state
        self._ask_again_ms = self._clock() + _KNOWN_FOR_MS
        self._metrics.paused.labels(self.name).set(state.paused is not None)

    async def _remember(self, state: DestinationState) -> None:
        await self._store.set_destination(self.name, state)
        self._know(state)

    def _answered(self) -> None:
        self._breaker = succeeded(self._breaker)
        self._metrics.breaker_open.labels(self.name).set(0)

    def _failed(self, retry_after_ms: int | None) -> int:
        now_ms = self._clock()
        self._breaker = failed(self._breaker, now_ms=now_ms, retry_after_ms=retry_after_ms)
        self._metrics.breaker_open.labels(self.name).set(not isinstance(self._breaker, BreakerClosed))
        return now_ms

    async def _settled(self, batch: Batch, verb: Coroutine[None, None, bool]) -> bool:
        settled = await verb
        if not settled:
            log.warning("the lease of a batch was lost before it was settled", destination=self.name, batch=batch.id)
        return settled


def _label(outcome: Outcome) -> str:
    match outcome:
        case Sent(status=status) | Rejected(status=status) | TooLarge(status=status) | Closed(status=status):
            return str(status)
        case Later(status=status):
            return "not_sent" if status is None else str(status)
        case InDoubt():
            return "no_answer"
        case _:
            assert_never(outcome)


class Forwarding:
    """All lanes, each in a task of its own."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes: Mapping[str, Lane] = {lane.name: lane for lane in lanes}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to forward."""
        self._tasks = [asyncio.create_task(lane.run(), name=f"lane-{name}") for name, lane in self._lanes.items()]

    def wake(self, destination: str) -> None:
        """Something new is in the outbox of this destination."""
        lane = self._lanes.get(destination)
        if lane is not None:
            lane.wake()

    def wake_all(self) -> None:
        """Something new is in the outbox of some destination."""
        for lane in self._lanes.values():
            lane.wake()

    async def stop(self, *, within_s: float) -> None:
        """Let the calls in flight end; after `within_s` they are cut off, and their batches are in doubt."""
        for lane in self._lanes.values():
            lane.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
