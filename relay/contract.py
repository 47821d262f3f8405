"""The contract between a provider module and the relay.

In: a `Delivery` (one HTTP POST, raw bytes). Out: `Notification`s, and from each of them `Draft`s (what happened, when,
how much, who) and `Learned` facts (who stands behind an id). A provider is a value of `Provider`: data and small pure
functions. Nothing here does I/O, reads a clock or knows a setting.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field as _field
from typing import Any, Literal

import orjson

from relay.asking import (
    RECEIVED as RECEIVED,
    Api as Api,
    Ask as Ask,
    UnansweredError as UnansweredError,
    basic_key as basic_key,
    bearer_key as bearer_key,
    header_key as header_key,
    path_of,
)
from relay.drafts import (
    HOME as HOME,
    NOBODY as NOBODY,
    Draft as Draft,
    EventType as EventType,
    Forgotten as Forgotten,
    Learned as Learned,
    Person as Person,
    Scalar as Scalar,
    UnmappableError as UnmappableError,
    Variant as Variant,
    conversion as conversion,
    event as event,
    identify as identify,
)
from relay.verification import (
    Accepted as Accepted,
    Delivery as Delivery,
    NeedsCertificate as NeedsCertificate,
    Reason as Reason,
    Refused as Refused,
    Verdict as Verdict,
    Verifier as Verifier,
)

MIB = 1024 * 1024


# --- what arrives -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Notification:
    """One thing that a provider says: the unit that is mapped and counted once."""

    #: The provider's own id (or one composed from it), unique within the source.
    id: str
    #: The provider's own word, as in `Provider.on`.
    type: str
    #: The parsed item: for most providers the whole JSON body.
    body: Any
    headers: Mapping[str, str]
    #: The connected account within the source (Stripe Connect), or "". It is made part of every key by the relay.
    account: str = ""
    is_test: bool = False
    #: What the provider's API has said about it so far, by `Ask.key`; None where there is no such thing.
    answers: Mapping[str, Any] | None = None

    def ask(self, path: str, *ids: object, method: Literal["GET", "POST"] = "GET", body: Any = None) -> Any:
        """The API's answer at this path (`"/payments/{}"` with the ids that fill it), parsed.

        Ends the mapping where it is not known yet; it begins anew with the answer. Raises `UnmappableError` where the
        API has no such thing.
        """
        ask = Ask(path=path_of(path, ids), method=method, body=b"" if body is None else orjson.dumps(body))
        answer = self._answer(ask)
        if answer is None:
            msg = f"the provider's API has no {ask.path}"
            raise UnmappableError(msg)
        return answer

    def look_up(self, path: str, *ids: object, method: Literal["GET", "POST"] = "GET", body: Any = None) -> Any | None:
        """The same for what is good to know: None where there is no such thing, or the source has no API key."""
        raw = b"" if body is None else orjson.dumps(body)
        return self._answer(Ask(path=path_of(path, ids), method=method, body=raw, is_optional=True))

    def _answer(self, ask: Ask) -> Any | None:
        if self.answers is None or ask.key not in self.answers:
            raise UnansweredError(ask)
        return self.answers[ask.key]


Mapper = Callable[[Notification], Iterable[Draft | Learned | Forgotten]]


# --- readers: where a provider keeps its id and its type --------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Item:
    """One item of a delivery, before it has a type and an id."""

    body: Any
    headers: Mapping[str, str]
    #: As `Notification.answers`: for providers whose test mode shows in the answers only.
    answers: Mapping[str, Any] | None = None


Reader = Callable[[Item], str | None]


def header(name: str) -> Reader:
    """The value of a header."""
    lower = name.lower()
    return lambda item: item.headers.get(lower)


def field(path: str) -> Reader:
    """The value at a dotted path of the item's body, as text; None where it is missing, null or empty."""
    steps = path.split(".")

    def read(item: Item) -> str | None:
        value = item.body
        for step in steps:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        if isinstance(value, str):
            return value or None
        return None if value is None or isinstance(value, (dict, list)) else str(value)

    return read


def composed(*parts: Reader, separator: str = ":") -> Reader:
    """Several values joined, for providers without an id of their own; None where the first is missing."""

    def read(item: Item) -> str | None:
        values = [part(item) for part in parts]
        return separator.join(value or "" for value in values) if values and values[0] else None

    return read


def digest_of(body: Any) -> str:
    """The id of an item that has none: a digest of all that it says, never a constant."""
    raw = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str).encode()
    return "sha256:" + hashlib.sha256(raw).hexdigest()[:40]


