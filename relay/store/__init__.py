"""The store: deliveries, keys, the outbox and its batches. `open_store` picks the backend by the URL's scheme."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from relay.store.base import Store, StoreUnavailableError
from relay.store.migrations import migrate
from relay.store.sql import SqlStore
from relay.vault import Vault

_SQLITE = "sqlite:///"


def sqlite_path(url: str) -> Path:
    """The file of an SQLite URL. Raises `ValueError` for any other URL."""
    if not url.startswith(_SQLITE):
        msg = f"{url.split(':', 1)[0]!r} is not a database that the relay knows; use sqlite:///path/to/relay.db"
        raise ValueError(msg)
    return Path(url[len(_SQLITE) :])


def key_path(url: str) -> Path:
    """The key file that is made beside the file of an SQLite URL where no keys are configured."""
    database = sqlite_path(url)
    return database.with_name(database.name + ".key")


async def open_store(
    url: str,
    *,
    vault: Vault,
    clock: Callable[[], int],
    hold: bool = False,
    observe_group: Callable[[int], None] | None = None,
) -> Store:
    """Open the store at this URL, making and migrating it where needed.

    `hold`: keep batches that are in doubt for a person. `observe_group` is told the size of each commit group. Raises
    `StoreUnavailableError` with the reason where it cannot be written.
    """
    from relay.store.sqlite import SQLiteStatements, open_engine  # noqa: PLC0415  only the backend in use is imported

    path = sqlite_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = open_engine(path)
        await asyncio.to_thread(migrate, writing)
    except (OSError, SQLAlchemyError) as error:
        msg = f"the store at {path} cannot be opened: {getattr(error, 'orig', None) or error}"
        raise StoreUnavailableError(msg) from error
    return SqlStore(
        writing=writing,
        reading=open_engine(path, reading=True),
        statements=SQLiteStatements(),
        vault=vault,
        clock=clock,
        hold=hold,
        observe_group=observe_group,
    )
