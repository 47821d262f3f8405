"""WooCommerce: promises that take more than one notification."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mappers.woocommerce import provider
from relay.contract import Answer, Delivery
from relay.rehearsal import rehearse, totals_of

CASES = Path(__file__).parent / "mappers" / "woocommerce"


def delivery(name: str, **change: Any) -> Delivery:
    case = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    headers = {key.lower(): value for key, value in case["headers"].items()}
    return Delivery(body=json.dumps(case["body"] | change).encode(), headers=headers)


def ledger(told: Iterable[Delivery]) -> tuple[dict[str, str], dict[str, int]]:
    """Revenue by currency, and events by name."""
    with rehearse(provider) as stage:
        life = stage.begin()
        for each in told:
            life.tell(each)
        life.finish()
        totals = totals_of(life.sent)
    return {currency: str(sum_) for currency, sum_ in totals.revenue.items()}, dict(totals.counts)


PAID, RENEWAL = delivery("order.updated__paid"), delivery("order.updated__renewal")
TRIAL, ACTIVE = delivery("subscription.created__trial", id=6120), delivery("subscription.created__active")


def test_the_first_order_of_a_subscription_starts_it() -> None:
    assert ({"EUR": "64.90"}, {"subscription_started": 1}) == ledger([ACTIVE, PAID])


@pytest.mark.parametrize("told", [(TRIAL, RENEWAL), (RENEWAL, TRIAL)], ids=["in order", "the other way round"])
def test_the_first_payment_after_a_trial_converts_it(told: tuple[Delivery, ...]) -> None:
    assert ({"EUR": "64.90"}, {"trial_converted": 1, "trial_started": 1}) == ledger(told)


def test_the_second_payment_after_a_trial_renews() -> None:
    later = delivery("order.updated__renewal", id=7399)

    assert ({"EUR": "129.80"}, {"subscription_renewed": 1, "trial_converted": 1, "trial_started": 1}) == ledger(
        [TRIAL, RENEWAL, later]
    )


def test_two_shops_of_one_source_may_have_the_same_order_numbers() -> None:
    other = replace(PAID, headers={**PAID.headers, "x-wc-webhook-source": "https://other.example.com/"})

    assert ({"EUR": "129.80"}, {"purchase": 2}) == ledger([PAID, other])


@pytest.mark.parametrize("source", ["http://shop.example.com/", "https://www.shop.example.com"])
def test_a_shop_is_the_same_however_its_address_is_written(source: str) -> None:
    moved = replace(PAID, headers={**PAID.headers, "x-wc-webhook-source": source})

    assert ({"EUR": "64.90"}, {"purchase": 1}) == ledger([PAID, moved])


def test_deliveries_of_one_second_are_told_apart() -> None:
    """WooCommerce gives them one id."""
    said = [next(provider.notifications(each)) for each in (PAID, delivery("order.updated__coupon"))]

    assert (1, 2) == (
        len({each.headers["x-wc-webhook-delivery-id"] for each in said}),
        len({each.id for each in said}),
    )


def test_the_ping_on_saving_a_webhook_is_answered_and_nothing_else_that_is_unsigned() -> None:
    def asked(body: bytes) -> Answer | None:
        return provider.handshake(Delivery(body=body, headers={}))

    assert asked(b"webhook_id=17") == Answer(200)
    assert [asked(body) for body in (b"", b"webhook_id=", b"webhook_id=17&id=1", b'{"id":1}')] == [None] * 4
