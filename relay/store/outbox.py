"""The outbox in SQL: claiming batches and settling them. Each function runs inside one transaction of the writer.

A batch is settled only by the owner that holds its lease: every change begins by taking the batch's row under that
condition, so a worker that was frozen beyond its lease changes nothing when it wakes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import orjson
from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, select, update

from relay.ids import RowIds
from relay.store.base import Batch, BatchEvent, DestinationState
from relay.store.dialects import among, insert_into, packed
from relay.store.pacing import Pacing
from relay.store.schema import BatchState, EventState, batches, destinations, events, payloads


def _listed(ids: Sequence[int]) -> dict[str, object]:
    return {"events": orjson.dumps(list(ids)).decode(), "size": len(ids), "oldest": min(ids)}


class Outbox:
    """The statements of one dialect."""

    def __init__(self, *, dialect: str, ids: RowIds, clock: Callable[[], int], pacing: Pacing) -> None:
        self._pacing = pacing
        self._dialect = dialect
        self._ids = ids
        self._clock = clock
        self._due = (
            select(batches)
            .where(
                batches.c.destination == bindparam("destination"),
                batches.c.state != literal_column("'done'"),
                batches.c.state != BatchState.HELD,
                batches.c.due_at_ms <= bindparam("now"),
            )
            .order_by(batches.c.due_at_ms, batches.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        self._due_and_not_sent = self._due.where(batches.c.state != BatchState.SENDING)
        its_payload = select(payloads.c.payload).where(payloads.c.id == events.c.id)
        self._fresh = (
            select(events.c.id, its_payload.scalar_subquery())  # a join is planned badly by PostgreSQL
            .where(events.c.destination == bindparam("destination"), events.c.state == literal_column("'pending'"))
            .order_by(events.c.id)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
        )
        self._payloads = select(payloads.c.id, payloads.c.payload).where(self._among(payloads.c.id))
        self._to_batch = (
            update(events)
            .where(self._among(events.c.id))
            .values(state=EventState.BATCHED.value, batch=bindparam("to_batch"))
        )
        self._to_sent = (
            update(events)
            .where(self._among(events.c.id))
            .values(state=EventState.SENT.value, settled_at_ms=bindparam("now"), reason=None)
        )
        self._to_dead = (
            update(events)
            .where(self._among(events.c.id))
            .values(state=EventState.DEAD.value, settled_at_ms=bindparam("now"), reason=bindparam("why"))
        )
        self._doubted = update(events).where(self._among(events.c.id)).values(doubts=events.c.doubts + 1)

    def _among(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        return among(column, dialect=self._dialect)

    def _packed(self, ids: Sequence[int]) -> object:
        return packed(ids, dialect=self._dialect)

    # --- claiming ---

    def claim(
        self,
        connection: Connection,
        destination: str,
        *,
        limit: int,
        lease_ms: int,
        owner: str,
        hold: bool,
        spares_sending: bool = False,
    ) -> Batch | None:
        """`spares_sending`: leave those whose lease ran out; their owners may be about to settle them."""
        allowed = self._pacing.allowed(connection, destination, limit)
        batch = allowed and self._claim(connection, destination, allowed, lease_ms, owner, hold, spares_sending)
        if batch:
            self._pacing.spend(connection, destination, len(batch.events))
        return batch or None

    def _claim(
        self,
        connection: Connection,
        destination: str,
        limit: int,
        lease_ms: int,
        owner: str,
        hold: bool,  # noqa: FBT001  as `claim` has them
        spares_sending: bool,  # noqa: FBT001
    ) -> Batch | None:
        now = self._clock()
        due = self._due_and_not_sent if spares_sending else self._due
        while True:
            row = connection.execute(due, {"destination": destination, "now": now}).mappings().first()
            if row is None:
                return self._claim_fresh(connection, destination, limit, now + lease_ms, owner)
            ids = orjson.loads(row["events"])
            if row["state"] == BatchState.SENDING:  # its lease ran out: perhaps it was sent
                self._doubt(connection, row["id"], ids, due_at_ms=None if hold else now, words="its sender went away")
                if hold:
                    continue
            attempts = row["attempts"] + 1
            self._change(connection, row["id"], state=BatchState.SENDING, owner=owner, attempts=attempts,
                         lease_until_ms=now + lease_ms, due_at_ms=now + lease_ms)  # fmt: skip
            found = dict(connection.execute(self._payloads, {"ids": self._packed(ids)}).all())
            return Batch(
                id=row["id"],
                destination=destination,
                idempotency_key=row["idempotency_key"],
                events=tuple(BatchEvent(id=key, payload=found[key]) for key in ids),
                attempts=attempts - 1,
                owner=owner,
                lease_until_ms=now + lease_ms,
            )

    def _claim_fresh(
        self, connection: Connection, destination: str, limit: int, lease_until_ms: int, owner: str
    ) -> Batch | None:
        rows = connection.execute(self._fresh, {"destination": destination, "limit": limit}).all()
        if not rows:
            return None
        ids = [key for key, _ in rows]
        batch, key = self._insert(
            connection, destination, ids, state=BatchState.SENDING, owner=owner, attempts=1,
            lease_until_ms=lease_until_ms, due_at_ms=lease_until_ms,
        )  # fmt: skip
        return Batch(
            id=batch,
            destination=destination,
            idempotency_key=key,
            events=tuple(BatchEvent(id=key, payload=payload) for key, payload in rows),
            attempts=0,
            owner=owner,
            lease_until_ms=lease_until_ms,
        )

    def _insert(
        self, connection: Connection, destination: str, ids: Sequence[int], *, state: BatchState, **rest: object
    ) -> tuple[int, str]:
        row_id = self._ids.next()
        key = secrets.token_hex(16)
        connection.execute(
            batches.insert(),
            {
                "id": row_id,
                "destination": destination,
                "state": state.value,
                "idempotency_key": key,
                **_listed(ids),
                **rest,
            },
        )
        connection.execute(self._to_batch, {"ids": self._packed(ids), "to_batch": row_id})
        return row_id, key

    def _change(self, connection: Connection, batch: int, **values: object) -> None:
        connection.execute(update(batches).where(batches.c.id == batch).values(**values))

    def renew(self, connection: Connection, *, owner: str, lease_ms: int) -> None:
        until = self._clock() + lease_ms
        connection.execute(
            update(batches)
            .where(batches.c.state == literal_column("'sending'"), batches.c.owner == owner)
            .values(lease_until_ms=until, due_at_ms=until)
        )

    # --- settling ---

    def _take(self, connection: Connection, batch: Batch, **values: object) -> bool:
        """Change the batch if it is still its owner's to settle."""
        done = connection.execute(
            update(batches)
            .where(
                batches.c.id == batch.id,
                batches.c.owner == batch.owner,
                batches.c.state == BatchState.SENDING,
                batches.c.attempts == batch.attempts + 1,
            )
            .values(owner=None, lease_until_ms=None, **values)
        )
        return done.rowcount == 1

    def sent(self, connection: Connection, batch: Batch) -> bool:
        if not self._take(connection, batch, state=BatchState.DONE, words=None):
            return False
        ids = [event.id for event in batch.events]
        connection.execute(self._to_sent, {"ids": self._packed(ids), "now": self._clock()})
        return True

    def later(self, connection: Connection, batch: Batch, *, due_at_ms: int, words: str) -> bool:
        return self._take(connection, batch, state=BatchState.RETRY, due_at_ms=due_at_ms, words=words)

    def in_doubt(self, connection: Connection, batch: Batch, *, due_at_ms: int | None, words: str) -> bool:
        if not self._take(connection, batch, words=words):
            return False
        self._doubt(connection, batch.id, [event.id for event in batch.events], due_at_ms=due_at_ms, words=words)
        return True

    def _doubt(
        self, connection: Connection, batch: int, ids: Sequence[int], *, due_at_ms: int | None, words: str
    ) -> None:
        state = BatchState.HELD if due_at_ms is None else BatchState.IN_DOUBT
        self._change(connection, batch, state=state, due_at_ms=due_at_ms or 0, words=words, owner=None,
                     lease_until_ms=None, doubts=batches.c.doubts + 1)  # fmt: skip
        connection.execute(self._doubted, {"ids": self._packed(ids)})

    def split(self, connection: Connection, batch: Batch, *, first: int, words: str) -> bool:
        if not self._take(connection, batch, state=BatchState.DONE, words=words):
            return False
        ids = [event.id for event in batch.events]
        for part in (ids[:first], ids[first:]):
            if part:
                self._insert(connection, batch.destination, part, state=BatchState.RETRY, attempts=batch.attempts,
                             due_at_ms=0, words=words)  # fmt: skip
        return True

    def refuse(
        self, connection: Connection, batch: Batch, *, reason: str, only: Sequence[int] | None, due_at_ms: int
    ) -> bool:
        ids = [event.id for event in batch.events]
        gone = ids if only is None else [key for key in ids if key in set(only)]
        rest = [key for key in ids if key not in set(gone)]
        if not self._take(connection, batch, state=BatchState.DONE, words=reason):
            return False
        if rest:  # another composition: under the old key an API that honours keys would refuse it
            self._insert(connection, batch.destination, rest, state=BatchState.RETRY, attempts=batch.attempts + 1,
                         due_at_ms=due_at_ms, words=reason)  # fmt: skip
        connection.execute(self._to_dead, {"ids": self._packed(gone), "now": self._clock(), "why": reason})
        return True

    # --- by hand, and at start ---

    def recover(self, connection: Connection, *, owner: str, hold: bool) -> int:
        rows = connection.execute(
            select(batches.c.id, batches.c.events).where(
                batches.c.state == BatchState.SENDING, batches.c.owner != owner
            )
        ).all()
        for row in rows:
            due = None if hold else self._clock()
            self._doubt(connection, row.id, orjson.loads(row.events), due_at_ms=due, words="the relay ended meanwhile")
        return len(rows)

    def settle_held(self, connection: Connection, batch: int, *, accepted: bool) -> bool:
        row = connection.execute(
            select(batches.c.events).where(batches.c.id == batch, batches.c.state == BatchState.HELD).with_for_update()
        ).first()
        if row is None:
            return False
        if accepted:
            self._change(connection, batch, state=BatchState.DONE)
            ids = self._packed(orjson.loads(row.events))
            connection.execute(self._to_sent, {"ids": ids, "now": self._clock()})
        else:
            self._change(connection, batch, state=BatchState.RETRY, due_at_ms=self._clock())
        return True

    def resend(self, connection: Connection, event_ids: Sequence[int]) -> set[str]:
        dead = (
            update(events)
            .where(self._among(events.c.id), events.c.state == EventState.DEAD)
            .values(state=EventState.PENDING.value, reason=None, settled_at_ms=None)
            .returning(events.c.destination)
        )
        return set(connection.execute(dead, {"ids": self._packed(event_ids)}).scalars())

    # --- destinations ---

    def destination(self, connection: Connection, name: str) -> DestinationState:
        row = connection.execute(select(destinations).where(destinations.c.name == name)).mappings().first()
        if row is None:
            return DestinationState()
        return DestinationState(
            paused=row["paused"], probe_at_ms=row["probe_at_ms"], batch_size=row["batch_size"], single=row["single"]
        )

    def set_destination(self, connection: Connection, name: str, state: DestinationState) -> None:
        values = {
            "paused": state.paused,
            "probe_at_ms": state.probe_at_ms,
            "batch_size": state.batch_size,
            "single": state.single,
        }
        new = insert_into(destinations, self._dialect).values(name=name, **values)
        connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))

    def next_due(self, connection: Connection, destination: str) -> int | None:
        return connection.execute(
            select(func.min(batches.c.due_at_ms)).where(
                batches.c.destination == destination,
                batches.c.state != literal_column("'done'"),
                batches.c.state != BatchState.HELD,
            )
        ).scalar()
