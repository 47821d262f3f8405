"""The demonstration: the relay for real, with a sandbox as its destination and one sample purchase on its way.

In: settings without a destination. What happens is no pretence: the sample is signed, comes in through the socket, is
committed, forwarded over HTTP and shown as the sandbox took it. It runs until a signal comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
from pydantic import SecretStr
from rich.console import Console
from rich.json import JSON

from relay import sandbox
from relay.app import open_vault
from relay.clock import unix_ms
from relay.contract import Delivery, Provider
from relay.demo_secret import PROVIDER, demo_secret
from relay.process import EndedError, serve_until_signal
from relay.samples import cases_of, choose, fresh, signed
from relay.serving import Served, StartError, serving
from relay.settings import Settings, SettingsError, load
from relay.sources import Destination, Source
from relay.variables import secret_variable

SAMPLE = "checkout.session.completed"
#: Not `default`: what was made for the sandbox must never reach the real API when that is configured later, nor the
#: other way round.
DESTINATION = "sandbox"

_SANDBOX_PORT = 8001
_PROJECT = "42"
_WAIT_S = 15.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the sample needs to find its way."""

    source: Source
    sandbox_url: str
    is_secret_made_up: bool

    @property
    def secret(self) -> str:
        return self.source.secrets[0].get_secret_value()


async def show(settings: Settings, providers: Mapping[str, Provider], *, out: Console, command: str) -> None:
    """Serve with the sandbox beside it, send the sample, show what became of it. Raises `EndedError`.

    `command`: how the relay's command is called here, for the hints.
    """
    async with _sandbox() as box:
        is_secret_made_up = not any(source.provider == PROVIDER for source in settings.sources.values())
        if is_secret_made_up:
            open_vault(settings)  # makes the key where there is none
            made_up = {secret_variable(PROVIDER): demo_secret(settings) or ""}
            try:
                settings = load(providers, environ={**os.environ, **made_up})
            except SettingsError as error:
                raise EndedError(str(error)) from None
        settings = to_sandbox(settings, box.url)
        source = next(source for source in settings.sources.values() if source.provider == PROVIDER)
        stage = Stage(source=source, sandbox_url=box.url, is_secret_made_up=is_secret_made_up)
        sending: list[asyncio.Task[None]] = []

        def started(relay: Served) -> None:
            _announce(out, stage, settings)
            sending.append(asyncio.create_task(_perform(out, stage, providers[PROVIDER], settings, relay, command)))

        try:
            await serve_until_signal(settings, providers, started=started)
        finally:
            for task in sending:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@contextlib.asynccontextmanager
async def _sandbox() -> AsyncIterator[Served]:
    """On its usual port, or where that is taken, on any."""
    async with contextlib.AsyncExitStack() as stack:
        app = sandbox.create_app()
        try:
            served = await stack.enter_async_context(serving(app, port=_SANDBOX_PORT))
        except StartError:
            served = await stack.enter_async_context(serving(app))
        yield served


def to_sandbox(settings: Settings, url: str) -> Settings:
    """The same settings, with every source's events going to a sandbox at this URL."""
    box = Destination(
        name=DESTINATION, base_url=url, project_id=_PROJECT, api_key=SecretStr("oa_sandbox"), batch_body="object",
        timeout_s=settings.oaa_timeout_s,
    )  # fmt: skip
    sources = {
        slug: replace(source, destination=DESTINATION, test_destination=source.test_destination and DESTINATION)
        for slug, source in settings.sources.items()
    }
    return settings.having(sources, {DESTINATION: box}, settings.warnings)


# --- the sample -------------------------------------------------------------------------------------------------------


