"""Signatures made with a certificate that the delivery names by URL: PayPal and Amazon SNS.

The URL is a stranger's word until it is one of the provider's own, so host and path are pinned here. The check itself
fetches nothing: where the certificate is not among `Delivery.certificates`, the verdict is `NeedsCertificate`.
"""

from __future__ import annotations

import hmac
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from relay.contract import parse_json
from relay.keys import decode, encode
from relay.moments import read_ms, write
from relay.shared_secrets import Basic
from relay.verification import (
    Accepted,
    Delivery,
    NeedsCertificate,
    Reason,
    Refused,
    Verdict,
    never_raises,
    within,
)

if TYPE_CHECKING:
    from relay.public_keys import Key


@dataclass(frozen=True, slots=True)
class Pin:
    """Where a provider keeps its certificates, and whom they name."""

    url: re.Pattern[str]
    #: The common names that a certificate may have; none: any.
    names: frozenset[str] = frozenset()


#: https://developer.paypal.com/api/rest/webhooks/rest/
PAYPAL = Pin(
    re.compile(r"https://api(-m)?(\.sandbox)?\.paypal\.com/v1/notifications/certs/[A-Za-z0-9_-]{1,128}"),
    frozenset({"messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"}),
)
#: A region, and not just any label: `sns.s3-us-west-2.amazonaws.com` would be anybody's bucket.
#: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
SNS = Pin(
    re.compile(r"https://sns\.[a-z]{2}(-[a-z]+){1,2}-[0-9]{1,2}\.amazonaws\.com(\.cn)?/[A-Za-z0-9_-]{1,128}\.pem")
)


def is_pinned(url: str) -> bool:
    """Whether a certificate may be fetched from there."""
    return any(pin.url.fullmatch(url) for pin in (PAYPAL, SNS))


def check_certificate(pem: bytes) -> None:
    """Raises `ValueError` where it is no certificate that a provider could sign with."""
    from relay.public_keys import certificate  # noqa: PLC0415  slow to load, and few need it

    certificate(pem)


def _key_of(delivery: Delivery, url: str, pin: Pin, now_ms: int) -> Key | NeedsCertificate | Refused:
    from relay.public_keys import certificate  # noqa: PLC0415

    if pin.url.fullmatch(url) is None:
        return Refused(Reason.CERTIFICATE)
    pem = delivery.certificates.get(url)
    if pem is None:
        return NeedsCertificate(url)
    found = certificate(pem)
    if not found.from_ms <= now_ms <= found.until_ms or (pin.names and not pin.names & found.names):
        return Refused(Reason.CERTIFICATE)
    return found.key


def _is_signed(key: Key, signature: bytes, message: bytes, *, sha1: bool = False) -> bool:
    from relay.public_keys import is_signed  # noqa: PLC0415

    return is_signed(key, signature, message, sha1=sha1)


def _signed_with(pem: str, message: bytes) -> bytes:
    from relay.public_keys import signed_with  # noqa: PLC0415

    return signed_with(pem, message)


# --- PayPal -----------------------------------------------------------------------------------------------------------

_PAYPAL_HEADERS = (
    "paypal-transmission-sig",
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-cert-url",
    "paypal-auth-algo",
)
PAYPAL_SAMPLE = "https://api.paypal.com/v1/notifications/certs/CERT-sample"


@dataclass(frozen=True, slots=True)
class PayPalSignature:
    """PayPal: RSA-SHA256 over `<transmission id>|<time>|<webhook id>|<crc32 of the body>`.

    The secret is the id of the webhook. The body is signed by its CRC-32 alone: whoever has seen one delivery with its
    headers can make others. Retries may repeat the time of the first attempt, so it is not enforced.
    """

    tolerance_s: int | None = None
    signs_url = False
    credentials = ()

    @property
    def family(self) -> str:
        return "RSA-SHA256 of id, time, webhook id and the body's CRC-32, with a certificate of PayPal"

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        sent, id_, time, url, algorithm = (delivery.headers.get(name) for name in _PAYPAL_HEADERS)
        if not (sent and id_ and time and url and algorithm):
            return Refused(Reason.MISSING)
        if algorithm.lower() != "sha256withrsa" or "|" in id_:
            return Refused(Reason.MALFORMED)
        signature, signed_ms = decode(sent, "base64"), read_ms(time, "iso8601")
        key = _key_of(delivery, url, PAYPAL, now_ms)
        if isinstance(key, (NeedsCertificate, Refused)):
            return key
        for index, secret in enumerate(secrets):
            if secret and _is_signed(key, signature, _paypal_message(id_, time, secret, delivery.body)):
                limit_s = self.tolerance_s if tolerance_s is None else tolerance_s
                return within(signed_ms, now_ms=now_ms, tolerance_s=limit_s) or Accepted(index)
        return Refused(Reason.MISMATCH)

    def fault(self, secret: str) -> str | None:
        return None if re.fullmatch(r"[A-Za-z0-9_-]+", secret) else "is no id of a webhook"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        """`secret` is the webhook's id, a space and a private key as PEM, whose certificate the relay must know."""
        webhook_id, _, pem = secret.partition(" ")
        id_, time = f"sample-{zlib.crc32(delivery.body)}", write(now_ms, "iso8601")
        signature = _signed_with(pem, _paypal_message(id_, time, webhook_id, delivery.body))
        values = (encode(signature, "base64"), id_, time, PAYPAL_SAMPLE, "SHA256withRSA")
        return replace(delivery, headers={**delivery.headers, **dict(zip(_PAYPAL_HEADERS, values, strict=True))})


