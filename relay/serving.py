"""Serves an ASGI app on a socket, inside the running event loop: `serving` for a block, `serve` until a signal comes.

In: an app, host and port (0: any free one). Out: where it listens. Callers who come while the app starts wait for it;
on the way out it accepts no more, lets what is in flight finish (up to `grace_s`), then ends the app's lifespan.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
import uvicorn

from relay.connection import HANG_UP, Connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger("relay.serving")

_BACKLOG = 2048
#: How often it looks, while it stops, whether something is in flight.
_LOOK_S = 0.005


class StartError(Exception):
    """The address could not be had, or the app did not start; the text says which."""


@dataclass(frozen=True, slots=True)
class Served:
    """Where an app listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8000`: no slash at the end."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
    grace_s: int = 10,
    keep_alive_s: int = 5,
    hurry: asyncio.Event | None = None,
) -> AsyncIterator[Served]:
    """Serve `app` while the block runs, without touching signals. Raises `StartError`.

    `listener`: a socket of `listen` in place of host and port. `hurry`, when set, ends the wait for what is in flight.
    """
    config = uvicorn.Config(
        cast("Any", app),
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=grace_s,
    )
    config.load()
    with listener or listen(host, port) as taking:
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        try:
            await server.startup(sockets=[taking])
        except SystemExit:  # uvicorn's word for a lifespan that failed; it has logged why
            msg = "the app did not start; the log says why"
            raise StartError(msg) from None
        tasks = [asyncio.create_task(server.main_loop())]
        if hurry is not None:
            tasks.append(asyncio.create_task(_force_exit(server, hurry)))
        try:
            yield Served(*taking.getsockname()[:2])
        finally:
            await server.shutdown(sockets=[taking])
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def serve(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
    grace_s: int = 10,
    keep_alive_s: int = 75,
    started: Callable[[Served], None] = lambda _served: None,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve `app` until one of the signals, then stop gracefully; a second one stops at once. Raises `StartError`."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        async with serving(
            app, host=host, port=port, listener=listener, grace_s=grace_s, keep_alive_s=keep_alive_s, hurry=hurry
        ) as served:
            started(served)
            await stop.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Break off the connection of this request without an answer. Works in apps that are served from here."""
    scope["extensions"][HANG_UP]["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass


class _Server(uvicorn.Server):
    """uvicorn's own, which stops as soon as nothing is in flight: that one looks ten times a second."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for taking in (*self.servers, *(sockets or ())):
            taking.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self._is_busy() and not self.force_exit:  # noqa: ASYNC110  uvicorn tells nobody when one ends
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            log.warning("requests took too long to finish and are cut off", number=len(self.server_state.tasks))
            for task in self.server_state.tasks:
                task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def _is_busy(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)


def listen_each(number: int, *, host: str, port: int) -> list[socket.socket]:
    """So many sockets on one address, for as many processes: the system spreads the connections over them.

    Where it does not do that: the same socket, so many times. Raises `StartError`.
    """
    first = listen(host, port)
    if sys.platform != "linux":
        return [first] * number
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # not before it has the port: nobody else listens there
    port = first.getsockname()[1]
    return [first, *(listen(host, port, is_shared=True) for _ in range(1, number))]


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A socket that takes connections from now on; who takes them from it may come later. Raises `StartError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off (40 ms an answer) only where the protocol is given, so `create_server` won't do
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # now and not after the app has started: until then another process could listen too
    except OSError as error:
        listener.close()
        msg = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise StartError(msg) from None
    return listener


async def _force_exit(server: uvicorn.Server, hurry: asyncio.Event) -> None:
    await hurry.wait()
    server.force_exit = True
