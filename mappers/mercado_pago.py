"""Mercado Pago. https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks (2026-11).

In: the id of a payment or of a subscription, which is all that is signed: what is mapped is what the API says about it.
A payment says all that can be told of it now, approval, refunds and chargeback. Each fact has a key of its own and
counts once, however often the payment is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    Variant,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import mercado_pago_signature

Json = Mapping[str, Any]


def _is_test(item: Item) -> bool:
    told = [item.body, *(item.answers or {}).values()]
    return any(isinstance(o, dict) and o.get("live_mode") is False for o in told)


provider = Provider(
    name="mercado_pago",
    title="Mercado Pago",
    docs="https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks",
    verifier=mercado_pago_signature(),
    # Nothing of the body is signed but `data.id`: another id makes another call of the API, and no other event.
    notification_id=composed(*map(field, ("data.id", "id", "action", "date_created"))),
    notification_type=field("type"),
    is_test=_is_test,
    secret=SecretShape(
        meaning="Mercado Pago > Your integrations > your application > Webhooks > Secret signature",
        mistaken={"APP_USR-": "an access token", "TEST-": "an access token"},
    ),
    api_key=SecretShape(
        meaning="Mercado Pago > Your integrations > your application > Production credentials > Access token",
        prefix="APP_USR-",
        mistaken={"TEST-": "an access token of the test mode"},
    ),
    api=Api(base="https://api.mercadopago.com", is_needed=True),
)

#: Twins of the payment, or about none.
provider.ignores(
    "subscription_authorized_payment",
    "subscription_preapproval_plan",
    "topic_chargebacks_wh",
    "topic_merchant_order_wh",
    "merchant_order",
    "mp-connect",
    "test",
)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _person(id_: Any, email: str | None) -> Person:
    """Some answers hide the address behind a row of X."""
    return Person(email=email if email and "@" in email else None, customer_id=str(id_) if id_ else None)


def _metadata(o: Json) -> dict[str, Any]:
    """What the site stored with it, and its own reference, in case that is the user's."""
    return _known({"external_reference": o.get("external_reference") or None, **(o.get("metadata") or {})})


def _learned(about: Json, *, marks: tuple[str, ...] = (), **ids: str | None) -> Learned:
    kinds = {**ids, "customer": about["person"].customer_id}
    keys = tuple(f"{kind}:{value}" for kind, value in kinds.items() if value)
    return Learned(keys=keys, person=about["person"], metadata=about["metadata"], marks=marks)


# --- payments ---------------------------------------------------------------------------------------------------------

#: A payment that was approved, whatever became of it then.
MADE = {"approved", "in_mediation", "refunded", "charged_back"}

#: How a chargeback ended, by the `status_detail` of its payment.
ENDS = {"settled": "dispute_lost", "reimbursed": "dispute_won"}


@provider.on("payment")
def payment(n: Notification) -> Iterator[Draft | Learned]:
    o: Json = n.ask("/v1/payments/{}", n.body["data"]["id"])
    payer, status = o.get("payer") or {}, o["status"]
    recurring = (o.get("point_of_interaction") or {}).get("transaction_data") or {}
    subscription = recurring.get("subscription_id")
    properties = {
        "order_id": str(o["id"]),
        "subscription_id": subscription,
        "method": o.get("payment_method_id"),
        "installments": o.get("installments"),
    }
    about = {"person": _person(payer.get("id"), payer.get("email")), "metadata": _metadata(o)}
    about["properties"] = _known(properties)
    about["joins"] = (f"subscription:{subscription}",) if subscription else ()
    yield _learned(about, payment=str(o["id"]), subscription=subscription)
    if status in MADE:
        yield from _made(o, about, (recurring.get("subscription_sequence") or {}).get("number"))
    elif status == "rejected":
        told = _unpaid(o, about, reason=o.get("status_detail"))
        yield event("payment_failed", once=f"payment_failed:{o['id']}", at_ms=_changed_ms(o), **told)
    elif status == "cancelled" and o.get("status_detail") == "expired":
        yield event("checkout_expired", once=f"checkout_expired:{o['id']}", at_ms=_changed_ms(o), **_unpaid(o, about))


def _changed_ms(o: Json) -> int:
    return _ms(o.get("date_last_updated") or o["date_created"])


def _unpaid(o: Json, about: Json, **more: Any) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    amount = {"amount": from_major(o["transaction_amount"]), "currency": o["currency_id"].upper()}
    return {**about, "properties": about["properties"] | amount | _known(more)}


def _made(o: Json, about: Json, number: int | None) -> Iterator[Draft]:
    """`number`: which of its subscription's payments it is, from 1."""
    subscription, currency, revenue = about["joins"], o["currency_id"], from_major(o["transaction_amount"])
    is_recurring = subscription or o.get("operation_type") == "recurring_payment"
    name = ("subscription_started" if number == 1 else "subscription_renewed") if is_recurring else "purchase"
    variants = {}
    if subscription and number in (1, None):
        once = f"trial_converted:{about['properties']['subscription_id']}"
        variants = {"trial": Variant(name="trial_converted", once=once)}
    if revenue:
        at_ms, money = _ms(o.get("date_approved") or o["date_created"]), {"revenue": revenue, "currency": currency}
        yield conversion(name, once=f"payment:{o['id']}", at_ms=at_ms, variants=variants, **money, **about)
    for back in o.get("refunds") or ():
        if back.get("status") in (None, "approved"):
            told = {**about, "properties": about["properties"] | {"refund_id": str(back["id"])}}
            money = {"revenue": -from_major(back["amount"]), "currency": currency}
            yield event("refund", once=f"refund:{back['id']}", at_ms=_ms(back["date_created"]), **money, **told)
    if o["status"] == "charged_back":
        ends = ENDS.get(o.get("status_detail") or "")
        for word in filter(None, ("dispute_opened", ends)):
            yield event(word, once=f"{word}:{o['id']}", at_ms=_changed_ms(o), **_unpaid(o, about))


