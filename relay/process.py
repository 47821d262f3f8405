"""The relay as one process: in, settings and providers; out, when a signal came, or a reason why it could not serve."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from relay.app import RelayApp, create_app, shares_store
from relay.contract import Provider
from relay.replicas import Role, create_replica
from relay.serving import Served, StartError, serve
from relay.settings import Settings, SettingsError
from relay.store.base import StoreUnavailableError
from relay.vault import VaultError

#: What a person can act on.
REASONS = (StoreUnavailableError, VaultError, SettingsError, OSError)


class EndedError(Exception):
    """It could not serve. The text says why, and what to do."""


async def serve_until_signal(
    settings: Settings, providers: Mapping[str, Provider], *, started: Callable[[Served], None], role: Role = "all"
) -> None:
    """Serve on the configured address until SIGINT or SIGTERM. Raises `EndedError`."""
    is_replica = shares_store(settings)
    app = create_replica(settings, providers, role=role) if is_replica else create_app(settings, providers)
    await serve_app(app, settings, started=started)


async def serve_app(
    app: RelayApp,
    settings: Settings,
    *,
    started: Callable[[Served], None],
    listener: socket.socket | None = None,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve this app until one of the signals, on the configured address or this listener. Raises `EndedError`."""
    log = logging.getLogger("uvicorn.error")
    reasons = _reasons_of(app)

    def is_news(_record: logging.LogRecord) -> bool:
        """Whether it is more than the traceback of a reason that is told in words."""
        return not reasons

    log.addFilter(is_news)
    try:
        await serve(app, host=settings.host, port=settings.port, listener=listener, grace_s=settings.shutdown_s,
                    started=started, signals=signals)  # fmt: skip
    except StartError as error:
        raise EndedError(reasons[0] if reasons else in_words(error)) from None
    finally:
        log.removeFilter(is_news)


def in_words(error: StartError) -> str:
    """With what to do, where that is known."""
    if "cannot listen" in str(error):
        return f"{error}. Stop what listens there, or choose another port: RELAY_PORT=8010, for example."
    return str(error)


def _reasons_of(app: RelayApp) -> list[str]:
    """Will hold why the app could not start, where a person can act on it."""
    reasons: list[str] = []
    live = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        try:
            async with live(app):
                yield
        except REASONS as error:
            reasons.append(str(error))
            raise

    app.router.lifespan_context = lifespan
    return reasons
