"""Lives that Stripe tells, each with the ledger that a finance person would write, in every shape of Stripe's API."""

from __future__ import annotations

from decimal import Decimal

from relay.scenarios import Entry, Scenario, entry
from tests.scenarios.stripe import further_lives, other_lives
from tests.scenarios.stripe.shop import ADA, BASIL, BOB, ENDIVE, MONTH, VERSIONS, Shop
from tests.scenarios.stripe.told import LIVES, OPTIONS, Life, life
from tests.scenarios.stripe.verbs import (
    Subscription,
    charged,
    declined,
    disputes,
    is_never_paid,
    is_paid_after_all,
    orders_with_delay,
    paid,
    pays,
    pays_and_gets_an_invoice,
    refund_bounces,
    refunds,
)

__all__ = ["MORE", "SCENARIOS", "further_lives", "other_lives"]  # the latter two register their lives

# --- one-off sales ----------------------------------------------------------------------------------------------------


@life("ada@example.com purchase 19.99 EUR", revenue={"EUR": "19.99"})
def one_off_by_card(shop: Shop) -> None:
    """A guest pays by card in Checkout."""
    pays(shop)


@life(
    "ada@example.com purchase 19.99 EUR",
    revenue={"EUR": "19.99"},
    links=("checkout.session.completed", "invoice_payment.paid"),
)
def one_off_with_an_invoice(shop: Shop) -> None:
    """Checkout with `invoice_creation`: session, invoice, payment and charge are one sale."""
    pays_and_gets_an_invoice(shop)


@life("site:user_42 purchase 19.99 EUR", revenue={"EUR": "19.99"})
def one_off_of_somebody_the_site_knows(shop: Shop) -> None:
    """The session carries `client_reference_id`: that is who it was."""
    pays(shop, client_reference_id="user_42", customer="cus_1")


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com purchase 5 EUR
    bob@example.com purchase 7 EUR
    """,
    revenue={"EUR": "31.99"},
)
def three_sales_to_two_people(shop: Shop) -> None:
    """One of them comes back."""
    pays(shop, n=1)
    pays(shop, 500, n=2)
    pays(shop, 700, n=3, email=BOB)


@life("ada@example.com checkout_expired 19.99 EUR \n ada@example.com purchase 19.99 EUR", revenue={"EUR": "19.99"})
def an_abandoned_checkout(shop: Shop) -> None:
    """The first session expires, the second is paid."""
    shop.say("checkout.session.expired", shop.session(id="cs_9", amount=1999, status="expired",
                                                      payment_status="unpaid"))  # fmt: skip
    pays(shop)


@life("ada@example.com purchase 19.99 EUR", revenue={"EUR": "19.99"})
def delayed_and_paid(shop: Shop) -> None:
    """A bank debit that comes through after four days."""
    orders_with_delay(shop)
    is_paid_after_all(shop)


@life("ada@example.com payment_failed 19.99 EUR", revenue={})
def delayed_and_never_paid(shop: Shop) -> None:
    """A bank debit that bounces: no sale, and one failed attempt."""
    orders_with_delay(shop)
    is_never_paid(shop)


@life("ada@example.com purchase 500 EUR", revenue={"EUR": "500.00"})
def a_bill_that_was_sent(shop: Shop) -> None:
    """An invoice by mail, paid on its page."""
    shop.say("customer.created", shop.customer(ADA))
    paid(shop, "in_1", 50000, n=1, reason="manual", collection_method="send_invoice")


@life("ada@example.com payment_failed 19.99 EUR \n ada@example.com purchase 19.99 EUR", revenue={"EUR": "19.99"},
      options=(OPTIONS,))  # fmt: skip
def a_payment_without_checkout(shop: Shop) -> None:
    """The site's own form: the first attempt is declined, the second succeeds."""
    declined(shop, 1999, n=1)
    charged(shop, 1999, n=1, receipt_email=ADA)


@life("", revenue={}, options=((),))
def a_payment_without_checkout_that_nobody_asked_for(shop: Shop) -> None:
    """Bare payments are told where the option is on, and only there."""
    charged(shop, 1999, n=1, receipt_email=ADA)


