"""Deliveries whose signature was refused: the newest of each source, kept to be looked at, and to be taken after all.

A ring: for each source so many of them, so many bytes, and for so long. Strangers choose what comes, so that all three
are bounded, and nobody waits for a row here. Headers and body are in the vault, without credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    RowMapping,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)

from relay.ids import RowIds, first_at, made_at_ms
from relay.store.bodies import pack, unpack
from relay.store.schema import metadata
from relay.vault import Vault, VaultError

T = TypeVar("T")

rejected = Table(
    "rejected",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("reason", Text, nullable=False),  # the verifier's word
    Column("cause", Text, nullable=False),  # what fits, by `relay.diagnosing`
    Column("words", Text, nullable=False),
    Column("size", Integer, nullable=False),  # of the body, in bytes
    Column("stored", Integer, nullable=False),  # of the content, in bytes
    Column("content", LargeBinary),  # headers, query and body in the vault; none of a body that is too large
    Index("rejected_by_source", "source", "id"),
)

#: Of each source.
MOST = 200
MOST_BYTES = 8_000_000
OLDEST_MS = 7 * 86_400_000
#: A body that is larger is not kept, only that it came.
LARGEST_BODY = 262_144


class Run(Protocol):
    """Runs a job in a transaction."""

    def __call__(self, job: Callable[[Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One that is to be kept."""

    source: str
    reason: str
    cause: str
    words: str
    #: Without credentials.
    headers: Mapping[str, str]
    query: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One that was kept."""

    id: int
    source: str
    reason: str
    cause: str
    words: str
    at_ms: int
    #: Of its body, in bytes.
    size: int
    #: None: not kept, not readable, or not asked for.
    headers: Mapping[str, str] | None = None
    query: str = ""
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What several have in common."""

    source: str
    reason: str
    cause: str
    #: Those of the newest.
    words: str
    n: int
    oldest_ms: int
    newest_ms: int


class Ring:
    """The verbs. Make it within the store."""

    def __init__(self, *, read: Run, write: Run, vault: Vault, ids: RowIds, clock: Callable[[], int]) -> None:
        self._read = read
        self._write = write
        self._vault = vault
        self._ids = ids
        self._clock = clock

    async def keep(self, rejections: Sequence[Rejection]) -> Sequence[int]:
        """Commit these, and forget what does not fit into the ring of their sources any more. Returns their ids."""
        return await self._write(partial(self._keep, rejections=rejections))

    async def listing(
        self, *, source: str | None = None, since_ms: int = 0, limit: int = 50, opened: bool = False
    ) -> Sequence[Rejected]:
        """The newest first; `opened`: with headers and bodies, where they can be read."""
        return await self._read(partial(self._listing, source=source, since_ms=since_ms, limit=limit, opened=opened))

    async def one(self, row: int) -> Rejected | None:
        """With headers and body, where they can be read."""
        return await self._read(partial(self._one, row=row))

    async def causes(self, *, source: str | None = None, since_ms: int = 0) -> Sequence[Cause]:
        """What was refused since then, by source and cause, the newest first."""
        return await self._read(partial(_causes, source=source, since_ms=since_ms))

    async def drop(self, rows: Sequence[int]) -> None:
        """Forget these."""
        await self._write(lambda connection: connection.execute(delete(rejected).where(rejected.c.id.in_(rows))))

    def _keep(self, connection: Connection, *, rejections: Sequence[Rejection]) -> list[int]:
        rows = [self._ids.next() for _ in rejections]
        for row, one in zip(rows, rejections, strict=True):
            content = None
            if len(one.body) <= LARGEST_BODY:
                about = {"headers": dict(one.headers), "query": one.query}
                content = self._vault.seal(pack(about, one.body), row=row)
            connection.execute(
                insert(rejected).values(
                    id=row, source=one.source, reason=one.reason, cause=one.cause, words=one.words[:2000],
                    size=len(one.body), stored=len(content or b""), content=content,
                )
            )  # fmt: skip
        for source in sorted({one.source for one in rejections}):
            _trim(connection, source, before=first_at(self._clock() - OLDEST_MS))
        return rows

    def forget(self, connection: Connection) -> int:
        """Part of the store's prune: what is too old."""
        old = first_at(self._clock() - OLDEST_MS)
        return connection.execute(delete(rejected).where(rejected.c.id < old)).rowcount

    def _listing(
        self, connection: Connection, *, source: str | None, since_ms: int, limit: int, opened: bool
    ) -> list[Rejected]:
        query = select(rejected).where(rejected.c.id >= first_at(since_ms)).order_by(rejected.c.id.desc()).limit(limit)
        if source is not None:
            query = query.where(rejected.c.source == source)
        return [self._row(row, opened=opened) for row in connection.execute(query).mappings()]

    def _one(self, connection: Connection, *, row: int) -> Rejected | None:
        found = connection.execute(select(rejected).where(rejected.c.id == row)).mappings().first()
        return None if found is None else self._row(found, opened=True)

    def _row(self, row: RowMapping, *, opened: bool) -> Rejected:
        about: dict[str, Any] = {}
        body: bytes | None = None
        if opened and row["content"] is not None:
            try:
                about, body = unpack(self._vault.open(row["content"], row=row["id"]))
            except VaultError:
                about, body = {}, None
        return Rejected(
            id=row["id"], source=row["source"], reason=row["reason"], cause=row["cause"], words=row["words"],
            at_ms=made_at_ms(row["id"]), size=row["size"], headers=about.get("headers"), query=about.get("query", ""),
            body=body,
        )  # fmt: skip


def _trim(connection: Connection, source: str, *, before: int) -> None:
    rows = connection.execute(
        select(rejected.c.id, rejected.c.stored)
        .where(rejected.c.source == source, rejected.c.id >= before)
        .order_by(rejected.c.id.desc())
        .limit(MOST)
    )
    size, first = 0, before
    for row in rows:
        size += row.stored
        if size > MOST_BYTES:
            break
        first = row.id
    connection.execute(delete(rejected).where(rejected.c.source == source, rejected.c.id < first))


def _causes(connection: Connection, *, source: str | None, since_ms: int) -> list[Cause]:
    columns = (rejected.c.source, rejected.c.reason, rejected.c.cause)
    grouped = (
        select(*columns, func.count().label("n"), func.min(rejected.c.id).label("oldest"),
               func.max(rejected.c.id).label("newest"))
        .where(rejected.c.id >= first_at(since_ms))
        .group_by(*columns)
    )  # fmt: skip
    if source is not None:
        grouped = grouped.where(rejected.c.source == source)
    rows = sorted(connection.execute(grouped).all(), key=lambda row: -row.newest)
    newest = [row.newest for row in rows]
    found = connection.execute(select(rejected.c.id, rejected.c.words).where(rejected.c.id.in_(newest)))
    words = {row.id: row.words for row in found}
    return [
        Cause(source=row.source, reason=row.reason, cause=row.cause, words=words.get(row.newest, ""), n=row.n,
              oldest_ms=made_at_ms(row.oldest), newest_ms=made_at_ms(row.newest))
        for row in rows
    ]  # fmt: skip
