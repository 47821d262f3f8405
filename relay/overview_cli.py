"""The first look, and what was done: `relay overview` and `relay audit`. They work beside a running relay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json, print_table
from relay.terminal import ago, instant, out, show_json

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store.base import Store
    from relay.store.console import Deed

_MINUTES_MS = 72 * 3_600_000


def overview(
    *,
    since: Annotated[str, typer.Option(help="How far back the numbers reach: 1h, 1d, 30d.")] = "1d",
    as_json: Json = False,
) -> None:
    """Show what needs attention first, and what came, what left and what it was worth."""
    settings, span_ms = terminal.load_settings(terminal.load_providers()), ago(since, "--since")

    async def read() -> dict[str, Any]:
        async with terminal.opened(settings) as store:
            return await _overview(store, settings, span_ms)

    found = terminal.run(read())
    if as_json:
        show_json(found)
        return
    for one in found["attention"]:
        style = "bold red" if one["severity"] == "critical" else "yellow"
        out.print(f"{one['subject'] or 'relay'}: {one['words']}", style=style, markup=False)
        out.print(f"  {one['remedy']}", markup=False)
    if not found["attention"]:
        out.print("All is well. Nothing needs you.", style="green")
    out.print()
    out.print(", ".join(f"{n} {name.replace('_', ' ')}" for name, n in found["totals"].items()), markup=False)
    for name in ("revenue", "sources", "destinations"):
        if found[name]:
            out.print()
            print_table(found[name])
    if not found["is_complete"]:
        out.print("\nThe numbers are still being counted by the running relay.")


async def _overview(store: Store, settings: Settings, span_ms: int) -> dict[str, Any]:
    from relay.alarms import look
    from relay.clock import unix_ms
    from relay.source_states import source_states
    from relay.store.counting import HOUR_MS, MICROS, MINUTE_MS
    from relay.totals import grouped, money, totals

    now_ms = unix_ms()
    width_ms = MINUTE_MS if span_ms <= _MINUTES_MS else HOUR_MS
    counted = await store.console.counted(width_ms=width_ms, since_ms=now_ms - span_ms)
    unsent = await store.console.unsent(width_ms=width_ms, since_ms=now_ms - span_ms)
    alarms = await look(
        store, sources=settings.sources, destinations=list(settings.destinations), now_ms=now_ms, trouble=None
    )
    n, by_source = totals(counted, unsent), grouped(counted.counts, lambda count: count.source)
    return {
        "since": instant(now_ms - span_ms),
        "attention": [
            {"alarm": one.kind.value, "subject": one.subject, "severity": one.severity, "words": one.words,
             "remedy": one.remedy}
            for one in alarms
        ],
        "totals": {**_numbers(n), "events": n["events"], "sent": n["sent"], "not_sent": n["unsent"]},
        "revenue": [
            {"currency": one.currency, "forwarded": str(Decimal(one.forwarded) / MICROS),
             "not_yet": str(Decimal(one.waiting) / MICROS), "given_back": str(Decimal(one.refunded) / MICROS)}
            for one in money(counted, unsent)
        ],
        "sources": [
            {"source": one.slug, "status": one.state.value, **_numbers(by_source.get(one.slug, Counter())),
             "events": by_source.get(one.slug, Counter())["events"], "last": instant(one.last_ms)}
            for one in await source_states(store, settings.sources, now_ms=now_ms)
        ],
        "destinations": [
            {"destination": depth.destination, "pending": depth.pending + depth.batched, "waiting": depth.waiting,
             "in_doubt": depth.held, "dead": depth.dead, "oldest": instant(depth.oldest_ms)}
            for depth in await store.depths()
        ],
        "is_complete": counted.is_complete and unsent.is_complete,
    }  # fmt: skip


def _numbers(n: Counter[str]) -> dict[str, int]:
    return {
        "deliveries": n["deliveries"], "mapped": n["mapped"], "left_out": n["ignored"] + n["test"],
        "parked": n["failed"] + n["not_mapped"] + n["to_do"], "duplicates": n["duplicates"],
    }  # fmt: skip


def audit(
    *,
    action: Annotated[str | None, typer.Option(help="Only this action, as the list words it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who did what, at the console and here, newest first."""

    async def read() -> Sequence[Deed]:
        async with terminal.opened(terminal.load_settings(terminal.load_providers())) as store:
            return await store.console.deeds(action=action, limit=limit)

    rows: list[dict[str, Any]] = [
        {"time": instant(deed.at_ms), "who": deed.actor, "action": deed.action, "what": deed.subject,
         "details": dict(deed.details), "from": deed.address}
        for deed in terminal.run(read())
    ]  # fmt: skip
    if as_json:
        show_json(rows)
    elif not rows:
        out.print("Nothing was done yet.")
    else:
        print_table([{**row, "details": " ".join(f"{key}={value}" for key, value in row["details"].items())}
                     for row in rows])  # fmt: skip
