"""The OpenAPI document tells the truth: Schemathesis posts what fits it and what does not, and finds nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

from relay.incoming import latest_ms
from tests.conftest import RunRelay
from tests.test_ingesting import KEY
from tests.things import NOON, Clock

pytestmark = pytest.mark.anyio

PATIENCE_S = 240


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
@pytest.mark.parametrize("examples", [20, pytest.param(500, marks=pytest.mark.slow)])
async def test_schemathesis_finds_nothing(run_relay: RunRelay, tmp_path: Path, examples: int) -> None:
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.id" = "42"\n')
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("st"), "--config-file", tmp_path / "schemathesis.toml",
            "run", f"{relay.url}/openapi.json", "--include-path-regex", "^/v1/", "-H", f"Authorization: Bearer {KEY}",
            "--max-examples", str(examples), "--seed", "7", "--generation-database", "none", "--no-color",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        taken, stumbled = [
            await relay.metric("relay_deliveries_total", source=source, answer=answer)
            for source, answer in (("events:42", "accepted"), ("events", "overload"))
        ]

    assert 0 == process.returncode, said.decode()[-4000:]
    assert taken > 20
    assert 0 == stumbled, "it may be told to come later, but not because the relay stumbled"


async def test_both_paths_are_described(run_relay: RunRelay, clock: Clock) -> None:
    async with run_relay() as relay:
        document = (await relay.http.get("/openapi.json")).json()
        timestamp = document["components"]["schemas"]["PostedEvent"]["properties"]["timestamp"]
        clock.advance(seconds=3600)
        later = (await relay.http.get("/openapi.json")).json()

    paths = [path for path in document["paths"] if path.startswith("/v1/")]
    assert ["/v1/projects/{id}/events", "/v1/projects/{id}/events/batch"] == paths
    assert latest_ms(NOON) - 1 == timestamp["anyOf"][0]["maximum"]
    assert document != later


async def test_the_documents_example_is_taken(run_relay: RunRelay) -> None:
    async with run_relay(RELAY_INGEST_KEYS=KEY) as relay:
        document = (await relay.http.get("/openapi.json")).json()
        (example,) = document["components"]["schemas"]["PostedEvent"]["examples"]
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = await relay.http.post("/v1/projects/42/events", json=example, headers=headers)

    assert 202 == answer.status_code
