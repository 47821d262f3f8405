"""Refused deliveries: diagnosed, kept in a ring, taken after all; and shadow mode."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from relay.rejecting import judge, set_shadow, shadows, take_after_all
from relay.settings import load
from relay.store import rejected as ring
from relay.store.base import Store
from relay.store.rejected import Rejection
from tests import acme
from tests.conftest import EventsApi, RunningRelay, RunRelay, until
from tests.things import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


WRONG = "acme_of_somebody_else"


def rejection(number: int = 1, *, source: str = "acme", size: int = 10) -> Rejection:
    return Rejection(source=source, reason="mismatch", cause="unknown", words=f"number {number}", headers={"a": "b"},
                     query="", body=b"x" * size)  # fmt: skip


async def refused(relay: RunningRelay, number: int = 1, *, secret: str = WRONG) -> bytes:
    raw = orjson.dumps(acme.captured(number))
    headers = {**acme.signed(raw, secret=secret), "authorization": "Bearer hush"}
    answer = await relay.http.post("/webhooks/acme", content=raw, headers=headers)
    assert answer.status_code == 401
    return raw


async def kept(relay: RunningRelay) -> bool:
    return bool(await relay.store.rejected.listing())


# --- the ring ---------------------------------------------------------------------------------------------------------


async def test_a_ring_holds_so_many_of_each_source(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MOST", 3)
    await store.rejected.keep([rejection(9, source="quiet")])
    for number in range(5):
        await store.rejected.keep([rejection(number)])

    assert ["number 4", "number 3", "number 2"] == [one.words for one in await store.rejected.listing(source="acme")]
    assert 1 == len(await store.rejected.listing(source="quiet"))


async def test_a_ring_holds_so_many_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MOST_BYTES", 200)
    for number in range(5):
        await store.rejected.keep([rejection(number)])

    assert 0 < len(await store.rejected.listing()) < 5


async def test_what_is_old_leaves_the_ring(store: Store, clock: Clock) -> None:
    await store.rejected.keep([rejection(1)])
    clock.advance(days=8)
    await store.prune(bodies_before_ms=0, keys_before_ms=0)

    assert [] == await store.rejected.listing()


async def test_a_body_that_is_too_large_is_only_told(store: Store) -> None:
    await store.rejected.keep([rejection(size=ring.LARGEST_BODY + 1)])
    (one,) = await store.rejected.listing(opened=True)

    assert (ring.LARGEST_BODY + 1, None) == (one.size, one.body)


async def test_causes_are_counted(store: Store) -> None:
    await store.rejected.keep([rejection(1), rejection(2), rejection(3, source="other")])
    found = {cause.source: (cause.n, cause.words) for cause in await store.rejected.causes()}

    assert {"acme": (2, "number 2"), "other": (1, "number 3")} == found


# --- a running relay --------------------------------------------------------------------------------------------------


async def test_a_refused_delivery_is_diagnosed_and_kept_without_credentials(relay: RunningRelay) -> None:
    raw = await refused(relay)
    await until(lambda: kept(relay))
    (one,) = await relay.store.rejected.listing(opened=True)

    assert ("acme", "mismatch", "unknown", raw) == (one.source, one.reason, one.cause, one.body)
    assert "authorization" not in (one.headers or {})
    assert 1 == await relay.metric("relay_signatures_refused_total", source="acme", cause="unknown")


async def test_a_flood_is_not_looked_at_one_by_one(relay: RunningRelay) -> None:
    for number in range(35):
        await refused(relay, number)
    await until(lambda: kept(relay))

    assert 5 == await relay.metric("relay_signatures_refused_total", source="acme", cause="unexamined")


async def test_what_fits_once_the_secret_is_right_is_taken_after_all(
    run_relay: RunRelay, events_api: EventsApi, tmp_path: Path
) -> None:
    providers = {"acme": acme.make()}
    async with run_relay(providers) as relay:
        await refused(relay)
        await until(lambda: kept(relay))
        environ = {"RELAY_ACME_SECRET": WRONG, "OAA_PROJECT_ID": "42", "OAA_API_KEY": "oa_live_1"}
        corrected = load(providers, environ=environ, env_file=tmp_path / "none").sources["acme"]
        (one,) = await relay.store.rejected.listing(opened=True)
        secret = judge(one, corrected, providers["acme"])
        assert secret == 0
        await take_after_all(relay.store, one, secret)

        async def arrived() -> bool:
            return await events_api.orders() == ["pay_1"]

        await until(arrived)
        assert [] == await relay.store.rejected.listing()


# --- shadow mode ------------------------------------------------------------------------------------------------------


async def test_shadow_mode_takes_what_is_refused_for_a_limited_time(run_relay: RunRelay, clock: Clock) -> None:
    async with run_relay() as relay:
        await set_shadow(relay.store, "acme", clock() + 3_600_000)
        await relay.app.state.parts.rejecting.step()
        raw = orjson.dumps(acme.captured(1))
        headers = acme.signed(raw, secret=WRONG)
        taken = await relay.http.post("/webhooks/acme", content=raw, headers=headers)
        clock.advance(seconds=3601)
        over = await relay.http.post("/webhooks/acme", content=raw, headers=headers)

        assert (200, 401) == (taken.status_code, over.status_code)
        assert 1 == await relay.metric("relay_secrets_used_total", source="acme", secret="none")
        await until(relay.is_mapped)
        (told,) = await relay.store.console.find("ntf_1")
        story = await relay.store.console.story(told.delivery)
        assert story is not None
        assert -1 == story.secret


async def test_shadow_mode_lasts_a_day_at_most(store: Store, clock: Clock) -> None:
    await set_shadow(store, "acme", clock() + 100 * 86_400_000)

    assert {"acme": clock() + 86_400_000} == await shadows(store)
