"""Intercom. https://developers.intercom.com/docs/references/webhooks/webhook-models (API 1.1 to 2.16, read 2026-11-23).

In: one topic with the object as it stands. Out: new contacts, sign-ups, conversations that customers begin, tickets,
subscriptions. A ticket that is made of a conversation has its id, and counts once. Tickets name contacts by id alone:
the API is asked who that is, where there is a key, else they wait for a topic that tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.signatures import hmac_sha1

Json = Mapping[str, Any]

provider = Provider(
    name="intercom",
    title="Intercom",
    docs="https://developers.intercom.com/docs/webhooks/setting-up-webhooks",
    verifier=hmac_sha1(header="X-Hub-Signature", prefix="sha1="),
    notification_id=field("id"),
    notification_type=field("topic"),
    account=field("app_id"),
    secret=SecretShape(
        meaning="Intercom > Developer Hub > your app > Basic information > Client secret",
        mistaken={"dG9r": "an access token"},
    ),
    api=Api(base="https://api.intercom.io", headers={"intercom-version": "2.11"}),
    api_key=SecretShape(
        meaning="Intercom > Developer Hub > your app > Authentication: an access token that reads users"
    ),
)

#: What is about teammates, companies, articles and tags, what goes on inside a conversation, and the site's own events.
SILENT = """
admin.activity_log_event.created admin.added_to_workspace admin.away_mode_updated admin.logged_in admin.logged_out
admin.removed_from_workspace article.created article.deleted article.published article.unpublished article.updated
company.contact.attached company.contact.detached company.created company.deleted company.updated contact.archived
contact.deleted contact.lead.tag.created contact.lead.tag.deleted contact.tag.created contact.tag.deleted
contact.unarchive contact.unsubscribed_from_sms contact.user.tag.created contact.user.tag.deleted
conversation.admin.assigned conversation.admin.closed conversation.admin.noted conversation.admin.open.assigned
conversation.admin.opened conversation.admin.replied conversation.admin.single.created conversation.admin.snoozed
conversation.admin.unsnoozed conversation.contact.attached conversation.contact.detached conversation.deleted
conversation.operator.replied conversation.priority.updated conversation.read conversation.user.replied
conversation_part.redacted conversation_part.tag.created event.created job.completed ping ticket.admin.assigned
ticket.admin.replied ticket.attribute.updated ticket.closed ticket.contact.attached ticket.contact.detached
ticket.contact.replied ticket.note.created ticket.state.updated ticket.team.assigned user.deleted user.tag.created
user.tag.deleted
"""
provider.ignores(*SILENT.split())

#: What Intercom gives a lead as `external_id`; sites give such ids to their users as well.
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
CUSTOMERS = frozenset(("user", "lead", "contact", "visitor"))
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")


def _at_ms(n: Notification) -> int:
    """When the notification was made; the objects write their times in two ways, and not all have one."""
    return int(n.body["created_at"]) * 1000


def _item(n: Notification) -> Json:
    item: Json = n.body["data"]["item"]
    return item


def _contact(n: Notification) -> Json:
    """The contact, which is the object itself or stands in it."""
    item = _item(n)
    return item.get("contact") or item.get("user") or item


def _person(contact: Json) -> Person:
    """Leads have an id in the place of the site's own that Intercom made up; not all objects say who is a lead."""
    role, own = contact.get("role") or contact.get("type"), contact.get("external_id") or contact.get("user_id")
    is_sites = role == "user" or (role == "contact" and "anonymous" not in contact and not UUID.fullmatch(str(own)))
    return Person(
        email=contact.get("email") or None,
        external_id=str(own) if own and is_sites else None,
        customer_id=contact.get("id"),
    )


def _metadata(contact: Json) -> dict[str, Any]:
    return {**(contact.get("custom_attributes") or {}), **{key: contact[key] for key in CAMPAIGN if contact.get(key)}}


def _learned(contact: Json, *ids: str | None) -> Iterator[Learned]:
    keys, person = tuple(f"contact:{one}" for one in (contact.get("id"), *ids) if one), _person(contact)
    if keys and (person.email or person.external_id):
        yield Learned(keys=keys, person=person, metadata=_metadata(contact))


# --- contacts ---------------------------------------------------------------------------------------------------------


@provider.on("contact.lead.created", "contact.user.created", "contact.created", "user.created")
def contact_created(n: Notification) -> Iterator[Draft | Learned]:
    contact = _contact(n)
    yield from _learned(contact)
    yield conversion(
        "lead_created",
        once=f"contact_created:{contact['id']}",
        at_ms=_at_ms(n),
        person=_person(contact),
        metadata=_metadata(contact),
        properties={"contact_id": contact["id"], "role": "user" if "user" in n.type else "lead"},
    )


