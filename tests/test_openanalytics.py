"""The client of the events API, against servers on real sockets that behave and misbehave."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from relay.openanalytics import (
    RETRY_AFTER_CAP_MS,
    Check,
    Closed,
    Finding,
    InDoubt,
    Later,
    OpenAnalytics,
    Outcome,
    Rejected,
    Sent,
    TooLarge,
    retry_after_ms,
)
from relay.sandbox import create_app
from relay.serving import serving

pytestmark = pytest.mark.anyio

KEY = "oa_live_7hsPq2"
NOW_MS = 1_760_000_000_000
EVENT = b'{"event_type":"conversion","event_name":"purchase","revenue":19.90,"currency":"EUR"}'

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client(url: str, *, timeout_s: float = 5, **given: Any) -> OpenAnalytics:
    return OpenAnalytics(url, "42", KEY, timeout_s=timeout_s, clock=lambda: NOW_MS, **given)


async def outcome_at(url: str, *, timeout_s: float = 5, events: int = 1) -> Outcome:
    async with client(url, timeout_s=timeout_s) as api:
        return await api.send([EVENT] * events, key="k1")


@contextlib.asynccontextmanager
async def server(handle: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that does with each connection what `handle` says; connections are cut at the end."""
    running: set[asyncio.Task[None]] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handled(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def one_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.split(b":")[1]))


