"""Bodies at rest: compressed, then encrypted with AES-256-GCM.

In: bytes and the id of the row that will hold them. Out: one blob (key id, nonce, ciphertext) that opens only with
that row's id. The first key encrypts, every key decrypts: put a new one in front to rotate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES = 32
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class VaultError(ValueError):
    """A key is unusable, or a blob does not open with any of the keys."""


def parse_key(text: str) -> bytes:
    """A key from its base64 form. Raises `VaultError` where it is not 32 bytes."""
    try:
        key = base64.b64decode(text.strip(), altchars=b"-_" if {"-", "_"} & set(text) else None, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        msg = "an encryption key is 32 bytes in base64; make one with: openssl rand -base64 32"
        raise VaultError(msg)
    return key


def key_file(path: Path) -> tuple[bytes, bool]:
    """The key in this file, and whether it was made just now (readable by its owner only)."""
    try:
        return parse_key(path.read_text()), False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(_KEY_BYTES)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(base64.b64encode(key).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        return key, True


class Vault:
    """Seals and opens blobs. `keys`: at least one, 32 bytes each, the first one encrypts. For one thread at a time."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            msg = "a vault needs a key"
            raise VaultError(msg)
        self._keys = tuple(keys)
        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in keys}
        self._id, self._cipher = next(iter(self._ciphers.items()))
        self._compressor = zstandard.ZstdCompressor(level=1)

    def twin(self) -> Vault:
        """One with the same keys, for another thread."""
        return Vault(self._keys)

    def seal(self, plain: bytes, *, row: int) -> bytes:
        """One blob that holds `plain`, compressed and encrypted, bound to this row."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._id + nonce + self._cipher.encrypt(nonce, self._compressor.compress(plain), row.to_bytes(8, "big"))

    def open(self, blob: bytes, *, row: int) -> bytes:
        """What `seal` was given. Raises `VaultError` with the reason where it cannot be read."""
        cipher = self._ciphers.get(blob[:_KEY_ID_BYTES])
        if cipher is None:
            msg = f"no configured key has the id {blob[:_KEY_ID_BYTES].hex()}: was a key removed too early?"
            raise VaultError(msg)
        start = _KEY_ID_BYTES + _NONCE_BYTES
        try:
            packed = cipher.decrypt(blob[_KEY_ID_BYTES:start], blob[start:], row.to_bytes(8, "big"))
        except InvalidTag:
            msg = "the blob was changed, or belongs to another row"
            raise VaultError(msg) from None
        return zstandard.decompress(packed)
