"""Sources and destinations: what they are, and how they are made from variables and the tables of `relay.toml`.

In: settings that hold for all sources, the tables of single ones, the known providers. Out: frozen values without a
doubt in them. Whatever is wrong becomes a sentence among the complaints, so that all of it is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import NoDecode

from relay.contract import Provider, SecretShape, UnmappableError
from relay.identity import METADATA_KEYS, RULES, Rule
from relay.money import exponent
from relay.sealing import SourcePolicy
from relay.tables import Complaints, NameOf, Table, meant, sentences

DEFAULT = "default"

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


# --- the values that the relay runs with ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A provider as configured: what `/webhooks/<slug>` takes, and what becomes of it."""

    slug: str
    provider: str
    #: At least one. A delivery is accepted when any of them fits.
    secrets: tuple[SecretStr, ...]
    destination: str
    #: Where notifications of the provider's test mode go; None: nowhere.
    test_destination: str | None
    #: The provider's options that are switched on.
    enabled: frozenset[str]
    #: None: the provider's own.
    tolerance_s: int | None
    #: The whole URL of this source as the provider knows it, without its query string.
    public_url: str | None
    #: In bytes; None: the provider's own.
    body_limit: int | None
    join_wait_s: int
    policy: SourcePolicy
    #: Reads from the provider's API, where it has one that the relay knows.
    api_key: SecretStr | None = None
    #: Where that API is, without a slash at its end; None: the provider's own.
    api_base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A project of the events API."""

    name: str
    #: Without a slash at its end.
    base_url: str
    project_id: str
    api_key: SecretStr
    batch_body: BatchBody
    timeout_s: float


# --- the kinds of values in variables and tables ----------------------------------------------------------------------

BatchBody = Literal["object", "array"]


def words(text: str) -> list[str]:
    """`"a, b"` as `["a", "b"]`."""
    return [word for part in text.split(",") if (word := part.strip())]


def _words(value: object) -> object:
    return words(value) if isinstance(value, str) else value


def http_url(value: str) -> str:
    """The URL, unchanged. Raises `ValueError` where it is no absolute `http` or `https` URL."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(char.isspace() for char in value):
        msg = "must be a URL that begins with https:// (or http://)"
        raise ValueError(msg)
    return value


def _base_url(value: str) -> str:
    return http_url(value).rstrip("/")


def _project_id(value: str) -> str:
    if not re.fullmatch(r"[\w.~-]+", value):
        msg = "must be one segment of a path: letters, digits, '-', '_'"
        raise ValueError(msg)
    if value.startswith("oa_"):
        msg = "must be the project's id, but looks like an API key"
        raise ValueError(msg)
    return value


#: What a comma in a variable may stand in without separating: `v1,whsec_...` (Supabase, which puts a bar between
#: several) is one secret, and so is whatever has a backslash before its comma.
_SECRET = re.compile(r"\s*v1a?,\s*whsec_(?:\\,|[^,|])*|(?:\\,|[^,])*")


def secrets_in(text: str) -> list[str]:
    """`"a, b"` as `["a", "b"]`, `"v1,whsec_a, b"` as `["v1,whsec_a", "b"]`."""
    found, start = [], 0
    while start <= len(text):
        part = _SECRET.match(text, start)
        end = part.end() if part else len(text)
        found.append(text[start:end].replace("\\,", ",").strip())
        start = end + 1
    return found


