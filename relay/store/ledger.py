"""What a group of arrivals changes, worked out before anything is written.

In: arrivals, the keys that are taken, the entities that are known. Out: `Rows` for each table, and a receipt for each
arrival. Pure: both backends write the same rows, each in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from relay.identity import FALLBACK_RANK, NOBODY_RANK
from relay.ids import RowIds, made_at_ms
from relay.joining import complete, dump_waiting, is_told_elsewhere
from relay.sealing import FOLLOWER, Entity, Sealed
from relay.store.base import Arrival, Mapped, Outgoing, Receipt
from relay.store.bodies import pack
from relay.store.schema import KEPT, EventState, Outcome
from relay.vault import Vault

#: (source, key)
Key = tuple[str, str]

NOTIFICATION = "n:"
FACT = "f:"
#: The event of a duplicate whose fact is told by a notification that is still to come.
NO_EVENT = 0


@dataclass(slots=True)
class Rows:
    """Rows to insert, as tuples in the order of the columns that `COLUMNS` names."""

    deliveries: list[tuple[Any, ...]] = field(default_factory=list)
    bundles: list[tuple[Any, ...]] = field(default_factory=list)
    notifications: list[tuple[Any, ...]] = field(default_factory=list)
    keys: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    payloads: list[tuple[Any, ...]] = field(default_factory=list)
    duplicates: list[tuple[Any, ...]] = field(default_factory=list)
    waits: list[tuple[Any, ...]] = field(default_factory=list)
    asks: list[tuple[Any, ...]] = field(default_factory=list)
    #: Row ids of notifications that were said again.
    repeats: list[int] = field(default_factory=list)
    #: Entities that were learned or learned better, by key.
    entities: dict[Key, Entity] = field(default_factory=dict)


COLUMNS = {
    "deliveries": ("id", "source", "secret", "size", "content", "bundle"),
    "bundles": ("id", "content"),
    "notifications": ("id", "delivery", "source", "notification_id", "type", "outcome", "error"),
    "keys": ("source", "key", "ref"),
    "events": ("id", "notification", "source", "destination", "event_id", "name", "state", "pieces", "due_at_ms"),
    "payloads": ("id", "payload"),
    "duplicates": ("id", "notification", "source", "name", "key", "event"),
    "waits": ("source", "key", "event"),
    "asks": ("notification", "source", "due_at_ms"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the store must be known to take arrivals: the keys that they would take, and what they join or teach."""

    keys: Sequence[Key]
    entities: Sequence[Key]

    @classmethod
    def of(cls, arrivals: Iterable[Arrival]) -> Wanted:
        keys: list[Key] = []
        entities: list[Key] = []
        for arrival in arrivals:
            source = arrival.source
            for mapped in arrival.notifications:
                keys.append((source, NOTIFICATION + mapped.notification_id))
                for outgoing in mapped.events:
                    keys += fact_keys(source, outgoing.sealed)
                    entities += [(source, key) for key in outgoing.sealed.joins]
                for learned in mapped.learned:
                    entities += [(source, key) for key in (*learned.keys, *learned.like)]
        return cls(keys, entities)


def fact_keys(source: str, sealed: Sealed) -> list[Key]:
    """The keys that the event would take, as it is and as one of its variants."""
    taken = [(source, FACT + key) for key in sealed.once]
    return taken + [(source, FACT + variant.once) for variant in sealed.variants.values()] if sealed.variants else taken


def plain(name: str) -> str:
    """The key that stands among the names of an entity."""
    return name.removeprefix(FOLLOWER)


