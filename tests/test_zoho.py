"""Zoho CRM: several records of one notification, and deals that name their contact by id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mappers.zoho import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.rehearsal import START_MS, rehearse


def told(module: str, operation: str, at: int = START_MS, **records: Any) -> Delivery:
    said = {
        "module": module,
        "operation": operation,
        "ids": list(records),
        "affected_values": [{"record_id": one, "values": values} for one, values in records.items()],
        "server_time": at,
        "channel_id": "1000000068001",
        "token": "a-text",
    }
    return Delivery(body=json.dumps(said).encode(), headers={})


WON = {"Stage": "Closed Won", "Amount": 980, "Currency": "EUR", "Contact_Name": {"id": "c1", "name": "Erika"}}


@pytest.mark.parametrize("is_first", [True, False], ids=["before it", "after it"])
def test_a_deal_is_its_contacts_whenever_that_is_told(*, is_first: bool) -> None:
    who, what = told("Contacts", "insert", c1={"Email": "erika@example.com"}), told("Deals", "update", d1=WON)
    with rehearse(provider) as stage:
        life = stage.begin()
        for delivery in (who, what) if is_first else (what, who):
            life.tell(delivery)
        life.finish()

        assert (2, 1) == (len(life.sent), len({event["user_id"] for event in life.sent}))


def test_a_deal_is_won_once() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(told("Deals", "update", d1=WON))
        life.tell(told("Deals", "update", START_MS + 60_000, d1=WON))
        life.finish()

        assert [980] == [event["revenue"] for event in life.sent]


def test_the_token_is_asked_for_and_leaves_the_records_alone() -> None:
    sent, verify = told("Leads", "insert", l1={}, l2={}), provider.verifier.verify

    assert (Accepted(0), Refused(Reason.MISMATCH)) == (
        verify(sent, ["a-text"], now_ms=START_MS),
        verify(sent, ["another"], now_ms=START_MS),
    )
    assert [None, None] == [one.body.get("token") for one in provider.notifications(sent)]
