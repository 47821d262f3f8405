"""What each signature family promises beyond what all of them do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from relay import specimens
from relay.certified import check_certificate, is_pinned
from relay.contract import Accepted, Delivery, NeedsCertificate, Reason, Refused, Verdict, Verifier
from relay.keys import Mac, decode
from relay.moments import Unit, read_ms, write
from relay.places import Template, put, reading
from relay.signatures import (
    adyen_items,
    basic_auth,
    bearer,
    braintree_challenge,
    braintree_form,
    either,
    header_token,
    hmac_sha1,
    hmac_sha256,
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
    takes_basic,
    timestamp_in_header,
    timestamped_list,
    with_basic_auth,
)
from tests.subjects import DAY_S, ITEM, JSON, NOW, SUBJECTS, Subject

# --- published examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verifier, secret, delivery",
    [
        pytest.param(
            hmac_sha256(header="X-Hub-Signature-256", prefix="sha256="),
            "It's a Secret to Everybody",
            Delivery(
                body=b"Hello, World!",
                headers={
                    "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
                },
            ),
            id="GitHub",
        ),
        pytest.param(
            standard_webhooks(),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Delivery(
                body=b'{"test": 2432232314}',
                headers={
                    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
                    "webhook-timestamp": "1614265330",
                    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                },
            ),
            id="Standard Webhooks",
        ),
        pytest.param(
            timestamp_in_header(
                header="X-Slack-Signature",
                timestamp="X-Slack-Request-Timestamp",
                message="v0:{timestamp}:{body}",
                prefix="v0=",
                tolerance_s=None,
            ),
            "8f742231b10e8888abcd99yyyzzz85a5",
            Delivery(
                body=b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
                b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
                b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
                b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
                headers={
                    "x-slack-request-timestamp": "1531420618",
                    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                },
            ),
            id="Slack",
        ),
        pytest.param(
            hmac_sha1(header="X-Twilio-Signature", encoding="base64", message="{url}{form}"),
            "12345",
            Delivery(
                body=b"Digits=1234&To=%2B18005551212&From=%2B14158675310&Caller=%2B14158675310&CallSid=CA1234567890ABCDE",
                url="https://mycompany.com/myapp.php?foo=1&bar=2",
                headers={"x-twilio-signature": "GvWf1cFY/Q7PnoempGyD5oXAezc="},
            ),
            id="Twilio",
        ),
        pytest.param(
            public_key(kind="ecdsa-p256", header="X-Signature", timestamp="X-Timestamp"),
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8e"
            "NEc6wEA3F+g==",
            Delivery(
                body=b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
                b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
                b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
                b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n',
                headers={
                    "x-timestamp": "1600112502",
                    "x-signature": "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh8"
                    "9M15TluLtEZtM=",
                },
            ),
            id="SendGrid",
        ),
        pytest.param(
            adyen_items(),
            "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
            Delivery(
                body=orjson.dumps(
                    {
                        "notificationItems": [
                            {
                                "NotificationRequestItem": {
                                    **ITEM,
                                    "additionalData": {"hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="},
                                }
                            }
                        ]
                    }
                ),
                headers={},
            ),
            id="Adyen",
        ),
    ],
)
def test_a_published_example_is_accepted(verifier: Verifier, secret: str, delivery: Delivery) -> None:
    at_ms = 1_614_265_330_000

    assert Accepted(0) == verifier.verify(delivery, [secret], now_ms=at_ms)


# --- HMAC -------------------------------------------------------------------------------------------------------------


def signed(verifier: Verifier, secret: str, delivery: Delivery | None = None, *, now_ms: int = NOW) -> Delivery:
    return verifier.sign(delivery or Delivery(body=JSON, headers={}), secret, now_ms=now_ms)


def verdict_on(verifier: Verifier, delivery: Delivery, *secrets: str) -> Verdict:
    return verifier.verify(delivery, secrets, now_ms=NOW)


def test_the_first_of_several_header_names_that_is_there_counts() -> None:
    verifier = hmac_sha256(header=("X-Old", "x-new"))
    sent = signed(verifier, "s").headers["x-old"]

    assert Accepted(0) == verdict_on(verifier, Delivery(body=JSON, headers={"x-new": sent}), "s")


@pytest.mark.parametrize(
    "misspelt",
    [
        lambda: hmac_sha256(header="X-S", key="Hex"),  # type: ignore[arg-type]
        lambda: hmac_sha256(header="X-S", encoding="base-64"),  # type: ignore[arg-type]
        lambda: timestamped_list(header="X-S", unit="s", tolerance_s=None),  # type: ignore[arg-type]
        lambda: public_key(kind="ecdsa", header="X-S", timestamp="X-T"),  # type: ignore[arg-type]
        lambda: Mac(algorithm="md5"),  # type: ignore[arg-type]
    ],
)
def test_a_misspelt_word_stops_the_start(misspelt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="is none of"):
        misspelt()


@pytest.mark.parametrize(
    "encoding, sent", [("hex", "ABCD"), ("HEX", "abcd"), ("base64", "q80"), ("base64", "q83="), ("hex", "")]
)
def test_a_signature_has_one_notation(encoding: Any, sent: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in the library's words, or in ours
        decode(sent, encoding)


def test_one_of_several_signatures_is_enough() -> None:
    verifier = hmac_sha256(header="X-S", prefix="sha256=", separator=",")
    sent = signed(verifier, "s").headers["x-s"]
    headers = {"x-s": f"sha256={'0' * 64}, {sent}, sha256=odd"}

    assert Accepted(0) == verdict_on(verifier, Delivery(body=JSON, headers=headers), "s")


def test_far_too_many_signatures_are_not_even_checked() -> None:
    verifier = hmac_sha256(header="X-S", separator=",")
    sent = signed(verifier, "s").headers["x-s"]

    assert Accepted(0) == verdict_on(verifier, Delivery(body=JSON, headers={"x-s": ",".join([sent] * 16)}), "s")
    many = Delivery(body=JSON, headers={"x-s": ",".join([sent] * 17)})
    assert Refused(Reason.MALFORMED) == verdict_on(verifier, many, "s")


@pytest.mark.parametrize(
    "key, secret, expected",
    [
        ("hex", "0g0g0g0g", "is not hexadecimal"),
        ("hex", "0a0a", "is not hexadecimal"),
        ("base64", "not base64!", "is not base64"),
        ("standard", "whsec_not base64", "is not whsec_ and base64"),
        ("standard_text", "whpk_" + "A" * 44, "is no signing secret"),
        ("text", "", "is empty"),
    ],
)
def test_a_secret_that_is_no_key_never_fits_and_cannot_sign(key: Any, secret: str, expected: str) -> None:
    verifier = hmac_sha256(header="X-S", key=key)
    forged = Delivery(body=JSON, headers={"x-s": hmac.digest(secret.encode(), JSON, "sha256").hex()})

    assert expected == verifier.fault(secret)
    assert Refused(Reason.MISMATCH) == verdict_on(verifier, forged, secret)
    with pytest.raises(ValueError, match=expected):
        signed(verifier, secret)


# --- Standard Webhooks ------------------------------------------------------------------------------------------------

RAW_KEY = b"a key of twenty-four byt"
WHSEC = "whsec_" + base64.b64encode(RAW_KEY).decode()


def standard(key: bytes, *, names: str = "webhook", **headers: str) -> Delivery:
    mac = base64.b64encode(hmac.digest(key, b"msg_1.1795000000." + JSON, "sha256")).decode()
    sent = {f"{names}-id": "msg_1", f"{names}-timestamp": "1795000000", f"{names}-signature": f"v1,{mac}"}
    return Delivery(body=JSON, headers={**sent, **headers})


@pytest.mark.parametrize("secret", [WHSEC, WHSEC.removeprefix("whsec_"), "v1," + WHSEC, WHSEC.rstrip("=")])
@pytest.mark.parametrize("names", ["webhook", "svix"])
def test_standard_webhooks_take_all_ways_to_write_the_secret(secret: str, names: str) -> None:
    assert Accepted(0) == verdict_on(standard_webhooks(), standard(RAW_KEY, names=names), secret)


def test_a_list_of_signatures_may_be_joined_by_commas() -> None:
    sent = standard(RAW_KEY)
    fitting = sent.headers["webhook-signature"]
    for written in (
        f"v1,AAAA {fitting}",
        f"v1,AAAA, {fitting}",
        f"{fitting}, v1,AAAA",
        f"v2,odd {fitting}",
        f"odd {fitting}",
    ):
        delivery = replace(sent, headers={**sent.headers, "webhook-signature": written})
        assert Accepted(0) == verdict_on(standard_webhooks(), delivery, WHSEC)


def test_polar_signs_with_the_whole_text_of_its_secret() -> None:
    sent = standard(WHSEC.encode())

    assert Accepted(0) == verdict_on(standard_webhooks(key="standard_or_text"), sent, WHSEC)
    assert Accepted(0) == verdict_on(standard_webhooks(key="standard_text"), sent, WHSEC)
    assert Accepted(0) == verdict_on(standard_webhooks(key="standard_or_text"), standard(RAW_KEY), WHSEC)
    assert Refused(Reason.MISMATCH) == verdict_on(standard_webhooks(), sent, WHSEC)


@pytest.mark.parametrize("known", ["v1", "v1a", "whpk_" + base64.b64encode(b"k" * 32).decode()])
def test_what_everybody_knows_is_no_secret(known: str) -> None:
    """`v1` is what is left of `v1,whsec_...` where secrets are parted at commas; a `whpk_` key is public."""
    for key in ("standard", "standard_text", "standard_or_text"):
        for forged in (known.encode(), base64.b64decode(known.removeprefix("whpk_") + "=="), b"k" * 32):
            assert isinstance(verdict_on(standard_webhooks(key=key), standard(forged), known), Refused)


def test_ed25519_signatures_are_checked_with_the_public_key() -> None:
    private = Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    signature = base64.b64encode(private.sign(b"msg_1.1795000000." + JSON)).decode()
    sent = standard(RAW_KEY, **{"webhook-signature": f"v1,AAAA v1a,{signature}"})

    assert Accepted(0) == verdict_on(standard_webhooks(), sent, public)
    assert standard_webhooks().fault(public) is None
    assert Refused(Reason.MISMATCH) == verdict_on(standard_webhooks(), replace(sent, body=b"{}"), public)


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", get_args(Unit))
def test_a_time_is_read_as_it_is_written(unit: Unit) -> None:
    assert NOW == read_ms(write(NOW, unit), unit)


@pytest.mark.parametrize(
    "text, unit, expected",
    [
        ("1505638683", "seconds_or_milliseconds", 1_505_638_683_000),
        ("1742505638683", "seconds_or_milliseconds", 1_742_505_638_683),
        ("2024-04-17T17:18:10Z", "iso8601", 1_713_374_290_000),
        ("2024-04-17T19:18:10.123+02:00", "iso8601", 1_713_374_290_123),
        ("2024-04-17T17:18:10", "iso8601", 1_713_374_290_000),
        ("Wed, 17 Apr 2024 17:18:10 GMT", "rfc1123", 1_713_374_290_000),
        ("Wed, 17 Apr 2024 17:18:10 GMT", "any", 1_713_374_290_000),
        ("2024-04-17 17:18:10+00:00", "any", 1_713_374_290_000),
        ("1713374290", "any", 1_713_374_290_000),
        ("1713374290123", "any", 1_713_374_290_123),
    ],
)
def test_a_time_is_understood(text: str, unit: Unit, expected: int) -> None:
    assert expected == read_ms(text, unit)


@pytest.mark.parametrize(
    "text, unit",
    [
        *((text, "seconds") for text in ("", " 1", "1_0", "+1", "-1", "1.5", "١٢٣", "1" * 12, "0x1", "1e9", "nan")),
        ("17950000000", "seconds_of_10_digits"),
        ("179500000", "seconds_of_10_digits"),
        ("1" * 15, "milliseconds"),
        ("2024-04-17", "iso8601"),
        ("20240417T171810Z", "iso8601"),
        ("2024-13-17T17:18:10Z", "iso8601"),
        ("2024-04-17T17:18:10Z{", "iso8601"),
        ("17 Apr 2024 17:18:10 GMT", "rfc1123"),
        ("Wed, 99 Apr 2024 17:18:10 GMT", "rfc1123"),
        ("}Wed, 17 Apr 2024 17:18:10 GMT", "rfc1123"),
        *((text, "any") for text in ("", "}1713374290", "1713374290}", "soon", "Wed, 17 Apr 2024 17:18:10 GMT1")),
    ],
)
def test_what_is_not_wholly_a_time_is_none(text: str, unit: Unit) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  of whatever read it
        read_ms(text, unit)


def test_a_header_with_two_times_is_ambiguous() -> None:
    verifier = SUBJECTS["workos"].verifier
    sent = signed(verifier, "s").headers["workos-signature"]
    twice = Delivery(body=JSON, headers={"workos-signature": f"{sent}, {sent.replace('t=1', 't=2')}"})

    assert Refused(Reason.MALFORMED) == verdict_on(verifier, twice, "s")


@pytest.mark.parametrize("name", ["slack", "sendgrid", "standard webhooks"])
def test_a_time_of_its_own_header_must_be_there(name: str) -> None:
    subject = SUBJECTS[name]
    sent = subject.signed()
    without = {header: text for header, text in sent.headers.items() if not header.endswith("timestamp")}

    assert Refused(Reason.MISSING) == subject.verify(replace(sent, headers=without))


# --- places and templates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "X-Signature", "header:", "path:1", "json:"])
def test_a_place_that_is_none_stops_the_start(place: str) -> None:
    with pytest.raises(ValueError, match="is no place"):
        reading(place)


@pytest.mark.parametrize("text", ["{boddy}", "{header}", "{body", "{}", "{url:shouted}", "{body:1}", "{timestamp:s}"])
def test_a_template_with_an_unknown_name_stops_the_start(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in the words of the parser or of the place
        Template(text)


def test_a_template_takes_what_arrived() -> None:
    delivery = Delivery(
        body=b'{"a": {"b": 7}}',
        headers={"x-id": "i\xfc"},
        url="https://it.example/?q=%41",
        query="q=%41",
        method="PUT",
    )
    text = "{method} {url} {header:X-Id} {query:q} {lower_query:q} {json:a.b} {timestamp} {body} {{}}"

    assert b'PUT https://it.example/?q=%41 i\xfc A a 7 now {"a": {"b": 7}} {}' == Template(text).compose(
        delivery, "now"
    )


def test_what_is_signed_and_missing_cannot_be_composed() -> None:
    delivery = Delivery(body=b"{}", headers={})

    assert Template("{header:x-id}.{body}").compose(delivery) is None
    assert b"{}" == Template("[{header:x-id}.]{body}").compose(delivery)


def test_a_missing_signed_header_is_told_as_missing() -> None:
    verifier = hmac_sha256(header="X-S", message="{header:x-id}.{body}")
    sent = signed(verifier, "s")

    assert Accepted(0) == verdict_on(verifier, sent, "s")
    assert Refused(Reason.MISSING) == verdict_on(verifier, replace(sent, headers={"x-s": sent.headers["x-s"]}), "s")


def test_forms_are_signed_decoded_and_sorted() -> None:
    one = Delivery(body=b"b=2&a=%C3%BC&c=", headers={}, url="https://it.example/")

    assert "https://it.example/aüb2c".encode() == Template("{url}{form}").compose(one)


def test_a_form_with_more_fields_than_any_provider_sends_is_malformed() -> None:
    subject = SUBJECTS["mandrill"]
    large = replace(subject.signed(), body=b"&".join(b"f%d=1" % number for number in range(5000)))

    assert Refused(Reason.MALFORMED) == subject.verify(large)


@pytest.mark.parametrize("place", ["header:x-a", "query:a", "form:a", "json:a", "json:b.c.d"])
def test_what_is_put_at_a_place_is_read_there(place: str) -> None:
    body = b"a=1&b=2" if place == "form:a" else b'{"a": 1, "b": {"x": 2}}'
    delivery = Delivery(body=body, headers={"x-b": "2"}, query="a=1&b=2", url="https://it.example/?a=1&b=2")

    assert "n&w" == reading(place)(put(delivery, place, "n&w"))


@pytest.mark.parametrize("body", [b"[]", b'{"b": 1}', b"1"])
def test_a_body_without_room_for_a_value_cannot_be_signed(body: bytes) -> None:
    with pytest.raises(ValueError, match="no room"):
        put(Delivery(body=body, headers={}), "json:b.c", "1")


# --- URL and body -----------------------------------------------------------------------------------------------------


def test_another_url_than_the_configured_one_is_told_apart() -> None:
    subject = SUBJECTS["square"]
    sent = subject.signed()

    assert Refused(Reason.MISMATCH_OR_URL) == subject.verify(replace(sent, url="http://10.0.0.7:8000/webhooks/it?a=1"))


def test_hubspot_decodes_some_characters_of_the_url() -> None:
    url = "https://it.example/hook?to=a%40b.example%2Fx%3f&keep=%C3%BC%20%2525"
    decoded = "https://it.example/hook?to=a@b.example/x?&keep=%C3%BC%20%2525"
    mac = hmac.digest(b"s", b"POST" + decoded.encode() + JSON + b"1795000000000", "sha256")
    headers = {
        "x-hubspot-signature-v3": base64.b64encode(mac).decode(),
        "x-hubspot-request-timestamp": "1795000000000",
    }

    assert Accepted(0) == verdict_on(hubspot_signature(), Delivery(body=JSON, headers=headers, url=url), "s")


@pytest.mark.parametrize("version, signed_text", [("v1", b"s" + JSON), ("v2", b"sPOSThttps://it.example/" + JSON)])
def test_the_older_signatures_of_hubspot_are_taken_only_where_a_source_asks(version: str, signed_text: bytes) -> None:
    headers = {"x-hubspot-signature": hashlib.sha256(signed_text).hexdigest(), "x-hubspot-signature-version": version}
    delivery = Delivery(body=JSON, headers=headers, url="https://it.example/")

    assert Accepted(1) == verdict_on(hubspot_signature(), delivery, "s", f"{version}:s")
    assert isinstance(verdict_on(hubspot_signature(), delivery, "s"), Refused)
    v3 = signed(hubspot_signature(), "s", delivery)
    assert Accepted(0) == verdict_on(hubspot_signature(), v3, f"{version}:s")


# --- only a part is signed --------------------------------------------------------------------------------------------


def test_every_item_of_adyen_is_checked() -> None:
    subject = SUBJECTS["adyen"]
    sent = orjson.loads(subject.signed().body)
    sent["notificationItems"][1]["NotificationRequestItem"]["merchantReference"] = "another"

    assert Refused(Reason.MISMATCH) == subject.verify(Delivery(body=orjson.dumps(sent), headers={}))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"notificationItems": [{}]}', b'{"notificationItems": [7]}', b"odd"])
def test_a_body_that_is_not_of_adyens_form_is_malformed(body: bytes) -> None:
    assert Refused(Reason.MALFORMED) == SUBJECTS["adyen"].verify(Delivery(body=body, headers={}))


def test_a_body_of_adyen_without_items_proves_nothing() -> None:
    empty = Delivery(body=b'{"notificationItems": []}', headers={})

    assert Refused(Reason.MISSING) == SUBJECTS["adyen"].verify(empty)


def test_items_of_adyen_may_be_signed_with_the_old_key_for_a_while() -> None:
    subject = SUBJECTS["adyen"]
    new, old = (orjson.loads(subject.signed(number).body)["notificationItems"] for number in (1, 0))
    mixed = Delivery(body=orjson.dumps({"notificationItems": [new[0], old[1]]}), headers={})

    assert Accepted(1) == subject.verify(mixed, subject.specimen(1).secret, subject.specimen(0).secret)


def test_a_key_with_a_login_demands_both() -> None:
    subject = SUBJECTS["adyen with a login"]
    sent, secret = subject.signed(), subject.specimen().secret
    key = secret.partition(":")[0]
    alone = replace(sent, headers={})

    assert Accepted(0) == subject.verify(sent, secret)
    assert Refused(Reason.MISSING) == subject.verify(alone, secret)
    assert Refused(Reason.MISMATCH) == subject.verify(sent, f"{key}:user:another")
    assert Accepted(1) == subject.verify(sent, f"{key}:user:another", secret)
    assert Accepted(0) == subject.verify(alone, key)
    assert "is not of the form user:password" == subject.verifier.fault(f"{key}:user")


def test_the_body_of_mercado_pago_must_be_about_what_is_signed() -> None:
    subject = SUBJECTS["mercado pago"]
    sent = subject.signed()

    assert Accepted(0) == subject.verify(replace(sent, body=b'{"data": {"id": "abc1"}}'))
    assert Accepted(0) == subject.verify(replace(sent, body=b""))
    assert Refused(Reason.MISMATCH) == subject.verify(replace(sent, body=b'{"data": {"id": "abc2"}}'))


@pytest.mark.parametrize("manifest", [b"id:abc1;ts:1795000000;", b"id:ABC1;ts:1795000000;"])
def test_mercado_pago_signs_the_id_in_either_case_and_leaves_out_what_is_missing(manifest: bytes) -> None:
    headers = {"x-signature": f"ts=1795000000,v1={hmac.digest(b's', manifest, 'sha256').hex()}"}
    delivery = Delivery(body=b"{}", headers=headers, query="data.id=ABC1&type=payment")

    assert Accepted(0) == verdict_on(mercado_pago_signature(), delivery, "s")
    assert Refused(Reason.MISMATCH) == verdict_on(mercado_pago_signature(), replace(delivery, query="data.id=2"), "s")
    twice = replace(delivery, query="data.id=ABC1&data.id=2")
    assert Refused(Reason.MALFORMED) == verdict_on(mercado_pago_signature(), twice, "s")


def test_a_sample_of_mercado_pago_names_in_its_query_what_its_body_is_about() -> None:
    sample = Delivery(body=b'{"data": {"id": "42"}}', headers={}, url="https://it.example/")
    sent = signed(mercado_pago_signature(), "s", sample)

    assert ("data.id=42", "https://it.example/?data.id=42") == (sent.query, sent.url)
    assert Accepted(0) == verdict_on(mercado_pago_signature(), sent, "s")


def test_no_digit_moves_between_the_time_and_the_token_of_mailgun() -> None:
    """Nothing parts the two, so that a token could be made new by giving a digit of it to the time."""
    token = "7" * 50
    sent = signed(mailgun_signature(), "s", Delivery(body=orjson.dumps({"signature": {"token": token}}), headers={}))
    time = orjson.loads(sent.body)["signature"]["timestamp"]
    for moved_time, moved_token in ((time + "7", token[1:]), (time[:-1], time[-1] + token)):
        moved = put(put(sent, "json:signature.timestamp", moved_time), "json:signature.token", moved_token)
        assert isinstance(mailgun_signature().verify(moved, ["s"], now_ms=NOW, tolerance_s=10**12), Refused)


def test_the_event_of_mailgun_is_not_signed() -> None:
    """What the docstring says: an event's token must count once."""
    sent = signed(mailgun_signature(), "s")
    body = {**orjson.loads(sent.body), "event-data": {"event": "clicked"}}

    assert Accepted(0) == verdict_on(mailgun_signature(), replace(sent, body=orjson.dumps(body)), "s")


