"""A plan for a load: how many replicas, how much database, from what a webhook was measured to cost.

In: `Costs` (those of docs/scaling.md, or others) and webhooks a second at the peak. Out: a `Plan`. `python -m
bench.model` prints the table of docs/scaling.md; `--rate 5000` plans one load, `--costs FILE` takes what
`python -m bench.costs --json FILE` wrote on your machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Annotated

import typer

RATES = (10, 100, 1_000, 10_000, 100_000)

_DAY_S = 86_400
_GB = 1e9
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one webhook, measured; and the rules to plan by, chosen."""

    #: CPU of a replica that receives, in µs.
    receive_us: float = 49
    #: What one replica maps and forwards at most, a second, on one core.
    work_per_s: float = 2600
    #: CPU of the database, in µs, until the event is settled.
    database_us: float = 249
    #: What the database writes to its log.
    wal_bytes: float = 7960
    #: Rows and indexes, which stay as long as the keys.
    row_bytes: float = 5100

    #: A body in its bundle. The bench's are so alike that theirs is nothing; those of providers are less so.
    body_bytes: float = 1000
    retain_keys_days: int = 90
    retain_bodies_days: int = 7
    #: Of the peak, what comes on average.
    average: float = 1 / 3
    #: How busy a process, and the database, may be at the peak.
    busy: float = 0.6
    database_busy: float = 0.5
    #: What one database server is taken to have: cores, and bytes of log a second that its disk syncs.
    server_cores: int = 32
    server_wal_bytes_per_s: float = 150e6
    #: Connections of a replica that receives, and of one that maps and forwards.
    receive_connections: int = 3
    work_connections: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """For one load."""

    per_s: float
    #: Replicas that receive, and those that map and forward; two of each at least, so that none is special.
    receive: int
    work: int
    database_cores: float
    wal_mb_per_s: float
    connections: int
    disk_gb: float
    #: Database servers, each with sources of its own.
    servers: int

    @property
    def is_small(self) -> bool:
        """Whether two replicas that do everything are enough."""
        return self.receive + self.work <= 4


def plan(per_s: float, costs: Costs) -> Plan:
    """What this many webhooks a second at the peak need."""
    receive = max(2, ceil(per_s * costs.receive_us / 1e6 / costs.busy))
    work = max(2, ceil(per_s / (costs.work_per_s * costs.busy)))
    cores = per_s * costs.database_us / 1e6 / costs.database_busy
    wal = per_s * costs.wal_bytes
    kept = costs.row_bytes * costs.retain_keys_days + costs.body_bytes * costs.retain_bodies_days
    return Plan(
        per_s=per_s,
        receive=receive,
        work=work,
        database_cores=cores,
        wal_mb_per_s=wal / _MB,
        connections=receive * costs.receive_connections + work * costs.work_connections,
        disk_gb=per_s * costs.average * _DAY_S * kept / _GB,
        servers=max(1, ceil(cores / costs.server_cores), ceil(wal / costs.server_wal_bytes_per_s)),
    )


def most_of_one_server(costs: Costs) -> float:
    """Webhooks a second that one database server takes at the peak."""
    return min(
        costs.server_cores * costs.database_busy / costs.database_us * 1e6,
        costs.server_wal_bytes_per_s / costs.wal_bytes,
    )


def table(costs: Costs, rates: tuple[float, ...] = RATES) -> str:
    """The plans as Markdown."""
    rows = [
        "| webhooks/s at the peak | replicas | database cores | its log | connections | disk | database servers |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in (plan(rate, costs) for rate in rates):
        replicas = "2" if one.is_small else f"{one.receive} receive, {one.work} forward"
        connections = 2 * costs.work_connections if one.is_small else one.connections
        rows.append(
            f"| {one.per_s:,.0f} | {replicas} | {_cores(one.database_cores)} | {_rate(one.wal_mb_per_s)} "
            f"| {connections:,} | {_disk(one.disk_gb)} | {one.servers} |"
        )
    return "\n".join(rows) + "\n"


def _cores(cores: float) -> str:
    return "1" if cores < 1 else f"{ceil(cores)}"


def _rate(mb: float) -> str:
    return f"{mb:,.0f} MB/s" if mb >= 1 else f"{mb * 1000:,.0f} kB/s"


def _disk(gb: float) -> str:
    return f"{gb / 1000:,.1f} TB" if gb >= 1000 else f"{gb:,.0f} GB"


def measured(file: Path) -> Costs:
    """The costs that `bench.costs` wrote."""
    found = json.loads(file.read_text())
    receive, work = found["receive"], found["work"]
    return replace(
        Costs(),
        receive_us=receive["cpu_us"],
        work_per_s=work["per_s"],
        database_us=receive["database_us"] + work["database_us"],
        wal_bytes=receive["wal_bytes"] + work["wal_bytes"],
        row_bytes=found["stored_bytes"],
    )


def main(
    *,
    rate: Annotated[list[float] | None, typer.Option(help="Webhooks a second at the peak; several times.")] = None,
    costs_file: Annotated[Path | None, typer.Option("--costs", help="What bench.costs --json wrote.")] = None,
) -> None:
    """Plan replicas and database for a load."""
    costs = Costs() if costs_file is None else measured(costs_file)
    typer.echo(table(costs, tuple(rate) if rate else RATES))
    typer.echo(f"One database server of {costs.server_cores} cores takes {most_of_one_server(costs):,.0f} webhooks/s.")


if __name__ == "__main__":
    typer.run(main)
