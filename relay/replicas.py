"""The relay as one of any number of replicas on one PostgreSQL: as many as there are, none of them is special.

A replica receives, maps and forwards, or (`Role`) only receives, or only maps and forwards. They meet in the database:
whoever has time takes the next deliveries and the next batch, and nobody waits for one that died. One that starts while
the database is away says so, answers "later" (or spools), and begins to work as soon as it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import random
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
from relay.serving import Receive, Scope, Send
from relay.settings import Settings
from relay.store import open_bell, prepare
from relay.store.base import StoreUnavailableError

if TYPE_CHECKING:  # it brings the driver, which a relay with an SQLite file does without
    from relay.store.bell import Bell

log = structlog.get_logger("relay")

#: Receive, map and forward; or only the first; or only the others.
Role = Literal["all", "receive", "forward"]

#: For so long a start waits until the replica does all that it is to do, in seconds; it goes on beside its work.
_START_S = 10
#: Between two tries of a start; each replica tries at moments of its own.
_AGAIN_S = 1.0
#: So often what keeps a replica from starting is said again.
_SAY_EVERY = 30

_BODY = b'{"error":"this replica only forwards: webhooks go to those that receive"}'


def create_replica(
    settings: Settings, providers: Mapping[str, Provider], *, clock: Clock = unix_ms, role: Role = "all"
) -> RelayApp:
    """The relay as an ASGI app, in this role."""
    metrics = Metrics()
    url = settings.database_url.get_secret_value()

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        gate = Gate()
        async with contextlib.AsyncExitStack() as stack:
            bell = open_bell(url)
            await _try(url, gate)
            parts = await stack.enter_async_context(
                opened(settings, providers, metrics=metrics, clock=clock, shut=gate.reason)
            )
            app.state.parts, app.state.store = parts, parts.store
            await stack.enter_async_context(_receiving(app, parts, bell, role))
            await stack.enter_async_context(_begun(url, gate, partial(_working, app, parts, bell, role)))
            calm_the_collector()
            yield

    return with_routes(lifespan)


class Gate:
    """Shut until the tables are known to be there; the reason says why they are not."""

    def __init__(self) -> None:
        self._reason: str | None = "the database has not answered yet"

    def reason(self) -> str | None:
        """Why nobody may connect yet, or None."""
        return self._reason

    def shut(self, reason: str) -> None:
        self._reason = reason

    def open(self) -> None:
        self._reason = None


async def _try(url: str, gate: Gate) -> None:
    """Prepare the database where it is there; where it is away or slow, the gate says so."""
    try:
        await asyncio.wait_for(asyncio.to_thread(prepare, url), _START_S)
    except TimeoutError:
        return
    except StoreUnavailableError as error:
        gate.shut(str(error))
    else:
        gate.open()


@contextlib.asynccontextmanager
async def _begun(url: str, gate: Gate, work: Callable[[], AbstractAsyncContextManager[None]]) -> AsyncIterator[None]:
    """Work beside the block: from its beginning on, or, where the database is away, as soon as it is back."""
    over, tried = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(_begin(url, gate, work, tried=tried, over=over), name="beginning")
    trying = asyncio.create_task(tried.wait())
    if gate.reason() is None:  # else nobody waits for it here
        await asyncio.wait([task, trying], timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
    trying.cancel()
    tried.set()  # what goes wrong from now on is told in the log
    if task.done():
        await task  # it raises what is no matter of waiting
    try:
        yield
    finally:
        over.set()
        if gate.reason() is not None:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _begin(
    url: str,
    gate: Gate,
    work: Callable[[], AbstractAsyncContextManager[None]],
    *,
    tried: asyncio.Event,
    over: asyncio.Event,
) -> None:
    """Prepare the database and work until it is over; where that cannot be, try again, for as long as it takes."""
    told: str | None = None
    for times in itertools.count():
        try:
            if gate.reason() is not None:
                await asyncio.to_thread(prepare, url)
                gate.open()
            async with work():
                tried.set()
                await over.wait()
                return
        except StoreUnavailableError as error:
            reason = str(error)
            if gate.reason() is not None:
                gate.shut(reason)
            if reason != told or times % _SAY_EVERY == 0:
                log.error("cannot begin yet; it is tried again", reason=reason)  # noqa: TRY400  no traceback is needed
            told = reason
        except Exception:
            if not tried.is_set():
                raise
            log.exception("beginning stumbled; it is tried again")
        tried.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _AGAIN_S * (0.5 + random()))  # noqa: S311  spreads replicas apart
        if over.is_set():
            return


@contextlib.asynccontextmanager
async def _receiving(app: RelayApp, parts: Parts, bell: Bell, role: Role) -> AsyncIterator[None]:
    """What a replica does without its database too: it answers, and takes what a spool takes."""
    async with contextlib.AsyncExitStack() as stack:
        app.receive_with(not_here if role == "forward" else make_receiver(parts, bell.ring))
        app.ingesting = make_ingesting(parts, lambda _destination: bell.ring())
        add_console(app, parts)
        if role == "receive":
            await stack.enter_async_context(beside(bell.ringing()))
            await stack.enter_async_context(beside(watch(parts.disk, parts.metrics)))
        yield


@contextlib.asynccontextmanager
async def _working(app: RelayApp, parts: Parts, bell: Bell, role: Role) -> AsyncIterator[None]:
    """What it does with its database only."""
    async with contextlib.AsyncExitStack() as stack:
        if role != "receive":
            work = await stack.enter_async_context(working(parts))
            app.state.work, app.state.keeper = work, work.keeper

            def wake() -> None:
                work.unfolding.wake()
                work.forwarding.wake_all()

            await stack.enter_async_context(beside(bell.listening(wake)))
            if role == "all":  # from now on who receives here need not ring for the others
                app.receive_with(make_receiver(parts, work.unfolding.wake))
            app.ingesting = make_ingesting(parts, work.forwarding.wake)
        settings = parts.settings
        log.info("ready", role=role, sources=sorted(settings.sources), destinations=sorted(settings.destinations))
        yield


async def not_here(scope: Scope, receive: Receive, send: Send) -> None:
    """What a webhook is answered that came to a replica which does not receive: come again, not "never"."""
    del scope, receive
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY)), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
