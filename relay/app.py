"""The wiring: settings and providers in, an ASGI app out. The only place where all parts know of each other."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from relay import __version__
from relay.certificates import Certificates
from relay.clock import unix_ms
from relay.contract import Provider
from relay.enriching import asking
from relay.forwarding import Forwarding, ForwardingRules, Lane
from relay.metrics import Metrics
from relay.openanalytics import OpenAnalytics
from relay.operating import Disk, Keeper, Retention, beside, depths, remap, watch
from relay.receiving import PREFIX, Limits, Receive, Receiver, Scope, Send
from relay.settings import Settings
from relay.sources import Destination
from relay.store import key_path, open_store, sqlite_path
from relay.store.base import Store, StoreUnavailableError
from relay.store.schema import Outcome
from relay.unfolding import Unfolding
from relay.vault import Vault, key_file

log = structlog.get_logger("relay")

Clock = Callable[[], int]

_ABOUT = """Webhooks of payment, CRM and e-mail providers become conversions in OpenAnalytics: each once, with the right
amount, time and user, and no personal data."""
_DAY_MS = 86_400_000
#: The store's writer waits for no longer than this until the event loop lends it the interpreter.
_SWITCH_S = 0.0005


class RelayApp(FastAPI):
    """FastAPI for all but the hot path, which it never sees: its routing costs more than checking a signature."""

    receiver: Receiver | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.receiver is not None and scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self.receiver(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def open_vault(settings: Settings) -> Vault:
    """The vault of the bodies at rest; without configured keys, one is made beside the database, and that is said."""
    keys = [key.get_secret_value() for key in settings.encryption_keys]
    if not keys:
        path = key_path(settings.database_url.get_secret_value())
        key, is_new = key_file(path)
        keys = [key]
        if is_new:
            log.warning(
                "made a key for the bodies at rest: keep a copy, without it they cannot be read", file=str(path)
            )
    return Vault(keys)


@contextlib.contextmanager
def alone(database: Path) -> Iterator[None]:
    """Hold this SQLite file for one serving process. Raises `StoreUnavailableError` while another one serves it."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"another relay serves {database}: stop it, or set RELAY_DATABASE_URL to another file"
            raise StoreUnavailableError(msg) from None
        yield


