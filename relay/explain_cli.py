"""The whole story of one, and what comes while it comes: `relay explain` and `relay tail`.

They read beside a running relay, and change nothing. Bodies are shown only where `--reveal` asks for them, and that is
written into the audit log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from relay import terminal
from relay.desk_cli import Source, Type, as_row, filters, hashes_of, in_short, load_settings, pages
from relay.outbox_cli import Json, event_json
from relay.terminal import FOUND, fail, instant, out, show_json

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store.base import Store
    from relay.store.rejected import Rejected
    from relay.store.search import Wanted
    from relay.store.telling import Again, EventStory, NotificationStory, Story
    from relay.tellings import Telling

_COLOURS = {
    "mapped": "green", "sent": "green", "failed": "bold red", "dead": "bold red", "not_mapped": "yellow",
    "to_do": "cyan", "pending": "cyan", "batched": "cyan", "waiting": "cyan", "refused": "bold red",
}  # fmt: skip
_OVERLAP_MS = 10_000
_MOST_STORIES = 20
_TOLD_ABOVE = frozenset({"events", "delivery", "source"})


# --- the lineage of one -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    stories: Sequence[Story]
    refused: Sequence[Rejected]
    is_waiting: bool


def explain(
    reference: Annotated[
        str, typer.Argument(metavar="NAME", help="A provider's id (evt_...), an order, an event_id, an e-mail address.")
    ],
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Headers and bodies too; the audit log will say so.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell the whole story of one: from its delivery to the API's answer, and from an event back to what was sent.

    With it come all that told the same: one sale that was told by three notifications shows all three. What was refused
    for its signature is found too. Exit code 1 where nothing has that name.
    """

    async def read(settings: Settings) -> _Found:
        async with terminal.opened(settings, reads_bodies=True) as store:
            found = await store.console.find(reference, users=hashes_of(reference, settings))
            numbers = list(dict.fromkeys(one.delivery for one in found))[:_MOST_STORIES]
            stories = [story for number in numbers if (story := await store.console.story(number)) is not None]
            if reveal:
                for story in stories:
                    await terminal.note(store, "revealed", str(story.delivery))
            wanted = reference.encode()
            refused = [
                one for one in await store.rejected.listing(limit=1000, opened=True) if wanted in (one.body or b"")
            ]
            is_waiting = any(wanted in one.body for one in await store.inbox(limit=1000))
            return _Found(stories, refused, is_waiting)

    found = terminal.run(read(load_settings()))
    sales = _sales(found)
    if as_json:
        show_json({
            "sales": [{"name": one.name, "order": one.order, "counts": len(one.counted), "is_double": one.is_double,
                       "event_ids": [event.event_id for event in one.counted]} for one in sales],
            "deliveries": [_story(story, reveal=reveal) for story in found.stories],
            "refused": [_refused(one) for one in found.refused], "is_waiting_to_be_mapped": found.is_waiting,
        })  # fmt: skip
    else:
        for story in found.stories:
            out.print(_tree(story, reveal=reveal), soft_wrap=False)
        for one in found.refused:
            out.print(
                f"refused {instant(one.at_ms)} at source {one.source}: {one.words}", style="bold red", markup=False
            )
            out.print(f"  relay rejected show {one.id}", markup=False)
        if found.is_waiting:
            out.print("It is in the inbox, and is mapped within the second.")
        for sale in sales:
            out.print(sale.words, style="bold red" if sale.is_double else "bold", markup=False)
    if not (found.stories or found.refused or found.is_waiting):
        fail(f"Nothing that is kept has the name {reference!r}. Names are exact: a provider's id, an order's id, an "
             "event_id, a user_id, an e-mail address. What came before the retention is gone.", code=FOUND)  # fmt: skip


def _sales(found: _Found) -> Sequence[Telling]:
    from relay.tellings import tellings

    return tellings([one.told for story in found.stories for one in story.notifications])


def _story(story: Story, *, reveal: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "delivery": str(story.delivery), "source": story.source, "received": instant(story.received_at_ms),
        "secret": None if story.secret < 0 else story.secret + 1, "bytes": story.size,
        "body_is_kept": story.body is not None, "trouble": story.trouble,
        "notifications": [
            {
                **{key: value for key, value in as_row(one.told).items() if key not in _TOLD_ABOVE},
                "events": [_event_story(event) for event in one.events],
                "told_before": [_again(again) for again in one.repeated],
            }
            for one in story.notifications
        ],
    }  # fmt: skip
    if reveal and story.body is not None:
        shown |= {"headers": story.headers, "body": story.body.decode("utf-8", "replace")}
    return shown


def _event_story(one: EventStory) -> dict[str, Any]:
    batch = one.batch
    return {
        **event_json(one.event),
        "keys": list(one.once),
        "batch": None if batch is None else {
            "batch": str(batch.id), "state": batch.state, "attempts": batch.attempts, "events": batch.size,
            "idempotency_key": batch.idempotency_key, "words": batch.words,
        },
        "told_again_by": [_again(again) for again in one.again],
    }  # fmt: skip


def _again(one: Again) -> dict[str, Any]:
    return {
        "time": instant(one.made_at_ms), "name": one.name, "key": one.key, "notification": one.notification_id,
        "type": one.type, "delivery": str(one.delivery) if one.delivery else None, "event_id": one.event_id,
        "event_delivery": str(one.event_delivery) if one.event_delivery else None,
    }  # fmt: skip