def test_klaviyo_names_the_same_webhook_in_header_and_body() -> None:
    subject = SUBJECTS["klaviyo"]
    body = b'{"meta": {"klaviyo_webhook_id": "01ABC"}}'
    for named, expected in (("01ABC", Accepted(0)), ("01XYZ", Refused(Reason.MISMATCH))):
        delivery = Delivery(body=body, headers={"klaviyo-webhook-id": named})
        assert expected == verdict_on(subject.verifier, signed(subject.verifier, "s", delivery), "s")


# --- Braintree --------------------------------------------------------------------------------------------------------


def test_braintree_may_have_lost_the_last_line_end_of_its_payload() -> None:
    subject = SUBJECTS["braintree"]
    lost = put(subject.signed(), "form:bt_payload", "PGE+")

    assert Accepted(0) == subject.verify(lost)


def test_braintree_signs_for_several_key_pairs_at_once() -> None:
    subject = SUBJECTS["braintree"]
    ours = reading("form:bt_signature")(subject.signed())

    assert Accepted(0) == subject.verify(put(subject.signed(), "form:bt_signature", f"other|{'0' * 40}&{ours}"))


def test_the_challenge_of_braintree_is_answered() -> None:
    key = hashlib.sha1(b"private").digest()
    digest = hmac.digest(key, b"20f9f8ed05f77439fe955c977e4c8a53", "sha1").hex()

    assert f"public|{digest}" == braintree_challenge("20f9f8ed05f77439fe955c977e4c8a53", "public:private")


