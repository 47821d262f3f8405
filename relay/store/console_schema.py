"""The tables of the console: what was counted, what can be found by a name, and what operators did.

**counts** holds numbers by minute and by hour, so that a chart of a month is a thousand rows however much came in.
**terms** leads from a hash of an order's id, a user's hash or an event's id to the row id of the event. Both are
filled behind the work (`relay.store.counting`), never on the way of a webhook, and can be made anew from the rest.
**audit** is what was done at the console, and by whom.

The indexes at the end are those by which a story is told: from a delivery to its notifications, their events and
duplicates; and the one by which deliveries are listed.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text

from relay.store.schema import duplicates, events, metadata, notifications

counts = Table(
    "counts",
    metadata,
    Column("width", BigInteger, nullable=False),  # of the bucket, in milliseconds
    Column("bucket", BigInteger, nullable=False),  # when it begins, in Unix milliseconds
    Column("measure", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),  # "" for what has none
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("width", "bucket", "measure", "source", "destination"),
    sqlite_with_rowid=False,
)

terms = Table(
    "terms",
    metadata,
    Column("event", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),  # `term_of`
    PrimaryKeyConstraint("event", "term"),
    Index("terms_by_term", "term"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False),  # a JSON object, without personal data
    Column("address", Text, nullable=False),
    Index("audit_by_action", "action", "id"),
)

Index("notifications_by_delivery", notifications.c.delivery)
Index("notifications_listed", notifications.c.outcome, notifications.c.source, notifications.c.type, notifications.c.id)
Index("events_by_notification", events.c.notification)
Index("duplicates_by_notification", duplicates.c.notification)
Index("duplicates_by_event", duplicates.c.event)

#: The kinds of terms.
USER, ORDER, EVENT = "user", "order", "event"


def term_of(kind: str, text: str) -> int:
    """What stands in **terms** for this text: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{kind}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