# --- money back -------------------------------------------------------------------------------------------------------


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com refund 5 EUR
    ada@example.com refund 4.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def two_partial_refunds(shop: Shop) -> None:
    """Each tells what it gave back, not the sum."""
    pays(shop)
    shop.later(days=2)
    first = refunds(shop, 500, of=1999)
    shop.later(days=2)
    refunds(shop, 499, of=1999, before=500, earlier=(first,))


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com refund -5 EUR
    ada@example.com refund -4.99 EUR
    """,
    revenue={"EUR": "10.00"},
    policy={"refunds": "conversion"},
)
def two_partial_refunds_as_negative_revenue(shop: Shop) -> None:
    """For who wants refunds taken off the revenue."""
    two_partial_refunds(shop)


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com refund 19.99 EUR
    ada@example.com refund_reversed 19.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_refund_that_bounced(shop: Shop) -> None:
    """It was given back, and came back: the two cancel."""
    pays(shop)
    shop.later(days=2)
    refund_bounces(shop, refunds(shop, 1999, of=1999))


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com dispute_opened 19.99 EUR
    ada@example.com dispute_lost 19.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_dispute_lost(shop: Shop) -> None:
    """The buyer's bank takes the money back."""
    pays(shop)
    shop.later(days=20)
    disputes(shop, 1999, ends="lost")


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com dispute_opened 19.99 EUR
    ada@example.com dispute_won 19.99 EUR
    """,
    revenue={"EUR": "19.99"},
)
def a_dispute_won(shop: Shop) -> None:
    """The buyer's bank gives it back."""
    pays(shop)
    shop.later(days=20)
    disputes(shop, 1999, ends="won")


# --- subscriptions ----------------------------------------------------------------------------------------------------


@life(
    """
    ada@example.com trial_started
    ada@example.com trial_converted 29 EUR
    ada@example.com subscription_renewed 29 EUR
    ada@example.com plan_changed 10 EUR
    ada@example.com subscription_renewed 49 EUR
    ada@example.com subscription_cancel_scheduled
    ada@example.com subscription_ended
    """,
    revenue={"EUR": "117.00"},
)
def a_whole_subscription(shop: Shop) -> None:
    """Trial, first payment, renewal, upgrade with proration, renewal, cancellation, end."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins()
    subscription.renews()
    subscription.renews()
    shop.later(days=15)
    subscription.switches("pro", 4900, credit=1450, debit=2450)
    subscription.renews()
    shop.later(days=3)
    subscription.is_to_end()
    subscription.ends()


@life(
    """
    site:user_42 subscription_started 29 EUR
    site:user_42 subscription_renewed 29 EUR
    site:user_42 subscription_renewed 29 EUR
    """,
    revenue={"EUR": "87.00"},
)
def renewals_of_somebody_the_site_knows(shop: Shop) -> None:
    """The session carries `client_reference_id`: whatever is paid for the subscription later is that user's."""
    subscription = Subscription(shop)
    subscription.begins(client_reference_id="user_42")
    subscription.renews()
    subscription.renews()


@life(
    """
    site:user_42/ada@example.com subscription_started 29 EUR
    site:user_42/ada@example.com subscription_renewed 29 EUR
    site:user_42/ada@example.com refund 29 EUR
    """,
    revenue={"EUR": "58.00"},
)
def a_refund_of_a_renewal_of_somebody_the_site_knows(shop: Shop) -> None:
    """That user's as well; if it comes before the session, it knows no more than the e-mail address."""
    subscription = Subscription(shop)
    subscription.begins(client_reference_id="user_42")
    subscription.renews()
    shop.later(days=2)
    refunds(shop, 2900, of=2900, n=subscription.payments, customer="cus_1")


@life(
    """
    site:user_77 subscription_started 29 EUR
    site:user_77 subscription_renewed 29 EUR
    site:user_77 subscription_ended
    """,
    revenue={"EUR": "58.00"},
)
def a_subscription_with_the_sites_id_in_its_metadata(shop: Shop) -> None:
    """`subscription_data.metadata.user_id`: every invoice and every change carries it."""
    subscription = Subscription(shop, metadata={"user_id": "user_77"})
    subscription.begins()
    subscription.renews()
    subscription.ends()


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com payment_failed 29 EUR
    ada@example.com payment_failed 29 EUR
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
)
def failed_then_recovered(shop: Shop) -> None:
    """Two attempts fail, the third is paid: one event for each, and none for the twins."""
    subscription = Subscription(shop)
    subscription.begins()
    subscription.next_period()
    subscription.fails(attempt=1)
    shop.later(days=3)
    subscription.fails(attempt=2)
    shop.later(days=3)
    subscription.recovers()


