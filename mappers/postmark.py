"""Postmark. https://postmarkapp.com/developer/webhooks/webhooks-overview (read 2026-11-23).

In: one record a delivery, about one recipient. Out: an event for it. Only bounces and spam complaints have an id; the
id of the others is made of the message, the recipient, the time and the link. A hard bounce and a spam complaint may
be told twice, by a record of their own and by the suppression that follows: whoever comes first is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import Draft, Item, Notification, Person, Provider, SecretShape, digest_of, event
from relay.signatures import basic_auth

Json = Mapping[str, Any]

#: Which field tells the kind of a record and its time. Old records name no `RecordType`.
TIMES = {
    "Delivery": "DeliveredAt",
    "Bounce": "BouncedAt",
    "SpamComplaint": "BouncedAt",
    "SubscriptionChange": "ChangedAt",
    "Click": "ReceivedAt",
    "Open": "ReceivedAt",
}


def _kind(item: Item) -> str | None:
    o = item.body
    if o.get("RecordType"):
        return str(o["RecordType"])
    if "FromFull" in o:
        return "Inbound"
    if "BouncedAt" in o:
        return "SpamComplaint" if o.get("Type") == "SpamComplaint" else "Bounce"
    if "ReceivedAt" in o:
        return "Click" if "OriginalLink" in o else "Open"
    return next((kind for kind, moment in TIMES.items() if moment in o), None)


def _who(o: Json) -> str:
    """The recipient, so that keys hold no address."""
    return digest_of(str(o.get("Recipient") or o.get("Email") or "").strip().lower())[7:23]


def _message_id(o: Json) -> str | None:
    """None where Postmark has zeros: the record is about no message."""
    told = str(o.get("MessageID") or "")
    return told if told.strip("0-") else None


def _id(item: Item) -> str | None:
    o, kind = item.body, _kind(item)
    if o.get("ID"):
        return f"{kind}:{o['ID']}"
    if not o.get("MessageID") or kind not in TIMES:
        return None
    rest = digest_of([o.get(TIMES[kind]), o.get("OriginalLink")])[7:23]
    return f"{kind}:{o['MessageID']}:{_who(o)}:{rest}"


provider = Provider(
    name="postmark",
    title="Postmark",
    docs="https://postmarkapp.com/developer/webhooks/webhooks-overview",
    verifier=basic_auth(),
    notification_id=_id,
    notification_type=_kind,
    secret=SecretShape(meaning="user:password, as you typed it in at Postmark > your server > Webhooks > Basic auth"),
    options={
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
provider.ignores("Inbound")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

#: Apple's mail program loads every picture of every message, through a proxy that says no more than this.
APPLE_PROXY = "Mozilla/5.0"


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _about(n: Notification, **properties: Any) -> dict[str, Any]:
    o = n.body
    url, told = _landing(o.get("OriginalLink"))
    said = datetime.fromisoformat(o[TIMES[n.type]])  # seven decimals, of which Python reads six
    return {
        "at_ms": (said - EPOCH) // timedelta(milliseconds=1),
        "person": Person(email=o.get("Recipient") or o.get("Email")),
        "url": url,
        "metadata": {**told, **(o.get("Metadata") or {})},
        "properties": {
            "message_id": _message_id(o),
            "tags": o.get("Tag") or None,
            "message_stream": o.get("MessageStream"),
            **properties,
        },
    }


def _country(o: Json) -> str | None:
    return (o.get("Geo") or {}).get("CountryISOCode") or None


@provider.on("Delivery", option="delivered")
def delivered(n: Notification) -> Iterator[Draft]:
    yield event("email_delivered", once=n.id, **_about(n))


@provider.on("Open", option="opened")
def opened(n: Notification) -> Iterator[Draft]:
    o = n.body
    is_machine = True if o.get("UserAgent") == APPLE_PROXY else None
    properties = {"first_open": o.get("FirstOpen"), "machine_open": is_machine, "country": _country(o)}
    yield event("email_opened", once=n.id, **_about(n, **properties))


@provider.on("Click")
def clicked(n: Notification) -> Iterator[Draft]:
    properties = {"link_location": n.body.get("ClickLocation"), "country": _country(n.body)}
    yield event("email_clicked", once=n.id, **_about(n, **properties))


#: What a bounce is that is none. None: an answer of a machine, which says nothing of the message's fate.
NO_BOUNCES: Mapping[str, str | None] = {
    "Transient": "email_deferred",
    "DnsError": "email_deferred",
    "OpenRelayTest": None,
    "Unsubscribe": "email_unsubscribed",
    "Subscribe": None,
    "AutoResponder": None,
    "AddressChange": None,
    "ChallengeVerification": None,
    "InboundError": None,
    "SpamNotification": "email_complained",
    "SpamComplaint": "email_complained",
    "SMTPApiError": "email_dropped",
    "TemplateRenderingFailed": "email_dropped",
}
#: What a suppression tells again, by its reason, and what the bounce is called that it follows.
TOLD_TWICE = {"HardBounce": "hard_bounce", "SpamComplaint": "spam_complaint"}


def _once(n: Notification, reason: str | None) -> tuple[str, ...]:
    same, message_id = TOLD_TWICE.get(reason or ""), _message_id(n.body)
    return (n.id, f"{same}:{message_id}:{_who(n.body)}") if same and message_id else (n.id,)


#: The types of a bounce, in the words of all providers; others stay as they are.
BOUNCES = {"HardBounce": "hard", "SoftBounce": "soft"}


@provider.on("Bounce")
def bounced(n: Notification) -> Iterator[Draft]:
    kind = n.body.get("Type")
    name = NO_BOUNCES.get(str(kind), "email_bounced")
    if name:
        option = "deferred" if name == "email_deferred" else None
        is_inactive = n.body.get("Inactive")
        about = _about(n, bounce_type=BOUNCES.get(str(kind), kind), inactive=is_inactive)
        yield event(name, once=_once(n, kind), option=option, **about)


@provider.on("SpamComplaint")
def complained(n: Notification) -> Iterator[Draft]:
    yield event("email_complained", once=_once(n, "SpamComplaint"), **_about(n))


#: What a suppression is, by its reason.
SUPPRESSED = {"HardBounce": "email_bounced", "SpamComplaint": "email_complained"}


@provider.on("SubscriptionChange")
def subscription_changed(n: Notification) -> Iterator[Draft]:
    o = n.body
    reason = o.get("SuppressionReason") if o.get("SuppressSending") else None
    name = SUPPRESSED.get(str(reason), "email_unsubscribed" if o.get("SuppressSending") else "email_resubscribed")
    bounce_type = "hard" if name == "email_bounced" else None
    yield event(name, once=_once(n, reason), **_about(n, bounce_type=bounce_type, origin=o.get("Origin")))
