"""Salesforce, outbound messages. Their documentation stands in `provider.docs` (read 2026-11-23).

In: SOAP with up to 100 notifications, each with the fields of an object that an administrator chose, as they are when
it is sent. Out: leads, and what has become of an opportunity. Answered with Salesforce's own acknowledgement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.parsers import expat

from relay.contract import (
    HOME,
    Answer,
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    conversion,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import salesforce_token

Json = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ACKNOWLEDGED = Answer(
    body=b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>'
    b"</soapenv:Body></soapenv:Envelope>",
    content_type="text/xml; charset=UTF-8",
)

# --- SOAP -------------------------------------------------------------------------------------------------------------

XSI = "http://www.w3.org/2001/XMLSchema-instance "
MESSAGE, NOTIFICATION = ("Envelope", "Body", "notifications"), ("Envelope", "Body", "notifications", "Notification")
OBJECT = (*NOTIFICATION, "sObject")
DEEPEST = 16


def _refuse(*_declared: object) -> None:
    msg = "the message is not one of Salesforce's: it declares a document type, or its elements are nested too deeply"
    raise UnmappableError(msg)


def parse(body: bytes) -> Sequence[Json]:
    """The notifications, each with its organization. No document type, so no entities, and nothing is fetched.

    Raises `UnmappableError` for a document type, `expat.ExpatError` for what is no XML.
    """
    message: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    path: list[str] = []
    text: list[str] = []

    def begin(name: str, attributes: Mapping[str, str]) -> None:
        if len(path) > DEEPEST:
            _refuse()
        path.append(name.rpartition(" ")[2])
        text.clear()
        if tuple(path) == NOTIFICATION:
            found.append({"fields": {}})
        elif tuple(path) == OBJECT:
            found[-1]["type"] = attributes.get(f"{XSI}type", "").rpartition(":")[2]

    def end(name: str) -> None:
        value, parent = "".join(text).strip(), tuple(path[:-1])
        if value and parent == MESSAGE:
            message[path[-1]] = value
        elif value and parent == NOTIFICATION:
            found[-1]["id"] = value
        elif value and parent == OBJECT:
            found[-1]["fields"][path[-1]] = value
        text.clear()
        path.pop()
        del name

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.Parse(body, True)  # noqa: FBT003  that this is all of it
    if not found:
        msg = "the message holds no notification"
        raise UnmappableError(msg)
    return [{"organization": message.get("OrganizationId"), **one} for one in found]


#: A login to the sender's Salesforce, where "Send Session ID" is on.
SESSION = re.compile(rb"(<(?:[\w.-]+:)?SessionId\b[^<>]*(?<!/)>)[^<]+(?=<)")


def without_session(body: bytes) -> bytes:
    """What is kept of a message."""
    return SESSION.sub(rb"\1", body)


provider = Provider(
    name="salesforce",
    title="Salesforce",
    docs="https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_om_outboundmessaging.htm",
    verifier=salesforce_token(),
    redact=without_session,
    parse=parse,
    items=lambda notifications: notifications,
    notification_id=field("id"),
    notification_type=field("type"),
    account=field("organization"),
    accepted=ACKNOWLEDGED,
    secret=SecretShape(
        meaning="A long random text of your own, which is also in the endpoint URL of the message (?token=...); "
        "to take messages of one organization only, with its id behind it (token:00D...)"
    ),
)
provider.ignores("Account", "User", "Task", "Event")


# --- reading ----------------------------------------------------------------------------------------------------------


def _ms(moment: str) -> int:
    at = datetime.fromisoformat(moment)
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _first(o: Json, *names: str) -> str | None:
    return next((o[name] for name in names if name in o), None)


def _moment(o: Json, *names: str) -> int:
    """0 where none of them was chosen as a field of the message: then it does not say."""
    found = _first(o, *names)
    return 0 if found is None else _ms(found)


CHANGED = ("LastModifiedDate", "SystemModstamp")
_OWN_FIELD = re.compile(r"__c$")


def _metadata(o: Json) -> dict[str, str]:
    """`UTM_Source__c` is `utm_source`."""
    return {_OWN_FIELD.sub("", name).lower(): value for name, value in o.items()}


def _person(o: Json, customer_id: str | None) -> Person:
    known = _metadata(o)
    return Person(email=_first(known, "email", "contact_email", "primary_contact_email"), customer_id=customer_id)


def _is(o: Json, name: str) -> bool:
    return str(o.get(name)).lower() in ("true", "1")


# --- leads and contacts -----------------------------------------------------------------------------------------------


@provider.on("Lead", "Contact")
def lead(n: Notification) -> Iterator[Draft | Learned]:
    """A lead, or a contact that never was one; and a lead's status, once it has changed."""
    o = n.body["fields"]
    kind, lead_id = n.type.lower(), o["Id"]
    converted = {"contact": o.get("ConvertedContactId"), "opportunity": o.get("ConvertedOpportunityId")}
    others = tuple(f"{other}:{found}" for other, found in converted.items() if found)
    who: dict[str, Any] = {"person": _person(o, lead_id), "metadata": _metadata(o)}
    yield Learned(keys=(f"{kind}:{lead_id}", *others), **who)
    properties = {f"{kind}_id": lead_id, "lead_source": o.get("LeadSource")}
    yield conversion(
        "lead_created",
        once=(f"{kind}:{lead_id}", *(key for key in others if key.startswith("contact:"))),
        at_ms=_moment(o, "CreatedDate", *CHANGED),
        properties=properties,
        **who,
    )
    changed = _first(o, *CHANGED)
    if o.get("Status") and changed and "CreatedDate" in o and _ms(changed) > _ms(o["CreatedDate"]):
        once, at_ms = f"lead_status:{lead_id}:{o['Status']}", _ms(changed)
        properties = {**properties, "to_stage": o["Status"]}
        yield event("lifecycle_stage_changed", once=once, at_ms=at_ms, properties=properties, **who)


