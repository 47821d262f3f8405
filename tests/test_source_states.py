"""How a source is doing: one rule for the console, the terminal and the alarms."""

from __future__ import annotations

import pytest

from relay.alarms import GAP, Kind, look
from relay.rehearsal import source_of
from relay.rejecting import set_shadow
from relay.source_states import SourceState, State, source_states
from relay.store.base import Store
from relay.store.rejected import Rejection
from tests import acme
from tests.things import Clock, arrival, mapped

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
SOURCES = {"acme": source_of(acme.make())}


def rejection(reason: str = "mismatch") -> Rejection:
    return Rejection(source="acme", reason=reason, cause="other_source", words="It is of acme-eu.", headers={},
                     query="", body=b"{}")  # fmt: skip


async def state(store: Store, clock: Clock) -> SourceState:
    return (await source_states(store, SOURCES, now_ms=clock()))[0]


async def test_what_nobody_saw_is_told_so(store: Store, clock: Clock) -> None:
    assert State.NEVER_SEEN is (await state(store, clock)).state


async def test_before_the_first_delivery_a_single_refusal_tells(store: Store, clock: Clock) -> None:
    await store.rejected.keep([rejection("missing")])
    found = await state(store, clock)

    assert (State.FAILING, "1 refused (other_source). It is of acme-eu.") == (found.state, found.why)


async def test_after_it_three_are_needed_and_those_without_a_signature_are_strangers(
    store: Store, clock: Clock
) -> None:
    await store.accept(arrival(mapped(1), source="acme"))
    clock.advance(seconds=60)
    await store.rejected.keep([*[rejection("missing")] * 9, *[rejection()] * 2])
    assert State.HEALTHY is (await state(store, clock)).state
    await store.rejected.keep([rejection()])

    assert State.FAILING is (await state(store, clock)).state


async def test_what_fits_again_is_well_again(store: Store, clock: Clock) -> None:
    await store.rejected.keep([rejection()] * 5)
    clock.advance(seconds=60)
    await store.accept(arrival(mapped(1), source="acme"))

    assert (State.HEALTHY, 5) == ((await state(store, clock)).state, (await state(store, clock)).refused)


async def test_the_console_and_the_alarms_call_the_same_silence(store: Store, clock: Clock) -> None:
    await store.accept(arrival(mapped(1), source="acme"))
    await store.set_bookmark(GAP + "acme", str(4 * HOUR))
    found = []
    for hours in (7, 2):
        clock.advance(seconds=hours * 3600)
        alarms = await look(store, sources=SOURCES, destinations=[], now_ms=clock(), trouble=None)
        is_silent = (await state(store, clock)).state is State.SILENT
        found.append((is_silent, any(alarm.kind is Kind.SILENT for alarm in alarms)))

    assert [(False, False), (True, True)] == found


async def test_a_silence_shows_before_anybody_kept_what_is_usual(store: Store, clock: Clock) -> None:
    for number in range(7):
        await store.accept(arrival(mapped(number), source="acme"))
        clock.advance(seconds=3600)
    clock.advance(seconds=2 * 3600)

    assert (State.SILENT, HOUR) == ((await state(store, clock)).state, (await state(store, clock)).gap_ms)


async def test_shadow_mode_is_told_before_all_else(store: Store, clock: Clock) -> None:
    await set_shadow(store, "acme", clock() + HOUR)
    await store.rejected.keep([rejection()])
    found = await state(store, clock)

    assert (State.SHADOW, clock() + HOUR) == (found.state, found.shadow_until_ms)
    assert "It is of acme-eu." in found.why
