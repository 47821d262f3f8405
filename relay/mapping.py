"""From a verified delivery to what is committed: split, map, seal.

Pure but for the tracebacks it keeps: no I/O, no clock. A mapper that raises parks its own notification and no other;
an unreadable body parks the whole delivery. Both are kept, shown, and mapped again after the fix.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import GeneratorType

from relay.contract import (
    Ask,
    Delivery,
    Draft,
    Forgotten,
    Learned,
    Notification,
    Provider,
    UnansweredError,
    UnmappableError,
    digest_of,
)
from relay.event import DAY_MS
from relay.sealing import Entity, Who, Withheld, forget, learn, seal
from relay.sources import Source
from relay.store.base import Mapped, Outgoing
from relay.store.schema import Outcome

#: How much of a traceback is kept: its end says most.
_MAX_ERROR = 4000
_UNREADABLE = "(unreadable)"
#: A mapper that asks for more than this about one notification never ends.
MOST_ANSWERS = 32


def map_delivery(provider: Provider, source: Source, delivery: Delivery, *, received_at_ms: int) -> list[Mapped]:
    """Everything that this delivery says, each notification with its outcome. Never raises on what a provider sent."""
    try:
        items = tuple(provider.split(delivery))
    except Exception as error:  # noqa: BLE001  whatever the body holds, the delivery was signed and must not be lost
        return [_failed(digest_of(delivery.body.hex()), _UNREADABLE, error)]
    return [_map_item(provider, source, item, delivery, received_at_ms) for item in items]


def _map_item(provider: Provider, source: Source, item: object, delivery: Delivery, received_at_ms: int) -> Mapped:
    try:
        notification = provider.notification(item, delivery.headers, delivery.answers)
    except Exception as error:  # noqa: BLE001  one odd item parks alone
        return _failed(digest_of(item), _UNREADABLE, error)
    return map_notification(provider, source, notification, received_at_ms=received_at_ms)


def map_notification(provider: Provider, source: Source, notification: Notification, *, received_at_ms: int) -> Mapped:
    """One notification with its outcome, its events and what it teaches."""
    kind = notification.type
    destination = source.test_destination if notification.is_test else source.destination
    mapper = provider.mappers.get(kind)
    if destination is None:
        outcome = Outcome.TEST
    elif kind in provider.ignored or not _is_enabled(provider, source, kind):
        outcome = Outcome.IGNORED
    elif mapper is None:
        outcome = Outcome.NOT_MAPPED
    else:
        try:
            events, learned = _seal_all(mapper(notification), notification, source, destination, received_at_ms)
        except UnansweredError as unanswered:
            return _to_do(provider, source, notification, unanswered.ask, received_at_ms)
        except Exception as error:  # noqa: BLE001  a mapper's bug never becomes the provider's problem
            return _failed(notification.id, kind, error)
        return Mapped(
            notification_id=notification.id, type=kind, outcome=Outcome.MAPPED, events=events, learned=learned
        )
    return Mapped(notification_id=notification.id, type=kind, outcome=outcome)


def can_ask(provider: Provider, source: Source, ask: Ask) -> bool:
    """Whether the source can make this call: it has the key, or none is needed."""
    if provider.api is None or not ask.needs_key:
        return provider.api is not None
    return source.api_key is not None and bool(source.api_base or provider.api.base)


def _to_do(provider: Provider, source: Source, notification: Notification, ask: Ask, received_at_ms: int) -> Mapped:
    """What the provider is to be asked first; where it cannot be asked, what could do without goes on without."""
    if ask.is_optional and not can_ask(provider, source, ask):
        answers = {**(notification.answers or {}), ask.key: None}
        if len(answers) <= MOST_ANSWERS:
            without = replace(notification, answers=answers)
            return map_notification(provider, source, without, received_at_ms=received_at_ms)
    words = f"{provider.title} is to be asked for {ask.place}"
    if not can_ask(provider, source, ask):
        words += f", and the source {source.slug} has no API key (or, where it has no other, no API base)"
    return Mapped(notification_id=notification.id, type=notification.type, outcome=Outcome.TO_DO, error=words, ask=ask)


def _is_enabled(provider: Provider, source: Source, kind: str) -> bool:
    option = provider.optional.get(kind)
    return option is None or option in source.enabled


def _seal_all(
    yielded: object, notification: Notification, source: Source, destination: str, received_at_ms: int
) -> tuple[Sequence[Outgoing], Sequence[Entity]]:
    events: list[Outgoing] = []
    learned: list[Entity] = []
    who = Who(notification, source.policy)
    for thing in _things(yielded):
        if isinstance(thing, (Draft, Learned)) and thing.without is not None and thing.without in source.enabled:
            continue
        if isinstance(thing, Draft):
            if thing.option is not None and thing.option not in source.enabled:
                continue
            if not 0 < thing.at_ms <= received_at_ms + DAY_MS:
                thing = replace(thing, at_ms=received_at_ms)  # noqa: PLW2901
            sealed = seal(thing, notification, source.policy, who)
            if isinstance(sealed, Withheld):
                raise UnmappableError(sealed.reason)
            until = received_at_ms + source.join_wait_s * 1000 if sealed.waits_for else None
            events.append(Outgoing(sealed=sealed, destination=destination, wait_until_ms=until))
        elif isinstance(thing, Learned):
            learned.append(learn(thing, notification, source.policy, who))
        elif isinstance(thing, Forgotten):
            learned.append(forget(thing, notification))
        else:
            msg = f"a mapper yielded {type(thing).__name__}, which is no draft, and nothing learned or forgotten"
            raise UnmappableError(msg)
    return events, learned


def _things(yielded: object) -> Iterable[object]:
    if yielded is None:
        return ()
    if isinstance(yielded, (GeneratorType, list, tuple, Iterator)):
        return yielded
    msg = "a mapper yields drafts, or returns a list of them"
    raise UnmappableError(msg)


def _failed(notification_id: str, kind: str, error: Exception) -> Mapped:
    if isinstance(error, UnmappableError):
        words = str(error)
    else:
        words = "".join(traceback.format_exception(error))[-_MAX_ERROR:]
    return parked(notification_id, words, kind=kind)


def parked(notification_id: str, words: str, *, kind: str = _UNREADABLE) -> Mapped:
    """A notification that could not be mapped, with the reason."""
    return Mapped(notification_id=notification_id, type=kind, outcome=Outcome.FAILED, error=words)
