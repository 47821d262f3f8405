"""PayPal: what takes more than one notification."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from mappers.paypal import provider
from relay.contract import Delivery, Draft, Forgotten, Learned
from relay.rehearsal import rehearse
from relay.scenarios import TELLINGS, Entry, Scenario, Telling, check_scenario

ADA = "ada@example.com"
API = "https://api.paypal.com"
IN_ORDER, TWICE, ANY_ORDER, LATE = TELLINGS


def says(kind: str, **resource: Any) -> dict[str, Any]:
    told = f"{kind}-{resource.get('id')}-{resource.get('dispute_id')}"
    return {"id": f"WH-{told}", "event_type": kind, "create_time": "2026-11-20T09:30:05Z", "resource": resource}


def links(**hrefs: str) -> list[dict[str, str]]:
    return [{"rel": rel, "href": API + href} for rel, href in hrefs.items()]


APPROVED = says(
    "CHECKOUT.ORDER.APPROVED", id="5O19", purchase_units=[{}], payer={"email_address": ADA, "payer_id": "P1"}
)
CAPTURED = says(
    "PAYMENT.CAPTURE.COMPLETED",
    id="CAP1",
    amount={"value": "29.75", "currency_code": "EUR"},
    create_time="2026-11-20T09:30:00Z",
    links=links(up="/v2/checkout/orders/5O19"),
)
REVERSED = says(
    "PAYMENT.CAPTURE.REVERSED",
    id="REV1",
    amount={"value": "29.75", "currency_code": "EUR"},
    create_time="2026-11-24T09:30:00Z",
    links=links(up="/v2/payments/captures/CAP1"),
)
DISPUTED = says(
    "CUSTOMER.DISPUTE.CREATED",
    dispute_id="PP-D-1",
    dispute_amount={"value": "29.75", "currency_code": "EUR"},
    create_time="2026-11-24T09:00:00Z",
    disputed_transactions=[{"seller_transaction_id": "CAP1"}],
)


def gives_back(entity: str, amount: str) -> dict[str, Any]:
    return says(
        "PAYMENT.CAPTURE.REFUNDED",
        id=entity,
        amount={"value": amount, "currency_code": "EUR"},
        create_time="2026-11-21T09:30:00Z",
        links=links(self=f"/v2/payments/refunds/{entity}", up="/v2/payments/captures/CAP1"),
    )


def activates(**billing: Any) -> dict[str, Any]:
    return says(
        "BILLING.SUBSCRIPTION.ACTIVATED",
        id="I-1",
        start_time="2026-11-20T23:59:30Z",
        status_update_time="2026-11-20T23:59:58Z",
        subscriber={"email_address": ADA, "payer_id": "P1"},
        billing_info=billing,
    )


def pays(entity: str, at: str) -> dict[str, Any]:
    amount = {"total": "19.00", "currency": "EUR"}
    return says("PAYMENT.SALE.COMPLETED", id=entity, billing_agreement_id="I-1", amount=amount, create_time=at)


def scenario(life: Sequence[dict[str, Any]], ledger: Sequence[Entry], revenue: str) -> Scenario:
    deliveries = [Delivery(body=orjson.dumps(body), headers={}) for body in life]
    return Scenario(name="", about="", deliveries=deliveries, ledger=ledger, revenue={"EUR": Decimal(revenue)})


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
def test_a_sale_and_the_parts_that_were_given_back(telling: Telling) -> None:
    life = [APPROVED, CAPTURED, gives_back("REF1", "5.00"), gives_back("REF2", "24.75")]
    ledger = [
        Entry(ADA, "purchase", Decimal("29.75"), "EUR"),
        Entry(ADA, "refund", Decimal("5.00"), "EUR"),
        Entry(ADA, "refund", Decimal("24.75"), "EUR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(life, ledger, "29.75"), telling)


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE, ANY_ORDER], ids=lambda telling: telling.name)
def test_a_reversal_and_its_dispute_are_one(telling: Telling) -> None:
    ledger = [
        Entry(ADA, "purchase", Decimal("29.75"), "EUR"),
        Entry(ADA, "dispute_opened", Decimal("29.75"), "EUR"),
    ]
    with rehearse(provider) as stage:
        life = [APPROVED, CAPTURED, DISPUTED, REVERSED]
        assert [] == check_scenario(stage, scenario(life, ledger, "29.75"), telling)


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE], ids=lambda telling: telling.name)
def test_the_payment_of_the_day_on_which_it_began_starts_a_subscription(telling: Telling) -> None:
    """After midnight, too."""
    life = [pays("S1", "2026-11-21T00:00:10Z"), activates(), pays("S2", "2026-12-20T10:00:00Z")]
    ledger = [
        Entry(ADA, "subscription_started", Decimal("19.00"), "EUR"),
        Entry(ADA, "subscription_renewed", Decimal("19.00"), "EUR"),
    ]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(life, ledger, "38.00"), telling)


CYCLES = [{"tenure_type": "TRIAL", "cycles_completed": 0}, {"tenure_type": "REGULAR", "cycles_completed": 0}]
TRIAL = activates(cycle_executions=CYCLES, next_billing_time="2026-11-20T10:00:00Z")
CONVERTED = [
    Entry(ADA, "trial_converted", Decimal("19.00"), "EUR"),
    Entry(ADA, "subscription_renewed", Decimal("19.00"), "EUR"),
]


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE], ids=lambda telling: telling.name)
def test_the_first_payment_after_a_trial_converts_it(telling: Telling) -> None:
    life = [TRIAL, pays("S1", "2026-12-04T10:31:00Z"), pays("S2", "2027-01-04T10:31:00Z")]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(life, [Entry(ADA, "trial_started"), *CONVERTED], "38.00"), telling)


@pytest.mark.parametrize("telling", [IN_ORDER, TWICE], ids=lambda telling: telling.name)
def test_a_trial_that_is_paid_for_starts_a_subscription_and_is_converted_by_the_next_payment(telling: Telling) -> None:
    life = [
        TRIAL,
        pays("S0", "2026-11-20T23:59:59Z"),
        pays("S1", "2026-12-04T10:31:00Z"),
        pays("S2", "2027-01-04T10:31:00Z"),
    ]
    started = [Entry(ADA, "trial_started"), Entry(ADA, "subscription_started", Decimal("19.00"), "EUR")]
    with rehearse(provider) as stage:
        assert [] == check_scenario(stage, scenario(life, [*started, *CONVERTED], "57.00"), telling)


def test_a_notification_with_an_impossible_time_is_told_by_that_of_its_subject() -> None:
    """As some of PayPal's own samples have it."""
    body = {**CAPTURED, "create_time": "2018-19-12T22:20:32.000Z"}
    (notification,) = provider.notifications(Delivery(body=orjson.dumps(body), headers={}))
    told: list[Draft | Learned | Forgotten] = list(provider.mappers[notification.type](notification))

    assert [1795167000000] == [draft.at_ms for draft in told if isinstance(draft, Draft)]
