"""Customer.io. https://docs.customer.io/integrations/data-out/connections/webhooks/ (read 2026-11-23).

In: one metric of one message, or of a person's subscription. Out: clicks, bounces, complaints and subscriptions; what
is sent, delivered, deferred and opened on request. Leaving by a link is said of the e-mail and of the person: once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from relay.signatures import timestamp_in_header

Json = Mapping[str, Any]


def _type(item: Item) -> str | None:
    """`email.clicked`: the object and what became of it."""
    return ".".join(filter(None, (field("object_type")(item), field("metric")(item)))) or None


def _items(body: Any) -> Sequence[Any]:
    return body if isinstance(body, list) else (body,)


provider = Provider(
    name="customerio",
    title="Customer.io",
    docs="https://docs.customer.io/integrations/data-out/connections/webhooks/",
    # The time is signed; how old it may be is not documented, and retries go on for a week.
    verifier=timestamp_in_header(
        header="X-CIO-Signature", timestamp="X-CIO-Timestamp", message="v0:{timestamp}:{body}", tolerance_s=None
    ),
    notification_id=field("event_id"),
    notification_type=_type,
    items=_items,
    secret=SecretShape(
        meaning="Customer.io > Data & Integrations > Integrations > Reporting Webhooks > your webhook > Signing key"
    ),
    options={
        "sent": "An event for every e-mail that is sent.",
        "delivered": "An event for every e-mail that is delivered.",
        "opened": "An event for every e-mail that is opened.",
        "deferred": "An event for every delivery that is put off.",
    },
)

#: Steps of a message before it leaves, what could not be made, what is said again of people alone, goals that the site
#: tells itself, and other channels.
SILENT = {
    "email": "attempted converted drafted failed human_clicked human_opened undeliverable",
    "customer": "cio_subscription_preferences_changed",
    "in_app": "attempted clicked converted drafted failed opened sent",
    "push": "attempted bounced clicked converted deferred delivered drafted dropped failed opened sent undeliverable",
    "slack": "attempted clicked converted drafted failed sent",
    "sms": "attempted bounced clicked converted deferred delivered drafted dropped failed sent undeliverable",
    "webhook": "attempted clicked converted drafted failed sent",
    "whatsapp": "attempted bounced clicked converted delivered drafted failed opened sent undeliverable",
}
provider.ignores(*(f"{kind}.{metric}" for kind, metrics in SILENT.items() for metric in metrics.split()))

CAMPAIGN = frozenset(
    ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")
)
#: What is said twice of one act is said within this time.
TWINS_S = 600


def _at_s(n: Notification) -> int:
    """0 where it is no number of seconds: then it does not say."""
    text = str(n.body.get("timestamp"))
    return int(text) if text.isdecimal() else 0


def _address(text: Any) -> str | None:
    """One address; None for several of them, which are nobody."""
    return text if isinstance(text, str) and "@" in text and "," not in text else None


def _person(n: Notification) -> Person:
    data = n.body["data"]
    ids = data.get("identifiers") or {}
    own = ids.get("id") or (None if ids else data.get("customer_id"))
    is_address = "@" in str(own)  # some workspaces know people by their address
    email = ids.get("email") or data.get("email_address") or data.get("recipient") or (own if is_address else None)
    return Person(
        email=_address(email),
        external_id=None if own is None or is_address else str(own),
        customer_id=ids.get("cio_id"),
    )


def _message(n: Notification) -> dict[str, Any]:
    data, names = n.body["data"], ("campaign_id", "broadcast_id", "newsletter_id", "transactional_message_id")
    return {"message_id": data.get("delivery_id"), **{name: data.get(name) for name in names}}


def _clicked(link: str | None) -> dict[str, Any]:
    """The page with what names the campaign; anything else in the query may be a token."""
    page, _, query = (link or "").partition("#")[0].partition("?")
    told = {key: text for key, text in parse_qsl(query) if key in CAMPAIGN}
    return {"url": f"{page}?{urlencode(told)}" if told else page or None, "metadata": told}


EMAILS = {
    "email.sent": "email_sent",
    "email.delivered": "email_delivered",
    "email.deferred": "email_deferred",
    "email.opened": "email_opened",
    "email.clicked": "email_clicked",
    "email.bounced": "email_bounced",
    "email.dropped": "email_dropped",
    "email.spammed": "email_complained",
}


@provider.on("email.clicked", "email.bounced", "email.dropped", "email.spammed")
@provider.on("email.sent", option="sent")
@provider.on("email.delivered", option="delivered")
@provider.on("email.deferred", option="deferred")
@provider.on("email.opened", option="opened")
def email(n: Notification) -> Iterator[Draft]:
    data, properties = n.body["data"], _message(n)
    if n.type == "email.opened":
        properties["machine_open"] = True if data.get("prefetched") or data.get("machine_open") else None
    yield event(
        EMAILS[n.type],
        once=f"event:{n.id}",
        at_ms=_at_s(n) * 1000,
        person=_person(n),
        properties=properties,
        **(_clicked(data.get("href")) if n.type == "email.clicked" else {}),
    )


def _once(n: Notification, what: str) -> list[str]:
    """Its own key, and keys of the time around it which it has in common with a twin."""
    person, window = _person(n), _at_s(n) // TWINS_S
    who = person.external_id or person.customer_id or n.body["data"].get("delivery_id")
    return [f"event:{n.id}", *(f"{what}:{who}:{part}" for part in (window, window + 1) if who and window)]


@provider.on("email.unsubscribed", "customer.unsubscribed")
def unsubscribed(n: Notification) -> Iterator[Draft]:
    once, properties = _once(n, "unsubscribed"), _message(n)
    yield event("email_unsubscribed", once=once, at_ms=_at_s(n) * 1000, person=_person(n), properties=properties)


@provider.on("email.subscribed", "customer.subscribed")
def subscribed(n: Notification) -> Iterator[Draft]:
    once, properties = _once(n, "subscribed"), _message(n)
    yield conversion(
        "newsletter_subscribed", once=once, at_ms=_at_s(n) * 1000, person=_person(n), properties=properties
    )
