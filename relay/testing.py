"""The conformance kit: what every provider promises, tried on its cases.

In: a `Provider` and the folder of its case files. Out: for each promise, sentences about what breaks it. All runs
through the relay's own signature, mapping, sealing and store, without a network. `conformance` makes a pytest test of
it; `docs/testing-a-mapper.md` shows how.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis.strategies import SearchStrategy

from relay import samples
from relay.cases import Case, differences, notifications_of, read_cases
from relay.contract import Accepted, Delivery, Provider
from relay.event import Event, check
from relay.money import exponent
from relay.rehearsal import START_MS, WAIT_S, Rehearsal, Sent, arrival_of, made_up, rehearse, sign, totals_of
from relay.scenarios import (
    TELLINGS,
    Plan,
    Scenario,
    Telling,
    any_order,
    backfilled,
    check_scenario,
    in_order,
    perform,
    read_scenarios,
    simplest,
    stage_for,
)
from relay.store.base import Arrival, Mapped
from relay.store.schema import Outcome
from relay.variations import in_currency, numbers_in, personal_texts, replaced, tampered, try_without_parts

#: Yields a sentence for each thing that breaks it.
Promise = Callable[[Rehearsal, Sequence[Case]], Iterator[str]]


def conformance(
    provider: Provider, cases: Path, *, scenarios: Path | None = None, secret: str | None = None
) -> Callable[..., None]:
    """A pytest test for each promise, and for each way of telling each scenario: bind it to a name with `test_`.

    `secret`: one that can sign for the provider, where one made up of its `SecretShape` cannot.
    """
    found = read_cases(provider, cases)
    checks: dict[str, Callable[[], Iterable[str]]] = {
        promise.__name__: partial(_kept, promise, provider, found, secret) for promise in PROMISES
    }
    for scenario in read_scenarios(scenarios) if scenarios else ():
        for telling in TELLINGS:
            checks[f"{scenario.name} {telling.name}"] = partial(_told, scenario, telling, provider, secret)

    @pytest.mark.parametrize("broken", checks.values(), ids=checks)
    def holds(broken: Callable[[], Iterable[str]]) -> None:
        if sentences := list(broken()):
            pytest.fail("\n".join(sentences), pytrace=False)

    return holds


def _kept(promise: Promise, provider: Provider, cases: Sequence[Case], secret: str | None) -> Iterator[str]:
    with rehearse(provider, secret=secret) as stage:
        yield from promise(stage, cases)


def _told(scenario: Scenario, telling: Telling, provider: Provider, secret: str | None) -> Iterator[str]:
    with stage_for(scenario, provider, secret=secret) as stage:
        yield from check_scenario(stage, scenario, telling)


# --- what it says -----------------------------------------------------------------------------------------------------


def each_mapped_type_has_a_case(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """So that every mapping can be read, tried and sent as a sample."""
    shown = {notification.type for case in cases for notification in notifications_of(stage.provider, case.delivery)}
    yield from (f"{kind} has no case" for kind in sorted(set(stage.provider.mappers) - shown))


def each_case_becomes_what_it_says(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """The drafts and the learned facts of a case are those in its file, no more and no less."""
    for case in cases:
        yield from differences(stage.provider, case)


# --- who says it ------------------------------------------------------------------------------------------------------


def a_signature_is_asked_for(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """The right one is accepted, under an older secret too; none, a wrong one and whatever is tampered are refused."""
    known, other = stage.specimen, made_up(stage.provider, 1)
    verify = partial(stage.provider.verifier.verify, now_ms=START_MS)
    resign = partial(sign, stage.provider, known=known, now_ms=START_MS)
    for case in cases[:3]:
        unsigned = replace(case.delivery, url="https://relay.example/webhooks/it", certificates=known.certificates)
        sent = resign(unsigned)
        if verify(sent, (known.secret,)) != Accepted(0):
            yield f"{case.name}: what the secret signed is not accepted"
        if verify(sent, (other.secret, known.secret)) != Accepted(1):
            yield f"{case.name}: what the second of two secrets signed is not accepted as its own"
        wrong = [("another secret", sent, other.secret), ("no signature", unsigned, known.secret)]
        wrong += [(words, changed, known.secret) for words, changed in tampered(sent, resign)]
        for words, delivery, secret in wrong:
            if isinstance(verify(delivery, (secret,)), Accepted):
                yield f"{case.name}: accepted with {words}"


# --- how often and in what order --------------------------------------------------------------------------------------


def what_is_said_twice_counts_once(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """The same delivery again, at once and later, changes nothing."""
    first, repeat = stage.begin(), stage.begin()
    once = [(stage.begin(first), case.delivery) for case in cases]
    again = [(stage.begin(repeat), case.delivery) for case in cases]
    stage.tell(*once, *again, *again)
    first.finish()
    stage.tell(*again)
    repeat.finish()
    names = _names(stage, ((case, case.delivery) for case in cases))
    have, must = (Counter(names[event["properties"]["event_id"]] for event in life.sent) for life in (repeat, first))
    for name in sorted({*have, *must}):
        if have[name] != must[name]:
            yield f"{name}: {must[name]} events when told once, {have[name]} when repeated"


def _names(stage: Rehearsal, told: Iterable[tuple[Case, Delivery]]) -> dict[str, str]:
    """The names of the cases, by the ids of the events that they make."""
    return {
        outgoing.sealed.event_id: case.name
        for case, delivery in told
        for mapped in stage.map(delivery)
        for outgoing in mapped.events
    }


def any_order_counts_the_same(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """All cases, as if they were of different customers, in shuffled orders and some at the same moment."""
    yield from _same_totals(stage, cases, any_order)


def what_was_dropped_counts_when_it_is_backfilled(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """Some of the cases come long after the others."""
    yield from _same_totals(stage, cases, backfilled)


def _same_totals(
    stage: Rehearsal, cases: Sequence[Case], plans: Callable[[Scenario], SearchStrategy[Plan]]
) -> Iterator[str]:
    told = [case for case in cases if case.drafts and case.sample.fresh.ids]
    fresh = [_fresh(case, case.name) for case in told]
    scenario = Scenario(name="all cases", about="", deliveries=fresh, ledger=(), revenue={})
    must = totals_of(perform(stage, fresh, in_order(scenario)).sent)

    def differs(plan: Plan) -> list[str]:
        have = totals_of(perform(stage, fresh, plan).sent)
        if (must.revenue, must.counts) == (have.revenue, have.counts):
            return []
        names = [" with ".join(told[place].name for place in group) if group else "a long time" for group in plan]
        return [f"{have} instead of {must}, when told like this: {', then '.join(names)}"]

    yield from simplest(plans(scenario), differs, examples=3) if fresh else ()


def _fresh(case: Case, token: str) -> Delivery:
    return samples.fresh(case.sample, id=None, now_ms=START_MS, token=token)


def a_sample_is_new_each_time(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """Every id that counts is among the fresh ones of its case: two samples are two facts, one sent twice is one."""
    one, other = ([(case, _fresh(case, token)) for case in cases if case.drafts] for token in ("one", "other"))
    first, both = stage.begin(), stage.begin()
    stage.tell(*((stage.begin(first), delivery) for _, delivery in one))
    first.finish()
    lives = [stage.begin(both) for _ in one]
    for told in (one, other, one):
        stage.tell(*((life, delivery) for life, (_, delivery) in zip(lives, told, strict=True)))
    both.finish()
    names = _names(stage, [*one, *other])
    single, double = (Counter(names[event["properties"]["event_id"]] for event in life.sent) for life in (first, both))
    for name, number in sorted(single.items()):
        if double[name] != 2 * number:
            yield f"{name}: a sample makes {number} events; that one, another and that one again make {double[name]}"


# --- what else may come -----------------------------------------------------------------------------------------------


def an_unheard_of_type_is_kept_and_makes_no_event(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """It may be mapped later."""
    for case in cases:
        types = {notification.type for notification in notifications_of(stage.provider, case.delivery)}
        rename = partial(_tomorrow, types)
        delivery = case.varied(replaced(case.told, rename), replaced(dict(case.sample.headers), rename))
        for found in stage.map(delivery):
            is_new = bool(types) and found.type not in types | {"", "(unreadable)"}
            if is_new and (found.outcome is not Outcome.NOT_MAPPED or found.events):
                yield f"{case.name}: as {found.type} it is {found.outcome.value}, with {len(found.events)} events"


def _tomorrow(types: set[str], text: str) -> str:
    return f"{text}_of_tomorrow" if text in types else text


def a_missing_part_makes_no_wrong_amount(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """Without any one of its keys, a case with money tells no other amount than with it; and it can be committed."""
    arrivals: dict[str, Arrival] = {}
    for case in cases:
        told = set(_amounts(stage.map(case.delivery)))
        for words, delivery, mapped in _variations(stage, case):
            source = replace(stage.source, slug=f"{case.name} {words}")
            arrivals.setdefault(_keys(mapped), arrival_of(source, delivery, mapped, now_ms=START_MS))
            for amount, currency in set(_amounts(mapped)) - told if told else ():
                yield f"{case.name} {words}: tells {amount} {currency}"
    for arrival, receipt in zip(arrivals.values(), stage.commit(arrivals.values()), strict=True):
        if isinstance(receipt, BaseException):
            yield f"{arrival.source}: cannot be committed: {receipt!r}"


def _variations(stage: Rehearsal, case: Case) -> list[tuple[str, Delivery, Sequence[Mapped]]]:
    """Each delivery that becomes something else than the whole, because a part of it is missing."""
    whole = [(mapped.outcome, mapped.events, mapped.learned) for mapped in stage.map(case.delivery)]
    found: list[tuple[str, Delivery, Sequence[Mapped]]] = []

    def attempt(words: str, told: Any, headers: Mapping[str, str] | None = None) -> bool:
        delivery = case.varied(told, headers)
        varied = stage.map(delivery)
        is_other = [(mapped.outcome, mapped.events, mapped.learned) for mapped in varied] != whole
        if is_other:
            found.append((words, delivery, varied))
        return is_other

    try_without_parts(case.told, attempt, always=case.always)
    for name in case.sample.headers:
        headers = {other: value for other, value in case.sample.headers.items() if other != name}
        attempt(f"without the header {name}", case.told, headers)
    return found


def _keys(mapped: Sequence[Mapped]) -> str:
    """All keys that a commit would write: of those that are alike one is enough."""
    events = [outgoing.sealed for found in mapped for outgoing in found.events]
    learned = [entity.keys for found in mapped for entity in found.learned]
    return repr(([(found.outcome, found.type) for found in mapped], [(one.once, one.joins) for one in events], learned))


def nobody_known_loses_no_money(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """With every name, address and number of a person null, a case tells the same amounts."""
    for case in cases:
        if isinstance(case.told, str):
            continue
        named = personal_texts(case.told)
        mapped = stage.map(case.varied(replaced(case.told, partial(_unnamed, named))))
        must, have = _amounts(stage.map(case.delivery)), _amounts(mapped)
        if must != have:
            errors = [found.error.strip().splitlines()[-1] for found in mapped if found.error]
            yield f"{case.name}: {have} instead of {must} where nobody is named {errors or ''}"


def _unnamed(named: set[str], text: str) -> str | None:
    return None if text in named else text


def another_currency_has_its_own_decimals(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """With yen or Kuwaiti dinars in the place of a currency of two decimals, amounts are exact, or it is parked."""
    for case in cases:
        must, numbers = _amounts(stage.map(case.delivery)), set(numbers_in(case.told))
        for old in sorted({currency for _, currency in must} & _TWO_DECIMALS):
            for new in ("JPY", "KWD"):
                have = _amounts(stage.map(case.varied(in_currency(case.told, old, new))))
                for before, after in zip(must, have, strict=True) if len(must) == len(have) else ():
                    if after[1] == new and after[0] not in _exact(before[0], new, numbers):
                        yield f"{case.name}: with {new} in the place of {old}, {before[0]} becomes {after[0]}"


def _exact(amount: Decimal, new: str, numbers: set[Decimal]) -> set[Decimal]:
    """What an amount of two decimals may become.

    The same, where the body has it as it is, in major units; with the other number of decimals, where the body has it
    in minor units; either, where the body has neither or both.
    """
    major, minor = abs(amount) in numbers, abs(amount).scaleb(2) in numbers
    counted = amount.scaleb(2 - exponent(new))
    return {amount, counted} if major == minor else {amount} if major else {counted}


#: No provider has an opinion of its own about these.
_TWO_DECIMALS = frozenset(("EUR", "USD", "GBP", "CHF", "CAD", "AUD", "PLN", "SEK", "NOK", "DKK", "INR", "BRL"))

Amount = tuple[Decimal, str]


def _amounts(mapped: Sequence[Mapped]) -> list[Amount]:
    """What the events tell of money: revenue, or the amount of an event without."""
    events = [outgoing.sealed.event for found in mapped for outgoing in found.events]
    return [found for event in events if (found := _amount(event))]


def _amount(event: Event) -> Amount | None:
    told = event.properties.get
    amount, currency = (told("amount"), told("currency")) if event.revenue is None else (event.revenue, event.currency)
    return (amount, str(currency)) if isinstance(amount, Decimal) and amount else None


# --- what leaves ------------------------------------------------------------------------------------------------------


def what_leaves_is_valid(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """Every event keeps the API's rules, at most 50 properties among them, and says where it is from."""
    for case, event in _all_sent(stage, cases):
        checked = check(event)
        if not isinstance(checked, Event):
            yield from (f"{case.name}: {problem}" for problem in checked)
        for key in {"provider", "source", "event_id", "provider_event"} - event["properties"].keys():
            yield f"{case.name}: {event.get('event_name')} has no property {key}"


