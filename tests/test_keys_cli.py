"""`relay keys`: what is typed, what is said, and what a key opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import app
from relay.ingest_keys import ANY, hash_of, new_key, projects_of
from tests.commands import Commands
from tests.conftest import API_KEY, RunRelay, until
from tests.test_ingesting import ONE, event
from tests.things import NOON

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def command(tmp_path: Path, store_variables: dict[str, str]) -> Commands:
    return Commands(tmp_path, {**store_variables, "OAA_PROJECT_ID": "42", "OAA_API_KEY": API_KEY})


@pytest.mark.parametrize("words", [["create"], ["list"], ["revoke"]])
def test_every_command_has_help(words: list[str]) -> None:
    shown = CliRunner().invoke(app, ["keys", *words, "--help"])

    assert (0, True) == (shown.exit_code, f"Usage: relay keys {words[0]}" in shown.output)


async def test_a_key_is_shown_once_and_kept_as_a_hash(command: Commands, tmp_path: Path) -> None:
    """It may be made before the relay's first start."""
    token = (await command("keys", "create", "--name", "cron")).out.strip()

    (row,) = (await command("keys", "list", "--json")).json
    assert ("42", "cron", "good") == (row["project"], row["name"], row["state"])
    assert token.startswith("oa_relay_")
    assert token not in json.dumps(row)
    assert not _is_in_a_file(token, tmp_path)


async def test_a_key_opens_the_relay_that_runs_until_it_is_revoked(command: Commands, run_relay: RunRelay) -> None:
    async with run_relay() as relay:
        made = (await command("keys", "create", "--expires", "90d", "--json")).json
        headers = {"Authorization": f"Bearer {made['key']}"}
        assert 202 == (await relay.http.post(ONE, json=event(), headers=headers)).status_code

        revoked = [(await command("keys", "revoke", made["id"])).code for _ in range(2)]

        async def is_refused() -> bool:
            return (await relay.http.post(ONE, json=event(), headers=headers)).status_code == 401

        await until(is_refused)
    assert [0, 1] == revoked
    assert made["expires_at"] > made["made_at"]
    assert "revoked" in (await command("keys", "list")).out


@pytest.mark.parametrize("words", [["--expires", "soon"], ["--expires", "0d"], ["--project", "7"]])
async def test_what_makes_no_sense_is_refused(command: Commands, words: list[str]) -> None:
    assert 2 == (await command("keys", "create", *words)).code


def test_configured_keys_open_one_project_or_any() -> None:
    opened = projects_of(["one", "43:two", "44:three", "42:one"], ["42", "43"])

    assert {ANY, "42"} == opened[hash_of("one")]
    assert {"43"} == opened[hash_of("two")]
    assert {ANY} == opened[hash_of("44:three")]


def test_two_keys_are_never_the_same() -> None:
    tokens = {new_key("42", name="", made_at_ms=NOON, expires_at_ms=None)[0] for _ in range(10)}

    assert 10 == len(tokens)


def _is_in_a_file(token: str, folder: Path) -> bool:
    return any(token.encode() in path.read_bytes() for path in folder.glob("relay.db*") if path.is_file())
