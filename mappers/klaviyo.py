"""Klaviyo, system webhooks. https://developers.klaviyo.com/en/docs/working_with_system_webhooks (read 2026-11-23).

In: up to a thousand events of profiles in one delivery. Out: clicks, bounces, complaints and subscriptions; what is
delivered and opened on request. An event names its profile by id: whose that is, the API tells where there is a key,
else an earlier event that named the address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    MIB,
    Api,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    composed,
    conversion,
    event,
    field,
)
from relay.signatures import timestamp_in_header

Json = Mapping[str, Any]


def _items(body: Any) -> Sequence[Any]:
    """Each event with the account that it is of."""
    account = (body.get("meta") or {}).get("klaviyo_account_id")
    return [{**item, "account": account} if isinstance(item, dict) else item for item in body["data"]]


provider = Provider(
    name="klaviyo",
    title="Klaviyo",
    docs="https://developers.klaviyo.com/en/docs/working_with_system_webhooks",
    # The body comes first, then the time; how old that may be, and how it is written, is not documented.
    verifier=timestamp_in_header(
        header="Klaviyo-Signature",
        timestamp="Klaviyo-Timestamp",
        message="{body}{timestamp}",
        unit="any",
        tolerance_s=None,
        same=(("header:Klaviyo-Webhook-Id", "json:meta.klaviyo_webhook_id"),),
    ),
    notification_id=composed(field("external_id"), field("topic")),
    notification_type=field("topic"),
    items=_items,
    account=field("account"),
    body_limit=8 * MIB,
    secret=SecretShape(
        meaning="The secret key that you chose when you made the webhook, in Klaviyo or by its Webhooks API",
        mistaken={"pk_": "a private API key"},
    ),
    api=Api(
        base="https://a.klaviyo.com/api",
        auth=lambda key: {"authorization": f"Klaviyo-API-Key {key}"},
        headers={"revision": "2025-07-15"},
    ),
    api_key=SecretShape(meaning="Klaviyo > Settings > API keys: a private key that may read profiles", prefix="pk_"),
    options={
        "delivered": "An event for every e-mail that is delivered.",
        "opened": "An event for every e-mail that is opened.",
    },
)

#: What the shop itself decided, and other channels.
SILENT = """
bounced_push clicked_sms consented_to_receive_sms failed_to_deliver_automated_response_sms
failed_to_deliver_sms manually_suppressed_from_email_marketing manually_unsuppressed_from_email_marketing opened_push
ready_to_review received_automated_response_sms received_push received_sms sent_sms submitted_rating submitted_review
subscribed_to_sms_marketing unsubscribed_from_sms_marketing updated_email_preferences
"""
provider.ignores(*(f"event:klaviyo.{topic}" for topic in SILENT.split()))

CAMPAIGN = frozenset(
    ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What is said twice of one act is said within this time.
TWINS_S = 600


def _event(n: Notification) -> Json:
    """The event, in the shape of the API's answer or alone."""
    payload: Json = n.body["payload"]
    return payload.get("data") or payload


def _at_ms(n: Notification) -> int:
    attributes = _event(n)["attributes"]
    if (moment := attributes.get("timestamp")) is not None:
        return int(moment) * 1000
    return (datetime.fromisoformat(attributes["datetime"]) - EPOCH) // timedelta(milliseconds=1)


def _properties_of(n: Notification) -> Json:
    """Under names that Klaviyo and its customers chose."""
    attributes = _event(n)["attributes"]
    return attributes.get("event_properties") or attributes.get("properties") or {}


def _person(n: Notification) -> Person:
    named = (((_event(n).get("relationships") or {}).get("profile") or {}).get("data") or {}).get("id")
    included = [one for one in n.body["payload"].get("included") or () if one.get("type") == "profile"]
    found: Json = next((one for one in included if named in (None, one.get("id"))), {})
    profile, told = found.get("attributes") or {}, _properties_of(n)
    said = next((told[name] for name in ("email", "Email", "Recipient Email Address") if told.get(name)), None)
    email, profile_id = profile.get("email") or said, named or found.get("id")
    if profile_id and not (email or profile.get("external_id")):
        asked = (n.look_up("/profiles/{}?fields[profile]=email,external_id", profile_id) or {}).get("data") or {}
        profile = asked.get("attributes") or {}
        email = profile.get("email")
    return Person(email=email, external_id=profile.get("external_id"), customer_id=profile_id)