class Ledger:
    """Takes arrivals one by one, as if each were committed before the next."""

    def __init__(self, *, taken: dict[Key, int], known: dict[Key, Entity], ids: RowIds, vault: Vault) -> None:
        self._taken = taken
        self._known = known
        self._ids = ids
        self._vault = vault
        self._bundles: set[int] = set()
        #: What was known before. What is written holds only while that is so of the entities that it `relies_on`.
        self.before = dict(known)
        self.relies_on: set[Key] = set()
        self.rows = Rows()

    @property
    def taken(self) -> Mapping[Key, int]:
        """The keys that are taken by now, and by what."""
        return self._taken

    def entities_of(self, source: str, sealed: Sealed) -> Sequence[Entity]:
        """What is known of the entities that it joins."""
        return self._entities(source, sealed)

    def take(self, arrival: Arrival) -> Receipt:
        """A delivery, its notifications and all that they tell."""
        receipt = Receipt()
        delivery = receipt.delivery = self._ids.next() if arrival.delivery is None else arrival.delivery
        is_parked = False
        for mapped in arrival.notifications:
            if self.take_notification(arrival.source, delivery, mapped, receipt):
                is_parked = is_parked or mapped.outcome in KEPT
        if receipt.new or not arrival.notifications:
            self._keep(delivery, arrival, is_parked=is_parked)
        return receipt

    def _keep(self, delivery: int, arrival: Arrival, *, is_parked: bool) -> None:
        """The delivery's row. What may still be mapped again has its body for itself: it outlives the others'.

        The others' stay together, in the bundle that they came in.
        """
        content, bundle = None, None
        if is_parked or (arrival.keep_body and arrival.bundle is None):
            content = self._vault.seal(pack(arrival.headers, arrival.body), row=delivery)
        elif arrival.keep_body and arrival.bundle is not None:
            bundle = arrival.bundle
            if bundle not in self._bundles:
                self._bundles.add(bundle)
                self.rows.bundles.append((bundle, arrival.sealed))
        self.rows.deliveries.append((delivery, arrival.source, arrival.secret, len(arrival.body), content, bundle))

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
        if mapped.outcome is Outcome.TO_DO:
            self.rows.asks.append((row_id, source, made_at_ms(row_id)))
        self.take_mapped(source, row_id, mapped, receipt)
        return True

    def take_mapped(self, source: str, notification: int, mapped: Mapped, receipt: Receipt) -> None:
        """What a notification teaches and tells, on top of its own row."""
        for learned in mapped.learned:
            self._learn(source, learned)
        for outgoing in mapped.events:
            self._tell(source, notification, outgoing, receipt)

    def know(self, source: str, once: Iterable[str], event: int) -> None:
        """An event that is there tells the facts of these keys too, as far as no other one does."""
        for key in once:
            if (source, FACT + key) not in self._taken:
                self._spend((source, FACT + key), event)

    def _spend(self, key: Key, ref: int) -> None:
        self._taken[key] = ref
        self.rows.keys.append((*key, ref))

    def _learn(self, source: str, learned: Entity) -> None:
        known, learned_now = self._known, self.rows.entities
        self.relies_on.update((source, name) for name in learned.keys)
        if learned.is_forgotten:
            self._forget(source, learned)
            return
        if learned.like:
            learned = self._followed(source, learned)
            if learned.user_id is None and not (learned.attribution or learned.marks or learned.names):
                return  # nothing yet: what is followed will tell
        if not learned.names and not any((source, name) in known for name in learned.keys):
            for name in learned.keys:
                known[source, name] = learned_now[source, name] = learned
            return
        learned = _told_by_the_best(learned, [known[source, name] for name in learned.keys if (source, name) in known])
        if learned.names:  # names of one thing: what was known of any of them is known of all
            before = [self._known[source, name] for name in learned.keys if (source, name) in self._known]
            learned = reduce(lambda later, earlier: earlier.merged(later), before, learned)
        todo, done = [*learned.keys, *learned.names], set[str]()
        while todo:
            name = todo.pop()
            if name in done:
                continue
            done.add(name)
            entity = self._known.get((source, plain(name)))
            told = _for_a_follower(learned, plain(name)) if _is_follower(name) else learned
            better = told if entity is None else entity.merged(told)
            self._know(source, plain(name), better)
            todo.extend(_reached(name, better))

    def _know(self, source: str, name: str, entity: Entity) -> None:
        self.relies_on.add((source, name))
        if entity != self._known.get((source, name)):
            self._known[source, name] = self.rows.entities[source, name] = entity

    def _followed(self, source: str, learned: Entity) -> Entity:
        """With what is known of those that it is like; they name it, so that it hears of what they learn."""
        followers = frozenset(FOLLOWER + key for key in learned.keys)
        for name in learned.like:
            nobody = Entity(keys=(name,), user_id=None, rank=NOBODY_RANK, attribution={})
            entity = self._known.get((source, name), nobody)
            self._know(source, name, replace(entity, names=entity.names | followers))
            learned = learned.merged(_for_a_follower(entity, name))
        return replace(learned, like=())

    def _forget(self, source: str, forgotten: Entity) -> None:
        """Nobody is behind these keys, their namesakes, and those of their followers that knew the same person."""
        todo, done, gone = [*forgotten.keys], set[str](), set[str | None]()
        while todo:
            name = todo.pop(0)
            entity = self._known.get((source, plain(name)))
            if entity is None or name in done or (_is_follower(name) and entity.user_id not in gone):
                continue
            done.add(name)
            gone.add(entity.user_id)
            self._know(source, plain(name), replace(entity, user_id=None, rank=NOBODY_RANK, attribution={}))
            todo = sorted([*todo, *_reached(name, entity)], key=_is_follower)  # by then all of the person's are gone

    def _tell(self, source: str, notification: int, outgoing: Outgoing, receipt: Receipt) -> None:
        sealed = outgoing.sealed
        event = self._ids.next()
        awaited = self.awaited(source, sealed) if outgoing.wait_until_ms is not None else []
        if self._is_duplicate(source, notification, sealed):
            receipt.duplicates += 1
            return
        state, pieces, due = EventState.PENDING, None, None
        if awaited:
            state, pieces, due = EventState.WAITING, dump_waiting(sealed), outgoing.wait_until_ms
            self.rows.waits.extend((source, key, event) for key in awaited)
            self.relies_on.update((source, key) for key in awaited)
        else:
            sealed = self._take_keys(source, sealed, event)
            receipt.destinations.add(outgoing.destination)
        receipt.events += 1
        self.rows.events.append(
            (event, notification, source, outgoing.destination, sealed.event_id, name_of(sealed), state.value,
             pieces, due)
        )  # fmt: skip
        self.rows.payloads.append((event, sealed.payload))

    def awaited(self, source: str, sealed: Sealed) -> list[str]:
        """What the event waits for and is not known yet."""
        wanted = dict.fromkeys(sealed.waits_for)
        return [key for key in wanted if not _is_known(self._known.get((source, key)))]

    def release(self, source: str, notification: int, event: int, sealed: Sealed) -> Sealed | None:
        """A waiting event as it leaves now; None where its fact was told meanwhile."""
        if self._is_duplicate(source, notification, sealed):
            return None
        return self._take_keys(source, sealed, event)

    def _is_duplicate(self, source: str, notification: int, sealed: Sealed) -> bool:
        """Whether the fact is told by another event; noted, and then its other keys are names of that one too."""
        taken = [(key, self._taken[source, FACT + key]) for key in sealed.once if (source, FACT + key) in self._taken]
        if taken:
            key, event = taken[0]
            self.know(source, sealed.once, event)
        elif sealed.unless and is_told_elsewhere(sealed, self._entities(source, sealed)):
            key, event = sealed.once[0], NO_EVENT
        else:
            return False
        self.rows.duplicates.append((self._ids.next(), notification, source, name_of(sealed), key, event))
        return True

    def _entities(self, source: str, sealed: Sealed) -> list[Entity]:
        return [self._known[source, key] for key in sealed.joins if (source, key) in self._known]

    def _take_keys(self, source: str, sealed: Sealed, event: int) -> Sealed:
        """The event with all that is known of it, its keys taken."""
        entities = self._entities(source, sealed)
        if entities:
            sealed = complete(sealed, entities, is_free=lambda key: (source, FACT + key) not in self._taken)
        for key in sealed.once:
            self._spend((source, FACT + key), event)
        return sealed


