"""The hot path: socket → signature → commit → answer.

`Receiver` is a plain ASGI app for `/webhooks/{source}`. A 2xx leaves only after the store has committed and fsynced
the delivery. What each case is answered stands in one table below.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

from relay.bodies import GoneError, Receive, Scope, TooLargeError, read
from relay.certificates import Certificates, Unavailable
from relay.connection import Handler, Headers, Reply, reply
from relay.contract import (
    RECEIVED,
    Accepted,
    Answer,
    Delivery,
    NeedsCertificate,
    Provider,
    Reason,
    Refused,
    Verifier,
)
from relay.metrics import Metrics
from relay.signatures import takes_basic
from relay.sources import Source
from relay.store.base import Store, StoreUnavailableError, Verified

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/webhooks/"

# The answers. Whatever is mapped of a delivery later, it got the provider's `accepted`.
# Never 403, 404, 406, 410 or 3xx for a source that exists: some providers disable the webhook for good.
_READY = Answer(200)  # GET and HEAD on a source: handshakes and curious people
_REFUSED = Answer(401, b'{"error":"signature refused"}')
#: Some send their user and password only after they were asked for it: Amazon SNS, and every client of RFC 7617.
_ASKED = replace(_REFUSED, headers=(("www-authenticate", 'Basic realm="webhooks"'),))
_UNKNOWN = Answer(404, b'{"error":"no such source"}')
_METHOD = Answer(405, b'{"error":"POST the webhook here"}')
_TOO_LARGE = Answer(413, b'{"error":"body too large"}')
_LATER = b'{"error":"not now, try again later"}'
_RETRY_AFTER_S = b"10"
#: Of each source it is logged no more often than this that its provider was told so; the metric counts each time.
_SAID_EVERY_MS = 5_000

#: Never stored: they would let a reader of the store act as the sender.
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})

#: Of a delivery that is taken although none of the source's secrets fits.
_NO_SECRET = -1

log = structlog.get_logger("relay.receiving")


class Told(Protocol):
    """Is told of a refused delivery, and says whether it is to be taken all the same."""

    def __call__(self, source: Source, delivery: Delivery, reason: Reason, /, *, now_ms: int) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to say "later" instead of taking more in."""

    #: Arrivals that may wait for their commit.
    max_waiting: int = 5000
    #: Says why nothing can be taken now (a disk that is nearly full), or None.
    trouble: Callable[[], str | None] = lambda: None


class _Door:
    """One source, with everything looked up and every label resolved before the first request."""

    handler: Handler

    def __init__(self, source: Source, provider: Provider, metrics: Metrics) -> None:
        self.source = source
        self.provider = provider
        self.secrets = tuple(secret.get_secret_value() for secret in source.secrets)
        warm_up(provider.verifier, source.secrets)
        self.body_limit = source.body_limit or provider.body_limit
        self.credentials = _CREDENTIALS | set(provider.credentials) | set(provider.verifier.credentials)
        self.public_url = source.public_url or ""
        self.each_is_news = provider.api is not None and provider.api.each_is_news
        slug = source.slug
        self.refused = _ASKED if takes_basic(provider.verifier) else _REFUSED
        self.later = Answer(provider.overload_status, _LATER)
        #: How often the provider was told to come later since that was last logged, and until when it is not logged.
        self.put_off, self.silent_until_ms = 0, 0
        self.accepted = metrics.tally(metrics.deliveries, slug, "accepted")
        self.fitted = [metrics.tally(metrics.secrets, slug, str(index)) for index in range(len(self.secrets))]
        self.fitted.append(metrics.tally(metrics.secrets, slug, "none"))  # at `_NO_SECRET`


def warm_up(verifier: Verifier, secrets: Sequence[SecretStr]) -> None:
    """Load what the first check loads (a package, a public key), so that the first webhook need not wait for it."""
    for secret in [hidden.get_secret_value() for hidden in secrets]:
        with contextlib.suppress(ValueError):  # some cannot sign what is no delivery of theirs
            signed = verifier.sign(Delivery(body=b"{}", headers={}), secret, now_ms=0)
            verifier.verify(signed, [secret], now_ms=0)


