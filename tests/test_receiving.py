"""Socket → commit → answer: what a provider gets back, and what is stored by then."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from relay.certificates import Certificates
from relay.contract import Answer, Delivery, Draft, Notification, Provider, Verifier
from relay.metrics import Metrics
from relay.receiving import Receiver
from relay.settings import load
from relay.signatures import basic_auth, hmac_sha256, paypal_signature
from relay.specimens import specimen
from relay.store.base import Store, StoreUnavailableError, Verified
from relay.store.inbox import inbox_path
from relay.store.schema import Outcome
from tests import acme
from tests.conftest import STORE_KEY, EventsApi, RunningRelay, RunRelay, until
from tests.things import NOON, Clock

pytestmark = pytest.mark.anyio

GONE = "gone"


def rows(relay: RunningRelay, table: str) -> int:
    database = inbox_path(relay.database) if table == "inbox" else relay.database
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def test_a_signed_webhook_becomes_exactly_one_accepted_event(relay: RunningRelay, events_api: EventsApi) -> None:
    answer = await relay.post(acme.captured(1))

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"{}", "application/json")
    await until(lambda: _received(events_api, 1))
    (event,) = await events_api.received()
    assert event["event_type"] == "conversion"
    assert event["event_name"] == "purchase"
    assert event["revenue"] == 19.99
    assert event["currency"] == "EUR"
    assert event["timestamp"] == 1_795_000_000_000
    assert event["properties"]["order_id"] == "pay_1"
    assert "example.com" not in str(event)


async def _received(events_api: EventsApi, number: int) -> bool:
    return len(await events_api.received()) == number


async def test_a_delivery_is_on_disk_before_we_answer(relay: RunningRelay) -> None:
    raw = orjson.dumps(acme.captured(1))

    answer = await relay.http.post("/webhooks/acme", content=raw, headers=acme.signed(raw))

    assert (answer.status_code, rows(relay, "inbox") + rows(relay, "deliveries")) == (200, 1)


async def test_what_was_answered_is_mapped_after_a_crash(
    run_relay: RunRelay, store: Store, events_api: EventsApi
) -> None:
    """The store is what a process left behind that died between its answer and the mapping."""
    raw = orjson.dumps(acme.captured(1))
    await store.take(Verified(source="acme", received_at_ms=NOON, secret=0, headers=acme.signed(raw), body=raw))
    await store.close()

    async with run_relay(RELAY_ENCRYPTION_KEYS=base64.b64encode(STORE_KEY).decode()):
        await until(lambda: _received(events_api, 1))

    assert await events_api.orders() == ["pay_1"]


async def test_what_comes_from_a_source_that_is_gone_is_kept(run_relay: RunRelay, store: Store) -> None:
    await store.take(Verified(source="gone", received_at_ms=NOON, secret=0, headers={}, body=b"{}"))
    await store.close()

    async with run_relay(RELAY_ENCRYPTION_KEYS=base64.b64encode(STORE_KEY).decode()) as relay:
        await until(relay.is_mapped)
        (kept,) = await relay.store.unmapped(outcome=Outcome.FAILED)

    assert (kept.source, kept.body) == ("gone", b"{}")


async def test_the_same_delivery_twice_becomes_one_event(relay: RunningRelay, events_api: EventsApi) -> None:
    first, second = await relay.post(acme.captured(1)), await relay.post(acme.captured(1))

    assert (first.status_code, second.status_code) == (200, 200)
    await relay.post(acme.captured(2))
    await until(lambda: _received(events_api, 2))
    assert await events_api.orders() == ["pay_1", "pay_2"]
    assert await relay.metric("relay_notifications_total", source="acme", outcome="repeated") == 1


async def test_one_sale_told_twice_becomes_one_event(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))

    assert (await relay.post(acme.captured(1, notification="ntf_other"))).status_code == 200

    await relay.post(acme.captured(2))
    await until(lambda: _received(events_api, 2))
    assert await relay.metric("relay_duplicates_total", source="acme") == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Acme-Signature": ""},
        {"X-Acme-Signature": "0" * 64},
        {"X-Acme-Signature": "not hex"},
        {"X-Acme-Signature": "\xff\xfe"},
        acme.signed(b"other body"),
        acme.signed(orjson.dumps(acme.captured(1)), secret="acme_wrong"),
    ],
)
async def test_what_is_not_signed_is_refused_and_nothing_is_stored(
    relay: RunningRelay, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    answer = await relay.http.post("/webhooks/acme", content=orjson.dumps(acme.captured(1)), headers=raw)

    assert answer.status_code == 401
    assert rows(relay, "deliveries") == rows(relay, "notifications") == rows(relay, "events") == 0


async def test_a_body_that_was_written_anew_is_refused(relay: RunningRelay) -> None:
    body = b'{ "id": "ntf_1",  "type": "payment.captured" }'

    answer = await relay.post(orjson.dumps(orjson.loads(body)), headers=acme.signed(body))

    assert answer.status_code == 401


async def test_a_handshake_is_answered_without_any_effect(run_relay: RunRelay) -> None:
    greeting = replace(acme.make(), handshake=lambda delivery: Answer() if delivery.body == b"ping" else None)
    async with run_relay({"acme": greeting}) as relay:
        assert (await relay.http.post("/webhooks/acme", content=b"ping")).status_code == 200
        assert (await relay.http.post("/webhooks/acme", content=b"pong")).status_code == 401
        assert rows(relay, "deliveries") == 0


async def test_a_source_without_a_secret_does_not_exist(relay: RunningRelay) -> None:
    assert (await relay.post({}, source="stripe")).status_code == 404
    assert (await relay.post({}, source="unheard-of")).status_code == 404
    assert (await relay.http.get("/webhooks/stripe")).status_code == 404


async def test_get_and_head_are_answered_without_side_effects(relay: RunningRelay) -> None:
    assert (await relay.http.get("/webhooks/acme")).status_code == 200
    assert (await relay.http.head("/webhooks/acme")).status_code == 200
    assert (await relay.http.put("/webhooks/acme")).status_code == 405
    assert rows(relay, "deliveries") == 0


async def test_a_body_over_the_limit_is_refused(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_BODY_LIMIT_BYTES="2048") as relay:
        small, large = b'"' + b"a" * 2000 + b'"', b'"' + b"a" * 3000 + b'"'

        async def chunks() -> AsyncIterator[bytes]:  # a body whose length nobody announced
            for start in range(0, len(large), 500):
                yield large[start : start + 500]

        assert (await relay.post(small)).status_code == 200
        assert (await relay.post(large)).status_code == 413
        unannounced = await relay.http.post("/webhooks/acme", content=chunks(), headers=acme.signed(large))
        assert unannounced.status_code == 413


async def test_both_secrets_fit_while_one_is_rotated(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_ACME_SECRET="acme_new,acme_old") as relay:
        for secret in ("acme_new", "acme_old"):
            body = orjson.dumps(acme.captured(secret))
            assert (await relay.post(body, headers=acme.signed(body, secret=secret))).status_code == 200
        assert await relay.metric("relay_secrets_used_total", source="acme", secret="1") == 1


async def test_types_that_are_ignored_or_unknown_or_off_are_accepted_and_counted(relay: RunningRelay) -> None:
    for number, kind in enumerate(["payment.authorized", "never.heard.of", "lookup"]):
        assert (await relay.post({"id": f"n{number}", "type": kind})).status_code == 200

    assert await relay.metric("relay_notifications_total", source="acme", outcome="ignored") == 2
    assert await relay.metric("relay_notifications_total", source="acme", outcome="not_mapped") == 1
    assert await relay.metric("relay_not_mapped_total", source="acme", type="never.heard.of") == 1
    assert rows(relay, "events") == 0


async def test_an_option_switches_its_types_on(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_ACME_ENABLE="lookups") as relay:
        await relay.post({"id": "n1", "type": "lookup"})

        assert rows(relay, "events") == 1


async def test_test_mode_is_answered_and_not_forwarded(relay: RunningRelay) -> None:
    assert (await relay.post({**acme.captured(1), "test": True})).status_code == 200

    assert rows(relay, "events") == 0
    assert await relay.metric("relay_notifications_total", source="acme", outcome="test") == 1


async def test_test_mode_is_forwarded_and_marked_where_it_is_wanted(run_relay: RunRelay, events_api: EventsApi) -> None:
    async with run_relay(RELAY_TEST_MODE="forward") as relay:
        await relay.post({**acme.captured(1), "test": True})
        await until(lambda: _received(events_api, 1))

    assert (await events_api.received())[0]["properties"]["livemode"] is False


async def test_a_mapper_that_raises_never_becomes_the_providers_problem(relay: RunningRelay) -> None:
    broken = {"id": "ntf_1", "type": "payment.captured", "payment": {"id": "pay_1"}}

    assert (await relay.post(broken)).status_code == 200

    (kept,) = await relay.store.unmapped(outcome=Outcome.FAILED)
    assert orjson.loads(kept.body) == broken
    assert await relay.metric("relay_notifications_total", source="acme", outcome="failed") == 1


def _raise(notification: Notification) -> list[Draft]:
    raise KeyError(notification.id)


async def test_a_parked_delivery_is_mapped_at_the_next_start_after_the_fix(
    run_relay: RunRelay, events_api: EventsApi
) -> None:
    broken = acme.make()
    broken.mappers["payment.captured"] = _raise
    async with run_relay(providers={"acme": broken}) as relay:
        assert (await relay.post(acme.captured(1))).status_code == 200

    async with run_relay():
        await until(lambda: _received(events_api, 1))

    assert await events_api.orders() == ["pay_1"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[", b"null", b"7", b'"text"', b"\xff\xfe", b"[[]]", b'{"id":{}}'])
async def test_an_odd_body_that_is_signed_is_kept_and_answered(relay: RunningRelay, body: bytes) -> None:
    assert (await relay.post(body)).status_code == 200

    assert rows(relay, "deliveries") == 1
    assert rows(relay, "events") == 0


async def test_one_odd_item_parks_alone_and_its_siblings_go_on(relay: RunningRelay, events_api: EventsApi) -> None:
    assert await relay.post([acme.captured(1), 7, {"id": "ntf_2", "type": "payment.captured"}, acme.captured(3)])

    await until(lambda: _received(events_api, 2))
    (kept,) = await relay.store.unmapped(outcome=Outcome.FAILED)
    assert len(kept.notifications) == 2


async def test_credentials_are_never_stored(relay: RunningRelay) -> None:
    body = orjson.dumps({"id": "n1", "type": "never.heard.of"})
    headers = {**acme.signed(body), "Authorization": "Bearer hush", "Cookie": "hush", "X-Other": "fine"}
    await relay.post(body, headers=headers)

    (kept,) = await relay.store.unmapped(outcome=Outcome.NOT_MAPPED)
    assert kept.headers["x-other"] == "fine"
    assert "hush" not in str(kept.headers)


async def test_personal_data_is_unreadable_at_rest(relay: RunningRelay) -> None:
    await relay.post(acme.captured(1, email="someone@example.com"))

    with sqlite3.connect(relay.database) as connection:
        assert b"someone@example.com" not in "".join(connection.iterdump()).encode()
    stored = b"".join(path.read_bytes() for path in relay.database.parent.glob("relay.db*"))
    assert b"someone@example.com" not in stored


async def test_overload_says_come_later(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_MIN_FREE_DISK_MB=str(10**9)) as relay:
        answer = await relay.post(acme.captured(1))

        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert (await relay.http.get("/readyz")).status_code == 503
        assert rows(relay, "deliveries") == 0


@pytest.mark.usefixtures("plain_logs")
async def test_an_overload_does_not_flood_the_log(run_relay: RunRelay, clock: Clock) -> None:
    async with run_relay(RELAY_MIN_FREE_DISK_MB=str(10**9)) as relay:
        with capture_logs() as lines:
            for seconds in (0, 1, 1, 4):
                clock.advance(seconds=seconds)
                await relay.post(acme.captured(1))

    assert [1, 3] == [line["times"] for line in lines if line["event"] == "told the provider to come later"]


async def test_a_store_that_is_away_says_come_later_and_recovers(relay: RunningRelay, events_api: EventsApi) -> None:
    real = relay.app.receiver
    assert isinstance(real, Receiver)
    store = real._store
    real._store = cast("Store", _Away())
    assert (await relay.post(acme.captured(1))).status_code == 429

    real._store = store
    assert (await relay.post(acme.captured(1))).status_code == 200
    await until(lambda: _received(events_api, 1))


class _Away:
    waiting = 0

    async def accept(self, arrival: object) -> None:
        del arrival
        raise StoreUnavailableError(GONE)


async def test_what_was_accepted_before_a_restart_is_sent_after_it(run_relay: RunRelay, events_api: EventsApi) -> None:
    await events_api.misbehave(status=503)
    async with run_relay() as relay:
        await relay.post(acme.captured(1))
    await events_api.behave()

    async with run_relay() as relay:
        # the retry of the first attempt is due by the clock, which stands still
        relay.app.state.keeper._clock.advance(seconds=60)
        await until(lambda: _received(events_api, 1))


async def test_two_relays_do_not_serve_one_file(run_relay: RunRelay) -> None:
    async with run_relay():
        with pytest.raises(Exception, match="did not start"):
            async with run_relay():
                pass


class TestHealth:
    async def test_alive_and_ready(self, relay: RunningRelay) -> None:
        assert (await relay.http.get("/healthz")).json()["status"] == "ok"
        ready = await relay.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")

    async def test_a_paused_destination_is_told_and_turns_no_provider_away(self, run_relay: RunRelay) -> None:
        async with run_relay(OAA_API_KEY="oa_live_wrong") as relay:
            await relay.post(acme.captured(1))

            async def is_degraded() -> bool:
                return bool((await relay.http.get("/readyz")).json()["status"] == "degraded")

            await until(is_degraded)
            ready = await relay.http.get("/readyz")
            assert ready.status_code == 200
            assert "401" in ready.json()["destinations"]["default"]["reason"]

    async def test_the_webhooks_are_on_the_openapi_page(self, relay: RunningRelay) -> None:
        paths = (await relay.http.get("/openapi.json")).json()["paths"]

        assert {"/webhooks/{source}", "/healthz", "/readyz", "/metrics"} <= set(paths)

    async def test_the_figures_agree_with_the_events_api(self, relay: RunningRelay, events_api: EventsApi) -> None:
        for number in range(20):
            await relay.post(acme.captured(number))
        await until(lambda: _received(events_api, 20))

        async def all_counted() -> bool:
            return await relay.metric("relay_events_sent_total", destination="default") == 20

        await until(all_counted)
        assert await relay.metric("relay_events_total", source="acme") == 20
        assert await relay.metric("relay_deliveries_total", source="acme", answer="accepted") == 20


async def test_a_client_that_hangs_up_midway_leaves_nothing(relay: RunningRelay) -> None:
    with pytest.raises(httpx.HTTPError):
        await relay.http.post("/webhooks/acme", content=_breaking(), headers={"content-length": "100"})

    assert (await relay.post(acme.captured(1))).status_code == 200
    assert rows(relay, "deliveries") == 1


async def _breaking() -> AsyncIterator[bytes]:
    yield b"half of"
    raise httpx.WriteError(GONE)


def receiver_of(provider: Provider, secret: str, store: Store, clock: Clock) -> httpx.AsyncClient:
    """The hot path alone, with one source."""
    environ = {"RELAY_ACME_SECRET": secret, "OAA_API_KEY": "oa_live_1", "OAA_PROJECT_ID": "42"}
    sources = load({"acme": provider}, environ=environ, env_file=Path("/nowhere")).sources
    receiver = Receiver(
        sources=sources, providers={"acme": provider}, store=store, metrics=Metrics(), clock=clock,
        wake=lambda: None, certificates=Certificates(clock=clock),
    )  # fmt: skip
    return httpx.AsyncClient(transport=httpx.ASGITransport(receiver), base_url="http://relay")


@pytest.mark.parametrize(
    "verifier, secret, asked",
    [
        (basic_auth(), "user:password", 'Basic realm="webhooks"'),
        (hmac_sha256(header="X-Acme-Signature"), "acme_secret_1", None),
    ],
)
async def test_who_may_authenticate_is_asked_to(
    store: Store, clock: Clock, verifier: Verifier, secret: str, asked: str | None
) -> None:
    """Some send their user and password only then."""
    async with receiver_of(replace(acme.make(), verifier=verifier), secret, store, clock) as http:
        answer = await http.post("/webhooks/acme", content=b"{}")

    assert (401, asked) == (answer.status_code, answer.headers.get("www-authenticate"))


async def test_what_must_not_be_kept_is_taken_out_before_it_is_stored(store: Store, clock: Clock) -> None:
    provider = acme.make()
    provider.redact = lambda body: body.replace(b"hush", b"")
    body = b'{"id":"n","type":"never","session":"hush"}'
    async with receiver_of(provider, acme.SECRET, store, clock) as http:
        answer = await http.post("/webhooks/acme", content=body, headers=acme.signed(body))
    (kept,) = await store.inbox(limit=9)

    assert (200, body.replace(b"hush", b"")) == (answer.status_code, kept.body)


async def test_what_cannot_be_taken_out_is_not_taken_in(store: Store, clock: Clock) -> None:
    provider = acme.make()
    provider.redact = lambda body: bytes.fromhex(body.decode())  # raises
    body = b'{"id":"n","type":"never"}'
    async with receiver_of(provider, acme.SECRET, store, clock) as http:
        answer = await http.post("/webhooks/acme", content=body, headers=acme.signed(body))

    assert (429, []) == (answer.status_code, list(await store.inbox(limit=9)))


class TestCertificates:
    """A provider that signs with a certificate (PayPal's way)."""

    def receiver(self, store: Store, clock: Clock, transport: httpx.MockTransport, secret: str) -> Receiver:
        provider = replace(acme.make(), verifier=paypal_signature())
        environ = {"RELAY_ACME_SECRET": secret, "OAA_API_KEY": "oa_live_1", "OAA_PROJECT_ID": "42"}
        sources = load({"acme": provider}, environ=environ, env_file=Path("/nowhere")).sources
        return Receiver(
            sources=sources, providers={"acme": provider}, store=store, metrics=Metrics(), clock=clock,
            wake=lambda: None, certificates=Certificates(clock=clock, transport=transport),
        )  # fmt: skip

    async def statuses(self, store: Store, clock: Clock, *, hosted: bool) -> list[int]:
        verifier = paypal_signature()
        made_up = specimen(verifier)
        pem = next(iter(made_up.certificates.values()))
        answer = httpx.Response(200, content=pem) if hosted else httpx.Response(503)
        receiver = self.receiver(store, clock, httpx.MockTransport(lambda _request: answer), made_up.secret)
        signed = verifier.sign(Delivery(body=b'{"id":"n","type":"never"}', headers={}), made_up.signing, now_ms=clock())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver), base_url="http://relay") as http:
            return [
                (await http.post("/webhooks/acme", content=body, headers=dict(signed.headers))).status_code
                for body in (signed.body, signed.body, signed.body + b" ")
            ]

    async def test_it_is_fetched_when_the_first_delivery_names_it(self, store: Store, clock: Clock) -> None:
        assert await self.statuses(store, clock, hosted=True) == [200, 200, 401]

    async def test_while_it_cannot_be_had_the_provider_is_told_to_come_later(self, store: Store, clock: Clock) -> None:
        assert await self.statuses(store, clock, hosted=False) == [429, 429, 429]
