"""Which process maps which bundle of an inbox file: a lock of the kernel for each, gone with its holder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from pathlib import Path


class Claims:
    """A process holds what it has taken until it lets go of it, or dies. Open it once a process and file."""

    def __init__(self, inbox: Path) -> None:
        self._file = inbox.with_name(inbox.name + ".claims").open("ab")

    def take(self, row: int) -> bool:
        """Whether this process has the bundle from now on; False: another one maps it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True

    def let_go(self, rows: Iterable[int]) -> None:
        """Others may have these."""
        for row in rows:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, row)

    def close(self) -> None:
        """Let go of all."""
        self._file.close()
