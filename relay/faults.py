"""How a sandbox misbehaves on demand: the value behind `PUT /faults`.

There are two kinds. Blows (`status` with `retry_after`, `latency_ms`, `drop_answer`, `drop_request`) hit every
`every`-th call and end after `times` hits. Rules (`reject`, `close_batch`, `max_bytes`, `honor_idempotency`) hold for
all calls.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from relay.event import problems_of

_Scalar = bool | int | float | str
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Reject(BaseModel):
    """Refuses each call with an event that fits all that is given here, without saying which event it was."""

    model_config = _STRICT

    event_name: str | None = None
    #: Properties and their values.
    property: dict[str, _Scalar] = {}
    #: Fields of the event itself and their values.
    field: dict[str, _Scalar] = {}
    status: Annotated[int, Field(ge=400, le=499)] = 400

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.event_name is None and not self.property and not self.field:
            msg = "give at least one of event_name, property, field"
            raise ValueError(msg)
        return self

    def fits(self, event: Any) -> bool:
        """Whether this valid event is one to refuse."""
        properties = event.get("properties", {})
        return (
            (self.event_name is None or event.get("event_name") == self.event_name)
            and all(key in properties and properties[key] == value for key, value in self.property.items())
            and all(key in event and event[key] == value for key, value in self.field.items())
        )


class Faults(BaseModel):
    """What goes wrong; as made by `Faults()`, nothing."""

    model_config = _STRICT

    #: A status below 300 takes the events and answers so; any other takes nothing.
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    latency_ms: Annotated[int, Field(ge=0, le=600_000)] = 0
    retry_after: Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$")] | int | None = None
    #: Takes the events, then breaks off the connection.
    drop_answer: bool = False
    #: Breaks off the connection before anything is taken.
    drop_request: bool = False
    every: Annotated[int, Field(ge=1)] = 1
    times: Annotated[int, Field(ge=1)] | None = None

    reject: Reject | None = None
    #: The batch endpoint is missing (true: 404), while the other works.
    close_batch: bool | Literal[404, 405] = False
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    #: The same Idempotency-Key again: the same answer, and nothing is taken twice.
    honor_idempotency: bool = False

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.retry_after is not None and self.status is None:
            msg = "retry_after needs a status to come with"
            raise ValueError(msg)
        has_blow = self.status is not None or self.latency_ms or self.drop_answer or self.drop_request
        if not has_blow and (self.every > 1 or self.times is not None):
            msg = "every and times need a status, latency_ms, drop_answer or drop_request"
            raise ValueError(msg)
        return self

    def at(self, call: int) -> Faults:
        """What call number `call` since they were set (1 is the first) meets: all of it, or the rules without blows."""
        return self if call % self.every == 0 and not self.are_over(call) else self.rules

    def are_over(self, call: int) -> bool:
        """Whether the blows had ended before this call."""
        return self.times is not None and call > self.every * self.times

    @property
    def rules(self) -> Faults:
        """Without the blows."""
        return Faults(
            reject=self.reject,
            close_batch=self.close_batch,
            max_bytes=self.max_bytes,
            honor_idempotency=self.honor_idempotency,
        )

    @property
    def accepts(self) -> bool:
        """Whether the events are taken, as far as the faults go."""
        return self.status is None or self.status < 300  # noqa: PLR2004

    @property
    def batch_status(self) -> int | None:
        """What the batch endpoint answers to everything; None when it works."""
        return (404 if self.close_batch is True else self.close_batch) or None

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What comes with the status."""
        return () if self.retry_after is None else ((b"retry-after", str(self.retry_after).encode()),)


def faults_from_json(body: bytes) -> Faults | str:
    """The faults that a body describes, or what is wrong with it, in words."""
    try:
        return Faults.model_validate_json(body)
    except ValidationError as error:
        return "; ".join(map(str, problems_of(error)))
