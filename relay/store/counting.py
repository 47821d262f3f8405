"""Counting behind the work: what came and went by minute and by hour, and the terms by which it is found.

`count_up` takes the rows that came since it last ran, oldest first, one small piece a time, and moves its bookmark in
the same transaction: each row is counted once, whoever counts. The newest seconds are left alone, since another
replica may still be committing there; `counted` adds them from the rows themselves, so that what is shown is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, insert, literal_column, select, update

from relay.ids import first_at, made_at_ms
from relay.store.console_schema import EVENT, ORDER, USER, counts, term_of, terms
from relay.store.dialects import insert_into
from relay.store.schema import batches, bookmarks, duplicates, events, notifications, payloads

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
#: Minutes are kept for so long, hours as long as the keys.
_MINUTES_KEPT_MS = 72 * HOUR_MS
#: Money is counted in millionths of a major unit, so that no currency loses a digit.
MICROS = 1_000_000
#: A number of the table stays below this, whatever senders claim to have earned: two of them still fit into 64 bits.
_MOST = 4 * 10**18

_PIECE = 500
#: The most that is read for what is not counted yet.
_TAIL = 20_000
#: Rows younger than this are left for the next time.
_LAG_MS = 5_000
_COUNTED = "counted:"
_TERMS_IN_ARRAYS = "INSERT INTO terms (event, term) SELECT * FROM unnest(%s::int8[], %s::int8[])"
_TERMS_IN_JSON = (
    "INSERT INTO terms (event, term) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
)
_KINDS = ("notifications", "events", "duplicates")

#: (when, measure, source, destination)
_Key = tuple[int, str, str, str]


@dataclass(frozen=True, slots=True)
class Count:
    """So many of a measure in a bucket: deliveries, an outcome, events, duplicates, `revenue:EUR`, `refunded:EUR`."""

    bucket_ms: int
    measure: str
    source: str
    destination: str
    n: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted, and whether that is all there is."""

    counts: Sequence[Count]
    is_complete: bool


def count_up(connection: Connection, *, now_ms: int) -> int:
    """Count one piece of each kind. Returns how many rows it took; 0: nothing is left to count."""
    return sum(_count_kind(connection, kind, now_ms) for kind in _KINDS)


def _count_kind(connection: Connection, kind: str, now_ms: int) -> int:
    after = _position(connection, kind)
    rows = connection.execute(
        _rows_of(kind, after).where(_id_of(kind) < first_at(now_ms - _LAG_MS)).limit(_PIECE)
    ).all()
    if not rows or not _move(connection, kind, after, rows[-1].id, now_ms):
        return 0
    if kind == "events":
        found, named = _tally_events(rows)
        _remember(connection, named)
    else:
        found = _tally(kind, rows, _delivery_before(connection, after) if kind == "notifications" else None)
    for width in (MINUTE_MS, HOUR_MS):
        _add(connection, width, found)
    return len(rows)


def _position(connection: Connection, kind: str) -> int:
    found = connection.execute(select(bookmarks.c.position).where(bookmarks.c.name == _COUNTED + kind)).scalar()
    return int(found or 0)


def _move(connection: Connection, kind: str, after: int, to: int, now_ms: int) -> bool:
    """False: somebody else counts these."""
    name = _COUNTED + kind
    if after == 0:
        connection.execute(insert(bookmarks).values(name=name, position=str(to), noted_at_ms=now_ms))
        return True
    moved = connection.execute(
        update(bookmarks)
        .where(bookmarks.c.name == name, bookmarks.c.position == str(after))
        .values(position=str(to), noted_at_ms=now_ms)
    )
    return bool(moved.rowcount)


def _id_of(kind: str) -> ColumnElement[int]:
    return {"notifications": notifications, "events": events, "duplicates": duplicates}[kind].c.id


def _rows_of(kind: str, after: int) -> Select[Any]:
    match kind:
        case "notifications":
            columns = notifications.c
            query: Select[Any] = select(columns.id, columns.delivery, columns.source, columns.outcome)
        case "events":
            query = select(
                events.c.id, events.c.source, events.c.destination, events.c.name, events.c.event_id, payloads.c.payload
            ).join_from(events, payloads, payloads.c.id == events.c.id)
        case _:
            query = select(duplicates.c.id, duplicates.c.source)
    found: Select[Any] = query.where(_id_of(kind) > after)
    return found.order_by(_id_of(kind))


