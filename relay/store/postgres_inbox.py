"""The inbox on PostgreSQL: a table to which every replica appends, and from which each maps what no other one maps.

Whoever reads bundles holds them by row locks (`FOR UPDATE SKIP LOCKED`) in a transaction that stays open until what was
made of them is committed, and their rows deleted, in that very transaction. So nothing has to be marked, and nothing is
left over from a replica that dies: its locks go with its connection. One that is frozen loses them when the server ends
its session (`_LEASE`), and notices when it wakes: it commits only what it could delete itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from psycopg.errors import UniqueViolation
from sqlalchemy import Connection

from relay.ids import RowIds, first_at, made_at_ms
from relay.store.backend import Read, Write
from relay.store.base import Arrival, InboxDepth, Inboxed, Receipt, StoreUnavailableError, Verified
from relay.store.bundling import MOST_BYTES, Bundle, Opener, bundled
from relay.store.database import Database, driver_of
from relay.store.writer import RACES, Writer, is_outage, is_race, pause_a_moment, unavailable
from relay.vault import Vault

T = TypeVar("T")

log = structlog.get_logger("relay.store")

TABLE = (
    "CREATE TABLE IF NOT EXISTS inbox (id bigint PRIMARY KEY, deliveries integer NOT NULL, content bytea NOT NULL)",
)
#: What makes it cheaper, and is no loss where an engine does not take it: the content is compressed already, and the
#: table is emptied all the time.
TUNING = (
    "ALTER TABLE inbox ALTER COLUMN content SET STORAGE EXTERNAL",
    "ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
    "ALTER TABLE inbox SET (autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000)",
    "ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02)",
    "ALTER TABLE batches SET (autovacuum_vacuum_scale_factor = 0.02)",
)
_INSERT = "INSERT INTO inbox (id, deliveries, content) SELECT * FROM unnest(%b::int8[], %b::int4[], %b::bytea[])"
_PUT = (
    "WITH new AS (INSERT INTO inbox (id, deliveries, content) "
    "SELECT * FROM unnest(%b::int8[], %b::int4[], %b::bytea[]) RETURNING id) "
    "INSERT INTO bookmarks (name, position, noted_at_ms) VALUES (%b, %b, 0) "
    "ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)
_TAKEN = "SELECT id FROM inbox WHERE id = ANY(%b::int8[])"
_PLACE = "SELECT position FROM bookmarks WHERE name = %b"
_OLDEST = (
    "SELECT id, deliveries, octet_length(content) FROM inbox WHERE id >= %s AND id <> ALL(%s::int8[]) "
    "ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
)  # fmt: skip
_CONTENTS = "SELECT id, content FROM inbox WHERE id = ANY(%b::int8[]) ORDER BY id"
_DEPTH = "SELECT coalesce(sum(deliveries), 0)::int8, min(id) FROM inbox"
_DROP = (
    "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE id = ANY(%b::int8[]) ORDER BY id FOR UPDATE) "
    "RETURNING id"
)
_LEASE = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"

_TRIES = 3
#: Bundles are committed in about the order of their ids; those that come later than this are found by a look back.
_LATE_MS = 2_000
_LOOK_BACK_EVERY_S = 2.0
#: Bundles that are looked at to find as many deliveries as are wanted.
_MOST_BUNDLES = 64
#: For so long a delivery waits for its commit, in seconds; the provider is told to come later, and its repeat shows.
_PATIENCE_S = 5.0
#: Once nothing was committed for so long, the others do not begin to wait.
_STUCK_S = 2.0


class PostgresInbox:
    """As `relay.store.backend.Inbox` says. Uses a connection to take, and another one to map."""

    def __init__(
        self,
        database: Database,
        *,
        vault: Vault,
        ids: RowIds,
        observe: Callable[[int], None] | None = None,
        lease_ms: int = 15_000,
    ) -> None:
        self._vault = vault
        self._ids = ids
        self._opener = Opener(vault)
        self._lease = f"{lease_ms}ms"
        self._engine = database.engine(autocommit=True)  # one statement a commit: one way to the server and back
        self._writer: Writer[Verified, None] = Writer(
            self._engine.connect, self._take, observe=observe, one_by_one=True
        )
        self._mapping = database.engine()
        self._mapper = ThreadPoolExecutor(1, thread_name_prefix="inbox-mapper")
        self._connection: Connection | None = None
        self._seen = 0
        self._look_back_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._moved_at = 0.0

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def take(self, verified: Verified) -> None:
        """Commit it. Raises `StoreUnavailableError`: it was not kept, or it is not known whether it was."""
        if not self._in_flight:
            self._moved_at = self._loop.time()
        elif self._loop.time() - self._moved_at > _STUCK_S:
            msg = "the database has not answered for some seconds"
            raise StoreUnavailableError(msg)
        self._in_flight += 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._writer.accept(verified)
            self._moved_at = self._loop.time()
        except TimeoutError:
            msg = f"the database has not answered within {_PATIENCE_S:g} s"
            raise StoreUnavailableError(msg) from None
        finally:
            self._in_flight -= 1

    def _take(self, connection: Connection, group: Sequence[Verified]) -> list[None]:
        for left in reversed(range(_TRIES)):
            try:
                self._insert(connection, group)
            except UniqueViolation:  # another replica drew the same id
                if not left:
                    raise
            else:
                break
        return [None] * len(group)

    def _insert(self, connection: Connection, group: Sequence[Verified]) -> None:
        bundles = bundled(group, vault=self._vault, ids=self._ids)
        driver_of(connection).execute(_INSERT, _columns(bundles))

    # --- from a spool ---

    async def put(self, bundles: Sequence[Bundle], *, name: str, last: int) -> None:
        """Take in bundles that were committed elsewhere, and note that those up to `last` are here, as one change.

        Raises `StoreUnavailableError`: they are here, or they are not, as `brought` says.
        """
        said = [*_columns(bundles), name, str(last)]
        await self._writer.run(lambda connection: driver_of(connection).execute(_PUT, said))

    async def taken(self, rows: Sequence[int]) -> set[int]:
        """Which of these ids bundles have that are here."""

        def run(connection: Connection) -> set[int]:
            return {row for (row,) in driver_of(connection).execute(_TAKEN, [list(rows)])}

        return await self._writer.run(run)

    async def brought(self, name: str) -> int:
        """Up to where the bundles of a spool of this name are here; 0 where none is."""

        def run(connection: Connection) -> int:
            found = driver_of(connection).execute(_PLACE, [name]).fetchone()
            return int(found[0]) if found else 0

        return await self._writer.run(run)

    # --- mapping ---

    async def oldest(self, limit: int) -> Sequence[Inboxed]:
        """Bundles with about as many deliveries that no other replica maps now. Raises `StoreUnavailableError`."""
        return await self._run(lambda: self._oldest(limit))

    async def depth(self, read: Read) -> InboxDepth:
        """How many there are, those that are mapped now too, and since when. Raises `StoreUnavailableError`."""
        deliveries, oldest = await read(lambda connection: connection.exec_driver_sql(_DEPTH).one())
        return InboxDepth(deliveries=deliveries, oldest_ms=None if oldest is None else made_at_ms(oldest))

    async def unbox(
        self, found: Sequence[Inboxed], arrivals: Sequence[Arrival], *, write: Write, writer: Writer[Arrival, Receipt]
    ) -> list[Receipt]:
        """Write what was made of those that are still there, as far as no other replica has done so meanwhile."""
        del writer  # it holds no locks
        return await self._run(lambda: self._unbox(found, arrivals, write))

    async def _run(self, job: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._mapper, job)
        except Exception as error:
            if is_outage(error):
                raise unavailable(error) from error
            raise

    def _oldest(self, limit: int) -> list[Inboxed]:
        self._let_go()
        with self._dropped_on_error():
            driver = driver_of(self._begun())
            driver.execute(_LEASE, [self._lease])
            chosen: list[int] = []
            number = size = 0
            asked = [self._first(), self._opener.unreadable, min(limit, _MOST_BUNDLES)]
            for row, deliveries, length in driver.execute(_OLDEST, asked):
                if chosen and (number >= limit or size + length > MOST_BYTES):
                    break
                chosen.append(row)
                number += deliveries
                size += length
            found: list[Inboxed] = []
            if chosen:
                self._seen = chosen[0]
                for row, content in driver.execute(_CONTENTS, [chosen], binary=True):
                    found += self._opener.open(row, content)
        if not found:
            self._let_go()
        return found

    def _first(self) -> int:
        """Where to begin to look: before it are only rows that are gone, and perhaps not yet cleared away.

        Now and then from the beginning, for what was committed late (by a clock that is behind, from a spool).
        """
        if time.monotonic() >= self._look_back_at:
            self._look_back_at = time.monotonic() + _LOOK_BACK_EVERY_S
            return 0
        return max(0, self._seen - first_at(_LATE_MS))

    def _unbox(self, found: Sequence[Inboxed], arrivals: Sequence[Arrival], write: Write) -> list[Receipt]:
        with self._dropped_on_error():
            connection = self._begun()
            bundles = sorted({one.bundle for one in found})
            mine = {row for (row,) in driver_of(connection).execute(_DROP, [bundles])}
            ours = [arrival for one, arrival in zip(found, arrivals, strict=True) if one.bundle in mine]
            receipts = iter(_written(connection, ours, write) if ours else ())
            connection.commit()
        if len(mine) < len(bundles):
            log.warning("another replica mapped what was ours for too long", bundles=len(bundles) - len(mine))
        return [
            next(receipts) if one.bundle in mine else Receipt(repeated=len(arrival.notifications))
            for one, arrival in zip(found, arrivals, strict=True)
        ]

    def _begun(self) -> Connection:
        """The connection, in a transaction."""
        if self._connection is None:
            self._connection = self._mapping.connect()
        if not self._connection.in_transaction():
            self._connection.begin()
        return self._connection

    def _let_go(self) -> None:
        """End the transaction that is open, if any, and with it the claims."""
        if self._connection is not None and self._connection.in_transaction():
            with contextlib.suppress(Exception), self._dropped_on_error():
                self._connection.rollback()

    @contextlib.contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        """Whatever it was: a new connection the next time, and nothing is held meanwhile."""
        try:
            yield
        except BaseException:
            self._drop_connection()
            raise

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    async def close(self) -> None:
        await self._writer.close()
        await asyncio.to_thread(self._mapper.shutdown)
        await asyncio.to_thread(self._drop_connection)


def _columns(bundles: Sequence[Bundle]) -> list[object]:
    return [[one.row for one in bundles], [one.deliveries for one in bundles], [one.content for one in bundles]]


def _written(connection: Connection, arrivals: Sequence[Arrival], write: Write) -> list[Receipt]:
    """Within the transaction that holds the claims: where another replica stood in the way, the same again."""
    for raced in range(1, RACES):
        try:
            with connection.begin_nested():
                return write(connection, arrivals)
        except Exception as error:
            if not is_race(error):
                raise
        pause_a_moment(raced)
    return write(connection, arrivals)
