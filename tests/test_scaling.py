"""The plan of docs/scaling.md is what the model says, and the model says what arithmetic says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import model
from bench.model import Costs, plan

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_shows_the_plan_of_the_model() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()

    assert f"<!-- plan:begin -->\n{model.table(Costs())}<!-- plan:end -->" in page


def test_no_role_has_a_single_replica() -> None:
    found = plan(1, Costs())

    assert (2, 2, True, 1) == (found.receive, found.work, found.is_small, found.servers)


@pytest.mark.parametrize("rate", [5_000, 20_000, 200_000])
def test_nobody_is_busier_than_the_rules_say(rate: int) -> None:
    costs = Costs()
    found = plan(rate, costs)

    assert rate * costs.receive_us / 1e6 / found.receive <= costs.busy
    assert rate / costs.work_per_s / found.work <= costs.busy
    assert rate * costs.database_us / 1e6 / found.database_cores <= costs.database_busy + 1e-9
    assert rate / found.servers <= model.most_of_one_server(costs)


def test_twice_the_log_is_half_a_server() -> None:
    costs = Costs()
    heavier = replace(costs, wal_bytes=costs.wal_bytes * 2)

    assert model.most_of_one_server(costs) == pytest.approx(2 * model.most_of_one_server(heavier))


def test_it_plans_with_what_was_measured_elsewhere(tmp_path: Path) -> None:
    part = {"per_s": 1000, "cpu_us": 100, "database_us": 20, "wal_bytes": 10, "rss_mb": 1}
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({"webhooks": 1, "receive": part, "work": part, "stored_bytes": 7}))

    found = model.measured(file)

    assert (100, 1000, 40, 20, 7) == (
        found.receive_us, found.work_per_s, found.database_us, found.wal_bytes, found.row_bytes,
    )  # fmt: skip
