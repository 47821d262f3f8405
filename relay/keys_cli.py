"""The commands on the keys with which backends post events: `relay keys`. A running relay heeds them at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from relay import terminal
from relay.outbox_cli import Json
from relay.terminal import WRONG, fail, instant, out, show_json

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store.intake import IngestKey

keys = typer.Typer(help="Keys with which your backends may post events to the relay.", no_args_is_help=True)

_UNITS_MS = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@keys.command()
def create(
    *,
    project: Annotated[str | None, typer.Option(help="The project that it opens. Unset: the only one.")] = None,
    name: Annotated[str, typer.Option(help="Who will use it, for your own eyes.")] = "",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is good for: 90d, 12w, 24h. Unset: until revoked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key, and show it this once: only its hash is kept."""
    from relay.clock import unix_ms
    from relay.ingest_keys import new_key

    settings = terminal.load_settings(terminal.load_providers())
    opened = _project(settings, project)
    now_ms = unix_ms()
    token, key = new_key(opened, name=name, made_at_ms=now_ms, expires_at_ms=_until(expires, now_ms))
    terminal.run(_add(settings, key))
    if as_json:
        show_json({"key": token, **_row(key, now_ms)})
        return
    out.print(token, markup=False)
    terminal.err.print(f"It opens project {opened} ({key.id}), and is shown only now. Callers send it as "
                       '"Authorization: Bearer ...".', markup=False)  # fmt: skip


@keys.command(name="list")
def list_(*, as_json: Json = False) -> None:
    """Show the keys that were made here, revoked and expired ones too. RELAY_INGEST_KEYS are not among them."""
    from relay.clock import unix_ms

    settings = terminal.load_settings(terminal.load_providers())
    now_ms = unix_ms()
    rows = [_row(key, now_ms) for key in terminal.run(_all(settings))]
    if as_json:
        show_json(rows)
        return
    if not rows:
        out.print('There is none. "relay keys create" makes one.', markup=False)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value or "") for value in row.values()))
    out.print(table)


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help='As "relay keys list" shows it.')]) -> None:
    """Let a key open nothing any more."""
    settings = terminal.load_settings(terminal.load_providers())
    if not terminal.run(_revoke(settings, key_id)):
        fail(f"There is no key {key_id!r} that is not revoked already.")
    out.print(f"{key_id} opens nothing any more.", markup=False)


# --- with the store ---------------------------------------------------------------------------------------------------


async def _add(settings: Settings, key: IngestKey) -> None:
    from asyncio import to_thread

    from relay.store import is_shared, prepare, sqlite_path
    from relay.store.base import StoreUnavailableError

    url = settings.database_url.get_secret_value()
    if not is_shared(url) and not sqlite_path(url).exists():  # a key may be made before the relay's first start
        try:
            await to_thread(prepare, url)
        except StoreUnavailableError as error:
            fail(str(error))
    async with terminal.opened(settings) as store:
        await store.intake.add_key(key)


async def _all(settings: Settings) -> Sequence[IngestKey]:
    async with terminal.opened(settings) as store:
        return await store.intake.keys()


async def _revoke(settings: Settings, key_id: str) -> bool:
    async with terminal.opened(settings) as store:
        return await store.intake.revoke_key(key_id)


# --- in words ---------------------------------------------------------------------------------------------------------


def _project(settings: Settings, wanted: str | None) -> str:
    projects = list(dict.fromkeys(found.project_id for found in settings.destinations.values()))
    if wanted is None and len(projects) == 1:
        return projects[0]
    known = ", ".join(projects) or "none: set OAA_PROJECT_ID and OAA_API_KEY"
    if wanted is None:
        fail(f"Which project? Name it with --project. There are: {known}.", code=WRONG)
    if wanted not in projects:
        fail(f"No destination sends to the project {wanted!r}. There are: {known}.", code=WRONG)
    return wanted


def _until(expires: str | None, now_ms: int) -> int | None:
    if expires is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", expires)
    if found is None:
        fail(f"--expires {expires!r} is no time: 90d, 12w and 24h are.", code=WRONG)
    return now_ms + int(found[1]) * _UNITS_MS[found[2]]


def _row(key: IngestKey, now_ms: int) -> dict[str, Any]:
    state = "good" if key.opens(now_ms) else "revoked" if key.revoked_at_ms is not None else "expired"
    return {
        "id": key.id,
        "project": key.project,
        "name": key.name,
        "state": state,
        "made_at": instant(key.made_at_ms),
        "expires_at": instant(key.expires_at_ms),
        "revoked_at": instant(key.revoked_at_ms),
    }
