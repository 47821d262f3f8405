"""FastSpring: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.fastspring import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

ADA = "ada@example.com"
AT_MS = 1_795_170_000_000
CONTACT = {"id": "acct_1", "account": "acct_1", "contact": {"email": ADA}}


def says(kind: str, **data: Any) -> dict[str, Any]:
    named = data.get("id") or data.get("order") or data.get("return")
    data = {"changed": AT_MS, "timestamp": AT_MS, "currency": "EUR", "live": True, **data}
    return {"id": f"evt_{kind}_{named}", "type": kind, "live": True, "created": AT_MS, "data": data}


ACCOUNT = says("account.created", **CONTACT)
TRIAL = [
    says("order.completed", id="ord_1", account="acct_1", customer={"email": ADA}, total=0,
         items=[{"product": "pro", "subscription": "sub_1"}]),
    says("subscription.activated", id="sub_1", state="trial", account=CONTACT, product="pro"),
    says("subscription.charge.completed", order="ord_2", total=29.0, account="acct_1", subscription="sub_1"),
    says("subscription.charge.completed", order="ord_3", total=29.0, account="acct_1", subscription="sub_1"),
    says("return.created", **{"return": "ret_1"}, original={"id": "ord_3"}, account="acct_1", totalReturn=29.0),
]  # fmt: skip


def scenario(events: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str) -> Scenario:
    deliveries = [Delivery(body=orjson.dumps({"events": [event]}), headers={}) for event in events]
    return Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"EUR": Decimal(revenue)})


@pytest.mark.parametrize("telling", TELLINGS[:2], ids=lambda telling: telling.name)
def test_the_first_charge_after_a_trial_converts_it(telling: Telling) -> None:
    ledger = [
        Entry(ADA, "trial_started"),
        Entry(ADA, "trial_converted", Decimal("29.00"), "EUR"),
        Entry(ADA, "subscription_renewed", Decimal("29.00"), "EUR"),
        Entry(ADA, "refund", Decimal("29.00"), "EUR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(TRIAL, ledger, "58.00"), telling)


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
def test_a_charge_without_an_address_waits_for_its_account(telling: Telling) -> None:
    begun = says("subscription.activated", id="sub_1", state="active", account="acct_1", product="pro")
    charged = says("subscription.charge.completed", order="ord_2", total=29.0, account="acct_1", subscription="sub_1")
    ledger = [Entry(ADA, "subscription_renewed", Decimal("29.00"), "EUR")]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario([begun, charged, ACCOUNT], ledger, "29.00"), telling)


def test_one_event_of_a_delivery_that_cannot_be_mapped_does_not_hold_back_the_others() -> None:
    broken = says("order.completed", id="ord_9", account="acct_1", items=[])
    body = orjson.dumps({"events": [broken, TRIAL[2]]})
    with rehearse(provider) as stage:
        bad, good = stage.map(Delivery(body=body, headers={}))

    assert "KeyError: 'total'" in (bad.error or "")
    assert ["subscription_renewed"] == [outgoing.sealed.event.event_name for outgoing in good.events]
