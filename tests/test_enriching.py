"""Providers that say too little are asked, over real HTTP, and their notifications are mapped with the answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay import samples
from relay.asking import path_of
from relay.clock import unix_ms
from relay.contract import (
    Api,
    Ask,
    Delivery,
    Draft,
    Notification,
    Person,
    Provider,
    SecretShape,
    basic_key,
    conversion,
    field,
    header_key,
)
from relay.doctor import Level, examine
from relay.enriching import Asker, AskingRules, url_of
from relay.mapping import map_delivery
from relay.metrics import Metrics
from relay.money import from_minor
from relay.operating import remap
from relay.registry import load_providers
from relay.serving import Message, Receive, Scope, Send, hang_up, serving
from relay.settings import load
from relay.signatures import hmac_sha256
from relay.sources import Source
from relay.store import open_store
from relay.store.base import Store
from relay.store.schema import Outcome
from relay.vault import Vault
from tests import acme
from tests.conftest import API_KEY, EventsApi, RunRelay, until
from tests.things import DAY, Clock, arrival

pytestmark = pytest.mark.anyio

KEY = "key_of_the_tests"


def thin() -> Provider:
    """A provider that sends ids only."""
    provider = Provider(
        name="thin",
        title="Thin Pay",
        docs="https://docs.thin.example",
        verifier=hmac_sha256(header="X-Thin-Signature"),
        notification_id=field("id"),
        notification_type=field("type"),
        items=lambda body: body.get("events", (body,)),
        is_test=lambda item: any(isinstance(one, dict) and one.get("test") for one in (item.answers or {}).values()),
        secret=SecretShape(meaning="Settings"),
        api_key=SecretShape(meaning="Settings, API keys", prefix="key_"),
        api=Api(
            base="https://api.thin.example/v1",
            headers={"thin-version": "2026-01-01"},
            also=re.compile(r"http://127\.0\.0\.1:\d+/confirm\?token=\w+"),
            is_needed=True,
        ),
    )

    @provider.on("paid")
    def sale(n: Notification) -> Iterator[Draft]:
        payment = n.ask("/payments/{}", n.body["payment"])
        customer = n.ask("/customers/{}", payment["customer"]) if payment.get("customer") else {}
        yield conversion(
            "purchase",
            once=f"payment:{payment['id']}",
            person=Person(email=customer.get("email"), customer_id=payment.get("customer")),
            revenue=from_minor(payment["amount"], "EUR"),
            currency="EUR",
            at_ms=payment["paid_at"] * 1000,
            properties={"order_id": payment["id"]},
        )

    @provider.on("lead")
    def lead(n: Notification) -> Iterator[Draft]:
        contact = n.look_up("/contacts/{}", n.body["contact"]) or {}
        yield conversion("lead_created", once=f"lead:{n.body['contact']}", at_ms=n.body["at"] * 1000,
                         person=Person(email=contact.get("email"), customer_id=n.body["contact"]))  # fmt: skip

    @provider.on("confirm")
    def confirm(n: Notification) -> Iterator[Draft]:
        n.ask(n.body["url"])
        yield from ()

    @provider.on("endless")
    def endless(n: Notification) -> Iterator[Draft]:
        for page in range(1000):
            n.ask("/pages/{}", page)
        yield conversion("never", once="never", at_ms=0)

    return provider


def paid(number: int | str, **more: Any) -> dict[str, Any]:
    return {"id": f"evt_{number}", "type": "paid", "payment": f"pay_{number}", **more}


def payment(number: int | str, **more: Any) -> dict[str, Any]:
    return {"id": f"pay_{number}", "amount": 1999, "paid_at": 1_795_000_000, "customer": "cus_1", **more}


Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class StandIn:
    """A stand-in of the provider's API: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Any] = {"/payments/pay_1": payment(1), "/customers/cus_1": {"email": "ada@example.com"}}
        #: Before the answers, one for each call: a status with headers, or a handler.
        self.trouble: list[tuple[int, dict[str, str]] | Handler] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.asked.append(scope["path"])
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        trouble = self.trouble.pop(0) if self.trouble else None
        if callable(trouble):
            await trouble(scope, receive, send)
        elif trouble is not None:
            await answer(send, *trouble)
        elif scope["path"] in self.answers:
            await answer(send, 200, body=orjson.dumps(self.answers[scope["path"]]))
        else:
            await answer(send, 404)


