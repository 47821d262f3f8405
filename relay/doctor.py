"""`relay doctor`: what stands between these settings and webhooks that arrive as events, and what to do about it.

In: providers and settings. Out: findings, each ok, a warning or a problem. Nothing is changed: the store is opened
beside a running relay and only read, and the destination gets a batch without events.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import httpx
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import SQLAlchemyError

from relay.contract import Provider
from relay.openanalytics import Check, Finding as Answer, OpenAnalytics
from relay.settings import Settings
from relay.sources import Destination, Source
from relay.store import asks, is_shared, key_path, migrations, sqlite_path
from relay.store.base import StoreUnavailableError
from relay.store.desk import Desk
from relay.store.schema import bundles, deliveries
from relay.store.sqlite import open_engine
from relay.terminal import base_url, instant, is_here
from relay.variables import api_key_variable, secret_variable
from relay.vault import Vault, VaultError, key_file

Clock = Callable[[], int]

_MB = 1_000_000
_PATIENCE_S = 5.0
#: What a replica and those who look after the database need beside those that run.
_SPARE_CONNECTIONS = 10
_SERVER = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
    "current_setting('max_connections')::int, pg_is_in_recovery()"
)
#: A `Date` header tells whole seconds.
_SKEW_OK_MS = 5_000
_NOT_FOR_OTHERS = 0o077


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    level: Level
    #: What was looked at: `store`, `source stripe`.
    subject: str
    #: What was seen, in one sentence.
    words: str
    #: What to do about it; empty where all is well.
    remedy: str = ""


def ok(subject: str, words: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, words=words)


def warning(subject: str, words: str, remedy: str) -> Finding:
    return Finding(level=Level.WARNING, subject=subject, words=words, remedy=remedy)


def problem(subject: str, words: str, remedy: str) -> Finding:
    return Finding(level=Level.PROBLEM, subject=subject, words=words, remedy=remedy)


async def examine(settings: Settings, providers: Mapping[str, Provider], *, clock: Clock) -> AsyncIterator[Finding]:
    """Everything, in the order in which it matters."""
    yield ok("settings", "they are valid")
    for words in settings.warnings:
        yield warning("settings", words, "Correct it, if it is not meant.")
    for finding in _sources(settings, providers):
        yield finding
    look = _shared_store if is_shared(settings.database_url.get_secret_value()) else _store
    for finding in await asyncio.to_thread(lambda: [*look(settings)]):
        yield finding
    if not settings.destinations:
        yield problem(
            "destination",
            "there is none, so no event can leave",
            "Set OAA_API_KEY and OAA_PROJECT_ID; to try without, use the sandbox of relay serve --demo.",
        )
    for destination in settings.destinations.values():
        check = await _check(destination)
        yield _judged(destination, check)
        if check.finding is not Answer.UNREACHABLE:
            yield await _skew(destination, clock)
    yield await _address(settings)


# --- sources ----------------------------------------------------------------------------------------------------------


def _sources(settings: Settings, providers: Mapping[str, Provider]) -> Iterator[Finding]:
    if not settings.sources:
        known = ", ".join(secret_variable(name) for name in providers)
        yield warning("sources", "none is switched on, so no webhook is taken", f"Set the secret of one: {known}.")
    for source in settings.sources.values():
        yield _source(source, providers[source.provider])
        yield from _asking(source, providers[source.provider])


def _source(source: Source, provider: Provider) -> Finding:
    subject = f"source {source.slug}"
    for number, secret in enumerate(source.secrets, 1):
        fault = provider.verifier.fault(secret.get_secret_value())
        if fault is not None:
            return problem(subject, f"secret {number} {fault}", provider.secret.meaning)
    if provider.verifier.signs_url and not source.public_url:
        return problem(
            subject,
            f"{provider.title} signs the URL that it calls, and the relay is not told what that is",
            "Set RELAY_PUBLIC_URL (or public_url of the source in relay.toml) to what was typed at the provider.",
        )
    count = f"{len(source.secrets)} secrets" if len(source.secrets) > 1 else "1 secret"
    test = "dropped" if source.test_destination is None else f"sent to {source.test_destination}"
    return ok(subject, f"{count}, events go to {source.destination}, those of test mode are {test}")


def _asking(source: Source, provider: Provider) -> Iterator[Finding]:
    """Whether the provider can be asked for what its notifications leave out."""
    if provider.api is not None and provider.api.is_needed and source.api_key is None:
        name = api_key_variable(provider.name)
        yield warning(
            f"source {source.slug}",
            f"{provider.title} leaves out what only its API tells, and there is no key to ask with: what cannot be "
            "mapped without is kept",
            f"Set {name} (or api_key of the source in relay.toml).",
        )


# --- store ------------------------------------------------------------------------------------------------------------


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = sqlite_path(settings.database_url.get_secret_value()).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // _MB
    words = f"{free} MB are free at {folder}"
    if free < settings.min_free_disk_mb:
        yield problem(
            "disk",
            f"{words}; below {settings.min_free_disk_mb} MB providers are told to come later",
            "Make room, or lower RELAY_MIN_FREE_DISK_MB or RELAY_RETAIN_BODIES_DAYS.",
        )
    elif free < 2 * settings.min_free_disk_mb:
        yield warning("disk", f"{words}; below {settings.min_free_disk_mb} MB nothing is taken any more", "Make room.")
    else:
        yield ok("disk", words)


def _store(settings: Settings) -> Iterator[Finding]:
    yield from _disk(settings)
    path = sqlite_path(settings.database_url.get_secret_value())
    if not path.exists():
        yield from _store_to_be(path)
        return
    engine, reading = open_engine(path), open_engine(path, reading=True)
    try:
        yield _writable(engine, path)
        with reading.connect() as connection:
            yield from _contents(connection, settings)
    except (OSError, SQLAlchemyError) as error:
        yield problem("store", f"{path} cannot be read: {getattr(error, 'orig', None) or error}", "See that it can.")
    finally:
        engine.dispose()
        reading.dispose()


def _shared_store(settings: Settings) -> Iterator[Finding]:
    from relay.store.database import Database  # noqa: PLC0415  the driver is not loaded where it is not needed

    database = Database(settings.database_url.get_secret_value())
    try:
        with database.engine().connect() as connection:
            used, most, is_read_only = connection.execute(text(_SERVER)).one()
            words = f"the database answers; {used} of its {most} connections are in use"
            if is_read_only:
                yield problem("store", "the database is read-only", "Name the primary in RELAY_DATABASE_URL.")
            elif most - used < _SPARE_CONNECTIONS:
                yield warning("store", words, "Raise max_connections, or put a pooler before it: docs/scaling.md.")
            else:
                yield ok("store", words)
            if database.is_pooled:
                yield ok("store", "it is behind a pooler: replicas poll once a second in place of being woken")
            yield from _contents(connection, settings)
    except (OSError, SQLAlchemyError, StoreUnavailableError) as error:
        said = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
        yield problem("store", f"the database cannot be used: {said}",
                      "See that it runs, and that RELAY_DATABASE_URL is right.")  # fmt: skip


def _contents(connection: Connection, settings: Settings) -> Iterator[Finding]:
    if migrations.pending(connection):
        yield warning("store", "its tables are not those of this version", "relay serve migrates at its start.")
        return
    yield ok("store", "its tables are those of this version")
    yield _bodies(connection, settings)
    yield from _outbox(connection, settings)
    yield from _to_do(connection)


def _store_to_be(path: Path) -> Iterator[Finding]:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        probe = folder / f".{path.name}.probe"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        yield problem(
            "store",
            f"{path} is not there and cannot be made: {error.strerror} in {folder}",
            "Let the relay's user write there, or set RELAY_DATABASE_URL to another file.",
        )
    else:
        yield ok("store", f"{path} is not there yet; relay serve makes it")


def _writable(engine: Engine, path: Path) -> Finding:
    """Begins to write and leaves it at that; a running relay waits for a moment at most."""
    try:
        with engine.connect() as connection:
            connection.execute(select(1))
            connection.rollback()
    except SQLAlchemyError as error:
        return problem(
            "store",
            f"{path} cannot be written: {getattr(error, 'orig', None) or error}",
            "Let the relay's user write the file and its folder; see that nothing else holds it locked.",
        )
    return ok("store", f"{path} can be written")


#: The newest sealed row of both kinds.
_NEWEST = [
    select(table.c.id, table.c.content).where(table.c.content.is_not(None)).order_by(table.c.id.desc()).limit(1)
    for table in (deliveries, bundles)
]


def _bodies(connection: Connection, settings: Settings) -> Finding:
    subject = "encryption"
    remedy = "Put back the key that it was written with: into RELAY_ENCRYPTION_KEYS behind the new one, or as the file."
    url = settings.database_url.get_secret_value()
    path = Path() if is_shared(url) else key_path(url)
    try:
        if settings.encryption_keys:
            vault = Vault([key.get_secret_value() for key in settings.encryption_keys])
        elif path.exists():
            vault = Vault([key_file(path)[0]])
        else:
            return problem(subject, f"the key file {path} is missing", remedy)
        newest = max(filter(None, (connection.execute(each).first() for each in _NEWEST)), default=None)
        if newest is not None:
            vault.open(newest.content, row=newest.id)
    except (OSError, VaultError) as error:
        return problem(subject, f"the newest body at rest does not open: {error}", remedy)
    if not settings.encryption_keys and path.stat().st_mode & _NOT_FOR_OTHERS:
        return warning(subject, f"the key file {path} is readable for others", f"chmod 600 {path}")
    return ok(subject, "no body is kept yet" if newest is None else "the key opens the newest body at rest")


def _to_do(connection: Connection) -> Iterator[Finding]:
    for source, number in asks.waiting(connection).items():
        yield warning(
            f"source {source}",
            f"notifications that wait until the provider's API can be asked about them: {number}",
            "Is its API key set, and right? The log of relay serve says what the API answers.",
        )


def _outbox(connection: Connection, settings: Settings) -> Iterator[Finding]:
    for depth in Desk(dialect=connection.dialect.name, vault=Vault([bytes(32)])).depths(connection):
        subject = f"outbox {depth.destination}"
        if depth.held:
            yield warning(
                subject, f"{depth.held} events are in doubt and held", 'See "relay outbox", and release their batches.'
            )
        if depth.dead:
            yield warning(
                subject, f"{depth.dead} dead letters", 'See "relay dead list"; resend them when the reason is gone.'
            )
        pending = depth.pending + depth.batched - depth.held
        since = f", the oldest since {instant(depth.oldest_ms)}" if depth.oldest_ms else ""
        if pending and depth.destination not in settings.destinations:
            yield warning(
                subject,
                f"{pending} events wait for a destination that the settings do not have{since}",
                "Configure a destination of this name, or see that these settings are the relay's.",
            )
        else:
            yield ok(subject, f"{pending} events are not yet accepted{since}" if pending else "nothing is left to send")


# --- the network ------------------------------------------------------------------------------------------------------


async def _check(destination: Destination) -> Check:
    client = OpenAnalytics(
        destination.base_url,
        destination.project_id,
        destination.api_key.get_secret_value(),
        timeout_s=destination.timeout_s,
        batch_body=destination.batch_body,
    )
    async with client:
        return await client.check()


def _judged(destination: Destination, check: Check) -> Finding:
    subject, where = f"destination {destination.name}", destination.base_url
    match check.finding:
        case Answer.READY:
            return ok(subject, f"{where} {check.words}")
        case Answer.KEY_REFUSED:
            remedy = "Copy the API key of this project again (OAA_API_KEY, or api_key in relay.toml)."
            return problem(subject, f"{where} refuses the key: {check.words}", remedy)
        case Answer.NOT_FOUND:
            remedy = "Check the project's id (OAA_PROJECT_ID) and the base URL (OAA_BASE_URL)."
            return problem(subject, f"{where} does not know project {destination.project_id}: {check.words}", remedy)
        case Answer.UNWELL:
            remedy = "Check OAA_BASE_URL. If that is right, the relay keeps the events and tries again by itself."
            return problem(subject, f"{where} answers in an odd way: {check.words}", remedy)
        case Answer.UNREACHABLE:
            remedy = "Check OAA_BASE_URL, DNS, the firewall and the proxy. Until then the relay keeps the events."
            return problem(subject, f"{where} cannot be reached: {check.words}", remedy)


async def _skew(destination: Destination, clock: Clock) -> Finding:
    """Our clock beside the `Date` of the destination's answer: signatures of providers carry a time."""
    trusts_proxy = not is_here(httpx.URL(destination.base_url).host)
    before_ms = clock()
    try:
        async with httpx.AsyncClient(timeout=_PATIENCE_S, trust_env=trusts_proxy) as http:
            date = (await http.head(destination.base_url)).headers["date"]
        theirs_ms = int(parsedate_to_datetime(date).timestamp() * 1000) + 500
    except (httpx.HTTPError, KeyError, ValueError):
        return warning("clock", f"{destination.base_url} told no time to compare with", "See that NTP is running.")
    ahead_ms = (before_ms + clock()) // 2 - theirs_ms
    if abs(ahead_ms) <= _SKEW_OK_MS:
        return ok("clock", f"it agrees with that of {destination.base_url}")
    words = f"it is {abs(ahead_ms) // 1000} s {'ahead of' if ahead_ms > 0 else 'behind'} that of {destination.base_url}"
    return problem("clock", words, "Set it by NTP: webhooks whose signed time is too far from ours are refused.")


async def _address(settings: Settings) -> Finding:
    """Either nobody listens there yet, or it is a relay."""
    subject, url = "address", base_url(settings)
    if settings.port == 0:
        return ok(subject, "any free port will do")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
    else:
        return ok(subject, f"{settings.host}:{settings.port} is free; no relay runs there now")
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE_S, trust_env=False) as http:
            said = (await http.get("/readyz")).json()
            status, why = said["status"], said["reason"]
            paused = [f"{name}: {one['reason']}" for name, one in said["destinations"].items() if "reason" in one]
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        remedy = "Stop what listens there, or set RELAY_HOST and RELAY_PORT to another address."
        return problem(
            subject, f"{settings.host}:{settings.port} cannot be had, and no relay answers: {reason}", remedy
        )
    match status:
        case "ok":
            return ok(subject, f"a relay answers at {url}, and is well")
        case "degraded":
            remedy = "Correct what the destination complains about; the relay goes on by itself."
            return warning(subject, f"a relay answers at {url}; paused: {'; '.join(paused)}", remedy)
        case _:
            return problem(
                subject, f"a relay answers at {url}, and takes no webhooks: {why}", "Do away with the reason."
            )
