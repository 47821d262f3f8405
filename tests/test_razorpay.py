"""Razorpay: one payment, told by many types."""

import json
from pathlib import Path
from typing import Any

import pytest

from mappers.razorpay import provider
from relay.contract import Delivery, Draft, Forgotten, Learned, Person

CASES = Path(__file__).parent / "mappers" / "razorpay"


def told(name: str, **payment: Any) -> list[Draft | Learned | Forgotten]:
    said = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]
    said["payload"]["payment"]["entity"] |= payment
    (notification,) = provider.notifications(Delivery(body=json.dumps(said).encode(), headers={}))
    return list(provider.mappers[notification.type](notification))


def drafts(name: str, **payment: Any) -> list[Draft]:
    return [draft for draft in told(name, **payment) if isinstance(draft, Draft)]


@pytest.mark.parametrize(
    "name",
    ["payment.captured__card", "order.paid__card", "payment_link.paid__card", "invoice.paid__by_hand",
     "invoice.paid__subscription", "subscription.charged__first"],
)  # fmt: skip
def test_all_types_that_tell_a_payment_have_its_key_and_its_time(name: str) -> None:
    (sale,) = drafts(name)
    (captured,) = drafts("payment.captured__card")

    assert (captured.once, captured.at_ms, captured.revenue) == (sale.once, sale.at_ms, sale.revenue)


@pytest.mark.parametrize("email", ["void@razorpay.com", "", None])
def test_an_address_that_stands_for_none_is_nobodys(email: str | None) -> None:
    (sale,) = drafts("payment.captured__card", email=email, customer_id=None)

    assert Person() == sale.person


def test_the_tax_on_the_fee_is_no_tax_of_the_sale() -> None:
    (sale,) = drafts("payment.captured__card", fee=3538, tax=540)

    assert sale.tax is None


@pytest.mark.parametrize(
    "kind",
    ["payment.authorized", "refund.failed", "qr_code.credited", "virtual_account.credited", "transfer.processed"],
)
def test_a_twin_is_silent(kind: str) -> None:
    assert (True, False) == (kind in provider.ignored, kind in provider.mappers)
