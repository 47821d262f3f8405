"""Pipedrive. https://pipedrive.readme.io/docs/guide-for-webhooks-v2 (v2, and v1; read 2026-11-23).

In: a person, a lead or a deal as it is now, and what of it has changed. Out: leads, and the steps of a deal with its
amount. A deal names its person by an id only: with an API key Pipedrive is asked who that is, without one it waits for
whoever is behind the id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    UnmappableError,
    composed,
    conversion,
    event,
    field,
    header_key,
)
from relay.money import from_major
from relay.signatures import basic_auth

Json = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _either(*readers: str) -> Any:
    """The first of some fields that is there: v2 and v1 have different names for the same."""
    fields = [field(path) for path in readers]
    return lambda item: next((found for read in fields if (found := read(item))), None)


_action, _entity = field("meta.action"), _either("meta.entity", "meta.object")
_composed = composed(
    _either("meta.webhook_id", "meta.host"),
    _entity,
    _either("meta.entity_id", "meta.id"),
    _action,
    _either("meta.timestamp_micro", "meta.timestamp"),
)


def _id(item: Item) -> str | None:
    """That of v2. In v1 `meta.id` is the id of the object, and nothing is the id of what was said."""
    said, of_object = field("meta.id")(item), _either("meta.entity_id", "data.id", "current.id")(item)
    return said if said != of_object and field("meta.entity")(item) else _composed(item)


provider = Provider(
    name="pipedrive",
    title="Pipedrive",
    docs="https://pipedrive.readme.io/docs/guide-for-webhooks-v2",
    verifier=basic_auth(),
    notification_id=_id,
    notification_type=composed(_action, _entity, separator="."),
    account=field("meta.company_id"),
    secret=SecretShape(
        meaning="The user and the password that you gave the webhook (Pipedrive > Tools and apps > Webhooks), with a "
        "colon between them"
    ),
    api=Api(base="https://api.pipedrive.com", auth=header_key("x-api-token")),
    api_key=SecretShape(meaning="Pipedrive > Personal preferences > API: the token"),
)

_OTHERS = """
activity activityType board deal_installment deal_product file filter note organization phase pipeline product project
stage task user
"""
_ACTIONS = "create change delete added updated deleted merged"
provider.ignores(
    *(f"{action}.{entity}" for entity in _OTHERS.split() for action in _ACTIONS.split()),
    *("change.lead", "delete.lead", "deleted.person", "delete.deal", "deleted.deal", "merged.deal"),
)


# --- reading ----------------------------------------------------------------------------------------------------------


def _now(n: Notification) -> Json:
    """The object. Raises `UnmappableError` where it has no id."""
    found: Json = n.body.get("data") or n.body.get("current") or {}
    if not found.get("id"):
        msg = "the object has no id"
        raise UnmappableError(msg)
    return found


def _changed(n: Notification, name: str) -> bool:
    """Whether this notification tells a change of the field: v2 says what changed only, v1 says all of before."""
    before = n.body.get("previous") or {}
    return name in before and before[name] != _now(n).get(name)


#: No time in seconds is beyond this, and no time in milliseconds before it.
IN_SECONDS = 100_000_000_000


def _ms(moment: Any) -> int:
    """`2026-11-20T10:15:30.123Z`, `2026-11-20 10:15:30` in UTC, or seconds or milliseconds since 1970."""
    if isinstance(moment, (int, float)):
        return int(moment if moment > IN_SECONDS else moment * 1000)
    at = datetime.fromisoformat(moment)
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _said_ms(n: Notification) -> int:
    micro = n.body["meta"].get("timestamp_micro")
    return int(micro) // 1000 if micro else _ms(n.body["meta"]["timestamp"])


def _related(value: Any) -> str | None:
    """The id of a related object, which some versions wrap."""
    found = value.get("value") if isinstance(value, dict) else value
    return None if found is None else str(found)


def _email(person: Json) -> str | None:
    """The primary one of `emails` (v2) or `email` (v1), or the first; v1 may have a text."""
    given = person.get("emails") or person.get("email") or person.get("primary_email") or ()
    found = [given] if isinstance(given, (str, dict)) else list(given)
    entries = [one if isinstance(one, dict) else {"value": one} for one in found]
    return next((one["value"] for one in sorted(entries, key=_is_second) if one.get("value")), None)


def _is_second(entry: Json) -> bool:
    return not entry.get("primary")


_HASH_LENGTH = 40


def _metadata(o: Json) -> dict[str, Any]:
    """The custom fields, whose names are 40 hexadecimal digits; in v1 they stand among the others."""
    fields = o["custom_fields"] if isinstance(o.get("custom_fields"), dict) else o
    named = {name: value for name, value in fields.items() if len(name) == _HASH_LENGTH}
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in named.items() if value}


# --- persons and leads ------------------------------------------------------------------------------------------------


@provider.on("create.person", "added.person", "change.person", "updated.person", "merged.person")
def person(n: Notification) -> Iterator[Draft | Learned]:
    """Who stands behind the id; a new one is a lead."""
    o = _now(n)
    who: dict[str, Any] = {"person": Person(email=_email(o), customer_id=str(o["id"])), "metadata": _metadata(o)}
    yield Learned(keys=(f"person:{o['id']}",), **who)
    if n.type in ("create.person", "added.person"):
        at_ms = _ms(o["add_time"]) if o.get("add_time") else _said_ms(n)
        yield conversion("lead_created", once=f"lead:person:{o['id']}", at_ms=at_ms, properties=_about(n), **who)


@provider.on("delete.person")
def deleted(n: Notification) -> Iterator[Learned]:
    """Where it was merged into another, they are one from now on."""
    merged_to = n.body["meta"].get("merged_to_id")
    if merged_to:
        yield Learned(keys=(f"person:{n.body['meta']['entity_id']}", f"person:{merged_to}"), same=True)


def _who(n: Notification) -> dict[str, Any]:
    """For a draft: the person that a deal or a lead names."""
    person_id = _related(_now(n).get("person_id"))
    if person_id is None:
        return {"metadata": _metadata(_now(n))}
    asked = (n.look_up("/api/v2/persons/{}", person_id) or {}).get("data") or {}
    email = _email(asked)
    return {
        "person": Person(email=email, customer_id=person_id),
        "joins": (f"person:{person_id}",),
        "waits": email is None,
        "metadata": {**_metadata(asked), **_metadata(_now(n))},
    }


def _about(n: Notification, **more: Any) -> dict[str, Any]:
    return {**more, "origin": _now(n).get("origin"), "change_source": n.body["meta"].get("change_source")}


@provider.on("create.lead")
def lead(n: Notification) -> Iterator[Draft]:
    """A person and the lead that was made with them are one: whichever is told first."""
    o = _now(n)
    person_id, value = _related(o.get("person_id")), o.get("value") or {}
    properties = _about(n, lead_id=str(o["id"]), channel=o.get("channel"), **_worth(value.get("amount"), value))
    yield conversion(
        "lead_created",
        once=(f"lead:{o['id']}", f"lead:person:{person_id}") if person_id else f"lead:{o['id']}",
        at_ms=_ms(o["add_time"]) if o.get("add_time") else _said_ms(n),
        properties=properties,
        **_who(n),
    )


# --- deals ------------------------------------------------------------------------------------------------------------


def _worth(amount: Any, o: Json) -> dict[str, Any]:
    """What it is hoped to bring: properties, never revenue."""
    return {"amount": from_major(amount), "currency": o["currency"].upper()} if amount and o.get("currency") else {}


def _deal(n: Notification, **more: Any) -> dict[str, Any]:
    o = _now(n)
    stages = {"pipeline": _related(o.get("pipeline_id")), "stage": _related(o.get("stage_id"))}
    return {"properties": {**more, "deal_id": str(o["id"]), **stages, **_about(n)}, **_who(n)}


@provider.on("create.deal", "added.deal", "change.deal", "updated.deal")
def deal(n: Notification) -> Iterator[Draft]:
    """New, moved, won or lost; one that is opened and won again was won once."""
    o, is_new = _now(n), n.type in ("create.deal", "added.deal")
    deal_id, status = str(o["id"]), o.get("status")
    hoped = _worth(o.get("value"), o)
    if is_new:
        at_ms = _ms(o["add_time"]) if o.get("add_time") else _said_ms(n)
        yield event("deal_created", once=f"deal_created:{deal_id}", at_ms=at_ms, **_deal(n, **hoped))
    elif _changed(n, "stage_id"):
        once, at_ms = f"deal_stage:{deal_id}:{_said_ms(n)}", _said_ms(n)
        stages = {"from_stage": _related(n.body["previous"]["stage_id"]), "to_stage": _related(o.get("stage_id"))}
        yield event("deal_stage_changed", once=once, at_ms=at_ms, **_deal(n, **stages, **hoped))
    if status == "won" and (is_new or _changed(n, "status")):
        at_ms = _ms(o["won_time"]) if o.get("won_time") else _said_ms(n)
        yield conversion(
            "deal_won",
            once=f"deal_won:{deal_id}",
            at_ms=at_ms,
            revenue=hoped.get("amount"),
            currency=hoped.get("currency"),
            **_deal(n, order_id=deal_id),
        )
    if status == "lost" and (is_new or _changed(n, "status")):
        at_ms = _ms(o["lost_time"]) if o.get("lost_time") else _said_ms(n)
        yield event("deal_lost", once=f"deal_lost:{deal_id}", at_ms=at_ms, **_deal(n, **hoped))
