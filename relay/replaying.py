"""Mapping again, with the mappers of now: what would be new, changed or gone; and then only what is missing is sent.

In: a scope of deliveries. Out: differences, one by one. Signatures were checked when the deliveries came, and are not
checked against today's clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from relay.contract import Delivery, Provider
from relay.mapping import map_delivery
from relay.sources import Source
from relay.store.base import Store
from relay.store.replays import Difference, Replayable, Scope


@dataclass(slots=True)
class Replayed:
    """What was gone through."""

    deliveries: int = 0
    #: Of which the body is not kept any more.
    without_body: int = 0
    #: Notifications that cannot be mapped now either.
    still_parked: int = 0
    #: Events that were put into the outbox.
    events: int = 0
    duplicates: int = 0
    #: The last delivery, where it stopped before the end; None: all were gone through.
    stopped_after: int | None = None


async def replay(
    store: Store,
    scope: Scope,
    *,
    sources: Mapping[str, Source],
    providers: Mapping[str, Provider],
    commits: bool,
    done: Replayed,
    wake: Callable[[str], None] = lambda _destination: None,
    after: int = 0,
    most: int | None = None,
) -> AsyncIterator[Difference]:
    """The differences, oldest delivery first. With `commits` what is missing is put into the outbox on the way.

    It begins behind the delivery `after`, and stops soon after so many deliveries: `done` then says where to go on.
    """
    planned, looked_at = set[tuple[str, str]](), 0
    while page := await store.replays.page(scope, after=after):
        if most is not None and looked_at >= most:
            done.stopped_after = after
            return
        looked_at += len(page)
        for one in page:
            after = one.delivery
            source = sources.get(one.source)
            if source is None:
                continue
            done.deliveries += 1
            if one.body is None:
                done.without_body += 1
                continue
            mapped = [
                told
                for told in map_delivery(providers[source.provider], source, _delivery(one, source, one.body),
                                         received_at_ms=one.received_at_ms)
                if not scope.types or told.type in scope.types or told.notification_id not in one.notifications
            ]  # fmt: skip
            compared = (
                await store.replays.commit(one, mapped)
                if commits
                else await store.replays.compare(one, mapped, planned=planned)
            )
            done.still_parked += compared.parked
            done.events += compared.receipt.events
            done.duplicates += compared.receipt.duplicates
            for destination in compared.receipt.destinations:
                wake(destination)
            for difference in compared.differences:
                yield difference


def _delivery(one: Replayable, source: Source, body: bytes) -> Delivery:
    return Delivery(body=body, headers=one.headers, url=source.public_url or "", answers=one.answers)
