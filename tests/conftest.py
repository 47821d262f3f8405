"""Real parts for tests: a store on disk, the events API's sandbox behind a socket, a clock that is set."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from relay import sandbox
from relay.app import RelayApp, create_app, shares_store
from relay.contract import Provider
from relay.replicas import create_replica
from relay.serving import serving
from relay.settings import load
from relay.store import is_shared, open_store
from relay.store.base import Store
from relay.trust import trusted
from relay.vault import Vault
from tests import acme, postgres_server
from tests.things import Clock

API_KEY = "oa_live_of_the_tests"
STORE_KEY = b"k" * 32


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hold() -> bool:
    """Whether the store keeps batches in doubt for a person; a test class may say otherwise."""
    return False


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an empty database. Skips where there is no server."""
    with postgres_server.server() as server, postgres_server.database(server, f"relay_test_{os.getpid()}") as url:
        yield url


@pytest.fixture
def backend() -> str:
    """Of the store; a module may parametrise it. `TEST_BACKEND=postgresql` tries the others with that one."""
    return os.environ.get("TEST_BACKEND", "sqlite")


@pytest.fixture
def database_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Of an empty store."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    url: str = request.getfixturevalue("postgres")
    postgres_server.empty(url)
    return url


@pytest.fixture
def store_variables(database_url: str) -> dict[str, str]:
    """What a relay is told of that store."""
    keys = {"RELAY_ENCRYPTION_KEYS": b64encode(STORE_KEY).decode()} if is_shared(database_url) else {}
    return {"RELAY_DATABASE_URL": database_url, **keys}


@pytest.fixture
async def store(database_url: str, clock: Clock, hold: bool) -> AsyncIterator[Store]:  # noqa: FBT001
    opened = await open_store(database_url, vault=Vault([STORE_KEY]), clock=clock, hold=hold)
    yield opened
    await opened.close()


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """Whatever level another test has set."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@dataclass
class EventsApi:
    """The sandbox, as a test sees it."""

    url: str
    http: httpx.AsyncClient

    async def received(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = (await self.http.get("/received")).json()
        return events

    async def orders(self) -> list[str]:
        return [event["properties"]["order_id"] for event in await self.received()]

    async def misbehave(self, **faults: Any) -> None:
        (await self.http.put("/faults", json=faults)).raise_for_status()

    async def behave(self) -> None:
        (await self.http.delete("/faults")).raise_for_status()

    async def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = (await self.http.get("/stats")).json()
        return stats


@pytest.fixture
async def events_api() -> AsyncIterator[EventsApi]:
    async with (
        serving(sandbox.create_app(api_key=API_KEY, project_id="42")) as served,
        httpx.AsyncClient(base_url=served.url, verify=trusted()) as http,
    ):
        yield EventsApi(served.url, http)


@dataclass
class RunningRelay:
    """A relay that listens on a socket and forwards to the sandbox."""

    app: RelayApp
    url: str
    http: httpx.AsyncClient
    database: Path

    async def post(self, body: Any, *, source: str = "acme", headers: dict[str, str] | None = None) -> httpx.Response:
        """POST as Acme would, signed; bytes go as they are. What was taken is mapped when this returns."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = await self.http.post(f"/webhooks/{source}", content=raw, headers=headers or acme.signed(raw))
        await until(self.is_mapped)
        return answer

    async def is_mapped(self) -> bool:
        """Whether the inbox is empty."""
        return not await self.store.inbox(limit=1)

    async def metric(self, name: str, **labels: str) -> float:
        """A metric, as Prometheus would scrape it."""
        text = (await self.http.get("/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    @property
    def store(self) -> Store:
        store: Store = self.app.state.store
        return store


RunRelay = Callable[..., AbstractAsyncContextManager[RunningRelay]]


@pytest.fixture
def run_relay(tmp_path: Path, events_api: EventsApi, clock: Clock, store_variables: dict[str, str]) -> RunRelay:
    """Starts a relay with a source `acme`; keyword arguments are settings as the environment would hold them."""

    @asynccontextmanager
    async def run(providers: dict[str, Provider] | None = None, **variables: str) -> AsyncIterator[RunningRelay]:
        known = providers or {"acme": acme.make()}
        environ = {
            "RELAY_ACME_SECRET": acme.SECRET,
            **store_variables,
            "OAA_BASE_URL": events_api.url,
            "OAA_PROJECT_ID": "42",
            "OAA_API_KEY": API_KEY,
            **variables,
        }
        settings = load(known, environ=environ, env_file=tmp_path / ".env")
        app = (create_replica if shares_store(settings) else create_app)(settings, known, clock=clock)
        async with serving(app) as served, httpx.AsyncClient(base_url=served.url, verify=trusted()) as http:
            yield RunningRelay(app, served.url, http, tmp_path / "relay.db")

    return run


@pytest.fixture
async def relay(run_relay: RunRelay) -> AsyncIterator[RunningRelay]:
    async with run_relay() as running:
        yield running


async def until(condition: Callable[[], Awaitable[bool]], *, tries: int = 1000) -> None:
    """Wait until something is seen to be so; fail when it never is."""
    for _ in range(tries):
        if await condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it never came to be")
