"""Customer.io: promises that take more than one notification, and payloads that are not as they should be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mappers.customerio import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.rehearsal import START_MS, rehearse
from relay.store.schema import Outcome

NOW_S = START_MS // 1000
KEY = "cio-signing-key"


def told(event_id: str, kind: str, metric: str, *, at: Any = NOW_S, **data: Any) -> Delivery:
    who = {"customer_id": "user_42", "identifiers": {"id": "user_42", "email": "erika@example.com", "cio_id": "7ef8"}}
    said = {"event_id": event_id, "object_type": kind, "metric": metric, "timestamp": at, "data": {**who, **data}}
    return Delivery(body=json.dumps(said).encode(), headers={})


def names(*deliveries: Delivery) -> list[str]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for delivery in deliveries:
            life.tell(delivery)
        life.finish()
        return [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("later_s", [-599, -1, 0, 1, 599])
def test_leaving_by_a_link_is_told_once(later_s: int) -> None:
    """Of the e-mail and of the person, under different ids and not always in the same second."""
    of_the_email = told("E1", "email", "unsubscribed", delivery_id="D1")
    of_the_person = told("E2", "customer", "unsubscribed", at=NOW_S + later_s)

    assert ["email_unsubscribed"] == names(of_the_email, of_the_person)


def test_leaving_again_another_day_counts_again() -> None:
    again = told("E2", "customer", "unsubscribed", at=NOW_S + 86_400)

    assert 2 == len(names(told("E1", "customer", "unsubscribed"), again))


def test_two_clicks_of_one_person_are_two() -> None:
    clicks = [told(event_id, "email", "clicked", href="https://shop.example/") for event_id in ("E1", "E2")]

    assert ["email_clicked", "email_clicked"] == names(*clicks)


def test_where_the_time_is_none_it_was_when_it_came() -> None:
    with rehearse(provider) as stage:
        outcomes = [one.outcome for one in stage.map(told("E1", "customer", "subscribed", at="abc"))]

    assert [Outcome.MAPPED] == outcomes


def test_the_time_is_signed_and_not_enforced() -> None:
    """Retries go on for a week, and nobody says whether they are signed anew."""
    verify, sent = provider.verifier.verify, told("E1", "email", "clicked")
    signed = provider.verifier.sign(sent, KEY, now_ms=START_MS - 6 * 86_400_000)
    moved = Delivery(body=signed.body, headers={**signed.headers, "x-cio-timestamp": str(NOW_S)})

    assert Accepted(0) == verify(signed, [KEY], now_ms=START_MS)
    assert Refused(Reason.MISMATCH) == verify(moved, [KEY], now_ms=START_MS)


def test_a_signature_made_elsewhere_fits() -> None:
    """HMAC-SHA256 of `v0:1613063089:{}` under the key, by `openssl dgst`."""
    headers = {
        "x-cio-timestamp": "1613063089",
        "x-cio-signature": "7b60d1cd2f47bbe343e5449cb48576576f99ac63609608ff951be0d608195f6d",
    }

    assert Accepted(0) == provider.verifier.verify(Delivery(body=b"{}", headers=headers), [KEY], now_ms=START_MS)
