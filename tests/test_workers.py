"""Several processes that are one relay: what is acknowledged, counted and sent is as with one, whoever of them dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.serving import StartError, listen
from tests import acme
from tests.commands import Commands, Ended, Serving, mount_acme
from tests.conftest import API_KEY, EventsApi, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket is not spread over processes evenly"),
]


@dataclass
class Crew:
    """A relay of two workers, a forwarding process and their parent."""

    serving: Serving
    port: int
    database: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.serving.process.pid

    @property
    def children(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.pid).children()}

    async def get(self, path: str) -> httpx.Response:
        """Over a connection of its own, that may lead to any of the workers."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            return await http.get(self.url + path)

    async def post(self, number: int | str) -> httpx.Response:
        raw = orjson.dumps(acme.captured(number))
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            return await http.post(f"{self.url}/webhooks/acme", content=raw, headers=acme.signed(raw))

    async def workers(self) -> set[int]:
        """The processes that answer."""
        answers = await asyncio.gather(*(self.get("/readyz") for _ in range(24)))
        return {answer.json()["pid"] for answer in answers}

    async def metrics(self) -> dict[str, float]:
        """By name and the values of the labels, sorted by their names."""
        text = (await self.get("/metrics")).text
        return {
            " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def events(self) -> int:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


Begin = Callable[..., AbstractAsyncContextManager[Crew]]


@pytest.fixture
def command(tmp_path: Path, events_api: EventsApi) -> Commands:
    return Commands(
        tmp_path,
        {
            **mount_acme(tmp_path),
            "RELAY_ACME_SECRET": acme.SECRET,
            "RELAY_DATABASE_URL": f"sqlite:///{tmp_path / 'relay.db'}",
            "RELAY_PORT": "0",
            "RELAY_WORKERS": "2",
            "OAA_BASE_URL": events_api.url,
            "OAA_PROJECT_ID": "42",
            "OAA_API_KEY": API_KEY,
        },
    )


@pytest.fixture
def begin(command: Commands, tmp_path: Path) -> Begin:
    @asynccontextmanager
    async def run(**variables: str) -> AsyncIterator[Crew]:
        async with command.serving("serve", says="Listening on", **variables) as serving:
            port = int(serving.out.split("http://127.0.0.1:")[1].split()[0])
            yield Crew(serving, port, tmp_path / "relay.db")

    return run


@pytest.fixture
async def crew(begin: Begin) -> AsyncIterator[Crew]:
    async with begin() as crew:
        yield crew
    assert 0 == crew.serving.code


def seen(look: Callable[[], Awaitable[Any]], expected: Any) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return bool(await look() == expected)

    return is_so


async def test_both_receive_and_what_they_count_is_one_sum(crew: Crew, events_api: EventsApi) -> None:
    workers = await crew.workers()
    os.kill(min(workers), signal.SIGINT)  # Ctrl-C reaches every process of a terminal; the parent alone obeys
    answers = await asyncio.gather(*(crew.post(number) for number in range(40)))

    assert {200} == {answer.status_code for answer in answers}
    await until(seen(lambda: _counts(crew), (40, 40, 0, 40)))
    for _ in range(6):  # whichever of them is asked
        assert (40, 40, 0, 40) == await _counts(crew)
    assert 40 == len(await events_api.orders()) == len(set(await events_api.orders()))
    assert workers == await crew.workers()
    assert workers < crew.children
    assert 3 == len(crew.children)
    metrics = await crew.metrics()
    assert 0 == metrics["relay_destination_paused default"]
    assert 40 == metrics["relay_commit_group_size_sum"]
    assert psutil.Process(crew.pid).memory_info().rss < metrics["process_resident_memory_bytes"]


async def test_the_same_webhook_at_both_at_once_becomes_one_event(crew: Crew, events_api: EventsApi) -> None:
    raw = orjson.dumps(acme.captured(1))
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=crew.url, trust_env=False, limits=limits, timeout=20) as http:
        answers = await asyncio.gather(
            *(http.post("/webhooks/acme", content=raw, headers=acme.signed(raw)) for _ in range(200))
        )

    assert {200} == {answer.status_code for answer in answers}
    await until(seen(lambda: _counts(crew), (200, 1, 199, 1)))
    assert ["pay_1"] == await events_api.orders()


async def _counts(crew: Crew) -> tuple[float, ...]:
    """Deliveries, events, repeated notifications, events that were sent; a worker tells the others within a second."""
    metrics = await crew.metrics()
    return (
        metrics.get("relay_deliveries_total accepted acme", 0),
        metrics.get("relay_events_total acme", 0),
        metrics.get("relay_notifications_total repeated acme", 0),
        metrics.get("relay_events_sent_total default", 0),
    )