def nobody_is_named(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """No name, address, number or e-mail address that stands in a case stands in what leaves."""
    for case, event in _all_sent(stage, cases):
        text = json.dumps(event, default=str, ensure_ascii=False).lower()
        for personal in sorted(personal_texts(case.told)):
            alone = rf"(?<![a-z0-9]){re.escape(personal.lower())}(?![a-z0-9])"
            if len(personal) >= _SHORTEST_NAME and re.search(alone, text):
                yield f"{case.name}: {personal!r} leaves with {event.get('event_name')}"


_SHORTEST_NAME = 3


def _all_sent(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[tuple[Case, Sent]]:
    lives = [(case, stage.begin()) for case in cases]
    stage.tell(*((life, case.delivery) for case, life in lives))
    stage.pass_time(WAIT_S + 1)
    for case, life in lives:
        life.leave()
        yield from ((case, event) for event in life.sent)


def an_event_has_one_id_for_ever(stage: Rehearsal, cases: Sequence[Case]) -> Iterator[str]:
    """Mapped again, a case makes the same events, byte for byte; no two of them have one id."""
    for case in cases:
        first, second = stage.map(case.delivery), stage.map(case.delivery)
        ids = [outgoing.sealed.event_id for found in first for outgoing in found.events]
        if first != second:
            yield f"{case.name}: is mapped to something else the second time"
        if len(ids) != len(set(ids)):
            yield f"{case.name}: two of its events have one id, because they have the same first once key"


#: All of them, in the order in which a new provider should see to them.
PROMISES: tuple[Promise, ...] = (
    each_mapped_type_has_a_case,
    each_case_becomes_what_it_says,
    a_signature_is_asked_for,
    an_event_has_one_id_for_ever,
    what_is_said_twice_counts_once,
    a_sample_is_new_each_time,
    any_order_counts_the_same,
    what_was_dropped_counts_when_it_is_backfilled,
    an_unheard_of_type_is_kept_and_makes_no_event,
    a_missing_part_makes_no_wrong_amount,
    nobody_known_loses_no_money,
    another_currency_has_its_own_decimals,
    what_leaves_is_valid,
    nobody_is_named,
)
