"""Mailgun. https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads (read 2026-11-23).

In: one event a delivery, about one recipient: JSON, or the form that it was until 2018. Out: an event for it. The
signature proves its own token and time and nothing else, so the token is the notification's id: whoever copies it to
another event repeats an old notification. What one event is, is told by its own id and time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from email.utils import getaddresses
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import Draft, Notification, Person, Provider, SecretShape, event, field, parse_json
from relay.signatures import mailgun_signature, with_basic_auth

Json = Mapping[str, Any]

#: What was called otherwise.
FORM_EVENTS = {"bounced": "failed", "dropped": "rejected"}

#: More fields than a form of Mailgun's has.
MOST_FIELDS = 1000

#: Mailgun's own fields in the form: what is left are the user's variables.
FORM = """
event recipient domain ip country region city user-agent device-type client-type client-name client-os campaign-id
campaign-name tag X-Mailgun-Tag mailing-list timestamp token signature url code error notification reason description
message-headers message-id Message-Id X-Mailgun-Sid attachment-count body-plain h
"""
FORM_FIELDS = frozenset(FORM.split())


def _parsed(body: bytes) -> Any:
    return parse_json(body) if body.lstrip()[:1] == b"{" else _of_form(body.decode())


def _of_form(text: str) -> Json:
    """The old form in the shape of today.

    Variables of the user's are fields among Mailgun's own. Where both have one name, Mailgun's value comes first, but
    of the signature's three fields, where it comes last.
    """
    fields = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    first, last = dict(reversed(fields)), dict(fields)
    return {
        "signature": {name: last.get(name) for name in ("timestamp", "token", "signature")},
        "event-data": {
            "event": FORM_EVENTS.get(first.get("event", ""), first.get("event")),
            "severity": "permanent" if first.get("event") == "bounced" else None,
            "timestamp": last.get("timestamp"),
            "recipient": first.get("recipient"),
            "url": first.get("url"),
            "reason": first.get("reason"),
            "tags": [value for name, value in fields if name in ("tag", "X-Mailgun-Tag")],
            "campaigns": [{"id": first["campaign-id"]}] if first.get("campaign-id") else [],
            "message": {"headers": {"message-id": first.get("Message-Id") or first.get("message-id")}},
            "delivery-status": {"code": first.get("code")},
            "geolocation": {"country": first.get("country")},
            "user-variables": {name: value for name, value in last.items() if name not in FORM_FIELDS},
        },
    }


TEST_MODE = field("event-data.flags.is-test-mode")

provider = Provider(
    name="mailgun",
    title="Mailgun",
    docs="https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks",
    verifier=with_basic_auth(mailgun_signature()),
    parse=_parsed,
    notification_id=field("signature.token"),
    notification_type=field("event-data.event"),
    is_test=lambda item: TEST_MODE(item) == "True",
    secret=SecretShape(
        meaning="Mailgun > Send > Sending > Webhooks > HTTP webhook signing key; or key:user:password, with the user "
        "and the password in the webhook's URL",
        mistaken={"key-": "an API key"},
    ),
    options={
        "sent": "An event for every message that Mailgun took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
provider.ignores("stored", "list_member_uploaded", "list_member_upload_error", "list_uploaded")

#: What each event is, and the option that it asks for. `failed` is two things, by its severity.
EVENTS = {
    "accepted": ("email_sent", "sent"),
    "delivered": ("email_delivered", "delivered"),
    "opened": ("email_opened", "opened"),
    "clicked": ("email_clicked", None),
    "failed": ("email_bounced", None),
    "rejected": ("email_dropped", None),
    "complained": ("email_complained", None),
    "unsubscribed": ("email_unsubscribed", None),
}

#: What of a clicked link's query may leave, and of the variables where nobody is named; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


def _addressees(o: Json) -> list[str]:
    """To whom it says it is; openings and clicks do not tell."""
    headers = (o.get("message") or {}).get("headers") or {}
    return [address for _, address in getaddresses([str(headers.get("to") or "")]) if address]


def _properties(o: Json) -> dict[str, Any]:
    message_id = str(((o.get("message") or {}).get("headers") or {}).get("message-id") or "")
    campaigns, reason = o.get("campaigns") or [{}], o.get("reason")
    client, status = o.get("client-info") or {}, o.get("delivery-status") or {}
    country = (o.get("geolocation") or {}).get("country")
    machine = {"opened": "machine_open", "clicked": "machine_click"}.get(o["event"])
    return {
        "message_id": message_id.strip("<>").partition("@")[0] or None,
        "tags": ", ".join(map(str, o.get("tags") or [])) or None,
        "campaign_id": campaigns[0].get("id"),
        "severity": o.get("severity"),
        "reason": reason if isinstance(reason, str) and " " not in reason else None,
        "bounce_type": status.get("bounce-type"),
        "status": str(status["code"]) if status.get("code") else None,
        "country": country if country != "Unknown" else None,
        **({machine: True, "bot": client["bot"]} if machine and client.get("bot") else {}),
    }


def told(n: Notification) -> Iterator[Draft]:
    o = n.body["event-data"]
    is_deferred = n.type == "failed" and o.get("severity") == "temporary"
    url, found = _landing(o.get("url") if n.type == "clicked" else None)
    addressees, variables = _addressees(o), o.get("user-variables") or {}
    if len(addressees) > 1:  # the variables are of the message, and say with it who none of its recipients is
        variables = {key: variables[key] for key in CAMPAIGN if key in variables}
    recipient = o.get("recipient") or (addressees[0] if len(addressees) == 1 else None)  # `rejected` has none
    yield event(
        "email_deferred" if is_deferred else EVENTS[n.type][0],
        once=f"event:{o['id']}:{o['timestamp']}" if o.get("id") else f"token:{n.id}",  # the id is unique within a day
        at_ms=int(Decimal(str(o["timestamp"])) * 1000),
        option="deferred" if is_deferred else None,
        person=Person(email=recipient),
        url=url,
        metadata={**found, **variables},
        properties=_properties(o),
    )


for _kind, (_, _option) in EVENTS.items():
    provider.on(_kind, option=_option)(told)
