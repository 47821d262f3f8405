"""The certificates that providers sign with: fetched once, from pinned places only, and kept.

In: the URL of a `NeedsCertificate`. Out: `Known`, or `Unavailable` with the reason. Strangers can make a delivery that
names any certificate of a pinned host, so calls are few, short and small, and one that failed is not made again soon.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx

from relay.certified import check_certificate, is_pinned
from relay.trust import trusted

#: Providers use one or two at a time.
_MOST_KEPT = 32
_LARGEST = 32_768
#: After a failure, and between calls for certificates that are new to us once `_BURST` of them were made.
_PAUSE_MS = 30_000
_BURST = 10


@dataclass(frozen=True, slots=True)
class Known:
    """It is among `known` now."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """It could not be had now; the same delivery may fit later."""

    why: str


Outcome = Known | Unavailable


class Certificates:
    """The certificates of one process. `clock` tells Unix milliseconds; `transport` stands in for the network."""

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
        given: Mapping[str, bytes] | None = None,
        patience_s: float = 5.0,
    ) -> None:
        """`given` are known from the start, for hosts without a way out. Raises `ValueError` where one is none.

        `patience_s` is all that one call may take, name lookup and a slow answer included.
        """
        self._clock = clock
        self._patience_s = patience_s
        self._transport = transport
        self._kept: OrderedDict[str, bytes] = OrderedDict(given or {})
        for pem in self._kept.values():
            check_certificate(pem)
        self._given = frozenset(self._kept)
        self._calls: dict[str, asyncio.Task[Outcome]] = {}
        self._failed: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._made: list[int] = []
        #: PEM by URL: what `Delivery.certificates` is given. It grows by itself.
        self.known: Mapping[str, bytes] = MappingProxyType(self._kept)

    async def obtain(self, url: str) -> Outcome:
        """Fetch it, unless it is known, was asked for in vain a moment ago, or is being fetched already."""
        if url in self._kept:
            return Known()
        call = self._calls.get(url)
        if call is None:
            refusal = self._refusal(url)
            if refusal is not None:
                return Unavailable(refusal)
            self._made.append(self._clock())
            call = self._calls[url] = asyncio.create_task(self._fetch(url))
            call.add_done_callback(lambda _: self._calls.pop(url, None))
        return await asyncio.shield(call)  # one delivery that goes away does not take the certificate from the others

    async def close(self) -> None:
        """End calls under way."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _refusal(self, url: str) -> str | None:
        now_ms = self._clock()
        if not is_pinned(url):
            return "it is not at one of the providers' own places"
        failed_ms, why = self._failed.get(url, (None, ""))
        if failed_ms is not None and now_ms - failed_ms < _PAUSE_MS:
            return why
        self._made = [made_ms for made_ms in self._made if now_ms - made_ms < _PAUSE_MS]
        return "too many different ones are asked for" if len(self._made) >= _BURST else None

    async def _fetch(self, url: str) -> Outcome:
        try:
            async with asyncio.timeout(self._patience_s):
                pem = await self._get(url)
            check_certificate(pem)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            why = f"the certificate cannot be fetched: {type(error).__name__}: {error}"
            self._failed[url] = (self._clock(), why)
            while len(self._failed) > _MOST_KEPT:
                self._failed.popitem(last=False)
            return Unavailable(why)
        self._kept[url] = pem
        for old in [kept for kept in self._kept if kept not in self._given][:-_MOST_KEPT]:
            del self._kept[old]
        return Known()

    async def _get(self, url: str) -> bytes:
        # a client for this one call: it is made once in months, and most relays never make it
        client = httpx.AsyncClient(
            transport=self._transport, timeout=self._patience_s, follow_redirects=False, verify=trusted()
        )
        async with client, client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                msg = f"the answer was {response.status_code}"
                raise ValueError(msg)
            pem = b""
            async for chunk in response.aiter_bytes():
                pem += chunk
                if len(pem) > _LARGEST:
                    msg = f"the answer is larger than {_LARGEST} bytes"
                    raise ValueError(msg)
            return pem
