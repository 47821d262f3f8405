"""What happens to a delivery, as traces. Loaded only where RELAY_TRACING is on.

    the trace of a delivery                   the trace of a batch
    receive ─┬─ commit                        batch, one a call ──links──▶ forward
             ├─ map ── commit
             ├─ forward, one a call           forward ──link──▶ batch
             └─ dead letter

What is traced is wrapped once, at the start. A span holds ids, counts, sources, outcomes and statuses, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, assert_never, cast

import structlog
from opentelemetry.trace import SpanContext, SpanKind

from relay import ingesting, receiving
from relay.openanalytics import Closed, InDoubt, Later, OpenAnalytics, Outcome as Answered, Rejected, Sent, TooLarge
from relay.serving import ASGIApp, Receive, Scope, Send
from relay.settings import Settings
from relay.spans import Spans, Times, caller, drawn_trace, exporting, in_hex
from relay.store.base import Arrival, Batch, Inboxed, Kept, Mapped, Receipt, Store, StoreUnavailableError, Verified
from relay.store.intake import IdsReused, Intake, KeyReused, Outcome as Posting, Posted, Repeated, Taken
from relay.store.schema import Outcome

log = structlog.get_logger("relay.tracing")

#: Unix nanoseconds, as spans have them.
Now = Callable[[], int]
#: Runs something that nobody waits for.
Beside = Callable[[Coroutine[None, None, None]], None]

#: Spans that are made at a stretch: whoever else waits for this process comes in between.
_AT_A_STRETCH = 50
#: For so long a shutdown waits for what is still to be told.
_SETTLE_S = 2.0
_SERVER_ERROR = 500

#: What became of a request that left nothing in the store. 0: whoever called went away.
_OUTCOMES = {0: "gone", 400: "invalid", 401: "refused", 404: "unknown", 405: "method", 413: "too_large",
             415: "invalid", 422: "invalid", 429: "later", 503: "later"}  # fmt: skip


@contextlib.asynccontextmanager
async def tracing(settings: Settings, *, now: Now = time.time_ns) -> AsyncIterator[Tracing]:
    """What wraps the parts of this process, while the block runs. Raises `SettingsError` for OTEL_* that are wrong."""
    async with exporting() as spans:
        found = Tracing(spans, settings, now=now)
        try:
            yield found
        finally:
            await found.settle()


# --- what is wrapped --------------------------------------------------------------------------------------------------


class Tracing:
    """Wraps the parts of one process. What it returns does what it did before, and tells of it."""

    def __init__(self, spans: Spans, settings: Settings, *, now: Now) -> None:
        self._spans = spans
        self._settings = settings
        self._now = now
        self._claimed: dict[str, Batch] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def receiver(self, app: ASGIApp) -> ASGIApp:
        """The ASGI app of the webhooks. What strangers ask for beside them is not traced."""
        paths = {receiving.PREFIX + slug: slug for slug in self._settings.sources}
        return _Requests(app, self._spans, self._now, paths, joins=False)

    def ingesting(self, app: ASGIApp) -> ASGIApp:
        """The ASGI app of the events API's own paths: its callers' traces go on here."""
        projects = {one.project_id for one in self._settings.destinations.values()}
        paths = {f"{ingesting.PREFIX}{project}/events{batch}": ingesting.source_of(project)
                 for project in projects for batch in ("", "/batch")}  # fmt: skip
        return _Requests(app, self._spans, self._now, paths, joins=True)

    def store(self, store: Store) -> Store:
        """The store, of which commits, mapping and claims are told."""
        return cast(Store, _TracedStore(store, self._spans, self._now, self._claimed, self._beside))

    def client(self, client: OpenAnalytics, destination: str, store: Store) -> OpenAnalytics:
        """The client of a destination, of which every call is told."""

        def sent(batch: Batch, answer: Answered, times: Times) -> None:
            self._beside(_tell_batch(self._spans, store, batch, answer, times))

        return cast(OpenAnalytics, _TracedClient(client, destination, self._claimed, sent, self._now))

    def _beside(self, telling: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(_safely(telling), name="spans")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def settle(self) -> None:
        """Tell what is left to tell, while there is a store to ask."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=_SETTLE_S)


async def _safely(telling: Coroutine[None, None, None]) -> None:
    try:
        await telling
    except StoreUnavailableError as error:
        log.warning("spans are missing: the store is unavailable", error=str(error))
    except Exception:
        log.exception("telling of spans stumbled")


@dataclass(slots=True)
class _Request:
    """One that is under way."""

    source: str
    #: Its trace, as long as it has left nothing in the store.
    trace: int = field(default_factory=drawn_trace)
    delivery: int | None = None
    outcome: str | None = None
    committing: Times | None = None


_request: ContextVar[_Request | None] = ContextVar("request", default=None)


class _Requests:
    """An ASGI app, of which each request is told."""

    def __init__(self, app: ASGIApp, spans: Spans, now: Now, paths: Mapping[str, str], *, joins: bool) -> None:
        """`paths` that are traced, with their sources. `joins`: whether whoever calls may say whose trace it is."""
        self._app = app
        self._spans = spans
        self._now = now
        self._paths = paths
        self._joins = joins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = self._paths.get(scope["path"])
        if source is None:
            await self._app(scope, receive, send)
            return
        request, status, began = _Request(source), 0, self._now()

        async def sending(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        token = _request.set(request)
        try:
            with structlog.contextvars.bound_contextvars(trace_id=in_hex(request.trace)):
                await self._app(scope, receive, sending)
        finally:
            _request.reset(token)
            self._tell(scope, request, (began, self._now()), status)

    def _tell(self, scope: Scope, request: _Request, times: Times, status: int) -> None:
        spans, delivery = self._spans, request.delivery
        root = spans.without_delivery(request.trace) if delivery is None else spans.delivery(delivery)
        about = {
            "relay.source": request.source,
            "relay.delivery": None if delivery is None else str(delivery),
            "relay.outcome": request.outcome or _OUTCOMES.get(status, "answered"),
            "http.request.method": scope["method"],
            "http.response.status_code": status or None,
        }
        failed, kind, links = status >= _SERVER_ERROR, SpanKind.SERVER, list[SpanContext]()
        if self._joins and (above := caller(scope["headers"])):
            joined = [] if delivery is None else [root]
            links = [spans.tell("receive", times, below=above, kind=kind, links=joined, failed=failed, about=about)]
            kind = SpanKind.INTERNAL  # the trace of its own, which forwarding goes on with later
        if delivery is not None or not links:
            spans.tell("receive", times, as_=root, kind=kind, links=links, failed=failed, about=about)
        if request.committing is not None:
            spans.tell("commit", request.committing, below=root, about={"relay.source": request.source})


class _TracedStore:
    """All else is the store's own."""

    def __init__(self, store: Store, spans: Spans, now: Now, claimed: dict[str, Batch], beside: Beside) -> None:
        self._store = store
        self._spans = spans
        self._now = now
        self._claimed = claimed
        self._beside = beside
        self._mapping_since = 0
        self.intake = cast(Intake, _TracedIntake(store.intake, now))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def waiting(self) -> int:
        return self._store.waiting

    async def take(self, verified: Verified) -> None:
        began = self._now()
        await self._store.take(verified)
        request = _request.get()
        if request is not None:
            request.delivery, request.outcome = verified.delivery, "accepted"
            request.committing = (began, self._now())

    async def inbox(self, *, limit: int) -> Sequence[Inboxed]:
        found = await self._store.inbox(limit=limit)
        self._mapping_since = self._now()
        return found

    async def unbox(self, found: Sequence[Inboxed], arrivals: Sequence[Arrival]) -> list[Receipt]:
        began, committing = self._mapping_since, self._now()
        receipts = await self._store.unbox(found, arrivals)
        committed = (committing, self._now())
        for arrival, receipt in zip(arrivals, receipts, strict=True):
            if arrival.delivery is not None:
                told = arrival.source, arrival.delivery, arrival.notifications
                self._mapped(*told, receipt, (began, committed[1]), committed, again=False)
        return receipts

    async def remap(self, kept: Kept, notifications: Sequence[Mapped], **rest: Any) -> Receipt:
        began = self._now()
        receipt = await self._store.remap(kept, notifications, **rest)
        times = (began, self._now())
        self._mapped(kept.source, kept.delivery, notifications, receipt, times, times, again=True)
        return receipt

    def _mapped(
        self, source: str, delivery: int, notifications: Sequence[Mapped], receipt: Receipt, times: Times,
        committed: Times, *, again: bool,
    ) -> None:  # fmt: skip
        outcomes = [mapped.outcome for mapped in notifications]
        about = {
            "relay.source": source,
            "relay.delivery": str(delivery),
            "relay.again": again or None,
            "relay.notifications": len(outcomes),
            "relay.repeated": receipt.repeated,
            "relay.events": receipt.events,
            "relay.duplicates": receipt.duplicates,
            **{f"relay.{outcome.value}": outcomes.count(outcome) for outcome in Outcome if outcome in outcomes},
        }
        failed = Outcome.FAILED in outcomes
        span = self._spans.tell("map", times, below=self._spans.delivery(delivery), failed=failed, about=about)
        self._spans.tell("commit", committed, below=span, about={"relay.source": source})

    async def claim(self, destination: str, *, limit: int, lease_ms: int, owner: str) -> Batch | None:
        batch = await self._store.claim(destination, limit=limit, lease_ms=lease_ms, owner=owner)
        if batch is not None:
            self._claimed[destination] = batch
        return batch

    async def refuse(self, batch: Batch, *, reason: str, only: Sequence[int] | None = None, due_at_ms: int = 0) -> bool:
        settled = await self._store.refuse(batch, reason=reason, only=only, due_at_ms=due_at_ms)
        if settled:
            events = [event.id for event in batch.events] if only is None else only
            self._beside(self._died(batch, events, self._now()))
        return settled

    async def _died(self, batch: Batch, events: Sequence[int], at: int) -> None:
        for delivery, event_id in (await self._store.console.origins(events)).values():
            about = {"relay.event": event_id, "relay.destination": batch.destination, "relay.batch": str(batch.id)}
            self._spans.tell("dead letter", (at, at), below=self._spans.delivery(delivery), failed=True, about=about)


class _TracedIntake:
    """All else is the intake's own."""

    def __init__(self, intake: Intake, now: Now) -> None:
        self._intake = intake
        self._now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._intake, name)

    async def take(self, posted: Posted) -> Posting:
        began = self._now()
        outcome = await self._intake.take(posted)
        request = _request.get()
        if request is not None:
            request.committing = (began, self._now())
            match outcome:
                case Taken(receipt):
                    request.delivery, request.outcome = receipt.delivery, "accepted"
                case Repeated():
                    request.outcome = "repeated"
                case KeyReused():
                    request.outcome = "key_reused"
                case IdsReused():
                    request.outcome = "ids_reused"
        return outcome


class _TracedClient:
    """All else is the client's own."""

    def __init__(
        self, client: OpenAnalytics, destination: str, claimed: Mapping[str, Batch],
        sent: Callable[[Batch, Answered, Times], None], now: Now,
    ) -> None:  # fmt: skip
        self._client = client
        self._destination = destination
        self._claimed = claimed
        self._sent = sent
        self._now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, payloads: Sequence[bytes], *, key: str, single: bool = False) -> Answered:
        began = self._now()
        answer = await self._client.send(payloads, key=key, single=single)
        batch = self._claimed.get(self._destination)
        if batch is not None and batch.idempotency_key == key:
            self._sent(batch, answer, (began, self._now()))
        return answer


async def _tell_batch(spans: Spans, store: Store, batch: Batch, answer: Answered, times: Times) -> None:
    """A call, in the trace of its batch and in those of the deliveries that its events come from."""
    own = spans.batch(batch.id, batch.attempts)
    failed, links = not isinstance(answer, Sent), list[SpanContext]()
    about = {
        "relay.destination": batch.destination,
        "relay.batch": str(batch.id),
        "relay.attempt": batch.attempts + 1,
        "relay.outcome": _word(answer),
        "http.response.status_code": getattr(answer, "status", None),
    }
    origins = await store.console.origins([event.id for event in batch.events])
    for number, (event, (delivery, event_id)) in enumerate(origins.items(), 1):
        root = spans.delivery(delivery)
        if root.trace_flags.sampled:
            seen = spans.forwarded(root, event, batch.id, batch.attempts)
            spans.tell("forward", times, below=root, as_=seen, links=[own], failed=failed,
                       about={**about, "relay.event": event_id})  # fmt: skip
            links.append(seen)
        if not number % _AT_A_STRETCH:
            await asyncio.sleep(0)
    spans.tell("batch", times, as_=own, kind=SpanKind.CLIENT, links=links, failed=failed,
               about={**about, "relay.events": len(batch.events)})  # fmt: skip


def _word(answer: Answered) -> str:
    match answer:
        case Sent():
            return "sent"
        case Rejected():
            return "rejected"
        case TooLarge():
            return "too_large"
        case Closed():
            return "closed"
        case Later():
            return "later"
        case InDoubt():
            return "in_doubt"
        case _:
            assert_never(answer)
