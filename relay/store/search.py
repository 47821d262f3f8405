"""Finding deliveries: by what is known of one, or by what they have in common, newest first.

Nothing here reads more rows than it shows, however many there are: a list is walked along an index from where the last
page ended, and a name (a provider's id, an order, a user's hash, an event's id) is looked up in the keys and the terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, Subquery, func, literal_column, select, union_all

from relay.ids import first_at, made_at_ms
from relay.store.base import EventRow
from relay.store.console_schema import EVENT, ORDER, USER, term_of, terms
from relay.store.counting import untermed
from relay.store.ledger import FACT, NOTIFICATION
from relay.store.lookup import event_row, event_rows
from relay.store.schema import BatchState, Outcome, batches, deliveries, duplicates, events, keys, notifications

#: Statuses beside the outcomes: of the events that a notification made.
EVENT_STATUSES = ("pending", "waiting", "dead", "doubted", "duplicate")
#: The most names that are tried for one search, and the most that one finds.
_MOST_NAMES = 2000
_MOST_FOUND = 200
_WINDOW = 20_000
_MOST_IN_STATE = 100_000
_END = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the deliveries of a list have in common; None: anything."""

    source: str | None = None
    type: str | None = None
    #: An outcome, or one of `EVENT_STATUSES`.
    status: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A notification, and what became of it."""

    id: int
    delivery: int
    source: str
    notification_id: str
    type: str
    outcome: Outcome
    error: str | None
    repeats: int
    made_at_ms: int
    events: Sequence[EventRow] = ()
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Told]
    #: Where the next page begins; None: there is none.
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One kind of notification that the store holds."""

    outcome: str
    source: str
    type: str
    #: Its newest notification.
    newest: int


def kinds(connection: Connection, *, before: int = _END) -> list[Seen]:
    """Every combination of outcome, source and type there is below this row: one step along the index for each."""
    has, of = notifications.alias("has").c, notifications.alias("of")
    order = (has.outcome, has.source, has.type)
    steps = select(select(*order).order_by(*order).limit(1).subquery()).cte("steps", recursive=True)

    def first(*conditions: ColumnElement[bool], by: Sequence[ColumnElement[str]]) -> ColumnElement[int]:
        return select(has.id).where(*conditions).order_by(*by, has.id).limit(1).scalar_subquery()

    same = (has.outcome == steps.c.outcome, has.source == steps.c.source)
    following = func.coalesce(  # a comparison of rows would be walked along the first column only
        first(*same, has.type > steps.c.type, by=order[2:]),
        first(same[0], has.source > steps.c.source, by=order[1:]),
        first(has.outcome > steps.c.outcome, by=order),
    )
    steps = steps.union_all(select(of.c.outcome, of.c.source, of.c.type).join_from(steps, of, of.c.id == following))
    newest = (
        select(func.max(notifications.c.id))
        .where(
            notifications.c.outcome == steps.c.outcome,
            notifications.c.source == steps.c.source,
            notifications.c.type == steps.c.type,
            notifications.c.id < before,
        )
        .scalar_subquery()
    )
    rows = connection.execute(select(steps, newest.label("newest")))
    return [Seen(row.outcome, row.source, row.type, row.newest) for row in rows if row.newest is not None]


def _steps(connection: Connection, column: ColumnElement[str], *given: ColumnElement[bool]) -> Iterator[str]:
    """The values of a column of an index whose columns before it are given."""
    query = select(column).where(*given).order_by(column).limit(1)
    value = connection.execute(query).scalar()
    while value is not None:
        yield value
        value = connection.execute(query.where(column > value)).scalar()


# --- lists ------------------------------------------------------------------------------------------------------------


