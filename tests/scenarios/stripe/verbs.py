"""What happens in a shop, each with all that Stripe says of it: twins, steps on the way and what nobody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.scenarios.stripe.shop import ADA, DAY, LISTED, MONTH, Json, Shop

# --- one-off payments -------------------------------------------------------------------------------------------------


def pays(
    shop: Shop, amount: int = 1999, currency: str = "eur", *, n: int = 1, email: str | None = ADA, **session: Any
) -> None:
    """A card payment through Checkout."""
    charged(shop, amount, currency, n=n, email=email, session=f"cs_{n}", customer=session.get("customer"))
    shop.say(
        "checkout.session.completed",
        shop.session(id=f"cs_{n}", email=email, amount=amount, currency=currency, payment_intent=f"pi_{n}", **session),
    )


def charged(shop: Shop, amount: int, currency: str = "eur", *, n: int, email: str | None = ADA, invoice: str | None =
            None, session: str | None = None, description: str | None = None, **values: Any) -> None:  # fmt: skip
    """The payment itself, whoever asked for it."""
    common = {"amount": amount, "currency": currency, "invoice": invoice, "description": description, **values}
    payment = shop.payment_intent(id=f"pi_{n}", charge=f"ch_{n}", session=session, **common)
    shop.say("charge.succeeded", shop.charge(id=f"ch_{n}", payment=f"pi_{n}", email=email, **common))
    shop.say("payment_intent.succeeded", payment)


def pays_and_gets_an_invoice(shop: Shop, amount: int = 1999) -> None:
    """Checkout with `invoice_creation`: the invoice is made when the payment is through."""
    shop.say("customer.created", shop.customer(ADA))
    charged(shop, amount, n=1, session="cs_1", customer="cus_1")
    paid(shop, "in_1", amount, n=1, reason="manual", is_charged=False)
    shop.say(
        "checkout.session.completed",
        shop.session(amount=amount, payment_intent="pi_1", invoice="in_1", customer="cus_1",
                     invoice_creation={"enabled": True, "invoice_data": {"metadata": {}}}),
    )  # fmt: skip


def orders_with_delay(shop: Shop) -> None:
    """A payment method that takes days."""
    payment = shop.payment_intent(id="pi_1", charge=None, amount=1999, currency="eur", session="cs_1")
    shop.say("payment_intent.processing", payment | {"status": "processing", "amount_received": 0})
    session = shop.session(amount=1999, payment_intent="pi_1", payment_status="unpaid")
    shop.say("checkout.session.completed", session)
    shop.later(days=4)


def is_paid_after_all(shop: Shop) -> None:
    charged(shop, 1999, n=1, session="cs_1")
    shop.say("checkout.session.async_payment_succeeded", shop.session(amount=1999, payment_intent="pi_1"))


def is_never_paid(shop: Shop) -> None:
    declined(shop, 1999, n=1, session="cs_1", method="sepa_debit")
    session = shop.session(amount=1999, payment_intent="pi_1", payment_status="unpaid")
    shop.say("checkout.session.async_payment_failed", session)


def declined(shop: Shop, amount: int, *, n: int, attempt: int = 1, invoice: str | None = None, session: str | None =
             None, description: str | None = None, method: str = "card", **values: Any) -> None:  # fmt: skip
    """An attempt that the bank refuses."""
    common: dict[str, Any] = {"amount": amount, "currency": "eur", "invoice": invoice, "description": description}
    common |= values
    charge = f"ch_{n}_failed_{attempt}"
    no: Json = {"captured": False, "paid": False, "status": "failed", "failure_code": "card_declined"}
    no |= {"amount_captured": 0, "payment_method_details": {"type": method}}
    shop.say("charge.failed", shop.charge(id=charge, payment=f"pi_{n}", email=ADA, **common, **no))
    error = {"charge": charge, "code": "card_declined", "decline_code": "insufficient_funds", "type": "card_error",
             "payment_method": {"id": "pm_1", "object": "payment_method", "billing_details": {"address": {"country":
             "DE"}, "email": ADA, "name": "Ada Example", "phone": None}, "customer": None, "type": method}}  # fmt: skip
    payment = shop.payment_intent(id=f"pi_{n}", charge=charge, session=session, **common)
    open_ = {"amount_received": 0, "last_payment_error": error, "status": "requires_payment_method"}
    shop.say("payment_intent.payment_failed", payment | open_)


# --- invoices ---------------------------------------------------------------------------------------------------------


def paid(shop: Shop, number: str, amount: int, *, n: int, reason: str, is_charged: bool = True, **values: Any) -> None:
    """An invoice is paid by the payment `n`, or by nobody where it asks for nothing."""
    description = {"subscription_create": "Subscription creation", "manual": "Payment for Invoice"}.get(
        reason, "Subscription update"
    )
    customer = values.get("customer", "cus_1")
    session = values.pop("session", None)
    if amount and is_charged:
        charged(shop, amount, n=n, email=values.get("email", ADA), invoice=number, session=session, customer=customer,
                description=description)  # fmt: skip
    by: Json = {"payment": f"pi_{n}", "charge": f"ch_{n}"} if amount else {}
    invoice = shop.invoice(id=number, amount=amount, reason=reason, **by, **values)
    shop.say("invoice.finalized", invoice | {"status": "open", "amount_paid": 0})
    shop.say("invoice.paid", invoice)
    shop.say("invoice.payment_succeeded", invoice)
    if amount and not shop.is_old:
        shop.say(
            "invoice_payment.paid",
            {"id": f"inpay_{n}", "object": "invoice_payment", "amount_paid": amount, "amount_requested": amount,
             "created": shop.now, "currency": invoice["currency"], "invoice": number, "livemode": True,
             "payment": {"payment_intent": f"pi_{n}", "type": "payment_intent"}, "status": "paid"},
        )  # fmt: skip


# --- subscriptions ----------------------------------------------------------------------------------------------------


class Subscription:
    """A subscription to one plan, and what is said while it lives."""

    def __init__(self, shop: Shop, plan: str = "basic", amount: int = 2900, *, n: int = 1, trial_days: int = 0,
                 email: str | None = ADA, metadata: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self.shop, self.plan, self.amount, self.n, self.email = shop, plan, amount, n, email
        self.id, self.customer, self.payments, self.quantity = f"sub_{n}", f"cus_{n}", 10 * n, 1
        self.metadata = dict(metadata or {})
        self.start, self.end = shop.now, shop.now + (trial_days * DAY or MONTH)
        trial = {"trial_start": self.start, "trial_end": self.end} if trial_days else {}
        self.values: dict[str, Any] = {"status": "active", **trial}

    def object(self, **values: Any) -> Json:
        self.values |= values
        return self.shop.subscription(
            self.plan, self.amount, id=self.id, customer=self.customer, start=self.start, end=self.end,
            quantity=self.quantity, metadata=self.metadata, latest_invoice=f"in_{self.payments}", **self.values,
        )  # fmt: skip

    def changed(self, before: Mapping[str, Any], **values: Any) -> None:
        self.shop.say("customer.subscription.updated", self.object(**values), before)

    def line(self, amount: int, **values: Any) -> Json:
        given = {"start": self.start, "end": self.end, "unit": self.amount, "quantity": self.quantity, **values}
        return self.shop.line(given.pop("plan", self.plan), amount, subscription=self.id, **given)

    def bill(self, amount: int, reason: str, *lines: Json, **values: Any) -> None:
        paid(self.shop, f"in_{self.payments}", amount, n=self.payments, reason=reason, subscription=self.id,
             customer=self.customer, email=self.email, lines=list(lines) or [self.line(amount)],
             metadata=self.metadata, **values)  # fmt: skip

    def begins(self, **session: Any) -> None:
        """Bought through Checkout."""
        shop, is_trial = self.shop, "trial_end" in self.values
        amount = 0 if is_trial else self.amount
        shop.say("customer.created", shop.customer(self.email, id=self.customer))
        first = "trialing" if is_trial else "incomplete"
        shop.say("customer.subscription.created", self.object(status=first))
        self.bill(amount, "subscription_create", session=f"cs_{self.n}"[:25])
        if not is_trial:
            self.changed({"status": "incomplete"}, status="active")
        shop.say(
            "checkout.session.completed",
            shop.session(id=f"cs_{self.n}", email=self.email, amount=amount, mode="subscription",
                         customer=self.customer, subscription=self.id, invoice=f"in_{self.payments}",
                         payment_status="no_payment_required" if is_trial else "paid", **session),
        )  # fmt: skip

    def next_period(self) -> None:
        """The day comes on which it goes on."""
        shop, before = self.shop, self.object()
        shop.now = max(shop.now, self.end)
        was_trial = self.values["status"] == "trialing"
        self.payments += 1
        self.start, self.end = self.end, self.end + MONTH
        old = {"current_period_start": before.get("current_period_start"),
               "current_period_end": before.get("current_period_end")}  # fmt: skip
        moved: dict[str, Any] = old if shop.is_old else {"items": {"data": before["items"]["data"]}}
        status = {"status": "trialing"} if was_trial else {}
        self.changed({**moved, **status, "latest_invoice": before["latest_invoice"]}, status="active")

    def renews(self) -> None:
        self.next_period()
        self.bill(self.amount * self.quantity, "subscription_cycle")

    def fails(self, *, attempt: int) -> None:
        """The invoice of this period cannot be paid."""
        shop, invoice = self.shop, f"in_{self.payments}"
        declined(shop, self.amount, n=self.payments, attempt=attempt, invoice=invoice,
                 description="Subscription update")  # fmt: skip
        unpaid = {"status": "open", "amount_paid": 0, "amount_remaining": self.amount, "attempt_count": attempt,
                  "status_transitions": {"finalized_at": shop.now, "paid_at": None}}  # fmt: skip
        failed = {"charge": f"ch_{self.payments}_failed_{attempt}", "paid": False} if shop.is_old else {}
        o = shop.invoice(id=invoice, amount=self.amount, reason="subscription_cycle", subscription=self.id,
                         customer=self.customer, email=self.email, payment=f"pi_{self.payments}",
                         lines=[self.line(self.amount)], metadata=self.metadata)  # fmt: skip
        shop.say("invoice.payment_failed", o | unpaid | failed)
        if self.values["status"] == "active":
            self.changed({"status": "active"}, status="past_due")

    def recovers(self) -> None:
        self.bill(self.amount, "subscription_cycle", attempt_count=2)
        self.changed({"status": "past_due"}, status="active")

    def switches(self, plan: str, amount: int, *, credit: int = 0, debit: int = 0) -> None:
        """To another plan; with a debit it is billed at once, in part for what is left of the period."""
        shop, before, old_plan, old_amount = self.shop, self.object(), self.plan, self.amount
        items = {"items": {"data": before["items"]["data"]}, **({"plan": before["plan"]} if shop.is_old else {})}
        self.plan, self.amount = plan, amount
        if not debit:
            self.changed(items)
            return
        self.payments += 1
        self.changed({**items, "latest_invoice": before["latest_invoice"]})
        left = self.line(-credit, plan=old_plan, unit=old_amount, prorated=True, start=shop.now)
        taken = self.line(debit, prorated=True, start=shop.now)
        due = max(debit - credit, 0)  # the rest becomes credit
        self.bill(due, "subscription_update", left, taken, total=debit - credit, subtotal=debit - credit)

    def takes_seats(self, quantity: int, *, credit: int, debit: int) -> None:
        """That many, billed at once for what is left of the period."""
        shop, before = self.shop, self.object()
        left = self.line(-credit, prorated=True, start=shop.now)
        self.quantity = quantity
        self.payments += 1
        items = {"items": {"data": before["items"]["data"]}, **({"quantity": 1} if shop.is_old else {})}
        self.changed({**items, "latest_invoice": before["latest_invoice"]})
        self.bill(debit - credit, "subscription_update", left, self.line(debit, prorated=True, start=shop.now))

    def is_to_end(self) -> None:
        before = {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None}
        why = {"comment": None, "feedback": "too_expensive", "reason": "cancellation_requested"}
        self.changed(before, cancel_at_period_end=True, cancel_at=self.end, canceled_at=self.shop.now,
                     cancellation_details=why)  # fmt: skip

    def is_to_go_on(self) -> None:
        before = {"cancel_at_period_end": True, "cancel_at": self.end, "canceled_at": self.values["canceled_at"]}
        self.changed(before, cancel_at_period_end=False, cancel_at=None, canceled_at=None)

    def ends(self) -> None:
        self.shop.now = max(self.shop.now, self.end)
        self.shop.say("customer.subscription.deleted", self.object(status="canceled", ended_at=self.shop.now))


# --- refunds and disputes ---------------------------------------------------------------------------------------------


def refunds(shop: Shop, amount: int, *, of: int, n: int = 1, before: int = 0, earlier: tuple[Json, ...] = (),
            currency: str = "eur", email: str = ADA, customer: str | None = None, **values: Any) -> Json:  # fmt: skip
    """A part of a payment is given back; `of`: how much it was, `before`: how much of it was given back before."""
    o = shop.refund(
        id=f"re_{n}_{before + amount}", payment=f"pi_{n}", charge=f"ch_{n}", amount=amount, currency=currency
    )
    tells_itself = shop.version >= "2024-10-28"
    if tells_itself:
        shop.say("refund.created", o)
    total = before + amount
    paid_back = shop.charge(id=f"ch_{n}", payment=f"pi_{n}", amount=of, currency=currency, email=email,
                            customer=customer, amount_refunded=total, refunded=total == of, **values)  # fmt: skip
    if shop.version == LISTED:
        paid_back["refunds"] = {"object": "list", "data": [o, *earlier], "has_more": False}
    shop.say("charge.refunded", paid_back, {"amount_refunded": before, "receipt_url": None})
    details = {"destination_details": {"card": {"reference": "1", "reference_status": "available"}, "type": "card"}}
    if tells_itself:
        shop.say("refund.updated", o | details, {"destination_details": {"card": {"reference_status": "pending"}}})
    shop.say("charge.refund.updated", o | details, {"destination_details": {"card": {"reference_status": "pending"}}})
    return o


def refund_bounces(shop: Shop, refund: Json) -> None:
    """The bank of the buyer sends it back."""
    shop.later(days=5)
    failed = refund | {"status": "failed", "failure_reason": "lost_or_stolen_card",
                       "failure_balance_transaction": "txn_9"}  # fmt: skip
    before = {"status": "succeeded", "failure_reason": None, "failure_balance_transaction": None}
    if shop.version >= "2024-10-28":
        shop.say("refund.failed", failed)
        shop.say("refund.updated", failed, before)
    shop.say("charge.refund.updated", failed, before)


def disputes(shop: Shop, amount: int, *, ends: str, n: int = 1) -> None:
    o = {"id": f"du_{n}", "object": "dispute", "amount": amount, "charge": f"ch_{n}", "created": shop.now, "currency":
         "eur", "evidence": {"customer_email_address": ADA, "customer_purchase_ip": "203.0.113.9"}, "livemode": True,
         "metadata": {}, "payment_intent": f"pi_{n}", "reason": "fraudulent", "status": "needs_response"}  # fmt: skip
    shop.say("charge.dispute.created", o)
    shop.say("charge.dispute.funds_withdrawn", o)
    shop.later(days=3)
    shop.say("charge.dispute.updated", o | {"status": "under_review"}, {"status": "needs_response"})
    shop.later(days=40)
    if ends == "won":
        shop.say("charge.dispute.funds_reinstated", o | {"status": ends})
    shop.say("charge.dispute.closed", o | {"status": ends}, {"status": "under_review"})
