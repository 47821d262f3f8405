"""What can be set, what it becomes, and a start that stops with all that is wrong, each with what to do."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from relay.contract import Api, Draft, Notification, Provider, SecretShape, conversion, field
from relay.settings import Settings, SettingsError, load, mappers_dir
from relay.signatures import hmac_sha256
from relay.sources import Destination

ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()
API = {"OAA_PROJECT_ID": "42", "OAA_API_KEY": "oa_live_key"}
ACME = {"RELAY_ACME_SECRET": "whsec_one"}


def provider(name: str) -> Provider:
    made = Provider(
        name=name,
        title=name.title(),
        docs="https://acme.example/webhooks",
        verifier=hmac_sha256(header="X-Signature"),
        notification_type=field("type"),
        secret=SecretShape(meaning="It is under Developers.", prefix="whsec_", mistaken={"sk_": "an API key"}),
        options={"opens": "Opened mails."},
        api_key=SecretShape(meaning="It is under API keys.", prefix="rk_") if name == "acme" else None,
    )

    @made.on("paid", option="opens")
    def purchase(n: Notification) -> Iterator[Draft]:
        yield conversion("purchase", once=f"payment:{n.id}", at_ms=0)

    return made


PROVIDERS = {name: provider(name) for name in ("acme", "lemon_squeezy")}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """The working directory, with no settings in it."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def loaded(environ: dict[str, str] | None = None, toml: str | None = None) -> Settings:
    if toml is not None:
        Path("relay.toml").write_text(toml, encoding="utf-8")
    return load(PROVIDERS, environ=environ or {})


def refused(environ: dict[str, str] | None = None, toml: str | None = None) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        loaded(environ, toml)
    return list(refusal.value.problems)


# --- variables --------------------------------------------------------------------------------------------------------


def test_without_any_setting_the_relay_has_no_source_and_no_destination() -> None:
    settings = loaded()

    assert ("127.0.0.1", 8000) == (settings.host, settings.port)
    assert ({}, {}, ()) == (settings.sources, settings.destinations, settings.warnings)


def test_the_environment_wins_over_the_file(folder: Path) -> None:
    (folder / ".env").write_text("RELAY_PORT=9001\nRELAY_HOST=0.0.0.0\nOTHER_SERVICE=1\n")
    settings = loaded({"RELAY_PORT": "9002"})

    assert ("0.0.0.0", 9002) == (settings.host, settings.port)


def test_an_empty_variable_is_an_unset_one() -> None:
    assert 8000 == loaded({"RELAY_PORT": "", "OAA_API_KEY": " ", "RELAY_CONFIG": ""}).port


def test_lists_are_separated_by_commas() -> None:
    assert ("email", "external_id") == loaded({"RELAY_IDENTITY": "email, external_id,"}).identity


def test_the_first_encryption_key_encrypts() -> None:
    other = base64.urlsafe_b64encode(b"\xff" * 32).decode()
    keys = loaded({"RELAY_ENCRYPTION_KEYS": f"{ENCRYPTION_KEY},{other}"}).encryption_keys

    assert [bytes(range(32)), b"\xff" * 32] == [key.get_secret_value() for key in keys]


def test_the_folder_of_mappers_is_known_before_the_providers_are(folder: Path) -> None:
    (folder / ".env").write_text("RELAY_MAPPERS_DIR=/mappers\n")

    assert (Path("/mappers"), None) == (mappers_dir(environ={}), mappers_dir(environ={"RELAY_MAPPERS_DIR": ""}))


def test_service_links_of_kubernetes_are_no_settings() -> None:
    """It writes them unasked into each pod beside a Service called `relay` or `relay-postgres`."""
    links = {
        "RELAY_SERVICE_HOST": "10.0.0.1",
        "RELAY_SERVICE_PORT_HTTP": "80",
        "RELAY_PORT": "tcp://10.0.0.1:80",
        "RELAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "RELAY_POSTGRES_SERVICE_HOST": "10.0.0.2",
        "RELAY_POSTGRES_PORT": "tcp://10.0.0.2:5432",
        "RELAY_POSTGRES_PORT_5432_TCP": "tcp://10.0.0.2:5432",
    }

    assert 8000 == loaded(links).port


