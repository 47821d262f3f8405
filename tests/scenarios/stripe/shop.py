"""What Stripe says of a shop's life, in each of the shapes that its API has had.

Independent of the mapper: objects as Stripe's reference and its real webhooks show them, with the fields that moved in
their place.
"""

# ruff: noqa: A002  Stripe's objects have an id, and it is called that

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.cases import delivery_of
from relay.contract import Delivery

Json = dict[str, Any]

LISTED = "2020-08-27"  # a charge lists its refunds, a payment its charges
BY_CHARGE = "2024-06-20"  # a charge tells the sum of its refunds, nothing else tells them
BASIL = "2025-03-31.basil"  # an invoice no longer names its payment, a payment no longer its invoice
ENDIVE = "2026-10-28.endive"  # a payment says what it is for
VERSIONS = (LISTED, BY_CHARGE, BASIL, ENDIVE)

START = 1_790_000_000
DAY = 86_400
MONTH = 30 * DAY

ADA, BOB = "ada@example.com", "bob@example.com"


class Shop:
    """A shop with a Stripe account. Time passes by a few seconds from word to word."""

    def __init__(self, version: str, *, account: str = "") -> None:
        self.version = version
        self.account = account
        self.now = START
        self.said: list[Json] = []

    @property
    def is_old(self) -> bool:
        return self.version < BASIL

    def say(self, kind: str, o: Json, before: Mapping[str, Any] | None = None) -> None:
        said: Json = {
            "id": f"evt_{self.account}{len(self.said) + 1:03}",
            "object": "event",
            "api_version": self.version,
            "created": self.now,
            "data": {"object": o} | ({"previous_attributes": before} if before else {}),
            "livemode": True,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        self.said.append(said | ({"account": self.account} if self.account else {}))
        self.now += 2

    def later(self, days: float) -> None:
        self.now += int(days * DAY)

    def deliveries(self) -> list[Delivery]:
        return [delivery_of(body, {}) for body in self.said]

    # --- objects ---
    # fmt: off

    def customer(self, email: str | None, *, id: str = "cus_1") -> Json:
        return {"id": id, "object": "customer", "created": self.now, "email": email, "livemode": True, "metadata": {},
                "name": "Ada Example", "phone": "+4915112345678"}

    def session(self, *, id: str = "cs_1", email: str | None = ADA, amount: int | None, currency: str = "eur",
                mode: str = "payment", **values: Any) -> Json:
        """A Checkout session that is complete."""
        address = {"city": "Berlin", "country": "DE", "line1": "Musterweg 7", "postal_code": "10115"}
        details: Json = {"address": address, "email": email, "name": "Ada Example", "phone": None, "tax_ids": []}
        newer: Json = {} if self.is_old else {"discounts": [], "presentment_details": None}
        return {
            "id": id, "object": "checkout.session", "amount_subtotal": amount, "amount_total": amount,
            "cancel_url": "https://shop.example.com/basket", "client_reference_id": None, "created": self.now - 60,
            "currency": currency, "customer": None, "customer_details": details, "customer_email": None,
            "expires_at": self.now + DAY, "invoice": None, "invoice_creation": {"enabled": False}, "livemode": True,
            "metadata": {}, "mode": mode, "payment_intent": None, "payment_link": None, "payment_status": "paid",
            "status": "complete", "subscription": None,
            "success_url": "https://shop.example.com/thanks?session={CHECKOUT_SESSION_ID}",
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, **newer, **values,
        }

    def payment_intent(self, *, id: str, amount: int, currency: str, charge: str | None, invoice: str | None = None,
                       session: str | None = None, description: str | None = None, **values: Any) -> Json:
        o: Json = {
            "id": id, "object": "payment_intent", "amount": amount, "amount_received": amount,
            "capture_method": "automatic", "created": self.now - 1, "currency": currency, "customer": None,
            "description": description, "last_payment_error": None, "latest_charge": charge, "livemode": True,
            "metadata": {}, "receipt_email": None, "status": "succeeded",
        }
        if self.is_old:
            o["invoice"] = invoice
        if self.version == LISTED:
            del o["latest_charge"]
            listed = self.charge(id=charge or "", payment=id, amount=amount, currency=currency, invoice=invoice)
            o["charges"] = {"object": "list", "data": [listed] if charge else []}
        if self.version == ENDIVE:
            o["payment_details"] = {"customer_reference": None, "order_reference": invoice or session}
        return o | values

    def charge(self, *, id: str, payment: str | None, amount: int, currency: str, invoice: str | None = None,
               email: str | None = None, description: str | None = None, **values: Any) -> Json:
        billing = {"address": {"country": "DE", "line1": None, "postal_code": "10115"}, "email": email,
                   "name": "Ada Example", "phone": None}
        o: Json = {
            "id": id, "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": 0,
            "billing_details": billing, "captured": True, "created": self.now - 1, "currency": currency,
            "customer": None, "description": description, "disputed": False, "failure_code": None, "livemode": True,
            "metadata": {}, "outcome": {"type": "authorized", "reason": None, "seller_message": "Payment complete."},
            "paid": True, "payment_intent": payment,
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "country": "DE", "last4": "4242"}},
            "receipt_email": None, "refunded": False, "status": "succeeded",
        }
        if self.is_old:
            o |= {"invoice": invoice, "order": None}
        if self.version == LISTED:
            o["refunds"] = {"object": "list", "data": [], "has_more": False}
        return o | values

    def invoice(self, *, id: str, amount: int, reason: str, subscription: str | None = None, currency: str = "eur",
                email: str | None = ADA, customer: str = "cus_1", payment: str | None = None, charge: str | None = None,
                lines: list[Json] | None = None, metadata: Mapping[str, Any] | None = None, **values: Any) -> Json:
        """An invoice that is paid. `metadata`: that of its subscription."""
        o: Json = {
            "id": id, "object": "invoice", "account_country": "DE", "amount_due": amount, "amount_paid": amount,
            "amount_remaining": 0, "amount_shipping": 0, "attempt_count": 1 if amount else 0, "attempted": True,
            "billing_reason": reason, "collection_method": "charge_automatically", "created": self.now - 3,
            "currency": currency, "customer": customer, "customer_address": None, "customer_email": email,
            "customer_name": "Ada Example", "customer_phone": None, "discounts": [],
            "hosted_invoice_url": "https://invoice.stripe.com/i/acct_1/live_token",
            "lines": {"object": "list", "data": lines or [], "has_more": False}, "livemode": True, "metadata": {},
            "number": "A-1", "status": "paid", "subtotal": amount, "total": amount, "total_discount_amounts": [],
            "status_transitions": {"finalized_at": self.now - 2, "paid_at": self.now - 1},
        }
        if self.is_old:
            o |= {"charge": charge, "discount": None, "paid": True, "paid_out_of_band": False,
                  "payment_intent": payment, "subscription": subscription, "tax": None, "total_tax_amounts": [],
                  "subscription_details": {"metadata": metadata or {}}}
        else:
            details = {"subscription": subscription, "metadata": metadata or {}}
            parent = {"quote_details": None, "subscription_details": details, "type": "subscription_details"}
            o |= {"parent": parent if subscription else None, "total_taxes": [], "amount_overpaid": 0}
        return o | values

    def line(self, plan: str, amount: int, *, start: int, end: int, subscription: str | None, unit: int,
             interval: str = "month", quantity: int = 1, prorated: bool = False) -> Json:
        o: Json = {"id": f"il_{plan}_{amount}", "object": "line_item", "amount": amount, "currency": "eur",
                   "description": plan, "discount_amounts": [], "livemode": True, "metadata": {},
                   "period": {"start": start, "end": end}, "quantity": quantity}
        if self.is_old:
            price = self.price(plan, unit, interval=interval)
            return o | {"price": price, "plan": price, "proration": prorated, "subscription": subscription,
                        "type": "subscription"}
        item = {"invoice_item": None, "proration": prorated, "subscription": subscription, "subscription_item": "si_1"}
        parent = {"invoice_item_details": None, "subscription_item_details": item, "type": "subscription_item_details"}
        pricing = {"price_details": {"price": plan, "product": "prod_1"}, "type": "price_details",
                   "unit_amount_decimal": str(unit)}
        return o | {"parent": parent, "pricing": pricing, "taxes": []}

    def price(self, plan: str, amount: int, *, interval: str = "month") -> Json:
        recurring = {"interval": interval, "interval_count": 1, "usage_type": "licensed"}
        return {"id": plan, "object": "price", "active": True, "currency": "eur", "product": "prod_1",
                "recurring": recurring, "type": "recurring", "unit_amount": amount}

    def subscription(self, plan: str, amount: int, *, id: str = "sub_1", customer: str = "cus_1", start: int, end: int,
                     quantity: int = 1, interval: str = "month", **values: Any) -> Json:
        price = self.price(plan, amount, interval=interval)
        old_plan = {"id": plan, "object": "plan", "amount": amount, "currency": "eur", "interval": interval,
                    "interval_count": 1, "product": "prod_1"}
        item: Json = {"id": "si_1", "object": "subscription_item", "created": START, "metadata": {}, "plan": old_plan,
                      "price": price, "quantity": quantity, "subscription": id}
        period = {"current_period_start": start, "current_period_end": end}
        o: Json = {
            "id": id, "object": "subscription", "billing_cycle_anchor": START, "cancel_at": None,
            "cancel_at_period_end": False, "canceled_at": None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": "charge_automatically", "created": START, "currency": "eur", "customer": customer,
            "ended_at": None, "items": {"object": "list", "data": [item], "has_more": False}, "latest_invoice": "in_1",
            "livemode": True, "metadata": {}, "pause_collection": None, "start_date": START, "status": "active",
            "trial_end": None, "trial_start": None,
        }
        if self.is_old:
            o |= {**period, "plan": old_plan, "quantity": quantity, "discount": None}
        else:
            item |= period
        return o | values

    def refund(self, *, id: str, payment: str, charge: str, amount: int, currency: str = "eur") -> Json:
        return {"id": id, "object": "refund", "amount": amount, "balance_transaction": "txn_1", "charge": charge,
                "created": self.now, "currency": currency, "metadata": {}, "payment_intent": payment,
                "reason": "requested_by_customer", "status": "succeeded"}
