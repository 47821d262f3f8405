"""Mailgun: what it means that only a token is signed, and the form of old."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mappers.mailgun import provider
from relay.contract import Accepted, Delivery, Draft, Reason, Refused
from relay.rehearsal import START_MS, rehearse

CASES = Path(__file__).parent / "mappers" / "mailgun"
NOW_S = START_MS // 1000
KEY = "signing key of the tests"


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def delivery(said: Any) -> Delivery:
    return Delivery(body=json.dumps(said).encode(), headers={})


def sent(*told: Any) -> list[str]:
    """The names of the events that leave."""
    with rehearse(provider) as stage:
        life = stage.begin()
        for said in told:
            life.tell(delivery(said))
        life.finish()
        return [event["event_name"] for event in life.sent]


def test_a_token_counts_once_whatever_is_said_with_it() -> None:
    """Whoever has seen one delivery could send another body with its signature."""
    true = body("clicked__link")
    forged = {**body("complained__plain"), "signature": true["signature"]}

    assert ["email_clicked"] == sent(true, forged)


def test_one_event_under_two_tokens_counts_once() -> None:
    """A webhook of the account and one of the domain tell the same event, each with a token of its own."""
    first = body("clicked__link")
    second = {**first, "signature": {**first["signature"], "token": "f" * 50}}

    assert ["email_clicked"] == sent(first, second)


def test_a_signature_without_its_age_limit_is_no_signature() -> None:
    old = provider.verifier.sign(delivery(body("clicked__link")), KEY, now_ms=START_MS)
    signed = json.loads(old.body)
    signed["signature"] = signature_of(NOW_S - 86_400, "a" * 50)

    assert Refused(Reason.STALE) == provider.verifier.verify(delivery(signed), [KEY], now_ms=START_MS)


# --- the form of old --------------------------------------------------------------------------------------------------


def signature_of(timestamp: int, token: str) -> dict[str, str]:
    signature = hmac.digest(KEY.encode(), f"{timestamp}{token}".encode(), "sha256").hex()
    return {"timestamp": str(timestamp), "token": token, "signature": signature}


def form(*fields: tuple[str, str]) -> Delivery:
    proof = signature_of(NOW_S, "b" * 50)
    return Delivery(body=urlencode([*fields, *proof.items()]).encode(), headers={})


def drafts(found: Delivery) -> list[Draft]:
    (notification,) = provider.notifications(found)
    return [draft for draft in provider.mappers[notification.type](notification) if isinstance(draft, Draft)]


CLICK = (("event", "clicked"), ("recipient", "ada@example.com"), ("url", "https://shop.example.com/?utm_source=old"))


def test_a_form_is_verified_and_mapped() -> None:
    found = form(*CLICK, ("tag", "a"), ("tag", "b"), ("user_id", "user_42"))
    (draft,) = drafts(found)

    assert Accepted(0) == provider.verifier.verify(found, [KEY], now_ms=START_MS)
    assert ("email_clicked", NOW_S * 1000, "ada@example.com") == (draft.name, draft.at_ms, draft.person.email)
    assert {"utm_source": "old", "user_id": "user_42"} == draft.metadata
    assert "a, b" == draft.properties["tags"]


def test_a_variable_does_not_take_the_place_of_a_field_of_mailguns() -> None:
    """Mailgun's own value comes first, but of the signature's three fields, where it comes last."""
    found = form(("timestamp", "1"), ("token", "mine"), ("signature", "mine"), *CLICK, ("event", "bounced"),
                 ("recipient", "bob@example.com"))  # fmt: skip
    (draft,) = drafts(found)

    assert Accepted(0) == provider.verifier.verify(found, [KEY], now_ms=START_MS)
    assert ("email_clicked", "ada@example.com") == (draft.name, draft.person.email)
    assert (f"token:{'b' * 50}",) == draft.once


@pytest.mark.parametrize("word, name", [("bounced", "email_bounced"), ("dropped", "email_dropped")])
def test_the_words_of_old_are_understood(word: str, name: str) -> None:
    (draft,) = drafts(form(("event", word), ("recipient", "ada@example.com"), ("code", "550")))

    assert (name, "550") == (draft.name, draft.properties["status"])
