"""The settings: variables (the environment over `.env`), and `relay.toml` for many sources and destinations.

`load` returns them whole and checked, or raises `SettingsError`, which tells everything that is wrong at once. An
unknown variable or key stops the start, since it is a setting that somebody believes in. No secret is ever shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pydantic import PrivateAttr

from relay.contract import Provider
from relay.declared import declare as declare_source, declares, provider_name, without_declaration
from relay.sources import DEFAULT, Destination, Source, SourceRules, make_destination, make_source, slug_of
from relay.tables import Complaints, NameOf, Table, Tables, read_tables
from relay.variables import (
    API_PAIR,
    Variables,
    read_variables,
    refuse_unknown,
    secret_variable,
    take,
    variable,
    variables_of,
)

__all__ = ["Destination", "Settings", "SettingsError", "Source", "declare", "load", "mappers_dir"]

ENV_FILE = Path(".env")
CONFIG = Path("relay.toml")
#: What the extra `otel` installs.
_TRACING = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class SettingsError(Exception):
    """The settings cannot be used. The text lists all that is wrong, each with what to do."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["The settings cannot be used:", *(f"- {problem}" for problem in problems)]))


class Settings(Variables):
    """All that the relay is told from outside."""

    _sources: Mapping[str, Source] = PrivateAttr(default_factory=dict)
    _destinations: Mapping[str, Destination] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def sources(self) -> Mapping[str, Source]:
        """By slug."""
        return self._sources

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """By name. Empty where nothing is configured: the caller then starts a sandbox."""
        return self._destinations

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably not meant, but does not stop the start."""
        return self._warnings

    def having(
        self,
        sources: Mapping[str, Source],
        destinations: Mapping[str, Destination],
        warnings: tuple[str, ...] = (),
    ) -> Self:
        """The same settings with these in place of its own."""
        other = self.model_copy()
        other._sources, other._destinations, other._warnings = sources, destinations, warnings  # noqa: SLF001
        return other

    def with_destination(self, destination: Destination) -> Self:
        """The same settings with one more destination, such as a sandbox."""
        return self.having(self.sources, {**self.destinations, destination.name: destination}, self.warnings)


# --- loading ----------------------------------------------------------------------------------------------------------


def load(
    providers: Mapping[str, Provider],
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Path = ENV_FILE,
    config: Path | None = None,
) -> Settings:
    """The settings. `environ` None: the process's own; `config` None: `RELAY_CONFIG`. Raises `SettingsError`."""
    complaints = Complaints()
    given = read_variables(environ, env_file, complaints)
    values = take(given, complaints)
    variables = Variables(**values)
    path = config or variables.config or CONFIG
    is_optional = config is None and variables.config is None and not path.exists()
    tables = Tables(path) if is_optional else read_tables(path, given, complaints)
    refuse_unknown(given, tables.referenced, providers, complaints)
    _refuse_contradictions(variables, given, providers, complaints)
    destinations = _destinations(variables, tables, given, complaints)
    sources = _sources(variables, tables, given, providers, list(destinations), complaints)
    if complaints.problems:
        raise SettingsError(list(dict.fromkeys(complaints.problems)))
    return Settings(**values).having(
        sources={slug: source for slug, source in sources.items() if source},
        destinations={name: destination for name, destination in destinations.items() if destination},
        warnings=tuple(dict.fromkeys(complaints.warnings)),
    )


def mappers_dir(*, environ: Mapping[str, str] | None = None, env_file: Path = ENV_FILE) -> Path | None:
    """`RELAY_MAPPERS_DIR` alone, which is needed before there are providers to load the rest with."""
    found = read_variables(environ, env_file, Complaints()).get("RELAY_MAPPERS_DIR")
    return Path(found) if found else None


def declare(
    known: Mapping[str, Provider],
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Path = ENV_FILE,
    config: Path | None = None,
) -> dict[str, Provider]:
    """The known providers, and those that `relay.toml` declares, which `load` needs too. Raises `SettingsError`.

    What else is wrong in the file or with the variables is for `load` to tell.
    """
    given = read_variables(environ, env_file, Complaints())
    path = config or Path(given.get("RELAY_CONFIG") or CONFIG)
    if not path.exists():
        return dict(known)
    tables, complaints = read_tables(path, given, Complaints()), Complaints()
    found = dict(known)
    for slug, table in tables.sources.items():
        if table is None or not declares(table):
            continue
        name, name_of = provider_name(slug), partial(tables.name_of, "sources", slug)
        if name in found:
            complaints.problems.append(
                f"{name_of('')}: a provider is called {name!r} already. Give the source another slug, or set provider "
                "in place of a signature and a mapping of its own."
            )
        elif provider := declare_source(slug, table, name_of=name_of, complaints=complaints):
            found[name] = provider
    if complaints.problems:
        raise SettingsError(complaints.problems)
    return found


