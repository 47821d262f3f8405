"""The console in a real browser: every page, light, dark and as wide as a phone, accessible and without errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import acme
from tests.conftest import RunningRelay, RunRelay, until

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
AXE = (Path(__file__).parent / "assets" / "axe.min.js").read_text(encoding="utf-8")
TOKEN = "a-token-of-the-tests"
PAGES = (
    "", "?window=hour", "?window=month", "/deliveries", "/deliveries?status=dead", "/repair", "/repair?tab=failed",
    "/repair?tab=not_mapped", "/repair?tab=doubt", "/repair?tab=refused", "/repair?tab=wrong", "/sources", "/books",
    "/try?source=acme", "/audit", "/help",
)  # fmt: skip
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
        await running.post(acme.captured(1, notification="ntf_again"))
        await running.post({"id": "ntf_odd", "type": "payment.captured", "payment": {}})
        refused = b'{"id": "ntf_refused", "name": "Jane Doe"}'
        await running.post(refused, headers=acme.signed(refused, secret="acme_another"))
        await until(lambda: _has_refused(running))
        yield running


async def _has_refused(relay: RunningRelay) -> bool:
    return bool(await relay.store.rejected.listing())


async def signed_in(browser: Any, relay: RunningRelay, look: str = "light", **context: Any) -> Any:
    width, height = LOOKS[look]
    scheme = "dark" if look == "dark" else "light"
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
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
    refused = (await relay.store.rejected.listing())[0].id
    for path in (*PAGES, f"/deliveries/{delivery}", f"/refused/{refused}"):
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
    await page.keyboard.type("ntf_1")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=payment:pay_1")
    assert "buyer@example.com" not in await page.content()
    await page.click("text=Reveal")
    await page.wait_for_selector("text=buyer@example.com")


async def test_a_payload_is_tried(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.goto(f"{relay.url}/admin/try?source=acme")
    await page.fill("#body", '{"id": "ntf_2", "type": "payment.authorized"}')
    await page.click("text=Map the body")
    await page.wait_for_selector("#results >> text=left out")


async def test_the_theme_can_be_chosen(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.click("#theme")

    assert "dark" == await page.evaluate("document.documentElement.dataset.theme")


async def test_the_door_is_accessible(browser: Any, relay: RunningRelay) -> None:
    page = await browser.new_page()
    await page.goto(f"{relay.url}/admin/sign-in")
    await page.evaluate(AXE)

    assert [] == await page.evaluate("axe.run().then(r => r.violations.map(v => v.id))")


async def test_all_of_it_works_without_scripts(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay, java_script_enabled=False)
    await page.fill("#q", "pay_1")
    await page.press("#q", "Enter")
    await page.click("tr:has-text('ntf_1') a")
    await page.click("text=Reveal")
    await page.wait_for_selector("text=buyer@example.com")
    await page.goto(f"{relay.url}/admin/sources")
    await page.click("button:has-text('Test')")
    await page.wait_for_selector("text=A delivery signed with secret 1 is accepted.")
    await page.goto(f"{relay.url}/admin/repair?tab=failed")
    await page.click("button:has-text('Map again: all')")
    await page.wait_for_selector("text=1 notification still parked")


async def test_the_keyboard_gets_everywhere(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.keyboard.press("Tab")
    assert "To the content" == await page.evaluate("document.activeElement.textContent")
    await page.keyboard.press("Enter")
    assert "main" == await page.evaluate("document.activeElement.id")
    await page.keyboard.press("Tab")
    assert "Last hour" == await page.evaluate("document.activeElement.textContent")


@pytest.mark.parametrize("path", ["", "/deliveries"])
async def test_what_comes_shows_without_loading_the_page_again(browser: Any, relay: RunningRelay, path: str) -> None:
    page = await signed_in(browser, relay)
    await page.goto(f"{relay.url}/admin{path}")
    await page.evaluate("window.isSame = true")
    for number in range(2, 9):
        await relay.post(acme.captured(number))
    await page.evaluate("document.body.dispatchEvent(new Event('tick'))")
    await page.wait_for_selector("text=ntf_8" if path else ".tiles dd:has-text('10')")

    assert await page.evaluate("window.isSame")


async def test_a_refused_delivery_tells_its_cause_and_is_revealed(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay)
    await page.goto(f"{relay.url}/admin/repair?tab=refused")
    await page.click("table.rows a")
    await page.wait_for_selector("text=Likely cause")
    assert "Jane Doe" not in await page.content()
    await page.click("text=Reveal")
    await page.wait_for_selector("text=Jane Doe")
    assert "revealed" == (await relay.store.console.deeds(action="revealed"))[0].action


async def test_the_url_of_a_source_is_copied(browser: Any, relay: RunningRelay) -> None:
    page = await signed_in(browser, relay, permissions=["clipboard-read", "clipboard-write"])
    await page.goto(f"{relay.url}/admin/sources")
    await page.click("button[aria-label='Copy the URL of acme']")

    assert f"{relay.url}/webhooks/acme" == await page.evaluate("navigator.clipboard.readText()")
