"""What came and what became of it, as lists: `relay deliveries`, `relay events`, `relay sources`.

They read beside a running relay, and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json, event_json, print_table
from relay.terminal import WRONG, fail, instant, moment, out, show_json

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store.base import EventRow, Store
    from relay.store.search import Told, Wanted

Source = Annotated[str | None, typer.Option(help="Only of this source.")]
Type = Annotated[str | None, typer.Option("--type", help="Only of this type, in the provider's words.")]
Status = Annotated[
    str | None,
    typer.Option(
        help="mapped, ignored, not_mapped, test, failed, to_do; or pending, waiting, dead, doubted, duplicate."
    ),
]
Since = Annotated[str | None, typer.Option(help="From when on: 7d, 36h, 90m ago, or 2026-11-01.")]
Until = Annotated[str | None, typer.Option(help="Until when, in the same words.")]
Limit = Annotated[int, typer.Option(min=1, help="At most this many, newest first.")]

_PAGE = 200


# --- lists ------------------------------------------------------------------------------------------------------------


def deliveries(
    reference: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A provider's id, an order, an event_id, a user's hash.")
    ] = None,
    *,
    source: Source = None,
    kind: Type = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List what came, newest first: each notification with its outcome and its events. A NAME finds one and its kin."""

    async def read(settings: Settings) -> Sequence[Told]:
        async with terminal.opened(settings) as store:
            if reference is not None:
                return (await store.console.find(reference, users=hashes_of(reference, settings)))[:limit]
            return [one async for one in pages(store, filters(source, kind, status, since, until), limit)]

    rows = [as_row(one) for one in terminal.run(read(load_settings()))]
    if as_json:
        show_json(rows)
    elif not rows:
        out.print("Nothing of that kind came.")
    else:
        shown = ("time", "source", "type", "notification", "outcome", "events", "delivery")
        print_table([{**row, "events": in_short(row)} for row in rows], shown)


