"""Chaos for replicas: four of mixed roles on one PostgreSQL, killed, frozen beyond their leases, and left without it.

`python -m bench.replicas --seconds 120 [--seed N]`. What got a 2xx must be at the sandbox, once, unless the store says
that it was in doubt, and not more often than that. A third program, this one, reads both sides and compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Annotated, Any

import httpx
import psycopg
import typer
from rich.console import Console

from bench import postgres, process, sink
from bench.postgres import Server
from bench.process import Child
from bench.provider import Provider
from bench.verdict import Verdict, judge, unsent

ROLES = ("all", "all", "receive", "forward")

#: Longer than a lease on a batch, and than the server lets a mapping transaction idle.
_FROZEN_S = 20.0
_FINISH_S = 240
_DRAIN_S = 120


@dataclass(slots=True, kw_only=True)
class Storm:
    """What happened, in numbers."""

    seconds: float = 0.0
    kills: int = 0
    freezes: int = 0
    crashes_of_the_database: int = 0
    #: How often a replica began while the database was away.
    starts_without_the_database: int = 0
    outage_s: float = 0.0
    checkouts: int = 0
    sent_twice: int = 0
    answers: dict[int, int] = field(default_factory=dict)
    unanswered: int = 0
    strange_answers: int = 0
    #: Checkouts without a 2xx when it was calm again, and for how long they were sent again until each had its own.
    refused_meanwhile: int = 0
    caught_up_after_s: float = 0.0
    drained_after_s: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.strange_answers


async def rage(*, seconds: float, freezes: bool, random: Random, console: Console, outage_s: float = 0) -> Storm:
    """Let replicas and database die for so long, then balance the books. `outage_s`: the database's first one."""
    storm = Storm()
    with process.folder() as folder, postgres.server() as database, process.sandbox(folder) as sandbox:
        url = database.database("relay")
        children = [
            process.relay(folder, "--role", role, name=f"replica-{place}-{role}", port=process.free_port(),
                          sandbox=sandbox.url, RELAY_DATABASE_URL=url)
            for place, role in enumerate(ROLES)
        ]  # fmt: skip
        try:
            await asyncio.gather(*(asyncio.to_thread(_begin, child) for child in children))
            ports = [child.port for child, role in zip(children, ROLES, strict=True) if role != "forward"]
            provider = Provider(*ports, random=random)
            began = time.perf_counter()
            until = began + seconds
            acts: list[Coroutine[Any, Any, None]] = [_kill(children, storm, until, random)]
            acts.append(_crash(database, storm, until, random, first_s=outage_s))
            if freezes:
                acts.append(_freeze(children, storm, until, random))
            await asyncio.gather(*acts)
            await asyncio.gather(*(asyncio.to_thread(_begin, child) for child in children if child.ended))
            storm.refused_meanwhile, calm = provider.sent - len(provider.acknowledged), time.perf_counter()
            await provider.finish(_FINISH_S)
            healed = time.perf_counter()
            storm.caught_up_after_s = healed - calm
            await _drained(url)
            storm.drained_after_s = time.perf_counter() - healed
            storm.seconds = time.perf_counter() - began
            await asyncio.gather(*(asyncio.to_thread(child.stop) for child in children))
        finally:
            for child in children:
                child.kill()
        storm.checkouts, storm.sent_twice = provider.sent, provider.doubled
        storm.answers, storm.unanswered = dict(provider.statuses), provider.unanswered
        storm.strange_answers = provider.strange
        with process.client(sandbox) as looking:
            storm.verdict = judge(
                acknowledged=provider.acknowledged, sent=provider.sent, database=url, events=sink.received(looking)
            )
        storm.verdict.violations["sent, and never acknowledged"] = provider.sent - len(provider.acknowledged)
        if not storm.holds:
            for child in children:
                console.print(f"\nThe end of the log of {child.name}:\n{child.log()}", markup=False)
    return storm


def _begin(child: Child) -> None:
    child.start()
    child.wait_ready(60)


async def _kill(children: list[Child], storm: Storm, until: float, random: Random) -> None:
    """Now and then one of the replicas, each in its turn, and start it again."""
    while time.perf_counter() < until:
        await asyncio.sleep(random.uniform(1.0, 4.0))
        child = children[random.randrange(len(children))]
        if child.ended or child.name in _FROZEN:
            continue
        await asyncio.to_thread(child.kill)
        storm.kills += 1
        await asyncio.sleep(random.uniform(0.0, 1.0))
        await asyncio.to_thread(child.start)
        await asyncio.to_thread(child.wait_ready, 60)
        storm.starts_without_the_database += not await asyncio.to_thread(_is_ready, child)


