"""Amazon SES through SNS. https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns.html, 2026-11-23.

In: envelopes of SNS with an event of SES in them as text, or (raw message delivery) the event alone; event publishing
and the older feedback notifications differ in the name of one field. Out: an event for each recipient that is named.
Who opened or clicked a message to several people is not said, nor who of several complained: then it is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relay.contract import (
    Api,
    Draft,
    Item,
    Notification,
    Person,
    Provider,
    SecretShape,
    UnmappableError,
    digest_of,
    event,
    field,
    header,
    parse_json,
)
from relay.signatures import sns_signature

Json = Mapping[str, Any]


def _opened(body: bytes) -> Any:
    """The envelope's own fields, with the event of SES under `event`; None there where the message is a sentence."""
    envelope = parse_json(body)
    if "Message" not in envelope:
        return {"event": envelope}
    message = str(envelope["Message"]).strip()
    return {**envelope, "event": parse_json(message.encode()) if message.startswith("{") else None}


KINDS = (field("event.eventType"), field("event.notificationType"))
SNS_KIND = field("Type")


def _kind(item: Item) -> str | None:
    """Of an event the word of SES; SNS has its own for all else."""
    return SNS_KIND(item) if item.body["event"] is None else KINDS[0](item) or KINDS[1](item)


#: The same in every attempt to deliver it; a raw message has it in a header only.
IN_BODY, IN_HEADER = field("MessageId"), header("x-amz-sns-message-id")

#: Where a subscription is confirmed, in the region of the topic.
CONFIRMATION = re.compile(
    r"https://sns\.[a-z]{2}(-[a-z]+){1,2}-[0-9]{1,2}\.amazonaws\.com(\.cn)?/\?Action=ConfirmSubscription"
    r"&TopicArn=arn:aws[a-z-]*:sns:[A-Za-z0-9:._-]{1,400}&Token=[A-Za-z0-9]{1,1000}"
)

provider = Provider(
    name="amazon_ses",
    title="Amazon SES",
    docs="https://docs.aws.amazon.com/ses/latest/dg/monitor-sending-activity-using-notifications-sns.html",
    verifier=sns_signature(),
    parse=_opened,
    notification_id=lambda item: IN_BODY(item) or IN_HEADER(item),
    notification_type=_kind,
    secret=SecretShape(
        meaning="The ARN of the SNS topic that SES publishes to; several with commas between them. Nothing that comes "
        "from another topic is taken. For raw message delivery user:password besides, as in the subscription's URL",
    ),
    api=Api(also=CONFIRMATION),
    options={
        "sent": "An event for every message that SES took over.",
        "delivered": "An event for every delivered message.",
        "opened": "An event for every opening, those of machines marked.",
        "deferred": "An event for every delivery that was put off.",
    },
)
#: Sentences to the administrator, the end of a subscription, mail that came in.
provider.ignores("Notification", "AmazonSnsSubscriptionSucceeded", "UnsubscribeConfirmation", "Received")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What of a clicked link's query may leave, and of the tags where nobody is named; other parameters may be tokens.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")

#: Apple's mail program loads every picture of every message, through a proxy that says no more than this.
APPLE_PROXY = "Mozilla/5.0"


def _at_ms(n: Notification, told: Json) -> int:
    """The time of the fact where it has one, else that of the message, else that at which SNS said it."""
    said = told.get("timestamp") or n.body["event"]["mail"].get("timestamp") or n.body["Timestamp"]
    return (datetime.fromisoformat(said) - EPOCH) // timedelta(milliseconds=1)


def _who(address: str | None) -> str:
    """A recipient, so that keys hold no address."""
    return digest_of(str(address or "").strip().lower())[7:23]


def _only(addresses: list[str]) -> str | None:
    return addresses[0] if len(addresses) == 1 else None


def _tags(mail: Json) -> dict[str, Any]:
    """The sender's own tags; each has a list of values."""
    tags = {key: values[0] for key, values in (mail.get("tags") or {}).items() if isinstance(values, list) and values}
    return {key: value for key, value in tags.items() if not key.startswith("ses:")}


def _about(n: Notification, told: Json, address: str | None, **properties: Any) -> dict[str, Any]:
    """Tags are of the message: one to several people says with them who none of them is."""
    mail = n.body["event"]["mail"]
    tags, is_one = _tags(mail), len(mail.get("destination") or []) <= 1
    configuration = (mail.get("tags") or {}).get("ses:configuration-set") or [None]
    return {
        "at_ms": _at_ms(n, told),
        "person": Person(email=address),
        "metadata": tags if is_one else {key: tags[key] for key in CAMPAIGN if key in tags},
        "properties": {"message_id": mail["messageId"], "configuration_set": configuration[0], **properties},
    }


@provider.on("SubscriptionConfirmation")
def confirmed(n: Notification) -> tuple[Draft, ...]:
    """The relay calls the address that SNS names; from then on the topic's messages come. The envelope is signed."""
    url = str(n.body["SubscribeURL"])
    if not CONFIRMATION.fullmatch(url):
        msg = "the subscription is to be confirmed at a place that is not Amazon's"
        raise UnmappableError(msg)
    n.ask(url)
    return ()


