"""The relay as several processes: workers that receive, one that does the rest, and the parent of them all.

In: settings and providers; out, when a signal came, or a reason why it could not serve. They meet in the store, which
they write in turns, and on one socket. A worker that has put something into the inbox rings a bell; the other hears it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from relay import app as parts_of, process
from relay.clock import unix_ms
from relay.contract import Provider
from relay.metrics import Group, Metrics
from relay.operating import beside, watch
from relay.process import EndedError
from relay.receiving import warm_up
from relay.serving import Served, StartError, listen_each
from relay.settings import Settings
from relay.store import prepare, sqlite_path
from relay.store.base import StoreUnavailableError
from relay.supervising import ChildError, Line, Role, Supervisor
from relay.terminal import run
from relay.trust import trusted

log = structlog.get_logger("relay")

#: Beyond what a shutdown may take, for closing the store.
_CLOSING_S = 5
#: The forwarding process among those that share the store; the workers are 1, 2, 3, ...
_FORWARDING = 0


class Bell:
    """A pipe between processes: rung by those that have put something into the inbox, heard by the one that maps it."""

    def __init__(self) -> None:
        self._heard, self._rung = os.pipe()
        os.set_blocking(self._heard, False)
        os.set_blocking(self._rung, False)

    def ring(self) -> None:
        """Wake whoever listens. Never waits: a full pipe has rung enough."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rung, b"\a")

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` in the running event loop after each ring, or after many at once."""

        def hear() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._heard, 65536)
            wake()

        asyncio.get_running_loop().add_reader(self._heard, hear)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relay:
    """What all its processes inherit."""

    settings: Settings
    providers: Mapping[str, Provider]
    #: What is made of it in the workers is their own; to make it in each of them would take more memory than it has.
    app: parts_of.RelayApp
    #: One a worker; the parent keeps them all, so that whoever connects while a worker is replaced waits for the next.
    listeners: Sequence[socket.socket]
    bell: Bell
    #: Rung by those that have put events into the outbox, heard by the one that forwards them.
    outbox_bell: Bell
    #: Where they count.
    folder: Path
    leader: int


def serve_until_signal(
    settings: Settings, providers: Mapping[str, Provider], *, started: Callable[[Served], None]
) -> None:
    """Serve on the configured address until SIGINT or SIGTERM. Raises `EndedError`. Call it where no threads run."""
    database = sqlite_path(settings.database_url.get_secret_value())
    try:
        with contextlib.ExitStack() as stack:
            listeners = listen_each(settings.workers, host=settings.host, port=settings.port)
            for listener in listeners:
                stack.enter_context(listener)
            stack.enter_context(parts_of.alone(database))
            parts_of.open_vault(settings)  # makes the key file, so that all of them find it
            _prepare_apart(settings.database_url.get_secret_value())
            relay = _Relay(
                settings=settings, providers=providers, app=parts_of.with_routes(), listeners=listeners, bell=Bell(),
                outbox_bell=Bell(), folder=stack.enter_context(_counting(database)), leader=os.getpid(),
            )  # fmt: skip
            _supervise(relay, started)
    except StartError as error:
        raise EndedError(process.in_words(error)) from None
    except (ChildError, *process.REASONS) as error:
        raise EndedError(str(error)) from None


def _supervise(relay: _Relay, started: Callable[[Served], None]) -> None:
    settings = relay.settings
    numbers = range(1, settings.workers + 1)
    served = Served(*relay.listeners[0].getsockname()[:2])

    def tell() -> None:
        log.info("ready", sources=sorted(settings.sources), destinations=sorted(settings.destinations),
                 workers=settings.workers)  # fmt: skip
        started(served)

    supervisor = Supervisor(
        stages=[
            [Role(f"worker-{number}", partial(_receive, relay, number)) for number in numbers],
            [Role("forwarding", partial(_work, relay))],
        ],
        grace_s=settings.shutdown_s + _CLOSING_S,
        started=tell,
        stopping=partial(_close_all_but, None, relay),
    )
    _load_all(relay)
    gc.collect()
    gc.freeze()  # what is there by now stays in pages that the children share
    supervisor.run()


def _prepare_apart(url: str) -> None:
    """Make and migrate the store in a child that ends: what that needs in memory is needed only once."""
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prepare(url)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  the parent is to say it
            os.write(said, str(error).encode()[:4096])
        finally:
            os._exit(1)
    os.close(said)
    with os.fdopen(heard, "rb") as words:
        reason = words.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise StoreUnavailableError(reason or f"the store at {url} could not be prepared")


def _load_all(relay: _Relay) -> None:
    """Import and make what the children would when they begin: loaded once, it is in memory once."""
    libraries = ("uvloop", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "httpcore")
    for name in (*libraries, "relay.store.inbox", "relay.store.sqlite"):
        importlib.import_module(name)
    for source in relay.settings.sources.values():
        warm_up(relay.providers[source.provider].verifier, source.secrets)
    trusted()


@contextlib.contextmanager
def _counting(database: Path) -> Iterator[Path]:
    """An empty folder for the metrics, beside the database that this relay has alone; gone afterwards."""
    folder = database.with_name(database.name + ".metrics")
    shutil.rmtree(folder, ignore_errors=True)  # of a relay that was killed
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _close_all_but(mine: socket.socket | None, relay: _Relay) -> None:
    for listener in relay.listeners:
        if listener is not mine:
            listener.close()


def _metrics(relay: _Relay, name: str) -> Metrics:
    return Metrics(Group(folder=relay.folder, name=name, leader=relay.leader))


# --- the children -----------------------------------------------------------------------------------------------------


def _receive(relay: _Relay, number: int, line: Line) -> None:
    """Take webhooks from the shared socket until SIGTERM, and finish what is in flight."""
    listener = relay.listeners[number - 1]
    _close_all_but(listener, relay)
    parts_of.let_receive(
        relay.app,
        relay.settings,
        relay.providers,
        metrics=_metrics(relay, f"worker-{number}"),
        node=number,
        wake=relay.bell.ring,
        wake_forwarding=relay.outbox_bell.ring,
    )
    try:
        run(
            process.serve_app(
                relay.app, relay.settings, started=lambda _served: line.ready(), listener=listener,
                signals=[signal.SIGTERM],
            )
        )  # fmt: skip
    except EndedError as error:
        raise ChildError(str(error)) from None


def _work(relay: _Relay, line: Line) -> None:
    """Map, forward and keep house until SIGTERM."""
    _close_all_but(None, relay)
    try:
        run(_work_until_signal(relay, line))
    except process.REASONS as error:
        raise ChildError(str(error)) from None


async def _work_until_signal(relay: _Relay, line: Line) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    metrics = _metrics(relay, "forwarding")
    async with (
        parts_of.opened(relay.settings, relay.providers, metrics=metrics, clock=unix_ms, node=_FORWARDING) as parts,
        parts_of.working(parts) as work,
        beside(watch(parts.disk, metrics)),
    ):
        relay.bell.listen(work.unfolding.wake)
        relay.outbox_bell.listen(work.forwarding.wake_all)
        parts_of.calm_the_collector()
        line.ready()
        await stop.wait()