def _is_ready(child: Child) -> bool:
    """Whether it has its database."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{child.port}/readyz", timeout=10).status_code == 200
    return False


#: Replicas that must not be killed now.
_FROZEN: set[str] = set()


async def _freeze(children: list[Child], storm: Storm, until: float, random: Random) -> None:
    """A replica stands still for longer than its leases, and goes on as if nothing were."""
    while time.perf_counter() + _FROZEN_S < until:
        child = children[random.choice((0, 1, 3))]
        if child.ended:
            await asyncio.sleep(0.5)
            continue
        _FROZEN.add(child.name)
        process_id = child.tree()[0].pid
        os.kill(process_id, signal.SIGSTOP)
        await asyncio.sleep(_FROZEN_S)
        os.kill(process_id, signal.SIGCONT)
        storm.freezes += 1
        await asyncio.sleep(random.uniform(2.0, 4.0))
        _FROZEN.discard(child.name)


async def _crash(database: Server, storm: Storm, until: float, random: Random, *, first_s: float) -> None:
    """The database, for a moment or for some seconds; the first time for as long as is said."""
    storm.outage_s = first_s
    while time.perf_counter() < until:
        await asyncio.sleep(random.uniform(4.0, 12.0))
        await asyncio.to_thread(database.crash)
        storm.crashes_of_the_database += 1
        usual_s = random.choice((0.0, 0.5, 5.0))
        await asyncio.sleep(first_s or usual_s)
        first_s = 0
        await asyncio.to_thread(database.start)


async def _drained(url: str) -> None:
    deadline = time.perf_counter() + _DRAIN_S
    while time.perf_counter() < deadline:
        with contextlib.suppress(psycopg.Error):
            if await asyncio.to_thread(unsent, url) == 0:
                return
        await asyncio.sleep(0.1)


def show(storm: Storm, console: Console) -> None:
    """Print it."""
    verdict = storm.verdict
    answers = ", ".join(f"{times:,} x {status}" for status, times in sorted(storm.answers.items()))
    for line in (
        f"{len(ROLES)} replicas ({', '.join(ROLES)}), {storm.seconds:.0f} s",
        f"{storm.kills} kills, {storm.freezes} freezes of {_FROZEN_S:g} s",
        f"{storm.crashes_of_the_database} crashes of the database, the first one for {storm.outage_s:g} s",
        f"{storm.starts_without_the_database} replicas were started while it was away",
        f"{storm.checkouts:,} checkouts, {storm.sent_twice:,} of them sent twice on purpose; answers: {answers}",
        f"{storm.unanswered:,} requests never got an answer",
        f"{verdict.acknowledged:,} acknowledged, {verdict.kept:,} in the store, {verdict.arrived:,} at the sandbox",
        f"{verdict.in_doubt:,} were in doubt, {verdict.more_than_once:,} are at the sandbox more than once",
        f"{storm.refused_meanwhile:,} had no 2xx when it was calm; sent again for {storm.caught_up_after_s:.0f} s",
        f"the outbox was empty {storm.drained_after_s:.1f} s after the last answer",
    ):
        console.print(line)
    for words, times in {**verdict.violations, "strange answers": storm.strange_answers}.items():
        console.print(f"{times:>7,}  {words}", style="bold red" if times else "green")
    console.print("[green]The books balance.[/]" if storm.holds else "[bold red]The books do not balance.[/]")


def main(
    *,
    seconds: Annotated[float, typer.Option(min=5, help="For how long.")] = 120,
    freezes: Annotated[bool, typer.Option(help="Freeze replicas beyond their leases, too.")] = True,
    outage: Annotated[float, typer.Option(min=0, help="The database is away for so long at the first time.")] = 5,
    seed: Annotated[int | None, typer.Option(help="For the same moments again.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Kill and freeze replicas and crash their database under load, and count what arrived."""
    console = Console()
    seed = SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"replicas: {seconds:g} s, seed {seed}")
    storm = asyncio.run(rage(seconds=seconds, freezes=freezes, random=Random(seed), console=console, outage_s=outage))
    show(storm, console)
    if json_file is not None:
        json_file.write_text(json.dumps({"seed": seed, "holds": storm.holds, **asdict(storm)}, indent=2) + "\n")
    if not storm.holds:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
