"""A local events API that holds callers to the documented contract, and misbehaves on demand. `relay sandbox` runs it.

In: events, as at the real API. Out: what it accepted (`GET /received`), who called how (`GET /requests`, `GET /stats`).
A batch is taken whole or not at all. Like the real API it does not deduplicate: what is sent twice is there twice.
Everything is kept in memory, as the bytes that came, until `DELETE /received`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from relay.asking import Ask
from relay.clock import unix_ms
from relay.event import Event, check
from relay.faults import Faults, faults_from_json
from relay.serving import ASGIApp, Receive, Scope, Send, hang_up

MAX_EVENTS = 1000
MIB = 1024 * 1024

_ENDPOINTS = {
    "POST /v1/projects/{id}/events": "take one event",
    "POST /v1/projects/{id}/events/batch": f'take 1 to {MAX_EVENTS} events: {{"events": [...]}} or a bare array',
    "GET /received": "the accepted events in order; ?since=N leaves out the first N, ?count=1 only counts",
    "DELETE /received": "forget them, and all that is counted",
    "GET /requests": "the last 1000 calls: when, which endpoint, answer, events, Idempotency-Key",
    "GET /stats": "calls, events, answers by status, keys that came more than once",
    "PUT /faults": "misbehave from now on; GET shows how, DELETE ends it",
    "GET /healthz": "200",
}
_BATCH_OBJECT = re.compile(rb'\s*\{\s*"events"\s*:\s*\[(.*)\]\s*\}\s*', re.DOTALL)
_EVENTS_PATH = re.compile(r"/v1/projects/([^/]+)/events(/batch)?")
_DIGITS = 19  # fewer fit into 64 bits
_BETWEEN = frozenset(", \t\r\n")


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Any
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One POST of events, read."""

    project: str
    is_batch: bool
    headers: Mapping[bytes, bytes]
    #: None where it was over the limit.
    body: bytes | None

    @property
    def key(self) -> str | None:
        """Its Idempotency-Key."""
        found = self.headers.get(b"idempotency-key")
        return None if found is None else found.decode("latin-1")


@dataclass(slots=True)
class Ledger:
    """What was accepted, and what was counted."""

    #: The accepted events, call by call: how many, and their JSON objects as they came, with the commas between.
    received: list[tuple[int, bytes]] = field(default_factory=list)
    events: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    #: By key, the digest of what was accepted under it.
    taken: dict[str, bytes] = field(default_factory=dict)
    replayed: int = 0
    calls: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))

    def since(self, first: int) -> Iterator[bytes]:
        """The JSON of the events from this one on, in pieces."""
        before = 0
        for count, raw in self.received:
            if before >= first:
                yield raw
            elif before + count > first:
                yield b",".join(_split(raw)[first - before :])
            before += count

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.statuses.total(),
            "events": self.events,
            "by_status": dict(sorted(self.statuses.items())),
            "keys": len(self.keys),
            "keys_seen_again": sum(times > 1 for times in self.keys.values()),
            "replayed": self.replayed,
        }


def create_app(
    *,
    api_key: str | None = None,
    project_id: str | None = None,
    max_bytes: int = 10 * MIB,
    clock: Callable[[], int] = unix_ms,
) -> ASGIApp:
    """A sandbox as an ASGI app. Without `api_key` any bearer that begins with `oa_` passes; `project_id` likewise."""
    return Sandbox(api_key=api_key, project_id=project_id, max_bytes=max_bytes, clock=clock)


