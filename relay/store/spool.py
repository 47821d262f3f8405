"""The spool: an SQLite file of this replica, for what comes while the database is away.

A delivery that the database does not take in time is committed here, and acknowledged; once the database is back, what
is here goes into its inbox as it is. Each piece that goes over is noted there in the same statement, so that a crash
between the two brings nothing twice. For the providers that never send again, that is the difference between kept and
lost. The file is as durable as its disk: it must be on a volume that outlives the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from relay.ids import RowIds
from relay.store.backend import Read, Write
from relay.store.base import Arrival, InboxDepth, Inboxed, Receipt, StoreUnavailableError, Verified
from relay.store.bundling import Bundle
from relay.store.inbox import Inbox, inbox_path, prepare_inbox
from relay.store.postgres_inbox import PostgresInbox
from relay.store.sqlite import cursor_of, open_engine
from relay.store.writer import Writer
from relay.vault import Vault

log = structlog.get_logger("relay.store")

#: `name` is what this file is called in the database, `brought` the last bundle that is over there for certain.
_TABLE = "CREATE TABLE IF NOT EXISTS spool (name TEXT NOT NULL, brought INTEGER NOT NULL)"
_NAMED = "INSERT INTO spool SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM spool)"
_NAME = "SELECT name, max(brought, coalesce((SELECT max(id) FROM inbox), 0)) FROM spool"
_OLDEST = "SELECT id, deliveries, content FROM inbox WHERE id > ? ORDER BY id LIMIT ?"
_BROUGHT = "UPDATE spool SET brought = max(brought, ?)"
_DROP = "DELETE FROM inbox WHERE id <= ?"

#: Bundles that go over at once.
_PIECE = 32
_PIECE_BYTES = 4_000_000
_LOOK_EVERY_S = 1.0
#: For so long a delivery waits for the database before it is committed here: providers do not wait for much longer.
_PATIENCE_S = 2.0
_MB = 1_000_000


class Spool:
    """As `relay.store.backend.Inbox` says: the database's, and behind it the file. Bound to the running event loop."""

    def __init__(self, inbox: PostgresInbox, file: Path, *, vault: Vault, ids: RowIds, min_free_mb: int = 0) -> None:
        """`ids` are for several threads. Raises `StoreUnavailableError` where the file cannot be used, or is in use."""
        self._inbox = inbox
        self._vault = vault
        self._ids = ids
        self._folder = file.parent
        self._min_free = min_free_mb * _MB
        self._lock = _locked(file)
        self._moving = open_engine(inbox_path(file))
        self._reading = open_engine(inbox_path(file), reading=True)
        with self._moving.begin() as connection, closing(cursor_of(connection)) as cursor:
            cursor.execute(_TABLE)
            cursor.execute(_NAMED, [f"spool:{secrets.token_hex(8)}"])
            self._name, newest = cursor.execute(_NAME).fetchone()
        ids.go_on_after(newest)  # whatever the clock says: a bundle's place in the file is its place in the order
        self._file = Inbox(inbox_path(file), vault=vault.twin(), ids=ids)
        self._is_away = False
        self._work = asyncio.Event()
        self._work.set()  # what a process left that ended meanwhile
        self._draining = asyncio.create_task(self._drain(), name="spool")

    @property
    def waiting(self) -> int:
        return self._inbox.waiting + self._file.waiting

    async def take(self, verified: Verified) -> None:
        """Commit it there, or else here. Raises `StoreUnavailableError` where there is no room here either."""
        if not self._is_away:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._inbox.take(verified)
            except (StoreUnavailableError, TimeoutError) as error:
                if not self._is_away:
                    self._is_away = True
                    log.error("the database is away: deliveries are spooled on this machine", error=str(error))  # noqa: TRY400  no traceback is needed
            else:
                return
        if shutil.disk_usage(self._folder).free < self._min_free:
            msg = "the database is away, and the disk of the spool is nearly full"
            raise StoreUnavailableError(msg)
        await self._file.take(verified)
        self._work.set()

    async def oldest(self, limit: int) -> Sequence[Inboxed]:
        return await self._inbox.oldest(limit)

    async def depth(self, read: Read) -> InboxDepth:
        """Of both; of the file alone while the database is away."""
        here = await self._file.depth()
        try:
            there = await self._inbox.depth(read)
        except StoreUnavailableError:
            return replace(here, spooled=here.deliveries)
        oldest = [one.oldest_ms for one in (here, there) if one.oldest_ms is not None]
        return InboxDepth(
            deliveries=here.deliveries + there.deliveries, oldest_ms=min(oldest, default=None), spooled=here.deliveries
        )

    async def unbox(
        self, found: Sequence[Inboxed], arrivals: Sequence[Arrival], *, write: Write, writer: Writer[Arrival, Receipt]
    ) -> list[Receipt]:
        return await self._inbox.unbox(found, arrivals, write=write, writer=writer)

    async def close(self) -> None:
        self._draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._draining
        await self._inbox.close()
        await self._file.close()
        self._moving.dispose()
        self._reading.dispose()
        self._lock.close()

    # --- into the database ---

    async def _drain(self) -> None:
        """For ever, bring what is in the file into the database."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                moved = await self.empty()
            except StoreUnavailableError:
                self._is_away = True
                self._work.set()
            except Exception:
                log.exception("the spool stumbled; it goes on")
                self._work.set()
            else:
                if moved:
                    log.warning("the database is back, and has what was spooled", deliveries=moved)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def empty(self) -> int:
        """Bring over all that there is. Returns the number of deliveries. Raises `StoreUnavailableError`."""
        moved = 0
        brought = await self._inbox.brought(self._name)
        await asyncio.to_thread(self._forget, brought)
        while bundles := await asyncio.to_thread(self._oldest, brought):
            last = bundles[-1].row
            await self._inbox.put(await self._with_free_ids(bundles), name=self._name, last=last)
            brought = last
            await asyncio.to_thread(self._forget, brought)
            moved += sum(one.deliveries for one in bundles)
            self._is_away = False  # from now on it is asked first
        self._is_away = False
        return moved

    async def _with_free_ids(self, bundles: Sequence[Bundle]) -> Sequence[Bundle]:
        """Those whose id another replica drew for something else get another one."""
        taken = await self._inbox.taken([one.row for one in bundles])
        return [self._renamed(one) if one.row in taken else one for one in bundles]

    def _renamed(self, one: Bundle) -> Bundle:
        row = self._ids.next()
        return replace(one, row=row, content=self._vault.seal(self._vault.open(one.content, row=one.row), row=row))

    def _oldest(self, after: int) -> list[Bundle]:
        found: list[Bundle] = []
        size = 0
        with self._reading.begin() as connection, closing(cursor_of(connection)) as cursor:
            for row, deliveries, content in cursor.execute(_OLDEST, [after, _PIECE]):
                found.append(Bundle(row=row, deliveries=deliveries, content=content))
                size += len(content)
                if size > _PIECE_BYTES:
                    break
        return found

    def _forget(self, brought: int) -> None:
        """What is over there."""
        with self._moving.begin() as connection, closing(cursor_of(connection)) as cursor:
            cursor.execute(_BROUGHT, [brought])
            cursor.execute(_DROP, [brought])


def _locked(file: Path) -> IO[str]:
    """What holds the file for this process, where it is closed again in the end."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(file.name + ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            msg = f"another replica spools into {file}: each needs a RELAY_SPOOL_FILE of its own"
            raise StoreUnavailableError(msg) from None
        prepare_inbox(file)
    except (OSError, SQLAlchemyError) as error:
        msg = f"the spool at {file} cannot be used: {error}"
        raise StoreUnavailableError(msg) from error
    return lock
