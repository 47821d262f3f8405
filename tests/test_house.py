"""The house rules that no linter knows: what is written is true, and everything is in its place."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from relay.cases import read_cases
from relay.contract import Provider
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.rehearsal import START_MS, source_of
from relay.samples import cases_of
from relay.settings import load
from relay.sources import DestinationTable, SourceTable
from relay.tables import Complaints, read_tables
from relay.variables import Variables, secret_variable, variable, variables_of

ROOT = Path(__file__).parents[1]
PROVIDERS = load_providers(None)
OWN = (".ci", "bench", "deploy", "docs", "mappers", "relay", "tests")

each_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
each_module = pytest.mark.parametrize(
    "module",
    [path for folder in ("relay", "mappers") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
each_mapper = pytest.mark.parametrize("mapper", sorted((ROOT / "mappers").glob("*.py")), ids=lambda path: path.stem)


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of ours, with its name."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in OWN for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in paths:
        if path.suffix not in {".pyc", ".png", ".db"} and not path.match(".env") and not path.match(".coverage*"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace")


# --- settings ---------------------------------------------------------------------------------------------------------


def example() -> dict[str, str]:
    """The variables that `.env.example` shows, commented out or not."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    found = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def of_providers() -> set[str]:
    return {name for provider in PROVIDERS.values() for name in variables_of(provider).values()}


def test_each_setting_is_in_the_example() -> None:
    shown = set(example()) - of_providers()

    assert {variable(field) for field in Variables.model_fields} == shown


def test_the_example_shows_how_a_provider_is_switched_on() -> None:
    assert set(variables_of(PROVIDERS["stripe"]).values()) <= set(example())


def test_the_example_can_be_used_with_every_line_in_effect(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.touch()
    load(PROVIDERS, environ=example(), env_file=tmp_path / ".env", config=config)


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.touch()
    shown = load(PROVIDERS, environ=example(), env_file=tmp_path / ".env", config=config)
    wrong = {
        name for name, field in Variables.model_fields.items() if field.default not in (None, (), getattr(shown, name))
    }

    assert set[str]() == wrong


def test_each_setting_says_what_it_means() -> None:
    fields = {**Variables.model_fields, **SourceTable.model_fields, **DestinationTable.model_fields}

    assert [] == [name for name, field in fields.items() if not (field.description or "").endswith(".")]


def test_each_key_of_the_file_is_in_its_example() -> None:
    text = (ROOT / "relay.example.toml").read_text(encoding="utf-8")
    shown = set(re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE))
    shorthands = {"secrets_env"}

    assert {*SourceTable.model_fields, *DestinationTable.model_fields} == shown - shorthands


@pytest.mark.parametrize("is_whole", [False, True], ids=["as it is", "with every line in effect"])
def test_the_example_of_the_file_can_be_used(tmp_path: Path, *, is_whole: bool) -> None:
    text = (ROOT / "relay.example.toml").read_text(encoding="utf-8")
    config = tmp_path / "relay.toml"
    config.write_text(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE) if is_whole else text)
    unset = read_tables(config, {}, Complaints()).referenced
    settings = load(PROVIDERS, environ=dict.fromkeys(unset, "whsec_1"), env_file=tmp_path / ".env", config=config)

    assert {"shop", "playground"} == set(settings.destinations)
    assert {"stripe-eu", "stripe-us"} == set(settings.sources)


# --- providers --------------------------------------------------------------------------------------------------------


@each_provider
def test_each_provider_has_a_page(provider: Provider) -> None:
    page = (ROOT / "docs" / "providers" / f"{provider.name}.md").read_text(encoding="utf-8")

    assert (True, True) == (provider.docs in page, secret_variable(provider.name) in page)


@each_provider
def test_each_provider_has_a_row_in_the_readme(provider: Provider) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- providers:begin -->")[2].partition("<!-- providers:end -->")[0]
    rows = [row for row in table.splitlines() if f"docs/providers/{provider.name}.md" in row]

    assert [True] == [provider.title in row for row in rows]


@each_provider
def test_what_is_not_kept_changes_nothing(provider: Provider) -> None:
    """A body is mapped without what `Provider.redact` takes out, and mapped again without it."""
    for case in read_cases(provider, ROOT / "tests" / "mappers" / provider.name):
        kept = replace(case.delivery, body=provider.redact(case.delivery.body))
        source = source_of(provider)

        assert map_delivery(provider, source, case.delivery, received_at_ms=START_MS) == map_delivery(
            provider, source, kept, received_at_ms=START_MS
        )


