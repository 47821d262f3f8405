"""The callers that the events API documents, in PHP and in Node, against a relay: nothing changes but the base URL.

Where a language is not installed its caller is left out; the same calls go out as raw HTTP in any case.
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
PATIENCE_S = 120
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
[, $base, $key, $event, $tries] = $argv;
for ($try = 0; $try < $tries; $try++) {
    if (send_event($base, "42", $key, json_decode($event, true))) exit(0);
    usleep(100000);
}
exit(1);
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
const [, , base, key, event, tries] = process.argv;
for (let n = 0; n < tries; n++) {
  if (await sendEvent(base, "42", key, JSON.parse(event)).catch(() => false)) process.exit(0);
  await new Promise((done) => setTimeout(done, 100));
}
process.exit(1);
"""),
}  # fmt: skip

Call = Callable[[str, dict[str, object], int], Awaitable[bool]]


@pytest.fixture
def calls(tmp_path: Path) -> dict[str, Call]:
    """Each posts an event to the relay at this URL, as a documented caller does, up to so often: did it see a 202?"""
    return {"raw": _raw} | {
        name: _caller(found, tmp_path / file, text)
        for name, (program, file, text) in CALLERS.items()
        if (found := shutil.which(program)) is not None
    }


def _caller(program: str, file: Path, text: str) -> Call:
    file.write_text(text)

    async def run(base: str, event: dict[str, object], tries: int) -> bool:
        process = await asyncio.create_subprocess_exec(program, file, base, KEY, json.dumps(event), str(tries))
        return await asyncio.wait_for(process.wait(), PATIENCE_S) == 0

    return run


async def _raw(base: str, event: dict[str, object], tries: int) -> bool:
    for _ in range(tries):
        if await _raw_call(base, event):
            return True
        await asyncio.sleep(0.1)
    return False


async def _raw_call(base: str, event: dict[str, object]) -> bool:
    """What cURL sends, byte for byte but for the names of the program."""
    url, body = httpx.URL(base), json.dumps(event).encode()
    head = (
        f"POST /v1/projects/42/events HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nAccept: */*\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            with contextlib.closing(writer):
                writer.write(head.encode() + body)
                return (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 202 ")
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def relay(tmp_path: Path, events_api: EventsApi) -> AsyncIterator[Relay]:
    running = Relay(tmp_path, events_api.url, free_port())
    await running.start()
    yield running
    await running.end(signal.SIGTERM)


def purchase(order: str) -> dict[str, object]:
    return {
        "event_type": "conversion", "event_name": "purchase", "user_id": "a" * 64, "revenue": 19.99, "currency": "EUR",
        "properties": {"order_id": order},
    }  # fmt: skip


async def test_each_event_is_accepted_once_whatever_happens_in_between(
    relay: Relay, events_api: EventsApi, calls: dict[str, Call]
) -> None:
    """Duplicates, kills while calls are under way and while events wait for the destination, whose answers are trouble.

    The callers try until a 202.
    """

    async def insist(*numbers: int) -> None:
        asked = [(call, f"{name}_{number}") for number in numbers for name, call in calls.items()]
        taken = await asyncio.gather(*(call(relay.url, purchase(order), 10 * PATIENCE_S) for call, order in asked))
        assert all(taken), "it was never taken"

    async def are_there(number: int) -> bool:
        return len(set(await events_api.orders())) == number * len(calls)

    await insist(0)
    await insist(0)
    await events_api.misbehave(status=503, times=5)
    under_way = asyncio.create_task(insist(*range(1, 6)))
    await asyncio.sleep(0.02)
    await relay.end(signal.SIGKILL)
    await relay.start()
    await under_way
    await insist(3)
    await relay.end(signal.SIGKILL)
    insisting = asyncio.create_task(insist(4))  # nobody is there to answer it
    await relay.start()
    await insisting
    await events_api.behave()
    await until(lambda: are_there(6), tries=6000)
    await insist(6)
    await until(lambda: are_there(7), tries=6000)

    assert {f"{name}_{number}": 1 for number in range(7) for name in calls} == Counter(await events_api.orders())


async def test_a_caller_that_finds_nobody_sees_no_202(calls: dict[str, Call]) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert dict.fromkeys(calls, False) == {name: await call(url, purchase("1"), 1) for name, call in calls.items()}
