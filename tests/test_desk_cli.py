"""The operator's terminal: what came, why, and what is done about it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from relay.clock import unix_ms
from tests import acme
from tests.commands import Commands, mount_acme
from tests.conftest import RunningRelay, RunRelay, until
from tests.test_rejecting import kept, refused
from tests.things import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def command(tmp_path: Path, store_variables: dict[str, str]) -> Commands:
    return Commands(tmp_path, {**mount_acme(tmp_path), "RELAY_ACME_SECRET": acme.SECRET, **store_variables})


async def test_a_sale_that_was_told_twice_is_explained_in_both_directions(
    command: Commands, run_relay: RunRelay
) -> None:
    async with run_relay() as relay:
        await relay.post(acme.captured(1))
        await relay.post(acme.captured(1, notification="ntf_again"))
        (event,) = await relay.store.events()
    by_order, by_event, by_person = [
        (await command("explain", name, "--json")).json["deliveries"]
        for name in ("pay_1", event.event_id, "buyer@example.com")
    ]
    shown = await command("explain", "pay_1")
    nothing = await command("explain", "pay_unknown")

    assert 2 == len(by_order)
    assert {"ntf_1", "ntf_again"} == {one["notifications"][0]["notification"] for one in by_order}
    assert by_order == by_event == by_person
    assert "told again by ntf_again" in shown.out
    assert "buyer@example.com" not in shown.out
    assert 1 == nothing.code


async def test_what_came_is_listed(command: Commands, run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        await relay.post(acme.captured(1))
        await relay.post({"id": "ntf_2", "type": "payment.authorized"})
    every = (await command("deliveries", "--json")).json
    ignored = (await command("deliveries", "--status", "ignored", "--json")).json
    events = (await command("events", "--name", "purchase", "--json")).json
    tail = await command("tail", "--no-follow", "--json")
    wrong = await command("deliveries", "--status", "odd")

    assert ["ntf_2", "ntf_1"] == [row["notification"] for row in every]
    assert ["ntf_2"] == [row["notification"] for row in ignored]
    assert ["ntf_1"] == [row["notification"] for row in events]
    assert ["ntf_1", "ntf_2"] == [orjson.loads(line)["notification"] for line in tail.out.splitlines()]
    assert 2 == wrong.code


async def test_a_wrong_secret_is_diagnosed_and_repaired(command: Commands, run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        await refused(relay, secret="acme_new")
        await until(lambda: kept(relay))
        doctor = await command("doctor", "--source", "acme", "--json")
        corrected = {"RELAY_ACME_SECRET": f"{acme.SECRET},acme_new"}
        now = await command("doctor", "--source", "acme", **corrected)
        look = await command("rejected", "retry", "--json", **corrected)
        done = await command("rejected", "retry", "--yes", "--json", **corrected)
        await until(relay.is_mapped)
        found = await relay.store.console.find("pay_1")

    assert (1, "unknown") == (doctor.code, doctor.json["refused"][0]["cause"])
    assert "it fits with the settings of now" in now.out
    assert ((1, 0), (1, 1)) == ((look.json["fit"], look.json["taken"]), (done.json["fit"], done.json["taken"]))
    assert ["mapped"] == [one.outcome.value for one in found]


async def test_shadow_mode_is_switched_and_noted(command: Commands, run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        on = await command("shadow", "acme", "--for", "1h", "--json")
        too_long = await command("shadow", "acme", "--for", "2d")
        off = await command("shadow", "acme", "--off", "--json")
        deeds = [deed.action for deed in await relay.store.console.deeds()]

    assert (["acme"], 2, []) == ([row["source"] for row in on.json], too_long.code, off.json)
    assert ["shadow mode off", "shadow mode"] == deeds


async def test_the_overview_says_what_needs_attention_and_what_it_was_worth(
    command: Commands, run_relay: RunRelay, clock: Clock
) -> None:
    clock.now_ms = unix_ms()
    provider = acme.make()
    async with run_relay({"acme": provider}) as relay:
        await relay.post(acme.captured(1))
        await relay.post(acme.captured(1, notification="ntf_again"))
        await relay.post({"id": "ntf_odd", "type": "payment.captured", "payment": {}})
        await until(lambda: _is_sent(relay))
    found = (await command("overview", "--since", "1h", "--json")).json
    shown = await command("overview")

    assert ["failed"] == [one["alarm"] for one in found["attention"]]
    assert {"deliveries": 3, "mapped": 2, "parked": 1, "duplicates": 1, "events": 1, "sent": 1}.items() <= found[
        "totals"
    ].items()
    assert [{"currency": "EUR", "forwarded": "19.99", "not_yet": "0", "given_back": "0"}] == found["revenue"]
    assert ["healthy"] == [one["status"] for one in found["sources"]]
    assert "19.99" in shown.out


async def _is_sent(relay: RunningRelay) -> bool:
    return [event.state.value for event in await relay.store.events()] == ["sent"]


async def test_the_audit_log_is_read_in_the_terminal(command: Commands, run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        await relay.store.console.note(actor="mara", action="revealed", subject="1", details={"why": "asked"})
    rows = (await command("audit", "--json")).json

    assert [("mara", "revealed", "1", {"why": "asked"})] == [
        (row["who"], row["action"], row["what"], row["details"]) for row in rows
    ]
    assert "why=asked" in (await command("audit", "--action", "revealed")).out
    assert [] == (await command("audit", "--action", "signed in", "--json")).json