# --- sources and destinations from variables --------------------------------------------------------------------------


def test_a_secret_switches_on_the_source_of_its_provider() -> None:
    source = loaded(ACME | API).sources["acme"]

    assert ("acme", "default", None) == (source.provider, source.destination, source.test_destination)
    assert (SecretStr("whsec_one"),) == source.secrets


@pytest.mark.parametrize(
    "text, secrets",
    [
        ("v1,whsec_a", ["v1,whsec_a"]),
        ("v1,whsec_new,v1,whsec_old", ["v1,whsec_new", "v1,whsec_old"]),
        (" v1,whsec_new , whsec_old", ["v1,whsec_new", "whsec_old"]),
        ("whsec_new,v1,whsec_old", ["whsec_new", "v1,whsec_old"]),
        ("v1,whsec_new|v1,whsec_old, v1,whsec_c", ["v1,whsec_new", "v1,whsec_old", "v1,whsec_c"]),
        ("user:pass|word", ["user:pass|word"]),
        ("v1,v2", ["v1", "v2"]),
        (r"pass\,word", ["pass,word"]),
        (r"user:pass\,word,user:old", ["user:pass,word", "user:old"]),
        (r"ends\,", ["ends,"]),
        (r"back\slash", [r"back\slash"]),
    ],
)
def test_a_comma_may_be_a_part_of_a_secret(text: str, secrets: list[str]) -> None:
    (source,) = loaded({"RELAY_ACME_SECRET": text}).sources.values()

    assert secrets == [secret.get_secret_value() for secret in source.secrets]


@pytest.mark.parametrize("text", ["a,", ",a", "a,,b", "v1,whsec_a,", ","])
def test_nothing_between_two_commas_is_no_secret(text: str) -> None:
    assert any("must not be empty" in problem for problem in refused({"RELAY_ACME_SECRET": text}))


def test_several_secrets_are_separated_by_commas() -> None:
    source = loaded({"RELAY_ACME_SECRET": "whsec_new, whsec_old"}).sources["acme"]

    assert ["whsec_new", "whsec_old"] == [secret.get_secret_value() for secret in source.secrets]


def test_the_slug_of_a_provider_has_dashes() -> None:
    assert ["lemon-squeezy"] == list(loaded({"RELAY_LEMON_SQUEEZY_SECRET": "whsec_one"}).sources)


def test_options_of_a_provider_are_switched_on_by_name() -> None:
    assert {"opens"} == loaded(ACME | {"RELAY_ACME_ENABLE": "opens"}).sources["acme"].enabled


def test_a_source_may_have_a_key_of_the_providers_api() -> None:
    source = loaded(ACME | {"RELAY_ACME_API_KEY": "rk_1", "RELAY_ACME_API_BASE": "http://127.0.0.1:9/"}).sources["acme"]

    assert (SecretStr("rk_1"), "http://127.0.0.1:9") == (source.api_key, source.api_base)
    assert (None, None) == (loaded(ACME).sources["acme"].api_key, loaded(ACME).sources["acme"].api_base)


def test_an_api_that_is_elsewhere_for_each_account_needs_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    own = provider("acme")
    own.api = Api()
    monkeypatch.setitem(PROVIDERS, "acme", own)
    key = ACME | {"RELAY_ACME_API_KEY": "rk_1"}

    (problem,) = refused(key)
    assert problem.startswith("RELAY_ACME_API_BASE is missing: each account of Acme has an address of its own. Set it")
    assert loaded(key | {"RELAY_ACME_API_BASE": "https://shop.acme.example"}).sources["acme"].api_base
    assert loaded(ACME).sources["acme"].api_key is None


