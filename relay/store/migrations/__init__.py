"""Migrations of the store, by Alembic. `migrate` brings a database up to date; it is run at every start."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, all of them in one transaction."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), "head")


@cache
def _heads() -> frozenset[str]:
    return frozenset(ScriptDirectory.from_config(_config()).get_heads())


def pending(connection: Connection) -> bool:
    """Whether the database lacks a migration of this version of the relay."""
    return set(MigrationContext.configure(connection).get_current_heads()) != _heads()
