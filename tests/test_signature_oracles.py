"""The vendors' own clients judge our verifiers: what they sign we accept, what they refuse we refuse, and what they
accept we accept. Where we differ on purpose, the case is named with its reason.

They come with the dependency group `oracles`; a client that is not installed is skipped.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from relay.contract import Accepted, Delivery, Reason, Refused, Verifier
from relay.places import put, reading
from relay.registry import load_providers
from relay.signatures import (
    adyen_items,
    braintree_challenge,
    braintree_form,
    hmac_sha256,
    hubspot_signature,
    mailgun_signature,
    mercado_pago_signature,
    public_key,
    standard_webhooks,
    stripe_signature,
    timestamp_in_header,
    timestamped_pairs,
)
from relay.specimens import specimen

HOUR = 3_600_000
BODY = '{"events": [], "event": {"id": "1"}, "type": "ping", "name": "Jürgen", "data": {"id": "42"}}'.encode()
URL = "https://relay.example/webhooks/it?data.id=42&type=payment"
ITEMS = orjson.dumps({
    "live": "false",
    "notificationItems": [
        {
            "NotificationRequestItem": {
                "pspReference": "8\\:5",
                "originalReference": "",
                "merchantAccountCode": "Shop:1",
                "merchantReference": "ü/1",
                "amount": {"value": 1130, "currency": "EUR"},
                "eventCode": "AUTHORISATION",
                "success": "true",
            }
        }
    ],
})  # fmt: skip


def now() -> int:
    """Unix milliseconds by the system's clock, as most of them ask it."""
    return time.time_ns() // 1_000_000


def client(name: str) -> Any:
    """A module of a vendor's client; some warn while they are loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed (dependency group oracles)")


@dataclass(frozen=True)
class Oracle:
    """A vendor's client beside the verifier of ours."""

    ours: Verifier
    #: Where the signature stands.
    place: str
    #: Whether the client accepts it; what it raises is a refusal.
    accepts: Callable[[Delivery, str], object]
    #: Signs as the client does, at a time; None: it signs nothing.
    signs: Callable[[Delivery, str, int], Delivery] | None = None
    body: bytes = BODY
    prefix: str = ""
    has_time: bool = False
    #: Some of its signatures end with padding, some do not: tried is one that does, where a lenient client shows.
    is_padded: bool = False
    #: By case, why we refuse what it accepts.
    stricter: Mapping[str, str] = field(default_factory=dict)
    #: By case, why we accept what it refuses.
    wider: Mapping[str, str] = field(default_factory=dict)

    def delivery(self) -> Delivery:
        return Delivery(body=self.body, headers={"x-request-id": "r-1"}, url=URL, query=URL.partition("?")[2])

    def sent(self, *, number: int = 0, later_ms: int = 0) -> Delivery:
        signing = specimen(self.ours, prefix=self.prefix, number=number).signing
        while True:
            found = self.ours.sign(self.delivery(), signing, now_ms=now() + later_ms)
            if not self.is_padded or (reading(self.place)(found) or "").endswith("="):
                return found

    @property
    def secret(self) -> str:
        return specimen(self.ours, prefix=self.prefix).secret

    def fits(self, delivery: Delivery) -> bool:
        return Accepted(0) == self.ours.verify(delivery, [self.secret], now_ms=now())

    def is_accepted(self, delivery: Delivery) -> bool:
        try:
            return self.accepts(delivery, self.secret) is not False
        except Exception:  # noqa: BLE001  beside their own errors they raise what they happen to raise
            return False


