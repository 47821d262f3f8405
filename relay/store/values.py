"""The values that the store takes and gives; what is done with them stands in `relay.store.base`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.contract import Ask
from relay.sealing import Entity, Sealed
from relay.store.schema import EventState, Outcome


class StoreUnavailableError(Exception):
    """The store cannot take anything now. Nothing of this call was kept; the same call may succeed later."""


# --- what goes in -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Verified:
    """One verified delivery as it came, before it is mapped."""

    source: str
    received_at_ms: int
    #: Which of the source's secrets fitted, from 0.
    secret: int
    #: Headers without credentials.
    headers: Mapping[str, str]
    body: bytes
    #: Its id in the inbox, once it is committed.
    delivery: int = field(default=0, compare=False)


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Outgoing:
    """A sealed event and where it goes."""

    sealed: Sealed
    destination: str
    #: For an event that waits for a fact about its person: the time at which it leaves without it.
    wait_until_ms: int | None = None


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Mapped:
    """One notification and all that was made of it."""

    notification_id: str
    type: str
    outcome: Outcome
    error: str | None = None
    events: Sequence[Outgoing] = ()
    learned: Sequence[Entity] = ()
    #: What the provider must be asked before it can be mapped: its outcome is `to_do`.
    ask: Ask | None = None


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Arrival:
    """One verified delivery, mapped."""

    source: str
    received_at_ms: int
    #: Which of the source's secrets fitted, from 0.
    secret: int
    #: Headers without credentials.
    headers: dict[str, str]
    body: bytes
    #: False where the retention keeps no bodies; one that could not be mapped is kept all the same.
    keep_body: bool = True
    notifications: Sequence[Mapped] = ()
    #: Where it comes from the inbox: its id there, that of its bundle, and the bundle as the vault sealed it.
    delivery: int | None = None
    bundle: int | None = None
    sealed: bytes = field(default=b"", repr=False)


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Receipt:
    """What the commit of an arrival changed."""

    #: Notifications that were seen for the first time.
    new: int = 0
    #: Notifications that had been seen before: the provider said it again.
    repeated: int = 0
    #: Events that were put into the outbox.
    events: int = 0
    #: Events whose business fact had been told already, by another notification.
    duplicates: int = 0
    #: The destinations that have something new to send.
    destinations: set[str] = field(default_factory=set)
    #: Its id, of a delivery that was committed with this.
    delivery: int = field(default=0, compare=False)


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Inboxed:
    """A delivery of the inbox, read back to be mapped."""

    delivery: int
    source: str
    received_at_ms: int
    secret: int
    headers: dict[str, str]
    body: bytes
    #: Those of one bundle leave the inbox together.
    bundle: int
    #: The whole bundle as the vault sealed it.
    sealed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEvent:
    id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events that leave together, always in this composition and under this key."""

    id: int
    destination: str
    idempotency_key: str
    events: tuple[BatchEvent, ...]
    #: How often it was sent before.
    attempts: int
    owner: str
    lease_until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """What must survive a restart."""

    paused: str | None = None
    probe_at_ms: int | None = None
    batch_size: int | None = None
    single: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """The outbox of one destination."""

    destination: str
    pending: int
    batched: int
    waiting: int
    held: int
    dead: int
    #: Events that were in doubt at least once.
    doubted: int
    #: When the oldest event that is not yet sent was made, in Unix milliseconds.
    oldest_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxDepth:
    """What is committed and not mapped yet."""

    deliveries: int
    #: When the oldest of them came, in Unix milliseconds.
    oldest_ms: int | None
    #: How many of them stand in the spool on this machine; None where there is no spool.
    spooled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """An event as the CLI and the pages show it."""

    id: int
    event_id: str
    name: str
    source: str
    destination: str
    state: EventState
    payload: bytes
    made_at_ms: int
    settled_at_ms: int | None
    reason: str | None
    doubts: int
    notification_id: str | None
    batch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A batch that is not done, as the CLI shows it."""

    id: int
    destination: str
    state: str
    size: int
    attempts: int
    due_at_ms: int
    words: str | None


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Where a long work is, in its own words."""

    position: str
    noted_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRow:
    """A notification that told again what an event had told, as the CLI shows it."""

    source: str
    notification_id: str | None
    type: str | None
    #: What it would have been.
    name: str
    #: The once key that was taken.
    key: str
    #: The event that took it; None where another notification is still to tell the fact.
    event_id: str | None
    event_name: str | None
    made_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A delivery with notifications that could not be mapped, read back for another try."""

    delivery: int
    source: str
    received_at_ms: int
    headers: dict[str, str]
    body: bytes
    #: Their row ids by the provider's id.
    notifications: dict[str, int]
    #: What the provider's API has said about them, by `Ask.key`.
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDo:
    """A delivery with notifications that the provider must be asked about, claimed for some time."""

    kept: Kept
    #: By notification id, how often it was tried in vain.
    attempts: Mapping[str, int]
    #: By notification id, when it was first tried, in Unix milliseconds.
    began_at_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOff:
    """When a notification is to be asked about again, and why it could not be answered."""

    due_at_ms: int
    words: str
    #: Whether it counts as one try more.
    is_try: bool = True


#: By notification id, what the provider's API has said, by `Ask.key`.
Answers = Mapping[str, Mapping[str, Any]]