@provider.on("contact.lead.signed_up", "contact.signed_up", "visitor.signed_up")
def signed_up(n: Notification) -> Iterator[Draft | Learned]:
    contact = _contact(n)
    yield from _learned(contact)
    yield conversion(
        "signup",
        once=f"signup:{contact['id']}",
        at_ms=_at_ms(n),
        person=_person({**contact, "role": "user"}),
        metadata=_metadata(contact),
        properties={"contact_id": contact["id"]},
    )


@provider.on("contact.lead.updated", "contact.user.updated", "contact.email.updated", "user.email.updated")
@provider.on("contact.lead.added_email", "contact.added_email")
def contact_updated(n: Notification) -> Iterator[Learned]:
    yield from _learned(_contact(n))


@provider.on("contact.merged")
def contact_merged(n: Notification) -> Iterator[Learned]:
    contact = _contact(n)
    yield from _learned(contact, (contact.get("merged_from") or {}).get("id"))


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _lists(n: Notification) -> Sequence[Json]:
    """The kinds of messages that it is about."""
    return [one for one in (_item(n).get("subscription_types") or {}).get("data") or () if isinstance(one, dict)]


def _is_email(lists: Sequence[Json]) -> bool:
    """Whether e-mails are among them; a topic that names no kind is about e-mails."""
    kinds = [kind for one in lists for kind in one.get("content_types") or ()]
    return not kinds or "email" in kinds


def _subscription(n: Notification, lists: Sequence[Json]) -> dict[str, Any]:
    contact = _contact(n)
    ids = ", ".join(str(one["id"]) for one in lists if one.get("id")) or None
    return {
        "once": f"notification:{n.id}",
        "at_ms": _at_ms(n),
        "person": _person(contact),
        "metadata": _metadata(contact),
        "properties": {"contact_id": contact.get("id"), "list_id": ids},
    }


@provider.on("contact.subscribed", "granular.subscribe")
def subscribed(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(_contact(n))
    if _is_email(lists := _lists(n)):
        yield conversion("newsletter_subscribed", **_subscription(n, lists))


@provider.on("contact.unsubscribed", "granular.unsubscribe", "user.unsubscribed")
def unsubscribed(n: Notification) -> Iterator[Draft | Learned]:
    yield from _learned(_contact(n))
    if _is_email(lists := _lists(n)):
        yield event("email_unsubscribed", **_subscription(n, lists))


# --- conversations and tickets ----------------------------------------------------------------------------------------


def _contacts(item: Json) -> Sequence[Json]:
    """In the shapes of all API versions."""
    if item.get("user"):
        return (item["user"],)
    found = item.get("contacts") or ()
    return found if isinstance(found, (list, tuple)) else found.get("contacts") or found.get("data") or ()


def _writer(item: Json) -> Json:
    """Who wrote; nobody where there are several contacts and none of them is said to have written."""
    contacts = _contacts(item)
    author = (item.get("source") or item.get("conversation_message") or {}).get("author") or {}
    if author.get("type") not in CUSTOMERS:
        return contacts[0] if len(contacts) == 1 else {}
    named = next((one for one in contacts if one.get("id") == author.get("id")), {})
    role = named.get("type") if named.get("type") in ("user", "lead") else author["type"]
    return {**named, "role": role, "id": author.get("id"), "email": author.get("email") or named.get("email")}


def _support(n: Notification, **properties: Any) -> Iterator[Draft | Learned]:
    item = _item(n)
    person = _person(_writer(item))
    if person.customer_id and not (person.email or person.external_id):
        contact = n.look_up("/contacts/{}", person.customer_id) or {"id": person.customer_id}
        yield from _learned(contact)
        person = _person(contact)
    yield event(
        "support_ticket_created",
        once=f"conversation:{item['id']}",
        at_ms=_at_ms(n),
        person=person,
        joins=(f"contact:{person.customer_id}",) if person.customer_id else (),
        waits=bool(person.customer_id) and not (person.email or person.external_id),
        properties={"conversation_id": item["id"], **properties},
    )


@provider.on("conversation.user.created")
def conversation_created(n: Notification) -> Iterator[Draft | Learned]:
    item = _item(n)
    yield from _support(n, channel=(item.get("source") or item.get("conversation_message") or {}).get("type"))


@provider.on("ticket.created")
def ticket_created(n: Notification) -> Iterator[Draft | Learned]:
    """Of customers; teammates make tickets for themselves, too."""
    item = _item(n)
    if (item.get("category") or "Customer") == "Customer":
        yield from _support(n, channel=item.get("channel"), ticket_id=item.get("ticket_id"))
