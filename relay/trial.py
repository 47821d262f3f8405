"""A captured body, tried on a source: what `relay doctor --try` shows.

In: a source, its provider, and a delivery as somebody captured it. Out: what the signature is worth, and each
notification with its events as they would leave, their keys, and what the guard did. Nothing is stored or sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from relay.contract import Accepted, Delivery, NeedsCertificate, Provider, Reason, Refused
from relay.mapping import map_delivery
from relay.sources import Source
from relay.store.base import Mapped, Outgoing
from relay.store.schema import Outcome

_WHY = {
    Reason.MISSING: "what should carry it is not among the headers, the query or the body",
    Reason.MALFORMED: "it is not of the form that the source expects: see its encoding, prefix and form",
    Reason.MISMATCH: "it does not fit the body: another secret, another message, or the body is not byte for byte the "
    "one that came (an editor's newline at its end is enough)",
    Reason.MISMATCH_OR_URL: "it does not fit: another secret, a changed body, or another public_url of the source",
    Reason.CERTIFICATE: "its certificate is not the provider's",
    Reason.STALE: "it fits, but was made too long ago to be taken now",
    Reason.FUTURE: "it fits, but claims to be made in the future",
    Reason.ERROR: "it could not be checked on these bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a signature is worth. None: it was not checked."""

    is_accepted: bool | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """One event, as it would leave."""

    #: The JSON that the events API would get.
    payload: str
    once: tuple[str, ...]
    #: What the person was told by: email, external_id, ...; empty where nobody is known.
    person_by: str
    joins: tuple[str, ...]
    waits_for: tuple[str, ...]
    #: What was taken out or cut, by field.
    guard: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One notification."""

    id: str
    type: str
    outcome: str
    #: Why it makes no event, or may make none; empty where there is nothing to say.
    words: str
    events: tuple[Leaving, ...]
    #: The keys of the entities that it teaches something about.
    learned: tuple[str, ...]
    #: Those of which nothing may be known any more.
    forgotten: tuple[str, ...]


def check_signature(provider: Provider, source: Source, delivery: Delivery, *, now_ms: int) -> Signature:
    """The verdict of the source's verifier on this delivery, in words."""
    secrets = [secret.get_secret_value() for secret in source.secrets]
    verdict = provider.verifier.verify(delivery, secrets, now_ms=now_ms, tolerance_s=source.tolerance_s)
    match verdict:
        case Accepted(number):
            return Signature(is_accepted=True, words=f"secret {number + 1} of {len(secrets)} fits")
        case Refused(reason):
            return Signature(is_accepted=False, words=f"{reason.value}: {_WHY[reason]}")
        case NeedsCertificate(url):
            return Signature(is_accepted=None, words=f"it would need the certificate at {url}")
        case _:
            assert_never(verdict)


def try_mapping(provider: Provider, source: Source, delivery: Delivery, *, now_ms: int) -> Iterator[Tried]:
    """Each notification of the delivery, those of test mode as if they were not."""
    mapped_anyway = replace(source, test_destination=source.test_destination or source.destination)
    as_set = map_delivery(provider, source, delivery, received_at_ms=now_ms)
    anyway = map_delivery(provider, mapped_anyway, delivery, received_at_ms=now_ms)
    for real, found in zip(as_set, anyway, strict=True):
        is_dropped = real.outcome is Outcome.TEST
        yield Tried(
            id=found.notification_id,
            type=found.type,
            outcome=found.outcome.value,
            words="of test mode: the settings drop it" if is_dropped else _words(found, provider),
            events=tuple(_leaving(outgoing) for outgoing in found.events),
            learned=tuple(key for entity in found.learned if not entity.is_forgotten for key in entity.keys),
            forgotten=tuple(key for entity in found.learned if entity.is_forgotten for key in entity.keys),
        )


def _words(found: Mapped, provider: Provider) -> str:
    match found.outcome:
        case Outcome.NOT_MAPPED:
            known = ", ".join(sorted(provider.mappers)) or "none"
            return f"no mapping is for this type; there are some for: {known}"
        case Outcome.IGNORED:
            return "this type is left out on purpose"
        case Outcome.MAPPED if not found.events and not found.learned:
            return "nothing is said of it: no condition is met"
        case _:
            return found.error or ""


def _leaving(outgoing: Outgoing) -> Leaving:
    sealed = outgoing.sealed
    return Leaving(
        payload=sealed.payload.decode(),
        once=sealed.once,
        person_by=sealed.identity.by,
        joins=sealed.joins,
        waits_for=sealed.waits_for,
        guard=tuple(f"{finding.field}: {finding.kind}" for finding in sealed.findings),
    )