def _refuse_contradictions(
    variables: Variables, given: Mapping[str, str], providers: Mapping[str, Provider], complaints: Complaints
) -> None:
    missing = [name for name in API_PAIR if not given.get(name)]
    if len(missing) == 1:
        other = next(name for name in API_PAIR if name not in missing)
        complaints.problems.append(f"{other} is set, but {missing[0]} is not. Set both, or neither for the sandbox.")
    for provider in providers.values():
        own = variables_of(provider)
        if own["secrets"] in given:
            continue
        complaints.problems.extend(
            f"{name} is set, but {own['secrets']} is not, which makes the source. Set both; a source in relay.toml has "
            f"its own key `{key}`."
            for key, name in own.items()
            if given.get(name)
        )
    if variables.database_url.get_secret_value().startswith("postgres") and not variables.encryption_keys:
        complaints.problems.append(
            "RELAY_DATABASE_URL names a PostgreSQL, but RELAY_ENCRYPTION_KEYS is not set, which all replicas must "
            "share. Set it to what `openssl rand -base64 32` prints."
        )
    if variables.tracing and not all(_is_installed(module) for module in _TRACING):
        complaints.problems.append(
            "RELAY_TRACING is on, but its packages are not installed. Install them: pip install 'webhook-relay[otel]'."
        )
    if variables.retain_bodies_days > variables.retain_keys_days:
        complaints.problems.append(
            "RELAY_RETAIN_BODIES_DAYS is more than RELAY_RETAIN_KEYS_DAYS: a body that is mapped again after its keys "
            "are gone counts twice. Keep the keys as long as the bodies, or longer."
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor what it is in
        return False


# --- destinations and sources -----------------------------------------------------------------------------------------


def _destinations(
    variables: Variables, tables: Tables, given: Mapping[str, str], complaints: Complaints
) -> dict[str, Destination | None]:
    """By name; None for one that is wrong, so that a source that names it is not told to be wrong as well."""
    rest: Table = {
        "base_url": variables.oaa_base_url,
        "batch_body": variables.oaa_batch_body,
        "timeout_s": variables.oaa_timeout_s,
    }
    declared: dict[str, tuple[Table | None, NameOf]] = {}
    if any(given.get(name) for name in API_PAIR):  # what is missing or wrong in the pair has been told already
        pair = {"project_id": variables.oaa_project_id, "api_key": variables.oaa_api_key}
        declared[DEFAULT] = (None if None in pair.values() else pair, lambda key: f"OAA_{key.upper()}")
    for name, table in tables.destinations.items():
        if name in declared:
            complaints.problems.append(
                f"{tables.name_of('destinations', name)} is defined by OAA_API_KEY too. Remove one of the two."
            )
        declared[name] = (table, partial(tables.name_of, "destinations", name))
    return {
        name: None
        if table is None
        else make_destination(name, {**rest, **table}, name_of=name_of, complaints=complaints)
        for name, (table, name_of) in declared.items()
    }


def _sources(
    variables: Variables,
    tables: Tables,
    given: Mapping[str, str],
    providers: Mapping[str, Provider],
    destinations: list[str],
    complaints: Complaints,
) -> dict[str, Source | None]:
    """By slug; None for one that is wrong. One that declares its provider may have its secret in a variable as well."""
    rules = variables.model_dump(include=set(SourceRules.model_fields))
    declared: dict[str, tuple[Table | None, NameOf]] = {}
    for provider in providers.values():
        own = variables_of(provider)
        if own["secrets"] in given:
            said = {key: given[name] for key, name in own.items() if given.get(name) or key == "secrets"}
            declared[slug_of(provider.name)] = ({"provider": provider.name, **said}, partial(_variable_of_source, own))
    for slug, written in tables.sources.items():
        table: Table | None = written
        if written is not None and declares(written):
            own_secret = secret_variable(provider_name(slug))
            is_its_own = slug in declared and ("secrets" not in written or own_secret in tables.referenced)
            from_variables = declared.pop(slug)[0] if is_its_own else None
            table = without_declaration(slug, {**(from_variables or {}), **written})
        if slug in declared:
            complaints.problems.append(
                f"{tables.name_of('sources', slug)} is defined by {declared[slug][1]('secrets')} too. Remove one of "
                "the two, or give the table another slug."
            )
        declared[slug] = (table, partial(tables.name_of, "sources", slug))
    made: dict[str, Source | None] = {}
    for slug, (table, name_of) in declared.items():
        url = f"{variables.public_url}/webhooks/{slug}" if variables.public_url else None
        made[slug] = (
            None
            if table is None
            else make_source(
                slug,
                {**rules, "public_url": url, **table},
                name_of=name_of,
                providers=providers,
                destinations=destinations,
                complaints=complaints,
            )
        )
        if slug in tables.sources and declares(tables.sources[slug] or {}):
            _refuse_faulty_secrets(made[slug], providers, name_of, complaints)
    return made


def _refuse_faulty_secrets(
    source: Source | None, providers: Mapping[str, Provider], name_of: NameOf, complaints: Complaints
) -> None:
    """A secret that is no key for what its own table says of it: one of the two was mistyped."""
    if source is None:
        return
    for number, secret in enumerate(source.secrets, 1):
        if fault := providers[source.provider].verifier.fault(secret.get_secret_value()):
            complaints.problems.append(f"{name_of('secrets')}: secret {number} {fault}, as verify has it. Correct one.")


def _variable_of_source(own: Mapping[str, str], key: str) -> str:
    if key in SourceRules.model_fields:
        return variable(key)
    return f"{own['secrets']}: its destination" if key == "destination" else own.get(key, own["secrets"])
