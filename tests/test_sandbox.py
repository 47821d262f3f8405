"""The sandbox over real sockets: the documented contract, and every way to misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from relay.sandbox import create_app
from relay.serving import serving

pytestmark = pytest.mark.anyio

KEY = "oa_live_sandbox"
BATCH = "/v1/projects/42/events/batch"
SINGLE = "/v1/projects/42/events"
JSON = {"Content-Type": "application/json"}
AT_MS = 1_760_000_000_000


def an_event(order: object = 1, **fields: Any) -> dict[str, Any]:
    return {
        "event_type": "conversion",
        "event_name": "purchase",
        "user_id": "ab" * 32,
        "properties": {"order_id": f"cs_{order}", "livemode": True},
        "revenue": 19.99,
        "currency": "EUR",
        "timestamp": AT_MS,
        **fields,
    }


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(api_key=KEY, project_id="42", max_bytes=1_000_000, clock=lambda: AT_MS)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with serving(app, grace_s=1) as served, httpx.AsyncClient(base_url=served.url, headers=headers) as client:
        yield client


@pytest.fixture
async def api(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A sandbox as it starts, and a caller who has its key."""
    await client.delete("/received")
    await client.delete("/faults")
    return client


async def received(api: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = (await api.get(f"/received{query}")).json()
    return events


async def faults(api: httpx.AsyncClient, **given: Any) -> None:
    answer = await api.put("/faults", json=given)
    assert 200 == answer.status_code, answer.text


# --- the contract -----------------------------------------------------------------------------------------------------


async def test_one_event_is_queued(api: httpx.AsyncClient) -> None:
    answer = await api.post(SINGLE, json=an_event())

    assert (202, {"queued": True}) == (answer.status_code, answer.json())
    assert [an_event()] == await received(api)


@pytest.mark.parametrize("body", [{"events": [an_event(1), an_event(2)]}, [an_event(1), an_event(2)]])
async def test_a_batch_is_queued_in_order_as_an_object_or_an_array(api: httpx.AsyncClient, body: object) -> None:
    assert 202 == (await api.post(BATCH, json=body)).status_code
    assert [an_event(1), an_event(2)] == await received(api)


async def test_a_thousand_events_are_a_batch_and_one_more_is_too_large(api: httpx.AsyncClient) -> None:
    thousand = [an_event(order) for order in range(1000)]

    assert 413 == (await api.post(BATCH, json=[*thousand, an_event()])).status_code
    assert 202 == (await api.post(BATCH, json=thousand)).status_code
    assert thousand == await received(api)


async def test_a_body_over_the_limit_is_too_large(api: httpx.AsyncClient) -> None:
    answer = await api.post(SINGLE, content=b" " * 1_000_001, headers=JSON)

    assert (413, "The body is larger than 1000000 bytes") == (answer.status_code, answer.json()["error"])


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer oa_live_other", "Basic " + KEY, KEY])
async def test_without_the_key_nothing_is_taken(api: httpx.AsyncClient, authorization: str | None) -> None:
    request = api.build_request("POST", SINGLE, json=an_event(), headers={"Authorization": authorization or ""})
    if authorization is None:
        del request.headers["Authorization"]

    answer = await api.send(request)

    assert (401, {"error": "Invalid or missing API key"}) == (answer.status_code, answer.json())
    assert [] == await received(api)


async def test_an_unknown_project_is_not_found(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/projects/43/events/batch", json=[an_event()])

    assert (404, {"error": "Project not found"}) == (answer.status_code, answer.json())


async def test_left_to_itself_it_takes_any_key_of_the_right_form_and_any_project() -> None:
    async with serving(create_app()) as served, httpx.AsyncClient(base_url=served.url) as client:
        calls = [
            await client.post(f"/v1/projects/{project}/events", json=an_event(), headers={"Authorization": bearer})
            for project, bearer in [("7", "Bearer oa_live_x"), ("x", "bearer oa_test_y"), ("7", "Bearer sk_live_x")]
        ]

    assert [202, 202, 401] == [call.status_code for call in calls]


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (an_event(event_type="sale"), "event_type"),
        (an_event(event_name=None), "event_name"),
        (an_event(event_name="Purchase"), "event_name"),
        (an_event(properties={"nested": {"a": 1}}), "properties.nested"),
        (an_event(properties={f"k{n}": n for n in range(51)}), "properties"),
        (an_event(revenue="much"), "revenue"),
        (an_event(currency="EURO"), "currency"),
        (an_event(timestamp="2026-01-01"), "timestamp"),
        (an_event(colour="red"), "colour"),
        (17, ""),
    ],
)
async def test_one_bad_event_refuses_the_whole_batch_and_is_named(
    api: httpx.AsyncClient, event: object, field: str
) -> None:
    answer = await api.post(BATCH, json={"events": [an_event(), event]})

    assert 400 == answer.status_code
    assert answer.json()["error"].startswith(f"events[1]: {field}")
    assert [] == await received(api)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"events": []}', b"7", b'"x"', b'{"events": 7}', b'{"events": [], "more": 1}', b"\xff"]
)
async def test_what_is_no_batch_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post(BATCH, content=body, headers=JSON)

    assert 400 == answer.status_code
    assert isinstance(answer.json()["error"], str)