async def answer(send: Send, status: int, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    start: Message = {"type": "http.response.start", "status": status, "headers": raw}
    await send(start)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    async with serving(stand_in) as served:
        stand_in.url = served.url
        yield stand_in


def source_at(url: str, tmp_path: Path, **variables: str | None) -> Source:
    environ = {"RELAY_THIN_SECRET": "s", "RELAY_THIN_API_KEY": KEY, "RELAY_THIN_API_BASE": url,
               "OAA_API_KEY": "oa_1", "OAA_PROJECT_ID": "42", **variables}  # fmt: skip
    given = {name: value for name, value in environ.items() if value is not None}
    return load({"thin": thin()}, environ=given, env_file=tmp_path / "none").sources["thin"]


class Stage:
    """A store, an asker, and a clock."""

    def __init__(self, store: Store, source: Source, clock: Clock, rules: AskingRules | None = None) -> None:
        self.store, self.source, self.clock, self.provider = store, source, clock, thin()
        self.woken: list[str] = []
        self.metrics = Metrics()
        self.asker = Asker(source, self.provider, store=store, metrics=self.metrics, clock=clock,
                           wake=self.woken.append, random=lambda: 1.0, rules=rules or AskingRules())  # fmt: skip

    async def receive(self, *bodies: Any) -> None:
        for body in bodies:
            raw = orjson.dumps(body)
            delivery = Delivery(body=raw, headers={})
            mapped = map_delivery(self.provider, self.source, delivery, received_at_ms=self.clock())
            await self.store.accept(arrival(*mapped, source="thin", body=raw, headers={"a": "b"}))

    async def events(self) -> list[dict[str, Any]]:
        return [json.loads(event.payload) for event in reversed(await self.store.events())]

    async def failed(self) -> list[str]:
        kept = await self.store.unmapped(outcome=Outcome.FAILED)
        return [name for one in kept for name in one.notifications]


StageWith = Callable[..., Stage]


@pytest.fixture
async def stage_with(api: StandIn, store: Store, clock: Clock, tmp_path: Path) -> AsyncIterator[StageWith]:
    """Makes a stage, with rules or variables of its own."""
    made: list[Stage] = []

    def make(rules: AskingRules | None = None, *, other: Store | None = None, **variables: str | None) -> Stage:
        made.append(Stage(other or store, source_at(api.url, tmp_path, **variables), clock, rules))
        return made[-1]

    yield make
    for stage in made:
        await stage.asker.close()


@pytest.fixture
def stage(stage_with: StageWith) -> Stage:
    return stage_with()


async def test_what_was_not_said_is_asked_for_and_then_it_counts(stage: Stage, api: StandIn) -> None:
    await stage.receive(paid(1))
    assert await stage.store.to_do() == {"thin": 1}
    assert await stage.events() == []

    assert await stage.asker.tick() == 1

    (event,) = await stage.events()
    assert (event["event_name"], event["revenue"], event["properties"].get("identity")) == ("purchase", 19.99, None)
    assert api.asked == ["/payments/pay_1", "/customers/cus_1"]
    assert await stage.store.to_do() == {}
    assert stage.woken == ["default"]
    assert await stage.asker.tick() == 0


async def test_the_call_carries_the_key_and_what_the_api_wants_with_it(stage: Stage, api: StandIn) -> None:
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert {api.headers[0][name] for name in ("authorization", "thin-version")} == {f"Bearer {KEY}", "2026-01-01"}


async def test_a_repeat_asks_nothing_and_counts_nothing(stage: Stage, api: StandIn) -> None:
    await stage.receive(paid(1), paid(1))
    await stage.asker.tick()
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert (len(await stage.events()), len(api.asked)) == (1, 2)


@pytest.mark.parametrize("status", [500, 502, 408, 429])
async def test_an_api_that_fails_is_asked_again_later(stage: Stage, api: StandIn, status: int) -> None:
    api.trouble = [(status, {})]
    await stage.receive(paid(1))
    await stage.asker.tick()
    assert await stage.events() == []
    await stage.asker.tick()
    assert len(api.asked) == 1

    stage.clock.advance(seconds=3)
    await stage.asker.tick()

    assert len(await stage.events()) == 1


async def test_retry_after_is_obeyed_for_the_whole_source(stage: Stage, api: StandIn) -> None:
    api.answers["/payments/pay_2"] = payment(2)
    api.trouble = [(429, {"retry-after": "120"})]
    await stage.receive(paid(1))
    await stage.asker.tick()
    await stage.receive(paid(2))

    stage.clock.advance(seconds=110)
    await stage.asker.tick()
    assert api.asked == ["/payments/pay_1"]

    stage.clock.advance(seconds=11)
    for _ in range(3):
        await stage.asker.tick()
    assert len(await stage.events()) == 2


async def test_what_was_answered_is_not_asked_for_again(stage: Stage, api: StandIn) -> None:
    api.trouble = [lambda _s, _r, send: answer(send, 200, body=orjson.dumps(payment(1))), (500, {})]
    await stage.receive(paid(1))
    await stage.asker.tick()
    stage.clock.advance(seconds=3)
    await stage.asker.tick()

    assert api.asked == ["/payments/pay_1", "/customers/cus_1", "/customers/cus_1"]
    assert len(await stage.events()) == 1


async def test_what_the_api_does_not_have_is_given_up_after_some_patience(stage: Stage, api: StandIn) -> None:
    del api.answers["/payments/pay_1"]
    await stage.receive(paid(1))
    for _ in range(10):
        await stage.asker.tick()
        stage.clock.advance(seconds=200)

    assert await stage.failed() == ["evt_1"]
    assert len(api.asked) == 6
    assert await stage.store.to_do() == {}


async def test_an_api_that_learns_of_it_a_moment_later_is_believed(stage: Stage, api: StandIn) -> None:
    api.trouble = [(404, {})]
    await stage.receive(paid(1))
    await stage.asker.tick()
    stage.clock.advance(seconds=3)
    await stage.asker.tick()

    assert len(await stage.events()) == 1


async def test_what_is_only_good_to_know_may_be_missing(stage: Stage) -> None:
    await stage.receive({"id": "evt_9", "type": "lead", "contact": "con_9", "at": 1_795_000_000})
    await stage.asker.tick()

    (event,) = await stage.events()
    assert event["properties"]["identity"] == "customer_id"


@pytest.mark.parametrize("status", [400, 500, 401])
async def test_what_is_only_good_to_know_does_not_hold_up_the_event_for_long(
    stage: Stage, api: StandIn, status: int
) -> None:
    api.trouble = [(status, {})] * 1000
    await stage.receive({"id": "evt_9", "type": "lead", "contact": "con_9", "at": 1_795_000_000})
    for _ in range(10):
        await stage.asker.tick()
        stage.clock.advance(seconds=900)

    assert len(await stage.events()) == 1
    assert await stage.store.to_do() == {}


async def test_a_confirmation_is_fetched_from_a_pinned_place_without_the_key(stage: Stage, api: StandIn) -> None:
    api.trouble = [lambda _s, _r, send: answer(send, 200, body=b"<ok/>")]
    await stage.receive({"id": "evt_1", "type": "confirm", "url": f"{api.url}/confirm?token=abc"})
    await stage.receive({"id": "evt_2", "type": "confirm", "url": f"{api.url}/elsewhere?token=abc"})
    await stage.asker.tick()

    assert (api.asked, ["authorization" in sent for sent in api.headers]) == (["/confirm"], [False])
    assert (await stage.failed(), await stage.store.to_do()) == (["evt_2"], {})


async def test_without_a_key_what_is_only_good_to_know_is_not_asked_for(api: StandIn, stage_with: StageWith) -> None:
    stage = stage_with(RELAY_THIN_API_KEY=None)
    await stage.receive({"id": "evt_9", "type": "lead", "contact": "con_9", "at": 1_795_000_000})

    assert len(await stage.events()) == 1
    assert api.asked == []


async def test_without_a_key_it_is_kept_until_there_is_one(stage_with: StageWith, store: Store, clock: Clock) -> None:
    without = stage_with(RELAY_THIN_API_KEY=None)
    await without.receive(paid(1))
    (kept,) = await store.unmapped(outcome=Outcome.TO_DO)
    assert list(kept.notifications) == ["evt_1"]

    clock.advance(days=6)
    stage = stage_with()
    await stage.asker.tick()

    assert len(await stage.events()) == 1


async def test_a_key_that_is_refused_stops_the_calls_and_loses_nothing(stage: Stage, api: StandIn) -> None:
    api.trouble = [(401, {})]
    await stage.receive(paid(1))
    await stage.asker.tick()
    stage.clock.advance(seconds=30)
    await stage.asker.tick()
    assert len(api.asked) == 1

    stage.clock.advance(seconds=31)
    await stage.asker.tick()
    assert len(await stage.events()) == 1


@pytest.mark.parametrize("status", [400, 422])
async def test_a_call_that_the_api_does_not_understand_is_not_made_again(
    stage: Stage, api: StandIn, status: int
) -> None:
    api.trouble = [(status, {})]
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert await stage.failed() == ["evt_1"]


async def test_a_redirect_is_not_followed(stage: Stage, api: StandIn) -> None:
    api.trouble = [(302, {"location": f"{api.url}/customers/cus_1"})]
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert (api.asked, await stage.events()) == (["/payments/pay_1"], [])
    assert await stage.store.to_do() == {"thin": 1}


async def test_a_huge_answer_is_not_taken_in(api: StandIn, stage_with: StageWith) -> None:
    stage = stage_with(AskingRules(largest=10_000))
    api.trouble = [lambda _s, _r, send: answer(send, 200, body=b'"' + b"x" * 20_000 + b'"')]
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert await stage.failed() == ["evt_1"]


async def test_an_answer_that_does_not_come_is_asked_for_again(
    api: StandIn, stage_with: StageWith, clock: Clock
) -> None:
    async def silence(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    stage = stage_with(AskingRules(patience_s=0.05))
    api.trouble = [silence, lambda scope, receive, _send: hang_up(scope, receive)]
    await stage.receive(paid(1))
    for _ in range(3):
        await stage.asker.tick()
        clock.advance(seconds=5)

    assert len(await stage.events()) == 1


async def test_what_is_no_json_is_asked_for_again(stage: Stage, api: StandIn) -> None:
    api.trouble = [lambda _s, _r, send: answer(send, 200, body=b"<h1>maintenance</h1>")]
    await stage.receive(paid(1))
    await stage.asker.tick()
    stage.clock.advance(seconds=3)
    await stage.asker.tick()

    assert len(await stage.events()) == 1


async def test_after_three_days_it_is_given_up_and_a_restart_tries_again(stage: Stage, api: StandIn) -> None:
    api.trouble = [(500, {})] * 1000
    await stage.receive(paid(1))
    for _ in range(80):
        await stage.asker.tick()
        stage.clock.advance(seconds=3600)
    assert await stage.failed() == ["evt_1"]

    api.trouble = []
    await remap(stage.store, sources={"thin": stage.source}, providers={"thin": stage.provider})
    assert await stage.store.to_do() == {"thin": 1}
    stage.clock.advance(seconds=3600)
    await stage.asker.tick()
    assert len(await stage.events()) == 1


async def test_a_crash_between_the_answer_and_its_commit_counts_once(
    stage: Stage, stage_with: StageWith, tmp_path: Path, clock: Clock
) -> None:
    """Whoever claimed it is gone; after its lease another one asks, and the first one's commit comes after all."""
    await stage.receive(paid(1))
    (claimed,) = await stage.store.claim_to_do("thin", limit=10, lease_ms=60_000)
    assert await stage.asker.tick() == 0

    clock.advance(seconds=61)
    again = await open_store(f"sqlite:///{tmp_path / 'relay.db'}", vault=Vault([b"k" * 32]), clock=clock)
    second = stage_with(other=again)
    await second.asker.tick()
    await stage.asker._work(claimed)

    assert len(await stage.events()) == 1
    assert len(await stage.store.duplicates()) == 0
    await again.close()


async def test_mapping_again_needs_no_network(stage: Stage, api: StandIn) -> None:
    """The answers are kept with the delivery: after a mapper's fix nobody is asked."""
    api.answers["/payments/pay_1"] = payment(1, amount="broken")
    await stage.receive(paid(1))
    await stage.asker.tick()
    assert await stage.failed() == ["evt_1"]
    fixed = thin()
    fixed.mappers["paid"] = lambda n: thin().mappers["paid"](
        replace(n, answers={**(n.answers or {}), "/payments/pay_1": payment(1)})
    )

    done = await remap(stage.store, sources={"thin": stage.source}, providers={"thin": fixed})

    assert (done.events, len(await stage.events()), len(api.asked)) == (1, 1, 2)


async def test_the_items_of_one_delivery_share_an_answer_and_fail_alone(stage: Stage, api: StandIn) -> None:
    api.answers["/payments/pay_2"] = payment(2)
    bodies = [paid(1), paid(2), {**paid(3), "payment": "pay_1"}, paid("lost")]
    await stage.receive({"events": bodies})
    for _ in range(7):
        await stage.asker.tick()
        stage.clock.advance(seconds=200)

    assert len(await stage.events()) == 2
    assert await stage.failed() == ["evt_lost"]
    assert api.asked.count("/customers/cus_1") == 1
    assert api.asked.count("/payments/pay_1") == 1


async def test_the_test_mode_that_only_the_answer_tells_counts(stage: Stage, api: StandIn) -> None:
    api.answers["/payments/pay_1"] = payment(1, test=True)
    await stage.receive(paid(1))
    await stage.asker.tick()

    assert (await stage.events(), await stage.store.to_do()) == ([], {})


async def test_a_mapper_that_asks_without_end_is_parked(stage: Stage, api: StandIn) -> None:
    api.answers |= {f"/pages/{number}": {} for number in range(100)}
    await stage.receive({"id": "evt_1", "type": "endless"})
    await stage.asker.tick()

    assert await stage.failed() == ["evt_1"]


async def test_answers_go_with_the_bodies(stage: Stage) -> None:
    await stage.receive(paid(1), paid(2))
    await stage.asker.tick()
    stage.clock.advance(days=8)
    while await stage.store.prune(bodies_before_ms=stage.clock() - 7 * DAY, keys_before_ms=stage.clock() - 90 * DAY):
        pass

    assert await stage.store.to_do() == {"thin": 1}
    assert len(await stage.store.unmapped(outcome=Outcome.TO_DO)) == 1


# --- where calls go ---------------------------------------------------------------------------------------------------


def test_an_id_stays_one_segment_of_the_path() -> None:
    assert path_of("/payments/{}", ("../../admin?x=1#y",)) == "/payments/..%2F..%2Fadmin%3Fx%3D1%23y"
    assert path_of("/payments/{}", ("..",)) == "/payments/-"


@pytest.mark.parametrize("path", ["/a/../b", "//evil.example/a", "/a\\b", "/a#b", "/a\n", "https://evil.example/"])
def test_a_call_never_leaves_the_providers_own_places(tmp_path: Path, path: str) -> None:
    provider = thin()
    source = source_at("https://api.thin.example/v1", tmp_path)

    assert url_of(provider.api or Api(), source, Ask(path=path)) is None


def test_a_slash_at_the_end_of_a_path_is_kept(tmp_path: Path) -> None:
    source = source_at("https://api.thin.example/v1", tmp_path)

    assert url_of(Api(base="x"), source, Ask(path="/contact/1/?a=b")) == "https://api.thin.example/v1/contact/1/?a=b"


def test_a_key_of_another_mode_goes_to_another_base(tmp_path: Path) -> None:
    source = source_at("", tmp_path, RELAY_THIN_API_BASE=None, RELAY_THIN_API_KEY="key_sandbox_1")
    api = Api(base="https://live.example", bases={"key_sandbox_": "https://sandbox.example"})

    assert url_of(api, source, Ask(path="/payments/1")) == "https://sandbox.example/payments/1"


def test_keys_are_sent_as_the_api_wants_them() -> None:
    assert basic_key("k") == {"authorization": "Basic azo="}
    assert basic_key("u:p") == {"authorization": "Basic dTpw"}
    assert header_key("X-Key")("k") == {"x-key": "k"}


# --- in a relay -------------------------------------------------------------------------------------------------------


async def test_a_thin_webhook_is_answered_at_once_and_arrives_as_an_event(
    run_relay: RunRelay, api: StandIn, events_api: EventsApi
) -> None:
    provider = thin()
    held = asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await held.wait()
        await answer(send, 200, body=orjson.dumps(payment(1)))

    api.trouble = [slow]
    known = {"acme": acme.make(), "thin": provider}
    own = {"RELAY_THIN_SECRET": "s", "RELAY_THIN_API_KEY": KEY, "RELAY_THIN_API_BASE": api.url}
    async with run_relay(known, **own) as relay:
        raw = orjson.dumps(paid(1))
        signed = provider.verifier.sign(Delivery(body=raw, headers={}), "s", now_ms=0)
        response = await relay.post(raw, source="thin", headers=dict(signed.headers))
        assert response.status_code == 200
        assert await relay.metric("relay_notifications_total", source="thin", outcome="to_do") == 1

        held.set()

        async def has_arrived() -> bool:
            return await events_api.orders() == ["pay_1"]

        await until(has_arrived)
        assert await relay.metric("relay_notifications_total", source="thin", outcome="mapped") == 1
        assert await relay.metric("relay_asks_total", source="thin", answer="200") == 2


# --- providers that say too little ------------------------------------------------------------------------------------

THIN = {
    "gocardless": ("payments.confirmed", "first_of_subscription"),
    "mercado_pago": ("payment", "pix"),
    "mollie": ("payment", "classic_first"),
    "recurly": ("charge_invoice.paid", "after_trial"),
}


@pytest.mark.parametrize("name", THIN)
async def test_a_sample_is_asked_about_in_the_sandbox(
    name: str, run_relay: RunRelay, events_api: EventsApi, clock: Clock
) -> None:
    """As `relay send` does it: the sandbox answers in the provider's place."""
    provider = load_providers(None)[name]
    case = samples.choose(samples.cases_of(provider, None), *THIN[name])
    assert case is not None
    delivery = samples.fresh(case, id=None, now_ms=clock(), token="1")
    (await events_api.http.put("/answers", json=dict(delivery.answers or {}))).raise_for_status()
    sent = samples.signed(delivery, provider, "s" * 32, now_ms=clock())
    prefix = f"RELAY_{name.upper()}"
    variables = {f"{prefix}_SECRET": "s" * 32, f"{prefix}_API_KEY": "k", f"{prefix}_API_BASE": events_api.url}

    async with run_relay({"acme": acme.make(), name: provider}, **variables) as relay:
        path = f"/webhooks/{name.replace('_', '-')}?{sent.query}"
        for _ in range(2):
            response = await relay.http.post(path, content=sent.body, headers=dict(sent.headers))
            assert response.status_code == 200

        async def has_arrived() -> bool:
            return len(await events_api.received()) == case.drafts

        await until(has_arrived)
        assert await relay.metric("relay_to_do", source=name.replace("_", "-")) == 0


async def test_the_same_words_again_are_news_where_the_provider_has_no_others(
    run_relay: RunRelay, events_api: EventsApi, clock: Clock
) -> None:
    """Mollie's classic webhook says the same when a payment is paid and when it is refunded."""
    provider = load_providers(None)["mollie"]
    cases = {case.variant: case for case in samples.cases_of(provider, None) if case.type == "payment"}
    own = {"RELAY_MOLLIE_SECRET": "s", "RELAY_MOLLIE_API_KEY": "k", "RELAY_MOLLIE_API_BASE": events_api.url}

    async with run_relay({"acme": acme.make(), "mollie": provider}, **own) as relay:
        for variant, names in (("classic", ["purchase"]), ("classic_refunded", ["purchase", "refund"])):
            (await events_api.http.put("/answers", json=dict(cases[variant].answers or {}))).raise_for_status()
            clock.advance(seconds=60)
            response = await relay.http.post("/webhooks/mollie?token=s", content=cases[variant].body)
            assert response.status_code == 200

            async def have_arrived(names: list[str] = names) -> bool:
                return [event["event_name"] for event in await events_api.received()] == names

            await until(have_arrived)


async def test_the_doctor_says_whose_key_is_missing_and_what_waits_for_it(
    stage_with: StageWith, events_api: EventsApi, tmp_path: Path, store_variables: dict[str, str]
) -> None:
    await stage_with(RELAY_THIN_API_KEY=None).receive(paid(1))
    environ = {**store_variables, "RELAY_THIN_SECRET": "s", "RELAY_PORT": "0",
               "OAA_BASE_URL": events_api.url, "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY}  # fmt: skip
    settings = load({"thin": thin()}, environ=environ, env_file=tmp_path / "none")

    found = [finding async for finding in examine(settings, {"thin": thin()}, clock=unix_ms)]

    told = [finding for finding in found if finding.subject == "source thin" and finding.level is Level.WARNING]
    assert ["RELAY_THIN_API_KEY" in told[0].remedy, told[1].words.endswith("them: 1")] == [True, True]


async def test_a_body_whose_items_are_no_list_is_parked(tmp_path: Path) -> None:
    (one,) = map_delivery(
        thin(), source_at("", tmp_path), Delivery(body=b'{"events":null}', headers={}), received_at_ms=0
    )

    assert one.outcome is Outcome.FAILED
