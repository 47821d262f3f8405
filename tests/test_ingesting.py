"""The events API's own paths: what a backend posts is told once, and what is wrong with it is said exactly."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from relay.identity import hash_email
from relay.ingest_keys import new_key
from relay.store.intake import REMEMBERED_MS
from tests.conftest import EventsApi, RunningRelay, RunRelay, until
from tests.things import NOON, Clock

pytestmark = pytest.mark.anyio

KEY = "oa_live_of_a_backend"
ONE = "/v1/projects/42/events"
BATCH = ONE + "/batch"
HOUR = 3_600_000
PACKED = gzip.compress(b"{}", mtime=0)


def event(order: int | str = 1, **fields: Any) -> dict[str, Any]:
    return {
        "event_type": "conversion", "event_name": "purchase", "user_id": "a" * 64, "revenue": 19.99, "currency": "EUR",
        "url": "https://shop.example/thanks", "properties": {"order_id": f"order_{order}"}, **fields,
    }  # fmt: skip


class Backend:
    """A caller with a key."""

    def __init__(self, relay: RunningRelay) -> None:
        self.relay = relay

    async def post(self, body: Any, path: str = ONE, *, key: str | None = None, **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Idempotency-Key"] = key
        return await self.relay.http.post(path, content=raw, headers=sent)


@pytest.fixture
async def caller(run_relay: RunRelay) -> AsyncIterator[Backend]:
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        yield Backend(relay)


async def received(events_api: EventsApi, number: int) -> list[dict[str, Any]]:
    async def are_there() -> bool:
        return len(await events_api.received()) >= number

    await until(are_there)
    return await events_api.received()


def rows(relay: RunningRelay, table: str) -> int:
    with contextlib.closing(sqlite3.connect(relay.database)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def problems(answer: httpx.Response) -> list[tuple[int | None, str]]:
    return [(problem.get("index"), problem["field"]) for problem in answer.json()["problems"]]


# --- taking -----------------------------------------------------------------------------------------------------------


async def test_an_event_goes_on_as_it_was_posted(caller: Backend, events_api: EventsApi) -> None:
    answer = await caller.post(event(timestamp=NOON - 5000))

    assert (answer.status_code, answer.content) == (202, b'{"queued":true}')
    assert [event(timestamp=NOON - 5000)] == await received(events_api, 1)


async def test_an_event_is_on_disk_before_the_202(run_relay: RunRelay, events_api: EventsApi) -> None:
    await events_api.misbehave(status=503)
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        await Backend(relay).post(event())

        assert (1, 1) == (rows(relay, "events"), rows(relay, "deliveries"))


@pytest.mark.parametrize("is_bare", [True, False])
async def test_a_batch_comes_in_either_form(caller: Backend, events_api: EventsApi, *, is_bare: bool) -> None:
    events = [event(number, timestamp=NOON) for number in range(1000)]

    answer = await caller.post(events if is_bare else {"events": events}, BATCH)

    assert (answer.status_code, answer.json()) == (202, {"queued": True})
    assert events == await received(events_api, 1000)


async def test_the_time_is_that_of_receiving_where_the_sender_says_none(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event())

    assert [NOON] == [found["timestamp"] for found in await received(events_api, 1)]


@pytest.mark.parametrize("kind", ["pageview", "identify"])
async def test_an_event_without_a_name_is_taken(caller: Backend, events_api: EventsApi, kind: str) -> None:
    await caller.post({"event_type": kind, "user_id": "u_1"})

    assert [{"event_type": kind, "user_id": "u_1", "timestamp": NOON}] == await received(events_api, 1)


async def test_whole_numbers_may_have_a_point(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(b'{"event_type":"pageview","timestamp":1795000000000.0,"event_id":7.0}')

    (found,) = await received(events_api, 1)
    assert (NOON, 7) == (found["timestamp"], found["properties"]["event_id"])


async def test_a_body_may_be_gzip(caller: Backend, events_api: EventsApi) -> None:
    answer = await caller.post(gzip.compress(orjson.dumps([event(1), event(2)])), BATCH, Content_Encoding="gzip")

    assert answer.status_code == 202
    assert ["order_1", "order_2"] == [e["properties"]["order_id"] for e in await received(events_api, 2)]


async def test_revenue_keeps_its_digits(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(revenue="1234567890.0123456789"))

    (found,) = await received(events_api, 1)
    assert b'"revenue":1234567890.0123456789' in (await events_api.http.get("/received")).content
    assert found["currency"] == "EUR"


async def test_a_relay_can_send_to_a_relay(caller: Backend) -> None:
    """The relay's own client asks with an empty batch whether somebody is there."""
    assert (await caller.post({"events": []}, BATCH)).status_code == 400


