"""The short way of plain requests: the same to a caller as the way of ASGI, which all others go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from relay.connection import Handler, Headers, Reply, reply
from relay.serving import Receive, Scope, Send, Served, serving

pytestmark = pytest.mark.anyio

LARGEST = 65_536


@dataclass
class App:
    """Answers with the way that a request came, its path or size, and its body."""

    plain: list[Headers] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def short_way(self, target: bytes, _size: int) -> Handler | None:
        return {b"/plain": self.answers, b"/waits": self.waits, b"/raises": self.raises}.get(target)

    async def answers(self, headers: Headers, body: bytes) -> Reply:
        self.plain.append(headers)
        return said(b"plain " + body)

    async def waits(self, _headers: Headers, body: bytes) -> Reply:
        self.arrived.set()
        await self.go_on.wait()
        return said(b"waited " + body)

    async def raises(self, _headers: Headers, _body: bytes) -> Reply:
        raise ZeroDivisionError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        body = b""
        while (part := await receive())["type"] == "http.request":
            body += part["body"]
            if not part["more_body"]:
                break
        text = b"asgi " + body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})


def said(text: bytes) -> Reply:
    return reply(200, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))], text)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def served(app: App) -> AsyncIterator[Served]:
    async with serving(app) as found:
        yield found


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url) as client:
        yield client


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(served.host, served.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


def post(body: bytes, *, path: str = "/plain", more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: relay\r\nContent-Length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


async def test_a_plain_post_does_not_go_through_asgi(http: httpx.AsyncClient, app: App) -> None:
    answer = await http.post("/plain", content=b"1", headers={"X-Signature": "Abc", "x-twice": "2"})

    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "plain 1", "text/plain")
    assert "date" in answer.headers
    assert {(b"x-signature", b"Abc"), (b"x-twice", b"2")} < set(app.plain[0])


async def test_a_connection_is_kept_for_the_next_request(served: Served) -> None:
    async with connected(served) as (reader, writer):
        for number in range(3):
            writer.write(post(b"%d" % number))
            assert b"connection: close" not in await reader.readuntil(b"plain %d" % number)


async def test_a_body_may_come_in_pieces(served: Served, app: App) -> None:
    async with connected(served) as (reader, writer):
        request = post(b"abcdef")
        for start in range(0, len(request), 7):
            writer.write(request[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0)

        await reader.readuntil(b"plain abcdef")
    assert len(app.plain) == 1


async def test_an_empty_body_is_one_too(http: httpx.AsyncClient) -> None:
    assert (await http.post("/plain", headers={"content-length": "0"})).text == "plain "


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        (b"GET /plain HTTP/1.1\r\nHost: relay\r\n\r\n", b"asgi "),
        (post(b"1", path="/elsewhere"), b"asgi 1"),
        (post(b"1", path="/plain?a=b"), b"asgi 1"),
        (post(b"1", more=b"Connection: close\r\n"), b"asgi 1"),
        (post(b"1").replace(b"HTTP/1.1", b"HTTP/1.0"), b"asgi 1"),
        (
            post(b"1")
            .replace(b"Content-Length: 1", b"Transfer-Encoding: chunked")
            .replace(b"\r\n\r\n1", b"\r\n\r\n1\r\n1\r\n0\r\n\r\n"),
            b"asgi 1",
        ),
        (post(b"x" * (LARGEST + 1)), b"asgi x"),
    ],
    ids=["another method", "another path", "a query", "the last of its connection", "HTTP/1.0", "chunks", "large"],
)
async def test_what_is_not_plain_goes_through_asgi(
    served: Served, app: App, request_text: bytes, answer: bytes
) -> None:
    async with connected(served) as (reader, writer):
        writer.write(request_text)

        assert answer in await reader.readuntil(answer)
    assert app.plain == []


async def test_who_expects_to_be_told_to_go_on_is_told(served: Served) -> None:
    async with connected(served) as (reader, writer):
        writer.write(post(b"1", more=b"Expect: 100-continue\r\n")[:-1])
        await reader.readuntil(b"100 Continue\r\n\r\n")
        writer.write(b"1")

        await reader.readuntil(b"asgi 1")


async def test_requests_that_come_at_once_are_answered_in_their_order(served: Served, app: App) -> None:
    async with connected(served) as (reader, writer):
        writer.write(post(b"1", path="/waits") + post(b"2") + post(b"3", path="/asgi") + post(b"4"))
        await app.arrived.wait()
        app.go_on.set()

        answers = await reader.readuntil(b" 4")
    assert [text.split()[1] for text in answers.split(b"\r\n\r\n")[1:]] == [
        b"1HTTP/1.1",
        b"2HTTP/1.1",
        b"3HTTP/1.1",
        b"4",
    ]


async def test_what_is_no_http_is_refused(served: Served) -> None:
    async with connected(served) as (reader, writer):
        writer.write(post(b"1") + b"no request\r\n\r\n")

        assert b"400 Bad Request" in await reader.read()


async def test_what_is_in_flight_is_answered_before_it_stops(app: App) -> None:
    async with serving(app) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(post(b"1", path="/waits"))
        await app.arrived.wait()
        asyncio.get_running_loop().call_soon(app.go_on.set)

    answer = await reader.read()
    writer.close()
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"waited 1")


async def test_what_takes_too_long_is_cut_off_with_an_answer(app: App) -> None:
    async with serving(app, grace_s=0) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(post(b"1", path="/waits"))
        await app.arrived.wait()

    assert (await reader.read()).startswith(b"HTTP/1.1 500 ")
    writer.close()


async def test_whoever_goes_before_the_answer_hinders_nobody(served: Served, http: httpx.AsyncClient, app: App) -> None:
    async with connected(served) as (_, writer):
        writer.write(post(b"1", path="/waits"))
        await app.arrived.wait()
    app.go_on.set()

    assert (await http.post("/plain", content=b"2")).text == "plain 2"


async def test_an_app_that_raises_is_an_error_of_the_server(served: Served) -> None:
    async with connected(served) as (reader, writer):
        writer.write(post(b"1", path="/raises"))

        assert (await reader.read()).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


async def test_an_idle_connection_is_closed(app: App) -> None:
    async with serving(app, keep_alive_s=0) as served, connected(served) as (reader, writer):
        writer.write(post(b"1"))

        assert (await reader.read()).endswith(b"plain 1")
