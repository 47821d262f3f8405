"""The bench: the relay beside a bare FastAPI route, in one run and in turns, so that a busy machine slows all of them.

`python -m bench` prints a table, then the drain of a backlog; `--quick` takes seconds and proves little. It ends with 1
where an acknowledged webhook did not arrive exactly once.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import orjson
import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench import process, sink
from bench.checkout import Checkouts, number_of
from bench.drain import Drained, drain, show as show_drain
from bench.load import Load, load
from bench.process import Child
from bench.sink import Arrived
from relay import __version__
from relay.store.inbox import inbox_path

P99_TARGET_MS = 60
#: Between two measurements: until what still happens behind the last one uses less of a core than this.
_CALM, _CALM_S = 0.05, 1.2
_PATIENCE_S = 20
#: So often the sandbox is asked how much has arrived: it says afterwards when that was, and asking takes time from all.
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One subject under load, once."""

    per_second: float
    p50_ms: float
    p99_ms: float
    #: Of the server's process for each webhook, over the same time as `per_second`.
    cpu_us: float
    rss_mb: float
    generator_cpu_us: float
    statuses: dict[str, int]
    #: What was found behind the server; None where nothing is kept.
    arrived: Arrived | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to measure: `run` puts load on it for so many seconds, numbered from here on."""

    name: str
    target: float | None
    run: Callable[[float, int], Round]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The medians of a subject's rounds."""

    name: str
    per_second: float
    #: The median of the rounds' ratios to the bare route in the same round.
    ratio: float
    target: float | None
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rss_mb: float
    rounds: list[Round]

    @property
    def exactly_once(self) -> bool:
        """Nothing was refused, lost, doubled or changed in any round."""
        answered = all(set(one.statuses) == {"200"} for one in self.rounds)
        return answered and all(one.arrived.exactly_once for one in self.rounds if one.arrived is not None)


def measured(server: Child, done: Load, cpu_s: float, *, until_s: float | None = None,
             arrived: Arrived | None = None) -> Round:  # fmt: skip
    """A round from what the load saw; with `until_s`, over the time until then."""
    acknowledged = len(done.acknowledged)
    seconds = done.seconds if until_s is None else max(done.seconds, until_s - done.began_s)
    return Round(
        per_second=acknowledged / seconds,
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        cpu_us=cpu_s / max(acknowledged, 1) * 1e6,
        rss_mb=server.rss_mb(),
        generator_cpu_us=done.own_cpu_us,
        statuses=done.statuses,
        arrived=arrived,
    )


# --- the three subjects -----------------------------------------------------------------------------------------------


def bare_route(server: Child) -> Subject:
    """Reads the body, answers 200, keeps nothing."""

    def run(seconds: float, first: int) -> Round:
        before = server.cpu_s()
        done = load(server.port, seconds=seconds, first=first)
        return measured(server, done, server.cpu_s() - before)

    return Subject(name="bare route", target=None, run=run)


def accepting(relay: Child, database: Path) -> Subject:
    """The relay with a destination that says "not today": every event stays in the outbox, and is looked for there."""

    def run(seconds: float, first: int) -> Round:
        before = relay.cpu_s()
        done = load(relay.port, seconds=seconds, first=first)
        cpu_s = relay.cpu_s() - before
        _until_mapped(database)
        numbers = frozenset(range(first, first + done.sent))
        kept = (event for event in outbox(database) if number_of(event) in numbers)
        return measured(relay, done, cpu_s, arrived=sink.compare(done.acknowledged, kept))

    return Subject(name="accepted", target=0.7, run=run)


def delivering(relay: Child, sandbox: httpx.Client) -> Subject:
    """The relay with a sandbox in another process; the clock stops when the last event is there."""

    def run(seconds: float, first: int) -> Round:
        sink.forget(sandbox)
        before = relay.cpu_s()
        done = load(relay.port, seconds=seconds, first=first)
        expected = len(done.acknowledged)
        sink.wait_for(lambda: sink.count(sandbox), expected, within_s=_PATIENCE_S, every_s=_LOOK_S)
        until_s = sink.last_at(sandbox)
        cpu_s = relay.cpu_s() - before
        arrived = sink.compare(done.acknowledged, sink.received(sandbox))
        return measured(relay, done, cpu_s, until_s=until_s, arrived=arrived)

    return Subject(name="delivered", target=0.55, run=run)


def _until_calm(children: Sequence[Child]) -> None:
    """Wait until these have done what they put off (they count for the console): it is not the next one's to pay."""
    until_s = time.monotonic() + _PATIENCE_S
    used = sum(child.cpu_s() for child in children)
    while time.monotonic() < until_s:
        time.sleep(_CALM_S)
        before, used = used, sum(child.cpu_s() for child in children)
        if used - before < _CALM * _CALM_S:
            return


def _until_mapped(database: Path) -> None:
    """Wait until the inbox is empty."""
    until_s = time.monotonic() + _PATIENCE_S
    with contextlib.closing(sqlite3.connect(f"file:{inbox_path(database)}?mode=ro", uri=True)) as connection:
        while connection.execute("SELECT 1 FROM inbox LIMIT 1").fetchone() and time.monotonic() < until_s:
            time.sleep(0.02)


