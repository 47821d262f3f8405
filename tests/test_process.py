"""One relay process: why it did not serve is told in words, with what to do."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from relay.process import EndedError, serve_until_signal
from relay.serving import Served
from relay.settings import load
from relay.store.schema import Outcome
from tests import acme
from tests.conftest import RunRelay

pytestmark = pytest.mark.anyio


async def why_not(folder: Path, **variables: str) -> str:
    """What is said instead of serving."""
    providers = {"acme": acme.make()}
    environ = {
        "RELAY_ACME_SECRET": acme.SECRET,
        "RELAY_DATABASE_URL": f"sqlite:///{folder / 'relay.db'}",
        "RELAY_PORT": "0",
        **variables,
    }
    settings = load(providers, environ=environ, env_file=folder / ".env")

    def never(served: Served) -> None:
        pytest.fail(f"it serves: {served}")

    with pytest.raises(EndedError) as ended:
        await serve_until_signal(settings, providers, started=never)
    return str(ended.value)


async def test_a_database_that_cannot_be_made_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    words = await why_not(tmp_path, RELAY_DATABASE_URL=f"sqlite:///{tmp_path / 'file' / 'relay.db'}")

    assert str(tmp_path / "file") in words
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_second_relay_on_the_same_database_is_told(tmp_path: Path, run_relay: RunRelay) -> None:
    async with run_relay():
        words = await why_not(tmp_path)

    assert "another relay serves" in words
    assert "RELAY_DATABASE_URL" in words


async def test_a_key_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "relay.db.key").write_text("not a key")

    assert "32 bytes in base64" in await why_not(tmp_path)


async def test_a_key_that_was_removed_too_early_does_not_stop_the_start(run_relay: RunRelay) -> None:
    broken = acme.make()

    def raises(_notification: object) -> Any:
        raise KeyError

    broken.mappers["payment.captured"] = raises
    async with run_relay({"acme": broken}) as relay:
        await relay.post(acme.captured(1))

    async with run_relay(RELAY_ENCRYPTION_KEYS=base64.b64encode(b"o" * 32).decode()) as relay:
        assert (await relay.post(acme.captured(2))).status_code == 200
        assert await relay.store.unmapped(outcome=Outcome.FAILED) == []
