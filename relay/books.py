"""A provider's own books beside what the destination accepted: the comparison, line by line and per currency.

In: `Entry`s of the books, and `Told`s, the events that tell them. Out: a `Report`. Pure. `Books` is what a reader of a
provider's API promises; `relay.readers` knows the readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, Protocol

from relay.store.base import EventRow
from relay.store.schema import EventState

Kind = Literal["payment", "refund"]

#: Which way the money of an event goes that carries an amount instead of revenue.
_SIGNS = {"refund": -1, "refund_reversed": 1}
_NOTHING = Decimal(0)


class BooksError(Exception):
    """The provider's API did not give what was asked. The text says why and what to do; it holds no secret."""


class Outcome(StrEnum):
    """How an entry of the books and the events that tell it stand to each other."""

    OK = "ok"  #: the destination accepted just this amount
    MISSING = "missing"  #: no event tells it
    NOT_ACCEPTED = "not_accepted"  #: told, and not accepted yet: waiting, pending, in doubt, or a dead letter
    DIFFERS = "differs"  #: told, with another amount or currency
    EXTRA = "extra"  #: accepted, and the books know nothing of it


# --- what the books say -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One movement of money in the provider's books."""

    kind: Kind
    #: The provider's id of it, of the kind that its dashboard finds.
    id: str
    #: The connected account, or "".
    account: str = ""
    at_ms: int
    #: In major units, tax included; negative for money given back.
    amount: Decimal
    currency: str
    #: The once keys within the source under which an event may tell it.
    keys: tuple[str, ...]
    #: Amount and currency as the buyer saw them, where those are others: an event may tell these.
    shown: tuple[Decimal, str] | None = None


class Books(Protocol):
    """A provider's API, read with the source's key. It blocks: call it from a thread. All verbs raise `BooksError`.

    Times are Unix milliseconds, read from the second on in which they lie.
    """

    @property
    def is_test(self) -> bool:
        """Whether the key opens the books of the provider's test mode."""
        ...

    #: For how many days the provider keeps its notifications; None: for ever.
    keeps_days: int | None

    def notifications(self, *, since_ms: int, until_ms: int, types: Sequence[str]) -> Iterator[Sequence[bytes]]:
        """What the provider said in `[since_ms, until_ms)`, page by page, newest first: bodies as its webhooks have."""
        ...

    def entries(self, *, since_ms: int, until_ms: int) -> Iterator[Sequence[Entry]]:
        """The money that moved in `[since_ms, until_ms)`, piece by piece."""
        ...

    def names(self, keys: Sequence[str]) -> tuple[str, ...] | None:
        """All once keys of the movement that one of these names, at whatever time; None where the books have none."""
        ...

    def stop(self) -> None:
        """From another thread: wait no longer for the provider, and ask it nothing more."""
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...


# --- what the events say ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event that carries money."""

    row: int
    event_id: str
    name: str
    state: EventState
    #: Whether its last sending has no answer yet.
    is_in_doubt: bool
    at_ms: int
    #: As the event has it, net or gross; negative for money given back.
    amount: Decimal
    currency: str
    tax: Decimal
    is_test: bool

    @property
    def is_accepted(self) -> bool:
        return self.state is EventState.SENT

    @property
    def where(self) -> str:
        """Where it is on its way, in a word or two."""
        match self.state:
            case EventState.SENT:
                return "accepted"
            case EventState.DEAD:
                return "dead letter"
            case EventState.BATCHED:
                return "in doubt" if self.is_in_doubt else "being sent"
            case EventState.WAITING | EventState.PENDING:
                return self.state.value


def told_by(row: EventRow) -> Told | None:
    """The money of an event; None where it carries none."""
    event: dict[str, Any] = json.loads(row.payload, parse_float=Decimal)
    properties = event.get("properties", {})
    amount, currency = event.get("revenue"), event.get("currency")
    if amount is None and row.name in _SIGNS and properties.get("amount") is not None:
        amount, currency = _SIGNS[row.name] * Decimal(properties["amount"]), properties.get("currency")
    if amount is None or currency is None:
        return None
    tax = properties.get("tax")
    return Told(
        row=row.id,
        event_id=row.event_id,
        name=row.name,
        state=row.state,
        is_in_doubt=row.doubts > 0,
        at_ms=event.get("timestamp", row.made_at_ms),
        amount=Decimal(amount),
        currency=currency,
        tax=Decimal(tax) if isinstance(tax, (int, Decimal)) else _NOTHING,
        is_test=properties.get("livemode") is False,
    )


