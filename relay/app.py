"""The wiring: settings and providers in, an ASGI app out. The only place where all parts know of each other."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from relay import __version__, ingesting
from relay.alarming import Alarming, Recipient
from relay.certificates import Certificates
from relay.clock import unix_ms
from relay.connection import ShortWay
from relay.contract import Provider
from relay.enriching import asking
from relay.forwarding import Forwarding, ForwardingRules, Lane
from relay.health import add_health
from relay.helping import helping
from relay.ingest_docs import described
from relay.leases import LEASE_MS, renewing
from relay.metrics import Metrics
from relay.openanalytics import OpenAnalytics
from relay.operating import Disk, Keeper, Retention, beside, remap, watch
from relay.pages import Things, console_routes
from relay.receiving import PREFIX, Limits, Receiver
from relay.rejecting import Rejecting, looking
from relay.serving import ASGIApp, Receive, Scope, Send
from relay.settings import Settings
from relay.sources import Destination
from relay.store import is_shared, key_path, open_store, sqlite_path
from relay.store.base import Store, StoreUnavailableError
from relay.store.pacing import Pace
from relay.store.schema import Outcome
from relay.unfolding import Unfolding
from relay.vault import Vault, key_file
from relay.webhook_docs import add_webhooks

if TYPE_CHECKING:  # it brings OpenTelemetry, which is there only where it is installed
    from relay.tracing import Tracing

log = structlog.get_logger("relay")

Clock = Callable[[], int]

_ABOUT = """Webhooks of payment, CRM and e-mail providers become conversions in OpenAnalytics: each once, with the right
amount, time and user, and no personal data."""
_DAY_MS = 86_400_000
#: FastAPI's own, which would tell whole URLs: operators search for people by them. `relay.tracing` tells what it may.
_NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
#: For so long a replica that is stopped goes on mapping: the others map the rest, as far as there are any.
_LEAVE_S = 1.0
#: The store's writer waits for no longer than this until the event loop lends it the interpreter.
_SWITCH_S = 0.0005


class RelayApp(FastAPI):
    """FastAPI for all but the hot path, which it never sees: its routing costs more than checking a signature."""

    receiver: ASGIApp | None = None
    ingesting: ASGIApp | None = None
    #: The receiver's, which leads around ASGI; None while there is no receiver, and where it is watched.
    short_way: ShortWay | None = None

    def receive_with(self, receiver: ASGIApp) -> None:
        """From now on webhooks are taken by this one."""
        self.receiver = receiver
        self.short_way = getattr(receiver, "short_way", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if self.receiver is not None and path.startswith(PREFIX):
            await self.receiver(scope, receive, send)
        elif self.ingesting is not None and path.startswith(ingesting.PREFIX):
            await self.ingesting(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The description of all paths, those of the hot paths too."""
        parts: Parts | None = getattr(self.state, "parts", None)
        return described(super().openapi(), now_ms=parts.clock() if parts else unix_ms())


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


def make_lane(destination: Destination, parts: Parts, *, owner: str) -> tuple[Lane, OpenAnalytics]:
    """The lane of a destination, and the client that it calls with."""
    settings, store, metrics, clock = parts.settings, parts.store, parts.metrics, parts.clock
    client = OpenAnalytics(
        destination.base_url,
        destination.project_id,
        destination.api_key.get_secret_value(),
        timeout_s=destination.timeout_s,
        batch_body=destination.batch_body,
        clock=clock,
    )
    if parts.tracing is not None:
        client = parts.tracing.client(client, destination.name, store)
    rules = ForwardingRules(
        batch_size=settings.batch_size,
        give_up_after_ms=settings.give_up_after_days * _DAY_MS,
        lease_ms=LEASE_MS if shares_store(settings) else int(destination.timeout_s * 1000) + 60_000,
    )
    lane = Lane(destination.name, client=client, store=store, metrics=metrics, clock=clock, owner=owner, rules=rules)
    return lane, client


def shares_store(settings: Settings) -> bool:
    """Whether other replicas use the same store."""
    return is_shared(settings.database_url.get_secret_value())


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
    rejecting: Rejecting
    #: None: nothing is wrapped.
    tracing: Tracing | None


