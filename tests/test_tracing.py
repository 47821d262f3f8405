"""A delivery's way is one trace, whichever process it takes; and nothing of it where tracing is off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent, Status
from structlog.testing import capture_logs

from relay.clock import unix_ms
from relay.contract import Provider
from relay.ids import RowIds
from relay.ingesting import Ingesting
from relay.openanalytics import OpenAnalytics
from relay.process import EndedError, serve_until_signal
from relay.receiving import Receiver
from relay.serving import Receive, Scope, Send, serving
from relay.settings import SettingsError, load
from relay.spans import trace_of_batch, trace_of_delivery, with_trace_id
from relay.store.base import Store, Verified
from relay.store.schema import Outcome
from relay.store.sql import SqlStore
from tests import acme
from tests.commands import ROOT, Commands, mount_acme
from tests.conftest import API_KEY, EventsApi, RunningRelay, RunRelay, until
from tests.things import NOON, Clock, arrival, mapped, purchase, sale

pytestmark = pytest.mark.anyio

KEY = "backend_key_of_the_tests"
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLING = "00f067aa0ba902b7"

#: All that a span may say, so that nothing personal is among it.
SAID = {
    "relay.source", "relay.delivery", "relay.outcome", "relay.again", "relay.notifications", "relay.repeated",
    "relay.events", "relay.duplicates", "relay.mapped", "relay.failed", "relay.event", "relay.destination",
    "relay.batch", "relay.attempt", "http.request.method", "http.response.status_code",
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A span as the collector has it."""

    name: str
    trace: str
    id: str
    parent: str
    about: dict[str, Any]
    links: list[tuple[str, str]]
    began: int
    ended: int
    failed: bool


@dataclass
class Collector:
    """Takes what is exported to it over HTTP, and reads it as any collector would."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        assert ("POST", "/v1/traces") == (scope["method"], scope["path"])
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self._read(ExportTraceServiceRequest.FromString(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _read(self, said: ExportTraceServiceRequest) -> None:
        for resource in said.resource_spans:
            self.resources.append({one.key: one.value.string_value for one in resource.resource.attributes})
            self.spans += [read(span) for scope in resource.scope_spans for span in scope.spans]

    def of(self, trace: str) -> dict[str, list[Span]]:
        """The spans of a trace by name, in the order in which they began."""
        found: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda span: span.began):
            if span.trace == trace:
                found.setdefault(span.name, []).append(span)
        return found

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def read(span: Sent) -> Span:
    about = {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}
    return Span(
        name=span.name, trace=span.trace_id.hex(), id=span.span_id.hex(), parent=span.parent_span_id.hex(),
        about=about, links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        began=span.start_time_unix_nano, ended=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
    )  # fmt: skip


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    async with serving(found) as served:
        found.url = served.url
        yield found


@pytest.fixture
def run_traced(run_relay: RunRelay, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> RunRelay:
    """Starts a relay whose spans are with the collector once it has ended."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    @contextlib.asynccontextmanager
    async def run(**variables: Any) -> AsyncIterator[Any]:
        async with run_relay(RELAY_TRACING="1", RELAY_INGEST_KEYS=KEY, **variables) as relay:
            yield relay

    return run


async def received(events_api: EventsApi, number: int) -> None:
    async def are_there() -> bool:
        return len(await events_api.received()) >= number

    await until(are_there)


def hexed(trace: int) -> str:
    return f"{trace:032x}"


# --- the whole way ----------------------------------------------------------------------------------------------------


