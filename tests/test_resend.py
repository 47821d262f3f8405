"""Resend: whose event it is, and who unsubscribed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mappers.resend import provider
from relay.contract import Delivery, Draft

CASES = Path(__file__).parent / "mappers" / "resend"


def draft(**data: Any) -> Draft:
    said = json.loads((CASES / "email.clicked__link.json").read_text(encoding="utf-8"))["body"]
    said["data"] |= data
    (notification,) = provider.notifications(Delivery(body=json.dumps(said).encode(), headers={"svix-id": "msg_1"}))
    (found,) = [one for one in provider.mappers[notification.type](notification) if isinstance(one, Draft)]
    return found


@pytest.mark.parametrize(
    "data",
    [
        {"to": ["ada@example.com", "bob@example.com"]},
        {"cc": ["bob@example.com"]},
        {"bcc": "bob@example.com"},
        {"headers": [{"name": "CC", "value": "Bob <bob@example.com>"}]},
        {"to": ["Ada <ada@example.com>, bob@example.com"]},
        {"to": []},
        {"to": None},
    ],
    ids=str,
)
def test_nobody_is_named_where_it_may_be_another(data: dict[str, Any]) -> None:
    found = draft(**data)

    assert (None, False) == (found.person.email, "user_id" in found.metadata)


@pytest.mark.parametrize(
    "data", [{"to": "Ada <ada@example.com>"}, {"headers": {"X-Own": "1"}}, {"cc": [], "bcc": None}]
)
def test_one_recipient_is_named(data: dict[str, Any]) -> None:
    assert "ada@example.com" == draft(**data).person.email


def test_the_id_of_either_spelling_is_the_notifications() -> None:
    for name in ("svix-id", "webhook-id"):
        (notification,) = provider.notifications(Delivery(body=b'{"type": "email.sent"}', headers={name: "msg_1"}))

        assert "msg_1" == notification.id
