"""`relay remap`: map again what came, with the mappers of now. First a look at what would change, then `--yes`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json
from relay.terminal import WRONG, fail, moment, out, show_json

if TYPE_CHECKING:
    from relay.replaying import Replayed
    from relay.store.replays import Difference

#: Lines of each kind; --json has them all.
_MOST_LINES = 30
_WORDS = {
    "new": ("to be sent", "put into the outbox"),
    "corrected": ("not sent yet, to be put right", "put right before it was sent"),
    "changed": ("sent already: listed only", "sent already: listed only"),
    "gone": ("no longer made: listed only", "no longer made: listed only"),
}


class Which(StrEnum):
    """The notifications that `remap` tries."""

    FAILED = "failed"
    NOT_MAPPED = "not_mapped"
    ALL = "all"


def remap(
    *,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    since: Annotated[
        str | None, typer.Option(help="All that came since then (30d, 36h ago, 2026-11-01), mapped or not.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only this type; may be repeated.")
    ] = None,
    outcome: Annotated[Which, typer.Option(help="Which notifications to try, without --since.")] = Which.ALL,
    yes: Annotated[bool, typer.Option("--yes", help="Send what is missing. Without it: only show.")] = False,
    as_json: Json = False,
) -> None:
    """Map again what came: after a mapper was corrected, was added, or had told something wrongly (--since).

    Without --yes it shows what would be new, changed or gone, and changes nothing. With --yes it sends what is missing
    and puts right what has not left yet. What was sent is never sent again: where it would differ by now, it is listed.
    Signatures are not checked again. A relay maps the failed ones by itself at its start.

    Example: relay remap --source stripe --since 30d
    """
    from relay.clock import unix_ms
    from relay.replaying import Replayed, replay
    from relay.store.replays import Scope
    from relay.store.schema import Outcome

    providers = terminal.load_providers()
    settings = terminal.load_settings(providers)
    if source is not None and source not in settings.sources:
        fail(f"No source is called {source!r}. There are: {', '.join(settings.sources) or 'none'}.", code=WRONG)
    parked = [Outcome.FAILED, Outcome.NOT_MAPPED] if outcome is Which.ALL else [Outcome(outcome)]
    scope = Scope(
        source=source, since_ms=moment(since, "--since", unix_ms()) if since else 0, types=tuple(types or ()),
        outcomes=() if since and outcome is Which.ALL else parked,
    )  # fmt: skip
    done = Replayed()

    async def run() -> list[Difference]:
        async with terminal.opened(settings, reads_bodies=True) as store:
            found = [
                one
                async for one in replay(
                    store, scope, sources=settings.sources, providers=providers, commits=yes, done=done
                )
            ]
            if yes:
                await terminal.note(store, "mapped again", source or "all", since=since, events=done.events)
            return found

    found = terminal.run(run())
    if as_json:
        kinds = {kind: [_row(one) for one in found if one.kind == kind] for kind in _WORDS}
        counts = {name: count for name, count in asdict(done).items() if name != "stopped_after"}
        show_json({"applied": yes, **counts, **kinds})
    else:
        _show(found, done, applied=yes)


def _show(found: Sequence[Difference], done: Replayed, *, applied: bool) -> None:
    counts = Counter(one.kind for one in found)
    for kind, words in _WORDS.items():
        some = [one for one in found if one.kind == kind]
        if not some:
            continue
        out.print(f"{kind}: {len(some)} ({words[applied]})", style="bold", markup=False)
        for one in some[:_MOST_LINES]:
            rest = f"{f' ({one.state})' if one.state else ''}{f': {one.words}' if one.words else ''}"
            out.print(f"  {one.notification_id}  {one.type}  →  {one.name}  {one.event_id}{rest}", markup=False)
            for name, (was, would_be) in one.fields.items():
                out.print(f"      {name}: {was!r} → {would_be!r}", markup=False)
        if len(some) > _MOST_LINES:
            out.print(f"  ... and {len(some) - _MOST_LINES} more; --json has them all")
    out.print(f"Looked at {done.deliveries} deliveries: {done.events} events are in the outbox now, "
              f"{done.still_parked} notifications cannot be mapped now either.")  # fmt: skip
    if done.without_body:
        out.print(
            f"{done.without_body} have no body any more (RELAY_RETAIN_BODIES_DAYS); relay backfill can ask for them."
        )
    if not applied and (counts["new"] or counts["corrected"]):
        out.print("Nothing was changed. --yes sends what is new, and puts right what has not left.")


def _row(one: Difference) -> dict[str, Any]:
    fields = {name: {"was": was, "would_be": would_be} for name, (was, would_be) in one.fields.items()}
    return {
        "delivery": str(one.delivery), "notification": one.notification_id, "type": one.type, "name": one.name,
        "event_id": one.event_id, "state": one.state, "fields": fields, "words": one.words,
    }  # fmt: skip