def _delivery_before(connection: Connection, after: int) -> int | None:
    return connection.execute(select(notifications.c.delivery).where(notifications.c.id == after)).scalar()


def _tally(kind: str, rows: Sequence[Any], last_delivery: int | None) -> Counter[_Key]:
    if kind == "events":
        return _tally_events(rows)[0]
    found: Counter[_Key] = Counter()
    for row in rows:
        minute = made_at_ms(row.id) // MINUTE_MS * MINUTE_MS
        if kind == "notifications":
            found[minute, row.outcome, row.source, ""] += 1
            if row.delivery != last_delivery:
                found[minute, "deliveries", row.source, ""] += 1
                last_delivery = row.delivery
        else:
            found[minute, "duplicates", row.source, ""] += 1
    return found


def _tally_events(rows: Sequence[Any]) -> tuple[Counter[_Key], set[tuple[int, int]]]:
    """What they count, and their terms, by row id."""
    found: Counter[_Key] = Counter()
    named: set[tuple[int, int]] = set()
    for row_id, source, destination, name, event_id, payload in rows:
        event = orjson.loads(payload)
        minute = made_at_ms(row_id) // MINUTE_MS * MINUTE_MS
        found[minute, "events", source, destination] += 1
        for measure, micros in _money_of(name, event):
            found[minute, measure, source, destination] += micros
        named.update([(row_id, term) for term in terms_of(event_id, event)])
    return found, named


def money_in(name: str, payload: bytes) -> Sequence[tuple[str, int]]:
    """The money that an event carries, by measure, in millionths."""
    if b'"revenue":' in payload or name == "refund":
        return _money_of(name, orjson.loads(payload))
    return ()


def _money_of(name: str, event: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    revenue = event.get("revenue")
    if revenue is not None and event.get("currency"):
        return ((f"revenue:{event['currency']}", _micros(revenue)),)
    if revenue is None and name == "refund":
        properties = event.get("properties") or {}
        if isinstance(properties.get("amount"), (int, float)) and properties.get("currency"):
            return ((f"refunded:{properties['currency']}", _micros(properties["amount"])),)
    return ()


def _micros(amount: float) -> int:
    return int((Decimal(str(amount)) * MICROS).to_integral_value())


def _add(connection: Connection, width: int, found: Counter[_Key]) -> None:
    wide: Counter[_Key] = Counter()
    for (minute, measure, source, destination), n in found.items():
        wide[minute // width * width, measure, source, destination] += n
    rows = [
        {"width": width, "bucket": bucket, "measure": measure, "source": source, "destination": destination,
         "n": max(-_MOST, min(n, _MOST))}
        for (bucket, measure, source, destination), n in wide.items()
    ]  # fmt: skip
    statement = insert_into(counts, connection.dialect.name)
    both = counts.c.n + statement.excluded.n
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["width", "bucket", "measure", "source", "destination"],
            set_={"n": case((both > _MOST, _MOST), (both < -_MOST, -_MOST), else_=both)},
        ),
        rows,
    )


def _remember(connection: Connection, named: set[tuple[int, int]]) -> None:
    """The terms of these events, in one statement of the driver's."""
    listed = sorted(named)
    if connection.dialect.name == "postgresql":
        columns = ([event for event, _ in listed], [term for _, term in listed])
        connection.exec_driver_sql(_TERMS_IN_ARRAYS, columns)
    else:
        connection.exec_driver_sql(_TERMS_IN_JSON, (orjson.dumps(listed).decode(),))


def terms_of(event_id: str, event: Mapping[str, Any]) -> Iterator[int]:
    """By what an event is found."""
    yield term_of(EVENT, event_id)
    if user_id := event.get("user_id"):
        yield term_of(USER, str(user_id))
    for key, value in (event.get("properties") or {}).items():
        if value and key.endswith("_id") and key != "event_id":
            yield term_of(ORDER, str(value))


def forget(connection: Connection, *, before_ms: int, now_ms: int, piece: int) -> int:
    """Drop what is older than the rows that it counts, a small piece of it."""
    old = (
        select(terms.c.event).where(terms.c.event < first_at(before_ms)).order_by(terms.c.event).limit(1).offset(piece)
    )
    last = connection.execute(old).scalar()
    upto = terms.c.event < (first_at(before_ms) if last is None else last)
    done = connection.execute(delete(terms).where(upto)).rowcount
    for width, kept in ((MINUTE_MS, now_ms - _MINUTES_KEPT_MS), (HOUR_MS, before_ms)):
        done += connection.execute(delete(counts).where(counts.c.width == width, counts.c.bucket < kept)).rowcount
    return done


