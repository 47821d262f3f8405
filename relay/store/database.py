"""Connections to PostgreSQL, and to what speaks its protocol.

In: a URL as libpq takes it (several hosts and `target_session_attrs` too). Out: connections that commit durably and
give up in time. While the database is away they are tried for now and then only, each replica at moments of its own, so
that a database that comes back is not run over.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool, QueuePool

from relay.store.base import StoreUnavailableError

log = structlog.get_logger("relay.store")

SCHEMES = ("postgresql://", "postgres://")

#: What the URL does not say: how long it may take to connect, and to notice that the other side is gone.
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "fallback_application_name": "relay",
}
#: Of a session: no statement and no idle transaction holds locks for longer. Plans are made for the tables as they are.
_SESSION = {
    "statement_timeout": "20s",
    "idle_in_transaction_session_timeout": "15s",
    "plan_cache_mode": "force_custom_plan",
    "random_page_cost": "1.1",
}
#: Where a few hundred keys are looked up, a plan that reads a whole table is wrong, however old its statistics are.
_BY_KEY = {"enable_hashjoin": "off", "enable_mergejoin": "off"}
_FIRST_WAIT_S = 0.1
_WAIT_CAP_S = 2.0
_DOUBLINGS = 8


class Database:
    """Opens connections, from any thread."""

    def __init__(
        self,
        url: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        shut: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`shut` says why nobody may connect yet, or None. Raises `StoreUnavailableError` for what is no URL of it."""
        try:
            self._given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            msg = f"RELAY_DATABASE_URL cannot be read: {str(error).strip()}"
            raise StoreUnavailableError(msg) from None
        self._shut = shut
        self._monotonic = monotonic
        self._draw = draw
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._words = ""
        #: Behind a pooler that lends a session for one transaction: settings and LISTEN do not last. None: not known.
        self.is_pooled: bool | None = None

    def connect(self, *, by_key: bool = True) -> psycopg.Connection[Any]:
        """A new connection, to look things up `by_key`, or for any question.

        Raises `psycopg.Error`, or `StoreUnavailableError` at once where it is too early to try.
        """
        if reason := self._shut():
            raise StoreUnavailableError(reason)
        with self._lock:
            if self._monotonic() < self._not_before:
                raise StoreUnavailableError(self._words)
        try:
            connection = psycopg.connect(**{**_PATIENCE, **self._given})
            try:
                self._set_up(connection, by_key=by_key)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            self._failed(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
            raise
        with self._lock:
            self._failures, self._not_before = 0, 0.0
        return connection

    def engine(self, *, kept: bool = False, autocommit: bool = False) -> Engine:
        """An engine. `kept`: one connection that stays open for one thread, instead of a new one each time."""
        pool: dict[str, Any] = {"poolclass": NullPool}
        if kept:
            pool = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_pre_ping": True}
        level: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        connect = partial(self.connect, by_key=not kept)
        return create_engine("postgresql+psycopg://", creator=connect, use_native_hstore=False, **pool, **level)

    def _failed(self, words: str) -> None:
        with self._lock:
            wait = min(_WAIT_CAP_S, _FIRST_WAIT_S * 2 ** min(self._failures, _DOUBLINGS))
            self._failures += 1
            self._not_before = self._monotonic() + wait * (0.5 + self._draw() / 2)
            self._words = words

    def _set_up(self, connection: psycopg.Connection[Any], *, by_key: bool) -> None:
        connection.autocommit = True
        found = connection.execute("SELECT pg_backend_pid()").fetchone()
        is_pooled = found is None or found[0] != connection.info.backend_pid
        if is_pooled != self.is_pooled:
            self.is_pooled = is_pooled
            if is_pooled:
                log.warning("behind a connection pooler: it cannot wake us, so that the database is polled")
        if is_pooled:
            connection.prepare_threshold = None
        else:
            for name, value in {**_SESSION, **(_BY_KEY if by_key else {})}.items():
                with contextlib.suppress(psycopg.Error):  # not every engine that speaks the protocol knows them all
                    connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        self._make_durable(connection, is_pooled=is_pooled)
        connection.autocommit = False

    def _make_durable(self, connection: psycopg.Connection[Any], *, is_pooled: bool) -> None:
        """A commit that returns before it is on disk would be an acknowledgement of what may be lost."""
        with contextlib.suppress(psycopg.Error):
            found = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()
            if found is not None and found[0] == "off":
                if is_pooled:
                    log.error("synchronous_commit is off: acknowledged deliveries can be lost; switch it on")
                else:
                    connection.execute("SET synchronous_commit = on")


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """The connection of the driver itself."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver
