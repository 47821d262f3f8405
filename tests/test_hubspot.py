"""HubSpot: promises that take more than one notification."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mappers.hubspot import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.rehearsal import Sent, rehearse, source_of
from relay.store.schema import Outcome
from relay.trial import try_mapping

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


# --- a deal is like its contact ---------------------------------------------------------------------------------------

ADDRESS = {"subscriptionType": "contact.propertyChange", "objectId": 256}


def association(event_id: int) -> dict[str, Any]:
    return {
        "eventId": event_id, "subscriptionId": 2, "portalId": 62515, "occurredAt": NOW_MS, "attemptNumber": 0,
        "subscriptionType": "deal.associationChange", "associationType": "DEAL_TO_CONTACT", "fromObjectId": 1,
        "toObjectId": 256, "associationRemoved": False,
    }  # fmt: skip


def test_a_deal_is_of_whoever_its_contact_turns_out_to_be() -> None:
    """Without an API key its association tells the contact's id, and something else, later, the address."""
    (lost,) = told(
        delivery([association(1)]),
        delivery([change(2, "dealstage", "closedlost")]),
        delivery([change(3, "email", "erika@example.com") | ADDRESS]),
    )

    assert hashlib.sha256(b"erika@example.com").hexdigest() == lost["user_id"]


def test_who_asked_to_be_forgotten_is_behind_no_deal() -> None:
    gone = {
        "eventId": 9, "subscriptionId": 3, "portalId": 62515, "occurredAt": NOW_MS, "attemptNumber": 0,
        "subscriptionType": "contact.privacyDeletion", "objectId": 256,
    }  # fmt: skip
    (lost,) = told(
        delivery([association(1)]),
        delivery([change(3, "email", "erika@example.com") | ADDRESS]),
        delivery([gone]),
        delivery([change(2, "dealstage", "closedlost")]),
    )

    assert "user_id" not in lost


def test_an_amount_without_a_currency_is_in_that_of_the_source() -> None:
    with rehearse(provider, currency="EUR") as stage:
        life = stage.begin()
        life.tell(delivery([change(1, "dealstage", "closedwon"), change(2, "amount", "1200.50")]))
        life.finish()
        (won,) = life.sent

    assert ("1200.50", "EUR") == (str(won["revenue"]), won["currency"])


def test_a_trial_shows_who_is_forgotten() -> None:
    (tried,) = try_mapping(provider, source_of(provider), case("contact.privacyDeletion__asked"), now_ms=NOW_MS)

    assert ((), ("62515/contact:256",)) == (tried.learned, tried.forgotten)
