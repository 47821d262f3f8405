"""What a provider is told that asks with a GET, before it sends anything."""

from __future__ import annotations

import pytest

from relay.contract import Answer, Delivery, Provider
from relay.places import reading
from relay.signatures import braintree_answer, braintree_challenge, braintree_form
from tests import acme
from tests.conftest import RunRelay

pytestmark = pytest.mark.anyio

CHALLENGE = "20f9f8ed05f77439fe955c977e4c8a53"


def braintree() -> Provider:
    provider = acme.make()
    provider.verifier, provider.challenge = braintree_form(), braintree_answer
    return provider


async def test_a_challenge_is_answered(run_relay: RunRelay) -> None:
    async with run_relay({"acme": braintree()}, RELAY_ACME_SECRET="public:private") as relay:
        answer = await relay.http.get("/webhooks/acme", params={"bt_challenge": CHALLENGE})

    assert (200, braintree_challenge(CHALLENGE, "public:private")) == (answer.status_code, answer.text)
    assert "text/plain" == answer.headers["content-type"]


@pytest.mark.parametrize(
    "query",
    ["", "?bt_challenge=", "?bt_challenge=<b>", "?bt_challenge=%ff", f"?bt_challenge={CHALLENGE}&bt_challenge=1"],
)
async def test_what_is_no_challenge_gets_a_plain_200(run_relay: RunRelay, query: str) -> None:
    async with run_relay({"acme": braintree()}, RELAY_ACME_SECRET="public:private") as relay:
        answer = await relay.http.get(f"/webhooks/acme{query}")

    assert (200, "{}") == (answer.status_code, answer.text)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_provider_without_a_challenge_hears_that_somebody_is_there(run_relay: RunRelay, method: str) -> None:
    async with run_relay() as relay:
        there = await relay.http.request(method, "/webhooks/acme")
        nobody = await relay.http.request(method, "/webhooks/nobody")

    assert (200, 404) == (there.status_code, nobody.status_code)


async def test_the_secret_that_knows_the_answer_gives_it(run_relay: RunRelay) -> None:
    def knows(delivery: Delivery, secret: str) -> Answer | None:
        asked = reading("query:ask")(delivery)
        return Answer(body=b"it is I") if asked == secret else None

    provider = acme.make()
    provider.challenge = knows
    async with run_relay({"acme": provider}, RELAY_ACME_SECRET="acme_new,acme_old") as relay:
        told = [(await relay.http.get("/webhooks/acme", params={"ask": ask})).text for ask in ("acme_old", "else")]

    assert ["it is I", "{}"] == told


async def test_a_challenge_that_raises_says_nothing(run_relay: RunRelay) -> None:
    def raises(_delivery: Delivery, _secret: str) -> Answer | None:
        raise KeyError

    provider = acme.make()
    provider.challenge = raises
    async with run_relay({"acme": provider}) as relay:
        answer = await relay.http.get("/webhooks/acme")

    assert (200, "{}") == (answer.status_code, answer.text)
