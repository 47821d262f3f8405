"""Lemon Squeezy: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.lemon_squeezy import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

ADA = "ada@example.com"
TIMES = {"created_at": "2026-11-20T09:30:00.000000Z", "updated_at": "2026-11-20T09:30:01.000000Z"}

every_telling = pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)


def says(kind: str, entity: str, **attributes: Any) -> dict[str, Any]:
    attributes = {"user_email": ADA, "customer_id": 5, "currency": "EUR", "status": "paid", **TIMES, **attributes}
    return {"meta": {"event_name": kind}, "data": {"id": entity, "attributes": attributes}}


def orders(total: int) -> dict[str, Any]:
    return says("order_created", "1", total=total)


def subscribes(**attributes: Any) -> dict[str, Any]:
    return says("subscription_created", "7", order_id=1, **{"status": "active", **attributes})


def pays(invoice: str, total: int, reason: str = "renewal") -> dict[str, Any]:
    paid = {"subscription_id": 7, "billing_reason": reason, "total": total}
    return says("subscription_payment_success", invoice, **paid)


ONE_OFF = [orders(2975), says("order_refunded", "1", total=2975, refunded_amount=2975, refunded=True)]
SUBSCRIPTION = [orders(1900), subscribes(), pays("11", 1900, "initial"), pays("12", 1900)]
TRIAL = [
    orders(0),
    subscribes(status="on_trial", trial_ends_at="2026-12-04T09:30:00.000000Z"),
    pays("11", 0, "initial"),
    pays("12", 1900),
    pays("13", 1900),
]
REFUNDS_IN_PARTS = [
    orders(2975),
    says("order_refunded", "1", total=2975, refunded_amount=500, refunded=False),
    says("order_refunded", "1", total=2975, refunded_amount=2975, refunded=True),
]


def check(life: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str, telling: Telling) -> list[str]:
    deliveries = [Delivery(body=orjson.dumps(body), headers={}) for body in life]
    scenario = Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"EUR": Decimal(revenue)})
    with rehearse(provider) as stage:
        return check_scenario(stage, scenario, telling)


def of_ada(name: str, amount: str) -> Entry:
    return Entry(ADA, name, Decimal(amount), "EUR")


@every_telling
def test_an_order_is_a_purchase_when_no_subscription_names_it(telling: Telling) -> None:
    ledger = [of_ada("purchase", "29.75"), of_ada("refund", "29.75")]

    assert [] == check(ONE_OFF, ledger, "29.75", telling)


@pytest.mark.parametrize("telling", TELLINGS[:3], ids=lambda telling: telling.name)
def test_an_order_its_subscription_and_its_first_invoice_are_one_sale(telling: Telling) -> None:
    ledger = [of_ada("subscription_started", "19.00"), of_ada("subscription_renewed", "19.00")]

    assert [] == check(SUBSCRIPTION, ledger, "38.00", telling)


@pytest.mark.parametrize("telling", TELLINGS[:3], ids=lambda telling: telling.name)
def test_the_first_payment_after_a_trial_converts_it(telling: Telling) -> None:
    ledger = [Entry(ADA, "trial_started"), of_ada("trial_converted", "19.00"), of_ada("subscription_renewed", "19.00")]

    assert [] == check(TRIAL, ledger, "38.00", telling)


@pytest.mark.parametrize("telling", TELLINGS[:2], ids=lambda telling: telling.name)
def test_a_running_total_of_refunds_is_never_told_as_another_refund(telling: Telling) -> None:
    ledger = [of_ada("purchase", "29.75"), of_ada("refund", "5.00")]

    assert [] == check(REFUNDS_IN_PARTS, ledger, "29.75", telling)
