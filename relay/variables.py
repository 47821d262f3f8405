"""The variables: what there is to set, with defaults and meaning, and how they are read.

In: the environment over `.env`. Out: checked values; what is wrong or unknown becomes a sentence among the complaints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretBytes, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from relay.contract import Provider
from relay.sources import BaseUrl, BatchBody, ProjectId, SourceRules, Words, words
from relay.tables import Complaints, meant, sentences
from relay.vault import VaultError, parse_key

#: The destination `default`: both or neither.
API_PAIR = ("OAA_API_KEY", "OAA_PROJECT_ID")

_OURS = re.compile(r"(RELAY|OAA)_", re.IGNORECASE)
_OF_PROVIDER = re.compile(r"RELAY_(\w+?)_(?:SECRET|ENABLE|CURRENCY|API_KEY|API_BASE)")
_SQLITE = "sqlite:///"
_SHORTEST_TOKEN = 16
_POSTGRES = ("postgresql://", "postgres://")


def _database_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text.startswith(_POSTGRES):
        return url
    if not text.startswith(_SQLITE):
        msg = f"must begin with {_SQLITE} or {_POSTGRES[0]}"
        raise ValueError(msg)
    if text.removeprefix(_SQLITE) in {"", ":memory:"}:
        msg = "must name a file, since what is kept in memory is lost with the process"
        raise ValueError(msg)
    return url


def _admin_token(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < _SHORTEST_TOKEN:
        msg = f"must have {_SHORTEST_TOKEN} signs or more (openssl rand -hex 32 makes one)"
        raise ValueError(msg)
    return token


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(network, strict=False)) for network in given)
    except ValueError:
        msg = "must be addresses or networks (10.0.0.0/8), separated by commas"
        raise ValueError(msg) from None


def _encryption_keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return [parse_key(word) for word in words(value)]
    except VaultError:
        msg = "must be 32 bytes in base64 each (openssl rand -base64 32 makes one)"
        raise ValueError(msg) from None


def _secret_words(value: object) -> object:
    return words(value) if isinstance(value, str) else value


class Variables(SourceRules, BaseSettings):
    """Every variable: `RELAY_<FIELD>`, or the field's alias. Those of the providers (`variables_of`) come on top."""

    model_config = SettingsConfigDict(env_prefix="RELAY_", frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0: any free one.")
    public_url: BaseUrl | None = Field(
        None, description="What the providers see before /webhooks/..., for those that sign the URL."
    )
    config: Path | None = Field(None, description="The file of sources and destinations. Unset: ./relay.toml, if any.")
    mappers_dir: Path | None = Field(None, description="A folder with mappers of your own, one file a provider.")
    admin_token: Annotated[SecretStr, AfterValidator(_admin_token)] | None = Field(
        None,
        description="The token with which operators sign in at /admin, 16 signs or more. Unset: there is no console.",
    )
    admin_user_header: str | None = Field(
        None,
        description="The header in which a proxy says who signed in with it (X-Forwarded-Email); believed only of "
        "RELAY_ADMIN_PROXIES.",
    )
    admin_proxies: Annotated[Words, AfterValidator(_networks)] = Field(
        ("127.0.0.1/32", "::1/128"), description="The networks that this proxy calls from, separated by commas."
    )

    oaa_base_url: BaseUrl = Field(
        "https://api.openanalyticsapi.com", validation_alias="OAA_BASE_URL", description="The events API's base URL."
    )
    oaa_project_id: ProjectId | None = Field(
        None, validation_alias="OAA_PROJECT_ID", description="The project that the events go to."
    )
    oaa_api_key: SecretStr | None = Field(
        None, validation_alias="OAA_API_KEY", description="The project's API key (oa_live_...)."
    )
    oaa_batch_body: BatchBody = Field(
        "object", validation_alias="OAA_BATCH_BODY", description='The shape of a batch: {"events": [...]}, or [...].'
    )
    oaa_timeout_s: float = Field(
        10, gt=0, validation_alias="OAA_TIMEOUT_S", description="How long to wait for the API's answer, in seconds."
    )

    batch_size: int = Field(1000, ge=1, le=1000, description="The most events in one call of the events API.")
    calls_at_once: int = Field(
        0, ge=0, description="The most calls under way to one destination, by all replicas together. 0: one a replica."
    )
    events_per_s: int = Field(
        0, ge=0, description="The most events a second to one destination, by all replicas together. 0: no limit."
    )
    in_doubt: Literal["retry", "hold"] = Field(
        "retry", description="A batch whose answer never came: send it again (retry), or leave it to a person (hold)."
    )
    give_up_after_days: int = Field(
        7, ge=1, description="After how many days an event that could not be sent becomes a dead letter."
    )

    ingest_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_secret_words)] = Field(
        (),
        description="Keys with which backends may POST events to /v1/projects/..., separated by commas: KEY, or "
        "PROJECT:KEY for one project. More come from `relay keys create`.",
    )
    ingest_user_id: Literal["hash", "refuse"] = Field(
        "hash", description="A posted user_id that is an e-mail address: hash it, and say so in a header, or refuse it."
    )
    ingest_ids: Words = Field(
        ("event_id", "id", "order_id"),
        description="Properties that tell posted events apart, best first: an event with the same is taken once.",
    )
    ingest_repeat_s: int = Field(
        0,
        ge=0,
        le=86_400,
        description="A call without Idempotency-Key that is posted again within so many seconds, byte for byte, is a "
        "repeat. 0: it is news.",
    )
    ingest_origins: Words = Field(
        (), description="Origins of web pages that may POST events (CORS). Unset: none, only servers do."
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        SecretStr("sqlite:///./var/relay.db"),
        description="Where everything is kept: an SQLite file, or a PostgreSQL that replicas share.",
    )
    encryption_keys: Annotated[tuple[SecretBytes, ...], NoDecode, BeforeValidator(_encryption_keys)] = Field(
        (),
        description="Keys of the bodies at rest, separated by commas: the first encrypts, all decrypt. Unset: a key "
        "file is made beside the database.",
    )
    spool: bool = Field(
        default=False, description="With PostgreSQL: while it is away, keep deliveries in a file and acknowledge them."
    )
    spool_file: Path = Field(Path("./var/spool.db"), description="That file, on a disk that outlives the container.")
    retain_bodies_days: int = Field(
        7, ge=0, description="For how many days the bodies of deliveries are kept; 0: not at all."
    )
    retain_keys_days: int = Field(
        90, ge=30, description="For how many days the keys are kept that make a repeated notification a duplicate."
    )
    min_free_disk_mb: int = Field(
        200, ge=0, description="Below this much free disk, in MB, providers are told to come later."
    )
    max_waiting: int = Field(
        5000, ge=1, description="How many deliveries may wait for their commit; more are told to come later."
    )
    workers: int = Field(
        1,
        ge=0,
        le=15,
        description="How many processes receive, beside one that maps and forwards. 0: one process does everything, "
        "which takes less memory.",
    )
    shutdown_s: int = Field(20, ge=0, description="How many seconds a shutdown may take to finish what is under way.")

    alarm_url: SecretStr | None = Field(
        None, description="Where alarms are POSTed: the webhook of a chat or a pager. Unset: metrics and the log only."
    )
    alarm_format: Literal["slack", "json"] = Field(
        "slack", description="What is posted: a text as Slack and others take it (slack), or the alarms as well (json)."
    )
    alarm_repeat_h: int = Field(24, ge=1, le=168, description="After how many hours an alarm that lasts is told again.")

    tracing: bool = Field(
        default=False,
        description="Send spans to an OpenTelemetry collector; the OTEL_* variables say to which, and how many.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="How the log looks. auto: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` reads the environment and `.env` itself, since what is unknown in them must be told too."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


# --- their names ------------------------------------------------------------------------------------------------------


def variable(field: str) -> str:
    """The variable of a field of `Variables`."""
    alias = Variables.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"RELAY_{field.upper()}"


def secret_variable(provider: str) -> str:
    """The variable that switches on the source of this provider."""
    return f"RELAY_{provider.upper()}_SECRET"


def enable_variable(provider: str) -> str:
    """The variable that switches on options of that source."""
    return f"RELAY_{provider.upper()}_ENABLE"


def currency_variable(provider: str) -> str:
    """The variable of the currency of that source's amounts, where the provider tells none."""
    return f"RELAY_{provider.upper()}_CURRENCY"


def api_key_variable(provider: str) -> str:
    """The variable of the key with which that source reads from the provider's API."""
    return f"RELAY_{provider.upper()}_API_KEY"


def api_base_variable(provider: str) -> str:
    """The variable of that API's base URL."""
    return f"RELAY_{provider.upper()}_API_BASE"


def variables_of(provider: Provider) -> dict[str, str]:
    """By key of a source's table, the variables of the source that this provider's secret switches on."""
    found = {
        "secrets": secret_variable(provider.name),
        "enable": enable_variable(provider.name),
        "currency": currency_variable(provider.name),
    }
    if provider.api_key is not None:
        found |= {"api_key": api_key_variable(provider.name), "api_base": api_base_variable(provider.name)}
    return found


# --- reading them -----------------------------------------------------------------------------------------------------


def read_variables(environ: Mapping[str, str] | None, env_file: Path, complaints: Complaints) -> dict[str, str]:
    """All variables there are, the environment over the file, without the space around a value."""
    found: dict[str, str | None] = {}
    try:
        reader = DotEnvSettingsSource(Variables, env_file=env_file, case_sensitive=True, env_ignore_empty=False)
        found.update(reader.env_vars)
    except (OSError, UnicodeDecodeError) as error:
        complaints.problems.append(f"{env_file} cannot be read: {error}. Correct the file, or who may read it.")
    found.update(os.environ if environ is None else environ)
    return _without_service_links({name: value.strip() for name, value in found.items() if value is not None})


def _without_service_links(given: Mapping[str, str]) -> dict[str, str]:
    """Kubernetes writes `RELAY_PORT=tcp://...` and more, unasked, into every pod beside a Service called `relay`."""
    services = [name.removesuffix("_SERVICE_HOST") for name in given if name.endswith("_SERVICE_HOST")]

    def is_link(name: str) -> bool:
        return any(
            name.startswith((f"{service}_SERVICE_", f"{service}_PORT_"))
            or (name == f"{service}_PORT" and "://" in given[name])
            for service in services
        )

    return {name: value for name, value in given.items() if not is_link(name)}


def take(given: Mapping[str, str], complaints: Complaints) -> dict[str, Any]:
    """What `Variables` takes. What it would not take is told and left out, so that the rest can be checked as well."""
    names = {variable(field) for field in Variables.model_fields}
    reader = EnvSettingsSource(Variables)
    reader.env_vars = {name.lower(): value for name, value in given.items() if name in names and value}
    values = reader()
    try:
        Variables(**values)
    except ValidationError as error:
        complaints.problems.extend(sentences(error, Variables, lambda key: variable(key.lower())))
        wrong = {found["loc"][0] for found in error.errors()}
        return {name: value for name, value in values.items() if name not in wrong}
    return values


def refuse_unknown(
    given: Mapping[str, str], referenced: set[str], providers: Mapping[str, Provider], complaints: Complaints
) -> None:
    known = {variable(field) for field in Variables.model_fields} | referenced
    known.update(*(variables_of(provider).values() for provider in providers.values()))
    for name in sorted(name for name in given if _OURS.match(name) and name not in known):
        found = _OF_PROVIDER.fullmatch(name)
        provider = found[1].lower() if found else ""
        if provider and provider not in providers:
            complaints.problems.append(
                f"{name}: no provider is called {provider!r}.{meant(provider, providers)} `relay providers` lists "
                "them; a second source of one provider belongs into relay.toml."
            )
        else:
            complaints.problems.append(
                f"{name} is not a setting.{meant(name.upper(), known)} Correct or remove it; .env.example has them all."
            )
