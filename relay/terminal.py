"""What the commands share: settings that load or say why not, the store, and words for a person or for a script.

Results go to stdout (`--json`: one JSON document), everything else to stderr. Exit code 1 means that something was
found or did not succeed, 2 that the settings or the command line are wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:  # they cost a second, and `relay --help` shows nothing of them
    from relay.contract import Provider
    from relay.settings import Settings
    from relay.store.base import Store

T = TypeVar("T")

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

FOUND = 1
WRONG = 2

#: A table that goes into a file or a pipe is not squeezed into the width of a terminal.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def fail(words: str, *, code: int = FOUND) -> NoReturn:
    """Say why on stderr, and end with this exit code."""
    err.print(words, style="bold red", markup=False)
    raise typer.Exit(code)


def warn(words: str) -> None:
    err.print(f"Warning: {words}", style="bold yellow", markup=False)


def show_json(value: object) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def load_providers() -> Mapping[str, Provider]:
    """All providers, or the end with what is wrong."""
    from relay import registry, settings

    try:
        return settings.declare(registry.load_providers(settings.mappers_dir()))
    except (registry.RegistryError, settings.SettingsError) as error:
        fail(str(error), code=WRONG)


def load_settings(providers: Mapping[str, Provider]) -> Settings:
    """The settings, or the end with what is wrong."""
    from relay import settings

    try:
        return settings.load(providers)
    except settings.SettingsError as error:
        fail(str(error), code=WRONG)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the relay's event loop."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@contextlib.asynccontextmanager
async def opened(settings: Settings, *, reads_bodies: bool = False) -> AsyncIterator[Store]:
    """The store, which a running relay may have open as well; or the end with why not. It makes no database."""
    from relay import logs
    from relay.clock import unix_ms
    from relay.store import is_shared, open_store, sqlite_path
    from relay.store.base import StoreUnavailableError
    from relay.vault import VaultError

    logs.configure("console", "warning")
    url = settings.database_url.get_secret_value()
    if not is_shared(url) and not sqlite_path(url).exists():
        fail(f"There is no database at {sqlite_path(url)}: the relay has not run yet with these settings, or they name "
             "another file (RELAY_DATABASE_URL), or the command runs in another folder.", code=WRONG)  # fmt: skip
    try:
        vault = _vault(settings, reads_bodies=reads_bodies)
        store = await open_store(url, vault=vault, clock=unix_ms, hold=settings.in_doubt == "hold")
        try:
            yield store
        finally:
            await store.close()
    except (StoreUnavailableError, VaultError) as error:
        fail(str(error))


def _vault(settings: Settings, *, reads_bodies: bool) -> Any:
    """As the relay has it, but never with a new key file. Without a key: one that opens nothing, where that will do."""
    from relay.store import key_path
    from relay.vault import Vault, VaultError, key_file

    if settings.encryption_keys:
        return Vault([key.get_secret_value() for key in settings.encryption_keys])
    path = key_path(settings.database_url.get_secret_value())
    if path.exists():
        return Vault([key_file(path)[0]])
    if reads_bodies:
        msg = f"the key file {path} is missing: put it back, or set RELAY_ENCRYPTION_KEYS to the key that it held"
        raise VaultError(msg)
    return Vault([os.urandom(32)])


def moment(text: str, option: str, now_ms: int) -> int:
    """`7d` (ago), `now`, or an ISO date or time, in UTC where it does not say; as Unix milliseconds."""
    if text == "now":
        return now_ms
    if ago := re.fullmatch(r"(\d+)\s*([smhdw])", text):
        return now_ms - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r} is no time: write 7d, 36h or 90m (ago), 2026-11-01 or 2026-11-01T12:00Z.", code=WRONG)
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def ago(text: str, option: str) -> int:
    """`7d`, `36h`, `90m`, `30s` as milliseconds."""
    if found := re.fullmatch(r"(\d+)\s*([smhdw])", text):
        return int(found[1]) * _UNITS_MS[found[2]]
    fail(f"{option} {text!r} is no span of time: write 30m, 2h or 1d.", code=WRONG)


async def note(store: Store, action: str, subject: str = "", **details: Any) -> None:
    """Put what was done here into the audit log, beside what was done at the console."""
    import getpass

    try:
        who = getpass.getuser()
    except (OSError, KeyError):
        who = str(os.getuid())
    await store.console.note(actor=f"{who} (terminal)", action=action, subject=subject, details=details)


def instant(at_ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601 in UTC, to the second."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_here(host: str | None) -> bool:
    """Whether this host is the machine itself, which is not behind the proxy that the environment may name."""
    return host in {"127.0.0.1", "localhost", "::1"}


def base_url(settings: Settings) -> str:
    """Where a relay with these settings is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  not to bind to
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def own_name() -> str:
    """How this command was called, for commands that can be copied: `relay`, `.venv/bin/relay`, `python -m relay`."""
    called = Path(sys.argv[0])
    return "python -m relay" if called.name == "__main__.py" else sys.argv[0] or "relay"