@pytest.mark.parametrize("challenge", ["", "a" * 19, "a" * 33, "g" * 20, "PGE+", "a" * 20 + "\n"])
def test_nothing_else_is_signed_as_a_challenge(challenge: str) -> None:
    assert braintree_challenge(challenge, "public:private") is None
    assert braintree_challenge("a" * 20, "public") is None


# --- certificates -----------------------------------------------------------------------------------------------------

PAYPAL = SUBJECTS["paypal"]
SNS = SUBJECTS["sns"]


@pytest.mark.parametrize("subject", [PAYPAL, SNS])
def test_a_certificate_that_is_not_known_yet_is_asked_for(subject: Subject) -> None:
    sent = subject.signed()
    (url,) = sent.certificates

    assert NeedsCertificate(url) == subject.verify(replace(sent, certificates={}))
    assert is_pinned(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/../../../evil",
        "https://api.paypal.com/v1/notifications/certs/CERT-1?x=1",
        "https://api.paypal.com/v1/notifications/certs/CERT-1#x",
        "https://api.paypal.com/v1/notifications/certs/CERT-1\n",
        "https://api.paypal.com/v1/other/CERT-1",
        "https://www.paypal.com/v1/notifications/certs/CERT-1",
        "file:///etc/passwd",
    ],
)
def test_a_certificate_from_elsewhere_is_neither_fetched_nor_believed(url: str) -> None:
    sent = PAYPAL.signed()
    (known,) = sent.certificates.values()
    delivery = replace(sent, headers={**sent.headers, "paypal-cert-url": url}, certificates={url: known})

    assert Refused(Reason.CERTIFICATE) == PAYPAL.verify(delivery)
    assert not is_pinned(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.evil.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://evil.example/SimpleNotificationService-1.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem?x=.pem",
        "https://sns.us-east-1.amazonaws.com/a/b.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.txt",
    ],
)
def test_a_certificate_of_anybodys_bucket_is_not_believed(url: str) -> None:
    sent = put(SNS.signed(), "json:SigningCertURL", url)
    (known,) = sent.certificates.values()

    assert Refused(Reason.CERTIFICATE) == SNS.verify(replace(sent, certificates={url: known}))


