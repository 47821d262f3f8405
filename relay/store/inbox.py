"""The inbox: deliveries that are committed and not yet mapped. A small SQLite file of its own, beside the database.

It is all that the hot path writes: one row for all deliveries that share a commit, at the end of one table, without an
index and without a look at what is there. So receiving waits neither for the mapping nor for a prune. Deliveries leave
it once the commit of what was made of them is on disk; a crash between the two maps them again, and the keys show that
they were told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import orjson
from sqlalchemy import Connection

from relay.ids import RowIds, made_at_ms
from relay.store.base import Arrival, InboxDepth, Inboxed, Receipt, StoreUnavailableError, Verified
from relay.store.bundling import MOST_BYTES, Opener, bundled
from relay.store.sqlite import cursor_of, open_engine
from relay.store.turns import Turns
from relay.store.writer import Writer, is_outage
from relay.vault import Vault

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS inbox (id INTEGER NOT NULL PRIMARY KEY, deliveries INTEGER NOT NULL, content BLOB NOT NULL)
"""
_INSERT = "INSERT INTO inbox (id, deliveries, content) VALUES (?, ?, ?)"
_OLDEST = (
    "SELECT id, deliveries, content FROM inbox WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?"
)
DEPTH = "SELECT coalesce(sum(deliveries), 0), min(id) FROM inbox"
_DROP = "DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?))"


def inbox_path(database: Path) -> Path:
    """Where the inbox of this database is."""
    return database.with_name(database.name + ".inbox")


def prepare_inbox(database: Path) -> None:
    """Make the file where there is none."""
    with open_engine(inbox_path(database)).begin() as connection:
        cursor_of(connection).execute(_TABLE)


class Inbox:
    """Takes deliveries in, shows the oldest, and lets go of those that are mapped."""

    def __init__(
        self,
        path: Path,
        *,
        vault: Vault,
        ids: RowIds,
        observe: Callable[[int], None] | None = None,
        turns: Turns | None = None,
    ) -> None:
        engine = open_engine(path)
        self._vault = vault
        self._ids = ids
        self._opener = Opener(vault)
        self._turns = turns
        self._reading = open_engine(path, reading=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="inbox-reader")
        self._writer = Writer(engine.connect, self._take, observe=observe, turns=turns)

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def take(self, verified: Verified) -> None:
        await self._writer.accept(verified)

    def _take(self, connection: Connection, group: Sequence[Verified]) -> list[None]:
        for bundle in bundled(group, vault=self._vault, ids=self._ids):
            cursor_of(connection).execute(_INSERT, (bundle.row, bundle.deliveries, bundle.content))
        return [None] * len(group)

    async def oldest(self, limit: int) -> Sequence[Inboxed]:
        """Bundles with about as many deliveries. Raises `StoreUnavailableError`."""
        return await self._read(lambda: self._oldest(limit))

    async def depth(self, read: object = None) -> InboxDepth:
        """How many there are, and since when. Raises `StoreUnavailableError`."""
        del read  # it reads another file
        return await self._read(self._depth)

    def _depth(self) -> InboxDepth:
        with self._reading.connect() as connection, closing(cursor_of(connection)) as cursor:
            deliveries, oldest = cursor.execute(DEPTH).fetchone()
        return InboxDepth(deliveries=deliveries, oldest_ms=None if oldest is None else made_at_ms(oldest))

    async def _read(self, job: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, job)
        except Exception as error:
            if is_outage(error):
                raise StoreUnavailableError(str(error)) from error
            raise

    def _oldest(self, limit: int) -> list[Inboxed]:
        found: list[Inboxed] = []
        size = 0
        unreadable = orjson.dumps(self._opener.unreadable).decode()
        with self._reading.connect() as connection, closing(cursor_of(connection)) as cursor:
            for row, _, content in cursor.execute(_OLDEST, [unreadable, limit]):
                opened = self._opener.open(row, content)
                size += sum(len(one.body) for one in opened)
                found += opened
                if len(found) >= limit or size > MOST_BYTES:
                    break
        return found

    async def unbox(
        self,
        found: Sequence[Inboxed],
        arrivals: Sequence[Arrival],
        *,
        write: Callable[[Connection, Sequence[Arrival]], list[Receipt]],
        writer: Writer[Arrival, Receipt],
    ) -> list[Receipt]:
        """Write what was made of these, then forget them."""
        receipts = await writer.run(lambda connection: write(connection, arrivals))
        await self.drop({one.bundle for one in found})
        return receipts

    async def drop(self, bundles: Iterable[int]) -> None:
        """Forget these: they are mapped."""
        listed = orjson.dumps(list(bundles)).decode()
        await self._writer.run(lambda connection: cursor_of(connection).execute(_DROP, [listed]).rowcount)

    async def close(self) -> None:
        await self._writer.close()
        self._reader.shutdown()
        self._reading.dispose()
        if self._turns is not None:
            self._turns.close()