def outbox(database: Path) -> Iterator[dict[str, Any]]:
    """The events in a store that are not sent."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for (payload,) in connection.execute(
            "SELECT payload FROM events JOIN payloads USING (id) WHERE state <> 'sent'"
        ):
            yield orjson.loads(payload)


@contextlib.contextmanager
def subjects(workers: int) -> Iterator[tuple[list[Subject], list[Child]]]:
    """All of them, running, the relays with so many workers each; and the relays' processes."""
    rules = {"RELAY_WORKERS": str(workers)}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(process.folder())
        bare = stack.enter_context(process.bare(folder))
        closed = stack.enter_context(process.sandbox(folder, name="closed"))
        with process.client(closed) as telling:
            telling.put("/faults", json={"status": 503, "retry_after": 86_400}).raise_for_status()
        accepts = process.relay(folder, name="accepts", port=process.free_port(), sandbox=closed.url, **rules)
        stack.enter_context(accepts)
        sandbox = stack.enter_context(process.sandbox(folder))
        delivers = process.relay(folder, name="delivers", port=process.free_port(), sandbox=sandbox.url, **rules)
        stack.enter_context(delivers)
        looking = stack.enter_context(process.client(sandbox))
        found = [
            bare_route(bare),
            accepting(accepts, process.database(folder, "accepts")),
            delivering(delivers, looking),
        ]
        yield found, [accepts, delivers]


# --- measuring and showing --------------------------------------------------------------------------------------------


def compare(*, rounds: int, seconds: float, warm_up_s: float, workers: int) -> list[Summary]:
    """All subjects in turns, so many times, after a warm-up of each."""
    found: dict[str, list[Round]] = {}
    numbers = count(0, 10_000_000)
    with subjects(workers) as (running, relays):
        for seconds_now in [warm_up_s] + [seconds] * rounds:
            for subject in running:
                found.setdefault(subject.name, []).append(subject.run(seconds_now, next(numbers)))
                _until_calm(relays)
        floor = found[running[0].name]
        return [_summary(subject, found[subject.name][1:], floor[1:]) for subject in running]


def _summary(subject: Subject, rounds: list[Round], floor: list[Round]) -> Summary:
    return Summary(
        name=subject.name,
        target=subject.target,
        ratio=median(one.per_second / bare.per_second for one, bare in zip(rounds, floor, strict=True)),
        per_second=median(one.per_second for one in rounds),
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        cpu_us=median(one.cpu_us for one in rounds),
        rss_mb=max(one.rss_mb for one in rounds),
        rounds=rounds,
    )


def machine() -> str:
    """What this was measured on, without saying where."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores ({_cpu()}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(summaries: list[Summary], console: Console) -> None:
    """The table, and what was found behind the servers."""
    table = Table("", "per s", "of bare", "target", "p50 ms", "p99 ms", "CPU µs", "RSS MB")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in summaries:
        ratio = f"{one.ratio:.2f}"
        if one.target is not None:
            ratio = f"[green]{ratio}[/]" if one.ratio >= one.target else f"[red]{ratio}[/]"
        p99 = f"{one.p99_ms:.1f}" if one.p99_ms < P99_TARGET_MS else f"[red]{one.p99_ms:.1f}[/]"
        target = "" if one.target is None else f"≥ {one.target:.2f}"
        table.add_row(one.name, f"{one.per_second:,.0f}", ratio, target, f"{one.p50_ms:.1f}", p99, f"{one.cpu_us:.0f}",
                      f"{one.rss_mb:.0f}")  # fmt: skip
    console.print(table)
    console.print(f"CPU: the server's, for each webhook. p99 is to stay under {P99_TARGET_MS} ms.")
    for one in summaries:
        for place, done in enumerate(one.rounds, 1):
            if done.arrived is not None:
                found = done.arrived
                console.print(f"  {one.name}, round {place}: {found.words}")


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="For how long each time.")] = 4,
    warm_up: Annotated[float, typer.Option(min=0.1, help="Seconds of load before anything counts.")] = 1.5,
    workers: Annotated[int, typer.Option(min=0, help="RELAY_WORKERS of the relays.")] = 1,
    backlog: Annotated[int, typer.Option(min=0, help="How many events to drain; 0: none.")] = 200_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round and a small backlog, to see that it runs.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Measure the relay beside a bare FastAPI route, then the drain of a backlog."""
    if quick:
        rounds, seconds, warm_up, backlog = 1, 0.4, 0.1, min(backlog, 1000)
    console = Console()
    console.print(f"relay {__version__}, {datetime.now(UTC):%Y-%m-%d}")
    console.print(machine())
    console.print(
        f"64 connections; each webhook unique, signed, {Checkouts(8000).size:,} bytes; RELAY_WORKERS={workers}"
    )
    console.print(f"medians of {rounds} rounds of {seconds:g} s, all in turns")
    summaries = compare(rounds=rounds, seconds=seconds, warm_up_s=warm_up, workers=workers)
    show(summaries, console)
    drained: Drained | None = None
    if backlog:
        drained = drain(backlog)
        show_drain(drained, console)
    if json_file is not None:
        figures = {
            "version": __version__,
            "machine": machine(),
            "workers": workers,
            "subjects": [asdict(one) for one in summaries],
            "drain": asdict(drained) if drained else None,
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    is_sound = all(one.exactly_once for one in summaries) and (drained is None or drained.arrived.exactly_once)
    if not is_sound:
        console.print("[bold red]An acknowledged webhook did not arrive exactly once.[/]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