class Receiver:
    """The ASGI app of `/webhooks/{source}`. `wake` is called when something new is in the inbox."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        providers: Mapping[str, Provider],
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
        wake: Callable[[], None],
        certificates: Certificates,
        limits: Limits | None = None,
        refused: Told | None = None,
    ) -> None:
        """`refused` is told of refused deliveries, and says whether one is to be taken all the same."""
        self._doors = {
            slug: _Door(source, providers[source.provider], metrics)
            for slug, source in sources.items()
            if any(secret.get_secret_value() for secret in source.secrets)
        }
        for door in self._doors.values():
            door.handler = partial(self._receive_plain, door)
        self._targets = {(PREFIX + slug).encode(): door for slug, door in self._doors.items()}
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._will_wake = False
        self._certificates = certificates
        self._limits = limits or Limits()
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        door = self._doors.get(scope["path"][len(PREFIX) :])
        if door is None:
            await _answer(send, _UNKNOWN)
            return
        answer: Answer | None
        match scope["method"]:
            case "POST":
                answer = await self._receive(door, scope, receive)
            case "GET" | "HEAD":
                answer = _challenged(door, scope)
            case _:
                answer = _METHOD
        if answer is not None:
            await _answer(send, answer)
        self._metrics.answer_seconds.observe(time.perf_counter() - started)

    def short_way(self, target: bytes, size: int) -> Handler | None:
        """A webhook that goes without ASGI: most do. `relay.connection` says which may."""
        door = self._targets.get(target)
        return door.handler if door is not None and size <= door.body_limit else None

    async def _receive_plain(self, door: _Door, headers: Headers, body: bytes) -> Reply:
        started = time.perf_counter()
        answer = await self._take(door, body, _headers(headers), door.public_url)
        self._metrics.answer_seconds.observe(time.perf_counter() - started)
        return _reply(answer)

    async def _receive(self, door: _Door, scope: Scope, receive: Receive) -> Answer | None:
        trouble = self._trouble()
        if trouble is not None:
            return self._later(door, trouble)
        try:
            body = await read(scope, receive, door.body_limit)
        except TooLargeError:
            self._metrics.deliveries.labels(door.source.slug, "too_large").inc()
            log.warning("body too large", source=door.source.slug, limit=door.body_limit)
            return _TOO_LARGE
        except GoneError:
            return None
        query = scope["query_string"].decode("latin-1")
        return await self._take(door, body, _headers(scope["headers"]), _url(door, scope), query)

    async def _take(self, door: _Door, body: bytes, headers: dict[str, str], url: str, query: str = "") -> Answer:
        trouble = self._trouble()
        if trouble is not None:
            return self._later(door, trouble)
        now_ms = self._clock()
        if door.each_is_news:
            headers[RECEIVED] = str(now_ms)
        delivery = Delivery(body=body, headers=headers, url=url, query=query, certificates=self._certificates.known)
        try:
            return await self._answered(door, delivery, now_ms)
        except Exception:
            log.exception("receiving stumbled; the provider is told to come later", source=door.source.slug)
            return door.later

    async def _answered(self, door: _Door, delivery: Delivery, now_ms: int) -> Answer:
        match await self._verdict(door, delivery, now_ms):
            case Refused(reason):
                handshake = door.provider.handshake(delivery)
                if handshake is not None:
                    return handshake
                if self._refused is not None and self._refused(door.source, delivery, reason, now_ms=now_ms):
                    return await self._commit(door, delivery, _NO_SECRET, now_ms)  # in shadow mode
                self._metrics.deliveries.labels(door.source.slug, f"refused_{reason}").inc()
                log.warning("signature refused", source=door.source.slug, reason=reason.value)
                return door.refused
            case Accepted(secret):
                return await self._commit(door, delivery, secret, now_ms)
            case Unavailable(why):
                return self._later(door, why)

    async def _verdict(self, door: _Door, delivery: Delivery, now_ms: int) -> Accepted | Refused | Unavailable:
        """Of a provider that signs with a certificate, the first delivery waits until that is fetched."""
        verify = door.provider.verifier.verify
        verdict = verify(delivery, door.secrets, now_ms=now_ms, tolerance_s=door.source.tolerance_s)
        if isinstance(verdict, NeedsCertificate):
            found = await self._certificates.obtain(verdict.url)
            if isinstance(found, Unavailable):
                return found
            verdict = verify(delivery, door.secrets, now_ms=now_ms, tolerance_s=door.source.tolerance_s)
        if isinstance(verdict, NeedsCertificate):
            return Unavailable(f"the certificate {verdict.url} went again")
        return verdict

    async def _commit(self, door: _Door, delivery: Delivery, secret: int, now_ms: int) -> Answer:
        headers = delivery.headers
        if not door.credentials.isdisjoint(headers):
            headers = {name: value for name, value in headers.items() if name not in door.credentials}
        verified = Verified(
            source=door.source.slug,
            received_at_ms=now_ms,
            secret=secret,
            headers=headers,
            body=door.provider.redact(delivery.body),
        )
        try:
            await self._store.take(verified)
        except StoreUnavailableError as error:
            return self._later(door, f"the store is unavailable: {error}")
        door.accepted.n += 1
        door.fitted[secret].n += 1
        if not self._will_wake:  # once for all that share a commit
            self._will_wake = True
            asyncio.get_running_loop().call_soon(self._wake_once)
        return door.provider.accepted

    def _wake_once(self) -> None:
        self._will_wake = False
        self._wake()

    def _trouble(self) -> str | None:
        if self._store.waiting > self._limits.max_waiting:
            return "too many deliveries wait for their commit"
        return self._limits.trouble()

    def _later(self, door: _Door, why: str) -> Answer:
        self._metrics.deliveries.labels(door.source.slug, "overload").inc()
        door.put_off += 1
        now_ms = self._clock()
        if now_ms >= door.silent_until_ms:
            log.warning("told the provider to come later", source=door.source.slug, why=why, times=door.put_off)
            door.put_off, door.silent_until_ms = 0, now_ms + _SAID_EVERY_MS
        return door.later


def _challenged(door: _Door, scope: Scope) -> Answer:
    """What the provider wants to hear before it sends anything; for all others a plain 200."""
    delivery = Delivery(
        body=b"",
        headers=_headers(scope["headers"]),
        url=_url(door, scope),
        method=scope["method"],
        query=scope["query_string"].decode("latin-1"),
    )
    try:
        answers = (door.provider.challenge(delivery, secret) for secret in door.secrets)
        return next((answer for answer in answers if answer is not None), _READY)
    except Exception:  # noqa: BLE001  strangers choose the query
        return _READY


def _headers(raw: Headers) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _url(door: _Door, scope: Scope) -> str:
    query = scope["query_string"]
    return f"{door.public_url}?{query.decode('latin-1')}" if query and door.public_url else door.public_url


@lru_cache
def _head(answer: Answer) -> Headers:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *((name.encode(), value.encode()) for name, value in answer.headers),
    ]
    if answer.status in {429, 503}:
        headers.append((b"retry-after", _RETRY_AFTER_S))
    return headers


@lru_cache
def _reply(answer: Answer) -> Reply:
    return reply(answer.status, _head(answer), answer.body)


async def _answer(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _head(answer)})
    await send({"type": "http.response.body", "body": answer.body})
