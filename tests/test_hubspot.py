"""HubSpot: promises that take more than one notification."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mappers.hubspot import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.rehearsal import Sent, rehearse
from relay.store.schema import Outcome

CASES = Path(__file__).parent / "mappers" / "hubspot"
NOW_MS = 1_795_170_000_000
URL = "https://relay.example.com/webhooks/hubspot"


def case(name: str) -> Delivery:
    read = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return delivery(read["body"], {key.lower(): value for key, value in read.get("headers", {}).items()})


def delivery(body: Any, headers: dict[str, str] | None = None) -> Delivery:
    return Delivery(body=json.dumps(body).encode(), headers=headers or {})


def change(event_id: int, name: str, value: Any, *, deal: int = 1, at_ms: int = NOW_MS) -> dict[str, Any]:
    return {
        "eventId": event_id, "subscriptionId": 1, "portalId": 62515, "occurredAt": at_ms, "attemptNumber": 0,
        "subscriptionType": "deal.propertyChange", "objectId": deal, "propertyName": name, "propertyValue": value,
    }  # fmt: skip


def told(*deliveries: Delivery) -> Sequence[Sent]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for one in deliveries:
            life.tell(one)
        life.finish()
        return life.sent


def whole_deal(deal: int) -> Delivery:
    body = json.loads((CASES / "workflow.deal__won.json").read_text(encoding="utf-8"))["body"] | {"objectId": deal}
    return delivery(body, {"x-hubspot-request-timestamp": str(NOW_MS)})


@pytest.mark.parametrize("is_workflow_first", [False, True])
def test_a_deal_that_is_won_is_told_once_and_with_its_amount(*, is_workflow_first: bool) -> None:
    """The subscription says that it is won, the workflow says for how much."""
    both = [delivery([change(1, "dealstage", "closedwon")]), whole_deal(1)]

    (won,) = told(*(reversed(both) if is_workflow_first else both))

    assert ("deal_won", "1200.50", "EUR") == (won["event_name"], str(won["revenue"]), won["currency"])


def test_of_several_amounts_in_one_delivery_the_last_counts() -> None:
    (won,) = told(
        delivery(
            [
                change(1, "amount", "20", at_ms=NOW_MS - 1),
                change(2, "amount", "10", at_ms=NOW_MS - 2),
                change(3, "deal_currency_code", "EUR"),
                change(4, "dealstage", "closedwon"),
            ]
        )
    )

    assert "20" == str(won["revenue"])


def test_what_is_said_of_one_object_is_not_said_of_another() -> None:
    sent = told(
        delivery(
            [
                change(1, "amount", "20", deal=7),
                change(2, "deal_currency_code", "EUR", deal=7),
                change(3, "dealstage", "closedwon", deal=8),
            ]
        )
    )

    assert [("8", None)] == [(event["properties"]["deal_id"], event.get("revenue")) for event in sent]


def test_an_address_that_comes_later_is_the_address_of_the_lead() -> None:
    lead = case("contact.creation__imported_old_form")
    later = change(9, "email", "erika@example.com") | {
        "subscriptionType": "contact.propertyChange", "objectId": 1246978, "portalId": 33
    }  # fmt: skip

    (event,) = told(lead, delivery([later]))

    assert hashlib.sha256(b"erika@example.com").hexdigest() == event["user_id"]


def test_a_retry_is_the_same_notification_and_the_same_event_id_of_another_object_is_not() -> None:
    first = change(1, "dealstage", "closedwon")
    ids = [
        found.id
        for body in (first, first | {"attemptNumber": 3}, first | {"objectId": 2})
        for found in provider.notifications(delivery([body]))
    ]

    assert (True, False) == (ids[0] == ids[1], ids[0] == ids[2])


@pytest.mark.parametrize("odd", [None, "text", 7, [], {}, {"subscriptionType": "contact.creation"}])
def test_one_odd_item_parks_alone(odd: Any) -> None:
    with rehearse(provider) as stage:
        mapped = stage.map(delivery([change(1, "dealstage", "closedlost"), odd]))

    assert [Outcome.MAPPED, True] == [mapped[0].outcome, mapped[1].outcome in {Outcome.FAILED, Outcome.NOT_MAPPED}]


def test_an_object_without_an_id_says_which_field_to_add() -> None:
    with rehearse(provider) as stage:
        (mapped,) = stage.map(delivery({"email": "erika@example.com"}, {"x-hubspot-request-timestamp": str(NOW_MS)}))

    assert (Outcome.FAILED, True) == (mapped.outcome, "hs_object_id" in str(mapped.error))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_old_signature_is_taken_where_the_source_asks_for_it(version: str) -> None:
    """It has no time in it, so that whoever has seen a delivery can send it again."""
    body = b'[{"eventId":1}]'
    signed = body if version == "v1" else b"POST" + URL.encode() + body
    header = hashlib.sha256(b"client secret" + signed).hexdigest()
    sent = Delivery(body=body, headers={"x-hubspot-signature": header}, url=URL)
    verify = provider.verifier.verify

    assert Accepted(0) == verify(sent, (f"{version}:client secret",), now_ms=NOW_MS)
    assert isinstance(verify(sent, ("client secret",), now_ms=NOW_MS), Refused)


def test_a_signature_of_yesterday_is_refused() -> None:
    sent = provider.verifier.sign(Delivery(body=b"[]", headers={}, url=URL), "client secret", now_ms=NOW_MS)

    assert Refused(Reason.STALE) == provider.verifier.verify(sent, ("client secret",), now_ms=NOW_MS + 86_400_000)
