"""Brevo. https://developers.brevo.com/docs/transactional-webhooks and /marketing-webhooks (read 2026-11-23).

In: one event about one recipient, or an array of them where they are batched. Out: an event for each. None has an id
(`id` is the webhook's): it is made of the message or campaign, the recipient, the time and the link. What mail servers
say (`reason`) quotes addresses and is left alone.
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
    conversion,
    digest_of,
    event,
    field,
    parse_json,
)
from relay.signatures import basic_auth, bearer, either

Json = Mapping[str, Any]

#: What is more is in milliseconds: in seconds it would be the year 5138.
LAST_SECOND = 10**11


def _items(body: Any) -> Sequence[Any]:
    return body if isinstance(body, list) else [body]


def _kind(item: Item) -> str | None:
    """Of text messages something else tells what became of them."""
    return field("event")(item) or ("sms" if field("msg_status")(item) else None)


def _at_ms(o: Json) -> int:
    """`ts_epoch` is in milliseconds, though examples show it in seconds; campaigns and lists have seconds only."""
    epoch = int(o.get("ts_epoch") or 0)
    return epoch if epoch > LAST_SECOND else int(o.get("ts_event") or epoch or o["ts"]) * 1000


def _message_id(o: Json) -> str | None:
    return str(o.get("message-id") or "").strip("<>").partition("@")[0] or None


def _of_what(o: Json) -> str | None:
    """The message, the campaign or the lists."""
    found = _message_id(o) or o.get("camp_id") or _lists(o)
    return str(found) if found else None


def _lists(o: Json) -> str | None:
    lists = o.get("list_id")
    return ", ".join(map(str, lists if isinstance(lists, list) else [lists or ""])) or None


def _link(o: Json) -> str | None:
    """Campaigns spell it in capitals."""
    return o.get("link") or o.get("URL") or None


def _key(o: Json, word: str) -> str | None:
    """No address in it. None where it would not tell two things apart."""
    if not (_of_what(o) and (o.get("ts_epoch") or o.get("ts_event") or o.get("ts"))):
        return None
    who = digest_of(str(o.get("email") or "").strip().lower())[7:23]
    link = [digest_of(_link(o))[7:23]] if _link(o) else []
    return ":".join([word, str(_of_what(o)), who, str(_at_ms(o)), *link])


provider = Provider(
    name="brevo",
    title="Brevo",
    docs="https://developers.brevo.com/docs/transactional-webhooks",
    verifier=either(basic_auth(), bearer()),
    notification_id=lambda item: _key(item.body, str(_kind(item))),
    notification_type=_kind,
    items=_items,
    body_limit=4 * MIB,
    secret=SecretShape(
        meaning="user:password, as it stands in the URL that you gave to Brevo; or the bearer token with which you "
        "made the webhook",
        mistaken={"xkeysib-": "an API key", "xsmtpsib-": "an SMTP key"},
    ),
    options={
        "sent": "An event for every message that Brevo took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
provider.ignores("contact_updated", "contact_deleted", "sms")

#: What each event is, the option that it asks for, and what else its name says.
EVENTS: Mapping[str, tuple[str, str | None, Json]] = {
    "request": ("email_sent", "sent", {}),
    "delivered": ("email_delivered", "delivered", {}),
    "deferred": ("email_deferred", "deferred", {}),
    "unique_opened": ("email_opened", "opened", {"first_open": True}),
    "opened": ("email_opened", "opened", {}),
    "unique_proxy_open": ("email_opened", "opened", {"first_open": True, "machine_open": True}),
    "proxy_open": ("email_opened", "opened", {"machine_open": True}),
    "click": ("email_clicked", None, {}),
    "hard_bounce": ("email_bounced", None, {"bounce_type": "hard"}),
    "soft_bounce": ("email_bounced", None, {"bounce_type": "soft"}),
    "invalid_email": ("email_bounced", None, {"bounce_type": "invalid"}),
    "blocked": ("email_dropped", None, {"reason": "blocked"}),
    "error": ("email_dropped", None, {"reason": "error"}),
    "spam": ("email_complained", None, {}),
    "complaint": ("email_complained", None, {}),
    "unsubscribe": ("email_unsubscribed", None, {}),
    "unsubscribed": ("email_unsubscribed", None, {}),
}

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

JSON_OBJECT = re.compile(r'\s*\{\s*".*\}\s*', re.DOTALL)
JSON_LIST = re.compile(r'\s*\[\s*".*"\s*\]\s*', re.DOTALL)


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _custom(o: Json) -> dict[str, Any]:
    """What the sender gave along: an object as JSON, or `name:value|name:value`, or any text."""
    text = o.get("X-Mailin-custom")
    if not isinstance(text, str):
        return {}
    if JSON_OBJECT.fullmatch(text):
        return {**parse_json(text.encode())}
    pairs = (pair.partition(":") for pair in text.split("|"))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _tags(o: Json) -> str | None:
    """A list; as text where only `tag` is there, which may be the JSON of a list."""
    tags, tag = o.get("tags"), o.get("tag")
    if not isinstance(tags, list):
        tags = parse_json(tag.encode()) if isinstance(tag, str) and JSON_LIST.fullmatch(tag) else [tag or ""]
    return ", ".join(map(str, tags)) or None


def _about(n: Notification) -> dict[str, Any]:
    o = n.body
    url, told = _landing(_link(o) if n.type == "click" else None)
    return {
        "at_ms": _at_ms(o),
        "person": Person(email=o.get("email"), customer_id=str(o["contact_id"]) if o.get("contact_id") else None),
        "url": url,
        "metadata": {**told, **_custom(o)},
        "properties": {
            "message_id": _message_id(o),
            "tags": _tags(o),
            "campaign": str(o.get("campaign name") or "").strip() or None,
            "campaign_id": o.get("camp_id") or None,
            "template_id": o.get("template_id") or None,
        },
    }


def told(n: Notification) -> Iterator[Draft]:
    """The first opening was told by two names; at one time it is one."""
    (name, _, more), about = EVENTS[n.type], _about(n)
    about["properties"] |= more
    yield event(name, once=_key(n.body, name) or n.id, **about)


for _type, _means in EVENTS.items():
    provider.on(_type, option=_means[1])(told)


@provider.on("list_addition")
def subscribed(n: Notification) -> Iterator[Draft]:
    about = _about(n)
    about["properties"] |= {"list_id": _lists(n.body)}
    yield conversion("newsletter_subscribed", once=n.id, **about)