# --- nothing twice ----------------------------------------------------------------------------------------------------


async def _count_of(events_api: EventsApi, caller: Backend, expected: int) -> int:
    """How many arrived, once one more has."""
    await caller.post(event("last"))
    return len(await received(events_api, expected + 1)) - 1


async def test_the_same_key_and_body_is_one_call(caller: Backend, events_api: EventsApi) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    first = await caller.post(plain, key="k1")
    again = await caller.post(plain, key="k1")

    assert (first.status_code, again.status_code, first.content) == (202, 202, again.content)
    assert "true" == again.headers["idempotency-replayed"]
    assert 1 == await _count_of(events_api, caller, 1)


async def test_quotation_marks_around_a_key_are_no_part_of_it(caller: Backend, events_api: EventsApi) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    await caller.post(plain, key='"k1"')
    again = await caller.post(plain, key="k1")

    assert "true" == again.headers["idempotency-replayed"]
    assert 1 == await _count_of(events_api, caller, 1)


async def test_the_same_key_with_another_body_is_refused(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(1), key="k1")
    answer = await caller.post(event(2), key="k1")

    assert (422, "idempotency_key_reused") == (answer.status_code, answer.json()["code"])
    assert 1 == await _count_of(events_api, caller, 1)


async def test_calls_with_one_key_that_come_at_once_are_one(caller: Backend, events_api: EventsApi) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    answers = await asyncio.gather(*(caller.post(plain, key="k1") for _ in range(20)))

    assert {202} == {answer.status_code for answer in answers}
    assert 1 == await _count_of(events_api, caller, 1)


async def test_a_key_is_remembered_over_a_restart(run_relay: RunRelay, events_api: EventsApi, clock: Clock) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        await Backend(relay).post(plain, key="k1")
    clock.advance(days=1, seconds=1)
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        again = await Backend(relay).post(plain, key="k1")
        other = await Backend(relay).post(event(2), key="k1")

        assert ("true", 422) == (again.headers["idempotency-replayed"], other.status_code)
        assert 1 == await _count_of(events_api, Backend(relay), 1)


async def test_a_key_is_forgotten_after_some_days(caller: Backend, events_api: EventsApi, clock: Clock) -> None:
    await caller.post(event(1), key="k1")
    clock.advance(ms=REMEMBERED_MS + 1)

    assert 202 == (await caller.post(event(2), key="k1")).status_code
    assert 2 == await _count_of(events_api, caller, 2)


async def test_what_is_forgotten_leaves_the_store(caller: Backend, clock: Clock) -> None:
    await caller.post(event(1), key="k1")
    clock.advance(ms=REMEMBERED_MS + 1000)
    await caller.relay.app.state.keeper.prune()

    assert 0 == rows(caller.relay, "calls")


async def test_keys_of_two_projects_are_two(run_relay: RunRelay, tmp_path: Any, events_api: EventsApi) -> None:
    config = tmp_path / "relay.toml"
    config.write_text('[destinations.other]\nproject_id = "43"\napi_key = "oa_live_2"\n')
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_CONFIG=str(config)) as relay:
        caller = Backend(relay)
        await caller.post(event(1), key="k1")

        assert 202 == (await caller.post(event(2), "/v1/projects/43/events", key="k1")).status_code


