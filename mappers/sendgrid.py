"""SendGrid. https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event (read 2026-11-23).

In: arrays of items, each about one recipient of one message. Out: an event for each. The sender's custom arguments lie
among SendGrid's own fields. What mail servers say (`reason`, `response`) quotes addresses and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import MIB, Draft, Item, Notification, Person, Provider, SecretShape, event, field
from relay.signatures import public_key

SAID = field("sg_event_id")


def _id(item: Item) -> str | None:
    """None where it is what the documentation's examples have for one, the same in all of them."""
    said = SAID(item)
    return None if said == "sg_event_id" else said


provider = Provider(
    name="sendgrid",
    title="SendGrid",
    docs="https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook",
    # A batch that could not be delivered comes again for a day, so the signed time is not enforced.
    verifier=public_key(
        kind="ecdsa-p256",
        header="X-Twilio-Email-Event-Webhook-Signature",
        timestamp="X-Twilio-Email-Event-Webhook-Timestamp",
    ),
    notification_id=_id,
    notification_type=field("event"),
    items=lambda body: body if isinstance(body, list) else [body],
    body_limit=4 * MIB,
    secret=SecretShape(
        meaning="SendGrid > Settings > Mail Settings > Event Webhooks > your webhook > Signature Verification: the "
        "verification key (public)",
        mistaken={"SG.": "an API key"},
    ),
    options={
        "sent": "An event for every message that SendGrid took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
provider.ignores("account_status_change")

Json = Mapping[str, Any]

#: What each of SendGrid's events is, and the option that it asks for.
EVENTS = {
    "processed": ("email_sent", "sent"),
    "delivered": ("email_delivered", "delivered"),
    "deferred": ("email_deferred", "deferred"),
    "open": ("email_opened", "opened"),
    "click": ("email_clicked", None),
    "bounce": ("email_bounced", None),
    "dropped": ("email_dropped", None),
    "spamreport": ("email_complained", None),
    "unsubscribe": ("email_unsubscribed", None),
    "group_unsubscribe": ("email_unsubscribed", None),
    "group_resubscribe": ("email_resubscribed", None),
}

#: The types of a bounce, in the words of all providers; `blocked` stays as it is.
BOUNCES = {"bounce": "hard"}

#: Why a message was dropped, where it is one of SendGrid's own reasons.
DROPPED = {
    "bounced address": "bounced_address",
    "unsubscribed address": "unsubscribed_address",
    "spam reporting address": "spam_reporting_address",
    "invalid": "invalid_address",
    "invalid smtpapi header": "invalid_header",
    "spam content (if spam checker app enabled)": "spam_content",
    "recipient list over package quota": "over_quota",
}

#: Its own fields, beside those that begin with `sg_`: what is left are the sender's custom arguments.
OWN = """
email timestamp event smtp-id category reason response status type attempt url url_offset useragent ip tls cert_err pool
asm_group_id bounce_classification send_at post_type newsletter template_id template_hash template_version_id
marketing_campaign_id marketing_campaign_name marketing_campaign_version marketing_campaign_split_id singlesend_id
singlesend_name mc_stats mc_auto_name mc_auto_id mc_auto_step_id mc_pod_id phase_id
"""
OWN_FIELDS = frozenset(OWN.split())

#: What is more is in milliseconds: in seconds it would be the year 5138.
LAST_SECOND = 10**11

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _tags(o: Json) -> str | None:
    """A category is a text, or a list of them."""
    category = o.get("category")
    return ", ".join(map(str, category if isinstance(category, list) else [category or ""])) or None


def _at_ms(o: Json) -> int:
    """In seconds; of Single Sends the documentation shows milliseconds."""
    told = int(o["timestamp"])
    return told if told > LAST_SECOND else told * 1000


def _properties(o: Json) -> dict[str, Any]:
    kind, attempt = o["event"], o.get("attempt")
    return {
        "message_id": o.get("sg_message_id"),
        "tags": _tags(o),
        "campaign": o.get("singlesend_name") or o.get("marketing_campaign_name"),
        "campaign_id": o.get("singlesend_id") or o.get("marketing_campaign_id"),
        "template_id": o.get("template_id") or o.get("sg_template_id"),
        "unsubscribe_group": o.get("asm_group_id"),
        "bounce_type": BOUNCES.get(str(o.get("type")), o.get("type")) if kind == "bounce" else None,
        "bounce_classification": o.get("bounce_classification"),
        "status": o.get("status") if kind in ("bounce", "dropped") else None,
        "reason": DROPPED.get(str(o.get("reason")).lower()) if kind == "dropped" else None,
        "attempt": int(attempt) if kind == "deferred" and attempt else None,
        "machine_open": o.get("sg_machine_open") if kind == "open" else None,
    }


def told(n: Notification) -> Iterator[Draft]:
    """An item without an id of its own counts by all that it says."""
    o = n.body
    url, found = _landing(o.get("url") if n.type == "click" else None)
    custom = {key: value for key, value in o.items() if key not in OWN_FIELDS and not key.startswith("sg_")}
    yield event(
        EVENTS[n.type][0],
        once=f"event:{n.id}",
        at_ms=_at_ms(o),
        person=Person(email=o.get("email")),
        url=url,
        metadata={**found, **custom},
        properties=_properties(o),
    )


for _kind, (_, _option) in EVENTS.items():
    provider.on(_kind, option=_option)(told)
