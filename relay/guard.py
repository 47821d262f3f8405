"""The last look at every field that goes out.

In: the fields of an event. Out: nothing, where nothing is wrong; otherwise the findings, and the fields without what
was found: a text becomes `[redacted]`, a key that names personal data goes, an offending user id is hashed, a URL loses
the parts that offend. A finding names the place and the kind, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, assert_never
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from relay.contract import Scalar
from relay.event import Event
from relay.identity import hash_text, is_hash
from relay.personal import (
    About,
    Kind,
    about_key,
    is_bare_phone,
    is_large,
    kind_of,
    kind_of_number,
    looks_clean,
    readings,
)

Mode = Literal["redact", "reject"]

REDACTED = "[redacted]"
REDACTED_NAME = "redacted"


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data in one field (`properties.note`); for a key that is personal data itself, only `properties`."""

    field: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """The fields without what was found."""

    event_name: str | None
    user_id: str | None
    url: str | None
    properties: dict[str, Scalar]
    findings: tuple[Finding, ...]


def inspect(event: Event, mode: Mode = "redact", *, hash_key: bytes | None = None) -> tuple[Event, tuple[Finding, ...]]:
    """The event that may go out, and what was found. In the mode `reject` it stays as it is: the caller decides."""
    cleaned = examine(
        event_name=event.event_name,
        user_id=event.user_id,
        url=event.url,
        properties=event.properties,
        hash_key=hash_key,
    )
    if cleaned is None:
        return event, ()
    if mode == "reject":
        return event, cleaned.findings
    update = {
        "event_name": cleaned.event_name,
        "user_id": cleaned.user_id,
        "url": cleaned.url,
        "properties": cleaned.properties,
    }
    return event.model_copy(update=update), cleaned.findings


def examine(
    *,
    event_name: str | None,
    user_id: str | None,
    url: str | None,
    properties: Mapping[str, Scalar],
    hash_key: bytes | None = None,
) -> Cleaned | None:
    """None where nothing was found, which is the common case and the cheap one."""
    findings: list[Finding] = []
    if user_id and not is_hash(user_id) and (kind := kind_of(user_id)):
        findings.append(Finding("user_id", kind))
        user_id = hash_text(user_id.strip().lower() if kind is Kind.EMAIL else user_id.strip(), hash_key)
    if url:
        url, kinds = clean_url(url)
        findings += (Finding("url", kind) for kind in kinds)
    are_clean = _are_clean(event_name, properties)
    kept = dict(properties) if are_clean else {}
    if not are_clean:
        if event_name and (kind := kind_of(event_name)):
            findings.append(Finding("event_name", kind))
            event_name = REDACTED_NAME
        for key, value in properties.items():
            if _is_clean(key, value):
                kept[key] = value
            else:
                found = _clean_property(key, value)
                findings += found.findings
                kept |= found.kept
    if not findings:
        return None
    return Cleaned(event_name=event_name, user_id=user_id, url=url, properties=kept, findings=tuple(findings))


def _are_clean(event_name: str | None, properties: Mapping[str, Scalar]) -> bool:
    """All texts at one look."""
    if not _are_plain(tuple(properties)):
        return False
    texts = [event_name] if event_name else []
    for value in properties.values():
        if isinstance(value, str):
            texts.append(value)
        elif is_large(value):
            return False
    joined = "\n".join(texts)
    return looks_clean(joined) and "://" not in joined


@lru_cache(maxsize=1024)  # a mapper uses the same keys again and again
def _are_plain(keys: tuple[str, ...]) -> bool:
    return all(about_key(key) is About.NOTHING for key in keys)


def _is_clean(key: str, value: Scalar) -> bool:
    if about_key(key) is not About.NOTHING:
        return False
    return looks_clean(value) and "://" not in value if isinstance(value, str) else not is_large(value)


@dataclass(frozen=True, slots=True)
class _Property:
    kept: dict[str, Scalar]
    findings: tuple[Finding, ...] = ()