@pytest.mark.parametrize("key", ["", "a" * 256, "ä", '""'])
async def test_a_key_that_is_none_is_refused(caller: Backend, key: str) -> None:
    raw = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
    headers = [(name.encode(), value.encode()) for name, value in [*raw, ("Idempotency-Key", key)]]
    answer = await caller.relay.http.post(ONE, content=orjson.dumps(event()), headers=headers)

    assert (400, "invalid_idempotency_key") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("said", [{"id": "e1"}, {"event_id": "e1"}, {"event_id": 17}])
async def test_an_event_with_an_id_is_taken_once(caller: Backend, events_api: EventsApi, said: dict[str, Any]) -> None:
    seen = {"event_type": "event", "event_name": "seen", **said}
    await caller.post(seen)
    await caller.post([seen, {**seen}, event(2)], BATCH)

    found = await received(events_api, 2)
    assert 2 == await _count_of(events_api, caller, 2)
    assert next(iter(said.values())) == found[0]["properties"]["event_id"]


@pytest.mark.parametrize("name", ["event_id", "id", "order_id"])
async def test_an_event_with_an_id_among_its_properties_is_taken_once(
    caller: Backend, events_api: EventsApi, name: str, clock: Clock
) -> None:
    seen = {"event_type": "event", "event_name": "seen", "properties": {name: "e1"}}
    await caller.post(seen)
    clock.advance(seconds=60)
    await caller.post([seen, event(2)], BATCH)

    assert 2 == await _count_of(events_api, caller, 2)


async def test_an_order_may_have_several_events(caller: Backend, events_api: EventsApi) -> None:
    await caller.post([event(1), event(1, event_name="shipped"), event(1, revenue=5)], BATCH)

    assert 3 == await _count_of(events_api, caller, 3)


async def test_an_id_with_another_content_is_refused_by_its_index(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(1, event_id="e1"))
    answer = await caller.post([event(2), event(3, event_id="e1")], BATCH)

    assert (409, [(1, "event_id")]) == (answer.status_code, problems(answer))
    assert 1 == await _count_of(events_api, caller, 1)


async def test_one_id_for_two_contents_in_a_batch_is_refused(caller: Backend) -> None:
    answer = await caller.post([event(1, id="e1"), event(2, id="e1")], BATCH)

    assert (409, [(1, "id")]) == (answer.status_code, problems(answer))


async def test_an_event_that_is_built_anew_for_another_try_is_the_same(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(1, event_id="e1", timestamp=NOON))

    assert 202 == (await caller.post(event(1, event_id="e1", timestamp=NOON + 5000))).status_code
    assert 1 == await _count_of(events_api, caller, 1)


async def test_a_refused_call_does_not_use_up_its_key(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(1, event_id="e1"))
    await caller.post(event(2, event_id="e1"), key="k1")

    assert 202 == (await caller.post(event(2, event_id="e2"), key="k1")).status_code


async def test_without_a_key_the_same_call_is_news(caller: Backend, events_api: EventsApi) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    await caller.post(plain)
    await caller.post(plain)

    assert 2 == await _count_of(events_api, caller, 2)


async def test_a_digest_makes_a_repeat_within_its_window(
    run_relay: RunRelay, events_api: EventsApi, clock: Clock
) -> None:
    plain = {"event_type": "event", "event_name": "seen"}
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_INGEST_REPEAT_S="60") as relay:
        caller = Backend(relay)
        await caller.post(plain)
        clock.advance(seconds=59)
        await caller.post(plain)
        clock.advance(seconds=2)
        await caller.post(plain)

        assert 2 == await _count_of(events_api, caller, 2)


# --- saying what is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"event_type": "sale"}, "event_type"),
        ({"event_name": None}, "event_name"),
        ({"event_name": "Not Snake"}, "event_name"),
        ({"currency": None}, "currency"),
        ({"currency": "eur"}, "currency"),
        ({"revenue": "1e3"}, "revenue"),
        ({"revenue": True}, "revenue"),
        ({"revenue": 1e-12}, "revenue"),
        ({"url": "/thanks"}, "url"),
        ({"properties": {"a": [1]}}, "properties.a"),
        ({"properties": []}, "properties"),
        ({"colour": "red"}, "colour"),
        ({"timestamp": NOON // 1000}, "timestamp"),
        ({"timestamp": NOON * 1000}, "timestamp"),
        ({"timestamp": NOON + 25 * HOUR}, "timestamp"),
        ({"timestamp": "2026-11-20"}, "timestamp"),
        ({"id": ""}, "id"),
        ({"event_id": 1.5}, "event_id"),
    ],
)
async def test_an_invalid_event_is_refused_by_its_field(caller: Backend, fields: dict[str, Any], place: str) -> None:
    answer = await caller.post(event(**fields))

    assert (422, [(None, place)]) == (answer.status_code, problems(answer))
    assert place in answer.json()["error"]


