"""MailerSend. https://developers.mailersend.com/api/v1/webhooks.html (API v1, read 2026-11-23).

In: one activity of one e-mail to one recipient. Out: clicks, bounces, complaints and unsubscriptions; what is sent,
delivered, deferred and opened on request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import Draft, Notification, Person, Provider, SecretShape, event, field
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="mailersend",
    title="MailerSend",
    docs="https://developers.mailersend.com/api/v1/webhooks.html",
    verifier=hmac_sha256(header="Signature"),
    notification_id=field("data.id"),
    notification_type=field("type"),
    secret=SecretShape(
        meaning="MailerSend > Domains > your domain > Webhooks > your webhook > Signing secret",
        mistaken={"mlsn.": "an API token"},
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
activity.clicked_unique activity.opened_unique bulk_email.completed email_list.verified email_single.verified
inbound_forward.failed maintenance.end maintenance.start recipient.on_hold_added recipient.on_hold_removed
sender_identity.verified
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
}


def _clicked(link: str | None) -> dict[str, Any]:
    """The page with what names the campaign; anything else in the query may be a token."""
    page, _, query = (link or "").partition("#")[0].partition("?")
    told = {key: text for key, text in parse_qsl(query) if key in CAMPAIGN}
    return {"url": f"{page}?{urlencode(told)}" if told else page or None, "metadata": told}


def _properties(activity: Json, bounce_type: str | None) -> dict[str, Any]:
    email = activity.get("email") or {}
    return {
        "message_id": (email.get("message") or {}).get("id"),
        "template_id": activity.get("template_id") or None,
        "tags": ", ".join(email.get("tags") or ()) or None,
        "bounce_type": bounce_type,
    }


@provider.on("activity.clicked", "activity.soft_bounced", "activity.hard_bounced")
@provider.on("activity.spam_complaint", "activity.unsubscribed")
@provider.on("activity.sent", option="sent")
@provider.on("activity.delivered", option="delivered")
@provider.on("activity.deferred", option="deferred")
@provider.on("activity.opened", option="opened")
def email(n: Notification) -> Iterator[Draft]:
    activity, (name, bounce_type) = n.body["data"], EMAILS[n.type]
    recipient = (activity.get("email") or {}).get("recipient") or {}
    yield event(
        name,
        once=f"activity:{n.id}",
        at_ms=(datetime.fromisoformat(activity["created_at"]) - EPOCH) // timedelta(milliseconds=1),
        person=Person(email=recipient.get("email"), customer_id=recipient.get("id")),
        properties=_properties(activity, bounce_type),
        **(_clicked((activity.get("morph") or {}).get("url")) if n.type == "activity.clicked" else {}),
    )