@contextlib.asynccontextmanager
async def opened(
    settings: Settings,
    providers: Mapping[str, Provider],
    *,
    metrics: Metrics,
    clock: Clock,
    node: int | None = None,
    shut: Callable[[], str | None] | None = None,
) -> AsyncIterator[Parts]:
    """The parts, while the block runs. `node`: the number of this process, where several share the store.

    `shut`: why the store cannot be used yet, where somebody prepares it beside this block.
    """
    url = settings.database_url.get_secret_value()
    store = await open_store(
        url,
        vault=open_vault(settings),
        clock=clock,
        hold=settings.in_doubt == "hold",
        observe_group=metrics.commit_group.observe,
        node=node,
        pace=Pace(settings.calls_at_once, settings.events_per_s),
        spool=settings.spool_file if settings.spool else None,
        spool_min_free_mb=settings.min_free_disk_mb,
        shut=shut,
    )
    disk = Disk(None if is_shared(url) else sqlite_path(url).parent, min_free_mb=settings.min_free_disk_mb)
    certificates = Certificates(clock=clock)
    rejecting = Rejecting(sources=settings.sources, providers=providers, store=store, metrics=metrics, clock=clock)
    try:
        async with _tracing(settings) as tracing, looking(rejecting):
            wrapped = tracing.store(store) if tracing else store
            yield Parts(settings=settings, providers=providers, store=wrapped, metrics=metrics, clock=clock, disk=disk,
                        certificates=certificates, rejecting=rejecting, tracing=tracing)  # fmt: skip
    finally:
        await certificates.close()
        await store.close()


@contextlib.asynccontextmanager
async def _tracing(settings: Settings) -> AsyncIterator[Tracing | None]:
    if settings.tracing:
        from relay.tracing import tracing  # noqa: PLC0415  what is off costs nothing

        async with tracing(settings) as found:
            yield found
    else:
        yield None


@dataclass(frozen=True, slots=True)
class Work:
    """What goes on behind receiving."""

    unfolding: Unfolding
    forwarding: Forwarding
    keeper: Keeper


@contextlib.asynccontextmanager
async def working(parts: Parts) -> AsyncIterator[Work]:
    """Map, forward and keep house while the block runs; with an SQLite file, no other process does so."""
    settings, store, metrics, clock = parts.settings, parts.store, parts.metrics, parts.clock
    async with contextlib.AsyncExitStack() as stack:
        owner = secrets.token_hex(8)
        if shares_store(settings):
            await stack.enter_async_context(beside(renewing(store, owner=owner)))
        elif doubted := await store.recover(owner=owner):
            log.warning("batches were under way when the relay ended: they are in doubt", batches=doubted)
        lanes = []
        for destination in settings.destinations.values():
            lane, client = make_lane(destination, parts, owner=owner)
            stack.push_async_callback(client.aclose)
            lanes.append(lane)
        going = Forwarding(lanes)
        keeper = Keeper(
            store=store, metrics=metrics, clock=clock, wake=going.wake, disk=parts.disk,
            retention=Retention(bodies_days=settings.retain_bodies_days, keys_days=settings.retain_keys_days),
            owner=owner if shares_store(settings) else None,
        )  # fmt: skip
        await _map_parked(store, settings, parts.providers)
        going.start()
        stack.push_async_callback(going.stop, within_s=settings.shutdown_s)
        unfolding = make_unfolding(parts, going.wake)
        within_s = _LEAVE_S if shares_store(settings) else settings.shutdown_s
        await stack.enter_async_context(_until_empty(unfolding, within_s=within_s))
        await stack.enter_async_context(beside(keeper.run()))
        await stack.enter_async_context(beside(make_alarming(parts, owner=owner).run()))
        await stack.enter_async_context(
            asking(list(settings.sources.values()), parts.providers, store=store, metrics=metrics, clock=clock,
                   wake=going.wake, random=random)
        )  # fmt: skip
        yield Work(unfolding=unfolding, forwarding=going, keeper=keeper)


