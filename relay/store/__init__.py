"""The store: deliveries, keys, the outbox and its batches. `open_store` picks the backend by the URL's scheme."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from relay.ids import RowIds
from relay.store.base import Store, StoreUnavailableError
from relay.store.migrations import migrate
from relay.store.sql import SqlStore
from relay.store.turns import Turns
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


def prepare(url: str) -> None:
    """Make and migrate the store at this URL where needed.

    Raises `StoreUnavailableError` with the reason where it cannot be written. Leaves no connection and no thread.
    """
    from relay.store.inbox import prepare_inbox  # noqa: PLC0415  only the backend in use is imported
    from relay.store.sqlite import open_engine  # noqa: PLC0415

    path = sqlite_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        migrate(open_engine(path))
        prepare_inbox(path)
    except (OSError, SQLAlchemyError) as error:
        msg = f"the store at {path} cannot be opened: {getattr(error, 'orig', None) or error}"
        raise StoreUnavailableError(msg) from error


async def open_store(
    url: str,
    *,
    vault: Vault,
    clock: Callable[[], int],
    hold: bool = False,
    observe_group: Callable[[int], None] | None = None,
    node: int | None = None,
) -> Store:
    """Open the store at this URL, making and migrating it where needed.

    `hold`: keep batches that are in doubt for a person. `observe_group` is told the size of each commit group. `node`:
    the number of this process, where several take turns with one file, which is prepared already. Raises
    `StoreUnavailableError` with the reason where it cannot be written.
    """
    from relay.store.inbox import Inbox, inbox_path  # noqa: PLC0415  only the backend in use is imported
    from relay.store.sqlite import SQLiteStatements, open_engine  # noqa: PLC0415

    if node is None:
        await asyncio.to_thread(prepare, url)
    path, shares = sqlite_path(url), node is not None
    inbox, ids = inbox_path(path), RowIds(clock, node=node)
    return SqlStore(
        writing=open_engine(path),
        reading=open_engine(path, reading=True),
        statements=SQLiteStatements(),
        inbox=Inbox(inbox, vault=vault.twin(), ids=ids.beside(), observe=observe_group,
                    turns=Turns(inbox) if shares else None),
        vault=vault,
        clock=clock,
        hold=hold,
        ids=ids,
        turns=Turns(path) if shares else None,
    )  # fmt: skip