async def _perform(
    out: Console, stage: Stage, provider: Provider, settings: Settings, relay: Served, command: str
) -> None:
    case = choose(cases_of(provider, settings.mappers_dir), SAMPLE, None)
    if case is None:
        out.print(f"There is no sample of {SAMPLE} here, so nothing was sent.", style="bold yellow")
    else:
        now_ms = unix_ms()
        delivery = fresh(case, id=None, now_ms=now_ms, token=secrets.token_hex(16))
        delivery = replace(delivery, url=stage.source.public_url or "")
        try:
            await _send(out, stage, signed(delivery, provider, stage.secret, now_ms=now_ms), relay)
        except httpx.HTTPError as error:
            out.print(f"The sample could not be sent: {error!r}", style="bold red", markup=False)
    _tell_next(out, stage, provider, relay, command)


async def _send(out: Console, stage: Stage, delivery: Delivery, relay: Served) -> None:
    url = f"{relay.url}/webhooks/{stage.source.slug}"
    async with httpx.AsyncClient(trust_env=False) as http:
        before = (await http.get(f"{stage.sandbox_url}/received?count=1")).json()["count"]
        answer = await http.post(url, content=delivery.body, headers=dict(delivery.headers))
        out.print(f"Sent one signed {SAMPLE} to {url}: {answer.status_code} {answer.text}", markup=False)
        if not answer.is_success:
            return
        event = await _arrived(http, f"{stage.sandbox_url}/received?since={before}", delivery)
    if event is None:
        out.print("The sandbox has not got its event yet; the log says why.", style="bold yellow")
        return
    out.print("The sandbox accepted this event:", style="bold green")
    out.print(JSON.from_data(event))


async def _arrived(http: httpx.AsyncClient, url: str, delivery: Delivery) -> Mapping[str, Any] | None:
    """The event that was made of this delivery: an earlier run may have left others, which come along."""
    sent = delivery.body.decode()
    for _ in range(int(_WAIT_S / _LOOK_EVERY_S)):
        for event in (await http.get(url)).json():
            order = event.get("properties", {}).get("order_id")
            if isinstance(order, str) and order in sent:
                found: Mapping[str, Any] = event
                return found
        await asyncio.sleep(_LOOK_EVERY_S)
    return None


# --- words ------------------------------------------------------------------------------------------------------------


def _announce(out: Console, stage: Stage, settings: Settings) -> None:
    out.print(
        f" NO OAA_API_KEY IS SET: events go to the built-in SANDBOX at {stage.sandbox_url} and to no real project. ",
        style="bold black on yellow", markup=False,
    )  # fmt: skip
    if not stage.sandbox_url.endswith(f":{_SANDBOX_PORT}"):
        out.print(f"(Its usual port {_SANDBOX_PORT} is taken, so it has a free one.)", markup=False)
    if stage.is_secret_made_up:
        out.print(
            f"{secret_variable(PROVIDER)} is not set: until it ends, the relay takes {stage.secret}, which "
            '"relay send" knows',
            markup=False,
        )
    out.print(f"What comes in is kept in {settings.database_url.get_secret_value()}", markup=False)


def _tell_next(out: Console, stage: Stage, provider: Provider, relay: Served, command: str) -> None:
    slug = stage.source.slug
    send = [command, "send", slug, SAMPLE]
    if (relay.host, relay.port) != ("127.0.0.1", 8000):
        send += ["--to", relay.url]
    public = stage.source.public_url or f"https://<where the relay is reached>/webhooks/{slug}"
    variable = secret_variable(PROVIDER)
    lines = [
        ("Send another one", " ".join(shlex.quote(word) for word in send).replace(shlex.quote(command), command, 1)),
        ("All samples", f"{command} send --list"),
        ("What the sandbox got", f"{stage.sandbox_url}/received"),
        ("The relay's own pages", f"{relay.url}/docs  {relay.url}/readyz  {relay.url}/metrics"),
        (f"Connect {provider.title}", f"paste {public} there, and put {variable} into .env"),
        ("", f"({provider.secret.meaning})"),
        ("Use your own project", "put OAA_PROJECT_ID and OAA_API_KEY into .env, and start again"),
        ("Check everything", f"{command} doctor"),
    ]
    out.print("\nNext", style="bold")
    for label, words in lines:
        out.print(f"  {label:<22} {words}", markup=False)
    out.print("\nServing until Ctrl-C.", style="bold")
