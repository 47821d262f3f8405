"""Paystack: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.paystack import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

ADA = {"email": "ada@example.com", "customer_code": "CUS_1"}
PLAN = {"plan_code": "PLN_1", "interval": "monthly"}
IN_ORDER, TWICE, ANY_ORDER, LATE = TELLINGS


def charges(reference: str, at: str) -> dict[str, Any]:
    data = {"reference": reference, "amount": 500000, "currency": "NGN", "paid_at": at, "customer": ADA, "plan": PLAN}
    return {"event": "charge.success", "data": data}


CREATED = {
    "event": "subscription.create",
    "data": {"subscription_code": "SUB_1", "createdAt": "2026-11-20T09:30:21.000Z", "customer": ADA, "plan": PLAN},
}
INVOICED = {
    "event": "invoice.update",
    "data": {
        "invoice_code": "INV_1",
        "paid": True,
        "amount": 500000,
        "customer": ADA,
        "subscription": {"subscription_code": "SUB_1"},
        "transaction": {"reference": "second", "amount": 500000, "currency": "NGN"},
    },
}


def scenario(life: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str) -> Scenario:
    deliveries = [Delivery(body=orjson.dumps(body), headers={}) for body in life]
    return Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"NGN": Decimal(revenue)})


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE], ids=lambda telling: telling.name)
def test_the_charge_of_the_day_on_which_it_began_starts_a_subscription(telling: Telling) -> None:
    first, second = charges("first", "2026-11-20T09:30:19.000Z"), charges("second", "2026-12-20T09:30:06.000Z")
    ledger = [
        Entry("ada@example.com", "subscription_started", Decimal("5000.00"), "NGN"),
        Entry("ada@example.com", "subscription_renewed", Decimal("5000.00"), "NGN"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario([first, CREATED, second, INVOICED], ledger, "10000"), telling)