@pytest.mark.parametrize(
    "url",
    [
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-01d088a6f77103d0fe307c0069e40ed6.pem",
        "https://sns.us-gov-west-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.ap-southeast-2.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-df8cd2d5",
        "https://api-m.paypal.com/v1/notifications/certs/CERT-360caa42",
    ],
)
def test_the_providers_own_places_are_pinned(url: str) -> None:
    assert is_pinned(url)


@pytest.mark.parametrize("now_ms", [-1, 7_258_118_400_001])
def test_a_certificate_that_is_not_valid_now_is_not_believed(now_ms: int) -> None:
    assert Refused(Reason.CERTIFICATE) == PAYPAL.verify(PAYPAL.signed(), now_ms=now_ms)


def test_a_certificate_issued_to_somebody_else_is_not_believed() -> None:
    sent = PAYPAL.signed()
    (url,) = sent.certificates
    (amazon,) = SNS.signed().certificates.values()

    assert Refused(Reason.CERTIFICATE) == PAYPAL.verify(replace(sent, certificates={url: amazon}))


@pytest.mark.parametrize("pem", [b"", b"odd", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_accepts_nothing(pem: bytes) -> None:
    sent = PAYPAL.signed()
    (url,) = sent.certificates

    assert isinstance(PAYPAL.verify(replace(sent, certificates={url: pem})), Refused)


@pytest.mark.parametrize(
    "name, text", [("auth-algo", "SHA1withRSA"), ("transmission-time", "soon"), ("transmission-id", "1|2")]
)
def test_a_header_of_paypal_that_is_odd_is_malformed(name: str, text: str) -> None:
    sent = PAYPAL.signed()

    assert Refused(Reason.MALFORMED) == PAYPAL.verify(replace(sent, headers={**sent.headers, f"paypal-{name}": text}))


def test_a_topic_of_somebody_else_is_refused_before_a_certificate_is_asked_for() -> None:
    stranger = put(SNS.signed(), "json:TopicArn", "arn:aws:sns:us-east-1:666666666666:topic")

    assert Refused(Reason.MISMATCH) == SNS.verify(replace(stranger, certificates={}))


def test_sns_still_signs_with_sha1_where_nobody_has_changed_it() -> None:
    fields = {
        "Type": "SubscriptionConfirmation",
        "MessageId": "1",
        "Token": "2336412f37",
        "TopicArn": SNS.specimen().secret,
        "Message": "You have chosen to subscribe",
        "SubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "Timestamp": "2026-11-18T11:06:40.000Z",
    }
    message = "".join(f"{name}\n{fields[name]}\n" for name in sorted(fields)).encode()
    key = load_pem_private_key(SNS.specimen().signing.partition(" ")[2].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    signature = base64.b64encode(key.sign(message, PKCS1v15(), SHA1())).decode()
    (url,) = SNS.specimen().certificates
    body = {**fields, "SignatureVersion": "1", "Signature": signature, "SigningCertURL": url}
    sent = Delivery(body=orjson.dumps(body), headers={}, certificates=SNS.specimen().certificates)

    assert Accepted(0) == SNS.verify(sent)
    assert Refused(Reason.MISMATCH) == SNS.verify(put(sent, "json:Token", "another"))
    assert Refused(Reason.MISMATCH) == SNS.verify(put(sent, "json:SignatureVersion", "2"))
    assert Refused(Reason.MALFORMED) == SNS.verify(put(sent, "json:SignatureVersion", "3"))


@pytest.mark.parametrize(
    "verifier, secret, expected",
    [
        (paypal_signature(), "a webhook", "is no id of a webhook"),
        (sns_signature(), "my-topic", "is neither an ARN of an SNS topic nor user:password"),
        (SUBJECTS["sendgrid"].verifier, "not a key", "is no public key for ECDSA P-256"),
        (SUBJECTS["sendgrid"].verifier, SUBJECTS["rsa"].specimen().secret, "is no public key for ECDSA P-256"),
        (SUBJECTS["ed25519"].verifier, "0a0a", "is no public key for Ed25519"),
        (SUBJECTS["rsa"].verifier, SUBJECTS["sendgrid"].specimen().secret, "is no public key for RSA-SHA256"),
        (braintree_form(), "public", "is not of the form public key:private key"),
        (basic_auth(), "user", "is not of the form user:password"),
    ],
)
def test_a_secret_of_the_wrong_kind_is_named(verifier: Verifier, secret: str, expected: str) -> None:
    assert expected == verifier.fault(secret)
    assert isinstance(verdict_on(verifier, signed(hmac_sha256(header="x-s"), "s"), secret), Refused)
    with pytest.raises(ValueError):  # noqa: PT011  of the family or of the library
        signed(verifier, secret)


@pytest.mark.parametrize("curve", [SECP384R1(), SECP256R1()])
def test_an_elliptic_curve_is_no_other_curve(curve: EllipticCurve) -> None:
    key = generate_private_key(curve).public_key()
    secret = base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()

    assert isinstance(curve, SECP256R1) is (SUBJECTS["sendgrid"].verifier.fault(secret) is None)


def test_only_a_private_key_of_a_known_kind_signs() -> None:
    encrypted = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    exchange = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem in (encrypted, exchange, b"odd"):
        with pytest.raises(ValueError):  # noqa: PT011  in the library's words, or in ours
            signed(SUBJECTS["sendgrid"].verifier, pem.decode())


def test_a_certificate_that_no_provider_could_sign_with_is_none() -> None:
    """Providers' certificates hold RSA keys."""
    _, _, pem = specimens.pair("ecdsa-p256", "", 0)

    with pytest.raises(ValueError, match="not RSA"):
        check_certificate(pem)


def test_a_public_key_may_be_written_as_pem() -> None:
    subject = SUBJECTS["sendgrid"]
    pem = f"-----BEGIN PUBLIC KEY-----\n{subject.specimen().secret}\n-----END PUBLIC KEY-----\n"

    assert Accepted(0) == subject.verify(subject.signed(), pem)


def test_a_line_end_belongs_to_the_signed_body() -> None:
    subject = SUBJECTS["sendgrid"]
    sent = subject.signed()

    assert Refused(Reason.MISMATCH) == subject.verify(replace(sent, body=sent.body.rstrip()))


# --- shared secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["Bearer s3cret", "bearer s3cret", "BEARER s3cret"])
def test_the_scheme_of_a_bearer_token_is_in_any_case(sent: str) -> None:
    assert Accepted(0) == verdict_on(bearer(), Delivery(body=b"", headers={"authorization": sent}), "s3cret")


@pytest.mark.parametrize("sent", ["s3cret", "Basic s3cret", "Bearer", "Bearer "])
def test_another_scheme_is_malformed(sent: str) -> None:
    assert Refused(Reason.MALFORMED) == verdict_on(
        bearer(), Delivery(body=b"", headers={"authorization": sent}), "s3cret"
    )


def test_a_token_of_any_characters_fits_as_its_bytes_came() -> None:
    arrived = "schlüssel☃".encode().decode("latin-1")

    assert Accepted(0) == verdict_on(header_token("X-T"), Delivery(body=b"", headers={"x-t": arrived}), "schlüssel☃")
    assert Accepted(0) == verdict_on(header_token("X-T"), signed(header_token("X-T"), "schlüssel☃"), "schlüssel☃")


def test_a_token_in_the_url_is_decoded_and_comes_once() -> None:
    assert Accepted(0) == verdict_on(query_token("key"), Delivery(body=b"", headers={}, query="a=1&key=a%26b"), "a&b")
    twice = Delivery(body=b"", headers={}, query="key=x&key=s")
    assert Refused(Reason.MALFORMED) == verdict_on(query_token("key"), twice, "s")


def test_a_password_may_have_a_colon() -> None:
    assert Accepted(0) == verdict_on(basic_auth(), signed(basic_auth(), "user:pass:word"), "user:pass:word")


@pytest.mark.parametrize("secret", ["user", ":", "user:"])
def test_a_login_without_a_password_lets_nobody_in(secret: str) -> None:
    sent = f"Basic {base64.b64encode(secret.encode()).decode()}"

    assert Refused(Reason.MISMATCH) == verdict_on(
        basic_auth(), Delivery(body=b"", headers={"authorization": sent}), secret
    )


# --- combinations -----------------------------------------------------------------------------------------------------


def test_either_tells_the_most_telling_refusal() -> None:
    one, other = hmac_sha256(header="X-One"), SUBJECTS["slack"].verifier
    both = either(one, other)
    stale = signed(other, "s", now_ms=NOW - DAY_S * 1000)

    assert Accepted(0) == verdict_on(both, signed(one, "s"), "s")
    assert Accepted(0) == verdict_on(both, signed(other, "s"), "s")
    assert Refused(Reason.STALE) == verdict_on(both, stale, "s")
    assert Refused(Reason.STALE) == verdict_on(both, replace(stale, headers={**stale.headers, "x-one": "0" * 64}), "s")
    assert Refused(Reason.MISSING) == verdict_on(both, Delivery(body=JSON, headers={}), "s")
    assert f"{one.family}; or {other.family}" == both.family
    assert 300 == both.tolerance_s


def test_either_waits_for_a_certificate() -> None:
    sent = PAYPAL.signed()
    (url,) = sent.certificates
    both = either(hmac_sha256(header="X-One"), paypal_signature())

    assert NeedsCertificate(url) == verdict_on(both, replace(sent, certificates={}), PAYPAL.specimen().secret)
    assert Accepted(0) == verdict_on(both, sent, PAYPAL.specimen().secret)


def test_either_keeps_the_credentials_of_all() -> None:
    assert {"authorization", "x-t"} == set(either(bearer(), header_token("X-T")).credentials)


def test_a_check_that_breaks_is_a_refusal() -> None:
    delivery = Delivery(body=JSON, headers={"x-s": "0" * 64})

    assert Refused(Reason.ERROR) == hmac_sha256(header="X-S").verify(delivery, [7], now_ms=NOW)  # type: ignore[list-item]


# --- Stripe, beyond its own check -------------------------------------------------------------------------------------


def test_stripe_is_loaded_by_the_first_check_of_its_signature() -> None:
    code = (
        "import sys, mappers.stripe; assert 'stripe' not in sys.modules; assert 'cryptography.x509' not in sys.modules"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode


# --- what is compared, asked for and tried ----------------------------------------------------------------------------


def agreeing(body: bytes, **headers: str) -> Verdict:
    verifier = SUBJECTS["klaviyo"].verifier
    sent = verifier.sign(Delivery(body=body, headers={}), "key", now_ms=NOW)
    kept = {name: text for name, text in sent.headers.items() if name != "klaviyo-webhook-id"}
    return verifier.verify(replace(sent, headers={**kept, **headers}), ["key"], now_ms=NOW)


@pytest.mark.parametrize(
    "body, headers, is_right",
    [
        (b'{"meta": {"klaviyo_webhook_id": "a"}}', {"klaviyo-webhook-id": "a"}, True),
        (b'{"meta": {"klaviyo_webhook_id": "a"}}', {"klaviyo-webhook-id": "b"}, False),
        (b'{"meta": {"klaviyo_webhook_id": "a"}}', {}, False),
        (b"{}", {"klaviyo-webhook-id": "a"}, False),
        (b"{}", {}, True),
    ],
)
def test_where_one_of_two_that_must_agree_speaks_the_other_must(
    body: bytes, headers: dict[str, str], *, is_right: bool
) -> None:
    assert (Accepted(0) if is_right else Refused(Reason.MISMATCH)) == agreeing(body, **headers)


def test_either_signs_as_the_first_that_can() -> None:
    """Mailgun's JSON and its form of old have their signature in two places."""
    verifier = mailgun_signature()
    for body in (b'{"event-data": {}}', b"event=opened"):
        sent = verifier.sign(Delivery(body=body, headers={}), "key", now_ms=NOW)
        assert Accepted(0) == verifier.verify(sent, ["key"], now_ms=NOW)


@pytest.mark.parametrize(
    "verifier, expected",
    [
        (basic_auth(), True),
        (with_basic_auth(adyen_items()), True),
        (sns_signature(), True),
        (either(hmac_sha256(header="X-Signature"), basic_auth()), True),
        (either(hmac_sha256(header="X-Signature"), bearer()), False),
        (stripe_signature(), False),
    ],
)
def test_it_is_known_where_basic_authentication_is_taken(verifier: Verifier, *, expected: bool) -> None:
    assert expected == takes_basic(verifier)


ORGANIZATION = "00D58000000Ij2P"
MESSAGE = b"<notifications><OrganizationId>00D58000000Ij2PEAS</OrganizationId></notifications>"


@pytest.mark.parametrize(
    "secret, body, is_right",
    [
        ("hush", MESSAGE, True),
        (f"hush:{ORGANIZATION}", MESSAGE, True),
        (f"hush:{ORGANIZATION}EAS", MESSAGE, True),
        (f"hush:{ORGANIZATION}", MESSAGE.replace(b"Id>", b'Id xmlns="urn:x">', 1), True),
        ("hush:00D58000000Other", MESSAGE, False),
        (f"hush:{ORGANIZATION}", b"<a/>", False),
        (f"hush:{ORGANIZATION}", MESSAGE + MESSAGE.replace(b"Ij2P", b"Xx2P"), False),
        (f"other:{ORGANIZATION}", MESSAGE, False),
    ],
)
def test_a_token_of_salesforce_may_be_for_one_organization(secret: str, body: bytes, *, is_right: bool) -> None:
    sent = Delivery(body=body, headers={}, query="token=hush")

    assert (Accepted(0) if is_right else Refused(Reason.MISMATCH)) == salesforce_token().verify(
        sent, [secret], now_ms=NOW
    )


def test_two_organizations_may_share_a_token() -> None:
    sent = Delivery(body=MESSAGE, headers={}, query="token=hush")

    assert Accepted(1) == salesforce_token().verify(sent, ["hush:00D580000000000", f"hush:{ORGANIZATION}"], now_ms=NOW)