def _refused(one: Rejected) -> dict[str, Any]:
    return {"id": str(one.id), "time": instant(one.at_ms), "source": one.source, "reason": one.reason,
            "cause": one.cause, "words": one.words}  # fmt: skip


def _tree(story: Story, *, reveal: bool) -> Tree:
    secret = "taken unverified, in shadow mode" if story.secret < 0 else f"secret {story.secret + 1} fitted"
    root = Tree(Text.assemble(("delivery ", "bold"), f"{story.delivery}  {instant(story.received_at_ms)}  source "
                              f"{story.source}, {story.size} bytes, {secret}"))  # fmt: skip
    if reveal and story.body is not None:
        for name, value in sorted((story.headers or {}).items()):
            root.add(Text(f"{name}: {value}", style="dim"))
        root.add(Text(story.body.decode("utf-8", "replace"), style="dim"))
    elif story.body is None:
        root.add(Text(f"its body is not kept{f': {story.trouble}' if story.trouble else ' (any more)'}", style="dim"))
    for one in story.notifications:
        _add_notification(root, one)
    return root


def _add_notification(root: Tree, one: NotificationStory) -> None:
    told = one.told
    repeats = f", said {told.repeats} times more" if told.repeats else ""
    branch = root.add(Text.assemble(("notification ", "bold"), f"{told.notification_id}  {told.type}  ",
                                    _coloured(told.outcome.value), repeats))  # fmt: skip
    if told.error:
        branch.add(Text(told.error.strip().splitlines()[-1], style="red"))
    for event in one.events:
        _add_event(branch, event)
    for again in one.repeated:
        by = (
            f"event {again.event_id} (delivery {again.event_delivery})"
            if again.event_id
            else "one that is still to come"
        )
        branch.add(Text(f"duplicate: the {again.name} is not sent, as {again.key} was told by {by}", style="yellow"))


def _add_event(branch: Tree, one: EventStory) -> None:
    row, said = one.event, json.loads(one.event.payload)
    money = f"  {said['revenue']} {said.get('currency', '')}" if said.get("revenue") is not None else ""
    when = f" {instant(row.settled_at_ms)}" if row.settled_at_ms else ""
    leaf = branch.add(Text.assemble(("event ", "bold"), f"{row.name}{money}  ", _coloured(row.state.value),
                                    f"{when} → {row.destination}"))  # fmt: skip
    leaf.add(Text(f"event_id {row.event_id}  user_id {said.get('user_id') or 'none'}  (event {row.id})"))
    if one.once:
        leaf.add(Text(f"keys {', '.join(one.once)}"))
    if row.reason:
        leaf.add(Text(f"given up: {row.reason}", style="red"))
    if one.batch is not None:
        words = f": {one.batch.words}" if one.batch.words else ""
        leaf.add(Text(f"batch {one.batch.id} {one.batch.state}, attempt {one.batch.attempts}, "
                      f"Idempotency-Key {one.batch.idempotency_key}{words}"))  # fmt: skip
    for again in one.again:
        by = f"{again.notification_id} {again.type} (delivery {again.delivery})"
        leaf.add(Text(f"told again by {by} as {again.name}: {again.key}, not counted", style="yellow"))


def _coloured(word: str) -> tuple[str, str]:
    return word, _COLOURS.get(word, "dim")


# --- live -------------------------------------------------------------------------------------------------------------


def tail(
    *,
    source: Source = None,
    kind: Type = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="So many of the last ones first.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Show what comes while it comes: notifications with their events, and what is refused. Ends with Ctrl-C."""

    async def show() -> None:
        async with terminal.opened(load_settings()) as store:
            seen: set[str] = set()
            wanted = filters(source, kind, None, None, None)
            page = await store.console.listing(wanted, limit=lines) if lines else None
            for told in reversed(page.rows if page else ()):
                seen.add(str(told.id))
                _tell(as_row(told), as_json=as_json)
            if follow:
                await _follow(store, wanted, seen, as_json=as_json)

    try:
        terminal.run(show())
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _follow(store: Store, wanted: Wanted, seen: set[str], *, as_json: bool) -> None:
    import asyncio
    from dataclasses import replace

    from relay.clock import unix_ms

    since_ms = unix_ms()
    while True:
        began_ms = unix_ms()
        fresh = [told async for told in pages(store, replace(wanted, since_ms=since_ms), None)]
        refused = [] if wanted.type else await store.rejected.listing(source=wanted.source, since_ms=since_ms)
        rows = [(told.made_at_ms, str(told.id), as_row(told)) for told in fresh]
        rows += [(one.at_ms, str(one.id), {**_refused(one), "outcome": "refused"}) for one in refused]
        for _, name, row in sorted(rows, key=lambda found: found[0]):
            if name not in seen:
                seen.add(name)
                _tell(row, as_json=as_json)
        since_ms = max(since_ms, began_ms - _OVERLAP_MS)
        await asyncio.sleep(1)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False))
        return
    line = Text.assemble((_clock_of(row["time"]), "dim"), "  ", (row["source"], "bold"), "  ")
    line.append_text(Text.assemble(_coloured(row["outcome"])))
    if row["outcome"] == "refused":
        line.append(f"  {row['reason']} ({row['cause']}): {row['words'].partition('. ')[0]}")
    else:
        line.append(f"  {row['type']}  {row['notification']}  {in_short(row)}")
    out.print(line)


def _clock_of(text: str) -> str:
    """In the time of this machine."""
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return time.strftime("%H:%M:%S", at.astimezone().timetuple())
