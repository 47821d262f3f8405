"""The provider's own books: what moved there beside what the destination accepted, and fetching what is missing.

For sources whose provider's books can be read, with their API key. What is fetched goes the way of every webhook under
the same keys, so that nothing counts twice. Each try is bounded in time; the next one goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from relay.pages.rendering import number
from relay.pages.visits import Visit, refused
from relay.sources import Source, slug_of
from relay.variables import api_key_variable

if TYPE_CHECKING:  # a page that few open: what reads books is imported when it is asked for
    from relay.books import Report

SINCE = {"1d": "1 day", "3d": "3 days", "7d": "7 days", "14d": "14 days", "30d": "30 days"}
_DAY_MS, _SECOND_MS = 86_400_000, 1000
_PATIENCE_S = 25
_MOST_LINES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A source whose books can be read."""

    source: Source
    title: str
    #: What to set, where it has no API key yet.
    wanted: str | None
    #: When it was compared last, and by how much it differed, by currency.
    compared_at_ms: int | None
    drift: Mapping[str, Decimal]


async def show(visit: Visit) -> Response:
    return await _page(visit)


async def compare(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """Line by line. Nothing is changed, but the metric of the drift."""
    from relay import bookkeeping, reconciling  # noqa: PLC0415
    from relay.books import BooksError  # noqa: PLC0415

    said = dict(fields)
    source, since = _chosen(visit, said)
    if source is None:
        return refused(visit, 404, "The books of this source cannot be read.")
    await visit.note("compared with the books", source.slug, since=since)
    question = reconciling.Question(since_ms=_since_ms(visit, since), until_ms=visit.now_ms)
    try:
        async with asyncio.timeout(_PATIENCE_S), bookkeeping.opened(bookkeeping.books_of(source)) as opened:
            report = await reconciling.reconcile(opened, visit.things.store, source=source, question=question)
    except TimeoutError:
        problem = f"It takes longer than {_PATIENCE_S} s. Take less time, or: relay reconcile {source.slug}"
        return await _page(visit, chosen=source.slug, since=since, problem=problem)
    except BooksError as error:
        return await _page(visit, chosen=source.slug, since=since, problem=str(error))
    return await _page(visit, chosen=source.slug, since=since, report=report)


async def fetch(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """Ask the provider what it said, and send what is missing."""
    from relay import backfilling, bookkeeping  # noqa: PLC0415
    from relay.books import BooksError  # noqa: PLC0415

    said = dict(fields)
    source, since = _chosen(visit, said)
    if source is None:
        return refused(visit, 404, "The books of this source cannot be read.")
    await visit.note("fetched what was missing", source.slug, since=since)
    until_ms = -(-visit.now_ms // _SECOND_MS) * _SECOND_MS
    stretch = backfilling.Stretch(since_ms=_since_ms(visit, since) // _SECOND_MS * _SECOND_MS, until_ms=until_ms)
    far: list[backfilling.Backfilled] = []
    settings = visit.things.settings
    try:
        async with asyncio.timeout(_PATIENCE_S), bookkeeping.opened(bookkeeping.books_of(source)) as opened:
            done = await backfilling.backfill(
                opened, visit.things.store, source=source, provider=visit.things.providers[source.provider],
                stretch=stretch, clock=visit.things.clock, keep_bodies=settings.retain_bodies_days > 0,
                progress=lambda _at_ms, done: far.append(done),
            )  # fmt: skip
    except TimeoutError:
        sent = far[-1].events if far else 0
        problem = f"Not done yet, {number(sent)} new events so far. Fetch again: it goes on where it stopped."
        return await _page(visit, chosen=source.slug, since=since, problem=problem)
    except BooksError as error:
        problem = f"{error} What was done is kept: the next try goes on where this one stopped."
        return await _page(visit, chosen=source.slug, since=since, problem=problem)
    return await _page(visit, chosen=source.slug, since=since, fetched=done)


def _chosen(visit: Visit, said: Mapping[str, str]) -> tuple[Source | None, str]:
    source, since = visit.things.settings.sources.get(said.get("source", "")), said.get("since", "")
    return (source if source is not None and source.api_key is not None else None), since if since in SINCE else "7d"


def _since_ms(visit: Visit, since: str) -> int:
    return visit.now_ms - int(since.removesuffix("d")) * _DAY_MS


async def _page(
    visit: Visit, *, chosen: str | None = None, since: str = "7d", report: Report | None = None,
    fetched: Any = None, problem: str = "",
) -> Response:  # fmt: skip
    from relay.books import Outcome  # noqa: PLC0415

    lines = [line for line in report.lines if line.outcome is not Outcome.OK] if report else []
    return visit.page(
        "books.html", shelves=await _shelves(visit), chosen=chosen or visit.query.get("source", ""),
        since=since, choices=SINCE, report=report, lines=lines[:_MOST_LINES], rest=max(0, len(lines) - _MOST_LINES),
        fetched=fetched, problem=problem, plain=lambda amount: format(amount, "f"),
    )  # fmt: skip


async def _shelves(visit: Visit) -> list[Shelf]:
    from relay.bookkeeping import READERS  # noqa: PLC0415
    from relay.books import RECONCILED, drift_of  # noqa: PLC0415

    marks, found = await visit.things.store.bookmarks(RECONCILED), []
    for slug, source in sorted(visit.things.settings.sources.items()):
        if source.provider not in READERS:
            continue
        mark = marks.get(RECONCILED + slug)
        variable = api_key_variable(source.provider)
        named = variable if slug == slug_of(source.provider) else f"api_key of sources.{slug} in relay.toml"
        found.append(
            Shelf(
                source=source,
                title=visit.things.providers[source.provider].title,
                wanted=None if source.api_key is not None else named,
                compared_at_ms=mark.noted_at_ms if mark else None,
                drift=drift_of(mark.position) if mark else {},
            )
        )
    return found
