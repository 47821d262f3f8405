"""A sender that nobody has heard of, connected by `relay.toml` alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings as examples, strategies as st
from pydantic import BaseModel

from relay import receiving
from relay.app import create_app
from relay.contract import Accepted, Delivery, Provider, Reason, Refused
from relay.declarations import EventTable, HandshakeTable, LearnedTable, NotificationTable, VerifyTable
from relay.declared import CREDENTIALS
from relay.declared_verifiers import faults, verifier_of
from relay.mapping import map_delivery
from relay.serving import serving
from relay.settings import SettingsError, declare, load
from relay.sources import Source
from relay.store.base import Mapped
from relay.store.schema import Outcome
from relay.testing import conformance
from tests.commands import Commands
from tests.conftest import API_KEY, EventsApi, RunningRelay, until
from tests.things import Clock

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "generic-senders.md").read_text(encoding="utf-8")
SECRET = "hush"
NOW_S = 1_795_500_000
NOW_MS = NOW_S * 1000
BODY = b'{"id":"evt_1","type":"order.paid","at":"2026-11-23T10:00:00Z","order":{"id":7,"total":1999,"currency":"eur"}}'

ACME = """
[sources.acme]
secrets = ["hush"]

[sources.acme.verify]
signature = "header:X-Acme-Signature"

[sources.acme.notification]
id = "id"
type = "type"
time = "at"

