"""Leases: what a process says now and then to keep what it claimed of a store that others share."""

from __future__ import annotations

import asyncio

import structlog

from relay.store.base import Store, StoreUnavailableError

log = structlog.get_logger("relay")

#: For so long after its last sign of life a replica has what it claimed. Then another one sends it again, in doubt.
LEASE_MS = 15_000
_RENEW_EVERY_S = 4.0


async def renewing(store: Store, *, owner: str) -> None:
    """For ever, renew the leases of what this owner is sending."""
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        try:
            await store.renew(owner=owner, lease_ms=LEASE_MS)
        except StoreUnavailableError as error:
            log.warning("the leases could not be renewed", error=str(error))
        except Exception:
            log.exception("the renewal of leases stumbled; it goes on")