def an_answer(status: int, body: bytes = b'{"error": "no"}', *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(raw: bytes, seen: list[tuple[bytes, bytes]] | None = None) -> Handler:
    """Says the same to each request; keeps the connection as long as the caller does."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await one_request(reader)
            if seen is not None:
                seen.append(request)
            writer.write(raw)
            await writer.drain()

    return handle


async def says_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await one_request(reader)
    await asyncio.Event().wait()


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_batch_goes_out_as_it_was_serialised_under_its_key() -> None:
    seen: list[tuple[bytes, bytes]] = []
    async with server(answers(an_answer(202), seen)) as url:
        assert Sent(202, expected=True) == await outcome_at(url, events=2)

    head, body = seen[0]
    lines = head.decode().lower().split("\r\n")
    assert b'{"events":[' + EVENT + b"," + EVENT + b"]}" == body
    assert "post /v1/projects/42/events/batch http/1.1" == lines[0]
    assert {f"authorization: bearer {KEY.lower()}", "content-type: application/json", "idempotency-key: k1"} <= {*lines}


async def test_a_batch_may_be_a_bare_array() -> None:
    seen: list[tuple[bytes, bytes]] = []
    async with server(answers(an_answer(202), seen)) as url, client(url, batch_body="array") as api:
        await api.send([EVENT, EVENT], key="k1")

    assert b"[" + EVENT + b"," + EVENT + b"]" == seen[0][1]


async def test_a_single_event_goes_to_its_own_endpoint() -> None:
    seen: list[tuple[bytes, bytes]] = []
    async with server(answers(an_answer(202), seen)) as url, client(url + "/") as api:
        assert Sent(202, expected=True) == await api.send([EVENT], key="k1", single=True)
        with pytest.raises(ValueError, match="too many values"):
            await api.send([EVENT, EVENT], key="k1", single=True)

    assert seen[0][0].startswith(b"POST /v1/projects/42/events HTTP/1.1\r\n")
    assert EVENT == seen[0][1]


async def test_the_project_is_one_segment_of_the_path() -> None:
    seen: list[tuple[bytes, bytes]] = []
    async with (
        server(answers(an_answer(202), seen)) as url,
        OpenAnalytics(f"{url}/proxy", "a/b?c", KEY, timeout_s=5) as api,
    ):
        await api.send([EVENT], key="k1")

    assert seen[0][0].startswith(b"POST /proxy/v1/projects/a%2Fb%3Fc/events/batch HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["", "api.example.com", "ftp://api.example.com", "http://", "/v1"])
def test_a_base_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is not an http"):
        client(url)


@pytest.mark.parametrize("key", ["", " oa_live_x", "oa_live_x\n", "oa_live_ü", "oa\x00live"])
def test_a_key_that_http_cannot_carry_is_refused_at_once_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="the API key is empty") as refusal:
        OpenAnalytics("http://127.0.0.1", "42", key, timeout_s=5)
    assert "oa" not in str(refusal.value)


# --- what is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Sent(200, expected=False)),
        (202, Sent(202, expected=True)),
        (204, Sent(204, expected=False)),
        (307, Closed(307, "redirect to nowhere, check the base URL")),
        *[(status, Rejected(status, "no")) for status in (400, 406, 411, 422, 431)],
        *[(status, Closed(status, "no")) for status in (401, 402, 403, 404, 405, 407, 410, 415)],
        (413, TooLarge(413)),
        *[(status, Later(status, "no")) for status in (408, 409, 425, 429, 500, 502, 503, 504, 599)],
    ],
)
async def test_each_status_has_one_meaning(status: int, outcome: Outcome) -> None:
    async with server(answers(an_answer(status) if status != 204 else an_answer(204, b""))) as url:
        assert outcome == await outcome_at(url)


async def test_an_id_that_a_relay_has_with_another_content_is_about_the_events() -> None:
    """Any other conflict may be over when it is asked again; this one stays."""
    body = b'{"error": "event_id came before", "code": "event_id_reused"}'
    async with server(answers(an_answer(409, body))) as url:
        assert Rejected(409, "event_id came before") == await outcome_at(url)


async def test_a_redirect_is_told_and_not_followed() -> None:
    seen: list[tuple[bytes, bytes]] = []
    async with server(answers(an_answer(301, b"", "Location: https://www.example.com/"), seen)) as url:
        outcome = await outcome_at(url)

    assert Closed(301, "redirect to https://www.example.com/, check the base URL") == outcome
    assert 1 == len(seen)


@pytest.mark.parametrize(
    ("header", "asked_ms"),
    [
        ("Retry-After: 5", 5_000),
        (f"Retry-After: {format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 90, UTC), usegmt=True)}", 90_000),
        ("Retry-After: soon", None),
        ("X-Other: 1", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_passed_on(status: int, header: str, asked_ms: int | None) -> None:
    async with server(answers(an_answer(status, b'{"error": "slow down"}', header))) as url:
        assert Later(status, "slow down", asked_ms) == await outcome_at(url)


@pytest.mark.parametrize(
    ("value", "asked_ms"),
    [
        ("0", 0),
        (" 007 ", 7_000),
        ("86400", RETRY_AFTER_CAP_MS),
        ("9" * 10_000, RETRY_AFTER_CAP_MS),
        ("Thu, 09 Oct 2025 08:53:20 GMT", 0),
        ("Thu, 09 Oct 2025 08:53:20 -0000", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_CAP_MS),
        ("Fri, 31 Dec 9999 23:59:59 -2359", RETRY_AFTER_CAP_MS),
        ("", None),
        (None, None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
    ],
)
def test_a_retry_after_is_never_negative_nor_endless(value: str | None, asked_ms: int | None) -> None:
    assert asked_ms == retry_after_ms(value, now_ms=NOW_MS)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} -?\d+ \d+:\d+:\d+ ([+-]\d+|GMT)"))
def test_no_retry_after_can_break_it(value: str) -> None:
    asked_ms = retry_after_ms(value, now_ms=NOW_MS)

    assert asked_ms is None or 0 <= asked_ms <= RETRY_AFTER_CAP_MS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "currency is\\n  unknown"}', "currency is unknown"),
        (b'{"error": {"code": 7}}', '{"error": {"code": 7}}'),
        (b"<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>"),
        (b"\xff\x00\x1b[31m", "\ufffd\ufffd\ufffd[31m"),
        (b"", "without a word"),
        (b'{"error": ""}', "without a word"),
        (b"x" * 100_000, "x" * 500),
        (orjson.dumps({"error": f"the key {KEY} is revoked"}), "the key [key] is revoked"),
        (b"y" * 495 + KEY.encode(), "y" * 495 + "[key]"),
    ],
)
async def test_the_apis_words_are_one_short_line_without_the_key(body: bytes, words: str) -> None:
    async with server(answers(an_answer(400, body))) as url:
        assert Rejected(400, words) == await outcome_at(url)


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\nz"]
)
async def test_a_status_is_an_answer_even_when_its_body_breaks_off(raw: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        writer.write(raw)
        await writer.drain()

    async with server(handle) as url:
        assert Sent(202, expected=True) == await outcome_at(url)


async def test_a_status_is_an_answer_even_when_its_body_never_ends() -> None:
    async with server(answers(b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{")) as url:
        assert Later(503, "without a word", 7_000) == await outcome_at(url, timeout_s=0.6)


async def test_an_early_answer_is_heard_while_the_body_is_still_being_sent() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(an_answer(413, b"", "Connection: close"))
        await writer.drain()
        await reader.read()

    async with server(handle) as url:
        assert TooLarge(413) == await outcome_at(url, events=20_000)


# --- what is not answered: nothing was sent ---------------------------------------------------------------------------


def later_words(outcome: Outcome) -> str:
    assert isinstance(outcome, Later), outcome
    assert (None, None) == (outcome.status, outcome.retry_after_ms)
    return outcome.words


async def test_a_refused_connection_is_tried_again_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening

        words = later_words(await outcome_at(f"http://127.0.0.1:{unused.getsockname()[1]}"))

    assert words.startswith("no connection: [Errno ")


async def test_no_connection_in_time_is_tried_again_later() -> None:
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # its queue takes one or two, and drops who comes after
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())

        words = later_words(await outcome_at(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_s=0.3))

    assert "no connection: timed out" == words


async def test_a_server_without_tls_is_tried_again_later() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(an_answer(400))
        await writer.drain()

    async with server(handle) as url:
        assert "SSL" in later_words(await outcome_at(url.replace("http:", "https:")))


async def test_a_tls_handshake_that_is_cut_or_never_ends_is_tried_again_later() -> None:
    async def cuts(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def hangs(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    for handle in (cuts, hangs):
        async with server(handle) as url:
            later_words(await outcome_at(url.replace("http:", "https:"), timeout_s=0.3))


async def test_a_certificate_that_nobody_vouches_for_is_told(tmp_path: Path) -> None:
    async with server(answers(an_answer(202)), tls=self_signed(tmp_path)) as url:
        assert "certificate verify failed" in later_words(await outcome_at(url))


async def test_calls_beyond_the_few_connections_wait_and_then_are_tried_again_later() -> None:
    async with server(says_nothing) as url, client(url, timeout_s=0.9) as api:
        outcomes = await asyncio.gather(*(api.send([EVENT], key=f"k{n}") for n in range(5)))

    assert [InDoubt] * 4 + [Later] == sorted(map(type, outcomes), key=lambda kind: kind.__name__)


async def test_a_proxy_that_refuses_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with server(handle) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)

        assert "no connection: 403 Forbidden" == later_words(await outcome_at("https://api.example.com"))


async def test_an_api_on_this_machine_is_not_sought_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with server(answers(an_answer(202))) as url:
        assert Sent(202, expected=True) == await outcome_at(url)


# --- what is not answered: it was sent --------------------------------------------------------------------------------


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await one_request(reader)
    writer.close()
    await writer.wait_closed()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    linger = writer.get_extra_info("socket")
    linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


async def does_not_read(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


def after_the_request(raw: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        writer.write(raw)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handle


@pytest.mark.parametrize(
    ("handle", "timeout_s"),
    [
        pytest.param(closes, 5, id="closed"),
        pytest.param(resets, 5, id="reset"),
        pytest.param(says_nothing, 0.9, id="silent"),
        pytest.param(does_not_read, 0.9, id="does-not-read"),
        pytest.param(after_the_request(b"HTTP/1.1 2"), 5, id="half-a-status-line"),
        pytest.param(after_the_request(b"HTTP/1.1 202 OK\r\nContent-"), 5, id="half-a-head"),
        pytest.param(after_the_request(b"SSH-2.0-OpenSSH_9\r\n\r\n"), 5, id="another-protocol"),
        pytest.param(after_the_request(b"HTTP/1.1 100 Continue\r\n\r\n"), 5, id="only-continue"),
    ],
)
async def test_sent_and_not_answered_is_in_doubt(handle: Handler, timeout_s: float) -> None:
    async with server(handle) as url:
        outcome = await outcome_at(url, timeout_s=timeout_s, events=50_000)

    assert isinstance(outcome, InDoubt), outcome
    assert outcome.words.startswith("no answer: ")


async def test_an_answer_that_trickles_in_for_ever_is_in_doubt_in_time() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        writer.write(b"HTTP/1.1 202 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with server(handle) as url, asyncio.timeout(5):
        assert isinstance(await outcome_at(url, timeout_s=0.9), InDoubt)


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again_and_a_dead_one_is_not_taken_for_doubt() -> None:
    connections, may_close, closed = [], asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for _ in range(2):
            await one_request(reader)
            writer.write(an_answer(202))
            await writer.drain()
        await may_close.wait()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with server(handle) as url, client(url) as api:
        assert [Sent(202, expected=True)] * 2 == [await api.send([EVENT], key="k1") for _ in range(2)]
        assert 1 == len(connections)
        may_close.set()
        await closed.wait()
        assert Sent(202, expected=True) == await api.send([EVENT], key="k2")
        assert 2 == len(connections)


# --- the check --------------------------------------------------------------------------------------------------------


async def check_at(url: str, *, key: str = KEY, project_id: str = "42") -> Check:
    async with OpenAnalytics(url, project_id, key, timeout_s=0.9) as api:
        return await api.check()


async def test_a_check_tells_a_good_key_from_a_wrong_one_and_adds_no_event() -> None:
    async with serving(create_app(api_key=KEY, project_id="42")) as served, httpx.AsyncClient() as http:
        assert Finding.READY == (await check_at(served.url)).finding
        refused = Check(Finding.KEY_REFUSED, "401: Invalid or missing API key")
        assert refused == await check_at(served.url, key="oa_live_other")
        assert Check(Finding.NOT_FOUND, "404: Project not found") == await check_at(served.url, project_id="43")
        assert [] == (await http.get(f"{served.url}/received")).json()


@pytest.mark.parametrize(
    ("raw", "finding"),
    [
        (an_answer(202), Finding.READY),
        (an_answer(400), Finding.READY),
        (an_answer(403), Finding.KEY_REFUSED),
        (an_answer(405), Finding.NOT_FOUND),
        (an_answer(301), Finding.UNWELL),
        (an_answer(413), Finding.UNWELL),
        (an_answer(503), Finding.UNWELL),
        (b"220 smtp.example.com\r\n", Finding.UNREACHABLE),
    ],
)
async def test_a_check_has_a_finding_for_every_answer(raw: bytes, finding: Finding) -> None:
    async with server(answers(raw)) as url:
        assert finding == (await check_at(url)).finding


async def test_a_check_says_that_nothing_is_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        found = await check_at(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert Finding.UNREACHABLE == found.finding
    assert found.words.startswith("no connection: ")


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
