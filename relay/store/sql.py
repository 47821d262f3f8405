"""The store's verbs over SQL, for every backend: what differs between them is in their statements of the hot path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, delete, select, update

from relay.ids import RowIds
from relay.joining import load_waiting
from relay.store import asks, leading, lookup
from relay.store.backend import Inbox, Statements
from relay.store.base import (
    Answers,
    Arrival,
    Batch,
    BatchRow,
    Bookmark,
    Depth,
    DestinationState,
    DuplicateRow,
    EventRow,
    InboxDepth,
    Inboxed,
    Kept,
    Mapped,
    PutOff,
    Receipt,
    StoreUnavailableError,
    ToDo,
    Verified,
)
from relay.store.console import Console
from relay.store.desk import Desk
from relay.store.intake import Intake
from relay.store.ledger import Key, Ledger, Wanted, fact_keys, plain
from relay.store.outbox import Outbox
from relay.store.pacing import Pace, Pacing
from relay.store.rejected import Ring
from relay.store.replays import Replays
from relay.store.schema import EventState, Outcome, events, payloads, waits
from relay.store.turns import Turns
from relay.store.writer import Writer, is_outage
from relay.vault import Vault

T = TypeVar("T")

#: How long to wait between two tries to settle a batch while the database is away, in seconds.
_SETTLE_AGAIN_S = 0.5
#: For so long after the database was away, leases that ran out meanwhile are respected: their owners could not settle.
_GRACE_S = 5

log = structlog.get_logger("relay.store")


class SqlStore:
    """`relay.store.base.Store` on an engine. Open one with `relay.store.open_store`."""

    def __init__(
        self,
        *,
        writing: Engine,
        reading: Engine,
        statements: Statements,
        inbox: Inbox,
        vault: Vault,
        ids: RowIds,
        clock: Callable[[], int],
        hold: bool,
        turns: Turns | None = None,
        settles_for_s: float = 0,
        pace: Pace | None = None,
    ) -> None:
        """`settles_for_s`: for how long to try to settle a batch while the database is away."""
        dialect = self._dialect = writing.dialect.name
        self._statements = statements
        self._inbox = inbox
        self._vault = vault
        self._clock = clock
        self._hold = hold
        self._ids = ids
        self._pacing = Pacing(pace or Pace(), clock=clock)
        self._desk = Desk(dialect=dialect, vault=vault)
        self._reading = reading
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._turns = turns
        self._settles_for_s = settles_for_s
        self._writer = Writer(writing.connect, self._accept, turns=turns, one_by_one=dialect != "sqlite")
        self.intake = Intake(write=self._writer.run, read=self._read, accept=self._accept, ids=ids, clock=clock)
        self.console = Console(
            write=self._writer.run, read=self._read, kept=self._desk.kept, vault=vault, ids=ids, clock=clock
        )
        self.rejected = Ring(write=self._writer.run, read=self._read, vault=vault, ids=ids, clock=clock)
        self.replays = Replays(self._read, self._writer.run, ledger=self._ledger, insert=self._write, vault=vault)

    @cached_property
    def _outbox(self) -> Outbox:
        """Made when it is needed: a process that only receives does without its statements."""
        return Outbox(dialect=self._dialect, ids=self._ids, clock=self._clock, pacing=self._pacing)

    # --- receiving ---

    @property
    def waiting(self) -> int:
        return self._inbox.waiting

    async def take(self, verified: Verified) -> None:
        await self._inbox.take(verified)

    async def accept(self, arrival: Arrival) -> Receipt:
        return await self._writer.accept(arrival)

    def _accept(
        self, connection: Connection, arrivals: Sequence[Arrival], wanted: Wanted | None = None
    ) -> list[Receipt]:
        ledger = self._ledger(connection, arrivals, wanted)
        receipts = [ledger.take(arrival) for arrival in arrivals]
        self._write(connection, ledger, receipts[-1])
        return receipts

    # --- mapping ---

    async def inbox(self, *, limit: int) -> Sequence[Inboxed]:
        return await self._inbox.oldest(limit)

    async def inbox_depth(self) -> InboxDepth:
        return await self._inbox.depth(self._read)

    async def unbox(self, found: Sequence[Inboxed], arrivals: Sequence[Arrival]) -> list[Receipt]:
        if not found:
            return []
        write = partial(self._unbox, wanted=Wanted.of(arrivals))  # found out before others have to wait for us
        return await self._inbox.unbox(found, arrivals, write=write, writer=self._writer)

    def _unbox(self, connection: Connection, arrivals: Sequence[Arrival], wanted: Wanted) -> list[Receipt]:
        try:
            with connection.begin_nested():
                return self._accept(connection, arrivals, wanted)
        except Exception as error:
            if is_outage(error):
                raise
        return [self._unbox_alone(connection, arrival) for arrival in arrivals]

    def _unbox_alone(self, connection: Connection, arrival: Arrival) -> Receipt:
        try:
            with connection.begin_nested():
                return self._accept(connection, [arrival])[0]
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("the store cannot take what was mapped; kept as failed", delivery=arrival.delivery)
            parked = Mapped(
                notification_id=f"delivery:{arrival.delivery}", type="(unstorable)", outcome=Outcome.FAILED,
                error=f"the store cannot take it: {type(error).__name__}",
            )  # fmt: skip
            return self._accept(connection, [replace(arrival, notifications=[parked])])[0]

    def _ledger(self, connection: Connection, arrivals: Sequence[Arrival], wanted: Wanted | None = None) -> Ledger:
        wanted = wanted or Wanted.of(arrivals)
        return self._ledger_of(connection, wanted.keys, wanted.entities)

    def _ledger_of(self, connection: Connection, wanted: Sequence[Key], entities: Sequence[Key]) -> Ledger:
        known = self._statements.known(connection, entities) if entities else {}
        read = set(entities)
        while more := {(of, plain(name)) for (of, _), entity in known.items() for name in entity.names} - read:
            known |= self._statements.known(connection, more)
            read |= more
        taken = self._statements.taken(connection, wanted)
        return Ledger(taken=taken, known=known, ids=self._ids, vault=self._vault)

    def _write(self, connection: Connection, ledger: Ledger, receipt: Receipt) -> None:
        self._statements.insert(connection, ledger.rows)
        if ledger.rows.repeats:
            self._statements.repeat(connection, ledger.rows.repeats)
        if ledger.relies_on:
            self._statements.learn(connection, ledger, self._ids)
        if ledger.rows.entities:
            for _, event in self._statements.waiting(connection, ledger.rows.entities):
                receipt.destinations |= self._release(connection, event, is_overdue=False)

    def _release(self, connection: Connection, event: int, *, is_overdue: bool) -> set[str]:
        """Let a waiting event go, with what is known now; drop it where its fact was told meanwhile."""
        row = connection.execute(
            select(events.c.source, events.c.notification, events.c.pieces, events.c.destination)
            .where(events.c.id == event, events.c.state == EventState.WAITING)
            .with_for_update()
        ).first()
        if row is None:
            return set()
        sealed = load_waiting(row.pieces)
        joins = [(row.source, key) for key in sealed.joins]
        ledger = self._ledger_of(connection, fact_keys(row.source, sealed), joins)
        if not is_overdue and ledger.awaited(row.source, sealed):
            return set()
        done = ledger.release(row.source, row.notification, event, sealed)
        self._statements.insert(connection, ledger.rows)
        connection.execute(delete(waits).where(waits.c.event == event, waits.c.source == row.source))
        if done is None:
            for table in (events, payloads):
                connection.execute(delete(table).where(table.c.id == event))
            return set()
        connection.execute(
            update(events)
            .where(events.c.id == event)
            .values(state=EventState.PENDING.value, name=done.event.event_name, pieces=None, due_at_ms=None)
        )
        connection.execute(update(payloads).where(payloads.c.id == event).values(payload=done.payload))
        return {str(row.destination)}

    def _release_overdue(self, connection: Connection) -> set[str]:
        overdue = self._desk.overdue(connection, now_ms=self._clock())
        return {destination for event in overdue for destination in self._release(connection, event, is_overdue=True)}

    # --- forwarding ---

    async def claim(self, destination: str, *, limit: int, lease_ms: int, owner: str) -> Batch | None:
        return await self._writer.run(
            lambda connection: self._outbox.claim(
                connection, destination, limit=limit, lease_ms=lease_ms, owner=owner, hold=self._hold,
                spares_sending=time.monotonic() < self._writer.away_at + _GRACE_S,
            )
        )  # fmt: skip

    async def renew(self, *, owner: str, lease_ms: int) -> None:
        await self._writer.run(partial(self._outbox.renew, owner=owner, lease_ms=lease_ms))

    async def sent(self, batch: Batch) -> bool:
        return await self._settle(lambda connection: self._outbox.sent(connection, batch))

    async def later(self, batch: Batch, *, due_at_ms: int, words: str) -> bool:
        return await self._settle(partial(self._outbox.later, batch=batch, due_at_ms=due_at_ms, words=words))

    async def in_doubt(self, batch: Batch, *, due_at_ms: int, words: str) -> bool:
        due = None if self._hold else due_at_ms
        return await self._settle(partial(self._outbox.in_doubt, batch=batch, due_at_ms=due, words=words))

    async def split(self, batch: Batch, *, first: int, words: str) -> bool:
        return await self._settle(lambda connection: self._outbox.split(connection, batch, first=first, words=words))

    async def refuse(self, batch: Batch, *, reason: str, only: Sequence[int] | None = None, due_at_ms: int = 0) -> bool:
        return await self._settle(
            partial(self._outbox.refuse, batch=batch, reason=reason, only=only, due_at_ms=due_at_ms)
        )

    async def _settle(self, job: Callable[[Connection], bool]) -> bool:
        """Settle a batch, also where the database comes back only after a while: what was sent is not to be doubted."""
        until = time.monotonic() + self._settles_for_s
        while True:
            try:
                return await self._writer.run(job)
            except StoreUnavailableError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_SETTLE_AGAIN_S)

    async def destination(self, name: str) -> DestinationState:
        return await self._read(partial(self._outbox.destination, name=name))

    async def set_destination(self, name: str, state: DestinationState) -> None:
        await self._writer.run(lambda connection: self._outbox.set_destination(connection, name, state))

    async def next_due(self, destination: str) -> int | None:
        not_before = self._pacing.not_before(destination)
        if not_before > self._clock():
            return not_before
        return await self._read(partial(self._outbox.next_due, destination=destination))

    # --- operating ---

    async def recover(self, *, owner: str) -> int:
        return await self._writer.run(lambda connection: self._outbox.recover(connection, owner=owner, hold=self._hold))

    async def release_overdue(self) -> set[str]:
        return await self._writer.run(self._release_overdue)

    async def unmapped(self, *, outcome: Outcome, after: int = 0, limit: int = 100) -> Sequence[Kept]:
        return await self._read(partial(self._desk.unmapped, outcome=outcome, after=after, limit=limit))

    async def remap(self, kept: Kept, mapped: Sequence[Mapped], *, answers: Answers | None = None) -> Receipt:
        return await self._writer.run(lambda connection: self._remap(connection, kept, mapped, answers or {}))

    def _remap(self, connection: Connection, kept: Kept, mapped: Sequence[Mapped], answers: Answers) -> Receipt:
        arrival = Arrival(
            source=kept.source, received_at_ms=kept.received_at_ms, secret=0, headers=kept.headers, body=kept.body,
            notifications=mapped,
        )  # fmt: skip
        ledger = self._ledger(connection, [arrival])
        receipt = Receipt()
        asks.settle(connection, kept.notifications.values())
        asks.keep(connection, self._vault, kept, answers)
        for one in mapped:
            row = kept.notifications.get(one.notification_id)
            if row is None:  # an item that could not be read before, and has an id now
                ledger.take_notification(kept.source, kept.delivery, one, receipt)
            elif self._desk.settle_kept(connection, row, outcome=one.outcome, kind=one.type, error=one.error):
                receipt.new += 1
                if one.outcome is Outcome.TO_DO:
                    asks.begin(connection, row, source=kept.source, due_at_ms=self._clock())
                ledger.take_mapped(kept.source, row, one, receipt)
        for gone in kept.notifications.keys() - {one.notification_id for one in mapped}:  # its items have ids now
            self._desk.settle_kept(connection, kept.notifications[gone], outcome=Outcome.MAPPED, kind=None, error=None)
        ledger.rows.repeats.clear()  # siblings that were mapped at once: the provider did not say them again
        self._write(connection, ledger, receipt)
        return receipt

    async def claim_to_do(self, source: str, *, limit: int, lease_ms: int) -> Sequence[ToDo]:
        if not await self._read(partial(asks.is_due, source=source, now_ms=self._clock())):
            return ()
        claim = partial(asks.claim, vault=self._vault, source=source, limit=limit, lease_ms=lease_ms)
        return await self._writer.run(lambda connection: claim(connection, now_ms=self._clock()))

    async def put_off(self, kept: Kept, later: Mapping[str, PutOff], *, answers: Answers) -> None:
        def run(connection: Connection) -> None:
            asks.keep(connection, self._vault, kept, answers)
            asks.put_off(connection, kept, later, now_ms=self._clock())

        await self._writer.run(run)

    async def to_do(self) -> Mapping[str, int]:
        return await self._read(asks.waiting)

    async def prune(self, *, bodies_before_ms: int, keys_before_ms: int) -> int:
        desk = partial(self._desk.prune, bodies_before_ms=bodies_before_ms, keys_before_ms=keys_before_ms)
        console = partial(self.console.forget, before_ms=keys_before_ms)
        each = (desk, self.intake.forget, console, self.rejected.forget)
        return await self._writer.run(lambda connection: sum(forget(connection) for forget in each))

    async def depths(self) -> Sequence[Depth]:
        return await self._read(self._desk.depths)

    async def events(
        self, *, state: EventState | None = None, limit: int = 50, reference: str | None = None
    ) -> Sequence[EventRow]:
        return await self._read(partial(self._desk.events, state=state, limit=limit, reference=reference))

    async def duplicates(self, *, event_id: str | None = None, limit: int = 50) -> Sequence[DuplicateRow]:
        return await self._read(partial(lookup.duplicates_of, event_id=event_id, limit=limit))

    async def open_batches(self) -> Sequence[BatchRow]:
        return await self._read(self._desk.open_batches)

    async def settle_held(self, batch: int, *, accepted: bool) -> bool:
        return await self._writer.run(lambda connection: self._outbox.settle_held(connection, batch, accepted=accepted))

    async def resend(self, event_ids: Sequence[int]) -> set[str]:
        return await self._writer.run(lambda connection: self._outbox.resend(connection, event_ids))

    async def holders(self, source: str, keys: Sequence[str]) -> Mapping[str, EventRow]:
        return await self._read(partial(lookup.holders, source=source, once_keys=keys))

    async def revenue_events(self, source: str, *, since_ms: int, until_ms: int) -> Sequence[EventRow]:
        return await self._read(partial(lookup.revenue_events, source=source, since_ms=since_ms, until_ms=until_ms))

    async def once_keys(self, event_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
        return await self._read(partial(lookup.once_keys, dialect=self._dialect, event_ids=event_ids))

    async def bookmark(self, name: str) -> Bookmark | None:
        return (await self.bookmarks(name)).get(name)

    async def bookmarks(self, prefix: str) -> Mapping[str, Bookmark]:
        return await self._read(partial(lookup.bookmarks_under, prefix=prefix))

    async def set_bookmark(self, name: str, position: str | None) -> None:
        await self._writer.run(lambda connection: lookup.set_bookmark(connection, name, position, now_ms=self._clock()))

    async def lead(self, name: str, *, owner: str, lease_ms: int) -> bool:
        return await self._writer.run(partial(leading.lead, name=name, owner=owner, for_ms=lease_ms, clock=self._clock))

    async def check(self) -> None:
        await self._writer.run(self._desk.check)

    async def close(self) -> None:
        await self._inbox.close()
        await self._writer.close()
        self._readers.shutdown()
        self._reading.dispose()
        if self._turns is not None:
            self._turns.close()

    async def _read(self, job: Callable[[Connection], T]) -> T:
        """Run a reading job beside the writer. Raises `StoreUnavailableError`."""

        def run() -> T:
            with self._reading.connect() as connection:
                return job(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except Exception as error:
            if is_outage(error):
                raise StoreUnavailableError(str(error)) from error
            raise
