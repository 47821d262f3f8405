"""HubSpot. https://developers.hubspot.com/docs/guides/crm/private-apps/webhooks (read 2026-11-23).

In: subscriptions, thin (the id of an object and the one property that changed, up to 100 at a time), and what workflows
send: the whole object, or the fields that were picked. Out: leads, stages, forms, and deals with their amount. What one
delivery says of an object is read together; with an API key HubSpot is asked for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    HOME,
    Api,
    Draft,
    Forgotten,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    composed,
    conversion,
    digest_of,
    event,
    field,
)
from relay.money import from_major
from relay.signatures import hubspot_signature

Json = Mapping[str, Any]

#: What generic subscriptions (`object.creation`) call the objects.
OBJECTS = {"0-1": "contact", "0-2": "company", "0-3": "deal", "0-5": "ticket", "0-7": "product", "0-8": "line_item"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _subscription(body: Json) -> str:
    """`contact.creation`, in the old form and in the generic one; empty for what a workflow sends."""
    said = str(body.get("subscriptionType") or body.get("eventType") or "")
    kind, _, change = said.partition(".")
    return f"{OBJECTS.get(str(body.get('objectTypeId')), kind)}.{change}" if kind == "object" else said


def _object(body: Json) -> tuple[str, str, str]:
    return str(body.get("portalId")), _subscription(body).partition(".")[0], str(body.get("objectId"))


def _items(body: Any) -> Sequence[Any]:
    """Each with what the same delivery says of the same object: `beside`, the latest of each property."""
    items = body if isinstance(body, list) else [body]
    told: dict[tuple[str, str, str], dict[str, tuple[int, Any]]] = {}
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("propertyName"), str):
            properties, at_ms = told.setdefault(_object(item), {}), item.get("occurredAt")
            change = (at_ms if isinstance(at_ms, int) else 0, item.get("propertyValue"))
            properties[item["propertyName"]] = max(properties.get(item["propertyName"], change), change, key=_when)
    return [_with_what_is_beside(item, told) if isinstance(item, dict) else item for item in items]


def _when(change: tuple[int, Any]) -> int:
    return change[0]


def _with_what_is_beside(item: Json, told: Mapping[tuple[str, str, str], Mapping[str, tuple[int, Any]]]) -> Json:
    beside = {name: value for name, (_, value) in told.get(_object(item), {}).items() if value not in (None, "")}
    return {**item, "beside": beside} if beside and _subscription(item) else item


def _kind(body: Json) -> str:
    """What a workflow sent: it says so, or its fields do."""
    if body.get("objectType"):
        return str(body["objectType"]).lower()
    if "vid" in body:
        return "contact"
    if "dealstage" in body or "dealname" in body:
        return "deal"
    return "contact" if "email" in body else "company" if "companyId" in body else "object"


def _id_in_workflow(item: Item) -> str | None:
    """A workflow gives no id: a digest of all that it says."""
    return None if _subscription(item.body) else f"{_portal(item)}:{item.body.get('objectId')}:{digest_of(item.body)}"


#: HubSpot promises no unique `eventId`. `attemptNumber` is left out: it tells a retry.
_id_in_subscription = composed(
    *map(field, ("portalId", "subscriptionId", "eventId", "objectId", "occurredAt", "propertyName"))
)


def _portal(item: Item) -> str | None:
    return field("portalId")(item) or field("portal-id")(item)


provider = Provider(
    name="hubspot",
    title="HubSpot",
    docs="https://developers.hubspot.com/docs/guides/crm/private-apps/webhooks",
    verifier=hubspot_signature(),
    notification_id=lambda item: _id_in_workflow(item) or _id_in_subscription(item),
    notification_type=lambda item: _subscription(item.body) or f"workflow.{_kind(item.body)}",
    items=_items,
    account=_portal,
    secret=SecretShape(
        meaning="HubSpot > Settings > Integrations > your app > Auth: the client secret (v1: or v2: before it to ask "
        "for an old signature)",
        mistaken={"pat-": "an access token"},
    ),
    api=Api(base="https://api.hubapi.com"),
    api_key=SecretShape(
        meaning="HubSpot > Settings > Integrations > Private apps: an access token that may read contacts and deals",
        prefix="pat-",
    ),
)

#: What is asked for. Properties that an account does not have are left out of the answer.
CONTACT = (
    "/crm/v3/objects/contacts/{}?properties=email,utm_source,utm_medium,utm_campaign,utm_term,utm_content,gclid,fbclid"
)
DEAL = (
    "/crm/v3/objects/deals/{}?properties=amount,deal_currency_code,dealstage,hs_is_closed,hs_is_closed_won,pipeline"
    "&associations=contacts"
)
ACCOUNT = "/account-info/v3/details"

#: What says nothing of a person or of a sale.
IGNORED = """
company.associationChange company.creation company.deletion company.merge company.propertyChange company.restore
contact.deletion contact.restore conversation.creation conversation.deletion
conversation.newMessage conversation.privacyDeletion conversation.propertyChange deal.deletion deal.merge deal.restore
line_item.associationChange line_item.creation line_item.deletion line_item.merge line_item.propertyChange
line_item.restore product.creation product.deletion product.merge product.propertyChange product.restore
ticket.associationChange ticket.deletion ticket.merge ticket.propertyChange ticket.restore workflow.company
"""
provider.ignores(*IGNORED.split())


# --- reading ----------------------------------------------------------------------------------------------------------


def _ms(moment: Any) -> int:
    """HubSpot's moments are milliseconds, as numbers and as texts; fields picked in a workflow may be ISO 8601."""
    text = str(moment)
    return int(text) if text.isdecimal() else (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def _object_id(body: Json) -> str:
    found = body.get("objectId") or body.get("vid") or _properties(body).get("hs_object_id")
    if not found:
        msg = "the object has no id: a workflow that sends chosen fields needs the Record ID (hs_object_id) among them"
        raise UnmappableError(msg)
    return str(found)


def _properties(body: Json) -> dict[str, Any]:
    """The values: of an object with its history, or of the fields that were picked."""
    given = body["properties"] if isinstance(body.get("properties"), dict) else body
    values = {name: value.get("value") if isinstance(value, dict) else value for name, value in given.items()}
    return {name: value for name, value in values.items() if value not in (None, "") and not isinstance(value, list)}


def _since(body: Json, name: str) -> int | None:
    """When a property got the value that it has."""
    given = body["properties"].get(name) if isinstance(body.get("properties"), dict) else None
    if not isinstance(given, dict):
        return None
    versions = given.get("versions") or [{}]
    found = given.get("timestamp") or versions[0].get("timestamp")
    return None if found is None else _ms(found)


def _said_ms(n: Notification) -> int:
    """When HubSpot said it: for objects that do not say when."""
    return _ms(n.headers["x-hubspot-request-timestamp"])


def _asked(answer: Any) -> dict[str, Any]:
    """The properties of an object as the API has it."""
    found = (answer or {}).get("properties") or {}
    return {name: value for name, value in found.items() if value not in (None, "")}


# --- contacts ---------------------------------------------------------------------------------------------------------


def _who(contact_id: str, known: Json) -> dict[str, Any]:
    """For a draft: who it is, as far as that is known of the contact."""
    return {
        "person": Person(email=known.get("email"), customer_id=contact_id),
        "metadata": known,
        "joins": (f"contact:{contact_id}",),
        "waits": not known.get("email"),
    }


def _known(n: Notification, contact_id: str, told: Json) -> dict[str, Any]:
    """What the delivery says of the contact; where it is not the address, what HubSpot says when it is asked."""
    return {**told} if told.get("email") else {**_asked(n.look_up(CONTACT, contact_id)), **told}


def _stage(contact_id: str, stage: str, at_ms: int, known: Json) -> Draft:
    once, properties = f"lifecycle:{contact_id}:{stage}", {"contact_id": contact_id, "to_stage": stage}
    return event("lifecycle_stage_changed", once=once, at_ms=at_ms, properties=properties, **_who(contact_id, known))


def _learned(contact_id: str, known: Json) -> Learned:
    person = Person(email=known.get("email"), customer_id=contact_id)
    return Learned(keys=(f"contact:{contact_id}",), person=person, metadata=known)


@provider.on("contact.creation")
def contact_created(n: Notification) -> Iterator[Draft | Learned]:
    contact_id = _object_id(n.body)
    known = _known(n, contact_id, n.body.get("beside") or {})
    yield _learned(contact_id, known)
    properties = {"contact_id": contact_id, "change_source": n.body.get("changeSource")}
    once, at_ms = f"lead:{contact_id}", n.body["occurredAt"]
    yield conversion("lead_created", once=once, at_ms=at_ms, properties=properties, **_who(contact_id, known))


@provider.on("contact.propertyChange")
def contact_changed(n: Notification) -> Iterator[Draft | Learned]:
    """Its address and its stage; other properties are learned for what is allow-listed of them."""
    contact_id, told = _object_id(n.body), n.body.get("beside") or {}
    if n.body.get("propertyName") != "lifecyclestage" or not n.body.get("propertyValue"):
        yield _learned(contact_id, told)
        return
    known = _known(n, contact_id, told)
    yield _learned(contact_id, known)
    yield _stage(contact_id, n.body["propertyValue"], n.body["occurredAt"], known)


@provider.on("contact.merge")
def contacts_merged(n: Notification) -> Iterator[Learned]:
    ids = [n.body.get("primaryObjectId"), *(n.body.get("mergedObjectIds") or ()), n.body.get("newObjectId")]
    keys = tuple(dict.fromkeys(f"contact:{found}" for found in ids if found is not None))
    if len(keys) > 1:
        yield Learned(keys=keys, same=True)


@provider.on("contact.associationChange", "deal.associationChange")
def deal_of_a_contact(n: Notification) -> Iterator[Learned]:
    """Who a deal is with: it is like its contact, and one of several contacts is not like the deal."""
    kinds = str(n.body.get("associationType") or "").lower().split("_to_")
    if len(kinds) == 1:
        kinds = [OBJECTS.get(str(n.body.get(key)), "") for key in ("fromObjectTypeId", "toObjectTypeId")]
    ids = dict(zip(kinds, (n.body.get("fromObjectId"), n.body.get("toObjectId")), strict=False))
    if ids.get("contact") and ids.get("deal") and not n.body.get("associationRemoved"):
        contact_id = str(ids["contact"])
        yield replace(_learned(contact_id, _known(n, contact_id, {})), keys=(f"deal:{ids['deal']}",),
                      like=(f"contact:{contact_id}",))  # fmt: skip


@provider.on("contact.privacyDeletion")
def contact_forgotten(n: Notification) -> Iterator[Forgotten]:
    yield Forgotten(keys=(f"contact:{_object_id(n.body)}",))


@provider.on("workflow.contact")
def contact(n: Notification) -> Iterator[Draft | Learned]:
    """The whole contact: that there is one, its stage if that has changed, and the last form that it sent."""
    contact_id, known = _object_id(n.body), _properties(n.body)
    who = _who(contact_id, known)
    yield _learned(contact_id, known)
    created_ms = _ms(known["createdate"]) if "createdate" in known else _said_ms(n)
    properties = {"contact_id": contact_id, "original_source": known.get("hs_analytics_source")}
    yield conversion("lead_created", once=f"lead:{contact_id}", at_ms=created_ms, properties=properties, **who)
    changed_ms = _since(n.body, "lifecyclestage")
    if changed_ms is not None and changed_ms > created_ms and "lifecyclestage" in known:
        yield _stage(contact_id, known["lifecyclestage"], changed_ms, known)
    forms = [form for form in n.body.get("form-submissions") or () if form.get("conversion-id")]
    if forms:
        last = max(forms, key=lambda form: _ms(form["timestamp"]))
        properties = {"contact_id": contact_id, "form_id": last.get("form-id"), "form": last.get("title")}
        once, at_ms, url = f"form:{last['conversion-id']}", _ms(last["timestamp"]), last.get("page-url")
        yield conversion("form_submitted", once=once, at_ms=at_ms, url=url, properties=properties, **who)


# --- deals ------------------------------------------------------------------------------------------------------------


def _state(deal: Json) -> str | None:
    """Stages of HubSpot's own have names; of all others only the flags say what they mean."""
    is_closed, is_won, is_lost = (
        str(deal.get(flag)).lower() for flag in ("hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost")
    )
    if deal.get("dealstage") == "closedwon" or is_won == "true":
        return "won"
    is_known_lost = is_lost == "true" or (is_closed == "true" and is_won == "false")
    return "lost" if is_known_lost or deal.get("dealstage") == "closedlost" else None


def _worth(n: Notification, deal: Json) -> dict[str, Any]:
    """Without a currency of its own a deal is in the account's, which only the API tells."""
    if not deal.get("amount"):
        return {}
    currency = deal.get("deal_currency_code") or (n.look_up(ACCOUNT) or {}).get("companyCurrency")
    return {"revenue": from_major(deal["amount"]), "currency": currency or HOME}


def _person(n: Notification, deal: Json, asked: Any) -> dict[str, Any]:
    """Who the deal is with, where it is with one contact only."""
    contacts = (((asked or {}).get("associations") or {}).get("contacts") or {}).get("results") or ()
    ids = sorted({str(found["id"]) for found in contacts})
    only = ids[0] if len(ids) == 1 else None
    known = _known(n, only, {}) if only else {}
    email = deal.get("email") or known.get("email")
    return {
        "person": Person(email=email, customer_id=only),
        "metadata": {**known, **deal},
        "waits": email is None,
    }


def _told(n: Notification, deal_id: str, deal: Json, *, state: str | None, at_ms: int, asked: Any) -> Draft:
    """What has become of a deal. Won, and its amount not told, it waits for a workflow that tells it."""
    is_whole = asked is not None or n.type == "workflow.deal"
    deal, worth = {**_asked(asked), **deal}, _worth(n, {**_asked(asked), **deal})
    properties = {"deal_id": deal_id, "pipeline": deal.get("pipeline"), "to_stage": deal.get("dealstage")}
    about = {"at_ms": at_ms, "joins": (f"deal:{deal_id}",), **worth, **_person(n, deal, asked)}
    if state == "won":
        if not is_whole and not worth:
            about |= {"joins": (f"amount:{deal_id}", f"deal:{deal_id}"), "waits": True, "unless": ("told",)}
        properties = {"order_id": deal_id, **properties}
        return conversion("deal_won", once=f"deal_won:{deal_id}", properties=properties, **about)
    once = f"deal_stage:{deal_id}:{at_ms}" if state is None else f"deal_{state}:{deal_id}"
    name = "deal_stage_changed" if state is None else f"deal_{state}"
    return event(name, once=once, properties=properties, **about)


@provider.on("deal.creation")
def deal_created(n: Notification) -> Iterator[Draft]:
    deal_id, told = _object_id(n.body), n.body.get("beside") or {}
    yield _told(n, deal_id, told, state="created", at_ms=n.body["occurredAt"], asked=n.look_up(DEAL, deal_id))


@provider.on("deal.propertyChange")
def deal_changed(n: Notification) -> Iterator[Draft]:
    """Its stage, by name where it is one of HubSpot's own, or `hs_is_closed_won`, which holds for every pipeline."""
    deal_id, name, value = _object_id(n.body), n.body.get("propertyName"), n.body.get("propertyValue")
    if name not in ("dealstage", "hs_is_closed_won", "hs_is_closed_lost") or not value:
        return
    deal = {**(n.body.get("beside") or {}), name: value}
    asked = n.look_up(DEAL, deal_id)
    now = _asked(asked)
    is_still = name != "dealstage" or now.get("dealstage") == value
    state = _state({**now, **deal}) if is_still else _state(deal)
    if name == "dealstage" or state is not None:
        yield _told(n, deal_id, deal, state=state, at_ms=n.body["occurredAt"], asked=asked)


@provider.on("workflow.deal")
def deal(n: Notification) -> Iterator[Draft | Learned]:
    """The whole deal, as it stands: won, lost, new, or in another stage than before."""
    deal_id, told, staged_ms = _object_id(n.body), _properties(n.body), _since(n.body, "dealstage")
    state = _state(told)
    if state is None and staged_ms is not None and "createdate" in told and staged_ms == _ms(told["createdate"]):
        state = "created"
    at_ms = _said_ms(n) if staged_ms is None else staged_ms
    if state == "won" and told.get("amount"):
        yield Learned(keys=(f"amount:{deal_id}",), marks=("told",))
    yield _told(n, deal_id, told, state=state, at_ms=at_ms, asked=n.look_up(DEAL, deal_id))


# --- tickets ----------------------------------------------------------------------------------------------------------


@provider.on("ticket.creation", "workflow.ticket")
def ticket(n: Notification) -> Iterator[Draft]:
    ticket_id, told = _object_id(n.body), n.body.get("beside") or _properties(n.body)
    created = n.body.get("occurredAt") or told.get("createdate")
    properties = {"ticket_id": ticket_id, "pipeline": told.get("hs_pipeline")}
    at_ms = _said_ms(n) if created is None else _ms(created)
    yield event("support_ticket_created", once=f"ticket:{ticket_id}", at_ms=at_ms, properties=properties)
