"""Try: what would become of a payload, with the mappers and the guard of now. Nothing is stored, nothing is sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from relay.contract import Delivery, Provider
from relay.mapping import map_delivery
from relay.pages.visits import Visit, refused
from relay.rehearsal import source_of
from relay.samples import Case, SampleError, cases_of, fresh
from relay.sealing import Sealed
from relay.sources import Source
from relay.store.base import EventRow, Mapped


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedEvent:
    sealed: Sealed
    destination: str
    #: By once key, the event in the store that has it: this one would be its duplicate.
    taken: Mapping[str, EventRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    mapped: Mapped
    events: Sequence[TriedEvent]


async def show(visit: Visit) -> Response:
    """The form, with a sample of the provider's in it where one is chosen."""
    source, provider = _chosen(visit, visit.query.get("source", ""))
    cases = _cases(visit, provider)
    wanted = visit.query.get("sample", "")
    case = next((case for case in cases if _name(case) == wanted), None)
    body, headers = "", ""
    if case is not None:
        try:
            delivery = fresh(case, id=None, now_ms=visit.now_ms, token=secrets.token_hex(16))
            body, headers = _readable(delivery.body), _lines(delivery.headers)
        except SampleError as error:
            body = str(error)
    if name := visit.query.get("delivery", "").strip():
        return await _stored(visit, await _named(visit, name))
    return _page(visit, source, cases, body=body, headers=headers, sample=wanted)


async def tried(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """What would become of what was pasted."""
    said = dict(fields)
    source, provider = _chosen(visit, said.get("source", ""))
    body, headers = said.get("body", ""), said.get("headers", "")
    delivery = Delivery(body=body.encode(), headers=_headers(headers), url=source.public_url or "")
    results = await _results(visit, source, provider, delivery)
    template = "try_results.html" if visit.is_fragment else "try.html"
    return _page(visit, source, _cases(visit, provider), template=template, body=body, headers=headers, results=results)


async def _named(visit: Visit, name: str) -> int:
    """The newest delivery that has this name; 0: there is none."""
    found = await visit.console.find(name)
    return found[0].delivery if found else 0


async def _stored(visit: Visit, delivery_id: int) -> Response:
    """A delivery of the store, which is not shown."""
    story = await visit.console.story(delivery_id)
    if story is None or story.body is None or story.headers is None:
        return refused(visit, 404, "This delivery is not there, or its body is not kept any more.")
    source = visit.things.settings.sources.get(story.source)
    if source is None:
        return refused(visit, 404, f"No source {story.source} is configured any more.")
    provider = visit.things.providers[source.provider]
    delivery = Delivery(body=story.body, headers=story.headers, url=source.public_url or "")
    results = await _results(visit, source, provider, delivery)
    return _page(visit, source, _cases(visit, provider), results=results, delivery=delivery_id)


def _page(
    visit: Visit, source: Source, cases: Sequence[Case], *, template: str = "try.html", body: str = "",
    headers: str = "", sample: str = "", results: Sequence[Tried] | None = None, delivery: int | None = None,
) -> Response:  # fmt: skip
    configured = sorted(visit.things.settings.sources)
    return visit.page(
        template, source=source, configured=configured, cases=[(_name(case), case) for case in cases], sample=sample,
        providers=sorted(visit.things.providers.values(), key=lambda provider: provider.title.lower()),
        body=body, headers=headers, results=results, delivery=delivery, is_configured=source.slug in configured,
    )  # fmt: skip


def _chosen(visit: Visit, name: str) -> tuple[Source, Provider]:
    """A source that is configured, or a provider with the settings of a fresh source."""
    sources, providers = visit.things.settings.sources, visit.things.providers
    if name in sources:
        return sources[name], providers[sources[name].provider]
    provider = providers.get(name.removeprefix("provider:"))
    if provider is not None:
        return source_of(provider), provider
    if sources:
        first = sources[min(sources)]
        return first, providers[first.provider]
    provider = providers[min(providers)]
    return source_of(provider), provider


_KNOWN: dict[str, list[Case]] = {}


def _cases(visit: Visit, provider: Provider) -> list[Case]:
    """The samples of a provider, read once."""
    if provider.name not in _KNOWN:
        try:
            _KNOWN[provider.name] = cases_of(provider, visit.things.settings.mappers_dir)
        except SampleError:
            return []
    return _KNOWN[provider.name]


def _name(case: Case) -> str:
    return f"{case.type}__{case.variant}"


async def _results(visit: Visit, source: Source, provider: Provider, delivery: Delivery) -> list[Tried]:
    found = []
    for mapped in map_delivery(provider, source, delivery, received_at_ms=visit.now_ms):
        events = []
        for outgoing in mapped.events:
            taken = await visit.things.store.holders(source.slug, list(outgoing.sealed.once))
            events.append(TriedEvent(sealed=outgoing.sealed, destination=outgoing.destination, taken=taken))
        found.append(Tried(mapped=mapped, events=events))
    return found


def _readable(body: bytes) -> str:
    try:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")


def _lines(headers: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _headers(text: str) -> dict[str, str]:
    pairs: Iterable[tuple[str, str, str]] = (line.partition(":") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon and name.strip()}
