"""How much the store holds: rows and bytes of each table. In: the store's URL. Out: one `TableSize` a table.

It only reads, beside whatever serves. Bytes are those on disk, indexes too. On PostgreSQL the rows of a large table are
the server's own estimate, as counting them would read it all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from relay.store import is_shared, sqlite_path
from relay.store.base import StoreUnavailableError

#: From this many rows on, PostgreSQL's estimate will do.
_COUNTED = 200_000
_SQLITE_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_SQLITE_BYTES = (
    "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY m.tbl_name"
)
_POSTGRES_TABLES = (
    "SELECT c.relname, c.reltuples::int8, pg_total_relation_size(c.oid) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p') AND n.nspname = current_schema()"
)
#: What migrations keep for themselves.
_NOT_OURS = frozenset({"alembic_version", "migrating"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """One table."""

    table: str
    rows: int
    #: On disk, with its indexes; None where the database does not tell.
    bytes: int | None
    #: Whether `rows` is an estimate.
    is_estimate: bool = False


def table_sizes(url: str) -> Sequence[TableSize]:
    """All tables, the largest first. Raises `StoreUnavailableError`."""
    try:
        found = _postgres_sizes(url) if is_shared(url) else _sqlite_sizes(sqlite_path(url))
    except SQLAlchemyError as error:
        origin = str(getattr(error, "orig", None) or error).strip()
        msg = f"the store cannot be read: {origin.splitlines()[0] if origin else type(error).__name__}"
        raise StoreUnavailableError(msg) from error
    ours = [one for one in found if one.table not in _NOT_OURS]
    return sorted(ours, key=lambda one: (-(one.bytes or 0), -one.rows, one.table))


def _postgres_sizes(url: str) -> list[TableSize]:
    from relay.store.database import Database  # noqa: PLC0415  only the backend in use is imported

    with Database(url).engine().connect() as connection:
        found = connection.execute(text(_POSTGRES_TABLES)).all()
        return [
            TableSize(table=name, rows=estimate, bytes=size, is_estimate=True) if estimate >= _COUNTED
            else TableSize(table=name, rows=_count(connection, name), bytes=size)
            for name, estimate, size in found
        ]  # fmt: skip


def _sqlite_sizes(path: Path) -> list[TableSize]:
    from relay.store.inbox import inbox_path  # noqa: PLC0415  only the backend in use is imported
    from relay.store.sqlite import open_engine  # noqa: PLC0415

    found: list[TableSize] = []
    for file in (path, inbox_path(path)):
        if not file.exists():
            continue
        with open_engine(file, reading=True).connect() as connection:
            sizes: dict[str, int] = {}
            with contextlib.suppress(SQLAlchemyError):  # an SQLite that was built without dbstat
                sizes = {name: size for name, size in connection.execute(text(_SQLITE_BYTES)).all()}  # noqa: C416  Row
            names = connection.execute(text(_SQLITE_TABLES)).scalars().all()
            found += [TableSize(table=name, rows=_count(connection, name), bytes=sizes.get(name)) for name in names]
    return found


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar_one())  # noqa: S608  a table's own name
