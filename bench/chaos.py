"""Chaos: a relay under load is killed with SIGKILL at random moments, again and again, and then the books are balanced.

`python -m bench.chaos --kills 200 [--faults] [--seed N]`. What got a 2xx must be at the sandbox; nothing may be there
more than once, unless the store says that it was in doubt, and not more often than that. Otherwise it ends with 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from statistics import median
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from bench import process, sink
from bench.process import Child
from bench.provider import Provider
from bench.verdict import Verdict, judge, unsent

#: Of so many kills one hits the relay while it starts: the third, and so on.
_STARTS, _THIRD = 5, 2
#: With several processes, of so many kills one hits a child alone, which the relay must survive: the first, and so on.
_CHILDREN = 3
_SHORTEST_S = 0.05
_FINISH_S = 60
_DRAIN_S = 180

#: What the sandbox does to the relay meanwhile, with `--faults`: a blow each time, and then it behaves for a while.
_BLOWS: tuple[dict[str, Any], ...] = (
    {"status": 500, "times": 2},
    {"status": 503, "times": 1},
    {"status": 429, "retry_after": 1, "times": 1},
    {"drop_answer": True, "times": 1},
    {"drop_answer": True, "every": 3, "times": 2},
    {"drop_request": True, "times": 2},
    {"latency_ms": 400, "times": 3},
    {"latency_ms": 150, "drop_answer": True, "times": 1},
    {"max_bytes": 20_000},
)


@dataclass(slots=True, kw_only=True)
class Storm:
    """What happened, in numbers."""

    kills: int = 0
    kills_while_starting: int = 0
    #: Kills of one process of several, on top.
    kills_of_children: int = 0
    seconds: float = 0.0
    #: From the start of the process until it takes connections, each time, in seconds.
    ready_s: list[float] = field(default_factory=list)
    checkouts: int = 0
    sent_twice: int = 0
    #: By status, how many answers.
    answers: dict[int, int] = field(default_factory=dict)
    #: Requests whose answer never came, since the relay died.
    unanswered: int = 0
    strange_answers: int = 0
    #: Starts that ended by themselves.
    failed_starts: int = 0
    blows: int = 0
    drained_after_s: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def holds(self) -> bool:
        """Nothing was lost, doubled or refused that should not have been."""
        return self.verdict.holds and not self.strange_answers and not self.failed_starts


async def rage(*, kills: int, longest_s: float, faults: bool, workers: int, random: Random, console: Console) -> Storm:
    """Kill a relay so many times, each `_SHORTEST_S` to `longest_s` after it was ready, or earlier."""
    storm = Storm()
    with process.folder() as folder, process.sandbox(folder) as sandbox, console.status("raging") as said:
        relay = process.relay(folder, port=process.free_port(), sandbox=sandbox.url, RELAY_WORKERS=str(workers))
        provider = Provider(relay.port, random=random)
        began = time.perf_counter()
        try:
            mood = _misbehaving(sandbox, storm, random) if faults else contextlib.nullcontext()
            async with mood:
                for _ in range(kills):
                    await _live_and_die(relay, storm, longest_s=longest_s, random=random)
                    said.update(f"killed {storm.kills} times, {len(provider.acknowledged):,} acknowledged")
            await _start(relay, storm)
            await provider.finish(_FINISH_S)
            healed = time.perf_counter()
            await _drained(process.database(folder))
            storm.drained_after_s = time.perf_counter() - healed
            await asyncio.to_thread(relay.stop)
        finally:
            relay.kill()
        storm.seconds = time.perf_counter() - began
        storm.checkouts, storm.sent_twice = provider.sent, provider.doubled
        storm.answers, storm.unanswered = dict(provider.statuses), provider.unanswered
        storm.strange_answers = provider.strange
        with process.client(sandbox) as looking:
            storm.verdict = judge(
                acknowledged=provider.acknowledged,
                sent=provider.sent,
                database=process.database(folder),
                events=sink.received(looking),
            )
        storm.verdict.violations["sent, and never acknowledged"] = provider.sent - len(provider.acknowledged)
        if not storm.holds:
            console.print(f"\nThe end of the relay's log:\n{relay.log()}", markup=False)
    return storm


async def _live_and_die(relay: Child, storm: Storm, *, longest_s: float, random: Random) -> None:
    if storm.kills % _STARTS == _THIRD:
        await asyncio.to_thread(relay.start)
        await asyncio.sleep(random.uniform(0, 1.1 * max(storm.ready_s)))
        storm.kills_while_starting += 1
    else:
        await _start(relay, storm)
        await asyncio.sleep(random.uniform(_SHORTEST_S, longest_s))
        children = relay.tree()[1:]
        if children and storm.kills % _CHILDREN == 0:
            with contextlib.suppress(psutil.NoSuchProcess):
                random.choice(children).kill()
            storm.kills_of_children += 1
            await asyncio.sleep(random.uniform(_SHORTEST_S, longest_s))
    storm.failed_starts += relay.ended
    await asyncio.to_thread(relay.kill)
    storm.kills += 1


async def _start(relay: Child, storm: Storm) -> None:
    began = time.perf_counter()
    await asyncio.to_thread(relay.start)
    await asyncio.to_thread(relay.wait_ready)
    storm.ready_s.append(time.perf_counter() - began)


async def _drained(database: Path) -> None:
    deadline = time.perf_counter() + _DRAIN_S
    while time.perf_counter() < deadline and await asyncio.to_thread(unsent, database) > 0:  # noqa: ASYNC110  not our process
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _misbehaving(sandbox: Child, storm: Storm, random: Random) -> AsyncIterator[None]:
    """A sandbox in a bad mood while the block runs."""

    async def strike(client: httpx.AsyncClient) -> None:
        while True:
            (await client.put("/faults", json=random.choice(_BLOWS))).raise_for_status()
            storm.blows += 1
            await asyncio.sleep(random.uniform(0.1, 1.0))

    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as client:
        task = asyncio.create_task(strike(client))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            (await client.delete("/faults")).raise_for_status()


def show(storm: Storm, console: Console) -> None:
    """Print it."""
    verdict = storm.verdict
    answers = ", ".join(f"{times:,} x {status}" for status, times in sorted(storm.answers.items()))
    for line in (
        f"{storm.kills} kills in {storm.seconds:.0f} s, {storm.kills_while_starting} of them during a start",
        f"{storm.kills_of_children} kills of a child alone, on top",
        f"ready after {median(storm.ready_s):.2f} s, at most {max(storm.ready_s):.2f} s",
        f"{storm.checkouts:,} checkouts, {storm.sent_twice:,} of them sent twice on purpose; answers: {answers}",
        f"{storm.unanswered:,} requests never got an answer; {storm.blows} blows by the sandbox",
        f"{verdict.acknowledged:,} acknowledged, {verdict.kept:,} in the store, {verdict.arrived:,} at the sandbox",
        f"{verdict.in_doubt:,} were in doubt, {verdict.more_than_once:,} are at the sandbox more than once",
        f"the outbox was empty {storm.drained_after_s:.1f} s after the last answer",
    ):
        console.print(line)
    faults = {**verdict.violations, "starts that failed": storm.failed_starts, "strange answers": storm.strange_answers}
    for words, times in faults.items():
        console.print(f"{times:>7,}  {words}", style="bold red" if times else "green")
    console.print("[green]The books balance.[/]" if storm.holds else "[bold red]The books do not balance.[/]")


def main(
    *,
    kills: Annotated[int, typer.Option(min=1, help="How often to kill it.")] = 200,
    longest_ms: Annotated[int, typer.Option(min=60, help="The longest that it lives after it is ready.")] = 1500,
    faults: Annotated[bool, typer.Option("--faults", help="Let the sandbox misbehave at random meanwhile.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="RELAY_WORKERS; from 2 on, children are killed too.")] = 1,
    seed: Annotated[int | None, typer.Option(help="For the same moments again.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Kill the relay under load, and count what arrived."""
    console = Console()
    seed = SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"chaos: {kills} kills{', a sandbox that misbehaves' if faults else ''}, seed {seed}")
    storm = asyncio.run(
        rage(
            kills=kills,
            longest_s=longest_ms / 1000,
            faults=faults,
            workers=workers,
            random=Random(seed),
            console=console,
        )
    )
    show(storm, console)
    if json_file is not None:
        json_file.write_text(json.dumps({"seed": seed, "holds": storm.holds, **asdict(storm)}, indent=2) + "\n")
    if not storm.holds:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
