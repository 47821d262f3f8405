"""SQLite's half of the store: how the file is opened, and the statements of the hot path.

WAL, fsync at every commit, one writer. The rows of a group go in with a handful of multi-row statements: each statement
is a hand-over of the interpreter's lock between the writer's thread and the event loop, so their number counts
more than their length.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from relay.ids import RowIds
from relay.sealing import Entity
from relay.store.ledger import COLUMNS, Key, Ledger, Rows

#: Rows per multi-row statement: a few fixed sizes, so that SQLite's statement cache knows them all.
_CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_BUSY_TIMEOUT_MS = 10_000
_INSERTS = {
    "bundles": "INSERT OR IGNORE",  # an earlier part of the same bundle has put it there
    "entities": "INSERT OR REPLACE",  # what is known of one is there whole, or not at all
}
_CACHED_STATEMENTS = 256


def open_engine(path: Path, *, reading: bool = False) -> Engine:
    """An engine on this file, with the durability that the promise needs."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "cached_statements": _CACHED_STATEMENTS},
    )
    begin = "BEGIN" if reading else "BEGIN IMMEDIATE"

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is said below, in the form that the use needs
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -256")
        connection.execute("PRAGMA temp_store = MEMORY")

    def on_begin(connection: Connection) -> None:
        cursor_of(connection).execute(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


class SQLiteStatements:
    """The hot path's statements, on the driver itself."""

    def taken(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, int]:
        """Which of these keys are taken, and by what."""
        sql = "SELECT k.source, k.key, k.ref FROM w CROSS JOIN keys k ON k.source = w.source AND k.key = w.key"
        return {(source, key): ref for source, key, ref in _joined(connection, sql, wanted)}

    def known(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, Entity]:
        """Which of these entities are known."""
        sql = (
            "SELECT e.source, e.key, e.user_id, e.rank, e.attribution, e.marks, e.names "
            "FROM w CROSS JOIN entities e ON e.source = w.source AND e.key = w.key"
        )
        return {
            (source, key): Entity(
                keys=(key,), user_id=user, rank=rank, attribution=orjson.loads(attribution),
                marks=frozenset(orjson.loads(marks)), names=frozenset(orjson.loads(names)),
            )
            for source, key, user, rank, attribution, marks, names in _joined(connection, sql, wanted)
        }  # fmt: skip

    def waiting(self, connection: Connection, learned: Iterable[Key]) -> list[tuple[str, int]]:
        """Source and row id of the events that wait for one of these entities, oldest first."""
        sql = "SELECT v.source, v.event FROM w CROSS JOIN waits v ON v.source = w.source AND v.key = w.key"
        return sorted(_joined(connection, sql, learned), key=lambda row: row[1])

    def insert(self, connection: Connection, rows: Rows) -> None:
        """All rows of a group."""
        for table, columns in COLUMNS.items():
            insert_rows(connection, table, columns, getattr(rows, table))

    def learn(self, connection: Connection, ledger: Ledger, ids: RowIds) -> None:
        """What is known of entities from now on."""
        entities = ledger.rows.entities
        columns = ("id", "source", "key", "user_id", "rank", "attribution", "marks", "names")
        said: dict[int, tuple[Any, ...]] = {}  # one notification teaches the same about several entities
        for entity in entities.values():
            if id(entity) not in said:
                attribution = orjson.dumps(dict(entity.attribution)).decode()
                said[id(entity)] = (
                    entity.user_id,
                    entity.rank,
                    attribution,
                    _listed(entity.marks),
                    _listed(entity.names),
                )
        news = zip(ids.several(len(entities)), entities.items(), strict=True)
        insert_rows(connection, "entities", columns, [(row, *key, *said[id(entity)]) for row, (key, entity) in news])

    def repeat(self, connection: Connection, notifications: Sequence[int]) -> None:
        """Count these notifications as said once more."""
        cursor_of(connection).executemany(
            "UPDATE notifications SET repeats = repeats + 1 WHERE id = ?", [(row,) for row in notifications]
        )


def insert_rows(connection: Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """All of them, with as few statements as may be."""
    cursor = cursor_of(connection)
    for chunk in _chunks(rows):
        cursor.execute(_insert_sql(table, columns, len(chunk)), list(chain.from_iterable(chunk)))


def cursor_of(connection: Connection) -> sqlite3.Cursor:
    """A cursor of the driver itself."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver.cursor()


@cache
def _insert_sql(table: str, columns: tuple[str, ...], rows: int) -> str:
    values = f"({','.join('?' * len(columns))})"
    insert = _INSERTS.get(table, "INSERT")
    return f"{insert} INTO {table} ({','.join(columns)}) VALUES {','.join([values] * rows)}"


def _listed(texts: frozenset[str]) -> str:
    return orjson.dumps(sorted(texts)).decode() if texts else "[]"


def _chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    while start < len(rows):
        size = next(size for size in _CHUNKS if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size


def _joined(connection: Connection, sql: str, wanted: Iterable[Key]) -> Iterator[tuple[Any, ...]]:
    """The rows of a select over `w(source, key)`, the wanted keys. CROSS JOIN keeps `w` the outer loop."""
    cursor = cursor_of(connection)
    for chunk in _chunks(list(dict.fromkeys(wanted))):
        cursor.execute(_joining_sql(sql, len(chunk)), list(chain.from_iterable(chunk)))
        yield from cursor


@cache
def _joining_sql(sql: str, keys: int) -> str:
    return f"WITH w(source, key) AS (VALUES {','.join(['(?,?)'] * keys)}) {sql}"
