"""The command `relay` from outside: what is typed, what is said, and the exit code."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from relay.cli import app
from relay.store.base import Store
from relay.store.schema import EventState
from tests import acme
from tests.commands import Commands, mount_acme
from tests.conftest import API_KEY, EventsApi, RunningRelay, RunRelay, until
from tests.things import NOON, sale

pytestmark = pytest.mark.anyio

COMMANDS = [
    *(["serve"], ["sandbox"], ["send"], ["doctor"], ["providers"], ["hash"], ["remap"]),
    *(["backfill"], ["reconcile"], ["deliveries"], ["events"], ["sources"], ["explain"], ["tail"], ["shadow"]),
    *(["rejected"], ["rejected", "list"], ["rejected", "show"], ["rejected", "retry"]),
    *(["outbox"], ["outbox", "release"], ["dead"], ["dead", "list"], ["dead", "show"], ["dead", "resend"]),
]
REAL = {"OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY}


@pytest.fixture
def command(tmp_path: Path) -> Commands:
    """With Acme mounted, and the database of the fixtures."""
    return Commands(
        tmp_path,
        {
            **mount_acme(tmp_path),
            "RELAY_ACME_SECRET": acme.SECRET,
            "RELAY_DATABASE_URL": f"sqlite:///{tmp_path / 'relay.db'}",
        },
    )


@pytest.fixture
def invoke(command: Commands, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The same within this process, which saves the start of one: for commands that only look."""
    monkeypatch.chdir(command.folder)
    for name in [name for name in os.environ if name.startswith(("RELAY_", "OAA_"))]:
        monkeypatch.delenv(name)

    def run(*words: str, **variables: str) -> Result:
        return CliRunner().invoke(app, words, env={**command.variables, **variables})

    return run


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])

    assert 0 == shown.exit_code
    assert f"Usage: relay {' '.join(words)}" in shown.output


def test_help_is_there_at_once() -> None:
    """What is slow to import is imported by the commands that need it."""
    code = "import sys, relay.cli; print({'fastapi', 'stripe', 'httpx', 'sqlalchemy', 'pydantic'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "set()\n" == shown.stdout


async def test_wrong_settings_are_all_told_and_exit_with_2(command: Commands) -> None:
    ended = await command("outbox", RELAY_PRT="8000", RELAY_IN_DOUBT="ask")

    assert (2, "") == (ended.code, ended.out)
    assert "RELAY_PRT is not a setting. Did you mean RELAY_PORT?" in ended.err
    assert "RELAY_IN_DOUBT" in ended.err
    assert "Traceback" not in ended.err


async def test_a_broken_mapper_is_named_and_exits_with_2(command: Commands, tmp_path: Path) -> None:
    (tmp_path / "mappers" / "odd.py").write_text("import nothing_like_this")

    ended = await command("providers")

    assert 2 == ended.code
    assert "odd.py: ModuleNotFoundError" in ended.err
    assert "Traceback" not in ended.err


# --- serving ----------------------------------------------------------------------------------------------------------


async def test_serve_needs_a_destination(command: Commands) -> None:
    ended = await command("serve")

    assert 2 == ended.code
    assert "Set OAA_API_KEY and OAA_PROJECT_ID" in ended.err
    assert "serve --demo" in ended.err


async def test_serve_takes_webhooks_until_it_is_interrupted(command: Commands, events_api: EventsApi) -> None:
    real = {**REAL, "OAA_BASE_URL": events_api.url, "RELAY_PORT": "0"}
    async with command.serving("serve", says="Listening on", **real) as run:
        url = run.out.split()[-1]
        sent = await command("send", "acme", "payment.captured", "--to", url)
        await until(_received(events_api, 1))

    assert (0, 0) == (sent.code, run.code), run.err
    assert "Traceback" not in run.err


