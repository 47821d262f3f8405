"""Loops. https://loops.so/docs/webhooks (schema 1.0.0, read 2026-11-23).

In: one event of one contact. Out: new contacts, subscriptions, clicks, bounces and complaints; what is sent, delivered
and opened on request. Leaving by a link is said of the e-mail and of the contact, which counts once; that Loops takes
a contact off the list after a hard bounce or a complaint is nobody's leaving.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relay.contract import (
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
    header,
)
from relay.signatures import standard_webhooks

provider = Provider(
    name="loops",
    title="Loops",
    docs="https://loops.so/docs/webhooks",
    verifier=standard_webhooks(),
    notification_id=header("webhook-id"),
    notification_type=field("eventName"),
    is_test=lambda item: item.body.get("eventName") == "testing.testEvent",
    secret=SecretShape(meaning="Loops > Settings > Webhooks > Signing secret", prefix="whsec_"),
    options={
        "sent": "An event for every e-mail that is sent.",
        "delivered": "An event for every e-mail that is delivered.",
        "opened": "An event for every e-mail that is opened.",
    },
)
provider.ignores("contact.deleted", "testing.testEvent")

#: What is said twice of one act is said within this time.
TWINS_S = 600
#: The mark of a contact that Loops takes off the list by itself.
SUPPRESSED = "suppressed"


def _person(n: Notification) -> Person:
    contact = n.body.get("contactIdentity") or {}
    return Person(email=contact.get("email"), external_id=contact.get("userId"), customer_id=contact.get("id"))


def _joins(n: Notification) -> tuple[str, ...]:
    contact_id = _person(n).customer_id
    return (f"contact:{contact_id}",) if contact_id else ()


def _about(n: Notification) -> dict[str, Any]:
    """Who it was and when, and of which e-mail or list."""
    body = n.body
    properties = {
        "message_id": (body.get("email") or {}).get("id"),
        "message_type": {"loop": "workflow"}.get(body.get("sourceType"), body.get("sourceType")),
        "campaign_id": body.get("campaignId"),
        "workflow_id": body.get("loopId"),
        "transactional_id": body.get("transactionalId"),
        "list_id": (body.get("mailingList") or {}).get("id"),
    }
    return {
        "at_ms": body["eventTime"] * 1000,
        "person": _person(n),
        "properties": properties,
        "joins": _joins(n),
    }


def _once(n: Notification, what: str) -> list[str]:
    """Its own key, and keys of the time around it which it has in common with a twin."""
    window, who = n.body["eventTime"] // TWINS_S, _person(n).customer_id
    return [f"event:{n.id}", *(f"{what}:{who}:{part}" for part in (window, window + 1) if who)]


# --- contacts and lists -----------------------------------------------------------------------------------------------


@provider.on("contact.created")
def contact_created(n: Notification) -> Iterator[Draft | Learned]:
    contact, who = n.body.get("contact") or {}, _person(n)
    if keys := _joins(n):
        yield Learned(keys=keys, person=who, metadata=contact)
    once = f"contact:{who.customer_id}" if who.customer_id else f"event:{n.id}"
    properties = {"subscribed": contact.get("subscribed"), "lead_source": contact.get("source") or None}
    yield conversion(
        "lead_created", once=once, at_ms=n.body["eventTime"] * 1000, person=who, metadata=contact, properties=properties
    )


@provider.on("contact.mailingList.subscribed")
def list_subscribed(n: Notification) -> Iterator[Draft]:
    yield conversion("newsletter_subscribed", once=f"event:{n.id}", **_about(n))


@provider.on("email.resubscribed")
def resubscribed(n: Notification) -> Iterator[Draft]:
    yield event("email_resubscribed", once=f"event:{n.id}", **_about(n))


@provider.on("contact.mailingList.unsubscribed")
def list_unsubscribed(n: Notification) -> Iterator[Draft]:
    yield event("email_unsubscribed", once=f"event:{n.id}", **_about(n))


@provider.on("contact.unsubscribed", "email.unsubscribed")
def unsubscribed(n: Notification) -> Iterator[Draft]:
    about = _about(n)
    if n.type == "contact.unsubscribed":
        about |= {"joins": (*about["joins"], *_suppression(n)), "unless": (SUPPRESSED,)}
    yield event("email_unsubscribed", once=_once(n, "unsubscribed"), **about)


# --- e-mails ----------------------------------------------------------------------------------------------------------

#: The event, and what kind of bounce it is.
EMAILS = {
    "campaign.email.sent": ("email_sent", None),
    "loop.email.sent": ("email_sent", None),
    "transactional.email.sent": ("email_sent", None),
    "email.delivered": ("email_delivered", None),
    "email.opened": ("email_opened", None),
    "email.clicked": ("email_clicked", None),
    "email.softBounced": ("email_bounced", "soft"),
    "email.hardBounced": ("email_bounced", "hard"),
    "email.spamReported": ("email_complained", None),
}


def _suppression(n: Notification) -> tuple[str, ...]:
    """Contact and day: leaving by itself, some other day, counts again."""
    contact_id = _person(n).customer_id
    return (f"suppression:{contact_id}:{n.body['eventTime'] // 86_400}",) if contact_id else ()


@provider.on("email.clicked", "email.softBounced", "email.hardBounced", "email.spamReported")
@provider.on("campaign.email.sent", "loop.email.sent", "transactional.email.sent", option="sent")
@provider.on("email.delivered", option="delivered")
@provider.on("email.opened", option="opened")
def email(n: Notification) -> Iterator[Draft | Learned]:
    (name, bounce_type), about = EMAILS[n.type], _about(n)
    about["properties"] |= {"bounce_type": bounce_type}
    if n.type in ("email.hardBounced", "email.spamReported") and (keys := _suppression(n)):
        yield Learned(keys=keys, marks=(SUPPRESSED,))
    yield event(name, once=f"event:{n.id}", **about)
