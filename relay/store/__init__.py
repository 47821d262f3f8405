"""The store: deliveries, keys, the outbox and its batches. `open_store` picks the backend by the URL's scheme."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from relay.ids import RowIds
from relay.store.backend import Inbox
from relay.store.base import Store, StoreUnavailableError
from relay.store.migrations import migrate
from relay.store.pacing import Pace
from relay.store.sql import SqlStore
from relay.store.turns import Turns
from relay.vault import Vault

if TYPE_CHECKING:
    from relay.store.bell import Bell

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
#: For so long a batch is settled again and again while the database is away, in seconds.
_SETTLES_FOR_S = 120


def is_shared(url: str) -> bool:
    """Whether any number of replicas may use this database at once."""
    return url.startswith(_POSTGRES)


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
    if is_shared(url):
        _prepare_postgres(url)
        return
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


def _prepare_postgres(url: str) -> None:
    from psycopg import Error  # noqa: PLC0415  only the backend in use is imported

    from relay.store.database import Database  # noqa: PLC0415
    from relay.store.preparing import prepare_postgres  # noqa: PLC0415

    try:
        prepare_postgres(Database(url))
    except (Error, SQLAlchemyError) as error:
        origin = str(getattr(error, "orig", None) or error).strip()
        msg = f"the database cannot be opened: {origin.splitlines()[0] if origin else type(error).__name__}"
        raise StoreUnavailableError(msg) from error


async def open_store(
    url: str,
    *,
    vault: Vault,
    clock: Callable[[], int],
    hold: bool = False,
    observe_group: Callable[[int], None] | None = None,
    node: int | None = None,
    pace: Pace | None = None,
    spool: Path | None = None,
    spool_min_free_mb: int = 0,
    shut: Callable[[], str | None] | None = None,
) -> Store:
    """Open the store at this URL, making and migrating it where needed.

    `hold`: keep batches that are in doubt for a person. `observe_group` is told the size of each commit group. `node`:
    the number of this process, where several take turns with one file, which is prepared already. `pace`: how fast each
    destination is called. `spool`: the file of what comes while a PostgreSQL is away, as long as so much of its disk is
    free. `shut`: somebody else prepares it, a PostgreSQL that may be away; until this says None, every verb raises
    `StoreUnavailableError` with what it says. Raises the same where the store cannot be written.
    """
    if is_shared(url):
        return await _open_postgres(
            url, vault=vault, clock=clock, hold=hold, observe_group=observe_group, pace=pace, spool=spool,
            spool_min_free_mb=spool_min_free_mb, shut=shut,
        )  # fmt: skip
    from relay.store.inbox import Inbox as FileInbox, inbox_path  # noqa: PLC0415  only the backend in use is imported
    from relay.store.sqlite import SQLiteStatements, open_engine  # noqa: PLC0415

    if node is None:
        await asyncio.to_thread(prepare, url)
    path, shares = sqlite_path(url), node is not None
    inbox, ids = inbox_path(path), RowIds(clock, node=node)
    return SqlStore(
        writing=open_engine(path),
        reading=open_engine(path, reading=True),
        statements=SQLiteStatements(),
        inbox=FileInbox(inbox, vault=vault.twin(), ids=ids.beside(), observe=observe_group,
                    turns=Turns(inbox) if shares else None),
        vault=vault,
        clock=clock,
        hold=hold,
        ids=ids,
        turns=Turns(path) if shares else None,
        pace=pace,
    )  # fmt: skip


async def _open_postgres(
    url: str,
    *,
    vault: Vault,
    clock: Callable[[], int],
    hold: bool,
    observe_group: Callable[[int], None] | None,
    pace: Pace | None,
    spool: Path | None,
    spool_min_free_mb: int,
    shut: Callable[[], str | None] | None,
) -> Store:
    from relay.store.database import Database  # noqa: PLC0415  only the backend in use is imported
    from relay.store.postgres import PostgresStatements, SharedRowIds, shared_vault  # noqa: PLC0415
    from relay.store.postgres_inbox import PostgresInbox  # noqa: PLC0415

    if shut is None:
        await asyncio.to_thread(prepare, url)
    database, ids = Database(url, shut=shut or (lambda: None)), SharedRowIds(clock)
    inbox: Inbox = (direct := PostgresInbox(database, vault=vault.twin(), ids=ids.beside(), observe=observe_group))
    if spool is not None:
        from relay.store.spool import Spool  # noqa: PLC0415

        try:
            inbox = Spool(
                direct, spool, vault=shared_vault(vault), ids=SharedRowIds(clock), min_free_mb=spool_min_free_mb
            )
        except StoreUnavailableError:
            await direct.close()
            raise
    return SqlStore(
        writing=database.engine(),
        reading=database.engine(kept=True),
        statements=PostgresStatements(),
        inbox=inbox,
        vault=shared_vault(vault),
        clock=clock,
        hold=hold,
        ids=ids,
        settles_for_s=_SETTLES_FOR_S,
        pace=pace,
    )


def open_bell(url: str) -> Bell:
    """The bell of the replicas on this database, for the event loop that runs."""
    from relay.store.bell import Bell  # noqa: PLC0415  only the backend in use is imported
    from relay.store.database import Database  # noqa: PLC0415

    return Bell(Database(url))
