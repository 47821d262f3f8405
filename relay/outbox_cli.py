"""The commands on what is kept: `relay outbox`, `relay dead`, `relay duplicates`. They work beside a running relay.

A running relay looks into its store every second, so that what is released or sent again here leaves by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from relay import terminal
from relay.terminal import WRONG, fail, instant, out, show_json

if TYPE_CHECKING:
    from relay.store.base import BatchRow, Depth, DuplicateRow, EventRow, InboxDepth, Store

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

_PIECE = 1000

outbox = typer.Typer(help="What is not yet accepted by its destination.", invoke_without_command=True)
dead = typer.Typer(help="Dead letters: events that were given up, with the reason.", no_args_is_help=True)


# --- outbox -----------------------------------------------------------------------------------------------------------


@outbox.callback()
def show_outbox(context: typer.Context, *, as_json: Json = False) -> None:
    """Show what is not yet accepted: deliveries not mapped, events by destination, and the batches that are open.

    pending: not sent yet. batched: in a batch that is being sent or tried again. waiting: for the fact who it was.
    held: in doubt, and waiting for you (see "relay outbox release --help"). dead: given up (see "relay dead --help").
    doubted: were in doubt at least once.
    """
    if context.invoked_subcommand is not None:
        return
    inbox, depths, batches = terminal.run(_read_outbox())
    if as_json:
        waiting = {"deliveries": inbox.deliveries, "oldest": instant(inbox.oldest_ms)}
        show_json({"inbox": waiting, "destinations": [_depth(depth) for depth in depths],
                   "batches": [_batch(row) for row in batches]})  # fmt: skip
        return
    if inbox.deliveries:
        out.print(f"Not mapped yet: {inbox.deliveries} deliveries, the oldest of {instant(inbox.oldest_ms)}.\n")
    doubted = sum(depth.doubted for depth in depths)
    if not any((one.pending, one.batched, one.waiting, one.held, one.dead) != (0, 0, 0, 0, 0) for one in depths):
        out.print("The outbox is empty: all events were accepted.")
        if doubted:
            out.print(f"{doubted} were in doubt at least once: relay deliveries --status doubted")
        return
    print_table([_depth(depth) for depth in depths])
    if batches:
        out.print("\nOpen batches", style="bold")
        print_table([_batch(row) for row in batches])


async def _read_outbox() -> tuple[InboxDepth, Sequence[Depth], Sequence[BatchRow]]:
    async with terminal.opened(_settings()) as store:
        return await store.inbox_depth(), await store.depths(), await store.open_batches()


@outbox.command("show")
def show_batch(
    batch: Annotated[int, typer.Argument(help='The batch, as "relay outbox" shows it.')], *, as_json: Json = False
) -> None:
    """Show the events of an open batch: their event_ids are what to look for in your project."""

    async def read() -> tuple[Any, Sequence[EventRow]] | None:
        async with terminal.opened(_settings()) as store:
            return next(((row, events) for row, events in await store.console.doubted() if row.id == batch), None)

    found = terminal.run(read())
    if found is None:
        fail(f'No batch {batch} is in doubt. "relay outbox" lists the open ones with their state.')
    row, events = found
    shown = [event_json(event) for event in events]
    if as_json:
        show_json({"batch": str(row.id), "state": row.state, "size": row.size, "words": row.words, "events": shown})
        return
    out.print(f"Batch {row.id}, {row.state}, {row.size} events for {row.destination}: {row.words or 'no answer'}",
              markup=False)  # fmt: skip
    print_table(shown, ("event_id", "name", "source", "made", "notification"))
    if row.size > len(shown):
        out.print(f"... and {row.size - len(shown)} more. A batch arrives whole or not at all: one of them tells.")


@outbox.command("release")
def release(
    batch: Annotated[int, typer.Argument(help='The batch, as "relay outbox" shows it.')],
    *,
    accepted: Annotated[bool, typer.Option("--accepted", help="It had arrived: mark its events as sent.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="It had not arrived: send it again.")] = False,
) -> None:
    """Decide about a held batch: one that was sent, and whose answer never came.

    Batches are held where RELAY_IN_DOUBT=hold. Look into your project whether its events are there ("relay outbox show"
    has their ids): what is sent again although it had arrived counts twice, what is marked although it had not is
    missing.
    """
    if accepted == resend:
        fail("Say one of --accepted (its events are in your project) and --resend (they are not).", code=WRONG)

    async def settle() -> bool:
        async with terminal.opened(_settings()) as store:
            await terminal.note(store, "settled a held batch", str(batch), accepted=accepted)
            return await store.settle_held(batch, accepted=accepted)

    if not terminal.run(settle()):
        fail(f'No batch {batch} is held. "relay outbox" lists the open ones with their state.')
    out.print(f"Batch {batch} {'is marked as sent' if accepted else 'will be sent again'}.")


# --- duplicates -------------------------------------------------------------------------------------------------------


def duplicates(
    *,
    event: Annotated[str | None, typer.Option(help="Only those of this event, by its event_id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List what was told twice: notifications whose fact another one had told, with the event that counts."""

    async def read() -> Sequence[DuplicateRow]:
        async with terminal.opened(_settings()) as store:
            return await store.duplicates(event_id=event, limit=limit)

    rows = [asdict(row) | {"made": instant(row.made_at_ms)} for row in terminal.run(read())]
    if as_json:
        show_json(rows)
    elif not rows:
        out.print("Nothing was told twice.")
    else:
        columns = ("made", "source", "notification_id", "type", "key", "event_name", "event_id")
        print_table([{column: row[column] for column in columns} for row in rows])


