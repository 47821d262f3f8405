"""A client for backends, of a relay's events API or of the real one: `Client`, and `AsyncClient` with the same verbs.

    with Client("https://relay.example", project="42", key="oa_...") as analytics:
        analytics.conversion("purchase", user_id=hashed, revenue="19.99", currency="EUR")

Events gather and leave in batches: when there are enough, on `flush`, and at the end of the block. A batch is tried
again under one Idempotency-Key, and each event has an id of its own: a relay counts it once, however often it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Self, TypeVar

import httpx

Properties = Mapping[str, str | int | float | bool]
Done = TypeVar("Done")

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class NotSentError(Exception):
    """A batch was not accepted: its `events`, and the `answer` where there was one. What is behind it stays pending."""

    def __init__(self, words: str, events: list[dict[str, Any]], answer: httpx.Response | None) -> None:
        self.events, self.answer = events, answer
        super().__init__(words)


class _Verbs(Generic[Done]):
    """What both clients have in common. One client is for one thread, or for one event loop."""

    _post: Callable[[httpx.Request], Awaitable[httpx.Response]]
    _wait: Callable[[float], Awaitable[None]]
    _finish: Callable[[Coroutine[Any, Any, None]], Done]

    def __init__(self, base_url: str, *, project: str, key: str, batch_size: int = 500, tries: int = 6,
                 timeout_s: float = 10.0, repeat_unanswered: bool = True) -> None:  # fmt: skip
        """`repeat_unanswered=False` suits the real events API, which counts twice what it took without answering."""
        self.pending: list[dict[str, Any]] = []
        self._url = f"{base_url.rstrip('/')}/v1/projects/{project}/events/batch"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._batch_size, self._tries, self._repeat_unanswered = min(batch_size, 1000), tries, repeat_unanswered
        self._timeout = {"timeout": httpx.Timeout(timeout_s).as_dict()}

    def track(self, name: str, *, user_id: str | None = None, url: str | None = None,
              properties: Properties | None = None, timestamp_ms: int | None = None) -> Done:  # fmt: skip
        """Something happened; by default now."""
        return self._gather("event", properties, timestamp_ms, event_name=name, user_id=user_id, url=url)

    def conversion(self, name: str, *, revenue: Decimal | str | int, currency: str, user_id: str | None = None,
                   url: str | None = None, properties: Properties | None = None,
                   timestamp_ms: int | None = None) -> Done:  # fmt: skip
        """Something was earned: `revenue` in major units, in an ISO 4217 `currency`."""
        is_float = Decimal(str(float(revenue))) == Decimal(revenue)  # else it goes as a text, with all its digits
        return self._gather("conversion", properties, timestamp_ms, event_name=name, user_id=user_id, url=url,
                            revenue=float(revenue) if is_float else str(revenue), currency=currency)  # fmt: skip

    def identify(self, user_id: str, *, properties: Properties | None = None, timestamp_ms: int | None = None) -> Done:
        """Who it is: a pseudonym, such as the SHA-256 of the e-mail address in lower case."""
        return self._gather("identify", properties, timestamp_ms, user_id=user_id)

    def flush(self) -> Done:
        """Send all that is pending. Raises `NotSentError`."""
        return self._finish(self._flush(at_least=1))

    def _gather(self, event_type: str, properties: Properties | None, timestamp_ms: int | None, **rest: Any) -> Done:
        event = {"event_type": event_type, **rest, "properties": {"event_id": uuid.uuid4().hex, **(properties or {})},
                 "timestamp": time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms}  # fmt: skip
        self.pending.append({field: value for field, value in event.items() if value is not None})
        return self._finish(self._flush(at_least=self._batch_size))

    async def _flush(self, *, at_least: int) -> None:
        while len(self.pending) >= at_least:
            batch, self.pending = self.pending[: self._batch_size], self.pending[self._batch_size :]
            headers = {**self._headers, "Idempotency-Key": str(uuid.uuid4())}
            request = httpx.Request(
                "POST", self._url, json={"events": batch}, headers=headers, extensions=self._timeout
            )
            for tries_left in reversed(range(self._tries)):
                answer: httpx.Response | None = None
                try:
                    answer = await self._post(request)
                except httpx.TransportError as error:
                    words, may_repeat = repr(error), self._repeat_unanswered or isinstance(error, _NOTHING_SENT)
                else:
                    words, may_repeat = f"{answer.status_code}: {answer.text}", answer.status_code in _LATER
                    if answer.is_success:
                        break
                if not may_repeat or not tries_left:
                    raise NotSentError(words, batch, answer)
                asked = "" if answer is None else answer.headers.get("retry-after", "")
                drawn_s = random.uniform(0, 2.0 ** (self._tries - tries_left - 2))  # noqa: S311  spreads callers apart
                await self._wait(min(60.0, float(asked) if asked.isdigit() else drawn_s))


async def _at_once(call: Callable[[Any], Any], given: Any) -> Any:
    return call(given)


class Client(_Verbs[None]):
    """Waits until a batch is accepted."""

    def __init__(self, base_url: str, *, transport: httpx.BaseTransport | None = None,
                 pause: Callable[[float], None] = time.sleep, **rest: Any) -> None:  # fmt: skip
        super().__init__(base_url, **rest)
        self._http = httpx.Client(transport=transport)
        self._post, self._wait = partial(_at_once, self._http.send), partial(_at_once, pause)

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(StopIteration):  # nothing in it is ever waited for, so one step is all of it
            work.send(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._http:
            self.flush()


class AsyncClient(_Verbs[Coroutine[Any, Any, None]]):
    """The same verbs, to be awaited."""

    def __init__(self, base_url: str, *, transport: httpx.AsyncBaseTransport | None = None,
                 pause: Callable[[float], Awaitable[None]] = asyncio.sleep, **rest: Any) -> None:  # fmt: skip
        super().__init__(base_url, **rest)
        self._http = httpx.AsyncClient(transport=transport)
        self._post, self._wait = self._http.send, pause

    def _finish(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return work

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        async with self._http:
            await self.flush()