async def test_a_worker_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(
    crew: Crew, events_api: EventsApi
) -> None:
    workers = await crew.workers()
    acknowledged: set[str] = set()
    is_over = asyncio.Event()

    async def send(first: int) -> None:
        number = first
        while not is_over.is_set():
            try:
                answer = await crew.post(number)
            except httpx.HTTPError:
                continue  # as a provider does: once more
            assert 200 == answer.status_code
            acknowledged.add(f"pay_{number}")
            number += 1

    senders = [asyncio.create_task(send(place * 1_000_000)) for place in range(4)]
    await until(lambda: _more_than(acknowledged, 20))
    os.kill(min(workers), signal.SIGKILL)
    await until(lambda: _is_whole_again(crew, min(workers)))
    counted = len(acknowledged)
    await until(lambda: _more_than(acknowledged, counted + 20))
    is_over.set()
    await asyncio.gather(*senders)

    await until(seen(lambda: _sent(events_api), acknowledged))
    assert len(await events_api.orders()) == len(acknowledged)
    assert crew.pid == crew.serving.process.pid


async def _more_than(found: set[str], number: int) -> bool:
    return len(found) > number


async def _sent(events_api: EventsApi) -> set[str]:
    return set(await events_api.orders())


async def _is_whole_again(crew: Crew, dead: int) -> bool:
    children = crew.children
    return dead not in children and len(children) == 3 and len(await crew.workers()) == 2


async def test_a_forwarding_process_that_is_killed_is_replaced_and_goes_on(crew: Crew, events_api: EventsApi) -> None:
    await crew.post(1)
    await until(seen(lambda: _sent(events_api), {"pay_1"}))
    (forwarding,) = crew.children - await crew.workers()
    os.kill(forwarding, signal.SIGKILL)
    await crew.post(2)

    await until(seen(lambda: _sent(events_api), {"pay_1", "pay_2"}))
    assert (
        2 == (await crew.metrics())["relay_events_sent_total default"]
    )  # both of them: what the dead one counted stays


async def test_a_parent_that_is_killed_takes_all_with_it_and_the_port_is_free(begin: Begin) -> None:
    async with begin() as crew:
        children = [psutil.Process(pid) for pid in crew.children]
        await crew.post(1)
        os.kill(crew.pid, signal.SIGKILL)
        await until(lambda: _are_gone(children), tries=400)  # two seconds

        await until(lambda: _is_free(crew.port))  # a process is a zombie a moment before its last thread is gone
    assert -signal.SIGKILL == crew.serving.code
    async with begin(RELAY_PORT=str(crew.port)) as crew:
        assert 200 == (await crew.post(1)).status_code
        assert 1 == crew.events()


async def _is_free(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except StartError:
        return False
    return True


async def _are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_sigterm_lets_what_is_in_flight_finish_and_ends_with_0(begin: Begin, command: Commands) -> None:
    raw = orjson.dumps(acme.captured(1))
    headers = "".join(f"{name}: {value}\r\n" for name, value in acme.signed(raw).items())
    head = f"POST /webhooks/acme HTTP/1.1\r\nHost: relay\r\nContent-Length: {len(raw)}\r\n{headers}\r\n".encode()
    async with begin() as crew:
        reader, writer = await asyncio.open_connection("127.0.0.1", crew.port)
        writer.write(head + raw[:10])
        await writer.drain()
        await crew.workers()  # all have looked at their sockets since
        crew.serving.process.terminate()
        await until(lambda: _refuses(crew.port))
        writer.write(raw[10:])

        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert 0 == await asyncio.wait_for(crew.serving.process.wait(), 10)
        assert 1 == crew.events()
    assert not (command.folder / "relay.db.metrics").exists()


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


async def test_why_it_cannot_start_is_told(begin: Begin, command: Commands, tmp_path: Path) -> None:
    async with begin() as crew:
        port: Ended = await command("serve", RELAY_PORT=str(crew.port))
        database = await command("serve")
    assert (1, True) == (port.code, "Address already in use" in port.err)
    assert (1, True) == (database.code, "another relay serves" in database.err)
    (tmp_path / "relay.db.write").unlink()
    (tmp_path / "relay.db.write").mkdir()

    child = await command("serve")

    assert (1, True) == (child.code, "Is a directory" in child.err)
