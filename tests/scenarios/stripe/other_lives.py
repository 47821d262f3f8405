"""More lives that Stripe tells: other ways to sell, other ways to pay, and what is done to it later."""

from __future__ import annotations

from tests.scenarios.stripe.shop import ADA, Shop
from tests.scenarios.stripe.told import OPTIONS, life
from tests.scenarios.stripe.verbs import Subscription, charged, declined, paid, pays, refund_bounces, refunds

# --- other ways to sell -----------------------------------------------------------------------------------------------


@life("site:user_7 purchase 19.99 EUR", revenue={"EUR": "19.99"})
def a_payment_link(shop: Shop) -> None:
    """Its URL carries the site's own id."""
    pays(shop, payment_link="plink_1", client_reference_id="user_7", success_url="https://stripe.com")


@life(
    """
    site:user_9 payment_failed 19.99 EUR
    site:user_9 purchase 19.99 EUR
    site:user_9 refund 5 EUR
    """,
    revenue={"EUR": "19.99"},
    options=(OPTIONS,),
)
def elements_with_the_sites_id(shop: Shop) -> None:
    """A payment of the site's own form, with its own id in the metadata."""
    declined(shop, 1999, n=1, metadata={"user_id": "user_9"})
    charged(shop, 1999, n=1, metadata={"user_id": "user_9"})
    shop.later(days=2)
    refunds(shop, 500, of=1999, metadata={"user_id": "user_9"})


@life("ada@example.com purchase 19.99 EUR", revenue={"EUR": "19.99"}, options=(OPTIONS,))
def elements_with_a_customer(shop: Shop) -> None:
    """Nothing but the customer says who it was."""
    shop.say("customer.created", shop.customer(ADA))
    charged(shop, 1999, n=1, email=None, customer="cus_1")


@life(
    """
    site:user_42 purchase 19.99 EUR
    site:user_42 refund 5 EUR
    site:user_42 dispute_opened 14.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_refund_and_a_dispute_of_somebody_the_site_knows(shop: Shop) -> None:
    """They name nobody, or no more than an e-mail address: whose they are says the session."""
    pays(shop, client_reference_id="user_42")
    shop.later(days=2)
    refunds(shop, 500, of=1999)
    shop.later(days=20)
    shop.say("charge.dispute.created", {
        "id": "du_1", "object": "dispute", "amount": 1499, "charge": "ch_1", "created": shop.now, "currency": "eur",
        "livemode": True, "metadata": {}, "payment_intent": "pi_1", "reason": "general", "status": "needs_response",
    })  # fmt: skip


@life(
    """
    site:user_8 subscription_started 29 EUR
    site:user_8 subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
)
def billing_by_api_of_somebody_the_site_knows(shop: Shop) -> None:
    """No Checkout: the customer carries the site's own id."""
    subscription = Subscription(shop)
    shop.say("customer.created", shop.customer(ADA) | {"metadata": {"user_id": "user_8"}})
    shop.say("customer.subscription.created", subscription.object(status="incomplete"))
    subscription.bill(2900, "subscription_create")
    subscription.changed({"status": "incomplete"}, status="active")
    subscription.renews()


# --- other ways to pay ------------------------------------------------------------------------------------------------


@life(
    "ada@example.com subscription_renewed 29 EUR \n ada@example.com subscription_renewed 29 EUR",
    revenue={"EUR": "58.00"},
)
def a_free_month_by_coupon(shop: Shop) -> None:
    """A coupon of 100 percent pays the first month: nothing came in."""
    subscription = Subscription(shop)
    shop.say("customer.created", shop.customer(ADA))
    shop.say("customer.subscription.created", subscription.object(status="active"))
    free = {"subtotal": 2900, "total": 0, "total_discount_amounts": [{"amount": 2900, "discount": "di_1"}]}
    subscription.bill(0, "subscription_create", subscription.line(2900), **free)
    shop.say(
        "checkout.session.completed",
        shop.session(amount=0, mode="subscription", customer="cus_1", subscription="sub_1", invoice="in_10",
                     payment_status="no_payment_required", total_details={"amount_discount": 2900, "amount_tax": 0,
                                                                          "amount_shipping": 0}),
    )  # fmt: skip
    subscription.renews()
    subscription.renews()


