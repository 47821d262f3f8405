"""Migrations from nothing end where the schema is."""

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

from relay.store import migrations
from relay.store.base import Store, StoreUnavailableError
from relay.store.database import Database
from relay.store.migrations import migrate, pending
from relay.store.preparing import prepare_postgres
from relay.store.schema import metadata
from relay.store.sqlite import open_engine
from tests import postgres_server


def test_the_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "relay.db")

    migrate(engine)

    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_partial_indexes_are_those_of_the_schema(tmp_path: Path) -> None:
    """Alembic's comparison leaves out the conditions of indexes, so they are compared here."""
    migrated, created = open_engine(tmp_path / "migrated.db"), open_engine(tmp_path / "created.db")
    migrate(migrated)
    with created.begin() as connection:
        metadata.create_all(connection)
    statements = []
    for engine in (migrated, created):
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"))
            statements.append({name: " ".join(sql.split()) if sql else None for name, sql in rows
                               if not name.startswith("sqlite_autoindex_alembic")})  # fmt: skip

    assert statements[0] == statements[1]


def test_so_they_do_on_postgresql(postgres: str) -> None:
    own = {"inbox", "migrating"}  # made beside the migrations
    with postgres_server.database(postgres, "relay_test_migrations") as url:
        prepare_postgres(Database(url))

        with Database(url).engine().connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [] == [one for one in differences if getattr(one[1], "name", None) not in own]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_events_of_an_earlier_version_keep_what_goes_out_of_them(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "sqlite":
        _as_of_earlier_versions(open_engine(tmp_path / "relay.db"))
        return
    with postgres_server.database(request.getfixturevalue("postgres"), "relay_test_payloads") as url:
        _as_of_earlier_versions(Database(url).engine())


def _as_of_earlier_versions(engine: Engine) -> None:
    made = (
        "INSERT INTO events (id, notification, source, destination, event_id, name, state, payload) "
        "VALUES (:id, 1, 'acme', 'default', 'evt', 'purchase', 'pending', :payload)"
    )
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for row in (7, 9):
            connection.execute(text(made), {"id": row, "payload": b'{"n":%d}' % row})

    migrate(engine)

    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT e.id, p.payload FROM events e JOIN payloads p ON p.id = e.id ORDER BY 1")
        )
        assert [(7, b'{"n":7}'), (9, b'{"n":9}')] == [(row, bytes(payload)) for row, payload in rows]
    engine.dispose()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "relay.db")
    with engine.connect() as connection:
        assert pending(connection)
    for _ in range(2):
        migrate(engine)

    with engine.connect() as connection:
        assert not pending(connection)


@pytest.mark.anyio
async def test_a_database_that_lacks_a_migration_is_not_ready(store: Store, tmp_path: Path) -> None:
    await store.check()
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        connection.execute("DELETE FROM alembic_version")

    with pytest.raises(StoreUnavailableError, match="lacks migrations"):
        await store.check()
