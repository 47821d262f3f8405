"""A caller's connection: uvicorn's own, with a short way for requests that are plain.

ASGI costs a small request more than checking its signature does. So an app may have a `short_way`: it is asked about
each POST with a body of known, moderate size, and what it returns is called with the request once that is whole. What
is not plain (chunked, HTTP/1.0, `Expect`, before its turn, the last one of its connection) goes the way of ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]

log = structlog.get_logger("relay.serving")

HANG_UP = "relay.hang_up"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes out, but for the date: status line and headers with their line ends, and the body."""

    status: bytes
    rest: bytes


def reply(status: int, headers: Headers, body: bytes) -> Reply:
    """Render an answer; `headers` must have its `content-length`."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return Reply(STATUS_LINE[status], b"%b\r\n%b" % (lines, body))


_STUMBLED = reply(500, [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"0")], b"")

#: Takes the headers (names in lower case) and the body.
Handler = Callable[[Headers, bytes], Coroutine[Any, Any, Reply]]


class ShortWay(Protocol):
    """Who takes a POST to this target (path and query) with a body of so many bytes; None: it goes the way of ASGI."""

    def __call__(self, target: bytes, size: int, /) -> Handler | None: ...


class _Plain:
    """A request on the short way. uvicorn sees in it a request like any other: what it looks at has the same names."""

    __slots__ = ("body", "disconnected", "handler", "headers", "keep_alive", "response_complete")

    def __init__(self, handler: Handler, headers: Headers) -> None:
        self.handler = handler
        self.headers = headers
        self.body = b""
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> _Plain:
        return self

    def set(self) -> None:
        """Nobody waits for a part of it."""


class Connection(HttpToolsProtocol):
    """Lends each request the one thing that ASGI keeps from it, its connection's end; and knows the short way."""

    cycle: Any

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        handler = self._short_way()
        if handler is None:
            super().on_headers_complete()
        else:
            self.cycle = _Plain(handler, self.headers)

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if type(cycle) is not _Plain:
            super().on_message_complete()
            return
        task = self.loop.create_task(self._answer(cycle))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _short_way(self) -> Handler | None:
        ask: ShortWay | None = getattr(self.app, "short_way", None)
        if ask is None or self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if self.parser.should_upgrade() or not self.parser.should_keep_alive() or self.expect_100_continue:
            return None
        if self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        size = b""
        for name, value in self.headers:
            if name == b"content-length":
                size = value
            elif name == b"transfer-encoding":
                return None
        if not size.isdigit() or int(size) > HIGH_WATER_LIMIT:
            return None
        return ask(self.url, int(size))

    async def _answer(self, cycle: _Plain) -> None:
        try:
            answer = await cycle.handler(cycle.headers, cycle.body)
        except asyncio.CancelledError:  # it took too long to finish
            self._write(cycle, _STUMBLED, is_last=True)
            raise
        except Exception:
            log.exception("the app stumbled")
            self._write(cycle, _STUMBLED, is_last=True)
        else:
            self._write(cycle, answer, is_last=not cycle.keep_alive)

    def _write(self, cycle: _Plain, answer: Reply, *, is_last: bool) -> None:
        if cycle.disconnected:
            return
        dated = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        ending = b"connection: close\r\n" if is_last else b""
        self.transport.write(b"".join((answer.status, *dated, ending, answer.rest)))
        cycle.response_complete = True
        if is_last:
            self.transport.close()
        self.on_response_complete()