@life("ada@example.com subscription_started 29 EUR", revenue={"EUR": "29.00"})
def a_renewal_paid_in_cash(shop: Shop) -> None:
    """Marked as paid outside of Stripe: Stripe got nothing, and tells nothing of it."""
    subscription = Subscription(shop)
    subscription.begins()
    subscription.next_period()
    subscription.bill(0, "subscription_cycle", amount_due=2900, amount_remaining=2900, total=2900, subtotal=2900,
                      paid_out_of_band=True)  # fmt: skip


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com plan_changed
    ada@example.com subscription_renewed 9 EUR
    """,
    revenue={"EUR": "38.00"},
)
def a_downgrade_to_credit(shop: Shop) -> None:
    """What is left of the dear plan becomes credit, and pays a part of the next renewal."""
    subscription = Subscription(shop)
    subscription.begins()
    shop.later(days=15)
    subscription.switches("mini", 1900, credit=1950, debit=950)
    subscription.next_period()
    subscription.bill(900, "subscription_cycle", amount_due=900, total=1900, subtotal=1900, starting_balance=-1000)


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com plan_changed 14.50 EUR
    ada@example.com subscription_renewed 58 EUR
    """,
    revenue={"EUR": "101.50"},
)
def one_more_seat(shop: Shop) -> None:
    """Billed at once."""
    subscription = Subscription(shop)
    subscription.begins()
    shop.later(days=15)
    subscription.takes_seats(2, credit=1450, debit=2900)
    subscription.renews()


