"""A delivery's whole story: what came, what it said, which events were made of it, and how they fared.

From a delivery forward to its events and their batches, and sideways to whatever told the same fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from relay.ids import made_at_ms
from relay.store.base import EventRow
from relay.store.bodies import read
from relay.store.ledger import FACT
from relay.store.lookup import event_row, event_rows
from relay.store.schema import batches, deliveries, duplicates, events, keys, notifications
from relay.store.search import Told, told
from relay.vault import Vault, VaultError

_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStory:
    """The last batch that carried an event."""

    id: int
    state: str
    idempotency_key: str
    size: int
    attempts: int
    doubts: int
    due_at_ms: int
    made_at_ms: int
    #: The last answer that was not an acceptance.
    words: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """One that told a fact again, and the event that had told it."""

    name: str
    key: str
    made_at_ms: int
    delivery: int | None
    notification_id: str | None
    type: str | None
    event_id: str | None
    event_delivery: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStory:
    event: EventRow
    once: Sequence[str]
    batch: BatchStory | None
    #: Others that told the same.
    again: Sequence[Again]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationStory:
    told: Told
    events: Sequence[EventStory]
    #: What it told that had been told.
    repeated: Sequence[Again]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    delivery: int
    source: str
    received_at_ms: int
    #: Which of the source's secrets fitted, from 0.
    secret: int
    size: int
    #: None: not kept (any more), or not readable.
    headers: dict[str, str] | None
    body: bytes | None
    #: Why they cannot be read, where they cannot.
    trouble: str | None
    notifications: Sequence[NotificationStory]


def story(connection: Connection, vault: Vault, delivery: int) -> Story | None:
    """All that is known of a delivery; None where there is none of this id."""
    row = connection.execute(select(deliveries).where(deliveries.c.id == delivery)).first()
    if row is None:
        return None
    kept, trouble = None, None
    try:
        kept = read(connection, vault, delivery)
    except VaultError as error:
        trouble = str(error)
    ids = connection.execute(
        select(notifications.c.id).where(notifications.c.delivery == delivery).order_by(notifications.c.id).limit(_MOST)
    ).scalars()
    return Story(
        delivery=delivery,
        source=row.source,
        received_at_ms=made_at_ms(delivery),
        secret=row.secret,
        size=row.size,
        headers=kept[0] if kept else None,
        body=kept[1] if kept else None,
        trouble=trouble,
        notifications=[_notification(connection, one) for one in told(connection, list(ids))],
    )


def _notification(connection: Connection, one: Told) -> NotificationStory:
    return NotificationStory(
        told=one,
        events=[_event(connection, event) for event in one.events],
        repeated=_again(connection, notification=one.id) if one.duplicates else (),
    )


def _event(connection: Connection, event: EventRow) -> EventStory:
    taken = connection.execute(select(keys.c.key).where(keys.c.ref == event.id).order_by(keys.c.key)).scalars()
    batch = connection.execute(select(batches).where(batches.c.id == (event.batch or 0))).first()
    return EventStory(
        event=event,
        once=[key.removeprefix(FACT) for key in taken if key.startswith(FACT)],
        batch=None
        if batch is None
        else BatchStory(
            id=batch.id, state=batch.state, idempotency_key=batch.idempotency_key, size=batch.size,
            attempts=batch.attempts, doubts=batch.doubts, due_at_ms=batch.due_at_ms, made_at_ms=made_at_ms(batch.id),
            words=batch.words,
        ),
        again=_again(connection, event=event.id),
    )  # fmt: skip


def _again(connection: Connection, *, notification: int | None = None, event: int | None = None) -> list[Again]:
    holder = notifications.alias("holder")
    query = (
        select(
            duplicates, notifications.c.notification_id, notifications.c.type, notifications.c.delivery,
            events.c.event_id, holder.c.delivery.label("event_delivery"),
        )
        .outerjoin(notifications, notifications.c.id == duplicates.c.notification)
        .outerjoin(events, events.c.id == duplicates.c.event)
        .outerjoin(holder, holder.c.id == events.c.notification)
        .order_by(duplicates.c.id)
        .limit(100)
    )  # fmt: skip
    query = query.where(duplicates.c.notification == notification if event is None else duplicates.c.event == event)
    return [
        Again(
            name=row.name, key=row.key, made_at_ms=made_at_ms(row.id), delivery=row.delivery,
            notification_id=row.notification_id, type=row.type, event_id=row.event_id,
            event_delivery=row.event_delivery,
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def origins(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """By row id of an event, the delivery that told it, and its event id."""
    query = (
        select(events.c.id, notifications.c.delivery, events.c.event_id)
        .join(notifications, notifications.c.id == events.c.notification)
        .where(events.c.id.in_(ids))
        .order_by(events.c.id)
    )
    return {row.id: (row.delivery, row.event_id) for row in connection.execute(query)}


def events_by_id(connection: Connection, ids: Sequence[int]) -> list[EventRow]:
    """These events, newest first."""
    query = event_rows().where(events.c.id.in_(ids)).order_by(events.c.id.desc())
    return [event_row(row) for row in connection.execute(query).mappings()]
