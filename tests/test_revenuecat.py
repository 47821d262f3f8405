"""RevenueCat: promises that take more than one notification, and its two ways to prove who speaks."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappers.revenuecat import provider
from relay.contract import Accepted, Delivery, Draft, Reason, Refused, Verdict
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Scenario, Telling, check_scenario, read_scenarios, stage_for

SCENARIOS = read_scenarios(Path(__file__).parent / "scenarios" / "revenuecat")
CASES = Path(__file__).parent / "mappers" / "revenuecat"

NOW_MS = 1_795_170_000_000
SECRET = "a long secret of our own"


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_life_has_one_ledger_however_it_is_told(scenario: Scenario, telling: Telling) -> None:
    with stage_for(scenario, provider) as stage:
        assert [] == list(check_scenario(stage, scenario, telling))


# --- who speaks -------------------------------------------------------------------------------------------------------


def verdict(headers: dict[str, str], *, now_ms: int = NOW_MS) -> Verdict:
    return provider.verifier.verify(Delivery(body=b"{}", headers=headers), (SECRET,), now_ms=now_ms)


def signed() -> dict[str, str]:
    return dict(provider.verifier.sign(Delivery(body=b"{}", headers={}), SECRET, now_ms=NOW_MS).headers)


def test_the_signature_is_accepted() -> None:
    assert ["x-revenuecat-webhook-signature"] == list(signed())
    assert Accepted(0) == verdict(signed())


def test_an_old_signature_is_refused() -> None:
    assert Refused(Reason.STALE) == verdict(signed(), now_ms=NOW_MS + 301_000)


@pytest.mark.parametrize(
    "sent, expected",
    [
        (SECRET, Accepted(0)),
        (f"Bearer {SECRET}", Refused(Reason.MISMATCH)),
        (SECRET[:-1], Refused(Reason.MISMATCH)),
        ("schlüssel", Refused(Reason.MISMATCH)),
    ],
)
def test_the_authorization_header_is_compared_as_a_whole(sent: str, expected: Verdict) -> None:
    assert expected == verdict({"authorization": sent})


def test_without_either_it_is_refused() -> None:
    assert Refused(Reason.MISSING) == verdict({})


def test_the_authorization_header_is_never_stored() -> None:
    assert ("authorization",) == tuple(provider.verifier.credentials)


# --- what it says -----------------------------------------------------------------------------------------------------


def drafts(name: str, **changes: Any) -> list[Draft]:
    body = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]
    body["event"] |= changes
    (notification,) = provider.notifications(Delivery(body=json.dumps(body).encode(), headers={}))
    told = provider.mappers[notification.type](notification)
    return [thing for thing in told if isinstance(thing, Draft)]


def test_a_failed_payment_is_one_whichever_type_tells_it() -> None:
    (issue,), (cancellation,) = drafts("BILLING_ISSUE__grace"), drafts("CANCELLATION__billing_error")

    assert (issue.name, issue.once) == (cancellation.name, cancellation.once)


def test_parts_given_back_are_refunds_of_their_own() -> None:
    (part,) = drafts("CANCELLATION__refund", price_in_purchased_currency=-2.5)
    (rest,) = drafts("CANCELLATION__refund", price_in_purchased_currency=-7.49)

    assert part.once != rest.once


@pytest.mark.parametrize(
    "price, expected",
    [(9.99, (Decimal("9.99"), "EUR")), (None, (Decimal("10.79"), "USD"))],
    ids=["both are told", "no other is told"],
)
def test_the_price_in_dollars_is_told_where_no_other_is(price: float | None, expected: tuple[Decimal, str]) -> None:
    (told,) = drafts("INITIAL_PURCHASE__paid", price_in_purchased_currency=price)

    assert expected == (told.revenue, told.currency)


@pytest.mark.parametrize("attributes", [{"$email": "erika@example.com"}, {"$email": {"value": "erika@example.com"}}])
def test_attributes_may_come_without_their_times(attributes: dict[str, Any]) -> None:
    (told,) = drafts("INITIAL_PURCHASE__paid", subscriber_attributes=attributes)

    assert told.person.email == "erika@example.com"


@pytest.mark.parametrize("store, expected", [("STRIPE", 0), ("PADDLE", 0), ("RC_BILLING", 0), ("PLAY_STORE", 1)])
def test_what_another_source_tells_is_left_out_where_asked(store: str, expected: int) -> None:
    body = json.loads((CASES / "INITIAL_PURCHASE__paid.json").read_text(encoding="utf-8"))["body"]
    body["event"]["store"] = store
    said = Delivery(body=json.dumps(body).encode(), headers={})
    for options, leaves in ([], 1), (["apps_only"], expected):
        with rehearse(provider, options=options) as stage:
            life = stage.begin()
            life.tell(said)
            life.finish()

            assert leaves == len(life.sent)