async def test_a_clock_that_is_a_little_ahead_is_no_matter(caller: Backend) -> None:
    assert 202 == (await caller.post(event(timestamp=NOON + 23 * HOUR))).status_code


async def test_a_batch_with_a_bad_event_is_refused_whole(caller: Backend, events_api: EventsApi) -> None:
    answer = await caller.post([event(1), event(2, currency="EURO"), event(3, url="x")], BATCH)

    assert (422, [(1, "currency"), (2, "url")]) == (answer.status_code, problems(answer))
    assert answer.json()["error"].startswith("events[1]: currency must")
    assert 0 == await _count_of(events_api, caller, 0)


async def test_a_batch_may_be_taken_in_part(caller: Backend, events_api: EventsApi) -> None:
    await caller.post(event(9, id="e9"))
    body = [event(1), event(2, currency="EURO"), event(3), event(4, id="e9")]
    answer = await caller.post(body, BATCH + "?partial=1", key="k1")
    again = await caller.post(body, BATCH + "?partial=1", key="k1")

    told = answer.json()
    assert (202, True, 2, 2) == (answer.status_code, told["queued"], told["accepted"], told["rejected"])
    assert [(1, "currency"), (3, "id")] == problems(answer)
    assert answer.content == again.content
    assert 3 == await _count_of(events_api, caller, 3)


async def test_a_batch_without_a_good_event_is_refused_even_in_part(caller: Backend) -> None:
    assert 422 == (await caller.post([event(currency="EURO")], BATCH + "?partial=1")).status_code