async def test_a_port_that_is_taken_is_told(command: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await command("serve", **REAL, RELAY_PORT=str(port))

    assert 1 == ended.code
    assert f"cannot listen on 127.0.0.1:{port}" in ended.err
    assert "RELAY_PORT=" in ended.err
    assert "Traceback" not in ended.err


async def test_the_sandbox_holds_callers_to_its_key_and_project(command: Commands) -> None:
    words = ("sandbox", "--port", "0", "--api-key", API_KEY, "--project", "42")
    async with command.serving(*words, says="listens on") as run, httpx.AsyncClient(trust_env=False) as http:
        url = run.out.split("listens on ")[1].split(";")[0]
        event = {"event_type": "event", "event_name": "signup"}
        statuses = [
            (await http.post(f"{url}/v1/projects/{project}/events", json=event, headers=_bearer(key))).status_code
            for project, key in (("42", API_KEY), ("42", "oa_other"), ("43", API_KEY))
        ]

    assert [202, 401, 404] == statuses
    assert 0 == run.code


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _received(events_api: EventsApi, number: int) -> Any:
    async def seen() -> bool:
        return len(await events_api.received()) >= number

    return seen


# --- send -------------------------------------------------------------------------------------------------------------


async def test_the_same_id_twice_becomes_one_event(
    command: Commands, relay: RunningRelay, events_api: EventsApi
) -> None:
    words = ("send", "acme", "payment.captured", "--to", relay.url, "--json")

    first = await command(*words, "--id", "ntf_mine", "--count", "2")
    third = await command(*words)
    await until(_received(events_api, 2))

    assert [{"id": "ntf_mine", "status": 200, "answer": "{}"}] * 2 == first.json
    assert third.json[0]["id"].startswith("ntf_")
    assert 2 == len(await events_api.received())
    assert 1 == await relay.metric("relay_notifications_total", source="acme", outcome="repeated")


async def test_a_wrong_secret_is_refused_and_exits_with_1(command: Commands, relay: RunningRelay) -> None:
    ended = await command("send", "acme", "payment.captured", "--to", relay.url, "--secret", "forged")

    assert 1 == ended.code
    assert ended.out.startswith("401 ")


def test_an_unknown_type_is_answered_with_those_that_there_are(invoke: Callable[..., Result]) -> None:
    ended = invoke("send", "acme", "payment.capture")

    assert 2 == ended.exit_code
    assert "Did you mean payment.captured? Acme Pay has:\n  payment.captured" in ended.stderr


async def test_without_a_relay_it_says_so(command: Commands) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ended = await command("send", "acme", "payment.captured", RELAY_PORT=str(unused.getsockname()[1]))

    assert 1 == ended.code
    assert "Does the relay run there?" in ended.err


def test_the_samples_can_be_listed(invoke: Callable[..., Result]) -> None:
    ended = invoke("send", "acme", "--list", "--json")

    assert [
        {"provider": "acme", "type": "payment.captured", "variant": "card", "about": "A card payment was captured.",
         "option": None}
    ] == json.loads(ended.stdout)  # fmt: skip


# --- looking ----------------------------------------------------------------------------------------------------------


def test_providers_tells_a_script_all_about_each(invoke: Callable[..., Result]) -> None:
    ended = invoke("providers", "--json")
    (found,) = (provider for provider in json.loads(ended.stdout) if provider["name"] == "acme")

    assert {
        "name": "acme",
        "title": "Acme Pay",
        "docs": "https://docs.acme.example/webhooks",
        "path": "/webhooks/acme",
        "signature": "HMAC-SHA256 of the body, hex, in X-Acme-Signature",
        "settings": [
            {"name": "RELAY_ACME_SECRET", "meaning": "Settings, Webhooks, Signing secret"},
            {"name": "RELAY_ACME_ENABLE", "meaning": "Opt-in, separated by commas: lookups"},
        ],
        "options": {"lookups": "also count lookups"},
        "mapped": ["payment.captured"],
        "optional": {"lookups": ["lookup"]},
        "ignored": ["payment.authorized"],
    } == found


def test_hash_shows_what_is_sent_for_an_address(invoke: Callable[..., Result]) -> None:
    plain = hashlib.sha256(b"buyer@example.com").hexdigest()
    keyed = hmac.digest(b"a key of sixteen.", b"buyer@example.com", "sha256").hex()

    ended = invoke("hash", " Buyer@Example.com ", "--json", RELAY_HASH_KEY="a key of sixteen.")

    assert {
        "normalised": "buyer@example.com",
        "sent": [{"user_id": keyed, "hash": "HMAC-SHA256 with RELAY_HASH_KEY", "sources": ["acme"]}],
        "sha256": plain,
    } == json.loads(ended.stdout)


async def test_doctor_exits_with_1_for_a_problem(command: Commands) -> None:
    ended = await command("doctor", "--json")

    assert 1 == ended.code
    assert ended.json["ok"] is False
    assert {"level", "subject", "words", "remedy"} == set(ended.json["findings"][0])


def test_doctor_tells_what_is_wrong_with_the_settings(invoke: Callable[..., Result]) -> None:
    ended = invoke("doctor", RELAY_PRT="1")

    assert 1 == ended.exit_code
    assert "problem settings: RELAY_PRT is not a setting" in ended.stdout


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def dead(store: Store) -> tuple[Store, int]:
    """A store with one dead letter, and its row id."""
    await store.accept(sale(1))
    await store.accept(sale(2))
    batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
    assert batch is not None
    assert await store.refuse(batch, reason="400: [revenue] is odd")
    return store, batch.events[0].id


async def test_dead_letters_are_listed_shown_and_sent_again(command: Commands, dead: tuple[Store, int]) -> None:
    store, row = dead

    listed = await command("dead", "list", "--json")
    shown = await command("dead", "show", str(row))
    again = await command("dead", "resend", str(row))
    not_dead = await command("dead", "resend", str(row))

    assert [str(row)] == [letter["id"] for letter in listed.json]
    assert "evt_1" == listed.json[0]["notification"]
    assert "400: [revenue] is odd" in shown.out
    assert '"order_id": "order_1"' in shown.out
    assert 0 == again.code
    assert {EventState.PENDING} == {event.state for event in await store.events()}
    assert 1 == not_dead.code
    assert "is no dead letter: it is pending" in not_dead.err


async def test_a_dead_letter_leaves_by_itself_when_it_is_sent_again(
    command: Commands, relay: RunningRelay, events_api: EventsApi
) -> None:
    await events_api.misbehave(reject={"event_name": "purchase"})
    await relay.post(acme.captured(1))
    await until(_dead_letters(relay.store))
    await events_api.behave()

    ended = await command("dead", "resend", "--all", "--json")
    await until(_received(events_api, 1))

    assert {"resent": 1} == ended.json
    assert ["pay_1"] == await events_api.orders()


def _dead_letters(store: Store) -> Any:
    async def seen() -> bool:
        return bool(await store.events(state=EventState.DEAD))

    return seen


@pytest.mark.parametrize(
    "words, asks",
    [
        (["dead", "resend"], "say --all"),
        (["dead", "resend", "1", "--all"], "say --all"),
        (["outbox", "release", "1"], "one of --accepted"),
        (["outbox", "release", "1", "--accepted", "--resend"], "one of --accepted"),
    ],
    ids=" ".join,
)
def test_what_is_not_clear_is_asked(words: list[str], asks: str) -> None:
    ended = CliRunner().invoke(app, words)

    assert 2 == ended.exit_code
    assert asks in ended.stderr


async def test_without_a_database_none_is_made(command: Commands, tmp_path: Path) -> None:
    ended = await command("outbox")

    assert 2 == ended.code
    assert "There is no database at" in ended.err
    assert not (tmp_path / "relay.db").exists()


class TestHeldBatches:
    @pytest.fixture
    def hold(self) -> bool:
        return True

    async def test_a_person_settles_them(self, command: Commands, store: Store) -> None:
        batches = []
        for number in (1, 2):
            await store.accept(sale(number))
            batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
            assert batch is not None
            await store.in_doubt(batch, due_at_ms=NOON, words="no answer")
            batches.append(str(batch.id))

        outbox = await command("outbox", "--json")
        arrived = await command("outbox", "release", batches[0], "--accepted")
        missing = await command("outbox", "release", batches[1], "--resend")

        assert 2 == outbox.json["destinations"][0]["held"]
        assert sorted(batches) == sorted(batch["batch"] for batch in outbox.json["batches"])
        assert (0, 0) == (arrived.code, missing.code)
        assert [EventState.BATCHED, EventState.SENT] == [event.state for event in await store.events()]


async def test_remap_maps_what_a_broken_mapper_had_parked(
    command: Commands, run_relay: RunRelay, events_api: EventsApi
) -> None:
    broken = acme.make()

    def raises(_notification: object) -> Any:
        raise KeyError

    broken.mappers["payment.captured"] = raises
    async with run_relay({"acme": broken}) as relay:
        answer = await relay.post(acme.captured(1))
        look = await command("remap", "--outcome", "failed", "--json")
        ended = await command("remap", "--outcome", "failed", "--yes", "--json")
        await until(_received(events_api, 1))

    assert 200 == answer.status_code
    assert (False, 0, 1) == (look.json["applied"], look.json["events"], len(look.json["new"]))
    assert (True, 1, 1) == (ended.json["applied"], ended.json["events"], len(ended.json["new"]))
