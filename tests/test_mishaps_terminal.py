"""Six mishaps, each found and put right with `relay ...` commands alone; `docs/mishaps.md` tells them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer

from relay.cli import app
from relay.serving import serving
from tests import acme
from tests.commands import ROOT
from tests.conftest import EventsApi, RunRelay
from tests.mishaps import Shop, destination_was_down, mapper, shop_in, stripe_was_silent
from tests.stripe_api import StripeApi
from tests.things import Clock

pytestmark = pytest.mark.anyio

OTHER = "acme_of_another_endpoint"


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


def test_each_command_of_the_runbook_is_one() -> None:
    page = (ROOT / "docs" / "mishaps.md").read_text()
    told = set(re.findall(r"(?:^\$ |`)relay ([a-z][^`#\n]*)", page, flags=re.MULTILINE))
    wrong = [words for words in told if not is_command(words.split())]

    assert [] == wrong
    assert len(told) > 15


def is_command(words: list[str]) -> bool:
    """Whether the terminal knows the command and its options; what stands for a name is left out."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    is_whole = not hasattr(command, "commands") or command.invoke_without_command
    return is_whole and all(word in known for word in words if word.startswith("--"))


async def test_a_wrong_secret(shop: Shop) -> None:
    """What was refused is taken in once the secret is right, beside what the provider sends again."""
    async with shop.serving(RELAY_ACME_SECRET=OTHER):
        assert [401, 401, 401] == [await shop.tell(number) for number in (1, 2, 3)]
        await shop.has_refused(3)
        (state,) = (await shop.command("sources", "--json", RELAY_ACME_SECRET=OTHER)).json
        doctor = await shop.command("doctor", "--source", "acme", RELAY_ACME_SECRET=OTHER)
        missed = await shop.command("explain", "pay_2")
    async with shop.serving():
        now = await shop.command("doctor", "--source", "acme")
        assert 200 == await shop.tell(1)
        done = await shop.command("rejected", "retry", "--source", "acme", "--yes")
        await shop.receives("pay_1", "pay_2", "pay_3")

    assert ("signatures failing", 1) == (state["status"], doctor.code)
    assert "Most likely the secret belongs to another endpoint" in doctor.out
    assert "relay rejected show" in missed.out
    assert "relay rejected retry --source acme --yes takes it in" in now.out
    assert "3 of 3 fit now and are in the inbox" in done.out


async def test_a_mappers_bug(shop: Shop) -> None:
    """What failed is mapped at the start of the corrected one, what it left out is sent, what was sent is listed."""
    mapper(shop.folder, has_bug=True)
    async with shop.serving():
        for number, currency in enumerate(("eur", "usd", "gbp", "jpy"), 1):
            assert 200 == await shop.tell(number, currency=currency)
        await shop.receives("pay_1", "pay_4")
        failed = await shop.command("deliveries", "--status", "failed", "--json")
    mapper(shop.folder)
    async with shop.serving():
        await shop.receives("pay_1", "pay_2", "pay_4")
        look = (await shop.command("remap", "--source", "acme", "--since", "1d", "--json")).json
        done = (await shop.command("remap", "--source", "acme", "--since", "1d", "--yes", "--json")).json
        await shop.receives("pay_1", "pay_2", "pay_3", "pay_4")
        again = (await shop.command("remap", "--source", "acme", "--since", "1d", "--yes", "--json")).json

    assert [("ntf_2", "KeyError: 'rate'")] == [(row["notification"], row["error"]) for row in failed.json]
    assert (["ntf_3"], ["ntf_4"], 0) == (
        [row["notification"] for row in look["new"]], [row["notification"] for row in look["changed"]], look["events"],
    )  # fmt: skip
    assert {"revenue": {"was": 199900, "would_be": 1999}} == look["changed"][0]["fields"]
    assert (1, 0) == (done["events"], again["events"])


async def test_the_destination_is_down(shop: Shop, run_relay: RunRelay, clock: Clock) -> None:
    """What waits leaves by itself, what was given up is sent again."""
    await destination_was_down(shop, run_relay, clock)
    async with shop.serving():
        outbox = (await shop.command("outbox", "--json")).json
        doctor = await shop.command("doctor")
        dead = (await shop.command("dead", "list", "--json")).json
        await shop.events_api.behave()
        resent = await shop.command("dead", "resend", "--all")
        await shop.receives("pay_1", "pay_2", "pay_3")
        empty = await shop.command("outbox")

    (depth,) = outbox["destinations"]
    assert (2, 1) == (depth["pending"] + depth["batched"], depth["dead"])
    assert ["503: The sandbox was told to answer so"] == [batch["words"] for batch in outbox["batches"]]
    assert 1 == doctor.code
    assert "answers in an odd way: 503" in doctor.out
    assert ["purchase"] == [row["name"] for row in dead]
    assert "The sandbox was told to answer so" == dead[0]["reason"]
    assert "1 put back into the outbox" in resent.out
    assert "The outbox is empty" in empty.out


async def test_in_doubt(shop: Shop) -> None:
    """Of two batches without an answer one had arrived: it is marked, and the other one is sent again."""
    async with shop.serving(RELAY_IN_DOUBT="hold"):
        await shop.loses_answers()
        batches = [row["batch"] for row in (await shop.command("outbox", "--json")).json["batches"]]
        there = {event["properties"]["event_id"] for event in await shop.events_api.received()}
        for batch in batches:
            shown = (await shop.command("outbox", "show", batch, "--json")).json
            has_arrived = {event["event_id"] for event in shown["events"]} <= there
            ended = await shop.command("outbox", "release", batch, "--accepted" if has_arrived else "--resend")
            assert 0 == ended.code
        await shop.receives("pay_1", "pay_2")
        empty = await shop.command("outbox")

    assert 2 == len(batches)
    assert "The outbox is empty" in empty.out


async def test_a_silent_provider(shop: Shop, run_relay: RunRelay, clock: Clock, api: StripeApi, api_base: str) -> None:
    """What it told nobody is fetched from its own books, and these are then equal."""
    variables = await stripe_was_silent(shop, run_relay, clock, api, api_base)
    async with shop.serving(**variables):
        states = {row["source"]: row for row in (await shop.command("sources", "--json", **variables)).json}
        before = await shop.command("reconcile", "stripe", "--since", "1d", "--json", **variables)
        done = (await shop.command("backfill", "stripe", "--since", "1d", "--json", **variables)).json
        await shop.receives(*(f"pi_{hour}" for hour in (*range(9), 10, 12, 14)))
        after = await shop.command("reconcile", "stripe", "--since", "1d", "--json", **variables)

    assert ("silent", 1) == (states["stripe"]["status"], states["stripe"]["usual_gap_h"])
    assert (1, 3) == (before.code, before.json["counts"]["missing"])
    assert (12, 3, 3) == (done["seen"], done["new"], done["events"])
    assert (0, True) == (after.code, after.json["equal"])


async def test_a_sale_told_twice(shop: Shop) -> None:
    """It counts once, and what told it again says so."""
    async with shop.serving():
        assert [200, 200, 200] == [
            await shop.tell(1),
            await shop.tell(1, notification="ntf_again"),
            await shop.tell(1),
        ]
        await shop.has_mapped()
        shown = await shop.command("explain", "pay_1")
        twice = (await shop.command("duplicates", "--json")).json
        await shop.receives("pay_1")

    assert "purchase of pay_1 counts once" in shown.out
    assert "told again by ntf_again" in shown.out
    assert [("ntf_again", "payment:pay_1")] == [(row["notification_id"], row["key"]) for row in twice]
    assert acme.SECRET not in shown.out
