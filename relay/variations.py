"""What a delivery could have been: without one of its parts, in another currency, of another type, tampered.

In: a body as a case has it, JSON or text, or a signed delivery. Out: those that differ in one thing, and the texts in a
body that name a person. Pure; made for the conformance kit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from copy import copy
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from relay.contract import Delivery

#: Is told in words what is different about a body; says whether it makes a difference.
Attempt = Callable[[str, Any], bool]


def try_without_parts(body: Any, attempt: Attempt, *, always: Collection[str] = ()) -> None:
    """Try it with each key at every depth left out, and set to null; of a form its fields, of another text its lines.

    What is inside a part that makes no difference is not tried: nobody reads it. `always`: keys that stay, by their
    path (`data.object.amount`).
    """
    if not isinstance(body, str):
        _try_without_keys(body, "", attempt, always)
    elif _is_form(body):
        fields = parse_qsl(body, keep_blank_values=True)
        for place, (name, _) in enumerate(fields):
            attempt(f"without {name}", urlencode([*fields[:place], *fields[place + 1 :]]))
            attempt(f"with {name} empty", urlencode([*fields[:place], (name, ""), *fields[place + 1 :]]))
    else:
        lines = body.splitlines(keepends=True)
        for place in range(len(lines)):
            attempt(f"without line {place + 1}", "".join([*lines[:place], *lines[place + 1 :]]))
        attempt("cut in half", body[: len(body) // 2])


def _is_form(text: str) -> bool:
    return re.fullmatch(r"[^\s=&<{]+=[^\s<]*", text.strip()) is not None


def _try_without_keys(value: Any, path: str, attempt: Attempt, always: Collection[str]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            place, is_read = f"{path}.{key}" if path else key, True
            if not any(kept == place or kept.startswith(f"{place}.") for kept in always):
                is_read = attempt(f"without {place}", {name: other for name, other in value.items() if name != key})
                is_read |= item is not None and attempt(f"with {place} null", {**value, key: None})
            if is_read and isinstance(item, (dict, list)):
                _try_without_keys(item, place, _inside(attempt, value, key), always)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _try_without_keys(item, f"{path}.{place}", _inside(attempt, value, place), always)


def _inside(attempt: Attempt, whole: Any, place: Any) -> Attempt:
    """The attempt on a part, as one on the whole that holds it."""

    def on_the_whole(words: str, part: Any) -> bool:
        varied = copy(whole)
        varied[place] = part
        return attempt(words, varied)

    return on_the_whole


# --- what is signed ---------------------------------------------------------------------------------------------------

#: How many places of a body are tampered.
_PLACES = 12


def tampered(sent: Delivery, resign: Callable[[Delivery], Delivery]) -> Iterator[tuple[str, Delivery]]:
    """The signed delivery with one thing changed in its body, its query or its headers: only where that is signed.

    `resign` makes a signature anew. What it leaves as it was after a change is not signed by the provider's scheme.
    """
    is_repeatable = _looks(resign(sent)) == _looks(sent)
    for words, changed in _changes(sent):
        try:
            is_signed = _looks(resign(changed)) != _looks(changed)
        except ValueError:  # what is signed can no longer be read
            is_signed = True
        if is_signed and (is_repeatable or changed.body != sent.body):
            yield words, changed


def _changes(sent: Delivery) -> Iterator[tuple[str, Delivery]]:
    size = len(sent.body)
    for place in sorted({place * (size - 1) // (_PLACES - 1) for place in range(_PLACES)}) if size else ():
        yield f"byte {place} of its body changed", replace(sent, body=_flipped(sent.body, place))
    for place, character in enumerate(sent.query):
        if character not in "&=":
            query = _flipped(sent.query.encode(), place).decode("latin-1")
            yield f"character {place} of its query changed", _asking(sent, query)
    if sent.query:
        yield "no query", _asking(sent, "")
    if sent.url:
        yield "another URL", replace(sent, url=sent.url.replace("relay", "other"))
    for name, value in sent.headers.items():
        others = {other: text for other, text in sent.headers.items() if other != name}
        yield f"no header {name}", replace(sent, headers=others)
        for place in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
            text = _flipped(value.encode("latin-1", "replace"), place).decode("latin-1")
            yield f"character {place} of the header {name} changed", replace(sent, headers={**others, name: text})


def _flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def _asking(sent: Delivery, query: str) -> Delivery:
    base = sent.url.partition("?")[0]
    return replace(sent, query=query, url=f"{base}?{query}" if query else base)


def _looks(delivery: Delivery) -> tuple[Any, ...]:
    """What a reader makes of it: of JSON and of forms not the notation."""
    try:
        body: Any = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        text = delivery.body.decode("latin-1")
        body = parse_qsl(text, keep_blank_values=True) if _is_form(text) else delivery.body
    url = delivery.url.partition("?")[0]
    return body, parse_qsl(delivery.query, keep_blank_values=True), url, dict(delivery.headers)


def replaced(body: Any, change: Callable[[str], str | None]) -> Any:
    """With every text in it changed; keys stay as they are."""
    match body:
        case str():
            return change(body)
        case dict():
            return {key: replaced(item, change) for key, item in body.items()}
        case list():
            return [replaced(item, change) for item in body]
        case _:
            return body


def in_currency(body: Any, old: str, new: str) -> Any:
    """With one currency in the place of another, in the case that it was written in."""

    def change(text: str) -> str:
        if text.upper() != old.upper():
            return text
        return new.lower() if text.islower() else new.upper()

    if isinstance(body, str):  # a form, or a text with markup: the code stands alone between signs
        return re.sub(
            rf"(?<![A-Za-z0-9]){old}(?![A-Za-z0-9])", lambda found: change(found[0]), body, flags=re.IGNORECASE
        )
    return replaced(body, change)


def numbers_in(body: Any) -> Iterator[Decimal]:
    """Every number in it, also those that are written as a text."""
    match body:
        case bool() | None:
            return
        case int() | float():
            yield Decimal(str(body))
        case str():
            yield from (Decimal(found) for found in re.findall(r"(?<![\w.])\d{1,15}(?:\.\d{1,9})?(?![\w.])", body))
        case dict():
            for item in body.values():
                yield from numbers_in(item)
        case list():
            for item in body:
                yield from numbers_in(item)
        case _:
            return


# --- persons ----------------------------------------------------------------------------------------------------------

_EMAIL = re.compile(r"[^\s@<>\"'=&;,]+@[^\s@<>\"'=&;,]+\.[A-Za-z]{2,}")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
#: Keys under which a person's name, address or number stands, wherever they are.
_PERSONAL = re.compile(
    r"(first|last|given|family|full|middle|maiden|sur|user|nick|display|individual|cardholder|card_holder|holder|"
    r"customer|client|buyer|payer|shipping|billing|recipient|contact|subscriber|person|attendee|invitee)_?name"
    r"|(e_?)?mail(_?address)?|phone(_?number)?|mobile|telephone|msisdn|fax"
    r"|(street|address)(_?(line_?)?\d)?|line_?\d|street_?address|postal_?code|post_?code|zip(_?code)?|city"
    r"|ip(_?address)?|client_?ip|birth_?(day|date)|date_?of_?birth|last_?4|iban|tax_?id|vat_?(id|number)"
)
#: Under these, `name` is a person's.
_PEOPLE = re.compile(
    r"customers?|clients?|buyers?|payers?|payees?|users?|contacts?|leads?|persons?|people|persona|subscribers?|members?"
    r"|recipients?|senders?|from|to|attendees?|invitees?|guests?|owners?|cards?|holder|cardholder"
    r"|(billing|shipping|customer|payer|buyer|recipient|delivery)_?(address|details|info|contact|name)?|profile"
)


def personal_texts(body: Any) -> set[str]:
    """The texts that name somebody: by the key that they stand under, or by what they look like."""
    if isinstance(body, str):
        fields = dict(parse_qsl(body)) if _is_form(body) else {}
        return set(_personal(fields, "", "")) | _looking_personal(body)
    return set(_personal(body, "", ""))


def _personal(value: Any, key: str, parent: str) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                yield from _personal(item, _plain(name), key)
        case list():
            for item in value:
                yield from _personal(item, key, parent)
        case str():
            yield from _looking_personal(value)
            if _PERSONAL.fullmatch(key) or (key == "name" and _PEOPLE.fullmatch(parent)):
                yield value
        case _:
            pass


def _plain(key: str) -> str:
    """`shippingAddress` and `Shipping-Address` are `shipping_address`."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()).strip("_")


def _looking_personal(text: str) -> set[str]:
    return {*_EMAIL.findall(text), *_IP.findall(text)}
