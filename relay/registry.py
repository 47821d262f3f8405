"""The providers that this relay knows: the only module that imports `mappers`.

Three doors, one set of rules: a file in the package `mappers`, a file in the folder `RELAY_MAPPERS_DIR`, an installed
package with an entry point in the group `relay.mappers`. Whatever is wrong at one of them stops the start: all of it is
told at once, with the file, the name, the reason and what to do.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import mappers
from relay.contract import Provider

GROUP = "relay.mappers"

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class RegistryError(Exception):
    """A provider cannot be used. The text names each one, and tells what is wrong with it and what to do."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["The providers cannot be loaded:", *(f"- {problem}" for problem in problems)]))


@dataclass(frozen=True, slots=True)
class _Found:
    """One door's offer: where it was found, the name that it must carry (None: any), and how to get it."""

    where: str
    remedy: str
    name: str | None
    load: Callable[[], object]


def load_providers(mappers_dir: Path | None) -> dict[str, Provider]:
    """All providers by name, sorted. `mappers_dir` None: no mounted folder. Raises `RegistryError`."""
    problems: list[str] = []
    providers: dict[str, Provider] = {}
    places: dict[str, str] = {}
    for found in _all_doors(mappers_dir, problems):
        try:
            provider = _provider_in(found.load())
        except Exception as error:  # noqa: BLE001  a third party's module may raise anything, and must be named for it
            problems.append(f"{found.where}: {_reason(error)}. {found.remedy}")
            continue
        if faults := list(_faults(provider, found.name)):
            problems.extend(f"{found.where}: {fault}" for fault in faults)
        elif provider.name in providers:
            problems.append(
                f"{found.where}: provider {provider.name!r} is already defined by {places[provider.name]}. "
                "Remove one of the two, or give it another name."
            )
        else:
            providers[provider.name] = provider
            places[provider.name] = found.where
    if problems:
        raise RegistryError(problems)
    return dict(sorted(providers.items()))


# --- the three doors --------------------------------------------------------------------------------------------------


def _all_doors(mappers_dir: Path | None, problems: list[str]) -> Iterator[_Found]:
    for folder in mappers.__path__:
        for path in _modules(Path(folder)):
            load = partial(importlib.import_module, f"{mappers.__name__}.{path.stem}")
            yield _Found(str(path), "Correct the file, or remove it.", path.stem, load)
    if mappers_dir is not None and not mappers_dir.is_dir():
        problems.append(
            f"RELAY_MAPPERS_DIR: {mappers_dir} is not a folder. "
            "Mount the folder with your mappers there, or remove the setting."
        )
    elif mappers_dir is not None:
        for path in _modules(mappers_dir):
            yield _Found(str(path), "Correct the file, or take it out of the folder.", path.stem, partial(_run, path))
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        yield _entry_point(entry)


def _modules(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_"))


def _run(path: Path) -> ModuleType:
    module = ModuleType(f"relay_mounted_mappers.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # before it runs: dataclasses look their module up there
    SourceFileLoader(module.__name__, str(path)).exec_module(module)
    return module


def _entry_point(entry: EntryPoint) -> _Found:
    package = f" of the package {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return _Found(
        f"entry point {entry.name} = {entry.value}{package}",
        "Update the package, or uninstall it.",
        None,
        entry.load,
    )


# --- what is asked of a provider --------------------------------------------------------------------------------------


def _provider_in(found: object) -> Provider:
    provider = getattr(found, "provider", None) if isinstance(found, ModuleType) else found
    if not isinstance(provider, Provider):
        msg = "it defines no `provider = Provider(...)`"
        raise TypeError(msg)
    return provider


def _faults(provider: Provider, expected: str | None) -> Iterator[str]:
    label = f"provider {provider.name!r}"
    if not _NAME.fullmatch(provider.name):
        yield f"{label}: the name is not in lower-case letters, digits and single underscores. Rename it."
    elif expected is not None and provider.name != expected:
        yield f"{label}: the file is called {expected}.py. Give the file and the provider the same name."
    if not provider.title:
        yield f"{label}: it has no title. Set title= to the name that people know it by."
    if not provider.docs.startswith(("https://", "http://")):
        yield f"{label}: docs= is no URL. Set it to the provider's own page on webhooks."
    if not provider.mappers:
        yield f"{label}: no type is mapped. Add a mapper with @provider.on(...)."


def _reason(error: Exception) -> str:
    """The traceback's last line, and where in the module it arose."""
    last = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{last} (line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    return f"{last} (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else last
