"""Made-up secrets of the right form for any verifier: for samples, tests and the demo, never for a source.

In: a verifier. Out: a `Specimen`, always the same text for the same number; key pairs are made anew in every process.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from relay.certified import PAYPAL_SAMPLE, SNS_SAMPLE, PayPalSignature, SnsSignature
from relay.keys import Kind, PublicKey
from relay.schemes import Either, Signature
from relay.shared_secrets import AndBasic, Basic
from relay.signed_bodies import BraintreeForm
from relay.verification import Verifier


@dataclass(frozen=True, slots=True)
class Specimen:
    """What a source would be configured with, and what its provider would have."""

    #: The source's secret.
    secret: str
    #: What `Verifier.sign` takes.
    signing: str
    #: What the relay must have fetched (`Delivery.certificates`).
    certificates: Mapping[str, bytes] = field(default_factory=dict)


def specimen(verifier: Verifier, *, prefix: str = "", number: int = 0) -> Specimen:
    """`prefix` is that of the provider's `SecretShape`; another `number` is another secret."""
    match verifier:
        case Signature(check=PublicKey(kind=kind)):
            private, public, _ = pair(kind, "", number)
            return Specimen(public, private)
        case Either(verifiers=verifiers):
            return specimen(verifiers[0], prefix=prefix, number=number)
        case AndBasic(signature=signature):
            key, login = specimen(signature, prefix=prefix, number=number), f":user:password-{number}"
            return Specimen(key.secret + login, key.signing + login, key.certificates)
        case Basic():
            return _same(f"user:password-{number}")
        case BraintreeForm():
            return _same(f"public{number}:private{number}")
        case PayPalSignature():
            private, _, certificate = pair("rsa-sha256", "messageverificationcerts.paypal.com", 0)
            return Specimen(f"WH-{number}", f"WH-{number} {private}", {PAYPAL_SAMPLE: certificate})
        case SnsSignature():
            arn = f"arn:aws:sns:us-east-1:123456789012:topic-{number}"
            private, _, certificate = pair("rsa-sha256", "sns.amazonaws.com", 0)
            return Specimen(arn, f"{arn} {private}", {SNS_SAMPLE: certificate})
        case _:
            return _same(prefix + f"5e{number:02x}" * 16)  # a text, hexadecimal and base64 at once


def _same(secret: str) -> Specimen:
    return Specimen(secret, secret)


@cache
def pair(kind: Kind, name: str, number: int) -> tuple[str, str, bytes]:
    """A private key as PEM, its public key in base64, and (RSA) a certificate of it."""
    from cryptography import x509  # noqa: PLC0415  slow to load, and few need it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    del number  # one pair for each
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    match kind:
        case "ecdsa-p256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case "rsa-sha256":
            key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name or "specimen")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2200, 1, 1, tzinfo=UTC))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return private.decode(), base64.b64encode(public).decode(), pem
