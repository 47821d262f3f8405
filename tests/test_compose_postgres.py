"""The compose profile `postgres`: two replicas on one PostgreSQL behind Caddy, as far as no engine is needed for it."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relay.registry import load_providers
from relay.settings import load

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
CADDYFILE = (ROOT / "deploy" / "Caddyfile").read_text()
RELAY, REPLICA, POSTGRES, CADDY = (SERVICES[name] for name in ("relay", "replica", "postgres", "caddy"))


def test_without_the_profile_there_is_one_relay_and_nothing_else() -> None:
    assert ["relay"] == [name for name, service in SERVICES.items() if "profiles" not in service]
    assert [["postgres"]] * 3 == [service["profiles"] for service in (POSTGRES, REPLICA, CADDY)]


def test_nothing_must_be_set_for_those_who_do_not_use_it() -> None:
    assert [] == re.findall(r"\$\{\w+:?\?", (ROOT / "docker-compose.yml").read_text())


def test_there_are_two_replicas_of_the_same_image_as_ever() -> None:
    assert 2 == REPLICA["deploy"]["replicas"]
    same = ("build", "image", "env_file", "read_only", "tmpfs", "cap_drop", "security_opt", "restart",
            "stop_grace_period", "healthcheck")  # fmt: skip

    assert {key: RELAY[key] for key in same} == {key: REPLICA[key] for key in same}
    assert "ports" not in REPLICA
    assert "container_name" not in REPLICA


def test_they_share_the_database_of_the_profile(tmp_path: Path) -> None:
    user, name = POSTGRES["environment"]["POSTGRES_USER"], POSTGRES["environment"]["POSTGRES_DB"]
    password = POSTGRES["environment"]["POSTGRES_PASSWORD"]

    assert f"postgresql://{user}:{password}@postgres:5432/{name}" == REPLICA["environment"]["RELAY_DATABASE_URL"]
    environ = {**REPLICA["environment"], "RELAY_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
    load(load_providers(None), environ=environ, env_file=tmp_path / ".env")


def test_each_waits_for_the_one_before() -> None:
    assert {"postgres": {"condition": "service_healthy"}} == REPLICA["depends_on"]
    assert {"replica": {"condition": "service_healthy"}} == CADDY["depends_on"]
    assert "pg_isready" in POSTGRES["healthcheck"]["test"]


def test_what_is_kept_is_in_a_volume() -> None:
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}

    assert set(COMPOSE["volumes"]) == {name for name in named if not name.startswith(".")}


def test_caddy_finds_the_replicas_by_their_name_and_port() -> None:
    assert "./deploy/Caddyfile:/etc/caddy/Caddyfile:ro" in CADDY["volumes"]
    assert re.search(r"dynamic a \{\s+name replica\s+port 8000\s", CADDYFILE)
    assert REPLICA["environment"]["RELAY_PORT"] == "8000"


def test_the_caddyfile_is_balanced_and_reads_what_compose_sets() -> None:
    code = re.sub(r"(^|\s)#.*", "", CADDYFILE)

    assert code.count("{") == code.count("}")
    assert set(re.findall(r"\{\$(\w+)", code)) <= set(CADDY["environment"])


def test_the_inside_is_not_shown_to_the_outside() -> None:
    assert {"/admin*", "/metrics", "/readyz"} <= set(re.search(r"@inside path (.+)", CADDYFILE)[1].split())  # type: ignore[index]
