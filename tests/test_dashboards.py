"""What watches over the relay asks for metrics that it has, by labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from relay.metrics import Metrics, _LookedUp

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = (ROOT / "deploy" / "prometheus-alerts.yml").read_text(encoding="utf-8")

EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS += [json.loads(found) for found in re.findall(r"^ +expr: (.+)$", ALERTS, re.MULTILINE)]
_OF_OTHERS = {"process_resident_memory_bytes"}


def known() -> dict[str, set[str]]:
    """By name of a series, its labels."""
    found: dict[str, set[str]] = {}
    metrics = Metrics()
    for metric in vars(metrics).values():
        if isinstance(metric, Counter):
            found[f"{metric._name}_total"] = set(metric._labelnames)
        elif isinstance(metric, Histogram):
            for suffix in ("bucket", "sum", "count"):
                found[f"{metric._name}_{suffix}"] = {*metric._labelnames, "le"}
        elif isinstance(metric, Gauge):
            found[metric._name] = set(metric._labelnames)
    for family in _LookedUp().collect():
        found[family.name] = set(family._labelnames)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_expression_asks_for_what_there_is(expression: str) -> None:
    series = known()
    names = set(re.findall(r"\b(?:relay|process)_\w+", expression)) - _OF_OTHERS
    labels = set(re.findall(r"(\w+)(?:!?=~?)\"", expression)) - {"job"}
    labels |= {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}

    assert set[str]() == names - set(series)
    assert set[str]() == labels - {label for name in names for label in series[name]}


def test_each_metric_to_watch_is_watched() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("## What to watch")[2].partition("\n\n`deploy/")[0]
    names = set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))

    assert {"relay_outbox_oldest_seconds", "relay_drift"} <= names
    assert set[str]() == names - {name for said in EXPRESSIONS for name in re.findall(r"relay_\w+", said)}


def test_each_legend_names_labels_that_there_are() -> None:
    every = {label for labels in known().values() for label in labels}
    legends = [target["legendFormat"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

    assert set[str]() == {label for legend in legends for label in re.findall(r"{{(\w+)}}", legend)} - every


def test_each_panel_has_a_name_and_an_id_of_its_own() -> None:
    panels = DASHBOARD["panels"]

    assert len(panels) == len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels})
    assert all(panel["targets"] for panel in panels)
