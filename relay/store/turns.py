"""Turns at writing, for the processes that share one SQLite file.

SQLite's own way to wait for the writer before is to look again and again, each time after a longer sleep: slow, and
unfair. A lock of the kernel wakes the next one at once, and is free as soon as its holder has died.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


class Turns:
    """Held as a context manager around each transaction. Waits as long as it takes; one thread a process uses it."""

    def __init__(self, database: Path) -> None:
        self._file = database.with_name(database.name + ".write").open("ab")

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_error: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
