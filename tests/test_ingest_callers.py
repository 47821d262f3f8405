"""The callers that the events API documents, in PHP and in Node, against a relay: nothing changes but the base URL.

Where a language is not installed its caller is skipped; the same calls go out as raw HTTP in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import API_KEY, EventsApi, until
from tests.test_ingesting import KEY

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
CALLERS = {
    "php": ("php", "caller.php", """<?php
function send_event(string $base, string $project, string $key, array $event): bool {
    $curl = curl_init("$base/v1/projects/$project/events");
    curl_setopt_array($curl, [
        CURLOPT_POST => true,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 5,
        CURLOPT_HTTPHEADER => ["Authorization: Bearer $key", "Content-Type: application/json"],
        CURLOPT_POSTFIELDS => json_encode($event),
    ]);
    curl_exec($curl);
    return curl_getinfo($curl, CURLINFO_HTTP_CODE) === 202;
}
[, $base, $key, $event] = $argv;
exit(send_event($base, "42", $key, json_decode($event, true)) ? 0 : 1);
"""),
    "node": ("node", "caller.mjs", """
async function sendEvent(base, project, key, event) {
  const answer = await fetch(`${base}/v1/projects/${project}/events`, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify(event),
    signal: AbortSignal.timeout(5000),
  });
  return answer.status === 202;
}
const [, , base, key, event] = process.argv;
const sent = await sendEvent(base, "42", key, JSON.parse(event)).catch(() => false);
process.exit(sent ? 0 : 1);
"""),
}  # fmt: skip

Call = Callable[[str, dict[str, object]], Awaitable[bool]]


@pytest.fixture(params=["raw", *CALLERS])
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    """Posts an event to the relay at this URL, as a documented caller does; whether that saw a 202."""
    if request.param == "raw":
        return _raw
    program, name, text = CALLERS[request.param]
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    (tmp_path / name).write_text(text)

    async def run(base: str, event: dict[str, object]) -> bool:
        process = await asyncio.create_subprocess_exec(found, str(tmp_path / name), base, KEY, json.dumps(event))
        return await asyncio.wait_for(process.wait(), 30) == 0

    return run


async def _raw(base: str, event: dict[str, object]) -> bool:
    """What cURL sends, byte for byte but for the names of the program."""
    url, body = httpx.URL(base), json.dumps(event).encode()
    head = (
        f"POST /v1/projects/42/events HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nAccept: */*\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n")
            writer.close()
            return answer.startswith(b"HTTP/1.1 202 ")
    return False


class Relay:
    """`relay serve` in a process that can be killed."""

    def __init__(self, folder: Path, events_api: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "RELAY_PORT": str(port), "RELAY_INGEST_KEYS": KEY,
            "OAA_BASE_URL": events_api, "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY,
            "RELAY_DATABASE_URL": f"sqlite:///{folder / 'relay.db'}",
        }  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "serve", cwd=self._folder, env=self._environ,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await until(self._answers, tries=4000)

    async def _answers(self) -> bool:
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{self.url}/healthz")).is_success
        except httpx.TransportError:
            return False

    async def end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()


@pytest.fixture
async def relay(tmp_path: Path, events_api: EventsApi) -> AsyncIterator[Relay]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = Relay(tmp_path, events_api.url, port)
    await running.start()
    yield running
    await running.end(signal.SIGTERM)


def purchase(order: int) -> dict[str, object]:
    return {
        "event_type": "conversion", "event_name": "purchase", "user_id": "a" * 64, "revenue": 19.99, "currency": "EUR",
        "properties": {"order_id": f"order_{order}"},
    }  # fmt: skip


async def test_each_event_is_accepted_once_whatever_happens_in_between(
    relay: Relay, events_api: EventsApi, call: Call
) -> None:
    """Duplicates, a kill while calls are under way, an outage of the destination: the caller tries until a 202."""

    async def insist(order: int) -> None:
        for _ in range(40):
            if await call(relay.url, purchase(order)):
                return
            await asyncio.sleep(0.1)
        pytest.fail("it was never taken")

    await insist(0)
    await insist(0)
    await events_api.misbehave(status=503, times=5)
    under_way = [asyncio.create_task(insist(order)) for order in range(1, 9)]
    await asyncio.sleep(0.02)
    await relay.end(signal.SIGKILL)
    await relay.start()
    await asyncio.gather(*under_way)
    await insist(3)
    await events_api.behave()

    async def all_are_there() -> bool:
        return len(set(await events_api.orders())) == 9

    await until(all_are_there, tries=6000)
    await insist(99)
    await until(lambda: _has(events_api, "order_99"), tries=6000)

    assert {f"order_{order}": 1 for order in [*range(9), 99]} == Counter(await events_api.orders())


async def _has(events_api: EventsApi, order: str) -> bool:
    return order in await events_api.orders()


async def test_a_caller_that_finds_nobody_sees_no_202(relay: Relay, call: Call) -> None:
    await relay.end(signal.SIGTERM)

    assert not await call(relay.url, purchase(1))
