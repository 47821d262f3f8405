"""Resend. https://resend.com/docs/webhooks/event-types (read 2026-11-23).

In: what happened to an e-mail or a contact. Out: an event for it. Of an e-mail to several people Resend tells one
event for each of them and not for whom: such events name nobody. The time is that of the event, which is neither that
of the e-mail (`data.created_at`) nor that of the attempt to deliver the webhook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import getaddresses
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    Draft,
    Item,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.signatures import standard_webhooks

Json = Mapping[str, Any]


def _id(item: Item) -> str | None:
    return item.headers.get("svix-id") or item.headers.get("webhook-id")


provider = Provider(
    name="resend",
    title="Resend",
    docs="https://resend.com/docs/webhooks/introduction",
    verifier=standard_webhooks(),
    notification_id=_id,
    notification_type=field("type"),
    secret=SecretShape(
        meaning="Resend > Webhooks > your webhook > Signing Secret", prefix="whsec_", mistaken={"re_": "an API key"}
    ),
    options={
        "sent": "An event for every message that Resend took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
#: Twins of what is mapped (a suppression follows a bounce), steps on the way to it, and what is about nobody.
IGNORED = """
email.scheduled email.received contact.deleted suppression.added suppression.removed
domain.created domain.updated domain.deleted topic.created topic.updated topic.deleted
"""
provider.ignores(*IGNORED.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What each type is, and the option that it asks for.
EMAILS = {
    "email.sent": ("email_sent", "sent"),
    "email.delivered": ("email_delivered", "delivered"),
    "email.delivery_delayed": ("email_deferred", "deferred"),
    "email.opened": ("email_opened", "opened"),
    "email.clicked": ("email_clicked", None),
    "email.bounced": ("email_bounced", None),
    "email.complained": ("email_complained", None),
    "email.failed": ("email_dropped", None),
    "email.suppressed": ("email_dropped", None),
}

#: The types of a bounce, in the words of all providers.
BOUNCES = {"Permanent": "hard", "Transient": "soft"}

#: What of a clicked link's query may leave, and of the tags where nobody is named; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

#: Apple's mail program loads every picture of every message, through a proxy that says no more than this.
APPLE_PROXY = "Mozilla/5.0"

_SLUG = re.compile(r"[A-Za-z0-9_]+")


def _at_ms(n: Notification) -> int:
    said = n.body.get("created_at") or n.body["data"]["created_at"]
    return (datetime.fromisoformat(said) - EPOCH) // timedelta(milliseconds=1)


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _recipients(o: Json) -> list[str]:
    """All of them: an e-mail of which a copy went to somebody has several."""
    fields = [o.get(name) or [] for name in ("to", "cc", "bcc")]
    told = [text for found in fields for text in ([found] if isinstance(found, str) else found)]
    headers = [each for each in o.get("headers") or () if isinstance(each, Mapping)]
    told += [str(each.get("value")) for each in headers if str(each.get("name")).lower() in ("cc", "bcc")]
    return [address for _, address in getaddresses(told) if address]


def _tags(o: Json) -> dict[str, Any]:
    """By name; older payloads have a list of them."""
    tags = o.get("tags") or {}
    return dict(tags) if isinstance(tags, Mapping) else {each["name"]: each.get("value") for each in tags}


def email(n: Notification) -> Iterator[Draft]:
    o = n.body["data"]
    recipients = _recipients(o)
    click, bounce, opening = o.get("click") or {}, o.get("bounce") or {}, o.get("open") or {}
    reason = str((o.get("failed") or {}).get("reason") or (o.get("suppressed") or {}).get("type") or "")
    url, told = _landing(click.get("link"))
    is_one, tags = len(recipients) == 1, _tags(o)
    machine = True if n.type == "email.opened" and opening.get("userAgent") == APPLE_PROXY else None
    yield event(
        EMAILS[n.type][0],
        once=f"event:{n.id}",
        at_ms=_at_ms(n),
        person=Person(email=recipients[0] if is_one else None),
        url=url,
        metadata={**told, **(tags if is_one else {key: tags[key] for key in CAMPAIGN if key in tags})},
        properties={
            "message_id": o.get("email_id"),
            "broadcast_id": o.get("broadcast_id"),
            "template_id": o.get("template_id"),
            "bounce_type": BOUNCES.get(str(bounce.get("type")), bounce.get("type")),
            "bounce_subtype": bounce.get("subType"),
            "reason": reason if _SLUG.fullmatch(reason) else None,
            "machine_open": machine,
        },
    )


for _type, (_, _option) in EMAILS.items():
    provider.on(_type, option=_option)(email)


# --- contacts ---------------------------------------------------------------------------------------------------------


def _contact(n: Notification) -> dict[str, Any]:
    o = n.body["data"]
    properties = {"contact_id": o["id"], "audience_id": o.get("audience_id")}
    return {"person": Person(email=o.get("email"), customer_id=o["id"]), "properties": properties}


@provider.on("contact.created")
def contact_created(n: Notification) -> Iterator[Draft]:
    yield conversion("lead_created", once=f"contact:{n.body['data']['id']}", at_ms=_at_ms(n), **_contact(n))


@provider.on("contact.updated")
def contact_updated(n: Notification) -> Iterator[Draft]:
    """Told at every change of a contact who is unsubscribed, and counted at the first."""
    o = n.body["data"]
    if o.get("unsubscribed"):
        yield event("email_unsubscribed", once=f"unsubscribed:{o['id']}", at_ms=_at_ms(n), **_contact(n))


#: What a contact's new word about a topic is.
TOPICS = {"opt_out": "email_unsubscribed", "opt_in": "email_resubscribed"}


@provider.on("contact.topics.updated")
def topics_updated(n: Notification) -> Iterator[Draft]:
    """Only topics that have changed are listed."""
    o = n.body["data"]
    said = {each.get("subscription"): each.get("id") for each in o.get("topics") or ()}
    for word, name in TOPICS.items():
        if word in said:
            properties = {"contact_id": o.get("id"), "topic_id": said[word]}
            about: dict[str, Any] = {"person": Person(email=o.get("email")), "properties": properties}
            yield event(name, once=f"{word}:{n.id}", at_ms=_at_ms(n), **about)