class Sandbox:
    def __init__(
        self, *, api_key: str | None, project_id: str | None, max_bytes: int, clock: Callable[[], int]
    ) -> None:
        self._api_key = api_key
        self._project_id = project_id
        self._max_bytes = max_bytes
        self._clock = clock
        self._ledger = Ledger()
        self._faults = Faults()
        #: What a provider's API would say, by what it is asked for: samples of providers that say too little bring it.
        self._answers: dict[str, Any] = {}
        #: Since the faults were set.
        self._calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        with contextlib.suppress(_CallerGoneError):
            await self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if found := _EVENTS_PATH.fullmatch(scope["path"]):
            await self._take(scope, receive, send, project=found[1], is_batch=found[2] is not None)
        elif (scope["method"], scope["path"]) == ("GET", "/received"):
            await self._show(scope["query_string"], send)
        else:
            body = await _read(receive, MIB)
            known = self._answers.get(_asked(scope, body or b""))
            reply = self._managed(scope["method"], scope["path"], body or b"")
            await _answer(send, reply if known is None else Reply(200, known))

    # --- taking events ---

    async def _take(self, scope: Scope, receive: Receive, send: Send, *, project: str, is_batch: bool) -> None:
        self._calls += 1
        fault = self._faults.at(self._calls)
        if fault.latency_ms:
            await asyncio.sleep(fault.latency_ms / 1000)
        headers = dict(scope["headers"])
        if fault.drop_request:
            self._note(Call(project=project, is_batch=is_batch, headers=headers, body=None), None, 0)
            await hang_up(scope, receive)
            return
        body = await _read(receive, self._max_bytes)
        call = Call(project=project, is_batch=is_batch, headers=headers, body=body)
        before = self._ledger.events
        if scope["method"] != "POST":
            reply = _error(405, "Method not allowed", (b"allow", b"POST"))
        elif not fault.accepts and fault.status is not None:
            reply = _error(fault.status, "The sandbox was told to answer so", *fault.headers)
        else:
            reply = self._judged(call)
            if fault.status is not None and reply.status == 202:  # noqa: PLR2004
                reply = Reply(fault.status, reply.body)
        taken = self._ledger.events - before
        if fault.drop_answer:
            self._note(call, None, taken)
            await hang_up(scope, receive)
            return
        self._note(call, reply.status, taken)
        await _answer(send, reply)

    def _note(self, call: Call, status: int | None, taken: int) -> None:
        ledger = self._ledger
        ledger.statuses["dropped" if status is None else str(status)] += 1
        if call.key is not None:
            ledger.keys[call.key] += 1
        ledger.calls.append({
            "at_ms": self._clock(),
            "endpoint": "batch" if call.is_batch else "single",
            "status": status,
            "events": taken,
            "key": call.key,
        })  # fmt: skip

    def _judged(self, call: Call) -> Reply:
        if not self._knows(call.headers.get(b"authorization", b"")):
            return _error(401, "Invalid or missing API key")
        if self._project_id is not None and call.project != self._project_id:
            return _error(404, "Project not found")
        if call.is_batch and (closed := self._faults.batch_status):
            return _error(closed, "Not found" if closed == 404 else "Method not allowed")  # noqa: PLR2004
        if call.headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
            return _error(415, "Content-Type must be application/json")
        limit = self._faults.max_bytes or self._max_bytes
        if call.body is None or len(call.body) > limit:
            return _error(413, f"The body is larger than {limit} bytes")
        return self._accepted(call, call.body)

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        if self._api_key is None:
            return re.fullmatch(rb"oa_\S+", token) is not None
        return hmac.compare_digest(token, self._api_key.encode())

    def _accepted(self, call: Call, body: bytes) -> Reply:
        digest = hashlib.sha256(body).digest() if self._faults.honor_idempotency else b""
        if digest and call.key in self._ledger.taken:
            if self._ledger.taken[call.key] != digest:
                return _error(422, "Idempotency-Key came before with another body")
            self._ledger.replayed += 1
            return Reply(202, {"queued": True})
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return _error(400, f"The body is not JSON: {error}")
        events = _events_of(parsed) if call.is_batch else [parsed]
        if isinstance(events, Reply):
            return events
        for index, event in enumerate(events):
            problems = check(event)
            if not isinstance(problems, Event):
                place = f"events[{index}]: " if call.is_batch else ""
                return _error(400, place + "; ".join(map(str, problems)))
        if self._faults.reject is not None and any(map(self._faults.reject.fits, events)):
            return _error(self._faults.reject.status, "Invalid event")
        self._ledger.received.append((len(events), _raw(body, events) if call.is_batch else body.strip()))
        self._ledger.events += len(events)
        if digest and call.key is not None:
            self._ledger.taken[call.key] = digest
        return Reply(202, {"queued": True})

    # --- looking at it and setting it ---

    async def _show(self, query: bytes, send: Send) -> None:
        asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        since, count = asked.pop("since", "0"), asked.pop("count", None)
        if asked or not (since.isascii() and since.isdigit() and len(since) < _DIGITS):
            await _answer(send, _error(400, "Only ?since=<number of events to leave out> and ?count=1 are known"))
            return
        if count is not None:
            await _answer(send, Reply(200, {"count": max(0, self._ledger.events - int(since))}))
            return
        pieces = list(self._ledger.since(int(since)))
        length = sum(map(len, pieces)) + max(0, len(pieces) - 1) + len(b"[]")
        await send(_start(200, length))
        for index, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": (b"," if index else b"[") + piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"]" if pieces else b"[]"})

    def _managed(self, method: str, path: str, body: bytes) -> Reply:
        match method, path:
            case "GET", "/":
                about = "a sandbox of the events API: it takes what the real one takes, and keeps it here"
                return Reply(200, {"about": about, "events": self._ledger.events, "endpoints": _ENDPOINTS})
            case "DELETE", "/received":
                self._ledger = Ledger()
                return Reply(200, {"events": 0})
            case "GET", "/requests":
                return Reply(200, list(self._ledger.calls))
            case "GET", "/stats":
                return Reply(200, self._ledger.stats())
            case "GET" | "PUT" | "DELETE", "/faults":
                return self._set_faults(method, body)
            case "PUT", "/answers":
                told = orjson.loads(body)
                self._answers |= {unquote(asked): answer for asked, answer in told.items() if answer is not None}
                return Reply(200, {"answers": len(self._answers)})
            case "GET", "/healthz":
                return Reply(200, {"status": "ok"})
            case _, "/" | "/received" | "/requests" | "/stats" | "/faults" | "/healthz":
                return _error(405, "Method not allowed")
            case _:
                return _error(404, "Not found")

    def _set_faults(self, method: str, body: bytes) -> Reply:
        if method != "GET":
            faults = faults_from_json(body) if method == "PUT" else Faults()
            if isinstance(faults, str):
                return _error(400, faults)
            self._faults, self._calls = faults, 0
        shown = self._faults.rules if self._faults.are_over(self._calls + 1) else self._faults
        return Reply(200, shown.model_dump(mode="json", exclude_defaults=True))


