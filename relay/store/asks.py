"""What a provider is still to be asked, and what it answered. Each function runs inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, delete, func, insert, select, update

from relay.ids import made_at_ms
from relay.store.base import Answers, Kept, PutOff, ToDo
from relay.store.bodies import headers_and_body
from relay.store.schema import Outcome, asks, deliveries, notifications
from relay.vault import Vault, VaultError

log = structlog.get_logger("relay.store")


def is_due(connection: Connection, source: str, *, now_ms: int) -> bool:
    """Whether the provider can be asked about anything now."""
    query = select(asks.c.notification).where(asks.c.source == source, asks.c.due_at_ms <= now_ms).limit(1)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection, vault: Vault, source: str, *, now_ms: int, limit: int, lease_ms: int
) -> Sequence[ToDo]:
    """What is due, by delivery, and due again after the lease."""
    rows = connection.execute(
        select(asks, notifications.c.delivery, notifications.c.notification_id)
        .join(notifications, notifications.c.id == asks.c.notification)
        .where(asks.c.source == source, asks.c.due_at_ms <= now_ms)
        .order_by(asks.c.due_at_ms, asks.c.notification)
        .limit(limit)
        .with_for_update(of=asks, skip_locked=True)
    ).mappings().all()  # fmt: skip
    by_delivery: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_delivery.setdefault(row["delivery"], []).append(dict(row))
    claimed: list[ToDo] = []
    for delivery, members in by_delivery.items():
        todo = _todo(connection, vault, delivery, members, now_ms=now_ms)
        ids = [row["notification"] for row in members]
        due_at_ms = None if todo is None else now_ms + lease_ms
        connection.execute(update(asks).where(asks.c.notification.in_(ids)).values(due_at_ms=due_at_ms))
        if todo is not None:
            claimed.append(todo)
    return claimed


def _todo(
    connection: Connection, vault: Vault, delivery: int, members: Sequence[Mapping[str, Any]], *, now_ms: int
) -> ToDo | None:
    row = connection.execute(select(deliveries).where(deliveries.c.id == delivery)).mappings().one_or_none()
    if row is None or row["content"] is None:
        return None  # its retention is over
    try:
        headers, body = headers_and_body(vault.open(row["content"], row=delivery))
    except VaultError as error:
        log.warning("a kept body cannot be read and is left as it is", delivery=delivery, reason=str(error))
        return None
    kept = Kept(
        delivery=delivery,
        source=row["source"],
        received_at_ms=made_at_ms(delivery),
        headers=headers,
        body=body,
        notifications={one["notification_id"]: one["notification"] for one in members},
        answers=_opened(vault, ((one["notification"], one["content"]) for one in members)),
    )
    return ToDo(
        kept=kept,
        attempts={one["notification_id"]: one["attempts"] for one in members},
        began_at_ms={one["notification_id"]: one["began_at_ms"] or now_ms for one in members},
    )


def answers_of(connection: Connection, vault: Vault, rows: Iterable[int]) -> dict[str, Any]:
    """What is known about these notifications."""
    query = select(asks.c.notification, asks.c.content).where(asks.c.notification.in_(list(rows)))
    return _opened(vault, ((row.notification, row.content) for row in connection.execute(query)))


def _opened(vault: Vault, contents: Iterable[tuple[int, bytes | None]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row, content in contents:
        if content is not None:
            try:
                found |= orjson.loads(vault.open(content, row=row))
            except VaultError as error:
                log.warning("kept answers cannot be read, and are asked for again", reason=str(error))
    return found


def keep(connection: Connection, vault: Vault, kept: Kept, answers: Answers) -> None:
    """These answers, beside those that there are."""
    for notification_id, told in answers.items():
        row = kept.notifications[notification_id]
        if told:
            content = vault.seal(orjson.dumps({**answers_of(connection, vault, [row]), **told}), row=row)
            connection.execute(update(asks).where(asks.c.notification == row).values(content=content))


def settle(connection: Connection, rows: Iterable[int]) -> None:
    """Nothing is to be asked about these any more."""
    connection.execute(update(asks).where(asks.c.notification.in_(list(rows))).values(due_at_ms=None))


def begin(connection: Connection, row: int, *, source: str, due_at_ms: int) -> None:
    """The provider is to be asked about a notification that was kept for another reason, or was given up."""
    again = {"due_at_ms": due_at_ms, "attempts": 0, "began_at_ms": None}
    if not connection.execute(update(asks).where(asks.c.notification == row).values(**again)).rowcount:
        connection.execute(insert(asks).values(notification=row, source=source, **again))


def put_off(connection: Connection, kept: Kept, later: Mapping[str, PutOff], *, now_ms: int) -> None:
    """Ask again when due."""
    for notification_id, put in later.items():
        row = kept.notifications[notification_id]
        connection.execute(
            update(asks)
            .where(asks.c.notification == row, asks.c.due_at_ms.is_not(None))
            .values(
                due_at_ms=put.due_at_ms,
                attempts=asks.c.attempts + int(put.is_try),
                began_at_ms=func.coalesce(asks.c.began_at_ms, now_ms),
            )
        )
        is_open = (notifications.c.id == row) & (notifications.c.outcome == Outcome.TO_DO)
        connection.execute(update(notifications).where(is_open).values(error=put.words))


def waiting(connection: Connection) -> dict[str, int]:
    """By source, how many notifications the provider is still to be asked about."""
    query = (
        select(asks.c.source, func.count().label("number")).where(asks.c.due_at_ms.is_not(None)).group_by(asks.c.source)
    )
    return {row.source: row.number for row in connection.execute(query)}


def forget(connection: Connection, *, bodies_before: int, keys_before: int, piece: int) -> int:
    """Answers go with the bodies; what is still to be asked goes with the keys."""
    old = (asks.c.notification < bodies_before) & (asks.c.due_at_ms.is_(None) | (asks.c.notification < keys_before))
    some = select(asks.c.notification).where(old).limit(piece)
    return connection.execute(delete(asks).where(asks.c.notification.in_(some.scalar_subquery()), old)).rowcount
