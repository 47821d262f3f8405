"""Amazon SES: the ways in which SNS tells one thing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mappers.amazon_ses import CONFIRMATION, provider
from relay.contract import Accepted, Delivery, Draft, Reason, Refused, UnansweredError, UnmappableError, Verdict
from relay.rehearsal import START_MS, rehearse
from relay.signatures import basic_auth

CASES = Path(__file__).parent / "mappers" / "amazon_ses"


def envelope(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def delivery(said: Any, **headers: str) -> Delivery:
    return Delivery(body=json.dumps(said).encode(), headers=headers)


def drafts(found: Delivery) -> list[Draft]:
    (notification,) = provider.notifications(found)
    return [draft for draft in provider.mappers[notification.type](notification) if isinstance(draft, Draft)]


EVENTS = [path.stem for path in sorted(CASES.glob("*.json")) if envelope(path.stem).get("Message", "")[:1] == "{"]


@pytest.mark.parametrize("name", EVENTS)
def test_a_raw_message_says_the_same_as_its_envelope(name: str) -> None:
    whole = envelope(name)
    raw = delivery(json.loads(whole["Message"]), **{"x-amz-sns-message-id": whole["MessageId"]})
    (first,), (second,) = provider.notifications(delivery(whole)), provider.notifications(raw)

    assert (first.id, first.type) == (second.id, second.type)
    assert drafts(delivery(whole)) == drafts(raw)


def test_event_publishing_and_feedback_notifications_tell_one_bounce() -> None:
    published = envelope("Bounce__permanent")
    event = json.loads(published["Message"])
    feedback = {("notificationType" if key == "eventType" else key): value for key, value in event.items()}
    feedback["mail"] = {key: value for key, value in event["mail"].items() if key != "tags"}
    notified = published | {"MessageId": "another", "Message": json.dumps(feedback)}
    with rehearse(provider) as stage:
        life = stage.begin()
        life.tell(delivery(published))
        life.tell(delivery(notified))
        life.finish()

        assert ["email_bounced"] == [found["event_name"] for found in life.sent]


@pytest.mark.parametrize("name", ["Open__several", "Send__several", "Complaint__several"])
def test_nobody_is_named_where_it_may_be_another(name: str) -> None:
    (draft,) = drafts(delivery(envelope(name)))

    assert (None, False) == (draft.person.email, "user_id" in draft.metadata)


def preferences(*left: str, everything: bool = False) -> dict[str, Any]:
    topics = [
        {"topicName": name, "subscriptionStatus": "OptOut" if name in left else "OptIn"} for name in ("news", "offers")
    ]
    return {"unsubscribeAll": everything, "topicSubscriptionStatus": topics}


@pytest.mark.parametrize(
    "before, now, names",
    [
        (preferences(), preferences("news"), ["email_unsubscribed"]),
        (preferences("news"), preferences("news", "offers"), ["email_unsubscribed"]),
        (preferences("news"), preferences("news", everything=True), ["email_unsubscribed"]),
        (preferences("news", "offers"), preferences("news"), ["email_resubscribed"]),
        (preferences("news", everything=True), preferences("news"), ["email_resubscribed"]),
        (preferences("news"), preferences("news"), []),
        (None, preferences("news"), ["email_unsubscribed"]),
    ],
)
def test_it_counts_what_has_changed_of_a_subscription(before: Any, now: Any, names: list[str]) -> None:
    said = envelope("Subscription__unsubscribed")
    event = json.loads(said["Message"])
    event["subscription"] |= {"oldTopicPreferences": before, "newTopicPreferences": now}

    assert names == [draft.name for draft in drafts(delivery(said | {"Message": json.dumps(event)}))]


def test_a_subscription_is_confirmed_where_sns_says() -> None:
    said = envelope("SubscriptionConfirmation__topic")

    with pytest.raises(UnansweredError) as asked:
        drafts(delivery(said))

    assert [] == drafts(replace(delivery(said), answers={said["SubscribeURL"]: True}))
    assert said["SubscribeURL"] == asked.value.ask.path
    assert CONFIRMATION.fullmatch(asked.value.ask.path)
    assert not asked.value.ask.needs_key


TOPIC = "TopicArn=arn:aws:sns:eu-west-1:123456789012:ses-events&Token=2336412f37"


def test_a_confirmation_elsewhere_is_kept_and_not_called() -> None:
    said = envelope("SubscriptionConfirmation__topic") | {"SubscribeURL": "https://example.com/"}

    with pytest.raises(UnmappableError, match="not Amazon's"):
        drafts(delivery(said))


@pytest.mark.parametrize(
    "url",
    [
        f"http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&{TOPIC}",
        f"https://sns.eu-west-1.amazonaws.com.example.com/?Action=ConfirmSubscription&{TOPIC}",
        f"https://sns.eu-west-1.amazonaws.com@example.com/?Action=ConfirmSubscription&{TOPIC}",
        f"https://sns.bucket.s3-eu-west-1.amazonaws.com/?Action=ConfirmSubscription&{TOPIC}",
        f"https://sns.eu-west-1.amazonaws.com/?Action=DeleteTopic&{TOPIC}",
        f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&{TOPIC}&Action=DeleteTopic",
        f"https://sns.eu-west-1.amazonaws.com/other?Action=ConfirmSubscription&{TOPIC}",
        "https://example.com/",
    ],
)
def test_no_other_address_may_be_called(url: str) -> None:
    assert CONFIRMATION.fullmatch(url) is None


def test_china_has_its_own_host() -> None:
    topic = TOPIC.replace("arn:aws:sns:eu-west-1", "arn:aws-cn:sns:cn-north-1")
    assert CONFIRMATION.fullmatch(f"https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription&{topic}")


def test_what_is_no_event_of_ses_is_kept() -> None:
    said = envelope("Open__person") | {"Message": '{"AlarmName": "too many bounces"}'}
    (notification,) = provider.notifications(delivery(said))

    assert notification.type not in provider.mappers
    assert notification.type not in provider.ignored


# --- raw message delivery ---------------------------------------------------------------------------------------------

ARN = "arn:aws:sns:eu-west-1:123456789012:ses-events"
LOGIN = "sns:a long random password"
RAW = Delivery(body=b'{"eventType":"Open"}', headers={"x-amz-sns-rawdelivery": "true"})


def verdict(found: Delivery, *secrets: str) -> Verdict:
    return provider.verifier.verify(found, secrets, now_ms=START_MS)


def test_a_raw_message_is_taken_by_user_and_password() -> None:
    sent = provider.verifier.sign(RAW, LOGIN, now_ms=START_MS)

    assert Accepted(1) == verdict(sent, ARN, LOGIN)
    assert Refused(Reason.MISMATCH) == verdict(sent, ARN, "sns:another password")
    assert Refused(Reason.MISSING) == verdict(RAW, ARN, LOGIN)


def test_an_arn_is_no_password() -> None:
    """Everybody may know it."""
    known = base64.b64encode(ARN.encode()).decode()
    sent = replace(RAW, headers={**RAW.headers, "authorization": f"Basic {known}"})

    assert Refused(Reason.MISMATCH) == verdict(sent, ARN)


@pytest.mark.parametrize("said", [None, "false"])
def test_a_login_does_not_open_what_is_not_raw(said: str | None) -> None:
    sent = provider.verifier.sign(RAW, LOGIN, now_ms=START_MS)
    headers = {name: text for name, text in sent.headers.items() if name != "x-amz-sns-rawdelivery"}
    headers |= {"x-amz-sns-rawdelivery": said} if said else {}

    assert Refused(Reason.MISSING) == verdict(replace(sent, headers=headers), ARN, LOGIN)


def test_an_envelope_must_be_signed_whatever_its_headers_say() -> None:
    said = delivery(envelope("SubscriptionConfirmation__topic"), **RAW.headers)
    sent = basic_auth().sign(said, LOGIN, now_ms=START_MS)

    assert Refused(Reason.MISSING) == verdict(sent, ARN, LOGIN)
    with pytest.raises(ValueError, match="the secret must be the ARN"):
        provider.verifier.sign(said, LOGIN, now_ms=START_MS)


def test_a_sample_for_a_source_with_a_login_is_a_raw_message() -> None:
    said = envelope("Bounce__permanent")
    sent = provider.verifier.sign(delivery(said), LOGIN, now_ms=START_MS)

    assert Accepted(0) == verdict(sent, LOGIN)
    assert said["Message"].encode() == sent.body
    assert said["MessageId"] == sent.headers["x-amz-sns-message-id"]
