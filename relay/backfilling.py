"""Backfilling: what the provider said in some time, once more, from its API through the way of every delivery.

In: open books, a source, a time. Out: what was missing, committed under the same keys, so that nothing is told twice.
It goes from the oldest to the newest, because first things came first, and notes in the store how far it came:
interrupted at any moment, it goes on there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.bookkeeping import OpenBooks
from relay.contract import Delivery, Provider
from relay.mapping import map_delivery
from relay.sources import Source
from relay.store.base import Arrival, Store
from relay.store.schema import Outcome

_SECOND_MS = 1000
_FIRST_STEP_MS = 3_600_000
#: Notifications that are held in memory; where there are more at once, it goes in shorter steps.
_MOST = 5_000
#: A step with fewer makes the next one longer.
_FEW = 500
_TOGETHER = 100
_SILENT = (Outcome.NOT_MAPPED, Outcome.IGNORED)
#: As a delivery that came by itself, but for what no provider signed.
_HEADERS = {"content-type": "application/json", "user-agent": "relay backfill"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What is to be backfilled. Times are Unix milliseconds, at whole seconds."""

    since_ms: int
    until_ms: int
    #: The provider's types; none: all.
    types: tuple[str, ...] = ()
    #: Connected accounts that are read besides the source's own.
    accounts: tuple[str, ...] = ()


@dataclass(slots=True)
class Backfilled:
    """What a backfill changed."""

    #: Where it began: later than asked where an interrupted one was continued.
    since_ms: int
    #: Notifications that the provider gave.
    seen: int = 0
    #: Those that had not come before.
    new: int = 0
    #: Events that were put into the outbox.
    events: int = 0
    #: Events whose fact had been told already.
    duplicates: int = 0
    #: Of types that are not mapped, or ignored: not kept.
    left_out: int = 0
    #: New notifications that could not be mapped, and are kept.
    parked: int = 0
    #: New notifications of the test mode, which the source drops.
    tests: int = 0


async def backfill(
    books: OpenBooks,
    store: Store,
    *,
    source: Source,
    provider: Provider,
    stretch: Stretch,
    clock: Callable[[], int],
    keep_bodies: bool = True,
    most: int = _MOST,
    progress: Callable[[int, Backfilled], None] = lambda _at_ms, _done: None,
) -> Backfilled:
    """Commit what is missing. `progress` is told after each step how far it is. Raises `BooksError`, keeping all steps.

    An earlier run that was interrupted with the same types and accounts is continued where it stopped.
    """
    name = f"backfill:{source.slug}"
    began_ms, at_ms = await _place(store, name, stretch)
    done, length = Backfilled(since_ms=at_ms), _FIRST_STEP_MS
    while at_ms < stretch.until_ms:
        end_ms = min(at_ms + length, stretch.until_ms)
        bodies = await _said(books, at_ms, end_ms, stretch.types, most=most)
        if bodies is None and end_ms - at_ms > _SECOND_MS:
            length = max((end_ms - at_ms) // 8 // _SECOND_MS, 1) * _SECOND_MS
            continue
        if bodies is None:
            bodies = await _said(books, at_ms, end_ms, stretch.types, most=None) or []
        for start in range(0, len(bodies), _TOGETHER):
            together = bodies[start : start + _TOGETHER]
            await asyncio.gather(
                *(_take(store, body, source, provider, clock(), done, keep_bodies=keep_bodies) for body in together)
            )
        at_ms = end_ms
        await store.set_bookmark(name, _noted(stretch, began_ms, at_ms) if at_ms < stretch.until_ms else None)
        progress(at_ms, done)
        if len(bodies) < _FEW:
            length *= 2
    return done


async def _place(store: Store, name: str, stretch: Stretch) -> tuple[int, int]:
    """From when on all is done that this run is asked for, and where to go on."""
    bookmark = await store.bookmark(name)
    if bookmark is None:
        return stretch.since_ms, stretch.since_ms
    noted = json.loads(bookmark.position)
    is_ours = (tuple(noted["types"]), tuple(noted["accounts"])) == (stretch.types, stretch.accounts)
    if is_ours and noted["since_ms"] <= stretch.since_ms < noted["at_ms"]:
        return noted["since_ms"], min(noted["at_ms"], stretch.until_ms)
    return stretch.since_ms, stretch.since_ms


def _noted(stretch: Stretch, since_ms: int, at_ms: int) -> str:
    return json.dumps({"since_ms": since_ms, "at_ms": at_ms, "types": stretch.types, "accounts": stretch.accounts})


async def _said(
    books: OpenBooks, since_ms: int, until_ms: int, types: Sequence[str], *, most: int | None
) -> list[bytes] | None:
    """What the provider said, oldest first; None where it is more than that."""
    said: list[bytes] = []
    async for page in books.pages(books.books.notifications(since_ms=since_ms, until_ms=until_ms, types=types)):
        said.extend(page)
        if most is not None and len(said) > most:
            return None
    return said[::-1]


async def _take(
    store: Store, body: bytes, source: Source, provider: Provider, now_ms: int, done: Backfilled, *, keep_bodies: bool
) -> None:
    delivery = Delivery(body=body, headers=_HEADERS, url=source.public_url or "")
    mapped = map_delivery(provider, source, delivery, received_at_ms=now_ms)
    done.seen += len(mapped)
    if all(one.outcome in _SILENT for one in mapped):
        done.left_out += len(mapped)
        return
    receipt = await store.accept(
        Arrival(
            source=source.slug,
            received_at_ms=now_ms,
            secret=0,
            headers=dict(_HEADERS),
            body=body,
            keep_body=keep_bodies,
            notifications=mapped,
        )
    )
    done.new += receipt.new
    done.events += receipt.events
    done.duplicates += receipt.duplicates
    if receipt.new:
        done.parked += sum(one.outcome is Outcome.FAILED for one in mapped)
        done.tests += sum(one.outcome is Outcome.TEST for one in mapped)
