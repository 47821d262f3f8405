"""The documentation's own code works, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from relay.contract import Delivery, Draft, Learned
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.rehearsal import START_MS
from relay.settings import load
from relay.sources import slug_of
from relay.store.schema import Outcome
from relay.variables import Variables, variable

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
GUIDE = ROOT / "docs" / "adding-a-provider.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def settings_table() -> str:
    """The table of `docs/configuration.md`, from the settings themselves."""
    rows = ["| variable | default | means |", "|---|---|---|"]
    for name, field in Variables.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        shown = "" if default in (None, "") else f"`{default}`"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{variable(name)}` | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def providers_table() -> str:
    """The table of the README, from the registry itself."""
    rows = ["| provider | source | signature | becomes events |", "|---|---|---|---|"]
    for provider in load_providers(None).values():
        page = f"[{provider.title}](docs/providers/{provider.name}.md)"
        rows.append(
            f"| {page} | `/webhooks/{slug_of(provider.name)}` | {provider.verifier.family} "
            f"| {len(provider.mappers)} types |"
        )
    return "\n".join(rows) + "\n"


def test_the_readme_lists_the_providers_as_they_are() -> None:
    assert f"<!-- providers:begin -->\n{providers_table()}<!-- providers:end -->" in (ROOT / "README.md").read_text()


def test_each_setting_is_in_the_documentation_as_it_is() -> None:
    assert settings_table() in (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture
def case() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(blocks(GUIDE, "json")[0])
    return found


def test_the_guides_provider_works_as_it_stands(tmp_path: Path, case: dict[str, Any]) -> None:
    (tmp_path / "acme_pay.py").write_text(blocks(GUIDE, "python")[0])
    providers = load_providers(tmp_path)
    environ = {"RELAY_ACME_PAY_SECRET": "hush", "OAA_API_KEY": "oa_live_1", "OAA_PROJECT_ID": "42"}
    source = load(providers, environ=environ, env_file=tmp_path / "none").sources["acme-pay"]
    headers = {name.lower(): value for name, value in case["headers"].items()}
    delivery = Delivery(body=orjson.dumps(case["body"]), headers=headers)

    (mapped,) = map_delivery(providers["acme_pay"], source, delivery, received_at_ms=START_MS)

    assert mapped.outcome is Outcome.MAPPED
    assert mapped.notification_id == "dlv_1"
    (outgoing,) = mapped.events
    event = orjson.loads(outgoing.sealed.payload)
    assert (event["event_name"], event["revenue"], event["currency"]) == ("purchase", 19.99, "EUR")
    assert event["properties"]["utm_source"] == "newsletter"


def test_the_guides_case_says_what_the_guides_mapper_yields(tmp_path: Path, case: dict[str, Any]) -> None:
    (tmp_path / "acme_pay.py").write_text(blocks(GUIDE, "python")[0])
    provider = load_providers(tmp_path)["acme_pay"]
    headers = {name.lower(): value for name, value in case["headers"].items()}
    (notification,) = provider.notifications(Delivery(body=orjson.dumps(case["body"]), headers=headers))

    learned, draft = provider.mappers[notification.type](notification)

    assert isinstance(learned, Learned)
    assert isinstance(draft, Draft)
    (expected,) = case["drafts"]
    assert str(draft.revenue) == expected["revenue"]
    assert list(draft.once) == expected["once"]
    assert draft.at_ms == expected["at_ms"]
    assert dict(draft.properties) == expected["properties"]
    assert list(learned.keys) == case["learned"][0]["keys"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
