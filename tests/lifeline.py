"""A line between a replica and its database, to cut, to hold and to mend."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict

#: How the message begins that names the process at the other end.
_KEY_DATA = b"K\0\0\0\x0c"


class Lifeline:
    """Listens on a port of its own and hands everything on, as long as it is let."""

    def __init__(self, database: str, *, pools: bool = False) -> None:
        """`pools`: look like a pooler, which tells its clients of a process that is not the server's."""
        self._pools = pools
        self._to = conninfo_to_dict(database)
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        """Of the database, along this line."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"postgresql://{self._to.get('user', '')}@{host}:{port}/{self._to['dbname']}?sslmode=disable"

    def cut(self) -> None:
        """Every connection breaks, and no new one is made."""
        self._is_cut = True
        for pair in self._pairs:
            pair.cancel()

    def mend(self) -> None:
        self._is_cut = False

    def hold(self) -> None:
        """Nothing gets through, and nothing breaks."""
        self._flows.clear()

    def let_go(self) -> None:
        self._flows.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._flows.set()
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        host, port = str(self._to.get("host", "127.0.0.1")), int(self._to.get("port") or 5432)
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if host.startswith("/"):
                back, there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                back, there = await asyncio.open_connection(host, port)
            await asyncio.wait(
                [asyncio.create_task(self._pump(reader, there)), asyncio.create_task(self._pump(back, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        for end in (writer, there):
            if end is not None:
                end.close()
        self._pairs.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                if self._pools and (at := data.find(_KEY_DATA)) >= 0:
                    place = at + len(_KEY_DATA)
                    data = data[:place] + b"\0\0\0\1" + data[place + 4 :]
                writer.write(data)
                await writer.drain()
