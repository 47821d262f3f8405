"""Mapping again what was mapped before: what differs from what the store holds, and the commit of what is missing.

An event is the same as a stored one where they share the event id or a once key. What was sent, or is on its way, is
never sent again and never changed; what is still here (pending, waiting, dead) is put right. Each function runs inside
one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import orjson
from sqlalchemy import Connection, select, update

from relay.ids import first_at, made_at_ms
from relay.joining import complete, dump_waiting, load_waiting
from relay.sealing import Sealed
from relay.store import asks, lookup
from relay.store.base import Arrival, Mapped, Outgoing, Receipt
from relay.store.bodies import headers_and_body, unpack_all
from relay.store.ledger import FACT, NOTIFICATION, Ledger, name_of
from relay.store.schema import (
    KEPT,
    EventState,
    Outcome,
    bundles,
    deliveries,
    duplicates,
    events,
    keys,
    notifications,
    payloads,
)
from relay.vault import Vault, VaultError

T = TypeVar("T")

_OUR_OWN = frozenset({EventState.PENDING, EventState.WAITING, EventState.DEAD})


class Run(Protocol):
    """Runs a job in a transaction."""

    def __call__(self, job: Callable[[Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which deliveries; None: all."""

    source: str | None = None
    since_ms: int = 0
    types: Sequence[str] = ()
    outcomes: Sequence[Outcome] = ()


