"""Polar: promises that take more than one notification."""

import json
from pathlib import Path
from typing import Any

import pytest

from mappers.polar import provider
from relay.contract import Accepted, Delivery
from relay.scenarios import TELLINGS, Scenario, Telling, check_scenario, read_scenarios, stage_for

SCENARIOS = read_scenarios(Path(__file__).parent / "scenarios" / "polar")
CASES = Path(__file__).parent / "mappers" / "polar"

NOW_MS = 1_795_170_000_000


@pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_life_has_one_ledger_however_it_is_told(scenario: Scenario, telling: Telling) -> None:
    with stage_for(scenario, provider) as stage:
        assert [] == list(check_scenario(stage, scenario, telling))


@pytest.mark.parametrize("secret", ["whsec_0123456789abcdefghij", "polar_whs_0123456789abcdefghij", "chosen by hand"])
def test_the_secret_signs_as_it_is_written(secret: str) -> None:
    """Other Standard Webhooks senders decode what stands behind `whsec_`."""
    sent = provider.verifier.sign(Delivery(body=b"{}", headers={"webhook-id": "1"}), secret, now_ms=NOW_MS)

    assert Accepted(0) == provider.verifier.verify(sent, (secret,), now_ms=NOW_MS)


def body(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["body"]


@pytest.mark.parametrize("kind", ["order.created", "order.updated", "order.refunded", "subscription.updated"])
def test_a_twin_is_silent(kind: str) -> None:
    assert (True, False) == (kind in provider.ignored, kind in provider.mappers)


def test_a_time_without_a_zone_is_not_guessed() -> None:
    said = body("order.paid__once") | {"timestamp": "2026-11-20T10:15:34"}
    (notification,) = provider.notifications(Delivery(body=json.dumps(said).encode(), headers={"webhook-id": "1"}))

    with pytest.raises(TypeError):
        list(provider.mappers["order.paid"](notification))