def make_unfolding(parts: Parts, wake: Callable[[str], None]) -> Unfolding:
    """What maps. `wake` is told which destination has something new to send."""
    return Unfolding(store=parts.store, sources=parts.settings.sources, providers=parts.providers,
                     metrics=parts.metrics, wake=wake, keep_bodies=parts.settings.retain_bodies_days > 0)  # fmt: skip


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


def make_alarming(parts: Parts, *, owner: str) -> Alarming:
    """What looks for alarms, and tells them where the settings say so."""
    settings, recipient = parts.settings, None
    if settings.alarm_url is not None:
        recipient = Recipient(url=settings.alarm_url.get_secret_value(), form=settings.alarm_format,
                              repeat_ms=settings.alarm_repeat_h * 3_600_000)  # fmt: skip
    return Alarming(store=parts.store, sources=settings.sources, destinations=list(settings.destinations),
                    clock=parts.clock, trouble=parts.disk.trouble, owner=owner, recipient=recipient)  # fmt: skip


def make_receiver(parts: Parts, wake: Callable[[], None]) -> ASGIApp:
    """The hot path. `wake` is called when something new is in the inbox."""
    settings, tracing = parts.settings, parts.tracing
    receiver = Receiver(
        sources=settings.sources, providers=parts.providers, store=parts.store, metrics=parts.metrics,
        clock=parts.clock, wake=wake, certificates=parts.certificates,
        limits=Limits(max_waiting=settings.max_waiting, trouble=parts.disk.trouble), refused=parts.rejecting.refused,
    )  # fmt: skip
    return tracing.receiver(receiver) if tracing else receiver


def make_ingesting(parts: Parts, wake: Callable[[str], None]) -> ASGIApp:
    """The events API's own paths. `wake` is told which destination has something new to send."""
    app = ingesting.make_ingesting(
        parts.settings, store=parts.store, metrics=parts.metrics, clock=parts.clock, wake=wake,
        trouble=parts.disk.trouble)  # fmt: skip
    return parts.tracing.ingesting(app) if parts.tracing else app


def add_console(app: RelayApp, parts: Parts) -> None:
    """The operator's pages, where there is a token to sign in with."""
    if parts.settings.admin_token is not None:
        things = Things(settings=parts.settings, providers=parts.providers, store=parts.store, metrics=parts.metrics,
                        clock=parts.clock, trouble=parts.disk.trouble)  # fmt: skip
        app.router.routes.extend(console_routes(lambda: things))


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
                    app.receive_with(make_receiver(parts, work.unfolding.wake))
                    add_console(app, parts)
                    app.ingesting = make_ingesting(parts, work.forwarding.wake)
                    calm_the_collector()
                    log.info("ready", sources=sorted(settings.sources), destinations=sorted(settings.destinations))
                    yield

    return with_routes(lifespan)


def let_receive(
    app: RelayApp,
    settings: Settings,
    providers: Mapping[str, Provider],
    *,
    metrics: Metrics,
    node: int,
    wake: Callable[[], None],
    wake_forwarding: Callable[[], None],
    clock: Clock = unix_ms,
) -> None:
    """Make an app of `with_routes` one of several processes that receive, beside another one that does the rest."""

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        async with opened(settings, providers, metrics=metrics, clock=clock, node=node) as parts:
            app.state.parts, app.state.store = parts, parts.store
            unfolding = make_unfolding(parts, lambda _destination: wake_forwarding())
            async with beside(watch(parts.disk, metrics)), helping(unfolding) as came:

                def take_note() -> None:
                    wake()
                    came()

                app.receive_with(make_receiver(parts, take_note))
                add_console(app, parts)
                app.ingesting = make_ingesting(parts, lambda _destination: wake_forwarding())
                calm_the_collector()
                yield

    app.router.lifespan_context = lifespan


def with_routes(lifespan: Callable[[RelayApp], AbstractAsyncContextManager[None]] | None = None) -> RelayApp:
    """An app with this lifespan, if it has one already, and all paths but the hot ones."""
    app = RelayApp(title="Relay", description=_ABOUT, version=__version__, lifespan=lifespan, redoc_url=None,
                   telemetry=_NO_TELEMETRY)  # fmt: skip
    add_webhooks(app, PREFIX)
    add_health(app)
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
