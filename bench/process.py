"""Child processes on this machine: started, watched, measured, and ended by their own id and no other."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from bench.checkout import SECRET

ROOT = Path(__file__).resolve().parent.parent
API_KEY = "oa_live_bench"
#: Of the bodies at rest: the same for a store that was filled here and for the relay that serves it.
ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()

_MB = 1_000_000


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """A server in a process of its own. As a context manager it is ended on the way out, whatever happened."""

    def __init__(self, name: str, arguments: Sequence[str], *, port: int, folder: Path, **environ: str) -> None:
        """Run `arguments` in `folder`, where its output goes to `<name>.log`. It sees these variables and no others."""
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._arguments = list(arguments)
        self._folder = folder
        self._environ = {**_inherited(), "PYTHONPATH": str(ROOT), **environ}
        self._log = folder / f"{name}.log"
        self._popen: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None

    def start(self) -> None:
        """Start it; `wait_ready` says when it answers."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._arguments, cwd=self._folder, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._process = psutil.Process(self._popen.pid)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self, within_s: float = 30) -> float:
        """Wait until it answers `GET /healthz`; returns how long that took. Raises `RuntimeError` where it does not."""
        began = time.perf_counter()
        while time.perf_counter() - began < within_s:
            if self.ended:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as asking:
                asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b" 200 " in asking.recv(64):
                    return time.perf_counter() - began
            time.sleep(0.01)
        msg = f"{self.name} did not get ready:\n{self.log()}"
        raise RuntimeError(msg)

    @property
    def ended(self) -> bool:
        """Whether it has ended (or was never started)."""
        return self._popen is None or self._popen.poll() is not None

    def kill(self) -> None:
        """SIGKILL, and no process is left behind."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def stop(self, within_s: float = 10) -> None:
        """SIGTERM, and SIGKILL where that does not help in time."""
        if self._popen is not None and not self.ended:
            self._popen.terminate()
            try:
                self._popen.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def tree(self) -> list[psutil.Process]:
        """The process and those that it has started."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """CPU that it and its children have used up to now, in seconds."""
        used = 0.0
        for one in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                used += times.user + times.system
        return used

    def rss_mb(self) -> float:
        """Memory that it holds now, in MB; with children, what they share is counted once."""
        tree = self.tree()
        held = 0
        for one in tree:
            with contextlib.suppress(psutil.Error):
                held += one.memory_info().rss if len(tree) == 1 else one.memory_full_info().pss
        return held / _MB

    @contextlib.contextmanager
    def watched(self, every_s: float = 0.05) -> Iterator[list[float]]:
        """Look at its memory now and then while the block runs; the list holds what was seen, in MB."""
        seen = [self.rss_mb()]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(every_s):
                seen.append(self.rss_mb())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def relay(folder: Path, *arguments: str, name: str = "relay", port: int, sandbox: str, **environ: str) -> Child:
    """`relay serve` as a user runs it: one source, one destination, an SQLite file in `folder`."""
    return Child(
        name,
        [_relay_command(), "serve", *arguments],
        port=port,
        folder=folder,
        **{
            "RELAY_PORT": str(port),
            "RELAY_DATABASE_URL": f"sqlite:///{database(folder, name)}",
            "RELAY_STRIPE_SECRET": SECRET,
            "RELAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "RELAY_LOG_LEVEL": "warning",
            "OAA_BASE_URL": sandbox,
            "OAA_PROJECT_ID": "42",
            "OAA_API_KEY": API_KEY,
            **environ,
        },
    )


def database(folder: Path, name: str = "relay") -> Path:
    """Where the relay of this name keeps its store."""
    return folder / f"{name}.db"


def sandbox(folder: Path, *, name: str = "sandbox") -> Child:
    """`relay sandbox`: a local events API."""
    port = free_port()
    return Child(name, [_relay_command(), "sandbox", "--port", str(port)], port=port, folder=folder)


def bare(folder: Path) -> Child:
    """The yardstick of `bench.bare`."""
    port = free_port()
    return Child("bare", [sys.executable, "-m", "bench.bare", str(port)], port=port, folder=folder)


def client(child: Child) -> httpx.Client:
    """An HTTP client of this child."""
    return httpx.Client(base_url=child.url, trust_env=False, timeout=60)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards, with all that the children left in it; after a SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="relay-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def _relay_command() -> str:
    return str(Path(sys.executable).with_name("relay"))


def _inherited() -> Mapping[str, str]:
    """What a child needs of our environment; our own settings are none of its business."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "TZ", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    return {name: os.environ[name] for name in kept if name in os.environ}
