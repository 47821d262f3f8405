"""What a backend is answered: `202 {"queued":true}`, or what is wrong, where, and in words.

An answer that is no is `{"error": words, "code": word}`; where it is about events, `problems` name the index in the
batch and the field of each. No answer repeats a value that was posted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from relay.event import Problem
from relay.incoming import ID_FIELDS, Prepared

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

INVALID = "invalid_event"
REUSED = "event_id_reused"
#: How many events had an e-mail address or the like as user_id, which is a hash now.
HASHED = "relay-hashed-user-ids"
#: From how many events the guard took other personal data.
REDACTED = "relay-redacted-events"
REPLAYED = "idempotency-replayed"

_QUEUED = b'{"queued":true}'
#: Of problems in one answer: what is wrong with the hundredth event is wrong with the others too.
_MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and headers."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    #: What it is counted as.
    code: str = ""

    async def send(self, send: Send, *, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with these headers as well."""
        headers = [(b"content-length", str(len(self.body)).encode()), *more]
        if self.body:
            headers.insert(0, (b"content-type", b"application/json"))
        headers += [(name.encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def remembered(self) -> bytes:
        """What is kept of it for a repeat; nothing of the usual one."""
        if self.body == _QUEUED and not self.headers:
            return b""
        return orjson.dumps([self.body.decode(), self.headers])


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one event of a call."""

    index: int
    problems: tuple[Problem, ...]
    #: The event is valid, but for its id.
    is_reuse: bool = False


def mistaken(index: int, raw: object) -> Mistake:
    """An event whose id came before with another content."""
    field = next((name for name in ID_FIELDS if isinstance(raw, dict) and name in raw), "properties.event_id")
    return Mistake(index, (Problem(field, "came before with another content"),), is_reuse=True)


def no(status: int, code: str, words: str, **headers: str) -> Answer:
    """An answer that is no. Headers by name, with underscores for dashes."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(status, orjson.dumps({"error": words, "code": code}), named, code)


def invalid(mistakes: Sequence[Mistake], *, is_batch: bool) -> Answer:
    """422 with every problem, 409 where ids are all that is wrong; `error` tells the first."""
    told = _told(mistakes, is_batch=is_batch)
    first, rest = mistakes[0], len(told) - 1
    words = f"events[{first.index}]: {first.problems[0]}" if is_batch else str(first.problems[0])
    if rest:
        words += f" (and {rest} more)"
    status, code = (409, REUSED) if all(mistake.is_reuse for mistake in mistakes) else (422, INVALID)
    body = {"error": words, "code": code, "problems": told[:_MOST_PROBLEMS]}
    return Answer(status, orjson.dumps(body), (), code)


def accepted(prepared: Mapping[int, Prepared], mistakes: Sequence[Mistake], *, is_partial: bool) -> Answer:
    """202, and what the guard did in headers; of a batch that may be taken in part, what was not taken."""
    hashed = sum(one.is_hashed for one in prepared.values())
    redacted = sum(one.is_redacted for one in prepared.values())
    headers = [(name, str(number)) for name, number in ((HASHED, hashed), (REDACTED, redacted)) if number]
    body = _QUEUED
    if is_partial:
        told = _told(mistakes, is_batch=True)
        body = orjson.dumps({"queued": True, "accepted": len(prepared), "rejected": len(mistakes), "problems": told})
    return Answer(202, body, tuple(headers))


def as_text(remembered: bytes) -> Answer:
    """The answer of a call that came before."""
    body, headers = orjson.loads(remembered) if remembered else (_QUEUED.decode(), [])
    return Answer(202, body.encode(), (*((name, value) for name, value in headers), (REPLAYED, "true")))


def _told(mistakes: Sequence[Mistake], *, is_batch: bool) -> list[dict[str, Any]]:
    return [
        ({"index": mistake.index} if is_batch else {}) | {"field": problem.field, "message": problem.message}
        for mistake in mistakes
        for problem in mistake.problems
    ]
