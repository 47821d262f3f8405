"""A provider with patience: it sends each webhook until a 2xx comes, and some of them twice although it came.

In: a port where a relay listens, more or less. Out: which checkouts were acknowledged. Most are never sent again after
their 2xx, so that nothing but the relay's own store can bring them to the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from random import Random

from bench.checkout import Checkouts

#: Of ten checkouts one is sent again after its 2xx, and one is sent over two connections at once.
_AGAIN, _AT_ONCE, _OF = 3, 7, 10
_TIMEOUT_S = 8.0
#: After a connection failed, about so long until the next one.
_BREATH_S = 0.05
#: "Later, please" and its like: what a provider meets with patience. Any other answer would be a fault of the relay.
_PATIENT = frozenset({200, 429, 503})


class Provider:
    """Sends checkouts over so many connections, until `finish`."""

    def __init__(self, port: int, *others: int, random: Random, connections: int = 16, think_s: float = 0.008) -> None:
        """`others`: ports of replicas, of which each connection takes one."""
        self._ports = (port, *others)
        self._random = random
        self._think_s = think_s
        self._checkouts = Checkouts(port)
        self._next = 0
        self._again: deque[int] = deque()
        self._under_way = 0
        self._finishing = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(connections)]
        #: By status, how many answers.
        self.statuses: Counter[int] = Counter()
        #: Requests that went out and got no answer: the relay may have committed them, or not.
        self.unanswered = 0
        #: Attempts to connect while nobody listened.
        self.refused = 0
        self.acknowledged: set[int] = set()
        #: Checkouts that were sent once more although they had been acknowledged, or were under way.
        self.doubled = 0

    @property
    def sent(self) -> int:
        """How many checkouts there are: the numbers from 0 on."""
        return self._next

    @property
    def strange(self) -> int:
        """Answers that a correct webhook must never get."""
        return sum(times for status, times in self.statuses.items() if status not in _PATIENT)

    async def finish(self, within_s: float) -> None:
        """Begin no new checkout, and send what there is until all have their 2xx, or the time is over."""
        self._finishing = True
        _, late = await asyncio.wait(self._workers, timeout=within_s)
        for worker in late:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _choose(self) -> int | None:
        """The next checkout to send: one of the old ones now and then, always when there are no new ones to be."""
        if self._again and (self._finishing or self._random.random() < 0.5):
            return self._again.popleft()
        if self._finishing:
            return None
        number = self._next
        self._next += 1
        if number % _OF == _AT_ONCE:
            self.doubled += 1
            self._again.append(number)
        return number

    async def _work(self) -> None:
        connection: _Connection | None = None
        while not (self._finishing and not self._again and not self._under_way):
            number = self._choose()
            if number is None:
                await asyncio.sleep(0.01)
                continue
            self._under_way += 1
            connection = await self._deliver(number, connection)
            self._under_way -= 1
            pause_s = self._think_s if connection is not None else _BREATH_S
            await asyncio.sleep(self._random.choice((0.0, pause_s, 2 * pause_s)))
        if connection is not None:
            connection.close()

    async def _deliver(self, number: int, connection: _Connection | None) -> _Connection | None:
        """Send it once. The connection for the next time, where there is one."""
        if connection is None:
            try:
                connection = await _connect(self._random.choice(self._ports))
            except OSError:
                self.refused += 1
                self._again.append(number)
                return None
        try:
            status = await connection.post(self._checkouts.request(number))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            self.unanswered += 1
            self._again.append(number)
            connection.close()
            return None
        self.statuses[status] += 1
        if status != 200:
            self._again.append(number)
        elif number not in self.acknowledged:
            self.acknowledged.add(number)
            if number % _OF == _AGAIN:
                self.doubled += 1
                self._again.append(number)
        return connection


class _Connection:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, request: bytes) -> int:
        """The status of the whole answer. Raises `OSError`, and what the reader raises, where there is none."""
        async with asyncio.timeout(_TIMEOUT_S):
            self._writer.write(request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await self._reader.readexactly(length)
            return int(head[9:12])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()


async def _connect(port: int) -> _Connection:
    async with asyncio.timeout(_TIMEOUT_S):
        return _Connection(*await asyncio.open_connection("127.0.0.1", port))
