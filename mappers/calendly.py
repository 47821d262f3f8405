"""Calendly. https://developer.calendly.com/api-docs/overview/webhooks (API v2, read 2026-11-24).

In: invitees who book and cancel, and routing forms. Out: meetings booked, rescheduled and canceled, forms submitted.
Rescheduling is told as a cancellation and a booking: the booking counts, as `meeting_rescheduled`, and the cancellation
does not. A routing form names nobody: it waits for the booking that it led to, unless an e-mail address was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
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
from relay.money import from_major
from relay.signatures import timestamped_pairs

Json = Mapping[str, Any]

provider = Provider(
    name="calendly",
    title="Calendly",
    docs="https://developer.calendly.com/api-docs/overview/webhooks",
    verifier=timestamped_pairs(header="Calendly-Webhook-Signature", tolerance_s=180),
    notification_id=composed(field("payload.uri"), field("event"), field("created_at")),
    notification_type=field("event"),
    secret=SecretShape(
        meaning="The signing_key that you chose when you created the webhook subscription",
        mistaken={"eyJ": "an access token"},
    ),
    options={"payments": "What was paid for a meeting; leave it out where Stripe or PayPal tells it."},
)
provider.ignores(
    "event_type.created",
    "event_type.deleted",
    "event_type.updated",
    "invitee_no_show.created",
    "invitee_no_show.deleted",
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _last(uri: object) -> str | None:
    """The id at the end of a URI; the same thing is written with two hosts."""
    return str(uri).rstrip("/").rpartition("/")[2] if uri else None


def _minutes(meeting: Json) -> int | None:
    start, end = meeting.get("start_time"), meeting.get("end_time")
    return (_ms(end) - _ms(start)) // 60_000 if start and end else None


def _about(o: Json) -> dict[str, Any]:
    """Who was invited, and to what. The title of a meeting may name somebody: it leaves where it is allowed to."""
    meeting = o.get("scheduled_event") or {}
    invitee_id = _last(o["uri"])
    return {
        "person": Person(email=o.get("email")),
        "metadata": {**(o.get("tracking") or {}), "meeting_title": meeting.get("name")},
        "properties": {
            "invitee_id": invitee_id,
            "meeting_id": _last(meeting.get("uri") or o.get("event")),
            "meeting_type_id": _last(meeting.get("event_type")),
            "duration_minutes": _minutes(meeting),
            "location_type": (meeting.get("location") or {}).get("type"),
        },
    }


def _paid(o: Json, at_ms: int) -> Iterator[Draft]:
    payment = o.get("payment") or {}
    if payment.get("successful") and payment.get("amount"):
        about = _about(o)
        about["properties"] |= {"order_id": payment.get("external_id") or _last(o["uri"])}
        yield conversion(
            "purchase",
            once=f"payment:{payment.get('external_id') or _last(o['uri'])}",
            at_ms=at_ms,
            revenue=from_major(payment["amount"]),
            currency=payment["currency"],
            option="payments",
            **about,
        )


@provider.on("invitee.created")
def invited(n: Notification) -> Iterator[Draft | Learned]:
    o = n.body["payload"]
    invitee_id, form_id, about = _last(o["uri"]), _last(o.get("routing_form_submission")), _about(o)
    keys = (f"invitee:{invitee_id}", *((f"submission:{form_id}",) if form_id else ()))
    yield Learned(keys=keys, person=about["person"], metadata=about["metadata"])
    at_ms = _ms(o.get("created_at") or n.body["created_at"])
    if o.get("old_invitee"):
        yield event("meeting_rescheduled", once=f"invitee:{invitee_id}", at_ms=at_ms, **about)
    else:
        yield conversion("meeting_booked", once=f"invitee:{invitee_id}", at_ms=at_ms, **about)
        yield from _paid(o, at_ms)


@provider.on("invitee.canceled")
def canceled(n: Notification) -> Iterator[Draft]:
    o = n.body["payload"]
    if o.get("rescheduled"):
        return
    cancellation, about = o.get("cancellation") or {}, _about(o)
    about["properties"] |= {"canceled_by": cancellation.get("canceler_type")}
    at_ms = _ms(cancellation.get("created_at") or n.body["created_at"])
    yield event("meeting_canceled", once=f"canceled:{_last(o['uri'])}", at_ms=at_ms, **about)


@provider.on("routing_form_submission.created")
def routed(n: Notification) -> Iterator[Draft]:
    """Of the answers only an e-mail address is read, where there is exactly one."""
    o = n.body["payload"]
    answers = (str(one.get("answer") or "").strip() for one in o.get("questions_and_answers") or ())
    emails = {answer for answer in answers if EMAIL.fullmatch(answer)}
    email, submission_id = next(iter(emails)) if len(emails) == 1 else None, _last(o["uri"])
    is_invitee = o.get("submitter_type") == "Invitee" and o.get("submitter")
    invitee = (f"invitee:{_last(o['submitter'])}",) if is_invitee else ()
    yield conversion(
        "form_submitted",
        once=f"submission:{submission_id}",
        at_ms=_ms(o.get("created_at") or n.body["created_at"]),
        person=Person(email=email),
        joins=(f"submission:{submission_id}", *invitee),
        waits=email is None and (o.get("result") or {}).get("type") == "event_type",
        metadata=o.get("tracking") or {},
        properties={
            "form_id": _last(o.get("routing_form")),
            "submission_id": submission_id,
            "result_type": (o.get("result") or {}).get("type"),
        },
    )
