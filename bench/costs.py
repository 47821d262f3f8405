"""What a webhook costs on PostgreSQL, part by part: first a replica that only receives, then one that does the rest.

`python -m bench.costs`. Its figures are those that `bench.model` plans with. It takes about two minutes.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from rich.console import Console

from bench import postgres, process, sink
from bench.load import load

_PATIENCE_S = 120
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8"
_SIZES = (
    "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND n.nspname = 'public'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One replica in one role."""

    per_s: float
    #: CPU of the replica, and of the database, for each webhook.
    cpu_us: float
    database_us: float
    wal_bytes: float
    rss_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Both roles one after the other, and what is left on the disk."""

    webhooks: int
    receive: Part
    work: Part
    stored_bytes: float


def measure(seconds: float) -> Measured:
    """Receive for so long, then map and forward all of it to a sandbox."""
    with (
        process.folder() as folder,
        postgres.server() as database,
        process.sandbox(folder) as sandbox,
        process.client(sandbox) as looking,
    ):
        url = database.database("relay")

        def replica(role: str) -> process.Child:
            return process.relay(folder, "--role", role, name=role, port=process.free_port(), sandbox=sandbox.url,
                                 RELAY_DATABASE_URL=url)  # fmt: skip

        with replica("receive") as receiving:
            cpu_s, database_s, wal = receiving.cpu_s(), database.cpu_s(), _one(url, _WAL)
            done = load(receiving.port, seconds=seconds)
            number = len(done.acknowledged)
            time.sleep(0.3)
            receive = Part(
                per_s=done.per_second,
                cpu_us=(receiving.cpu_s() - cpu_s) / number * 1e6,
                database_us=(database.cpu_s() - database_s) / number * 1e6,
                wal_bytes=(_one(url, _WAL) - wal) / number,
                rss_mb=receiving.rss_mb(),
            )
        with replica("forward") as working:
            cpu_s, database_s, wal, began = working.cpu_s(), database.cpu_s(), _one(url, _WAL), time.time()
            ended = sink.wait_for(lambda: sink.count(looking), number, within_s=_PATIENCE_S)
            work = Part(
                per_s=number / max(ended - began, 1e-9),
                cpu_us=(working.cpu_s() - cpu_s) / number * 1e6,
                database_us=(database.cpu_s() - database_s) / number * 1e6,
                wal_bytes=(_one(url, _WAL) - wal) / number,
                rss_mb=working.rss_mb(),
            )
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM")
            stored = sum(size for _, size in connection.execute(_SIZES))
        return Measured(webhooks=number, receive=receive, work=work, stored_bytes=stored / number)


def _one(url: str, query: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(query.encode()).fetchone()
    assert found is not None
    return int(found[0])


def main(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="For how long to receive.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Measure what a webhook costs a replica that receives, one that does the rest, and the database."""
    console, found = Console(), measure(seconds)
    for name, part in (("receive", found.receive), ("map and forward", found.work)):
        costs = f"CPU {part.cpu_us:.0f} µs, database {part.database_us:.0f} µs, log {part.wal_bytes:,.0f} bytes"
        console.print(f"{name:<16} {part.per_s:>8,.0f}/s, {part.rss_mb:.0f} MB; a webhook: {costs}", soft_wrap=True)
    console.print(f"{found.webhooks:,} webhooks; {found.stored_bytes:,.0f} bytes of each are on the disk")
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
