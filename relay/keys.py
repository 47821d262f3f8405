"""From a source's secret to a key, and from a key to "this signature fits these bytes".

Two kinds: a `Mac` (one secret on both sides) and a `PublicKey` (the provider keeps the private one). A secret that is
no key of its kind never fits, and `fault` says why.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Algorithm = Literal["sha1", "sha256", "sha512"]
#: `hex` has small letters, `HEX` capital ones.
Encoding = Literal["hex", "HEX", "base64", "base64url"]
#: `text`: the secret's own bytes. `hex`, `base64`: decoded. `standard`: as Standard Webhooks has it, base64 behind
#: `whsec_`; `standard_text`: the whole of such a text; `standard_or_text`: both are tried.
KeyForm = Literal["text", "hex", "base64", "standard", "standard_text", "standard_or_text"]
#: What a `PublicKey` is of.
Kind = Literal["ecdsa-p256", "ed25519", "rsa-sha256"]

_SIZES: dict[Algorithm, int] = {"sha1": 20, "sha256": 32, "sha512": 64}
#: Anything shorter was cut off from something (`v1` of `v1,whsec_...`), and is soon guessed.
_SHORTEST_KEY = 3
#: A public key is known to everyone, so it must never become the secret of an HMAC.
_PUBLIC = "whpk_"
_VERSIONS = frozenset({"v1", "v1a"})


def known(word: str, words: Any) -> None:
    """Raises `ValueError` for a word that is none of a `Literal`'s, so that a misspelt one stops the start."""
    if word not in get_args(words):
        msg = f"{word!r} is none of {', '.join(get_args(words))}"
        raise ValueError(msg)


def decode(text: str, encoding: Encoding) -> bytes:
    """The bytes of a signature. Raises `ValueError` for a text that `encode` would not have written."""
    match encoding:
        case "hex" | "HEX":
            raw = binascii.unhexlify(text)
        case "base64":
            raw = base64.b64decode(text, validate=True)
        case "base64url":
            text = text.rstrip("=")
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if not raw or encode(raw, encoding) != text:
        msg = f"not {encoding}"
        raise ValueError(msg)
    return raw


def encode(raw: bytes, encoding: Encoding) -> str:
    """The text of a signature, as a provider would write it."""
    match encoding:
        case "hex":
            return raw.hex()
        case "HEX":
            return raw.hex().upper()
        case "base64":
            return base64.b64encode(raw).decode()
        case "base64url":
            return base64.urlsafe_b64encode(raw).decode().rstrip("=")


# --- one secret on both sides -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mac:
    """HMAC, or (HubSpot's old ones) a digest of the secret and the message in one."""

    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    key: KeyForm = "text"
    #: Prefixes of the secret that are no part of the key.
    strips: tuple[str, ...] = ()
    #: Only secrets that begin with this are taken, without it: for a scheme that a source must ask for.
    demands: str = ""
    is_hmac: bool = True

    def __post_init__(self) -> None:
        known(self.algorithm, Algorithm)
        known(self.encoding, Encoding)
        known(self.key, KeyForm)

    @property
    def words(self) -> str:
        return f"{'HMAC-' if self.is_hmac else ''}{self.algorithm.upper()}"

    def decode(self, text: str) -> bytes:
        """Raises `ValueError` for a text that cannot be such a signature."""
        raw = decode(text, self.encoding)
        if len(raw) != _SIZES[self.algorithm]:
            msg = "not as long as a digest"
            raise ValueError(msg)
        return raw

    def encode(self, signature: bytes) -> str:
        return encode(signature, self.encoding)

    def fits(self, secret: str, message: bytes, signatures: Sequence[bytes]) -> bool:
        """Whether one of the signatures is of this message."""
        for key in self._keys(secret):
            expected = self._digest(key, message)
            for signature in signatures:
                if hmac.compare_digest(expected, signature):
                    return True
        return False

    def sign(self, secret: str, message: bytes) -> bytes:
        """Raises `ValueError` where the secret is no key."""
        if words := self.fault(secret):
            msg = f"the secret {words}"
            raise ValueError(msg)
        return self._digest(self._keys(secret)[0], message)

    def fault(self, secret: str) -> str | None:
        if not secret:
            return "is empty"
        if not secret.startswith(self.demands):
            return f"does not begin with {self.demands}"
        return None if self._keys(secret) else _FAULTS[self.key]

    def _digest(self, key: bytes, message: bytes) -> bytes:
        if self.is_hmac:
            return hmac.digest(key, message, self.algorithm)
        return hashlib.new(self.algorithm, key + message).digest()

    def _keys(self, secret: str) -> Sequence[bytes]:
        if self.demands:
            if not secret.startswith(self.demands):
                return ()
            secret = secret.removeprefix(self.demands)
        for prefix in self.strips:
            secret = secret.removeprefix(prefix)
        return _KEYS[self.key](secret)


