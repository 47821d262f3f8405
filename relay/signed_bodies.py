"""Signatures that stand inside the body, over a part of it: Adyen's items and Braintree's form.

What is not signed may be anybody's word: each class says what that is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import orjson

from relay.contract import Answer, parse_json
from relay.keys import Mac
from relay.places import form_of, reading
from relay.verification import Accepted, Delivery, Reason, Refused, Verdict, never_raises

_HMAC = Mac(encoding="base64", key="hex")
_CHALLENGE = reading("query:bt_challenge")


@dataclass(frozen=True, slots=True)
class AdyenItems:
    """Adyen: every item of the body is signed by itself, over eight of its fields joined by colons.

    All items must fit. Of an item only those eight fields are signed: not its `eventDate`, its `additionalData`, its
    `paymentMethod`. https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures
    """

    tolerance_s = None
    signs_url = False
    credentials = ()

    @property
    def family(self) -> str:
        return "HMAC-SHA256 of eight fields of each item, base64, in additionalData.hmacSignature (Adyen)"

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del now_ms, tolerance_s  # the time of an item is not signed
        oldest = -1
        for item in _items(parse_json(delivery.body)):
            sent = _of(item.get("additionalData"), "hmacSignature")
            if not isinstance(sent, str) or not sent:
                return Refused(Reason.MISSING)
            message, signature = _adyen_message(item), _HMAC.decode(sent)
            for index, secret in enumerate(secrets):
                if secret and _HMAC.fits(secret, message, [signature]):
                    oldest = max(oldest, index)
                    break
            else:
                return Refused(Reason.MISMATCH)
        return Refused(Reason.MISSING) if oldest < 0 else Accepted(oldest)

    def fault(self, secret: str) -> str | None:
        return _HMAC.fault(secret)

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        del now_ms
        body = parse_json(delivery.body)
        for item in _items(body):
            signature = _HMAC.encode(_HMAC.sign(secret, _adyen_message(item)))
            item["additionalData"] = {**(item.get("additionalData") or {}), "hmacSignature": signature}
        return replace(delivery, body=orjson.dumps(body))


def _items(body: Any) -> Iterator[dict[str, Any]]:
    """Raises `ValueError` where the body, or one of its items, is not of Adyen's form."""
    wrapped = _of(body, "notificationItems")
    items = [_of(one, "NotificationRequestItem") for one in wrapped] if isinstance(wrapped, list) else [None]
    for item in items:
        if not isinstance(item, dict):
            msg = "an item that is none"
            raise ValueError(msg)  # noqa: TRY004  it is about what arrived
        yield item


def _adyen_message(item: Mapping[str, Any]) -> bytes:
    amount = item.get("amount")
    fields = (
        item.get("pspReference"),
        item.get("originalReference"),
        item.get("merchantAccountCode"),
        item.get("merchantReference"),
        _of(amount, "value"),
        _of(amount, "currency"),
        item.get("eventCode"),
        item.get("success"),
    )
    return ":".join(map(_text, fields)).encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


# --- Braintree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BraintreeForm:
    """Braintree: `bt_signature` (`public key|signature`, joined by `&`) over `bt_payload`, both fields of a form.

    HMAC-SHA1, keyed with the SHA-1 of the private key. The secret is `public key:private key`. The whole payload is
    signed; the time in it is not checked.
    """

    tolerance_s = None
    signs_url = False
    credentials = ()

    @property
    def family(self) -> str:
        return "HMAC-SHA1 of the form's bt_payload, hex, in bt_signature (Braintree)"

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del now_ms, tolerance_s
        form = form_of(delivery.body)
        sent, payload = form.get("bt_signature"), form.get("bt_payload", "").encode("ascii")
        if not sent or not payload:
            return Refused(Reason.MISSING)
        signatures = dict(pair.split("|", 1) for pair in sent.split("&") if "|" in pair)
        if not signatures:
            return Refused(Reason.MALFORMED)
        for index, secret in enumerate(secrets):
            public, _, private = secret.partition(":")
            signature = signatures.get(public, "").encode()
            # Some of Braintree's own clients lose the payload's last line end, which is signed.
            expected = [_braintree(private, message).encode() for message in (payload, payload + b"\n")]
            if private and any(hmac.compare_digest(one, signature) for one in expected):
                return Accepted(index)
        return Refused(Reason.MISMATCH)

    def fault(self, secret: str) -> str | None:
        public, _, private = secret.partition(":")
        return None if public and private else "is not of the form public key:private key"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        del now_ms
        if words := self.fault(secret):
            msg = f"the secret {words}"
            raise ValueError(msg)
        public, _, private = secret.partition(":")
        form = form_of(delivery.body)
        form["bt_signature"] = f"{public}|{_braintree(private, form.get('bt_payload', '').encode('ascii'))}"
        return replace(delivery, body=urlencode(form).encode())


def braintree_challenge(challenge: str, secret: str) -> str | None:
    """What a GET with `?bt_challenge=<challenge>` is answered with; None where it is no challenge of Braintree.

    The form is narrow on purpose: whoever asks must not be able to have a payload of their choice signed.
    """
    public, _, private = secret.partition(":")
    if not private or re.fullmatch(r"[a-f0-9]{20,32}", challenge) is None:
        return None
    return f"{public}|{_braintree(private, challenge.encode())}"


def braintree_answer(delivery: Delivery, secret: str) -> Answer | None:
    """`Provider.challenge` of Braintree: it asks so before it saves a webhook."""
    answer = braintree_challenge(_CHALLENGE(delivery) or "", secret)
    return None if answer is None else Answer(body=answer.encode(), content_type="text/plain")


def _braintree(private: str, message: bytes) -> str:
    key = hashlib.sha1(private.encode()).digest()  # noqa: S324  the provider's choice
    return hmac.digest(key, message, "sha1").hex()
