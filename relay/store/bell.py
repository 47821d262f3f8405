"""How a replica that receives wakes those that map and forward: `NOTIFY`, heard by whoever does `LISTEN`.

It is only a hint: whoever misses it looks by itself a moment later. Many rings at once are one. Behind a pooler that
lends sessions out, nothing can be heard, and the look by itself is all there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial

import psycopg
import structlog

from relay.store.base import StoreUnavailableError
from relay.store.database import Database

log = structlog.get_logger("relay.store")

_CHANNEL = "relay_bell"
#: A notification is a lock that all sessions of the server share: no replica rings more often than this.
_RING_EVERY_S = 0.025
_HEAR_S = 0.25
_AGAIN_S = 2.0


class Bell:
    """Rung and heard on connections of its own, beside the event loop that made it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something new is in the store. Never waits."""
        self._rung.set()

    async def ringing(self) -> None:
        """For ever, pass on the rings of this process."""
        connection: psycopg.Connection[object] | None = None
        try:
            while True:
                await self._rung.wait()
                self._rung.clear()
                try:
                    if connection is None:
                        connection = await self._connected()
                    await asyncio.to_thread(connection.execute, f"NOTIFY {_CHANNEL}")
                    await asyncio.sleep(_RING_EVERY_S)
                except (psycopg.Error, StoreUnavailableError):
                    _close(connection)
                    connection = None
                    await asyncio.sleep(_AGAIN_S)
        finally:
            _close(connection)

    async def listening(self, wake: Callable[[], None]) -> None:
        """For ever, call `wake` after each ring of another process, or after many at once."""
        while True:
            try:
                connection = await self._connected()
            except (psycopg.Error, StoreUnavailableError):
                await asyncio.sleep(_AGAIN_S)
                continue
            if self._database.is_pooled:
                _close(connection)
                return
            over = threading.Event()
            soon = partial(asyncio.get_running_loop().call_soon_threadsafe, wake)
            task = asyncio.create_task(asyncio.to_thread(_hear, connection, over, soon))
            try:
                wake()  # what was rung while nobody listened
                await asyncio.shield(task)
            except asyncio.CancelledError:
                over.set()
                with contextlib.suppress(psycopg.Error, RuntimeError):
                    await task
                raise
            except psycopg.Error as error:
                log.info("the bell is out of order for a moment; the database is polled", error=str(error).strip())
                await asyncio.sleep(_AGAIN_S)
            finally:
                _close(connection)

    async def _connected(self) -> psycopg.Connection[object]:
        """A new connection; where nobody waits for it any more, it is closed."""
        connecting = asyncio.create_task(asyncio.to_thread(self._connect))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with contextlib.suppress(psycopg.Error, StoreUnavailableError):
                _close(await connecting)
            raise

    def _connect(self) -> psycopg.Connection[object]:
        connection = self._database.connect()
        connection.autocommit = True
        return connection


def _hear(connection: psycopg.Connection[object], over: threading.Event, wake: Callable[[], object]) -> None:
    """On a thread: until it is over, hear. Raises `psycopg.Error` when the line is broken."""
    connection.execute(f"LISTEN {_CHANNEL}")
    while not over.is_set():
        for _ in connection.notifies(timeout=_HEAR_S, stop_after=1):
            wake()


def _close(connection: psycopg.Connection[object] | None) -> None:
    if connection is not None:
        with contextlib.suppress(psycopg.Error):
            connection.close()
