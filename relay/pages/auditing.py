"""The audit log: who did what at the console, newest first."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from relay.pages.visits import HOME, Visit

ACTIONS = (
    "signed in",
    "sign-in refused",
    "signed out",
    "revealed",
    "sent again",
    "mapped again",
    "decided a batch in doubt",
    "took refused deliveries",
    "compared with the books",
    "fetched what was missing",
    "tested a source",
    "shadow mode",
    "shadow mode off",
    "sent dead letters again",
    "settled a held batch",
)
_PAGE = 50


async def show(visit: Visit) -> Response:
    action = visit.query.get("action") or None
    before = visit.query.get("before", "")
    found = await visit.console.deeds(
        action=action if action in ACTIONS else None,
        before=int(before) if before.isdecimal() else None,
        limit=_PAGE + 1,
    )
    deeds, rest = found[:_PAGE], found[_PAGE:]
    given = {"action": action} if action else {}
    older = f"{HOME}/audit?{urlencode({**given, 'before': deeds[-1].id})}" if rest else None
    return visit.page("audit.html", deeds=deeds, older=older, action=action, actions=ACTIONS)
