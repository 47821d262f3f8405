"""From an SQLite file to PostgreSQL: every row of every table, piece by piece, then both sides compared.

In: a store that nobody serves, and an empty database. Each piece is committed together with the note of how far it got,
so that a move that was cut off goes on where it was. Blobs go over as they are, so that the same keys open them. It is
done when each table has as many rows on both sides, and the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, Table, func, select, text, tuple_
from sqlalchemy.exc import SQLAlchemyError

from relay.store import prepare, sqlite_path
from relay.store.base import StoreUnavailableError
from relay.store.database import Database, driver_of
from relay.store.inbox import inbox_path
from relay.store.schema import batches, bookmarks, events, metadata, notifications
from relay.store.sqlite import open_engine

#: It is a file of its own here, and a table there.
_inbox = Table(
    "inbox",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("deliveries", Integer),
    Column("content", LargeBinary),
)
#: Rows that share a transaction; fewer where a row may hold a megabyte.
_PIECE = 2000
_HEAVY_PIECE = 50
_NOTE = "move:"
_SOURCE = "move:source"
_SET_NOTE = (
    "INSERT INTO bookmarks (name, position, noted_at_ms) VALUES (%s, %s, %s) "
    "ON CONFLICT (name) DO UPDATE SET position = excluded.position, noted_at_ms = excluded.noted_at_ms"
)
_NUL, _NO_NUL = "\0", "\ufffd"
_MASK = (1 << 64) - 1

Row = Sequence[Any]


class MoveError(Exception):
    """The move cannot begin, go on, or be believed. The text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One table, on both sides now."""

    table: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a table is."""

    table: str
    done: int
    total: int


def move(
    source: str, target: str, *, now_ms: Callable[[], int], tell: Callable[[Progress], None] = lambda _progress: None
) -> Sequence[Moved]:
    """Copy everything, and compare it. Call it again where it was cut off.

    Nobody may serve the source meanwhile. Raises `MoveError`, and `StoreUnavailableError` where a side is away.
    """
    prepare(source)
    prepare(target)
    path = sqlite_path(source)
    database = Database(target).engine()
    try:
        with (
            open_engine(path, reading=True).connect() as main,
            open_engine(inbox_path(path), reading=True).connect() as inbox,
            database.connect() as into,
        ):
            sides = [(table, inbox if table is _inbox else main) for table in (*metadata.sorted_tables, _inbox)]
            _begin(sides, into, now_ms=now_ms)
            for table, connection in sides:
                _copy(table, connection, into, now_ms=now_ms, tell=tell)
            moved = [_compared(table, connection, into) for table, connection in sides]
            into.execute(bookmarks.delete().where(bookmarks.c.name.like(f"{_NOTE}%")))
            into.commit()
            return moved
    except SQLAlchemyError as error:
        raise StoreUnavailableError(_words(error)) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "psycopg":  # the driver itself, which COPY is said to
            raise StoreUnavailableError(_words(error)) from error
        raise


def _words(error: Exception) -> str:
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


# --- before -----------------------------------------------------------------------------------------------------------


def _begin(sides: Sequence[tuple[Table, Connection]], into: Connection, *, now_ms: Callable[[], int]) -> None:
    """Note what is moved; or, where a move was cut off, see that it is still the same."""
    now = _fingerprint(sides)
    noted = into.execute(select(bookmarks.c.position).where(bookmarks.c.name == _SOURCE)).scalar()
    if noted is None:
        for table, _ in sides:
            if into.execute(text(f"SELECT 1 FROM {table.name} LIMIT 1")).first():  # noqa: S608  our own names
                msg = f"the database is not empty: there are rows in {table.name}. Move into an empty one."
                raise MoveError(msg)
        driver_of(into).execute(_SET_NOTE, [_SOURCE, now, now_ms()])
        into.commit()
    elif noted != now:
        msg = (
            "the SQLite file has changed since the move began: a relay has served it meanwhile. Empty the database "
            "(DROP DATABASE, CREATE DATABASE), leave the relay stopped, and move again."
        )
        raise MoveError(msg)


