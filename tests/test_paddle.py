"""Paddle: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.paddle import provider
from relay.contract import Delivery, Draft, Forgotten, Learned
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

ADA = "ada@example.com"
TIMES = {"billed_at": "2026-11-20T09:30:00Z", "started_at": "2026-11-20T09:30:00Z"}
IN_ORDER, TWICE, ANY_ORDER, LATE = TELLINGS


def says(kind: str, entity: str, **data: Any) -> dict[str, Any]:
    data = {"id": entity, "customer_id": "ctm_1", "currency_code": "EUR", "items": [], **TIMES, **data}
    event_id = f"evt_{kind}_{entity}_{data.get('status')}"
    return {"event_id": event_id, "event_type": kind, "occurred_at": "2026-11-20T09:30:01.5Z", "data": data}


def pays(entity: str, amount: str, **data: Any) -> dict[str, Any]:
    totals = {"tax": "0", "total": amount, "grand_total": amount}
    return says("transaction.completed", entity, **{"origin": "web", "details": {"totals": totals}, **data})


def gives_back(entity: str, amount: str, **data: Any) -> list[dict[str, Any]]:
    given = {"transaction_id": "txn_1", "action": "refund", "totals": {"tax": "0", "total": amount}, **data}
    return [
        says("adjustment.created", entity, status="pending_approval", **given),
        says("adjustment.updated", entity, status="approved", **given),
    ]


CUSTOMER = says("customer.created", "ctm_1", email=ADA)

SALE_AND_REFUNDS = [CUSTOMER, pays("txn_1", "2975"), *gives_back("adj_1", "500"), *gives_back("adj_2", "2475")]

TRIAL = [
    CUSTOMER,
    pays("txn_1", "0", subscription_id="sub_1"),
    says("subscription.created", "sub_1", status="trialing"),
    says("subscription.trialing", "sub_1", status="trialing"),
    says("subscription.activated", "sub_1", status="active", items=[{"trial_dates": {"starts_at": "2026-11-20"}}]),
    pays("txn_2", "1900", subscription_id="sub_1", origin="subscription_recurring"),
    pays("txn_3", "1900", subscription_id="sub_1", origin="subscription_recurring"),
]


def scenario(life: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str) -> Scenario:
    deliveries = [Delivery(body=orjson.dumps(body), headers={}) for body in life]
    return Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"EUR": Decimal(revenue)})


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
def test_a_sale_and_the_parts_that_were_given_back(telling: Telling) -> None:
    ledger = [
        Entry(ADA, "purchase", Decimal("29.75"), "EUR"),
        Entry(ADA, "refund", Decimal("5.00"), "EUR"),
        Entry(ADA, "refund", Decimal("24.75"), "EUR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(SALE_AND_REFUNDS, ledger, "29.75"), telling)


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE], ids=lambda telling: telling.name)
def test_the_first_payment_after_a_trial_converts_it(telling: Telling) -> None:
    ledger = [
        Entry(ADA, "trial_started"),
        Entry(ADA, "trial_converted", Decimal("19.00"), "EUR"),
        Entry(ADA, "subscription_renewed", Decimal("19.00"), "EUR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(TRIAL, ledger, "38.00"), telling)


def told(body: dict[str, Any]) -> list[Draft | Learned | Forgotten]:
    (notification,) = provider.notifications(Delivery(body=orjson.dumps(body), headers={}))
    return list(provider.mappers[notification.type](notification))


def test_a_warning_and_its_chargeback_are_one_dispute() -> None:
    action = {"transaction_id": "txn_1", "status": "approved", "totals": {"total": "500"}}
    warned, charged = (
        told(says("adjustment.created", entity, action=name, **action))[0]
        for entity, name in (("adj_1", "chargeback_warning"), ("adj_2", "chargeback"))
    )

    assert isinstance(warned, Draft)
    assert isinstance(charged, Draft)
    assert ("dispute_opened", warned.once) == (charged.name, charged.once)


def test_an_attempt_that_is_told_again_with_a_later_one_counts_once() -> None:
    first, second = ({"payment_attempt_id": f"try_{n}", "status": "error"} for n in (1, 2))
    details = {"totals": {"grand_total": "500"}}
    keys = [
        [draft.once for draft in told(says("transaction.payment_failed", "txn_1", payments=tries, details=details))
         if isinstance(draft, Draft)]
        for tries in ([first], [second, first])
    ]  # fmt: skip

    assert [[("payment_failed:try_1",)], [("payment_failed:try_2",)]] == keys
