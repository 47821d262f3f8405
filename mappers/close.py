"""Close. https://developer.close.com/api/resources/webhooks (read 2026-11-23).

In: an entry of Close's event log: a whole lead, contact or opportunity, and which of its fields have changed. Out:
leads, their status, and the steps of an opportunity, whose value is in cents. An opportunity names its contact by an
id only: with an API key Close is asked who that is, without one it waits for whoever is behind the id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    UnmappableError,
    basic_key,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_minor
from relay.signatures import timestamp_in_header

Json = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

provider = Provider(
    name="close",
    title="Close",
    docs="https://developer.close.com/api/resources/webhooks",
    verifier=timestamp_in_header(
        header="close-sig-hash",
        timestamp="close-sig-timestamp",
        message="{timestamp}{body}",
        tolerance_s=None,  # nothing is documented, and it retries for three days
        key="hex",
    ),
    notification_id=field("event.id"),
    notification_type=composed(field("event.object_type"), field("event.action"), separator="."),
    secret=SecretShape(
        meaning="The signature_key that Close answered with when the webhook was created (POST /api/v1/webhook/)",
        mistaken={"api_": "an API key", "whsub_": "the webhook's id"},
    ),
    api=Api(base="https://api.close.com/api/v1", auth=basic_key),
    api_key=SecretShape(meaning="Close > Settings > Developer > API Keys", prefix="api_"),
)

#: Twins of what is mapped, and what salespeople do.
OTHERS = """
activity.call activity.created activity.email activity.email_thread activity.lead_status_change activity.meeting
activity.note activity.opportunity_status_change activity.sms activity.task_completed activity.custom_activity
activity.whatsapp_message bulk_action custom_fields.lead export group import membership phone_number report saved_search
sequence sequence_subscription status.lead status.opportunity status_change.lead status_change.opportunity task
task.lead user
"""
ACTIONS = "created updated deleted completed answered sent received started canceled scheduled"
provider.ignores(
    *(f"{kind}.{action}" for kind in OTHERS.split() for action in ACTIONS.split()),
    *("lead.deleted", "contact.deleted", "opportunity.deleted"),
)


# --- reading ----------------------------------------------------------------------------------------------------------


def _event(n: Notification) -> Json:
    found: Json = n.body["event"]
    return found


def _object_id(n: Notification) -> str:
    found = _event(n).get("object_id") or _data(n).get("id")
    if not found:
        msg = "the event does not say what it is about"
        raise UnmappableError(msg)
    return str(found)


def _data(n: Notification) -> Json:
    """The whole object; null for readers who may not see it any more."""
    return _event(n).get("data") or {}


def _changed(n: Notification, name: str) -> bool:
    return name in (_event(n).get("changed_fields") or ())


def _ms(moment: str) -> int:
    """The log's own times have no zone and are in UTC."""
    at = datetime.fromisoformat(moment)
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _at_ms(n: Notification) -> int:
    """Close joins changes that follow each other: `date_updated` is that of the last."""
    return _ms(_event(n).get("date_updated") or _event(n)["date_created"])


A_DAY_MS = 86_400_000


def _closed_ms(n: Notification, day: str | None) -> int:
    """When it was closed: when Close was told, or the day that was written for it, where that lies further back."""
    said_ms = _at_ms(n)
    closed_ms = said_ms if day is None else _ms(day)
    return closed_ms if said_ms - closed_ms >= 2 * A_DAY_MS else said_ms


def _email(contact: Json) -> str | None:
    return next((one["email"] for one in contact.get("emails") or () if one.get("email")), None)


def _first_email(contacts: Iterable[Json]) -> str | None:
    return next((found for contact in contacts if (found := _email(contact))), None)


def _custom(o: Json) -> dict[str, Any]:
    """Custom fields: `custom.cf_...`, by name in `custom`, whichever the account's API has."""
    named = {name.removeprefix("custom."): value for name, value in o.items() if name.startswith("custom.")}
    by_name = o.get("custom") if isinstance(o.get("custom"), dict) else {}
    return {**named, **(by_name or {})}


def _who(n: Notification, o: Json) -> dict[str, Any]:
    """For a draft: the contact of an opportunity, else whoever the lead is."""
    contact_id, lead_id = o.get("contact_id"), o.get("lead_id") or _event(n).get("lead_id")
    email = None
    if contact_id:
        email = _email(n.look_up("/contact/{}/?_fields=id,emails", contact_id) or {})
    elif lead_id:
        email = _first_email((n.look_up("/lead/{}/?_fields=id,contacts", lead_id) or {}).get("contacts") or ())
    return {
        "person": Person(email=email, customer_id=contact_id or lead_id),
        "joins": tuple(f"{kind}:{found}" for kind, found in (("contact", contact_id), ("lead", lead_id)) if found),
        "waits": email is None and bool(contact_id or lead_id),
        "metadata": _custom(o),
    }


