"""What backends post to the events API's own paths: their calls, committed once each, and the keys that they call with.

A call that brings a key is remembered under it in the transaction that commits its events, so that it is taken once
however often it comes, over restarts and replicas. Calls that wait at the same moment share one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, delete, insert, select, update

from relay.ids import RowIds, first_at, made_at_ms
from relay.incoming import without_time
from relay.store.base import Arrival, Receipt, StoreUnavailableError
from relay.store.dialects import insert_into
from relay.store.lookup import holders
from relay.store.schema import calls, ingest_keys

T = TypeVar("T")
Job = Callable[[Connection], T]

#: For so long a call is remembered under its key.
REMEMBERED_MS = 3 * 86_400_000
#: Events that share a transaction: the writer's other work waits for it.
_MOST_EVENTS = 4000
_PIECE = 500


@dataclass(slots=True, kw_only=True)
class Claim:
    """An id under which a call has an event, and under which there must be no other content."""

    index: int
    once: str
    #: The event without its time.
    content: bytes


@dataclass(slots=True, kw_only=True)
class Posted:
    """One call, checked and sealed."""

    arrival: Arrival
    #: Under which it is remembered; None where nothing tells a repeat from news.
    key: str | None = None
    #: Of all that must be the same in a repeat.
    digest: bytes = b""
    #: What was remembered earlier than this, in Unix milliseconds, is forgotten.
    since_ms: int = 0
    #: What a repeat is answered.
    answer: bytes = b""
    claims: Sequence[Claim] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """It is committed."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Repeated:
    """It was committed before, and was answered this."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class KeyReused:
    """Its key came before with something else. Nothing was kept."""


@dataclass(frozen=True, slots=True)
class IdsReused:
    """The ids of these events came before with another content. Nothing was kept."""

    indexes: tuple[int, ...]


Outcome = Taken | Repeated | KeyReused | IdsReused


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestKey:
    """A key as it is kept: what it opens, and until when. Its text is nowhere."""

    id: str
    project: str
    name: str
    #: The SHA-256 of its text, in hexadecimal.
    hash: str
    made_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None

    def opens(self, now_ms: int) -> bool:
        """Whether it is still good."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


class _Runs(Protocol):
    """Runs a job in a transaction (or on a reading connection), and returns its value."""

    def __call__(self, job: Job[T], /) -> Coroutine[Any, Any, T]: ...


@dataclass(slots=True)
class _Waiting:
    posted: Posted
    future: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size(self) -> int:
        return sum(len(mapped.events) for mapped in self.posted.arrival.notifications)