def test_a_source_has_a_currency_where_its_provider_tells_none() -> None:
    toml = SOURCE + 'currency = "chf"\n'

    assert "EUR" == loaded(ACME | {"RELAY_ACME_CURRENCY": "eur"}).sources["acme"].policy.currency
    assert "CHF" == loaded({}, toml).sources["shop"].policy.currency
    assert loaded(ACME).sources["acme"].policy.currency is None


def test_the_pair_of_the_api_makes_the_destination_default() -> None:
    expected = Destination(
        name="default",
        base_url="https://events.example/api",
        project_id="42",
        api_key=SecretStr("oa_live_key"),
        batch_body="array",
        timeout_s=2.5,
    )
    more = {"OAA_BASE_URL": "https://events.example/api/", "OAA_BATCH_BODY": "array", "OAA_TIMEOUT_S": "2.5"}

    assert {"default": expected} == loaded(API | more).destinations


def test_a_sandbox_can_be_added_as_the_destination() -> None:
    settings = loaded(ACME)
    sandbox = Destination(name="default", base_url="http://127.0.0.1:8001", project_id="1", api_key=SecretStr("k"),
                          batch_body="object", timeout_s=10)  # fmt: skip

    assert settings.sources["acme"].destination in settings.with_destination(sandbox).destinations
    assert {} == settings.destinations


def test_the_public_url_of_a_source_is_the_relays_with_its_path() -> None:
    environ = ACME | {"RELAY_PUBLIC_URL": "https://hooks.example/relay/"}

    assert "https://hooks.example/relay/webhooks/acme" == loaded(environ).sources["acme"].public_url


def test_what_is_set_for_all_sources_reaches_each() -> None:
    environ = ACME | API | {
        "RELAY_SIGNATURE_TOLERANCE_S": "60",
        "RELAY_BODY_LIMIT_BYTES": "2048",
        "RELAY_JOIN_WAIT_S": "5",
        "RELAY_TEST_MODE": "forward",
        "RELAY_GUARD": "reject",
        "RELAY_REFUNDS": "conversion",
        "RELAY_REVENUE": "net",
        "RELAY_EXTERNAL_IDS": "pass",
        "RELAY_METADATA_KEYS": "plan,campaign",
        "RELAY_URL_KEY": "landing_page",
    }  # fmt: skip
    source = loaded(environ).sources["acme"]
    policy = source.policy

    assert (60, 2048, 5) == (source.tolerance_s, source.body_limit, source.join_wait_s)
    assert "default" == source.test_destination
    assert ("acme", "acme", "reject", "conversion", "net", "pass") == (
        policy.source, policy.provider, policy.guard, policy.refunds, policy.revenue, policy.external_ids,
    )  # fmt: skip
    assert (frozenset({"plan", "campaign"}), "landing_page") == (policy.metadata_keys, policy.url_key)


# --- relay.toml -------------------------------------------------------------------------------------------------------

TWO = """
[destinations.shop]
project_id = "42"
api_key = "env:SHOP_KEY"

[destinations.playground]
project_id = 43
api_key_env = "RELAY_PLAYGROUND_KEY"
base_url = "https://eu.events.example/"

[sources.acme-eu]
provider = "acme"
secrets = ["env:ACME_EU", "whsec_old"]
destination = "shop"
test_mode = "playground"
guard = "reject"

[sources.acme-us]
provider = "acme"
secrets_env = "ACME_US"
destination = "playground"
enable = ["opens"]
api_key_env = "ACME_US_KEY"
api_base = "https://api.acme.example/"
public_url = "https://user:pw@hooks.example/webhooks/acme-us"
"""
TWO_ENV = {
    "SHOP_KEY": "key_1",
    "RELAY_PLAYGROUND_KEY": "key_2",
    "ACME_EU": "whsec_eu",
    "ACME_US": "whsec_us, whsec_us_old",
    "ACME_US_KEY": "rk_us",
}