def _text(secret: str) -> Sequence[bytes]:
    return (secret.encode(),) if secret else ()


def _hex(secret: str) -> Sequence[bytes]:
    try:
        return _long_enough(binascii.unhexlify(secret))
    except ValueError:
        return ()


def _base64(secret: str) -> Sequence[bytes]:
    try:
        return _long_enough(base64.b64decode(secret + "=" * (-len(secret) % 4), validate=True))
    except ValueError:
        return ()


def _standard(secret: str) -> Sequence[bytes]:
    return _base64(secret.removeprefix("v1,").removeprefix("whsec_"))


def _standard_text(secret: str) -> Sequence[bytes]:
    return () if secret.startswith(_PUBLIC) or secret in _VERSIONS else _text(secret)


def _standard_or_text(secret: str) -> Sequence[bytes]:
    return (*_standard(secret), *_standard_text(secret))


def _long_enough(key: bytes) -> Sequence[bytes]:
    return (key,) if len(key) >= _SHORTEST_KEY else ()


_KEYS: dict[KeyForm, Callable[[str], Sequence[bytes]]] = {
    "text": _text,
    "hex": _hex,
    "base64": _base64,
    "standard": _standard,
    "standard_text": _standard_text,
    "standard_or_text": _standard_or_text,
}
_FAULTS: dict[KeyForm, str] = {
    "text": "is empty",
    "hex": "is not hexadecimal",
    "base64": "is not base64",
    "standard": "is not whsec_ and base64",
    "standard_text": "is no signing secret",
    "standard_or_text": "is no signing secret",
}


# --- the provider keeps the private key -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A signature of which the source knows the public key only: PEM, base64 of its DER, or (Ed25519) the raw 32 bytes.

    `sign` takes the private key as PEM instead.
    """

    kind: Kind
    encoding: Encoding = "base64"

    def __post_init__(self) -> None:
        known(self.kind, Kind)
        known(self.encoding, Encoding)

    @property
    def words(self) -> str:
        return {"ecdsa-p256": "ECDSA P-256", "ed25519": "Ed25519", "rsa-sha256": "RSA-SHA256"}[self.kind]

    def decode(self, text: str) -> bytes:
        """Raises `ValueError` for a text that cannot be such a signature."""
        return decode(text, self.encoding)

    def encode(self, signature: bytes) -> str:
        return encode(signature, self.encoding)

    def fits(self, secret: str, message: bytes, signatures: Sequence[bytes]) -> bool:
        """Whether one of the signatures is of this message."""
        from relay.public_keys import is_signed, public_key  # noqa: PLC0415  slow to load, and few need it

        try:
            key = public_key(secret, self.kind)
        except ValueError:
            return False
        return any(is_signed(key, signature, message) for signature in signatures)

    def sign(self, secret: str, message: bytes) -> bytes:
        """Raises `ValueError` where the secret is no private key as PEM."""
        from relay.public_keys import signed_with  # noqa: PLC0415

        return signed_with(secret, message)

    def fault(self, secret: str) -> str | None:
        from relay.public_keys import public_key  # noqa: PLC0415

        try:
            public_key(secret, self.kind)
        except ValueError:
            return f"is no public key for {self.words}"
        return None
