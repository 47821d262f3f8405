"""SendGrid: batches, over a real socket, each item for itself."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson
import pytest

from mappers.sendgrid import provider
from relay.contract import Delivery
from relay.specimens import specimen
from tests import acme
from tests.conftest import RunningRelay, RunRelay
from tests.things import NOON

pytestmark = pytest.mark.anyio

KEY = specimen(provider.verifier)
KNOWN = {"acme": acme.make(), "sendgrid": provider}


def item(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "email": f"reader{number}@example.com",
        "timestamp": 1_795_000_000 + number,
        "event": "click",
        "url": "https://shop.example.com/",
        "sg_event_id": f"event{number}",
        "sg_message_id": f"message{number}.recvd-1",
        **fields,
    }


async def post(relay: RunningRelay, batch: Any) -> int:
    """As SendGrid would: its bodies end in a line break, which is signed too."""
    body = orjson.dumps(batch) + b"\r\n"
    sent = provider.verifier.sign(Delivery(body=body, headers={}), KEY.signing, now_ms=NOON)
    return (await relay.post(sent.body, source="sendgrid", headers=dict(sent.headers))).status_code


def count(relay: RunningRelay, table: str, where: str = "1") -> int:
    with sqlite3.connect(relay.database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


@pytest.mark.parametrize("broken", [{"timestamp": "soon"}, {"timestamp": None}], ids=str)
async def test_a_thousand_items_are_one_commit_and_a_bad_one_parks_alone(
    run_relay: RunRelay, broken: dict[str, Any]
) -> None:
    batch = [item(number) for number in range(1000)]
    batch[417] |= broken
    async with run_relay(KNOWN, RELAY_SENDGRID_SECRET=KEY.secret) as relay:
        assert await post(relay, batch) == 200

        assert await relay.metric("relay_commit_group_size_count") == 1
        assert (count(relay, "deliveries"), count(relay, "notifications"), count(relay, "events")) == (1, 1000, 999)
        assert count(relay, "notifications", "outcome = 'failed' AND notification_id = 'event417'") == 1


async def test_items_that_come_again_in_another_batch_count_once(run_relay: RunRelay) -> None:
    async with run_relay(KNOWN, RELAY_SENDGRID_SECRET=KEY.secret) as relay:
        await post(relay, [item(number) for number in range(3)])
        await post(relay, [item(number) for number in range(1, 5)])
        await post(relay, [item(number) for number in range(3)])

        assert count(relay, "events") == 5


async def test_items_without_an_id_do_not_count_as_one(run_relay: RunRelay) -> None:
    async with run_relay(KNOWN, RELAY_SENDGRID_SECRET=KEY.secret) as relay:
        batch = [item(number, sg_event_id="") for number in range(3)]
        await post(relay, [*batch, *batch])

        assert count(relay, "events") == 3


async def test_what_is_many_is_told_only_where_it_is_asked_for(run_relay: RunRelay) -> None:
    kinds = ["processed", "delivered", "open", "deferred", "click", "bounce"]
    batch = [item(number, event=kind) for number, kind in enumerate(kinds)]
    async with run_relay(KNOWN, RELAY_SENDGRID_SECRET=KEY.secret, RELAY_SENDGRID_ENABLE="opened") as relay:
        await post(relay, batch)

        assert count(relay, "events") == 3
        assert count(relay, "notifications", "outcome = 'ignored'") == 3


async def test_another_body_is_refused(run_relay: RunRelay) -> None:
    body = orjson.dumps([item(1)]) + b"\r\n"
    sent = provider.verifier.sign(Delivery(body=body, headers={}), KEY.signing, now_ms=NOON)
    async with run_relay(KNOWN, RELAY_SENDGRID_SECRET=KEY.secret) as relay:
        answer = await relay.post(body.strip(), source="sendgrid", headers=dict(sent.headers))

        assert answer.status_code == 401
        assert count(relay, "deliveries") == 0