#: The types of a bounce, in the words of all providers.
BOUNCES = {"Permanent": "hard", "Transient": "soft"}


@provider.on("Bounce")
def bounced(n: Notification) -> Iterator[Draft]:
    told, message_id = n.body["event"]["bounce"], n.body["event"]["mail"]["messageId"]
    kind = told.get("bounceType")
    for each in told["bouncedRecipients"]:
        address = each["emailAddress"]
        about = _about(
            n,
            told,
            address,
            bounce_type=BOUNCES.get(str(kind), kind),
            bounce_subtype=told.get("bounceSubType"),
            status=each.get("status"),
        )
        yield event("email_bounced", once=f"bounce:{told.get('feedbackId') or message_id}:{_who(address)}", **about)


@provider.on("Complaint")
def complained(n: Notification) -> Iterator[Draft]:
    """One complaint, by one of those who are listed. Of a message that SES held back, nobody has complained again."""
    told, message_id = n.body["event"]["complaint"], n.body["event"]["mail"]["messageId"]
    address = _only([each["emailAddress"] for each in told["complainedRecipients"]])
    kind = told.get("complaintSubType")
    about = _about(n, told, address, feedback_type=told.get("complaintFeedbackType"), reason=kind)
    name = "email_dropped" if kind == "OnAccountSuppressionList" else "email_complained"
    yield event(name, once=f"complaint:{told.get('feedbackId') or message_id}", **about)


@provider.on("Delivery", option="delivered")
def delivered(n: Notification) -> Iterator[Draft]:
    told, message_id = n.body["event"]["delivery"], n.body["event"]["mail"]["messageId"]
    for address in told["recipients"]:
        yield event("email_delivered", once=f"delivery:{message_id}:{_who(address)}", **_about(n, told, address))


@provider.on("DeliveryDelay", option="deferred")
def deferred(n: Notification) -> Iterator[Draft]:
    told, message_id = n.body["event"]["deliveryDelay"], n.body["event"]["mail"]["messageId"]
    for each in told["delayedRecipients"]:
        address = each["emailAddress"]
        about = _about(n, told, address, reason=told.get("delayType"), status=each.get("status"))
        yield event("email_deferred", once=f"delay:{message_id}:{_who(address)}:{about['at_ms']}", **about)


# --- of these SES tells the message, and not for whom of its recipients -----------------------------------------------


def _of_message(n: Notification, told: Json, **properties: Any) -> dict[str, Any]:
    return _about(n, told, _only(n.body["event"]["mail"].get("destination") or []), **properties)


@provider.on("Send", option="sent")
def sent(n: Notification) -> Iterator[Draft]:
    yield event("email_sent", once=f"send:{n.body['event']['mail']['messageId']}", **_of_message(n, {}))


@provider.on("Reject", "Rendering Failure")
def dropped(n: Notification) -> Iterator[Draft]:
    reason = "bad_content" if n.type == "Reject" else "rendering_failure"
    about = _of_message(n, {}, reason=reason)
    yield event("email_dropped", once=f"dropped:{n.body['event']['mail']['messageId']}", **about)


@provider.on("Open", option="opened")
def opened(n: Notification) -> Iterator[Draft]:
    told, message_id = n.body["event"]["open"], n.body["event"]["mail"]["messageId"]
    about = _of_message(n, told, machine_open=True if told.get("userAgent") == APPLE_PROXY else None)
    yield event("email_opened", once=f"open:{message_id}:{about['at_ms']}", **about)


def _landing(link: object) -> tuple[str | None, dict[str, str]]:
    """Where a click went, and the attribution in it."""
    page, _, query = str(link or "").partition("#")[0].partition("?")
    told = {key: value for key, value in parse_qsl(query) if key in CAMPAIGN}
    return (f"{page}?{urlencode(told)}" if told else page or None), told


@provider.on("Click")
def clicked(n: Notification) -> Iterator[Draft]:
    told, message_id = n.body["event"]["click"], n.body["event"]["mail"]["messageId"]
    about, (url, found) = _of_message(n, told), _landing(told.get("link"))
    about["metadata"] = {**found, **about["metadata"]}
    link = digest_of(told.get("link"))[7:23]
    yield event("email_clicked", once=f"click:{message_id}:{about['at_ms']}:{link}", url=url, **about)


def _left(preferences: Json) -> set[str]:
    """The topics that somebody does not want; `*` is all of them."""
    topics = preferences.get("topicSubscriptionStatus") or []
    left = {str(each.get("topicName")) for each in topics if each.get("subscriptionStatus") == "OptOut"}
    return left | {"*"} if preferences.get("unsubscribeAll") else left


@provider.on("Subscription")
def subscription_changed(n: Notification) -> Iterator[Draft]:
    """Somebody changed what they want to get, by a link in the message or by their mail program."""
    told, message_id = n.body["event"]["subscription"], n.body["event"]["mail"]["messageId"]
    now, before = _left(told.get("newTopicPreferences") or {}), _left(told.get("oldTopicPreferences") or {})
    about = _of_message(n, told, contact_list=told.get("contactList"))
    name = "email_unsubscribed" if now - before else "email_resubscribed"
    if now != before:
        yield event(name, once=f"subscription:{message_id}:{about['at_ms']}", **about)
