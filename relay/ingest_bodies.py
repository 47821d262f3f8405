"""What a call brings: its body, perhaps gzip, within the limit, and the key under which it is remembered."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

from relay.bodies import Receive, Scope, TooLargeError, read
from relay.ingest_answers import Answer, no

LONGEST_KEY = 255
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_GZIP = ("gzip", "x-gzip")


class Refusal(Exception):  # noqa: N818  no error of ours: the answer to a call that cannot be read
    """The call cannot be taken as it is; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.code)


def content_problem(headers: Mapping[str, str]) -> Answer | None:
    """Whether the body is of a kind that is read."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        return no(415, "not_json", "Content-Type must be application/json", accept="application/json")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", *_GZIP):
        return no(415, "unknown_encoding", "Content-Encoding must be gzip or nothing", accept_encoding="gzip")
    return None


async def read_call(scope: Scope, receive: Receive, headers: Mapping[str, str], *, limit: int) -> bytes:
    """The body as it was before it was packed, within the limit too. Raises `Refusal`, `GoneError`."""
    too_large = no(413, "too_large", f"The body is larger than {limit} bytes")
    try:
        body = await read(scope, receive, limit)
    except TooLargeError:
        raise Refusal(too_large) from None
    if headers.get("content-encoding", "").strip().lower() not in _GZIP:
        return body
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        unpacked = b""
    if len(unpacked) > limit:
        raise Refusal(too_large)
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(no(400, "invalid_gzip", "The body is not one whole gzip stream"))
    return unpacked


def call_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The Idempotency-Key, with or without the quotation marks of the draft. Raises `Refusal`."""
    said = [value.decode("latin-1").strip() for name, value in headers if name == b"idempotency-key"]
    if not said:
        return None
    key = said[0]
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(said) > 1 or len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        words = f"Idempotency-Key must come once, with 1 to {LONGEST_KEY} printable ASCII characters"
        raise Refusal(no(400, "invalid_idempotency_key", words))
    return f"key:{key}"
