"""Serving over real sockets: the app starts, takes what is in flight to its end, and leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

import httpx
import pytest

from relay.serving import ASGIApp, Receive, Scope, Send, Served, StartError, hang_up, listen_each, serve, serving

pytestmark = pytest.mark.anyio


def app_that(
    answer: Callable[[Scope, Receive, Send], object], lived: list[str] | None = None, *, starts: bool = True
) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await answer(scope, receive, send)  # type: ignore[misc]
            return
        while True:
            phase = (await receive())["type"]
            if lived is not None:
                lived.append(phase)
            await send({"type": f"{phase}.complete" if starts else f"{phase}.failed"})
            if phase == "lifespan.shutdown" or not starts:
                return

    return app


async def says_ok(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_it_listens_on_a_free_port_and_says_which() -> None:
    lived: list[str] = []
    async with serving(app_that(says_ok, lived)) as served, httpx.AsyncClient() as client:
        answer = await client.get(served.url)

        assert f"http://127.0.0.1:{served.port}" == served.url
        assert "ok" == answer.text
        assert "date" in answer.headers
    assert ["lifespan.startup", "lifespan.shutdown"] == lived
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(served.host, served.port)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_url_of_an_ipv6_address_has_brackets() -> None:
    assert "http://[::1]:8000" == Served("::1", 8000).url


async def test_an_answer_is_not_held_back() -> None:
    """Head and body are two packets: with Nagle's delay the second one of them waits 40 ms for the caller."""
    async with serving(app_that(says_ok)) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        started = asyncio.get_running_loop().time()
        for _ in range(50):
            writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
            await reader.readuntil(b"ok")
        took_s = asyncio.get_running_loop().time() - started
        writer.close()

    assert took_s < 50 * 0.040 / 2


async def test_what_is_in_flight_finishes_before_it_stops() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        await go_on.wait()
        await says_ok(scope, receive, send)

    async with httpx.AsyncClient() as client:
        async with serving(app_that(waits)) as served:
            call = asyncio.create_task(client.get(served.url))
            await arrived.wait()
            asyncio.get_running_loop().call_soon(go_on.set)

        assert "ok" == (await call).text


async def test_a_taken_port_is_told() -> None:
    async with serving(app_that(says_ok)) as served:
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{served.port}: Address already in use"):
            async with serving(app_that(says_ok), port=served.port):
                pass


async def test_a_port_is_taken_before_its_app_has_started() -> None:
    """Or two processes that start at the same time would both believe that they have it."""
    may_start = asyncio.Event()
    told: list[str] = []

    async def starts_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await may_start.wait()
        await app_that(says_ok)(scope, receive, send)

    async def second(port: int) -> None:
        try:
            async with serving(app_that(says_ok), port=port):
                pass
        except StartError as error:
            told.append(str(error))
        may_start.set()

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    first = serving(starts_slowly, port=port)
    calling = asyncio.create_task(second(port))
    async with first, httpx.AsyncClient() as client:
        assert "ok" == (await client.get(f"http://127.0.0.1:{port}")).text
    await calling
    assert [f"cannot listen on 127.0.0.1:{port}: Address already in use"] == told


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are one socket")
async def test_connections_are_spread_over_the_sockets_of_several_processes() -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in listen_each(3, host="127.0.0.1", port=0)]
        address = listeners[0].getsockname()
        for _ in range(120):
            stack.enter_context(socket.create_connection(address))
        taken = [0, 0, 0]
        for place, listener in enumerate(listeners):
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    taken[place] += 1

    assert 120 == sum(taken)
    assert min(taken) > 10


async def test_a_port_of_several_processes_is_taken_for_everybody_else() -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in listen_each(2, host="127.0.0.1", port=0)]
        port = listeners[0].getsockname()[1]

        for number in (1, 2):
            with pytest.raises(StartError, match="Address already in use"):
                listen_each(number, host="127.0.0.1", port=port)


async def test_an_app_that_does_not_start_is_told() -> None:
    with pytest.raises(StartError, match="did not start"):
        async with serving(app_that(says_ok, starts=False)):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_gracefully(number: int) -> None:
    lived: list[str] = []

    await serve(app_that(says_ok, lived), host="127.0.0.1", port=0, started=lambda _: os.kill(os.getpid(), number))

    assert ["lifespan.startup", "lifespan.shutdown"] == lived


async def test_a_second_signal_does_not_wait_for_what_is_in_flight() -> None:
    arrived = asyncio.Event()

    async def hangs(_scope: Scope, _receive: Receive, _send: Send) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async def call_and_interrupt(served: Served) -> None:
        _, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        await arrived.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        writer.close()

    calls = []
    async with asyncio.timeout(5):
        await serve(
            app_that(hangs), host="127.0.0.1", port=0, grace_s=60,
            started=lambda served: calls.append(asyncio.create_task(call_and_interrupt(served))),
        )  # fmt: skip
    await calls[0]


async def test_what_takes_too_long_is_cut_off() -> None:
    arrived = asyncio.Event()
    cut: list[str] = []

    async def hangs(_scope: Scope, _receive: Receive, _send: Send) -> None:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.append("off")

    async with httpx.AsyncClient() as client:
        async with serving(app_that(hangs), grace_s=0) as served:
            call = asyncio.create_task(client.get(served.url))
            await arrived.wait()

        assert 500 == (await call).status_code
    assert ["off"] == cut


async def test_an_app_can_hang_up_without_an_answer() -> None:
    async def hangs_up(scope: Scope, receive: Receive, _send: Send) -> None:
        await hang_up(scope, receive)

    async with serving(app_that(hangs_up)) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")

        assert b"" == await reader.read()
        writer.close()
