"""The conformance kit: what every provider promises, tried on its cases.

In: a `Provider` and the folder of its case files. Out: for each promise, sentences about what breaks it. Everything runs
through the relay's own signature, mapping, sealing and store, without a network. `conformance` makes a pytest test
of it; `docs/testing-a-mapper.md` shows how.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis.strategies import SearchStrategy

from relay import samples
from relay.contract import Accepted, Delivery, Draft, Learned, Notification, Provider, Refused
from relay.event import Event, check
from relay.money import exponent
from relay.rehearsal import START_MS, WAIT_S, Sent, arrival_of, made_up_secret, rehearse, sign, totals_of
from relay.scenarios import (
    TELLINGS,
    Plan,
    Scenario,
    any_order,
    backfilled,
    check_scenario,
    delivery_of,
    in_order,
    perform,
    read_scenarios,
    simplest,
)
from relay.store.base import Mapped
from relay.store.schema import Outcome
from relay.variations import in_currency, personal_texts, replaced, without_a_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case file: a delivery, and what must become of it."""

    name: str
    sample: samples.Case
    delivery: Delivery
    drafts: Sequence[Any]
    learned: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tried."""

    provider: Provider
    cases: Sequence[Case]
    #: A secret that can sign for the provider.
    secret: str


#: Yields a sentence for each thing that breaks it.
Promise = Callable[[Subject], Iterator[str]]


def read_subject(provider: Provider, cases: Path, *, secret: str | None = None) -> Subject:
    """The provider with the cases of a folder. Raises `relay.samples.SampleError` for a file that is no case."""
    found = [_read_case(path, provider) for path in sorted(cases.glob("*.json"))]
    return Subject(provider=provider, cases=found, secret=secret or made_up_secret(provider))


def _read_case(path: Path, provider: Provider) -> Case:
    sample, raw = samples.read_case(path, provider), json.loads(path.read_text(encoding="utf-8"))
    return Case(
        name=path.stem,
        sample=sample,
        delivery=delivery_of(sample.body, sample.headers),
        drafts=raw.get("drafts", ()),
        learned=raw.get("learned", ()),
    )


def conformance(
    provider: Provider, cases: Path, *, scenarios: Path | None = None, secret: str | None = None
) -> Callable[..., None]:
    """A pytest test for each promise, and for each way of telling each scenario: bind it to a name with `test_`.

    `secret`: one that can sign for the provider, where one made up of its `SecretShape` cannot.
    """
    tried = read_subject(provider, cases, secret=secret)
    checks: dict[str, Callable[[], Iterable[str]]] = {promise.__name__: partial(promise, tried) for promise in PROMISES}
    for scenario in read_scenarios(scenarios) if scenarios else ():
        for telling in TELLINGS:
            checks[f"{scenario.name} {telling.name}"] = partial(check_scenario, provider, scenario, telling)

    @pytest.mark.parametrize("check", checks.values(), ids=checks)
    def holds(check: Callable[[], Iterable[str]]) -> None:
        if broken := list(check()):
            pytest.fail("\n".join(broken), pytrace=False)

    return holds


# --- what it says -----------------------------------------------------------------------------------------------------


def each_mapped_type_has_a_case(tried: Subject) -> Iterator[str]:
    """So that every mapping can be read, tried and sent as a sample."""
    shown = {notification.type for case in tried.cases for notification in _notifications(tried, case.delivery)}
    yield from (f"{kind} has no case" for kind in sorted(set(tried.provider.mappers) - shown))


def each_case_becomes_what_it_says(tried: Subject) -> Iterator[str]:
    """The drafts and the learned facts of a case are those in its file, no more and no less."""
    for case in tried.cases:
        try:
            told = [thing for found in _notifications(tried, case.delivery) for thing in _told(tried, found)]
        except Exception as error:  # noqa: BLE001  a mapper may raise anything
            told = []
            if case.drafts or case.learned:
                yield f"{case.name}: {type(error).__name__}: {error}"
        for word, expected, kind in (("drafts", case.drafts, Draft), ("learned", case.learned, Learned)):
            actual = [_plain(asdict(thing)) for thing in told if isinstance(thing, kind)]
            yield from _differences(f"{case.name}: {word}", _plain(expected), actual)


def _told(tried: Subject, notification: Notification) -> Iterator[Draft | Learned]:
    mapper = tried.provider.mappers.get(notification.type)
    yield from mapper(notification) if mapper else ()


def _notifications(tried: Subject, delivery: Delivery) -> list[Notification]:
    """Those that can be read."""
    try:
        return list(tried.provider.notifications(delivery))
    except Exception:  # noqa: BLE001  a case may show a body that cannot be read
        return []


def _plain(value: Any) -> Any:
    """As a case has it: decimals in words, and nothing that is empty or a default."""
    if isinstance(value, Mapping):
        found = {key: _plain(item) for key, item in value.items()}
        return {
            key: item for key, item in found.items() if item is not None and item is not False and item not in ({}, [])
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def _differences(where: str, expected: Any, actual: Any) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted({*expected, *actual}):
            yield from _differences(f"{where}.{key}", expected.get(key), actual.get(key))
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, pair in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"{where}.{place}", *pair)
    elif expected != actual:
        yield f"{where} is {actual!r} and must be {expected!r}"


# --- who says it ------------------------------------------------------------------------------------------------------


def a_signature_is_asked_for(tried: Subject) -> Iterator[str]:
    """The right one is accepted, under an older secret too; none, a wrong one and a tampered body are refused."""
    verifier = tried.provider.verifier
    other, now_ms = made_up_secret(tried.provider)[:-4] + "0f0f", START_MS
    for case in tried.cases[:3]:
        sent = sign(tried.provider, case.delivery, tried.secret, now_ms=now_ms)
        verdict = partial(verifier.verify, now_ms=now_ms)
        if verdict(sent, (tried.secret,)) != Accepted(0):
            yield f"{case.name}: what the secret signed is not accepted"
        if verdict(sent, (other, tried.secret)) != Accepted(1):
            yield f"{case.name}: what the second of two secrets signed is not accepted as its own"
        wrong = {"another secret": (sent, other), "no signature": (case.delivery, tried.secret)}
        for words, changed in _tampered(tried, sent, now_ms):
            wrong[words] = (changed, tried.secret)
        for words, (delivery, secret) in wrong.items():
            if not isinstance(verdict(delivery, (secret,)), Refused):
                yield f"{case.name}: accepted with {words}"


def _tampered(tried: Subject, sent: Delivery, now_ms: int) -> Iterator[tuple[str, Delivery]]:
    """One bit of the body changed; none where the provider's scheme does not sign the body."""
    for place in (0, len(sent.body) // 2, len(sent.body) - 1):
        body = sent.body[:place] + bytes([sent.body[place] ^ 1]) + sent.body[place + 1 :]
        changed = replace(sent, body=body)
        if sign(tried.provider, changed, tried.secret, now_ms=now_ms).headers != sent.headers:
            yield f"byte {place} of the body changed", changed


# --- how often and in what order --------------------------------------------------------------------------------------


def what_is_said_twice_counts_once(tried: Subject) -> Iterator[str]:
    """The same delivery again, at once and later, changes nothing."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            once, again = stage.begin(), stage.begin()
            once.tell(case.delivery)
            again.tell(case.delivery, case.delivery)
            stage.pass_time(WAIT_S + 1)
            again.tell(case.delivery)
            for life in (once, again):
                life.finish()
            if sorted(once.payloads) != sorted(again.payloads):
                yield f"{case.name}: {len(once.payloads)} events when told once, {len(again.payloads)} when repeated"


def any_order_counts_the_same(tried: Subject) -> Iterator[str]:
    """All cases, as if they were of different customers, in shuffled orders and some at the same moment."""
    yield from _same_totals(tried, any_order)


def what_was_dropped_counts_when_it_is_backfilled(tried: Subject) -> Iterator[str]:
    """Some of the cases come long after the others."""
    yield from _same_totals(tried, backfilled)


def _same_totals(tried: Subject, plans: Callable[[Scenario], SearchStrategy[Plan]]) -> Iterator[str]:
    fresh = [_fresh(case, case.name) for case in tried.cases if case.sample.fresh.ids and case.drafts]
    told = Scenario(name="all cases", about="", deliveries=fresh, ledger=(), revenue={})
    with rehearse(tried.provider, secret=tried.secret) as stage:
        expected = totals_of(perform(stage, fresh, in_order(told)).sent)

        def differs(plan: Plan) -> list[str]:
            actual = totals_of(perform(stage, fresh, plan).sent)
            both = ((expected.revenue, actual.revenue), (expected.counts, actual.counts))
            return [f"{have} instead of {must}, when told as {plan}" for must, have in both if must != have]

        if fresh:
            yield from simplest(plans(told), differs, examples=5)


def _fresh(case: Case, token: str) -> Delivery:
    return samples.fresh(case.sample, id=None, now_ms=START_MS, token=token)


def a_sample_is_new_each_time(tried: Subject) -> Iterator[str]:
    """Every id that counts is among the fresh ones of its case: two samples are two facts, one sent twice is one."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            if not case.drafts:
                continue
            life, counts = stage.begin(), []
            for token in ("one", "other", "one"):
                life.tell(_fresh(case, token))
                life.finish()
                counts.append(len({event["properties"]["event_id"] for event in life.sent}))
            if counts[1:] != [2 * counts[0]] * 2:
                yield f"{case.name}: {counts} events after one sample, another one, and the first again"


# --- what else may come -----------------------------------------------------------------------------------------------


def an_unheard_of_type_is_kept_and_makes_no_event(tried: Subject) -> Iterator[str]:
    """It may be mapped later."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            types = {notification.type for notification in _notifications(tried, case.delivery)}
            body, headers = (
                replaced(part, partial(_unheard_of, types)) for part in (case.sample.body, case.sample.headers)
            )
            delivery = delivery_of(body, headers)
            if types & {notification.type for notification in _notifications(tried, delivery)} or not types:
                continue  # the type is not said in one word
            life = stage.begin()
            life.tell(delivery)
            life.finish()
            if life.sent or not stage.is_kept(life, Outcome.NOT_MAPPED):
                yield f"{case.name}: a type that nobody knows makes {len(life.sent)} events, or is not kept"


def _unheard_of(types: set[str], text: str) -> str:
    return f"{text}_of_tomorrow" if text in types else text


def a_missing_part_makes_no_wrong_amount(tried: Subject) -> Iterator[str]:
    """Without any one of its keys, a case with money tells no other amount than with it; and it can be committed."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            whole, arrivals = stage.map(case.delivery), []
            told = set(_amounts(whole))
            for words, delivery in _variations(case):
                mapped = stage.map(delivery)
                if mapped == whole:
                    continue
                source = replace(stage.source, slug=f"{case.name} {words}")
                arrivals.append(arrival_of(source, delivery, mapped, now_ms=START_MS))
                for amount, currency in set(_amounts(mapped)) - told if told else ():
                    yield f"{case.name} {words}: tells {amount} {currency}"
            for arrival, receipt in zip(arrivals, stage.commit(arrivals), strict=True):
                if isinstance(receipt, BaseException):
                    yield f"{arrival.source}: cannot be committed: {receipt}"


def _variations(case: Case) -> Iterator[tuple[str, Delivery]]:
    for words, body in without_a_part(case.sample.body):
        yield words, delivery_of(body, case.sample.headers)
    for words, headers in without_a_part(dict(case.sample.headers)):
        if "null" not in words:
            yield f"{words} among its headers", delivery_of(case.sample.body, headers)


def nobody_known_loses_no_sale(tried: Subject) -> Iterator[str]:
    """With every name, address and number of a person null, a case tells the same amounts."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            if isinstance(case.sample.body, str):
                continue
            named = personal_texts(case.sample.body)
            body = replaced(case.sample.body, lambda text, named=named: None if text in named else text)  # type: ignore[misc]
            mapped = stage.map(delivery_of(body, case.sample.headers))
            must, have = _amounts(stage.map(case.delivery)), _amounts(mapped)
            if must != have:
                yield f"{case.name}: {have} instead of {must} where nobody is named: {_errors(mapped)}"


def another_currency_has_its_own_decimals(tried: Subject) -> Iterator[str]:
    """With yen or Kuwaiti dinars in the place of a currency of two decimals, amounts are exact, or it is parked."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            must = _amounts(stage.map(case.delivery))
            for old in sorted({currency for _, currency in must if currency in _PLAIN_CURRENCIES}):
                units = set()
                for new in ("JPY", "KWD"):
                    body = in_currency(case.sample.body, old, new)
                    have = _amounts(stage.map(delivery_of(body, case.sample.headers)))
                    for before, after in zip(must, have, strict=False) if len(must) == len(have) else ():
                        if (before[1], after[1]) == (old, new) and before[0]:
                            units.add(
                                {before[0]: "major", before[0].scaleb(2 - exponent(new)): "minor"}.get(
                                    after[0], f"{after}"
                                )
                            )
                if len(units) > 1 or not units <= {"major", "minor"}:
                    yield f"{case.name}: {old} is taken for {sorted(units)} units, with JPY and KWD in its place"


_PLAIN_CURRENCIES = frozenset(("EUR", "USD", "GBP", "CHF", "CAD", "AUD", "PLN", "SEK", "NOK", "DKK", "INR", "BRL"))


def _amounts(mapped: Sequence[Mapped]) -> list[tuple[Decimal, str | None]]:
    """What the events tell of money: revenue, or the amount of an event without."""
    events = [outgoing.sealed.event for found in mapped for outgoing in found.events]
    return [found for event in events if (found := _amount(event))]


def _amount(event: Event) -> tuple[Decimal, str | None] | None:
    if event.revenue is not None:
        return event.revenue, event.currency
    amount, currency = event.properties.get("amount"), event.properties.get("currency")
    return (amount, str(currency)) if isinstance(amount, Decimal) else None


def _errors(mapped: Sequence[Mapped]) -> str:
    return "; ".join(found.error.strip().splitlines()[-1] for found in mapped if found.error) or "nothing was parked"


# --- what leaves ------------------------------------------------------------------------------------------------------


def what_leaves_is_valid(tried: Subject) -> Iterator[str]:
    """Every event keeps the API's rules, at most 50 properties among them, and says where it is from."""
    for case, sent in _all_sent(tried):
        problems = check(sent)
        if not isinstance(problems, Event):
            yield from (f"{case.name}: {problem}" for problem in problems)
        for key in ("provider", "source", "event_id", "provider_event"):
            if key not in sent["properties"]:
                yield f"{case.name}: {sent.get('event_name')} has no property {key}"


def nobody_is_named(tried: Subject) -> Iterator[str]:
    """No name, address, number or e-mail address that stands in a case stands in what leaves."""
    for case, sent in _all_sent(tried):
        text = json.dumps(sent, default=str, ensure_ascii=False).lower()
        for personal in sorted(personal_texts(case.sample.body)):
            alone = rf"(?<![a-z0-9]){re.escape(personal.lower())}(?![a-z0-9])"
            if len(personal) >= _SHORTEST_NAME and re.search(alone, text):
                yield f"{case.name}: {personal!r} leaves with {sent.get('event_name')}"


_SHORTEST_NAME = 3


def an_event_has_one_id_for_ever(tried: Subject) -> Iterator[str]:
    """Mapped again, a case makes the same events, byte for byte; no two of them have one id."""
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            first, second = stage.map(case.delivery), stage.map(case.delivery)
            ids = [outgoing.sealed.event_id for found in first for outgoing in found.events]
            if first != second:
                yield f"{case.name}: is mapped to something else the second time"
            if len(ids) != len(set(ids)):
                yield f"{case.name}: two of its events have one id, because they have the same first once key"


def _all_sent(tried: Subject) -> Iterator[tuple[Case, Sent]]:
    with rehearse(tried.provider, secret=tried.secret) as stage:
        for case in tried.cases:
            life = stage.begin()
            life.tell(case.delivery)
            life.finish()
            yield from ((case, sent) for sent in life.sent)


#: All of them, in the order in which a new provider should keep them.
PROMISES: tuple[Promise, ...] = (
    each_mapped_type_has_a_case,
    each_case_becomes_what_it_says,
    a_signature_is_asked_for,
    what_is_said_twice_counts_once,
    any_order_counts_the_same,
    what_was_dropped_counts_when_it_is_backfilled,
    a_sample_is_new_each_time,
    an_unheard_of_type_is_kept_and_makes_no_event,
    a_missing_part_makes_no_wrong_amount,
    nobody_known_loses_no_sale,
    another_currency_has_its_own_decimals,
    what_leaves_is_valid,
    nobody_is_named,
    an_event_has_one_id_for_ever,
)
