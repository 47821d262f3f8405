"""Batches of events that backends post: how many events a second are committed, and whether each arrives once.

`python -m bench.ingest [--seconds 5]`. Every batch has 1000 events; first they bring ids of their own (and every tenth
batch comes twice), then none. It ends with 1 where an acknowledged event did not arrive exactly once.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench import process, sink
from bench.__main__ import machine

TARGET_PER_SECOND = 20_000
BATCH = 1000
KEY = "oa_live_bench_backend"

_PATH = "/v1/projects/42/events/batch"
_EVENT = (
    b'{"event_type":"conversion","event_name":"purchase","user_id":"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a'
    b'11ef721d1542d8","url":"https://shop.example.com/thanks","properties":{"%b":"ev_%d","plan":"pro","items":3},'
    b'"revenue":19.99,"currency":"EUR"}'
)
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """One run."""

    events: int
    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    #: From the first call until the last event was at the sandbox.
    delivered_per_second: float
    cpu_us: float
    rss_mb: float
    lost: int
    twice: int

    @property
    def exactly_once(self) -> bool:
        return not (self.lost or self.twice) and set(self.statuses) == {"202"}


def body_of(number: int, *, name: bytes) -> bytes:
    """Batch `number`: its events are numbered on from a thousand times that."""
    first = number * BATCH
    return b'{"events":[' + b",".join(_EVENT % (name, one) for one in range(first, first + BATCH)) + b"]}"


class _Run:
    def __init__(self, port: int, *, seconds: float, name: bytes, repeats: bool) -> None:
        self._port = port
        self._until = time.perf_counter() + seconds
        self._name = name
        self._repeats = repeats
        self._numbers = count()
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.batches: set[int] = set()
        self.ended_at = 0.0

    def post(self) -> None:
        """One connection, batch after batch."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            while time.perf_counter() < self._until:
                number = next(self._numbers)
                for _ in range(2 if self._repeats and number % 10 == 0 else 1):
                    self._post_one(connection, number)

    def _post_one(self, connection: http.client.HTTPConnection, number: int) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        body = body_of(number, name=self._name)
        began = time.perf_counter()
        connection.request("POST", _PATH, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        self.ended_at = time.perf_counter()
        self.latencies.append((self.ended_at - began) * 1000)
        self.statuses[str(answer.status)] += 1
        if answer.status == http.client.ACCEPTED:
            self.batches.add(number)


def measure(*, seconds: float, connections: int, workers: int, has_ids: bool) -> Posted:
    """Post for so many seconds to a relay that forwards to a sandbox meanwhile."""
    name = b"event_id" if has_ids else b"reference"
    with _running(workers) as (relay, sandbox), process.client(sandbox) as looking:
        before, began = relay.cpu_s(), time.perf_counter()
        run = _Run(relay.port, seconds=seconds, name=name, repeats=has_ids)
        with ThreadPoolExecutor(connections) as pool:
            for done in [pool.submit(run.post) for _ in range(connections)]:
                done.result()
        expected = len(run.batches) * BATCH
        posted_s = run.ended_at - began
        rss_mb = relay.rss_mb()
        began_unix = time.time() - (time.perf_counter() - began)
        delivered_at = sink.wait_for(lambda: sink.count(looking), expected, within_s=_PATIENCE_S, every_s=0.05)
        cpu_s = relay.cpu_s() - before
        seen = Counter(event["properties"][name.decode()] for event in sink.received(looking))
        wanted = {f"ev_{one}" for number in run.batches for one in range(number * BATCH, (number + 1) * BATCH)}
        latencies = sorted(run.latencies)
        return Posted(
            events=expected,
            per_second=expected / posted_s,
            p50_ms=latencies[len(latencies) // 2],
            p99_ms=latencies[len(latencies) * 99 // 100],
            statuses=dict(run.statuses),
            delivered_per_second=expected / (delivered_at - began_unix),
            cpu_us=cpu_s / max(expected, 1) * 1e6,
            rss_mb=rss_mb,
            lost=len(wanted - seen.keys()),
            twice=sum(times > 1 for times in seen.values()),
        )


@contextlib.contextmanager
def _running(workers: int) -> Iterator[tuple[process.Child, process.Child]]:
    with process.folder() as folder, process.sandbox(folder) as sandbox:
        relay = process.relay(
            folder, port=process.free_port(), sandbox=sandbox.url, RELAY_WORKERS=str(workers), RELAY_INGEST_KEYS=KEY
        )
        with relay:
            yield relay, sandbox


def show(posted: Posted, words: str, console: Console) -> None:
    """Print it, with the target beside it."""
    reached = "[green]reached[/]" if posted.per_second >= TARGET_PER_SECOND else "[red]missed[/]"
    console.print(f"[bold]{words}[/]: {posted.events:,} events committed at {posted.per_second:,.0f}/s "
                  f"(target {TARGET_PER_SECOND:,}: {reached})")  # fmt: skip
    console.print(f"  a batch: p50 {posted.p50_ms:.0f} ms, p99 {posted.p99_ms:.0f} ms; an event: "
                  f"{posted.cpu_us:.0f} µs of CPU; {posted.rss_mb:.0f} MB")  # fmt: skip
    console.print(f"  the last one was at the sandbox as if at {posted.delivered_per_second:,.0f}/s")
    faults = f"[bold red]{posted.lost} lost, {posted.twice} twice, {posted.statuses}[/]"
    console.print(f"  {'[green]each once[/]' if posted.exactly_once else faults}")


def main(
    *,
    seconds: Annotated[float, typer.Option(min=0.2, help="For how long to post, each time.")] = 5,
    connections: Annotated[int, typer.Option(min=1, help="How many at once.")] = 4,
    workers: Annotated[int, typer.Option(min=0, help="RELAY_WORKERS of the relay.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Measure how many posted events a second the relay commits to SQLite."""
    console = Console()
    console.print(machine())
    console.print(f"{connections} connections, batches of {BATCH}, {len(body_of(0, name=b'event_id')):,} bytes each; "
                  f"RELAY_WORKERS={workers}")  # fmt: skip
    found = {}
    for words, has_ids in (("with an id each", True), ("without ids", False)):
        found[words] = measure(seconds=seconds, connections=connections, workers=workers, has_ids=has_ids)
        show(found[words], words, console)
    if json_file is not None:
        json_file.write_bytes(orjson.dumps({words: asdict(one) for words, one in found.items()}))
    if not all(one.exactly_once for one in found.values()):
        console.print("[bold red]An acknowledged event did not arrive exactly once.[/]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
