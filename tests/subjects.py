"""Every signature family as some provider uses it: what `test_signatures.py` asks its questions of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from relay.contract import Delivery, Verdict, Verifier
from relay.places import put, reading
from relay.signatures import (
    adyen_items,
    basic_auth,
    bearer,
    braintree_form,
    either,
    field_token,
    header_token,
    hmac_sha1,
    hmac_sha256,
    hmac_sha512,
    hubspot_signature,
    mailgun_signature,
    mercado_pago_signature,
    paypal_signature,
    public_key,
    query_token,
    salesforce_token,
    sns_signature,
    standard_webhooks,
    stripe_signature,
    timestamp_in_header,
    timestamped_list,
    timestamped_pairs,
    with_basic_auth,
)
from relay.specimens import Specimen, specimen

NOW = 1_795_000_000_000
DAY_S = 86_400
JSON = b'{"id": "evt_1", "name": "J\xc3\xbcrgen", "amount": 1999}\r\n'
FORM = b"mandrill_events=%5B%7B%22event%22%3A%22click%22%7D%5D&a=%C3%BC&b="
ITEM = {
    "pspReference": "7914073381342284",
    "merchantAccountCode": "TestMerchant",
    "merchantReference": "TestPayment-1407325143704",
    "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "AUTHORISATION",
    "success": "true",
}
ITEMS = orjson.dumps({
    "live": "false",
    "notificationItems": [
        {"NotificationRequestItem": ITEM},
        {"NotificationRequestItem": {**ITEM, "pspReference": "8", "originalReference": None, "success": True}},
    ],
})  # fmt: skip

Change = Callable[[Delivery], Delivery]


def other_body(delivery: Delivery) -> Delivery:
    return replace(delivery, body=delivery.body.replace(b"1999", b"9991").replace(b"click", b"opens"))


def last_item(body: Any) -> Any:
    """Where the signature of Adyen's last item stands."""
    return body["notificationItems"][-1]["NotificationRequestItem"]["additionalData"]


def other(place: str, value: str) -> Change:
    return lambda delivery: put(delivery, place, value)


@dataclass(frozen=True)
class Subject:
    """A family as some provider uses it."""

    verifier: Verifier
    #: Where its signature stands.
    place: str
    #: Something that is signed, changed; None where nothing is.
    tamper: Change | None = other_body
    body: bytes = JSON
    query: str = "a=1"
    #: Whether several signatures may stand at the place.
    is_list: bool = False
    has_time: bool = False

    def delivery(self, **rest: Any) -> Delivery:
        url = f"https://relay.example/webhooks/it?{self.query}"
        headers = {"content-type": "application/json"}
        return Delivery(**{"body": self.body, "headers": headers, "url": url, "query": self.query, **rest})

    def specimen(self, number: int = 0) -> Specimen:
        return specimen(self.verifier, number=number)

    def signed(self, number: int = 0) -> Delivery:
        found = self.specimen(number)
        delivery = self.delivery(certificates=found.certificates)
        return self.verifier.sign(delivery, found.signing, now_ms=NOW)

    def verify(self, delivery: Delivery, *secrets: str, now_ms: int = NOW, tolerance_s: int | None = None) -> Verdict:
        known = secrets or (self.specimen().secret,)
        return self.verifier.verify(delivery, known, now_ms=now_ms, tolerance_s=tolerance_s)

    def sent(self) -> str:
        """The text at the place of its signature."""
        if self.place == "item":
            return str(last_item(orjson.loads(self.signed().body))["hmacSignature"])
        return reading(self.place)(self.signed()) or ""

    def saying(self, text: str) -> Delivery:
        """Signed, but for another text at the place of its signature."""
        signed = self.signed()
        if self.place == "item":
            body = orjson.loads(signed.body)
            last_item(body)["hmacSignature"] = text
            return replace(signed, body=orjson.dumps(body))
        return put(signed, self.place, text)


