"""RevenueCat. https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields (read 2026-11-23).

In: what happened to a purchase, in any of the stores. Out: a sale by the store's transaction, its refund, and the steps
of a subscription. A transaction is named with its time, too: some stores keep one id over all renewals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from relay.contract import Draft, Item, Learned, Notification, Person, Provider, SecretShape, conversion, event, field
from relay.money import exponent, from_major
from relay.signatures import either, header_token, timestamped_pairs


def _is_test(item: Item) -> bool:
    said = item.body["event"]
    return bool(said.get("environment") == "SANDBOX" or said.get("store") == "TEST_STORE")


provider = Provider(
    name="revenuecat",
    title="RevenueCat",
    docs="https://www.revenuecat.com/docs/integrations/webhooks",
    # The signature came in 2026 and has to be switched on; without it there is the header alone.
    verifier=either(
        timestamped_pairs(header="X-RevenueCat-Webhook-Signature", tolerance_s=300),
        header_token("Authorization"),
    ),
    notification_id=field("event.id"),
    notification_type=field("event.type"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="RevenueCat > your project > Integrations > Webhooks: the signing secret, or the authorization header",
        mistaken={"sk_": "a secret API key", "appl_": "a public SDK key", "goog_": "a public SDK key"},
    ),
    options={"apps_only": "What was bought on the web is left out: a source of Stripe or Paddle tells it."},
    instead=frozenset({"apps_only"}),
)

#: Stores whose purchases have webhooks of their own: Web Billing is on the merchant's Stripe account.
WEB_STORES = ("STRIPE", "PADDLE", "RC_BILLING")

#: What moves no money of its own, and what moves within RevenueCat.
OTHERS = """
EXPERIMENT_ENROLLMENT INVOICE_ISSUANCE PAYWALL_CANCEL PAYWALL_CLOSE PAYWALL_COMPONENT_INTERACTED PAYWALL_EXIT_OFFER
PAYWALL_IMPRESSION PRICE_INCREASE_CONSENT_APPROVED PRICE_INCREASE_CONSENT_REQUIRED PURCHASE_REDEEMED SUBSCRIBER_ALIAS
SUBSCRIPTION_EXTENDED TEMPORARY_ENTITLEMENT_GRANT TEST TRANSFER VIRTUAL_CURRENCY_TRANSACTION
"""
provider.ignores(*OTHERS.split())

Json = Mapping[str, Any]

#: RevenueCat's own attributes that say where a customer came from.
CAMPAIGN = {
    "$mediaSource": "utm_source",
    "$campaign": "utm_campaign",
    "$keyword": "utm_term",
    "$creative": "utm_content",
}


def _attributes(e: Json) -> dict[str, Any]:
    """The customer's attributes by name, without the times at which they were set."""
    found = e.get("subscriber_attributes") or {}
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in found.items()}


def _person(e: Json, attributes: Json) -> Person:
    """The site's own id is the first that RevenueCat did not make up."""
    ids = (e.get("app_user_id"), e.get("original_app_user_id"), *(e.get("aliases") or ()))
    own = next((found for found in ids if found and not found.startswith("$RCAnonymousID:")), None)
    customer = e.get("original_app_user_id") or e.get("app_user_id")
    return Person(email=attributes.get("$email"), external_id=own, customer_id=customer)


def _keys(e: Json) -> tuple[str, ...]:
    ids = (e.get("original_app_user_id"), e.get("app_user_id"))
    subscription = e.get("original_transaction_id")
    customers = dict.fromkeys(f"customer:{found}" for found in ids if found)
    return (*((f"subscription:{subscription}",) if subscription else ()), *customers)


def _about(e: Json) -> dict[str, Any]:
    """Who it was, where from, and what was bought."""
    attributes = _attributes(e)
    campaign = {key: attributes[name] for name, key in CAMPAIGN.items() if attributes.get(name)}
    own = {name: value for name, value in attributes.items() if not name.startswith("$")}
    return {
        "person": _person(e, attributes),
        "metadata": {**campaign, **own, **(e.get("metadata") or {})},
        "joins": _keys(e),
        "without": "apps_only" if e.get("store") in WEB_STORES else None,
        "properties": {
            "order_id": e.get("transaction_id"),
            "subscription_id": e.get("original_transaction_id") if e.get("expiration_at_ms") else None,
            "product": e.get("product_id"),
            "quantity": e.get("quantity"),
            "coupon": e.get("offer_code"),
            "country": e.get("country_code"),
            "store": e.get("store"),
            "period_type": e.get("period_type"),
            "offering": e.get("presented_offering_id"),
        },
    }


def _learned(about: Json) -> Iterator[Learned]:
    if about["joins"]:
        yield Learned(keys=about["joins"], person=about["person"], metadata=about["metadata"])


def _transaction(n: Notification) -> str:
    """The purchase that this is about."""
    e = n.body["event"]
    return f"{e['transaction_id']}:{e.get('purchased_at_ms')}" if e.get("transaction_id") else n.id


def _said_ms(e: Json) -> int:
    """When it happened; older webhooks do not say."""
    return e.get("event_timestamp_ms") or 0


def _price(e: Json) -> tuple[Any, str]:
    """What the customer paid, in the currency of the purchase; where that is not told, in dollars. None: unknown."""
    price, currency = e.get("price_in_purchased_currency"), e.get("currency")
    return (e.get("price"), "USD") if price is None or not currency else (price, currency)