# --- dead letters -----------------------------------------------------------------------------------------------------


@dead.command("list")
def list_dead(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List the dead letters, newest first."""
    rows = terminal.run(_read_dead(limit))
    if as_json:
        show_json([event_json(row) for row in rows])
    elif not rows:
        out.print("There are no dead letters.")
    else:
        columns = ("id", "made", "source", "name", "destination", "reason")
        print_table([{column: event_json(row)[column] for column in columns} for row in rows])


async def _read_dead(limit: int) -> Sequence[EventRow]:
    from relay.store.schema import EventState

    async with terminal.opened(_settings()) as store:
        return await store.events(state=EventState.DEAD, limit=limit)


@dead.command("show")
def show_dead(
    reference: Annotated[str, typer.Argument(metavar="ID", help="Its id in the list, or the event's event_id.")],
    *,
    as_json: Json = False,
) -> None:
    """Show one dead letter: the event as it would leave, the reason, and the notification that it came from."""

    async def read() -> EventRow:
        async with terminal.opened(_settings()) as store:
            return await _the_dead(store, reference)

    event = event_json(terminal.run(read()))
    if as_json:
        show_json(event)
        return
    for label, value in event.items():
        if label != "event":
            out.print(f"{label:<16} {'' if value is None else value}", markup=False)
    out.print_json(data=event["event"])


@dead.command("resend")
def resend_dead(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Their ids in the list, or their event_ids.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: Json = False,
) -> None:
    """Put dead letters back into the outbox, after what was wrong is right. The relay then sends them again."""
    if bool(references) == everything:
        fail('Name the dead letters by their ids ("relay dead list"), or say --all.', code=WRONG)
    count = terminal.run(_resend(references or []))
    if as_json:
        show_json({"resent": count})
    else:
        out.print(f"{count} put back into the outbox; a running relay sends them within seconds.")


async def _resend(references: Sequence[str]) -> int:
    from relay.store.schema import EventState

    async with terminal.opened(_settings()) as store:
        if references:
            ids = [(await _the_dead(store, reference)).id for reference in references]
            await store.resend(ids)
            await terminal.note(store, "sent dead letters again", n=len(set(ids)))
            return len(set(ids))
        done: set[int] = set()
        while True:
            rows = await store.events(state=EventState.DEAD, limit=_PIECE + len(done))
            fresh = [row.id for row in rows if row.id not in done]  # the relay may refuse them while we go on
            if not fresh:
                await terminal.note(store, "sent dead letters again", n=len(done))
                return len(done)
            await store.resend(fresh)
            done.update(fresh)


async def _the_dead(store: Store, reference: str) -> EventRow:
    from relay.store.schema import EventState

    rows = await store.events(reference=reference)
    if not rows:
        fail(f'There is no event {reference}. "relay dead list" lists the dead letters.')
    row = next((row for row in rows if row.state is EventState.DEAD), None)
    if row is None:
        fail(f"The event {reference} is no dead letter: it is {rows[0].state}.")
    return row


# --- rows -------------------------------------------------------------------------------------------------------------
# Ids are texts in JSON: they have more digits than a script's floating point keeps.


def _depth(depth: Depth) -> dict[str, Any]:
    return {
        "destination": depth.destination,
        "pending": depth.pending,
        "batched": depth.batched,
        "waiting": depth.waiting,
        "held": depth.held,
        "dead": depth.dead,
        "doubted": depth.doubted,
        "oldest": instant(depth.oldest_ms),
    }


def _batch(row: BatchRow) -> dict[str, Any]:
    return {
        "batch": str(row.id),
        "destination": row.destination,
        "state": row.state,
        "events": row.size,
        "attempts": row.attempts,
        "due": instant(row.due_at_ms) if row.due_at_ms else None,
        "words": row.words,
    }


def event_json(row: EventRow) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "event_id": row.event_id,
        "name": row.name,
        "source": row.source,
        "destination": row.destination,
        "state": row.state,
        "made": instant(row.made_at_ms),
        "given_up": instant(row.settled_at_ms),
        "reason": row.reason,
        "doubts": row.doubts,
        "notification": row.notification_id,
        "event": json.loads(row.payload),
    }


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows with the same columns, numbers to the right; of all columns, or of these."""
    rows = [{column: row[column] for column in columns or row} for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    out.print(table, soft_wrap=False)


def _settings() -> Any:
    return terminal.load_settings(terminal.load_providers())
