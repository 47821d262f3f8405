"""Reconciling: the provider's own books against what the destination accepted.

In: open books, a source, a time. Out: a `Report`, also noted in the store for the metric of the drift. An entry finds
its events through the once keys that they took. What does not find each other that way is looked up at the provider one
by one: an invoice that was made long before it was paid, a payment that took days to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from relay.bookkeeping import OpenBooks
from relay.books import RECONCILED, Entry, Report, Told, compare, extra, known_as, note_of, parted, sales, told_by
from relay.sources import Source
from relay.store.base import Store
from relay.store.schema import EventState


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be compared. Times are Unix milliseconds."""

    since_ms: int
    until_ms: int
    #: Connected accounts that are read besides the source's own.
    accounts: tuple[str, ...] = ()
    #: By how much an amount may differ, in major units.
    tolerance: Decimal = Decimal(0)


async def reconcile(
    books: OpenBooks,
    store: Store,
    *,
    source: Source,
    question: Question,
    progress: Callable[[str], None] = lambda _words: None,
) -> Report:
    """Compare all that moved in `[since_ms, until_ms)`. `progress` is told what goes on. Raises `BooksError`."""
    entries: list[Entry] = []
    async for page in books.pages(books.books.entries(since_ms=question.since_ms, until_ms=question.until_ms)):
        entries.extend(page)
        progress(f"{len(entries)} entries of the books")
    events = _Events(store, source)
    await events.find(key for entry in entries for key in entry.keys)
    for number, entry in enumerate(entries):
        if entry.amount > 0 and not events.of([entry]):
            progress(f"looking up {entry.id}")
            names = await books.ask(partial(books.books.names, entry.keys)) or ()
            entries[number] = known_as(entry, names)
            await events.find(names)
    here = {key for entry in entries for key in entry.keys}
    extras, unread = [], set()
    for told, keys in await events.others(question, is_test=books.books.is_test):
        account = parted(keys[0])[0] if keys else ""
        if account and account not in question.accounts:
            unread.add(account)
            continue
        progress(f"looking up {told.event_id}")
        known = await books.ask(partial(books.books.names, keys))
        if known is None and told.is_accepted:
            extras.append(extra(told, account))
        for name in here.intersection(known or ()):  # of none here: what it tells lies outside the time
            events.attach(name, told)
    is_net = source.policy.revenue == "net"
    lines = [compare(sale, events.of(sale), is_net=is_net, tolerance=question.tolerance) for sale in sales(entries)]
    listed = sorted((line for line in [*lines, *extras] if line is not None), key=lambda line: line.at_ms)
    report = Report(lines=tuple(listed), unread_accounts=tuple(sorted(unread)))
    await store.set_bookmark(RECONCILED + source.slug, note_of(report))
    return report


class _Events:
    """The events of a source that carry money, by once key."""

    def __init__(self, store: Store, source: Source) -> None:
        self._store = store
        self._slug = source.slug
        self._told: dict[str, list[Told]] = {}

    async def find(self, keys: Iterable[str]) -> None:
        """Get the events that took these keys."""
        for key, row in (await self._store.holders(self._slug, list(keys))).items():
            told = told_by(row)
            if told is not None:
                self._told[key] = [told]

    def attach(self, key: str, told: Told) -> None:
        self._told.setdefault(key, []).append(told)

    def of(self, sale: Iterable[Entry]) -> list[Told]:
        """The events of these entries, each once."""
        found = {told.row: told for entry in sale for key in entry.keys for told in self._told.get(key, ())}
        return [*found.values()]

    async def others(self, question: Question, *, is_test: bool) -> list[tuple[Told, Sequence[str]]]:
        """The events of the time that were not found, with their keys. One that waits has none, and may yet go."""
        found = {told.row for many in self._told.values() for told in many}
        rows = await self._store.revenue_events(self._slug, since_ms=question.since_ms, until_ms=question.until_ms)
        rows = [row for row in rows if row.id not in found and row.state is not EventState.WAITING]
        others = [told for row in rows if (told := told_by(row)) and told.is_test is is_test]
        keys = await self._store.once_keys([told.row for told in others])
        return [(told, keys.get(told.row, ())) for told in others]