def test_a_file_defines_several_sources_of_one_provider() -> None:
    settings = loaded(TWO_ENV, TWO)
    eu, us = settings.sources["acme-eu"], settings.sources["acme-us"]

    assert (("shop", "playground"), ("playground", None)) == (
        (eu.destination, eu.test_destination),
        (us.destination, us.test_destination),
    )
    assert [["whsec_eu", "whsec_old"], ["whsec_us", "whsec_us_old"]] == [
        [secret.get_secret_value() for secret in source.secrets] for source in (eu, us)
    ]
    assert (frozenset[str](), frozenset({"opens"})) == (eu.enabled, us.enabled)
    assert "https://user:pw@hooks.example/webhooks/acme-us" == us.public_url
    assert ((None, None), (SecretStr("rk_us"), "https://api.acme.example")) == (
        (eu.api_key, eu.api_base),
        (us.api_key, us.api_base),
    )


def test_a_file_defines_several_destinations() -> None:
    shop, playground = loaded(TWO_ENV, TWO).destinations.values()

    assert ("shop", "42", "key_1", "https://api.openanalyticsapi.com") == (
        shop.name, shop.project_id, shop.api_key.get_secret_value(), shop.base_url,
    )  # fmt: skip
    assert ("playground", "43", "key_2", "https://eu.events.example") == (
        playground.name, playground.project_id, playground.api_key.get_secret_value(), playground.base_url,
    )  # fmt: skip


def test_a_key_of_a_source_wins_over_the_variable() -> None:
    settings = loaded(TWO_ENV | {"RELAY_GUARD": "redact", "RELAY_REVENUE": "net"}, TWO)

    assert [("reject", "net"), ("redact", "net")] == [
        (source.policy.guard, source.policy.revenue) for source in settings.sources.values()
    ]


def test_a_file_and_variables_go_together() -> None:
    settings = loaded(TWO_ENV | ACME | API, TWO)

    assert {"acme": "default", "acme-eu": "shop", "acme-us": "playground"} == {
        slug: source.destination for slug, source in settings.sources.items()
    }


def test_the_only_destination_needs_no_name() -> None:
    toml = '[destinations.shop]\nproject_id = "42"\napi_key = "k"\n'

    assert "shop" == loaded(ACME, toml).sources["acme"].destination


def test_the_file_may_lie_elsewhere(folder: Path) -> None:
    elsewhere = folder / "etc" / "relay.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text('[sources.shop]\nprovider = "acme"\nsecrets = "whsec_one"\n')

    assert ["shop"] == list(loaded({"RELAY_CONFIG": str(elsewhere)}).sources)


