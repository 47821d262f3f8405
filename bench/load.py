"""The load: so many connections, each sending its next webhook when the last one is answered, in a process of its own.

`python -m bench.load --port 8000 ...` prints one line of JSON, a `Load`. It is kept cheap, as it shares the machine
with what it measures: bytes in, bytes out, no HTTP library.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import typer
import uvloop

from bench.checkout import PATH, Checkouts

ROOT = Path(__file__).resolve().parent.parent
#: So many webhooks for each second are signed before the clock starts: a provider does that on machines of its own.
_AHEAD_PER_S = 20_000
#: After the last request has gone out, so long may its answer take.
_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of load saw."""

    #: Unix seconds of the first request.
    began_s: float
    #: Until the last answer.
    seconds: float
    #: From the first number on, how many webhooks went out.
    first: int
    sent: int
    #: By status, how many answers; "none" where the connection ended without one.
    statuses: dict[str, int]
    #: Numbers that did not get a 2xx.
    unacknowledged: list[int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: CPU of the generator itself for each webhook.
    own_cpu_us: float

    @property
    def acknowledged(self) -> set[int]:
        """Numbers that got a 2xx."""
        return set(range(self.first, self.first + self.sent)).difference(self.unacknowledged)

    @property
    def per_second(self) -> float:
        """Acknowledged webhooks."""
        return (self.sent - len(self.unacknowledged)) / self.seconds


class _Run:
    """What the connections of one run share."""

    def __init__(self, make: Callable[[int], bytes], *, first: int, seconds: float, limit: int) -> None:
        self.first = self.number = first
        self.last = first + limit
        self._make = make
        self._made = [make(number) for number in range(first, min(self.last, first + int(seconds * _AHEAD_PER_S)))]
        self.deadline = time.perf_counter() + seconds  # from here on it counts
        self.latencies = array("d")
        self.statuses: Counter[str] = Counter()
        self.unacknowledged: list[int] = []
        self.ended_at = 0.0

    def next(self) -> int | None:
        """The next number; None when it is enough."""
        if time.perf_counter() >= self.deadline or self.number >= self.last:
            return None
        self.number += 1
        return self.number - 1

    def request(self, number: int) -> bytes:
        """Webhook `number`, signed by now."""
        place = number - self.first
        return self._made[place] if place < len(self._made) else self._make(number)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._number: int | None = None
        self._sent_at = 0.0
        self._answer = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._go_on()

    def abort(self) -> None:
        """Wait no longer for the answer that is still due, if one is."""
        self._transport.abort()

    def _go_on(self) -> None:
        self._number = number = self._run.next()
        if number is None:
            self._transport.close()
            return
        request = self._run.request(number)
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        answer = self._answer = self._answer + data if self._answer else data
        end = answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = answer[:end].lower()
        at = head.find(b"content-length:")
        if len(answer) - end - 4 < int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        run = self._run
        run.ended_at = time.perf_counter()
        run.latencies.append(run.ended_at - self._sent_at)
        status = answer[9:12]
        run.statuses[status.decode()] += 1
        if not status.startswith(b"2") and self._number is not None:
            run.unacknowledged.append(self._number)
        self._answer = b""
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._number is not None:
            self._run.statuses["none"] += 1
            self._run.unacknowledged.append(self._number)
        if not self.closed.done():
            self.closed.set_result(None)


async def _drive(run: _Run, port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    protocols = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
        protocols.append(protocol)
    _, late = await asyncio.wait([protocol.closed for protocol in protocols], timeout=seconds + _PATIENCE_S)
    for protocol in protocols:
        protocol.abort()
    if late:
        await asyncio.wait(late, timeout=1)


def generate(*, port: int, path: str, connections: int, seconds: float, first: int, limit: int) -> Load:
    """Send for so many seconds, at most `limit` webhooks, numbered from `first` on."""
    gc.disable()
    run = _Run(Checkouts(port, path=path).request, first=first, seconds=seconds, limit=limit)
    began_s, began, cpu = time.time(), time.perf_counter(), time.process_time()
    uvloop.run(_drive(run, port, connections, seconds))
    latencies = sorted(run.latencies) or [float("nan")]
    sent = run.number - first
    return Load(
        began_s=began_s,
        seconds=max(run.ended_at - began, 1e-9),
        first=first,
        sent=sent,
        statuses=dict(run.statuses),
        unacknowledged=run.unacknowledged,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        max_ms=latencies[-1] * 1000,
        own_cpu_us=(time.process_time() - cpu) / max(sent, 1) * 1e6,
    )


def load(
    port: int, *, seconds: float, first: int = 0, path: str = PATH, connections: int = 64, limit: int = 1_000_000
) -> Load:
    """`generate`, in a process of its own."""
    command = [
        sys.executable, "-m", "bench.load", f"--port={port}", f"--seconds={seconds}", f"--first={first}",
        f"--path={path}", f"--connections={connections}", f"--limit={limit}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    return Load(**json.loads(done.stdout))


def main(
    *,
    port: Annotated[int, typer.Option(help="Where the server listens, on this machine.")],
    seconds: Annotated[float, typer.Option(help="For how long to send.")] = 4,
    first: Annotated[int, typer.Option(help="The number of the first webhook.")] = 0,
    limit: Annotated[int, typer.Option(help="The most webhooks.")] = 1_000_000,
    connections: Annotated[int, typer.Option(help="How many at once.")] = 64,
    path: Annotated[str, typer.Option(help="Where to post them.")] = PATH,
) -> None:
    """Send Checkout webhooks and print what became of them."""
    done = generate(port=port, path=path, connections=connections, seconds=seconds, first=first, limit=limit)
    typer.echo(json.dumps(asdict(done)))


if __name__ == "__main__":
    typer.run(main)