def events(
    reference: Annotated[str | None, typer.Argument(metavar="[ID]", help="An event_id, or its row id.")] = None,
    *,
    state: Annotated[str | None, typer.Option(help="waiting, pending, batched, sent or dead.")] = None,
    source: Source = None,
    name: Annotated[str | None, typer.Option(help="Only of this name (purchase).")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the events that were made, newest first, with where each of them is."""
    from relay.store.schema import EventState

    if state is not None and state not in list(EventState):
        fail(f"No event is ever {state!r}. They are: {', '.join(EventState)}.", code=WRONG)

    async def read() -> list[EventRow]:
        async with terminal.opened(load_settings()) as store:
            if reference is not None:
                return list(await store.events(reference=reference))
            found: list[EventRow] = []
            fast = state if state in {"pending", "waiting", "dead"} else None
            async for told in pages(store, filters(source, None, fast, since, until), None):
                found += [one for one in told.events if state in (None, one.state) and name in (None, one.name)]
                if len(found) >= limit:
                    break
            return found[:limit]

    rows = [event_json(row) for row in terminal.run(read())]
    if as_json:
        show_json(rows)
    elif not rows:
        out.print("There are no such events.")
    else:
        print_table(rows, ("made", "source", "name", "state", "destination", "event_id", "id"))


async def pages(store: Store, wanted: Wanted, limit: int | None) -> Any:
    before, n = None, 0
    while True:
        page = await store.console.listing(wanted, before=before, limit=min(limit or _PAGE, _PAGE))
        for told in page.rows:
            if limit is not None and n >= limit:
                return
            n += 1
            yield told
        before = page.before
        if before is None or (limit is not None and n >= limit):
            return


def filters(source: str | None, kind: str | None, status: str | None, since: str | None, until: str | None) -> Wanted:
    from relay.clock import unix_ms
    from relay.store.schema import Outcome
    from relay.store.search import EVENT_STATUSES, Wanted

    known = [*(outcome.value for outcome in Outcome), *EVENT_STATUSES]
    if status is not None and status not in known:
        fail(f"There is no status {status!r}. There are: {', '.join(known)}.", code=WRONG)
    now_ms = unix_ms()
    return Wanted(
        source=source, type=kind, status=status,
        since_ms=moment(since, "--since", now_ms) if since else None,
        until_ms=moment(until, "--until", now_ms) if until else None,
    )  # fmt: skip


def as_row(one: Told) -> dict[str, Any]:
    from relay.store.search import last_line

    return {
        "time": instant(one.made_at_ms), "source": one.source, "type": one.type, "notification": one.notification_id,
        "outcome": one.outcome.value, "error": last_line(one.error) or None, "repeats": one.repeats,
        "duplicates": one.duplicates, "delivery": str(one.delivery),
        "events": [
            {"event_id": event.event_id, "name": event.name, "state": event.state.value,
             "destination": event.destination, "reason": event.reason}
            for event in one.events
        ],
    }  # fmt: skip


def in_short(row: dict[str, Any]) -> str:
    found = [f"{event['name']} {event['state']}" for event in row["events"]]
    found += [f"{row['duplicates']} told before"] if row["duplicates"] else []
    return ", ".join(found) or (row["error"] or "")


# --- sources ----------------------------------------------------------------------------------------------------------


def sources(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None, *, as_json: Json = False
) -> None:
    """List your sources: their URL, when something came last, and whether they are well."""
    settings = load_settings()
    if name is not None and name not in settings.sources:
        fail(f"No source is called {name!r}. There are: {', '.join(settings.sources) or 'none'}.", code=WRONG)

    async def read() -> list[dict[str, Any]]:
        async with terminal.opened(settings) as store:
            return await _states(store, settings)

    rows = [row for row in terminal.run(read()) if name in (None, row["source"])]
    if as_json:
        show_json(rows)
        return
    shown = ("source", "provider", "status", "last", "usual_gap_h", "deliveries_24h", "refused_24h", "url")
    print_table(rows, shown) if rows else out.print('No source has a secret. "relay providers" says how to set one.')
    for row in rows:
        if row["why"]:
            out.print(f"\n{row['source']}: {row['why']}", markup=False)


async def _states(store: Store, settings: Settings) -> list[dict[str, Any]]:
    from relay.clock import unix_ms
    from relay.source_states import DAY_MS, State, source_states
    from relay.store.counting import HOUR_MS

    now_ms = unix_ms()
    day = await store.console.counted(width_ms=HOUR_MS, since_ms=now_ms - DAY_MS)
    rows = []
    for one in await source_states(store, settings.sources, now_ms=now_ms):
        source, why = settings.sources[one.slug], one.why
        if one.state is State.SHADOW:
            why = f"SHADOW MODE until {instant(one.shadow_until_ms)}. {why}"
        rows.append({
            "source": one.slug, "provider": source.provider, "status": one.state.value, "last": instant(one.last_ms),
            "usual_gap_h": None if one.gap_ms is None else one.gap_ms // HOUR_MS,
            "deliveries_24h": sum(c.n for c in day.counts if c.source == one.slug and c.measure == "deliveries"),
            "refused_24h": one.refused,
            "url": source.public_url or f"{terminal.base_url(settings)}/webhooks/{one.slug}", "why": why,
            "causes": [
                {"reason": cause.reason, "cause": cause.cause, "n": cause.n, "words": cause.words}
                for cause in one.causes
            ],
        })  # fmt: skip
    return rows


def load_settings() -> Settings:
    return terminal.load_settings(terminal.load_providers())


def hashes_of(reference: str, settings: Settings) -> list[str]:
    """The hashes of an e-mail address, under each key that is in use."""
    if "@" not in reference:
        return []
    from relay.identity import hash_email

    used = {source.policy.hash_key for source in settings.sources.values()} or {None}
    return sorted({hash_email(reference, key) for key in used})
