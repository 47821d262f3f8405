"""Signature families as values: configured by a provider module, never written by it.

A verifier takes the raw bytes of a delivery and a source's secrets and returns a verdict with a reason. It compares
bytes in constant time and never raises: whatever goes wrong inside the check is a refusal (`Reason.ERROR`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import stripe

from relay.contract import Accepted, Delivery, Reason, Refused, Verdict

Encoding = Literal["hex", "base64"]

_DECODE: dict[Encoding, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": lambda text: base64.b64decode(text, validate=True),
}
_ENCODE: dict[Encoding, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "base64": lambda raw: base64.b64encode(raw).decode(),
}


def within(signed_ms: int, *, now_ms: int, tolerance_s: int) -> Refused | None:
    """Refuse a signed time that lies too far from now, in either direction."""
    if now_ms - signed_ms > tolerance_s * 1000:
        return Refused(Reason.STALE)
    if signed_ms - now_ms > tolerance_s * 1000:
        return Refused(Reason.FUTURE)
    return None


@dataclass(frozen=True, slots=True)
class HmacBody:
    """HMAC of the raw body in one header: GitHub, Shopify, Lemon Squeezy, Razorpay and many more."""

    header: str
    algorithm: str = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    tolerance_s: int | None = None

    @property
    def family(self) -> str:
        return f"HMAC-{self.algorithm.upper()} of the body, {self.encoding}, in {self.header}"

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del now_ms, tolerance_s  # nothing signed says when
        sent = delivery.headers.get(self.header.lower())
        if not sent:
            return Refused(Reason.MISSING)
        if not sent.startswith(self.prefix):
            return Refused(Reason.MALFORMED)
        try:
            mac = _DECODE[self.encoding](sent[len(self.prefix) :].strip())
        except (ValueError, binascii.Error):
            return Refused(Reason.MALFORMED)
        for index, secret in enumerate(secrets):
            if secret and hmac.compare_digest(hmac.digest(secret.encode(), delivery.body, self.algorithm), mac):
                return Accepted(index)
        return Refused(Reason.MISMATCH)

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> dict[str, str]:
        del now_ms
        mac = hmac.digest(secret.encode(), delivery.body, self.algorithm)
        return {self.header: self.prefix + _ENCODE[self.encoding](mac)}


def hmac_sha256(*, header: str, encoding: Encoding = "hex", prefix: str = "") -> HmacBody:
    """HMAC-SHA256 of the raw body, keyed with the secret's bytes as they are."""
    return HmacBody(header, hashlib.sha256().name, encoding, prefix)


@dataclass(frozen=True, slots=True)
class StripeSignature:
    """Stripe's `t=<unix s>,v1=<hex>[,v1=<hex>]` over `{t}.{body}`, checked by Stripe's own `WebhookSignature`.

    What that leaves open is closed here: a time in the future, and bytes that make it raise.
    https://docs.stripe.com/webhooks#verify-manually (read 2026-11-20)
    """

    header: str = "Stripe-Signature"
    tolerance_s: int = 300

    @property
    def family(self) -> str:
        return f"HMAC-SHA256 of time and body, in {self.header} (Stripe)"

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        sent = delivery.headers.get(self.header.lower())
        if not sent:
            return Refused(Reason.MISSING)
        try:
            signed_s = next((int(part[2:]) for part in sent.split(",") if part.startswith("t=")), None)
        except ValueError:
            return Refused(Reason.MALFORMED)
        if signed_s is None or "v1=" not in sent:
            return Refused(Reason.MALFORMED)
        for index, secret in enumerate(secrets):
            if secret and self._fits(delivery.body, sent, secret):
                tolerance = self.tolerance_s if tolerance_s is None else tolerance_s
                return within(signed_s * 1000, now_ms=now_ms, tolerance_s=tolerance) or Accepted(index)
        return Refused(Reason.MISMATCH)

    @staticmethod
    def _fits(body: bytes, sent: str, secret: str) -> bool:
        try:
            return bool(stripe.WebhookSignature.verify_header(body, sent, secret, tolerance=None))
        except Exception:  # noqa: BLE001  beside its own error it raises UnicodeDecodeError and TypeError
            return False

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> dict[str, str]:
        t = now_ms // 1000
        mac = hmac.digest(secret.encode(), b"%d." % t + delivery.body, "sha256")
        return {self.header: f"t={t},v1={mac.hex()}"}


def stripe_signature() -> StripeSignature:
    """Stripe's scheme with its default tolerance of five minutes, both ways."""
    return StripeSignature()
