"""What a mapper yields: the part of the contract for what happened, who it was, and what may be known of them.

A `Draft` is one thing that happened; `Learned` tells who stands behind an id, and `Forgotten` that nobody may be known
there any more. Values only: the relay seals them, and sends nothing but hashes of a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

EventType = Literal["conversion", "event", "identify"]
Scalar = str | int | float | bool | Decimal

#: For `Draft.currency`: the one of the account, which the provider does not say. A source's setting may.
HOME = "home"


class UnmappableError(ValueError):
    """This notification cannot be mapped. The delivery is kept with this reason and mapped again after the fix."""


# The values that every webhook makes are not frozen: freezing costs a call for each field, and they are made by the
# thousand. Nobody changes one all the same.


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Person:
    """Candidates for who it was. The source's identity policy picks one, and only a hash of it ever leaves."""

    email: str | None = None
    #: An id that the *site* gave (`client_reference_id` and its like): the best, where it equals the site's `identify`.
    external_id: str | None = None
    #: The provider's id of the customer: the last resort.
    customer_id: str | None = None


NOBODY = Person()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a draft becomes when an entity that it joins carries a mark, once per `once`."""

    name: str
    #: Taken in addition to the draft's own keys. Where it is taken already, the draft stays what it was.
    once: str


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Draft:
    """One thing that happened, before it becomes an event of the events API. Make it with `conversion` or `event`."""

    event_type: EventType
    name: str
    #: The keys of the business fact. One of them taken by an earlier draft makes this one a duplicate of it.
    once: tuple[str, ...]
    #: When it happened, by the provider's clock, in Unix milliseconds. 0: it does not say. For that, and for a time
    #: that is still to come by more than a day, the time of arrival stands.
    at_ms: int
    person: Person = NOBODY
    #: What was paid, in major units, tax included. Negative for money given back.
    revenue: Decimal | None = None
    #: ISO 4217, any case; `HOME` where the provider does not say it. None is a mistake, where there is revenue.
    currency: str | None = None
    #: The part of `revenue` that is tax, for users who count net.
    tax: Decimal | None = None
    url: str | None = None
    #: Goes out as it is; None values are left out.
    properties: Mapping[str, Scalar | None] = field(default_factory=dict)
    #: The provider's free metadata: only allow-listed keys go out, and the identity policy may read the person from it.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: Entities (`subscription:sub_1`) that may know the person and the attribution better, best first.
    joins: tuple[str, ...] = ()
    #: Until the first of `joins` is known, the event waits in the store, up to the source's deadline. It takes its once
    #: keys when it leaves: whatever tells the same fact meanwhile goes first.
    waits: bool = False
    #: Others of `joins` that must be known as well before it leaves, where it waits.
    waits_for: tuple[str, ...] = ()
    #: Marks of a joined entity which say that another notification tells this fact: then this one is its duplicate.
    unless: tuple[str, ...] = ()
    #: One of the provider's options: the draft counts only for sources that enable it.
    option: str | None = None
    #: Another of them: the draft counts only for sources that do not enable it.
    without: str | None = None
    #: By mark of a joined entity, what this draft becomes (the first payment after a trial).
    variants: Mapping[str, Variant] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Learned:
    """What it teaches about entities: who stands behind an id, where they came from. Only hashes are kept."""

    #: Each of them gets to know the rest: `("customer:cus_1", "subscription:sub_1")`.
    keys: tuple[str, ...]
    person: Person = NOBODY
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: Words that `Draft.variants` and `Draft.unless` react to (`trial`).
    marks: tuple[str, ...] = ()
    #: The keys are names of one thing (an invoice and its payment): what is known of one is known of all, from now on.
    same: bool = False
    #: Other keys whose knowledge flows into these, now and later, and never back: a deal is like its contact, who may
    #: have others.
    like: tuple[str, ...] = ()
    #: As `Draft.without`: it is learned only for sources that do not enable this option.
    without: str | None = None


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Forgotten:
    """The provider was told to forget somebody: what was learned of these entities goes, attribution included."""

    keys: tuple[str, ...]


def _once(keys: str | Sequence[str | None]) -> tuple[str, ...]:
    found = (keys,) if isinstance(keys, str) else tuple(filter(None, keys))
    if not found or not found[0]:
        msg = "a draft needs at least one once key"
        raise UnmappableError(msg)
    return found


def conversion(name: str, *, once: str | Sequence[str | None], at_ms: int, **rest: Any) -> Draft:
    """A conversion of a person, with money (`revenue`, `currency`) where some moved. `rest`: the fields of `Draft`."""
    return Draft(event_type="conversion", name=name, once=_once(once), at_ms=at_ms, **rest)


def event(name: str, *, once: str | Sequence[str | None], at_ms: int, **rest: Any) -> Draft:
    """Something that happened and is no conversion. `rest`: the fields of `Draft`."""
    return Draft(event_type="event", name=name, once=_once(once), at_ms=at_ms, **rest)


def identify(*, once: str | Sequence[str | None], at_ms: int, **rest: Any) -> Draft:
    """Links a stable id to traits that are not personal. `rest`: the fields of `Draft`."""
    return Draft(event_type="identify", name="identify", once=_once(once), at_ms=at_ms, **rest)
