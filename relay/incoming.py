"""An event as somebody else's backend posts it: checked, looked over by the guard, and sealed.

In: a parsed JSON value and the relay's rules. Out: a sealed event, or every problem that it has, each with its field.
Pure: the same value and the same time give the same result, but for the id of an event that brings none.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from relay import guard
from relay.contract import Scalar
from relay.event import MAX_PROPERTIES, Event, Problem, check, to_json
from relay.identity import Identity, hash_email
from relay.personal import Kind, kind_of
from relay.sealing import Sealed, event_id_of

#: Fields beside those of the events API in which an event may say its id. They go out as `properties.event_id`.
ID_FIELDS = ("event_id", "id")
#: The property that is an id and nothing else: under it, another content is a mistake.
EVENT_ID = "event_id"
LONGEST_ID = 200
#: What every language can count up to in JSON; a longer one is written as a text.
LARGEST_ID = 2**53 - 1
#: What revenue may be, written as a text: at most 24 digits.
REVENUE_TEXT = r"-?[0-9]{1,14}(\.[0-9]{1,10})?"
_NO_BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: What a URL may be: every reader of patterns understands this one in the same way.
URL_TEXT = rf"[Hh][Tt][Tt][Pp][Ss]?://[^/?#{_NO_BLANK}][^{_NO_BLANK}]*"
#: Between these lies revenue that is not zero, either way.
LEAST_REVENUE, MOST_REVENUE = Decimal("1e-10"), Decimal("1e27")

_WHOLE_FIELDS = frozenset({"timestamp", *ID_FIELDS})
_HOUR_MS = 3_600_000
_AHEAD_H = 25
_REVENUE_TEXT = re.compile(REVENUE_TEXT)
_URL_TEXT = re.compile(URL_TEXT)
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about events that are posted."""

    #: An e-mail address as user_id.
    raw_user_id: Literal["hash", "refuse"] = "hash"
    guard: guard.Mode = "redact"
    hash_key: bytes | None = None
    #: The properties that tell two events apart, best first.
    ids: tuple[str, ...] = (EVENT_ID, "id", "order_id")


@dataclass(slots=True, kw_only=True)
class Prepared:
    """An event that may be committed."""

    sealed: Sealed
    #: The event without its time: who builds an event anew for another try says another one.
    content: bytes
    #: Whether its once key is an id and nothing else, under which there may be no other content.
    has_id: bool

    @property
    def is_hashed(self) -> bool:
        """The guard made a hash of the user_id."""
        return any(finding.field == "user_id" for finding in self.sealed.findings)

    @property
    def is_redacted(self) -> bool:
        """The guard took personal data out of another field."""
        return any(finding.field != "user_id" for finding in self.sealed.findings)


