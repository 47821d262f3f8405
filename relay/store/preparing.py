"""The tables on PostgreSQL: made and migrated by whichever replica comes first, while the others wait.

They wait for a row, since not every engine that speaks the protocol has advisory locks. A replica that is older than
the database leaves it as it is: migrations add first, and take away only in a later version.
"""

from __future__ import annotations

import contextlib
import time

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from relay.store.database import Database
from relay.store.migrations import migrate_within, pending
from relay.store.postgres_inbox import TABLE, TUNING

_LOCK_TABLE = "CREATE TABLE IF NOT EXISTS migrating (id integer PRIMARY KEY)"
_LOCK_ROW = "INSERT INTO migrating (id) VALUES (1) ON CONFLICT DO NOTHING"
_LOCK = "SELECT id FROM migrating WHERE id = 1 FOR UPDATE"
#: Two that make the same table at once get in each other's way, whatever IF NOT EXISTS says.
_TRIES = 10
_PAUSE_S = 0.05
_RACES = frozenset({"23505", "42P07", "42710", "40001", "40P01", "XX000"})
_IS_READY = "SELECT count(*) FROM inbox WHERE id = 0"


def prepare_postgres(database: Database) -> None:
    """Make and migrate all tables where needed. Raises what the driver raises."""
    engine = database.engine()
    if _is_ready(engine):
        return
    _make_lock(engine)
    with engine.begin() as connection:
        # the others wait, and a large table takes its time; both are no statement that hangs
        connection.execute(text("SELECT set_config('statement_timeout', '0', true)"))
        connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', '0', true)"))
        connection.execute(text(_LOCK))
        migrate_within(connection)
        for statement in TABLE:
            connection.execute(text(statement))
        for statement in TUNING:
            with contextlib.suppress(DBAPIError), connection.begin_nested():
                connection.execute(text(statement))


def _is_ready(engine: Engine) -> bool:
    """Without a lock, so that a start is cheap where nothing is to be done."""
    try:
        with engine.connect() as connection:
            if pending(connection):
                return False
            connection.execute(text(_IS_READY))
    except ProgrammingError:  # no such table
        return False
    return True


def _make_lock(engine: Engine) -> None:
    for left in reversed(range(_TRIES)):
        try:
            with engine.begin() as connection:
                connection.execute(text(_LOCK_TABLE))
                connection.execute(text(_LOCK_ROW))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _RACES or not left:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