@life(
    """
    site:user_42 trial_started
    site:user_42 trial_converted 29 EUR
    site:user_42 plan_changed 10 EUR
    site:user_42 payment_failed 49 EUR
    site:user_42 subscription_renewed 49 EUR
    """,
    revenue={"EUR": "88.00"},
)
def an_upgrade_after_a_trial_of_somebody_the_site_knows(shop: Shop) -> None:
    """The first payment after the trial is its conversion, whatever is told first."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins(client_reference_id="user_42")
    subscription.renews()
    shop.later(days=10)
    subscription.switches("pro", 4900, credit=1450, debit=2450)
    subscription.next_period()
    subscription.fails(attempt=1)
    shop.later(days=3)
    subscription.recovers()


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com subscription_paused
    ada@example.com subscription_resumed
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
)
def a_pause(shop: Shop) -> None:
    """Nothing is collected for a while."""
    subscription = Subscription(shop)
    subscription.begins()
    shop.later(days=3)
    pause = {"behavior": "void", "resumes_at": None}
    subscription.changed({"pause_collection": None}, pause_collection=pause)
    shop.later(days=20)
    subscription.changed({"pause_collection": pause}, pause_collection=None)
    subscription.renews()


@life("ada@example.com subscription_started 500 JPY", revenue={"JPY": "500"})
def a_subscription_in_yen(shop: Shop) -> None:
    """A currency without decimals, in invoices too."""
    subscription = Subscription(shop, amount=500)
    shop.say("customer.created", shop.customer(ADA))
    subscription.bill(500, "subscription_create", currency="jpy")


# --- tax, and other currencies ----------------------------------------------------------------------------------------


@life(
    """
    ada@example.com purchase 100 EUR
    ada@example.com subscription_started 24.37 EUR
    ada@example.com subscription_renewed 24.37 EUR
    """,
    revenue={"EUR": "148.74"},
    policy={"revenue": "net"},
    options=((),),
)
def net_of_tax(shop: Shop) -> None:
    """Tax on top of the price in the first sale, within the price in the others."""
    pays(shop, 11900, total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 1900})
    old = {"tax": 463, "total_tax_amounts": [{"amount": 463, "inclusive": True, "tax_rate": "txr_1"}]}
    new = {"total_taxes": [{"amount": 463, "tax_behavior": "inclusive", "type": "tax_rate_details"}]}
    subscription = Subscription(shop)
    subscription.bill(2900, "subscription_create", **(old if shop.is_old else new))
    subscription.next_period()
    subscription.bill(2900, "subscription_cycle", **(old if shop.is_old else new))


@life(
    "ada@example.com purchase 20 EUR \n ada@example.com refund 20 EUR",
    revenue={"EUR": "20.00"},
)
def a_price_shown_in_dollars(shop: Shop) -> None:
    """Adaptive pricing: the buyer sees dollars, the payment is in euros."""
    shown = {"presentment_amount": 2200, "presentment_currency": "usd"}
    pays(shop, 2000, presentment_details=shown)
    refunds(shop, 2000, of=2000)


# --- money back -------------------------------------------------------------------------------------------------------


@life(
    """
    ada@example.com purchase 500 JPY
    ada@example.com refund 100 JPY
    ada@example.com refund 400 JPY
    ada@example.com refund_reversed 400 JPY
    """,
    revenue={"JPY": "500"},
)
def a_part_and_then_the_rest(shop: Shop) -> None:
    """The second refund bounces."""
    pays(shop, 500, "jpy")
    shop.later(days=1)
    first = refunds(shop, 100, of=500, currency="jpy")
    shop.later(days=1)
    refund_bounces(shop, refunds(shop, 400, of=500, before=100, earlier=(first,), currency="jpy"))


@life("ada@example.com purchase 500 EUR \n ada@example.com refund 50 EUR", revenue={"EUR": "500.00"})
def a_credit_note_that_is_refunded(shop: Shop) -> None:
    """Its money is told by its refund."""
    shop.say("customer.created", shop.customer(ADA))
    paid(shop, "in_1", 50000, n=1, reason="manual", collection_method="send_invoice")
    shop.later(days=5)
    refund = refunds(shop, 5000, of=50000, customer="cus_1")
    refunded = (
        {"refund": refund["id"]}
        if shop.is_old
        else {"refunds": [{"amount_refunded": 5000, "refund": refund["id"], "type": "refund"}]}
    )
    note = {"id": "cn_1", "object": "credit_note", "amount": 5000, "created": shop.now, "currency": "eur",
            "customer": "cus_1", "invoice": "in_1", "livemode": True, "metadata": {}, "status": "issued",
            "total": 5000, "type": "post_payment"}  # fmt: skip
    shop.say("credit_note.created", note | refunded)


@life("ada@example.com purchase 500 EUR", revenue={"EUR": "500.00"})
def a_credit_note_to_the_balance(shop: Shop) -> None:
    """No money moves."""
    shop.say("customer.created", shop.customer(ADA))
    paid(shop, "in_1", 50000, n=1, reason="manual", collection_method="send_invoice")
    shop.say("credit_note.created", {
        "id": "cn_1", "object": "credit_note", "amount": 5000, "created": shop.now, "currency": "eur",
        "customer": "cus_1", "customer_balance_transaction": "cbtxn_1", "invoice": "in_1", "livemode": True,
        "metadata": {}, "refund": None, "refunds": [], "status": "issued", "total": 5000, "type": "post_payment",
    })  # fmt: skip


# --- Connect ----------------------------------------------------------------------------------------------------------


@life(
    """
    site:user_1 subscription_started 29 EUR
    site:user_1 subscription_renewed 29 EUR
    site:user_2 subscription_started 19 EUR
    site:user_2 subscription_renewed 19 EUR
    """,
    revenue={"EUR": "96.00"},
)
def subscriptions_of_two_accounts(shop: Shop) -> None:
    """Connected accounts, whose objects have the same ids."""
    one, other = Shop(shop.version, account="acct_1"), Shop(shop.version, account="acct_2")
    for account, amount, user in ((one, 2900, "user_1"), (other, 1900, "user_2")):
        subscription = Subscription(account, amount=amount)
        subscription.begins(client_reference_id=user)
        subscription.renews()
    shop.said = sorted([*one.said, *other.said], key=lambda said: said["created"])
