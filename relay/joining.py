"""Joining: what a waiting event becomes once more is known about it.

In: a `Sealed` event and the entities that it joins. Out: the event with the better user, the attribution that it lacked
and the name that a mark gives it, serialised anew. Its id never changes. Pure; what is stored of a waiting event is
`dump_waiting`, and `load_waiting` reads it back, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import orjson

from relay.contract import Scalar, Variant
from relay.event import MAX_PROPERTIES, Event, from_json, to_json
from relay.guard import Finding
from relay.identity import LAST_RESORT, Identity
from relay.personal import Kind
from relay.sealing import URL, Adjusted, Entity, Sealed

#: What `Identity.by` says of a person that an entity told.
JOINED = "joined"


def complete(sealed: Sealed, entities: Sequence[Entity], *, is_free: Callable[[str], bool]) -> Sealed:
    """The event with what the entities of its joins know, in the order of the joins.

    `is_free` says of a variant's once key that no earlier event took it: otherwise the variant is not applied.
    """
    known = list(_joined(sealed, entities))
    event, identity, once = sealed.event, sealed.identity, sealed.once
    url, name, properties = event.url, event.event_name, event.properties
    more: dict[str, Scalar] = {}
    for entity in known:
        if entity.user_id is not None and entity.rank < identity.rank:
            identity = Identity(entity.user_id, entity.rank, JOINED)
        url = url or entity.attribution.get(URL)
        for key, text in entity.attribution.items():
            if key != URL and key not in properties and key not in more:
                more[key] = text
    variant = _variant_of(sealed, known) if sealed.variants else None
    if variant is not None and is_free(variant.once):
        name, once = variant.name, (*once, variant.once)
    if not more and url == event.url and identity is sealed.identity and once is sealed.once:
        return sealed
    properties = dict(islice(({**properties, **more}).items(), MAX_PROPERTIES))
    if identity is not sealed.identity:
        properties.pop("identity", None)
        if identity.is_fallback:
            properties["identity"] = LAST_RESORT
    update = {"event_name": name, "user_id": identity.user_id, "url": url, "properties": properties}
    event = event.model_copy(update=update)
    return replace(
        sealed,
        event=event,
        payload=to_json(event),
        identity=identity,
        once=once,
        variants={} if once is not sealed.once else sealed.variants,
    )


def is_told_elsewhere(sealed: Sealed, entities: Sequence[Entity]) -> bool:
    """Whether one of its entities says that another notification tells this fact."""
    return any(mark in entity.marks for entity in _joined(sealed, entities) for mark in sealed.unless)


def _variant_of(sealed: Sealed, known: Sequence[Entity]) -> Variant | None:
    """The first variant for whose mark an entity stands."""
    marks = {mark for entity in known for mark in entity.marks}
    return next((variant for mark, variant in sealed.variants.items() if mark in marks), None)


def _joined(sealed: Sealed, entities: Sequence[Entity]) -> Iterator[Entity]:
    """Each of the entities that the event joins, once, best first."""
    seen: set[int] = set()
    for key in sealed.joins:
        for entity in entities:
            if (key in entity.keys or key in entity.names) and id(entity) not in seen:
                seen.add(id(entity))
                yield entity


# --- what is stored of a waiting event --------------------------------------------------------------------------------


def dump_waiting(sealed: Sealed) -> bytes:
    """The event with all that completing it needs, as JSON."""
    return orjson.dumps(
        {
            "event_id": sealed.event_id,
            "once": sealed.once,
            "payload": sealed.payload.decode(),
            "identity": [sealed.identity.user_id, sealed.identity.rank, sealed.identity.by],
            "joins": sealed.joins,
            "waits_for": sealed.waits_for,
            "unless": sealed.unless,
            "variants": [[mark, variant.name, variant.once] for mark, variant in sealed.variants.items()],
            "findings": [[finding.field, finding.kind] for finding in sealed.findings],
        }
    )


def load_waiting(stored: bytes) -> Sealed:
    """The event that `dump_waiting` stored. Raises `ValueError` or `KeyError` for anything else."""
    pieces: dict[str, Any] = orjson.loads(stored)
    payload: bytes = pieces["payload"].encode()
    event: Event = from_json(payload)
    user_id, rank, by = pieces["identity"]
    return Sealed(
        event_id=pieces["event_id"],
        once=tuple(pieces["once"]),
        event=event,
        payload=payload,
        identity=Identity(user_id, rank, by),
        joins=tuple(pieces["joins"]),
        waits_for=tuple(pieces["waits_for"]),
        unless=tuple(pieces["unless"]),
        variants={mark: Variant(name=name, once=once) for mark, name, once in pieces["variants"]},
        findings=tuple(_finding(field, kind) for field, kind in pieces["findings"]),
    )


def _finding(field: str, kind: str) -> Finding | Adjusted:
    match kind:
        case "too_many_properties" | "not_a_url":
            return Adjusted(field, kind)
        case _:
            return Finding(field, Kind(kind))
