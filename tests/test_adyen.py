"""Adyen: items that are signed one by one, and Adyen's own decimals."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappers.adyen import provider
from relay.contract import Accepted, Delivery, Draft, Notification, Reason, Refused
from relay.rehearsal import rehearse

CASES = Path(__file__).parent / "mappers" / "adyen"
KEY, OLD_KEY = "5E" * 32, "7B" * 32
NOW_MS = 1_795_170_000_000


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def signed(said: Any, key: str = KEY) -> Delivery:
    return provider.verifier.sign(Delivery(body=json.dumps(said).encode(), headers={}), key, now_ms=NOW_MS)


def changed(sent: Delivery, **fields: Any) -> Delivery:
    """With these fields of its last item changed after it was signed."""
    said = json.loads(sent.body)
    said["notificationItems"][-1]["NotificationRequestItem"] |= fields
    return Delivery(body=json.dumps(said).encode(), headers=sent.headers)


def notifications(said: Any) -> list[Notification]:
    return list(provider.notifications(Delivery(body=json.dumps(said).encode(), headers={})))


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": {"currency": "EUR", "value": 1}},
        {"amount": {"currency": "USD", "value": 500}},
        {"success": "false"},
        {"merchantReference": "shop-1"},
        {"pspReference": "another"},
        {"additionalData": {}},
    ],
    ids=str,
)
def test_every_item_must_fit(fields: dict[str, Any]) -> None:
    sent = signed(body("AUTHORISATION__two_items"))

    assert Accepted(0) == provider.verifier.verify(sent, (KEY,), now_ms=NOW_MS)
    assert isinstance(provider.verifier.verify(changed(sent, **fields), (KEY,), now_ms=NOW_MS), Refused)


def test_what_was_signed_with_the_old_key_fits_while_both_are_known() -> None:
    sent = signed(body("REFUND__part"), OLD_KEY)

    assert Accepted(1) == provider.verifier.verify(sent, (KEY, OLD_KEY), now_ms=NOW_MS)
    assert Refused(Reason.MISMATCH) == provider.verifier.verify(sent, (KEY,), now_ms=NOW_MS)


def test_a_user_and_password_are_asked_for_where_they_are_known() -> None:
    """Most of an item is not signed: they vouch for the rest."""
    secret = f"{KEY}:user:password"
    sent = provider.verifier.sign(
        Delivery(body=json.dumps(body("REFUND__part")).encode(), headers={}), secret, now_ms=0
    )

    assert Accepted(0) == provider.verifier.verify(sent, (secret,), now_ms=NOW_MS)
    assert isinstance(provider.verifier.verify(signed(body("REFUND__part")), (secret,), now_ms=NOW_MS), Refused)


def test_two_items_are_two_notifications() -> None:
    found = notifications(body("AUTHORISATION__two_items"))

    assert 2 == len({each.id for each in found})
    assert all(each.id.endswith(":AUTHORISATION:true") for each in found)


@pytest.mark.parametrize("live, is_test", [("true", False), ("false", True), (False, True), (None, False)])
def test_only_what_says_so_is_a_test(live: object, is_test: bool) -> None:  # noqa: FBT001
    said = body("AUTHORISATION__card") | {"live": live}

    assert [is_test] == [each.is_test for each in notifications(said)]


@pytest.mark.parametrize("reference", ["test_AUTHORISATION_1", "testnotification_NOTIFICATIONTEST"])
def test_what_the_test_button_sends_is_a_test_in_a_live_account_too(reference: str) -> None:
    said = body("AUTHORISATION__card")
    said["notificationItems"][0]["NotificationRequestItem"]["pspReference"] = reference

    assert [True] == [each.is_test for each in notifications(said)]


@pytest.mark.parametrize(
    "currency, value, revenue",
    [("EUR", 1000, "10.00"), ("JPY", 1000, "1000"), ("KWD", 1000, "1.000"), ("HUF", 1000, "10.00"),
     ("CLP", 1000, "10.00"), ("ISK", 1000, "10.00"), ("CVE", 1000, "1000"), ("IDR", 1000, "1000")],
)  # fmt: skip
def test_decimals_are_adyens(currency: str, value: int, revenue: str) -> None:
    said = body("AUTHORISATION__card")
    said["notificationItems"][0]["NotificationRequestItem"]["amount"] = {"currency": currency, "value": value}
    drafts = [draft for each in notifications(said) for draft in provider.mappers[each.type](each)]

    assert [Decimal(revenue)] == [draft.revenue for draft in drafts if isinstance(draft, Draft)]


def test_it_is_accepted_in_adyens_words() -> None:
    assert (200, b"[accepted]") == (provider.accepted.status, provider.accepted.body)


# --- captured by hand -------------------------------------------------------------------------------------------------


def sales(options: list[str], *told: str) -> list[tuple[str, Decimal]]:
    """The payment and the amount of each purchase that leaves."""
    with rehearse(provider, options=options) as stage:
        life = stage.begin()
        for name in told:
            life.tell(Delivery(body=json.dumps(body(name)).encode(), headers={}))
        life.finish()
        found = [event for event in life.sent if event["event_name"] == "purchase"]
        return [(event["properties"]["payment_id"], event["revenue"]) for event in found]


@pytest.mark.parametrize("options", [[], ["captures"]])
def test_a_payment_is_one_sale_by_its_authorisation_or_by_its_capture(options: list[str]) -> None:
    told = ("AUTHORISATION__card", "CAPTURE__captured")

    assert [("K7WZ4MTX9QBRN365", Decimal("29.75"))] == sales(options, *told) == sales(options, *reversed(told))


def test_an_authorisation_is_no_sale_where_captures_are() -> None:
    assert [] == sales(["captures"], "AUTHORISATION__card")


def test_what_was_told_before_captures_counted_is_not_told_again() -> None:
    deliveries = [Delivery(body=json.dumps(body(name)).encode(), headers={})
                  for name in ("AUTHORISATION__card", "CAPTURE__captured")]  # fmt: skip
    with rehearse(provider, options=[]) as stage:
        life = stage.begin()
        life.tell(deliveries[0])
        life.source = replace(life.source, enabled=frozenset({"captures"}))
        life.tell(deliveries[1])
        life.finish()

        assert ["purchase"] == [event["event_name"] for event in life.sent]
