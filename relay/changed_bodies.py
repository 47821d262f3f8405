"""What a body may have been before something on its way wrote it anew.

In: the bytes that came. Out: what the sender may have signed, each with words that say how it differs, the likeliest
first. Only forms that senders really use: the number of tries stays small.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from itertools import product
from typing import Any

_BOM = b"\xef\xbb\xbf"
_LARGEST = 1_048_576
#: Marks the text of a number with a fraction, which must come out as it went in: 10.00 stays 10.00.
_NUMBER = "a number of the body: "
_IS_NUMBER = re.compile(f'"{_NUMBER}([^"]*)"')


def likely_originals(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Each with words that end the sentence "it fits ..."; none is the body itself, and none comes twice."""
    seen = {body}
    for words, original in (*_lines(body), *_encodings(body), *_written_anew(body)):
        if original not in seen:
            seen.add(original)
            yield words, original


def _lines(body: bytes) -> Iterator[tuple[str, bytes]]:
    for end in (b"\n", b"\r\n"):
        yield "with the line break at its end, which was taken away", body + end
    yield "without the line break at its end, which was added", body.rstrip(b"\r\n")
    yield "without the white space around it, which was added", body.strip()
    yield "with \\n where now \\r\\n stands", body.replace(b"\r\n", b"\n")
    yield "with \\r\\n where now \\n stands", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _encodings(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "without the byte order mark, which was added", body.removeprefix(_BOM)
    yield "with the byte order mark, which was taken away", _BOM + body
    for words, read, written in (
        ("in Latin-1: it was rewritten in UTF-8", "utf-8", "latin-1"),
        ("in UTF-8: it was taken for Latin-1 and encoded once more", "utf-8", "cp1252"),
        ("in UTF-8: it was rewritten in Latin-1", "latin-1", "utf-8"),
        ("in UTF-8: it was rewritten in UTF-16", "utf-16", "utf-8"),
    ):
        try:
            yield words, body.decode(read).encode(written)
        except (UnicodeDecodeError, UnicodeEncodeError):
            continue
    unpacked = _unpacked(body)
    if unpacked is not None:
        yield "once it is unpacked: it was compressed on its way", unpacked


def _unpacked(body: bytes) -> bytes | None:
    if not body.startswith(b"\x1f\x8b"):
        return None
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            return file.read(_LARGEST)
    except (OSError, EOFError, zlib.error):
        return None


def _written_anew(body: bytes) -> Iterator[tuple[str, bytes]]:
    """JSON that was parsed and written again: how the usual libraries would have written it at first."""
    try:
        value = json.loads(body, parse_float=_NUMBER.__add__)
    except (ValueError, RecursionError):
        return
    if isinstance(value, str):
        yield "as the JSON within the text: it was put into quotation marks", value.encode("utf-8", "surrogatepass")
        return
    if not isinstance(value, (dict, list)):
        return
    layouts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("as compact JSON", {"separators": (",", ":")}),
        ("as JSON with an indent of 2", {"indent": 2}),
        ("as JSON with a space behind each comma and colon", {"separators": (", ", ": ")}),
        ("as JSON with an indent of 4", {"indent": 4}),
    )
    for (words, layout), is_ascii, is_sorted in product(layouts, (False, True), (False, True)):
        text = json.dumps(value, ensure_ascii=is_ascii, sort_keys=is_sorted, **layout)
        ways = (", with \\u escapes" if is_ascii else "") + (", its keys sorted" if is_sorted else "")
        raw = _IS_NUMBER.sub(r"\1", text).encode("utf-8", "surrogatepass")
        yield f"{words}{ways}: it was parsed and written anew", raw
        if not is_sorted:
            yield f"{words}{ways}, with \\/ for each slash: it was parsed and written anew", raw.replace(b"/", b"\\/")
            yield f"{words}{ways}, with a line break at its end: it was parsed and written anew", raw + b"\n"
            yield f"{words}{ways}, with \\u escapes for < > &: it was parsed and written anew", _for_html(raw)


def _for_html(raw: bytes) -> bytes:
    """As Go and Rails write it."""
    return raw.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