def _money(e: Json) -> dict[str, Any]:
    """The tax is an estimate."""
    (price, currency), share = _price(e), e.get("tax_percentage")
    if not price:
        return {}
    revenue, unit = from_major(price), Decimal(1).scaleb(-exponent(currency))
    tax = (revenue * from_major(share)).quantize(unit, ROUND_HALF_UP) if share else None
    return {"revenue": revenue, "tax": tax or None, "currency": currency}


# --- money ------------------------------------------------------------------------------------------------------------


def _sale_name(n: Notification) -> str:
    match n.type:
        case "NON_RENEWING_PURCHASE":
            return "purchase"
        case "INITIAL_PURCHASE":
            return "subscription_started"
        case _:
            return "trial_converted" if n.body["event"].get("is_trial_conversion") else "subscription_renewed"


@provider.on("INITIAL_PURCHASE", "NON_RENEWING_PURCHASE", "RENEWAL")
def sale(n: Notification) -> Iterator[Draft | Learned]:
    """What is granted, shared or free is no sale; a sale whose price the store did not tell has no revenue."""
    e, about = n.body["event"], _about(n.body["event"])
    yield from _learned(about)
    once, price = f"transaction:{_transaction(n)}", _price(e)[0]
    at_ms = e.get("purchased_at_ms") or _said_ms(e)
    if e.get("period_type") == "TRIAL":
        if n.type == "INITIAL_PURCHASE":
            yield conversion("trial_started", once=once, at_ms=at_ms, **about)
        return
    is_given = e.get("period_type") == "PROMOTIONAL" or e.get("store") == "PROMOTIONAL" or e.get("is_family_share")
    if price != 0 and not is_given:
        yield conversion(_sale_name(n), once=once, at_ms=at_ms, **_money(e), **about)


def _refund(n: Notification, about: Json, name: str, sign: int) -> Draft:
    """Its amount is part of the key: on the web a purchase may be given back in parts."""
    e, money = n.body["event"], _money(n.body["event"])
    if money:
        money["revenue"] = abs(money["revenue"]) * sign
    once = f"{name}:{_transaction(n)}:{abs(money['revenue']) if money else ''}"
    return event(name, once=once, at_ms=_said_ms(e), **money, **about)


@provider.on("REFUND_REVERSED")
def refund_reversed(n: Notification) -> Iterator[Draft | Learned]:
    about = _about(n.body["event"])
    yield from _learned(about)
    yield _refund(n, about, "refund_reversed", 1)


# --- subscriptions ----------------------------------------------------------------------------------------------------


@provider.on("CANCELLATION")
def cancellation(n: Notification) -> Iterator[Draft | Learned]:
    """A refund, a failed payment (which `BILLING_ISSUE` tells, too), or the wish not to renew."""
    e, about = n.body["event"], _about(n.body["event"])
    yield from _learned(about)
    reason, price, at_ms = e.get("cancel_reason"), _price(e)[0], _said_ms(e)
    about["properties"]["reason"] = reason
    if (price is not None and price < 0) or (reason == "CUSTOMER_SUPPORT" and price != 0):
        yield _refund(n, about, "refund", -1)
    elif reason == "BILLING_ERROR":
        yield event("payment_failed", once=f"payment_failed:{_transaction(n)}", at_ms=at_ms, **about)
    else:
        once = f"subscription_cancel_scheduled:{_transaction(n)}:{at_ms}"
        yield event("subscription_cancel_scheduled", once=once, at_ms=at_ms, **about)


@provider.on("BILLING_ISSUE")
def billing_issue(n: Notification) -> Iterator[Draft | Learned]:
    e, about = n.body["event"], _about(n.body["event"])
    yield from _learned(about)
    about["properties"]["reason"] = "BILLING_ERROR"
    yield event("payment_failed", once=f"payment_failed:{_transaction(n)}", at_ms=_said_ms(e), **about)


@provider.on("EXPIRATION")
def expiration(n: Notification) -> Iterator[Draft | Learned]:
    """A subscription that expires because it was paused has not ended: `SUBSCRIPTION_PAUSED` told it."""
    e, about = n.body["event"], _about(n.body["event"])
    yield from _learned(about)
    reason, said_ms = e.get("expiration_reason"), _said_ms(e)
    about["properties"]["reason"] = reason
    if reason != "SUBSCRIPTION_PAUSED":
        at_ms = min(filter(None, (e.get("expiration_at_ms"), said_ms)), default=0)
        yield event("subscription_ended", once=f"subscription_ended:{_transaction(n)}", at_ms=at_ms, **about)


#: What may happen more than once within a period: the event, and its reason.
STATES = {
    "SUBSCRIPTION_PAUSED": ("subscription_paused", None),
    "UNCANCELLATION": ("subscription_resumed", "cancellation_withdrawn"),
}


@provider.on(*STATES)
def subscription_state(n: Notification) -> Iterator[Draft | Learned]:
    e, about, (name, reason) = n.body["event"], _about(n.body["event"]), STATES[n.type]
    yield from _learned(about)
    about["properties"]["reason"] = reason
    at_ms = _said_ms(e)
    yield event(name, once=f"{name}:{_transaction(n)}:{at_ms}", at_ms=at_ms, **about)


@provider.on("PRODUCT_CHANGE")
def product_change(n: Notification) -> Iterator[Draft | Learned]:
    """Its money, where there is some, comes with the `RENEWAL` or `INITIAL_PURCHASE` that follows."""
    e, about, at_ms = n.body["event"], _about(n.body["event"]), _said_ms(n.body["event"])
    yield from _learned(about)
    about["properties"] |= {"from_plan": e.get("product_id"), "to_plan": e.get("new_product_id")}
    yield event("plan_changed", once=f"plan_changed:{_transaction(n)}:{at_ms}", at_ms=at_ms, **about)
