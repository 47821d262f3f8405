"""The relay as one process: in, settings and providers; out, when a signal came, or a reason why it could not serve."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from relay.app import RelayApp, create_app
from relay.contract import Provider
from relay.serving import Served, StartError, serve
from relay.settings import Settings
from relay.store.base import StoreUnavailableError
from relay.vault import VaultError


class EndedError(Exception):
    """It could not serve. The text says why, and what to do."""


async def serve_until_signal(
    settings: Settings, providers: Mapping[str, Provider], *, started: Callable[[Served], None]
) -> None:
    """Serve on the configured address until SIGINT or SIGTERM. Raises `EndedError`."""
    app = create_app(settings, providers)
    reasons = _reasons_of(app)
    try:
        await serve(app, host=settings.host, port=settings.port, grace_s=settings.shutdown_s, started=started)
    except StartError as error:
        if reasons:
            raise EndedError(reasons[0]) from None
        if "cannot listen" in str(error):
            msg = f"{error}. Stop what listens there, or choose another port: RELAY_PORT=8010, for example."
            raise EndedError(msg) from None
        raise EndedError(str(error)) from None


def _reasons_of(app: RelayApp) -> list[str]:
    """Collects why the app could not start where a person can act on it, and keeps that traceback out of the log."""
    reasons: list[str] = []
    live = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: RelayApp) -> AsyncIterator[None]:
        try:
            async with live(app):
                yield
        except (StoreUnavailableError, VaultError, OSError) as error:
            reasons.append(str(error))
            raise

    app.router.lifespan_context = lifespan
    logging.getLogger("uvicorn.error").addFilter(lambda _record: not reasons)
    return reasons
