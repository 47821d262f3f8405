"""Headers and bodies, as the vault keeps them: alone, or in a bundle with those that came at the same moment.

Bodies of one provider have most of their bytes in common, so that a bundle takes a fraction of the room and of the time
that each of them would take alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, select

from relay.store.schema import bundles, deliveries
from relay.vault import Vault

_LENGTH_BYTES = 4


def pack(about: Mapping[str, Any], body: bytes) -> bytes:
    """Headers (or what else is said about it) and body as one plaintext for the vault."""
    return _with_head(about, [body])


def unpack(plain: bytes) -> tuple[dict[str, Any], bytes]:
    """What `pack` was given."""
    about, start = _head_of(plain)
    return about, plain[start:]


def headers_and_body(plain: bytes) -> tuple[dict[str, str], bytes]:
    """The same, of a delivery: what came from the inbox has its headers among what is said about it."""
    about, body = unpack(plain)
    headers = about.get("headers")
    return headers if isinstance(headers, dict) else about, body


def pack_all(packed: Sequence[tuple[int, bytes]]) -> bytes:
    """Several, by the row ids of their deliveries, as one plaintext."""
    return _with_head([(delivery, len(plain)) for delivery, plain in packed], [plain for _, plain in packed])


def unpack_all(plain: bytes) -> dict[int, bytes]:
    """What `pack_all` was given."""
    sizes, start = _head_of(plain)
    found: dict[int, bytes] = {}
    for delivery, size in sizes:
        found[delivery] = plain[start : start + size]
        start += size
    return found


def _with_head(head: object, parts: Sequence[bytes]) -> bytes:
    said = orjson.dumps(head)
    return b"".join((len(said).to_bytes(_LENGTH_BYTES, "big"), said, *parts))


def _head_of(plain: bytes) -> tuple[Any, int]:
    end = _LENGTH_BYTES + int.from_bytes(plain[:_LENGTH_BYTES], "big")
    return orjson.loads(plain[_LENGTH_BYTES:end]), end


def read(connection: Connection, vault: Vault, delivery: int) -> tuple[dict[str, str], bytes] | None:
    """Headers and body of a delivery; None where they are not kept (any more). Raises `VaultError`."""
    row = connection.execute(
        select(deliveries.c.content, deliveries.c.bundle, bundles.c.content.label("bundled"))
        .outerjoin(bundles, bundles.c.id == deliveries.c.bundle)
        .where(deliveries.c.id == delivery)
    ).first()
    if row is not None and row.content is not None:
        return headers_and_body(vault.open(row.content, row=delivery))
    if row is not None and row.bundled is not None:
        return headers_and_body(unpack_all(vault.open(row.bundled, row=row.bundle))[delivery])
    return None
