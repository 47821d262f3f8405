"""A process that receives maps too, while nothing comes in: after a peak, all processes work on what it has left.

Answering comes first. Beside a steady stream this one leaves the mapping to the process that does nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from relay.unfolding import Unfolding

#: Nothing came in for so long: it is quiet.
_QUIET_S = 0.05


class Helping:
    """Lets an `Unfolding` work whenever it is quiet, until the inbox is empty or something comes in."""

    def __init__(self, unfolding: Unfolding) -> None:
        self._unfolding = unfolding
        self._loop = asyncio.get_running_loop()
        self._came_at = self._loop.time()
        self._came = asyncio.Event()
        self._stopping = False

    def came(self) -> None:
        """Something came in just now."""
        self._came_at = self._loop.time()
        self._came.set()

    def stop(self) -> None:
        """End `run` after the step that is under way."""
        self._stopping = True
        self._came.set()

    async def run(self) -> None:
        """Until `stop`: wait for something to come, then for quiet, then help."""
        while not self._stopping:
            await self._came.wait()
            await self._until_quiet()
            self._came.clear()
            await self._unfolding.empty(go_on=self._is_free)

    def _is_free(self) -> bool:
        return not (self._stopping or self._came.is_set())

    async def _until_quiet(self) -> None:
        while not self._stopping and self._loop.time() < self._came_at + _QUIET_S:  # noqa: ASYNC110  cheaper than an event
            await asyncio.sleep(_QUIET_S)


@asynccontextmanager
async def helping(unfolding: Unfolding) -> AsyncIterator[Callable[[], None]]:
    """While the block runs. Yields what is to be called when something came in."""
    helper = Helping(unfolding)
    task = asyncio.create_task(helper.run(), name="helping")
    try:
        yield helper.came
    finally:
        helper.stop()
        await task
