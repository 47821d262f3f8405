"""The body of a request, as it came: never more of it is taken in than the limit allows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class TooLargeError(Exception):
    """The body is over the limit, or says that it will be."""


class GoneError(Exception):
    """The sender broke off before its request was whole."""


async def read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; `limit` is in bytes. Raises `TooLargeError`, `GoneError`."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise TooLargeError
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLargeError
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