def name_of(sealed: Sealed) -> str:
    """Its name; of an event without one, its type."""
    return sealed.event.event_name or sealed.event.event_type


def _told_by_the_best(learned: Entity, known: Sequence[Entity]) -> Entity:
    """All keys of one fact belong to one person: whoever is known of one of them by a better rule is that person."""
    best = min((entity for entity in known if entity.user_id is not None), key=lambda entity: entity.rank, default=None)
    if best is None or best.rank >= learned.rank:
        return learned
    return replace(learned, user_id=best.user_id, rank=best.rank)


def _is_follower(name: str) -> bool:
    return name.startswith(FOLLOWER)


def _reached(name: str, entity: Entity) -> Iterable[str]:
    """The names of what hears of it through this entity. Whatever hears through a follower is one."""
    return [FOLLOWER + plain(other) for other in entity.names] if _is_follower(name) else entity.names


def _for_a_follower(entity: Entity, name: str) -> Entity:
    """Who it is and where from; not what the thing itself is."""
    return replace(entity, keys=(name,), marks=frozenset(), names=frozenset())


def _is_known(entity: Entity | None) -> bool:
    """Whether it answers: not by other names alone, and not by somebody whom the site does not know."""
    if entity is None:
        return False
    return entity.rank < FALLBACK_RANK if entity.user_id is not None else not entity.names
