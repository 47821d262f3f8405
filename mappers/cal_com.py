"""Cal.com. https://cal.com/docs/developing/guides/automation/webhooks (read 2026-11-24).

In: one thing that happened to a booking, with the booking as it stands, or a routing form. Out: meetings booked,
rescheduled and canceled, forms submitted, and on request what was paid. A webhook without a secret is sent with
`no-secret-provided` in the place of a signature, which is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Draft,
    Notification,
    Person,
    Provider,
    SecretShape,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="cal_com",
    title="Cal.com",
    docs="https://cal.com/docs/developing/guides/automation/webhooks",
    verifier=hmac_sha256(header="X-Cal-Signature-256"),
    # Forms have no id: a digest of what they say, the time included.
    notification_id=composed(field("payload.uid"), field("triggerEvent"), field("createdAt")),
    notification_type=field("triggerEvent"),
    secret=SecretShape(
        meaning="What you type in at Cal.com > Settings > Developer > Webhooks > your webhook > Secret: a long random "
        "text",
        mistaken={"cal_": "an API key"},
    ),
    options={"payments": "What was paid for a booking; leave it out where Stripe or PayPal tells it."},
)
#: Steps on the way, twins (a form without a booking is told a second time), and what is about meetings that take place.
IGNORED = """
AFTER_GUESTS_CAL_VIDEO_NO_SHOW AFTER_HOSTS_CAL_VIDEO_NO_SHOW BOOKING_NO_SHOW_UPDATED BOOKING_PAYMENT_INITIATED
BOOKING_REJECTED BOOKING_REQUESTED DELEGATION_CREDENTIAL_ERROR FORM_SUBMITTED_NO_EVENT INSTANT_MEETING MEETING_ENDED
MEETING_STARTED OOO_CREATED PING RECORDING_READY RECORDING_TRANSCRIPTION_GENERATED ROUTING_FORM_FALLBACK_HIT
WRONG_ASSIGNMENT_REPORT
"""
provider.ignores(*IGNORED.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
#: What may be taken of the answers, which visitors type: no ids.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _answer(responses: Json, key: str) -> str | None:
    """Answers are texts, or objects with the answer in them."""
    found = responses.get(key)
    value = (found.get("response") or found.get("value")) if isinstance(found, dict) else found
    return value if isinstance(value, str) and value else None


def _told(responses: Json) -> dict[str, str]:
    return {key: answer for key in CAMPAIGN if (answer := _answer(responses, key))}


# --- bookings ---------------------------------------------------------------------------------------------------------


def _booking(n: Notification) -> Json:
    """Templates for payloads mostly leave the envelope out."""
    booking: Json = n.body.get("payload") or n.body
    return booking


def _booker(booking: Json) -> str | None:
    """Who booked: the first attendee, all others are guests; a shared booking lists those who came before, too."""
    attendees: Sequence[Json] = booking.get("attendees") or ({},)
    return _answer(booking.get("responses") or {}, "email") or attendees[0].get("email")


def _uid(booking: Json) -> str:
    """Its number where a payload template leaves out the other."""
    return str(booking.get("uid") or booking["bookingId"])


def _key(booking: Json) -> str:
    """The booking, or the seat in it."""
    seat = booking.get("attendeeSeatId")
    return f"{_uid(booking)}:{seat}" if seat else _uid(booking)


def _about(n: Notification) -> dict[str, Any]:
    """When, who and what. The title of a booking names its people, so it does not leave; that of its type may."""
    booking = _booking(n)
    start, end = booking.get("startTime"), booking.get("endTime")
    title = {"meeting_title": booking.get("eventTitle")}
    return {
        "at_ms": _ms(n.body["createdAt"]),
        "person": Person(email=_booker(booking)),
        "metadata": {**_told(booking.get("responses") or {}), **(booking.get("metadata") or {}), **title},
        "properties": {
            "booking_id": _uid(booking),
            "meeting_type_id": booking.get("eventTypeId"),
            "meeting_type": booking.get("type"),
            "duration_minutes": booking.get("length") or ((_ms(end) - _ms(start)) // 60_000 if start and end else None),
        },
    }


@provider.on("BOOKING_CREATED", "BOOKING_RESCHEDULED")
def booked(n: Notification) -> Iterator[Draft]:
    """Each new date is a new booking that knows the old one; where it must be confirmed, it is told as created."""
    booking = _booking(n)
    if n.type == "BOOKING_RESCHEDULED" or booking.get("rescheduleUid"):
        once = f"rescheduled:{_key(booking)}:{booking.get('startTime')}"
        yield event("meeting_rescheduled", once=once, **_about(n))
    else:
        yield conversion("meeting_booked", once=f"booking:{_key(booking)}", **_about(n))


@provider.on("BOOKING_CANCELLED")
def canceled(n: Notification) -> Iterator[Draft]:
    booking, about = _booking(n), _about(n)
    by, host = booking.get("cancelledBy"), (booking.get("organizer") or {}).get("email")
    about["properties"] |= {"canceled_by": None if not by else "host" if by == host else "invitee"}
    yield event("meeting_canceled", once=f"canceled:{_key(booking)}", **about)


@provider.on("BOOKING_PAID", option="payments")
def paid(n: Notification) -> Iterator[Draft]:
    booking, about = _booking(n), _about(n)
    payment = booking.get("paymentData") or {}
    amount, currency = payment.get("amount") or booking.get("price"), payment.get("currency") or booking["currency"]
    payment_id = booking.get("paymentId")
    about["properties"] |= {"order_id": str(payment_id or _uid(booking))}
    if amount:
        once = f"payment:{payment_id}" if payment_id else f"payment_of:{_key(booking)}"
        yield conversion("purchase", once=once, revenue=from_minor(amount, currency), currency=currency, **about)


# --- routing forms ----------------------------------------------------------------------------------------------------


@provider.on("FORM_SUBMITTED")
def submitted(n: Notification) -> Iterator[Draft]:
    """Of the answers only an e-mail address is read, where there is exactly one, and the campaign."""
    form = n.body["payload"]
    responses = form.get("responses") or {}
    answers = {answer for key in responses if (answer := _answer(responses, key)) and EMAIL.fullmatch(answer)}
    email = _answer(responses, "email") or (next(iter(answers)) if len(answers) == 1 else None)
    yield conversion(
        "form_submitted",
        once=f"form:{form.get('formId')}:{n.id}",
        at_ms=_ms(n.body["createdAt"]),
        person=Person(email=email),
        metadata=_told(responses),
        properties={"form_id": form.get("formId"), "form": form.get("formName")},
    )
