"""A relay without its sockets, to tell a provider's deliveries to and look at what would leave.

In: deliveries. Out: the events that the destination would get. Between them everything is real: signature, mapping,
sealing, a SQLite store in a temporary folder. Time stands still until it is moved. Each `Life` is a source of its own
in the one store, under the one name that the ids of events are made from: the same fact has the same id in all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import SecretStr

from relay.contract import Accepted, Delivery, Provider
from relay.mapping import map_delivery
from relay.sealing import SourcePolicy
from relay.sources import Source
from relay.store import open_store
from relay.store.base import Arrival, Mapped, Receipt, Store
from relay.vault import Vault

NOW_MS = 1_795_000_000_000
_WAIT_S = 600
_BATCH = 1000
_LEASE_MS = 60_000

#: An event as the destination gets it; every number with a fraction, and every amount, is a `Decimal`.
Sent = Mapping[str, Any]


class RefusedError(Exception):
    """The provider's own verifier refused what the provider's own verifier had signed."""


def made_up_secret(provider: Provider) -> str:
    """A secret of the provider's shape, good for those that read it as text, as hexadecimal digits or as base64."""
    return provider.secret.prefix + "5e" * 32


def source_of(
    provider: Provider, *, secret: str, options: Collection[str] | None = None, refunds: Literal["event", "conversion"]
) -> Source:
    """The provider as a source with the defaults of a new relay, but for test mode, which is forwarded.

    `options` None: all of them.
    """
    return Source(
        slug=provider.name,
        provider=provider.name,
        secrets=(SecretStr(secret),),
        destination="default",
        test_destination="default",
        enabled=frozenset(provider.options if options is None else options),
        tolerance_s=None,
        public_url="https://relay.example/webhooks/" + provider.name,
        body_limit=None,
        join_wait_s=_WAIT_S,
        policy=SourcePolicy(source=provider.name, provider=provider.name, refunds=refunds),
    )


class Rehearsal:
    """The stage. Make it with `rehearse`."""

    def __init__(self, provider: Provider, store: Store, runner: asyncio.Runner, source: Source) -> None:
        self.provider = provider
        self.source = source
        self.now_ms = NOW_MS
        self._store = store
        self._runner = runner
        self._numbers = count(1)

    def begin(self) -> Life:
        """A source that has heard nothing yet."""
        return Life(self, replace(self.source, **dict.fromkeys(("slug", "destination", "test_destination"), self._name())))

    def _name(self) -> str:
        return f"{self.provider.name}-{next(self._numbers)}"

    def map(self, delivery: Delivery) -> list[Mapped]:
        """What becomes of a delivery that is signed already, before it is committed."""
        return map_delivery(self.provider, self.source, delivery, received_at_ms=self.now_ms)

    def commit(self, arrivals: Sequence[Arrival]) -> list[Receipt | BaseException]:
        """Arrivals that come at the same moment."""

        async def together() -> list[Receipt | BaseException]:
            return await asyncio.gather(*map(self._store.accept, arrivals), return_exceptions=True)

        return self._runner.run(together())

    def pass_time(self, seconds: int) -> None:
        """What has waited too long goes without the fact that it waited for."""
        self.now_ms += seconds * 1000

        async def release() -> None:
            while await self._store.release_overdue():
                pass

        self._runner.run(release())

    def collect(self, destination: str) -> Iterator[bytes]:
        """What may leave for this destination, as the API would get it; it counts as sent."""

        async def claim() -> list[bytes]:
            batch = await self._store.claim(destination, limit=_BATCH, lease_ms=_LEASE_MS, owner="rehearsal")
            if batch is None:
                return []
            await self._store.sent(batch)
            return [event.payload for event in batch.events]

        while payloads := self._runner.run(claim()):
            yield from payloads


class Life:
    """What one source hears, and what leaves because of it."""

    def __init__(self, stage: Rehearsal, source: Source) -> None:
        self.source = source
        #: All that has left so far, byte for byte.
        self.payloads: list[bytes] = []
        self._stage = stage

    def tell(self, *deliveries: Delivery) -> list[Receipt]:
        """Deliveries that come at the same moment, each signed and verified. Raises what the store raises."""
        results = self._stage.commit([self._arrive(delivery) for delivery in deliveries])
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Receipt)]

    def _arrive(self, unsigned: Delivery) -> Arrival:
        stage, secret = self._stage, self.source.secrets[0].get_secret_value()
        delivery = sign(stage.provider, unsigned, secret, now_ms=stage.now_ms)
        verdict = stage.provider.verifier.verify(delivery, (secret,), now_ms=stage.now_ms)
        if not isinstance(verdict, Accepted):
            raise RefusedError(verdict.reason)
        mapped = map_delivery(stage.provider, self.source, delivery, received_at_ms=stage.now_ms)
        return arrival(self.source, delivery, mapped, now_ms=stage.now_ms)

    def leave(self) -> None:
        """What may leave, leaves; what waits goes on waiting."""
        self.payloads.extend(self._stage.collect(self.source.slug))

    def finish(self) -> None:
        """Time passes until nothing waits any longer, and all of it leaves."""
        self._stage.pass_time(_WAIT_S + 1)
        self.leave()

    @property
    def sent(self) -> list[Sent]:
        """All that has left so far."""
        return [json.loads(payload, parse_float=Decimal) for payload in self.payloads]


def arrival(source: Source, delivery: Delivery, mapped: Sequence[Mapped], *, now_ms: int) -> Arrival:
    """What the receiver would hand to the store."""
    return Arrival(
        source=source.slug,
        received_at_ms=now_ms,
        secret=0,
        headers=dict(delivery.headers),
        body=delivery.body,
        keep_body=False,
        notifications=mapped,
    )


def sign(provider: Provider, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
    """The delivery with the headers that prove whose it is."""
    signature = provider.verifier.sign(delivery, secret, now_ms=now_ms)
    return replace(delivery, headers={**delivery.headers, **{name.lower(): text for name, text in signature.items()}})


@contextmanager
def rehearse(
    provider: Provider,
    *,
    secret: str | None = None,
    options: Collection[str] | None = None,
    refunds: Literal["event", "conversion"] = "event",
) -> Iterator[Rehearsal]:
    """A stage for this provider, with a store of its own that is gone afterwards. `options` None: all of them."""
    source = source_of(provider, secret=secret or made_up_secret(provider), options=options, refunds=refunds)
    with TemporaryDirectory(prefix="relay-rehearsal-") as folder, asyncio.Runner() as runner:
        url = f"sqlite:///{Path(folder) / 'relay.db'}"
        stage: Rehearsal
        opening = partial(open_store, url, vault=Vault([b"r" * 32]), clock=lambda: stage.now_ms)
        ...