# --- what stops the start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({"RELAY_PORT": "80a"}, "RELAY_PORT must be a whole number, but is '80a'. The port to listen on"),
        ({"RELAY_PORT": "65536"}, "RELAY_PORT must be less than or equal to 65535"),
        ({"RELAY_BATCH_SIZE": "1001"}, "RELAY_BATCH_SIZE must be less than or equal to 1000, but is '1001'."),
        ({"RELAY_BATCH_SIZE": "0"}, "RELAY_BATCH_SIZE must be greater than or equal to 1"),
        ({"RELAY_RETAIN_KEYS_DAYS": "29"}, "RELAY_RETAIN_KEYS_DAYS must be greater than or equal to 30"),
        ({"OAA_TIMEOUT_S": "soon"}, "OAA_TIMEOUT_S must be a number, but is 'soon'."),
        ({"RELAY_IN_DOUBT": "drop"}, "RELAY_IN_DOUBT must be 'retry' or 'hold', but is 'drop'."),
        ({"RELAY_IDENTITY": "email,name"}, "RELAY_IDENTITY must be 'metadata', 'external_id', 'email' or "),
        ({"OAA_BASE_URL": "events.example"}, "OAA_BASE_URL must be a URL that begins with https:// (or http://)"),
        ({"RELAY_DATABASE_URL": "mysql://relay@db"}, "RELAY_DATABASE_URL must begin with sqlite:/// or postgresql://."),
        ({"RELAY_DATABASE_URL": "sqlite:///:memory:"}, "RELAY_DATABASE_URL must name a file"),
        ({"RELAY_ENCRYPTION_KEYS": "c2hvcnQ="}, "RELAY_ENCRYPTION_KEYS must be 32 bytes in base64 each (openssl rand"),
        (API | {"OAA_PROJECT_ID": "oa_live_1"}, "OAA_PROJECT_ID must be the project's id, but looks like an API key"),
        (API | {"OAA_PROJECT_ID": "../admin"}, "OAA_PROJECT_ID must be one segment of a path"),
        ({"OAA_API_KEY": "k"}, "OAA_API_KEY is set, but OAA_PROJECT_ID is not. Set both, or neither for the sandbox."),
        ({"OAA_PROJECT_ID": "42"}, "OAA_PROJECT_ID is set, but OAA_API_KEY is not."),
        ({"RELAY_PROT": "80"}, "RELAY_PROT is not a setting. Did you mean RELAY_PORT? Correct or remove it;"),
        ({"relay_port": "80"}, "relay_port is not a setting. Did you mean RELAY_PORT?"),
        ({"OAA_TOKEN": "1"}, "OAA_TOKEN is not a setting."),
        ({"RELAY_ACNE_SECRET": "x"}, "RELAY_ACNE_SECRET: no provider is called 'acne'. Did you mean acme?"),
        ({"RELAY_ACME_SECRET": ""}, "RELAY_ACME_SECRET must not be empty: anyone can sign with an empty secret."),
        ({"RELAY_ACME_SECRET": "whsec_a,,whsec_b"}, "RELAY_ACME_SECRET must not be empty"),
        ({"RELAY_ACME_ENABLE": "opens"}, "RELAY_ACME_ENABLE is set, but RELAY_ACME_SECRET is not"),
        ({"RELAY_ACME_API_KEY": "rk_1"}, "RELAY_ACME_API_KEY is set, but RELAY_ACME_SECRET is not, which makes the"),
        ({"RELAY_ACNE_API_KEY": "rk_1"}, "RELAY_ACNE_API_KEY: no provider is called 'acne'. Did you mean acme?"),
        ({"RELAY_ACNE_CURRENCY": "EUR"}, "RELAY_ACNE_CURRENCY: no provider is called 'acne'. Did you mean acme?"),
        (ACME | {"RELAY_ACME_CURRENCY": "XXY"}, "RELAY_ACME_CURRENCY must be a currency of ISO 4217, such as EUR"),
        ({"RELAY_LEMON_SQUEEZY_API_KEY": "x"}, "RELAY_LEMON_SQUEEZY_API_KEY is not a setting."),
        (ACME | {"RELAY_ACME_API_BASE": "api"}, "RELAY_ACME_API_BASE must be a URL that begins with https://"),
        (ACME | {"RELAY_ACME_ENABLE": "clicks"}, "RELAY_ACME_ENABLE: Acme has no option 'clicks'. Its options: opens."),
        (ACME | {"RELAY_TEST_MODE": "shop"}, "RELAY_TEST_MODE: no destination is called 'shop'. There is none"),
        ({"RELAY_RETAIN_BODIES_DAYS": "91"}, "RELAY_RETAIN_BODIES_DAYS is more than RELAY_RETAIN_KEYS_DAYS"),
        ({"RELAY_CONFIG": "nowhere.toml"}, "nowhere.toml cannot be read: No such file or directory."),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_used_stops_the_start(environ: dict[str, str], expected: str) -> None:
    problems = refused(environ)

    assert [expected] == [problem[: len(expected)] for problem in problems]