@each_provider
@given(body=st.binary() | st.text().map(str.encode))
def test_no_bytes_keep_a_delivery_from_being_kept(provider: Provider, body: bytes) -> None:
    assert isinstance(provider.redact(body), bytes)


@each_provider
def test_the_options_that_drafts_name_are_the_providers(provider: Provider) -> None:
    drafts = [
        draft for case in read_cases(provider, ROOT / "tests" / "mappers" / provider.name) for draft in case.drafts
    ]

    assert {draft["option"] for draft in drafts if "option" in draft} <= set(provider.options)
    assert {draft["without"] for draft in drafts if "without" in draft} == provider.instead
    assert provider.instead <= set(provider.options)


@each_provider
def test_each_mapped_type_has_a_case(provider: Provider) -> None:
    shown = {case.type for case in cases_of(provider, None)}

    assert set[str]() == set(provider.mappers) - shown


VOCABULARY = (ROOT / "docs" / "adding-a-provider.md").read_text(encoding="utf-8").partition("## The vocabulary")[2]
NAMES, KEYS = VOCABULARY.partition("\n## ")[0].split("What stands before the colon")


@each_provider
def test_the_words_of_a_case_are_in_the_vocabulary(provider: Provider) -> None:
    """A new word is a decision: it is written into the guide's list."""
    names, keys = set[str](), set[str]()
    for case in read_cases(provider, ROOT / "tests" / "mappers" / provider.name):
        for draft in case.drafts:
            variants = draft.get("variants", {}).values()
            names |= {draft["name"], *(variant["name"] for variant in variants)}
            keys |= {key.partition(":")[0] for key in (*draft["once"], *(variant["once"] for variant in variants))}

    assert (set[str](), set[str]()) == (
        names - set(re.findall(r"`(\w+)`", NAMES)),
        keys - set(re.findall(r"`([\w.]+)`", KEYS)),
    )


# --- mappers ----------------------------------------------------------------------------------------------------------

#: What is the same today and tomorrow, on every machine.
MAY_IMPORT = {"relay.contract", "relay.signatures", "relay.money"}
#: With these a mapper would tell another story at the next replay, or do what is not its job.
MAY_NOT_IMPORT = {"os", "pathlib", "random", "secrets", "socket", "subprocess", "time", "uuid"}


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "." * node.level)
    return found


@each_mapper
def test_a_mapper_imports_the_contract_and_the_standard_library_only(mapper: Path) -> None:
    """A provider that is too long for one file may keep parts of it in `_<provider>_<part>.py`."""
    whole = next((name for name in PROVIDERS if mapper.stem.startswith((name, f"_{name}_"))), mapper.stem)
    own = {f"mappers.{part.stem}" for part in mapper.parent.glob(f"_{whole}_*.py")}
    foreign = {
        name
        for name in imported(mapper) - MAY_IMPORT - own
        if name.partition(".")[0] not in sys.stdlib_module_names - MAY_NOT_IMPORT
    }

    assert set[str]() == foreign


@each_mapper
def test_a_mapper_does_not_catch_its_own_mistakes(mapper: Path) -> None:
    """It raises, the notification is parked, and mapped again after the fix."""
    tree = ast.parse(mapper.read_text(encoding="utf-8"))

    assert [] == [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Try)]


# --- all of it --------------------------------------------------------------------------------------------------------


@each_module
def test_a_module_is_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


@each_module
def test_a_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def test_each_rule_that_is_switched_off_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignores = re.findall(r'^    "[A-Z]+[0-9]*",.*$', text, re.MULTILINE)

    assert [] == [line for line in ignores if "# " not in line]


def test_the_lock_names_public_sources_only() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    sources = {str(package["source"]) for package in lock["package"]}

    assert {"{'registry': 'https://pypi.org/simple'}", "{'editable': '.'}"} == sources
    assert "file://" not in (ROOT / "uv.lock").read_text(encoding="utf-8")


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    places = re.compile(
        "/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "Us" + "ers", "home/[a-z]+", "opt/py" + "pi"]) + ")/"
    )

    assert [] == [(name, found[0]) for name, text in texts() if (found := places.search(text))]
