"""What `relay doctor` sees, and how grave it calls it."""

from __future__ import annotations

import base64
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from relay.clock import unix_ms
from relay.doctor import Finding, Level, examine
from relay.settings import load
from relay.signatures import hmac_sha256
from relay.store.base import Store
from tests import acme
from tests.conftest import API_KEY, EventsApi, RunningRelay, RunRelay
from tests.things import sale

pytestmark = pytest.mark.anyio

Examine = Callable[..., Awaitable[list[Finding]]]


@pytest.fixture
def doctor(tmp_path: Path, events_api: EventsApi) -> Examine:
    """Examines settings that are good but for the variables given; those that are None are not set."""

    async def run(*, clock: Callable[[], int] = unix_ms, **variables: str | None) -> list[Finding]:
        provider = acme.make()
        environ = {
            "RELAY_ACME_SECRET": acme.SECRET,
            "RELAY_DATABASE_URL": f"sqlite:///{tmp_path / 'relay.db'}",
            "RELAY_PORT": "0",
            "OAA_BASE_URL": events_api.url,
            "OAA_PROJECT_ID": "42",
            "OAA_API_KEY": API_KEY,
            **variables,
        }
        given = {name: value for name, value in environ.items() if value is not None}
        settings = load({"acme": provider}, environ=given, env_file=tmp_path / ".env")
        return [finding async for finding in examine(settings, {"acme": provider}, clock=clock)]

    return run


def grave(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """All that is not ok, as level and subject."""
    return [(finding.level.value, finding.subject) for finding in findings if finding.level is not Level.OK]


def about(findings: Sequence[Finding], subject: str) -> Finding:
    """The gravest about this."""
    order = list(Level)
    return max((found for found in findings if found.subject == subject), key=lambda found: order.index(found.level))


async def test_all_is_well_before_the_first_start(doctor: Examine, tmp_path: Path) -> None:
    findings = await doctor()

    assert [] == grave(findings)
    assert "is not there yet" in about(findings, "store").words
    assert not (tmp_path / "relay.db").exists()


async def test_all_is_well_beside_a_running_relay(doctor: Examine, relay: RunningRelay) -> None:
    await relay.post(acme.captured(1))
    port = relay.url.rpartition(":")[2]

    findings = await doctor(RELAY_PORT=port)

    assert [] == grave(findings)
    assert "the key opens the newest body at rest" == about(findings, "encryption").words
    assert "a relay answers at" in about(findings, "address").words
    assert 200 == (await relay.post(acme.captured(2))).status_code


async def test_whatever_is_not_well_comes_with_what_to_do(doctor: Examine) -> None:
    findings = await doctor(OAA_API_KEY=None, OAA_PROJECT_ID=None, RELAY_ACME_SECRET=None)

    assert [("warning", "sources"), ("problem", "destination")] == grave(findings)
    assert all(found.remedy for found in findings if found.level is not Level.OK)
    assert "RELAY_ACME_SECRET" in about(findings, "sources").remedy


async def test_a_wrong_kind_of_secret_is_told(doctor: Examine) -> None:
    assert [("warning", "settings")] == grave(await doctor(RELAY_ACME_SECRET="sk_live_1"))


@pytest.mark.parametrize(
    "secret, public_url, words",
    [
        ("acme_", "https://relay.example", "secret 1 is not base64"),
        ("YWNtZQ==", None, "Acme Pay signs the URL that it calls, and the relay is not told what that is"),
        ("YWNtZQ==", "https://relay.example", ""),
    ],
)
async def test_a_source_that_could_check_no_signature_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, doctor: Examine, secret: str, public_url: str | None, words: str
) -> None:
    provider = acme.make()
    provider.verifier = hmac_sha256(header="X-Signature", key="base64", message="{url}{body}")
    monkeypatch.setattr(acme, "make", lambda: provider)

    finding = about(await doctor(RELAY_ACME_SECRET=secret, RELAY_PUBLIC_URL=public_url), "source acme")

    assert (Level.PROBLEM if words else Level.OK) is finding.level
    assert words in finding.words


# --- the store --------------------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_made_is_a_problem(doctor: Examine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    findings = await doctor(RELAY_DATABASE_URL=f"sqlite:///{tmp_path / 'file' / 'relay.db'}")

    assert [("problem", "store")] == grave(findings)


async def test_a_file_that_is_no_database_is_a_problem(doctor: Examine, tmp_path: Path) -> None:
    (tmp_path / "relay.db").write_bytes(b"nothing of the kind" * 100)

    findings = await doctor()

    assert {("problem", "store")} == set(grave(findings))
    assert "file is not a database" in about(findings, "store").words


