"""What SQLite and PostgreSQL say in different words, within statements that are else the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Table, bindparam, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import Select


def insert_into(table: Table, dialect: str) -> Any:
    """An INSERT that can say ON CONFLICT."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415  two megabytes that SQLite does without

        return postgresql.insert(table)
    return sqlite.insert(table)


def among(column: ColumnElement[int], name: str = "ids", *, dialect: str) -> ColumnElement[bool]:
    """`column` is one of the ids that are bound under this name as `packed` writes them."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        return column == func.any(bindparam(name, type_=postgresql.ARRAY(column.type)))
    listed: Select[tuple[int]] = select(func.json_each(bindparam(name)).table_valued("value").c.value)
    return column.in_(listed)


def packed(ids: Sequence[int], *, dialect: str) -> object:
    """Ids as the parameter of `among`."""
    return list(ids) if dialect == "postgresql" else orjson.dumps(list(ids)).decode()