def _learned(person: Person) -> Iterator[Learned]:
    if person.customer_id and (person.email or person.external_id):
        yield Learned(keys=(f"profile:{person.customer_id}",), person=person)


def _about(n: Notification, person: Person) -> dict[str, Any]:
    told = _properties_of(n)
    return {
        "at_ms": _at_ms(n),
        "person": person,
        "joins": (f"profile:{person.customer_id}",) if person.customer_id else (),
        "properties": {
            "message_id": told.get("$message"),
            "campaign_id": told.get("$campaign") or told.get("Campaign ID"),
            "flow_id": told.get("$flow"),
            "list_id": told.get("List ID"),
        },
    }


def _is_machine(flag: Any) -> bool | None:
    return True if str(flag).lower() == "true" else None


def _clicked(link: str | None) -> dict[str, Any]:
    """The page with what names the campaign; anything else in the query may be a token."""
    page, _, query = (link or "").partition("#")[0].partition("?")
    told = {key: text for key, text in parse_qsl(query) if key in CAMPAIGN}
    return {"url": f"{page}?{urlencode(told)}" if told else page or None, "metadata": told}


EMAILS = {
    "event:klaviyo.received_email": "email_delivered",
    "event:klaviyo.opened_email": "email_opened",
    "event:klaviyo.clicked_email": "email_clicked",
    "event:klaviyo.bounced_email": "email_bounced",
    "event:klaviyo.dropped_email": "email_dropped",
    "event:klaviyo.marked_email_as_spam": "email_complained",
}


@provider.on("event:klaviyo.clicked_email", "event:klaviyo.bounced_email")
@provider.on("event:klaviyo.dropped_email", "event:klaviyo.marked_email_as_spam")
@provider.on("event:klaviyo.received_email", option="delivered")
@provider.on("event:klaviyo.opened_email", option="opened")
def email(n: Notification) -> Iterator[Draft | Learned]:
    name, person, told = EMAILS[n.type], _person(n), _properties_of(n)
    about = _about(n, person)
    more: dict[str, Any] = {}
    yield from _learned(person)
    match name:
        case "email_opened":
            more = {"machine_open": _is_machine(told.get("Apple Privacy Open", told.get("machine_open")))}
        case "email_clicked":
            more = {"machine_click": _is_machine(told.get("Bot Click"))}
            about |= _clicked(told.get("URL"))
        case "email_bounced":
            more = {"bounce_type": str(told["Bounce Type"]).lower() if told.get("Bounce Type") else None}
        case _:
            pass
    about["properties"] |= more
    yield event(name, once=f"event:{n.id}", **about)


def _once(n: Notification, what: str, person: Person) -> list[str]:
    """Its own key, and keys of the time around it which it has in common with a twin."""
    window, who = _at_ms(n) // 1000 // TWINS_S, person.customer_id
    return [f"event:{n.id}", *(f"{what}:{who}:{part}" for part in (window, window + 1) if who)]


@provider.on("event:klaviyo.subscribed_to_email_marketing", "event:klaviyo.subscribed_to_list")
def subscribed(n: Notification) -> Iterator[Draft | Learned]:
    """A form that asks for both says both."""
    person = _person(n)
    yield from _learned(person)
    yield conversion("newsletter_subscribed", once=_once(n, "subscribed", person), **_about(n, person))


@provider.on("event:klaviyo.unsubscribed_from_email_marketing")
def unsubscribed(n: Notification) -> Iterator[Draft | Learned]:
    person = _person(n)
    yield from _learned(person)
    yield event("email_unsubscribed", once=_once(n, "unsubscribed", person), **_about(n, person))
