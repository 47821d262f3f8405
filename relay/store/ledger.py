"""What a group of arrivals changes, worked out before anything is written.

In: arrivals, the keys that are taken, the entities that are known. Out: `Rows` for each table, and a receipt for each
arrival. Pure: both backends write the same rows, each in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.ids import RowIds
from relay.joining import complete, dump_waiting
from relay.sealing import Entity, Sealed
from relay.store.base import Arrival, Mapped, Outgoing, Receipt
from relay.store.schema import EventState, Outcome
from relay.vault import Vault

#: (source, key)
Key = tuple[str, str]

NOTIFICATION = "n:"
FACT = "f:"


@dataclass(slots=True)
class Rows:
    """Rows to insert, as tuples in the order of the columns that `COLUMNS` names."""

    deliveries: list[tuple[Any, ...]] = field(default_factory=list)
    notifications: list[tuple[Any, ...]] = field(default_factory=list)
    keys: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    duplicates: list[tuple[Any, ...]] = field(default_factory=list)
    waits: list[tuple[Any, ...]] = field(default_factory=list)
    #: Row ids of notifications that were said again.
    repeats: list[int] = field(default_factory=list)
    #: Entities that were learned or learned better, by key.
    entities: dict[Key, Entity] = field(default_factory=dict)


COLUMNS = {
    "deliveries": ("id", "source", "secret", "size", "content"),
    "notifications": ("id", "delivery", "source", "notification_id", "type", "outcome", "error"),
    "keys": ("source", "key", "ref"),
    "events": (
        "id", "notification", "source", "destination", "event_id", "name", "state", "payload", "pieces", "due_at_ms",
    ),
    "duplicates": ("id", "notification", "source", "name", "key", "event"),
    "waits": ("source", "key", "event"),
}  # fmt: skip


def wanted_keys(arrivals: Iterable[Arrival]) -> list[Key]:
    """Every key that these arrivals would take."""
    wanted: list[Key] = []
    for arrival in arrivals:
        for mapped in arrival.notifications:
            wanted.append((arrival.source, NOTIFICATION + mapped.notification_id))
            for outgoing in mapped.events:
                sealed = outgoing.sealed
                wanted.extend((arrival.source, FACT + key) for key in sealed.once)
                wanted.extend(variant_keys(arrival.source, sealed))
    return wanted


def variant_keys(source: str, sealed: Sealed) -> list[Key]:
    """The keys that the event would take as one of its variants."""
    return [(source, FACT + variant.once) for variant in sealed.variants.values()]


def wanted_entities(arrivals: Iterable[Arrival]) -> list[Key]:
    """Every entity that these arrivals join or teach."""
    wanted: list[Key] = []
    for arrival in arrivals:
        for mapped in arrival.notifications:
            for outgoing in mapped.events:
                wanted.extend((arrival.source, key) for key in outgoing.sealed.joins)
            for learned in mapped.learned:
                wanted.extend((arrival.source, key) for key in learned.keys)
    return wanted


class Ledger:
    """Takes arrivals one by one, as if each were committed before the next."""

    def __init__(self, *, taken: dict[Key, int], known: dict[Key, Entity], ids: RowIds, vault: Vault) -> None:
        self._taken = taken
        self._known = known
        self._ids = ids
        self._vault = vault
        self.rows = Rows()

    def take(self, arrival: Arrival) -> Receipt:
        """A delivery, its notifications and all that they tell."""
        receipt = Receipt()
        delivery = self._ids.next()
        is_parked = False
        for mapped in arrival.notifications:
            if self.take_notification(arrival.source, delivery, mapped, receipt):
                is_parked = is_parked or mapped.outcome in {Outcome.FAILED, Outcome.NOT_MAPPED}
        if receipt.new or not arrival.notifications:
            content = None
            if arrival.keep_body or is_parked:
                content = self._vault.seal(pack(arrival.headers, arrival.body), row=delivery)
            self.rows.deliveries.append((delivery, arrival.source, arrival.secret, len(arrival.body), content))
        return receipt

    def take_notification(self, source: str, delivery: int, mapped: Mapped, receipt: Receipt) -> bool:
        """A notification and all that it tells. False: it was said before, and only its repeat is counted."""
        key = (source, NOTIFICATION + mapped.notification_id)
        seen = self._taken.get(key)
        if seen is not None:
            receipt.repeated += 1
            self.rows.repeats.append(seen)
            return False
        receipt.new += 1
        row_id = self._ids.next()
        self._spend(key, row_id)
        self.rows.notifications.append(
            (row_id, delivery, source, mapped.notification_id, mapped.type, mapped.outcome.value, mapped.error)
        )
        self.take_mapped(source, row_id, mapped, receipt)
        return True

    def take_mapped(self, source: str, notification: int, mapped: Mapped, receipt: Receipt) -> None:
        """What a notification teaches and tells, on top of its own row."""
        for learned in mapped.learned:
            self._learn(source, learned)
        for outgoing in mapped.events:
            self._tell(source, notification, outgoing, receipt)

    def _spend(self, key: Key, ref: int) -> None:
        self._taken[key] = ref
        self.rows.keys.append((*key, ref))

    def _learn(self, source: str, learned: Entity) -> None:
        for name in learned.keys:
            key = (source, name)
            before = self._known.get(key)
            entity = learned if before is None else before.merged(learned)
            if entity != before:
                self._known[key] = self.rows.entities[key] = entity

    def _tell(self, source: str, notification: int, outgoing: Outgoing, receipt: Receipt) -> None:
        sealed = outgoing.sealed
        holder = next(((key, self._taken[source, FACT + key]) for key in sealed.once
                       if (source, FACT + key) in self._taken), None)  # fmt: skip
        if holder is not None:
            key, event = holder
            receipt.duplicates += 1
            self.rows.duplicates.append((self._ids.next(), notification, source, sealed.event.event_name, key, event))
        else:
            event = self._send(source, notification, outgoing, receipt)
        for key in sealed.once:
            if (source, FACT + key) not in self._taken:
                self._spend((source, FACT + key), event)

    def _send(self, source: str, notification: int, outgoing: Outgoing, receipt: Receipt) -> int:
        sealed = outgoing.sealed
        event = self._ids.next()
        state, pieces, due = EventState.PENDING, None, None
        entities = [self._known[source, key] for key in sealed.joins if (source, key) in self._known]
        if entities:
            sealed = self.completed(source, sealed, entities, event)
        if sealed.waits and outgoing.wait_until_ms is not None:
            state, pieces, due = EventState.WAITING, dump_waiting(sealed), outgoing.wait_until_ms
            self.rows.waits.extend((source, key, event) for key in sealed.joins)
        if state is EventState.PENDING:
            receipt.destinations.add(outgoing.destination)
        receipt.events += 1
        self.rows.events.append(
            (event, notification, source, outgoing.destination, sealed.event_id, sealed.event.event_name, state.value,
             sealed.payload, pieces, due)
        )  # fmt: skip
        return event

    def completed(self, source: str, sealed: Sealed, entities: Sequence[Entity], event: int) -> Sealed:
        """The event with what its entities know; a variant's key is spent with it."""
        done = complete(sealed, entities, is_free=lambda key: (source, FACT + key) not in self._taken)
        for key in done.once:
            if key not in sealed.once:
                self._spend((source, FACT + key), event)
        return done


def pack(headers: Mapping[str, str], body: bytes) -> bytes:
    """Headers and body as one plaintext for the vault."""
    head = orjson.dumps(dict(headers))
    return len(head).to_bytes(4, "big") + head + body


def unpack(plain: bytes) -> tuple[dict[str, str], bytes]:
    """What `pack` was given."""
    end = 4 + int.from_bytes(plain[:4], "big")
    return orjson.loads(plain[4:end]), plain[end:]
