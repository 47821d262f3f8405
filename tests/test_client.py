"""The client for backends: what it gathers, how it retries, and that a relay counts each event once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from relay.client import AsyncClient, Client, NotSentError
from relay.event import Event, check
from tests.conftest import API_KEY, EventsApi, RunRelay
from tests.test_ingesting import KEY, received
from tests.things import NOON

pytestmark = pytest.mark.anyio

Answer = int | Exception | httpx.Response


class Api:
    """An events API that gives these answers, one after the other, and then 202."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[httpx.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, json={"queued": True}) if isinstance(answer, int) else answer

    def client(self, **rest: Any) -> Client:
        given = {"project": "42", "key": "oa_1", **rest}
        return Client("https://api.example/", transport=httpx.MockTransport(self), pause=self.pauses.append, **given)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for call in self.calls for event in orjson.loads(call.content)["events"]]

    @property
    def keys(self) -> list[str]:
        return [call.headers["idempotency-key"] for call in self.calls]


def test_what_is_gathered_leaves_at_the_end_of_the_block() -> None:
    api = Api()
    with api.client() as client:
        client.track("signup", user_id="u", url="https://shop.example/", properties={"plan": "pro"}, timestamp_ms=1)
        client.conversion("purchase", revenue="19.99", currency="EUR", properties={"event_id": "e1"})
        client.identify("u")
        assert [] == api.calls

    (call,) = api.calls
    assert ("https://api.example/v1/projects/42/events/batch", "Bearer oa_1") == (
        str(call.url),
        call.headers["authorization"],
    )
    assert ["event", "conversion", "identify"] == [event["event_type"] for event in api.events]
    assert [True, True] == [isinstance(check(event), Event) for event in api.events[1:]]
    assert (1, "pro") == (api.events[0]["timestamp"], api.events[0]["properties"]["plan"])
    assert "e1" == api.events[1]["properties"]["event_id"]
    assert 3 == len({event["properties"]["event_id"] for event in api.events})


def test_a_full_batch_leaves_at_once() -> None:
    api = Api()
    client = api.client(batch_size=2)
    for name in ("one", "two", "three"):
        client.track(name)

    assert (["one", "two"], 1) == ([event["event_name"] for event in api.events], len(client.pending))
    client.flush()
    assert (3, 2) == (len(api.events), len(set(api.keys)))


@pytest.mark.parametrize(
    ("revenue", "expected"),
    [
        ("19.99", b'"revenue":19.99'),
        (Decimal("0.10"), b'"revenue":0.1'),
        (5, b'"revenue":5.0'),
        ("12345678901234567.89", b'"revenue":"12345678901234567.89"'),
    ],
)
def test_revenue_keeps_its_digits(revenue: Decimal | str | int, expected: bytes) -> None:
    api = Api()
    with api.client() as client:
        client.conversion("purchase", revenue=revenue, currency="EUR")

    assert expected in api.calls[0].content


@pytest.mark.parametrize("answer", [500, 503, 429, 408, httpx.ReadTimeout("slow"), httpx.ConnectError("away")])
def test_a_batch_is_tried_again_under_the_same_key(answer: Answer) -> None:
    api = Api(answer, answer)
    with api.client() as client:
        client.track("signup")

    assert (3, 1, 2) == (len(api.calls), len(set(api.keys)), len(api.pauses))
    assert 1 == len({call.content for call in api.calls})


def test_retry_after_is_obeyed() -> None:
    api = Api(httpx.Response(429, headers={"Retry-After": "7"}))
    with api.client() as client:
        client.track("signup")

    assert [7.0] == api.pauses


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422])
def test_a_refusal_is_told_with_its_events_and_not_tried_again(status: int) -> None:
    api = Api(httpx.Response(status, json={"error": "no"}))
    client = api.client(batch_size=1)
    with pytest.raises(NotSentError, match="no") as told:
        client.track("signup")

    answer = told.value.answer
    assert answer is not None
    assert (status, "signup", 1) == (answer.status_code, told.value.events[0]["event_name"], len(api.calls))


def test_it_gives_up_after_so_many_tries() -> None:
    api = Api(*[503] * 10)
    client = api.client(tries=3)
    client.track("signup")
    with pytest.raises(NotSentError):
        client.flush()

    assert 3 == len(api.calls)


def test_what_was_sent_and_not_answered_may_be_left_alone() -> None:
    """The real events API would count it twice."""
    api = Api(httpx.ConnectError("away"), httpx.ReadTimeout("slow"))
    client = api.client(repeat_unanswered=False)
    client.track("signup")
    with pytest.raises(NotSentError, match="ReadTimeout"):
        client.flush()

    assert 2 == len(api.calls)


async def test_the_other_client_does_the_same_when_awaited() -> None:
    api = Api(503, httpx.ReadTimeout("slow"))

    async def pause(seconds: float) -> None:
        api.pauses.append(seconds)

    transport = httpx.MockTransport(api)
    async with AsyncClient("https://api.example", project="42", key="oa_1", transport=transport, pause=pause) as client:
        await client.track("signup")
        await client.conversion("purchase", revenue=5, currency="EUR")
        await client.identify("u")

    assert (3, 1, 2) == (len(api.calls), len(set(api.keys)), len(api.pauses))
    assert ["event", "conversion", "identify"] == [event["event_type"] for event in api.events[:3]]


async def test_a_relay_counts_each_event_once(run_relay: RunRelay, events_api: EventsApi) -> None:
    """The first answer is lost on its way."""
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        inner = httpx.AsyncHTTPTransport()
        async with AsyncClient(
            relay.url, project="42", key=KEY, transport=_LosingTransport(inner), pause=_no_pause
        ) as client:
            for order in range(3):
                await client.conversion("purchase", revenue="1.50", currency="EUR", properties={"order": order},
                                        timestamp_ms=NOON)  # fmt: skip
        found = await received(events_api, 3)

    assert [0, 1, 2] == [event["properties"]["order"] for event in found]


async def test_it_works_against_the_events_api_itself(events_api: EventsApi) -> None:
    async with AsyncClient(events_api.url, project="42", key=API_KEY) as client:
        await client.conversion("purchase", revenue="1.50", currency="EUR")

    assert [1.5] == [event["revenue"] for event in await events_api.received()]


def test_it_is_read_in_one_sitting() -> None:
    text = (Path(__file__).parents[1] / "relay" / "client.py").read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 150


async def _no_pause(_seconds: float) -> None:
    return


class _LosingTransport(httpx.AsyncBaseTransport):
    """Loses the first answer."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._has_lost = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        if self._has_lost:
            return answer
        self._has_lost = True
        await answer.aread()
        await answer.aclose()
        words = "the answer was lost"
        raise httpx.ReadError(words)

    async def aclose(self) -> None:
        await self._inner.aclose()
