"""The one clock: Unix milliseconds. Everything that needs the time is given a function like this."""

from __future__ import annotations

import time


def unix_ms() -> int:
    """Now, in Unix milliseconds."""
    return time.time_ns() // 1_000_000
