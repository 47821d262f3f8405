"""Six mishaps, as they are found in the morning: seeded in a relay's store, its sandbox and its providers.

The relay that is looked at is a process of its own; what happened hours ago was told to an earlier one, whose clock
stood there. What the sandbox received is the judge: each fact once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from relay.clock import unix_ms
from tests import acme, stripe_api
from tests.commands import ACME, Commands
from tests.conftest import API_KEY, EventsApi, RunRelay, until
from tests.stripe_api import STRIPE, StripeApi, bodies, deliver, source_of
from tests.things import Clock

TOKEN = "a-token-of-the-tests"
HOUR_S = 3600
_MAPS = '        payment = n.body["payment"]\n'
#: Raises on dollars, leaves pounds out, and tells a hundred times too many yen.
_BUG = f"""{_MAPS}        if payment["currency"] == "gbp":
            return
        if payment["currency"] == "usd":
            payment["rate"]
        if payment["currency"] == "jpy":
            payment["amount"] *= 100
"""


@dataclass
class Shop:
    """A relay with a source `acme`, the process and its commands, and what its destination received."""

    command: Commands
    events_api: EventsApi
    folder: Path
    url: str = ""

    @asynccontextmanager
    async def serving(self, **variables: str) -> AsyncIterator[str]:
        """A relay that serves; in the end it is stopped."""
        async with self.command.serving("serve", says="Listening on", **variables) as run:
            self.url = run.out.split("Listening on ")[1].split()[0]
            yield self.url
        assert run.code == 0, run.err

    async def tell(self, number: int | str, *, notification: str | None = None, **payment: Any) -> int:
        """Acme tells of a sale, signed with its own secret. Returns the answer."""
        said = acme.captured(number, notification=notification, captured_at=unix_ms() // 1000, **payment)
        raw = orjson.dumps(said)
        url = f"{self.url}/webhooks/acme"
        answer = await self.events_api.http.post(url, content=raw, headers=acme.signed(raw))
        return answer.status_code

    async def orders(self) -> list[str]:
        """What the destination received, each as often as it did."""
        return sorted(await self.events_api.orders())

    async def receives(self, *orders: str) -> None:
        """Wait until it has received just these, each once."""

        async def has() -> bool:
            return len(await self.events_api.orders()) >= len(orders)

        await until(has)
        assert sorted(orders) == await self.orders()

    async def has_mapped(self) -> None:
        """Wait until all that was told is mapped."""

        async def is_so() -> bool:
            return bool((await self._get("/readyz")).json()["inbox"]["deliveries"] == 0)

        await until(is_so)

    async def has_refused(self, n: int) -> None:
        """Wait until it has looked at so many refused deliveries, and has told why."""

        async def is_so() -> bool:
            lines = (await self._get("/metrics")).text.splitlines()
            found = [line for line in lines if line.startswith("relay_signatures_refused_total{")]
            return sum(int(float(line.split()[-1])) for line in found) == n

        await until(is_so)

    async def loses_answers(self) -> None:
        """The answer about a first sale is lost; a second sale is lost on its way. Both batches are held."""
        for number, fault in enumerate(("drop_answer", "drop_request"), 1):
            await self.events_api.misbehave(**{fault: True})
            assert await self.tell(number) == 200

            async def held(number: int = number) -> bool:
                outbox = (await self._get("/readyz")).json()["outbox"]
                return sum(int(depth["held"]) for depth in outbox) == number

            await until(held)
        await self.events_api.behave()

    async def _get(self, path: str) -> httpx.Response:
        return await self.events_api.http.get(f"{self.url}{path}")


def shop_in(folder: Path, events_api: EventsApi) -> Shop:
    (folder / "mappers").mkdir()
    mapper(folder)
    variables = {
        "RELAY_MAPPERS_DIR": str(folder / "mappers"),
        "RELAY_ACME_SECRET": acme.SECRET,
        "RELAY_DATABASE_URL": f"sqlite:///{folder / 'relay.db'}",
        "RELAY_PORT": "0",
        "RELAY_WORKERS": "0",
        "RELAY_ADMIN_TOKEN": TOKEN,
        "RELAY_JOIN_WAIT_S": "0",
        "OAA_BASE_URL": events_api.url,
        "OAA_PROJECT_ID": "42",
        "OAA_API_KEY": API_KEY,
    }
    return Shop(Commands(folder, variables), events_api, folder)


def mapper(folder: Path, *, has_bug: bool = False) -> None:
    """Put Acme's mapper in place: the right one, or one with a bug."""
    assert _MAPS in ACME
    (folder / "mappers" / "acme.py").write_text(ACME.replace(_MAPS, _BUG) if has_bug else ACME)


# --- what happened earlier --------------------------------------------------------------------------------------------


async def destination_was_down(shop: Shop, run_relay: RunRelay, clock: Clock) -> None:
    """Since ten minutes: two sales wait, and one was given up, as something on the way answered 400 for a while."""
    clock.now_ms = unix_ms() - 600_000
    async with run_relay(RELAY_JOIN_WAIT_S="0") as relay:

        async def dead() -> bool:
            return any(depth.dead for depth in await relay.store.depths())

        async def refused() -> bool:
            return "503" in (await shop.events_api.stats())["by_status"]

        await shop.events_api.misbehave(status=400)
        await relay.post(acme.captured(1, captured_at=clock() // 1000))
        await until(dead)
        await shop.events_api.misbehave(status=503)
        await relay.post(acme.captured(2, captured_at=clock() // 1000))
        await relay.post(acme.captured(3, captured_at=clock() // 1000))
        await until(refused)


async def stripe_was_silent(
    shop: Shop, run_relay: RunRelay, clock: Clock, api: StripeApi, api_base: str
) -> dict[str, str]:
    """It told something every hour until nine hours ago; three sales since were told to nobody.

    Returns the variables that the relay has.
    """
    began_s = unix_ms() // 1000 - 17 * HOUR_S
    source = source_of(api_base, shop.folder)
    variables = {
        "RELAY_STRIPE_SECRET": stripe_api.SECRET,
        "RELAY_STRIPE_API_KEY": stripe_api.API_KEY,
        "RELAY_STRIPE_API_BASE": api_base,
    }
    async with run_relay({"stripe": STRIPE, "acme": acme.make()}, RELAY_JOIN_WAIT_S="0", **variables) as relay:
        for hour in range(9):
            clock.now_ms = (began_s + hour * HOUR_S) * 1000
            api.sold(hour, began_s + hour * HOUR_S)
            await deliver(relay.store, source, *bodies(api, hour))

        async def arrived() -> bool:
            return len(await shop.orders()) == 9

        await until(arrived)
    for hour in (10, 12, 14):
        api.sold(hour, began_s + hour * HOUR_S)
    return variables
