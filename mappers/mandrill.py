"""Mailchimp Transactional (Mandrill). https://mailchimp.com/developer/transactional/guides/ (read 2026-11-23).

In: forms with one field of JSON, up to a thousand events in it, each about one recipient of one message. Out: an event
for each. None has an id of its own: it is made of the message, the time and the link. What mail servers say (`diag`)
quotes addresses and is left alone. Empty objects come as empty lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    MIB,
    Answer,
    Delivery,
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
from relay.signatures import form_of, hmac_sha1

Json = Mapping[str, Any]


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _parsed(body: bytes) -> Any:
    return parse_json(form_of(body)["mandrill_events"].encode())


def _items(body: Any) -> Sequence[Any]:
    return body if isinstance(body, list) else [body]


def _kind(item: Item) -> str | None:
    """Changes of the lists of refused addresses have a `type` instead."""
    return field("event")(item) or field("type")(item)


def _message_id(o: Json) -> str | None:
    return o.get("_id") or _object(o.get("msg")).get("_id")


def _id(item: Item) -> str | None:
    o, link = item.body, item.body.get("url")
    if not (_message_id(o) and o.get("ts")):
        return None
    return ":".join([str(_kind(item)), str(_message_id(o)), str(o["ts"]), *([digest_of(link)[7:23]] if link else [])])


#: What is sent, signed with a key that everybody knows, where a HEAD was not answered.
CHECKS = (b"mandrill_events=%5b%5d", b"mandrill_events=[]")


def _greeted(delivery: Delivery) -> Answer | None:
    return Answer() if delivery.body.lower() in CHECKS else None


provider = Provider(
    name="mandrill",
    title="Mandrill",
    docs="https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/",
    verifier=hmac_sha1(header="X-Mandrill-Signature", encoding="base64", message="{url}{form}"),
    parse=_parsed,
    items=_items,
    notification_id=_id,
    notification_type=_kind,
    handshake=_greeted,
    body_limit=8 * MIB,
    secret=SecretShape(
        meaning="Mandrill > Settings > Webhooks: the key of your webhook",
        mistaken={"md-": "an API key", "test-webhook": "the key of Mandrill's own check, which everybody knows"},
    ),
    options={
        "sent": "An event for every message that Mandrill sent.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
#: The lists of addresses to which nothing is sent, under their old and new names; and mail that comes in.
provider.ignores("blacklist", "whitelist", "denylist", "safelist", "allowlist", "inbound")

#: What each of Mandrill's events is, the option that it asks for, and the type of a bounce.
EVENTS: Mapping[str, tuple[str, str | None, str | None]] = {
    "send": ("email_sent", "sent", None),
    "delivered": ("email_delivered", "delivered", None),
    "deferral": ("email_deferred", "deferred", None),
    "open": ("email_opened", "opened", None),
    "click": ("email_clicked", None, None),
    "hard_bounce": ("email_bounced", None, "hard"),
    "soft_bounce": ("email_bounced", None, "soft"),
    "reject": ("email_dropped", None, None),
    "spam": ("email_complained", None, None),
    "unsub": ("email_unsubscribed", None, None),
}

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

#: Apple's mail program loads every picture of every message, through a proxy that says no more than this.
APPLE_PROXY = "Mozilla/5.0"


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _machine(o: Json) -> dict[str, bool]:
    is_robot = str(_object(o.get("user_agent_parsed")).get("type")).lower() == "robot"
    match o["event"]:
        case "open" if is_robot or o.get("user_agent") == APPLE_PROXY:
            return {"machine_open": True}
        case "click" if is_robot:
            return {"machine_click": True}
        case _:
            return {}


def _properties(o: Json) -> dict[str, Any]:
    message, bounce_type = _object(o.get("msg")), EVENTS[o["event"]][2]
    tags, why = message.get("tags"), str(message.get("bounce_description") or "")
    return {
        "message_id": _message_id(o),
        "tags": ", ".join(map(str, tags)) or None if isinstance(tags, list) else None,
        "template_id": message.get("template") or None,
        "bounce_type": bounce_type,
        "bounce_classification": why if bounce_type and why and " " not in why else None,
        "country": _object(o.get("location")).get("country_short") or None,
        **_machine(o),
    }


def told(n: Notification) -> Iterator[Draft]:
    o, message = n.body, _object(n.body.get("msg"))
    url, found = _landing(o.get("url") if n.type == "click" else None)
    yield event(
        EVENTS[n.type][0],
        once=n.id,
        at_ms=int(o["ts"]) * 1000,
        person=Person(email=message.get("email")),
        url=url,
        metadata={**found, **_object(message.get("metadata"))},
        properties=_properties(o),
    )


for _type, _means in EVENTS.items():
    provider.on(_type, option=_means[1])(told)
