"""Putting right at the console, without a browser: refused deliveries, mapping again piece by piece, the books."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import orjson
import pytest

from relay.contract import Draft
from relay.pages import remapping
from relay.serving import serving
from tests import acme
from tests.conftest import EventsApi, RunningRelay, RunRelay, until
from tests.stripe_api import API_KEY, PROVIDERS, SECRET, StripeApi
from tests.test_console import TOKEN, csrf, sign_in
from tests.things import Clock

pytestmark = pytest.mark.anyio

OTHER = "acme_of_another_endpoint"


async def press(relay: RunningRelay, path: str, **fields: str | list[str]) -> str:
    """Send a form; what the console says then."""
    answer = await relay.http.post(f"/admin/{path}", data={"csrf": await csrf(relay), **fields})
    return (await relay.http.get(answer.headers["location"])).text if answer.is_redirect else answer.text


async def refuse(relay: RunningRelay, *numbers: int, secret: str = OTHER) -> None:
    """Sales that are signed with a secret that the relay does not have."""
    before = len(await relay.store.rejected.listing())
    for number in numbers:
        raw = orjson.dumps(acme.captured(number))
        answer = await relay.http.post("/webhooks/acme", content=raw, headers=acme.signed(raw, secret=secret))
        assert answer.status_code == 401

    async def kept() -> bool:
        return len(await relay.store.rejected.listing()) == before + len(numbers)

    await until(kept)


def has_received(events_api: EventsApi, *orders: str) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return sorted(await events_api.orders()) == sorted(orders)

    return so


# --- refused ----------------------------------------------------------------------------------------------------------


async def test_only_what_fits_is_taken_in_and_only_once(run_relay: RunRelay, events_api: EventsApi) -> None:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await refuse(relay, 1, 2)
        await refuse(relay, 3, secret="of_a_stranger")
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN, RELAY_ACME_SECRET=f"{acme.SECRET},{OTHER}") as relay:
        await sign_in(relay)
        assert "2 fit with the secrets of now" in (await relay.http.get("/admin/repair?tab=refused")).text
        strangers = (await relay.store.rejected.listing())[0]
        assert "None of 1 fits" in await press(relay, "repair/retry", which="ticked", id=str(strangers.id))
        assert "2 of 3 fit now and were taken in" in await press(relay, "repair/retry", which="all")
        assert "None of 1 fits" in await press(relay, "repair/retry", which="source", source="acme")
        await until(relay.is_mapped)
        await until(has_received(events_api, "pay_1", "pay_2"))

        deeds = [deed.action for deed in await relay.store.console.deeds()]
        assert ["took refused deliveries", "signed in"] == deeds


async def test_nothing_is_taken_in_that_was_not_ticked(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        assert "Nothing was ticked." in await press(relay, "repair/retry", which="ticked")


# --- told wrongly -----------------------------------------------------------------------------------------------------


async def test_mapping_again_goes_piece_by_piece(
    run_relay: RunRelay, events_api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remapping, "_PIECE", 100)
    deaf, good = acme.make(), acme.make()
    deaf.mappers["payment.captured"] = lambda _notification: ()
    async with run_relay({"acme": deaf}) as relay:
        for number in range(101):
            raw = orjson.dumps(acme.captured(number))
            await relay.http.post("/webhooks/acme", content=raw, headers=acme.signed(raw))
        await until(relay.is_mapped)
    async with run_relay({"acme": good}, RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        looked = (await relay.http.get("/admin/repair?tab=wrong&look=1&since=90d")).text
        first = await press(relay, "repair/replay", since="90d")
        assert "100 deliveries mapped again: 100 events put into the outbox" in first
        assert "Send what is missing: 1<" in first
        assert "Send what is missing: 100<" in looked
        assert "There are more" in looked
        assert 100 == len(await relay.store.events(limit=1000))


async def test_looking_changes_nothing(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        await relay.post(acme.captured(1))
        page = (await relay.http.get("/admin/repair?tab=wrong&look=1&source=acme&type=payment.captured&since=1d")).text

        assert ("Nothing differs" in page, 1) == (True, len(await relay.store.events()))


# --- the books --------------------------------------------------------------------------------------------------------


@pytest.fixture
def api() -> StripeApi:
    return StripeApi()


@pytest.fixture
async def api_base(api: StripeApi) -> AsyncIterator[str]:
    async with serving(api.app) as served:
        yield served.url


@pytest.fixture
async def stripe(run_relay: RunRelay, api_base: str) -> AsyncIterator[RunningRelay]:
    """A relay with a source of Stripe whose books can be read, and somebody who has signed in."""
    variables = {"RELAY_STRIPE_SECRET": SECRET, "RELAY_STRIPE_API_KEY": API_KEY, "RELAY_STRIPE_API_BASE": api_base}
    async with run_relay(
        {"stripe": PROVIDERS["stripe"], "acme": acme.make()}, RELAY_ADMIN_TOKEN=TOKEN, RELAY_JOIN_WAIT_S="0",
        **variables,
    ) as relay:  # fmt: skip
        await sign_in(relay)
        yield relay


async def test_what_is_missing_in_the_books_is_fetched_once(
    stripe: RunningRelay, events_api: EventsApi, api: StripeApi, clock: Clock
) -> None:
    api.sold(1, clock() // 1000 - 3600)
    before = await press(stripe, "books/compare", source="stripe", since="1d")
    fetched = await press(stripe, "books/fetch", source="stripe", since="1d")
    await until(has_received(events_api, "pi_1"))
    again = await press(stripe, "books/fetch", source="stripe", since="1d")
    after = await press(stripe, "books/compare", source="stripe", since="1d")
    deeds = [deed.action for deed in await stripe.store.console.deeds()]

    assert "<strong>Not equal</strong> 1 missing" in before
    assert "1 were missing. 1 new event put into the outbox" in fetched
    assert "0 were missing. 0 new events put into the outbox" in again
    assert "<strong>Equal</strong> 1 ok" in after
    assert ["pi_1"] == await events_api.orders()
    assert ["compared with the books", "fetched what was missing", "fetched what was missing"] == deeds[:3]


async def test_books_that_cannot_be_read_say_why(stripe: RunningRelay, api: StripeApi) -> None:
    api.forbidden.add("events")

    assert "permission" in await press(stripe, "books/fetch", source="stripe", since="1d")
    assert (
        404
        == (
            await stripe.http.post("/admin/books/fetch", data={"csrf": await csrf(stripe), "source": "acme"})
        ).status_code
    )


async def test_a_source_without_an_api_key_says_what_to_set(run_relay: RunRelay) -> None:
    providers = {"stripe": PROVIDERS["stripe"], "acme": acme.make()}
    async with run_relay(providers, RELAY_ADMIN_TOKEN=TOKEN, RELAY_STRIPE_SECRET=SECRET) as relay:
        await sign_in(relay)

        assert "RELAY_STRIPE_API_KEY" in (await relay.http.get("/admin/books")).text
        assert (
            404
            == (
                await relay.http.post("/admin/books/compare", data={"csrf": await csrf(relay), "source": "stripe"})
            ).status_code
        )


# --- how often a sale counts ------------------------------------------------------------------------------------------


async def test_a_sale_that_counts_twice_is_said_to(run_relay: RunRelay) -> None:
    wrong = acme.make()
    good = wrong.mappers["payment.captured"]
    wrong.mappers["payment.captured"] = lambda n: (
        replace(one, once=(n.id,)) for one in good(n) if isinstance(one, Draft)
    )
    async with run_relay({"acme": wrong}, RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        await relay.post(acme.captured(1))
        await relay.post(acme.captured(1, notification="ntf_again"))
        page = (await relay.http.get("/admin/deliveries?q=pay_1")).text

        assert "purchase of pay_1 counts 2 times" in page


async def test_what_waits_and_was_tried_is_among_the_pending(run_relay: RunRelay, events_api: EventsApi) -> None:
    await events_api.misbehave(status=503)
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        await relay.post(acme.captured(1))

        async def tried() -> bool:
            return bool(await relay.store.open_batches())

        await until(tried)
        page = (await relay.http.get("/admin/deliveries?status=pending")).text

        assert "ntf_1" in page