SUBJECTS = {
    "hmac hex": Subject(hmac_sha256(header="X-Hub-Signature-256", prefix="sha256="), "header:x-hub-signature-256"),
    "hmac base64": Subject(hmac_sha256(header="X-Signature", encoding="base64"), "header:x-signature"),
    "hmac base64url": Subject(hmac_sha256(header="X-Signature", encoding="base64url"), "header:x-signature"),
    "hmac in capitals": Subject(hmac_sha256(header="X-Signature", encoding="HEX"), "header:x-signature"),
    "hmac sha1": Subject(hmac_sha1(header="X-Hub-Signature", prefix="sha1="), "header:x-hub-signature"),
    "hmac sha512": Subject(hmac_sha512(header="X-Paystack-Signature"), "header:x-paystack-signature"),
    "hmac hex key": Subject(hmac_sha256(header="X-Signature", key="hex"), "header:x-signature"),
    "hmac base64 key": Subject(hmac_sha256(header="X-Signature", key="base64"), "header:x-signature"),
    "hmac two headers": Subject(
        hmac_sha256(header=("X-Shopify-Hmac-Sha256", "shopify-hmac-sha256"), encoding="base64"),
        "header:x-shopify-hmac-sha256",
    ),
    "hmac several": Subject(
        hmac_sha256(header="X-Mollie-Signature", prefix="sha256=", separator=","),
        "header:x-mollie-signature",
        is_list=True,
    ),
    "stripe": Subject(stripe_signature(), "header:stripe-signature", is_list=True, has_time=True),
    "paddle": Subject(
        timestamped_pairs(
            header="Paddle-Signature", keys=("ts", "h1"), separator=";", message="{timestamp}:{body}", tolerance_s=300
        ),
        "header:paddle-signature",
        is_list=True,
        has_time=True,
    ),
    "workos": Subject(
        timestamped_pairs(header="WorkOS-Signature", separator=", ", unit="milliseconds", tolerance_s=180),
        "header:workos-signature",
        is_list=True,
        has_time=True,
    ),
    "recurly": Subject(
        timestamped_list(header="recurly-signature", tolerance_s=300),
        "header:recurly-signature",
        is_list=True,
        has_time=True,
    ),
    "slack": Subject(
        timestamp_in_header(
            header="X-Slack-Signature",
            timestamp="X-Slack-Request-Timestamp",
            message="v0:{timestamp}:{body}",
            prefix="v0=",
            tolerance_s=300,
        ),
        "header:x-slack-signature",
        has_time=True,
    ),
    "zendesk": Subject(
        timestamp_in_header(
            header="X-Zendesk-Webhook-Signature",
            timestamp="X-Zendesk-Webhook-Signature-Timestamp",
            message="{timestamp}{body}",
            unit="iso8601",
            encoding="base64",
            tolerance_s=None,
        ),
        "header:x-zendesk-webhook-signature",
        has_time=True,
    ),
    "close": Subject(
        timestamp_in_header(
            header="close-sig-hash",
            timestamp="close-sig-timestamp",
            message="{timestamp}{body}",
            key="hex",
            tolerance_s=None,
        ),
        "header:close-sig-hash",
        has_time=True,
    ),
    "klaviyo": Subject(
        timestamp_in_header(
            header="Klaviyo-Signature",
            timestamp="Klaviyo-Timestamp",
            message="{body}{timestamp}",
            unit="rfc1123",
            tolerance_s=None,
            same=(("header:klaviyo-webhook-id", "json:meta.klaviyo_webhook_id"),),
        ),
        "header:klaviyo-signature",
        body=b'{"data": [1999], "meta": {"klaviyo_webhook_id": "01HF7AYTK76RHR4F17G6DGTRGF"}}',
        has_time=True,
    ),
    "standard webhooks": Subject(standard_webhooks(), "header:webhook-signature", is_list=True, has_time=True),
    "standard webhooks, both keys": Subject(
        standard_webhooks(key="standard_or_text"), "header:webhook-signature", is_list=True, has_time=True
    ),
    "square": Subject(
        hmac_sha256(header="x-square-hmacsha256-signature", encoding="base64", message="{url}{body}"),
        "header:x-square-hmacsha256-signature",
    ),
    "hubspot": Subject(hubspot_signature(), "header:x-hubspot-signature-v3", has_time=True),
    "mandrill": Subject(
        hmac_sha1(header="X-Mandrill-Signature", encoding="base64", message="{url}{form}"),
        "header:x-mandrill-signature",
        body=FORM,
    ),
    "adyen": Subject(
        adyen_items(), "item", body=ITEMS, tamper=lambda d: replace(d, body=d.body.replace(b"1130", b"9130"))
    ),
    "adyen with a login": Subject(
        with_basic_auth(adyen_items()),
        "item",
        body=ITEMS,
        tamper=lambda d: replace(d, body=d.body.replace(b"1130", b"9130")),
    ),
    "mercado pago": Subject(
        mercado_pago_signature(),
        "header:x-signature",
        tamper=other("query:data.id", "999"),
        query="data.id=ABC1&type=payment",
        is_list=True,
        has_time=True,
    ),
    "mailgun": Subject(
        mailgun_signature(), "json:signature.signature", tamper=other("json:signature.token", "5" * 50), has_time=True
    ),
    "mailgun form": Subject(
        either(mailgun_signature().verifiers[1]),
        "form:signature",
        tamper=other("form:token", "5" * 50),
        body=b"event=opened",
        has_time=True,
    ),
    "braintree": Subject(
        braintree_form(), "form:bt_signature", tamper=other("form:bt_payload", "PGI+"), body=b"bt_payload=PGE%2B%0A"
    ),
    "sendgrid": Subject(
        public_key(
            kind="ecdsa-p256",
            header="X-Twilio-Email-Event-Webhook-Signature",
            timestamp="X-Twilio-Email-Event-Webhook-Timestamp",
        ),
        "header:x-twilio-email-event-webhook-signature",
        has_time=True,
    ),
    "ed25519": Subject(
        public_key(kind="ed25519", header="X-Signature-Ed25519", timestamp="X-Signature-Timestamp", encoding="hex"),
        "header:x-signature-ed25519",
        has_time=True,
    ),
    "rsa": Subject(
        public_key(kind="rsa-sha256", header="X-Signature", timestamp="X-Timestamp"),
        "header:x-signature",
        has_time=True,
    ),
    "paypal": Subject(paypal_signature(), "header:paypal-transmission-sig", has_time=True),
    "sns": Subject(
        sns_signature(),
        "json:Signature",
        tamper=lambda d: replace(d, body=d.body.replace(b"1999", b"9991")),
        has_time=True,
    ),
    "basic": Subject(basic_auth(), "header:authorization", tamper=None),
    "bearer": Subject(bearer(), "header:authorization", tamper=None),
    "header token": Subject(header_token("X-Callback-Token"), "header:x-callback-token", tamper=None),
    "salesforce": Subject(salesforce_token(), "query:token", tamper=None),
    "query token": Subject(query_token("key"), "query:key", tamper=None),
    "body token": Subject(field_token("json:token"), "json:token", tamper=None),
    "form token": Subject(field_token("form:token"), "form:token", tamper=None, body=b"a=b"),
}
