"""What `make run` shows a newcomer, and what it must never do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.demo import to_sandbox
from relay.settings import load
from tests import acme
from tests.commands import Commands, Serving, mount_acme
from tests.conftest import API_KEY, EventsApi

pytestmark = pytest.mark.anyio

LAST_WORDS = "Serving until Ctrl-C."


@pytest.fixture
def relay(tmp_path: Path) -> Commands:
    return Commands(tmp_path, {"RELAY_PORT": "0"})


def shown(run: Serving) -> Any:
    """The event that was printed."""
    return json.loads(run.out.split("accepted this event:\n")[1].split("\n\n")[0])


def url(run: Serving, pattern: str) -> str:
    found = re.search(pattern, run.out)
    assert found
    return found[1]


async def test_it_sends_itself_one_signed_sale_and_shows_the_event_that_the_sandbox_took(relay: Commands) -> None:
    async with (
        relay.serving("serve", "--demo", says=LAST_WORDS) as run,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        received = (await http.get(url(run, r"(http\S+/received)"))).json()
        page = await http.get(url(run, r"(http\S+/docs)"))
        hint = url(run, r"Send another one +(.+)\n").split()
        to = hint[hint.index("--to") + 1]
        again = await relay(*hint[hint.index("send") :], "--json")
        repeat = await relay("send", "stripe", "checkout.session.completed", "--to", to, "--id", "evt_again")
        more = (await http.get(url(run, r"(http\S+/received)"))).json()
    event = shown(run)

    assert [event] == received
    assert ("conversion", "purchase") == (event["event_type"], event["event_name"])
    assert "NO OAA_API_KEY IS SET: events go to the built-in SANDBOX at http://127.0.0.1:" in run.out
    assert 200 == page.status_code
    assert (0, [200]) == (again.code, [answer["status"] for answer in again.json]), again.err
    assert (0, True) == (repeat.code, repeat.out.startswith("200 ")), repeat.err
    assert 1 <= len(more) <= 3
    assert 0 == run.code
    assert "Traceback" not in run.out + run.err


async def test_where_no_demonstration_was_a_sample_needs_a_secret(relay: Commands) -> None:
    sent = await relay("send", "stripe", "checkout.session.completed")

    assert 2 == sent.code
    assert "set RELAY_STRIPE_SECRET, or pass --secret" in " ".join(sent.err.split())


async def test_a_second_run_in_the_same_folder_makes_another_sale(relay: Commands, tmp_path: Path) -> None:
    """With another source the first time, with a secret of one's own the second time: both are used as they are."""
    acmes = {**mount_acme(tmp_path), "RELAY_ACME_SECRET": acme.SECRET}
    async with relay.serving("serve", "--demo", says=LAST_WORDS, **acmes) as first:
        pass
    async with relay.serving("serve", "--demo", says=LAST_WORDS, RELAY_STRIPE_SECRET="whsec_mine") as second:
        pass
    sales = [shown(run) for run in (first, second)]

    assert ["purchase", "purchase"] == [sale["event_name"] for sale in sales]
    assert sales[0]["properties"]["event_id"] != sales[1]["properties"]["event_id"]
    assert "whsec_demo" in first.out
    assert "whsec_" not in second.out


async def test_with_a_real_destination_nothing_is_made_up(relay: Commands, events_api: EventsApi) -> None:
    real = {"OAA_BASE_URL": events_api.url, "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY}
    async with relay.serving("serve", "--demo", says="Listening on http://127.0.0.1:", **real) as run:
        pass

    assert {"requests": 0, "events": 0} == {key: (await events_api.stats())[key] for key in ("requests", "events")}
    assert "NO SOURCE HAS A SECRET" in run.err
    assert 0 == run.code


def test_what_is_made_for_the_sandbox_never_reaches_a_real_project_later(tmp_path: Path) -> None:
    providers = {"acme": acme.make()}
    environ = {"RELAY_ACME_SECRET": acme.SECRET, "RELAY_TEST_MODE": "forward"}
    before = load(providers, environ=environ, env_file=tmp_path / ".env")

    after = to_sandbox(before, "http://127.0.0.1:8001")

    assert ("default", "default") == (before.sources["acme"].destination, before.sources["acme"].test_destination)
    assert ("sandbox", "sandbox") == (after.sources["acme"].destination, after.sources["acme"].test_destination)
    assert ["sandbox"] == list(after.destinations)
