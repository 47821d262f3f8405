"""Scenarios: whole lives of customers as a provider tells them, and the ledger that must come of each.

In: deliveries in the order in which things happened, and a ledger written by hand. Out: sentences about what differs,
for each way of telling the same life: in order, each thing twice, in any order, with a part that was dropped and came
with a backfill. `read_scenarios` reads a folder of JSON files; `docs/testing-a-mapper.md` shows one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from relay.cases import delivery_of
from relay.contract import Delivery, Provider
from relay.rehearsal import Life, Rehearsal, Sent, rehearse, totals_of

T = TypeVar("T")

#: Deliveries by their place in the life, those in one tuple at the same moment; None: so much time passes that nothing
#: waits any longer.
Plan = Sequence[tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ledger: an event that must leave."""

    #: An e-mail address, `site:<the site's own id>`, `customer:<the provider's id>`, or None where nobody is known.
    #: `site:1/ada@example.com`: either of them, where it is not told in order.
    who: str | None
    name: str
    #: Revenue, or the amount that an event without revenue tells; None where it tells none.
    amount: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One life."""

    name: str
    about: str
    #: In the order in which things happened, unsigned.
    deliveries: Sequence[Delivery]
    ledger: Sequence[Entry]
    #: By currency, what the events' revenue must add up to.
    revenue: Mapping[str, Decimal]
    #: The provider's options that are on; None: all that only add something.
    options: Sequence[str] | None = ()
    #: Deliveries that are never dropped, by their place.
    kept: Collection[int] = ()
    #: Fields of the source's policy that do not have their defaults.
    policy: Mapping[str, Any] = field(default_factory=dict)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_scenarios(folder: Path) -> list[Scenario]:
    """The scenarios of a folder, by name. A file that is none raises whatever its reading raises."""
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Scenario:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Scenario(
        name=path.stem,
        about=raw["about"],
        deliveries=[
            delivery_of(each.get("body", each.get("raw")), each.get("headers", {}), each.get("answers"))
            for each in raw["life"]
        ],
        ledger=[entry(*line) for line in raw["ledger"]],
        revenue={currency: Decimal(amount) for currency, amount in raw["revenue"].items()},
        options=raw.get("options", ()),
        kept=raw.get("kept", ()),
        policy=raw.get("policy", {}),
    )


def entry(who: str | None, name: str, amount: str | None = None, currency: str | None = None) -> Entry:
    """A line of a ledger: `entry("ada@example.com", "purchase", "19.99", "EUR")`."""
    return Entry(who, name, None if amount is None else Decimal(amount), currency)


# --- ways of telling --------------------------------------------------------------------------------------------------


def in_order(scenario: Scenario) -> list[tuple[int, ...]]:
    """As it happened."""
    return [(place,) for place in range(len(scenario.deliveries))]


def each_twice(scenario: Scenario) -> Plan:
    """Each at once a second time, and all of it again when it is over."""
    return [*(group * 2 for group in in_order(scenario)), None, tuple(range(len(scenario.deliveries)))]


def any_order(scenario: Scenario) -> st.SearchStrategy[Plan]:
    """Shuffled, and some of them at the same moment."""
    places = st.permutations(range(len(scenario.deliveries)))
    return st.builds(_in_groups, places, st.lists(st.integers(1, 9), min_size=1, max_size=3))


def _in_groups(places: Sequence[int], sizes: Sequence[int]) -> Plan:
    """In groups of these sizes, over and over."""
    groups: list[tuple[int, ...]] = []
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(places):
            return groups
        groups.append(tuple(places[start : start + size]))
        start += size
    return groups


def backfilled(scenario: Scenario) -> st.SearchStrategy[Plan]:
    """Some are dropped, and come when nothing waits for them any longer."""
    places = range(len(scenario.deliveries))
    may_drop = [place for place in places if place not in scenario.kept]
    dropped = st.sets(st.sampled_from(may_drop), min_size=1) if may_drop else st.just(set[int]())
    return dropped.map(lambda late: [tuple(place for place in places if place not in late), None, tuple(sorted(late))])


@dataclass(frozen=True, slots=True)
class Telling:
    """A way of telling a life."""

    name: str
    plans: Callable[[Scenario], st.SearchStrategy[Plan]]
    #: Whether it keeps the order of things.
    is_ordered: bool = False
    #: Whether facts come too late for events that waited for them: then they are others' events in name only.
    is_late: bool = False


TELLINGS = (
    Telling("in order", lambda scenario: st.just(in_order(scenario)), is_ordered=True),
    Telling("each twice", lambda scenario: st.just(each_twice(scenario)), is_ordered=True),
    Telling("in any order", any_order),
    Telling("dropped and backfilled", backfilled, is_late=True),
)


# --- the check --------------------------------------------------------------------------------------------------------


def stage_for(
    scenario: Scenario, provider: Provider, *, secret: str | None = None
) -> AbstractContextManager[Rehearsal]:
    """A relay as the scenario wants it configured."""
    return rehearse(provider, secret=secret, options=scenario.options, **scenario.policy)


def check_scenario(stage: Rehearsal, scenario: Scenario, telling: Telling, *, examples: int = 5) -> list[str]:
    """What differs from the ledger, in sentences; none where all is as it must be.

    `examples`: how many orders are tried. Of those that go wrong the simplest is told.
    """
    provider = stage.provider

    def differs(plan: Plan) -> list[str]:
        sent = perform(stage, scenario.deliveries, plan).sent
        found = _differences(provider, scenario, sent, telling)
        return [*found, f"when told like this: {_words(provider, scenario, plan)}"] if found else []

    return simplest(telling.plans(scenario), differs, examples=examples)


def perform(stage: Rehearsal, deliveries: Sequence[Delivery], plan: Plan) -> Life:
    """The life that is told by this plan, to its end."""
    life = stage.begin()
    for group in plan:
        if group is None:
            life.finish()
        else:
            life.tell(*(deliveries[place] for place in group))
    life.finish()
    return life


class _BrokenError(Exception):
    pass


def simplest(examples_of: st.SearchStrategy[T], check: Callable[[T], list[str]], *, examples: int) -> list[str]:
    """What `check` finds wrong with the simplest of the examples that it finds something wrong with."""
    broken: list[str] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples_of)
    def holds(example: T) -> None:
        broken[:] = check(example)
        if broken:
            raise _BrokenError

    try:
        holds()
    except _BrokenError:
        return broken
    return []


def _differences(provider: Provider, scenario: Scenario, sent: Sequence[Sent], telling: Telling) -> list[str]:
    totals = totals_of(sent)
    found = []
    for currency in sorted({*totals.revenue, *scenario.revenue}):
        actual, expected = (each.get(currency, Decimal(0)) for each in (totals.revenue, scenario.revenue))
        if actual != expected:
            found.append(f"revenue is {actual} {currency} and must be {expected}")
    people = {id_: each.who for each in scenario.ledger for id_ in _user_ids(provider, each.who, telling)}
    must = Counter(_line(each, is_late=telling.is_late) for each in scenario.ledger)
    have = Counter(_line(_entry_of(event, people), is_late=telling.is_late) for event in sent)
    found += [f"missing: {line}" for line in (must - have).elements()]
    found += [f"too much: {line}" for line in (have - must).elements()]
    return found


def _line(one: Entry, *, is_late: bool) -> str:
    money = f" {one.amount.normalize():f} {one.currency}" if one.amount is not None else ""
    return f"{one.name}{money}" if is_late else f"{one.name}{money} of {one.who or 'nobody'}"


def _entry_of(event: Sent, people: Mapping[str | None, str | None]) -> Entry:
    user, properties = event.get("user_id"), event["properties"]
    amount, currency = event.get("revenue", properties.get("amount")), event.get("currency", properties.get("currency"))
    who = people.get(user, f"somebody else ({user})")
    exact = None if amount is None else Decimal(amount)
    return Entry(who, event["event_name"], exact, None if exact is None else currency)


def _user_ids(provider: Provider, who: str | None, telling: Telling) -> list[str | None]:
    if who is None:
        return [None]
    return [_user_id(provider, name) for name in who.split("/")[: 1 if telling.is_ordered else None]]


def _user_id(provider: Provider, who: str) -> str:
    """The pseudonym that the documentation promises for this person."""
    match who.partition(":"):
        case ("site", _, id_):
            said = id_
        case ("customer", _, id_):
            said = f"{provider.name}:{id_}"
        case _:
            said = who.lower()
    return hashlib.sha256(said.encode()).hexdigest()


def _words(provider: Provider, scenario: Scenario, plan: Plan) -> str:
    """What is told, in this order; what no mapper reads is left out."""
    groups = []
    for group in plan:
        types = [f"{words} ({place + 1})" for place in group or () if (words := _types(provider, scenario, place))]
        groups.append("a long time" if group is None else " with ".join(types))
    return ", then ".join(filter(None, groups))


def _types(provider: Provider, scenario: Scenario, place: int) -> str:
    types = [notification.type for notification in provider.notifications(scenario.deliveries[place])]
    return " and ".join(kind for kind in types if kind in provider.mappers)
