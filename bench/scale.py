"""Scale-out, measured: two replicas on one PostgreSQL beside the design that commits each webhook on its own.

`python -m bench.scale` prints a table; `--quick` takes seconds and proves little. The designs (`bench.naive` has the
other ones) run in turns, in two processes each, on the same database server. Then batches of 1000 are claimed and
settled. It ends with 1 where an acknowledged webhook is not in the outbox exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import orjson
import psycopg
import typer
from rich.console import Console
from rich.table import Table

from bench import naive, postgres, process, sink
from bench.checkout import number_of
from bench.load import Load, load
from bench.process import Child
from bench.sink import Arrived
from relay.clock import unix_ms
from relay.store import open_store
from relay.vault import Vault

TARGET_RATIO = 2.5
TARGET_CLAIMS = 20_000

REPLICAS = 2
_CONNECTIONS = 64
_PATIENCE_S = 60
_BREAK_S = 0.5
_PAYLOAD_BYTES = 380
_FILL = (
    "WITH made AS (INSERT INTO events (id, notification, source, destination, event_id, name, state) "
    "SELECT n, n, 'bench', 'default', 'evt_' || n, 'purchase', 'pending' FROM generate_series(1, %s) n RETURNING id) "
    "INSERT INTO payloads (id, payload) SELECT id, convert_to(repeat('x', %s), 'UTF8') FROM made"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One design under load, once."""

    accepted_per_s: float
    #: From the first webhook until the last one was in the outbox; where that is before the answer, as accepted.
    mapped_per_s: float
    p50_ms: float
    p99_ms: float
    #: CPU of the servers for each webhook, mapping included.
    cpu_us: float
    #: CPU of the database for each webhook.
    database_us: float
    statuses: dict[str, int]
    arrived: Arrived | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Batches of 1000, claimed and settled one after the other."""

    claimed_per_s: float
    settled_per_s: float
    database_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All of it."""

    #: One commit a webhook: the raw row alone.
    row: list[Round]
    #: One commit a webhook: with all the work.
    work: list[Round]
    relay: list[Round]
    #: Replicas that only receive: a row for many webhooks, and nothing else done either.
    receiving: list[Round]
    #: Deliveries in the inbox of those, for each that was acknowledged.
    kept: float
    claims: Claims

    @property
    def ratio(self) -> float:
        """Accepted, of the design that does the same work with one commit a webhook."""
        return _ratio(self.relay, self.work)

    @property
    def ratio_to_row(self) -> float:
        """Accepted, of the design that writes one row and leaves all the work undone."""
        return _ratio(self.relay, self.row)

    @property
    def ratio_of_receiving(self) -> float:
        """Accepted by replicas that only receive, of the design that writes one row: both leave the work undone."""
        return _ratio(self.receiving, self.row)

    @property
    def exactly_once(self) -> bool:
        """Nothing was refused, lost or doubled in any round."""
        rounds = [*self.row, *self.work, *self.relay, *self.receiving]
        kept = self.kept == 1 and all(one.arrived is None or one.arrived.exactly_once for one in rounds)
        return kept and all(set(one.statuses) == {"200"} for one in rounds)


def _ratio(ours: list[Round], theirs: list[Round]) -> float:
    """The median of the rounds' ratios."""
    return median(one.accepted_per_s / other.accepted_per_s for one, other in zip(ours, theirs, strict=True))


def both(children: Sequence[Child], *, seconds: float, first: int) -> list[Load]:
    """Load on all of them at once, each from a process of its own, with its share of the connections."""
    with ThreadPoolExecutor(len(children)) as pool:
        return list(
            pool.map(
                lambda place: load(
                    children[place].port, seconds=seconds, first=first + place * 1_000_000,
                    connections=_CONNECTIONS // len(children),
                ),
                range(len(children)),
            )
        )  # fmt: skip


def measure(
    children: Sequence[Child],
    database: postgres.Server,
    *,
    seconds: float,
    first: int,
    settle: Callable[[], None] = lambda: None,
    look: Callable[[set[int]], Arrived | None] = lambda _acknowledged: None,
) -> Round:
    """`settle` waits until all that was acknowledged is where it belongs, and `look` sees whether it is."""
    before, servers = database.cpu_s(), sum(child.cpu_s() for child in children)
    began = time.perf_counter()
    done = both(children, seconds=seconds, first=first)
    took = max(one.seconds for one in done)
    acknowledged = set[int]().union(*(one.acknowledged for one in done))
    settle()
    mapped_after = time.perf_counter() - began
    spent, of_database = sum(child.cpu_s() for child in children) - servers, database.cpu_s() - before
    arrived = look(acknowledged)
    number = max(len(acknowledged), 1)
    statuses: dict[str, int] = {}
    for one in done:
        for status, times in one.statuses.items():
            statuses[status] = statuses.get(status, 0) + times
    return Round(
        accepted_per_s=number / took,
        mapped_per_s=number / (took if arrived is None else max(took, mapped_after)),
        p50_ms=median(one.p50_ms for one in done),
        p99_ms=max(one.p99_ms for one in done),
        cpu_us=spent / number * 1e6,
        database_us=of_database / number * 1e6,
        statuses=statuses,
        arrived=arrived,
    )