def sold(number: int | str, **payment: Any) -> bytes:
    return orjson.dumps(acme.captured(number, captured_at=unix_ms() // 1000, **payment))


async def test_a_delivery_is_one_trace_through_all_processes(
    tmp_path: Path, events_api: EventsApi, collector: Collector
) -> None:
    """One process receives, another one maps and forwards, as they do by default."""
    command = Commands(tmp_path, mount_acme(tmp_path))
    variables = {
        "RELAY_ACME_SECRET": acme.SECRET, "RELAY_PORT": "0", "RELAY_TRACING": "1", "RELAY_LOG_FORMAT": "json",
        "OAA_BASE_URL": events_api.url, "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }  # fmt: skip
    await events_api.misbehave(reject={"property": {"order_id": "pay_bad"}})
    async with command.serving("serve", says="Listening on", **variables) as run, httpx.AsyncClient() as http:
        url = f"{run.out.split()[-1]}/webhooks/acme"

        async def post(raw: bytes, **headers: str) -> int:
            return (await http.post(url, content=raw, headers=headers or acme.signed(raw))).status_code

        answers = [await post(sold("good")), await post(sold("bad")), await post(sold("odd", amount="a few"))]
        answers.append(await post(sold("forged"), **{"x-acme-signature": "ab" * 32}))
        await received(events_api, 1)
        await until(_counts(http, run.out.split()[-1], "relay_events_dead_total"))
    lines = [json.loads(line) for line in run.err.splitlines() if line.startswith("{")]

    assert ([200, 200, 200, 401], 0) == (answers, run.code), run.err
    roots = {span.about.get("relay.delivery"): span for span in collector.named("receive")}
    delivered = {int(delivery): root for delivery, root in roots.items() if delivery}
    assert {hexed(trace_of_delivery(delivery)) for delivery in delivered} == {root.trace for root in delivered.values()}
    assert 3 == len(delivered)

    # a sale
    good = next(span for span in collector.named("forward") if span.about["relay.outcome"] == "sent")
    spans = collector.of(good.trace)
    root, mapping, (commit, second) = spans["receive"][0], spans["map"][0], spans["commit"]
    assert ["", root.id, root.id, mapping.id, root.id] == [
        root.parent, mapping.parent, commit.parent, second.parent, good.parent,
    ]  # fmt: skip
    assert root.began <= commit.began <= commit.ended <= root.ended
    assert commit.ended <= second.ended <= good.ended
    assert {"relay.source": "acme", "relay.outcome": "accepted", "http.request.method": "POST",
            "http.response.status_code": 200, "relay.delivery": root.about["relay.delivery"]} == root.about  # fmt: skip
    assert (1, 1, 0, 0) == tuple(
        mapping.about[f"relay.{word}"] for word in ("events", "mapped", "duplicates", "repeated")
    )
    (sent,) = await events_api.received()
    assert (sent["properties"]["event_id"], 202) == (
        good.about["relay.event"], good.about["http.response.status_code"],
    )  # fmt: skip

    # its batch
    batch = next(span for span in collector.named("batch") if (good.trace, good.id) in span.links)
    assert [(batch.trace, batch.id)] == good.links
    assert hexed(trace_of_batch(int(batch.about["relay.batch"]))) == batch.trace

    # what went wrong, and its lines in the log
    line = {entry["event"]: entry for entry in lines}
    failed = next(span for span in collector.named("map") if span.failed)
    assert 1 == failed.about["relay.failed"]
    assert failed.trace == line["could not be mapped, kept"]["trace_id"]
    assert failed.about["relay.delivery"] == str(line["could not be mapped, kept"]["delivery"])
    (dead,) = collector.named("dead letter")
    letter = line["an event was refused and is a dead letter now"]
    assert (dead.about["relay.batch"], hexed(trace_of_batch(letter["batch"]))) == (
        str(letter["batch"]), letter["trace_id"],
    )  # fmt: skip
    assert {"rejected"} == {
        span.about["relay.outcome"] for span in collector.named("forward") if span.trace == dead.trace
    }
    tried = {entry["batch"]: entry for entry in lines if entry["event"] == "a batch was tried"}[letter["batch"]]
    assert (1, 1, "400", letter["trace_id"], int) == (
        tried["attempt"], tried["events"], tried["answer"], tried["trace_id"], type(letter["dead_letter"]),
    )  # fmt: skip
    refused = roots[None]
    assert ("refused", 401) == (refused.about["relay.outcome"], refused.about["http.response.status_code"])
    assert refused.trace == line["signature refused"]["trace_id"] == line["why a signature was refused"]["trace_id"]
    assert isinstance(line["why a signature was refused"]["rejected"], int)

    # nothing of anybody
    assert set[str]() == {word for span in collector.spans for word in span.about} - SAID
    text = repr(collector.spans)
    assert [] == [word for word in ("buyer", "example.com", "pay_", "ntf_", "odd", acme.SECRET) if word in text]
    assert {"relay"} == {resource["service.name"] for resource in collector.resources}


def _counts(http: httpx.AsyncClient, url: str, metric: str) -> Any:
    async def is_counted() -> bool:
        text = (await http.get(f"{url}/metrics")).text
        return any(line.startswith(f"{metric}{{") and not line.endswith(" 0.0") for line in text.splitlines())

    return is_counted


# --- calls and batches ------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_trace_with_each_call(
    run_traced: RunRelay, events_api: EventsApi, collector: Collector, clock: Clock
) -> None:
    await events_api.misbehave(status=503, times=2)
    async with run_traced() as relay:

        async def waits(number: int) -> bool:
            return [("retry", number)] == [(one.state, one.attempts) for one in await relay.store.open_batches()]

        await relay.post(acme.captured(1))
        for number in (1, 2):
            await until(partial(waits, number))
            clock.advance(seconds=60)
            relay.app.state.work.forwarding.wake_all()
        await received(events_api, 1)
    (trace,) = {span.trace for span in collector.named("batch")}
    calls = collector.of(trace)["batch"]

    assert [(1, "later", 503, True), (2, "later", 503, True), (3, "sent", 202, False)] == [
        (span.about["relay.attempt"], span.about["relay.outcome"], span.about["http.response.status_code"], span.failed)
        for span in calls
    ]
    assert [span.links for span in calls] == [
        [(one.trace, one.id)] for one in sorted(collector.named("forward"), key=lambda one: one.about["relay.attempt"])
    ]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_a_batch_names_the_spans_of_all_its_events(
    run_traced: RunRelay, events_api: EventsApi, collector: Collector
) -> None:
    async with run_traced() as relay:
        await relay.post([acme.captured(number) for number in range(300)])
        await received(events_api, 300)
    forwarded = {(span.trace, span.id) for span in collector.named("forward")}

    assert 300 == len(forwarded) == sum(span.about["relay.events"] for span in collector.named("batch"))
    assert forwarded == {link for span in collector.named("batch") for link in span.links}
    assert 1 == len({trace for trace, _ in forwarded})


async def test_what_is_mapped_again_stands_in_the_trace_of_its_delivery(
    run_relay: RunRelay, run_traced: RunRelay, events_api: EventsApi, collector: Collector
) -> None:
    async with run_relay({"acme": _without("payment.captured")}) as relay:
        await relay.post(acme.captured(1))
        (kept,) = await relay.store.unmapped(outcome=Outcome.FAILED)
    async with run_traced():
        await received(events_api, 1)
    found = collector.of(hexed(trace_of_delivery(kept.delivery)))

    assert (True, 1) == (found["map"][0].about["relay.again"], found["map"][0].about["relay.events"])
    assert ["sent"] == [span.about["relay.outcome"] for span in found["forward"]]


def _without(kind: str) -> Provider:
    """Acme, whose mapper of this has a bug."""
    provider = acme.make()

    def raises(_notification: object) -> Any:
        raise KeyError

    provider.mappers[kind] = raises
    return provider


# --- what backends post -----------------------------------------------------------------------------------------------

EVENT = {"event_type": "conversion", "event_name": "signup", "user_id": "u_1", "properties": {"event_id": "evt_mine"}}


async def post_event(relay: RunningRelay, **headers: str) -> int:
    sent = {"authorization": f"Bearer {KEY}", **headers}
    return (await relay.http.post("/v1/projects/42/events", json=EVENT, headers=sent)).status_code


async def test_a_posted_event_stands_in_the_trace_of_whoever_posted_it(
    run_traced: RunRelay, events_api: EventsApi, collector: Collector
) -> None:
    async with run_traced() as relay:
        assert 202 == await post_event(relay, traceparent=f"00-{CALLER}-{CALLING}-01")
        await received(events_api, 1)
    (called,) = collector.of(CALLER)["receive"]
    (own,) = [span for span in collector.named("receive") if span.trace != CALLER]
    (forwarded,) = collector.of(own.trace)["forward"]

    assert (CALLING, [(own.trace, own.id)]) == (called.parent, called.links)
    assert ([(called.trace, called.id)], own.id) == (own.links, forwarded.parent)
    assert hexed(trace_of_delivery(int(own.about["relay.delivery"]))) == own.trace
    assert ("events:42", "accepted", 202) == (
        own.about["relay.source"], own.about["relay.outcome"], own.about["http.response.status_code"],
    )  # fmt: skip


async def test_a_caller_that_is_not_sampled_is_left_alone(run_traced: RunRelay, collector: Collector) -> None:
    async with run_traced() as relay:
        assert 202 == await post_event(relay, traceparent=f"00-{CALLER}-{CALLING}-00")

    assert {} == collector.of(CALLER)


@pytest.mark.parametrize("traceparent", ["", "00-x-y-01", f"00-{'0' * 32}-{CALLING}-01"])
async def test_a_traceparent_that_is_none_changes_nothing(
    run_traced: RunRelay, collector: Collector, traceparent: str
) -> None:
    async with run_traced() as relay:
        assert 202 == await post_event(relay, traceparent=traceparent)

    assert ["receive"] == [span.name for span in collector.spans if span.name == "receive"]


async def test_a_repeat_says_that_it_is_one(run_traced: RunRelay, collector: Collector) -> None:
    async with run_traced() as relay:
        answers = [await post_event(relay, **{"idempotency-key": "k"}) for _ in range(2)]

    assert [202, 202] == answers
    assert ["accepted", "repeated"] == [span.about["relay.outcome"] for span in collector.named("receive")]


async def test_a_webhook_cannot_choose_its_trace(run_traced: RunRelay, collector: Collector) -> None:
    raw = orjson.dumps(acme.captured(1))
    async with run_traced() as relay:
        await relay.post(raw, headers={**acme.signed(raw), "traceparent": f"00-{CALLER}-{CALLING}-01"})

    assert {} == collector.of(CALLER)


async def test_what_is_asked_beside_webhooks_and_events_is_not_traced(
    run_traced: RunRelay, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers ask for anything, and operators for people by their addresses."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    async with run_traced(RELAY_ADMIN_TOKEN="a token of sixteen signs or more") as relay:
        await relay.http.post("/webhooks/wordpress", content=b"{}")
        await relay.http.get("/admin/deliveries?text=buyer@example.com")

    assert ([], []) == (collector.spans, collector.headers)


# --- the standard's own variables -------------------------------------------------------------------------------------


async def test_name_attributes_and_headers_are_those_of_the_environment(
    run_traced: RunRelay, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "till")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
    async with run_traced() as relay:
        await relay.post(acme.captured(1))

    assert {("till", "test")} == {
        (resource["service.name"], resource["deployment.environment.name"]) for resource in collector.resources
    }
    assert {"shop"} == {headers["x-team"] for headers in collector.headers}


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
async def test_a_trace_is_sampled_as_a_whole_or_not_at_all(
    run_traced: RunRelay, events_api: EventsApi, collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    async with run_traced() as relay:
        for number in range(60):
            await relay.post(acme.captured(number))
        await received(events_api, 60)
    of_deliveries = [collector.of(span.trace) for span in collector.named("receive")]

    assert 10 < len(of_deliveries) < 50
    assert all({"receive": 1, "commit": 2, "map": 1, "forward": 1} == _counted(spans) for spans in of_deliveries)
    assert len(of_deliveries) == len(collector.named("map")) == len(collector.named("forward"))


def _counted(spans: Mapping[str, Sequence[Span]]) -> dict[str, int]:
    return {name: len(found) for name, found in spans.items()}


async def test_none_is_sampled_where_the_variables_say_so(
    run_traced: RunRelay, events_api: EventsApi, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with run_traced() as relay:
        await relay.post(acme.captured(1))
        await received(events_api, 1)

    assert [] == collector.spans


async def test_a_variable_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")

    assert "the OTEL_* variables cannot be used" in await why_not(tmp_path)


async def why_not(folder: Path) -> str:
    """What is said instead of serving."""
    environ = {"RELAY_ACME_SECRET": acme.SECRET, "RELAY_DATABASE_URL": f"sqlite:///{folder / 'relay.db'}",
               "RELAY_PORT": "0", "RELAY_TRACING": "1"}  # fmt: skip
    providers = {"acme": acme.make()}
    with pytest.raises(EndedError) as ended:
        await serve_until_signal(
            load(providers, environ=environ, env_file=folder / ".env"),
            providers,
            started=lambda _served: pytest.fail("it serves"),
        )
    return str(ended.value)


# --- when it cannot be told -------------------------------------------------------------------------------------------


async def test_a_collector_that_is_away_holds_nothing_up(
    run_relay: RunRelay, events_api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # takes connections, and never answers
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        async with run_relay(RELAY_TRACING="1") as relay:
            assert 200 == (await relay.post(acme.captured(1))).status_code
            await received(events_api, 1)
            began = time.monotonic()
        seconds = time.monotonic() - began

    assert seconds < 9  # of which 3 are given to the collector; by itself OpenTelemetry would take 10


# --- off --------------------------------------------------------------------------------------------------------------


async def test_where_it_is_off_nothing_is_wrapped(relay: RunningRelay) -> None:
    lanes = relay.app.state.work.forwarding._lanes.values()

    assert (Receiver, Ingesting, SqlStore) == (type(relay.app.receiver), type(relay.app.ingesting), type(relay.store))
    assert [OpenAnalytics] == [type(lane._client) for lane in lanes]
    assert with_trace_id not in structlog.get_config()["processors"]


_SERVED = """
import asyncio, sys
from relay.app import create_app
from relay.serving import serving
from relay.settings import load
from tests import acme

async def serve():
    providers = {"acme": acme.make()}
    async with serving(create_app(load(providers), providers)):
        print([name for name in sorted(sys.modules) if name.startswith(%r)])

asyncio.run(serve())
"""
#: FastAPI brings the API of OpenTelemetry, which does nothing by itself.
_OF_TRACING = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "relay.spans", "relay.tracing")


@pytest.mark.parametrize("tracing, is_loaded", [("0", False), ("1", True)])
async def test_where_it_is_off_nothing_of_it_is_loaded(tmp_path: Path, tracing: str, *, is_loaded: bool) -> None:
    environ = {"PYTHONPATH": str(ROOT), "RELAY_ACME_SECRET": acme.SECRET, "RELAY_TRACING": tracing,
               "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY, "OTEL_TRACES_SAMPLER": "always_off"}  # fmt: skip
    command = [sys.executable, "-c", _SERVED % (_OF_TRACING,)]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, env=environ, capture_output=True, check=True)

    loaded = ended.stdout.splitlines()[-1]

    assert (is_loaded, not is_loaded) == (b"'relay.spans', 'relay.tracing'" in loaded, loaded == b"[]")


@pytest.mark.parametrize("module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_a_package_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as refused:
        load({}, environ={"RELAY_TRACING": "1"}, env_file=tmp_path / ".env")

    assert "pip install 'webhook-relay[otel]'" in str(refused.value)


# --- what it rests on -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_logs")
def test_a_log_line_names_the_trace_of_what_it_names() -> None:
    with capture_logs(processors=[with_trace_id]) as lines:
        log = structlog.get_logger("relay.test")
        log.info("mapped", delivery=7)
        log.info("sent", batch=8)
        log.info("else", batch="many")

    assert [hexed(trace_of_delivery(7)), hexed(trace_of_batch(8)), None] == [line.get("trace_id") for line in lines]


def test_a_trace_id_shows_the_row_id_that_it_is_made_of() -> None:
    row = RowIds(unix_ms).next()

    assert [row, row] == [trace_of_delivery(row) >> 64, trace_of_batch(row) >> 64]
    assert trace_of_delivery(row) != trace_of_batch(row)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_the_store_knows_which_delivery_told_an_event(store: Store) -> None:
    verified = Verified(source="shop", received_at_ms=NOON, secret=0, headers={}, body=b"{}")
    await store.take(verified)
    (found,) = await store.inbox(limit=1)
    (receipt,) = await store.unbox([found], [replace(sale(1), delivery=found.delivery)])
    accepted = await store.accept(arrival(mapped(2, purchase(2), purchase(3))))
    events = await store.events()
    origins = await store.console.origins([event.id for event in events])

    assert verified.delivery == found.delivery == receipt.delivery
    assert {event.id: event.event_id for event in events} == {row: event_id for row, (_, event_id) in origins.items()}
    assert {receipt.delivery: 1, accepted.delivery: 2} == Counter(delivery for delivery, _ in origins.values())