@life(
    """
    ada@example.com trial_started
    ada@example.com subscription_cancel_scheduled
    ada@example.com subscription_ended
    """,
    revenue={},
)
def a_trial_that_ends(shop: Shop) -> None:
    """Nobody paid: the invoice of nothing is no sale."""
    subscription = Subscription(shop, trial_days=14)
    subscription.begins()
    shop.later(days=3)
    subscription.is_to_end()
    subscription.ends()


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com plan_changed
    ada@example.com subscription_renewed 59 EUR
    """,
    revenue={"EUR": "88.00"},
)
def an_upgrade_that_is_billed_with_the_next_renewal(shop: Shop) -> None:
    """The change is told when it happens, its money when it is paid."""
    subscription = Subscription(shop)
    subscription.begins()
    shop.later(days=15)
    subscription.switches("pro", 4900)
    subscription.next_period()
    before = {"start": shop.now - MONTH // 2, "end": shop.now, "prorated": True}
    left = subscription.line(-1450, plan="basic", unit=2900, **before)
    taken = subscription.line(2450, plan="pro", unit=4900, **before)
    subscription.bill(5900, "subscription_cycle", left, taken, subscription.line(4900))


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com subscription_cancel_scheduled
    ada@example.com subscription_resumed
    ada@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "58.00"},
)
def a_cancellation_that_is_withdrawn(shop: Shop) -> None:
    """She thinks better of it."""
    subscription = Subscription(shop)
    subscription.begins()
    shop.later(days=3)
    subscription.is_to_end()
    shop.later(days=3)
    subscription.is_to_go_on()
    subscription.renews()


@life(
    """
    ada@example.com subscription_started 29 EUR
    ada@example.com subscription_started 29 EUR
    bob@example.com subscription_started 29 EUR
    ada@example.com subscription_renewed 29 EUR
    bob@example.com subscription_renewed 29 EUR
    """,
    revenue={"EUR": "145.00"},
)
def subscriptions_of_two_people(shop: Shop) -> None:
    """One of them has two."""
    first, second, third = Subscription(shop), Subscription(shop, n=2), Subscription(shop, n=3, email=BOB)
    first.begins()
    second.begins()
    third.begins()
    first.renews()
    third.renews()


# --- currencies and accounts ------------------------------------------------------------------------------------------


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com purchase 500 JPY
    ada@example.com purchase 12.34 KWD
    ada@example.com purchase 500 ISK
    ada@example.com purchase 1999 HUF
    ada@example.com purchase 5000 UGX
    ada@example.com refund 2.34 KWD
    ada@example.com refund 100 JPY
    """,
    revenue={"EUR": "19.99", "JPY": "500", "KWD": "12.340", "ISK": "500", "HUF": "1999", "UGX": "5000"},
)
def many_currencies(shop: Shop) -> None:
    """Each with its own decimals, and with Stripe's own exceptions."""
    pays(shop, 1999, "eur", n=1)
    pays(shop, 500, "jpy", n=2)
    pays(shop, 12340, "kwd", n=3)
    pays(shop, 50000, "isk", n=4)
    pays(shop, 199900, "huf", n=5)
    pays(shop, 500000, "ugx", n=6)
    refunds(shop, 2340, of=12340, n=3, currency="kwd")
    refunds(shop, 100, of=500, n=2, currency="jpy")


@life(
    """
    ada@example.com purchase 19.99 EUR
    ada@example.com refund 5 EUR
    bob@example.com purchase 7 EUR
    bob@example.com refund 7 EUR
    """,
    revenue={"EUR": "26.99"},
)
def two_accounts_of_a_platform(shop: Shop) -> None:
    """Connect: their objects have the same ids, and are not the same."""
    one, other = Shop(shop.version, account="acct_1"), Shop(shop.version, account="acct_2")
    pays(one)
    pays(other, 700, email=BOB)
    refunds(one, 500, of=1999)
    refunds(other, 700, of=700, email=BOB)
    shop.said = sorted([*one.said, *other.said], key=lambda said: said["created"])


# --- in all their shapes ----------------------------------------------------------------------------------------------


def _entries(ledger: str) -> list[Entry]:
    return [entry(*line.split()) for line in ledger.splitlines() if line.strip()]


def _scenario(told: Life, version: str, options: tuple[str, ...]) -> Scenario:
    shop = Shop(version)
    told.happens(shop)
    kept = {*told.words, *(told.links if options and version == BASIL else ())}
    return Scenario(
        name=f"{told.happens.__name__}, {version}{', options on' if options else ''}",
        about=told.happens.__doc__ or "",
        deliveries=shop.deliveries(),
        ledger=_entries(told.ledger),
        revenue={currency: Decimal(amount) for currency, amount in told.revenue.items()},
        options=options,
        policy=told.policy,
        kept=[place for place, said in enumerate(shop.said) if said["type"] in kept],
    )


#: Each life in each version. What is told with the options on holds all that is told with them off: so of the old
#: versions only the former are told every time.
SCENARIOS: list[Scenario] = []
MORE: list[Scenario] = []
for _life in LIVES:
    for _version in VERSIONS:
        for _options in _life.options:
            _is_covered = not _options and OPTIONS in _life.options and _version != ENDIVE
            (MORE if _is_covered else SCENARIOS).append(_scenario(_life, _version, _options))
