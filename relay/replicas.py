"""The relay as one of any number of replicas on one PostgreSQL: as many as there are, none of them is special.

A replica receives, maps and forwards, or (`Role`) only receives, or only maps and forwards. They meet in the database:
whoever has time takes the next deliveries and the next batch, and nobody waits for one that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Literal

import structlog

from relay.app import (
    Clock,
    Parts,
    RelayApp,
    add_console,
    calm_the_collector,
    make_ingesting,
    make_receiver,
    opened,
    with_routes,
    working,
)
from relay.clock import unix_ms
from relay.contract import Provider
from relay.metrics import Metrics
from relay.operating import beside, watch
from relay.receiving import Receive, Scope, Send
from relay.settings import Settings
from relay.store import open_bell, prepare
from relay.store.base import StoreUnavailableError

if TYPE_CHECKING:  # it brings the driver, which a relay with an SQLite file does without
    from relay.store.bell import Bell

log = structlog.get_logger("relay")

#: Receive, map and forward; or only the first; or only the others.
Role = Literal["all", "receive", "forward"]

#: For so long a start waits for the database, in seconds.
_START_S = 30
_START_AGAIN_S = 1.0

_BODY = b'{"error":"this replica only forwards: webhooks go to those that receive"}'


def create_replica(
    settings: Settings, providers: Mapping[str, Provider], *, clock: Clock = unix_ms, role: Role = "all"
) -> RelayApp:
    """The relay as an ASGI app, in this role."""
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await _reachable(settings.database_url.get_secret_value())
            parts = await stack.enter_async_context(opened(settings, providers, metrics=metrics, clock=clock))
            app.state.parts, app.state.store = parts, parts.store
            bell = open_bell(settings.database_url.get_secret_value())
            await stack.enter_async_context(_replica(app, parts, bell, role))
            calm_the_collector()
            log.info("ready", role=role, sources=sorted(settings.sources), destinations=sorted(settings.destinations))
            yield

    return with_routes(lifespan)


async def _reachable(url: str) -> None:
    """Wait for a database that is about to start, but not for ever. Raises `StoreUnavailableError`."""
    until = time.monotonic() + _START_S
    while True:
        try:
            await asyncio.to_thread(prepare, url)
        except StoreUnavailableError as error:
            if time.monotonic() > until:
                raise
            log.warning("waiting for the database", error=str(error))
            await asyncio.sleep(_START_AGAIN_S)
        else:
            return


@contextlib.asynccontextmanager
async def _replica(app: RelayApp, parts: Parts, bell: Bell, role: Role) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        if role == "receive":
            await stack.enter_async_context(beside(bell.ringing()))
            await stack.enter_async_context(beside(watch(parts.disk, parts.metrics)))
            app.receiver = make_receiver(parts, bell.ring)
            add_console(app, parts)
            app.ingesting = make_ingesting(parts, lambda _destination: bell.ring())
        else:
            work = await stack.enter_async_context(working(parts))
            app.state.work, app.state.keeper = work, work.keeper

            def wake() -> None:
                work.unfolding.wake()
                work.forwarding.wake_all()

            await stack.enter_async_context(beside(bell.listening(wake)))
            app.receiver = make_receiver(parts, work.unfolding.wake) if role == "all" else not_here
            add_console(app, parts)
            app.ingesting = make_ingesting(parts, work.forwarding.wake)
        yield


async def not_here(scope: Scope, receive: Receive, send: Send) -> None:
    """What a webhook is answered that came to a replica which does not receive: come again, not "never"."""
    del scope, receive
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY)), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