# --- side by side -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Entries that are one sale or one refund, and the events that tell it."""

    outcome: Outcome
    kind: Kind
    id: str
    account: str
    at_ms: int
    #: What the books have, and what an event should carry: without its tax where the source counts net.
    books: Decimal
    currency: str
    #: What the destination accepted, by currency.
    accepted: Mapping[str, Decimal]
    told: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Total:
    books: Decimal = _NOTHING
    accepted: Decimal = _NOTHING

    @property
    def drift(self) -> Decimal:
        """Positive: the destination has more than the books."""
        return self.accepted - self.books

    def plus(self, *, books: Decimal = _NOTHING, accepted: Decimal = _NOTHING) -> Total:
        return Total(self.books + books, self.accepted + accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the books and the destination say of the same time."""

    lines: tuple[Line, ...]
    #: Connected accounts that have events, and whose books were not read: their events were left out.
    unread_accounts: tuple[str, ...] = ()

    @property
    def is_equal(self) -> bool:
        return all(line.outcome is Outcome.OK for line in self.lines)

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many lines have which outcome; all outcomes are there."""
        found = dict.fromkeys(Outcome, 0)
        for line in self.lines:
            found[line.outcome] += 1
        return found

    def totals(self, *kinds: Kind) -> dict[str, Total]:
        """By currency, of these kinds; of all where none is named."""
        found: dict[str, Total] = {}
        for line in self.lines:
            if kinds and line.kind not in kinds:
                continue
            found[line.currency] = found.get(line.currency, Total()).plus(books=line.books)
            for currency, amount in line.accepted.items():
                found[currency] = found.get(currency, Total()).plus(accepted=amount)
        return dict(sorted(found.items()))


def sales(entries: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """Entries that share a key belong together: an invoice that was paid in two parts is one sale."""
    groups: dict[int, list[Entry]] = {}
    group_of: dict[str, int] = {}
    for number, entry in enumerate(entries):
        met = sorted({group_of[key] for key in entry.keys if key in group_of})
        home = met[0] if met else number
        members = groups.setdefault(home, [])
        for other in met[1:]:
            members.extend(groups.pop(other))
        members.append(entry)
        for key in {key for member in (members if met[1:] else [entry]) for key in member.keys}:
            group_of[key] = home
    return [tuple(group) for group in groups.values()]


def compare(
    sale: Sequence[Entry], told: Sequence[Told], *, is_net: bool = False, tolerance: Decimal = _NOTHING
) -> Line | None:
    """The line of one sale or refund; None where nothing moved in the end and nothing is told.

    `is_net`: the events carry their revenue without the tax that they name. `tolerance` is in major units.
    """
    first = sale[0]
    amounts = [(entry.amount, entry.currency) for entry in sale]
    shown = [entry.shown for entry in sale if entry.shown is not None]
    if len(shown) == len(sale) and {one.currency for one in told} == {currency for _, currency in shown}:
        amounts = shown
    books, currency = sum((amount for amount, _ in amounts), _NOTHING), amounts[0][1]
    if is_net and first.kind == "payment":
        books -= sum((one.tax for one in told), _NOTHING)
    if not books and not told:
        return None
    accepted: dict[str, Decimal] = {}
    for one in told:
        if one.is_accepted:
            accepted[one.currency] = accepted.get(one.currency, _NOTHING) + one.amount
    fits = {one.currency for one in told} <= {currency} and (
        abs(books - sum((one.amount for one in told), _NOTHING)) <= tolerance
    )
    if not told:
        outcome = Outcome.MISSING
    elif not fits:
        outcome = Outcome.DIFFERS
    else:
        outcome = Outcome.OK if all(one.is_accepted for one in told) else Outcome.NOT_ACCEPTED
    return Line(
        outcome=outcome,
        kind=first.kind,
        id=first.id,
        account=first.account,
        at_ms=first.at_ms,
        books=books,
        currency=currency,
        accepted=accepted,
        told=tuple(told),
    )


def extra(told: Told, account: str) -> Line:
    """The line of an accepted event of which the books know nothing."""
    return Line(
        outcome=Outcome.EXTRA,
        kind="refund" if told.name in _SIGNS else "payment",
        id=told.event_id,
        account=account,
        at_ms=told.at_ms,
        books=_NOTHING,
        currency=told.currency,
        accepted={told.currency: told.amount},
        told=(told,),
    )


def known_as(entry: Entry, names: Sequence[str]) -> Entry:
    """The entry under more names."""
    return replace(entry, keys=tuple(dict.fromkeys((*entry.keys, *names))))


def parted(key: str) -> tuple[str, str, str]:
    """Account (or ""), kind and id of a once key: `acct_1/payment:pi_1`."""
    account, _, rest = key.partition("/") if "/" in key.partition(":")[0] else ("", "", key)
    kind, _, id_ = rest.partition(":")
    return account, kind, id_


# --- what is kept of a report, for the metric -------------------------------------------------------------------------

#: Before the source's slug, the name of the bookmark that holds it.
RECONCILED = "reconciled:"


def note_of(report: Report) -> str:
    """The drift by currency, as JSON."""
    return json.dumps({"drift": {currency: str(total.drift) for currency, total in report.totals().items()}})


def drift_of(note: str) -> dict[str, Decimal]:
    """By currency, the drift that `note_of` wrote."""
    return {currency: Decimal(drift) for currency, drift in json.loads(note)["drift"].items()}
