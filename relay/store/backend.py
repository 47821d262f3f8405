"""What a backend brings to `relay.store.sql`: where deliveries wait to be mapped, and its hot path's statements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from relay.ids import RowIds
from relay.sealing import Entity
from relay.store.base import Arrival, InboxDepth, Inboxed, Receipt, Verified
from relay.store.ledger import Key, Ledger, Rows
from relay.store.writer import Writer

#: Writes what was made of deliveries, within a transaction.
Write = Callable[[Connection, Sequence[Arrival]], list[Receipt]]

#: Runs a job on a reading connection of the database.
Read = Callable[[Callable[[Connection], Any]], Awaitable[Any]]


class Inbox(Protocol):
    """Takes deliveries in, shows the oldest, and lets go of those that are mapped."""

    @property
    def waiting(self) -> int: ...
    async def take(self, verified: Verified) -> None: ...
    async def oldest(self, limit: int) -> Sequence[Inboxed]: ...
    async def depth(self, read: Read) -> InboxDepth: ...
    async def unbox(
        self, found: Sequence[Inboxed], arrivals: Sequence[Arrival], *, write: Write, writer: Writer[Arrival, Receipt]
    ) -> list[Receipt]: ...
    async def close(self) -> None: ...


class Statements(Protocol):
    """The statements of the hot path, in a backend's own words."""

    def taken(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, int]: ...
    def known(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, Entity]: ...
    def waiting(self, connection: Connection, learned: Iterable[Key]) -> list[tuple[str, int]]: ...
    def insert(self, connection: Connection, rows: Rows) -> None: ...
    def learn(self, connection: Connection, ledger: Ledger, ids: RowIds) -> None: ...
    def repeat(self, connection: Connection, notifications: Sequence[int]) -> None: ...
