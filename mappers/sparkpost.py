"""SparkPost. https://developers.sparkpost.com/api/webhooks/ (read 2026-11-23).

In: arrays of events, wrapped by class, each about one recipient. Out: an event for each. An id is unique within a type:
the samples of SparkPost's have one in common. What mail servers say (`reason`, `raw_reason`) quotes addresses and is
left alone. The first opening is told twice, by a picture at the top and by one at the end of the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import MIB, Draft, Item, Notification, Person, Provider, SecretShape, event
from relay.signatures import basic_auth, either, header_token

Json = Mapping[str, Any]


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _items(body: Any) -> Sequence[Any]:
    """Without those that say nothing: SparkPost's checks are made of one."""
    items = body if isinstance(body, list) else [body]
    return [item for item in items if _object(item).get("msys") != {}]


def _event(body: Any) -> Json:
    ((name, found),) = body["msys"].items()
    return {"type": name} if name == "relay_message" else found


def _kind(item: Item) -> str | None:
    return _event(item.body).get("type")


def _id(item: Item) -> str | None:
    found = _event(item.body)
    return f"{found.get('type')}:{found['event_id']}" if found.get("event_id") else None


provider = Provider(
    name="sparkpost",
    title="SparkPost",
    docs="https://developers.sparkpost.com/api/webhooks/",
    verifier=either(basic_auth(), header_token("X-MessageSystems-Webhook-Token")),
    notification_id=_id,
    notification_type=_kind,
    items=_items,
    body_limit=8 * MIB,
    secret=SecretShape(
        meaning="user:password, as you typed it in at SparkPost > Webhooks > your webhook > Authentication > Basic "
        "Auth; or the token of an old webhook"
    ),
    options={
        "sent": "An event for every message that SparkPost took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "first_opened": "An event for the first opening of a message (Initial Open), instead of every one.",
        "deferred": "An event for every delivery that was put off.",
    },
)
#: Mail that comes in, tests of variants, the import of events, and other channels.
SILENT = """
relay_message relay_injection relay_rejection relay_delivery relay_tempfail relay_permfail ab_test_completed
ab_test_cancelled success error sms_status
"""
provider.ignores(*SILENT.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What of a clicked link's query may leave; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _at_ms(moment: object) -> int:
    """Unix seconds, as text; some say it in ISO 8601. 0 where it does not say."""
    text = str(moment or 0)
    if text.isdecimal():
        return int(text) * 1000
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


#: The type of a bounce and its class in words, by its number.
#: https://support.sparkpost.com/docs/deliverability/bounce-classification-codes
CLASSES = {
    "1": ("undetermined", "undetermined"),
    "10": ("hard", "invalid_recipient"),
    "20": ("soft", "soft_bounce"),
    "21": ("soft", "dns_failure"),
    "22": ("soft", "mailbox_full"),
    "23": ("soft", "too_large"),
    "24": ("soft", "timeout"),
    "25": ("admin", "admin_failure"),
    "30": ("hard", "no_recipient"),
    "40": ("soft", "generic_bounce"),
    "50": ("blocked", "mail_block"),
    "51": ("blocked", "spam_block"),
    "52": ("blocked", "spam_content"),
    "53": ("blocked", "prohibited_attachment"),
    "54": ("blocked", "relaying_denied"),
    "60": ("soft", "auto_reply"),
    "70": ("soft", "transient_failure"),
    "80": ("admin", "subscribe"),
    "90": ("hard", "unsubscribe"),
    "100": ("soft", "challenge_response"),
}
#: What a bounce is that is none. None: an answer of a machine, which says nothing of the message's fate.
NO_BOUNCES: Mapping[str, str | None] = {"60": None, "80": None, "90": "email_unsubscribed", "100": None}


def _about(n: Notification, link: object = None, **properties: Any) -> dict[str, Any]:
    o = _event(n.body)
    url, told = _landing(link)
    tags = o.get("rcpt_tags")
    return {
        "once": f"event:{n.id}",
        "at_ms": _at_ms(o.get("timestamp")),
        "person": Person(email=o.get("rcpt_to") or o.get("raw_rcpt_to")),
        "url": url,
        "metadata": {**told, **_object(o.get("rcpt_meta"))},
        "properties": {
            "message_id": o.get("message_id"),
            "transmission_id": o.get("transmission_id"),
            "campaign_id": o.get("campaign_id") or None,
            "template_id": o.get("template_id") or None,
            "tags": ", ".join(map(str, tags)) or None if isinstance(tags, list) else None,
            "country": _object(o.get("geo_ip")).get("country") or None,
            **properties,
        },
    }


def _failure(o: Json) -> dict[str, Any]:
    """Why it did not arrive, as far as it is told in codes."""
    bounce_type, words = CLASSES.get(str(o.get("bounce_class")), (None, None))
    return {
        "bounce_type": bounce_type,
        "bounce_classification": words,
        "status": str(o.get("error_code") or "") or None,
    }


# --- what became of it ------------------------------------------------------------------------------------------------


@provider.on("injection", option="sent")
def sent(n: Notification) -> Iterator[Draft]:
    yield event("email_sent", **_about(n))


@provider.on("delivery", option="delivered")
def delivered(n: Notification) -> Iterator[Draft]:
    yield event("email_delivered", **_about(n))


@provider.on("delay", option="deferred")
def deferred(n: Notification) -> Iterator[Draft]:
    o = _event(n.body)
    attempt = int(o["num_retries"]) if str(o.get("num_retries")).isdecimal() else None
    yield event("email_deferred", **_about(n, attempt=attempt, **{**_failure(o), "bounce_type": None}))


@provider.on("bounce", "out_of_band")
def bounced(n: Notification) -> Iterator[Draft]:
    """As an answer of the mail server, or later as a mail."""
    o = _event(n.body)
    name = NO_BOUNCES.get(str(o.get("bounce_class")), "email_bounced")
    if name:
        yield event(name, **_about(n, **(_failure(o) if name == "email_bounced" else {})))


@provider.on("policy_rejection", "generation_failure", "generation_rejection")
def dropped(n: Notification) -> Iterator[Draft]:
    yield event("email_dropped", **_about(n, reason=n.type, status=_failure(_event(n.body))["status"]))


# --- what its reader did ----------------------------------------------------------------------------------------------


def _is_machine(o: Json) -> bool | None:
    """Loaded ahead by a mail program. A proxy that loads when somebody reads (`is_proxy`) is none."""
    return True if _object(o.get("user_agent_parsed")).get("is_prefetched") is True else None


@provider.on("open", "amp_open", option="opened")
def opened(n: Notification) -> Iterator[Draft]:
    yield event("email_opened", **_about(n, machine_open=_is_machine(_event(n.body))))


@provider.on("initial_open", "amp_initial_open", option="first_opened")
def first_opened(n: Notification) -> Iterator[Draft]:
    yield event("email_opened", **_about(n, first_open=True, machine_open=_is_machine(_event(n.body))))


@provider.on("click", "amp_click")
def clicked(n: Notification) -> Iterator[Draft]:
    yield event("email_clicked", **_about(n, _event(n.body).get("target_link_url")))


@provider.on("spam_complaint")
def complained(n: Notification) -> Iterator[Draft]:
    if _event(n.body).get("fbtype") != "not-spam":
        yield event("email_complained", **_about(n))


@provider.on("list_unsubscribe", "link_unsubscribe")
def unsubscribed(n: Notification) -> Iterator[Draft]:
    yield event("email_unsubscribed", **_about(n, origin=n.type.partition("_")[0]))