def listing(connection: Connection, wanted: Wanted, *, before: int | None, limit: int) -> Page:
    """A page of what is wanted, newest first."""
    low = first_at(wanted.since_ms) if wanted.since_ms is not None else 0
    high = min(first_at(wanted.until_ms) if wanted.until_ms is not None else _END, before or _END)
    if wanted.status in EVENT_STATUSES:
        ids = _by_events(connection, wanted, low, high, limit + 1)
    elif wanted.status or wanted.source or wanted.type:
        ids = _by_kind(connection, wanted, low, high, limit + 1)
    else:
        within = (notifications.c.id >= low, notifications.c.id < high)
        ids = list(connection.execute(_newest(notifications.c.id, *within, limit=limit + 1)).scalars())
    return Page(told(connection, ids[:limit]), ids[limit - 1] if len(ids) > limit else None)


def _newest(column: ColumnElement[int], *conditions: ColumnElement[bool], limit: int) -> Select[Any]:
    return select(column).where(*conditions).order_by(column.desc()).limit(limit)


def _by_kind(connection: Connection, wanted: Wanted, low: int, high: int, limit: int) -> list[int]:
    """Kind by kind, those with the newest first, until what is left is older than all that was found."""
    found: list[int] = []
    for kind in sorted(kinds(connection, before=high), key=lambda kind: -kind.newest):
        if kind.newest < low or (len(found) == limit and kind.newest < found[-1]):
            break
        given = ((wanted.status, kind.outcome), (wanted.source, kind.source), (wanted.type, kind.type))
        if all(want in (None, has) for want, has in given):
            query = _newest(
                notifications.c.id,
                notifications.c.outcome == kind.outcome,
                notifications.c.source == kind.source,
                notifications.c.type == kind.type,
                notifications.c.id >= low,
                notifications.c.id < high,
                limit=limit,
            )
            found = sorted([*found, *connection.execute(query).scalars()], reverse=True)[:limit]
    return found


def _by_events(connection: Connection, wanted: Wanted, low: int, high: int, limit: int) -> list[int]:
    """Notifications whose events are in this state, or that told again what was told."""
    if wanted.status == "duplicate":
        told_again = select(duplicates.c.notification).where(
            duplicates.c.notification >= low, duplicates.c.notification < high
        )
        if wanted.source:
            told_again = told_again.where(duplicates.c.source == wanted.source)
        newest = told_again.order_by(duplicates.c.notification.desc()).limit(_MOST_IN_STATE).subquery()
        found: ColumnElement[int] = newest.c.notification
    else:
        found = _in_state(connection, wanted.status or "", wanted.source).c.notification
    query = select(found)
    if wanted.type:
        query = query.join(notifications, notifications.c.id == found).where(notifications.c.type == wanted.type)
    query = query.where(found >= low, found < high).distinct().order_by(found.desc()).limit(limit)
    return list(connection.execute(query).scalars())


def _in_state(connection: Connection, status: str, source: str | None) -> Subquery:
    """From the partial index of the state: its condition must be a literal, and nothing may suggest another index.

    What is in a batch that has no good answer yet is as pending as what was not tried.
    """
    if status == "doubted":
        query = select(events.c.notification).where(events.c.doubts > literal_column("0"))
    else:
        query = select(events.c.notification).where(events.c.state == literal_column(f"'{status}'"))
    query = (query.where(events.c.source == source) if source else query).limit(_MOST_IN_STATE)
    if status != "pending":
        return query.subquery()
    tried = select(events.c.notification).where(events.c.id.in_(_batched(connection)))
    tried = tried.where(events.c.source == source) if source else tried
    first, second = query.subquery(), tried.subquery()
    return union_all(select(first.c.notification), select(second.c.notification)).subquery()


def _batched(connection: Connection) -> list[int]:
    """The events of open batches, as many as a page may need."""
    found = connection.execute(select(batches.c.events).where(batches.c.state != literal_column("'done'")).limit(20))
    return sorted({event for listed in found.scalars() for event in orjson.loads(listed)})[-_MOST_NAMES:]


