"""What every store promises: domain verbs, and the values that they take and give.

The stages meet here and nowhere else: receiving calls `take`, unfolding `inbox` and `unbox`, forwarding `claim`
and the verbs that settle a batch, the CLI and the pages the rest. One test-suite holds both backends to these
docstrings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from relay.store.schema import EventState, Outcome
from relay.store.values import (
    Answers,
    Arrival,
    Batch,
    BatchEvent,
    BatchRow,
    Bookmark,
    Depth,
    DestinationState,
    DuplicateRow,
    EventRow,
    InboxDepth,
    Inboxed,
    Kept,
    Mapped,
    Outgoing,
    PutOff,
    Receipt,
    StoreUnavailableError,
    ToDo,
    Verified,
)

if TYPE_CHECKING:  # it is made of what stands here
    from relay.store.console import Console
    from relay.store.intake import Intake
    from relay.store.rejected import Ring
    from relay.store.replays import Replays

__all__ = [
    "Answers",
    "Arrival",
    "Batch",
    "BatchEvent",
    "BatchRow",
    "Bookmark",
    "Depth",
    "DestinationState",
    "DuplicateRow",
    "EventRow",
    "InboxDepth",
    "Inboxed",
    "Kept",
    "Mapped",
    "Outgoing",
    "PutOff",
    "Receipt",
    "Store",
    "StoreUnavailableError",
    "ToDo",
    "Verified",
]


class Store(Protocol):
    """One outbox with its ledger. Every verb is atomic: it happens wholly and durably, or not at all."""

    # receiving

    async def take(self, verified: Verified) -> None:
        """Commit a delivery to the inbox, and fsync it, before returning; `verified.delivery` is its id then.

        Deliveries that wait at the same moment share one commit. Raises `StoreUnavailableError`, having kept nothing.
        """
        ...

    @property
    def waiting(self) -> int:
        """How many deliveries wait for their commit: the measure of overload."""
        ...

    # mapping

    async def inbox(self, *, limit: int) -> Sequence[Inboxed]:
        """The oldest deliveries that are not mapped yet, whole bundles, from about `limit` on no more of them.

        None that another process maps now.
        """
        ...

    async def inbox_depth(self) -> InboxDepth:
        """What is not mapped yet. Raises `StoreUnavailableError`, but where a spool takes what comes meanwhile."""
        ...

    async def unbox(self, found: Sequence[Inboxed], arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Commit what was made of what `inbox` gave, which leaves it: each with the guarantees of `accept`.

        One whose result the store cannot take is kept as a notification that failed, and does not hold up the others.
        """
        ...

    async def accept(self, arrival: Arrival) -> Receipt:
        """Commit a delivery, its notifications and its events in one transaction, and fsync it, before returning.

        A notification id that the source said before changes nothing but its count of repeats. A once key that is
        taken makes the event a recorded duplicate, and its other keys become names of the same fact. Arrivals that
        wait at the same moment share one commit. Raises `StoreUnavailableError`, having kept nothing.
        """
        ...

    # forwarding

    async def claim(self, destination: str, *, limit: int, lease_ms: int, owner: str) -> Batch | None:
        """The next batch of a destination: one that is due again, else a new one of up to `limit` pending events.

        Its composition and key are durable when this returns, and no other owner gets it until the lease is over. A
        batch whose lease ran out unsettled was perhaps sent: it is in doubt.
        """
        ...

    async def renew(self, *, owner: str, lease_ms: int) -> None:
        """Move on the end of every lease that this owner holds: it is alive."""
        ...

    async def sent(self, batch: Batch) -> bool:
        """The destination accepted it. False: the lease was lost meanwhile, and nothing was changed."""
        ...

    async def later(self, batch: Batch, *, due_at_ms: int, words: str) -> bool:
        """The destination did not take it; the same batch again when due."""
        ...

    async def in_doubt(self, batch: Batch, *, due_at_ms: int, words: str) -> bool:
        """It was sent and no answer came. Counted; again when due, or held for a person where the store was told so."""
        ...

    async def split(self, batch: Batch, *, first: int, words: str) -> bool:
        """Replace it by two, the first of this many events, both due at once and each with a key of its own."""
        ...

    async def refuse(self, batch: Batch, *, reason: str, only: Sequence[int] | None = None, due_at_ms: int = 0) -> bool:
        """Its events (or only those with these row ids) become dead letters. The rest goes again when due."""
        ...

    async def destination(self, name: str) -> DestinationState:
        """What is known of a destination; the defaults where nothing is."""
        ...

    async def set_destination(self, name: str, state: DestinationState) -> None:
        """Keep it over restarts and for all replicas."""
        ...

    async def next_due(self, destination: str) -> int | None:
        """When the earliest batch that waits for another try is due; None where there is none."""
        ...

    # operating

    async def recover(self, *, owner: str) -> int:
        """At start, for a store that one process uses alone: batches that a dead process was sending are in doubt.

        Returns their number.
        """
        ...

    async def release_overdue(self) -> set[str]:
        """Let events go whose wait for a fact is over. Returns the destinations that got something to send."""
        ...

    async def unmapped(self, *, outcome: Outcome, after: int = 0, limit: int = 100) -> Sequence[Kept]:
        """Deliveries, oldest first, that hold notifications with this outcome and still have their body."""
        ...

    async def remap(self, kept: Kept, notifications: Sequence[Mapped], *, answers: Answers | None = None) -> Receipt:
        """Commit a later mapping of notifications that were kept: same keys, same guarantees as `accept`.

        `answers`, by notification id, are kept with them.
        """
        ...

    async def claim_to_do(self, source: str, *, limit: int, lease_ms: int) -> Sequence[ToDo]:
        """Up to so many notifications that the provider can be asked about now, by delivery, oldest first.

        Nobody else gets them until the lease is over.
        """
        ...

    async def put_off(self, kept: Kept, later: Mapping[str, PutOff], *, answers: Answers) -> None:
        """By notification id, ask again then. `answers` that there are already are kept."""
        ...

    async def to_do(self) -> Mapping[str, int]:
        """By source, how many notifications the provider is still to be asked about."""
        ...

    async def prune(self, *, bodies_before_ms: int, keys_before_ms: int) -> int:
        """Forget what is older, one small piece; returns how many rows went, 0 when nothing is left to forget.

        A body whose notification still waits for a mapper stays as long as its keys. What is not sent stays.
        """
        ...

    async def depths(self) -> Sequence[Depth]:
        """The outbox by destination."""
        ...

    async def events(
        self, *, state: EventState | None = None, limit: int = 50, reference: str | None = None
    ) -> Sequence[EventRow]:
        """Events, newest first; `reference` finds one by its row id or event id."""
        ...

    async def duplicates(self, *, event_id: str | None = None, limit: int = 50) -> Sequence[DuplicateRow]:
        """Notifications that told a fact once more, newest first; with `event_id`, those of one event."""
        ...

    async def open_batches(self) -> Sequence[BatchRow]:
        """Batches that are not done."""
        ...

    async def settle_held(self, batch: int, *, accepted: bool) -> bool:
        """A person decided about a held batch: it had been accepted, or it is to be sent again."""
        ...

    async def resend(self, event_ids: Sequence[int]) -> set[str]:
        """Put dead letters back into the outbox. Returns their destinations."""
        ...

    async def holders(self, source: str, keys: Sequence[str]) -> Mapping[str, EventRow]:
        """By once key of this source, the event that took it, or that waits and will. Others are left out."""
        ...

    async def revenue_events(self, source: str, *, since_ms: int, until_ms: int) -> Sequence[EventRow]:
        """The events of a source that carry money, refunds too, and whose time is in `[since_ms, until_ms)`."""
        ...

    async def once_keys(self, event_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
        """By row id of an event, all once keys that lead to it."""
        ...

    async def bookmark(self, name: str) -> Bookmark | None:
        """Where the work of this name is; None where it has not begun, or is done."""
        ...

    async def bookmarks(self, prefix: str) -> Mapping[str, Bookmark]:
        """All bookmarks whose names begin so, by name."""
        ...

    async def set_bookmark(self, name: str, position: str | None) -> None:
        """Keep the position over restarts; None forgets it."""
        ...

    async def lead(self, name: str, *, owner: str, lease_ms: int) -> bool:
        """Whether this owner is the one that does this work from now on; nobody else is before the lease is over."""
        ...

    @property
    def intake(self) -> Intake:
        """What backends post, and the keys that they do it with."""
        ...

    @property
    def console(self) -> Console:
        """What operators ask at the console, and the log of what they did."""
        ...

    @property
    def replays(self) -> Replays:
        """Mapping again what was mapped before."""
        ...

    @property
    def rejected(self) -> Ring:
        """Deliveries whose signature was refused."""
        ...

    async def check(self) -> None:
        """Raise `StoreUnavailableError` when it cannot be written now."""
        ...

    async def close(self) -> None:
        """Finish what is waiting and let go."""
        ...
