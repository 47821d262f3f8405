"""Klaviyo: promises that take more than one event, and its signature."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest

from mappers.klaviyo import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.identity import hash_email
from relay.rehearsal import START_MS, rehearse
from relay.store.schema import Outcome

NOW_S = START_MS // 1000
KEY = "klaviyo-secret-key"


def item(topic: str, event_id: str, *, at: int = NOW_S, **properties: Any) -> dict[str, Any]:
    profile = {"profile": {"data": {"type": "profile", "id": "01GD"}}}
    attributes = {"timestamp": at, "event_properties": properties}
    data = {"type": "event", "id": event_id, "attributes": attributes, "relationships": profile}
    return {"external_id": event_id, "topic": f"event:klaviyo.{topic}", "payload": {"data": data}}


def told(*items: Any) -> Delivery:
    meta = {"klaviyo_account_id": "XYZ123", "klaviyo_webhook_id": "01HF"}
    return Delivery(body=json.dumps({"data": items, "meta": meta}).encode(), headers={})


def test_one_form_that_asks_for_both_is_one_subscription() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(told(item("subscribed_to_list", "e1"), item("subscribed_to_email_marketing", "e2", at=NOW_S + 3)))
        life.finish()

        assert ["newsletter_subscribed"] == [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("name", ["email", "Email", "Recipient Email Address"])
def test_the_address_may_stand_among_the_properties_of_the_event(name: str) -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        clicked: Any = {name: "erika@example.com"}
        life.tell(told(item("clicked_email", "e1", **clicked)))
        life.finish()

        assert [hash_email("erika@example.com")] == [event["user_id"] for event in life.sent]


def test_what_once_named_the_address_tells_whose_a_later_click_is() -> None:
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(told(item("subscribed_to_email_marketing", "e1", email="erika@example.com")))
        life.tell(told(item("clicked_email", "e2", at=NOW_S + 900, URL="https://shop.example/")))
        life.finish()

        assert 1 == len({event["user_id"] for event in life.sent})


@pytest.mark.parametrize(
    ("bad", "outcome"),
    [({"external_id": "e2", "topic": "event:klaviyo.clicked_email"}, Outcome.FAILED), ("e2", Outcome.NOT_MAPPED)],
)
def test_one_bad_item_keeps_its_siblings_from_nothing(bad: Any, outcome: Outcome) -> None:
    with rehearse(provider) as stage:
        mapped = stage.map(told(item("clicked_email", "e1"), bad, item("bounced_email", "e3")))

    assert [Outcome.MAPPED, outcome, Outcome.MAPPED] == [one.outcome for one in mapped]


def test_a_thousand_events_come_in_one_delivery() -> None:
    items = [item("clicked_email", f"e{number}", Subject="x" * 2000) for number in range(1000)]

    assert len(told(*items).body) < provider.body_limit
    assert 1000 == len(list(provider.notifications(told(*items))))


def test_a_signature_made_elsewhere_fits() -> None:
    """HMAC-SHA256 of `{}Thu, 04 Jan 2024 18:05:25 GMT` under the key, by `openssl dgst`: the body comes first."""
    verify, moment = provider.verifier.verify, "Thu, 04 Jan 2024 18:05:25 GMT"
    headers = {
        "klaviyo-timestamp": moment,
        "klaviyo-signature": "078d8fc9e021696be3649fd23b11a2365c29961816d88b60781d5cbe58cdd0ef",
    }
    later = {**headers, "klaviyo-timestamp": moment.replace("25", "26")}

    assert Accepted(0) == verify(Delivery(body=b"{}", headers=headers), [KEY], now_ms=START_MS)
    assert Refused(Reason.MISMATCH) == verify(Delivery(body=b"{}", headers=later), [KEY], now_ms=START_MS)


@pytest.mark.parametrize("moment", ["2024-01-04T18:05:25+00:00", "1704391525", "1704391525000"])
def test_the_time_may_be_written_otherwise(moment: str) -> None:
    body, verify = told(item("clicked_email", "e1")).body, provider.verifier.verify
    mac = hmac.digest(KEY.encode(), body + moment.encode(), "sha256").hex()
    headers = {"klaviyo-timestamp": moment, "klaviyo-signature": mac, "klaviyo-webhook-id": "01HF"}
    shifted = Delivery(body=body[:-1], headers={**headers, "klaviyo-timestamp": f"}}{moment}"})

    assert Accepted(0) == verify(Delivery(body=body, headers=headers), [KEY], now_ms=START_MS)
    assert Refused(Reason.MALFORMED) == verify(shifted, [KEY], now_ms=START_MS)
