"""What waits for a person: dead letters, what could not be mapped, was refused or is in doubt; and what can be done.

Nothing here counts twice: what is sent again keeps its id and its keys, what is mapped again finds the keys taken of
all that was told, and a batch in doubt is decided by whoever has looked whether it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from relay.operating import Remapped, remap_one
from relay.pages import refusals, remapping
from relay.pages.rendering import number
from relay.pages.visits import HOME, Visit
from relay.store.schema import EventState, Outcome
from relay.store.search import Wanted, last_line

REPAIR = f"{HOME}/repair"
_SHOWN = 50
_PIECE = 500
_PARKED = {"failed": Outcome.FAILED, "not_mapped": Outcome.NOT_MAPPED}


@dataclass(frozen=True, slots=True)
class Tab:
    name: str
    words: str
    #: None: nobody knows before looking.
    n: int | None


async def show(visit: Visit) -> Response:
    wanted = visit.query.get("tab", "dead")
    dead, all_dead = await visit.console.dead_groups()
    failed, all_failed = await visit.console.parked_groups(Outcome.FAILED)
    unmapped, all_unmapped = await visit.console.parked_groups(Outcome.NOT_MAPPED)
    doubted = await visit.console.doubted()
    causes = await visit.things.store.rejected.causes()
    tabs = [
        Tab("dead", "Dead letters", sum(group.n for group in dead)),
        Tab("failed", "Mapper failed", sum(group.n for group in failed)),
        Tab("not_mapped", "Not mapped", sum(group.n for group in unmapped)),
        Tab("doubt", "In doubt", sum(batch.size for batch, _ in doubted)),
        Tab("refused", "Refused", sum(cause.n for cause in causes)),
        Tab("wrong", "Told wrongly", None),
    ]
    tab = next((tab for tab in tabs if tab.name == wanted), tabs[0])
    common: dict[str, Any] = {"tabs": tabs, "tab": tab, "last_line": last_line}
    source, name = visit.query.get("source") or None, visit.query.get("name") or None
    match tab.name:
        case "dead":
            rows = await _dead_rows(visit, source, name)
            return visit.page("repair.html", groups=dead, is_all=all_dead, rows=rows, **common)
        case "failed" | "not_mapped":
            groups, is_all = (failed, all_failed) if tab.name == "failed" else (unmapped, all_unmapped)
            wanted_rows = Wanted(status=tab.name, source=source, type=name)
            page = await visit.console.listing(wanted_rows, limit=_SHOWN)
            return visit.page("repair.html", groups=groups, is_all=is_all, rows=page.rows, **common)
        case "refused":
            return visit.page("repair.html", refusals=await refusals.look(visit, causes), **common)
        case "wrong":
            return await _show_wrong(visit, common)
        case _:
            return visit.page("repair.html", groups=[], is_all=True, rows=doubted, **common)


async def _show_wrong(visit: Visit, common: dict[str, Any]) -> Response:
    asked, kinds = remapping.asked(visit.query), await visit.console.kinds()
    found = await remapping.look(visit, asked) if visit.query.get("look") else None
    return visit.page(
        "repair.html", asked=asked, found=found, choices=remapping.SINCE, kinds=remapping.KINDS,
        sources=sorted(visit.things.settings.sources), next=remapping.next_piece(asked, found) if found else None,
        types=sorted({kind.type for kind in kinds if asked.source in ("", kind.source)}), **common,
    )  # fmt: skip


async def _dead_rows(visit: Visit, source: str | None, name: str | None) -> Sequence[Any]:
    if source is None and name is None:
        return await visit.things.store.events(state=EventState.DEAD, limit=_SHOWN)
    reason = visit.query.get("reason")
    ids = await visit.console.dead_ids(reason=reason, source=source, name=name, limit=_SHOWN)
    return await visit.console.events(ids)


# --- acting -----------------------------------------------------------------------------------------------------------


async def resend(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """Dead letters back into the outbox: those that are ticked, those of a group, or all."""
    said = dict(fields)
    ticked = _numbers(fields)
    if said.get("which") == "ticked":
        if not ticked:
            return visit.go(REPAIR, "Nothing was ticked.", tone="warn")
        await visit.note("sent again", which="ticked", events=[str(one) for one in ticked[:50]], count=len(ticked))
        dead = {event.id for event in await visit.console.events(ticked) if event.state is EventState.DEAD}
        await visit.things.store.resend(sorted(dead))
        return visit.go(_back(said, REPAIR), f"{_many(len(dead), 'event')} put back into the outbox.")
    group: dict[str, str] = {key: said[key] for key in ("reason", "source", "name") if key in said}
    if said.get("which") == "all":
        group = {}
    await visit.note("sent again", which="group" if group else "all", **group)
    done = await _resend_all(visit, group)
    return visit.go(REPAIR, f"{_many(done, 'event')} put back into the outbox; they leave within seconds.")


async def _resend_all(visit: Visit, group: Mapping[str, str]) -> int:
    """Once through the dead letters, oldest first: what is refused again meanwhile is not sent for ever."""
    done, after = 0, 0
    while ids := await visit.console.dead_ids(**group, after=after, limit=_PIECE):
        await visit.things.store.resend(ids)
        done, after = done + len(ids), ids[-1]
    return done


async def map_again(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """Kept deliveries through today's mappers: those that are ticked, those of a group, or all."""
    said = dict(fields)
    tab = said.get("tab", "failed") if said.get("tab") in _PARKED else "failed"
    back = _back(said, f"{REPAIR}?tab={tab}")
    ticked = _numbers(fields)
    done = Remapped()
    if said.get("which") == "ticked":
        if not ticked:
            return visit.go(back, "Nothing was ticked.", tone="warn")
        await visit.note("mapped again", which="ticked", deliveries=[str(one) for one in ticked[:50]])
        gone = sum([not await _remap(visit, delivery, done) for delivery in dict.fromkeys(ticked)])
    else:
        group = {key: said[name] for key, name in (("source", "source"), ("kind", "name")) if name in said}
        group = {} if said.get("which") == "all" else group
        await visit.note("mapped again", tab, which="group" if group else "all", **group)
        gone = await _remap_all(visit, _PARKED[tab], group, done)
    return visit.go(back, _what_became(done, gone), tone="warn" if done.still_parked or gone else "ok")