@pytest.mark.parametrize(
    ("body", "path", "status", "code"),
    [
        (b"", ONE, 400, "invalid_json"),
        (b"{", ONE, 400, "invalid_json"),
        (b"[" * 5000, BATCH, 400, "invalid_json"),
        (b"[]", BATCH, 400, "invalid_batch"),
        (b'{"events":[]}', BATCH, 400, "invalid_batch"),
        (b'{"events":[{}],"more":1}', BATCH, 400, "invalid_batch"),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", BATCH, 400, "too_many_events"),
        (b"[{}]", BATCH + "?partial=maybe", 400, "invalid_query"),
        (b"[]", ONE, 422, "invalid_event"),
        (b"[1]", BATCH, 422, "invalid_event"),
        (b"{}", "/v1/projects/7/events", 404, "no_project"),
        (b"{}", "/v1/projects/42/other", 404, "not_found"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(
    caller: Backend, body: bytes, path: str, status: int, code: str
) -> None:
    answer = await caller.post(body, path)

    assert (status, code) == (answer.status_code, answer.json()["code"])


async def test_what_is_too_large_is_refused_packed_or_not(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_BODY_LIMIT_BYTES="2000") as relay:
        caller = Backend(relay)
        large = orjson.dumps(event(user_id="u" * 3000))
        packed = gzip.compress(large)
        assert len(packed) < 2000

        assert 413 == (await caller.post(large)).status_code
        assert 413 == (await caller.post(packed, Content_Encoding="gzip")).status_code


@pytest.mark.parametrize("body", [b"not gzip", PACKED[:-4], PACKED * 2])
async def test_gzip_that_is_broken_is_refused(caller: Backend, body: bytes) -> None:
    answer = await caller.post(body, Content_Encoding="gzip")

    assert (400, "invalid_gzip") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("headers", [{"Content_Type": "text/plain"}, {"Content_Encoding": "br"}])
async def test_other_kinds_of_content_are_refused(caller: Backend, headers: dict[str, str]) -> None:
    assert 415 == (await caller.post(event(), **headers)).status_code


async def test_only_post_is_known(caller: Backend) -> None:
    answer = await caller.relay.http.get(ONE)

    assert (405, "POST") == (answer.status_code, answer.headers["allow"])


async def test_a_store_that_is_away_means_later(caller: Backend) -> None:
    await caller.relay.store.close()
    answer = await caller.post(event())

    assert (429, "10") == (answer.status_code, answer.headers["retry-after"])


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"])
async def test_without_a_key_nothing_is_read(caller: Backend, said: str | None) -> None:
    headers = [] if said is None else [(b"Authorization", said.encode("latin-1"))]
    answer = await caller.relay.http.post(ONE, content=b"{", headers=headers)

    assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])
    assert set(answer.json()) == {"error", "code"}


async def test_no_keys_means_that_nobody_may(relay: RunningRelay) -> None:
    assert 401 == (await Backend(relay).post(event())).status_code


async def test_a_key_of_one_project_opens_no_other(run_relay: RunRelay, tmp_path: Any) -> None:
    config = tmp_path / "relay.toml"
    config.write_text('[destinations.other]\nproject_id = "43"\napi_key = "oa_live_2"\n')
    async with run_relay(RELAY_INGEST_KEYS=f"43:{KEY}", RELAY_CONFIG=str(config)) as relay:
        caller = Backend(relay)

        assert 404 == (await caller.post(event())).status_code
        assert 202 == (await caller.post(event(), "/v1/projects/43/events")).status_code


async def test_a_stored_key_opens_its_project_until_it_expires(relay: RunningRelay, clock: Clock) -> None:
    token, key = new_key("42", name="cron", made_at_ms=NOON, expires_at_ms=NOON + HOUR)
    headers = {"Authorization": f"Bearer {token}"}
    caller = Backend(relay)
    assert 401 == (await caller.post(event(), **headers)).status_code

    await relay.store.intake.add_key(key)
    assert 202 == (await caller.post(event(), **headers)).status_code
    clock.advance(ms=HOUR)
    assert 401 == (await caller.post(event(), **headers)).status_code


async def test_a_revoked_key_opens_nothing_within_a_second_or_so(relay: RunningRelay) -> None:
    token, key = new_key("42", name="cron", made_at_ms=NOON, expires_at_ms=None)
    caller = Backend(relay)
    await relay.store.intake.add_key(key)
    assert 202 == (await caller.post(event(), Authorization=f"Bearer {token}")).status_code

    assert await relay.store.intake.revoke_key(key.id)
    assert not await relay.store.intake.revoke_key(key.id)

    async def is_refused() -> bool:
        return (await caller.post(event(), Authorization=f"Bearer {token}")).status_code == 401

    await until(is_refused)


async def test_the_store_holds_no_key(relay: RunningRelay) -> None:
    token, key = new_key("42", name="cron", made_at_ms=NOON, expires_at_ms=None)
    await relay.store.intake.add_key(key)
    await relay.store.close()

    kept = b"".join(path.read_bytes() for path in relay.database.parent.glob("relay.db*") if path.is_file())
    assert (True, False) == (key.hash.encode() in kept, token.encode() in kept)


# --- no personal data -------------------------------------------------------------------------------------------------


async def test_an_address_as_user_id_is_hashed_and_that_is_said(caller: Backend, events_api: EventsApi) -> None:
    answer = await caller.post([event(1, user_id="Buyer@Example.com "), event(2)], BATCH)

    assert (202, "1") == (answer.status_code, answer.headers["relay-hashed-user-ids"])
    assert hash_email("buyer@example.com") == (await received(events_api, 2))[0]["user_id"]


async def test_an_address_as_user_id_is_refused_where_that_is_set(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_INGEST_USER_ID="refuse") as relay:
        answer = await Backend(relay).post(event(user_id="buyer@example.com"))

    assert (422, [(None, "user_id")]) == (answer.status_code, problems(answer))
    assert "example.com" not in answer.text


async def test_personal_data_in_properties_is_taken_out(caller: Backend, events_api: EventsApi) -> None:
    answer = await caller.post(event(properties={"note": "call buyer@example.com", "email": "x"}))

    (found,) = await received(events_api, 1)
    assert ("1", {"note": "[redacted]"}) == (answer.headers["relay-redacted-events"], found["properties"])


async def test_personal_data_in_properties_is_refused_where_that_is_set(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_GUARD="reject") as relay:
        answer = await Backend(relay).post([event(), event(properties={"note": "buyer@example.com"})], BATCH)

    assert (422, [(1, "properties.note")]) == (answer.status_code, problems(answer))
    assert "example.com" not in answer.text


async def test_hashes_are_those_of_the_webhooks(run_relay: RunRelay, events_api: EventsApi) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_HASH_KEY="pepper") as relay:
        await Backend(relay).post(event(user_id="buyer@example.com"))
        (found,) = await received(events_api, 1)

    assert hash_email("buyer@example.com", b"pepper") == found["user_id"]


