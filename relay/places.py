"""Where in a delivery a value stands, and which of its bytes are signed.

A place is a text: `header:X-Signature`, `query:token`, `form:timestamp`, `json:signature.token`. A template is a text
too: what stands in braces is taken from the delivery as it came, what stands in brackets is left out where a value of
it is missing.

    {body}  {timestamp}  {method}  {url}  {url:decoded}  {url:path}  {form}  and every place: {header:webhook-id}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from relay.contract import parse_json
from relay.verification import Delivery

Reading = Callable[[Delivery], str | None]
Part = Callable[[Delivery, str], bytes | None]

#: More fields than any provider sends; reading them must not take long.
_MOST_FIELDS = 1000
_OPTIONAL = re.compile(r"\[([^][]*)\]")
#: What HubSpot decodes in the URL before it signs it.
#: https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation
_DECODED = re.compile("%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


def reading(place: str) -> Reading:
    """A function that reads the place: None where nothing is there. Raises `ValueError` where the text is no place.

    The function raises `ValueError` where the body is unreadable or a parameter of the query comes twice.
    """
    kind, _, name = place.partition(":")
    lower, path = name.lower(), name.split(".")
    readings: dict[str, Reading] = {
        "header": lambda delivery: delivery.headers.get(lower) or None,
        "query": lambda delivery: _only(value for key, value in pairs(delivery.query) if key == name),
        "form": lambda delivery: form_of(delivery.body).get(name) or None,
        "json": lambda delivery: _dig(parse_json(delivery.body), path),
    }
    if not name or kind not in readings:
        msg = f"{place!r} is no place: header:<name>, query:<name>, form:<name> or json:<dotted path>"
        raise ValueError(msg)
    return readings[kind]


def put(delivery: Delivery, place: str, value: str) -> Delivery:
    """The delivery with this value at that place. Raises `ValueError` where it has no room for one."""
    kind, _, name = place.partition(":")
    match kind:
        case "header":
            return replace(delivery, headers={**delivery.headers, name.lower(): value})
        case "query":
            query = urlencode([*((key, old) for key, old in pairs(delivery.query) if key != name), (name, value)])
            return replace(delivery, query=query, url=delivery.url and f"{delivery.url.partition('?')[0]}?{query}")
        case "form":
            return replace(delivery, body=urlencode({**form_of(delivery.body), name: value}).encode())
        case _:
            body = parse_json(delivery.body)
            _plant(body, name.split("."), value)
            return replace(delivery, body=orjson.dumps(body))


def pairs(text: str) -> list[tuple[str, str]]:
    """A query or form, decoded, in order. Raises `ValueError` for more fields than any provider sends."""
    return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)


def form_of(body: bytes) -> dict[str, str]:
    """A form's fields; of one that comes twice the last. Raises `ValueError` where the body is no form."""
    return dict(pairs(body.decode()))


def _only(values: Iterator[str]) -> str | None:
    found = list(values)
    if len(found) > 1:
        msg = "a parameter of the query comes twice"
        raise ValueError(msg)
    return found[0] or None if found else None


def _dig(value: Any, path: list[str]) -> str | None:
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return str(value) if isinstance(value, (str, int, float)) and value != "" and not isinstance(value, bool) else None


def _plant(body: Any, path: list[str], value: str) -> None:
    for step in path[:-1]:
        body = body.setdefault(step, {}) if isinstance(body, dict) else None
    if not isinstance(body, dict):
        msg = f"the body has no room for {'.'.join(path)}"
        raise ValueError(msg)  # noqa: TRY004  the caller's word for a delivery that cannot be signed
    body[path[-1]] = value


# --- templates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """The signed bytes of a delivery. Raises `ValueError` for a text with an unknown name in it."""

    text: str
    #: The places that must be there.
    needs: tuple[str, ...] = field(init=False, compare=False, repr=False)
    signs_url: bool = field(init=False, compare=False, repr=False)
    _parts: tuple[Part, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        parts: list[Part] = []
        needs: list[str] = []
        for index, piece in enumerate(_OPTIONAL.split(self.text)):  # every second one stood in brackets
            within = [_part(*found) for found in _names(piece)]
            if index % 2:
                parts.append(_optional(within))
            else:
                parts += within
                needs += [f"{name}:{argument}" for _, name, argument in _names(piece) if argument and name != "url"]
        object.__setattr__(self, "_parts", tuple(parts))
        object.__setattr__(self, "needs", tuple(needs))
        object.__setattr__(self, "signs_url", "{url" in self.text)

    @property
    def words(self) -> str:
        return "the body" if self.text == "{body}" else self.text

    def compose(self, delivery: Delivery, timestamp: str = "") -> bytes | None:
        """None where something that is signed is not there. Raises what a place raises."""
        if self.text == "{body}":
            return delivery.body
        return _joined(self._parts, delivery, timestamp)


def _names(piece: str) -> Iterator[tuple[str, str, str]]:
    """(literal, "", "") or ("", name, argument), in order."""
    for literal, name, argument, _ in Formatter().parse(piece):
        if literal:
            yield literal, "", ""
        if name is not None:
            yield "", name, argument or ""


_URLS: dict[str, Callable[[str], str]] = {
    "": str,
    "decoded": lambda url: _DECODED.sub(lambda found: chr(int(found[1], 16)), url),
    "path": lambda url: urlsplit(url).path,
}


def _part(literal: str, name: str, argument: str) -> Part:
    if literal:
        constant = literal.encode()
        return lambda _delivery, _timestamp: constant
    match name, argument:
        case "body", "":
            return lambda delivery, _timestamp: delivery.body
        case "timestamp", "":
            return lambda _delivery, timestamp: timestamp.encode("latin-1")
        case "method", "":
            return lambda delivery, _timestamp: delivery.method.encode()
        case "url", _ if argument in _URLS:
            of = _URLS[argument]
            return lambda delivery, _timestamp: of(delivery.url).encode()
        case "form", "":
            return lambda delivery, _timestamp: "".join(
                map("".join, sorted(set(pairs(delivery.body.decode()))))
            ).encode()
        case "header", _:
            read = reading(f"header:{argument}")
            return lambda delivery, _timestamp: _encoded(read(delivery), "latin-1")
        case "lower_query", _:
            read = reading(f"query:{argument}")
            return lambda delivery, _timestamp: _encoded((read(delivery) or "").lower() or None)
        case _:
            read = reading(f"{name}:{argument}")
            return lambda delivery, _timestamp: _encoded(read(delivery))


def _encoded(value: str | None, encoding: str = "utf-8") -> bytes | None:
    return None if value is None else value.encode(encoding)


def _optional(parts: list[Part]) -> Part:
    return lambda delivery, timestamp: _joined(parts, delivery, timestamp) or b""


def _joined(parts: list[Part] | tuple[Part, ...], delivery: Delivery, timestamp: str) -> bytes | None:
    pieces = [part(delivery, timestamp) for part in parts]
    return None if None in pieces else b"".join(cast("list[bytes]", pieces))
