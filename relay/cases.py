"""Case files, read whole: a delivery, and what a mapper must make of it.

In: the JSON files that `relay send` takes its samples from. Out: `Case`s, and sentences about what differs between a
case and its mapper.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from relay.contract import Delivery, Draft, Forgotten, Learned, Notification, Provider
from relay.samples import Case as Sample, kind_of, read_case


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case file."""

    #: The file's name without its ending.
    name: str
    sample: Sample
    #: As it stands, unsigned.
    delivery: Delivery
    #: What the mapper must yield, in the words of JSON.
    drafts: Sequence[Any]
    learned: Sequence[Any]
    forgotten: Sequence[Any]
    #: Keys (`data.object.amount`) that the provider always sends: the kit does not try what happens without them.
    always: frozenset[str]

    @property
    def told(self) -> Any:
        """The body; where the provider's API answers too, `{"body": ..., "answers": ...}`."""
        answers = self.sample.answers
        return self.sample.body if answers is None else {"body": self.sample.body, "answers": answers}

    def varied(self, told: Any, headers: Mapping[str, str] | None = None) -> Delivery:
        """The delivery that tells this instead, with these headers instead."""
        headers = self.sample.headers if headers is None else headers
        if self.sample.answers is None:
            return delivery_of(told, headers)
        return delivery_of(told.get("body", ""), headers, told.get("answers"))


def read_cases(provider: Provider, folder: Path) -> list[Case]:
    """The cases of a folder, by name. Raises `relay.samples.SampleError` for a file that is none."""
    return [_read(path, provider) for path in sorted(folder.glob("*.json"))]


def _read(path: Path, provider: Provider) -> Case:
    sample, raw = read_case(path, provider), json.loads(path.read_text(encoding="utf-8"))
    return Case(
        name=path.stem,
        sample=sample,
        delivery=delivery_of(sample.body, sample.headers, sample.answers),
        drafts=raw.get("drafts", ()),
        learned=raw.get("learned", ()),
        forgotten=raw.get("forgotten", ()),
        always=frozenset(raw.get("always", ())),
    )


def delivery_of(body: Any, headers: Mapping[str, str], answers: Mapping[str, Any] | None = None) -> Delivery:
    """A body, JSON or text, as an unsigned delivery."""
    kind, raw = (kind_of(body), body) if isinstance(body, str) else ("application/json", json.dumps(body))
    named = {name.lower(): value for name, value in headers.items()}
    return Delivery(body=raw.encode("utf-8", "surrogatepass"), headers={"content-type": kind, **named}, answers=answers)


def notifications_of(provider: Provider, delivery: Delivery) -> list[Notification]:
    """What the delivery says; nothing where it cannot be read."""
    try:
        return list(provider.notifications(delivery))
    except Exception:  # noqa: BLE001  a case may show a body that cannot be read
        return []


def differences(provider: Provider, case: Case) -> Iterator[str]:
    """Each field of a draft, or of what is learned or forgotten, that is not what the case says."""
    told: list[Draft | Learned | Forgotten] = []
    try:
        for found in notifications_of(provider, case.delivery):
            told += provider.mappers[found.type](found) if found.type in provider.mappers else ()
    except Exception as error:  # noqa: BLE001  a mapper may raise anything, and a case may show that it does
        if case.drafts or case.learned or case.forgotten:
            yield f"{case.name}: {type(error).__name__}: {error}"
    kinds = (("drafts", case.drafts, Draft), ("learned", case.learned, Learned))
    for word, must, kind in (*kinds, ("forgotten", case.forgotten, Forgotten)):
        have = [_plain(asdict(thing)) for thing in told if isinstance(thing, kind)]
        yield from _differ(f"{case.name}: {word}", _plain(must), have)


def _plain(value: Any) -> Any:
    """As a case has it: decimals in words, and nothing that is empty or no."""
    if isinstance(value, Mapping):
        found = {key: _plain(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not False and item not in (None, {}, [])}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def _differ(where: str, must: Any, have: Any) -> Iterator[str]:
    if isinstance(must, dict) and isinstance(have, dict):
        for key in sorted({*must, *have}):
            yield from _differ(f"{where}.{key}", must.get(key), have.get(key))
    elif isinstance(must, list) and isinstance(have, list) and len(must) == len(have):
        for place, pair in enumerate(zip(must, have, strict=True)):
            yield from _differ(f"{where}.{place}", *pair)
    elif must != have:
        yield f"{where} is {have!r} and must be {must!r}"
