"""The events API, which no other file knows. Serialised events go in; what comes out is a value, never an exception.

    Outcome of one call
    ├── it was answered
    │   ├── Sent       202, and any other 2xx (then `expected` is False)
    │   ├── Rejected   400, 422, and every 4xx not named below: about the events, so a smaller batch may pass;
    │   │              also a relay's 409 for an event whose id it has with another content
    │   ├── TooLarge   413: about the size of the call
    │   ├── Closed     401 402 403 404 405 407 410 415, 3xx: about us, whatever the events; nothing is given up
    │   └── Later      408, 409, 425, 429, 5xx: not now
    └── it was not answered
        ├── Later      there was no connection, so surely nothing was sent (refused, DNS, TLS, proxy, in time)
        └── InDoubt    it was sent, wholly or in part, and nobody knows whether the API took it

The API's words are for people to read: cut short, and never with the key in them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import TracebackType
from typing import Literal, Self, assert_never
from urllib.parse import quote

import httpx
import orjson

from relay.clock import unix_ms
from relay.trust import trusted

#: For no longer than this does one `Retry-After` keep us away.
RETRY_AFTER_CAP_MS = 24 * 3_600_000
_WORDS_LIMIT = 500
_BODY_LIMIT = 65_536
#: Less than the 5 s after which servers usually close an idle connection: a call that meets the closing ends in doubt.
_KEEPALIVE_S = 2
#: What another relay says of an event whose id came before with another content.
_ID_REUSED = "event_id_reused"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Sent:
    """The API has them."""

    status: int
    #: False for a 2xx other than the documented 202.
    expected: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """The API refused them for what they are. Of a batch, none was taken."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Too many events, or too many bytes. None was taken."""

    status: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The API lets us in no more: the key, the project or the address is wrong. No event is to blame."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class Later:
    """Surely not taken, and worth another try. `status` is None where no connection was made."""

    status: int | None
    words: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Sent, wholly or in part, and never answered."""

    words: str


Outcome = Sent | Rejected | TooLarge | Closed | Later | InDoubt


class Finding(StrEnum):
    """What `OpenAnalytics.check` found out."""

    READY = "ready"  #: it answers, and takes the key
    KEY_REFUSED = "key_refused"  #: it answers, and does not know the key or forbids it the project
    NOT_FOUND = "not_found"  #: it answers that there is no such project, or no batch endpoint at this address
    UNWELL = "unwell"  #: something answers, but not as the events API would
    UNREACHABLE = "unreachable"  #: nothing answers


@dataclass(frozen=True, slots=True)
class Check:
    finding: Finding
    words: str


_EMPTY = httpx.ByteStream(b"")

# Before any byte of the request leaves; httpx files DNS and TLS under ConnectError.
_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)


class OpenAnalytics:
    """A client of one project. Holds a few connections: use it as a context manager, or `aclose` it."""

    def __init__(
        self,
        base_url: str,
        project_id: str,
        api_key: str,
        *,
        timeout_s: float,
        batch_body: Literal["object", "array"] = "object",
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], int] = unix_ms,
    ) -> None:
        """`timeout_s` bounds a whole call. Raises `ValueError` for a URL or a key that HTTP cannot carry."""
        base = httpx.URL(base_url.rstrip("/"))
        if base.scheme not in ("http", "https") or not base.host:
            msg = f"{base_url!r} is not an http(s) URL"
            raise ValueError(msg)
        if not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""):
            msg = "the API key is empty, or holds a blank at an end or a character that no key has"
            raise ValueError(msg)
        self._single_url = httpx.URL(f"{base}/v1/projects/{quote(project_id, safe='')}/events")
        self._batch_url = httpx.URL(f"{self._single_url}/batch")
        self._opening, self._closing = (b'{"events":[', b"]}") if batch_body == "object" else (b"[", b"]")
        self._api_key = api_key
        self._headers = [
            (b"Accept", b"application/json"),
            (b"Accept-Encoding", b"identity"),
            (b"Authorization", b"Bearer " + api_key.encode()),
            (b"Content-Type", b"application/json"),
            (b"User-Agent", b"webhook-relay"),
        ]
        self._clock = clock
        self._timeout_s = timeout_s
        # A third each for waiting, connecting and TLS: when the whole time is over, the request is on its way.
        timeout = httpx.Timeout(timeout_s, connect=timeout_s / 3, pool=timeout_s / 3)
        self._extensions = {"timeout": timeout.as_dict()}
        self._client = httpx.AsyncClient(
            http2=False,
            follow_redirects=False,
            timeout=timeout,
            verify=trusted(),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=2, keepalive_expiry=_KEEPALIVE_S),
            transport=transport,
            # what runs on this machine is not behind the proxy that the environment names
            mounts={f"all://{host}": None for host in _LOOPBACK} if base.host in ("::1", *_LOOPBACK) else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, payloads: Sequence[bytes], *, key: str, single: bool = False) -> Outcome:
        """Post events, each a JSON object already, in one batch; with `single`, the one there is to the other endpoint.

        `key` becomes the `Idempotency-Key`: the same composition must always come with the same one.
        """
        if single:
            (payload,) = payloads
            return await self._post(self._single_url, payload, key)
        return await self._post(self._batch_url, self._opening + b",".join(payloads) + self._closing, key)

    async def check(self, key: str = "check") -> Check:
        """Whether the API answers and takes our key. Posts a batch without events, so that nothing is counted."""
        outcome = await self.send((), key=key)
        match outcome:
            case Sent():
                return Check(Finding.READY, "answers and takes the key")
            case Rejected(words=words):  # it judged the body, so it had taken the key
                return Check(Finding.READY, f"answers and takes the key ({words})")
            case Closed(401 | 403 as status, words):
                return Check(Finding.KEY_REFUSED, f"{status}: {words}")
            case Closed(404 | 405 as status, words):
                return Check(Finding.NOT_FOUND, f"{status}: {words}")
            case Closed(status, words):
                return Check(Finding.UNWELL, f"{status}: {words}")
            case TooLarge(status):
                return Check(Finding.UNWELL, f"{status}: an empty batch is called too large")
            case Later(None, words):
                return Check(Finding.UNREACHABLE, words)
            case Later(status, words):
                return Check(Finding.UNWELL, f"{status}: {words}")
            case InDoubt(words):
                return Check(Finding.UNREACHABLE, words)
            case _:
                assert_never(outcome)

    async def _post(self, url: httpx.URL, content: bytes, key: str) -> Outcome:
        request = httpx.Request(
            "POST",
            url,
            headers=[*self._headers, (b"Idempotency-Key", key.encode())],
            content=content,
            extensions=self._extensions,
        )
        response, body = None, b""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send(request, stream=True)
                body = await _beginning(response)
        except _NOTHING_SENT as error:
            return Later(None, self._cleaned(f"no connection: {_cause(error)}"))
        except (httpx.HTTPError, OSError) as error:  # OSError: the time is over (TimeoutError), or TLS broke
            if response is None:
                return InDoubt(self._cleaned(f"no answer: {_cause(error)}"))
            # the status came and is the answer; only its words were cut off
        finally:
            if response is not None:
                with contextlib.suppress(httpx.HTTPError, OSError):
                    await response.aclose()
                response.stream = _EMPTY  # httpx's response and stream hold each other, and with them the whole batch
        return self._judged(response, body)

    def _judged(self, response: httpx.Response, body: bytes) -> Outcome:
        match response.status_code:
            case 202 as status:
                return Sent(status, expected=True)
            case status if 200 <= status < 300:  # noqa: PLR2004
                return Sent(status, expected=False)
            case status if 300 <= status < 400:  # noqa: PLR2004
                target = response.headers.get("location", "nowhere")
                return Closed(status, self._cleaned(f"redirect to {target}, check the base URL"))
            case 401 | 402 | 403 | 404 | 405 | 407 | 410 | 415 as status:
                return Closed(status, self._words(body))
            case 413 as status:
                return TooLarge(status)
            case 409 if _code(body) == _ID_REUSED:  # it stays so, however often it is asked
                return Rejected(409, self._words(body))
            # any other 409 says, where Idempotency-Key is honoured, that the same call is still being worked on
            case 408 | 409 | 425 | 429 as status:
                return self._later(status, response, body)
            case status if 400 <= status < 500:  # noqa: PLR2004
                return Rejected(status, self._words(body))
            case status:
                return self._later(status, response, body)

    def _later(self, status: int, response: httpx.Response, body: bytes) -> Later:
        asked_ms = retry_after_ms(response.headers.get("retry-after"), now_ms=self._clock())
        return Later(status, self._words(body), asked_ms)

    def _words(self, body: bytes) -> str:
        """What the API says of an error: `{"error": "..."}`, else the body as it is."""
        match _said(body):
            case {"error": str(text)}:
                return self._cleaned(text)
            case _:
                return self._cleaned(body.decode("utf-8", "replace"))

    def _cleaned(self, text: str) -> str:
        """One printable line of bounded length, without the key."""
        line = " ".join(text.replace(self._api_key, "[key]").split())[:_WORDS_LIMIT]
        return "".join(sign if sign.isprintable() else "\ufffd" for sign in line) or "without a word"


def _said(body: bytes) -> object:
    """The value that the body is, None where it is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _code(body: bytes) -> str:
    """The word for programs that a relay puts beside those for people."""
    match _said(body):
        case {"code": str(code)}:
            return code
        case _:
            return ""


async def _beginning(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= _BODY_LIMIT:
            break
    return body


def _cause(error: BaseException) -> str:
    """What began it: below httpx's own error lies the operating system's, or TLS's."""
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "timed out"
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return str(error) or type(error).__name__


def retry_after_ms(value: str | None, *, now_ms: int) -> int | None:
    """A `Retry-After` header, seconds or an HTTP date, as ms from now: never negative, at most `RETRY_AFTER_CAP_MS`.

    None where there is none, or none that can be read.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        asked_ms = int(text.lstrip("0")[:9] or "0") * 1000
    else:
        try:
            at = parsedate_to_datetime(text)
            asked_ms = int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000) - now_ms
        except (ValueError, OverflowError):
            return None
    return min(max(asked_ms, 0), RETRY_AFTER_CAP_MS)
