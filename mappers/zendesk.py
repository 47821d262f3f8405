"""Zendesk. https://developer.zendesk.com/api-reference/webhooks/event-types/webhook-event-types/ (read 2026-11-23).

In: events of users and tickets, and the same told by a trigger with the body that the page of this provider gives. Out:
new customers and tickets. A ticket names its requester by id: the API is asked who that is, where there is a key, else
it waits for an event that tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    basic_key,
    conversion,
    event,
    field,
    parse_json,
)
from relay.signatures import timestamp_in_header

Json = Mapping[str, Any]

provider = Provider(
    name="zendesk",
    title="Zendesk",
    docs="https://developer.zendesk.com/documentation/webhooks/",
    # The time is signed; how old it may be is not documented.
    verifier=timestamp_in_header(
        header="X-Zendesk-Webhook-Signature",
        timestamp="X-Zendesk-Webhook-Signature-Timestamp",
        message="{timestamp}{body}",
        unit="iso8601",
        encoding="base64",
        tolerance_s=None,
    ),
    notification_id=field("id"),
    notification_type=field("type"),
    account=field("account_id"),
    parse=lambda body: parse_json(body) if body.strip() else {},  # a webhook may send nothing
    secret=SecretShape(
        meaning="Zendesk Admin Center > Apps and integrations > Webhooks > your webhook > Reveal secret"
    ),
    api=Api(auth=basic_key),  # each account has a host of its own
    api_key=SecretShape(
        meaning="Zendesk Admin Center > Apps and integrations > APIs > API tokens, as <agent's address>/token:<token>"
    ),
)

#: What goes on with a ticket once it is there, and what is about the work of agents.
SILENT = {
    "ticket": """
agent_assignment_changed attachment_linked_to_comment attachment_redacted_from_comment brand_changed comment_added
comment_made_private comment_redacted custom_field_changed custom_status_changed description_changed email_ccs_changed
external_id_changed followers_changed form_changed group_assignment_changed marked_as_spam merged organization_changed
permanently_deleted priority_changed problem_link_changed requester_changed soft_deleted status_changed subject_changed
submitter_changed tags_changed task_due_at_changed type_changed undeleted
""",
    "user": """
active_changed alias_changed custom_field_changed custom_role_changed default_group_changed deleted details_changed
group_membership_created group_membership_deleted identity_deleted last_login_changed merged name_changed notes_changed
only_private_comments_changed organization_membership_created organization_membership_deleted password_changed
photo_changed role_changed tags_changed time_zone_changed
""",
    "organization": "created custom_field_changed deleted external_id_changed name_changed tags_changed",
}
provider.ignores(*(f"zen:event-type:{kind}.{what}" for kind, words in SILENT.items() for what in words.split()))

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _at_ms(n: Notification) -> int:
    return (datetime.fromisoformat(n.body["time"]) - EPOCH) // timedelta(milliseconds=1)


def _person(user: Json) -> Person:
    return Person(
        email=user.get("email") or None,
        external_id=user.get("external_id") or None,
        customer_id=str(user["id"]) if user.get("id") else None,
    )


def _learned(person: Person) -> Iterator[Learned]:
    if person.customer_id and (person.email or person.external_id):
        yield Learned(keys=(f"user:{person.customer_id}",), person=person)


@provider.on("zen:event-type:user.created")
def user_created(n: Notification) -> Iterator[Draft | Learned]:
    """A customer; agents and administrators are users, too."""
    user = n.body["detail"]
    person = _person(user)
    yield from _learned(person)
    if user.get("role") in (None, "end-user"):
        properties = {"contact_id": person.customer_id}
        once = f"user_created:{user['id']}"
        yield conversion("lead_created", once=once, at_ms=_at_ms(n), person=person, properties=properties)


@provider.on(
    "zen:event-type:user.external_id_changed",
    "zen:event-type:user.identity_changed",
    "zen:event-type:user.identity_created",
)
def user_changed(n: Notification) -> Iterator[Learned]:
    yield from _learned(_person(n.body["detail"]))


@provider.on("zen:event-type:ticket.created")
def ticket_created(n: Notification) -> Iterator[Draft | Learned]:
    """`requester` is what a trigger tells in the body that the page of this provider gives."""
    ticket = n.body["detail"]
    told = {"id": ticket.get("requester_id"), **(ticket.get("requester") or {})}
    if told["id"] and not (told.get("email") or told.get("external_id")):
        told |= (n.look_up("/users/{}.json", told["id"]) or {}).get("user") or {}
    person = _person(told)
    yield from _learned(person)
    yield event(
        "support_ticket_created",
        once=f"ticket:{ticket['id']}",
        at_ms=_at_ms(n),
        person=person,
        joins=(f"user:{person.customer_id}",) if person.customer_id else (),
        waits=bool(person.customer_id) and not (person.email or person.external_id),
        properties={
            "ticket_id": str(ticket["id"]),
            "channel": _lower((ticket.get("via") or {}).get("channel")),
            "priority": _lower(ticket.get("priority")),
            "ticket_type": _lower(ticket.get("type")),
        },
    )


def _lower(text: str | None) -> str | None:
    """Zendesk writes `open`, `Open` and `OPEN`."""
    return text.lower() if text else None
