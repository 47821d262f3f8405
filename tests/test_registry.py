"""Three doors for a provider, and a start that stops by name when one of them is broken."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.registry import RegistryError, load_providers

ACME = """
from relay.contract import Provider, SecretShape, conversion, field
from relay.signatures import hmac_sha256

provider = Provider(
    name="{name}",
    title="{title}",
    docs="{docs}",
    verifier=hmac_sha256(header="X-Acme-Signature"),
    notification_type=field("type"),
    secret=SecretShape(meaning="Acme's settings, under Webhooks."),
)


@provider.on({types})
def purchase(n):
    yield conversion("purchase", once="payment:" + n.body["id"], at_ms=1)
"""


def acme(
    name: str = "acme", *, title: str = "Acme", docs: str = "https://acme.example/webhooks", types: str = '"paid"'
) -> str:
    return ACME.format(name=name, title=title, docs=docs, types=types)


def refused(folder: Path) -> str:
    with pytest.raises(RegistryError) as refusal:
        load_providers(folder)
    return str(refusal.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mounted = tmp_path / "mappers"
    mounted.mkdir()
    return mounted


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """A place on the path of the interpreter, as site-packages is one."""
    site = tmp_path / "site-packages"
    site.mkdir()
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))


def install(site: Path, module: str, text: str, *, entry: str) -> None:
    (site / f"{module}.py").write_text(text)
    info = site / f"{module}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[relay.mappers]\n{entry}\n")


# --- the doors --------------------------------------------------------------------------------------------------------


def test_every_file_in_mappers_is_found() -> None:
    folder = Path(__file__).parents[1] / "mappers"
    expected = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}

    assert expected == set(load_providers(None))


def test_a_file_dropped_into_mappers_is_found_at_the_next_start(tmp_path: Path) -> None:
    package = tmp_path / "mappers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "acme.py").write_text(acme())
    program = "from relay.registry import load_providers; print(*load_providers(None))"

    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )

    assert "acme" == found.stdout.strip()


def test_a_file_in_a_mounted_folder_is_found(folder: Path) -> None:
    (folder / "acme.py").write_text(acme())

    assert "Acme" == load_providers(folder)["acme"].title


def test_a_file_that_begins_with_an_underscore_is_no_provider(folder: Path) -> None:
    (folder / "_shared.py").write_text("raise RuntimeError")

    assert set(load_providers(None)) == set(load_providers(folder))


def test_a_mounted_file_may_define_classes_of_its_own(folder: Path) -> None:
    own = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Amount:\n    "
    (folder / "acme.py").write_text(own + "minor: int\n" + acme())

    assert "acme" in load_providers(folder)


@pytest.mark.parametrize("entry", ["acme = acme_for_relay", "acme = acme_for_relay:provider"])
def test_an_installed_package_brings_a_provider(installed: Path, entry: str) -> None:
    install(installed, "acme_for_relay", acme(), entry=entry)
    sys.modules.pop("acme_for_relay", None)

    assert "Acme" == load_providers(None)["acme"].title


def test_providers_are_sorted_by_name(folder: Path) -> None:
    for name in ("zebra", "aardvark", "middle"):
        (folder / f"{name}.py").write_text(acme(name))
    names = list(load_providers(folder))

    assert sorted(names) == names


# --- a start that stops -----------------------------------------------------------------------------------------------


def test_a_file_that_raises_is_named_with_the_reason_and_its_line(folder: Path) -> None:
    (folder / "acme.py").write_text("x = 1\nraise ValueError('no such thing')\n")

    expected = f"{folder}/acme.py: ValueError: no such thing (line 2 of acme.py). Correct the file, or take it out of"
    assert expected in refused(folder)


def test_a_file_that_is_no_python_is_named_with_its_line(folder: Path) -> None:
    (folder / "acme.py").write_text("\n\nprovider = (\n")

    assert "acme.py: SyntaxError: '(' was never closed (line 3)" in refused(folder)


def test_a_type_that_is_registered_twice_is_named(folder: Path) -> None:
    (folder / "acme.py").write_text(acme(types='"paid", "paid"'))

    assert "provider acme: type 'paid' is registered twice (line 15 of acme.py)" in refused(folder)


def test_a_file_without_a_provider_is_named(folder: Path) -> None:
    (folder / "acme.py").write_text("providers = []")

    assert "acme.py: TypeError: it defines no `provider = Provider(...)`" in refused(folder)


@pytest.mark.parametrize(
    "text, expected",
    [
        (acme("Acme"), "'Acme': the name is not in lower-case letters"),
        (acme("acme__pay"), "'acme__pay': the name is not in lower-case letters"),
        (acme("other"), "'other': the file is called acme.py"),
        (acme(title=""), "'acme': it has no title"),
        (acme(docs="ask us"), "'acme': docs= is no URL"),
        (acme(types=""), "'acme': no type is mapped"),
    ],
)
def test_a_provider_that_breaks_a_rule_is_named_with_the_rule(folder: Path, text: str, expected: str) -> None:
    (folder / "acme.py").write_text(text)

    assert f"{folder}/acme.py: provider {expected}" in refused(folder)


def test_two_providers_of_one_name_are_both_named(folder: Path, installed: Path) -> None:
    (folder / "acme.py").write_text(acme())
    install(installed, "acme_twin", acme(), entry="acme = acme_twin")

    expected = (
        "entry point acme = acme_twin of the package acme_twin 2.5: provider 'acme' is already defined by "
        f"{folder}/acme.py. Remove one of the two"
    )
    assert expected in refused(folder)


def test_an_entry_point_that_cannot_be_loaded_is_named_with_its_package(installed: Path) -> None:
    install(installed, "acme_broken", "import no_such_module_at_all", entry="acme = acme_broken")

    with pytest.raises(RegistryError) as refusal:
        load_providers(None)

    expected = "entry point acme = acme_broken of the package acme_broken 2.5: ModuleNotFoundError: No module named"
    assert expected in str(refusal.value)


def test_a_mounted_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"RELAY_MAPPERS_DIR: {tmp_path}/nowhere is not a folder" in refused(tmp_path / "nowhere")


def test_all_broken_providers_are_told_at_once(folder: Path) -> None:
    (folder / "acme.py").write_text("raise KeyError('a')")
    (folder / "bolt.py").write_text("raise KeyError('b')")
    text = refused(folder)

    assert ("acme.py" in text, "bolt.py" in text) == (True, True)
