"""Bundles of the inbox: deliveries that share a commit, as one blob of the vault. Both backends keep the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from relay.ids import RowIds, made_at_ms
from relay.store.base import Inboxed, Verified
from relay.store.bodies import pack, pack_all, unpack, unpack_all
from relay.vault import Vault, VaultError

log = structlog.get_logger("relay.store")

#: The most bytes of bodies in one bundle, but for a body that is larger alone.
MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A row of the inbox."""

    row: int
    deliveries: int
    content: bytes


def bundled(group: Iterable[Verified], *, vault: Vault, ids: RowIds) -> list[Bundle]:
    """The rows that hold these deliveries: one, unless they are large."""
    packed: list[list[tuple[int, bytes]]] = [[]]
    size = 0
    for one in group:
        if packed[-1] and size + len(one.body) > MOST_BYTES:
            packed.append([])
            size = 0
        about = {"source": one.source, "secret": one.secret, "headers": one.headers}
        one.delivery = ids.next()
        packed[-1].append((one.delivery, pack(about, one.body)))
        size += len(one.body)
    return [_sealed(said, vault) for said in packed]


def _sealed(said: list[tuple[int, bytes]], vault: Vault) -> Bundle:
    row = said[0][0]
    return Bundle(row=row, deliveries=len(said), content=vault.seal(pack_all(said), row=row))


class Opener:
    """Opens bundles. One whose key is not configured stays in the inbox until a start with that key."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        #: Rows that cannot be read: each is looked at once, and said once.
        self.unreadable: list[int] = []

    def open(self, row: int, content: bytes) -> list[Inboxed]:
        """The deliveries of a bundle; none where it cannot be read."""
        try:
            bundle = unpack_all(self._vault.open(content, row=row))
        except VaultError as error:
            self.unreadable.append(row)
            log.error("a bundle of the inbox stays there until its key is configured", bundle=row, reason=str(error))  # noqa: TRY400  no traceback is needed
            return []
        return [_inboxed(row, content, delivery, plain) for delivery, plain in bundle.items()]


def _inboxed(bundle: int, sealed: bytes, delivery: int, plain: bytes) -> Inboxed:
    about, body = unpack(plain)
    return Inboxed(
        delivery=delivery, bundle=bundle, source=about["source"], received_at_ms=made_at_ms(delivery),
        secret=about["secret"], headers=about["headers"], body=body, sealed=sealed,
    )  # fmt: skip
