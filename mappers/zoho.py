"""Zoho CRM. https://www.zoho.com/crm/developer/docs/api/v8/notifications/overview.html (read 2026-11-23).

In: notifications with the ids of records, and with the fields that changed where the channel asks for them. Out: new
leads and contacts, new deals, their stages, what a won one is worth. Deals name their contact by id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.contract import (
    Draft,
    Item,
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
from relay.signatures import field_token

Json = Mapping[str, Any]


def _items(body: Any) -> Sequence[Any]:
    """A record each, with its own part of what changed, and without the token."""
    values = {
        str(one.get("record_id")): one.get("values")
        for one in body.get("affected_values") or ()
        if isinstance(one, dict)
    }
    said = {name: body.get(name) for name in ("module", "operation", "channel_id", "server_time", "query_params")}
    return [{**said, "id": str(one), "values": values.get(str(one)) or {}} for one in body["ids"]]


def _type(item: Item) -> str | None:
    """`Deals.update`: the module and what was done."""
    return composed(field("module"), field("operation"), separator=".")(item)


provider = Provider(
    name="zoho",
    title="Zoho CRM",
    docs="https://www.zoho.com/crm/developer/docs/api/v8/notifications/overview.html",
    verifier=field_token("json:token"),
    notification_id=composed(field("id"), _type, field("server_time"), field("channel_id")),
    notification_type=_type,
    items=_items,
    secret=SecretShape(
        meaning="A random text of your own, at most 50 characters long: the token with which you enable notifications",
        mistaken={"1000.": "an OAuth token or client id"},
    ),
)
provider.ignores(
    *(f"{module}.{what}" for module in ("Accounts", "Campaigns", "Tasks") for what in ("insert", "update", "delete")),
    *(f"{module}.delete" for module in ("Contacts", "Deals", "Leads")),
)

#: The entity that a record of the module is.
ENTITIES = {"Leads": "lead", "Contacts": "contact"}


def _values(n: Notification) -> Json:
    values: Json = n.body["values"]
    return values


def _at_ms(n: Notification) -> int:
    return int(n.body["server_time"])


def _metadata(n: Notification) -> dict[str, Any]:
    """Fields of the account's own, which may say who it was and where from."""
    return {key: value for key, value in _values(n).items() if isinstance(value, (str, int))}


@provider.on("Leads.insert", "Leads.update", "Contacts.insert", "Contacts.update")
def person(n: Notification) -> Iterator[Draft | Learned]:
    module, record_id = n.body["module"], n.body["id"]
    who = Person(email=_values(n).get("Email") or None, customer_id=record_id)
    if who.email:
        yield Learned(keys=(f"{ENTITIES[module]}:{record_id}",), person=who, metadata=_metadata(n))
    if n.body["operation"] == "insert":
        yield conversion(
            "lead_created",
            once=f"{ENTITIES[module]}_created:{record_id}",
            at_ms=_at_ms(n),
            person=who,
            metadata=_metadata(n),
            properties={f"{ENTITIES[module]}_id": record_id},
        )


# --- deals ------------------------------------------------------------------------------------------------------------


def _about(n: Notification) -> dict[str, Any]:
    contact = _values(n).get("Contact_Name")
    contact_id = str(contact["id"]) if isinstance(contact, dict) and contact.get("id") else None
    return {
        "at_ms": _at_ms(n),
        "person": Person(customer_id=contact_id),
        "joins": (f"contact:{contact_id}",) if contact_id else (),
        "waits": contact_id is not None,
        "metadata": _metadata(n),
    }


def _worth(n: Notification) -> dict[str, Any]:
    """Organisations with one currency have no field for it: they name it in the notify URL, which Zoho repeats."""
    amount = _values(n).get("Amount")
    currency = _values(n).get("Currency") or (n.body.get("query_params") or {}).get("currency")
    if not amount:
        return {}
    worth = from_major(amount)
    return {"amount": worth, "currency": currency} if currency else {"amount_in_home_currency": worth}


@provider.on("Deals.insert", "Deals.update")
def deal(n: Notification) -> Iterator[Draft]:
    deal_id, stage, worth, about = n.body["id"], _values(n).get("Stage"), _worth(n), _about(n)
    properties: dict[str, Any] = {"deal_id": deal_id, "stage": stage}
    if n.body["operation"] == "insert":
        yield event("deal_created", once=f"deal_created:{deal_id}", properties={**properties, **worth}, **about)
    ends = " ".join(str(stage or "").lower().replace("-", " ").split()[:2])
    if ends == "closed won":
        money = {"revenue": worth.pop("amount"), "currency": worth.pop("currency")} if "amount" in worth else {}
        yield conversion(
            "deal_won",
            once=f"deal_won:{deal_id}",
            properties={"order_id": deal_id, **properties, **worth},
            **money,
            **about,
        )
    elif ends == "closed lost":
        once = f"deal_lost:{deal_id}"
        yield event("deal_lost", once=once, properties={**properties, **worth}, **about)
    elif stage and n.body["operation"] == "update":
        once = f"deal_stage:{deal_id}:{stage}:{_at_ms(n)}"
        yield event("deal_stage_changed", once=once, properties={"deal_id": deal_id, "to_stage": stage}, **about)