def cases(oracle: Oracle) -> dict[str, Delivery]:
    """Deliveries between the provider's own and nonsense."""
    sent = oracle.sent()
    text = reading(oracle.place)(sent) or ""
    last = text[-10]

    def saying(other: str) -> Delivery:
        return put(sent, oracle.place, other)

    found = {
        "as sent": sent,
        "signed by a stranger": oracle.sent(number=1),
        "empty": saying(""),
        "truncated": saying(text[:-2]),
        "cut in half": saying(text[: len(text) // 2]),
        "another letter": saying(text[:-10] + ("0" if last != "0" else "1") + text[-9:]),
        "in capital letters": saying(text.upper()),
        "with a space before it": saying(f" {text}"),
        "with a space behind it": saying(f"{text} "),
        "twice": saying(f"{text}, {text}"),
        "beside another": saying(f"{text},{text[:-1]}0"),
        "with something behind it": saying(f"{text}ü"),
        "not ASCII": saying("ü☃"),
        "a word": saying("undefined"),
        "separators": saying("=,;|&"),
    }
    if b"J" in oracle.body and not oracle.place.startswith(("json:", "form:")):
        found["another body"] = replace(sent, body=sent.body.replace(b"J", b"T"))
        found["an empty body"] = replace(sent, body=b"")
        found["a body that is not UTF-8"] = replace(sent, body=sent.body + b"\xff")
    if oracle.place.startswith("header:"):
        name = oracle.place.partition(":")[2]
        found["no signature"] = replace(sent, headers={n: v for n, v in sent.headers.items() if n != name})
    if oracle.has_time:
        seconds = next(iter(re.findall(r"\b1[0-9]{9}", str(sent.headers) + sent.body.decode())))
        later = str(int(seconds) + 1)
        moved = {name: value.replace(seconds, later) for name, value in sent.headers.items()}
        found["another time"] = replace(sent, headers=moved, body=sent.body.replace(seconds.encode(), later.encode()))
        found["an hour old"] = oracle.sent(later_ms=-HOUR)
        found["an hour ahead"] = oracle.sent(later_ms=HOUR)
        found["a minute old"] = oracle.sent(later_ms=-60_000)
        found["a minute ahead"] = oracle.sent(later_ms=60_000)
    return found


# --- the clients ------------------------------------------------------------------------------------------------------


def text_of(delivery: Delivery) -> str:
    return delivery.body.decode()


def with_header(delivery: Delivery, name: str, value: str) -> Delivery:
    return put(delivery, f"header:{name}", value)


def stripe_accepts(delivery: Delivery, secret: str) -> object:
    check = client("stripe").WebhookSignature.verify_header
    return check(delivery.body, delivery.headers["stripe-signature"], secret, 300)


def stripe_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    sign = client("stripe").WebhookSignature.generate_signature_header
    return with_header(delivery, "stripe-signature", sign(text_of(delivery), secret, now_ms // 1000))


def standard_accepts(delivery: Delivery, secret: str) -> object:
    return client("standardwebhooks").Webhook(secret).verify(delivery.body, dict(delivery.headers), json_parse=False)


def standard_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    at = datetime.fromtimestamp(now_ms // 1000, UTC)
    signature = client("standardwebhooks").Webhook(secret).sign("msg_1", at, text_of(delivery))
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now_ms // 1000), "webhook-signature": signature}
    return replace(delivery, headers=headers)


def svix_accepts(delivery: Delivery, secret: str) -> object:
    return client("svix.webhooks").Webhook(secret).verify(delivery.body, dict(delivery.headers))


def svix_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    at = datetime.fromtimestamp(now_ms // 1000, UTC)
    signature = client("svix.webhooks").Webhook(secret).sign("msg_1", at, text_of(delivery))
    headers = {"svix-id": "msg_1", "svix-timestamp": str(now_ms // 1000), "svix-signature": signature}
    return replace(delivery, headers=headers)


def resend_accepts(delivery: Delivery, secret: str) -> object:
    told = {name: delivery.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
    verify = client("resend").Webhooks.verify
    return verify({"payload": text_of(delivery), "headers": told, "webhook_secret": secret})


def polar_accepts(delivery: Delivery, secret: str) -> object:
    check = client("polar.webhooks").validate_event
    return check(delivery.body, dict(delivery.headers), secret, frozenset({"ping"}), lambda body: body)


def paddle_accepts(delivery: Delivery, secret: str) -> object:
    notifications = client("paddle_billing.Notifications")
    request = SimpleNamespace(headers={"Paddle-Signature": delivery.headers["paddle-signature"]}, body=delivery.body)
    return notifications.Verifier(300).verify(request, notifications.Secret(secret))


def paddle_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    sign = client("paddle_billing.Notifications.PaddleSignature").PaddleSignature.calculate_hmac
    seconds = now_ms // 1000
    digest = sign(secret, f"{seconds}:{text_of(delivery)}".encode()).hexdigest()
    return with_header(delivery, "paddle-signature", f"ts={seconds};h1={digest}")


def razorpay_accepts(delivery: Delivery, secret: str) -> object:
    check = client("razorpay").Utility().verify_webhook_signature
    return check(text_of(delivery), delivery.headers["x-razorpay-signature"], secret)


def square_accepts(delivery: Delivery, secret: str) -> object:
    return client("square.utils.webhooks_helper").verify_signature(
        request_body=text_of(delivery),
        signature_header=delivery.headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=delivery.url,
    )


def adyen_payload_accepts(delivery: Delivery, secret: str) -> object:
    return client("Adyen.util").is_valid_hmac_payload(delivery.headers["hmacsignature"], secret, delivery.body)


def adyen_payload_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    del now_ms
    signature = client("Adyen.util").generate_payload_sig(delivery.body, secret).decode()
    return with_header(delivery, "hmacsignature", signature)


def gocardless_accepts(delivery: Delivery, secret: str) -> object:
    return client("gocardless_pro.webhooks").parse(delivery.body, secret, delivery.headers["webhook-signature"])


def mollie_accepts(delivery: Delivery, secret: str) -> object:
    validate = client("mollie.utils.webhooks.signature_validator").SignatureValidator.validate
    return validate(text_of(delivery), secret, delivery.headers["x-mollie-signature"])


def mollie_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    del now_ms
    sign = client("mollie.utils.webhooks.signature_validator").SignatureValidator.create_signature
    return with_header(delivery, "x-mollie-signature", f"sha256={sign(text_of(delivery), secret)}")


def mercado_pago_accepts(delivery: Delivery, secret: str) -> object:
    validate = client("mercadopago.webhook.validator").WebhookSignatureValidator.validate
    told = delivery.headers["x-signature"], delivery.headers.get("x-request-id"), reading("query:data.id")(delivery)
    return validate(*told, secret)


def coinbase_accepts(delivery: Delivery, secret: str) -> object:
    check = client("coinbase_commerce.webhook").WebhookSignature.verify_sig_header
    return check(text_of(delivery), delivery.headers["x-cc-webhook-signature"], secret)


def sendgrid_accepts(delivery: Delivery, secret: str) -> object:
    names = (f"x-twilio-email-event-webhook-{name}" for name in ("signature", "timestamp"))
    return (
        client("sendgrid")
        .EventWebhook(secret)
        .verify_signature(text_of(delivery), *(delivery.headers[name] for name in names))
    )


def hubspot_accepts(delivery: Delivery, secret: str) -> object:
    return client("hubspot.utils.signature").Signature.is_valid(
        delivery.headers["x-hubspot-signature-v3"], secret, text_of(delivery), delivery.url, "POST", "v3",
        delivery.headers["x-hubspot-request-timestamp"],
    )  # fmt: skip


def hubspot_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    sign = client("hubspot.utils.signature").Signature.get_signature
    signature = sign(secret, text_of(delivery), "v3", delivery.url, "POST", str(now_ms))
    return with_header(
        with_header(delivery, "x-hubspot-request-timestamp", str(now_ms)), "x-hubspot-signature-v3", signature
    )


def mailgun_accepts(delivery: Delivery, secret: str) -> object:
    told = orjson.loads(delivery.body)["signature"]
    check = client("mailgun.security").SecurityGuard.verify_webhook
    return check(secret, told["token"], told["timestamp"], told["signature"], 43_200)


def workos_accepts(delivery: Delivery, secret: str) -> object:
    return client("workos.webhooks._verification").verify_header(
        event_body=delivery.body, event_signature=delivery.headers["workos-signature"], secret=secret
    )


def slack_accepts(delivery: Delivery, secret: str) -> object:
    return (
        client("slack_sdk.signature").SignatureVerifier(secret).is_valid_request(delivery.body, dict(delivery.headers))
    )


def slack_signs(delivery: Delivery, secret: str, now_ms: int) -> Delivery:
    seconds = str(now_ms // 1000)
    signature = (
        client("slack_sdk.signature")
        .SignatureVerifier(secret)
        .generate_signature(timestamp=seconds, body=delivery.body)
    )
    return with_header(with_header(delivery, "x-slack-request-timestamp", seconds), "x-slack-signature", signature)


#: Why we differ.
BOUNDED = {"an hour ahead": "a time in the future is bounded as one in the past is"}
REPEATED = {"twice": "a header that came twice arrives with both values, and one signature is enough"}
SPACES = {
    "with a space before it": "spaces between the entries of a list are left alone",
    "with a space behind it": "spaces between the entries of a list are left alone",
}
LOOSE = dict.fromkeys(
    ("with a space before it", "with a space behind it", "twice", "beside another"),
    "it skips what is no base64, and whatever stands behind the padding",
)
SEVERAL = {"beside another": "while secrets are rotated, one signature of several is enough"}

ORACLES = {
    "stripe": Oracle(
        stripe_signature(),
        "header:stripe-signature",
        stripe_accepts,
        stripe_signs,
        prefix="whsec_",
        has_time=True,
        stricter=BOUNDED,
    ),
    "standardwebhooks": Oracle(
        standard_webhooks(),
        "header:webhook-signature",
        standard_accepts,
        standard_signs,
        prefix="whsec_",
        has_time=True,
        wider=REPEATED | {"with a space before it": SPACES["with a space before it"]},
    ),
    "svix": Oracle(
        standard_webhooks(),
        "header:webhook-signature",
        svix_accepts,
        svix_signs,
        prefix="whsec_",
        has_time=True,
        wider=REPEATED | {"with a space before it": SPACES["with a space before it"]},
    ),
    "resend": Oracle(
        standard_webhooks(), "header:webhook-signature", resend_accepts, standard_signs, prefix="whsec_", has_time=True
    ),
    "polar": Oracle(
        standard_webhooks(key="standard_or_text"),
        "header:webhook-signature",
        polar_accepts,
        standard_signs,
        prefix="whsec_",
        has_time=True,
    ),
    "polar, with the whole secret": Oracle(
        standard_webhooks(key="standard_text"),
        "header:webhook-signature",
        polar_accepts,
        prefix="whsec_",
        has_time=True,
    ),
    "paddle": Oracle(
        timestamped_pairs(
            header="Paddle-Signature", keys=("ts", "h1"), separator=";", message="{timestamp}:{body}", tolerance_s=300
        ),
        "header:paddle-signature",
        paddle_accepts,
        paddle_signs,
        has_time=True,
        wider=REPEATED | SPACES,
    ),
    "razorpay": Oracle(hmac_sha256(header="X-Razorpay-Signature"), "header:x-razorpay-signature", razorpay_accepts),
    "square": Oracle(
        hmac_sha256(header="x-square-hmacsha256-signature", encoding="base64", message="{url}{body}"),
        "header:x-square-hmacsha256-signature",
        square_accepts,
    ),
    "adyen payload": Oracle(
        hmac_sha256(header="HmacSignature", encoding="base64", key="hex"),
        "header:hmacsignature",
        adyen_payload_accepts,
        adyen_payload_signs,
    ),
    "gocardless": Oracle(hmac_sha256(header="Webhook-Signature"), "header:webhook-signature", gocardless_accepts),
    "mollie": Oracle(
        hmac_sha256(header="X-Mollie-Signature", prefix="sha256=", separator=","),
        "header:x-mollie-signature",
        mollie_accepts,
        mollie_signs,
        wider=REPEATED | SEVERAL | SPACES,
    ),
    "mercado pago": Oracle(
        mercado_pago_signature(),
        "header:x-signature",
        mercado_pago_accepts,
        has_time=True,
        wider=SEVERAL,
    ),
    "coinbase": Oracle(hmac_sha256(header="X-CC-Webhook-Signature"), "header:x-cc-webhook-signature", coinbase_accepts),
    "sendgrid": Oracle(
        public_key(
            kind="ecdsa-p256",
            header="X-Twilio-Email-Event-Webhook-Signature",
            timestamp="X-Twilio-Email-Event-Webhook-Timestamp",
        ),
        "header:x-twilio-email-event-webhook-signature",
        sendgrid_accepts,
        has_time=True,
        is_padded=True,  # the length of an ECDSA signature varies
        stricter=LOOSE,
    ),
    "hubspot": Oracle(
        hubspot_signature(),
        "header:x-hubspot-signature-v3",
        hubspot_accepts,
        hubspot_signs,
        has_time=True,
        stricter=BOUNDED,
    ),
    "mailgun": Oracle(mailgun_signature(), "json:signature.signature", mailgun_accepts, has_time=True),
    "workos": Oracle(
        timestamped_pairs(header="WorkOS-Signature", separator=", ", unit="milliseconds", tolerance_s=180),
        "header:workos-signature",
        workos_accepts,
        has_time=True,
        wider=REPEATED | SEVERAL | SPACES,
    ),
    "slack": Oracle(
        timestamp_in_header(
            header="X-Slack-Signature",
            timestamp="X-Slack-Request-Timestamp",
            message="v0:{timestamp}:{body}",
            prefix="v0=",
            tolerance_s=300,
        ),
        "header:x-slack-signature",
        slack_accepts,
        slack_signs,
        has_time=True,
    ),
}


every = pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
every_that_signs = pytest.mark.parametrize(
    "oracle", [pytest.param(oracle, id=name) for name, oracle in ORACLES.items() if oracle.signs]
)


@every_that_signs
@pytest.mark.parametrize("body", [BODY, b"{}", b"", b"\r\n", "☃".encode()])
def test_what_the_client_signs_is_accepted(oracle: Oracle, body: bytes) -> None:
    assert oracle.signs is not None
    unsigned = replace(oracle.delivery(), body=body)

    assert oracle.fits(oracle.signs(unsigned, oracle.secret, now()))
    assert not oracle.fits(oracle.signs(unsigned, oracle.secret + "a1", now()))


@every
def test_we_accept_what_the_client_accepts_but_for_the_named_cases(oracle: Oracle) -> None:
    judged = {name: (oracle.is_accepted(delivery), oracle.fits(delivery)) for name, delivery in cases(oracle).items()}

    assert (True, True) == judged["as sent"]
    assert set(oracle.stricter) == {name for name, verdicts in judged.items() if verdicts == (True, False)}
    assert set(oracle.wider) == {name for name, verdicts in judged.items() if verdicts == (False, True)}


# --- what was judged is what is used ----------------------------------------------------------------------------------

#: By the oracle's name, the provider of ours that it speaks of.
OURS = {
    "stripe": "stripe", "resend": "resend", "polar": "polar", "paddle": "paddle", "razorpay": "razorpay",
    "square": "square", "gocardless": "gocardless", "mollie": "mollie", "mercado pago": "mercado_pago",
    "coinbase": "coinbase_commerce", "sendgrid": "sendgrid", "hubspot": "hubspot", "mailgun": "mailgun",
}  # fmt: skip


@pytest.mark.parametrize("name, provider", OURS.items(), ids=OURS)
def test_a_provider_checks_what_its_oracle_was_asked_about(name: str, provider: str) -> None:
    oracle, used = ORACLES[name], load_providers(None)[provider].verifier
    differing = {
        case
        for case, delivery in cases(oracle).items()
        if oracle.fits(delivery) != (Accepted(0) == used.verify(delivery, [oracle.secret], now_ms=now()))
    }

    assert set[str]() == differing


# --- signatures inside the body ---------------------------------------------------------------------------------------


def test_adyens_client_accepts_what_we_accept() -> None:
    key = specimen(adyen_items()).secret
    sent = adyen_items().sign(Delivery(body=ITEMS, headers={}), key, now_ms=now())
    (item,) = (one["NotificationRequestItem"] for one in orjson.loads(sent.body)["notificationItems"])

    assert client("Adyen.util").is_valid_hmac_notification(orjson.loads(sent.body), key) is True
    assert client("Adyen.util").generate_notification_sig(item, key).decode() == item["additionalData"]["hmacSignature"]


@pytest.mark.parametrize(
    "field", ["pspReference", "originalReference", "merchantAccountCode", "merchantReference", "eventCode", "success"]
)
def test_what_adyens_client_refuses_we_refuse(field: str) -> None:
    key = specimen(adyen_items()).secret
    sent = adyen_items().sign(Delivery(body=ITEMS, headers={}), key, now_ms=now())
    body = orjson.loads(sent.body)
    body["notificationItems"][0]["NotificationRequestItem"][field] = "another"

    assert client("Adyen.util").is_valid_hmac_notification(body, key) is False
    assert Refused(Reason.MISMATCH) == adyen_items().verify(replace(sent, body=orjson.dumps(body)), [key], now_ms=now())


def test_only_the_first_item_is_checked_by_adyens_client() -> None:
    """We check all of them."""
    key = specimen(adyen_items()).secret
    body = orjson.loads(adyen_items().sign(Delivery(body=ITEMS, headers={}), key, now_ms=now()).body)
    forged = {**body["notificationItems"][0]["NotificationRequestItem"], "merchantReference": "another"}
    body["notificationItems"].append({"NotificationRequestItem": forged})

    assert client("Adyen.util").is_valid_hmac_notification(body, key) is True
    sent = Delivery(body=orjson.dumps(body), headers={})
    assert Refused(Reason.MISMATCH) == adyen_items().verify(sent, [key], now_ms=now())


@pytest.fixture
def braintree() -> Any:
    vendor = client("braintree")
    return vendor.BraintreeGateway(
        vendor.Configuration(vendor.Environment.Sandbox, merchant_id="m", public_key="public0", private_key="private0")
    )


@pytest.mark.parametrize("kind", ["subscription_charged_successfully", "check", "dispute_opened"])
def test_what_braintrees_client_signs_is_accepted(braintree: Any, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = braintree.webhook_testing.sample_notification(kind, "id_1")
    sent = Delivery(body=urlencode(sample).encode(), headers={})
    tampered = put(sent, "form:bt_payload", sample["bt_payload"].decode()[1:])

    assert Accepted(0) == braintree_form().verify(sent, ["public0:private0"], now_ms=now())
    assert Refused(Reason.MISMATCH) == braintree_form().verify(sent, ["public1:private0"], now_ms=now())
    assert Refused(Reason.MISMATCH) == braintree_form().verify(sent, ["public0:private1"], now_ms=now())
    assert Refused(Reason.MISMATCH) == braintree_form().verify(tampered, ["public0:private0"], now_ms=now())


@pytest.mark.parametrize(
    "payload", ["PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4=", "PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4=\n"]
)
def test_what_we_sign_braintrees_client_accepts(braintree: Any, payload: str) -> None:
    sent = braintree_form().sign(
        Delivery(body=urlencode({"bt_payload": payload}).encode(), headers={}), "public0:private0", now_ms=now()
    )
    validate = braintree.webhook_notification._WebhookNotificationGateway__validate_signature

    validate(reading("form:bt_signature")(sent), payload.encode())


def test_the_challenge_is_answered_as_braintrees_client_does(braintree: Any) -> None:
    challenge = "20f9f8ed05f77439fe955c977e4c8a53"

    assert braintree.webhook_notification.verify(challenge) == braintree_challenge(challenge, "public0:private0")
