"""Child processes: forked, watched, started again when they die, and ended in order.

In: roles, in the order in which they are to end. It runs in a process without threads and without an event loop, and
stays one, since only that can be forked at any time. A child that its parent leaves behind ends at once, however the
parent died: by the system's own word where there is one (Linux), else when the line between the two breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog

log = structlog.get_logger("relay")

#: A role whose process lived for less than this is started again only after a while: this much, and twice as much each
#: time, up to the cap.
_SHORT_LIFE_S = 10.0
_FIRST_WAIT_S = 0.1
_WAIT_CAP_S = 5.0

_READY = b"ready"
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_WATCHED = (*_STOPPING, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1


class ChildError(Exception):
    """A child could not start. In the child: raised with the reason; in the parent: raised with the child's words."""


class Line:
    """A child's end of the line to its parent."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def ready(self) -> None:
        """Tell that it does its work from now on. Call it from within the event loop, which then watches the line."""
        asyncio.get_running_loop().add_reader(self._end.fileno(), _end_at_once)
        self.tell(_READY)

    def tell(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            self._end.sendall(words)


def _end_at_once() -> None:
    os._exit(1)  # the parent says nothing on the line, so it is gone; another relay may be waiting for the port


@dataclass(frozen=True, slots=True)
class Role:
    """What a child does: `play` returns when SIGTERM has come and all is done. SIGINT never reaches it."""

    name: str
    play: Callable[[Line], None]


@dataclass(slots=True)
class _Child:
    role: Role
    pid: int
    line: socket.socket
    began_s: float
    words: bytes = b""
    #: Its end of the line is closed: it is about to end.
    is_silent: bool = False

    @property
    def is_ready(self) -> bool:
        return self.words.startswith(_READY)


class Supervisor:
    """Keeps all roles played.

    `stages`: those that end first, then those that end after them; each stage may take `grace_s` for it after SIGTERM.
    `started` is told once, when all are ready, and `stopping` before the first stage is asked to end.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Role]],
        *,
        grace_s: float,
        started: Callable[[], None],
        stopping: Callable[[], None],
    ) -> None:
        self._stages = stages
        self._grace_s = grace_s
        self._started = started
        self._stopping = stopping
        self._children: dict[int, _Child] = {}
        #: Roles that nobody plays now, by when they are due, in monotonic seconds.
        self._due: dict[Role, float] = {}
        self._short_lives: Counter[Role] = Counter()
        self._has_started = False
        self._stops = 0
        self._woken = -1

    def run(self) -> None:
        """Play all roles until SIGINT or SIGTERM. Raises `ChildError` where one gave up at the start."""
        _refuse_threads()
        with self._watching_signals():
            try:
                for stage in self._stages:
                    for role in stage:
                        self._fork(role)
                while not self._stops:
                    self._wait(self._until_due_s())
                    self._mourn()
                    self._fork_due()
                    self._tell_when_started()
                self._stopping()
                for stage in self._stages:
                    self._end([child for child in self._children.values() if child.role in stage])
            finally:
                for child in self._children.values():
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)
                    child.line.close()

    # --- starting ---

    def _fork(self, role: Role) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            pid = os.fork()
            if pid == 0:
                self._be(role, ours, theirs, parent=parent, mask=mask)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        os.set_blocking(ours.fileno(), False)
        self._children[pid] = _Child(role, pid, ours, time.monotonic())

    def _be(self, role: Role, parents: socket.socket, end: socket.socket, *, parent: int, mask: set[Any]) -> NoReturn:
        """Live and die as a child: nothing of the parent's stack is ever returned to."""
        code, line = 1, Line(end)
        try:
            parents.close()
            _die_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says when to end
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for sibling in self._children.values():
                sibling.line.close()  # or its line would not break with the parent
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            role.play(line)
            code = 0
        except ChildError as error:
            line.tell(str(error).encode())
        except BaseException:
            log.exception("a process of the relay stumbled and ends", process=role.name)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _fork_due(self) -> None:
        now_s = time.monotonic()
        for role in [role for role, due_s in self._due.items() if due_s <= now_s]:
            try:
                self._fork(role)
            except OSError as error:  # no room for a process now
                log.exception("a process of the relay cannot be started", process=role.name, error=str(error))
                self._due[role] = now_s + _WAIT_CAP_S
            else:
                del self._due[role]

    def _until_due_s(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _tell_when_started(self) -> None:
        if not self._has_started and not self._due and all(child.is_ready for child in self._children.values()):
            self._has_started = True
            self._started()

    # --- watching ---

    @contextlib.contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """While the block runs, signals wake `_wait`."""

        def note(number: int, _frame: object) -> None:
            self._stops += number in _STOPPING

        self._woken, wakes = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wakes, False)
        before = {number: signal.signal(number, note) for number in _WATCHED}
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._woken)
            os.close(wakes)

    def _wait(self, for_s: float | None) -> None:
        """Until a signal came, a child said something, or the time is over."""
        lines = {child.line.fileno(): child for child in self._children.values() if not child.is_silent}
        said, _, _ = select.select([self._woken, *lines], [], [], for_s)
        if self._woken in said:
            os.read(self._woken, 4096)
        for fileno in said:
            if fileno in lines:
                _hear(lines[fileno])

    def _mourn(self) -> None:
        """Take note of all that have ended."""
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                _hear(child)
                child.line.close()
                del self._children[pid]
                if not self._stops:
                    self._replace(child, status)

    def _replace(self, child: _Child, status: int) -> None:
        role, words, how = child.role, child.words.removeprefix(_READY).decode(), _how(status)
        if not self._has_started and os.WIFEXITED(status):
            raise ChildError(words or f"the process {role.name} ended while it started ({how}); the log says why")
        is_short = time.monotonic() - child.began_s < _SHORT_LIFE_S
        self._short_lives[role] = self._short_lives[role] + 1 if is_short else 0
        wait_s = min(_WAIT_CAP_S, _FIRST_WAIT_S * 2 ** self._short_lives[role]) if is_short else 0.0
        log.error("a process of the relay ended, and is started again", process=role.name, pid=child.pid, ended=how,
                  after_s=wait_s, why=words or None)  # fmt: skip
        self._due[role] = time.monotonic() + wait_s

    # --- ending ---

    def _end(self, members: Sequence[_Child]) -> None:
        """Ask them to end, and wait for it, up to the grace; each further signal to us is passed on to them."""
        deadline_s = time.monotonic() + self._grace_s
        passed_on = 0
        while left := [child for child in members if child.pid in self._children]:
            if time.monotonic() >= deadline_s:
                log.error("processes of the relay do not end and are killed", processes=[c.role.name for c in left])
                for child in left:
                    os.kill(child.pid, signal.SIGKILL)
                deadline_s = math.inf
            if passed_on < self._stops:
                passed_on = self._stops
                for child in left:
                    os.kill(child.pid, signal.SIGTERM)
            self._wait(None if deadline_s == math.inf else max(0.0, deadline_s - time.monotonic()))
            self._mourn()


def _hear(child: _Child) -> None:
    """Take in what it said, if it said something."""
    with contextlib.suppress(BlockingIOError):
        words = child.line.recv(65536)
        child.words += words
        child.is_silent = not words


def _refuse_threads() -> None:
    tasks = Path("/proc/self/task")
    number = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    if number > 1:  # a mapper's module may have brought them
        msg = f"{number - 1} threads run already, and would be missing in every child"
        raise RuntimeError(msg)


def _die_with(parent: int) -> None:
    """Let the system end this process with its parent; where it cannot, the line between them does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
