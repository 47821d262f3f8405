"""The inbox: deliveries that are committed and not yet mapped. A small SQLite file of its own, beside the database.

It is all that the hot path writes: one row at the end of one table, without an index and without a look at what is
there. So receiving waits neither for the mapping nor for a prune. A delivery leaves it once the commit of what was made
of it is on disk; a crash between the two maps it again, and the keys show that it was told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import orjson
from sqlalchemy import Connection

from relay.ids import RowIds, made_at_ms
from relay.store.base import Inboxed, StoreUnavailableError, Verified
from relay.store.ledger import pack, unpack
from relay.store.sqlite import cursor_of, insert_rows, open_engine
from relay.store.turns import Turns
from relay.store.writer import Writer, is_outage
from relay.vault import Vault, VaultError

_COLUMNS = ("id", "source", "secret", "content")
_TABLE = """
CREATE TABLE IF NOT EXISTS inbox (
    id INTEGER NOT NULL PRIMARY KEY, source TEXT NOT NULL, secret INTEGER NOT NULL, content BLOB NOT NULL
)
"""
_OLDEST = "SELECT id, source, secret, content FROM inbox ORDER BY id LIMIT ?"
_DROP = "DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?))"
#: Of contents at once, so that a pile of large ones is no trouble.
_MOST_BYTES = 2_000_000


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
        next_id, seal = self._ids.next, self._vault.seal
        rows = []
        for one in group:
            row = next_id()
            rows.append((row, one.source, one.secret, seal(pack(one.headers, one.body), row=row)))
        insert_rows(connection, "inbox", _COLUMNS, rows)
        return [None] * len(rows)

    async def oldest(self, limit: int) -> Sequence[Inboxed]:
        """As many as may be mapped at once. Raises `StoreUnavailableError`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._oldest, limit)
        except Exception as error:
            if is_outage(error):
                raise StoreUnavailableError(str(error)) from error
            raise

    def _oldest(self, limit: int) -> list[Inboxed]:
        found: list[Inboxed] = []
        size = 0
        with self._reading.connect() as connection, closing(cursor_of(connection)) as cursor:
            for row, source, secret, content in cursor.execute(_OLDEST, [limit]):
                size += len(content)
                if found and size > _MOST_BYTES:
                    break
                found.append(self._opened(row, source, secret, content))
        return found

    def _opened(self, row: int, source: str, secret: int, content: bytes) -> Inboxed:
        headers, body, trouble = dict[str, str](), b"", None
        try:
            headers, body = unpack(self._vault.open(content, row=row))
        except VaultError as error:
            trouble = str(error)
        return Inboxed(
            delivery=row, source=source, received_at_ms=made_at_ms(row), secret=secret, headers=headers, body=body,
            content=content, trouble=trouble,
        )  # fmt: skip

    async def drop(self, deliveries: Sequence[int]) -> None:
        """Forget these: they are mapped."""
        listed = orjson.dumps(deliveries).decode()
        await self._writer.run(lambda connection: cursor_of(connection).execute(_DROP, [listed]).rowcount)

    async def close(self) -> None:
        await self._writer.close()
        self._reader.shutdown()
        self._reading.dispose()
        if self._turns is not None:
            self._turns.close()