SOURCE = '[sources.shop]\nprovider = "acme"\nsecrets = ["whsec_one"]\n'
DESTINATION = '[destinations.shop]\nproject_id = "42"\napi_key = "k"\n'


@pytest.mark.parametrize(
    "toml, expected",
    [
        ("[sources", "relay.toml is not TOML: Expected ']' at the end of a table declaration"),
        ("port = 80", "relay.toml: port is not known."),
        ("[source.shop]", "relay.toml: source is not known. Did you mean sources?"),
        ("sources = 1", "relay.toml: sources is not a table."),
        ("[sources]\nshop = 1", "relay.toml: sources.shop is not a table."),
        (SOURCE + "garud = 1", "relay.toml: sources.shop.garud is not a setting. Did you mean guard?"),
        (SOURCE + "join_wait_s = 'long'", "relay.toml: sources.shop.join_wait_s must be a whole number, but is"),
        (SOURCE + "enable = ['clicks']", "relay.toml: sources.shop.enable: Acme has no option 'clicks'."),
        (SOURCE + "destination = 'shop'", "relay.toml: sources.shop.destination: no destination is called 'shop'."),
        (SOURCE + "secrets_env = 'A'", "relay.toml: sources.shop.secrets_env and secrets say the same."),
        (SOURCE + "hash_key = 'env:NOPE'", "relay.toml: sources.shop.hash_key: the variable NOPE is not set, or"),
        (SOURCE + "api_key = ''", "relay.toml: sources.shop.api_key must not be empty."),
        (SOURCE.replace("acme", "lemon_squeezy") + "api_key = 'x'", "relay.toml: sources.shop.api_key: the relay"),
        (SOURCE.replace("acme", "acne"), "relay.toml: sources.shop.provider: no provider is called 'acne'. Did"),
        (SOURCE.replace("shop", "Shop_EU"), "relay.toml: sources.Shop_EU: the slug must be in lower-case letters"),
        (SOURCE.replace('["whsec_one"]', "[]"), "relay.toml: sources.shop.secrets must be a list with at least one"),
        (SOURCE.replace("whsec_one", ""), "relay.toml: sources.shop.secrets must not be empty"),
        (SOURCE.replace("whsec_one", "env:NOPE"), "relay.toml: sources.shop.secrets: the variable NOPE is not set"),
        (DESTINATION + "key = 1", "relay.toml: destinations.shop.key is not a setting."),
        (DESTINATION.replace('"k"', '""'), "relay.toml: destinations.shop.api_key must not be empty."),
        (DESTINATION.replace("project_id", "# "), "relay.toml: destinations.shop.project_id is missing."),
        (DESTINATION.replace("shop", "drop"), "relay.toml: destinations.drop: the name must be"),
        (SOURCE + DESTINATION + DESTINATION.replace("shop", "b"), "relay.toml: sources.shop.destination is missing: "),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_used_stops_the_start_with_its_path(toml: str, expected: str) -> None:
    problems = refused({"A": "whsec_a"}, toml)

    assert [expected] == [problem[: len(expected)] for problem in problems]


def test_a_file_of_variables_that_cannot_be_read_stops_the_start(folder: Path) -> None:
    (folder / ".env").write_bytes(b"RELAY_PORT=\xff")

    assert ".env cannot be read: 'utf-8' codec can't decode byte 0xff" in refused()[0]


def test_one_slug_cannot_be_two_sources() -> None:
    expected = "relay.toml: sources.acme is defined by RELAY_ACME_SECRET too. Remove one of the two"
    assert expected in refused(ACME, SOURCE.replace("sources.shop", "sources.acme"))[0]


def test_one_name_cannot_be_two_destinations() -> None:
    expected = "relay.toml: destinations.default is defined by OAA_API_KEY too. Remove one of the two."
    assert [expected] == refused(API, DESTINATION.replace("shop", "default"))


def test_a_source_whose_destination_is_wrong_is_not_told_to_be_wrong_as_well() -> None:
    problems = refused({}, SOURCE + "destination = 'shop'\n" + DESTINATION.replace("42", "a/b"))

    assert ["relay.toml: destinations.shop.project_id"] == [problem.split(" must")[0] for problem in problems]


def test_all_that_is_wrong_is_told_at_once() -> None:
    environ = {"RELAY_PORT": "x", "RELAY_PROT": "1", "RELAY_ACME_SECRET": "", "OAA_API_KEY": "k"}
    problems = refused(environ, "[sources.a]\nprovider = 'b'\nsecrets = 's'\nkind = 1")

    expected = {"RELAY_PORT", "RELAY_PROT", "RELAY_ACME_SECRET", "OAA_API_KEY", "relay.toml: sources.a.kind"}
    assert expected == {problem.split(" must")[0].split(" is ")[0] for problem in problems}


# --- what is only said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret, expected",
    [
        ("sk_live_1", "RELAY_ACME_SECRET looks like an API key. It is under Developers."),
        ("one", "RELAY_ACME_SECRET does not begin with whsec_. It is under Developers."),
        ('"whsec_one"', "RELAY_ACME_SECRET stands in quotation marks, which are taken as part of it. Remove them."),
    ],
)
def test_a_secret_that_looks_like_something_else_is_told(secret: str, expected: str) -> None:
    assert (expected,) == loaded({"RELAY_ACME_SECRET": secret}).warnings


def test_an_api_key_that_looks_like_something_else_is_told() -> None:
    expected = "RELAY_ACME_API_KEY does not begin with rk_. It is under API keys."

    assert (expected,) == loaded(ACME | {"RELAY_ACME_API_KEY": "sk_1"}).warnings


def test_an_api_in_the_clear_is_told_unless_it_is_on_this_machine() -> None:
    in_the_clear, here = (
        loaded(ACME | {"RELAY_ACME_API_BASE": f"http://{host}"}).warnings for host in ("api.acme.example", "127.0.0.1")
    )

    assert "RELAY_ACME_API_BASE is not https" in in_the_clear[0]
    assert () == here


def test_a_destination_in_the_clear_is_told_unless_it_is_on_this_machine() -> None:
    in_the_clear = loaded(API | {"OAA_BASE_URL": "http://events.example"}).warnings

    assert "OAA_BASE_URL is not https" in in_the_clear[0]
    assert () == loaded(API | {"OAA_BASE_URL": "http://127.0.0.1:8001"}).warnings


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_shown() -> None:
    environ = ACME | API | {
        "RELAY_ADMIN_TOKEN": "hidden_1_" * 3,
        "RELAY_ACME_API_KEY": "rk_hidden",
        "RELAY_HASH_KEY": "hidden_2",
        "RELAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "RELAY_DATABASE_URL": "sqlite:///hidden_3.db",
    }  # fmt: skip
    settings = loaded(environ)
    shown = f"{settings!r} {settings} {settings.sources!r} {settings.destinations!r} {settings.model_dump_json()}"

    secrets = (
        "whsec_one",
        "oa_live_key",
        "rk_hidden",
        "hidden_1",
        "hidden_2",
        "hidden_3",
        ENCRYPTION_KEY[:20],
        r"\x00\x01\x02",
    )
    assert [] == [secret for secret in secrets if secret in shown]


def test_no_secret_is_shown_when_the_start_stops() -> None:
    environ = {
        "RELAY_ENCRYPTION_KEYS": "hidden_1",
        "RELAY_DATABASE_URL": "postgres://relay:hidden_2@db",
        "OAA_API_KEY": "hidden_3",
        "RELAY_ACNE_SECRET": "hidden_4",
    }
    toml = "[sources.a]\nprovider = 'acme'\nsecrets = ['hidden_5', '']\nhash_key = ['hidden_6']\n"

    assert "hidden" not in "\n".join(refused(environ, toml))
