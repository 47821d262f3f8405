"""PostgreSQL's half of the store: the statements of the hot path, and what keeps replicas from each other's way.

A group's rows go in with one statement a table. Two replicas may be told the same at the same moment: keys are inserted
`ON CONFLICT DO NOTHING`, in one order everywhere, and whoever loses one runs again on what the winner committed. What
a transaction relies on about entities is held by row locks and looked at again under them; an entity that somebody
waits for has a row before it is known (`_AWAITED`), so that there is something to lock: whoever waits and whoever
learns come one after the other, and no wait is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import BigInteger, Connection, Integer, LargeBinary, SmallInteger, Text

from relay.ids import RowIds
from relay.sealing import Entity
from relay.store.database import driver_of
from relay.store.ledger import COLUMNS, Key, Ledger, Rows
from relay.store.schema import metadata
from relay.store.writer import RacedError
from relay.vault import Vault

#: The rank of an entity that is waited for and of which nothing is known.
_AWAITED = 32_767
_NOBODY = Entity(keys=(), user_id=None, rank=_AWAITED, attribution={})

_ARRAYS = {BigInteger: "int8[]", Integer: "int4[]", SmallInteger: "int2[]", Text: "text[]", LargeBinary: "bytea[]"}
_WANTED = "unnest(%b::text[], %b::text[]) WITH ORDINALITY AS w(source, key, n)"
_TAKEN = f"SELECT k.source, k.key, k.ref FROM {_WANTED} JOIN keys k ON k.source = w.source AND k.key = w.key"  # noqa: S608
_KNOWN = (
    "SELECT e.source, e.key, e.user_id, e.rank, e.attribution, e.marks, e.names "  # noqa: S608
    f"FROM {_WANTED} JOIN entities e ON e.source = w.source AND e.key = w.key WHERE e.rank < {_AWAITED}"
)
_HELD = (
    "SELECT e.source, e.key, e.user_id, e.rank, e.attribution, e.marks, e.names "  # noqa: S608
    f"FROM {_WANTED} JOIN entities e ON e.source = w.source AND e.key = w.key ORDER BY w.n FOR UPDATE OF e"
)
_WAITING = (
    "SELECT DISTINCT v.source, v.event "  # noqa: S608
    f"FROM {_WANTED} JOIN waits v ON v.source = w.source AND v.key = w.key ORDER BY v.event"
)
_ENTITY = "unnest(%b::int8[], %b::text[], %b::text[], %b::text[], %b::int2[], %b::text[], %b::text[], %b::text[])"
_NEW_ENTITIES = (
    "INSERT INTO entities (id, source, key, user_id, rank, attribution, marks, names) "  # noqa: S608
    f"SELECT * FROM {_ENTITY} ON CONFLICT (source, key) DO NOTHING RETURNING source, key"
)
_BETTER_ENTITIES = (
    "UPDATE entities e SET id = w.id, user_id = w.user_id, rank = w.rank, attribution = w.attribution, "  # noqa: S608
    "marks = w.marks, names = w.names "
    f"FROM {_ENTITY} AS w(id, source, key, user_id, rank, attribution, marks, names) "
    "WHERE e.source = w.source AND e.key = w.key"
)
_REPEAT = (
    "WITH locked AS (SELECT id FROM notifications WHERE id = ANY(%b::int8[]) ORDER BY id FOR UPDATE) "
    "UPDATE notifications n SET repeats = repeats + w.times "
    "FROM unnest(%b::int8[], %b::int4[]) AS w(id, times), locked l WHERE n.id = l.id AND l.id = w.id"
)
_ON_CONFLICT = {
    "keys": "ON CONFLICT (source, key) DO NOTHING",
    "deliveries": "ON CONFLICT (id) DO NOTHING",
    "bundles": "ON CONFLICT (id) DO NOTHING",  # an earlier part of the same bundle has put it there
}
#: Keys first: whoever loses one of them has done nothing else yet.
_IN_ORDER = ("keys", *(table for table in COLUMNS if table != "keys"))


class PostgresStatements:
    """The hot path's statements, on the driver itself."""

    def taken(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, int]:
        """Which of these keys are taken, and by what."""
        return {(source, key): ref for source, key, ref in _joined(connection, _TAKEN, wanted)}

    def known(self, connection: Connection, wanted: Iterable[Key]) -> dict[Key, Entity]:
        """Which of these entities are known."""
        return _entities(_joined(connection, _KNOWN, wanted))

    def waiting(self, connection: Connection, learned: Iterable[Key]) -> list[tuple[str, int]]:
        """Source and row id of the events that wait for one of these entities, oldest first."""
        return _joined(connection, _WAITING, learned)

    def insert(self, connection: Connection, rows: Rows) -> None:
        """All rows of a group. Raises `RacedError` where a key was taken meanwhile."""
        driver = driver_of(connection)
        for table in _IN_ORDER:
            found = getattr(rows, table)
            if not found:
                continue
            if table == "keys":
                found = sorted(found)
            cursor = driver.execute(_insert_sql(table), _columns(found))
            if table == "keys" and cursor.rowcount != len(found):
                msg = "another replica was told the same at this moment"
                raise RacedError(msg)

    def learn(self, connection: Connection, ledger: Ledger, ids: RowIds) -> None:
        """What is known of entities from now on. Raises `RacedError` where what the ledger relied on has changed."""
        learned = ledger.rows.entities
        held = sorted(ledger.relies_on.union(learned))
        if not held:
            return
        driver = driver_of(connection)
        new = [key for key in held if key not in ledger.before]
        made: set[Key] = set()
        if new:
            rows = [_row(ids.next(), key, learned.get(key, _NOBODY)) for key in new]
            made = set(driver.execute(_NEW_ENTITIES, _columns(rows)).fetchall())
        there = [key for key in held if key not in made]
        if not there:
            return
        now = _entities(_joined(connection, _HELD, there))
        if len(now) != len(there) or any(ledger.before.get(key) != _said(now[key]) for key in there):
            msg = "another replica learned about the same entities at this moment"
            raise RacedError(msg)
        better = [_row(ids.next(), key, learned[key]) for key in there if key in learned]
        if better:
            driver.execute(_BETTER_ENTITIES, _columns(better))

    def repeat(self, connection: Connection, notifications: Sequence[int]) -> None:
        """Count these notifications as said once more."""
        times: dict[int, int] = {}
        for row in notifications:
            times[row] = times.get(row, 0) + 1
        driver_of(connection).execute(_REPEAT, [list(times), list(times), list(times.values())])


