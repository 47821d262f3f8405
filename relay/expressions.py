"""Expressions of `relay.toml`: where in a notification a value stands.

An expression is JMESPath over the item's body (`order.total`), or `header:<name>`. A text with expressions in braces
(`order:{order.id}`) becomes a key. Both are checked when they are made; what they do not find in a body, or cannot
take, raises `UnmappableError` with the place in the file and the expression, and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Protocol

import jmespath
import orjson
from jmespath import exceptions, functions

from relay.contract import UnmappableError

#: How the user wrote a key.
NameOf = Callable[[str], str]

_HEADER = "header:"
_BRACES = re.compile(r"\{([^{}]*)\}")
#: Unix milliseconds far beyond this millennium; what is larger is no time, and may be very long when written out.
_LATEST = Decimal(10**15)
#: Unix time with more digits is in milliseconds.
_SECONDS = Decimal(10**11)


class Told(Protocol):
    """What an expression reads: an item, or a notification."""

    @property
    def body(self) -> Any: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class _Functions(functions.Functions):
    """JMESPath's own functions, and those that webhooks need beside them."""

    @functions.signature({"types": ["string", "null"]})
    def _func_from_json(self, text: str | None) -> Any:
        return None if text is None else orjson.loads(text)

    @functions.signature({"types": ["string", "null"]})
    def _func_lower(self, text: str | None) -> str | None:
        return None if text is None else text.lower()

    @functions.signature({"types": ["string", "null"]}, {"types": ["string"]})
    def _func_split(self, text: str | None, separator: str) -> list[str] | None:
        return None if text is None else text.split(separator) if separator else [text]


_OPTIONS = jmespath.Options(custom_functions=_Functions())


@dataclass(frozen=True, slots=True)
class Expression:
    """One value of a notification. Raises `ValueError` for a text that is no expression, with what is wrong with it."""

    text: str
    #: Where it is written: `sources.acme.events[0].revenue`.
    place: str = ""
    _find: Callable[[Told], Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_find", _finding(self.text))

    def value(self, told: Told) -> Any:
        """What stands there, None where nothing does. Raises `UnmappableError` where the expression cannot be applied.

        An empty text is nothing.
        """
        try:
            found = self._find(told)
        except exceptions.JMESPathTypeError as error:
            self.fail(f"{error.function_name}() cannot take what it finds ({error.actual_type})")
        except Exception as error:  # noqa: BLE001  a body may be anything, and the message must not repeat it
            self.fail(f"fails on this body ({type(error).__name__})")
        return None if found == "" else found

    def text_of(self, told: Told) -> str | None:
        """As a text: numbers are written out. Raises `UnmappableError` for a list, an object, true and false."""
        value = self.value(told)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.fail(f"finds {kind_of(value)} where a text or a number is needed")
        return str(value).strip() or None

    def required(self, value: Any) -> Any:
        """This value of the expression. Raises `UnmappableError` where it is None."""
        if value is None:
            self.fail("finds nothing")
        return value

    def fail(self, words: str) -> NoReturn:
        """Raises `UnmappableError` with the place, the expression and these words."""
        msg = f"{self.place}: `{self.text}` {words}"
        raise UnmappableError(msg) from None


def kind_of(value: Any) -> str:
    """In words, what a JSON value is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def is_true(value: Any) -> bool:
    """As JMESPath has it: nothing, false and whatever is empty is not; every number is."""
    return value is not None and value is not False and value not in ("", [], {})


def _finding(text: str) -> Callable[[Told], Any]:
    if text.startswith(_HEADER):
        name = text.removeprefix(_HEADER).strip().lower()
        if not name:
            msg = "names no header"
            raise ValueError(msg)
        return lambda told: told.headers.get(name)
    try:
        compiled = jmespath.compile(text)
    except exceptions.EmptyExpressionError:
        msg = "is empty"
        raise ValueError(msg) from None
    except exceptions.JMESPathError as error:
        msg = f"is no JMESPath expression: {_at(error)}"
        raise ValueError(msg) from None
    for function in _called(compiled.parsed):
        if function not in _Functions.FUNCTION_TABLE:
            msg = f"calls {function}(), which JMESPath does not have"
            raise ValueError(msg)
    return lambda told: compiled.search(told.body, options=_OPTIONS)


def _at(error: exceptions.JMESPathError) -> str:
    column = getattr(error, "lex_position", None)
    told = str(getattr(error, "token_value", None) or "")
    where = "" if column is None else f" at column {column + 1}"
    return f"it ends too early{where}" if not told else f"{told!r} is not expected{where}"


def _called(node: Mapping[str, Any]) -> Iterator[str]:
    """The names of all functions in a parsed expression."""
    if node.get("type") == "function_expression":
        yield str(node["value"])
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _called(child)


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A text with expressions in braces. Raises `ValueError` where it would be the same for every notification."""

    text: str
    place: str = ""
    _parts: tuple[str | Expression, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        pieces = _BRACES.split(self.text)  # every second one stood in braces
        if len(pieces) == 1 or any("{" in piece or "}" in piece for piece in pieces[::2]):
            msg = "must have an expression in braces, as in order:{order.id}: else all notifications would be one"
            raise ValueError(msg)
        parts = [
            Expression(piece.strip(), self.place) if number % 2 else piece
            for number, piece in enumerate(pieces)
            if piece or number % 2
        ]
        object.__setattr__(self, "_parts", tuple(parts))

    def of(self, told: Told) -> str | None:
        """The key; None where one of its expressions finds nothing."""
        found = [part if isinstance(part, str) else part.text_of(told) for part in self._parts]
        return None if None in found else "".join(filter(None, found))


# --- times ------------------------------------------------------------------------------------------------------------

TIME_FORMATS = ("iso8601", "seconds", "milliseconds", "seconds_or_milliseconds", "rfc1123")


def check_time_format(text: str) -> str:
    """The format, unchanged. Raises `ValueError` where it is none of the known ones and no `strptime` pattern."""
    if text in TIME_FORMATS:
        return text
    known = ", ".join(TIME_FORMATS)
    if "%" not in text:
        msg = f"must be one of {known}, or a pattern such as %d/%m/%Y %H:%M:%S"
        raise ValueError(msg)
    try:
        at = datetime(2026, 11, 23, 12, 30, 15, tzinfo=UTC)
        datetime.strptime(at.strftime(text), text).replace(tzinfo=UTC)
    except ValueError:
        msg = "is a pattern that reads no time"
        raise ValueError(msg) from None
    return text


def moment(value: Any, form: str) -> int:
    """Unix milliseconds; a time without a zone is UTC. Raises `ValueError` for anything that is not of the form."""
    if form in {"seconds", "milliseconds", "seconds_or_milliseconds"}:
        return _unix_ms(value, form)
    if not isinstance(value, str):
        msg = "no text"
        raise ValueError(msg)  # noqa: TRY004  a value of another form, like any other
    if form == "iso8601":
        at = datetime.fromisoformat(value.strip())
    elif form == "rfc1123":
        at = parsedate_to_datetime(value)
    else:
        at = datetime.strptime(value, form)  # noqa: DTZ007  its zone follows
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def _unix_ms(value: Any, form: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        msg = "no number"
        raise ValueError(msg)  # noqa: TRY004
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        msg = "no number"
        raise ValueError(msg) from None
    if not number.is_finite() or number.copy_abs() >= _LATEST:
        msg = "no time"
        raise ValueError(msg)
    is_ms = form == "milliseconds" or (form == "seconds_or_milliseconds" and number.copy_abs() >= _SECONDS)
    return int(number if is_ms else number * 1000)
