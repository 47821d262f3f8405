"""What the relay says while it runs: one line an event, as JSON for machines or in colour for people, on stderr.

The loggers of uvicorn, alembic and every other library go through the same chain. No body and no secret passes it:
values under telling keys are masked, bytes are told by their length, and tracebacks come without local variables.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

MASK = "[masked]"

_TELLING_KEY = re.compile(
    r"secret|token|passw|credential|authorization|cookie|signature"
    r"|(api|hash|private|encryption|signing)_?keys?|^(raw_?)?body$|^payload$|^headers$",
    re.IGNORECASE,
)
#: Secrets that a text carries along: those that say so by their prefix, and the password of a URL.
_TELLING_TEXT = re.compile(
    r"\b(?:whsec|oa_live|oa_test|[sr]k_live|[sr]k_test)_[\w+/=-]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)

#: Louder than their worth: the relay counts what they tell line by line, and a query string may hold a credential.
_QUIET = ("alembic", "uvicorn.access", "httpx", "httpcore", "asyncio")


def configure(log_format: Format, level: Level, *, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging. `auto` is `console` on a terminal, else `json`.

    uvicorn must run with `log_config=None`, or it brings its own.
    """
    out = sys.stderr if stream is None else stream
    for_people = log_format == "console" or (log_format == "auto" and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask,
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(for_people=for_people, colors=out.isatty()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def mask(_logger: object, _method: str, entry: EventDict) -> EventDict:
    """A processor: replaces what looks like a secret or a body, at any depth."""
    return {key: _masked(key, value) for key, value in entry.items()}


def _masked(key: str, value: Any) -> Any:
    if key.startswith("_"):
        return value  # structlog's own: the record of a library's line
    match value:
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _ if _TELLING_KEY.search(key):
            return MASK
        case str():
            return _TELLING_TEXT.sub(MASK, value)
        case Mapping():
            return {str(name): _masked(str(name), item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(key, item) for item in value]
        case _:
            return _TELLING_TEXT.sub(MASK, str(value))


def _renderer(*, for_people: bool, colors: bool) -> Processor:
    if for_people:
        return structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, repr_native_str=True)
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _to_json(entry: MutableMapping[str, Any], **_options: Any) -> str:
    first = {key: entry[key] for key in ("timestamp", "level", "event") if key in entry}
    return json.dumps({**first, **entry}, default=str)  # not orjson, which raises on lone surrogates and long integers
