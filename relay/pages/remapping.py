"""Mapping again what came, on the repair page: a look at what would differ by now, and then only what is missing goes.

In: a source, since when, a type. Out: what would be new, what is still here and would be put right, what was sent and
differs. What was sent is never sent again. It goes piece by piece, so that no page takes long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import Response

from relay.pages.rendering import number
from relay.pages.visits import HOME, Visit
from relay.replaying import Replayed, replay
from relay.store.replays import Difference, Scope

_TAB = f"{HOME}/repair"
_DAY_MS = 86_400_000
SINCE = {"1d": "1 day", "3d": "3 days", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
#: Deliveries that are gone through at once, and differences of each kind that are shown.
_PIECE, _SHOWN = 500, 50
KINDS = {
    "new": ("warn", "to be sent", "No event tells these: they were missed, and would be sent."),
    "corrected": ("info", "to be put right", "They have not left yet, and would be put right before they do."),
    "changed": ("quiet", "sent already", "They differ by now. They are not sent again: correct them by this list."),
    "gone": ("quiet", "no longer made", "The mappers of now would not make these. What was sent stays sent."),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be gone through."""

    source: str = ""
    since: str = "7d"
    type: str = ""
    after: int = 0

    @property
    def fields(self) -> dict[str, str]:
        return {"tab": "wrong", "source": self.source, "since": self.since, "type": self.type}

    def scope(self, now_ms: int) -> Scope:
        return Scope(
            source=self.source or None,
            since_ms=now_ms - int(self.since.removesuffix("d")) * _DAY_MS,
            types=(self.type,) if self.type else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look found."""

    done: Replayed
    counts: Mapping[str, int]
    shown: Mapping[str, Sequence[Difference]]


def asked(given: Mapping[str, str]) -> Asked:
    since, after = given.get("since", ""), given.get("after", "")
    return Asked(source=given.get("source", ""), since=since if since in SINCE else "7d", type=given.get("type", ""),
                 after=int(after) if after.isdecimal() else 0)  # fmt: skip


async def look(visit: Visit, wanted: Asked) -> Look:
    """What would differ, without a change."""
    done, counts, shown = Replayed(), Counter[str](), dict[str, list[Difference]]()
    async for one in _replay(visit, wanted, done, commits=False):
        counts[one.kind] += 1
        if counts[one.kind] <= _SHOWN:
            shown.setdefault(one.kind, []).append(one)
    return Look(done=done, counts=counts, shown=shown)


async def apply(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """The same, and what is missing is sent; what has not left is put right."""
    wanted, done, counts = asked(dict(fields)), Replayed(), Counter[str]()
    await visit.note("mapped again", wanted.source or "all", since=wanted.since, type=wanted.type)
    async for one in _replay(visit, wanted, done, commits=True):
        counts[one.kind] += 1
    words = (
        f"{number(done.deliveries)} deliveries mapped again: {number(done.events)} events put into the outbox, "
        f"{number(counts['corrected'])} put right before they left."
    )
    fields_of = {**wanted.fields, "look": "1"}
    if done.stopped_after is not None:
        words += " There are more: look at the next ones."
        fields_of["after"] = str(done.stopped_after)
    return visit.go(f"{_TAB}?{urlencode(fields_of)}", words)


def _replay(visit: Visit, wanted: Asked, done: Replayed, *, commits: bool) -> AsyncIterator[Difference]:
    return replay(
        visit.things.store, wanted.scope(visit.now_ms), sources=visit.things.settings.sources,
        providers=visit.things.providers, commits=commits, done=done, after=wanted.after, most=_PIECE,
    )  # fmt: skip


def next_piece(wanted: Asked, found: Look) -> str | None:
    """Where the next deliveries are looked at."""
    if found.done.stopped_after is None:
        return None
    return f"{_TAB}?{urlencode({**wanted.fields, 'look': '1', 'after': str(found.done.stopped_after)})}"