def _events_of(parsed: object) -> Sequence[object] | Reply:
    """The events of a batch in either form, or what is wrong with it."""
    match parsed:
        case {"events": list(events), **rest} if not rest:
            pass
        case list(events):
            pass
        case _:
            return _error(400, 'The body must be {"events": [...]} or an array of events, and nothing more')
    if not events:
        return _error(400, "A batch must hold at least one event")
    if len(events) > MAX_EVENTS:
        return _error(413, f"A batch must hold at most {MAX_EVENTS} events, not {len(events)}")
    return events


def _raw(body: bytes, events: Sequence[object]) -> bytes:
    """The events of a valid batch as they were written, commas between, so that every digit can be compared."""
    if body.lstrip().startswith(b"["):
        return body.strip()[1:-1].strip()
    found = _BATCH_OBJECT.fullmatch(body)
    if found is not None and body.count(b'"events"') == 1:
        return found[1].strip()
    return b",".join(map(orjson.dumps, events))  # the word is there more than once: which one counts, the parser knows


def _split(raw: bytes) -> list[bytes]:
    """Cut the bytes of several JSON objects, with commas between, into one piece for each."""
    text = raw.decode()
    decoder, pieces, start = json.JSONDecoder(), [], 0
    while start < len(text):
        _, end = decoder.raw_decode(text, start)
        pieces.append(text[start:end].encode())
        start = end
        while text[start : start + 1] in _BETWEEN:
            start += 1
    return pieces


class _CallerGoneError(Exception):
    """The caller broke off before its request was whole."""


# --- ASGI -------------------------------------------------------------------------------------------------------------


def _asked(scope: Scope, body: bytes) -> str:
    """As `Ask.key` has it, with nothing quoted."""
    query = scope["query_string"].decode("latin-1")
    path = scope["path"] + (f"?{unquote(query)}" if query else "")
    return unquote(Ask(path=path, method=scope["method"], body=body).key)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The body; None when it is longer than `limit`, without keeping it."""
    pieces, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _CallerGoneError
        piece = message.get("body", b"")
        length += len(piece)
        if length <= limit:
            pieces.append(piece)
        more = message.get("more_body", False)
    return b"".join(pieces) if length <= limit else None


async def _answer(send: Send, reply: Reply) -> None:
    body = orjson.dumps(reply.body)
    await send(_start(reply.status, len(body), *reply.headers))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, length: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    fixed = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": [*fixed, *headers]}


def _error(status: int, words: str, *headers: tuple[bytes, bytes]) -> Reply:
    return Reply(status, {"error": words}, headers)


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan protocol: nothing to start, nothing to end."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