def told(connection: Connection, ids: Sequence[int]) -> list[Told]:
    """These notifications with their events, in this order; those that are gone are left out."""
    if not ids:
        return []
    made: dict[int, list[EventRow]] = {}
    found = connection.execute(event_rows().where(events.c.notification.in_(ids)).order_by(events.c.id)).mappings()
    for event in found:
        made.setdefault(event["notification"], []).append(event_row(event))
    again: dict[int, int] = {}
    for notification in connection.execute(
        select(duplicates.c.notification).where(duplicates.c.notification.in_(ids))
    ).scalars():
        again[notification] = again.get(notification, 0) + 1
    rows = {row.id: row for row in connection.execute(select(notifications).where(notifications.c.id.in_(ids)))}
    return [
        Told(
            id=row.id, delivery=row.delivery, source=row.source, notification_id=row.notification_id, type=row.type,
            outcome=Outcome(row.outcome), error=row.error, repeats=row.repeats, made_at_ms=made_at_ms(row.id),
            events=made.get(row.id, ()), duplicates=again.get(row.id, 0),
        )
        for one in ids
        if (row := rows.get(one)) is not None
    ]  # fmt: skip


# --- names ------------------------------------------------------------------------------------------------------------


def find(connection: Connection, text: str, *, users: Sequence[str] = ()) -> list[Told]:
    """Whatever has this name, and what told the same again.

    A name is a provider's id of a notification, a business id such as that of an order, an event's id, a user's hash
    (or one of `users`), or a row id.
    """
    refs = set(_refs(connection, text))
    wanted = [term_of(kind, text) for kind in (EVENT, ORDER, USER)] + [term_of(USER, user) for user in users]
    newest = select(terms.c.event).where(terms.c.term.in_(wanted)).order_by(terms.c.event.desc()).limit(_MOST_FOUND)
    refs.update(connection.execute(newest).scalars())
    for one in (text, *users):
        refs.update(untermed(connection, one))
    ids = set(connection.execute(select(notifications.c.id).where(notifications.c.id.in_(refs))).scalars())
    ids.update(connection.execute(select(events.c.notification).where(events.c.id.in_(refs))).scalars())
    ids.update(connection.execute(select(duplicates.c.notification).where(duplicates.c.event.in_(refs))).scalars())
    if text.isdecimal() and int(text) < _END:
        of_delivery = select(notifications.c.id).where(notifications.c.delivery == int(text)).limit(_MOST_FOUND)
        ids.update(connection.execute(of_delivery).scalars())
    return told(connection, sorted(ids, reverse=True)[:_MOST_FOUND])


def _refs(connection: Connection, text: str) -> Iterator[int]:
    """Row ids of the notification and the events that took a key with this text."""
    if text.isdecimal() and int(text) < _END:
        yield int(text)
    names = [NOTIFICATION + text, FACT + text]
    for source in _steps(connection, keys.c.source):
        names_here = names + [prefix + text for prefix in islice(_prefixes(connection, source), _MOST_NAMES)]
        for start in range(0, len(names_here), 500):
            piece = names_here[start : start + 500]
            yield from connection.execute(
                select(keys.c.ref).where(keys.c.source == source, keys.c.key.in_(piece))
            ).scalars()


def _prefixes(connection: Connection, source: str) -> Iterator[str]:
    """What business facts begin with (`f:payment:`), one step along the primary key for each."""
    query = select(keys.c.key).where(keys.c.source == source).order_by(keys.c.key).limit(1)
    after = FACT
    while True:
        key = connection.execute(query.where(keys.c.key > after)).scalar()
        if key is None or not key.startswith(FACT):
            return
        kind, colon, _ = key.removeprefix(FACT).partition(":")
        if not colon:
            after = key
            continue
        yield f"{FACT}{kind}:"
        after = f"{FACT}{kind};"  # the sign behind the colon


# --- what waits for a person ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """What has the same reason."""

    reason: str
    source: str
    #: The type of the notifications, or the name of the events.
    name: str
    n: int
    newest: int


