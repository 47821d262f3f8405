"""Gumroad: nothing is signed, so what stands in the URL is all; and one sale may be told in several ways."""

from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from mappers.gumroad import provider
from relay.contract import Accepted, Delivery, Draft, Notification, Reason, Refused

SALE = {
    "sale_id": "sal_1==", "sale_timestamp": "2026-11-20T09:30:00Z", "email": "ada@example.com", "price": "2500",
    "currency": "usd", "refunded": "false", "resource_name": "sale",
}  # fmt: skip


def told(fields: dict[str, Any], *, is_json: bool = False) -> Notification:
    body = orjson.dumps(fields) if is_json else urlencode(fields).encode()
    (found,) = provider.notifications(Delivery(body=body, headers={}))
    return found


def drafts(n: Notification) -> list[Draft]:
    return [found for found in provider.mappers[n.type](n) if isinstance(found, Draft)]


@pytest.mark.parametrize(
    "query, verdict",
    [
        ("token=long_and_random", Accepted(0)),
        ("a=1&token=long_and_random", Accepted(0)),
        ("", Refused(Reason.MISSING)),
        ("token=", Refused(Reason.MISSING)),
        ("token=guessed", Refused(Reason.MISMATCH)),
        ("token=long_and_random&token=guessed", Refused(Reason.MALFORMED)),
    ],
)
def test_the_token_of_the_url_is_asked_for(query: str, verdict: object) -> None:
    delivery = Delivery(body=urlencode(SALE | {"token": "long_and_random"}).encode(), headers={}, query=query)

    assert verdict == provider.verifier.verify(delivery, ["long_and_random"], now_ms=0)


def test_a_sale_that_is_told_twice_is_one_notification() -> None:
    """By the ping endpoint and by a resource subscription, by a repeat, and by an older ping without a name."""
    older = {name: value for name, value in SALE.items() if name != "resource_name"}

    assert 1 == len({told(fields).id for fields in (SALE, SALE | {"retry_count": "1"}, older)})


def test_a_refund_is_another_notification_than_its_sale_and_a_full_one_another_than_a_part() -> None:
    part = SALE | {"resource_name": "refund"}
    whole = part | {"refunded": "true"}

    assert 3 == len({told(fields).id for fields in (SALE, part, whole)})


def test_a_part_and_the_rest_give_back_the_whole_price() -> None:
    part = SALE | {"resource_name": "refund"}
    (first,), (rest,) = drafts(told(part)), drafts(told(part | {"refunded": "true"}))

    assert (None, "-25.00") == (first.revenue, str(rest.revenue))
    assert not {*first.once} & {*rest.once}


def test_json_says_what_a_form_says() -> None:
    as_json = {"price": 2500, "refunded": False, "url_params": {"user_id": "7"}, "variants": {}, "card": {"bin": None}}
    (one,), (other,) = (
        drafts(told(SALE | {"url_params[user_id]": "7"})),
        drafts(told(SALE | as_json, is_json=True)),
    )

    assert one == other
