"""Deliveries as they may be shown to anybody who may look: with the shape and the ids, without the personal data.

A text is shown only where its key says that it is an id, a type, a time or the like and the guard finds nothing in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from relay.personal import About, about_key, kind_of

MASK = "•••"
_PLAIN_KEY = re.compile(
    r"(^|[_.\-])(id|ids|type|object|event|events|kind|topic|action|status|state|currency|mode|livemode|version|api_version"
    r"|created|updated|date|time|timestamp|reason|interval|unit|quantity|amount|total|tax|name_of_event|method|code)$",
    re.IGNORECASE,
)
_CAMEL_KEY = re.compile(r"[a-z](Id|Type|Status|At|Date|Time|Currency|Amount|Event|Code)$")
_PLAIN_TEXT = re.compile(r"[\w.:/+\-]{1,80}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]?[\d:.Z+\- ]*")
_PLAIN_HEADERS = frozenset({
    "content-type", "content-length", "content-encoding", "accept", "accept-encoding", "user-agent", "host", "date",
    "webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp", "x-request-id",
})  # fmt: skip
_PLAIN_HEADER = re.compile(r"(event|topic|type|timestamp|delivery|webhook-id|-id)$")


def masked_body(body: bytes) -> str:
    """The body with what may be personal replaced by `•••`; what cannot be read is not shown at all."""
    try:
        parsed = json.loads(body, parse_float=Decimal)
    except ValueError:
        return _masked_form(body)
    return json.dumps(_masked(parsed, ""), indent=2, ensure_ascii=False, default=float)


def _masked_form(body: bytes) -> str:
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
    except ValueError:
        return f"({len(body)} bytes that are neither JSON nor a form)"
    return "\n".join(f"{key} = {_masked(value, key)}" for key, value in fields)


def _masked(value: Any, key: str) -> Any:
    match value:
        case dict():
            return {_shown_key(name): _masked(inner, name) for name, inner in value.items()}
        case list():
            return [_masked(inner, key) for inner in value]
        case str():
            return value if not value or _is_plain(key, value) else MASK
        case bool() | None:
            return value
        case _:  # numbers: amounts and times, but for those whose key names a person's
            return MASK if about_key(key) is not About.NOTHING else value


def _shown_key(key: str) -> str:
    return MASK if kind_of(key) else key


def _is_plain(key: str, text: str) -> bool:
    if about_key(key) is not About.NOTHING or kind_of(text):
        return False
    if _MOMENT.fullmatch(text):
        return True
    return bool(_PLAIN_TEXT.fullmatch(text) and (_PLAIN_KEY.search(key) or _CAMEL_KEY.search(key)))


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without signatures and addresses."""
    return {name: value if _shows(name, value) else MASK for name, value in sorted(headers.items())}


def _shows(name: str, value: str) -> bool:
    return (name in _PLAIN_HEADERS or bool(_PLAIN_HEADER.search(name))) and not kind_of(value)
