"""The operator's console at `/admin`: see what came, explain each event, repair what is stuck. Server-rendered.

It is there only where `RELAY_ADMIN_TOKEN` is set. Every page works without JavaScript; what scripts there are come
from here, as do fonts and styles. Pages and templates are imported when somebody first comes: a relay whose console
nobody opens does not pay for it.
"""

from __future__ import annotations

import asyncio

from starlette.routing import BaseRoute, Match, Router
from starlette.types import Receive, Scope, Send

from relay.pages.things import HOME, Made, Things

__all__ = ["Things", "console_routes"]


def console_routes(made: Made) -> list[BaseRoute]:
    """All that is under `/admin`. `made` gives what the pages are made of, once the app has started."""
    return [_Console(made)]


class _Console(BaseRoute):
    def __init__(self, made: Made) -> None:
        self._made = made
        self._pages: Router | None = None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_ours = scope["type"] == "http" and (scope["path"] == HOME or scope["path"].startswith(f"{HOME}/"))
        return Match.FULL if is_ours else Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pages is None:
            self._pages = await asyncio.to_thread(self._import)  # receiving goes on meanwhile
        await self._pages(scope, receive, send)

    def _import(self) -> Router:
        from relay.pages.routes import page_routes  # noqa: PLC0415  not before somebody comes

        return Router(page_routes(self._made))