def make_lane(
    destination: Destination, settings: Settings, *, store: Store, metrics: Metrics, clock: Clock, owner: str
) -> tuple[Lane, OpenAnalytics]:
    """The lane of a destination, and the client that it calls with."""
    client = OpenAnalytics(
        destination.base_url,
        destination.project_id,
        destination.api_key.get_secret_value(),
        timeout_s=destination.timeout_s,
        batch_body=destination.batch_body,
        clock=clock,
    )
    rules = ForwardingRules(
        batch_size=settings.batch_size,
        give_up_after_ms=settings.give_up_after_days * _DAY_MS,
        lease_ms=int(destination.timeout_s * 1000) + 60_000,
    )
    lane = Lane(destination.name, client=client, store=store, metrics=metrics, clock=clock, owner=owner, rules=rules)
    return lane, client


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What receiving and forwarding have in common within one process."""

    settings: Settings
    providers: Mapping[str, Provider]
    store: Store
    metrics: Metrics
    clock: Clock
    disk: Disk
    certificates: Certificates


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, providers: Mapping[str, Provider], *, metrics: Metrics, clock: Clock, node: int | None = None
) -> AsyncIterator[Parts]:
    """The parts, while the block runs. `node`: the number of this process, where several share the store."""
    url = settings.database_url.get_secret_value()
    store = await open_store(
        url,
        vault=open_vault(settings),
        clock=clock,
        hold=settings.in_doubt == "hold",
        observe_group=metrics.commit_group.observe,
        node=node,
    )
    disk = Disk(sqlite_path(url).parent, min_free_mb=settings.min_free_disk_mb)
    certificates = Certificates(clock=clock)
    try:
        yield Parts(settings=settings, providers=providers, store=store, metrics=metrics, clock=clock, disk=disk,
                    certificates=certificates)  # fmt: skip
    finally:
        await certificates.close()
        await store.close()


@dataclass(frozen=True, slots=True)
class Work:
    """What goes on behind receiving."""

    unfolding: Unfolding
    forwarding: Forwarding
    keeper: Keeper


@contextlib.asynccontextmanager
async def working(parts: Parts) -> AsyncIterator[Work]:
    """Map, forward and keep house while the block runs. No other process does so with this store."""
    settings, store, metrics, clock = parts.settings, parts.store, parts.metrics, parts.clock
    async with contextlib.AsyncExitStack() as stack:
        owner = secrets.token_hex(8)
        if doubted := await store.recover(owner=owner):
            log.warning("batches were under way when the relay ended: they are in doubt", batches=doubted)
        lanes = []
        for destination in settings.destinations.values():
            lane, client = make_lane(destination, settings, store=store, metrics=metrics, clock=clock, owner=owner)
            stack.push_async_callback(client.aclose)
            lanes.append(lane)
        going = Forwarding(lanes)
        keeper = Keeper(
            store=store, metrics=metrics, clock=clock, wake=going.wake, disk=parts.disk,
            retention=Retention(bodies_days=settings.retain_bodies_days, keys_days=settings.retain_keys_days),
        )  # fmt: skip
        await _map_parked(store, settings, parts.providers)
        going.start()
        stack.push_async_callback(going.stop, within_s=settings.shutdown_s)
        unfolding = Unfolding(
            store=store, sources=settings.sources, providers=parts.providers, metrics=metrics, wake=going.wake,
            keep_bodies=settings.retain_bodies_days > 0,
        )  # fmt: skip
        await stack.enter_async_context(_until_empty(unfolding, within_s=settings.shutdown_s))
        await stack.enter_async_context(beside(keeper.run()))
        await stack.enter_async_context(
            asking(list(settings.sources.values()), parts.providers, store=store, metrics=metrics, clock=clock,
                   wake=going.wake, random=random)
        )  # fmt: skip
        yield Work(unfolding=unfolding, forwarding=going, keeper=keeper)


@contextlib.asynccontextmanager
async def _until_empty(unfolding: Unfolding, *, within_s: float) -> AsyncIterator[None]:
    """Map while the block runs, and afterwards what is left in the inbox, as far as there is time."""
    task = asyncio.create_task(unfolding.run(), name="unfolding")
    try:
        yield
    finally:
        unfolding.stop()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(task, within_s)


def make_receiver(parts: Parts, wake: Callable[[], None]) -> Receiver:
    """The hot path. `wake` is called when something new is in the inbox."""
    settings = parts.settings
    return Receiver(
        sources=settings.sources, providers=parts.providers, store=parts.store, metrics=parts.metrics,
        clock=parts.clock, wake=wake, certificates=parts.certificates,
        limits=Limits(max_waiting=settings.max_waiting, trouble=parts.disk.trouble),
    )  # fmt: skip


def create_app(settings: Settings, providers: Mapping[str, Provider], *, clock: Clock = unix_ms) -> RelayApp:
    """The relay as an ASGI app. It opens the store and begins to forward when its lifespan starts."""
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        with alone(sqlite_path(settings.database_url.get_secret_value())):
            async with opened(settings, providers, metrics=metrics, clock=clock) as parts:
                app.state.parts, app.state.store = parts, parts.store
                async with working(parts) as work:
                    app.state.work, app.state.keeper = work, work.keeper
                    app.receiver = make_receiver(parts, work.unfolding.wake)
                    calm_the_collector()
                    log.info("ready", sources=sorted(settings.sources), destinations=sorted(settings.destinations))
                    yield

    return _with_routes(lifespan)


def create_receiving_app(
    settings: Settings,
    providers: Mapping[str, Provider],
    *,
    metrics: Metrics,
    node: int,
    wake: Callable[[], None],
    clock: Clock = unix_ms,
) -> RelayApp:
    """The same for one of several processes that receive, beside another one that does the rest."""

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        async with opened(settings, providers, metrics=metrics, clock=clock, node=node) as parts:
            app.state.parts, app.state.store = parts, parts.store
            app.receiver = make_receiver(parts, wake)
            async with beside(watch(parts.disk, metrics)):
                calm_the_collector()
                yield

    return _with_routes(lifespan)


def _with_routes(lifespan: Callable[[RelayApp], AbstractAsyncContextManager[None]]) -> RelayApp:
    app = RelayApp(title="Relay", description=_ABOUT, version=__version__, lifespan=lifespan, redoc_url=None)
    _add_webhooks(app)
    _add_health(app)
    return app


def calm_the_collector() -> None:
    """A webhook makes hundreds of objects, hardly any of them in a cycle: looking for cycles less often is cheaper."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(_SWITCH_S)