# --- opportunities ----------------------------------------------------------------------------------------------------

A_DAY_MS = 86_400_000


def _closed_ms(o: Json) -> int:
    """When it was closed: when Salesforce was told, or its close date, where that lies further back."""
    told = _first(o, *CHANGED)
    if told is None or "CloseDate" not in o:
        return _moment(o, *CHANGED, "CloseDate")
    closed_ms, told_ms = _ms(o["CloseDate"]), _ms(told)
    return closed_ms if told_ms - closed_ms >= 2 * A_DAY_MS else told_ms


@provider.on("Opportunity")
def opportunity(n: Notification) -> Iterator[Draft | Learned]:
    """As it stands when it is sent: won, lost, new or in another stage."""
    o = n.body["fields"]
    deal_id, stage, contact_id = o["Id"], o.get("StageName"), _first(o, "ContactId", "Primary_Contact__c")
    person = _person(o, contact_id)
    if person.email:
        yield Learned(keys=(f"opportunity:{deal_id}",), person=person, metadata=_metadata(o))
    joins = (f"contact:{contact_id}",) if contact_id else ()
    about: dict[str, Any] = {
        "person": person,
        "joins": (*joins, f"opportunity:{deal_id}"),
        "waits": person.email is None,
        "metadata": _metadata(o),
    }
    properties = {"deal_id": deal_id, "to_stage": stage, "type": o.get("Type"), "lead_source": o.get("LeadSource")}
    if o.get("Amount"):  # an organization with one currency does not say which
        currency = _first(_metadata(o), "currencyisocode", "currency") or HOME
        about |= {"revenue": from_major(o["Amount"]), "currency": currency}
    if _is(o, "IsWon") or stage == "Closed Won":
        once, told = f"deal_won:{deal_id}", {"order_id": deal_id, **properties}
        yield conversion("deal_won", once=once, at_ms=_closed_ms(o), properties=told, **about)
    elif (_is(o, "IsClosed") and "IsWon" in o) or stage == "Closed Lost":
        yield event("deal_lost", once=f"deal_lost:{deal_id}", at_ms=_closed_ms(o), properties=properties, **about)
    else:
        at_ms = _moment(o, *CHANGED, "CreatedDate")
        is_new = "CreatedDate" in o and at_ms == _ms(o["CreatedDate"])
        once = f"deal_created:{deal_id}" if is_new else f"deal_stage:{deal_id}:{stage}:{at_ms or n.id}"
        name = "deal_created" if is_new else "deal_stage_changed"
        yield event(name, once=once, at_ms=at_ms, properties=properties, **about)
