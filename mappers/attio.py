"""Attio. https://docs.attio.com/rest-api/guides/webhooks (API v2, read 2026-11-23).

In: ids and nothing else, not even a time, so that Attio is asked for the object and the record behind them. Out: new
people as leads, and the steps of a deal with its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Api,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    digest_of,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _id(item: Item) -> str | None:
    """The key is the delivery's, which holds one event today and may hold more tomorrow."""
    key = item.headers.get("idempotency-key")
    return f"{key}:{digest_of(item.body)}" if key else None


def _events(body: Any) -> Sequence[Any]:
    found: Sequence[Any] = body.get("events", (body,))
    return found


provider = Provider(
    name="attio",
    title="Attio",
    docs="https://docs.attio.com/rest-api/guides/webhooks",
    verifier=hmac_sha256(header=("Attio-Signature", "X-Attio-Signature")),
    notification_id=_id,
    notification_type=field("event_type"),
    items=_events,
    account=field("id.workspace_id"),
    secret=SecretShape(meaning="The secret that Attio showed when the webhook was created (Settings > Developers)"),
    api=Api(base="https://api.attio.com/v2", is_needed=True),
    api_key=SecretShape(
        meaning="Attio > Settings > Developers: an access token with the scopes record_permission:read and "
        "object_configuration:read"
    ),
    options={"signups": "A signup for every new record of the object users."},
)

IGNORED = """
activity-record.created call-recording.created call-recording.deleted comment.created comment.deleted comment.resolved
comment.unresolved file.created file.deleted file.updated list-attribute.created list-attribute.updated
list-entry.created list-entry.deleted list-entry.updated list.created list.deleted list.updated note-content.updated
note.created note.deleted note.updated object-attribute.created object-attribute.updated object.created object.updated
record.deleted record.merged task.created task.deleted task.updated workspace-member.created workspace-member.updated
"""
provider.ignores(*IGNORED.split())


# --- reading ----------------------------------------------------------------------------------------------------------


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _kind(n: Notification) -> str:
    """`people`, `companies`, `deals`, `users`, or an object of the workspace's own."""
    return str(n.ask("/objects/{}", n.body["id"]["object_id"])["data"]["api_slug"])


def _record(n: Notification, kind: str) -> Json:
    found: Json = n.ask("/objects/{}/records/{}", kind, n.body["id"]["record_id"])["data"]
    return found


def _values(record: Json | None, name: str) -> Sequence[Json]:
    """An attribute has a list of values, the present ones; it is empty, or missing, where there is none."""
    return ((record or {}).get("values") or {}).get(name) or ()


def _value(record: Json, name: str) -> Json:
    return next(iter(_values(record, name)), {})


def _email(person: Json | None) -> str | None:
    return next((one["email_address"] for one in _values(person, "email_addresses") if one.get("email_address")), None)


def _metadata(record: Json) -> dict[str, Any]:
    """Attributes that are plain texts or numbers, by slug: `utm_source`."""
    return {
        name: values[0]["value"]
        for name, values in (record.get("values") or {}).items()
        if values and isinstance(values[0].get("value"), (str, int, float))
    }


# --- records ----------------------------------------------------------------------------------------------------------


@provider.on("record.created")
def record_created(n: Notification) -> Iterator[Draft | Learned]:
    kind = _kind(n)
    if kind == "people":
        yield from _new_person(n, _record(n, kind))
    elif kind == "users":
        yield from _new_user(n, _record(n, kind))
    elif kind == "deals":
        deal = _record(n, kind)
        yield _told(n, deal, state="created", at_ms=_ms(deal["created_at"]))
        if state := _state(deal):
            yield _told(n, deal, state=state, at_ms=_staged_ms(deal))


@provider.on("record.updated")
def record_updated(n: Notification) -> Iterator[Draft]:
    """Of a deal, its stage. Every other attribute is asked for when it is needed."""
    kind = _kind(n)
    if kind != "deals":
        return
    deal = _record(n, kind)
    status = _value(deal, "stage").get("status") or {}
    if (status.get("id") or {}).get("attribute_id") == n.body["id"].get("attribute_id"):
        yield _told(n, deal, state=_state(deal), at_ms=_staged_ms(deal))


def _new_person(n: Notification, record: Json) -> Iterator[Draft | Learned]:
    record_id = n.body["id"]["record_id"]
    who: dict[str, Any] = {
        "person": Person(email=_email(record), customer_id=record_id),
        "metadata": _metadata(record),
    }
    yield Learned(keys=(f"person:{record_id}",), **who)
    properties = {"contact_id": record_id}
    once, at_ms = f"lead:{record_id}", _ms(record["created_at"])
    yield conversion("lead_created", once=once, at_ms=at_ms, properties=properties, **who)


def _new_user(n: Notification, record: Json) -> Iterator[Draft]:
    record_id, email = n.body["id"]["record_id"], _value(record, "primary_email_address").get("email_address")
    yield conversion(
        "signup",
        once=f"signup:{record_id}",
        at_ms=_ms(record["created_at"]),
        person=Person(email=email, external_id=_value(record, "user_id").get("value"), customer_id=record_id),
        metadata=_metadata(record),
        properties={"user_record_id": record_id},
        option="signups",
    )


# --- deals ------------------------------------------------------------------------------------------------------------


def _title(deal: Json) -> str:
    return str((_value(deal, "stage").get("status") or {}).get("title") or "")


def _staged_ms(deal: Json) -> int:
    return _ms(_value(deal, "stage").get("active_from") or deal["created_at"])


def _state(deal: Json) -> str | None:
    """Attio's own stages are called "Won 🎉" and "Lost"."""
    words = re.findall("[a-z]+", _title(deal).lower())
    return "won" if "won" in words else "lost" if "lost" in words else None


def _told(n: Notification, deal: Json, *, state: str | None, at_ms: int) -> Draft:
    """A deal with one person is theirs; with several nobody can say whose it is."""
    deal_id = n.body["id"]["record_id"]
    people = sorted({found["target_record_id"] for found in _values(deal, "associated_people")})
    person_id = people[0] if len(people) == 1 else None
    person = (n.look_up("/objects/people/records/{}", person_id) or {}).get("data") if person_id else None
    value = _value(deal, "value")
    worth: dict[str, Any] = {}
    if value.get("currency_value") and value.get("currency_code"):
        worth = {"amount": from_major(value["currency_value"]), "currency": value["currency_code"].upper()}
    properties = {"deal_id": deal_id, "to_stage": _title(deal) or None}
    about: dict[str, Any] = {
        "person": Person(email=_email(person), customer_id=person_id),
        "metadata": {**_metadata(person or {}), **_metadata(deal)},
    }
    if state == "won":
        about |= {"revenue": worth.get("amount"), "currency": worth.get("currency")}
        properties = {"order_id": deal_id, **properties}
        return conversion("deal_won", once=f"deal_won:{deal_id}", at_ms=at_ms, properties=properties, **about)
    once = f"deal_stage:{deal_id}:{at_ms}" if state is None else f"deal_{state}:{deal_id}"
    name = "deal_stage_changed" if state is None else f"deal_{state}"
    return event(name, once=once, at_ms=at_ms, properties={**properties, **worth}, **about)
