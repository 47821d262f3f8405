"""What an operator asks of the store, and its housekeeping. Each function runs inside one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Select, delete, func, literal_column, select, update

from relay.ids import first_at, made_at_ms
from relay.store import asks
from relay.store.base import BatchRow, Depth, EventRow, Kept, StoreUnavailableError
from relay.store.bodies import headers_and_body
from relay.store.lookup import called, event_row, event_rows
from relay.store.migrations import pending
from relay.store.schema import (
    KEPT,
    BatchState,
    EventState,
    Outcome,
    batches,
    bundles,
    deliveries,
    destinations,
    duplicates,
    entities,
    events,
    keys,
    notifications,
    payloads,
)
from relay.vault import Vault, VaultError

log = structlog.get_logger("relay.store")

#: Rows per step of the prune: a step must never keep receiving waiting for long.
_PIECE = 500
_MOST_IN_STATE = 100_000


class Desk:
    """The statements of one dialect."""

    def __init__(self, *, dialect: str, vault: Vault) -> None:
        self._dialect = dialect
        self._vault = vault

    # --- waiting events ---

    def overdue(self, connection: Connection, *, now_ms: int) -> Sequence[int]:
        """Events whose wait is over, the longest first."""
        return connection.execute(
            select(events.c.id)
            .where(events.c.state == EventState.WAITING, events.c.due_at_ms <= now_ms)
            .order_by(events.c.due_at_ms, events.c.id)
            .limit(_PIECE)
            .with_for_update(skip_locked=True)
        ).scalars().all()  # fmt: skip

    # --- what could not be mapped ---

    def unmapped(self, connection: Connection, *, outcome: Outcome, after: int, limit: int) -> Sequence[Kept]:
        while True:
            page = self._unmapped_page(connection, outcome, after, limit)
            kept = [one for delivery in page if (one := self._kept(connection, delivery)) is not None]
            if kept or not page:
                return kept
            after = page[-1]

    def _unmapped_page(self, connection: Connection, outcome: Outcome, after: int, limit: int) -> Sequence[int]:
        return connection.execute(
            select(notifications.c.delivery)
            .join(deliveries, deliveries.c.id == notifications.c.delivery)
            .where(
                notifications.c.outcome == outcome,
                notifications.c.delivery > after,
                deliveries.c.content.is_not(None),
            )
            .group_by(notifications.c.delivery)
            .order_by(notifications.c.delivery)
            .limit(limit)
        ).scalars().all()  # fmt: skip

    def kept(self, connection: Connection, delivery: int) -> Kept | None:
        """A delivery with what of it is parked; None where nothing is, or where its body is gone."""
        held = select(deliveries.c.id).where(deliveries.c.id == delivery, deliveries.c.content.is_not(None))
        kept = self._kept(connection, delivery) if connection.execute(held).first() is not None else None
        return kept if kept is not None and kept.notifications else None

    def _kept(self, connection: Connection, delivery: int) -> Kept | None:
        row = connection.execute(select(deliveries).where(deliveries.c.id == delivery)).mappings().one()
        try:
            headers, body = headers_and_body(self._vault.open(row["content"], row=delivery))
        except VaultError as error:
            log.warning("a kept body cannot be read and is left as it is", delivery=delivery, reason=str(error))
            return None
        parked = connection.execute(
            select(notifications.c.notification_id, notifications.c.id).where(
                notifications.c.delivery == delivery, notifications.c.outcome.in_(KEPT)
            )
        )
        rows = dict(parked.all())
        return Kept(
            delivery=delivery,
            source=row["source"],
            received_at_ms=made_at_ms(delivery),
            headers=headers,
            body=body,
            notifications=rows,
            answers=asks.answers_of(connection, self._vault, rows.values()),
        )

    def settle_kept(
        self, connection: Connection, row: int, *, outcome: Outcome, kind: str | None, error: str | None
    ) -> bool:
        """What became of a kept notification after all. False: somebody else settled it meanwhile."""
        values: dict[str, Any] = {"outcome": outcome.value, "error": error}
        if kind is not None:
            values["type"] = kind
        changed = connection.execute(
            update(notifications).where(notifications.c.id == row, notifications.c.outcome.in_(KEPT)).values(values)
        )
        return bool(changed.rowcount)

    # --- retention ---

    def prune(self, connection: Connection, *, bodies_before_ms: int, keys_before_ms: int) -> int:
        old = first_at(keys_before_ms)
        bodies = first_at(bodies_before_ms)
        pruned = self._forget_bodies(connection, bodies, old)
        pruned += self._forget(connection, bundles, bundles.c.id, bundles.c.id < bodies)
        pruned += asks.forget(connection, bodies_before=bodies, keys_before=old, piece=_PIECE)
        settled = events.c.state.in_([EventState.SENT, EventState.DEAD])
        pruned += self._forget(connection, events, events.c.id, events.c.id < old, settled)
        pruned += self._forget(connection, payloads, payloads.c.id, payloads.c.id < old, ~_is_there(payloads.c.id))
        pruned += self._forget(connection, keys, keys.c.ref, keys.c.ref < old, ~_is_there(keys.c.ref))
        pruned += self._forget(connection, notifications, notifications.c.id, notifications.c.id < old)
        pruned += self._forget(connection, deliveries, deliveries.c.id, deliveries.c.id < old)
        pruned += self._forget(connection, duplicates, duplicates.c.id, duplicates.c.id < old)
        done = batches.c.state == BatchState.DONE
        pruned += self._forget(connection, batches, batches.c.id, batches.c.id < old, done)
        pruned += self._forget(connection, entities, entities.c.id, entities.c.id < old)
        return pruned

    def _forget_bodies(self, connection: Connection, before: int, keys_before: int) -> int:
        parked = (
            select(notifications.c.id)
            .where(
                notifications.c.outcome.in_(KEPT),
                notifications.c.delivery == deliveries.c.id,
                notifications.c.delivery >= keys_before,
            )
            .exists()
        )
        piece = (
            select(deliveries.c.id)
            .where(deliveries.c.id < before, deliveries.c.content.is_not(None), ~parked)
            .limit(_PIECE)
        )
        return connection.execute(
            update(deliveries).where(deliveries.c.id.in_(piece.scalar_subquery())).values(content=None)
        ).rowcount

    def _forget(
        self, connection: Connection, table: Any, column: ColumnElement[int], *conditions: ColumnElement[bool]
    ) -> int:
        piece = select(column).where(*conditions).order_by(column).limit(_PIECE)
        return connection.execute(delete(table).where(column.in_(piece.scalar_subquery()), *conditions)).rowcount

    # --- looking ---

    def depths(self, connection: Connection) -> Sequence[Depth]:
        """Counted from the partial indexes, so that it stays cheap however many events were sent."""
        found: dict[str, dict[str, int]] = {}

        def note(query: Select[Any], *names: str) -> None:
            for destination, *numbers in connection.execute(query):
                found.setdefault(destination, {}).update(zip(names, numbers, strict=True))

        def in_state(state: EventState, *columns: ColumnElement[int]) -> Select[Any]:
            return select(events.c.destination, func.count(), *columns).where(
                events.c.state == literal_column(f"'{state.value}'")  # a literal, or the partial index is not used
            ).group_by(events.c.destination)  # fmt: skip

        note(in_state(EventState.PENDING, func.min(events.c.id)), "pending", "oldest_pending")
        note(in_state(EventState.WAITING), "waiting")
        note(in_state(EventState.DEAD), "dead")
        doubted = select(events.c.destination, func.count()).where(events.c.doubts > literal_column("0"))
        note(doubted.group_by(events.c.destination), "doubted")
        size = func.coalesce(func.sum(batches.c.size), 0)
        still_open = (
            select(batches.c.destination, size, func.min(batches.c.oldest))
            .where(batches.c.state != literal_column("'done'"))
            .group_by(batches.c.destination)
        )
        note(still_open, "batched", "oldest_batched")
        note(
            still_open.with_only_columns(batches.c.destination, size).where(batches.c.state == BatchState.HELD), "held"
        )
        return [_depth(destination, numbers) for destination, numbers in sorted(found.items())]

    def events(
        self, connection: Connection, *, state: EventState | None, limit: int, reference: str | None
    ) -> Sequence[EventRow]:
        query = event_rows().order_by(events.c.id.desc()).limit(limit)
        if state in {EventState.PENDING, EventState.WAITING}:  # few, and their indexes are not in the order of ids
            of_state = events.c.state == literal_column(f"'{state}'")
            query = query.where(events.c.id.in_(select(events.c.id).where(of_state).limit(_MOST_IN_STATE)))
        elif state is not None:
            query = query.where(events.c.state == state)
        if reference is not None:
            query = query.where(events.c.id.in_(called(connection, reference)))
        return [event_row(row) for row in connection.execute(query).mappings()]

    def open_batches(self, connection: Connection) -> Sequence[BatchRow]:
        rows = connection.execute(
            select(batches).where(batches.c.state != literal_column("'done'")).order_by(batches.c.due_at_ms)
        ).mappings()
        return [
            BatchRow(
                id=row["id"], destination=row["destination"], state=row["state"], size=row["size"],
                attempts=row["attempts"], due_at_ms=row["due_at_ms"], words=row["words"],
            )
            for row in rows
        ]  # fmt: skip

    def check(self, connection: Connection) -> None:
        """Write something, so that a database that is read-only or locked shows; and look whether it is migrated."""
        connection.execute(delete(destinations).where(destinations.c.name == ""))
        if pending(connection):
            msg = "the database lacks migrations of this version; they are run at the start of `relay serve`"
            raise StoreUnavailableError(msg)


def _is_there(event: ColumnElement[int]) -> ColumnElement[bool]:
    return select(events.c.id).where(events.c.id == event).exists()


def _depth(destination: str, numbers: dict[str, int]) -> Depth:
    oldest = [numbers[name] for name in ("oldest_pending", "oldest_batched") if numbers.get(name) is not None]
    return Depth(
        destination=destination,
        pending=numbers.get("pending", 0),
        batched=numbers.get("batched", 0),
        waiting=numbers.get("waiting", 0),
        held=numbers.get("held", 0),
        dead=numbers.get("dead", 0),
        doubted=numbers.get("doubted", 0),
        oldest_ms=made_at_ms(min(oldest)) if oldest else None,
    )