@dataclass(frozen=True, slots=True)
class Parent:
    row: int
    type: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable:
    """A delivery as it came. Without a body it cannot be mapped again."""

    delivery: int
    source: str
    received_at_ms: int
    headers: dict[str, str]
    body: bytes | None
    answers: Mapping[str, Any]
    #: By the provider's id.
    notifications: Mapping[str, Parent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One event that is not as it was. `corrected` and `changed` differ in whether it has not left, or has."""

    kind: Literal["new", "corrected", "changed", "gone"]
    delivery: int
    notification_id: str
    type: str
    name: str
    event_id: str
    #: Of the stored event.
    state: str | None = None
    #: By field, what it was and what it would be.
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    differences: Sequence[Difference]
    receipt: Receipt
    #: Notifications that cannot be mapped now either.
    parked: int


@dataclass(frozen=True, slots=True)
class _Stored:
    row: Any
    once: frozenset[str]


class Replays:
    """The verbs. Make it within the store."""

    def __init__(
        self,
        read: Run,
        write: Run,
        *,
        ledger: Callable[[Connection, Sequence[Arrival]], Ledger],
        insert: Callable[[Connection, Ledger, Receipt], None],
        vault: Vault,
    ) -> None:
        self._read = read
        self._write = write
        self._ledger = ledger
        self._insert = insert
        self._vault = vault

    async def page(self, scope: Scope, *, after: int = 0, limit: int = 100) -> Sequence[Replayable]:
        """Deliveries of this scope, oldest first."""
        return await self._read(partial(self._page, scope=scope, after=after, limit=limit))

    async def compare(self, one: Replayable, mapped: Sequence[Mapped], *, planned: set[tuple[str, str]]) -> Compared:
        """What differs. `planned` gathers the keys that would be taken, so that each fact is new only once."""
        return await self._read(partial(self._compare, one=one, mapped=mapped, planned=planned, commits=False))

    async def commit(self, one: Replayable, mapped: Sequence[Mapped]) -> Compared:
        """The same, and what is missing goes into the outbox; what has not left is put right."""
        return await self._write(partial(self._compare, one=one, mapped=mapped, planned=set(), commits=True))

    def _page(self, connection: Connection, *, scope: Scope, after: int, limit: int) -> list[Replayable]:
        query = (
            select(deliveries, bundles.c.content.label("bundled"))
            .outerjoin(bundles, bundles.c.id == deliveries.c.bundle)
            .where(deliveries.c.id > after, deliveries.c.id >= first_at(scope.since_ms))
            .order_by(deliveries.c.id)
            .limit(limit)
        )
        if scope.source is not None:
            query = query.where(deliveries.c.source == scope.source)
        of_it = select(notifications.c.id).where(notifications.c.delivery == deliveries.c.id)
        if scope.types:
            query = query.where(of_it.where(notifications.c.type.in_(scope.types)).exists())
        if scope.outcomes:
            query = query.where(of_it.where(notifications.c.outcome.in_(scope.outcomes)).exists())
        opened: dict[int, dict[int, bytes]] = {}
        return [self._replayable(connection, row, opened) for row in connection.execute(query).all()]

    def _replayable(self, connection: Connection, row: Any, opened: dict[int, dict[int, bytes]]) -> Replayable:
        parents = {
            found.notification_id: Parent(found.id, found.type, Outcome(found.outcome))
            for found in connection.execute(select(notifications).where(notifications.c.delivery == row.id))
        }
        plain: bytes | None = None
        try:
            if row.content is not None:
                plain = self._vault.open(row.content, row=row.id)
            elif row.bundled is not None:
                if row.bundle not in opened:
                    opened[row.bundle] = unpack_all(self._vault.open(row.bundled, row=row.bundle))
                plain = opened[row.bundle].get(row.id)
        except VaultError:
            plain = None
        headers, body = ({}, None) if plain is None else headers_and_body(plain)
        return Replayable(
            delivery=row.id, source=row.source, received_at_ms=made_at_ms(row.id), headers=headers, body=body,
            answers=asks.answers_of(connection, self._vault, [parent.row for parent in parents.values()]),
            notifications=parents,
        )  # fmt: skip

    # --- comparing ---

    def _compare(
        self, connection: Connection, *, one: Replayable, mapped: Sequence[Mapped], planned: set[tuple[str, str]],
        commits: bool,
    ) -> Compared:  # fmt: skip
        arrival = Arrival(source=one.source, received_at_ms=one.received_at_ms, secret=0, headers=one.headers,
                          body=b"", notifications=mapped)  # fmt: skip
        ledger, receipt, found, parked = self._ledger(connection, [arrival]), Receipt(), list[Difference](), 0
        for told in mapped:
            parent = one.notifications.get(told.notification_id)
            if parent is None and (one.source, NOTIFICATION + told.notification_id) in ledger.taken:
                continue  # it belongs to the delivery that told it first
            if told.outcome in KEPT:
                parked += 1
                continue
            fresh, differences = self._differences(connection, ledger, one, told, parent, planned, commits=commits)
            found += differences
            if commits:
                self._take(connection, ledger, one, replace(told, events=fresh), parent, receipt)
        if commits:
            self._let_go(connection, one, mapped)
            ledger.rows.repeats.clear()
            self._insert(connection, ledger, receipt)
        return Compared(found, receipt, parked)

    def _differences(
        self, connection: Connection, ledger: Ledger, one: Replayable, told: Mapped, parent: Parent | None,
        planned: set[tuple[str, str]], *, commits: bool,
    ) -> tuple[list[Outgoing], list[Difference]]:  # fmt: skip
        stored = [] if parent is None else _stored(connection, parent.row)
        left, fresh, found = list(stored), list[Outgoing](), list[Difference]()
        for outgoing in told.events:
            sealed = outgoing.sealed
            same = next((was for was in stored if _is_same(was, sealed)), None)
            if same is None:
                if not self._is_told(connection, ledger, one.source, sealed, parent, planned):
                    fresh.append(outgoing)
                continue
            if same in left:
                left.remove(same)
            if commits and same.row.pieces is None:
                ledger.know(one.source, sealed.once, same.row.id)
            payload, fields = _changes(ledger, one.source, same, sealed)
            if fields:
                is_ours = commits and same.row.state in _OUR_OWN and _correct(connection, same, sealed, payload)
                kind: Literal["corrected", "changed"] = (
                    "corrected" if is_ours or (not commits and same.row.state in _OUR_OWN) else "changed"
                )
                found.append(_difference(kind, one, told, name_of(sealed), same.row.event_id, same.row.state, fields))
        held = {was.row.name: was.row.id for was in reversed(left) if was.row.state not in _OUR_OWN}
        for outgoing in [outgoing for outgoing in fresh if name_of(outgoing.sealed) in held]:
            fresh.remove(outgoing)  # it is most likely the one that has gone, under another key
            planned.update((one.source, key) for key in outgoing.sealed.once)
            if commits:  # so that nobody tells it once more
                ledger.know(one.source, outgoing.sealed.once, held[name_of(outgoing.sealed)])
            words = "an event of this name was sent under another key: it is not sent again"
            found.append(_difference("changed", one, told, name_of(outgoing.sealed), outgoing.sealed.event_id, None,
                                     {}, words))  # fmt: skip
        found += [_difference("gone", one, told, was.row.name, was.row.event_id, was.row.state, {}) for was in left]
        for outgoing in fresh:
            planned.update((one.source, key) for key in outgoing.sealed.once)
            found.append(_difference("new", one, told, name_of(outgoing.sealed), outgoing.sealed.event_id, None, {}))
        return fresh, found

    def _is_told(
        self, connection: Connection, ledger: Ledger, source: str, sealed: Sealed, parent: Parent | None,
        planned: set[tuple[str, str]],
    ) -> bool:  # fmt: skip
        """Whether the fact is told by another event, or was left to one that is still to come."""
        if any((source, FACT + key) in ledger.taken or (source, key) in planned for key in sealed.once):
            return True
        if lookup.holders(connection, source=source, once_keys=sealed.once):
            return True
        if parent is None:
            return False
        noted = select(duplicates.c.id).where(
            duplicates.c.notification == parent.row, duplicates.c.key.in_(sealed.once)
        )
        return connection.execute(noted.limit(1)).first() is not None

    # --- committing ---

    def _take(
        self, connection: Connection, ledger: Ledger, one: Replayable, told: Mapped, parent: Parent | None,
        receipt: Receipt,
    ) -> None:  # fmt: skip
        if parent is None:
            ledger.take_notification(one.source, one.delivery, told, receipt)
            return
        if parent.outcome in KEPT:
            asks.settle(connection, [parent.row])
            receipt.new += 1
        changed = {"outcome": told.outcome.value, "type": told.type, "error": told.error}
        connection.execute(update(notifications).where(notifications.c.id == parent.row).values(changed))
        ledger.take_mapped(one.source, parent.row, told, receipt)

    def _let_go(self, connection: Connection, one: Replayable, mapped: Sequence[Mapped]) -> None:
        """What could not be read before stands under other ids now."""
        found = {told.notification_id for told in mapped}
        gone = [
            parent.row for name, parent in one.notifications.items() if name not in found and parent.outcome in KEPT
        ]
        if gone and found:
            settled = {"outcome": Outcome.MAPPED.value, "error": None}
            connection.execute(update(notifications).where(notifications.c.id.in_(gone)).values(settled))


def _stored(connection: Connection, notification: int) -> list[_Stored]:
    found = []
    its = lookup.event_rows().where(events.c.notification == notification).order_by(events.c.id)
    for row in connection.execute(its):
        if row.pieces is not None:
            once = set(load_waiting(row.pieces).once)
        else:
            taken = connection.execute(select(keys.c.key).where(keys.c.ref == row.id)).scalars()
            once = {key.removeprefix(FACT) for key in taken if key.startswith(FACT)}
        found.append(_Stored(row, frozenset(once)))
    return found


def _is_same(was: _Stored, sealed: Sealed) -> bool:
    names = {*sealed.once, *(variant.once for variant in sealed.variants.values())}
    return was.row.event_id == sealed.event_id or bool(was.once & names)


def _changes(ledger: Ledger, source: str, was: _Stored, sealed: Sealed) -> tuple[bytes, dict[str, tuple[Any, Any]]]:
    """As it would leave now, and what differs: from what the mapper says, and from that with what is known."""
    done = complete(
        sealed, ledger.entities_of(source, sealed),
        is_free=lambda key: ledger.taken.get((source, FACT + key), was.row.id) == was.row.id,
    )  # fmt: skip
    old, bare, full = (dict(_flat(orjson.loads(raw))) for raw in (was.row.payload, sealed.payload, done.payload))
    fields = {
        name: (old.get(name), full.get(name))
        for name in sorted(old.keys() | full.keys())
        if old.get(name) not in (full.get(name), bare.get(name)) and name != "properties.event_id"
    }
    return done.payload, fields


def _flat(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in event.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value


def _correct(connection: Connection, was: _Stored, sealed: Sealed, payload: bytes) -> bool:
    """Put it right, where it has not left meanwhile; a dead letter goes again."""
    values: dict[str, Any] = {"name": name_of(sealed)}
    if was.row.state == EventState.WAITING:
        payload = sealed.payload
        values |= {"pieces": dump_waiting(sealed)}
    elif was.row.state == EventState.DEAD:
        values |= {"state": EventState.PENDING.value, "reason": None, "settled_at_ms": None}
    still = update(events).where(events.c.id == was.row.id, events.c.state == was.row.state)
    if not connection.execute(still.values(values)).rowcount:
        return False
    connection.execute(update(payloads).where(payloads.c.id == was.row.id).values(payload=payload))
    return True


def _difference(
    kind: Literal["new", "corrected", "changed", "gone"], one: Replayable, told: Mapped, name: str, event_id: str,
    state: str | None, fields: Mapping[str, tuple[Any, Any]], words: str = "",
) -> Difference:  # fmt: skip
    return Difference(kind=kind, delivery=one.delivery, notification_id=told.notification_id, type=told.type, name=name,
                      event_id=event_id, state=state, fields=fields, words=words)  # fmt: skip