[[sources.acme.events]]
types = ["order.paid"]
name = "purchase"
once = "order:{order.id}"
email = "order.email"
revenue = "order.total"
unit = "minor"
currency = "order.currency"
properties = { order_id = "order.id" }
"""


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) if block.startswith("   ") else block for block in found]


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., tuple[Provider, Source]]:
    """The provider and the source of a file, by the rules of a real start."""

    def made(toml: str = ACME, slug: str = "acme", **variables: str) -> tuple[Provider, Source]:
        (tmp_path / "relay.toml").write_text(toml)
        environ = {"RELAY_CONFIG": str(tmp_path / "relay.toml"), **variables}
        providers = declare({}, environ=environ, env_file=tmp_path / ".env")
        source = load(providers, environ=environ, env_file=tmp_path / ".env").sources[slug]
        return providers[source.provider], source

    return made


Declared = Callable[..., tuple[Provider, Source]]


def mapped(
    declared: tuple[Provider, Source], body: Any, headers: Mapping[str, str] | None = None, *, now_ms: int = NOW_MS
) -> list[Mapped]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return map_delivery(*declared, Delivery(body=raw, headers=headers or {}), received_at_ms=now_ms)


def event_of(found: Mapped) -> dict[str, Any]:
    assert (Outcome.MAPPED, None) == (found.outcome, found.error)
    (outgoing,) = found.events
    event: dict[str, Any] = orjson.loads(outgoing.sealed.payload)
    return event


def order(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(BODY)
    return {**body, "order": {**body["order"], **changes.pop("order", {})}, **changes}


# --- the whole way ----------------------------------------------------------------------------------------------------

Start = Callable[..., AbstractAsyncContextManager[RunningRelay]]


@pytest.fixture
def start(tmp_path: Path, events_api: EventsApi) -> Start:
    """Starts a relay with this `relay.toml`, as `relay serve` does."""

    @asynccontextmanager
    async def run(toml: str, **variables: str) -> AsyncIterator[RunningRelay]:
        (tmp_path / "relay.toml").write_text(toml)
        environ = {
            "RELAY_CONFIG": str(tmp_path / "relay.toml"),
            "RELAY_DATABASE_URL": f"sqlite:///{tmp_path / 'relay.db'}",
            "OAA_BASE_URL": events_api.url,
            "OAA_PROJECT_ID": "42",
            "OAA_API_KEY": API_KEY,
            **variables,
        }
        providers = declare({}, environ=environ, env_file=tmp_path / ".env")
        settings = load(providers, environ=environ, env_file=tmp_path / ".env")
        app = create_app(settings, providers, clock=Clock(NOW_MS))
        async with serving(app) as served, httpx.AsyncClient(base_url=served.url) as http:
            yield RunningRelay(app, served.url, http, tmp_path / "relay.db")

    return run


def hex_hmac(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


async def arrived(events_api: EventsApi, number: int) -> list[dict[str, Any]]:
    async def is_there() -> bool:
        return len(await events_api.received()) >= number

    await until(is_there)
    return await events_api.received()


async def test_the_guides_sender_is_connected_by_copy_and_paste(start: Start, events_api: EventsApi) -> None:
    body = blocks("json")[0].encode()
    async with start(blocks("toml")[0], ACME_WEBHOOK_SECRET=SECRET) as relay:
        headers = {"X-Acme-Signature": hex_hmac(body)}
        answers = [await relay.http.post("/webhooks/acme", content=body, headers=headers) for _ in range(2)]
        forged = await relay.http.post("/webhooks/acme", content=body, headers={"X-Acme-Signature": "0" * 64})
        (event,) = await arrived(events_api, 1)

    assert [(200, b"{}")] * 2 == [(answer.status_code, answer.content) for answer in answers]
    assert 401 == forged.status_code
    assert ("conversion", "purchase") == (event["event_type"], event["event_name"])
    assert (49.9, "EUR") == (event["revenue"], event["currency"])
    assert 1_795_428_930_000 == event["timestamp"]
    assert hashlib.sha256(b"buyer@example.com").hexdigest() == event["user_id"]
    told = {"order_id": 7001, "plan": "pro", "tax": 7.97, "utm_source": "newsletter", "provider_event": "order.paid"}
    assert told == {key: event["properties"].get(key) for key in told}


async def test_a_standard_webhooks_sender_needs_a_secret_and_a_mapping(start: Start, events_api: EventsApi) -> None:
    (toml,) = [block for block in blocks("toml") if "standard_webhooks" in block]
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    body = (
        b'{"type":"contact.subscribed","timestamp":"2026-11-23T10:00:00Z","data":{"id":"c1","email":"a@example.com"}}'
    )
    mac = hmac.new(b"k" * 24, b"msg_1.%d." % NOW_S + body, "sha256").digest()
    values = {"id": "msg_1", "timestamp": str(NOW_S), "signature": "v1," + base64.b64encode(mac).decode()}
    async with start(toml, NEWSLETTER_WEBHOOK_SECRET=secret) as relay:
        for name in ("webhook", "svix"):
            headers = {f"{name}-{key}": value for key, value in values.items()}
            assert 200 == (await relay.http.post("/webhooks/newsletter", content=body, headers=headers)).status_code
        (event,) = await arrived(events_api, 1)

    assert ("newsletter_subscribed", 1_795_428_000_000) == (event["event_name"], event["timestamp"])


async def test_a_sale_waits_for_the_person_whom_another_notification_tells(start: Start, events_api: EventsApi) -> None:
    (toml,) = [block for block in blocks("toml") if ".learned]]" in block]
    paid = {
        "id": "e1",
        "type": "invoice.paid",
        "at": NOW_S,
        "invoice": {"id": 1, "total": "20.50", "customer_id": "c1"},
    }
    created = {"id": "e2", "type": "customer.created", "at": NOW_S, "customer": {"id": "c1", "email": "a@example.com"}}
    async with start(toml, PARTS_WEBHOOK_SECRET=SECRET) as relay:
        for body in (orjson.dumps(paid), orjson.dumps(created)):
            headers = {"X-Signature": hex_hmac(body)}
            assert 200 == (await relay.http.post("/webhooks/parts", content=body, headers=headers)).status_code
        (event,) = await arrived(events_api, 1)

    assert (20.5, hashlib.sha256(b"a@example.com").hexdigest()) == (event["revenue"], event["user_id"])


async def test_what_could_not_be_mapped_is_mapped_after_the_correction(start: Start, events_api: EventsApi) -> None:
    wrong = ACME.replace("order.total", "order.amount")
    async with start(wrong) as relay:
        answer = await relay.http.post("/webhooks/acme", content=BODY, headers={"X-Acme-Signature": hex_hmac(BODY)})
        assert 200 == answer.status_code
    async with start(ACME):
        (event,) = await arrived(events_api, 1)

    assert (19.99, "EUR") == (event["revenue"], event["currency"])


# --- who may send -----------------------------------------------------------------------------------------------------


def mac(message: bytes, *, key: bytes = SECRET.encode(), algorithm: str = "sha256") -> bytes:
    return hmac.new(key, message, algorithm).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


T, MS = str(NOW_S), str(NOW_MS)
#: What a table says, how a sender that it is about signs `BODY`, and its secret.
SIGNED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "hex": ({"signature": "header:X-S"}, {"headers": {"x-s": mac(BODY).hex()}}, SECRET),
    "capital hex": (
        {"signature": "header:X-S", "encoding": "HEX"}, {"headers": {"x-s": mac(BODY).hex().upper()}}, SECRET,
    ),
    "base64": ({"signature": "header:X-S", "encoding": "base64"}, {"headers": {"x-s": b64(mac(BODY))}}, SECRET),
    "base64url": (
        {"signature": "header:X-S", "encoding": "base64url"},
        {"headers": {"x-s": base64.urlsafe_b64encode(mac(BODY)).decode().rstrip("=")}}, SECRET,
    ),
    "sha1 behind a prefix": (
        {"signature": "header:X-S", "algorithm": "sha1", "prefix": "sha1="},
        {"headers": {"x-s": "sha1=" + mac(BODY, algorithm="sha1").hex()}}, SECRET,
    ),
    "sha512": (
        {"signature": "header:X-S", "algorithm": "sha512"},
        {"headers": {"x-s": mac(BODY, algorithm="sha512").hex()}}, SECRET,
    ),
    "several in one header": (
        {"signature": "header:X-S", "separator": " "}, {"headers": {"x-s": f"{'0' * 64} {mac(BODY).hex()}"}}, SECRET,
    ),
    "the first header that is there": (
        {"signature": ["header:X-New", "header:X-S"]}, {"headers": {"x-s": mac(BODY).hex()}}, SECRET,
    ),
    "in the query": ({"signature": "query:sig"}, {"query": f"a=1&sig={mac(BODY).hex()}"}, SECRET),
    "a key in hex": (
        {"signature": "header:X-S", "key": "hex"}, {"headers": {"x-s": mac(BODY, key=b"keys!").hex()}}, b"keys!".hex(),
    ),
    "a key in base64 behind a prefix": (
        {"signature": "header:X-S", "key": "base64", "key_prefix": "sk_"},
        {"headers": {"x-s": mac(BODY, key=b"keys!").hex()}}, "sk_" + b64(b"keys!"),
    ),
    "pairs": (
        {"signature": "header:X-S", "form": "pairs", "timestamp": "signature"},
        {"headers": {"x-s": f"t={T},v1={mac(T.encode() + b'.' + BODY).hex()}"}}, SECRET,
    ),
    "pairs of other names": (
        {"signature": "header:X-S", "form": "pairs", "timestamp": "signature", "time_key": "ts", "signature_key": "h1",
         "separator": ";", "message": "{timestamp}:{body}"},
        {"headers": {"x-s": f"ts={T};h1={mac(T.encode() + b':' + BODY).hex()}"}}, SECRET,
    ),
    "list": (
        {"signature": "header:X-S", "form": "list", "timestamp": "signature", "timestamp_format": "milliseconds"},
        {"headers": {"x-s": f"{MS},{mac(MS.encode() + b'.' + BODY).hex()}"}}, SECRET,
    ),
    "versions": (
        {"signature": "header:X-S", "form": "versions", "encoding": "base64", "timestamp": "header:X-T"},
        {"headers": {"x-s": f"v1,{b64(mac(T.encode() + b'.' + BODY))}", "x-t": T}}, SECRET,
    ),
    "the time in a header": (
        {"signature": "header:X-S", "timestamp": "header:X-T", "message": ["v0:", "{timestamp}", ":", "{body}"],
         "prefix": "v0="},
        {"headers": {"x-s": "v0=" + mac(b"v0:%b:" % T.encode() + BODY).hex(), "x-t": T}}, SECRET,
    ),
    "the time as text": (
        {"signature": "header:X-S", "timestamp": "header:X-T", "timestamp_format": "iso8601",
         "message": "{body}{timestamp}"},
        {"headers": {"x-s": mac(BODY + b"2026-11-24T06:00:00Z").hex(), "x-t": "2026-11-24T06:00:00Z"}}, SECRET,
    ),
    "the URL and another header": (
        {"signature": "header:X-S", "message": "{method}{url}{header:X-Id}{body}"},
        {"headers": {"x-s": mac(b"POSThttps://r.example/webhooks/acme?a=19" + BODY).hex(), "x-id": "9"},
         "url": "https://r.example/webhooks/acme?a=1"}, SECRET,
    ),
    "the path": (
        {"signature": "header:X-S", "message": "{method} {url:path}\n{body}"},
        {"headers": {"x-s": mac(b"POST /webhooks/acme\n" + BODY).hex()}, "url": "https://r.example/webhooks/acme?a=1"},
        SECRET,
    ),
    "sorted fields of a form": (
        {"signature": "header:X-S", "message": "{form}"},
        {"headers": {"x-s": mac(b"a1b2").hex()}, "body": b"b=2&a=1"}, SECRET,
    ),
    "a token in a header": ({"scheme": "token", "token": "header:X-Token"}, {"headers": {"x-token": SECRET}}, SECRET),
    "a token in the query": ({"scheme": "token", "token": "query:token"}, {"query": f"token={SECRET}"}, SECRET),
    "a token in the body": (
        {"scheme": "token", "token": "json:auth.token"}, {"body": b'{"auth":{"token":"hush"}}'}, SECRET,
    ),
    "a token in a form": ({"scheme": "token", "token": "form:token"}, {"body": b"token=hush&a=1"}, SECRET),
    "bearer": ({"scheme": "bearer"}, {"headers": {"authorization": f"Bearer {SECRET}"}}, SECRET),
    "bearer elsewhere": (
        {"scheme": "bearer", "token": "header:X-Auth"}, {"headers": {"x-auth": f"Bearer {SECRET}"}}, SECRET,
    ),
    "basic": ({"scheme": "basic"}, {"headers": {"authorization": "Basic " + b64(b"user:hush")}}, "user:hush"),
}  # fmt: skip

signed = pytest.mark.parametrize("table, sent, secret", SIGNED.values(), ids=SIGNED)


def verifier(table: dict[str, Any]) -> Any:
    checked = VerifyTable.model_validate(table)
    assert [] == list(faults(checked))
    return verifier_of(checked)


def sent_as(sent: dict[str, Any]) -> Delivery:
    return Delivery(**{"body": BODY, "headers": {}, **sent})


@signed
def test_what_the_sender_signed_is_accepted(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    assert Accepted(0) == verifier(table).verify(sent_as(sent), [secret], now_ms=NOW_MS)


@signed
def test_an_older_secret_fits_as_well(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    new = (
        "sk_" + b64(b"newer") if "key_prefix" in table else {"hex": b"newer".hex()}.get(table.get("key", ""), "a:newer")
    )

    assert Accepted(1) == verifier(table).verify(sent_as(sent), [new, secret], now_ms=NOW_MS)


@signed
def test_another_secret_does_not_fit(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    assert isinstance(verifier(table).verify(sent_as(sent), [secret + "01"], now_ms=NOW_MS), Refused)


@signed
def test_another_body_does_not_fit(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    if table.get("scheme", "signature") == "signature":
        forged = replace(sent_as(sent), body=b'{"other":1}')
        assert isinstance(verifier(table).verify(forged, [secret], now_ms=NOW_MS), Refused)


@signed
def test_without_its_signature_nothing_is_accepted(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    bare = Delivery(body=b"{}", headers={}, url=sent.get("url", ""))

    assert Refused(Reason.MISSING) == verifier(table).verify(bare, [secret], now_ms=NOW_MS)


@signed
def test_a_signed_time_must_be_of_now(table: dict[str, Any], sent: dict[str, Any], secret: str) -> None:
    verdicts = [
        verifier(table).verify(sent_as(sent), [secret], now_ms=NOW_MS + later_s * 1000) for later_s in (301, -301, 299)
    ]
    expected = (
        [Refused(Reason.STALE), Refused(Reason.FUTURE), Accepted(0)] if "timestamp" in table else [Accepted(0)] * 3
    )

    assert expected == verdicts


def test_a_time_that_is_not_enforced_may_be_any() -> None:
    table, sent, secret = SIGNED["pairs"]

    verdict = verifier({**table, "enforce_time": False}).verify(sent_as(sent), [secret], now_ms=NOW_MS * 2)

    assert Accepted(0) == verdict


def test_of_several_places_one_signature_that_fits_is_enough() -> None:
    """As where a sender that is about to change its secret numbers its headers: one for each secret."""
    table = {"signature": ["header:X-S-1", "header:X-S-2"]}
    fits, not_mine = hex_hmac(BODY, SECRET), hex_hmac(BODY, "another secret")

    def verdict(*signatures: str) -> Any:
        headers = {f"x-s-{number}": text for number, text in enumerate(signatures, 1)}
        return verifier(table).verify(sent_as({"headers": headers}), [SECRET], now_ms=NOW_MS)

    assert [Accepted(0)] * 4 == [verdict(*sent) for sent in ((fits,), (not_mine, fits), ("none", fits), (fits, "none"))]
    assert all(
        isinstance(verdict(*sent), Refused) for sent in ((not_mine, not_mine), ("none", not_mine), ("none",), ())
    )


@pytest.mark.parametrize("form", ["der", "pem", "hex", "base64", "whpk"])
def test_a_public_key_is_a_secret_too(form: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    raw = key.public_key().public_bytes_raw()
    public = {
        "der": b64(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        "pem": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "hex": raw.hex(),
        "base64": b64(raw),
        "whpk": f"whpk_{b64(raw)}",
    }[form]
    table = {
        "signature": "header:X-S",
        "algorithm": "ed25519",
        "timestamp": "header:X-T",
        "message": "{timestamp}{body}",
    }
    sent = sent_as({"headers": {"x-s": b64(key.sign(T.encode() + BODY)), "x-t": T}})

    assert Accepted(0) == verifier(table).verify(sent, [public], now_ms=NOW_MS)
    assert isinstance(verifier(table).verify(replace(sent, body=b"{}"), [public], now_ms=NOW_MS), Refused)


def test_a_header_that_is_the_secret_is_never_kept() -> None:
    table, _, _ = SIGNED["a token in a header"]

    assert ("x-token",) == verifier(table).credentials


# --- what it asks first -----------------------------------------------------------------------------------------------

HANDSHAKE = """
[sources.acme.handshake]
query = "hub.challenge"
when = "type == 'url_verification'"
answer = "challenge"
"""


async def test_a_challenge_is_echoed_and_has_no_effect(start: Start) -> None:
    asked = b'{"type":"url_verification","challenge":"c-1"}'
    async with start(ACME + HANDSHAKE) as relay:
        get = await relay.http.get("/webhooks/acme", params={"hub.mode": "subscribe", "hub.challenge": "c-0"})
        unsigned = await relay.http.post("/webhooks/acme", content=asked)
        signed = await relay.http.post("/webhooks/acme", content=asked, headers={"X-Acme-Signature": hex_hmac(asked)})
        other = await relay.http.post("/webhooks/acme", content=b'{"type":"order.paid","challenge":"c-1"}')
        taken = await relay.metric("relay_deliveries_total", source="acme", outcome="accepted")

    assert [(200, "c-0"), (200, "c-1"), (200, "c-1")] == [
        (one.status_code, one.text) for one in (get, unsigned, signed)
    ]
    assert "text/plain; charset=utf-8" == get.headers["content-type"]
    assert (401, 0) == (other.status_code, taken)


def test_a_challenge_may_be_answered_in_json(declared: Declared) -> None:
    provider, _ = declared(ACME + changed('answer = "challenge"', 'answer = "{challenge: challenge}"', HANDSHAKE))

    answer = provider.handshake(Delivery(body=b'{"type":"url_verification","challenge":"c"}', headers={}))

    assert answer is not None
    assert (b'{"challenge":"c"}', "application/json") == (answer.body, answer.content_type)


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[" * 9000, b'{"type":"url_verification","challenge":"\\ud800"}',
             orjson.dumps({"type": "url_verification", "challenge": "c" * 1001}),
             orjson.dumps({"type": "url_verification", "challenge": [1]}),
             orjson.dumps({"type": "url_verification", "challenge": "c", "rest": "r" * 10_000})],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_handshake_is_refused_like_any_other(declared: Declared, body: bytes) -> None:
    provider, _ = declared(ACME + HANDSHAKE)

    verdict = provider.verifier.verify(Delivery(body=body, headers={}), [SECRET], now_ms=NOW_MS)

    assert Refused(Reason.MISSING) == verdict
    assert provider.handshake(Delivery(body=body, headers={})) is None or b"ud800" in body


# --- what a delivery consists of --------------------------------------------------------------------------------------


def changed(old: str, new: str, toml: str = ACME) -> str:
    assert old in toml
    return toml.replace(old, new)


def test_a_list_is_one_notification_for_each_and_a_bad_one_parks_alone(declared: Declared) -> None:
    bodies = [order(id="a"), {**order(id="b"), "order": {"id": 8, "total": "many", "currency": "EUR"}}, 5]
    bodies.append(order(id="c", order={"id": 9}))

    found = mapped(declared(), bodies)

    assert ["a", "b", "c"] == [one.notification_id for one in found if not one.notification_id.startswith("sha256:")]
    expected = [Outcome.MAPPED, Outcome.FAILED, Outcome.NOT_MAPPED, Outcome.MAPPED]
    assert expected == [one.outcome for one in found]


def test_the_items_may_stand_deep_inside(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\nitems = "data.events"')

    found = mapped(declared(toml), {"data": {"events": [order(id="a"), order(id="b", order={"id": 8})]}})

    assert [("a", 7), ("b", 8)] == [(one.notification_id, event_of(one)["properties"]["order_id"]) for one in found]


SHARED = 'id = "id"\nitems = "groups[].orders[]"\nshared = "{at: sent_at, currency: money.currency}"'


def test_lists_in_lists_are_items_too_with_what_the_body_says_for_all(declared: Declared) -> None:
    toml = changed('currency = "order.currency"', 'currency = "currency"', changed('id = "id"', SHARED))
    own = {name: value for name, value in order().items() if name != "at"}
    orders = [{**own, "id": "a"}, {**own, "id": "b", "currency": "USD", "order": {"id": 8, "total": 5}}, 5]
    body = {"sent_at": order()["at"], "money": {"currency": "EUR"}, "groups": [{"orders": orders}, {"orders": []}]}

    first, second, third = mapped(declared(toml), body)

    assert ["EUR", "USD"] == [event_of(one)["currency"] for one in (first, second)]
    assert event_of(first)["timestamp"] == event_of(mapped(declared(), order())[0])["timestamp"]
    assert Outcome.NOT_MAPPED is third.outcome


def test_what_is_shared_is_an_object_or_nothing(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\nitems = "orders"\nshared = "meta"')

    (nothing,), (number,) = (mapped(declared(toml), {"orders": [order()], **meta}) for meta in ({}, {"meta": 5}))

    assert Outcome.MAPPED is nothing.outcome
    assert "relay.toml: sources.acme.notification.shared: `meta` finds a number, which is no object" == number.error


def test_a_body_without_the_items_parks_whole(declared: Declared) -> None:
    (found,) = mapped(declared(changed('id = "id"', 'items = "data.events"')), order())

    assert Outcome.FAILED is found.outcome
    assert "relay.toml: sources.acme.notification.items: `data.events` finds nothing" == found.error


def test_items_that_share_the_id_of_their_delivery_are_told_apart(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "header:X-Id"\nitems = "@"')
    bodies = [order(), order(order={"id": 8})]

    first, second = (one.notification_id for one in mapped(declared(toml), bodies, {"x-id": "d1"}))

    assert first != second
    assert first.startswith("d1:sha256:")
    assert [first, second] == [one.notification_id for one in mapped(declared(toml), bodies, {"x-id": "d1"})]


def test_an_id_may_be_composed_and_without_one_it_is_a_digest(declared: Declared) -> None:
    (composed,) = mapped(declared(changed('id = "id"', 'id = ["order.id", "type"]')), order())
    (digest,) = mapped(declared(changed('id = "id"\n', "")), order())

    assert "7:order.paid" == composed.notification_id
    assert digest.notification_id.startswith("sha256:")


def test_one_item_a_line(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\nformat = "json_lines"')
    body = orjson.dumps(order(id="a")) + b"\r\n\n" + orjson.dumps(order(id="b")) + b"\n"

    assert ["a", "b"] == [one.notification_id for one in mapped(declared(toml), body)]


def test_a_form_with_json_in_a_field(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\nformat = "form"\nitems = "from_json(payload)"')
    body = urlencode({"payload": json.dumps([order(id="a")])}).encode()

    assert ["a"] == [one.notification_id for one in mapped(declared(toml), body)]


def test_a_form_is_an_object_of_its_fields(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\nformat = "form"').replace("order.total", '\\"order[total]\\"')
    toml = toml.replace("{order.id}", "{id}").replace('"order.currency"', '"EUR"').replace("order.id", "id")
    body = f"id=f1&type=order.paid&at=2026-11-23T10:00:00Z&{quote('order[total]')}=1999".encode()

    assert 19.99 == event_of(mapped(declared(toml), body)[0])["revenue"]


def test_test_mode_is_dropped_unless_it_is_asked_for(declared: Declared) -> None:
    toml = changed('id = "id"', 'id = "id"\ntest = "livemode == `false`"')

    outcomes = [mapped(declared(toml), order(livemode=live))[0].outcome for live in (False, True)]

    assert [Outcome.TEST, Outcome.MAPPED] == outcomes


def test_an_account_is_a_part_of_every_key(declared: Declared) -> None:
    (found,) = mapped(declared(changed('id = "id"', 'id = "id"\naccount = "team"')), order(team="t1"))

    assert ("t1/order:7",) == found.events[0].sealed.once


def test_a_type_that_is_ignored_and_one_that_is_unheard_of(declared: Declared) -> None:
    made = declared(changed('id = "id"', 'id = "id"\nignore = ["order.seen"]'))

    outcomes = [mapped(made, order(type=kind))[0].outcome for kind in ("order.seen", "order.lost")]

    assert [Outcome.IGNORED, Outcome.NOT_MAPPED] == outcomes


# --- what it means ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "total, unit, currency, expected",
    [
        (1999, "minor", "EUR", 19.99),
        ("1999", "minor", "eur", 19.99),
        (1999.0, "minor", "EUR", 19.99),
        (1999, "minor", "JPY", 1999),
        (1999, "minor", "KWD", 1.999),
        (19.9, "major", "EUR", 19.9),
        ("19.90", "major", "EUR", 19.9),
        (20, "major", "EUR", 20),
    ],
)
def test_money_is_exact_in_its_unit(declared: Declared, total: Any, unit: str, currency: str, expected: float) -> None:
    made = declared(changed('unit = "minor"', f'unit = "{unit}"'))

    event = event_of(mapped(made, order(order={"total": total, "currency": currency}))[0])

    assert (expected, currency.upper()) == (event["revenue"], event["currency"])


@pytest.mark.parametrize(
    "value, form",
    [
        ("2026-11-23T10:00:00Z", "iso8601"),
        ("2026-11-23T11:00:00.0000000+01:00", "iso8601"),
        ("2026-11-23 10:00:00", "iso8601"),
        (1_795_428_000, "seconds"),
        (1_795_428_000.0, "seconds"),
        ("1795428000", "seconds"),
        (1_795_428_000_000, "milliseconds"),
        ("1795428000000", "seconds_or_milliseconds"),
        (1_795_428_000, "seconds_or_milliseconds"),
        ("Mon, 23 Nov 2026 10:00:00 GMT", "rfc1123"),
        ("23/11/2026 10:00", "%d/%m/%Y %H:%M"),
        ("23/11/2026 11:00 +0100", "%d/%m/%Y %H:%M %z"),
    ],
)
def test_a_time_is_read_in_its_format(declared: Declared, value: Any, form: str) -> None:
    made = declared(changed('time = "at"', f'time = "at"\ntime_format = "{form}"'))

    assert 1_795_428_000_000 == event_of(mapped(made, order(at=value))[0])["timestamp"]


def test_a_sender_that_tells_no_time_has_that_of_arrival(declared: Declared) -> None:
    made = declared(changed('time = "at"', 'time = "arrival"'))

    assert NOW_MS == event_of(mapped(made, order())[0])["timestamp"]


def test_an_event_is_only_for_what_it_is_meant_for(declared: Declared) -> None:
    made = declared(changed('name = "purchase"', 'name = "purchase"\nwhen = "order.status == \'paid\'"'))
    paid, other = (mapped(made, order(order={"status": status}))[0] for status in ("paid", "open"))

    assert (1, 0) == (len(paid.events), len(other.events))
    assert (Outcome.MAPPED, Outcome.MAPPED) == (paid.outcome, other.outcome)


def test_one_notification_may_become_several_events(declared: Declared) -> None:
    more = (
        '[[sources.acme.events]]\ntypes = "order.paid"\nname_from = "order.what"\nonce = ["gift:{gift}", "id:{id}"]\n'
    )
    made = declared(ACME + more + 'event_type = "event"\nurl = "order.page"\nproperties = { first = "order.first" }\n')

    (found,) = mapped(made, order(order={"what": "Gift Card: sent!", "page": "https://shop.example/a", "first": True}))

    purchase, gift = (orjson.loads(outgoing.sealed.payload) for outgoing in found.events)
    assert ("purchase", "gift_card_sent") == (purchase["event_name"], gift["event_name"])
    assert ("https://shop.example/a", True) == (gift["url"], gift["properties"]["first"])
    assert ("id:evt_1",) == found.events[1].sealed.once


def test_a_value_may_stand_in_a_header(declared: Declared) -> None:
    made = declared(changed('email = "order.email"', 'external_id = "header:X-User"'))

    (found,) = mapped(made, order(), {"x-user": "u1"})

    assert "external_id" == found.events[0].sealed.identity.by


def test_personal_data_in_a_property_does_not_leave(declared: Declared) -> None:
    (found,) = mapped(declared(), order(order={"id": "of buyer@example.com"}))

    assert "[redacted]" == event_of(found)["properties"]["order_id"]


@pytest.mark.parametrize(
    "change, body, expected",
    [
        ((), order(order={"total": None}), "revenue: `order.total` finds nothing"),
        ((), order(order={"total": "many"}), "revenue: `order.total` finds a text that is no amount in minor units"),
        ((), order(order={"total": 19.99}), "revenue: `order.total` finds a number that is no amount in minor units"),
        ((), order(order={"total": [1]}), "revenue: `order.total` finds a list that is no amount in minor units"),
        ((), order(order={"currency": ""}), "currency: `order.currency` finds nothing"),
        ((), order(order={"currency": "XXY"}), "currency: `order.currency` finds no ISO 4217 currency"),
        ((), order(order={"id": None}), "once: `order:{order.id}` finds nothing"),
        ((), order(order={"email": ["a"]}), "email: `order.email` finds a list where a text or a number is needed"),
        ((), order(at=None), "time: `at` finds nothing"),
        ((), order(at="yesterday"), "time: `at` finds a text that is no time in iso8601"),
        ((), order(at=1e300), "time: `at` finds a number that is no time in iso8601"),
        (
            ('time = "at"', 'time = "at"\ntime_format = "seconds"'),
            order(at="1e999999999"),
            "time: `at` finds a text that is no time in seconds",
        ),
        (
            ('"order.id" }', '"order" }'),
            order(),
            "properties.order_id: `order` finds an object where a text, a number, true or false is needed",
        ),
        (
            ('email = "order.email"', 'metadata = "order.id"'),
            order(),
            "metadata: `order.id` finds a number, which is no object",
        ),
        (
            ('"order.total"', '"length(order.total)"'),
            order(),
            "revenue: `length(order.total)` length() cannot take what it finds (number)",
        ),
        (
            ('"order.total"', '"from_json(order.currency)"'),
            order(),
            "revenue: `from_json(order.currency)` fails on this body (JSONDecodeError)",
        ),
        (
            ('name = "purchase"', 'name_from = "order.id"'),
            order(),
            "name_from: `order.id` finds no text that an event could be called by",
        ),
    ],
)  # fmt: skip
def test_what_is_not_there_parks_the_notification_with_its_expression(
    declared: Declared, change: tuple[str, str] | tuple[()], body: Any, expected: str
) -> None:
    (found,) = mapped(declared(changed(*change) if change else ACME), body)

    assert (Outcome.FAILED, f"relay.toml: sources.acme.events[0].{expected}") == (found.outcome, found.error)


# --- no body makes it raise -------------------------------------------------------------------------------------------

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("order.paid")
_KEYS = st.sampled_from(["id", "type", "at", "order", "total", "currency", "email", "a"])
_ANY = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5))
_ORDERS = st.fixed_dictionaries(
    {"type": st.just("order.paid")}, optional={"id": _ANY, "at": _ANY | st.integers(), "order": _ANY}
)
_GENERAL = """
[sources.acme]
secrets = ["hush"]
verify = { signature = "header:X" }
notification = { id = ["id", "order.id"], type = "type", test = "order.test", account = "order.account", time = "at", time_format = "FORMAT" }

