"""Xendit: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.xendit import provider
from relay.contract import Delivery
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

AT = "2026-11-20T09:30:04.705Z"
MONEY = {"currency": "IDR", "amount": 99000, "updated": AT}


def says(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "created": AT, "data": {"metadata": {"user_id": "u-42"}, **MONEY, **data}}


PAYMENT = says("payment.capture", payment_id="py-1", status="SUCCEEDED", reference_id="order-1")
SESSION = says("payment_session.completed", payment_session_id="ps-1", payment_id="py-1", reference_id="order-1")
INVOICE = {
    "id": "579c", "external_id": "order-1", "merchant_name": "Lamps", "status": "PAID", "payment_id": "py-1",
    "paid_amount": 99000, "paid_at": AT, "metadata": {"user_id": "u-42"}, **MONEY,
}  # fmt: skip
REFUND = says("refund.succeeded", id="rfd-1", payment_id="py-1", metadata=None, amount=9000, status="SUCCEEDED")


def scenario(life: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str) -> Scenario:
    deliveries = [Delivery(body=orjson.dumps(body), headers={}) for body in life]
    return Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"IDR": Decimal(revenue)})


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
def test_a_payment_its_session_and_its_invoice_are_one_sale(telling: Telling) -> None:
    ledger = [
        Entry("site:u-42", "purchase", Decimal(99000), "IDR"),
        Entry("site:u-42", "refund", Decimal(9000), "IDR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario([PAYMENT, SESSION, INVOICE, REFUND], ledger, "99000"), telling)
