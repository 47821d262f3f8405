"""A relay without its sockets: a stage on which a provider's deliveries are told, to see what would leave.

In: deliveries. Out: the events as the destination would get them. Between them all is real: signature, mapping,
sealing, a SQLite store in a temporary folder. Time stands still until it is moved. Each `Life` is a source of its own
in the one store, but under one name as far as the ids of events go: the same fact has the same id in every life.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from relay.contract import Accepted, Delivery, Provider, Refused
from relay.mapping import map_delivery
from relay.sealing import SourcePolicy
from relay.sources import Source
from relay.specimens import Specimen, specimen
from relay.store import open_store
from relay.store.base import Arrival, Mapped, Receipt, Store
from relay.vault import Vault

START_MS = 1_795_000_000_000
#: How long an event may wait for a fact: the default of a source.
WAIT_S = 600
_BATCH = 1000
_LEASE_MS = 60_000
_MEMORY = "/dev/shm"  # noqa: S108  a folder of a name of its own is made in it

#: An event as the destination gets it, parsed; what has a fraction is a `Decimal`.
Sent = Mapping[str, Any]


class RefusedError(Exception):
    """The provider's verifier refused what it had signed itself; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a finance person would compare."""

    revenue: Mapping[str, Decimal]
    counts: Mapping[str, int]
    users: frozenset[str]


def totals_of(sent: Iterable[Sent]) -> Totals:
    """Revenue by currency, events by name, and who they were."""
    revenue: dict[str, Decimal] = {}
    counts: Counter[str] = Counter()
    users: set[str] = set()
    for event in sent:
        counts[event.get("event_name", event["event_type"])] += 1
        if "revenue" in event:
            revenue[event["currency"]] = revenue.get(event["currency"], Decimal(0)) + Decimal(event["revenue"])
        if "user_id" in event:
            users.add(event["user_id"])
    return Totals(revenue, dict(sorted(counts.items())), frozenset(users))


class Life:
    """What one source hears, and what leaves because of it."""

    def __init__(self, stage: Rehearsal, source: Source) -> None:
        self.source = source
        #: All that has left so far, byte for byte.
        self.payloads: list[bytes] = []
        self._stage = stage

    def tell(self, *deliveries: Delivery) -> list[Receipt]:
        """Deliveries that come at the same moment: each is signed, verified, mapped and committed.

        Raises `RefusedError`, and whatever the store raises.
        """
        return self._stage.tell(*((self, delivery) for delivery in deliveries))

    def arrive(self, unsigned: Delivery) -> Arrival:
        """The delivery as the receiver hands it to the store. Raises `RefusedError`."""
        provider, now_ms = self._stage.provider, self._stage.clock.now_ms
        delivery = sign(provider, unsigned, self._stage.specimen, now_ms=now_ms)
        verdict = provider.verifier.verify(delivery, (self._stage.specimen.secret,), now_ms=now_ms)
        if not isinstance(verdict, Accepted):
            raise RefusedError(verdict.reason.value if isinstance(verdict, Refused) else f"it needs {verdict.url}")
        mapped = map_delivery(provider, self.source, delivery, received_at_ms=now_ms)
        return arrival_of(self.source, delivery, mapped, now_ms=now_ms)

    def leave(self) -> None:
        """What may leave, leaves; what waits goes on waiting."""
        self.payloads.extend(self._stage.collect(self.source.destination))

    def finish(self) -> None:
        """Time passes until nothing waits any longer, and all of it leaves."""
        self._stage.pass_time(WAIT_S + 1)
        self.leave()

    @property
    def sent(self) -> list[Sent]:
        """All that has left so far."""
        return [json.loads(payload, parse_float=Decimal) for payload in self.payloads]


