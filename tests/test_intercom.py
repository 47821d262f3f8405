"""Intercom: promises that take more than one notification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mappers.intercom import provider
from relay.contract import Accepted, Delivery, Forgotten
from relay.rehearsal import START_MS, Life, rehearse

CASES = Path(__file__).parent / "mappers" / "intercom"
_numbers = count(1)


@pytest.fixture
def life() -> Iterator[Life]:
    with rehearse(provider) as stage:
        yield stage.begin()


def told(topic: str, item: Any, **more: Any) -> Delivery:
    said = {"id": f"notif_{next(_numbers)}", "topic": topic, "app_id": "abc", "created_at": START_MS // 1000}
    return Delivery(body=json.dumps({**said, "data": {"item": item}, **more}).encode(), headers={})


def contact(**more: Any) -> dict[str, Any]:
    return {"type": "contact", "id": "c1", "role": "lead", "email": "erika@example.com", **more}


def ticket(conversation_id: str = "215472", *contacts: Any) -> dict[str, Any]:
    known = contacts or ({"type": "contact", "id": "c1", "external_id": None},)
    people = {"type": "contact.list", "contacts": list(known)}
    return {"type": "ticket", "id": conversation_id, "ticket_id": "7", "category": "Customer", "contacts": people}


CONVERSATION = {
    "type": "conversation",
    "id": "215472",
    "source": {"type": "conversation", "author": {"type": "lead", "id": "c1", "email": "erika@example.com"}},
    "contacts": {"type": "contact.list", "contacts": [{"type": "contact", "id": "c1"}]},
}


def test_a_conversation_that_becomes_a_ticket_is_one(life: Life) -> None:
    life.tell(told("conversation.user.created", CONVERSATION))
    life.tell(told("ticket.created", ticket()))
    life.finish()

    assert ["support_ticket_created"] == [event["event_name"] for event in life.sent]


@pytest.mark.parametrize("is_first", [True, False], ids=["before it", "after it"])
def test_a_ticket_is_its_contacts_whenever_that_is_told(life: Life, *, is_first: bool) -> None:
    who, what = told("contact.lead.updated", contact()), told("ticket.created", ticket())
    life.tell(told("contact.unsubscribed", {"type": "contact_unsubscribe", "contact": contact(id="c2")}))
    for delivery in (who, what) if is_first else (what, who):
        life.tell(delivery)
    life.finish()

    assert 1 == len({event["user_id"] for event in life.sent})


def test_a_lead_and_the_user_it_became_are_created_once(life: Life) -> None:
    life.tell(told("contact.lead.created", contact()))
    life.tell(told("contact.user.created", contact(role="user", external_id="user_42")))
    life.tell(told("contact.lead.signed_up", contact(role="user", external_id="user_42")))
    life.finish()

    assert ["lead_created", "signup"] == [event["event_name"] for event in life.sent]


def test_workspaces_of_one_app_are_kept_apart(life: Life) -> None:
    for app_id in ("abc", "def"):
        life.tell(told("contact.lead.created", contact(), app_id=app_id))
    life.finish()

    assert 2 == len(life.sent)


def test_what_a_lead_has_in_the_place_of_the_sites_id_is_not_the_sites() -> None:
    body = json.loads((CASES / "contact.lead.created__messenger.json").read_text(encoding="utf-8"))["body"]
    (found,) = provider.notifications(Delivery(body=json.dumps(body).encode(), headers={}))

    told = [one for one in provider.mappers[found.type](found) if not isinstance(one, Forgotten)]
    assert {None} == {one.person.external_id for one in told}


def test_a_signature_made_elsewhere_fits() -> None:
    """HMAC-SHA1 of `{}` under the key, by `openssl dgst`."""
    sent = Delivery(body=b"{}", headers={"x-hub-signature": "sha1=fc32a3088b7e777cfca7191856871c39d6434d48"})
    bare = replace(sent, headers={"x-hub-signature": "fc32a3088b7e777cfca7191856871c39d6434d48"})

    assert Accepted(0) == provider.verifier.verify(sent, ["client-secret"], now_ms=START_MS)
    assert not isinstance(provider.verifier.verify(bare, ["client-secret"], now_ms=START_MS), Accepted)
