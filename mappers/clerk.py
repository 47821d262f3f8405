"""Clerk. https://clerk.com/docs/guides/development/webhooks/overview (read 2026-11-24).

In: users, sessions, the waitlist, and what Clerk Billing charges. Out: sign-ups and leads; logins and money on request,
because Clerk Billing takes money through Stripe, which may be a source as well. A session names its user by id: it
waits for what `user.created` or `user.updated` told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.contract import (
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.money import from_minor
from relay.signatures import standard_webhooks

Json = Mapping[str, Any]


def _id(item: Item) -> str | None:
    return item.headers.get("svix-id") or item.headers.get("webhook-id")


provider = Provider(
    name="clerk",
    title="Clerk",
    docs="https://clerk.com/docs/guides/development/webhooks/overview",
    verifier=standard_webhooks(),
    notification_id=_id,
    notification_type=field("type"),
    secret=SecretShape(
        meaning="Clerk Dashboard > Configure > Webhooks > your endpoint > Signing Secret",
        prefix="whsec_",
        mistaken={"sk_": "an API key", "pk_": "a publishable key"},
    ),
    options={
        "logins": "An event for every session that begins.",
        "billing": "Payments and subscriptions of Clerk Billing; leave it out where Stripe tells them.",
    },
)

#: What is about organizations, roles and messages, and steps on the way to what is mapped.
IGNORED = """
email.created organization.created organization.deleted organization.updated organizationDomain.created
organizationDomain.deleted organizationDomain.updated organizationInvitation.accepted organizationInvitation.created
organizationInvitation.revoked organizationMembership.created organizationMembership.deleted
organizationMembership.updated permission.created permission.deleted permission.updated role.created role.deleted
role.updated session.ended session.pending session.removed session.revoked sms.created subscription.active
subscription.created subscription.pastDue subscription.past_due subscription.updated subscriptionItem.abandoned
subscriptionItem.active subscriptionItem.created subscriptionItem.freeTrialEnding subscriptionItem.incomplete
subscriptionItem.pastDue subscriptionItem.past_due subscriptionItem.upcoming subscriptionItem.updated user.deleted
waitlistEntry.updated
"""
provider.ignores(*IGNORED.split())

#: What may be taken of metadata that a browser may set.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _data(n: Notification) -> Json:
    data: Json = n.body["data"]
    return data


# --- users ------------------------------------------------------------------------------------------------------------


def _email(user: Json) -> str | None:
    """The primary address; where none is marked, the only one."""
    addresses: Sequence[Json] = user.get("email_addresses") or ()
    primary = [one for one in addresses if one.get("id") == user.get("primary_email_address_id")]
    found = primary or addresses
    return found[0].get("email_address") if len(found) == 1 else None


def _person(user: Json) -> Person:
    return Person(email=_email(user), external_id=user.get("external_id") or None, customer_id=user.get("id"))


def _metadata(user: Json) -> dict[str, Any]:
    """Clerk's own id is under a key of its own, for sites that identify their users by it."""
    unsafe = user.get("unsafe_metadata") or {}
    told = {key: unsafe[key] for key in CAMPAIGN if key in unsafe}
    return {**told, **(user.get("public_metadata") or {}), "clerk_user_id": user.get("id")}


def _learned(user: Json) -> Learned:
    return Learned(keys=(f"user:{user['id']}",), person=_person(user), metadata=_metadata(user))


def _method(user: Json) -> str | None:
    """`oauth_google`, or how the address was verified."""
    accounts: Sequence[Json] = user.get("external_accounts") or ()
    if accounts and accounts[0].get("provider"):
        return str(accounts[0]["provider"])
    verified = [(one.get("verification") or {}).get("strategy") for one in user.get("email_addresses") or ()]
    return next(filter(None, verified), None)


@provider.on("user.created")
def user_created(n: Notification) -> Iterator[Draft | Learned]:
    user = _data(n)
    yield _learned(user)
    yield conversion(
        "signup",
        once=f"signup:{user['id']}",
        at_ms=user.get("created_at") or n.body["timestamp"],
        person=_person(user),
        metadata=_metadata(user),
        properties={"provider_user_id": user["id"], "method": _method(user)},
    )


@provider.on("user.updated")
def user_updated(n: Notification) -> Iterator[Learned]:
    yield _learned(_data(n))