def parse_json(body: bytes) -> Any:
    """JSON. Raises `UnmappableError` with the position where it is not."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)  # accepts what orjson does not: lone surrogates, other Unicode encodings
        except ValueError as error:
            msg = f"the body is not JSON: {error}"
            raise UnmappableError(msg) from None


def _whole(body: Any) -> Sequence[Any]:
    return (body,)


def _as_it_is(body: bytes) -> bytes:
    return body


def _no_account(_item: Item) -> str | None:
    return None


def _never(_item: Item) -> bool:
    return False


def _no_handshake(_delivery: Delivery) -> None:
    return None


def _no_challenge(_delivery: Delivery, _secret: str) -> None:
    return None


# --- the provider -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider gets back."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    #: Others, in lower case.
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretShape:
    """What the secret of a source looks like, so that a wrong kind of key is told before the first webhook fails."""

    #: Where to find it, in one sentence.
    meaning: str
    prefix: str = ""
    #: By wrong prefix, what was pasted instead (`sk_`: an API key).
    mistaken: Mapping[str, str] = _field(default_factory=dict)


@dataclass(kw_only=True)
class Provider:
    """A kind of sender. One module in `mappers/` defines one, named `provider`."""

    #: The slug: `/webhooks/<name>`, `RELAY_<NAME>_SECRET`. Lower case letters, digits and underscores.
    name: str
    title: str
    docs: str
    verifier: Verifier
    notification_type: Reader
    #: None, or a reader that finds nothing: the digest of the item.
    notification_id: Reader | None = None
    secret: SecretShape
    #: What a key of the provider's API looks like that may only read; None where the relay never asks the provider.
    api_key: SecretShape | None = None
    #: That API, where mappers ask it (`Notification.ask`): such a notification is mapped once it has answered.
    api: Api | None = None
    parse: Callable[[bytes], Any] = parse_json
    #: The items of one delivery: one for most, many for array senders.
    items: Callable[[Any], Sequence[Any]] = _whole
    account: Reader = _no_account
    is_test: Callable[[Item], bool] = _never
    body_limit: int = MIB
    #: Headers that carry a credential rather than a signature, in lower case: never stored.
    credentials: tuple[str, ...] = ()
    #: The body without what must not be kept (a login that is sent along), made once its signature was checked. It
    #: changes nothing that a mapper or reader reads.
    redact: Callable[[bytes], bytes] = _as_it_is
    #: The answer to everything that was taken.
    accepted: Answer = Answer()
    #: The answer to an unsigned POST that only asks whether somebody is there, or None: it has no effect.
    handshake: Callable[[Delivery], Answer | None] = _no_handshake
    #: The answer to a GET or HEAD that asks for more than a 200, made with one of the source's secrets, or None. Anyone
    #: may ask, so that it must never say what a signature of a webhook would be.
    challenge: Callable[[Delivery, str], Answer | None] = _no_challenge
    #: The status for "later, please"; some providers drop the event on 5xx, some retry on nothing else.
    overload_status: int = 429
    #: Opt-in groups of types, by name, with what they add: `RELAY_<NAME>_ENABLE`.
    options: Mapping[str, str] = _field(default_factory=dict)
    #: Those of them under which something else does not count any more (`Draft.without`).
    instead: frozenset[str] = frozenset()

    mappers: dict[str, Mapper] = _field(default_factory=dict, init=False)
    optional: dict[str, str] = _field(default_factory=dict, init=False)
    ignored: set[str] = _field(default_factory=set, init=False)

    def on(self, *types: str, option: str | None = None) -> Callable[[Mapper], Mapper]:
        """Register a mapper for these types; with `option`, only for sources that enable it."""
        if option is not None and option not in self.options:
            msg = f"provider {self.name}: option {option!r} is not declared in options="
            raise ValueError(msg)

        def register(mapper: Mapper) -> Mapper:
            for kind in types:
                self._claim(kind)
                self.mappers[kind] = mapper
                if option is not None:
                    self.optional[kind] = option
            return mapper

        return register

    def ignores(self, *types: str) -> None:
        """Known types that are left out on purpose (twins of mapped ones, for example): counted as ignored."""
        for kind in types:
            self._claim(kind)
            self.ignored.add(kind)

    def _claim(self, kind: str) -> None:
        if kind in self.mappers or kind in self.ignored:
            msg = f"provider {self.name}: type {kind!r} is registered twice"
            raise ValueError(msg)

    def split(self, delivery: Delivery) -> Sequence[Any]:
        """The items of a verified delivery. Raises `UnmappableError` (or what `items` raises) on an unreadable body."""
        return self.items(self.parse(delivery.body))

    def notification(
        self, body: Any, headers: Mapping[str, str], answers: Mapping[str, Any] | None = None
    ) -> Notification:
        """One item as a notification. Raises what the readers raise on an item that is not of the provider's form."""
        item = Item(body, headers, answers)
        return Notification(
            id=(self.notification_id(item) if self.notification_id else None) or digest_of(body),
            type=self.notification_type(item) or "",
            body=body,
            headers=headers,
            account=self.account(item) or "",
            is_test=self.is_test(item),
            answers=answers,
        )

    def notifications(self, delivery: Delivery) -> Iterator[Notification]:
        """All notifications of a verified delivery, for tests and tools; the relay itself takes them one by one."""
        for body in self.split(delivery):
            yield self.notification(body, delivery.headers, delivery.answers)