# --- the two designs --------------------------------------------------------------------------------------------------


def naives(folder: Path, url: str, what: str) -> list[Child]:
    """One commit a webhook, as many processes as there are replicas."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(naive.TABLES)
    ports = [process.free_port() for _ in range(REPLICAS)]
    return [
        Child(f"naive-{port}", [sys.executable, "-m", "bench.naive", str(port), url, what], port=port, folder=folder)
        for port in ports
    ]


def replicas(folder: Path, url: str, sandbox: Child, *, role: str = "all") -> list[Child]:
    """The relay as it is deployed: each receives, maps and forwards; or only the first."""
    return [
        process.relay(folder, "--role", role, name=f"{role}-{place}", port=process.free_port(), sandbox=sandbox.url,
                      RELAY_DATABASE_URL=url)
        for place in range(REPLICAS)
    ]  # fmt: skip


def in_the_inbox(url: str) -> int:
    """Deliveries that are committed and not mapped."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT coalesce(sum(deliveries), 0)::int8 FROM inbox").fetchone()
    assert row is not None
    return int(row[0])


def until_mapped(url: str) -> None:
    """Wait until the inbox is empty."""
    until = time.monotonic() + _PATIENCE_S
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT 1 FROM inbox LIMIT 1").fetchone() and time.monotonic() < until:
            time.sleep(0.02)


def outbox(url: str, wanted: set[int]) -> Iterator[dict[str, Any]]:
    """Events of these webhooks in the store."""
    with psycopg.connect(url) as connection, connection.cursor(name="outbox", binary=True) as cursor:
        cursor.itersize = 5000
        for (payload,) in cursor.execute("SELECT payload FROM payloads"):
            event = orjson.loads(payload)
            if number_of(event) in wanted:
                yield event


# --- claims -----------------------------------------------------------------------------------------------------------


async def claims(url: str, database: postgres.Server, *, batches: int) -> Claims:
    """Claim and settle so many full batches through the store."""
    store = await open_store(url, vault=Vault([bytes(32)]), clock=unix_ms)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_FILL, [(batches + 1) * 1000, _PAYLOAD_BYTES])
            connection.execute("ANALYZE events, payloads")
        claimed_s = settled_s = 0.0
        before, number = database.cpu_s(), 0
        for place in range(batches + 1):
            began = time.perf_counter()
            batch = await store.claim("default", limit=1000, lease_ms=60_000, owner="bench")
            claimed = time.perf_counter()
            assert batch is not None
            await store.sent(batch)
            if place:  # the first one warms up
                claimed_s += claimed - began
                settled_s += time.perf_counter() - claimed
                number += len(batch.events)
            else:
                before = database.cpu_s()
        return Claims(
            claimed_per_s=number / claimed_s, settled_per_s=number / settled_s,
            database_us=(database.cpu_s() - before) / number * 1e6,
        )  # fmt: skip
    finally:
        await store.close()


# --- measuring and showing --------------------------------------------------------------------------------------------


def compare(*, rounds: int, seconds: float, warm_up_s: float, batches: int) -> Figures:
    """All designs in turns, so many times, after a warm-up of each; then the claims."""
    found: tuple[list[Round], list[Round], list[Round], list[Round]] = ([], [], [], [])
    acknowledged_there = 0
    numbers = count(0, 10_000_000)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(process.folder())
        database = stack.enter_context(postgres.server())
        closed = stack.enter_context(process.sandbox(folder, name="closed"))
        with process.client(closed) as telling:
            telling.put("/faults", json={"status": 503, "retry_after": 86_400}).raise_for_status()
        ours = database.database("relay")
        others = [
            [stack.enter_context(child) for child in naives(folder, database.database(what), what)]
            for what in ("row", "work")
        ]
        relays = [stack.enter_context(child) for child in replicas(folder, ours, closed)]
        inbox = database.database("inbox")
        receivers = [stack.enter_context(child) for child in replicas(folder, inbox, closed, role="receive")]

        for seconds_now in [warm_up_s] + [seconds] * rounds:
            for rounds_of, children in zip(found, others, strict=False):
                rounds_of.append(measure(children, database, seconds=seconds_now, first=next(numbers)))
                time.sleep(_BREAK_S)
            found[2].append(
                measure(relays, database, seconds=seconds_now, first=next(numbers), settle=lambda: until_mapped(ours),
                        look=lambda acknowledged: sink.compare(acknowledged, outbox(ours, acknowledged)))
            )  # fmt: skip
            time.sleep(_BREAK_S)
            found[3].append(measure(receivers, database, seconds=seconds_now, first=next(numbers)))
            acknowledged_there += found[3][-1].statuses.get("200", 0)
            time.sleep(_BREAK_S)
        for child in (*others[0], *others[1], *relays, *receivers):
            child.stop()
        kept = in_the_inbox(inbox) / max(acknowledged_there, 1)
        claimed = asyncio.run(claims(database.database("claims"), database, batches=batches))
    return Figures(row=found[0][1:], work=found[1][1:], relay=found[2][1:], receiving=found[3][1:], kept=kept,
                   claims=claimed)  # fmt: skip