@provider.on("session.created", option="logins")
def session_created(n: Notification) -> Iterator[Draft]:
    """The user is in it, or is known by id."""
    session = _data(n)
    user, user_id = session.get("user") or {}, session.get("user_id")
    yield event(
        "login",
        once=f"session:{session['id']}",
        at_ms=session.get("created_at") or n.body["timestamp"],
        person=_person({"id": user_id, **user}),
        metadata=_metadata({"id": user_id, **user}),
        joins=(f"user:{user_id}",) if user_id else (),
        waits=bool(user_id) and not user,
        properties={"provider_user_id": user_id},
    )


@provider.on("waitlistEntry.created")
def waitlisted(n: Notification) -> Iterator[Draft]:
    entry = _data(n)
    yield conversion(
        "lead_created",
        once=f"waitlist:{entry['id']}",
        at_ms=entry.get("created_at") or n.body["timestamp"],
        person=Person(email=entry.get("email_address")),
        properties={"lead_source": "waitlist"},
    )


# --- billing ----------------------------------------------------------------------------------------------------------


def _payer(o: Json) -> dict[str, Any]:
    """A user, or an organization with the address that its bills go to."""
    payer = o.get("payer") or {}
    user_id = payer.get("user_id")
    email = payer.get("email")
    return {
        "person": Person(email=email, customer_id=user_id or payer.get("organization_id") or payer.get("id")),
        "metadata": {"clerk_user_id": user_id},
        "joins": (f"user:{user_id}",) if user_id else (),
        "waits": bool(user_id) and not email,
    }


def _plan(item: Json) -> dict[str, Any]:
    plan, period = item.get("plan") or {}, item.get("plan_period")
    return {
        "plan": plan.get("slug") or item.get("plan_id"),
        "billing_interval": {"annual": "year"}.get(str(period), period),
        "subscription_id": item.get("id"),
    }


@provider.on("paymentAttempt.created", "paymentAttempt.updated", option="billing")
def payment(n: Notification) -> Iterator[Draft]:
    """Told at each step of an attempt: when it was paid, and when it failed."""
    o = _data(n)
    totals = o["totals"]
    total = totals["grand_total"]
    items: Sequence[Json] = o.get("subscription_items") or ({},)
    amount = from_minor(total["amount"], total["currency"])
    money = {"revenue": amount, "currency": total["currency"]}
    properties = {"order_id": o.get("payment_id") or o["id"], **_plan(items[0])}
    if o["status"] == "failed":
        reason = o.get("failed_reason") or {}
        properties["reason"] = reason.get("decline_code") or reason.get("code")
        at_ms = o.get("failed_at") or o["updated_at"]
        once = f"payment_failed:{o['id']}"
        yield event("payment_failed", once=once, at_ms=at_ms, properties=properties, **money, **_payer(o))
    if o["status"] == "paid" and amount:
        tax = totals.get("tax_total") or {}
        yield conversion(
            "subscription_renewed" if o.get("charge_type") == "recurring" else "subscription_started",
            once=f"payment:{o.get('payment_id') or o['id']}",
            at_ms=o.get("paid_at") or o["updated_at"],
            tax=from_minor(tax["amount"], total["currency"]) if tax.get("amount") else None,
            properties=properties,
            **money,
            **_payer(o),
        )


def _is_paid_plan(item: Json) -> bool:
    """Everybody has an item of the free plan, which ends when another begins."""
    plan = item.get("plan") or {}
    return not plan.get("is_default") and plan.get("amount") != 0


@provider.on("subscriptionItem.canceled", option="billing")
def canceled(n: Notification) -> Iterator[Draft]:
    o = _data(n)
    if _is_paid_plan(o):
        at_ms = o.get("canceled_at") or o.get("updated_at") or n.body["timestamp"]
        once, properties = f"cancel_scheduled:{o['id']}:{at_ms}", _plan(o)
        yield event("subscription_cancel_scheduled", once=once, at_ms=at_ms, properties=properties, **_payer(o))


@provider.on("subscriptionItem.ended", option="billing")
def ended(n: Notification) -> Iterator[Draft]:
    """Because it was canceled; the item of one plan also ends where another plan takes its place."""
    o = _data(n)
    if _is_paid_plan(o) and o.get("canceled_at"):
        at_ms = o.get("ended_at") or o.get("period_end") or n.body["timestamp"]
        once, properties = f"ended:{o['id']}", {**_plan(o), "reason": "canceled"}
        yield event("subscription_ended", once=once, at_ms=at_ms, properties=properties, **_payer(o))
