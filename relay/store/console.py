"""What the console asks of the store. Every verb runs in one transaction and reads no more than it shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import orjson
from sqlalchemy import Connection, func, insert, select

from relay.ids import RowIds, first_at, made_at_ms
from relay.store import counting, search, telling
from relay.store.base import EventRow, Kept
from relay.store.console_schema import audit
from relay.store.counting import Counted
from relay.store.search import Group, Page, Seen, Told, Wanted
from relay.store.telling import Story
from relay.vault import Vault

T = TypeVar("T")

_PIECE = 500


class Run(Protocol):
    """Runs a job in a transaction."""

    def __call__(self, job: Callable[[Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One row of the audit log."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]
    address: str


class Console:
    """The verbs. Make it within the store."""

    def __init__(
        self,
        *,
        read: Run,
        write: Run,
        kept: Callable[[Connection, int], Kept | None],
        vault: Vault,
        ids: RowIds,
        clock: Callable[[], int],
    ) -> None:
        self._read = read
        self._write = write
        self._kept = kept
        self._vault = vault
        self._ids = ids
        self._clock = clock

    # --- looking ---

    async def kinds(self) -> Sequence[Seen]:
        """Every combination of outcome, source and type that there is."""
        return await self._read(search.kinds)

    async def listing(self, wanted: Wanted, *, before: int | None = None, limit: int = 50) -> Page:
        """A page of notifications, newest first."""
        return await self._read(partial(search.listing, wanted=wanted, before=before, limit=limit))

    async def find(self, text: str, *, users: Sequence[str] = ()) -> Sequence[Told]:
        """Whatever has this name, newest first."""
        return await self._read(partial(search.find, text=text, users=users))

    async def story(self, delivery: int) -> Story | None:
        """All that is known of a delivery."""
        return await self._read(partial(telling.story, vault=self._vault, delivery=delivery))

    async def events(self, ids: Sequence[int]) -> Sequence[EventRow]:
        """These events, newest first."""
        return await self._read(partial(telling.events_by_id, ids=ids))

    async def origins(self, events: Sequence[int]) -> Mapping[int, tuple[int, str]]:
        """By row id of an event, the delivery that told it, and its event id."""
        return await self._read(partial(telling.origins, ids=events))

    async def last_seen(self) -> Mapping[str, int]:
        """By source, when something new came last."""
        return await self._read(search.last_seen)

    # --- what waits for a person ---

    async def dead_groups(self) -> tuple[Sequence[Group], bool]:
        """Dead letters by reason, and whether those are all."""
        return await self._read(search.dead_groups)

    async def parked_groups(self, outcome: Any) -> tuple[Sequence[Group], bool]:
        """Notifications that wait for a mapper by reason, and whether those are all."""
        return await self._read(partial(search.parked_groups, outcome=outcome))

    async def dead_ids(
        self, *, reason: str | None = None, source: str | None = None, name: str | None = None, after: int = 0,
        limit: int = _PIECE,
    ) -> Sequence[int]:  # fmt: skip
        """Dead letters of a group, oldest first."""
        return await self._read(
            partial(search.dead_ids, reason=reason, source=source, name=name, after=after, limit=limit)
        )

    async def parked_deliveries(
        self, outcome: Any, *, source: str | None = None, kind: str | None = None, after: int = 0, limit: int = _PIECE
    ) -> Sequence[tuple[int, int]]:
        """Notifications that wait for a mapper, each with its delivery, oldest first."""
        return await self._read(
            partial(search.parked_deliveries, outcome=outcome, source=source, kind=kind, after=after, limit=limit)
        )

    async def kept(self, delivery: int) -> Kept | None:
        """A delivery that can be mapped again; None where its body is gone or nothing of it is parked."""
        return await self._read(lambda connection: self._kept(connection, delivery))

    async def doubted(self) -> Sequence[tuple[Any, Sequence[EventRow]]]:
        """Batches in doubt, each with the first of its events."""
        return await self._read(search.held_events)

    # --- numbers ---

    async def counted(self, *, width_ms: int, since_ms: int) -> Counted:
        """All measures since then, in buckets of this width."""
        return await self._read(partial(counting.counted, width_ms=width_ms, since_ms=since_ms))

    async def unsent(self, *, width_ms: int, since_ms: int) -> Counted:
        """Of the events made since then, those that the destination has not accepted, and their money."""
        return await self._read(partial(counting.unsent, width_ms=width_ms, since_ms=since_ms))

    async def count_up(self) -> int:
        """Count a piece of what came. Returns how many rows; 0: nothing is left to count."""
        return await self._write(partial(counting.count_up, now_ms=self._clock()))

    def forget(self, connection: Connection, *, before_ms: int) -> int:
        """Part of the store's prune: what is older than the keys."""
        done = counting.forget(connection, before_ms=before_ms, now_ms=self._clock(), piece=_PIECE)
        old = select(audit.c.id).where(audit.c.id < first_at(before_ms)).limit(_PIECE).scalar_subquery()
        return done + connection.execute(audit.delete().where(audit.c.id.in_(old))).rowcount

    # --- the audit log ---

    async def note(
        self, *, actor: str, action: str, subject: str = "", address: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        """Commit a row of the audit log."""
        row = {
            "actor": actor[:200], "action": action, "subject": subject[:200], "address": address[:100],
            "details": orjson.dumps(dict(details or {})).decode(),
        }  # fmt: skip
        await self._write(lambda connection: connection.execute(insert(audit).values(id=self._ids.next(), **row)))

    async def deeds(self, *, action: str | None = None, before: int | None = None, limit: int = 50) -> Sequence[Deed]:
        """The audit log, newest first."""
        return await self._read(partial(_deeds, action=action, before=before, limit=limit))

    async def count_deeds(self, action: str, *, since_ms: int, address: str | None = None) -> int:
        """How often it was done since then, from this address, or at all."""
        return await self._read(partial(_count_deeds, action=action, since_ms=since_ms, address=address))


def _deeds(connection: Connection, *, action: str | None, before: int | None, limit: int) -> list[Deed]:
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if action is not None:
        query = query.where(audit.c.action == action)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [
        Deed(id=row.id, at_ms=made_at_ms(row.id), actor=row.actor, action=row.action, subject=row.subject,
             details=orjson.loads(row.details), address=row.address)
        for row in connection.execute(query)
    ]  # fmt: skip


def _count_deeds(connection: Connection, *, action: str, since_ms: int, address: str | None) -> int:
    query = select(func.count()).where(audit.c.action == action, audit.c.id >= first_at(since_ms))
    if address is not None:
        query = query.where(audit.c.address == address)
    return connection.execute(query).scalar_one()