async def _remap_all(visit: Visit, outcome: Outcome, group: dict[str, str], done: Remapped) -> int:
    gone, after, last = 0, 0, None
    while found := await visit.console.parked_deliveries(outcome, **group, after=after, limit=_PIECE):
        for row, delivery in found:
            after = row
            if delivery != last:
                gone += not await _remap(visit, delivery, done)
                last = delivery
    return gone


async def _remap(visit: Visit, delivery: int, done: Remapped) -> bool:
    """False: there is nothing left to map again, or its source is not configured any more."""
    kept = await visit.console.kept(delivery)
    source = visit.things.settings.sources.get(kept.source) if kept else None
    if kept is None or source is None:
        return False
    await remap_one(visit.things.store, source, visit.things.providers[source.provider], kept, done)
    return True


def _what_became(done: Remapped, gone: int) -> str:
    words = f"{_many(done.deliveries, 'delivery', 'deliveries')} mapped again: {_many(done.events, 'new event')}"
    if done.still_parked:
        words += f", {_many(done.still_parked, 'notification')} still parked"
    if gone:
        words += f"; {number(gone)} could not be tried, since the body or the source is gone"
    return f"{words}."


async def settle(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """What somebody found out about a batch in doubt: it arrived, or it did not."""
    said = dict(fields)
    batch, arrived = said.get("batch", ""), said.get("arrived") == "yes"
    if not batch.isdecimal():
        return visit.go(f"{REPAIR}?tab=doubt", "No batch was named.", tone="warn")
    await visit.note("decided a batch in doubt", batch, arrived=arrived)
    if not await visit.things.store.settle_held(int(batch), accepted=arrived):
        return visit.go(f"{REPAIR}?tab=doubt", "This batch is not held any more.", tone="warn")
    words = "It is marked as sent." if arrived else "It is sent again."
    return visit.go(f"{REPAIR}?tab=doubt", words)


def _numbers(fields: Sequence[tuple[str, str]]) -> list[int]:
    return [int(value) for name, value in fields if name == "id" and value.isdecimal()]


def _back(said: dict[str, str], otherwise: str) -> str:
    back = said.get("back", "")
    return back if back.startswith(HOME + "/") else otherwise


def _many(n: int, noun: str, plural: str | None = None) -> str:
    return f"{number(n)} {noun if n == 1 else plural or noun + 's'}"
