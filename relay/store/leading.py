"""Which of several replicas does what only one should do: whoever holds the lease. Runs inside one transaction."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, or_, update

from relay.store.dialects import insert_into
from relay.store.schema import bookmarks


def lead(connection: Connection, *, name: str, owner: str, for_ms: int, clock: Callable[[], int]) -> bool:
    """Whether this owner has the lease of this name from now on; nobody else gets it before it is over."""
    now_ms = clock()
    values = {"position": owner, "noted_at_ms": now_ms}
    is_free = or_(bookmarks.c.position == owner, bookmarks.c.noted_at_ms <= now_ms - for_ms)
    if connection.execute(update(bookmarks).where(bookmarks.c.name == name, is_free).values(values)).rowcount:
        return True
    new = insert_into(bookmarks, connection.dialect.name).values(name=name, **values)
    begun = new.on_conflict_do_nothing(index_elements=["name"])
    return connection.execute(begun.returning(bookmarks.c.name)).first() is not None  # an insert has no rowcount