def _fingerprint(sides: Sequence[tuple[Table, Connection]]) -> str:
    """What no work of a relay leaves as it is."""
    found: list[tuple[str, list[Any]]] = []
    for table, connection in sides:
        ends = [func.max(column) for column in table.primary_key.columns]
        row = connection.execute(select(func.count(), *ends).select_from(table)).one()
        found.append((str(table.name), list(row)))
    main = sides[0][1]
    changing = (
        select(events.c.state, func.count(), func.max(events.c.settled_at_ms)).group_by(events.c.state),
        select(batches.c.state, func.count(), func.sum(batches.c.attempts)).group_by(batches.c.state),
        select(func.sum(notifications.c.repeats)),
    )
    found += [("", sorted(list(row) for row in main.execute(query))) for query in changing]
    return hashlib.sha256(repr(found).encode()).hexdigest()


# --- copying ----------------------------------------------------------------------------------------------------------


def _copy(
    table: Table,
    connection: Connection,
    into: Connection,
    *,
    now_ms: Callable[[], int],
    tell: Callable[[Progress], None],
) -> None:
    total = connection.execute(select(func.count()).select_from(table)).scalar_one()
    note = _NOTE + "table:" + table.name
    noted = into.execute(select(bookmarks.c.position).where(bookmarks.c.name == note)).scalar()
    into.commit()
    after, done = orjson.loads(noted) if noted else (None, 0)
    driver = driver_of(into)
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    for piece in _pieces(table, connection, after):
        with driver.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in piece:
                copy.write_row(row)
        done += len(piece)
        last = [piece[-1][place] for place in _key_places(table)]
        driver.execute(_SET_NOTE, [note, orjson.dumps([last, done]).decode(), now_ms()])
        driver.commit()
        tell(Progress(table=table.name, done=done, total=total))


def _pieces(table: Table, connection: Connection, after: Row | None) -> Iterator[list[Row]]:
    """Rows in the order of their keys, from after this one on, as PostgreSQL takes them."""
    keys = list(table.primary_key.columns)
    query = select(table).order_by(*keys).limit(_piece_of(table))
    while True:
        rows = connection.execute(query if after is None else query.where(tuple_(*keys) > tuple_(*after))).all()
        if not rows:
            return
        after = [rows[-1][place] for place in _key_places(table)]
        yield [[_stored(value) for value in row] for row in rows]


def _piece_of(table: Table) -> int:
    return _HEAVY_PIECE if "content" in table.columns else _PIECE


def _key_places(table: Table) -> list[int]:
    names = [column.name for column in table.columns]
    return [names.index(column.name) for column in table.primary_key.columns]


def _stored(value: object) -> object:
    """A text as PostgreSQL keeps it: NUL is the one sign that it does not take."""
    return value.replace(_NUL, _NO_NUL) if isinstance(value, str) and _NUL in value else value


# --- after ------------------------------------------------------------------------------------------------------------


def _compared(table: Table, connection: Connection, into: Connection) -> Moved:
    """Raises `MoveError` where the two sides differ."""
    rows, digest = _digest(row for piece in _pieces(table, connection, None) for row in piece)
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    notes = f" WHERE name NOT LIKE '{_NOTE}%'" if table is bookmarks else ""
    with driver_of(into).cursor(name="compared", binary=True) as cursor:
        cursor.itersize = _piece_of(table)
        cursor.execute(f"SELECT {names} FROM {table.name}{notes}".encode())  # noqa: S608  our own names
        found, other = _digest(iter(cursor))
    driver_of(into).rollback()
    if (rows, digest) != (found, other):
        what = f"{rows:,} rows here, {found:,} there" if rows != found else f"{rows:,} rows, but not the same ones"
        msg = f"{table.name} differs: {what}. Empty the database, and move again."
        raise MoveError(msg)
    return Moved(table=table.name, rows=rows)


def _digest(rows: Iterator[Row]) -> tuple[int, int]:
    """How many, and a sum over them in which their order does not count."""
    number = total = 0
    for row in rows:
        said = hashlib.blake2b(repr(list(row)).encode(), digest_size=8).digest()
        number, total = number + 1, (total + int.from_bytes(said, "big")) & _MASK
    return number, total


def key_file_of(source: str) -> Path | None:
    """The key file beside this SQLite file, where there is one: its key must be among those of the replicas."""
    from relay.store import key_path  # noqa: PLC0415  beside its only use

    path = key_path(source)
    return path if path.exists() else None
