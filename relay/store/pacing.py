"""How fast a destination is called, by all replicas together: calls at once, and events a second.

What was allowed so far stands in a row of the database (a bookmark of its own), which a claim holds until its commit.
Nothing of this is asked where nothing is limited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, literal_column, select, update

from relay.store.dialects import insert_into
from relay.store.schema import batches, bookmarks

_PREFIX = "pace:"
#: How long to wait for a call of another replica to end before looking again, in ms.
_LOOK_AGAIN_MS = 50


@dataclass(frozen=True, slots=True)
class Pace:
    """The most for each destination; 0: no limit."""

    calls_at_once: int = 0
    events_per_s: int = 0


class Pacing:
    """Allows claims, or not yet."""

    def __init__(self, pace: Pace, *, clock: Callable[[], int]) -> None:
        self._pace = pace
        self._clock = clock
        #: By destination, until when nothing is allowed; only of this process, to know when to ask again.
        self._not_before: dict[str, int] = {}

    def not_before(self, destination: str) -> int:
        """When a claim may be allowed again, in Unix ms; in the past where none was refused."""
        return self._not_before.get(destination, 0)

    def allowed(self, connection: Connection, destination: str, limit: int) -> int:
        """How many events may be claimed now, up to `limit`. The claim must be in this transaction."""
        pace = self._pace
        if not pace.calls_at_once and not pace.events_per_s:
            return limit
        now = self._clock()
        left = self._left(connection, destination, now)
        if pace.calls_at_once and _under_way(connection, destination, now) >= pace.calls_at_once:
            self._not_before[destination] = now + _LOOK_AGAIN_MS
            return 0
        if pace.events_per_s and left < 1:
            self._not_before[destination] = now + 1 + int((1 - left) * 1000 / pace.events_per_s)
            return 0
        return min(limit, int(left)) if pace.events_per_s else limit

    def spend(self, connection: Connection, destination: str, events: int) -> None:
        """So many were claimed. A batch of before is sent whole, and the next one waits for longer."""
        if self._pace.events_per_s:
            now = self._clock()
            self._write(connection, destination, self._left(connection, destination, now) - events, now)

    def _left(self, connection: Connection, destination: str, now: int) -> float:
        """How many events are allowed now; the row is held from here on."""
        name, most = _PREFIX + destination, float(max(1, self._pace.events_per_s))
        new = insert_into(bookmarks, connection.dialect.name).values(name=name, position=str(most), noted_at_ms=now)
        connection.execute(new.on_conflict_do_nothing())
        row = connection.execute(select(bookmarks).where(bookmarks.c.name == name).with_for_update()).one()
        gained = max(0, now - row.noted_at_ms) * self._pace.events_per_s / 1000
        left: float = min(most, float(row.position) + gained)
        return left

    def _write(self, connection: Connection, destination: str, left: float, now: int) -> None:
        values = {"position": f"{left:.3f}", "noted_at_ms": now}
        connection.execute(update(bookmarks).where(bookmarks.c.name == _PREFIX + destination).values(**values))


def _under_way(connection: Connection, destination: str, now: int) -> int:
    query = select(func.count()).where(
        batches.c.destination == destination,
        batches.c.state == literal_column("'sending'"),
        batches.c.lease_until_ms > now,
    )
    return connection.execute(query).scalar_one()
