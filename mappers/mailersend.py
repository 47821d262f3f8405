"""MailerSend. https://developers.mailersend.com/api/v1/account/webhooks (versions 1 and 2, read 2026-11-24).

In: one activity of one e-mail to one recipient; version 2 of a webhook is flat, and says `recipient` or `email` for who
that is. Out: clicks, bounces, complaints, unsubscriptions and suppressions; what is sent, delivered, deferred and
opened on request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    Answer,
    Delivery,
    Draft,
    Notification,
    Person,
    Provider,
    SecretShape,
    event,
    field,
)
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

#: What asks whether somebody is there: short, and about nothing.
CHECK = re.compile(rb'\s*\{[^{}]*"type"\s*:\s*"webhook\.test"[^{}]*(\{[^{}]*\}[^{}]*)?\}\s*')
LONGEST_CHECK = 1000


def _greeted(delivery: Delivery) -> Answer | None:
    """To the check of a URL, which is signed with a key that everybody knows: unanswered, the webhook is not made."""
    is_check = len(delivery.body) <= LONGEST_CHECK and CHECK.fullmatch(delivery.body)
    return Answer() if is_check else None


provider = Provider(
    name="mailersend",
    title="MailerSend",
    docs="https://developers.mailersend.com/api/v1/account/webhooks",
    verifier=hmac_sha256(header="Signature"),
    notification_id=field("data.id"),
    notification_type=field("type"),
    handshake=_greeted,
    secret=SecretShape(
        meaning="MailerSend > Domains > your domain > Webhooks > your webhook > Signing secret",
        mistaken={"mlsn.": "an API token", "test_": "the key of MailerSend's own check, which everybody knows"},
    ),
    options={
        "sent": "An event for every e-mail that is sent.",
        "delivered": "An event for every e-mail that is delivered.",
        "opened": "An event for every e-mail that is opened.",
        "deferred": "An event for every delivery that is put off.",
    },
)

#: The first of several opens or clicks, which is among all of them; and what is not about one recipient.
SILENT = """
activity.clicked_unique activity.opened_unique activity.survey_opened activity.survey_submitted bulk_email.completed
email_list.verified email_single.verified inbound_forward.failed inbound_message.rejected maintenance.end
maintenance.start recipient.on_hold_added recipient.on_hold_removed sender_identity.verified sms.delivered sms.failed
sms.sent webhook.test
"""
provider.ignores(*SILENT.split())

CAMPAIGN = frozenset(
    ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: The event, and what kind of bounce it is.
EMAILS = {
    "activity.sent": ("email_sent", None),
    "activity.delivered": ("email_delivered", None),
    "activity.deferred": ("email_deferred", None),
    "activity.opened": ("email_opened", None),
    "activity.clicked": ("email_clicked", None),
    "activity.soft_bounced": ("email_bounced", "soft"),
    "activity.hard_bounced": ("email_bounced", "hard"),
    "activity.spam_complaint": ("email_complained", None),
    "activity.unsubscribed": ("email_unsubscribed", None),
    "activity.suppressed": ("email_dropped", None),
}


def _clicked(link: str | None) -> dict[str, Any]:
    """The page with what names the campaign; anything else in the query may be a token."""
    page, _, query = (link or "").partition("#")[0].partition("?")
    told = {key: text for key, text in parse_qsl(query) if key in CAMPAIGN}
    return {"url": f"{page}?{urlencode(told)}" if told else page or None, "metadata": told}


def _person(activity: Json) -> Person:
    email = activity.get("recipient") or activity.get("email")
    if isinstance(email, Mapping):
        recipient = email.get("recipient") or {}
        return Person(email=recipient.get("email"), customer_id=recipient.get("id"))
    return Person(email=email)


def _more(activity: Json) -> Json:
    """What the kind of activity has to say beside: an empty list where that is nothing."""
    return activity.get("morph") or activity.get("meta") or {}


def _properties(activity: Json, bounce_type: str | None) -> dict[str, Any]:
    email, more = activity.get("email"), _more(activity)
    whole = email if isinstance(email, Mapping) else activity
    return {
        "message_id": (whole.get("message") or {}).get("id") or whole.get("message_id"),
        "template_id": activity.get("template_id") or None,
        "tags": ", ".join(whole.get("tags") or ()) or None,
        "bounce_type": bounce_type,
        "country": more.get("country"),
        "reason": more.get("suppression_reason"),
    }


@provider.on("activity.clicked", "activity.soft_bounced", "activity.hard_bounced", "activity.suppressed")
@provider.on("activity.spam_complaint", "activity.unsubscribed")
@provider.on("activity.sent", option="sent")
@provider.on("activity.delivered", option="delivered")
@provider.on("activity.deferred", option="deferred")
@provider.on("activity.opened", option="opened")
def email(n: Notification) -> Iterator[Draft]:
    activity, (name, bounce_type) = n.body["data"], EMAILS[n.type]
    said = datetime.fromisoformat(activity.get("created_at") or n.body["created_at"])
    yield event(
        name,
        once=f"activity:{n.id}",
        at_ms=(said - EPOCH) // timedelta(milliseconds=1),
        person=_person(activity),
        properties=_properties(activity, bounce_type),
        **(_clicked(_more(activity).get("url")) if n.type == "activity.clicked" else {}),
    )
