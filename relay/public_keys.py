"""Public keys, private keys of samples and tests, and certificates: what the relay asks of cryptography.

Its import is slow, so this module is loaded by the first check that needs it. Whatever is no key, and whatever is not
of the kind that was asked for, raises `ValueError`; a signature that does not fit is False.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key, load_pem_public_key
from cryptography.x509.oid import NameOID

from relay.verification import KeptKeyError

Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_RAW_LENGTH = 32


@lru_cache(maxsize=64)
def public_key(text: str, kind: str) -> Key:
    """Of the kind `ecdsa-p256`, `ed25519` or `rsa-sha256`.

    From PEM, from base64 of DER, or (Ed25519) from the raw bytes in hex or base64, `whpk_` before it or not.
    """
    try:
        if text.startswith("-----BEGIN"):
            key = load_pem_public_key(text.encode())
        elif kind == "ed25519" and (raw := _raw(text)):
            key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        else:
            key = load_der_public_key(base64.b64decode(text, validate=True))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    match kind, key:
        case "ecdsa-p256", ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return key
        case "ed25519", ed25519.Ed25519PublicKey():
            return key
        case "rsa-sha256", rsa.RSAPublicKey():
            return key
        case _:
            msg = f"no key for {kind}"
            raise ValueError(msg)


def _raw(text: str) -> bytes | None:
    is_hex = len(text) == 2 * _RAW_LENGTH
    try:
        raw = binascii.unhexlify(text) if is_hex else base64.b64decode(text.removeprefix("whpk_"), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == _RAW_LENGTH else None


def is_signed(key: Key, signature: bytes, message: bytes, *, sha1: bool = False) -> bool:
    """Whether the owner of this key signed the message: with SHA-256, or for RSA with SHA-1 where `sha1` says so."""
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case rsa.RSAPublicKey():
                algorithm = hashes.SHA1() if sha1 else hashes.SHA256()  # noqa: S303  what SNS signs with by default
                key.verify(signature, message, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def signed_with(pem: str, message: bytes) -> bytes:
    """The signature of a private key as PEM, with SHA-256."""
    match _private_key(pem):
        case ec.EllipticCurvePrivateKey() as key:
            return key.sign(message, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PrivateKey() as key:
            return key.sign(message)
        case rsa.RSAPrivateKey() as key:
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case _:
            msg = "a key of another kind"
            raise ValueError(msg)


@lru_cache(maxsize=16)
def _private_key(pem: str) -> object:
    try:
        return load_pem_private_key(pem.encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        msg = "it holds no private key as PEM, and the provider keeps its own to itself"
        raise KeptKeyError(msg) from None


@dataclass(frozen=True, slots=True)
class Certificate:
    key: Key
    from_ms: int
    until_ms: int
    #: Whom it was issued to.
    names: frozenset[str]


@lru_cache(maxsize=64)
def certificate(pem: bytes) -> Certificate:
    """The first certificate of a PEM file, with an RSA key."""
    found = x509.load_pem_x509_certificate(pem)
    key = found.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        msg = "its key is not RSA"
        raise ValueError(msg)  # noqa: TRY004  about what was sent
    return Certificate(
        key=key,
        from_ms=int(found.not_valid_before_utc.timestamp() * 1000),
        until_ms=int(found.not_valid_after_utc.timestamp() * 1000),
        names=frozenset(str(name.value) for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
    )
