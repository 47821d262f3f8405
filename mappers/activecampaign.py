"""ActiveCampaign. https://developers.activecampaign.com/page/webhooks (API v3, read 2026-11-23).

In: forms about one contact, with an e-mail's campaign or a deal where there is one. Out: new contacts, subscriptions,
clicks and bounces; deals, and what a won one is worth. Nothing is signed, and nothing is sent a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
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
from relay.signatures import query_token


def _parse(body: bytes) -> Mapping[str, str]:
    """Flat, under names such as `contact[email]`."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


provider = Provider(
    name="activecampaign",
    title="ActiveCampaign",
    docs="https://developers.activecampaign.com/page/webhooks",
    verifier=query_token("token"),
    notification_type=field("type"),
    parse=_parse,
    secret=SecretShape(meaning="A long random text of your own, at the end of the webhook's URL: ?token=<text>"),
    options={
        "sent": "An event for every e-mail that is sent.",
        "opened": "An event for every e-mail that is opened.",
    },
)

#: Tags, notes, tasks and lists, other channels, and what people do with an e-mail beside clicking.
SILENT = """
account_add account_update contact_tag_added contact_tag_removed deal_note_add deal_pipeline_add deal_stage_add
deal_task_add deal_task_complete deal_tasktype_add forward list_add reply share sms_reply sms_sent sms_unsub
subscriber_note
"""
provider.ignores(*SILENT.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CAMPAIGN = frozenset(
    ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")
)
_FIELD = "contact[fields]["


def _at_ms(n: Notification) -> int:
    """Old accounts leave out the offset."""
    said = datetime.fromisoformat(n.body["date_time"])
    return (said.replace(tzinfo=said.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _about(n: Notification) -> dict[str, Any]:
    """Who it was, and what the contact's own fields say of where from."""
    body = n.body
    contact_id = body.get("contact[id]") or body.get("deal[contactid]") or None
    named = {key.removeprefix(_FIELD).rstrip("]"): text for key, text in body.items() if key.startswith(_FIELD)}
    return {
        "person": Person(
            email=body.get("contact[email]") or body.get("deal[contact_email]") or None, customer_id=contact_id
        ),
        "metadata": {key: text for key, text in named.items() if text},
    }


def _joins(n: Notification) -> tuple[str, ...]:
    contact_id = _about(n)["person"].customer_id
    return (f"contact:{contact_id}",) if contact_id else ()


def _learned(n: Notification) -> Iterator[Learned]:
    if keys := _joins(n):
        yield Learned(keys=keys, **_about(n))


def _given(text: str | None) -> str | None:
    """ActiveCampaign writes nothing and 0 for nothing."""
    return text if text and text != "0" else None


def _properties(n: Notification) -> dict[str, Any]:
    body = n.body
    return {
        "contact_id": body.get("contact[id]"),
        "list_id": _given(body.get("list")),
        "campaign_id": _given(body.get("campaign[id]")),
        "message_id": _given(body.get("message[id]")),
        "initiated_by": body.get("initiated_by") or body.get("initiated_from") or None,
    }


# --- contacts and e-mails ---------------------------------------------------------------------------------------------


@provider.on("subscribe")
def subscribed(n: Notification) -> Iterator[Draft | Learned]:
    """On a list, or (list 0) new in the account."""
    yield from _learned(n)
    about: dict[str, Any] = {"at_ms": _at_ms(n), "properties": _properties(n), **_about(n)}
    if _given(n.body.get("list")):
        yield conversion("newsletter_subscribed", once=f"event:{n.id}", **about)
    else:
        yield conversion("lead_created", once=f"contact:{n.body['contact[id]']}", **about)


@provider.on("update")
def contact_updated(n: Notification) -> Iterator[Learned]:
    yield from _learned(n)


def _clicked(link: str | None) -> dict[str, Any]:
    """The page with what names the campaign; anything else in the query may be a token."""
    page, _, query = (link or "").partition("#")[0].partition("?")
    told = {key: text for key, text in parse_qsl(query) if key in CAMPAIGN}
    return {"url": f"{page}?{urlencode(told)}" if told else page or None, "metadata": told}


EMAILS = {
    "sent": "email_sent",
    "open": "email_opened",
    "click": "email_clicked",
    "bounce": "email_bounced",
    "unsubscribe": "email_unsubscribed",
}


@provider.on("click", "bounce", "unsubscribe")
@provider.on("sent", option="sent")
@provider.on("open", option="opened")
def email(n: Notification) -> Iterator[Draft]:
    about, properties = _about(n), _properties(n)
    if n.type == "click":
        clicked = _clicked(n.body.get("link[url]"))
        about |= {"url": clicked["url"], "metadata": {**about["metadata"], **clicked["metadata"]}}
    if n.type == "bounce":
        properties["bounce_type"] = n.body.get("bounce[type]") or None
    yield event(EMAILS[n.type], once=f"event:{n.id}", at_ms=_at_ms(n), properties=properties, **about)


# --- deals ------------------------------------------------------------------------------------------------------------

#: By `deal[status]`.
WON, LOST = "1", "2"


def _worth(n: Notification) -> tuple[Decimal, str]:
    """`deal[value]` is written for people; `deal[value_raw]` is the same without commas, on some accounts in cents."""
    shown, raw, currency = n.body["deal[value]"], n.body.get("deal[value_raw]"), n.body["deal[currency]"]
    amount = from_major(shown.replace(",", "") or "0")
    if raw and from_major(raw) not in (amount, amount * 100):
        msg = f"deal[value] {shown!r} and deal[value_raw] {raw!r} do not agree"
        raise UnmappableError(msg)
    if amount and not currency:
        msg = "an amount without a currency"
        raise UnmappableError(msg)
    return amount, currency.upper()


@provider.on("deal_add", "deal_update")
def deal(n: Notification) -> Iterator[Draft]:
    """What an update changed it names; where it does not, a deal that is won counts once all the same."""
    body, deal_id, at_ms = n.body, n.body["deal[id]"], _at_ms(n)
    changed = {text for key, text in body.items() if key.startswith("updated_fields")}
    stage = body.get("deal[stage_title]") or body.get("deal[stageid]") or None
    about: dict[str, Any] = {"at_ms": at_ms, "joins": _joins(n), **_about(n)}
    properties = {"deal_id": deal_id, "stage": stage, "pipeline_id": _given(body.get("deal[pipelineid]"))}
    amount, currency = _worth(n)
    worth = {"amount": amount, "currency": currency} if amount else {}
    if n.type == "deal_add":
        yield event("deal_created", once=f"deal_created:{deal_id}", properties={**properties, **worth}, **about)
    elif "stage" in changed:
        once = f"deal_stage:{deal_id}:{body.get('deal[stageid]')}:{at_ms}"
        properties_of_stage = {"deal_id": deal_id, "to_stage": stage, "pipeline_id": properties["pipeline_id"]}
        yield event("deal_stage_changed", once=once, properties=properties_of_stage, **about)
    if n.type == "deal_update" and changed and "status" not in changed:
        return
    if body.get("deal[status]") == WON:
        money: dict[str, Any] = {"revenue": amount, "currency": currency} if amount else {}
        won = {"order_id": deal_id, **properties}
        yield conversion("deal_won", once=f"deal_won:{deal_id}", properties=won, **money, **about)
    if body.get("deal[status]") == LOST:
        once = f"deal_lost:{deal_id}"
        yield event("deal_lost", once=once, properties={**properties, **worth}, **about)