def dead_groups(connection: Connection) -> tuple[list[Group], bool]:
    """Dead letters by reason, the largest group first, and whether those are all."""
    query = select(events.c.id, events.c.reason, events.c.source, events.c.name)
    query = query.where(events.c.state == literal_column("'dead'")).order_by(events.c.id.desc()).limit(_WINDOW)
    return _grouped(connection.execute(query), lambda row: (row.reason or "", row.source, row.name))


def parked_groups(connection: Connection, outcome: Outcome) -> tuple[list[Group], bool]:
    """Notifications that wait for a mapper, by type and by the last line of why."""
    query = select(notifications.c.id, notifications.c.error, notifications.c.source, notifications.c.type)
    query = query.where(notifications.c.outcome == outcome.value).order_by(notifications.c.id.desc()).limit(_WINDOW)
    return _grouped(connection.execute(query), lambda row: (last_line(row.error), row.source, row.type))


def last_line(error: str | None) -> str:
    """What a traceback ends with: what went wrong."""
    return ((error or "").strip().splitlines() or [""])[-1].strip()[:300]


def _grouped(rows: Any, key_of: Any) -> tuple[list[Group], bool]:
    found: dict[tuple[str, str, str], list[int]] = {}
    seen = 0
    for row in rows:
        seen += 1
        entry = found.setdefault(key_of(row), [0, row.id])
        entry[0] += 1
    groups = [Group(*key, n, newest) for key, (n, newest) in found.items()]
    return sorted(groups, key=lambda group: -group.n), seen < _WINDOW


def dead_ids(
    connection: Connection, *, reason: str | None, source: str | None, name: str | None, after: int, limit: int
) -> list[int]:
    """Dead letters of a group, or all, in the order in which they came."""
    query = select(events.c.id).where(events.c.state == literal_column("'dead'"), events.c.id > after)
    if reason is not None:
        query = query.where(events.c.reason == reason if reason else events.c.reason.is_(None))
    if source is not None:
        query = query.where(events.c.source == source)
    if name is not None:
        query = query.where(events.c.name == name)
    return list(connection.execute(query.order_by(events.c.id).limit(limit)).scalars())


def parked_deliveries(
    connection: Connection, outcome: Outcome, *, source: str | None, kind: str | None, after: int, limit: int
) -> list[tuple[int, int]]:
    """Notifications that wait for a mapper, and their deliveries, in the order in which they came."""
    query = select(notifications.c.id, notifications.c.delivery).where(
        notifications.c.outcome == outcome.value, notifications.c.id > after
    )
    if source is not None:
        query = query.where(notifications.c.source == source)
    if kind is not None:
        query = query.where(notifications.c.type == kind)
    return [(row.id, row.delivery) for row in connection.execute(query.order_by(notifications.c.id).limit(limit))]


def held_events(connection: Connection) -> list[tuple[Any, list[EventRow]]]:
    """Batches in doubt, each with the first of its events."""
    found: list[tuple[Any, list[EventRow]]] = []
    doubted = (BatchState.IN_DOUBT.value, BatchState.HELD.value)
    for batch in connection.execute(
        select(batches).where(batches.c.state != literal_column("'done'"), batches.c.state.in_(doubted)).limit(50)
    ):
        listed = orjson.loads(batch.events)[:20]
        rows = connection.execute(event_rows().where(events.c.id.in_(listed)).order_by(events.c.id)).mappings()
        found.append((batch, [event_row(row) for row in rows]))
    return found


def last_seen(connection: Connection) -> dict[str, int]:
    """By source, when something new came last, in Unix milliseconds."""
    found: dict[str, int] = {}
    for kind in kinds(connection):
        found[kind.source] = max(found.get(kind.source, 0), made_at_ms(kind.newest))
    return found


def bare_delivery(connection: Connection, delivery: int) -> Any:
    """The row of a delivery, or None."""
    return connection.execute(select(deliveries).where(deliveries.c.id == delivery)).first()