# --- looking ----------------------------------------------------------------------------------------------------------


def counted(connection: Connection, *, width_ms: int, since_ms: int) -> Counted:
    """All measures since then in buckets of this width, which is a multiple of a minute."""
    stored = HOUR_MS if width_ms % HOUR_MS == 0 else MINUTE_MS
    found: Counter[_Key] = Counter()
    wide: Counter[_Key] = Counter()
    first = since_ms // stored * stored
    bucket = counts.c.bucket - counts.c.bucket % literal_column(str(width_ms))
    columns = (bucket, counts.c.measure, counts.c.source, counts.c.destination)
    within = (counts.c.width == stored, counts.c.bucket >= first)
    # in two parts, whose sums cannot be too large for 64 bits
    sums = (func.sum(counts.c.n.op("/")(MICROS)), func.sum(counts.c.n % MICROS))
    rows = connection.execute(select(*columns, *sums).where(*within).group_by(*columns)).all()
    for at, measure, source, destination, millions, rest in rows:
        wide[at, measure, source, destination] += int(millions) * MICROS + int(rest)
    is_complete = True
    for kind in _KINDS:
        after = max(_position(connection, kind), first_at(first))
        last = _delivery_before(connection, after) if kind == "notifications" else None
        number = 0
        tail = connection.execute(_rows_of(kind, after).limit(_TAIL), execution_options={"yield_per": _PIECE})
        for rows in tail.partitions():
            found.update(_tally(kind, rows, last))
            number += len(rows)
            last = rows[-1].delivery if kind == "notifications" else None
        is_complete = is_complete and number < _TAIL
    for (at, measure, source, destination), n in found.items():
        if at >= first:
            wide[at // width_ms * width_ms, measure, source, destination] += n
    return Counted([Count(*key, n) for key, n in sorted(wide.items())], is_complete)


def termed_up_to(connection: Connection) -> int:
    """The newest event whose terms are written: they are, of it and of all before it."""
    return _position(connection, "events")


def untermed(connection: Connection, text: str) -> list[int]:
    """The newest events, whose terms are not written yet, that have this text in them."""
    rows = connection.execute(_rows_of("events", _position(connection, "events")).limit(_TAIL))
    raw = orjson.dumps(text)[1:-1]
    return [row.id for row in rows if raw in row.payload or text == row.event_id]


def unsent(connection: Connection, *, width_ms: int, since_ms: int) -> Counted:
    """Of the events made since then, those that the destination has not accepted: `pending`, `dead`, and their money.

    From the partial indexes of the states, whose conditions must be literals.
    """
    columns = (events.c.id, events.c.source, events.c.destination, events.c.name, payloads.c.payload)
    these = select(*columns).join_from(events, payloads, payloads.c.id == events.c.id)
    found: Counter[_Key] = Counter()
    is_complete = True
    since = first_at(since_ms)
    for state, measure in (("pending", "pending"), ("waiting", "pending"), ("dead", "dead")):
        query = these.where(events.c.state == literal_column(f"'{state}'")).limit(_TAIL)
        rows = connection.execute(query).all()
        is_complete = is_complete and len(rows) < _TAIL
        _add_unsent(found, rows, measure, since, width_ms)
    still_open = select(batches.c.events).where(batches.c.state != literal_column("'done'")).limit(_TAIL // 1000)
    for listed in connection.execute(still_open).scalars().all():
        ids = orjson.loads(listed)
        for start in range(0, len(ids), _PIECE // 2):
            some = these.where(events.c.id.in_(ids[start : start + _PIECE // 2]))
            _add_unsent(found, connection.execute(some).all(), "pending", since, width_ms)
    return Counted([Count(*key, n) for key, n in sorted(found.items())], is_complete)


def _add_unsent(found: Counter[_Key], rows: Sequence[Any], measure: str, since: int, width_ms: int) -> None:
    for row in rows:
        if row.id >= since:
            bucket = made_at_ms(row.id) // width_ms * width_ms
            found[bucket, measure, row.source, row.destination] += 1
            for kind, micros in money_in(row.name, row.payload):
                found[bucket, kind, row.source, row.destination] += micros