async def _map_parked(store: Store, settings: Settings, providers: Mapping[str, Provider]) -> None:
    """Deliveries that a mapper's bug parked are mapped at the start: the fix came with it."""
    done = await remap(store, sources=settings.sources, providers=providers, outcomes=[Outcome.FAILED])
    if done.deliveries:
        log.warning("mapped parked deliveries again", deliveries=done.deliveries, events=done.events,
                    still_parked=done.still_parked)  # fmt: skip


def _add_webhooks(app: RelayApp) -> None:
    """The hot path's entries in the OpenAPI page; requests are taken by `Receiver` before they get here."""

    @app.post(
        PREFIX + "{source}",
        summary="Receive a provider's webhook",
        tags=["webhooks"],
        responses={
            200: {"description": "Committed: accepted, duplicate, ignored, or kept until it can be mapped."},
            401: {"description": "The signature is missing, wrong, or too old."},
            404: {"description": "No source of this name has a secret."},
            413: {"description": "The body is over the limit."},
            429: {"description": "Not now. `Retry-After` says when."},
        },
    )
    async def webhook(source: str, request: Request) -> Response:
        del source, request
        return Response(status_code=404)

    @app.get(
        PREFIX + "{source}",
        summary="Is somebody there? Some providers ask before they send anything",
        tags=["webhooks"],
        responses={
            200: {"description": "Yes; with the answer to the provider's challenge, where it sent one."},
            404: {"description": "No source of this name has a secret."},
        },
    )
    async def challenge(source: str) -> Response:
        del source
        return Response(status_code=404)


def _add_health(app: RelayApp) -> None:
    @app.get("/healthz", summary="Is the process alive?", tags=["health"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/readyz",
        summary="Can webhooks be taken, and do events leave?",
        tags=["health"],
        responses={503: {"description": "Webhooks cannot be taken now; the body says why."}},
    )
    async def readyz() -> JSONResponse:
        return await _ready(app.state.parts)

    @app.get("/metrics", summary="Prometheus metrics", tags=["health"], response_class=Response)
    async def prometheus() -> Response:
        parts: Parts = app.state.parts
        with contextlib.suppress(StoreUnavailableError):
            await depths(parts.store, parts.metrics, now_ms=parts.clock())
        return Response(parts.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _ready(parts: Parts) -> JSONResponse:
    """503 only when webhooks cannot be taken; a destination that is away is told, and does not turn providers away."""
    store, trouble = parts.store, parts.disk.trouble()
    outbox: list[dict[str, Any]] = []
    destinations: dict[str, Any] = {}
    try:
        await store.check()
        now_ms = unix_ms()
        for depth in await store.depths():
            age_s = None if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms) // 1000
            outbox.append({"destination": depth.destination, "pending": depth.pending + depth.batched,
                           "held": depth.held, "dead": depth.dead, "oldest_s": age_s})  # fmt: skip
        for name in parts.settings.destinations:
            paused = (await store.destination(name)).paused
            destinations[name] = {"state": "paused", "reason": paused} if paused else {"state": "open"}
    except StoreUnavailableError as error:
        trouble = str(error)
    is_degraded = any(state["state"] == "paused" for state in destinations.values())
    status = "unavailable" if trouble else "degraded" if is_degraded else "ok"
    body = {"status": status, "reason": trouble, "outbox": outbox, "destinations": destinations, "pid": os.getpid()}
    return JSONResponse(body, status_code=503 if trouble else 200)
