"""Samples: deliveries as a provider would send them, for every mapped type, with fresh ids and times.

In: the case files of a provider, which are its mapper's tests as well. Out: a `Delivery` that is new to the relay, or
a repeat where the same id is asked for twice. Case files lie in the package (`relay/samples/<provider>/`), in a source
tree in `tests/mappers/<provider>/`, and for mounted mappers in `<RELAY_MAPPERS_DIR>/samples/<provider>/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from uuid import UUID

from relay.contract import Delivery, Provider
from relay.verification import KeptKeyError

#: A made-up id is at least this long behind its prefix, so that none is made twice.
_ID_LENGTH = 16
_NUMBER_LENGTH = 14
_LONGEST_NUMBER = 19
_RUN_WITH_DIGIT = re.compile(r"[A-Za-z0-9]*[0-9][A-Za-z0-9]*")
_RUN = re.compile(r"[A-Za-z0-9]+")
_FORM = re.compile(r"[^\s=&]+=[^\s&]*(&[^\s=&]+=[^\s&]*)*")
_FRACTION = re.compile(r"T?\d\d:\d\d:\d\d(?:\.(\d+))?")
_DIGITS, _LOWER, _UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DATE_LENGTH = 10


class SampleError(Exception):
    """No sample can be made; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What in a case is replaced: ids (the first is the notification's) and times, as they stand in the body."""

    ids: tuple[str, ...] = ()
    seconds: tuple[int, ...] = ()
    millis: tuple[int, ...] = ()
    iso: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case file."""

    #: The provider's own word, as in `Provider.on`.
    type: str
    variant: str
    about: str
    headers: Mapping[str, str]
    #: The parsed JSON, or the text of a body that is none.
    body: Any
    is_json: bool
    fresh: Fresh
    #: How many events the mapper makes of it.
    drafts: int
    #: Whether one of them waits for another notification.
    waits: bool
    #: Whether one of them moves money.
    pays: bool
    is_test: bool
    #: What the provider's API says about it, by `Ask.key`; None where it is not asked.
    answers: Mapping[str, Any] | None = None


def cases_of(provider: Provider, mappers_dir: Path | None) -> list[Case]:
    """All cases of the types that this provider maps, the plainest of each type first. Raises `SampleError`."""
    found = [read_case(file, provider) for folder in _folders(provider.name, mappers_dir) for file in _files(folder)]
    mapped = [case for case in found if case.type in provider.mappers]
    return sorted(mapped, key=_plainness)


def _plainness(case: Case) -> tuple[object, ...]:
    """What surely becomes an event first, then what moves money; of equals, the one with the shortest name."""
    never_arrives = not case.drafts or case.is_test
    return (case.type, never_arrives, case.waits, not case.pays, len(case.variant), case.variant)


def _folders(provider: str, mappers_dir: Path | None) -> Iterator[Traversable]:
    packed = files("relay") / "samples"
    own = packed if packed.is_dir() else Path(__file__).parent.parent / "tests" / "mappers"
    yield own / provider
    if mappers_dir is not None:
        yield mappers_dir / "samples" / provider


def _files(folder: Traversable) -> list[Traversable]:
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)


def read_case(file: Traversable, provider: Provider) -> Case:
    """The case of this file. Raises `SampleError`."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        fresh = {name: tuple(values) for name, values in raw.get("fresh", {}).items()}
        drafts = raw.get("drafts", [])
        kind, _, variant = file.name.removesuffix(".json").partition("__")
        case = Case(
            type=kind,
            variant=variant,
            about=raw.get("about", ""),
            headers=raw.get("headers", {}),
            body=raw["body"] if "body" in raw else raw["raw"],
            is_json="body" in raw,
            fresh=Fresh(**{**fresh, "ids": tuple(str(found) for found in fresh.get("ids", ()))}),
            drafts=len(drafts),
            waits=any(draft.get("waits") for draft in drafts),
            pays=any(draft.get("revenue") for draft in drafts),
            is_test=False,
            answers=raw.get("answers"),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"{file} is not a case file: {type(error).__name__}: {error}"
        raise SampleError(msg) from None
    return _as_told(case, provider)


def _as_told(case: Case, provider: Provider) -> Case:
    """With the type in the provider's word, which may hold signs that a file's name cannot."""
    try:
        first = next(provider.notifications(_delivery(case, {})))
    except Exception:  # noqa: BLE001  a case may show a body that cannot be read
        return case
    return replace(case, type=first.type, is_test=first.is_test)


def choose(cases: Sequence[Case], kind: str, variant: str | None) -> Case | None:
    """The case of this type and variant; without a variant, the plainest that makes an event."""
    return next((case for case in cases if case.type == kind and variant in (None, case.variant)), None)


# --- making them fresh ------------------------------------------------------------------------------------------------


def fresh(case: Case, *, id: str | None, now_ms: int, token: str) -> Delivery:  # noqa: A002  it is the option's name
    """The case as an unsigned delivery of now.

    `id` becomes the notification's id, and all other ids follow from it, so that the same `id` is a repeat. Without it
    they all follow from `token`. The first time of the case becomes `now_ms`, the others keep their distance to it.
    Raises `SampleError`.
    """
    seed = token if id is None else id
    swap = {old: similar(old, seed) for old in case.fresh.ids}
    if id is not None:
        if not case.fresh.ids:
            msg = f"the sample {case.type} {case.variant} has no id that could be chosen"
            raise SampleError(msg)
        swap[case.fresh.ids[0]] = id
    return _delivery(case, swap | _times(case.fresh, now_ms))


def notification_id(provider: Provider, delivery: Delivery) -> str:
    """The id under which the relay will know the first notification of it."""
    return next((found.id for found in provider.notifications(delivery)), "")


def signed(delivery: Delivery, provider: Provider, secret: str, *, now_ms: int) -> Delivery:
    """The delivery as it is to be sent: a signature may stand in its headers, its query or its body.

    Raises `SampleError` where the secret cannot sign, `KeptKeyError` where no secret of a source can.
    """
    try:
        return provider.verifier.sign(delivery, secret, now_ms=now_ms)
    except KeptKeyError:
        raise
    except Exception as error:
        msg = f"the secret cannot sign for {provider.title}: {error}. {provider.secret.meaning}"
        raise SampleError(msg) from error


def similar(old: str, seed: str) -> str:
    """Another id of the same form, always the same for the same seed."""
    noise = hashlib.shake_256(f"{seed}\0{old}".encode()).digest(64)
    if _is_uuid(old):
        made = str(UUID(bytes=noise[:16], version=4))
        return made if old == old.lower() else made.upper()
    if old.isdecimal():
        length = min(max(len(old), _NUMBER_LENGTH), _LONGEST_NUMBER)
        return "1" + _spelled(noise, _DIGITS, length - 1)
    runs = list(_RUN_WITH_DIGIT.finditer(old)) or list(_RUN.finditer(old))
    if not runs:
        return old + _spelled(noise, _DIGITS + _LOWER, _ID_LENGTH)
    last = runs[-1]
    made = _spelled(noise, _alphabet(last[0]), max(len(last[0]), _ID_LENGTH))
    return old[: last.start()] + made + old[last.end() :]


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def _alphabet(run: str) -> str:
    if run.isdecimal():
        return _DIGITS
    if re.fullmatch(r"[0-9a-f]{16,}", run):
        return _DIGITS + "abcdef"
    return _DIGITS + (_LOWER if run != run.upper() else "") + (_UPPER if run != run.lower() else "")


def _spelled(noise: bytes, alphabet: str, length: int) -> str:
    return "".join(alphabet[noise[place % len(noise)] % len(alphabet)] for place in range(length))


def _times(old: Fresh, now_ms: int) -> dict[str, str]:
    bases = [s * 1000 for s in old.seconds] + list(old.millis) + [_iso_ms(text) for text in old.iso]
    if not bases:
        return {}
    later_ms = now_ms - bases[0]
    return {
        **{str(s): str(s + later_ms // 1000) for s in old.seconds},
        **{str(ms): str(ms + later_ms) for ms in old.millis},
        **{text: _iso_later(text, later_ms) for text in old.iso},
    }


def _iso_ms(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} among the fresh times is not ISO 8601"
        raise SampleError(msg) from None
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def _iso_later(text: str, later_ms: int) -> str:
    """Shifted, in the notation that it had: separator, number of decimals and zone stay."""
    at = datetime.fromisoformat(text) + timedelta(milliseconds=later_ms)
    clock = _FRACTION.search(text)
    if clock is None:
        return at.strftime("%Y-%m-%d")
    decimals = f".{at.microsecond:06d}"[: len(clock[1]) + 1] if clock[1] else ""
    return f"{at:%Y-%m-%d}{text[_DATE_LENGTH]}{at:%H:%M:%S}{decimals}{text[clock.end() :]}"


def _delivery(case: Case, swap: Mapping[str, str]) -> Delivery:
    body = _swapped(case.body, swap)
    text = json.dumps(body, indent=2) if case.is_json else body
    headers = {name.lower(): _swapped(value, swap) for name, value in case.headers.items()}
    kind = "application/json" if case.is_json else kind_of(text)
    known = {"content-type": kind, "user-agent": "relay-send", **headers}
    return Delivery(body=text.encode(), headers=known, answers=_swapped(case.answers, swap))


def kind_of(text: str) -> str:
    """The content type of a body that is no JSON, by what it looks like."""
    if text.lstrip().startswith("<"):
        return "text/xml"
    return "application/x-www-form-urlencoded" if _FORM.fullmatch(text) else "text/plain"


def _swapped(value: Any, swap: Mapping[str, str]) -> Any:
    """With every id and time replaced, inside longer texts too, but never inside a longer word or number."""
    if not swap:
        return value
    olds = "|".join(re.escape(old) for old in sorted(swap, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{olds})(?![A-Za-z0-9])")

    def walk(value: Any) -> Any:
        match value:
            case str():
                return pattern.sub(lambda found: swap[found[0]], value)
            case bool() | None:
                return value
            case int():
                return _number(value, swap.get(str(value)))
            case list():
                return [walk(item) for item in value]
            case dict():
                return {walk(key): walk(item) for key, item in value.items()}
            case _:
                return value

    return walk(value)


def _number(old: int, new: str | None) -> int:
    if new is None:
        return old
    if not new.isdecimal():
        msg = f"{new!r} cannot take the place of {old}: the id of this type is a number"
        raise SampleError(msg)
    return int(new)
