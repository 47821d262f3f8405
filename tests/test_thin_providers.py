"""Providers that say too little: whatever tells a fact, and however often, it counts once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from relay.cases import read_cases
from relay.contract import Accepted, Delivery, Reason, Refused
from relay.registry import load_providers
from relay.rehearsal import rehearse, totals_of

PROVIDERS = load_providers(None)
CASES = Path(__file__).parent / "mappers"


def told(provider: str, *names: str) -> list[Delivery]:
    found = {case.name: case.delivery for case in read_cases(PROVIDERS[provider], CASES / provider)}
    return [found[name] for name in names]


def counts(provider: str, *deliveries: Delivery) -> dict[str, int]:
    with rehearse(PROVIDERS[provider]) as stage:
        life = stage.begin()
        for delivery in deliveries:
            life.tell(delivery)
        life.finish()
        return dict(totals_of(life.sent).counts)


MOLLIE = (
    "payment__classic",
    "payment.paid__full",
    "payment.paid__simple",
    "payment-link.paid__full",
    "payment__classic_refunded",
    "refund.refunded__full",
    "refund.refunded__simple",
)


@pytest.mark.parametrize("names", [MOLLIE, MOLLIE[::-1]], ids=["in order", "backwards"])
def test_all_that_mollie_says_of_a_sale_and_its_refund_is_one_sale_and_one_refund(names: tuple[str, ...]) -> None:
    deliveries = [
        replace(delivery, headers={**delivery.headers, "relay-received-ms": str(number)})
        for number, delivery in enumerate(told("mollie", *names))
    ]

    assert counts("mollie", *deliveries) == {"purchase": 1, "refund": 1}


def test_a_classic_webhook_of_mollie_needs_the_token_and_a_signed_one_does_not() -> None:
    verify = PROVIDERS["mollie"].verifier.verify
    (classic,) = told("mollie", "payment__classic")
    (event,) = told("mollie", "payment.paid__full")
    signed = PROVIDERS["mollie"].verifier.sign(event, "s", now_ms=0)
    rotated = {**signed.headers, "x-mollie-signature": f"sha256=00, {signed.headers['x-mollie-signature']}"}

    assert verify(classic, ("s",), now_ms=0) == Refused(Reason.MISSING)
    assert verify(replace(classic, query="token=s"), ("s",), now_ms=0) == Accepted(0)
    assert verify(replace(classic, query="token=t"), ("s",), now_ms=0) == Refused(Reason.MISMATCH)
    assert verify(replace(event, headers=rotated), ("s",), now_ms=0) == Accepted(0)


def test_what_mercado_pago_does_not_sign_cannot_make_a_payment_count_twice() -> None:
    (delivery,) = told("mercado_pago", "payment__pix")
    body = json.loads(delivery.body)
    others = [
        replace(delivery, body=json.dumps({**body, **changed}).encode())
        for changed in ({"id": 1}, {"action": "payment.created"}, {"user_id": 1}, {"api_version": "v2"})
    ]

    assert counts("mercado_pago", delivery, *others) == {"purchase": 1}


def test_a_payment_of_gocardless_that_bounces_nets_to_zero() -> None:
    with rehearse(PROVIDERS["gocardless"], refunds="conversion") as stage:
        life = stage.begin()
        for number, delivery in enumerate(
            told("gocardless", "payments.confirmed__one_off", "payments.late_failure_settled__bacs")
        ):
            body = delivery.body.replace(b"EV00BD05S5VM2T", b"EV%d" % number)
            life.tell(replace(delivery, body=body))
        life.finish()

        assert dict(totals_of(life.sent).revenue) == {"GBP": 0}


def test_however_a_refund_of_gocardless_comes_back_it_is_reversed_once() -> None:
    names = (
        "refunds.created__partial",
        "refunds.failed__bank",
        "refunds.bounced__bank",
        "refunds.funds_returned__bank",
    )
    deliveries = [
        replace(delivery, body=delivery.body.replace(b"EV00BD05S5VM2T", b"EV%d" % number))
        for number, delivery in enumerate(told("gocardless", *names))
    ]

    assert counts("gocardless", *deliveries) == {"refund": 1, "refund_reversed": 1}


def test_a_paid_invoice_of_recurly_counts_once_and_its_payment_not_at_all() -> None:
    (paid,) = told("recurly", "charge_invoice.paid__first")
    body = json.loads(paid.body)
    later = {**body, "event_time": "2026-11-20T22:00:00Z"}
    payment = {**body, "object_type": "payment", "event_type": "succeeded", "uuid": "63b0"}
    others = [replace(paid, body=json.dumps(one).encode()) for one in (later, payment)]

    assert counts("recurly", paid, *others) == {"subscription_started": 1}
