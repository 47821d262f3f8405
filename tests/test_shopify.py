"""Shopify: promises that take more than one notification, or none."""

import json
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappers.shopify import provider
from relay.contract import Accepted, Delivery
from relay.rehearsal import rehearse

CASES = Path(__file__).parent / "mappers" / "shopify"


def delivery(name: str, **change: Any) -> Delivery:
    case = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    headers = {key.lower(): value for key, value in case["headers"].items()}
    return Delivery(body=json.dumps(case["body"] | change).encode(), headers=headers)


def told(said: Iterable[Delivery], *options: str) -> list[tuple[str, Decimal]]:
    """Name and money of what leaves."""
    with rehearse(provider, options=options) as stage:
        life = stage.begin()
        for each in said:
            life.tell(each)
        life.finish()
        sent = life.sent
    return sorted(
        (event["event_name"], Decimal(event.get("revenue", event["properties"].get("amount")))) for event in sent
    )


PLACED, PAID = delivery("orders_create__cash_on_delivery"), delivery("orders_paid__card", id=6190274814390)


@pytest.mark.parametrize("said", [(PLACED, PAID), (PAID, PLACED)], ids=["placed first", "paid first"])
def test_an_order_that_is_placed_and_paid_is_one_sale(said: tuple[Delivery, ...]) -> None:
    assert [("purchase", Decimal("64.90"))] == told(said, "orders_create")


def test_a_placed_order_is_no_sale_unless_asked_for() -> None:
    assert [] == told([PLACED])


PENDING, SETTLED = delivery("refunds_create__pending"), delivery("order_transactions_create__refund", id=7310022995)


@pytest.mark.parametrize("said", [(PENDING, SETTLED), (SETTLED, PENDING)], ids=["pending first", "settled first"])
def test_a_refund_that_was_pending_is_told_when_it_is_settled(said: tuple[Delivery, ...]) -> None:
    assert [("refund", Decimal("64.90"))] == told(said)


WHOLE, TWIN = delivery("refunds_create__whole"), delivery("order_transactions_create__refund", id=7310022990)


@pytest.mark.parametrize("said", [(WHOLE, TWIN), (TWIN, WHOLE)], ids=["refund first", "transaction first"])
def test_a_refund_and_its_transaction_are_one_refund(said: tuple[Delivery, ...]) -> None:
    assert [("refund", Decimal("64.90"))] == told(said)


def test_a_transaction_tells_the_refund_where_nobody_else_does() -> None:
    assert [("refund", Decimal("64.90"))] == told([TWIN])


def test_the_newer_headers_are_understood() -> None:
    """Shopify's Events have no `X-` before them."""
    signed = provider.verifier.sign(WHOLE, "secret", now_ms=1)
    newer = replace(signed, headers={name.removeprefix("x-"): value for name, value in signed.headers.items()})
    (notification,) = provider.notifications(newer)

    assert Accepted(0) == provider.verifier.verify(newer, ("secret",), now_ms=1)
    assert ("refunds/create", newer.headers["shopify-webhook-id"]) == (notification.type, notification.id)


def test_what_the_test_button_sends_is_a_test() -> None:
    pressed = replace(PAID, headers={**PAID.headers, "x-shopify-test": "true"})

    assert [True, False] == [next(provider.notifications(each)).is_test for each in (pressed, PAID)]
