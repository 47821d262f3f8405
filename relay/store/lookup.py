"""From a business fact to the event that told it and back, and the bookmarks of long works.

Each function runs inside one transaction. What is looked up in great numbers goes in pieces, so that no statement has
more parameters than a driver takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, Select, bindparam, delete, literal_column, select

from relay.ids import first_at, made_at_ms
from relay.joining import load_waiting
from relay.store.base import Bookmark, DuplicateRow, EventRow
from relay.store.console_schema import EVENT, term_of, terms
from relay.store.counting import termed_up_to
from relay.store.dialects import among, insert_into, packed
from relay.store.ledger import FACT
from relay.store.schema import EventState, bookmarks, duplicates, events, keys, notifications, payloads

_PIECE = 500
#: By so much an event may be older than its row: the provider's clock and ours differ.
_CLOCKS_DIFFER_MS = 86_400_000
#: What an event that carries money has in its payload: revenue, or the amount of a refund.
_MONEY = (b'"revenue":', b'"amount":')


def event_rows() -> Select[Any]:
    """A select of what `event_row` reads."""
    return (
        select(events, payloads.c.payload, notifications.c.notification_id)
        .join(payloads, payloads.c.id == events.c.id)
        .outerjoin(notifications, notifications.c.id == events.c.notification)
    )


def event_row(row: RowMapping) -> EventRow:
    return EventRow(
        id=row["id"], event_id=row["event_id"], name=row["name"], source=row["source"],
        destination=row["destination"], state=EventState(row["state"]), payload=row["payload"],
        made_at_ms=made_at_ms(row["id"]), settled_at_ms=row["settled_at_ms"], reason=row["reason"],
        doubts=row["doubts"], notification_id=row["notification_id"], batch=row["batch"],
    )  # fmt: skip


def called(connection: Connection, reference: str) -> list[int]:
    """Row ids of the events with this id, or this row id. Those whose terms are not written yet are looked through."""
    rows = [int(reference)] if reference.isdecimal() else []
    by_term = select(terms.c.event).where(terms.c.term == term_of(EVENT, reference))
    rows += connection.execute(by_term).scalars()
    fresh = select(events.c.id).where(events.c.id > termed_up_to(connection), events.c.event_id == reference)
    return [*rows, *connection.execute(fresh).scalars()]


def duplicates_of(connection: Connection, *, event_id: str | None, limit: int) -> Sequence[DuplicateRow]:
    query = (
        select(
            duplicates, notifications.c.notification_id, notifications.c.type, events.c.event_id,
            events.c.name.label("event_name"),
        )
        .outerjoin(notifications, notifications.c.id == duplicates.c.notification)
        .outerjoin(events, events.c.id == duplicates.c.event)
        .order_by(duplicates.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if event_id is not None:
        query = query.where(duplicates.c.event.in_(called(connection, event_id)))
    return [
        DuplicateRow(
            source=row["source"], notification_id=row["notification_id"], type=row["type"], name=row["name"],
            key=row["key"], event_id=row["event_id"], event_name=row["event_name"], made_at_ms=made_at_ms(row["id"]),
        )
        for row in connection.execute(query).mappings()
    ]  # fmt: skip


def holders(connection: Connection, *, source: str, once_keys: Sequence[str]) -> dict[str, EventRow]:
    """The events that took these once keys, by key; for a key that is free, one that waits and will take it."""
    found = _waiting(connection, source, set(once_keys))
    wanted = event_rows().add_columns(keys.c.key).join(keys, keys.c.ref == events.c.id)
    wanted = wanted.where(keys.c.source == source, keys.c.key.in_(bindparam("wanted", expanding=True)))
    for piece in _pieces([FACT + key for key in dict.fromkeys(once_keys)]):
        for row in connection.execute(wanted, {"wanted": list(piece)}).mappings():
            found[row["key"].removeprefix(FACT)] = event_row(row)
    return found


def _waiting(connection: Connection, source: str, wanted: set[str]) -> dict[str, EventRow]:
    """An event takes its keys when it leaves: until then they stand in its pieces."""
    found: dict[str, EventRow] = {}
    waiting = event_rows().where(events.c.source == source, events.c.state == literal_column("'waiting'"))
    for row in connection.execute(waiting).mappings():
        for key in wanted.intersection(load_waiting(row["pieces"]).once):
            found.setdefault(key, event_row(row))
    return found


def revenue_events(connection: Connection, *, source: str, since_ms: int, until_ms: int) -> list[EventRow]:
    """The events of a source that carry money and happened in this time, in the order in which they came."""
    found: list[EventRow] = []
    after = first_at(max(0, since_ms - _CLOCKS_DIFFER_MS))
    while True:
        query = event_rows().where(events.c.source == source, events.c.id > after).order_by(events.c.id).limit(_PIECE)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            if any(mark in row["payload"] for mark in _MONEY):
                at_ms = orjson.loads(row["payload"]).get("timestamp")
                if at_ms is not None and since_ms <= at_ms < until_ms:
                    found.append(event_row(row))
        if len(rows) < _PIECE:
            return found
        after = rows[-1]["id"]


def once_keys(connection: Connection, *, dialect: str, event_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The once keys that each of these events took."""
    found: dict[int, list[str]] = {}
    taken = select(keys.c.ref, keys.c.key).where(among(keys.c.ref, dialect=dialect)).order_by(keys.c.key)
    for piece in _pieces(event_ids):
        for ref, key in connection.execute(taken, {"ids": packed(piece, dialect=dialect)}):
            if key.startswith(FACT):
                found.setdefault(ref, []).append(key.removeprefix(FACT))
    return {ref: tuple(taken_by) for ref, taken_by in found.items()}


def bookmarks_under(connection: Connection, *, prefix: str) -> dict[str, Bookmark]:
    """The bookmarks whose names begin so, by name."""
    query = select(bookmarks).where(bookmarks.c.name.startswith(prefix, autoescape=True))
    return {row.name: Bookmark(row.position, row.noted_at_ms) for row in connection.execute(query)}


def set_bookmark(connection: Connection, name: str, position: str | None, *, now_ms: int) -> None:
    if position is None:
        connection.execute(delete(bookmarks).where(bookmarks.c.name == name))
        return
    values = {"position": position, "noted_at_ms": now_ms}
    new = insert_into(bookmarks, connection.dialect.name).values(name=name, **values)
    connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))


def _pieces(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), _PIECE):
        yield things[start : start + _PIECE]
