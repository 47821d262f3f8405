"""The console in a real browser: every page, light, dark and as wide as a phone, accessible and without errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import acme
from tests.conftest import RunningRelay, RunRelay

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
AXE = (Path(__file__).parent / "assets" / "axe.min.js").read_text(encoding="utf-8")
TOKEN = "a-token-of-the-tests"
PAGES = ("", "/deliveries", "/repair", "/repair?tab=failed", "/repair?tab=doubt", "/sources", "/try", "/audit")
LOOKS = {"light": (1440, 900), "dark": (1440, 900), "phone": (390, 844)}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; CHROMIUM may name one"),
]


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with playwright.async_playwright() as started:
        opened = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        await opened.close()


@pytest.fixture
async def relay(run_relay: RunRelay) -> AsyncIterator[RunningRelay]:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as running:
        await running.post(acme.captured(1))
        await running.post({"id": "ntf_odd", "type": "payment.captured", "payment": {}})
        yield running


async def signed_in(browser: Any, relay: RunningRelay, look: str = "light") -> Any:
    width, height = LOOKS[look]
    scheme = "dark" if look == "dark" else "light"
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    await page.goto(f"{relay.url}/admin")
    await page.fill("#token", TOKEN)
    await page.click(".door-card button")
    await page.wait_for_selector("h1:has-text('Overview')")
    return page


@pytest.mark.parametrize("look", LOOKS)
async def test_every_page_is_accessible_and_fits(browser: Any, relay: RunningRelay, look: str) -> None:
    page = await signed_in(browser, relay, look)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    delivery = (await relay.store.console.find("pay_1"))[0].delivery
    found: dict[str, Any] = {}
    for path in (*PAGES, f"/deliveries/{delivery}"):
        await page.goto(f"{relay.url}/admin{path}")
        await page.evaluate(AXE)
        violations = await page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes[0].html]))")
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if violations or overflow > 0:
            found[path] = (violations, overflow)

    assert ({}, []) == (found, errors)


async def test_an_order_is_found_from_the_search_and_revealed(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.keyboard.press("/")
    await page.keyboard.type("pay_1")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=payment:pay_1")
    assert "buyer@example.com" not in await page.content()
    await page.click("text=Reveal")
    await page.wait_for_selector("text=buyer@example.com")


async def test_a_payload_is_tried(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.goto(f"{relay.url}/admin/try?source=acme")
    await page.fill("#body", '{"id": "ntf_2", "type": "payment.authorized"}')
    await page.click("text=Map it")
    await page.wait_for_selector("#results >> text=left out")


async def test_the_theme_can_be_chosen(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.click("#theme")

    assert "dark" == await page.evaluate("document.documentElement.dataset.theme")