[[sources.acme.learned]]
types = "order.paid"
keys = "customer:{order.customer}"
email = "order.email"
metadata = "order"

[[sources.acme.events]]
types = "order.paid"
name_from = "order.email || type"
once = ["order:{order.id}", "any:{sum(order.total)}", "id:{id}"]
customer_id = "split(order.email, ' ')[0]"
revenue = "order.total"
unit = "minor"
currency = "order.currency || 'EUR'"
url = "order.a"
properties = { a = "order.a", b = "order.a || lower(id)", c = "order.a > id" }
"""  # noqa: E501


@pytest.mark.parametrize("form", ["iso8601", "seconds", "rfc1123", "%d/%m/%Y"])
def test_no_body_makes_a_mapping_raise(declared: Declared, form: str) -> None:
    made = declared(_GENERAL.replace("FORMAT", form))

    @examples(max_examples=60, deadline=None)
    @given(st.binary(max_size=30) | st.one_of(_ORDERS, _ANY, st.lists(_ORDERS, max_size=2)).map(_as_json))
    def holds(body: bytes) -> None:
        for found in mapped(made, body):
            assert "Traceback" not in (found.error or "")

    holds()


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


async def test_an_odd_body_is_kept_and_answered_like_any_other(start: Start, events_api: EventsApi) -> None:
    odd = [
        b"",
        b"[",
        b"[" * 5000,
        b"\xff\xfe",
        b'{"type":"order.paid","at":NaN}',
        b'"order.paid"',
        b"[[],{},null]",
        b'{"type":"order.paid","id":"\\ud800","at":"2026-11-23T10:00:00Z","order":{"id":"\\udfff"}}',
        b'{"type":"order.paid","at":"2026-11-23T10:00:00Z","order":{"id":1,"currency":"EUR","total":'
        + b"9" * 400
        + b"}}",
    ]
    async with start(ACME) as relay:
        for body in [*odd, BODY]:
            answer = await relay.http.post("/webhooks/acme", content=body, headers={"X-Acme-Signature": hex_hmac(body)})
            assert (200, b"{}") == (answer.status_code, answer.content)
        (event,) = await arrived(events_api, 1)

    assert 7 == event["properties"]["order_id"]


def test_the_conformance_kit_takes_a_declared_provider(declared: Declared, tmp_path: Path) -> None:
    """What it promises of the built-in ones holds for it as well."""
    sold = orjson.loads(blocks("json")[0])
    case = {"about": "An order was paid.", "headers": {}, "body": sold, "drafts": [_SOLD],
            "fresh": {"ids": ["evt_1001", "7001"], "iso": ["2026-11-23T10:15:30Z"]}}  # fmt: skip
    back = {**sold, "event": "order.refunded", "refund": {"id": "re_5", "amount_cents": 100}}
    other = {**case, "about": "A part was paid back.", "body": back, "drafts": [_REFUNDED],
             "fresh": {"ids": ["evt_1001", "re_5"], "iso": ["2026-11-23T10:15:30Z"]}}  # fmt: skip
    for name, content in (("order.paid__eur", case), ("order.refunded__part", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    provider, _ = declared(blocks("toml")[0], ACME_WEBHOOK_SECRET=SECRET)

    (mark,) = vars(conformance(provider, tmp_path))["pytestmark"]

    checks = dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))
    assert {"each_case_becomes_what_it_says", "what_is_said_twice_counts_once"} < set(checks)
    assert [] == [(promise, sentence) for promise, check in checks.items() for sentence in check()]


_SOLD = {
    "event_type": "conversion", "name": "purchase", "once": ["order:7001"], "at_ms": 1_795_428_930_000,
    "person": {"email": "buyer@example.com", "customer_id": "cus_9"}, "revenue": "49.90", "currency": "eur",
    "tax": "7.97", "properties": {"order_id": 7001, "plan": "pro"}, "metadata": {"utm_source": "newsletter"},
}  # fmt: skip
_REFUNDED = {
    "event_type": "event", "name": "refund", "once": ["refund:re_5"], "at_ms": 1_795_428_930_000,
    "person": {"email": "buyer@example.com"}, "revenue": "1.00", "currency": "eur", "properties": {"order_id": 7001},
}  # fmt: skip


# --- mistakes ---------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, toml: str, **variables: str) -> list[str]:
    (tmp_path / "relay.toml").write_text(toml)
    environ = {"RELAY_CONFIG": str(tmp_path / "relay.toml"), **variables}
    with pytest.raises(SettingsError) as refusal:
        load(declare({}, environ=environ, env_file=tmp_path / "no"), environ=environ, env_file=tmp_path / "no")
    return list(refusal.value.problems)


VERIFY, EVENT = 'signature = "header:X-Acme-Signature"', 'types = ["order.paid"]'


@pytest.mark.parametrize(
    "old, new, expected",
    [
        (VERIFY, VERIFY + '\nalgoritm = "sha1"', "verify.algoritm is not a setting. Did you mean algorithm?"),
        (VERIFY, VERIFY + '\nalgorithm = "md5"', "verify.algorithm must be 'sha256', 'sha1', 'sha512'"),
        (VERIFY, 'signature = "X-Acme-Signature"', "verify.signature[0] 'X-Acme-Signature' is no place"),
        (VERIFY, 'algorithm = "sha1"', "verify.signature is missing. Say where the signature stands"),
        (VERIFY, VERIFY + '\nmessage = "{bodi}"', "verify.message 'bodi:' is no place"),
        (VERIFY, VERIFY + '\nmessage = "{timestamp}.{body}"', "verify.message has {timestamp} in it, but"),
        (VERIFY, VERIFY + '\nmessage = "{header:X-Id}"', "verify.message has no {body} in it"),
        (VERIFY, VERIFY + '\ntimestamp = "header:X-T"\nmessage = "{body}"', "verify.message does not sign the"),
        (VERIFY, VERIFY + '\ntimestamp = "signature"', "verify.timestamp cannot stand beside a signature"),
        (VERIFY, VERIFY + '\nform = "list"', 'verify.timestamp must be "signature" where form is list'),
        (VERIFY, VERIFY + "\ntolerance_s = 10", "verify.tolerance_s has no effect where there"),
        (VERIFY, VERIFY + '\nform = "pairs"\nprefix = "a="', "verify.prefix has no effect where form is pairs"),
        (VERIFY, VERIFY + '\nalgorithm = "ed25519"\nkey = "hex"', "verify.key has no effect where algorithm"),
        (VERIFY, VERIFY + '\nscheme = "basic"', "verify.signature has no effect where scheme is basic"),
        (VERIFY, 'scheme = "token"', "verify.token is missing. Say where the secret stands"),
        (VERIFY, 'scheme = "bearer"\ntoken = "query:a"', "verify.token must be a header where scheme is bearer"),
        (VERIFY, 'scheme = "standard_webhooks"\nkey = "hex"', "verify.key must be standard, standard_text or"),
        (VERIFY, VERIFY + '\nkey = "base64"\nkey_prefix = "hus"', "secrets: secret 1 is not base64"),
        (f"[sources.acme.verify]\n{VERIFY}\n", "", "verify is missing. Say in a table how"),
        ('type = "type"\n', "", "notification.type is missing. Give an expression"),
        ('type = "type"', 'type = "type["', "notification.type is no JMESPath expression: it ends too early at"),
        ('type = "type"', 'type = ""', "notification.type is empty"),
        ('type = "type"', 'type = "header:"', "notification.type names no header"),
        ('type = "type"', 'type = "a.b c"', "notification.type is no JMESPath expression: 'c' is not expected"),
        ('time = "at"', 'time = "at"\ntime_format = "unix"', "notification.time_format must be one of iso8601"),
        ('time = "at"', 'time = "at"\ntime_format = "%Q"', "notification.time_format is a pattern that"),
        ('time = "at"\n', "", "events[0].time is missing, and notification.time too"),
        ('id = "id"', 'id = "id"\nshared = "meta"', "notification.shared has no effect without items"),
        ('id = "id"', 'id = "id"\nignore = ["order.paid"]', "events[0].types has 'order.paid', which"),
        (EVENT, EVENT + '\nurl = "header:Authorization"', "events[0].url reads the header Authorization, which"),
        (VERIFY, VERIFY + "\n[sources.acme.handshake]\nwhen = 'a'", "handshake needs both when and answer"),
        (EVENT, "", "events[0].types is missing"),
        (EVENT, "types = []", "events[0].types must not be empty"),
        (EVENT, EVENT + '\nrevenu = "a"', "events[0].revenu is not a setting. Did you mean revenue?"),
        (EVENT, EVENT + '\nwhen = "has(a)"', "events[0].when calls has(), which JMESPath does not have"),
        (EVENT, EVENT + '\nwaits = "yes please"', "events[0].waits must be true or false"),
        (EVENT, EVENT + "\nwaits = true", "events[0].joins is missing"),
        ('name = "purchase"\n', "", "events[0].name must be set, such as purchase, or name_from"),
        ('name = "purchase"', 'name = "Purchase"', "events[0].name String should match pattern"),
        ('"order:{order.id}"', '"order.id"', "events[0].once[0] must have an expression in braces"),
        ('"order:{order.id}"', '"order:{order.}"', "events[0].once[0] is no JMESPath expression"),
        ('"order:{order.id}"', "[]", "events[0].once must not be empty"),
        ('unit = "minor"\n', "", "events[0].unit is missing. Say of revenue"),
        ('unit = "minor"', 'unit = "cents"', "events[0].unit must be 'minor' or 'major'"),
        ('"order.currency"', '"EUX"', "events[0].currency is 'EUX', which is not an ISO 4217 currency"),
        ('currency = "order.currency"\n', "", "events[0].currency is missing"),
        ('revenue = "order.total"\n', "", "events[0].unit has no effect without revenue"),
        ('name = "purchase"', 'event_type = "identify"', "events[0].revenue has no effect where event_type"),
        ('{ order_id = "order.id" }', '{ order_id = "order." }', "events[0].properties.order_id is no JMESPath"),
        ('{ order_id = "order.id" }', '"order.id"', "events[0].properties must be a table"),
        ('secrets = ["hush"]', 'secrets = ["hush"]\nprovider = "stripe"', "provider: 'stripe' has a signature"),
        ('secrets = ["hush"]', 'secrets = ["hush"]\nprovider = "standart_webhooks"', "provider: 'standart_webhooks'"),
        ('secrets = ["hush"]', 'secrets = ["hush"]\nlearned = 5', "learned must be a list"),
        ('secrets = ["hush"]\n', "", "secrets is missing"),
    ],
)  # fmt: skip
def test_a_mistake_stops_the_start_with_its_path(tmp_path: Path, old: str, new: str, expected: str) -> None:
    problems = refused(tmp_path, changed(old, new))

    assert [True] == [problem.startswith(f"relay.toml: sources.acme.{expected}") for problem in problems][:1], problems


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    toml = changed(VERIFY, 'signature = "X"').replace("order.total", "order.").replace('"minor"', '"cents"')

    paths = [
        problem.split(" ")[1] for problem in refused(tmp_path, toml + ACME.replace("acme", "b").replace('"at"', '"a."'))
    ]

    assert [
        "sources.acme.verify.signature[0]",
        "sources.acme.events[0].revenue",
        "sources.acme.events[0].unit",
        "sources.b.notification.time",
    ] == paths


def test_a_provider_that_there_is_cannot_be_declared_again(tmp_path: Path, declared: Declared) -> None:
    acme, _ = declared()
    with pytest.raises(SettingsError, match="a provider is called 'acme' already"):
        declare({"acme": acme}, environ={"RELAY_CONFIG": str(tmp_path / "relay.toml")}, env_file=tmp_path / "no")


def test_a_source_that_only_maps_needs_to_say_how_it_signs(tmp_path: Path) -> None:
    events = '[[sources.acme.events]]\ntypes = "a"\nname = "b"\nonce = "{id}"\ntime = "at"\n'
    toml = f'[sources.acme]\nsecrets = ["x"]\n{events}'

    problems = refused(tmp_path, toml)

    assert ["sources.acme.verify", "sources.acme.notification"] == [problem.split(" ")[1] for problem in problems]


def test_a_header_that_receiving_drops_cannot_be_read_by_a_mapping() -> None:
    assert receiving._CREDENTIALS == CREDENTIALS


# --- its secret, and its mapping for others ---------------------------------------------------------------------------


def test_the_secret_may_stand_in_the_variable_that_a_provider_has(declared: Declared) -> None:
    _, source = declared(changed('secrets = ["hush"]\n', ""), RELAY_ACME_SECRET="new, old")

    assert ["new", "old"] == [secret.get_secret_value() for secret in source.secrets]


def test_two_places_for_one_secret_contradict_each_other(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, ACME, RELAY_ACME_SECRET="other")

    assert "relay.toml: sources.acme is defined by RELAY_ACME_SECRET too" in problem


def test_a_second_source_may_use_the_mapping_of_the_first(declared: Declared) -> None:
    provider, source = declared(ACME + '\n[sources.acme-us]\nprovider = "acme"\nsecrets = ["other"]\n', "acme-us")

    assert ("acme", "acme-us") == (provider.name, source.slug)
    assert "acme-us" == event_of(mapped((provider, source), order())[0])["properties"]["source"]


# --- trying it --------------------------------------------------------------------------------------------------------


@pytest.fixture
def relay_command(tmp_path: Path) -> Commands:
    (tmp_path / "relay.toml").write_text(ACME)
    (tmp_path / "body.json").write_bytes(
        orjson.dumps(order(order={"email": "a@example.com", "id": "x buyer@example.com"}))
    )
    return Commands(tmp_path, {})


async def test_the_doctor_tries_a_captured_body_and_stores_nothing(relay_command: Commands, tmp_path: Path) -> None:
    signature = hex_hmac((tmp_path / "body.json").read_bytes())

    ended = await relay_command(
        "doctor", "--source", "acme", "--try", "body.json", "--header", f"X-Acme-Signature: {signature}", "--json"
    )

    told = ended.json
    assert (0, True) == (ended.code, told["ok"])
    assert {"is_accepted": True, "words": "secret 1 of 1 fits"} == told["signature"]
    (notification,) = told["notifications"]
    assert ("evt_1", "order.paid", "mapped") == tuple(notification[key] for key in ("id", "type", "outcome"))
    (event,) = notification["events"]
    assert ("email", ["properties.order_id: email"]) == (event["person_by"], event["guard"])
    assert "example.com" not in event["payload"]
    assert not (tmp_path / "var").exists()


async def test_the_doctor_says_what_is_wrong_with_a_body(relay_command: Commands) -> None:
    (relay_command.folder / "body.json").write_bytes(orjson.dumps(order(at="soon")))

    ended = await relay_command("doctor", "--try", "body.json", "--header", f"X-Acme-Signature: {'0' * 64}")

    assert 1 == ended.code
    assert "refused: mismatch" in ended.out
    assert "events[0].time: `at` finds a text that is no time in iso8601" in ended.out


# --- the guide --------------------------------------------------------------------------------------------------------

TABLES: dict[str, type[BaseModel]] = {
    "[sources.<slug>.verify]": VerifyTable,
    "[sources.<slug>.handshake]": HandshakeTable,
    "[sources.<slug>.notification]": NotificationTable,
    "[[sources.<slug>.events]]": EventTable,
    "[[sources.<slug>.learned]]": LearnedTable,
}


def keys_table() -> str:
    """The tables of `docs/generic-senders.md`, from the tables themselves."""
    parts = []
    for name, model in TABLES.items():
        rows = [f"### `{name}`\n", "| key | default | means |", "|---|---|---|"]
        for key, field in model.model_fields.items():
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            shown = "needed" if field.is_required() else f"`{default}`" if default not in (None, "", [], {}) else ""
            rows.append(f"| `{key}` | {shown} | {field.description} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def test_the_guide_shows_every_key_as_it_is() -> None:
    assert f"<!-- keys:begin -->\n{keys_table()}<!-- keys:end -->" in GUIDE


@pytest.mark.parametrize("toml", blocks("toml"), ids=lambda toml: toml.splitlines()[0])
def test_everything_that_the_guide_shows_can_be_used(declared: Declared, toml: str) -> None:
    ((slug, table),) = tomllib.loads(toml)["sources"].items()
    if set(table) == {"handshake"}:
        assert HandshakeTable.model_validate(table["handshake"]).query
    elif set(table) == {"verify"}:
        assert verifier(table["verify"]).family
    else:
        provider, _ = declared(toml, slug, **{table["secrets_env"]: "whsec_" + b64(b"k" * 24)})
        assert provider.mappers
