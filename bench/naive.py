"""The other design: each webhook is committed on its own, in its request. FastAPI, psycopg, one process.

`python -m bench.naive PORT URL row|work`. Both read the body, check the signature, and commit before the 2xx. `row`
does nothing more: it inserts the raw delivery. `work` does what the relay does for a webhook: it maps the delivery by
the relay's own code, and writes delivery, notification, keys and events in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import psycopg
import uvicorn
from fastapi import FastAPI, Request, Response

from bench import process
from bench.checkout import SECRET
from relay.contract import Delivery
from relay.event import to_json
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.settings import load

TABLES = """
CREATE TABLE IF NOT EXISTS naive (id text PRIMARY KEY, received_at_ms bigint NOT NULL, headers text,
                                  body bytea NOT NULL);
ALTER TABLE naive ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS naive_keys (source text, key text, ref text NOT NULL, PRIMARY KEY (source, key));
CREATE TABLE IF NOT EXISTS naive_events (id text PRIMARY KEY, delivery text NOT NULL, state text NOT NULL,
                                         made_at_ms bigint NOT NULL, payload bytea NOT NULL);
CREATE INDEX IF NOT EXISTS naive_pending ON naive_events (made_at_ms) WHERE state = 'pending';
"""
_DELIVERY = "INSERT INTO naive (id, received_at_ms, headers, body) VALUES (%s, %s, %s, %b) ON CONFLICT DO NOTHING"
_KEY = "INSERT INTO naive_keys (source, key, ref) VALUES ('stripe', %s, %s) ON CONFLICT DO NOTHING"
_EVENT = (
    "INSERT INTO naive_events (id, delivery, state, made_at_ms, payload) VALUES (%s, %s, 'pending', %s, %b) "
    "ON CONFLICT DO NOTHING"
)
_CONNECTIONS = 16

Connection = psycopg.AsyncConnection[Any]
Keep = Callable[[Connection, Mapping[str, str], bytes], Awaitable[None]]


async def keep_row(connection: Connection, headers: Mapping[str, str], body: bytes) -> None:
    """One row, one statement, one commit."""
    del headers
    await connection.execute(_DELIVERY, [orjson.loads(body)["id"], int(time.time() * 1000), None, body])


def keep_work(folder: Path) -> Keep:
    """All that the relay writes of a webhook, in one transaction."""
    providers = load_providers(None)
    environ = {
        "RELAY_DATABASE_URL": f"sqlite:///{folder / 'none.db'}",
        "RELAY_ENCRYPTION_KEYS": process.ENCRYPTION_KEY,
        "RELAY_STRIPE_SECRET": SECRET,
        "OAA_PROJECT_ID": "42",
        "OAA_API_KEY": process.API_KEY,
    }
    source = load(providers, environ=environ, env_file=folder / "none.env").sources["stripe"]

    async def keep(connection: Connection, headers: Mapping[str, str], body: bytes) -> None:
        now_ms = int(time.time() * 1000)
        (mapped,) = map_delivery(
            providers["stripe"], source, Delivery(body=body, headers=dict(headers)), received_at_ms=now_ms
        )
        async with connection.transaction():
            name = mapped.notification_id
            if not (await connection.execute(_KEY, ["n:" + name, name])).rowcount:
                return
            await connection.execute(_DELIVERY, [name, now_ms, orjson.dumps(dict(headers)).decode(), body])
            for outgoing in mapped.events:
                for key in outgoing.sealed.once:
                    await connection.execute(_KEY, ["f:" + key, name])
                event = to_json(outgoing.sealed.event)
                await connection.execute(_EVENT, [outgoing.sealed.event_id, name, now_ms, event])

    return keep


def make(url: str, keep: Keep) -> FastAPI:
    """The app. Each of its requests borrows a connection, and commits."""
    free: asyncio.Queue[Connection] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for _ in range(_CONNECTIONS):
            free.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))
        yield
        while not free.empty():
            await free.get_nowait().close()

    app = FastAPI(lifespan=lifespan)
    secret = SECRET.encode()

    @app.post("/webhooks/stripe")
    async def webhook(request: Request) -> Response:
        body = await request.body()
        stamp, _, signature = request.headers["stripe-signature"].partition(",v1=")
        expected = hmac.digest(secret, stamp.removeprefix("t=").encode() + b"." + body, "sha256").hex()
        if not hmac.compare_digest(expected, signature):
            return Response(status_code=401)
        connection = await free.get()
        try:
            await keep(connection, request.headers, body)
        finally:
            free.put_nowait(connection)
        return Response()

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response()

    return app


if __name__ == "__main__":
    app = make(sys.argv[2], keep_row if sys.argv[3] == "row" else keep_work(Path.cwd()))
    uvicorn.run(
        app, port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="warning", access_log=False
    )  # fmt: skip