def _clean_property(key: str, value: Scalar) -> _Property:
    place = f"properties.{key}"
    about = about_key(key)
    match about:
        case About.PERSON:
            return _Property({}, (Finding(place, Kind.KEY),))
        case About.ITSELF:
            return _Property({}, (Finding("properties", kind_of(key) or Kind.KEY),))
        case About.PHONE if is_bare_phone(value):
            return _Property({key: REDACTED}, (Finding(place, Kind.PHONE),))
        case About.PHONE | About.NOTHING:
            pass
        case _:
            assert_never(about)
    if isinstance(value, str):
        if value.startswith(("http://", "https://")):
            cleaned, kinds = clean_url(value)
            return _Property({key: cleaned or REDACTED}, tuple(Finding(place, kind) for kind in kinds))
        kind = kind_of(value)
    else:
        kind = None if isinstance(value, bool) else kind_of_number(value)
    return _Property({key: REDACTED}, (Finding(place, kind),)) if kind else _Property({key: value})


# --- URLs -------------------------------------------------------------------------------------------------------------


def clean_url(url: str) -> tuple[str | None, tuple[Kind, ...]]:
    """The URL without what offends, and the kinds that were found.

    User and password always go. A parameter goes when its key names personal data or its value holds some, a segment of
    the path is replaced, an offending fragment goes whole. None where the host itself offends or nothing can be read.
    """
    if _is_clean_url(url):
        return url, ()
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets in the host that hold no IPv6 address
        return None, (Kind.IP,)
    host = parts.netloc.rpartition("@")[2]
    kinds = [] if host == parts.netloc else [Kind.USERINFO]
    if kind := kind_of(host):
        return None, (*kinds, kind)
    path, in_path = _clean_path(parts.path)
    query, in_query = _clean_query(parts.query)
    fragment, in_fragment = _clean_fragment(parts.fragment)
    kinds += in_path + in_query + in_fragment
    if not kinds:
        return url, ()
    return urlunsplit((parts.scheme, host, path, query, fragment)), tuple(dict.fromkeys(kinds))


@lru_cache(maxsize=256)  # most events of a shop have its origin
def _is_clean_url(url: str) -> bool:
    return looks_clean(url.replace("&", "\n")) and _keys_are_plain(url)


def _clean_path(path: str) -> tuple[str, list[Kind]]:
    """Segment by segment; where only the whole offends, none of it is kept."""
    if not kind_of(path):
        return path, []
    segments = path.split("/")
    kinds = [kind for segment in segments if (kind := kind_of(segment))]
    cleaned = "/".join(REDACTED_NAME if kind_of(segment) else segment for segment in segments)
    rest = kind_of(cleaned)
    return (f"/{REDACTED_NAME}", [*kinds, rest]) if rest else (cleaned, kinds)


def _clean_query(query: str) -> tuple[str, list[Kind]]:
    """Parameter by parameter; where only the whole offends, none of it is kept."""
    parameters = re.split("[&;]", query)
    kinds = [kind for parameter in parameters if (kind := _kind_of_parameter(parameter))]
    if kinds:
        query = "&".join(parameter for parameter in parameters if not _kind_of_parameter(parameter))
    rest = kind_of(query.replace("&", "\n"))
    return ("", [*kinds, rest]) if rest else (query, kinds)


def _clean_fragment(fragment: str) -> tuple[str, list[Kind]]:
    kind = kind_of(fragment) or _personal_key_in(f"#{fragment}")
    return ("", [kind]) if kind else (fragment, [])


def _kind_of_parameter(parameter: str) -> Kind | None:
    key, _, value = parameter.partition("=")
    about = about_key(unquote_plus(key))
    match about:
        case About.PERSON:
            return Kind.KEY
        case About.ITSELF:
            return kind_of(key) or Kind.KEY
        case About.PHONE if is_bare_phone(unquote_plus(value)):
            return Kind.PHONE
        case About.PHONE | About.NOTHING:
            if looks_clean(value):
                return None
            return kind_of(value) or _personal_key_in(value)
        case _:
            assert_never(about)


_PARAMETER_KEY = re.compile(r"[?&#;]([^=&?#;/]{1,64})=[^&#;]")


def _keys_are_plain(url: str) -> bool:
    return all(about_key(key) is About.NOTHING for key in _PARAMETER_KEY.findall(url))


def _personal_key_in(text: str) -> Kind | None:
    """A parameter within the text (a URL in a parameter, a route in a fragment) whose key names personal data."""
    keys = (key for reading in readings(text) for key in _PARAMETER_KEY.findall(reading))
    return Kind.KEY if any(about_key(key) is About.PERSON for key in keys) else None