# --- web pages --------------------------------------------------------------------------------------------------------


async def test_web_pages_may_not(caller: Backend) -> None:
    answer = await caller.relay.http.options(ONE, headers={"Origin": "https://shop.example"})
    posted = await caller.post(event(), Origin="https://shop.example")

    assert (405, 202) == (answer.status_code, posted.status_code)
    assert [] == [name for name in (*answer.headers, *posted.headers) if name.startswith("access-control")]


async def test_web_pages_of_an_allowed_origin_may(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY, RELAY_INGEST_ORIGINS="https://shop.example") as relay:
        asked = await relay.http.options(ONE, headers={"Origin": "https://shop.example"})
        posted = await Backend(relay).post(event(), Origin="https://shop.example")
        other = await relay.http.options(ONE, headers={"Origin": "https://other.example"})

    assert (204, 202, 405) == (asked.status_code, posted.status_code, other.status_code)
    assert "https://shop.example" == asked.headers["access-control-allow-origin"]
    assert "https://shop.example" == posted.headers["access-control-allow-origin"]


# --- counted ----------------------------------------------------------------------------------------------------------


async def test_calls_and_events_are_counted(caller: Backend) -> None:
    await caller.post([event(1), event(2), event(1)], BATCH)
    await caller.post(event(3, currency="EURO"))

    metric = caller.relay.metric
    assert 1 == await metric("relay_deliveries_total", source="events:42", answer="accepted")
    assert 1 == await metric("relay_deliveries_total", source="events:42", answer="invalid_event")
    assert 2 == await metric("relay_events_total", source="events:42")
    assert 1 == await metric("relay_duplicates_total", source="events:42")


async def test_what_the_guard_took_out_is_counted_once(caller: Backend) -> None:
    """By kind, as for webhooks: a repeat of the call takes nothing out again."""
    posted = [event(1, user_id="buyer@example.com"), event(2, properties={"order_id": "2", "note": "a@example.com"})]
    await caller.post(posted, BATCH)
    await caller.post(posted, BATCH)
    await caller.post([event(3, user_id="+49 170 1234567"), event(4)], BATCH)

    metric = caller.relay.metric
    assert 2 == await metric("relay_guard_findings_total", source="events:42", kind="email")
    assert 1 == await metric("relay_guard_findings_total", source="events:42", kind="phone")


async def test_a_revenue_beyond_all_measure_does_not_stop_the_counting(caller: Backend, clock: Clock) -> None:
    """The console's numbers have 64 bits; what is beyond them shows as the most that they hold."""
    for number, revenue in enumerate((1e27, 1e27, -1e20, 5)):
        await caller.post(event(number, revenue=revenue, currency="USD" if revenue == 5 else "EUR"))
    console = caller.relay.store.console
    before = await console.counted(width_ms=HOUR, since_ms=0)
    clock.advance(seconds=60)
    while await console.count_up():
        pass
    after = {count.measure: count.n for count in (await console.counted(width_ms=HOUR, since_ms=0)).counts}

    assert before.is_complete
    assert (4, 5_000_000) == (after["events"], after["revenue:USD"])
    assert after["revenue:EUR"] > 10**18
