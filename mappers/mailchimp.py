"""Mailchimp. https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/ (read 2026-11-23).

In: forms about one contact of one audience, which nobody signs: whoever knows the URL with its token can send them.
Out: subscriptions, and how they end. A notification has no id: it is made of the audience, the contact and the time.
Merge fields are the contact's metadata, under small letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
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
)
from relay.signatures import form_of, query_token

Form = Mapping[str, str]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MERGES = "data[merges]["


def _email(o: Form) -> str | None:
    return o.get("data[email]") or o.get(f"{MERGES}EMAIL]") or None


def _id(item: Item) -> str | None:
    """By the contact's id; where it has none, by a digest of its address, so that no key holds one."""
    o: Form = item.body
    contact = o.get("data[id]") or (digest_of((_email(o) or "").strip().lower())[7:23] if _email(o) else None)
    if not (contact and o.get("type") and o.get("fired_at")):
        return None
    return f"{o['type']}:{o.get('data[list_id]', '')}:{contact}:{o['fired_at']}"


provider = Provider(
    name="mailchimp",
    title="Mailchimp",
    docs="https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/",
    verifier=query_token("token"),
    parse=form_of,
    notification_id=_id,
    notification_type=field("type"),
    secret=SecretShape(
        meaning="Your own choice, long and random: the end of the URL that you give to Mailchimp, behind ?token="
    ),
)
#: What a contact changed of itself, and what was sent to all.
provider.ignores("profile", "upemail", "campaign", "pending")


def _about(n: Notification) -> dict[str, Any]:
    o: Form = n.body
    merges = {name.removeprefix(MERGES)[:-1]: text for name, text in o.items() if name.startswith(MERGES) and text}
    return {
        "once": n.id,
        "at_ms": (datetime.fromisoformat(o["fired_at"]).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1),
        "person": Person(email=_email(o), customer_id=o.get("data[id]") or None),
        "metadata": {name.lower(): text for name, text in merges.items() if "[" not in name},
        "properties": {"list_id": o.get("data[list_id]") or None, "campaign_id": o.get("data[campaign_id]") or None},
    }


@provider.on("subscribe")
def subscribed(n: Notification) -> Iterator[Draft]:
    yield conversion("newsletter_subscribed", **_about(n))


@provider.on("unsubscribe")
def unsubscribed(n: Notification) -> Iterator[Draft]:
    """`action` tells apart who left and who was deleted."""
    about, is_complaint = _about(n), n.body.get("data[reason]") == "abuse"
    about["properties"] |= {"action": n.body.get("data[action]") or None}
    yield event("email_complained" if is_complaint else "email_unsubscribed", **about)


@provider.on("cleaned")
def cleaned(n: Notification) -> Iterator[Draft]:
    """Taken off the list by Mailchimp itself, for its bounces or for a complaint."""
    about, reason = _about(n), n.body.get("data[reason]") or None
    if reason == "abuse":
        yield event("email_complained", **about)
    else:
        about["properties"] |= {"bounce_type": reason}
        yield event("email_bounced", **about)