def _secrets(value: object) -> object:
    found = secrets_in(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        msg = "must be a list with at least one secret"
        raise ValueError(msg)
    secrets = [str(secret).strip() for secret in found]
    if not all(secrets):
        msg = "must not be empty: anyone can sign with an empty secret"
        raise ValueError(msg)
    return secrets


def _api_key(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        msg = "must not be empty"
        raise ValueError(msg)
    return value


def _currency(value: str) -> str:
    with suppress(UnmappableError):
        exponent(value)
        return value.upper()
    msg = "must be a currency of ISO 4217, such as EUR"
    raise ValueError(msg)


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
IdentityRules = Annotated[tuple[Rule, ...], NoDecode, BeforeValidator(_words)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ProjectId = Annotated[str, BeforeValidator(str), AfterValidator(_project_id)]


class SourceRules(BaseModel):
    """What holds for all sources as a variable (`RELAY_GUARD`), and for one as a key of its table (`guard`)."""

    identity: IdentityRules = Field(
        RULES, min_length=1, description="Who it was: where to look for the user_id, best first."
    )
    identity_keys: Words = Field(
        METADATA_KEYS, description="Keys of the provider's metadata in which the site stores its own id of the user."
    )
    hash_key: SecretStr | None = Field(
        None,
        description="Secret key of the hash (HMAC-SHA256). Unset: plain SHA-256, as the API's documentation has it.",
    )
    external_ids: Literal["hash", "pass"] = Field(
        "hash", description="Ids that the site gave: hash them, or pass them on where they are pseudonymous already."
    )
    metadata_keys: Words = Field(
        (), description="Keys of the provider's metadata that may leave as properties, besides the attribution keys."
    )
    guard: Literal["redact", "reject"] = Field(
        "redact", description="Personal data in an outgoing field: redact takes it out, reject parks the notification."
    )
    refunds: Literal["event", "conversion"] = Field(
        "event", description="Refunds as events, or as conversions with negative revenue."
    )
    revenue: Literal["gross", "net"] = Field(
        "gross", description="Revenue with tax (gross) or without (net), where the provider tells the tax."
    )
    url_key: str | None = Field(None, description="Key of the provider's metadata that holds the URL of the event.")
    test_mode: str = Field(
        "drop",
        description="Notifications of the provider's test mode: drop, forward, or the name of a destination for them.",
    )
    join_wait_s: int = Field(
        600, ge=0, le=604_800, description="How many seconds an event may wait for the fact who it was."
    )
    signature_tolerance_s: int | None = Field(
        None,
        ge=1,
        description="How far a signed time may lie from now, in seconds, both ways. Unset: the provider's own.",
    )
    body_limit_bytes: int | None = Field(
        None,
        ge=1024,
        description="The longest body that is taken, in bytes. Unset: the provider's own (1 MiB for most).",
    )


class SourceTable(SourceRules):
    """`[sources.<slug>]`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    provider: str = Field(description="The provider's name, as `relay providers` lists it.")
    secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(_secrets)] = Field(description="One or more secrets.")
    destination: str | None = Field(None, description="The name of a destination.")
    enable: Words = Field((), description="The provider's options to switch on.")
    api_key: ApiKey | None = Field(
        None,
        description="A key of the provider's API that may only read: for what its notifications leave out, for relay "
        "backfill and for relay reconcile.",
    )
    api_base: BaseUrl | None = Field(None, description="The base URL of that API. Unset: the provider's own.")
    currency: Annotated[str, AfterValidator(_currency)] | None = Field(
        None, description="What amounts are in that the provider sends without a currency (ISO 4217)."
    )
    public_url: HttpUrl | None = Field(
        None, description="The URL of this source exactly as it was typed at the provider, without its query string."
    )


class DestinationTable(BaseModel):
    """`[destinations.<name>]`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    project_id: ProjectId = Field(description="The project's id.")
    api_key: ApiKey = Field(description="The API key, best as 'env:NAME'.")
    base_url: BaseUrl = Field(description="The events API's base URL.")
    batch_body: BatchBody = Field(description="The shape of a batch: object or array.")
    timeout_s: float = Field(gt=0, description="How long to wait for an answer, in seconds.")


# --- making them ------------------------------------------------------------------------------------------------------


def make_destination(name: str, table: Table, *, name_of: NameOf, complaints: Complaints) -> Destination | None:
    """The destination of this table; None where it cannot be made, and then the problem is told."""
    if not _SLUG.fullmatch(name) or name in {"drop", "forward"}:
        complaints.problems.append(
            f"{name_of('')}: the name must be in lower-case letters, digits and single dashes, and neither 'drop' nor "
            "'forward'. Rename it."
        )
    try:
        checked = DestinationTable.model_validate(table)
    except ValidationError as error:
        complaints.problems.extend(sentences(error, DestinationTable, name_of))
        return None
    if checked.base_url.startswith("http:") and not _is_here(checked.base_url):
        complaints.warnings.append(f"{name_of('base_url')} is not https: the API key travels in the clear. Use https.")
    return Destination(name=name, **dict(checked))


def make_source(
    slug: str,
    table: Table,
    *,
    name_of: NameOf,
    providers: Mapping[str, Provider],
    destinations: Sequence[str],
    complaints: Complaints,
) -> Source | None:
    """The source of this table; None where it cannot be made, and then the problem is told.

    `destinations` are the names that there are; without any, all goes to the one that the caller will add as `default`.
    """
    problems = complaints.problems
    if not _SLUG.fullmatch(slug):
        problems.append(f"{name_of('')}: the slug must be in lower-case letters, digits and single dashes. Rename it.")
    try:
        checked = SourceTable.model_validate(table)
    except ValidationError as error:
        problems.extend(sentences(error, SourceTable, name_of))
        return None
    provider = providers.get(checked.provider)
    if provider is None:
        problems.append(
            f"{name_of('provider')}: no provider is called {checked.provider!r}.{meant(checked.provider, providers)} "
            "`relay providers` lists them."
        )
        return None
    complaints.warnings.extend(_shape_warnings(name_of("secrets"), checked.secrets, provider.secret))
    for option in sorted(set(checked.enable) - set(provider.options)):
        known = ", ".join(sorted(provider.options)) or "none"
        problems.append(f"{name_of('enable')}: {provider.title} has no option {option!r}. Its options: {known}.")
    _check_api(checked, provider, name_of, complaints)
    destination = _choose(checked.destination, destinations, name_of("destination"), problems)
    test_destination = _test_destination(checked.test_mode, destination, destinations, name_of("test_mode"), problems)
    return Source(
        slug=slug,
        provider=provider.name,
        secrets=checked.secrets,
        destination=destination,
        test_destination=test_destination,
        enabled=frozenset(checked.enable),
        tolerance_s=checked.signature_tolerance_s,
        public_url=checked.public_url,
        body_limit=checked.body_limit_bytes,
        join_wait_s=checked.join_wait_s,
        api_key=checked.api_key,
        api_base=checked.api_base,
        policy=SourcePolicy(
            source=slug,
            provider=provider.name,
            identity=checked.identity,
            identity_keys=checked.identity_keys,
            hash_key=checked.hash_key.get_secret_value().encode() if checked.hash_key else None,
            external_ids=checked.external_ids,
            metadata_keys=frozenset(checked.metadata_keys),
            guard=checked.guard,
            refunds=checked.refunds,
            revenue=checked.revenue,
            url_key=checked.url_key,
            currency=checked.currency,
        ),
    )


def slug_of(provider: str) -> str:
    """The slug of the source that `RELAY_<PROVIDER>_SECRET` switches on."""
    return provider.replace("_", "-")


def _choose(wanted: str | None, destinations: Sequence[str], name: str, problems: list[str]) -> str:
    if wanted is None and len(destinations) == 1:
        return destinations[0]
    if wanted is None and destinations and DEFAULT not in destinations:
        problems.append(
            f"{name} is missing: which of {', '.join(destinations)}? Name it, or call one of them 'default'."
        )
    elif wanted is not None and wanted not in (destinations or (DEFAULT,)):
        problems.append(_no_destination(name, wanted, destinations))
    return wanted or DEFAULT


def _test_destination(
    mode: str, destination: str, destinations: Sequence[str], name: str, problems: list[str]
) -> str | None:
    match mode:
        case "drop":
            return None
        case "forward":
            return destination
        case _:
            if mode not in destinations:
                problems.append(f"{_no_destination(name, mode, destinations)} Or set it to drop or forward.")
            return mode


def _no_destination(name: str, wanted: str, destinations: Sequence[str]) -> str:
    known = f"There are: {', '.join(destinations)}." if destinations else "There is none: set the OAA_ variables."
    return f"{name}: no destination is called {wanted!r}.{meant(wanted, destinations)} {known}"


def _check_api(checked: SourceTable, provider: Provider, name_of: NameOf, complaints: Complaints) -> None:
    given = [key for key in ("api_key", "api_base") if getattr(checked, key) is not None]
    if provider.api_key is None:
        complaints.problems.extend(
            f"{name_of(key)}: the relay never asks {provider.title}'s API. Remove it." for key in given
        )
    elif checked.api_key is not None:
        complaints.warnings.extend(_shape_warnings(name_of("api_key"), [checked.api_key], provider.api_key))
        base = provider.api and provider.api.base_for(checked.api_key.get_secret_value())
        if not (base is None or base or checked.api_base):
            complaints.problems.append(
                f"{name_of('api_base')} is missing: each account of {provider.title} has an address of its own. "
                f"Set it beside the API key, as docs/providers/{provider.name}.md says."
            )
    if checked.api_base is not None and checked.api_base.startswith("http:") and not _is_here(checked.api_base):
        complaints.warnings.append(f"{name_of('api_base')} is not https: the API key travels in the clear. Use https.")


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _shape_warnings(name: str, secrets: Sequence[SecretStr], shape: SecretShape) -> list[str]:
    """A wrong kind of key would be told by the first webhook only, as a refused signature."""
    found = []
    for secret in filter(None, (secret.get_secret_value() for secret in secrets)):
        mistaken = next((what for prefix, what in shape.mistaken.items() if secret.startswith(prefix)), None)
        if mistaken is not None:
            found.append(f"{name} looks like {mistaken}. {shape.meaning}")
        elif secret[0] in "\"'" or secret[-1] in "\"'":
            found.append(f"{name} stands in quotation marks, which are taken as part of it. Remove them.")
        elif not secret.startswith(shape.prefix):
            found.append(f"{name} does not begin with {shape.prefix}. {shape.meaning}")
    return found
