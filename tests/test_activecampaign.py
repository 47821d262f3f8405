"""ActiveCampaign: forms as they really come, and deals that are told more than once."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from mappers.activecampaign import provider
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.rehearsal import START_MS, rehearse
from relay.store.schema import Outcome

DEAL = {
    "type": "deal_update",
    "date_time": "2026-11-20T10:20:26-06:00",
    "deal[id]": "7",
    "deal[value]": "1,499.00",
    "deal[value_raw]": "1499",
    "deal[currency]": "usd",
    "deal[status]": "1",
    "deal[contactid]": "9",
    "contact[id]": "9",
    "contact[email]": "erika+shop@example.com",
}


def told(**more: str) -> Delivery:
    """Percent-encoded throughout, as ActiveCampaign sends it."""
    return Delivery(body=urlencode({**DEAL, **more}).encode(), headers={})


def sent(*deliveries: Delivery) -> list[tuple[str, str]]:
    with rehearse(provider) as stage:
        life = stage.begin()
        for delivery in deliveries:
            life.tell(delivery)
        life.finish()
        return [(event["event_name"], str(event.get("revenue"))) for event in life.sent]


def test_a_deal_is_won_once() -> None:
    """Updates that do not say what they changed are told again and again."""
    again = told(date_time="2026-11-21T10:20:26-06:00", **{"deal[title]": "another title"})

    assert [("deal_won", "1499.00")] == sent(told(), again)


@pytest.mark.parametrize(("shown", "raw"), [("1.499,00", "1499"), ("1,499.00", "14990")])
def test_values_that_cannot_be_the_same_are_parked(shown: str, raw: str) -> None:
    with rehearse(provider) as stage:
        mapped = stage.map(told(**{"deal[value]": shown, "deal[value_raw]": raw}))

    assert [Outcome.FAILED] == [one.outcome for one in mapped]


def test_the_plus_of_an_address_is_kept() -> None:
    (found,) = provider.notifications(told())

    assert "erika+shop@example.com" == found.body["contact[email]"]


def test_the_text_in_the_url_is_asked_for() -> None:
    verify, body = provider.verifier.verify, told().body

    assert Accepted(0) == verify(Delivery(body=body, headers={}, query="token=a-text"), ["a-text"], now_ms=START_MS)
    assert Refused(Reason.MISSING) == verify(Delivery(body=body, headers={}), ["a-text"], now_ms=START_MS)