def _paypal_message(id_: str, time: str, webhook_id: str, body: bytes) -> bytes:
    return f"{id_}|{time}|{webhook_id}|{zlib.crc32(body)}".encode()


# --- Amazon SNS -------------------------------------------------------------------------------------------------------

_PROOF = ("Signature", "SigningCertURL", "SignatureVersion")
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
#: Of a message that comes without its envelope.
_RAW = "x-amz-sns-rawdelivery"
SNS_SAMPLE = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-sample.pem"


@dataclass(frozen=True, slots=True)
class SnsSignature:
    """Amazon SNS: RSA over the envelope's fields, a line each for name and value, with SHA-256 or (version 1) SHA-1.

    The secret is the ARN of the topic: anyone can have SNS sign what they publish to a topic of their own. A delivery
    may come up to an hour after its time, so that is not enforced. Raw message delivery has no envelope and no
    signature: it is taken only with a secret `user:password`, by Basic authentication, and an ARN is no password.
    """

    tolerance_s: int | None = None
    signs_url = False
    credentials = Basic.credentials

    @property
    def family(self) -> str:
        return (
            "RSA of the envelope's fields, with a certificate of Amazon SNS, from the topic that is the secret; Basic "
            "authentication where there is no envelope"
        )

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        body = parse_json(delivery.body)
        if delivery.headers.get(_RAW) == "true" and not _is_envelope(body):
            logins = [secret if _is_login(secret) else "" for secret in secrets]
            return Basic().verify(delivery, logins, now_ms=now_ms)
        told = [body.get(name) for name in _PROOF] if isinstance(body, dict) else []
        sent = [text for text in told if isinstance(text, str) and text]
        if len(sent) != len(_PROOF):
            return Refused(Reason.MISSING)
        encoded, url, version = sent
        message, signed_ms = _sns_message(body), read_ms(body["Timestamp"], "iso8601")
        if version not in {"1", "2"}:
            return Refused(Reason.MALFORMED)
        signature, topic = decode(encoded, "base64"), body["TopicArn"].encode()
        index = next((i for i, arn in enumerate(secrets) if arn and hmac.compare_digest(topic, arn.encode())), None)
        if index is None:  # before a certificate is asked for: strangers' topics cost no call
            return Refused(Reason.MISMATCH)
        key = _key_of(delivery, url, SNS, now_ms)
        if isinstance(key, (NeedsCertificate, Refused)):
            return key
        if not _is_signed(key, signature, message, sha1=version == "1"):
            return Refused(Reason.MISMATCH)
        limit_s = self.tolerance_s if tolerance_s is None else tolerance_s
        return within(signed_ms, now_ms=now_ms, tolerance_s=limit_s) or Accepted(index)

    def fault(self, secret: str) -> str | None:
        is_topic = re.fullmatch(r"arn:aws[a-z-]*:sns:[^:\s]+:[^:\s]+:[^:\s]+", secret) is not None
        return None if is_topic or _is_login(secret) else "is neither an ARN of an SNS topic nor user:password"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        """`secret` is the topic's ARN, a space and a private key as PEM, whose certificate the relay must know.

        With `user:password` it becomes a raw message.
        """
        if _is_login(secret):
            return Basic().sign(_raw(delivery), secret, now_ms=now_ms)
        arn, _, pem = secret.partition(" ")
        body = {
            "Type": "Notification",
            "MessageId": f"sample-{zlib.crc32(delivery.body)}",
            "Message": delivery.body.decode(),
            **_envelope(delivery.body),
            "TopicArn": arn,
            "Timestamp": write(now_ms, "iso8601"),
            "SignatureVersion": "2",
            "SigningCertURL": SNS_SAMPLE,
        }
        signature = encode(_signed_with(pem, _sns_message(body)), "base64")
        return replace(delivery, body=orjson.dumps({**body, "Signature": signature}))


def _envelope(raw: bytes) -> dict[str, Any]:
    """The body where it is an envelope already, and nothing where it is what goes into one."""
    body = parse_json(raw)
    return body if _is_envelope(body) else {}


def _is_envelope(body: object) -> bool:
    return isinstance(body, dict) and body.get("Type") in _SIGNED


def _is_login(secret: str) -> bool:
    """Whoever knows an ARN proves nothing with it."""
    return not secret.startswith("arn:") and Basic().fault(secret) is None


def _raw(delivery: Delivery) -> Delivery:
    """Without its envelope. Raises `ValueError` for what comes in one always."""
    found = _envelope(delivery.body)
    if found and found["Type"] != "Notification":
        msg = "SNS sends this in a signed envelope only: the secret must be the ARN of the topic"
        raise ValueError(msg)
    told = {"x-amz-sns-message-id": str(found["MessageId"])} if "MessageId" in found else {}
    body = str(found["Message"]).encode() if "Message" in found else delivery.body
    return replace(delivery, body=body, headers={**delivery.headers, **told, _RAW: "true"})


def _sns_message(body: Mapping[str, Any]) -> bytes:
    """Raises `ValueError` where a field that is signed is missing or no text."""
    signed = _SIGNED.get(str(body.get("Type")), ())
    values = [(name, body.get(name)) for name in signed if name != "Subject" or body.get(name) is not None]
    if not values or not all(isinstance(value, str) for _, value in values):
        msg = "no envelope of SNS"
        raise ValueError(msg)
    return "".join(f"{name}\n{value}\n" for name, value in values).encode()
