"""The times that providers sign, as text: read to Unix milliseconds, and written.

What is signed is always the text as it came; a text that is not of the provider's form is no time at all, so that
nothing of the message next to it can pass for a part of it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Literal

#: `seconds`, `milliseconds`: Unix time. `seconds_of_10_digits`: since 2001 and until 2286, and nothing shorter or
#: longer. `seconds_or_milliseconds`: told apart by length. `any`: for providers that do not say, written as `rfc1123`.
Unit = Literal[
    "seconds", "milliseconds", "seconds_of_10_digits", "seconds_or_milliseconds", "iso8601", "rfc1123", "any"
]

#: Unix time with more digits is in milliseconds.
_SECONDS_LENGTH = 11
_CLOCK = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_FORMS: dict[Unit, re.Pattern[str]] = {
    "seconds": re.compile(r"[0-9]{1,11}"),
    "milliseconds": re.compile(r"[0-9]{1,14}"),
    "seconds_of_10_digits": re.compile(r"[0-9]{10}"),
    "seconds_or_milliseconds": re.compile(r"[0-9]{1,14}"),
    "iso8601": re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ]{_CLOCK}(\.[0-9]+)?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"),
    "rfc1123": re.compile(rf"[A-Z][a-z]{{2}}, [0-9]{{1,2}} [A-Z][a-z]{{2}} [0-9]{{4}} {_CLOCK} (GMT|UTC|\+0000)"),
}
_FORMS["any"] = re.compile("|".join(_FORMS[unit].pattern for unit in ("rfc1123", "iso8601", "seconds_or_milliseconds")))


def read_ms(text: str, unit: Unit) -> int:
    """Unix milliseconds. A time without a zone is UTC. Raises `ValueError` for anything that is not of the form."""
    if _FORMS[unit].fullmatch(text) is None:
        msg = f"no time in {unit}"
        raise ValueError(msg)
    match unit:
        case "milliseconds":
            return int(text)
        case "seconds" | "seconds_of_10_digits" | "seconds_or_milliseconds":
            is_ms = unit == "seconds_or_milliseconds" and len(text) > _SECONDS_LENGTH
            return int(text) if is_ms else int(text) * 1000
        case "iso8601":
            return _unix_ms(datetime.fromisoformat(text))
        case "rfc1123":
            return _unix_ms(parsedate_to_datetime(text))
        case "any":
            units: tuple[Unit, ...] = ("rfc1123", "iso8601", "seconds_or_milliseconds")
            return read_ms(text, next(one for one in units if _FORMS[one].fullmatch(text)))


def write(now_ms: int, unit: Unit) -> str:
    """The time as the provider would write it."""
    match unit:
        case "milliseconds":
            return str(now_ms)
        case "seconds" | "seconds_of_10_digits" | "seconds_or_milliseconds":
            return str(now_ms // 1000)
        case "iso8601":
            return f"{datetime.fromtimestamp(now_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
        case "rfc1123" | "any":
            return format_datetime(datetime.fromtimestamp(now_ms // 1000, UTC), usegmt=True)


def _unix_ms(at: datetime) -> int:
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)
