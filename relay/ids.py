"""Row ids: 63-bit integers that grow with time, made without asking the database.

42 bits of Unix milliseconds, 21 bits that are random at first and then counted up within the process: rows of one
process are stored in the order in which they came, and two processes hardly ever meet. `made_at_ms` reads the time
back, so that a prune by age is a prune by primary key.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_LOW_BITS = 21


class RowIds:
    """A generator of row ids. Not thread-safe: each writer thread owns one."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._last = 0
        self._random = Random()  # noqa: S311  spreads processes apart, and keeps no secret

    def next(self) -> int:
        """A new id, greater than every one before."""
        now_ms = self._clock()
        if now_ms > self._last >> _LOW_BITS:
            self._last = (now_ms << _LOW_BITS) | self._random.getrandbits(_LOW_BITS - 1)
        else:
            self._last += 1
        return self._last


def first_at(at_ms: int) -> int:
    """The lowest id that a row made at this time can have."""
    return at_ms << _LOW_BITS


def made_at_ms(row_id: int) -> int:
    """When the row was made, in Unix milliseconds."""
    return row_id >> _LOW_BITS
