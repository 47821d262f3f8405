"""Clerk: who logged in, and money that Stripe may tell as well."""

from __future__ import annotations

import json
from typing import Any

from mappers.clerk import provider
from relay.contract import Delivery
from relay.rehearsal import START_MS, rehearse

USER = {
    "id": "user_1",
    "primary_email_address_id": "idn_1",
    "email_addresses": [{"id": "idn_1", "email_address": "erika@example.com"}],
    "created_at": START_MS,
}
SESSION = {"id": "sess_1", "user_id": "user_1", "created_at": START_MS + 1000}


def told(kind: str, data: dict[str, Any], message: str) -> Delivery:
    body = {"type": kind, "object": "event", "timestamp": START_MS, "data": data}
    return Delivery(body=json.dumps(body).encode(), headers={"svix-id": message})


def test_a_login_is_of_the_one_who_signed_up_whichever_is_told_first() -> None:
    deliveries = [told("user.created", USER, "msg_1"), told("session.created", SESSION, "msg_2")]
    for order in (deliveries, deliveries[::-1]):
        with rehearse(provider) as stage:
            life = stage.begin()
            for delivery in order:
                life.tell(delivery)
            life.leave()

            assert ["login", "signup"] == sorted(event["event_name"] for event in life.sent)
            assert 1 == len({event["user_id"] for event in life.sent})


def test_logins_and_money_are_for_those_who_ask_for_them() -> None:
    with rehearse(provider, options=()) as stage:
        life = stage.begin()
        life.tell(told("session.created", SESSION, "msg_1"), told("paymentAttempt.updated", {"id": "p"}, "msg_2"))
        life.finish()

        assert [] == life.sent


def test_a_site_that_knows_its_users_by_clerks_id_can_say_so() -> None:
    with rehearse(provider, identity_keys=("clerk_user_id",), external_ids="pass") as stage:
        life = stage.begin()
        life.tell(told("user.created", USER, "msg_1"))
        life.finish()

        assert ["user_1"] == [event["user_id"] for event in life.sent]
