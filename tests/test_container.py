"""The image and the compose file, as far as they can be held to their word without an engine that runs them."""

import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from relay.registry import load_providers
from relay.settings import load
from relay.store import sqlite_path
from relay.variables import Variables, enable_variable, secret_variable, variable
from tests.conftest import RunningRelay

ROOT = Path(__file__).parents[1]
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"
SCRIPT = ROOT / "deploy" / "build-with-buildah"


# --- reading them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile."""

    word: str
    rest: str


def stages() -> list[list[Step]]:
    """The Dockerfile's stages; the first is what stands before any of them."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found: list[list[Step]] = [[]]
    for line in filter(str.strip, lines):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            found.append([])
        found[-1].append(Step(word, " ".join(rest.split())))
    return found


ARGUMENTS, BUILD, IMAGE = stages()


def said(stage: list[Step], word: str) -> list[str]:
    return [step.rest for step in stage if step.word == word]


def environment() -> dict[str, str]:
    """What the image sets."""
    return dict(pair.split("=", 1) for line in said(IMAGE, "ENV") for pair in line.split())


def outline(lines: list[tuple[int, str]]) -> Any:
    """Mappings, lists and words, by indentation: as much of YAML as the compose file keeps to."""
    depth, first = lines[0]
    if first.startswith("- "):
        return [word(line.removeprefix("- ")) for _, line in lines]
    starts = [place for place, (indent, _) in enumerate(lines) if indent == depth]
    found = {}
    for start, end in pairwise([*starts, len(lines)]):
        key, _, value = lines[start][1].partition(":")
        inner = lines[start + 1 : end]
        assert key not in found, f"{key} is there twice"
        assert bool(inner) + bool(value) < 2, f"{key} has a value and more below it"
        found[key] = outline(inner) if inner else word(value)
    return found


def word(text: str) -> Any:
    text = text.strip()
    return json.loads(text) if text.startswith(('"', "[")) else text


def compose() -> dict[str, Any]:
    lines = [re.sub(r"(^| )#.*", "", line).rstrip() for line in (ROOT / "docker-compose.yml").read_text().splitlines()]
    read: dict[str, Any] = outline([(len(line) - len(line.lstrip()), line.strip()) for line in lines if line])
    return read


RELAY: dict[str, Any] = compose()["services"]["relay"]


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


# --- how the image is built -------------------------------------------------------------------------------------------


def test_the_base_image_can_be_chosen() -> None:
    assert ["BASE_IMAGE=python:3.11-slim"] == said(ARGUMENTS, "ARG")
    assert [["${BASE_IMAGE} AS build"], ["${BASE_IMAGE}"]] == [said(stage, "FROM") for stage in (BUILD, IMAGE)]


def test_the_image_has_what_is_locked_and_no_tools_of_developers() -> None:
    syncs = [run.split(" sync ", 1)[1] for run in said(BUILD, "RUN") if " sync " in run]

    assert ["--locked --no-default-groups --extra otel --no-install-project",
            "--locked --no-default-groups --extra otel --no-editable"] == syncs  # fmt: skip


def test_the_image_has_bytecode_that_no_copy_makes_stale() -> None:
    words = " ".join(said(BUILD, "ENV")).split()

    assert {"UV_COMPILE_BYTECODE=1", "PYC_INVALIDATION_MODE=UNCHECKED_HASH"} <= set(words)


def test_the_source_comes_after_the_dependencies() -> None:
    words = [f"{step.word} {step.rest}" for step in BUILD]
    dependencies = next(place for place, step in enumerate(words) if "--no-install-project" in step)

    assert {"COPY pyproject.toml uv.lock ./"} == {step for step in words[:dependencies] if step.startswith("COPY")}


def test_make_and_the_image_install_with_the_same_uv() -> None:
    found = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found

    assert [f"UV_VERSION={found[1]}"] == said(BUILD, "ARG")
    assert {found[1]} == set(re.findall(r"uv==([0-9.]+)", (ROOT / "docs" / "deploying.md").read_text()))


def test_only_what_is_named_gets_into_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [line.split() for line in said(BUILD, "COPY") + said(IMAGE, "COPY") if "--from=" not in line]
    copied = {source for line in copies for source in line[:-1] if not source.startswith("--")}

    assert "*" == lines[0]
    assert copied == allowed
    assert [] == [name for name in copied if not (ROOT / name).exists()]


# --- what the image is ------------------------------------------------------------------------------------------------


def test_the_image_runs_as_a_user_who_is_not_root() -> None:
    assert ["10001:10001"] == said(IMAGE, "USER")
    assert [] == [step for step in IMAGE[IMAGE.index(Step("USER", "10001:10001")) :] if step.word in {"RUN", "COPY"}]


def test_signals_reach_the_relay_and_not_a_shell() -> None:
    assert ["relay"] == json.loads(said(IMAGE, "ENTRYPOINT")[0])
    assert ["serve"] == json.loads(said(IMAGE, "CMD")[0])
    assert ["SIGTERM"] == said(IMAGE, "STOPSIGNAL")


def test_the_image_listens_to_the_outside_and_keeps_everything_in_its_volume(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.touch()
    ours = {name: value for name, value in environment().items() if name.startswith(("RELAY_", "OAA_"))}
    settings = load(load_providers(None), environ=ours, env_file=tmp_path / ".env", config=config)

    assert "0.0.0.0" == settings.host
    assert [str(settings.port)] == said(IMAGE, "EXPOSE")
    assert said(IMAGE, "VOLUME") == [str(sqlite_path(settings.database_url.get_secret_value()).parent)]
    assert said(IMAGE, "VOLUME") == said(IMAGE, "WORKDIR")


def test_the_samples_are_in_the_package() -> None:
    assert '"tests/mappers" = "relay/samples"' in (ROOT / "pyproject.toml").read_text()
    assert "tests/mappers tests/mappers" in said(BUILD, "COPY")


# --- health -----------------------------------------------------------------------------------------------------------


def test_the_image_asks_for_health_with_the_script() -> None:
    command = json.loads(said(IMAGE, "HEALTHCHECK")[0].split("CMD", 1)[1])

    assert ["python", "/opt/relay/healthcheck.py"] == command
    assert ["CMD", *command] == RELAY["healthcheck"]["test"]
    assert "--chmod=0644 deploy/healthcheck.py /opt/relay/healthcheck.py" in said(IMAGE, "COPY")


async def is_healthy(**variables: str) -> tuple[bool, str]:
    done = await anyio.run_process([sys.executable, HEALTHCHECK], env=variables, check=False)
    return done.returncode == 0, done.stderr.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
async def test_a_relay_that_answers_is_healthy_whatever_proxy_is_set(relay: RunningRelay, host: str) -> None:
    port = str(urlsplit(relay.url).port)
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}

    assert (True, "") == await is_healthy(RELAY_HOST=host, RELAY_PORT=port, **proxy)


@pytest.mark.anyio
async def test_a_relay_that_is_gone_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    healthy, why = await is_healthy(RELAY_PORT=str(port))

    assert not healthy
    assert why.startswith(f"127.0.0.1:{port} does not answer")


# --- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_relay_may_write_nothing_but_its_volume() -> None:
    assert "true" == RELAY["read_only"]
    assert [f"data:{place}" for place in said(IMAGE, "VOLUME")] == RELAY["volumes"]
    assert "data" in compose()["volumes"]
    assert ["/tmp"] == RELAY["tmpfs"]


def test_the_compose_relay_has_no_privileges() -> None:
    assert (["ALL"], ["no-new-privileges:true"]) == (RELAY["cap_drop"], RELAY["security_opt"])


def test_compose_overrules_what_in_env_is_meant_for_runs_outside_of_it() -> None:
    of_image = {name: value for name, value in environment().items() if name.startswith("RELAY_")}

    assert {**of_image, "RELAY_PORT": said(IMAGE, "EXPOSE")[0]} == RELAY["environment"]
    assert ".env" == RELAY["env_file"]


def test_compose_publishes_to_this_machine_only() -> None:
    assert [f"127.0.0.1:${{RELAY_PORT:-8000}}:{said(IMAGE, 'EXPOSE')[0]}"] == RELAY["ports"]


def test_compose_gives_a_shutdown_the_time_that_it_may_take() -> None:
    one_wait_s = Variables.model_fields["shutdown_s"].default

    assert seconds(RELAY["stop_grace_period"]) > 2 * one_wait_s
    assert "unless-stopped" == RELAY["restart"]


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", "docs/deploying.md", "deploy/README.md"])
def test_only_settings_that_exist_are_named(name: str) -> None:
    known = {variable(field) for field in Variables.model_fields}
    known |= {of(provider) for provider in load_providers(None) for of in (secret_variable, enable_variable)}

    assert set(re.findall(r"\b(?:RELAY|OAA)_[A-Z_]*[A-Z]\b", (ROOT / name).read_text())) <= known


def test_the_build_script_can_be_run() -> None:
    assert SCRIPT.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_without_buildah_the_build_script_says_so_and_passes(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert (0, "image-check: skipped, buildah is not installed\n", "") == (done.returncode, done.stdout, done.stderr)
