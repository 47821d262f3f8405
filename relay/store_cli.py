"""`relay migrate` and `relay store`: the tables, how much they hold, and the way from an SQLite file to PostgreSQL."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json, print_table
from relay.terminal import WRONG, fail, instant, out, show_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.base import Depth, InboxDepth
    from relay.store.moving import Moved, Progress

store = typer.Typer(help="The store: how much it holds, and its move to PostgreSQL.", no_args_is_help=True)

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1000


def migrate(*, as_json: Json = False) -> None:
    """Make the tables of the store, or bring them up to date. Every start does so too: this is for doing it before.

    Several may run at once, and relays of the version before may go on: a new version adds first, and takes away only
    in a later one.
    """
    from relay.store import prepare
    from relay.store.base import StoreUnavailableError
    from relay.store.migrations import newest

    settings = terminal.load_settings(terminal.load_providers())
    try:
        prepare(settings.database_url.get_secret_value())
    except StoreUnavailableError as error:
        fail(str(error))
    if as_json:
        show_json({"revision": newest()})
    else:
        out.print(f"The store is up to date: revision {newest()}.")


# --- stats ------------------------------------------------------------------------------------------------------------


@store.command()
def stats(*, as_json: Json = False) -> None:
    """Show what is not done yet, and the rows and bytes of each table.

    Bytes are those on disk, with indexes. On PostgreSQL the rows of a large table are an estimate (~).
    """
    from relay.store.base import StoreUnavailableError
    from relay.store.stats import table_sizes

    settings = terminal.load_settings(terminal.load_providers())
    inbox, outbox = terminal.run(_depths(settings))
    try:
        tables = table_sizes(settings.database_url.get_secret_value())
    except StoreUnavailableError as error:
        fail(str(error))
    if as_json:
        show_json({
            "inbox": {"deliveries": inbox.deliveries, "oldest": instant(inbox.oldest_ms)},
            "outbox": [_unsent(depth) for depth in outbox],
            "tables": [asdict(one) for one in tables],
        })  # fmt: skip
        return
    out.print(f"Inbox: {inbox.deliveries:,} deliveries are not mapped yet{_since(inbox.oldest_ms)}.")
    for depth in outbox:
        row = _unsent(depth)
        out.print(f"Outbox of {depth.destination}: {row['unsent']:,} events are not sent{_since(depth.oldest_ms)}, "
                  f"{depth.dead:,} are dead letters.", markup=False)  # fmt: skip
    out.print()
    print_table([
        {"table": one.table, "rows": f"{'~' if one.is_estimate else ''}{one.rows:,}", "size": _size(one.bytes)}
        for one in tables
    ])  # fmt: skip
    known = [one.bytes for one in tables if one.bytes is not None]
    if known:
        out.print(f"\nTogether: {_size(sum(known))}")


async def _depths(settings: Any) -> tuple[InboxDepth, Sequence[Depth]]:
    async with terminal.opened(settings) as opened:
        return await opened.inbox_depth(), await opened.depths()


def _unsent(depth: Depth) -> dict[str, Any]:
    return {
        "destination": depth.destination,
        "unsent": depth.pending + depth.batched + depth.waiting + depth.held,
        "waiting": depth.waiting,
        "held": depth.held,
        "dead": depth.dead,
        "oldest": instant(depth.oldest_ms),
    }


def _since(at_ms: int | None) -> str:
    return "" if at_ms is None else f" (the oldest of {instant(at_ms)})"


def _size(size: int | None) -> str | None:
    if size is None:
        return None
    left, place = float(size), 0
    while left >= _STEP and place < len(_UNITS) - 1:
        left, place = left / _STEP, place + 1
    return f"{left:.0f} {_UNITS[place]}" if place == 0 else f"{left:.1f} {_UNITS[place]}"


# --- moving -----------------------------------------------------------------------------------------------------------


@store.command()
def move(
    *,
    source: Annotated[str, typer.Option("--from", metavar="sqlite:///FILE", help="The store as it is.")],
    target: Annotated[str, typer.Option("--to", metavar="postgresql://...", help="An empty database.")],
    as_json: Json = False,
) -> None:
    """Move the store from an SQLite file to PostgreSQL. Stop the relay first; start the replicas afterwards.

    The file stays as it is. Where the move is cut off, the same command goes on. At its end both sides are compared,
    row by row. Then set RELAY_DATABASE_URL to the new one, and RELAY_ENCRYPTION_KEYS to the key that the bodies are
    encrypted with.
    """
    from relay import app as relay_app, logs
    from relay.clock import unix_ms
    from relay.store import is_shared, sqlite_path
    from relay.store.base import StoreUnavailableError
    from relay.store.moving import MoveError, key_file_of, move as move_store

    logs.configure("console", "warning")
    try:
        path = sqlite_path(source)
    except ValueError:
        fail("--from must be sqlite:///path/to/relay.db.", code=WRONG)
    if not is_shared(target):
        fail("--to must be postgresql://user:password@host/database.", code=WRONG)
    if not path.exists():
        fail(f"There is no database at {path}.", code=WRONG)
    shown: dict[str, int] = {}

    def tell(progress: Progress) -> None:
        """Now and then, and on stderr."""
        tenth = progress.done * 10 // max(progress.total, 1)
        if shown.get(progress.table) != tenth:
            shown[progress.table] = tenth
            terminal.err.print(f"{progress.table}: {progress.done:,} of {progress.total:,}", markup=False)

    try:
        with relay_app.alone(path):
            moved = move_store(source, target, now_ms=unix_ms, tell=tell)
    except (MoveError, StoreUnavailableError) as error:
        fail(str(error))
    _say_moved(moved, None if (key := key_file_of(source)) is None else str(key), as_json=as_json)


def _say_moved(moved: Sequence[Moved], key: str | None, *, as_json: bool) -> None:
    rows = sum(one.rows for one in moved)
    if as_json:
        show_json({"rows": rows, "tables": [asdict(one) for one in moved], "key_file": key})
        return
    print_table([{"table": one.table, "rows": one.rows} for one in moved])
    out.print(f"\n{rows:,} rows are on both sides, and they are the same.")
    if key is not None:
        out.print(f"The bodies are encrypted with the key in {key}: put its content into RELAY_ENCRYPTION_KEYS of "
                  "every replica, or they cannot be read.", markup=False)  # fmt: skip