class Rehearsal:
    """The stage. Make it with `rehearse`."""

    def __init__(
        self, provider: Provider, known: Specimen, source: Source, clock: Clock, store: Store, runner: asyncio.Runner
    ) -> None:
        self.provider = provider
        #: The source's secret, and what signs for it.
        self.specimen = known
        self.source = source
        self.clock = clock
        self._store = store
        self._runner = runner
        self._numbers = count(1)

    def begin(self, beside: Life | None = None) -> Life:
        """A source that has heard nothing yet. Its events leave by themselves, or with those of `beside`."""
        slug = f"{self.provider.name}-{next(self._numbers)}"
        to = beside.source.destination if beside else slug
        return Life(self, replace(self.source, slug=slug, destination=to, test_destination=to))

    def tell(self, *told: tuple[Life, Delivery]) -> list[Receipt]:
        """As `Life.tell`, for deliveries to several sources at the same moment."""
        results = self.commit([life.arrive(delivery) for life, delivery in told])
        return [_value(result) for result in results]

    def map(self, delivery: Delivery) -> list[Mapped]:
        """What becomes of a delivery before it is committed, as if its signature had been verified."""
        return map_delivery(self.provider, self.source, delivery, received_at_ms=self.clock.now_ms)

    def commit(self, arrivals: Iterable[Arrival]) -> list[Receipt | BaseException]:
        """Arrivals that come at the same moment share a commit; each has its own outcome."""

        async def accept_all() -> list[Receipt | BaseException]:
            return await asyncio.gather(*map(self._store.accept, arrivals), return_exceptions=True)

        return self._runner.run(accept_all())

    def pass_time(self, seconds: int) -> None:
        """What has waited too long goes without the fact that it waited for."""
        self.clock.now_ms += seconds * 1000

        async def release_all() -> None:
            while await self._store.release_overdue():
                pass

        self._runner.run(release_all())

    def collect(self, destination: str) -> list[bytes]:
        """What may leave for this destination, as the API would get it. It counts as sent."""

        async def send_all() -> list[bytes]:
            found: list[bytes] = []
            while batch := await self._store.claim(destination, limit=_BATCH, lease_ms=_LEASE_MS, owner="rehearsal"):
                found += [event.payload for event in batch.events]
                await self._store.sent(batch)
                if len(batch.events) < _BATCH:
                    break
            return found

        return self._runner.run(send_all())


@dataclass(slots=True)
class Clock:
    """A clock that stands still until it is moved."""

    now_ms: int = START_MS

    def __call__(self) -> int:
        return self.now_ms


@contextmanager
def rehearse(
    provider: Provider, *, secret: str | None = None, options: Collection[str] | None = None, **policy: Any
) -> Iterator[Rehearsal]:
    """A stage for this provider, with a store that is gone afterwards.

    `options` None: all that only add something. `policy`: fields of `SourcePolicy` that are not to have their defaults.
    """
    known = made_up(provider) if secret is None else Specimen(secret, secret)
    clock, source = Clock(), source_of(provider, secret=known.secret, options=options, **policy)
    with TemporaryDirectory(prefix="relay-rehearsal-", dir=_in_memory()) as folder, asyncio.Runner() as runner:
        url = f"sqlite:///{Path(folder) / 'relay.db'}"
        store = runner.run(open_store(url, vault=Vault([b"r" * 32]), clock=clock))
        try:
            yield Rehearsal(provider, known, source, clock, store, runner)
        finally:
            runner.run(store.close())


def _in_memory() -> str | None:
    """A folder that is no disk, where there is one: nothing here is to last, and each of many commits is quicker."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


def source_of(
    provider: Provider, *, secret: str | None = None, options: Collection[str] | None = None, **policy: Any
) -> Source:
    """The provider as a source with the defaults of a relay, but for its test mode, which is forwarded.

    Without `options`, all are on that only add something.
    """
    return Source(
        slug=provider.name,
        provider=provider.name,
        secrets=(SecretStr(secret or made_up(provider).secret),),
        destination="default",
        test_destination="default",
        enabled=frozenset({*provider.options} - provider.instead if options is None else options),
        tolerance_s=None,
        public_url=None,
        body_limit=None,
        join_wait_s=WAIT_S,
        policy=SourcePolicy(source=provider.name, provider=provider.name, **policy),
    )


def made_up(provider: Provider, number: int = 0) -> Specimen:
    """A secret of the provider's shape, and what signs for it; another `number` is another secret."""
    return specimen(provider.verifier, prefix=provider.secret.prefix, number=number)


def sign(provider: Provider, delivery: Delivery, known: Specimen, *, now_ms: int) -> Delivery:
    """The delivery with what proves whose it is."""
    certified = replace(delivery, certificates=known.certificates) if known.certificates else delivery
    return provider.verifier.sign(certified, known.signing, now_ms=now_ms)


def arrival_of(source: Source, delivery: Delivery, mapped: Sequence[Mapped], *, now_ms: int) -> Arrival:
    """What the receiver hands to the store."""
    return Arrival(
        source=source.slug,
        received_at_ms=now_ms,
        secret=0,
        headers=dict(delivery.headers),
        body=delivery.body,
        notifications=mapped,
    )


def _value(result: Receipt | BaseException) -> Receipt:
    if isinstance(result, BaseException):
        raise result
    return result
