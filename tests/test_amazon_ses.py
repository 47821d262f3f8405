"""Amazon SES: the ways in which SNS tells one thing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mappers.amazon_ses import CONFIRMATION, provider
from relay.contract import Delivery, Draft, UnansweredError, UnmappableError
from relay.rehearsal import rehearse

CASES = Path(__file__).parent / "mappers" / "amazon_ses"


def envelope(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def delivery(said: Any, **headers: str) -> Delivery:
    return Delivery(body=json.dumps(said).encode(), headers=headers)


def drafts(found: Delivery) -> list[Draft]:
    (notification,) = provider.notifications(found)
    return [draft for draft in provider.mappers[notification.type](notification) if isinstance(draft, Draft)]


EVENTS = [path.stem for path in sorted(CASES.glob("*.json")) if envelope(path.stem)["Message"].startswith("{")]


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
