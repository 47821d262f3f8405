"""Further lives that Stripe tells: first payments that fail, credit, use, phases, platforms, and rare currencies."""

from __future__ import annotations

from typing import Any

from tests.scenarios.stripe.shop import ADA, BASIL, BOB, DAY, MONTH, Shop
from tests.scenarios.stripe.told import OPTIONS, life
from tests.scenarios.stripe.verbs import (
    Subscription,
    charged,
    declined,
    disputes,
    is_never_paid,
    orders_with_delay,
    paid,
    pays,
    refunds,
)

# --- one-off sales ----------------------------------------------------------------------------------------------------


@life(
    """
    site:user_7 purchase 10 USD
    site:user_7 refund 4 USD
    """,
    revenue={"USD": "10.00"},
)
def a_payment_link_shown_in_hryvnias(shop: Shop) -> None:
    """Adaptive pricing: refunds are in the currency of the payment, as the sale is."""
    shown = {"presentment_amount": 42973, "presentment_currency": "uah"}
    pays(shop, 1000, "usd", payment_link="plink_1", client_reference_id="user_7", presentment_details=shown)
    shop.later(days=3)
    refunds(shop, 400, of=1000, currency="usd", presentment_details=shown)


@life(
    """
    ada@example.com payment_failed 19.99 EUR
    ada@example.com purchase 19.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_bank_debit_bounces_and_a_card_is_taken(shop: Shop) -> None:
    """A second checkout, four days after the first."""
    orders_with_delay(shop)
    is_never_paid(shop)
    shop.later(days=1)
    pays(shop, n=2)


@life("ada@example.com purchase 15 EUR", revenue={"EUR": "15.00"}, options=(OPTIONS,))
def a_checkout_that_captures_by_hand(shop: Shop) -> None:
    """The session is unpaid for ever; less is captured than was authorised."""
    held = {"captured": False, "amount_captured": 0}
    charge = shop.charge(id="ch_1", payment="pi_1", amount=1999, currency="eur", email=ADA)
    payment = shop.payment_intent(id="pi_1", charge="ch_1", amount=1999, currency="eur", session="cs_1",
                                  capture_method="manual")  # fmt: skip
    shop.say("charge.succeeded", charge | held)
    shop.say("payment_intent.amount_capturable_updated", payment | {"amount_received": 0, "status": "requires_capture"})
    session = shop.session(amount=1999, payment_intent="pi_1", payment_status="unpaid")
    shop.say("checkout.session.completed", session)
    shop.later(days=2)
    shop.say("charge.captured", charge | {"amount_captured": 1500, "amount_refunded": 499})
    shop.say("payment_intent.succeeded", payment | {"amount_received": 1500})


@life(
    """
    ada@example.com purchase 500 EUR
    ada@example.com refund 20 EUR
    """,
    revenue={"EUR": "500.00"},
)
def a_bill_paid_by_two_payments(shop: Shop) -> None:
    """Each pays a part of one invoice, which is one sale; what is given back is of the second."""
    shop.say("customer.created", shop.customer(ADA))
    for n, amount in ((1, 20000), (2, 30000)):
        charged(shop, amount, n=n, invoice="in_1", customer="cus_1", description="Payment for Invoice")
        if not shop.is_old:
            shop.say("invoice_payment.paid", {
                "id": f"inpay_{n}", "object": "invoice_payment", "amount_paid": amount, "currency": "eur",
                "invoice": "in_1", "payment": {"payment_intent": f"pi_{n}", "type": "payment_intent"}, "status": "paid",
            })  # fmt: skip
        shop.later(days=4)
    invoice = shop.invoice(id="in_1", amount=50000, reason="manual", payment="pi_2", charge="ch_2",
                           collection_method="send_invoice")  # fmt: skip
    shop.say("invoice.paid", invoice)
    refunds(shop, 2000, of=30000, n=2, customer="cus_1")


@life("ada@example.com purchase 450 EUR", revenue={"EUR": "450.00"})
def a_credit_note_before_the_bill_is_paid(shop: Shop) -> None:
    """It makes less due, and so less is paid."""
    shop.say("customer.created", shop.customer(ADA))
    shop.say("credit_note.created", {
        "id": "cn_1", "object": "credit_note", "amount": 5000, "created": shop.now, "currency": "eur",
        "customer": "cus_1", "customer_balance_transaction": None, "invoice": "in_1", "livemode": True, "metadata": {},
        "refund": None, "refunds": [], "status": "issued", "total": 5000, "type": "pre_payment",
    })  # fmt: skip
    paid(shop, "in_1", 45000, n=1, reason="manual", collection_method="send_invoice", total=50000, subtotal=50000,
         pre_payment_credit_notes_amount=5000)  # fmt: skip


@life(
    """
    ada@example.com purchase 500 EUR
    ada@example.com refund 30 EUR
    """,
    revenue={"EUR": "500.00"},
)
def a_credit_note_after_its_refund_and_to_the_balance(shop: Shop) -> None:
    """50 are credited: 30 are given back, 20 are kept for the next bill, which they pay."""
    shop.say("customer.created", shop.customer(ADA))
    paid(shop, "in_1", 50000, n=1, reason="manual", collection_method="send_invoice")
    shop.later(days=5)
    refund = refunds(shop, 3000, of=50000, customer="cus_1")
    names = {"refund": refund["id"]} if shop.is_old else {"refunds": [{"refund": refund["id"], "type": "refund"}]}
    shop.later(days=1)
    shop.say("credit_note.created", {
        "id": "cn_1", "object": "credit_note", "amount": 5000, "created": shop.now, "currency": "eur",
        "customer": "cus_1", "customer_balance_transaction": "cbtxn_1", "invoice": "in_1", "livemode": True,
        "metadata": {}, "status": "issued", "total": 5000, "type": "post_payment", **names,
    })  # fmt: skip
    shop.later(days=20)
    paid(shop, "in_2", 0, n=2, reason="manual", collection_method="send_invoice", total=2000, subtotal=2000,
         starting_balance=-2000)  # fmt: skip


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com dispute_opened 5 EUR
    ada@example.com dispute_won 5 EUR
    ada@example.com refund 14.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_dispute_of_a_part_that_is_won(shop: Shop) -> None:
    """The money is withdrawn and reinstated; later the other part is given back."""
    pays(shop)
    shop.later(days=20)
    disputes(shop, 500, ends="won")
    shop.later(days=2)
    refunds(shop, 1499, of=1999)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _billed_by_api(shop: Shop, subscription: Subscription, amount: int, **invoice: object) -> None:
    """A subscription that is made without Checkout, and paid at once."""
    shop.say("customer.created", shop.customer(ADA))
    shop.say("customer.subscription.created", subscription.object(status="incomplete"))
    subscription.bill(amount, "subscription_create", subscription.line(amount), **invoice)
    subscription.changed({"status": "incomplete"}, status="active")


@life(
    """
    ada@example.com payment_failed 29 EUR
    ada@example.com subscription_started 29 EUR
    """,
    revenue={"EUR": "29.00"},
)
def the_first_payment_is_declined(shop: Shop) -> None:
    """The second card is taken: the subscription starts once."""
    subscription = Subscription(shop)
    shop.say("customer.created", shop.customer(ADA))
    shop.say("customer.subscription.created", subscription.object(status="incomplete"))
    declined(shop, 2900, n=10, invoice="in_10", description="Subscription creation")
    failed = {"charge": "ch_10_failed_1", "paid": False} if shop.is_old else {}
    shop.say("invoice.payment_failed", shop.invoice(
        id="in_10", amount=2900, reason="subscription_create", subscription="sub_1", payment="pi_10",
        lines=[subscription.line(2900)],
    ) | {"status": "open", "amount_paid": 0, "amount_remaining": 2900} | failed)  # fmt: skip
    shop.later(days=0.1)
    subscription.bill(2900, "subscription_create", attempt_count=2)
    subscription.changed({"status": "incomplete"}, status="active")


@life("ada@example.com payment_failed 29 EUR", revenue={})
def a_subscription_that_never_began(shop: Shop) -> None:
    """Nobody pays within a day: it expires, and nothing ended."""
    subscription = Subscription(shop)
    shop.say("customer.created", shop.customer(ADA))
    shop.say("customer.subscription.created", subscription.object(status="incomplete"))
    declined(shop, 2900, n=10, invoice="in_10", description="Subscription creation")
    failed = {"charge": "ch_10_failed_1", "paid": False} if shop.is_old else {}
    shop.say("invoice.payment_failed", shop.invoice(
        id="in_10", amount=2900, reason="subscription_create", subscription="sub_1", payment="pi_10",
        lines=[subscription.line(2900)],
    ) | {"status": "open", "amount_paid": 0, "amount_remaining": 2900} | failed)  # fmt: skip
    shop.later(days=1)
    subscription.changed({"status": "incomplete"}, status="incomplete_expired")
    shop.say("customer.subscription.deleted", subscription.object(ended_at=shop.now))


@life(
    """
    ada@example.com trial_started
    ada@example.com subscription_ended
    """,
    revenue={},
)
def a_trial_that_is_canceled_at_once(shop: Shop) -> None:
    """In the middle of it: nothing is ever paid."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins()
    shop.later(days=3)
    shop.say("customer.subscription.deleted", subscription.object(status="canceled", ended_at=shop.now))


@life(
    """
    ada@example.com trial_started
    ada@example.com subscription_paused
    ada@example.com subscription_resumed
    ada@example.com trial_converted 29 EUR
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
    words=("customer.subscription.updated", "customer.subscription.resumed"),
)
def a_trial_that_pauses_and_goes_on(shop: Shop) -> None:
    """Without a card it pauses; the first payment comes when it is resumed, ten days after its trial."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins()
    shop.now = max(shop.now, subscription.end)
    shop.say("customer.subscription.paused", subscription.object(status="paused"))
    subscription.changed({"status": "trialing"}, status="paused")
    shop.later(days=10)
    subscription.start, subscription.end = shop.now, shop.now + MONTH
    subscription.payments += 1
    shop.say("customer.subscription.resumed", subscription.object(status="active"))
    subscription.changed({"status": "paused"}, status="active")
    subscription.bill(2900, "subscription_update")
    subscription.renews()


@life(
    """
    ada@example.com trial_started
    ada@example.com trial_converted 29 EUR
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
    words=("customer.subscription.updated", "customer.subscription.resumed"),
)
def a_trial_that_is_ended_early(shop: Shop) -> None:
    """She wants the whole thing after three days, and pays for a month from then on."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins()
    shop.later(days=3)
    before = subscription.object()
    subscription.start, subscription.end = shop.now, shop.now + MONTH
    subscription.payments += 1
    period = {f"current_period_{edge}": before.get(f"current_period_{edge}") for edge in ("start", "end")}
    moved: Any = period if shop.is_old else {"items": {"data": before["items"]["data"]}}
    trial = {"status": "trialing", "trial_end": before["trial_end"], "latest_invoice": before["latest_invoice"]}
    subscription.changed({**moved, **trial}, status="active", trial_end=shop.now)
    subscription.bill(2900, "subscription_update")
    subscription.renews()


@life(
    """
    ada@example.com subscription_started 87 EUR
    ada@example.com plan_changed
    ada@example.com subscription_renewed 43.50 EUR
    ada@example.com subscription_renewed 58 EUR
    """,
    revenue={"EUR": "188.50"},
)
def one_seat_less_in_the_middle(shop: Shop) -> None:
    """What was paid too much is taken off the next bill."""
    subscription = Subscription(shop)
    subscription.quantity = 3
    _billed_by_api(shop, subscription, 8700)
    shop.later(days=15)
    before = subscription.object()
    subscription.quantity = 2
    items = {"items": {"data": before["items"]["data"]}, **({"quantity": 3} if shop.is_old else {})}
    subscription.changed(items)
    subscription.next_period()
    half = {"start": shop.now - MONTH // 2, "end": shop.now, "prorated": True}
    left, taken = subscription.line(-4350, **{**half, "quantity": 3}), subscription.line(2900, **half)
    subscription.bill(4350, "subscription_cycle", left, taken, subscription.line(5800))
    subscription.renews()


@life(
    """
    ada@example.com subscription_started 290 EUR
    ada@example.com plan_changed
    ada@example.com subscription_renewed 5 EUR
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "324.00"},
)
def credit_that_pays_whole_months(shop: Shop) -> None:
    """From a year to a month: what is left pays one bill, and most of the next."""
    subscription = Subscription(shop, "yearly", 29000)
    subscription.end = subscription.start + 12 * MONTH
    _billed_by_api(shop, subscription, 29000)
    shop.later(days=300)
    subscription.end = shop.now + MONTH
    subscription.switches("basic", 2900, credit=8200, debit=2900)
    subscription.next_period()
    subscription.bill(0, "subscription_cycle", subscription.line(2900), total=2900, subtotal=2900,
                      starting_balance=-5300)  # fmt: skip
    subscription.next_period()
    subscription.bill(500, "subscription_cycle", subscription.line(2900), total=2900, subtotal=2900,
                      starting_balance=-2400)  # fmt: skip
    subscription.renews()


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com subscription_renewed 39 EUR
    """,
    revenue={"EUR": "68.00"},
)
def what_was_owed_is_paid_with_the_next_bill(shop: Shop) -> None:
    """A balance of the customer that is to be paid: more comes in than the invoice is about."""
    subscription = Subscription(shop)
    subscription.begins()
    subscription.next_period()
    subscription.bill(3900, "subscription_cycle", subscription.line(2900), total=2900, subtotal=2900,
                      starting_balance=1000)  # fmt: skip


@life(
    """
    ada@example.com subscription_renewed 12.34 EUR
    ada@example.com subscription_renewed 0.07 EUR
    """,
    revenue={"EUR": "12.41"},
)
def paid_by_use(shop: Shop) -> None:
    """The first invoice asks for nothing; each later one for what was used in the month before."""
    subscription = Subscription(shop, "metered", 1)
    shop.say("customer.created", shop.customer(ADA))
    shop.say("customer.subscription.created", subscription.object(status="active"))
    subscription.bill(0, "subscription_create", subscription.line(0))
    for used in (1234, 0, 7):
        start, end = subscription.start, subscription.end
        subscription.next_period()
        subscription.bill(used, "subscription_cycle", subscription.line(used, start=start, end=end, quantity=used))


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com plan_changed
    ada@example.com subscription_renewed 49 EUR
    ada@example.com subscription_ended
    """,
    revenue={"EUR": "78.00"},
)
def phases_of_a_schedule(shop: Shop) -> None:
    """The second phase has another plan, and begins with the second month; after it, all ends."""
    subscription = Subscription(shop)
    subscription.begins()
    before = subscription.object()
    shop.now = subscription.end
    subscription.start, subscription.end = subscription.end, subscription.end + MONTH
    subscription.plan, subscription.amount = "pro", 4900
    subscription.payments += 1
    period = {f"current_period_{edge}": before.get(f"current_period_{edge}") for edge in ("start", "end")}
    old = {**period, "plan": before.get("plan")} if shop.is_old else {}
    items = {"items": {"data": before["items"]["data"]}, "latest_invoice": before["latest_invoice"], **old}
    subscription.changed(items, schedule="sub_sched_1")
    subscription.bill(4900, "subscription_cycle")
    shop.say("subscription_schedule.completed", {"id": "sub_sched_1", "object": "subscription_schedule"})
    subscription.ends()


@life(
    """
    ada@example.com subscription_started 500 JPY
    ada@example.com plan_changed 250 JPY
    ada@example.com refund 100 JPY
    ada@example.com subscription_renewed 1000 JPY
    """,
    revenue={"JPY": "1750"},
)
def an_upgrade_in_yen(shop: Shop) -> None:
    """Nothing is divided by a hundred: not the proration, and not its refund."""
    subscription = Subscription(shop, amount=500)
    shop.say("customer.created", shop.customer(ADA))
    subscription.bill(500, "subscription_create", currency="jpy")
    shop.later(days=15)
    before = subscription.object()
    subscription.plan, subscription.amount = "pro", 1000
    subscription.payments += 1
    plan = {"plan": before["plan"]} if shop.is_old else {}
    items = {"items": {"data": before["items"]["data"]}, "latest_invoice": before["latest_invoice"], **plan}
    subscription.changed(items)
    left = subscription.line(-250, plan="basic", unit=500, prorated=True, start=shop.now)
    taken = subscription.line(500, prorated=True, start=shop.now)
    subscription.bill(250, "subscription_update", left, taken, currency="jpy")
    refunds(shop, 100, of=250, n=subscription.payments, currency="jpy", customer="cus_1")
    subscription.next_period()
    subscription.bill(1000, "subscription_cycle", currency="jpy")


# --- currencies, tax and platforms ------------------------------------------------------------------------------------


@life(
    """
    ada@example.com purchase 10.810 KWD
    ada@example.com purchase 4200 HUF
    ada@example.com purchase 8403 UGX
    ada@example.com purchase 455 JPY
    ada@example.com purchase 1210 ISK
    """,
    revenue={"KWD": "10.810", "HUF": "4200", "UGX": "8403", "JPY": "455", "ISK": "1210"},
    policy={"revenue": "net"},
    options=((),),
)
def net_of_tax_in_many_currencies(shop: Shop) -> None:
    """What is left without the tax is exact in each."""
    for n, (amount, tax, currency) in enumerate(
        ((11891, 1081, "kwd"), (533400, 113400, "huf"), (1000000, 159700, "ugx"), (500, 45, "jpy"),
         (150000, 29000, "isk")), 1,
    ):  # fmt: skip
        total = {"amount_discount": 100, "amount_shipping": 0, "amount_tax": tax}
        pays(shop, amount, currency, n=n, total_details=total)


@life(
    """
    ada@example.com purchase 5000 UGX
    ada@example.com refund 1250 UGX
    ada@example.com refund 3750 UGX
    ada@example.com refund_reversed 3750 UGX
    bob@example.com purchase 500 ISK
    bob@example.com refund 500 ISK
    """,
    revenue={"UGX": "5000", "ISK": "500"},
)
def refunds_where_stripe_counts_cents_that_nobody_has(shop: Shop) -> None:
    """Both have two decimals at Stripe, which are always zero."""
    pays(shop, 500000, "ugx")
    pays(shop, 50000, "isk", n=2, email=BOB)
    shop.later(days=1)
    first = refunds(shop, 125000, of=500000, currency="ugx")
    second = refunds(shop, 375000, of=500000, before=125000, earlier=(first,), currency="ugx")
    refunds(shop, 50000, of=50000, n=2, currency="isk", email=BOB)
    shop.later(days=4)
    failed = second | {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    if shop.version >= "2024-10-28":
        shop.say("refund.failed", failed)
    shop.say("charge.refund.updated", failed, {"status": "succeeded", "failure_reason": None})


@life(
    """
    ada@example.com purchase 30 EUR
    bob@example.com purchase 30 EUR
    bob@example.com refund 10 EUR
    """,
    revenue={"EUR": "60.00"},
)
def a_destination_charge_and_a_direct_one(shop: Shop) -> None:
    """The platform sells to Ada and passes it on; the connected account sells to Bob itself. Fees are no sales."""
    passed_on: dict[str, Any] = {
        "on_behalf_of": "acct_1",
        "transfer_data": {"destination": "acct_1"},
        "application_fee_amount": 450,
    }
    charged(shop, 3000, n=1, session="cs_1", **passed_on)
    shop.say("transfer.created", {"id": "tr_1", "object": "transfer", "amount": 3000, "currency": "eur"})
    shop.say("checkout.session.completed", shop.session(amount=3000, payment_intent="pi_1"))
    account = Shop(shop.version, account="acct_1")
    account.now = shop.now
    got = account.charge(id="py_1", payment=None, amount=3000, currency="eur")
    account.say("payment.created", got | {"object": "charge", "application_fee": "fee_1"})
    account.say("application_fee.created", {"id": "fee_1", "object": "application_fee", "amount": 450,
                                            "currency": "eur"})  # fmt: skip
    pays(account, 3000, email=BOB)
    account.later(days=2)
    refunds(account, 1000, of=3000, email=BOB)
    shop.said = sorted([*shop.said, *account.said], key=lambda said: said["created"])


@life(
    """
    ada@example.com subscription_started 29 EUR
    bob@example.com subscription_started 29 USD
    ada@example.com subscription_renewed 29 EUR
    bob@example.com payment_failed 29 USD
    """,
    revenue={"EUR": "58.00", "USD": "29.00"},
)
def subscriptions_in_two_currencies(shop: Shop) -> None:
    """The same plan, sold to two people in their own currency."""
    ada, bob = Subscription(shop), Subscription(shop, n=2, email=BOB)
    ada.begins()
    shop.say("customer.created", shop.customer(BOB, id="cus_2"))
    bob.bill(2900, "subscription_create", currency="usd")
    ada.renews()
    bob.next_period()
    payment = f"pi_{bob.payments}"
    failed = {"charge": f"ch_{bob.payments}_failed_1", "paid": False} if shop.version < BASIL else {}
    shop.later(days=0.5 * MONTH / DAY)
    shop.say("invoice.payment_failed", shop.invoice(
        id=f"in_{bob.payments}", amount=2900, reason="subscription_cycle", subscription="sub_2", customer="cus_2",
        email=BOB, payment=payment, currency="usd", lines=[bob.line(2900)],
    ) | {"status": "open", "amount_paid": 0, "amount_remaining": 2900} | failed)  # fmt: skip