class Intake:
    """The verbs. Bound to one event loop, as the store is."""

    def __init__(
        self,
        *,
        write: _Runs,
        read: _Runs,
        accept: Callable[[Connection, Sequence[Arrival]], Sequence[Receipt]],
        ids: RowIds,
        clock: Callable[[], int],
    ) -> None:
        """`accept` commits arrivals with all their guarantees, within the transaction of `write`."""
        self._write = write
        self._read = read
        self._accept = accept
        self._ids = ids
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._events = 0
        self._draining: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many events wait for their commit: the measure of overload."""
        return self._events

    async def take(self, posted: Posted) -> Outcome:
        """Commit the call and all its events, and fsync it, before returning; or say what it was before.

        Raises `StoreUnavailableError`, having kept nothing.
        """
        one = _Waiting(posted)
        self._waiting.append(one)
        self._events += one.size
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="intake")
        return await one.future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                try:
                    await self._commit_group(group)
                finally:
                    self._events -= sum(one.size for one in group)
        finally:
            self._draining = None
            for one in self._waiting:
                _fail(one, StoreUnavailableError("the store is closed"))

    def _next_group(self) -> list[_Waiting]:
        size = number = 0
        for one in self._waiting:
            size += one.size
            if number and size > _MOST_EVENTS:
                break
            number += 1
        group, self._waiting = self._waiting[:number], self._waiting[number:]
        return group

    async def _commit_group(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._write(partial(self._commit, [one.posted for one in group]))
        except StoreUnavailableError as error:
            for one in group:
                _fail(one, error)
        except Exception as error:  # noqa: BLE001  one holds what the store cannot take: find it, keep the others
            if len(group) == 1:
                _fail(group[0], error)
                return
            for one in group:
                await self._commit_group([one])
        else:
            for one, outcome in zip(group, outcomes, strict=True):
                if not one.future.done():  # else the caller went away; the commit stands
                    one.future.set_result(outcome)

    # --- within the transaction ---

    def _commit(self, group: Sequence[Posted], connection: Connection) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        fresh: list[int] = []
        contents: dict[tuple[str, str], bytes] = {}
        # in the order of their keys, so that replicas never wait for each other crosswise
        for place in sorted(range(len(group)), key=lambda place: (group[place].arrival.source, group[place].key or "")):
            posted = group[place]
            before = None if posted.key is None else self._remember(connection, posted, posted.key)
            if before is not None:
                outcomes[place] = before
            elif reused := _reused(connection, posted, contents):
                self._forget_call(connection, posted)
                outcomes[place] = IdsReused(tuple(reused))
            else:
                fresh.append(place)
        fresh.sort()
        receipts = self._accept(connection, [group[place].arrival for place in fresh]) if fresh else []
        outcomes |= {place: Taken(receipt) for place, receipt in zip(fresh, receipts, strict=True)}
        return [outcomes[place] for place in range(len(group))]

    def _remember(self, connection: Connection, posted: Posted, key: str) -> Repeated | KeyReused | None:
        """None: it is news, and is remembered from now on."""
        values = {"id": self._ids.next(), "digest": posted.digest, "answer": posted.answer}
        new = insert_into(calls, connection.dialect.name).values(source=posted.arrival.source, key=key, **values)
        new = new.on_conflict_do_nothing().returning(calls.c.key)  # an insert has no rowcount
        if connection.execute(new).first() is not None:
            return None
        there = (calls.c.source == posted.arrival.source, calls.c.key == key)
        row = connection.execute(select(calls).where(*there).with_for_update()).one()
        if made_at_ms(row.id) < max(posted.since_ms, self._clock() - REMEMBERED_MS):
            connection.execute(update(calls).where(*there).values(**values))
            return None
        return Repeated(row.answer) if row.digest == posted.digest else KeyReused()

    def _forget_call(self, connection: Connection, posted: Posted) -> None:
        if posted.key is not None:
            connection.execute(delete(calls).where(calls.c.source == posted.arrival.source, calls.c.key == posted.key))

    def forget(self, connection: Connection) -> int:
        """Forget calls that are remembered for long enough, one small piece."""
        old = calls.c.id < first_at(self._clock() - REMEMBERED_MS)
        piece = select(calls.c.id).where(old).order_by(calls.c.id).limit(_PIECE)
        return connection.execute(delete(calls).where(calls.c.id.in_(piece.scalar_subquery()), old)).rowcount

    # --- keys ---

    async def keys(self) -> Sequence[IngestKey]:
        """All keys that were made, oldest first, revoked ones too. Raises `StoreUnavailableError`."""
        return await self._read(_keys)

    async def add_key(self, key: IngestKey) -> None:
        """Keep it: from now on it opens its project."""
        values = {name: getattr(key, name) for name in IngestKey.__slots__}
        await self._write(lambda connection: connection.execute(insert(ingest_keys).values(values)).rowcount)

    async def revoke_key(self, key_id: str) -> bool:
        """It opens nothing any more. False: there is no such key that was not revoked before."""
        stop = (
            update(ingest_keys)
            .where(ingest_keys.c.id == key_id, ingest_keys.c.revoked_at_ms.is_(None))
            .values(revoked_at_ms=self._clock())
        )
        return bool(await self._write(lambda connection: connection.execute(stop).rowcount))


def _keys(connection: Connection) -> list[IngestKey]:
    query = select(ingest_keys).order_by(ingest_keys.c.made_at_ms, ingest_keys.c.id)
    return [IngestKey(**row) for row in connection.execute(query).mappings()]


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.future.done():
        one.future.set_exception(error)


def _reused(connection: Connection, posted: Posted, contents: dict[tuple[str, str], bytes]) -> list[int]:
    """The indexes of events whose id has another content; `contents` are those of this transaction."""
    if not posted.claims:
        return []
    source = posted.arrival.source
    held = holders(connection, source=source, once_keys=[claim.once for claim in posted.claims])
    reused = []
    for claim in posted.claims:
        known = contents.get((source, claim.once))
        if claim.once in held:
            known = without_time(held[claim.once].payload)
        if known not in (None, claim.content):
            reused.append(claim.index)
    if not reused:
        contents |= {(source, claim.once): claim.content for claim in posted.claims}
    return reused
