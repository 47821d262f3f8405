"""The inbox: deliveries that are committed and not yet mapped. A small SQLite file of its own, beside the database.

It is all that the hot path writes: one row for all deliveries that share a commit, at the end of one table, without an
index and without a look at what is there. So receiving waits neither for the mapping nor for a prune. Deliveries leave
it a moment after the commit of what was made of them is on disk; a crash between the two maps them again, and the keys
show that they were told. Several processes may map: each claims the bundles that it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy import Connection

from relay.ids import RowIds, made_at_ms
from relay.store.base import Arrival, InboxDepth, Inboxed, Receipt, StoreUnavailableError, Verified
from relay.store.bundling import MOST_BYTES, Opener, bundled
from relay.store.claims import Claims
from relay.store.sqlite import cursor_of, open_engine
from relay.store.turns import Turns
from relay.store.writer import Writer, is_outage, unavailable
from relay.vault import Vault

T = TypeVar("T")

log = structlog.get_logger("relay.store")

_TABLE = """
CREATE TABLE IF NOT EXISTS inbox (id INTEGER NOT NULL PRIMARY KEY, deliveries INTEGER NOT NULL, content BLOB NOT NULL)
"""
_INSERT = "INSERT INTO inbox (id, deliveries, content) VALUES (?, ?, ?)"
_OLDEST = (
    "SELECT id, deliveries, length(content) FROM inbox WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY id"
)
_CONTENTS = "SELECT id, content FROM inbox WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
_DEPTH = "SELECT coalesce(sum(deliveries), 0), min(id) FROM inbox WHERE id NOT IN (SELECT value FROM json_each(?))"
_DROP = "DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?))"
#: So long after they were mapped, bundles leave the file, with those that were mapped meanwhile.
_DROP_AFTER_S = 0.1


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
        self._ids = ids
        self._vault = vault
        self._opener = Opener(vault)
        self._turns = turns
        self._claims = Claims(path)
        self._reading = open_engine(path, reading=True)
        self._connection: Connection | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="inbox-reader")
        self._writer = Writer(engine.connect, self._take, observe=observe, turns=turns)
        self._loop = asyncio.get_running_loop()
        #: Bundles that are mapped, and are still in the file.
        self._mapped: set[int] = set()
        self._dropping: asyncio.Task[None] | None = None

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
        gone = tuple(self._mapped)
        return await self._read(lambda: self._oldest(limit, gone))

    async def depth(self, read: object = None) -> InboxDepth:
        """How many there are, and since when. Raises `StoreUnavailableError`."""
        del read  # it reads another file
        gone = tuple(self._mapped)
        return await self._read(lambda: self._depth(gone))

    def _depth(self, gone: Iterable[int]) -> InboxDepth:
        deliveries, oldest = self._rows(_DEPTH, _listed(gone))[0]
        return InboxDepth(deliveries=deliveries, oldest_ms=None if oldest is None else made_at_ms(oldest))

    async def _read(self, job: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._reader, job)
        except Exception as error:
            if is_outage(error):
                raise unavailable(error) from error
            raise

    def _oldest(self, limit: int, besides: Iterable[int]) -> list[Inboxed]:
        claimed: list[int] = []
        number = size = 0
        with self._cursor(_OLDEST, _listed([*self._opener.unreadable, *besides])) as rows:
            for row, deliveries, length in rows:
                if claimed and (number >= limit or size + length > MOST_BYTES):
                    break
                if self._claims.take(row):
                    claimed.append(row)
                    number += deliveries
                    size += length
        if not claimed:
            return []
        found: list[Inboxed] = []
        contents = self._rows(_CONTENTS, _listed(claimed))  # read anew: another process may have dropped it meanwhile
        for row, content in contents:
            found += self._opener.open(row, content)
        self._claims.let_go({*claimed}.difference({one.bundle for one in found}))
        return found

    def _rows(self, sql: str, *values: str) -> list[Any]:
        with self._cursor(sql, *values) as rows:
            return rows.fetchall()

    @contextmanager
    def _cursor(self, sql: str, *values: str) -> Iterator[sqlite3.Cursor]:
        """On the reader's thread: what this selects, as it is now."""
        try:
            if self._connection is None:
                self._connection = self._reading.connect()
            with self._connection.begin(), closing(cursor_of(self._connection)) as cursor:
                yield cursor.execute(sql, values)
        except BaseException:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            raise

    async def unbox(
        self,
        found: Sequence[Inboxed],
        arrivals: Sequence[Arrival],
        *,
        write: Callable[[Connection, Sequence[Arrival]], list[Receipt]],
        writer: Writer[Arrival, Receipt],
    ) -> list[Receipt]:
        """Write what was made of these, and soon forget them."""
        bundles = {one.bundle for one in found}
        try:
            receipts = await writer.run(lambda connection: write(connection, arrivals))
        except BaseException:
            self._claims.let_go(bundles)
            raise
        self._mapped |= bundles
        if self._dropping is None:
            self._dropping = asyncio.create_task(self._drop_soon(), name="inbox-drop")
        return receipts

    async def _drop_soon(self) -> None:
        """One commit for all that is mapped meanwhile."""
        try:
            await asyncio.sleep(_DROP_AFTER_S)
            await self._drop()
        except StoreUnavailableError as error:
            log.warning("what is mapped cannot leave the inbox now", error=str(error))
        finally:
            self._dropping = None

    async def _drop(self) -> None:
        bundles = frozenset(self._mapped)
        listed = _listed(bundles)
        await self._writer.run(lambda connection: cursor_of(connection).execute(_DROP, [listed]).rowcount)
        self._mapped -= bundles
        self._claims.let_go(bundles)

    async def close(self) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._dropping
        if self._mapped:
            with contextlib.suppress(StoreUnavailableError):
                await self._drop()
        await self._writer.close()
        self._reader.shutdown()
        if self._connection is not None:
            self._connection.close()
        self._reading.dispose()
        self._claims.close()
        if self._turns is not None:
            self._turns.close()


def _listed(rows: Iterable[int]) -> str:
    return orjson.dumps(list(rows)).decode()
