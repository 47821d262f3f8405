"""The verdict after a storm: what was acknowledged, what the store says, what the sandbox got.

In: the numbers that had a 2xx, a store that nobody writes any more, the sandbox's events. Out: counts, and among them
those that must be zero.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import psycopg

from bench.checkout import number_of, revenue_of
from relay.store.inbox import inbox_path

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """The row of an event in the store."""

    event_id: str
    state: str
    doubts: int


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Counts of events and checkouts; `violations` are those that may not be."""

    acknowledged: int = 0
    kept: int = 0
    arrived: int = 0
    #: Checkouts whose event is at the sandbox more than once: allowed as often as it was in doubt.
    more_than_once: int = 0
    #: Events that were in doubt at least once.
    in_doubt: int = 0
    #: Copies at the sandbox beyond the first of each.
    copies: int = 0
    violations: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not any(self.violations.values())


def judge(*, acknowledged: AbstractSet[int], sent: int, database: Path | str, events: Iterable[Json]) -> Verdict:
    """Hold the three against each other. `database`: an SQLite file, or the URL of a PostgreSQL."""
    kept, integrity = _read(database)
    ids_at_sandbox: dict[int, set[str]] = defaultdict(set)
    times: Counter[int] = Counter()
    wrong = 0
    for event in events:
        number = number_of(event)
        if number is None or number >= sent or Decimal(str(event.get("revenue"))) != revenue_of(number):
            wrong += 1
            continue
        times[number] += 1
        ids_at_sandbox[number].add(event["properties"]["event_id"])
    rows = {number: found[0] for number, found in kept.items() if number is not None}
    return Verdict(
        acknowledged=len(acknowledged),
        kept=sum(map(len, kept.values())),
        arrived=times.total(),
        more_than_once=sum(count > 1 for count in times.values()),
        copies=sum(count - 1 for count in times.values()),
        in_doubt=sum(row.doubts > 0 for found in kept.values() for row in found),
        violations={
            "acknowledged, and not in the store": len(acknowledged - rows.keys()),
            "acknowledged, and not at the sandbox": len(acknowledged - times.keys()),
            "at the sandbox, and not in the store": len(times.keys() - rows.keys()),
            "at the sandbox more often than it was in doubt": sum(
                count > 1 + (rows[number].doubts if number in rows else 0) for number, count in times.items()
            ),
            "told by two events": sum(len(found) > 1 for found in kept.values()),
            "with another amount, or of no checkout of ours": wrong + len(kept.get(None, ())),
            "with another event id than in the store": sum(
                ids != {rows[number].event_id} for number, ids in ids_at_sandbox.items() if number in rows
            ),
            "not sent at the end": sum(row.state != "sent" for found in kept.values() for row in found),
            "complaints of the database about itself": len(integrity),
        },
    )


_EVENTS = "SELECT payload, event_id, state, doubts FROM events JOIN payloads USING (id) ORDER BY id"
_UNSENT = "SELECT count(*) FROM events WHERE state IN ('waiting', 'pending', 'batched')"
_UNMAPPED = "SELECT coalesce(sum(deliveries), 0) FROM inbox"


def _read(database: Path | str) -> tuple[dict[int | None, list[Kept]], list[str]]:
    if isinstance(database, str):
        return _read_postgres(database), []
    kept: dict[int | None, list[Kept]] = defaultdict(list)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for payload, event_id, state, doubts in connection.execute(_EVENTS):
            kept[number_of(orjson.loads(payload))].append(Kept(event_id, state, doubts))
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return kept, [words for words in said if words != "ok"]


def _read_postgres(url: str) -> dict[int | None, list[Kept]]:
    kept: dict[int | None, list[Kept]] = defaultdict(list)
    with psycopg.connect(url) as connection:
        for payload, event_id, state, doubts in connection.execute(_EVENTS):
            kept[number_of(orjson.loads(payload))].append(Kept(event_id, state, doubts))
    return kept


def unsent(database: Path | str) -> int:
    """How many deliveries and events of a store that is in use are not yet sent (dead letters are not waited for).

    The inbox first: what has left it is among the events by then.
    """
    if isinstance(database, str):
        with psycopg.connect(database) as there:
            number = there.execute(f"SELECT ({_UNSENT}) + ({_UNMAPPED})").fetchone()
            return int(number[0]) if number else 0
    return _count(inbox_path(database), _UNMAPPED) or _count(database, _UNSENT)


def _count(database: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute(query).fetchone()[0])
