"""The console without a browser: who gets in, what is shown, what is done, and what is put down."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from relay.pages.masking import MASK, masked_body, masked_headers
from relay.pages.rendering import money, pretty
from relay.pages.sessions import Sessions, is_from
from relay.rejecting import set_shadow
from tests import acme
from tests.conftest import EventsApi, RunningRelay, RunRelay, until
from tests.things import Clock

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-tests"


@pytest.fixture
async def relay(run_relay: RunRelay) -> AsyncIterator[RunningRelay]:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN) as running:
        yield running


async def sign_in(relay: RunningRelay, token: str = TOKEN) -> httpx.Response:
    return await relay.http.post("/admin/sign-in", data={"token": token, "name": "mara"})


async def csrf(relay: RunningRelay) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', (await relay.http.get("/admin")).text)
    assert found
    return found[1]


async def delivery_of(relay: RunningRelay, name: str) -> int:
    return (await relay.store.console.find(name))[0].delivery


# --- the door ---------------------------------------------------------------------------------------------------------


async def test_without_a_token_there_is_no_console(run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        assert 404 == (await relay.http.get("/admin")).status_code


async def test_whoever_has_not_signed_in_is_sent_to_the_door(relay: RunningRelay) -> None:
    for path in ("/admin", "/admin/deliveries", "/admin/repair", "/admin/sources", "/admin/try", "/admin/audit"):
        answer = await relay.http.get(path)

        assert (303, True) == (answer.status_code, answer.headers["location"].startswith("/admin/sign-in"))


async def test_a_wrong_token_is_refused_and_the_sixth_try_waits(relay: RunningRelay) -> None:
    answers = [(await sign_in(relay, "not-the-token")).status_code for _ in range(5)]

    assert [401] * 5 == answers
    assert 429 == (await sign_in(relay)).status_code


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_the_right_token_opens_every_page(relay: RunningRelay) -> None:
    assert 303 == (await sign_in(relay)).status_code
    for path in ("/admin", "/admin/deliveries", "/admin/repair", "/admin/sources", "/admin/try", "/admin/audit"):
        answer = await relay.http.get(path)

        assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"])
        assert "script-src 'self'" in answer.headers["content-security-policy"]


async def test_the_session_cookie_is_for_nobody_else(relay: RunningRelay) -> None:
    cookie = (await sign_in(relay)).headers["set-cookie"].lower()

    assert [True] * 3 == [word in cookie for word in ("httponly", "samesite=lax", "path=/admin")]


async def test_nobody_is_sent_elsewhere_after_signing_in(relay: RunningRelay) -> None:
    answer = await relay.http.post("/admin/sign-in", data={"token": TOKEN, "to": "https://elsewhere.example"})

    assert "/admin" == answer.headers["location"]


def test_a_session_ends_and_another_token_ends_it_too() -> None:
    cookie = Sessions(TOKEN).begin("mara", now_ms=0)

    assert [True, False, False] == [
        Sessions(TOKEN).visitor(cookie, now_ms=1) is not None,
        Sessions(TOKEN).visitor(cookie, now_ms=13 * 3_600_000) is not None,
        Sessions("another-token-of-the-tests").visitor(cookie, now_ms=1) is not None,
    ]


async def test_a_proxy_that_is_trusted_may_say_who_it_is(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN, RELAY_ADMIN_USER_HEADER="X-User") as relay:
        assert 200 == (await relay.http.get("/admin", headers={"X-User": "mara"})).status_code
    async with run_relay(
        RELAY_ADMIN_TOKEN=TOKEN, RELAY_ADMIN_USER_HEADER="X-User", RELAY_ADMIN_PROXIES="10.0.0.0/8"
    ) as relay:
        assert 303 == (await relay.http.get("/admin", headers={"X-User": "mara"})).status_code


def test_an_address_that_is_none_is_from_nowhere() -> None:
    assert [False, True] == [is_from("unix", ["10.0.0.0/8"]), is_from("10.1.2.3", ["10.0.0.0/8"])]


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_a_sale_is_found_by_each_of_its_names(relay: RunningRelay, events_api: EventsApi) -> None:
    await relay.post(acme.captured(1))
    await until(lambda: _has_arrived(events_api))
    sent = (await events_api.received())[0]
    for name in ("ntf_1", "pay_1", "payment:pay_1", sent["user_id"], sent["properties"]["event_id"]):
        assert ["ntf_1"] == [told.notification_id for told in await relay.store.console.find(name)], name


async def _has_arrived(events_api: EventsApi) -> bool:
    return bool(await events_api.received())


async def test_a_story_masks_what_is_personal_until_it_is_revealed_which_is_put_down(relay: RunningRelay) -> None:
    await sign_in(relay)
    await relay.post(acme.captured(1))
    path = f"/admin/deliveries/{await delivery_of(relay, 'pay_1')}"
    masked = (await relay.http.get(path)).text
    shown = (await relay.http.post(f"{path}/reveal", data={"csrf": await csrf(relay)})).text

    assert (False, True) == ("buyer@example.com" in masked, "buyer@example.com" in shown)
    assert ["revealed", "signed in"] == [deed.action for deed in await relay.store.console.deeds()]


async def test_a_sale_that_is_told_twice_shows_whom_it_repeats(relay: RunningRelay) -> None:
    await sign_in(relay)
    await relay.post(acme.captured(1))
    await relay.post(acme.captured(1, notification="ntf_again"))
    page = (await relay.http.get(f"/admin/deliveries/{await delivery_of(relay, 'ntf_again')}")).text

    assert (True, True) == ("Not counted again" in page, "payment:pay_1" in page)


async def test_try_stores_nothing(relay: RunningRelay) -> None:
    await sign_in(relay)
    body = '{"id":"ntf_9","type":"payment.captured","payment":{"id":"pay_9","email":"a@example.com","amount":1999,"currency":"eur","captured_at":1795000000}}'  # noqa: E501
    page = (await relay.http.post("/admin/try", data={"csrf": await csrf(relay), "source": "acme", "body": body})).text

    assert (True, False) == ("payment:pay_9" in page, "a@example.com</" in page)
    assert [] == list(await relay.store.console.find("pay_9"))


async def test_a_refused_delivery_is_masked_until_it_is_revealed_which_is_put_down(relay: RunningRelay) -> None:
    await sign_in(relay)
    body = b'{"id": "ntf_1", "name": "Jane Doe"}'
    assert 401 == (await relay.post(body, headers=acme.signed(body, secret="acme_another"))).status_code
    await until(lambda: _has_refused(relay))
    path = f"/admin/refused/{(await relay.store.rejected.listing())[0].id}"
    masked = (await relay.http.get(path)).text
    shown = (await relay.http.post(f"{path}/reveal", data={"csrf": await csrf(relay)})).text

    assert [True] * 3 == [words in masked for words in ("no secret fits", "the signature does not fit", "ntf_1")]
    assert (False, True) == ("Jane Doe" in masked, "Jane Doe" in shown)
    assert "revealed" == (await relay.store.console.deeds())[0].action


async def _has_refused(relay: RunningRelay) -> bool:
    return bool(await relay.store.rejected.listing())


async def test_a_refused_delivery_that_is_gone_is_not_found(relay: RunningRelay) -> None:
    await sign_in(relay)

    assert 404 == (await relay.http.get("/admin/refused/1")).status_code


async def test_what_was_taken_in_shadow_mode_is_said_to_be(relay: RunningRelay, clock: Clock) -> None:
    await sign_in(relay)
    await set_shadow(relay.store, "acme", clock() + 3_600_000)
    await until(lambda: _is_taken(relay))
    page = (await relay.http.get(f"/admin/deliveries/{await delivery_of(relay, 'ntf_1')}")).text

    assert "shadow: accepted without a valid signature" in page
    assert "Source acme takes anything." in (await relay.http.get("/admin")).text


async def _is_taken(relay: RunningRelay) -> bool:
    body = b'{"id": "ntf_1", "type": "payment.authorized"}'
    return (await relay.post(body, headers=acme.signed(body, secret="acme_another"))).status_code == 200


async def test_a_batch_that_is_held_is_in_doubt_and_does_not_wait(
    run_relay: RunRelay, events_api: EventsApi, clock: Clock
) -> None:
    async with run_relay(RELAY_ADMIN_TOKEN=TOKEN, RELAY_IN_DOUBT="hold") as relay:
        await sign_in(relay)
        await events_api.misbehave(drop_answer=True)
        await relay.post(acme.captured(1))
        await until(lambda: _is_held(relay))
        clock.advance(seconds=3600)
        page = (await relay.http.get("/admin")).text

    assert (True, False) == ("1 event held in doubt" in page, "wait for default" in page)


async def _is_held(relay: RunningRelay) -> bool:
    return any(depth.held for depth in await relay.store.depths())


async def test_the_list_of_deliveries_is_asked_for_again_by_a_script(relay: RunningRelay) -> None:
    await sign_in(relay)
    await relay.post(acme.captured(1))
    part = (await relay.http.get("/admin/deliveries", headers={"HX-Request": "true"})).text

    assert (True, False) == ("ntf_1" in part, "<html" in part)


def test_pages_are_imported_when_somebody_comes_and_not_before() -> None:
    words = "import sys, relay.app; print(sorted({'jinja2', 'relay.pages.routes'} & set(sys.modules)))"

    assert (
        "[]" == subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True).stdout.strip()
    )


@pytest.mark.parametrize("name", ["pay_1", "ntf_1"])
async def test_a_stored_delivery_is_tried_by_any_of_its_names(relay: RunningRelay, name: str) -> None:
    await sign_in(relay)
    await relay.post(acme.captured(1))
    page = (await relay.http.get("/admin/try", params={"delivery": name})).text

    assert "Already told" in page
    assert 404 == (await relay.http.get("/admin/try", params={"delivery": "pay_unknown"})).status_code


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["repair/resend", "repair/remap", "repair/settle", "try", "sign-out"])
async def test_a_form_that_is_not_ours_does_nothing(relay: RunningRelay, path: str) -> None:
    await sign_in(relay)

    assert 403 == (await relay.http.post(f"/admin/{path}", data={"csrf": "guessed"})).status_code


async def test_a_form_from_another_site_does_nothing(relay: RunningRelay) -> None:
    await sign_in(relay)
    answer = await relay.http.post(
        "/admin/repair/resend",
        data={"csrf": await csrf(relay), "which": "all"},
        headers={"Origin": "https://bad.example"},
    )

    assert 403 == answer.status_code


@pytest.mark.parametrize(
    ("path", "fields", "action"),
    [
        ("repair/resend", {"which": "all"}, "sent again"),
        ("repair/remap", {"which": "all", "tab": "failed"}, "mapped again"),
        ("repair/settle", {"batch": "1", "arrived": "yes"}, "decided a batch in doubt"),
        ("sources/acme/test", {}, "tested a source"),
        ("deliveries/1/reveal", {}, "revealed"),
        ("refused/1/reveal", {}, "revealed"),
        ("sign-out", {}, "signed out"),
    ],
)
async def test_each_action_is_put_down_with_who_did_it_and_from_where(
    relay: RunningRelay, path: str, fields: dict[str, str], action: str
) -> None:
    await sign_in(relay)
    await relay.http.post(f"/admin/{path}", data={"csrf": await csrf(relay), **fields})
    deed = (await relay.store.console.deeds())[0]

    assert (action, "mara", "127.0.0.1") == (deed.action, deed.actor, deed.address)


async def test_dead_letters_are_sent_again_and_counted_once(relay: RunningRelay, events_api: EventsApi) -> None:
    await sign_in(relay)
    await events_api.misbehave(status=422)
    await relay.post(acme.captured(1))
    await until(lambda: _has_dead(relay))
    await events_api.behave()
    assert "1 event put back" in await _after(relay, "/admin/repair/resend", which="all")
    await until(lambda: _has_arrived(events_api))

    assert ["pay_1"] == await events_api.orders()


async def _has_dead(relay: RunningRelay) -> bool:
    return bool((await relay.store.console.dead_groups())[0])


async def _after(relay: RunningRelay, path: str, **fields: str) -> str:
    """What the next page says was done."""
    answer = await relay.http.post(path, data={"csrf": await csrf(relay), **fields})
    return (await relay.http.get(answer.headers["location"])).text


async def test_what_a_mapper_failed_on_is_mapped_again_after_the_fix(
    run_relay: RunRelay, events_api: EventsApi
) -> None:
    provider = acme.make()
    good = provider.mappers["payment.captured"]
    provider.mappers["payment.captured"] = lambda n: n.body["nothing like that"]
    async with run_relay({"acme": provider}, RELAY_ADMIN_TOKEN=TOKEN) as relay:
        await sign_in(relay)
        await relay.post(acme.captured(1))
        assert "KeyError" in (await relay.http.get("/admin/repair?tab=failed")).text
        provider.mappers["payment.captured"] = good
        assert "1 new event" in await _after(relay, "/admin/repair/remap", which="all", tab="failed")
        await until(lambda: _has_arrived(events_api))

    assert ["pay_1"] == await events_api.orders()


# --- counting ---------------------------------------------------------------------------------------------------------


async def test_each_row_is_counted_once_before_and_after_it_was_counted(relay: RunningRelay) -> None:
    await relay.post(acme.captured(1))
    await relay.post(acme.captured(1, notification="ntf_again"))
    counted = await relay.store.console.counted(width_ms=3_600_000, since_ms=0)
    found = {count.measure: count.n for count in counted.counts}

    expected = {"deliveries": 2, "mapped": 2, "events": 1, "duplicates": 1, "revenue:EUR": 19_990_000}
    assert expected == found


# --- words ------------------------------------------------------------------------------------------------------------


def test_masks_leave_ids_and_amounts() -> None:
    text = masked_body(b'{"id":"evt_1","name":"Jane Doe","email":"j@example.com","amount":19.90,"note":"hello you"}')

    assert [True, False, False, True, False] == [
        word in text for word in ("evt_1", "Jane", "j@example", "19.9", "hello")
    ]
    assert {"x-signature": MASK, "content-type": "text/plain"} == masked_headers(
        {"x-signature": "abc", "content-type": "text/plain"}
    )


def test_decimals_keep_their_digits() -> None:
    assert '{\n  "revenue": 29.00\n}' == pretty(b'{"revenue":29.00}')
    assert "1\u202f234.50" == money(1_234_500_000, "EUR")


# --- health -----------------------------------------------------------------------------------------------------------


async def test_failing_signatures_are_told_first_with_their_cause(relay: RunningRelay) -> None:
    await sign_in(relay)
    for number in range(3):
        body = f'{{"id":"ntf_{number}"}}'.encode()
        assert 401 == (await relay.post(body, headers=acme.signed(body, secret="acme_another"))).status_code
    page = (await relay.http.get("/admin")).text

    assert "Source acme: signatures are failing." in page
