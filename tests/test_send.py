"""`relay send`: where a provider signs in the query or in the body, that is what is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay.clock import unix_ms
from relay.contract import Provider
from relay.registry import load_providers
from relay.rejecting import set_shadow
from tests import acme
from tests.commands import ACME, CAPTURED, Commands
from tests.conftest import RunRelay
from tests.things import Clock

pytestmark = pytest.mark.anyio

SIGNED_IN = {
    "the query": 'query_token("key")',
    "a field of the body": 'field_token("json:key")',
    "a signature of the body": "mailgun_signature()",
    "a header": 'header_token("X-Key")',
}


def providers_of(folder: Path, verifier: str) -> dict[str, Provider]:
    name = verifier.partition("(")[0]
    code = ACME.replace("import hmac_sha256", f"import {name}").replace(
        'hmac_sha256(header="X-Acme-Signature")', verifier
    )
    samples = folder / "mappers" / "samples" / "acme"
    samples.mkdir(parents=True)
    (folder / "mappers" / "acme.py").write_text(code)
    (samples / "payment.captured__card.json").write_text(json.dumps(CAPTURED))
    return load_providers(folder / "mappers")


@pytest.mark.parametrize("verifier", SIGNED_IN.values(), ids=SIGNED_IN)
async def test_what_is_sent_is_accepted(verifier: str, tmp_path: Path, run_relay: RunRelay, clock: Clock) -> None:
    providers = providers_of(tmp_path, verifier)
    command = Commands(tmp_path, {"RELAY_MAPPERS_DIR": str(tmp_path / "mappers"), "RELAY_ACME_SECRET": "acme_key"})
    async with run_relay(providers, RELAY_ACME_SECRET="acme_key") as relay:
        clock.now_ms = unix_ms()
        sent = await command("send", "acme", "payment.captured", "--to", relay.url, "--json")
        aside = await command("send", "acme", "payment.captured", "--to", f"{relay.url}/webhooks/acme?a=1", "--json")

    assert [200, 200] == [answer["status"] for ended in (sent, aside) for answer in ended.json], sent.err


async def test_a_sample_that_only_the_provider_can_sign_is_taken_in_shadow_mode(
    tmp_path: Path, run_relay: RunRelay, clock: Clock
) -> None:
    command = Commands(tmp_path, {"RELAY_PAYPAL_SECRET": "8PT597110X687430L"})
    send = ("send", "paypal", "PAYMENT.CAPTURE.COMPLETED", "--json", "--to")
    providers = {"acme": acme.make(), "paypal": load_providers(None)["paypal"]}
    async with run_relay(providers, RELAY_PAYPAL_SECRET="8PT597110X687430L") as relay:
        clock.now_ms = unix_ms()
        refused = await command(*send, relay.url)
        await set_shadow(relay.store, "paypal", clock() + 600_000)
        await relay.app.state.parts.rejecting.step()
        taken = await command(*send, relay.url)

    assert [(1, 401), (0, 200)] == [(ended.code, ended.json[0]["status"]) for ended in (refused, taken)]
    assert "relay shadow paypal --for 10m" in refused.err
