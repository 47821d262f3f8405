"""Migrations of the store, by Alembic. `migrate` brings a database up to date; it is run at every start.

Alembic is imported only to migrate: it is a tenth of the memory of a process that has nothing else to do with it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

_FOLDER = Path(__file__).parent


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, all of them in one transaction."""
    with engine.begin() as connection:
        migrate_within(connection)


def migrate_within(connection: Connection) -> None:
    """The same within a transaction of the caller. What a newer version migrated stays as it is."""
    if not pending(connection):
        return
    from alembic import command  # noqa: PLC0415  see above
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@cache
def newest() -> str:
    """The revision of this version of the relay: the highest number among the files."""
    return max(path.name for path in (_FOLDER / "versions").glob("[0-9]*.py")).partition("_")[0]


def pending(connection: Connection) -> bool:
    """Whether the database lacks a migration of this version of the relay."""
    if not inspect(connection).has_table("alembic_version"):
        return True
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return max(found, default="") < newest()
