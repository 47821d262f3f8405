"""Refused signatures, on the repair page: which of them fit with the secrets of now, and taking those in after all.

Nothing is taken that does not fit. What the provider has sent again meanwhile is not counted twice: the keys hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from relay.pages.visits import HOME, Visit
from relay.rejecting import fitting, take_after_all
from relay.store.rejected import Cause, Rejected

_TAB = f"{HOME}/repair?tab=refused"
_SHOWN = 50
_ALL = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """What the tab shows."""

    causes: Sequence[Cause]
    rows: Sequence[Rejected]
    #: By id, which secret fits by now; of the rows that are shown.
    fits: Mapping[int, int]


async def look(visit: Visit, causes: Sequence[Cause]) -> Refusals:
    source = visit.query.get("source") or None
    rows = await visit.things.store.rejected.listing(source=source, limit=_SHOWN, opened=True)
    return Refusals(causes=causes, rows=rows, fits=_fitting(visit, rows))


def _fitting(visit: Visit, rows: Sequence[Rejected]) -> dict[int, int]:
    return fitting(rows, sources=visit.things.settings.sources, providers=visit.things.providers)


async def retry(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """Check again with the secrets of now, and take in what fits: those that are ticked, those of a source, or all."""
    said = dict(fields)
    source = said.get("source") or None
    ticked = {int(value) for name, value in fields if name == "id" and value.isdecimal()}
    if said.get("which") == "ticked" and not ticked:
        return visit.go(_TAB, "Nothing was ticked.", tone="warn")
    store = visit.things.store
    rows = [*reversed(await store.rejected.listing(source=source, limit=_ALL, opened=True))]
    if said.get("which") == "ticked":
        rows = [one for one in rows if one.id in ticked]
    secrets = _fitting(visit, rows)
    if not secrets:
        words = f"None of {len(rows)} fits with the secrets of now. Correct the secret, and start the relay again."
        return visit.go(_TAB, words, tone="warn")
    await visit.note("took refused deliveries", source or "all", count=len(secrets))
    for one in rows:
        if one.id in secrets:
            await take_after_all(store, one, secrets[one.id])
    words = f"{len(secrets)} of {len(rows)} fit now and were taken in; they are mapped within a second."
    if len(secrets) < len(rows):
        words += " The others are kept, and still do not fit."
    return visit.go(_TAB, words)
