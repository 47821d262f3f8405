"""The drain: a backlog in the store, a relay that starts with it, a sandbox: how fast, and in how much memory.

`python -m bench.drain [--backlog 200000]`. The backlog is put in through the store's own `accept`, mapped as ever.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import process, sink
from bench.checkout import SECRET, Checkouts
from bench.sink import Arrived
from relay.app import open_vault
from relay.clock import unix_ms
from relay.contract import Delivery
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.settings import load
from relay.store import open_store
from relay.store.base import Arrival

TARGET_PER_SECOND = 15_000
TARGET_RSS_MB = 150

#: So many arrivals share a commit while the backlog is made.
_GROUP = 500
_PATIENCE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What one drain showed."""

    backlog: int
    filled_s: float
    #: From the first to the last event that the sandbox saw.
    seconds: float
    per_second: float
    #: From the start of the process to the first event at the sandbox.
    first_after_s: float
    cpu_us: float
    rss_begin_mb: float
    rss_peak_mb: float
    database_mb: float
    arrived: Arrived


async def fill(database: Path, backlog: int) -> None:
    """Put so many Checkout webhooks into the store, as if they had just been received."""
    providers = load_providers(None)
    environ = {
        "RELAY_DATABASE_URL": f"sqlite:///{database}",
        "RELAY_ENCRYPTION_KEYS": process.ENCRYPTION_KEY,
        "RELAY_STRIPE_SECRET": SECRET,
        "OAA_PROJECT_ID": "42",
        "OAA_API_KEY": process.API_KEY,
    }
    settings = load(providers, environ=environ, env_file=database.with_name("none.env"))
    store = await open_store(f"sqlite:///{database}", vault=open_vault(settings), clock=unix_ms)
    provider, source = providers["stripe"], settings.sources["stripe"]
    checkouts = Checkouts(8000)
    headers = {"content-type": "application/json; charset=utf-8", "user-agent": "Stripe/1.0"}

    def arrival(number: int) -> Arrival:
        body, now_ms = checkouts.body(number), unix_ms()
        signed = checkouts.signature(body, now_ms // 1000).decode()
        delivery = Delivery(body=body, headers={**headers, "stripe-signature": f"t={now_ms // 1000},v1={signed}"})
        return Arrival(
            source=source.slug,
            received_at_ms=now_ms,
            secret=0,
            headers=dict(delivery.headers),
            body=body,
            notifications=map_delivery(provider, source, delivery, received_at_ms=now_ms),
        )

    try:
        for start in range(0, backlog, _GROUP):
            numbers = range(start, min(start + _GROUP, backlog))
            await asyncio.gather(*(store.accept(arrival(number)) for number in numbers))
    finally:
        await store.close()


def drain(backlog: int) -> Drained:
    """Fill a store, then let a relay empty it."""
    with process.folder() as folder, process.sandbox(folder) as sandbox, process.client(sandbox) as looking:
        database = process.database(folder)
        began = time.perf_counter()
        asyncio.run(fill(database, backlog))
        filled_s = time.perf_counter() - began
        relay = process.relay(folder, port=process.free_port(), sandbox=sandbox.url)
        started_at = time.time()
        with relay, relay.watched() as memory:
            first_at = sink.wait_for(lambda: sink.count(looking), 1, within_s=_PATIENCE_S)
            before, cpu_before = sink.count(looking), relay.cpu_s()
            last_at = sink.wait_for(lambda: sink.count(looking), backlog, within_s=_PATIENCE_S, every_s=0.03)
            cpu_s = relay.cpu_s() - cpu_before
        return Drained(
            backlog=backlog,
            filled_s=filled_s,
            seconds=last_at - first_at,
            per_second=(backlog - before) / max(last_at - first_at, 1e-9),
            first_after_s=first_at - started_at,
            cpu_us=cpu_s / max(backlog - before, 1) * 1e6,
            rss_begin_mb=memory[0],
            rss_peak_mb=max(memory),
            database_mb=database.stat().st_size / 1_000_000,
            arrived=sink.compare(set(range(backlog)), sink.received(looking)),
        )


def show(drained: Drained, console: Console) -> None:
    """Print it, with the targets beside it."""
    fast = "[green]reached[/]" if drained.per_second >= TARGET_PER_SECOND else "[red]missed[/]"
    small = "[green]reached[/]" if drained.rss_peak_mb < TARGET_RSS_MB else "[red]missed[/]"
    console.print(f"[bold]A backlog of {drained.backlog:,} events[/]: {drained.database_mb:,.0f} MB")
    console.print(f"  drained at {drained.per_second:,.0f}/s (target {TARGET_PER_SECOND:,}: {fast}), CPU µs each: "
                  f"{drained.cpu_us:.0f}; the first left {drained.first_after_s:.1f} s after the start")  # fmt: skip
    console.print(f"  MB of memory at most: {drained.rss_peak_mb:.0f} (target {TARGET_RSS_MB}: {small}), at first: "
                  f"{drained.rss_begin_mb:.0f}")  # fmt: skip
    console.print(f"  {drained.arrived.words}")


def main(
    *,
    backlog: Annotated[int, typer.Option(min=1, help="How many events wait.")] = 200_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Measure how fast the relay empties a full outbox, and in how much memory."""
    drained = drain(backlog)
    show(drained, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(drained), indent=2) + "\n")
    if not drained.arrived.exactly_once:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
