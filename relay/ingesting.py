"""The events API's own paths, for backends: socket → key → check → commit → 202.

`Ingesting` is a plain ASGI app for `/v1/projects/{id}/events` and `/events/batch`. A 202 leaves only after the events
are committed and fsynced; a call that comes again is answered the same, and nothing of it is told twice.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import orjson
import structlog

from relay.bodies import GoneError, Receive, Scope
from relay.incoming import Prepared, Rules, prepare
from relay.ingest_answers import (
    Answer,
    Mistake,
    accepted,
    as_text,
    invalid,
    mistaken,
    no,
)
from relay.ingest_bodies import Refusal, call_key, content_problem, read_call
from relay.ingest_keys import Doors, projects_of
from relay.metrics import Metrics
from relay.settings import Settings
from relay.store.base import Arrival, Mapped, Outgoing, Receipt, Store, StoreUnavailableError
from relay.store.intake import Claim, IdsReused, KeyReused, Posted, Repeated, Taken
from relay.store.schema import Outcome

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/v1/projects/"
MAX_EVENTS = 1000
MIB = 1024 * 1024

_PATH = re.compile(PREFIX + r"([^/]+)/events(/batch)?")
#: Events that are checked at a stretch: whoever else waits for this process comes in between.
_AT_A_STRETCH = 50
#: Events that may wait for their commit.
_MOST_WAITING = 100_000
#: What is kept of a call's headers.
_KEPT_HEADERS = frozenset({"content-type", "idempotency-key", "user-agent"})
_PARTIAL = {b"0": False, b"false": False, b"1": True, b"true": True}
_RETRY_AFTER_S = 10

log = structlog.get_logger("relay.ingesting")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRules:
    """What the settings say about calls."""

    events: Rules
    #: In bytes; None: 1 MiB for one event, 10 MiB for a batch.
    body_limit: int | None = None
    #: In seconds; 0: a call without a key is always news.
    repeat_s: int = 0
    origins: frozenset[str] = frozenset()
    keep_bodies: bool = True


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, whose key fitted."""

    project: str
    is_batch: bool
    headers: Mapping[str, str]
    query: bytes

    @property
    def source(self) -> str:
        """Its events and its keys are unique within this."""
        return source_of(self.project)


def source_of(project: str) -> str:
    """What stands for the backends of a project where webhooks have their source: no slug looks like it."""
    return f"events:{project}"