# --- orders: the newer API, whose payments are told by their order ----------------------------------------------------

#: What a country pays in, by either of its codes; some answers do not say the currency.
CURRENCIES = {
    "AR": "ARS", "BR": "BRL", "CL": "CLP", "CO": "COP", "MX": "MXN", "PE": "PEN", "UY": "UYU",
    "ARG": "ARS", "BRA": "BRL", "CHL": "CLP", "COL": "COP", "MEX": "MXN", "PER": "PEN", "URY": "UYU",
}  # fmt: skip


def _once(kind: str, o: Json) -> tuple[str, ...]:
    """Under its id here, and under the one that the payments API has for it."""
    known = (o["id"], o.get("reference_id") or (o.get("reference") or {}).get("id"))
    return tuple(f"{kind}:{value}" for value in known if value)


@provider.on("order")
def order(n: Notification) -> Iterator[Draft]:
    o: Json = n.ask("/v1/orders/{}", n.body["data"]["id"])
    payer, told = o.get("payer") or {}, o.get("transactions") or {}
    person = _person(payer.get("customer_id"), payer.get("email"))
    changed_ms, currency = _ms(o["last_updated_date"]), o.get("currency") or CURRENCIES[o["country_code"]]
    # a payment has no time of its own
    at_ms = changed_ms if o.get("status_detail") == "accredited" else _ms(o["created_date"])
    for made in told.get("payments") or ():
        method, status = made.get("payment_method") or {}, made["status"]
        properties = {"order_id": o["id"], "method": method.get("id"), "installments": method.get("installments")}
        about: dict[str, Any] = {"person": person, "metadata": _metadata(o), "properties": _known(properties)}
        amount, once = from_major(made.get("paid_amount") or made["amount"]), _once("payment", made)
        amount_asked = {"amount": from_major(made["amount"]), "currency": currency.upper()}
        unpaid: dict[str, Any] = {**about, "properties": {**about["properties"], **amount_asked}}
        number = ((made.get("subscription_data") or {}).get("subscription_sequence") or {}).get("number")
        name = "purchase" if number is None else "subscription_started" if number == 1 else "subscription_renewed"
        if status in ("processed", "refunded", "charged_back") and amount:
            yield conversion(name, once=once, at_ms=at_ms, revenue=amount, currency=currency, **about)
        if status == "failed":
            unpaid["properties"] |= _known({"reason": made.get("status_detail")})
            yield event("payment_failed", once=f"payment_failed:{made['id']}", at_ms=changed_ms, **unpaid)
        if status == "charged_back":
            ends = ENDS.get(made.get("status_detail") or "")
            for word in filter(None, ("dispute_opened", ends)):
                yield event(word, once=f"{word}:{made['id']}", at_ms=changed_ms, **unpaid)
    for back in told.get("refunds") or ():
        if back.get("status") == "processed":
            about = {"person": person, "metadata": _metadata(o)}
            about["properties"] = {"order_id": o["id"], "refund_id": back["id"]}
            money = {"revenue": -from_major(back["amount"]), "currency": currency}
            yield event("refund", once=_once("refund", back), at_ms=changed_ms, **money, **about)


# --- subscriptions ----------------------------------------------------------------------------------------------------

#: What a subscription that stands so has become.
CHANGES = {"cancelled": "subscription_ended", "paused": "subscription_paused", "finished": "subscription_ended"}


@provider.on("subscription_preapproval")
def subscription(n: Notification) -> Iterator[Draft | Learned]:
    """One that has a free trial and was not charged yet is in it."""
    o: Json = n.ask("/preapproval/{}", n.body["data"]["id"])
    recurring, status = o.get("auto_recurring") or {}, o["status"]
    properties = {
        "subscription_id": o["id"],
        "plan": o.get("preapproval_plan_id"),
        "billing_interval": recurring.get("frequency_type"),
    }
    about = {"person": _person(o.get("payer_id"), o.get("payer_email")), "metadata": _metadata(o)}
    about["properties"] = _known(properties)
    is_charged = bool((o.get("summarized") or {}).get("charged_quantity"))
    is_trial = bool(recurring.get("free_trial")) and status == "authorized" and not is_charged
    yield _learned(about, subscription=o["id"], marks=("trial",) if is_trial else ())
    if is_trial:
        yield conversion("trial_started", once=f"trial_started:{o['id']}", at_ms=_ms(o["date_created"]), **about)
    if status in CHANGES:
        name, at = CHANGES[status], o.get("last_modified") or o["date_created"]
        once = f"{name}:{o['id']}" if name == "subscription_ended" else f"{name}:{o['id']}:{at}"
        yield event(name, once=once, at_ms=_ms(at), **about)
