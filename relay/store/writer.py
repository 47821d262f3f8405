"""The one writer: a thread that owns the writing connection and commits in groups.

In: items (deliveries, arrivals) and jobs (functions of a connection). All that wait at a moment run in one transaction,
behind one fsync; their callers wake only after the commit. A job that raises is rolled back alone. The linger is
adaptive: none while little happens, a moment under load, so that groups grow when it pays. Where others write too
(`one_by_one`), each group and each job has a transaction of its own, so that locks are held for a moment only, and is
run again where another replica stood in its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from relay.store.base import StoreUnavailableError

T = TypeVar("T")
Job = Callable[[Connection], Any]
#: What is committed in groups, and what its caller gets.
Item = TypeVar("Item")
Gain = TypeVar("Gain")

#: From this many arrivals in a group on, the next one waits a moment for company.
_BUSY_GROUP = 4
_LINGER_S = 0.0015
#: So often a transaction is run again that another replica stood in the way of, each time after a longer moment.
RACES = 20
_RACE_S = 0.004

#: Classes of SQLSTATE that say nothing about the work itself: connections, resources, operators, the system, races.
_AWAY_CLASSES = frozenset({"08", "28", "3D", "40", "53", "57", "58", "F0"})
#: And states: read-only, locked, a connection that was idle for too long within a transaction.
_AWAY_STATES = frozenset({"25006", "55P03", "55P02", "25P03"})
#: Serialisation failure, deadlock.
_RACE_STATES = frozenset({"40001", "40P01"})


class RacedError(Exception):
    """Another replica changed meanwhile what this transaction relies on: the same again, on what is there now."""


class Writer(Generic[Item, Gain]):
    """Runs arrivals and jobs on its own thread. Bound to the event loop that made it."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        accept: Callable[[Connection, Sequence[Item]], Sequence[Gain]],
        *,
        observe: Callable[[int], None] | None = None,
        turns: AbstractContextManager[object] | None = None,
        one_by_one: bool = False,
    ) -> None:
        """`turns` is held around each transaction, where other processes write the same file."""
        self._connect = connect
        self._accept = accept
        self._observe = observe or (lambda _size: None)
        self._turns = turns or contextlib.nullcontext()
        self._one_by_one = one_by_one
        self._loop = asyncio.get_running_loop()
        #: Filled by the event loop, emptied by the writer's thread when its transaction begins.
        self._gathering: deque[tuple[Item, asyncio.Future[Gain]]] = deque()
        self._in_flight = 0
        self._group_is_under_way = False
        self._flush_is_planned = False
        self._lingering: asyncio.TimerHandle | None = None
        self._last_group = 0
        self._queue: queue.SimpleQueue[Callable[[], None] | _Group[Item, Gain] | _Task | None] = queue.SimpleQueue()
        self._closed = False
        #: When the database was last away, on the monotonic clock.
        self.away_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Arrivals that are not yet committed."""
        return len(self._gathering) + self._in_flight

    async def accept(self, item: Item) -> Gain:
        """Commit the delivery together with all that wait now. Raises `StoreUnavailableError`, having kept nothing."""
        if self._closed:
            msg = "the store is closed"
            raise StoreUnavailableError(msg)
        future: asyncio.Future[Gain] = self._loop.create_future()
        self._gathering.append((item, future))
        self._plan_flush()
        return await future

    async def run(self, job: Callable[[Connection], T]) -> T:
        """Run a job inside the next transaction, and return its value after the commit."""
        if self._closed:
            msg = "the store is closed"
            raise StoreUnavailableError(msg)
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Task(job, future))
        return await future

    async def close(self) -> None:
        """Commit what is waiting, then end the thread."""
        if self._closed:
            return
        while self._gathering or self._group_is_under_way:
            self._flush()
            await asyncio.sleep(0.001)
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- on the event loop ---

    def _plan_flush(self) -> None:
        if self._group_is_under_way:
            return
        if self._flush_is_planned:
            if self._lingering is not None and len(self._gathering) >= self._last_group:
                self._lingering.cancel()  # as many as last time have come: nobody is left to wait for
                self._lingering = None
                self._loop.call_soon(self._flush)
            return
        self._flush_is_planned = True
        if self._last_group >= _BUSY_GROUP and len(self._gathering) < self._last_group:
            self._lingering = self._loop.call_later(_LINGER_S, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_planned = False
        self._lingering = None
        if not self._gathering or self._group_is_under_way:
            return
        self._group_is_under_way = True
        self._queue.put(_Group(self._gathering))

    def _wake(self, settled: list[tuple[asyncio.Future[Any], Any]]) -> None:
        for future, value in settled:
            if future.done():
                continue  # the caller went away; the commit stands
            if isinstance(value, BaseException):
                future.set_exception(value)
            else:
                future.set_result(value)

    def _group_is_done(self, settled: list[tuple[asyncio.Future[Any], Any]]) -> None:
        self._group_is_under_way = False
        self._in_flight, self._last_group = 0, len(settled)
        self._wake(settled)
        if self._gathering:
            self._plan_flush()

    # --- on the writer's thread ---

    def _run(self) -> None:
        connection: Connection | None = None
        while True:
            items = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while items[-1] is not None:
                    items.append(self._queue.get_nowait())
            work = [item for item in items if isinstance(item, (_Group, _Task))]
            for together in [[item] for item in work] if self._one_by_one else [work]:
                connection = self._commit(connection, together)
            if items[-1] is None:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.close()
                return

    def _commit(self, connection: Connection | None, work: list[_Group[Item, Gain] | _Task]) -> Connection | None:
        """Run it and tell those who wait. Returns the connection for what comes next."""
        for raced in itertools.count(1):
            try:
                if connection is None or connection.closed or connection.invalidated:
                    connection = self._connect()
                self._transaction(connection, work)
                break
            except BaseException as error:  # noqa: BLE001  whatever it was, nobody may wait for ever
                connection = _rolled_back(connection, keep=is_race(error))
                if is_race(error) and raced < RACES:
                    pause_a_moment(raced)
                    continue
                trouble, self.away_at = unavailable(error), time.monotonic()
                for item in work:
                    item.fail(trouble)
                break
        for item in work:
            self._report(item)
        return connection

    def _transaction(self, connection: Connection, work: list[_Group[Item, Gain] | _Task]) -> None:
        with self._turns:
            if len(work) == 1 and isinstance(work[0], _Group) and self._accept_alone(connection, work[0]):
                return
            if self._one_by_one and isinstance(work[0], _Task):
                _run_alone(connection, work[0])
                return
            with connection.begin():
                for item in work:
                    if isinstance(item, _Group):
                        self._in_flight = item.gather()
                        self._accept_group(connection, item)
                    else:
                        _run_task(connection, item)

    def _accept_alone(self, connection: Connection, group: _Group[Item, Gain]) -> bool:
        """The common case, without a savepoint. False: something in it cannot be taken, and nothing was kept."""
        try:
            with connection.begin():
                self._in_flight = group.gather()
                group.values = list(self._accept(connection, [arrival for arrival, _ in group.members]))
        except Exception as error:
            if is_outage(error):
                raise
            return False
        self._observe(len(group.members))
        return True

    def _accept_group(self, connection: Connection, group: _Group[Item, Gain]) -> None:
        arrivals = [arrival for arrival, _ in group.members]
        try:
            with connection.begin_nested():
                group.values = list(self._accept(connection, arrivals))
        except Exception as error:
            if is_outage(error):
                raise
            # One arrival has something that the store cannot take: find it, keep the others.
            group.values = [self._accept_one(connection, arrival) for arrival in arrivals]
        self._observe(len(arrivals))

    def _accept_one(self, connection: Connection, item: Item) -> Gain | Exception:
        try:
            with connection.begin_nested():
                return self._accept(connection, [item])[0]
        except Exception as error:
            if is_outage(error):
                raise
            return error

    def _report(self, item: _Group[Item, Gain] | _Task) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            if isinstance(item, _Group):
                self._loop.call_soon_threadsafe(self._group_is_done, item.settled())
            else:
                self._loop.call_soon_threadsafe(self._wake, item.settled())


class _Group(Generic[Item, Gain]):
    """Arrivals that share one commit: all that wait when its transaction has begun."""

    def __init__(self, gathering: deque[tuple[Item, asyncio.Future[Gain]]]) -> None:
        self._gathering = gathering
        self.members: list[tuple[Item, asyncio.Future[Gain]]] = []
        self.values: Sequence[Gain | Exception] = []

    def gather(self) -> int:
        """Take in all that wait now. Returns how many there are."""
        with contextlib.suppress(IndexError):
            while True:
                self.members.append(self._gathering.popleft())
        return len(self.members)

    def fail(self, error: Exception) -> None:
        self.values = [error] * self.gather()

    def settled(self) -> list[tuple[asyncio.Future[Any], Any]]:
        return [(future, value) for (_, future), value in zip(self.members, self.values, strict=True)]


class _Task:
    """A job and who waits for it."""

    def __init__(self, job: Job, future: asyncio.Future[Any]) -> None:
        self.job = job
        self.future = future
        self.value: Any = None

    def fail(self, error: Exception) -> None:
        self.value = error

    def settled(self) -> list[tuple[asyncio.Future[Any], Any]]:
        return [(self.future, self.value)]


def _run_task(connection: Connection, task: _Task) -> None:
    try:
        with connection.begin_nested():
            task.value = task.job(connection)
    except Exception as error:
        if is_outage(error):
            raise
        task.value = error


def _run_alone(connection: Connection, task: _Task) -> None:
    """A job in a transaction of its own, which needs no savepoint."""
    try:
        with connection.begin():
            task.value = task.job(connection)
    except Exception as error:
        if is_outage(error):
            raise
        task.value = error


def _rolled_back(connection: Connection | None, *, keep: bool) -> Connection | None:
    if connection is None:
        return None
    with contextlib.suppress(Exception):
        connection.rollback()
    if keep:
        return connection
    with contextlib.suppress(Exception):
        connection.close()
    return None


def pause_a_moment(raced: int) -> None:
    """Let the other one finish: longer each time, and never as long as the other one waits."""
    time.sleep(random.random() * _RACE_S * min(raced, 10))  # noqa: S311  spreads replicas apart, and keeps no secret


def is_race(error: BaseException) -> bool:
    """Whether another replica stood in the way, and the same may succeed now."""
    return isinstance(error, RacedError) or _state(error) in _RACE_STATES


def is_outage(error: BaseException) -> bool:
    """Whether it says nothing about the work itself: the database is away, full, locked or read-only, or was raced for.

    By SQLSTATE where the driver tells it, else by the names of PEP 249.
    """
    if isinstance(error, (RacedError, StoreUnavailableError)):
        return True
    if state := _state(error):
        return state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
    origin = getattr(error, "orig", None) or error
    return any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(origin).__mro__)


def _state(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)


def unavailable(error: BaseException) -> StoreUnavailableError:
    """What the caller is told of an outage."""
    if isinstance(error, StoreUnavailableError):
        return error
    origin = getattr(error, "orig", None) or error
    trouble = StoreUnavailableError((str(origin).strip() or type(error).__name__).splitlines()[0])
    trouble.__cause__ = error
    return trouble