class Ingesting:
    """The ASGI app. `projects` are the destinations by project id; `wake` is told which of them got something."""

    def __init__(
        self,
        *,
        projects: Mapping[str, str],
        doors: Doors,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
        wake: Callable[[str], None],
        rules: IngestRules,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._projects = projects
        self._doors = doors
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._rules = rules
        self._trouble = trouble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        started = time.perf_counter()
        try:
            answer = await self._answer(scope, receive)
        except GoneError:
            return
        except StoreUnavailableError as error:
            answer = self._later(f"the store is unavailable: {error}")
        except Exception:
            log.exception("a call of the events API's paths stumbled; the caller is told to come later")
            answer = self._later("it stumbled")
        await answer.send(send, more=self._cross_origin(scope))
        self._metrics.answer_seconds.observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path = _PATH.fullmatch(scope["path"])
        if path is None:
            return no(404, "not_found", "Not found")
        if scope["method"] == "OPTIONS" and self._cross_origin(scope):
            return Answer(204)
        if scope["method"] != "POST":
            return no(405, "method_not_allowed", "POST events here", allow="POST")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        call = _Call(path[1], path[2] is not None, headers, scope["query_string"])
        if (refused := await self._refused(call)) is not None:
            return refused
        if (why := self._overload()) is not None:
            return self._later(why)
        try:
            body = await read_call(scope, receive, headers, limit=self._limit(call))
            key = call_key(scope["headers"])
            is_partial = _is_partial(call)
            raws = _events_in(body, is_batch=call.is_batch)
        except Refusal as refusal:
            self._count(call, refusal.answer.code)
            return refusal.answer
        return await self._take(call, body, raws, key=key, is_partial=is_partial)

    async def _refused(self, call: _Call) -> Answer | None:
        """Why not to read on."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        opens = await self._doors.opens(token.strip(), call.project) if scheme.lower() == "bearer" else None
        if opens is None:
            self._metrics.deliveries.labels("events", "refused_key").inc()
            log.warning("a key was refused", project=call.project if call.project in self._projects else "(unknown)")
            return no(401, "key_refused", "Invalid or missing API key", www_authenticate="Bearer")
        if not opens or call.project not in self._projects:
            return no(404, "no_project", "Project not found")
        return content_problem(call.headers)

    def _limit(self, call: _Call) -> int:
        return self._rules.body_limit or (10 * MIB if call.is_batch else MIB)

    # --- taking it ---

    async def _take(
        self, call: _Call, body: bytes, raws: Sequence[object], *, key: str | None, is_partial: bool
    ) -> Answer:
        now_ms = self._clock()
        prepared, mistakes = await self._prepared(call, raws, now_ms)
        while True:
            if mistakes and (not is_partial or not prepared):
                refused = invalid(mistakes, is_batch=call.is_batch)
                self._count(call, refused.code)
                return refused
            answer = accepted(prepared, mistakes, is_partial=is_partial)
            posted = self._posted(call, body, prepared, answer, key=key, now_ms=now_ms)
            outcome = await self._store.intake.take(posted)
            match outcome:
                case Taken(receipt):
                    self._count(call, "accepted")
                    self._count_events(call, prepared, receipt)
                    for destination in receipt.destinations:
                        self._wake(destination)
                    return answer
                case Repeated(remembered):
                    self._count(call, "repeated")
                    return as_text(remembered)
                case KeyReused():
                    self._count(call, "key_reused")
                    return no(422, "idempotency_key_reused", "This Idempotency-Key came before with another call")
                case IdsReused(indexes):
                    mistakes += [mistaken(index, raws[index]) for index in indexes]
                    mistakes.sort(key=lambda mistake: mistake.index)
                    prepared = {index: one for index, one in prepared.items() if index not in indexes}
                case _:
                    assert_never(outcome)

    async def _prepared(
        self, call: _Call, raws: Sequence[object], now_ms: int
    ) -> tuple[dict[int, Prepared], list[Mistake]]:
        """By index, the events that can be taken; and what is wrong with the others."""
        prepared: dict[int, Prepared] = {}
        mistakes: list[Mistake] = []
        contents: dict[tuple[str, ...], bytes] = {}
        for index, raw in enumerate(raws):
            if index % _AT_A_STRETCH == _AT_A_STRETCH - 1:
                await sleep(0)
            found = prepare(raw, self._rules.events, source=call.source, now_ms=now_ms)
            if not isinstance(found, Prepared):
                mistakes.append(Mistake(index, found))
            elif found.has_id and contents.setdefault(found.sealed.once, found.content) != found.content:
                mistakes.append(mistaken(index, raw))
            else:
                prepared[index] = found
        return prepared, mistakes

    def _posted(
        self, call: _Call, body: bytes, prepared: Mapping[int, Prepared], answer: Answer, *, key: str | None,
        now_ms: int,
    ) -> Posted:  # fmt: skip
        digest = hashlib.sha256(b"%d %b\n" % (call.is_batch, call.query) + body).digest()
        since_ms = 0
        if key is None and self._rules.repeat_s:
            key, since_ms = f"digest:{digest.hex()}", now_ms - self._rules.repeat_s * 1000
        destination = self._projects[call.project]
        mapped = Mapped(
            notification_id=f"call:{secrets.token_hex(12)}",
            type="events/batch" if call.is_batch else "events",
            outcome=Outcome.MAPPED,
            events=[Outgoing(sealed=one.sealed, destination=destination) for one in prepared.values()],
        )
        return Posted(
            arrival=Arrival(
                source=call.source, received_at_ms=now_ms, secret=0, body=body, notifications=(mapped,),
                headers={name: value for name, value in call.headers.items() if name in _KEPT_HEADERS},
                keep_body=self._rules.keep_bodies,
            ),
            key=key,
            digest=digest,
            since_ms=since_ms,
            answer=answer.remembered(),
            claims=[
                Claim(index=index, once=one.sealed.once[0], content=one.content)
                for index, one in prepared.items()
                if one.has_id
            ],
        )  # fmt: skip

    # --- not now, and not from there ---

    def _overload(self) -> str | None:
        if self._store.intake.waiting > _MOST_WAITING:
            return "too many events wait for their commit"
        return self._trouble()

    def _later(self, why: str) -> Answer:
        self._metrics.deliveries.labels("events", "overload").inc()
        log.warning("told a backend to come later", why=why)
        return no(429, "later", "Not now, try again later", retry_after=str(_RETRY_AFTER_S))

    def _count(self, call: _Call, answer: str) -> None:
        self._metrics.deliveries.labels(call.source, answer).inc()

    def _count_events(self, call: _Call, prepared: Mapping[int, Prepared], receipt: Receipt) -> None:
        self._metrics.events.labels(call.source).inc(receipt.events)
        self._metrics.duplicates.labels(call.source).inc(receipt.duplicates)
        if receipt.events:  # else it is all a repeat, and was counted when it came first
            for finding in (finding for one in prepared.values() for finding in one.sealed.findings):
                self._metrics.guard_findings.labels(call.source, finding.kind).inc()

    def _cross_origin(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The headers for a web page of an allowed origin; for all others none."""
        if not self._rules.origins:
            return []
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        if origin.decode("latin-1") not in self._rules.origins:
            return []
        allowed = b"authorization, content-type, content-encoding, idempotency-key"
        return [(b"access-control-allow-origin", origin), (b"access-control-allow-methods", b"POST"),
                (b"access-control-allow-headers", allowed), (b"vary", b"origin")]  # fmt: skip


def make_ingesting(
    settings: Settings,
    *,
    store: Store,
    metrics: Metrics,
    clock: Callable[[], int],
    wake: Callable[[str], None],
    trouble: Callable[[], str | None],
) -> Ingesting:
    """The app with these settings."""
    projects = {found.project_id: name for name, found in reversed([*settings.destinations.items()])}
    words = [key.get_secret_value() for key in settings.ingest_keys]
    events = Rules(
        raw_user_id=settings.ingest_user_id,
        guard=settings.guard,
        hash_key=settings.hash_key.get_secret_value().encode() if settings.hash_key else None,
        ids=settings.ingest_ids,
    )
    rules = IngestRules(
        events=events,
        body_limit=settings.body_limit_bytes,
        repeat_s=settings.ingest_repeat_s,
        origins=frozenset(settings.ingest_origins),
        keep_bodies=settings.retain_bodies_days > 0,
    )
    doors = Doors(projects_of(words, projects), store, clock)
    return Ingesting(
        projects=projects, doors=doors, store=store, metrics=metrics, clock=clock, wake=wake, rules=rules,
        trouble=trouble,
    )  # fmt: skip


def _is_partial(call: _Call) -> bool:
    """Whether the good events of a batch are taken where others are bad. Raises `Refusal`."""
    said = [value for name, _, value in (part.partition(b"=") for part in call.query.split(b"&")) if name == b"partial"]
    if not call.is_batch or not said:
        return False
    if len(said) > 1 or said[0] not in _PARTIAL:
        raise Refusal(no(400, "invalid_query", "partial must be 1 or 0"))
    return _PARTIAL[said[0]]


def _events_in(body: bytes, *, is_batch: bool) -> Sequence[object]:
    """The events as they were posted. Raises `Refusal`."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(no(400, "invalid_json", f"The body is not JSON: {error}")) from None
    if not is_batch:
        return [parsed]
    match parsed:
        case {"events": list(events), **rest} if not rest:
            pass
        case list(events):
            pass
        case _:
            words = 'The body must be {"events": [...]} or an array of events, and nothing more'
            raise Refusal(no(400, "invalid_batch", words))
    if not events:
        raise Refusal(no(400, "invalid_batch", "A batch must hold at least one event"))
    if len(events) > MAX_EVENTS:
        words = f"A batch must hold at most {MAX_EVENTS} events, not {len(events)}"
        raise Refusal(no(400, "too_many_events", words))
    return events
