"""Whole lives, told in order and in disorder, come to the ledgers that were written by hand.

`tests/scenarios/<provider>/` holds them: JSON files, and for some a module `lives.py` with `SCENARIOS` and `MORE`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay.contract import Provider
from relay.registry import load_providers
from relay.rehearsal import Rehearsal
from relay.scenarios import TELLINGS, Scenario, Telling, check_scenario, read_scenarios, stage_for

FOLDER = Path(__file__).parent / "scenarios"
PROVIDERS = load_providers(None)


def scenarios_of(folder: Path) -> Iterator[tuple[Scenario, bool]]:
    """With each, whether it is told only when there is time."""
    yield from ((scenario, False) for scenario in read_scenarios(folder))
    if (folder / "lives.py").exists():
        lives = importlib.import_module(f"tests.scenarios.{folder.name}.lives")
        yield from ((scenario, False) for scenario in lives.SCENARIOS)
        yield from ((scenario, True) for scenario in lives.MORE)


ALL = [
    pytest.param(
        PROVIDERS[folder.name],
        scenario,
        id=f"{folder.name}: {scenario.name}",
        marks=[pytest.mark.slow] if is_slow else [],
    )
    for folder in sorted(FOLDER.iterdir())
    if folder.name in PROVIDERS
    for scenario, is_slow in scenarios_of(folder)
]

each_scenario = pytest.mark.parametrize("provider, scenario", ALL)
each_telling = pytest.mark.parametrize("telling", TELLINGS, ids=lambda telling: telling.name)

StageOf = Callable[[Provider, Scenario], Rehearsal]


@pytest.fixture(scope="module")
def stage_of() -> Iterator[StageOf]:
    """One relay for all scenarios that want it configured in the same way."""
    stages: dict[str, Rehearsal] = {}
    with ExitStack() as stack:

        def open_stage(provider: Provider, scenario: Scenario) -> Rehearsal:
            wanted = f"{provider.name} {scenario.options} {scenario.policy}"
            if wanted not in stages:
                stages[wanted] = stack.enter_context(stage_for(scenario, provider))
            return stages[wanted]

        yield open_stage


@each_telling
@each_scenario
def test_a_life_comes_to_its_ledger(
    stage_of: StageOf, provider: Provider, scenario: Scenario, telling: Telling
) -> None:
    assert [] == check_scenario(stage_of(provider, scenario), scenario, telling, examples=2)


@pytest.mark.slow
@pytest.mark.parametrize("telling", TELLINGS[2:], ids=lambda telling: telling.name)
@each_scenario
def test_a_life_comes_to_its_ledger_in_many_orders(
    stage_of: StageOf, provider: Provider, scenario: Scenario, telling: Telling
) -> None:
    assert [] == check_scenario(stage_of(provider, scenario), scenario, telling, examples=100)


def test_a_revenue_of_a_ledger_is_the_sum_of_its_lines() -> None:
    """A control sum, so that a slip of the hand shows in the ledger itself."""
    sold = {
        "purchase", "subscription_started", "subscription_renewed", "trial_converted", "plan_changed",
        "deal_won",
    }  # fmt: skip
    for _, scenario in (param.values for param in ALL):
        assert isinstance(scenario, Scenario)
        nets = scenario.policy.get("refunds") == "conversion"
        sums: dict[str, object] = {}
        for line in scenario.ledger:
            counts = line.name in sold or (nets and line.name in {"refund", "refund_reversed"})
            if counts and line.amount is not None and line.currency is not None:
                sums[line.currency] = sums.get(line.currency, 0) + line.amount  # type: ignore[operator]
        assert scenario.revenue == sums, scenario.name
