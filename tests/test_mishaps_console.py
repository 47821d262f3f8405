"""Six mishaps, each found and put right in the console alone, in a real browser; `docs/mishaps.md` tells them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.serving import serving
from tests.conftest import EventsApi, RunRelay
from tests.mishaps import TOKEN, Shop, destination_was_down, mapper, shop_in, stripe_was_silent
from tests.stripe_api import StripeApi
from tests.things import Clock

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
OTHER = "acme_of_another_endpoint"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; CHROMIUM may name one"),
]


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Any]:
    async with playwright.async_playwright() as started:
        opened = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        await opened.close()


@pytest.fixture
def shop(tmp_path: Path, events_api: EventsApi) -> Shop:
    return shop_in(tmp_path, events_api)


@pytest.fixture
def api() -> StripeApi:
    return StripeApi()


@pytest.fixture
async def api_base(api: StripeApi) -> AsyncIterator[str]:
    async with serving(api.app) as served:
        yield served.url


async def signed_in(browser: Any, shop: Shop) -> Any:
    """A page that shows the overview. Whatever asks to be confirmed is confirmed."""
    page = await browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(20_000)
    page.on("dialog", lambda dialog: dialog.accept())
    await page.goto(f"{shop.url}/admin")
    await page.fill("#token", TOKEN)
    await page.click(".door-card button")
    await page.wait_for_selector("h1:has-text('Overview')")
    return page


async def goes(page: Any, *links: str) -> None:
    """Follow these links, one after the other."""
    for link in links:
        await page.click(f"a:has-text('{link}')")
        await page.wait_for_load_state()


async def press(page: Any, button: str, said: str) -> None:
    """Press a button, and wait for what the console says then."""
    await page.click(f"button:has-text('{button}')")
    await page.wait_for_selector(f"[role=status]:has-text('{said}')")


async def looks(page: Any, about: str) -> None:
    """From the overview to where it sends one about something that needs attention."""
    await page.click(f".attention li:has-text('{about}') a")
    await page.wait_for_load_state()


async def test_a_wrong_secret(browser: Any, shop: Shop) -> None:
    """What was refused is taken in once the secret is right, beside what the provider sends again."""
    async with shop.serving(RELAY_ACME_SECRET=OTHER):
        assert [401, 401, 401] == [await shop.tell(number) for number in (1, 2, 3)]
        await shop.has_refused(3)
        page = await signed_in(browser, shop)
        await looks(page, "signatures are failing")
        await page.wait_for_selector("text=Most likely the secret belongs to another endpoint")
        await page.fill("#q", "pay_2")
        await page.press("#q", "Enter")
        await page.wait_for_selector("text=was refused for its signature")
        await page.goto(f"{shop.url}/admin/repair?tab=refused")
        await press(page, "Check again: all", "None of 3 fits with the secrets of now")
        await page.close()
    async with shop.serving():
        assert 200 == await shop.tell(1)
        page = await signed_in(browser, shop)
        await goes(page, "Repair", "Refused")
        await page.wait_for_selector("text=3 fit with the secrets of now")
        await press(page, "Check again: all", "3 of 3 fit now and were taken in")
        await page.wait_for_selector("text=No signature was refused")
        await shop.receives("pay_1", "pay_2", "pay_3")


async def test_a_mappers_bug(browser: Any, shop: Shop) -> None:
    """What failed is mapped at the start of the corrected one, what it left out is sent, what was sent is listed."""
    mapper(shop.folder, has_bug=True)
    async with shop.serving():
        for number, currency in enumerate(("eur", "usd", "gbp", "jpy"), 1):
            assert 200 == await shop.tell(number, currency=currency)
        await shop.receives("pay_1", "pay_4")
        page = await signed_in(browser, shop)
        await looks(page, "A mapper failed on acme payment.captured")
        await page.wait_for_selector("text=KeyError: 'rate'")
        await page.close()
    mapper(shop.folder)
    async with shop.serving():
        await shop.receives("pay_1", "pay_2", "pay_4")
        page = await signed_in(browser, shop)
        await goes(page, "Repair", "Told wrongly")
        await page.select_option("#source", "acme")
        await page.click("button:has-text('Look')")
        await page.wait_for_selector("#new:has-text('ntf_3')")
        await page.wait_for_selector("#changed:has-text('199900 → 1999')")
        await press(page, "Send what is missing: 1", "1 events put into the outbox")
        await shop.receives("pay_1", "pay_2", "pay_3", "pay_4")
        assert 0 == await page.locator("button:has-text('Send what is missing')").count()


async def test_the_destination_is_down(browser: Any, shop: Shop, run_relay: RunRelay, clock: Clock) -> None:
    """What waits leaves by itself, what was given up is sent again."""
    await destination_was_down(shop, run_relay, clock)
    async with shop.serving():
        page = await signed_in(browser, shop)
        await page.wait_for_selector(".attention >> text=2 events wait for default, the oldest for 10 min")
        await looks(page, "2 events wait")
        await goes(page, "ntf_2")
        await page.wait_for_selector("text=last answer")
        await shop.events_api.behave()
        await page.goto(f"{shop.url}/admin")
        await looks(page, "1 dead letter")
        await press(page, "Send again: all", "1 event put back into the outbox")
        await shop.receives("pay_1", "pay_2", "pay_3")
        await page.goto(f"{shop.url}/admin")
        await page.wait_for_selector("text=All is well.")


async def test_in_doubt(browser: Any, shop: Shop) -> None:
    """Of two batches without an answer one had arrived: it is marked, and the other one is sent again."""
    async with shop.serving(RELAY_IN_DOUBT="hold"):
        await shop.loses_answers()
        page = await signed_in(browser, shop)
        await looks(page, "2 events held in doubt")
        arrived = (await shop.events_api.received())[0]["properties"]["event_id"]
        await page.click(f"section.panel:has-text('{arrived}') button:has-text('They arrived')")
        await page.wait_for_selector("[role=status]:has-text('It is marked as sent.')")
        await press(page, "They did not: send again", "It is sent again.")
        await shop.receives("pay_1", "pay_2")
        await page.wait_for_selector("text=Nothing is in doubt")


async def test_a_silent_provider(
    browser: Any, shop: Shop, run_relay: RunRelay, clock: Clock, api: StripeApi, api_base: str
) -> None:
    """What it told nobody is fetched from its own books, and these are then equal."""
    variables = await stripe_was_silent(shop, run_relay, clock, api, api_base)
    async with shop.serving(**variables):
        page = await signed_in(browser, shop)
        await looks(page, "Source stripe is silent")
        await page.wait_for_selector("#stripe:has-text('longest pause of late')")
        await goes(page, "Books")
        await page.select_option("#since-stripe", "1d")
        await press(page, "Fetch what is missing", "3 were missing. 3 new events put into the outbox")
        await shop.receives(*(f"pi_{hour}" for hour in (*range(9), 10, 12, 14)))
        await page.click("button:has-text('Compare')")
        await page.wait_for_selector("#stripe .said:has-text('Equal')")


async def test_a_sale_told_twice(browser: Any, shop: Shop) -> None:
    """It counts once, and what told it again says so."""
    async with shop.serving():
        assert [200, 200, 200] == [
            await shop.tell(1),
            await shop.tell(1, notification="ntf_again"),
            await shop.tell(1),
        ]
        await shop.receives("pay_1")
        await shop.has_mapped()
        page = await signed_in(browser, shop)
        await page.fill("#q", "pay_1")
        await page.press("#q", "Enter")
        await page.wait_for_selector("text=purchase of pay_1 counts once (told once more, sent once more: held back)")
        await goes(page, "ntf_again")
        await page.wait_for_selector("text=Not counted again")
        await shop.receives("pay_1")