def latest_ms(now_ms: int) -> int:
    """The first timestamp that is too far ahead: a day to a day and an hour from now, at a full hour."""
    return (now_ms // _HOUR_MS + _AHEAD_H) * _HOUR_MS


def prepare(raw: object, rules: Rules, *, source: str, now_ms: int) -> Prepared | tuple[Problem, ...]:
    """The event of a parsed JSON value; `source` is the one that its once key is unique in."""
    said: str | int | None = None
    if isinstance(raw, dict) and any(isinstance(raw.get(name), float) for name in _WHOLE_FIELDS):
        raw = {name: _as_whole(value) if name in _WHOLE_FIELDS else value for name, value in raw.items()}
    if isinstance(raw, dict) and not raw.keys().isdisjoint(ID_FIELDS):
        said = next(raw[name] for name in ID_FIELDS if name in raw)
        problems = [Problem(name, _ID_RULE) for name in ID_FIELDS if name in raw and not _is_id(raw[name])]
        raw = {name: value for name, value in raw.items() if name not in ID_FIELDS}
        if problems:
            found = check(raw)
            return (*problems, *(() if isinstance(found, Event) else found))
    event = check(raw)
    if not isinstance(event, Event):
        return event
    if wrong := _too_much(event, raw, now_ms):
        return wrong
    given = event.properties
    if said is not None and EVENT_ID not in given and len(given) < MAX_PROPERTIES:
        event = event.model_copy(update={"properties": {**given, EVENT_ID: said}})
    looked = _guarded(event, rules)
    if isinstance(looked, tuple):
        return looked
    return _sealed(looked, said, given, rules, source=source, now_ms=now_ms)


# --- checking ---------------------------------------------------------------------------------------------------------

_ID_RULE = f"must be a text of 1 to {LONGEST_ID} characters, or a whole number within 53 bits"


def _as_whole(value: object) -> object:
    """`1.0` as 1, which it is in JSON: some languages know no other numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_ID else value


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_ID
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST_ID <= value <= LARGEST_ID


def _too_much(event: Event, raw: Any, now_ms: int) -> tuple[Problem, ...]:
    """What the events API's rules alone would let through."""
    problems = []
    if event.timestamp is not None and event.timestamp >= latest_ms(now_ms):
        problems.append(Problem("timestamp", "lies more than a day in the future: is the sender's clock right?"))
    if event.url is not None and not _URL_TEXT.fullmatch(event.url):
        problems.append(Problem("url", "must be an http or https URL without blanks and control characters"))
    if event.revenue is not None:
        written = raw["revenue"]
        if isinstance(written, bool) or (isinstance(written, str) and not _REVENUE_TEXT.fullmatch(written)):
            problems.append(Problem("revenue", "must be a number, or a text such as 19.99"))
        elif event.revenue and not LEAST_REVENUE <= abs(event.revenue) <= MOST_REVENUE:
            problems.append(Problem("revenue", f"must be 0, or between {LEAST_REVENUE} and {MOST_REVENUE} either way"))
    return tuple(problems)


# --- the guard --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Guarded:
    event: Event
    findings: tuple[guard.Finding, ...] = ()


def _guarded(event: Event, rules: Rules) -> _Guarded | tuple[Problem, ...]:
    user_id = event.user_id
    findings: tuple[guard.Finding, ...] = ()
    if user_id is not None and "@" in user_id and kind_of(user_id) is Kind.EMAIL:
        user_id, findings = hash_email(user_id, rules.hash_key), (guard.Finding("user_id", Kind.EMAIL),)
    cleaned = guard.examine(
        event_name=event.event_name, user_id=user_id, url=event.url, properties=event.properties,
        hash_key=rules.hash_key,
    )  # fmt: skip
    if cleaned is not None:
        findings += cleaned.findings
    if not findings:
        return _Guarded(event)
    problems = []
    for finding in findings:
        if finding.field == "user_id" and rules.raw_user_id == "refuse":
            problems.append(Problem("user_id", "is personal data: send its SHA-256 in lower-case hexadecimal"))
        elif finding.field != "user_id" and rules.guard == "reject":
            problems.append(Problem(finding.field, f"holds personal data ({finding.kind})"))
    if problems:
        return tuple(dict.fromkeys(problems))
    update: dict[str, Any] = {"user_id": user_id}
    if cleaned is not None:
        update = {
            "event_name": cleaned.event_name,
            "user_id": cleaned.user_id,
            "url": cleaned.url,
            "properties": cleaned.properties,
        }
    return _Guarded(event.model_copy(update=update), findings)


# --- sealing ----------------------------------------------------------------------------------------------------------


def _sealed(
    looked: _Guarded, said: str | int | None, given: Mapping[str, Scalar], rules: Rules, *, source: str, now_ms: int
) -> Prepared:
    event = looked.event
    content = to_json(event)
    has_id, once = _once(said, given, rules, content)
    return Prepared(
        sealed=Sealed(
            event_id=event_id_of(source, "", once) if once else f"evt_{secrets.token_hex(16)}",
            once=(once,) if once else (),
            event=event,
            payload=content if event.timestamp is not None else b'%b,"timestamp":%d}' % (content[:-1], now_ms),
            identity=Identity(event.user_id, 0, _GIVEN),
            findings=looked.findings,
        ),
        content=content if event.timestamp is None else without_time(content),
        has_id=has_id,
    )


def without_time(payload: bytes) -> bytes:
    """The event of a payload, which ends with its time, without that."""
    return payload.rpartition(b',"timestamp":')[0] + b"}"


def _once(said: str | int | None, given: Mapping[str, Scalar], rules: Rules, content: bytes) -> tuple[bool, str]:
    """Whether the event has an id of its own, and its once key; empty where nothing tells it from others."""
    if said is not None:
        return True, f"event:{_plain(said)}"
    for name in rules.ids:
        value = given.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            if name == EVENT_ID:
                return True, f"event:{_plain(value)}"
            # the id of a product or of an order is that of many events: a repeat is the same in all the rest too
            return False, f"{name}:{_plain(value)}:{hashlib.sha256(content).hexdigest()[:32]}"
    return False, ""


def _plain(said: str | int) -> str:
    """The id, or its hash where it could be anything."""
    text = str(said)
    return text if _PLAIN_ID.fullmatch(text) else "sha256-" + hashlib.sha256(text.encode()).hexdigest()