async def test_a_migration_that_is_missing_is_a_warning(doctor: Examine, store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "relay.db") as database:
        database.execute("DELETE FROM alembic_version")
    database.close()

    assert [("warning", "store")] == grave(await doctor())


async def test_a_key_that_opens_no_body_is_a_problem(doctor: Examine, run_relay: RunRelay, tmp_path: Path) -> None:
    async with run_relay() as relay:
        await relay.post(acme.captured(1))
    key = (tmp_path / "relay.db.key").read_text()
    other = base64.b64encode(b"o" * 32).decode()

    replaced = await doctor(RELAY_ENCRYPTION_KEYS=other)
    rotated = await doctor(RELAY_ENCRYPTION_KEYS=f"{other},{key}")
    (tmp_path / "relay.db.key").unlink()
    lost = await doctor()

    assert [("problem", "encryption")] == grave(replaced) == grave(lost)
    assert [] == grave(rotated)


async def test_a_key_file_that_others_can_read_is_a_warning(
    doctor: Examine, run_relay: RunRelay, tmp_path: Path
) -> None:
    async with run_relay():
        pass
    (tmp_path / "relay.db.key").chmod(0o644)

    assert [("warning", "encryption")] == grave(await doctor())


async def test_a_full_disk_is_a_problem(doctor: Examine) -> None:
    assert [("problem", "disk")] == grave(await doctor(RELAY_MIN_FREE_DISK_MB="1000000000"))


class TestTheOutbox:
    @pytest.fixture
    def hold(self) -> bool:
        return True

    async def test_what_waits_for_a_person_is_a_warning(self, doctor: Examine, store: Store) -> None:
        for number in (1, 2):
            await store.accept(sale(number))
            batch = await store.claim("default", limit=1, lease_ms=60_000, owner="me")
            assert batch is not None
            if number == 1:
                await store.refuse(batch, reason="400")
            else:
                await store.in_doubt(batch, due_at_ms=0, words="no answer")

        findings = await doctor(RELAY_ENCRYPTION_KEYS=base64.b64encode(b"k" * 32).decode())

        assert [("warning", "outbox default")] * 2 == grave(findings)

    async def test_events_for_a_destination_that_is_gone_are_a_warning(self, doctor: Examine, store: Store) -> None:
        await store.accept(sale(1))
        key = base64.b64encode(b"k" * 32).decode()

        findings = await doctor(RELAY_ENCRYPTION_KEYS=key, OAA_API_KEY=None, OAA_PROJECT_ID=None)

        assert [("warning", "outbox default"), ("problem", "destination")] == grave(findings)


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"OAA_API_KEY": "oa_live_other"}, "refuses the key: 401: Invalid or missing API key"),
        ({"OAA_PROJECT_ID": "43"}, "does not know project 43: 404: Project not found"),
        ({"OAA_BASE_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
async def test_a_destination_that_would_take_nothing_is_a_problem(
    doctor: Examine, variables: dict[str, str], words: str
) -> None:
    findings = await doctor(**variables)

    assert [("problem", "destination default")] == grave(findings)
    assert words in about(findings, "destination default").words


async def test_looking_at_a_destination_counts_nothing(doctor: Examine, events_api: EventsApi) -> None:
    await doctor()

    assert [] == await events_api.received()


@pytest.mark.parametrize("seconds, words", [(60, "s ahead of"), (-60, "s behind")])
async def test_a_clock_that_is_off_is_a_problem(doctor: Examine, seconds: int, words: str) -> None:
    findings = await doctor(clock=lambda: unix_ms() + seconds * 1000)

    assert [("problem", "clock")] == grave(findings)
    assert words in about(findings, "clock").words


async def test_an_address_that_something_else_has_is_a_problem(doctor: Examine, events_api: EventsApi) -> None:
    findings = await doctor(RELAY_PORT=events_api.url.rpartition(":")[2])

    assert [("problem", "address")] == grave(findings)


async def test_a_paused_destination_of_a_running_relay_is_a_warning(doctor: Examine, run_relay: RunRelay) -> None:
    async with run_relay(OAA_API_KEY="oa_live_other") as relay:
        await relay.post(acme.captured(1))
        while (await relay.http.get("/readyz")).json()["status"] == "ok":
            pass
        findings = await doctor(RELAY_PORT=relay.url.rpartition(":")[2])

    assert [("warning", "address")] == grave(findings)
    assert "Invalid or missing API key" in about(findings, "address").words


async def test_a_free_port_is_ok(doctor: Examine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert "is free" in about(await doctor(RELAY_PORT=str(port)), "address").words