def show(figures: Figures, console: Console) -> None:
    """The table, the targets beside it."""
    table = Table("", "accepted/s", "mapped/s", "p50 ms", "p99 ms", "CPU µs", "database µs")
    for column in table.columns[1:]:
        column.justify = "right"
    designs = (("a row and a commit each", figures.row), ("the work and a commit each", figures.work),
               (f"relay, {REPLICAS} replicas", figures.relay),
               (f"relay, {REPLICAS} that only receive", figures.receiving))  # fmt: skip
    for name, rounds in designs:
        middle = [
            median(getattr(one, field) for one in rounds)
            for field in ("accepted_per_s", "mapped_per_s", "p50_ms", "p99_ms", "cpu_us", "database_us")
        ]
        mapped = "" if rounds in (figures.row, figures.receiving) else f"{middle[1]:,.0f}"
        table.add_row(name, f"{middle[0]:,.0f}", mapped, f"{middle[2]:.1f}", f"{middle[3]:.1f}", f"{middle[4]:.0f}",
                      f"{middle[5]:.0f}")  # fmt: skip
    console.print(table)
    console.print("CPU: of the servers and of the database, for each webhook, until it is in the outbox.")
    _verdict(console, "accepted, of the same work with a commit each", f"{figures.ratio:.2f}", figures.ratio,
             TARGET_RATIO)  # fmt: skip
    console.print(f"accepted, of a row and a commit each (which does none of the work): {figures.ratio_to_row:.2f}; "
                  f"by replicas that only receive: {figures.ratio_of_receiving:.2f}")  # fmt: skip
    claimed = figures.claims
    _verdict(console, "events claimed a second, 1000 at a time", f"{claimed.claimed_per_s:,.0f}", claimed.claimed_per_s,
             TARGET_CLAIMS)  # fmt: skip
    console.print(f"settled {claimed.settled_per_s:,.0f}/s; claim and settlement cost the database "
                  f"{claimed.database_us:.0f} µs of CPU an event")  # fmt: skip
    for place, one in enumerate(figures.relay, 1):
        if one.arrived is not None:
            console.print(f"  round {place}: {one.arrived.words}")


def _verdict(console: Console, what: str, said: str, value: float, target: float) -> None:
    color, word = ("green", "reached") if value >= target else ("red", "missed")
    console.print(f"{what}: {said} (target {target:,}: [{color}]{word}[/])")


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="For how long each time.")] = 4,
    warm_up: Annotated[float, typer.Option(min=0.1, help="Seconds of load before anything counts.")] = 1.5,
    batches: Annotated[int, typer.Option(min=1, help="How many batches of 1000 to claim.")] = 30,
    quick: Annotated[bool, typer.Option("--quick", help="One short round, to see that it runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Measure two replicas on one PostgreSQL beside one commit a webhook, then claims of 1000."""
    from bench.__main__ import machine  # noqa: PLC0415  it measures something else

    if quick:
        rounds, seconds, warm_up, batches = 1, 1.0, 0.3, 5
    console = Console()
    console.print(machine())
    console.print(f"{_CONNECTIONS} connections in all; medians of {rounds} rounds of {seconds:g} s, in turns")
    figures = compare(rounds=rounds, seconds=seconds, warm_up_s=warm_up, batches=batches)
    show(figures, console)
    if json_file is not None:
        ratios = {"ratio": figures.ratio, "ratio_to_row": figures.ratio_to_row,
                  "ratio_of_receiving": figures.ratio_of_receiving}  # fmt: skip
        found = {"machine": machine(), **ratios, **asdict(figures)}
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    if not figures.exactly_once:
        console.print("[bold red]An acknowledged webhook is not in the outbox exactly once.[/]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
