"""When to try again: a policy without clock, randomness or I/O of its own. Numbers in, numbers and states out.

`backoff_ms` says how long one batch waits. The breaker says whether a destination may be called at all:

    Closed(failures)     every call goes out
       │  failure number `threshold` in a row, or any failure with a Retry-After
       ▼
    Open(until_ms)       no call goes out ◀─────────────────────────┐
       │  `ask`, from until_ms on: yes, and that call is the probe  │  failure: twice as long, up to `cap_ms`
       ▼                                                            │
    HalfOpen(until_ms)   only the probe is under way ───────────────┘
          no word of it by until_ms: `ask` lets another one go

    success, in any state: Closed(0)

A breaker is a value: each function returns the next one and leaves the old one as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

#: No wait is shorter: even the luckiest draw is no busy loop.
FLOOR_MS = 50
#: Doublings after this one change nothing, whatever the base and the cap.
_DOUBLINGS = 40


def backoff_ms(
    attempts: int,
    *,
    base_ms: int = 1_000,
    cap_ms: int = 300_000,
    random: Callable[[], float],
    retry_after_ms: int | None = None,
) -> int:
    """How long to wait after the `attempts`-th failure in a row (1 is the first), in ms.

    Exponential with full jitter: anything from `FLOOR_MS` to `base_ms` doubled `attempts - 1` times, at most `cap_ms`.
    `random` draws from [0, 1). `retry_after_ms`, what the API asked for, is the least, even above the cap.
    """
    ceiling_ms = max(FLOOR_MS, min(cap_ms, _doubled(base_ms, attempts - 1)))
    drawn_ms = FLOOR_MS + int(random() * (ceiling_ms - FLOOR_MS + 1))
    return max(drawn_ms, retry_after_ms or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    #: So many failures in a row open a closed breaker.
    threshold: int = 5
    #: How long it stays open at first; each probe that fails doubles it.
    open_ms: int = 1_000
    cap_ms: int = 60_000
    #: How long a probe may be without a word before the next one is let through.
    probe_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Closed:
    """Calls go out."""

    #: In a row, up to now.
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """No call goes out before `until_ms` (Unix milliseconds)."""

    until_ms: int
    #: How often it opened since the last success, this time included.
    openings: int = 1


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """One probe is under way, and no other call goes out before `until_ms` (Unix milliseconds)."""

    until_ms: int
    openings: int


Breaker = Closed | Open | HalfOpen

_STANDARD = BreakerPolicy()


def wait_ms(breaker: Breaker, *, now_ms: int) -> int:
    """How long until a call may go out; 0 when it may go now."""
    match breaker:
        case Closed():
            return 0
        case Open(until_ms) | HalfOpen(until_ms):
            return max(0, until_ms - now_ms)
        case _:
            assert_never(breaker)


def ask(breaker: Breaker, *, now_ms: int, policy: BreakerPolicy = _STANDARD) -> tuple[Breaker, bool]:
    """Whether a call may go out now, and the breaker from here on: whoever gets a yes from an open one is the probe."""
    if wait_ms(breaker, now_ms=now_ms) > 0:
        return breaker, False
    match breaker:
        case Closed():
            return breaker, True
        case Open(openings=openings) | HalfOpen(openings=openings):
            return HalfOpen(now_ms + policy.probe_ms, openings), True
        case _:
            assert_never(breaker)


def succeeded(_breaker: Breaker) -> Breaker:
    """The breaker after the destination answered as it should, whoever asked: the probe or an older call."""
    return Closed()


def failed(
    breaker: Breaker, *, now_ms: int, policy: BreakerPolicy = _STANDARD, retry_after_ms: int | None = None
) -> Breaker:
    """The breaker after a call that may be tried again. `retry_after_ms` holds back every call for so long."""
    asked_until_ms = now_ms + (retry_after_ms or 0)
    match breaker:
        case Closed(failures) if failures + 1 < policy.threshold and not retry_after_ms:
            return Closed(failures + 1)
        case Closed():
            return Open(max(now_ms + policy.open_ms, asked_until_ms))
        case Open(until_ms, openings):  # an older call that was still under way: no second punishment
            return Open(max(until_ms, asked_until_ms), openings)
        case HalfOpen(openings=openings):
            open_ms = min(policy.cap_ms, _doubled(policy.open_ms, openings))
            return Open(max(now_ms + open_ms, asked_until_ms), openings + 1)
        case _:
            assert_never(breaker)


def _doubled(ms: int, times: int) -> int:
    return ms << min(max(times, 0), _DOUBLINGS)
