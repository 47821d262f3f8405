"""Row ids: 63-bit integers that grow with time, made without asking the database.

42 bits of Unix milliseconds, 6 bits of a node, and 15 bits that are random at first and then counted up within the
process: rows of one process are stored in the order in which they came. Processes that share a database have nodes of
their own and never meet; those that draw their node hardly ever do. `made_at_ms` reads the time back, so that a prune
by age is a prune by primary key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

#: Nodes below this are given by number, the others drawn.
GIVEN_NODES = 32
#: Of the given as of the drawn ones the second half is for `beside`.
_BESIDE = 16

_COUNT_BITS = 15
_LOW_BITS = 21
_LAST = (1 << _COUNT_BITS) - 1


class RowIds:
    """A generator of row ids. Not thread-safe: each writer thread owns one. `node` is below 16, or drawn."""

    def __init__(self, clock: Callable[[], int], *, node: int | None = None) -> None:
        self._clock = clock
        self._last = 0
        self._random = Random()  # noqa: S311  spreads processes apart, and keeps no secret
        drawn = self._random.randrange(GIVEN_NODES, GIVEN_NODES + _BESIDE) if node is None else node
        self._node = drawn << _COUNT_BITS

    def beside(self) -> RowIds:
        """A generator for another thread of this process: the two never make the same id."""
        return RowIds(self._clock, node=(self._node >> _COUNT_BITS) + _BESIDE)

    def next(self) -> int:
        """A new id, greater than every one before."""
        at_ms = self._last >> _LOW_BITS
        now_ms = self._clock()
        if now_ms > at_ms:
            self._last = now_ms << _LOW_BITS | self._node | self._random.getrandbits(_COUNT_BITS - 1)
        elif self._last & _LAST < _LAST:
            self._last += 1
        else:  # so many within a millisecond: the next one begins early
            self._last = (at_ms + 1) << _LOW_BITS | self._node
        return self._last

    def several(self, number: int) -> Iterable[int]:
        """So many new ids, at one look at the clock."""
        first = self.next()
        if (first & _LAST) + number > _LAST:
            return [first, *(self.next() for _ in range(1, number))]
        self._last = first + number - 1
        return range(first, first + number)

    def go_on_after(self, row_id: int) -> None:
        """From now on every id is greater than this one too, whatever the clock says."""
        self._last = max(self._last, row_id)


def first_at(at_ms: int) -> int:
    """The lowest id that a row made at this time can have."""
    return at_ms << _LOW_BITS


def made_at_ms(row_id: int) -> int:
    """When the row was made, in Unix milliseconds."""
    return row_id >> _LOW_BITS
