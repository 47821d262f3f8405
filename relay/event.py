"""The event: what the events API takes, and only that.

In: fields that the relay made, or JSON of a stranger (`check`). Out: a frozen `Event` that the API's documented rules
allow, or problems as values, each with the field that it is about. `to_json` and `from_json` keep every digit of a
decimal. Messages never repeat a value, so they can be logged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, LiteralString, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, Strict, ValidationError, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from relay.contract import Scalar
from relay.money import CURRENCIES

MAX_PROPERTIES = 50
MAX_NAME = 100
MAX_USER_ID = 512
MAX_URL = 4096
MAX_TEXT = 65_536
URL_PATTERN = r"^(?i:https?)://[^\s/?#]+\S*$"

DAY_MS = 86_400_000
#: Earlier than 2001: seconds that were taken for milliseconds.
OLDEST_MS = 978_307_200_000
#: Later than 2100: microseconds that were taken for milliseconds.
NEWEST_MS = 4_102_444_800_000


#: The kind of problem that lies between fields.
_ACROSS: Final = "across"


@dataclass(frozen=True, slots=True)
class _Says:
    """One message for a whole type, in place of the validator's own; with `one_of`, those texts and no others."""

    message: str
    one_of: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = core_schema.literal_schema(list(self.one_of)) if self.one_of else handler(source)
        return core_schema.custom_error_schema(inner, custom_error_type="rule", custom_error_message=self.message)


@dataclass(frozen=True, slots=True)
class _Only:
    """Instances of one class: a strict float would take a whole number of any size."""

    kind: type

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.is_instance_schema(self.kind), handler(source)])


#: The bound makes the validator read the text as UTF-8, so a lone surrogate is refused here and not by the serialiser.
_Text = Annotated[str, Strict(), Field(max_length=MAX_TEXT)]
_Whole = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**64)]
_Float = Annotated[Annotated[float, Field(allow_inf_nan=False)], _Only(float)]
#: As many digits as the smallest float has, written out.
_Exact = Annotated[Annotated[Decimal, Field(max_digits=400)], _Only(Decimal)]
_Value = Annotated[
    Annotated[
        _Text | Annotated[bool, Strict()] | _Whole | _Exact | _Float,
        Field(union_mode="left_to_right"),
    ],
    _Says("must be a text, a boolean or a finite number, whole numbers within 64 bits"),
]
_Key = Annotated[Annotated[str, Strict(), Field(min_length=1, max_length=128)], _Says("key must have 1 to 128 letters")]


class Event(BaseModel):
    """One event of the events API.

    `revenue` and `currency` come together or not at all: an amount without a currency cannot be summed, and a currency
    without an amount says nothing. `timestamp` is in Unix milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: Annotated[
        Literal["pageview", "event", "identify", "conversion"],
        _Says("must be one of pageview, event, identify, conversion"),
    ]
    event_name: (
        Annotated[
            Annotated[str, Strict(), Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=MAX_NAME)],
            _Says(f"must be snake_case: a letter, then letters, digits and underscores, at most {MAX_NAME}"),
        ]
        | None
    ) = None
    user_id: (
        Annotated[
            Annotated[str, Strict(), Field(min_length=1, max_length=MAX_USER_ID)],
            _Says(f"must be a string of 1 to {MAX_USER_ID} characters"),
        ]
        | None
    ) = None
    url: (
        Annotated[
            Annotated[str, Strict(), Field(pattern=URL_PATTERN, max_length=MAX_URL)],
            _Says(f"must be an http or https URL of at most {MAX_URL} characters"),
        ]
        | None
    ) = None
    properties: Annotated[dict[_Key, _Value], Field(max_length=MAX_PROPERTIES)] = {}
    revenue: (
        Annotated[
            Annotated[Decimal, Field(max_digits=28)], _Says("must be a finite decimal number of at most 28 digits")
        ]
        | None
    ) = None
    currency: (
        Annotated[
            str,
            _Says("must be an ISO 4217 currency in capital letters", CURRENCIES),
        ]
        | None
    ) = None
    timestamp: (
        Annotated[
            Annotated[int, Strict(), Field(ge=OLDEST_MS, lt=NEWEST_MS)],
            _Says("must be Unix milliseconds between the years 2001 and 2100"),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.event_name is None and self.event_type in ("event", "conversion"):
            raise _across("event_name", "is required for the types event and conversion")  # noqa: EM101  a field
        if (self.revenue is None) is not (self.currency is None):
            missing = "currency" if self.currency is None else "revenue"
            raise _across(missing, "is missing: revenue and currency come together")
        return self


def _across(field: str, message: LiteralString) -> PydanticCustomError:
    return PydanticCustomError(_ACROSS, message, {"field": field})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field (`properties.plan`; empty: with the whole). The message never repeats the value."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}" if self.field else self.message


_PLAINLY = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "too_long": "must have at most {max_length} keys",
}


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """The validator's findings in plain words, each once."""
    found: dict[Problem, None] = {}
    for detail in error.errors(include_url=False, include_input=False):
        told = detail.get("ctx", {})
        field = told["field"] if detail["type"] == _ACROSS else _place(detail["loc"])
        message = _PLAINLY.get(detail["type"], "").format(**told) or detail["msg"]
        found[Problem(field, message)] = None
    return tuple(found)


def _place(steps: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in steps if step != "[key]")


def check(raw: object, *, now_ms: int | None = None) -> Event | tuple[Problem, ...]:
    """Validate a parsed JSON value from outside: the event, or every problem it has.

    With `now_ms`, a timestamp more than a day ahead of it is a problem too. A float keeps the digits of its shortest
    notation: up to 15 of them are those that the sender wrote.
    """
    try:
        event = Event.model_validate(raw)
    except ValidationError as error:
        return problems_of(error)
    if now_ms is not None and event.timestamp is not None and event.timestamp > now_ms + DAY_MS:
        return (Problem("timestamp", "lies more than a day in the future"),)
    return event


def _exactly(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError


def to_json(event: Event) -> bytes:
    """The event as the API takes it: fields in the order of the model, decimals digit for digit, None left out."""
    body: dict[str, str | int | Decimal | dict[str, Scalar]] = {"event_type": event.event_type}
    if event.event_name is not None:
        body["event_name"] = event.event_name
    if event.user_id is not None:
        body["user_id"] = event.user_id
    if event.url is not None:
        body["url"] = event.url
    if event.properties:
        body["properties"] = event.properties
    if event.revenue is not None and event.currency is not None:
        body["revenue"] = event.revenue
        body["currency"] = event.currency
    if event.timestamp is not None:
        body["timestamp"] = event.timestamp
    return orjson.dumps(body, default=_exactly)


def from_json(payload: bytes) -> Event:
    """The event that `to_json` wrote, with every digit of its decimals. Raises `ValueError` for anything else."""
    return Event.model_validate(json.loads(payload, parse_float=Decimal))