class SharedRowIds(RowIds):
    """Row ids for several threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = threading.RLock()

    def next(self) -> int:
        with self._turn:
            return super().next()

    def several(self, number: int) -> Iterable[int]:
        with self._turn:
            return super().several(number)


def shared_vault(vault: Vault) -> Vault:
    """One with the same keys, for several threads."""
    return _SharedVault(vault._keys)  # noqa: SLF001  nobody else needs them


class _SharedVault(Vault):
    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(keys)
        self._turn = threading.Lock()

    def seal(self, plain: bytes, *, row: int) -> bytes:
        with self._turn:
            return super().seal(plain, row=row)


def _joined(connection: Connection, sql: str, wanted: Iterable[Key]) -> list[tuple[Any, ...]]:
    """The rows of a select over `w(source, key)`, the wanted keys."""
    listed = list(dict.fromkeys(wanted))
    if not listed:
        return []
    cursor = driver_of(connection).execute(sql, _columns(listed), binary=True)
    found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


@cache
def _insert_sql(table: str) -> str:
    columns = COLUMNS[table]
    arrays = ", ".join(f"%b::{_array_of(table, column)}" for column in columns)
    into = f"INSERT INTO {table} ({', '.join(columns)})"
    return f"{into} SELECT * FROM unnest({arrays}) {_ON_CONFLICT.get(table, '')}"  # noqa: S608  our own names


def _array_of(table: str, column: str) -> str:
    return _ARRAYS[type(metadata.tables[table].columns[column].type)]


def _entities(rows: Iterable[tuple[Any, ...]]) -> dict[Key, Entity]:
    return {
        (source, key): Entity(
            keys=(key,), user_id=user, rank=rank, attribution=orjson.loads(attribution),
            marks=frozenset(orjson.loads(marks)), names=frozenset(orjson.loads(names)),
        )
        for source, key, user, rank, attribution, marks, names in rows
    }  # fmt: skip


def _said(entity: Entity) -> Entity | None:
    """What a reader sees of a row: nothing of one that is only waited for."""
    return None if entity.rank == _AWAITED else entity


def _row(row_id: int, key: Key, entity: Entity) -> tuple[Any, ...]:
    attribution: Mapping[str, str] = dict(entity.attribution)
    return (
        row_id, *key, entity.user_id, entity.rank, orjson.dumps(attribution).decode(),
        orjson.dumps(sorted(entity.marks)).decode(), orjson.dumps(sorted(entity.names)).decode(),
    )  # fmt: skip
