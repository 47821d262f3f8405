"""Fetching the certificates that providers sign with: once, from pinned places, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from relay.certificates import Certificates, Known, Outcome, Unavailable
from relay.contract import Accepted, NeedsCertificate
from tests.subjects import SUBJECTS
from tests.things import Clock

pytestmark = pytest.mark.anyio

PAYPAL = SUBJECTS["paypal"]
((URL, PEM),) = PAYPAL.specimen().certificates.items()


def numbered(number: int) -> str:
    return f"https://api.paypal.com/v1/notifications/certs/CERT-{number}"


class Host(httpx.AsyncBaseTransport):
    """Stands in for the providers' hosts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_asked = asyncio.Event()
        self.answer: Callable[[], Awaitable[httpx.Response]] = self.certificate

    async def certificate(self) -> httpx.Response:
        return httpx.Response(200, content=PEM)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        self.is_asked.set()
        return await self.answer()

    def answers(self, response: httpx.Response) -> None:
        async def answer() -> httpx.Response:
            return response

        self.answer = answer


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def certificates(host: Host, clock: Clock) -> AsyncIterator[Certificates]:
    opened = Certificates(clock=clock, transport=host, patience_s=0.2)
    yield opened
    await opened.close()


def why(outcome: Outcome) -> str:
    assert isinstance(outcome, Unavailable)
    return outcome.why


async def test_a_delivery_waits_for_its_certificate_and_fits(certificates: Certificates, host: Host) -> None:
    sent = replace(PAYPAL.signed(), certificates=certificates.known)

    assert NeedsCertificate(URL) == PAYPAL.verify(sent)
    assert Known() == await certificates.obtain(URL)
    assert Accepted(0) == PAYPAL.verify(sent)
    assert [URL] == host.asked


async def test_many_deliveries_at_once_cost_one_call(certificates: Certificates, host: Host) -> None:
    outcomes = await asyncio.gather(*(certificates.obtain(URL) for _ in range(20)))

    assert ([Known()] * 20, [URL]) == (outcomes, host.asked)
    assert Known() == await certificates.obtain(URL)
    assert [URL] == host.asked


async def test_a_delivery_that_goes_away_does_not_take_the_certificate_from_the_others(
    certificates: Certificates, host: Host
) -> None:
    may_answer = asyncio.Event()

    async def answer() -> httpx.Response:
        await may_answer.wait()
        return httpx.Response(200, content=PEM)

    host.answer = answer
    first, second = (asyncio.create_task(certificates.obtain(URL)) for _ in range(2))
    await host.is_asked.wait()
    first.cancel()
    may_answer.set()

    assert Known() == await second


@pytest.mark.parametrize("url", ["https://evil.example/cert.pem", "http://169.254.169.254/latest", "", "file:///x"])
async def test_nothing_is_fetched_from_elsewhere(certificates: Certificates, host: Host, url: str) -> None:
    assert "not at one of the providers' own places" in why(await certificates.obtain(url))
    assert [] == host.asked


async def test_a_redirect_is_not_followed(certificates: Certificates, host: Host) -> None:
    host.answers(httpx.Response(302, headers={"location": "https://evil.example/cert.pem"}))

    assert "the answer was 302" in why(await certificates.obtain(URL))
    assert ([URL], {}) == (host.asked, dict(certificates.known))


@pytest.mark.parametrize(
    "response, words",
    [
        (httpx.Response(404, content=b"none"), "the answer was 404"),
        (httpx.Response(200, content=b"odd"), "ValueError"),
        (httpx.Response(200, content=PEM + b" " * 40_000), "larger than"),
    ],
)
async def test_an_answer_that_is_no_certificate_is_not_kept(
    certificates: Certificates, host: Host, response: httpx.Response, words: str
) -> None:
    host.answers(response)

    assert words in why(await certificates.obtain(URL))
    assert {} == dict(certificates.known)


async def test_a_host_that_does_not_answer_is_not_waited_for(certificates: Certificates, host: Host) -> None:
    async def never() -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    host.answer = never

    assert "TimeoutError" in why(await certificates.obtain(URL))


async def test_what_failed_is_asked_for_again_only_after_a_pause(
    certificates: Certificates, host: Host, clock: Clock
) -> None:
    host.answers(httpx.Response(503))
    first = await certificates.obtain(URL)
    host.answer = host.certificate

    assert first == await certificates.obtain(URL)
    assert [URL] == host.asked
    clock.advance(seconds=30)
    assert Known() == await certificates.obtain(URL)


async def test_strangers_cannot_make_us_call_without_end(certificates: Certificates, host: Host, clock: Clock) -> None:
    for number in range(50):
        await certificates.obtain(numbered(number))

    assert 10 == len(host.asked)
    assert "too many" in why(await certificates.obtain(numbered(99)))
    clock.advance(seconds=30)
    assert Known() == await certificates.obtain(numbered(99))


async def test_only_the_latest_are_kept_and_those_that_were_given(host: Host, clock: Clock) -> None:
    certificates = Certificates(clock=clock, transport=host, given={URL: PEM})
    for number in range(50):
        clock.advance(seconds=30)
        assert Known() == await certificates.obtain(numbered(number))

    assert [URL, *map(numbered, range(18, 50))] == list(certificates.known)
    assert Known() == await certificates.obtain(URL)
    assert URL not in host.asked
    await certificates.close()


async def test_failures_are_forgotten_before_they_become_many(
    certificates: Certificates, host: Host, clock: Clock
) -> None:
    host.answers(httpx.Response(404))
    for number in range(50):
        clock.advance(seconds=30)
        await certificates.obtain(numbered(number))

    assert 32 == len(certificates._failed)


def test_a_given_certificate_that_is_none_stops_the_start(clock: Clock) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in the library's words
        Certificates(clock=clock, given={URL: b"odd"})


async def test_closing_ends_calls_under_way(host: Host, clock: Clock) -> None:
    async def never() -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    host.answer = never
    certificates = Certificates(clock=clock, transport=host)
    waiting = asyncio.create_task(certificates.obtain(URL))
    await host.is_asked.wait()
    await certificates.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