# --- leads and contacts -----------------------------------------------------------------------------------------------


@provider.on("lead.created", "lead.updated")
def lead(n: Notification) -> Iterator[Draft | Learned]:
    """A lead is a company or a person, with contacts. The first with an address stands for it."""
    o, lead_id = _data(n), _object_id(n)
    contacts = [contact for contact in o.get("contacts") or () if contact.get("id")]
    for contact in contacts:
        yield _contact(contact)
    email = _first_email(contacts)
    who: dict[str, Any] = {"person": Person(email=email, customer_id=lead_id), "metadata": _custom(o)}
    yield Learned(keys=(f"lead:{lead_id}",), **who)
    about = {"joins": (f"lead:{lead_id}",), "waits": email is None, **who}
    if n.type == "lead.created":
        at_ms, properties = _ms(_event(n)["date_created"]), {"lead_id": lead_id, "status": o.get("status_label")}
        yield conversion("lead_created", once=f"lead:{lead_id}", at_ms=at_ms, properties=properties, **about)
    elif _changed(n, "status_id"):
        before = _event(n).get("previous_data") or {}
        properties = {"from_stage": before.get("status_label"), "to_stage": o.get("status_label"), "lead_id": lead_id}
        once, at_ms = f"lead_status:{n.id}", _at_ms(n)
        yield event("lifecycle_stage_changed", once=once, at_ms=at_ms, properties=properties, **about)


@provider.on("lead.merged")
def leads_merged(n: Notification) -> Iterator[Learned]:
    meta = _event(n).get("meta") or {}
    ids = [found for name in ("merge_destination_lead_id", "merge_source_lead_id") if (found := meta.get(name))]
    if len(set(ids)) > 1:
        yield Learned(keys=tuple(f"lead:{found}" for found in ids), same=True)


def _contact(contact: Json) -> Learned:
    person = Person(email=_email(contact), customer_id=contact["id"])
    return Learned(keys=(f"contact:{contact['id']}",), person=person)


@provider.on("contact.created", "contact.updated")
def contact(n: Notification) -> Iterator[Learned]:
    """Who stands behind the id, and behind the lead, where nobody did yet."""
    o = {**_data(n), "id": _object_id(n)}
    yield _contact(o)
    lead_id = o.get("lead_id") or _event(n).get("lead_id")
    if lead_id and _email(o):
        yield Learned(keys=(f"lead:{lead_id}",), person=Person(email=_email(o), customer_id=lead_id))


# --- opportunities ----------------------------------------------------------------------------------------------------

#: By `value_period`.
INTERVALS = {"monthly": "month", "annual": "year"}


@provider.on("opportunity.created", "opportunity.updated")
def opportunity(n: Notification) -> Iterator[Draft]:
    """New, moved, won or lost; one that is opened and won again was won once."""
    o, deal_id, is_new = _data(n), _object_id(n), n.type == "opportunity.created"
    if not o:
        msg = "the event has no data: the webhook's user may not see it"
        raise UnmappableError(msg)
    status, before = o.get("status_type"), _event(n).get("previous_data") or {}
    is_closed_now = is_new or (_changed(n, "status_type") and before.get("status_type") != status)
    if not (is_new or is_closed_now or _changed(n, "status_id")):
        return
    about = _who(n, o)
    properties = {
        "deal_id": deal_id,
        "lead_id": o.get("lead_id"),
        "pipeline": o.get("pipeline_name"),
        "to_stage": o.get("status_label"),
        "billing_interval": INTERVALS.get(str(o.get("value_period"))),
    }
    worth: dict[str, Any] = {}
    if o.get("value") and o.get("value_currency"):
        worth = {"amount": from_minor(o["value"], o["value_currency"]), "currency": o["value_currency"].upper()}
    if is_new:
        once, at_ms = f"deal_created:{deal_id}", _ms(_event(n)["date_created"])
        yield event("deal_created", once=once, at_ms=at_ms, properties={**properties, **worth}, **about)
    if is_closed_now and status == "won":
        at_ms, told = _closed_ms(n, o.get("date_won")), {"order_id": deal_id, **properties}
        money = {"revenue": worth.get("amount"), "currency": worth.get("currency")}
        yield conversion("deal_won", once=f"deal_won:{deal_id}", at_ms=at_ms, properties=told, **money, **about)
    elif is_closed_now and status == "lost":
        at_ms, told = _closed_ms(n, o.get("date_lost")), {**properties, **worth}
        yield event("deal_lost", once=f"deal_lost:{deal_id}", at_ms=at_ms, properties=told, **about)
    elif not is_new:
        told = {"from_stage": before.get("status_label"), **properties, **worth}
        yield event("deal_stage_changed", once=f"deal_stage:{n.id}", at_ms=_at_ms(n), properties=told, **about)
