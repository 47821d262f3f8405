"""A process that receives maps as well, while nothing comes in."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from relay.helping import helping
from relay.metrics import Metrics
from relay.settings import load
from relay.store.base import Store, Verified
from relay.unfolding import Unfolding
from tests import acme
from tests.conftest import until
from tests.things import NOON

pytestmark = pytest.mark.anyio


def unfolding(store: Store, folder: Path) -> Unfolding:
    providers = {"acme": acme.make()}
    environ = {
        "RELAY_ACME_SECRET": acme.SECRET,
        "OAA_PROJECT_ID": "42",
        "OAA_API_KEY": "oa_live_1",
        "OAA_BASE_URL": "http://127.0.0.1:9",
    }
    sources = load(providers, environ=environ, env_file=folder / ".env").sources
    return Unfolding(store=store, sources=sources, providers=providers, metrics=Metrics(), wake=lambda _name: None)


async def take(store: Store, number: int) -> None:
    body = orjson.dumps(acme.captured(number))
    await store.take(Verified(source="acme", received_at_ms=NOON, secret=0, headers={}, body=body))


async def test_once_it_is_quiet_all_that_waits_is_mapped(store: Store, tmp_path: Path) -> None:
    for number in range(300):
        await take(store, number)

    async with helping(unfolding(store, tmp_path)) as came:
        came()

        async def is_mapped() -> bool:
            return len(await store.events(limit=1000)) == 300

        await until(is_mapped)


async def test_it_makes_room_for_what_comes(store: Store, tmp_path: Path) -> None:
    await take(store, 1)

    await unfolding(store, tmp_path).empty(go_on=lambda: False)

    assert (1, 0) == ((await store.inbox_depth()).deliveries, len(await store.events()))
