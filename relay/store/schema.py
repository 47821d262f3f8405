"""The tables, for both backends.

A **delivery** is one HTTP POST: its headers and body, compressed and encrypted, for as long as the retention says. It
carries **notifications**; each has an outcome (below) and is the parent of **events**.

**keys** is the ledger of what was seen: `n:<notification id>` and `f:<once key>`, unique within a source. A row there
means that the thing is done; it is written in the same transaction as the thing, and it outlives the payloads. Whoever
comes second becomes a row in **duplicates**, which says of which event.

An **event** is born `pending` (or `waiting`, when a fact about it is still to come), becomes `batched` when a batch
claims it, and ends as `sent` or `dead`:

    waiting ──▶ pending ──▶ batched ──▶ sent        (or gone, where its fact was told meanwhile: a duplicate)
                   ▲           └─────▶ dead ──▶ (sent again by hand) pending

What goes out of it is in **payloads**, under the same id: an event's row is written again at each of these steps, its
payload is not.

A **batch** is fixed before its first byte leaves, so that a retry is the same batch with the same idempotency key:

    sending ──▶ done                    accepted, refused, or replaced by its two halves
       ├──▶ retry ────▶ sending         no, or not now: again when due
       └──▶ in_doubt ─▶ sending | held  sent, and no answer: again when due, or for a person to decide

**entities** hold what was learned about an id of the provider (`customer:cus_1`): a hash of the person and the
attribution. **waits** says which event waits for which entity; it has not taken its once keys yet. **asks** say what
the provider is to be asked before a notification can be mapped, and hold what it answered. **destinations** hold what
must survive a restart: why a destination is paused, and the batch size that it takes. **bookmarks** hold where a long
work is, and how the last reconciliation of a source came out. **calls** remember what backends
posted under a key, and **ingest_keys** are what they call with.

Row ids grow with time (`relay.ids`), so age is a range of the primary key. Times are Unix milliseconds.

The conditions of partial indexes are said for SQLite; on PostgreSQL they are the same, as the migrations have them. To
say so here would load its dialect, two megabytes, into relays that never use it.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)


class Outcome(StrEnum):
    """What became of a notification."""

    MAPPED = "mapped"  #: its events are in the outbox, or are duplicates of earlier ones
    IGNORED = "ignored"  #: a known type that is left out on purpose, or an option that is off
    NOT_MAPPED = "not_mapped"  #: a type without a mapper: kept, can be mapped later
    TEST = "test"  #: test mode, and the source does not forward that
    FAILED = "failed"  #: the mapper raised: kept with the reason, mapped again after the fix
    TO_DO = "to_do"  #: the provider must be asked first: kept, mapped as soon as it has answered


#: The body is kept for these, whatever the retention says, until their keys go.
KEPT = (Outcome.FAILED, Outcome.NOT_MAPPED, Outcome.TO_DO)


class EventState(StrEnum):
    """Where an event is on its way."""

    WAITING = "waiting"  #: for a fact about its person, up to a deadline
    PENDING = "pending"  #: in the outbox
    BATCHED = "batched"  #: part of a batch that is not done
    SENT = "sent"  #: accepted by the destination
    DEAD = "dead"  #: given up, with the reason; can be sent again


class BatchState(StrEnum):
    """Where a batch is on its way."""

    SENDING = "sending"
    RETRY = "retry"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    DONE = "done"


metadata = MetaData()

#: INTEGER is what makes it the rowid itself in SQLite.
_Id = BigInteger().with_variant(Integer(), "sqlite")

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("secret", SmallInteger, nullable=False),  # which of the source's secrets fitted
    Column("size", Integer, nullable=False),  # of the body, in bytes
    Column("content", LargeBinary),  # headers and body in the vault, of those that may still be mapped again
    Column("bundle", BigInteger),  # of the others, the bundle that holds them, until the retention is over
)

bundles = Table(
    "bundles",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),  # headers and bodies of several deliveries in the vault
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("delivery", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("notification_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text),
    Column("repeats", Integer, nullable=False, server_default=text("0")),
)
Index(
    "notifications_unmapped",
    notifications.c.outcome,
    notifications.c.id,
    sqlite_where=notifications.c.outcome.in_(["failed", "not_mapped"]),
)

asks = Table(
    "asks",
    metadata,
    Column("notification", _Id, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("due_at_ms", BigInteger),  # when the provider is to be asked; None: all is answered, or it was given up
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("began_at_ms", BigInteger),  # when it was first tried
    Column("content", LargeBinary),  # the answers in the vault, for as long as the body is kept
)
_DUE = asks.c.due_at_ms.is_not(None)
Index("asks_due", asks.c.source, asks.c.due_at_ms, sqlite_where=_DUE)

keys = Table(
    "keys",
    metadata,
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("ref", BigInteger, nullable=False),  # the notification, or the event, that took it
    PrimaryKeyConstraint("source", "key"),
    Index("keys_by_ref", "ref"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("notification", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("pieces", LargeBinary),  # what is needed to complete a waiting event
    Column("due_at_ms", BigInteger),  # waiting: the deadline
    Column("batch", BigInteger),  # the last batch that carried it
    Column("doubts", Integer, nullable=False, server_default=text("0")),  # how often it was in doubt
    Column("settled_at_ms", BigInteger),  # when it was sent or given up
    Column("reason", Text),  # dead: the words of whoever refused it
)
_PENDING = events.c.state == "pending"
_WAITING = events.c.state == "waiting"
_DEAD = events.c.state == "dead"
Index("events_pending", events.c.destination, events.c.id, sqlite_where=_PENDING)
Index("events_waiting", events.c.due_at_ms, sqlite_where=_WAITING)
Index("events_dead", events.c.id, sqlite_where=_DEAD)
_DOUBTED = events.c.doubts > 0
Index("events_doubted", events.c.destination, sqlite_where=_DOUBTED)

payloads = Table(
    "payloads",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),  # the event's
    Column("payload", LargeBinary, nullable=False),  # the JSON that goes out; no personal data
)

duplicates = Table(
    "duplicates",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("notification", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),  # the once key that was taken
    Column("event", BigInteger, nullable=False),  # by this event
)

batches = Table(
    "batches",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("destination", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("events", Text, nullable=False),  # their row ids, a JSON array in the order of sending
    Column("size", Integer, nullable=False),
    Column("oldest", BigInteger, nullable=False),  # the lowest of those ids
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("owner", Text),  # who is sending it
    Column("lease_until_ms", BigInteger),  # sending: until then its owner is trusted to settle it
    Column("doubts", Integer, nullable=False, server_default=text("0")),
    Column("words", Text),  # the last answer that was not an acceptance
)
_OPEN = batches.c.state != "done"
Index("batches_open", batches.c.destination, batches.c.due_at_ms, sqlite_where=_OPEN)

entities = Table(
    "entities",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),  # made anew whenever something is learned
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("user_id", Text),  # a hash
    Column("rank", SmallInteger, nullable=False),
    Column("attribution", Text, nullable=False),  # a JSON object
    Column("marks", Text, nullable=False),  # a JSON array
    Column("names", Text, nullable=False),  # a JSON array: the keys that name the same thing
    UniqueConstraint("source", "key"),
)

waits = Table(
    "waits",
    metadata,
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("event", BigInteger, nullable=False),
    PrimaryKeyConstraint("source", "key", "event"),
)

destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused", Text),  # why, in the API's words; None: it is not
    Column("probe_at_ms", BigInteger),
    Column("batch_size", Integer),  # the largest that it took, where it refused a larger one
    Column("single", Boolean, nullable=False, server_default=false()),  # it takes no batches
)

bookmarks = Table(
    "bookmarks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", Text, nullable=False),  # in the words of whoever put it there
    Column("noted_at_ms", BigInteger, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),  # the caller's Idempotency-Key, or a digest of what it posted
    Column("id", _Id, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of all that must be the same in a repeat
    Column("answer", LargeBinary, nullable=False),  # what a repeat is answered
    PrimaryKeyConstraint("source", "key"),
    Index("calls_by_id", "id"),
    sqlite_with_rowid=False,
)

ingest_keys = Table(
    "ingest_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),  # the SHA-256 of its text
    Column("made_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
)
