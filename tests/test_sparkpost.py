"""SparkPost: its check, its batches, and the ways in which it proves itself."""

from __future__ import annotations

import base64
import sqlite3
from typing import Any

import pytest

from mappers.sparkpost import provider
from tests import acme
from tests.conftest import RunningRelay, RunRelay

pytestmark = pytest.mark.anyio

LOGIN = "user:password"
BASIC = {"authorization": f"Basic {base64.b64encode(LOGIN.encode()).decode()}"}
KNOWN = {"acme": acme.make(), "sparkpost": provider}


def item(kind: str, **fields: Any) -> dict[str, Any]:
    told = {"type": kind, "event_id": "1", "timestamp": "1795000000", "rcpt_to": "ada@example.com", **fields}
    return {"msys": {"track_event": told}}


def count(relay: RunningRelay, table: str, where: str = "1") -> int:
    with sqlite3.connect(relay.database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


async def test_the_check_of_a_new_webhook_is_answered_and_says_nothing(run_relay: RunRelay) -> None:
    async with run_relay(KNOWN, RELAY_SPARKPOST_SECRET=LOGIN) as relay:
        answer = await relay.post([{"msys": {}}], source="sparkpost", headers=BASIC)

        assert 200 == answer.status_code
        assert (0, 0) == (count(relay, "events"), count(relay, "notifications", "outcome = 'failed'"))


@pytest.mark.parametrize(
    "bad", [item("click", event_id="3", timestamp="soon"), {"msys": {"a": {}, "b": {}}}, {}, None], ids=str
)
async def test_a_bad_item_parks_alone(run_relay: RunRelay, bad: Any) -> None:
    batch = [item("click", event_id="1"), bad, item("click", event_id="2")]
    async with run_relay(KNOWN, RELAY_SPARKPOST_SECRET=LOGIN) as relay:
        await relay.post(batch, source="sparkpost", headers=BASIC)

        assert (2, 1) == (count(relay, "events"), count(relay, "notifications", "outcome = 'failed'"))


async def test_samples_that_have_one_id_in_common_are_told_apart_by_their_type(run_relay: RunRelay) -> None:
    batch = [item("click"), item("bounce"), item("spam_complaint"), item("click")]
    async with run_relay(KNOWN, RELAY_SPARKPOST_SECRET=LOGIN) as relay:
        await relay.post(batch, source="sparkpost", headers=BASIC)

        assert 3 == count(relay, "events")


@pytest.mark.parametrize("option, number", [("opened", 2), ("first_opened", 1)])
async def test_an_opening_that_is_told_twice_counts_by_what_was_asked_for(
    run_relay: RunRelay, option: str, number: int
) -> None:
    batch = [item("initial_open", event_id="1"), item("open", event_id="2"), item("open", event_id="3")]
    async with run_relay(KNOWN, RELAY_SPARKPOST_SECRET=LOGIN, RELAY_SPARKPOST_ENABLE=option) as relay:
        await relay.post(batch, source="sparkpost", headers=BASIC)

        assert number == count(relay, "events")


async def test_the_token_of_an_old_webhook_is_taken_and_not_stored(run_relay: RunRelay) -> None:
    headers = {"x-messagesystems-webhook-token": "a long token"}
    async with run_relay(KNOWN, RELAY_SPARKPOST_SECRET="a long token") as relay:
        answer = await relay.post([item("click")], source="sparkpost", headers=headers)

        assert 200 == answer.status_code
        assert 401 == (await relay.post([item("click")], source="sparkpost", headers=BASIC)).status_code
    assert {"authorization", *headers} == set(provider.verifier.credentials)
