"""Mailjet. https://dev.mailjet.com/email/guides/webhooks/ (read 2026-11-23).

In: one event about one recipient, or an array of those of a second where they are grouped. Out: an event for each. None
has an id: it is made of the message, the recipient, the time and the link. What mail servers say (`smtp_reply`,
`comment`) quotes addresses and is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    MIB,
    Draft,
    Item,
    Notification,
    Person,
    Provider,
    SecretShape,
    digest_of,
    event,
    field,
    parse_json,
)
from relay.signatures import basic_auth

Json = Mapping[str, Any]


def _items(body: Any) -> Sequence[Any]:
    return body if isinstance(body, list) else [body]


def _message_id(o: Json) -> str | None:
    """A number beyond what many can count, or the same as text, or another id that is one."""
    found = o.get("MessageID") or o.get("mj_message_id") or o.get("Message_GUID")
    return str(found) if found else None


def _who(o: Json) -> str:
    """The recipient, so that keys hold no address."""
    return digest_of(str(o.get("email") or o.get("mj_contact_id") or "").strip().lower())[7:23]


def _id(item: Item) -> str | None:
    o = item.body
    if not (_message_id(o) and o.get("event") and o.get("time")):
        return None
    link = [digest_of(o["url"])[7:23]] if o.get("url") else []
    return ":".join([str(o["event"]), str(_message_id(o)), _who(o), str(o["time"]), *link])


provider = Provider(
    name="mailjet",
    title="Mailjet",
    docs="https://dev.mailjet.com/email/guides/webhooks/",
    verifier=basic_auth(),
    notification_id=_id,
    notification_type=field("event"),
    items=_items,
    body_limit=4 * MIB,
    secret=SecretShape(
        meaning="user:password, as it stands in the URL that you gave to Mailjet for its event tracking"
    ),
    options={
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)

#: What each event is, and the option that it asks for. `sent`: the recipient's server took it.
EVENTS = {
    "sent": ("email_delivered", "delivered"),
    "open": ("email_opened", "opened"),
    "click": ("email_clicked", None),
    "bounce": ("email_bounced", None),
    "blocked": ("email_dropped", None),
    "spam": ("email_complained", None),
    "unsub": ("email_unsubscribed", None),
}

#: Why it did not arrive, in Mailjet's words.
ERRORS = {
    "user unknown": "user_unknown",
    "mailbox inactive": "mailbox_inactive",
    "quota exceeded": "quota_exceeded",
    "blacklisted": "blacklisted",
    "spam reporter": "spam_reporter",
    "invalid domain": "invalid_domain",
    "no mail host": "no_mail_host",
    "relay/access denied": "access_denied",
    "greylisted": "greylisted",
    "typofix": "typofix",
    "bad or empty template": "bad_template",
    "error in template language": "bad_template",
    "sender blocked": "sender_blocked",
    "content blocked": "content_blocked",
    "policy issue": "policy_issue",
    "system issue": "system_issue",
    "protocol issue": "protocol_issue",
    "connection issue": "connection_issue",
    "preblocked": "preblocked",
    "duplicate in campaign": "duplicate_in_campaign",
}

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

#: Apple's mail program loads every picture of every message, through a proxy that says no more than this.
APPLE_PROXY = "Mozilla/5.0"

COUNTRY = re.compile("[A-Z]{2}")
JSON_OBJECT = re.compile(r'\s*\{\s*".*\}\s*', re.DOTALL)


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _payload(o: Json) -> dict[str, Any]:
    """What the sender gave along: an object as JSON, or any text; and an id of its own."""
    text = o.get("Payload")
    found = parse_json(text.encode()) if isinstance(text, str) and JSON_OBJECT.fullmatch(text) else {}
    return {**found, **({"CustomID": o["CustomID"]} if o.get("CustomID") else {})}


def _failure(o: Json) -> dict[str, Any]:
    is_hard = o.get("hard_bounce")
    return {
        "reason": ERRORS.get(str(o.get("error"))),
        "bounce_type": {True: "hard", False: "soft"}.get(is_hard) if isinstance(is_hard, bool) else None,
    }


def _properties(o: Json) -> dict[str, Any]:
    geo = str(o.get("geo") or "")
    return {
        "message_id": _message_id(o),
        "campaign": o.get("customcampaign") or None,
        "campaign_id": o.get("mj_campaign_id") or None,
        "list_id": o.get("mj_list_id") or None,
        "country": geo if COUNTRY.fullmatch(geo) else None,
        "machine_open": True if o["event"] == "open" and o.get("agent") == APPLE_PROXY else None,
        **(_failure(o) if o["event"] in ("bounce", "blocked") else {}),
    }


def told(n: Notification) -> Iterator[Draft]:
    """A bounce of greylisting is none: delivery will be tried again."""
    o = n.body
    is_deferred = n.type == "bounce" and o.get("error") == "greylisted" and not o.get("hard_bounce")
    url, found = _landing(o.get("url") if n.type == "click" else None)
    yield event(
        "email_deferred" if is_deferred else EVENTS[n.type][0],
        once=n.id,
        at_ms=int(o["time"]) * 1000,
        option="deferred" if is_deferred else None,
        person=Person(email=o.get("email"), customer_id=str(o["mj_contact_id"]) if o.get("mj_contact_id") else None),
        url=url,
        metadata={**found, **_payload(o)},
        properties=_properties(o),
    )


for _type, (_, _option) in EVENTS.items():
    provider.on(_type, option=_option)(told)