async def test_a_batch_is_no_single_event(api: httpx.AsyncClient) -> None:
    assert 400 == (await api.post(SINGLE, json={"events": [an_event()]})).status_code


async def test_only_json_is_taken_and_only_by_post(api: httpx.AsyncClient) -> None:
    assert 415 == (await api.post(SINGLE, content=orjson.dumps(an_event()))).status_code
    got = await api.get(SINGLE)
    assert (405, "POST") == (got.status_code, got.headers["allow"])


async def test_it_does_not_deduplicate_and_shows_keys_that_came_again(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert 202 == (await api.post(SINGLE, json=an_event(), headers={"Idempotency-Key": "k1"})).status_code

    assert [an_event(), an_event()] == await received(api)
    assert {
        "requests": 2, "events": 2, "by_status": {"202": 2}, "keys": 1, "keys_seen_again": 1, "replayed": 0,
    } == (await api.get("/stats")).json()  # fmt: skip


# --- looking at what was received -------------------------------------------------------------------------------------


async def test_events_are_shown_with_every_digit_that_came(api: httpx.AsyncClient) -> None:
    text = '{"event_type": "conversion", "event_name":"purchase", "revenue" : 19.90 ,"currency":"EUR"}'
    for url, body in [
        (SINGLE, f" {text}\n"),
        (BATCH, f'\n{{ "events" :\t[ {text} , {text}\n] }} '),
        (BATCH, f" [ {text}\n,{text} ] "),
    ]:
        assert 202 == (await api.post(url, content=body, headers=JSON)).status_code

    shown = (await api.get("/received")).text

    assert 5 == shown.count(text)
    assert 5 == len(json.loads(shown))
    assert f"[{text},{text}]" == (await api.get("/received?since=3")).text.replace("\n", "").replace(" ,{", ",{")


async def test_a_batch_that_says_events_twice_is_shown_as_it_was_understood(api: httpx.AsyncClient) -> None:
    twice = '{"events": [7], "events": [' + json.dumps(an_event("twice")) + "]}"
    inside = {"events": [an_event(properties={"events": "x"})]}

    await api.post(BATCH, content=twice, headers=JSON)
    await api.post(BATCH, json=inside)

    assert [an_event("twice"), *inside["events"]] == await received(api)


@pytest.mark.parametrize("since", [0, 1, 2, 3, 4, 5, 6, 99])
async def test_since_leaves_out_the_first_events(api: httpx.AsyncClient, since: int) -> None:
    await api.post(BATCH, json=[an_event(order) for order in range(3)])
    await api.post(SINGLE, json=an_event(3))
    await api.post(BATCH, json={"events": [an_event(4), an_event(5)]})

    assert [an_event(order) for order in range(6)][since:] == await received(api, f"?since={since}")
    assert {"count": max(0, 6 - since)} == (await api.get(f"/received?count=1&since={since}")).json()


@pytest.mark.parametrize("query", ["since=-1", "since=x", "since=", "since=²", "since=1" + "0" * 30, "limit=1"])
async def test_other_questions_are_refused(api: httpx.AsyncClient, query: str) -> None:
    assert 400 == (await api.get(f"/received?{query}")).status_code


async def test_delete_forgets_events_and_counts(api: httpx.AsyncClient) -> None:
    await api.post(SINGLE, json=an_event())

    assert 200 == (await api.delete("/received")).status_code
    assert [] == await received(api)
    assert 0 == (await api.get("/stats")).json()["requests"]


async def test_the_last_calls_are_shown(api: httpx.AsyncClient) -> None:
    await api.post(BATCH, json=[an_event(), an_event()], headers={"Idempotency-Key": "k1"})
    await api.post(SINGLE, json={})

    assert [
        {"at_ms": AT_MS, "endpoint": "batch", "status": 202, "events": 2, "key": "k1"},
        {"at_ms": AT_MS, "endpoint": "single", "status": 400, "events": 0, "key": None},
    ] == (await api.get("/requests")).json()


async def test_it_says_what_it_is(api: httpx.AsyncClient) -> None:
    assert "sandbox of the events API" in (await api.get("/")).json()["about"]
    assert 200 == (await api.get("/healthz")).status_code
    assert 404 == (await api.get("/v1/projects")).status_code
    assert 405 == (await api.post("/received")).status_code


# --- misbehaving ------------------------------------------------------------------------------------------------------


async def test_any_status_on_demand_with_retry_after_and_nothing_is_taken(api: httpx.AsyncClient) -> None:
    await faults(api, status=429, retry_after="5")

    answer = await api.post(SINGLE, json=an_event())

    assert (429, "5") == (answer.status_code, answer.headers["retry-after"])
    assert [] == await received(api)


async def test_another_2xx_still_takes_the_events(api: httpx.AsyncClient) -> None:
    await faults(api, status=200)

    assert [200, 400] == [(await api.post(SINGLE, json=body)).status_code for body in (an_event(), {})]
    assert [an_event()] == await received(api)


async def test_only_every_nth_call_and_only_so_often(api: httpx.AsyncClient) -> None:
    await faults(api, status=500, every=2, times=2)
    shown = [(await api.get("/faults")).json()]
    statuses = [(await api.post(SINGLE, json=an_event())).status_code for _ in range(6)]
    shown.append((await api.get("/faults")).json())

    assert [202, 500, 202, 500, 202, 202] == statuses
    assert [{"status": 500, "every": 2, "times": 2}, {}] == shown


async def test_a_dropped_answer_cuts_the_connection_after_the_events_were_taken(api: httpx.AsyncClient) -> None:
    await faults(api, drop_answer=True, times=1)

    with pytest.raises(httpx.RemoteProtocolError):
        await api.post(BATCH, json=[an_event(1)])
    assert 202 == (await api.post(BATCH, json=[an_event(2)])).status_code
    assert [an_event(1), an_event(2)] == await received(api)
    assert {"202": 1, "dropped": 1} == (await api.get("/stats")).json()["by_status"]


async def test_a_dropped_request_cuts_the_connection_before_anything_is_taken(api: httpx.AsyncClient) -> None:
    await faults(api, drop_request=True, times=1)

    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        await api.post(BATCH, json=[an_event(order) for order in range(1000)])
    assert [] == await received(api)


async def test_it_takes_its_time(api: httpx.AsyncClient) -> None:
    await faults(api, latency_ms=500)

    with pytest.raises(httpx.ReadTimeout):
        await api.post(SINGLE, json=an_event(), timeout=0.05)


@pytest.mark.parametrize(
    "reject",
    [
        {"event_name": "purchase", "property": {"order_id": "cs_7"}},
        {"property": {"order_id": "cs_7", "livemode": True}},
        {"field": {"user_id": "ab" * 32}, "property": {"order_id": "cs_7"}},
    ],
)
async def test_a_poisoned_event_refuses_its_batch_and_is_not_named(
    api: httpx.AsyncClient, reject: dict[str, Any]
) -> None:
    await faults(api, reject=reject)
    events = [an_event(order) for order in range(10)]

    refused = await api.post(BATCH, json=events)

    assert (400, {"error": "Invalid event"}) == (refused.status_code, refused.json())
    assert 400 == (await api.post(SINGLE, json=events[7])).status_code
    assert 202 == (await api.post(BATCH, json=events[:7])).status_code
    assert events[:7] == await received(api)


async def test_a_poisoned_event_may_be_refused_with_another_status(api: httpx.AsyncClient) -> None:
    await faults(api, reject={"event_name": "purchase", "status": 422})

    assert 422 == (await api.post(SINGLE, json=an_event())).status_code


@pytest.mark.parametrize(("closed", "status"), [(True, 404), (404, 404), (405, 405)])
async def test_the_batch_endpoint_can_be_missing_while_the_other_works(
    api: httpx.AsyncClient, closed: int, status: int
) -> None:
    await faults(api, close_batch=closed)

    assert status == (await api.post(BATCH, json=[an_event()])).status_code
    assert 202 == (await api.post(SINGLE, json=an_event())).status_code


async def test_the_limit_of_a_body_can_be_lowered(api: httpx.AsyncClient) -> None:
    await faults(api, max_bytes=len(orjson.dumps(an_event())) + 20)

    assert 202 == (await api.post(BATCH, content=orjson.dumps([an_event()]), headers=JSON)).status_code
    assert 413 == (await api.post(BATCH, json=[an_event(), an_event()])).status_code


async def test_idempotency_can_be_honoured(api: httpx.AsyncClient) -> None:
    """As the real API may one day: what was in doubt is not counted twice, even when only the answer was lost."""
    await faults(api, honor_idempotency=True, drop_answer=True, times=1)
    key = {"Idempotency-Key": "k1"}

    with pytest.raises(httpx.RemoteProtocolError):
        await api.post(BATCH, json=[an_event()], headers=key)
    again = await api.post(BATCH, json=[an_event()], headers=key)
    other = await api.post(BATCH, json=[an_event(2)], headers=key)
    without = await api.post(BATCH, json=[an_event(3)])

    assert [202, 422, 202] == [answer.status_code for answer in (again, other, without)]
    assert [an_event(), an_event(3)] == await received(api)
    assert 1 == (await api.get("/stats")).json()["replayed"]


async def test_what_was_refused_is_not_remembered_under_its_key(api: httpx.AsyncClient) -> None:
    await faults(api, honor_idempotency=True, status=500, times=1)
    key = {"Idempotency-Key": "k1"}

    assert [500, 202] == [(await api.post(SINGLE, json=an_event(), headers=key)).status_code for _ in range(2)]
    assert [an_event()] == await received(api)


async def test_rules_hold_when_the_blows_are_over(api: httpx.AsyncClient) -> None:
    await faults(api, status=500, times=1, close_batch=405)

    assert [500, 405] == [(await api.post(BATCH, json=[an_event()])).status_code for _ in range(2)]
    assert {"close_batch": 405} == (await api.get("/faults")).json()


async def test_delete_ends_all_misbehaviour(api: httpx.AsyncClient) -> None:
    await faults(api, status=500)

    assert {} == (await api.delete("/faults")).json()
    assert 202 == (await api.post(SINGLE, json=an_event())).status_code


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"statos": 500}, "statos"),
        ({"status": 99}, "status"),
        ({"status": "500"}, "status"),
        ({"drop_answer": 1}, "drop_answer"),
        ({"every": 0, "status": 500}, "every"),
        ({"times": 2}, "every and times need"),
        ({"retry_after": "5"}, "retry_after needs a status"),
        ({"status": 429, "retry_after": "5\r\nX: y"}, "retry_after"),
        ({"reject": {}}, "reject"),
        ({"close_batch": 500}, "close_batch"),
        ([], ""),
    ],
)
async def test_an_unknown_fault_is_refused_in_words_and_changes_nothing(
    api: httpx.AsyncClient, given: object, words: str
) -> None:
    await faults(api, status=503)

    answer = await api.put("/faults", json=given)

    assert 400 == answer.status_code
    assert words in answer.json()["error"]
    assert {"status": 503} == (await api.get("/faults")).json()


async def test_a_caller_who_breaks_off_halfway_leaves_no_trace(api: httpx.AsyncClient) -> None:
    _, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert 0 == (await api.get("/stats")).json()["requests"]
