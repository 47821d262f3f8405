from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.retry import (
    FLOOR_MS,
    Breaker,
    BreakerPolicy,
    Closed,
    HalfOpen,
    Open,
    ask,
    backoff_ms,
    failed,
    succeeded,
    wait_ms,
)

POLICY = BreakerPolicy(threshold=3, open_ms=1_000, cap_ms=6_000, probe_ms=10_000)
NOW_MS = 1_760_000_000_000

attempts = st.integers(min_value=1, max_value=10**9)
draws = st.floats(min_value=0, max_value=1, exclude_max=True)


def always(value: float) -> Callable[[], float]:
    return lambda: value


# --- backoff ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "longest_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (9, 256_000), (10, 300_000)])
def test_the_longest_wait_doubles_up_to_the_cap(attempt: int, longest_ms: int) -> None:
    assert longest_ms == backoff_ms(attempt, random=always(1 - 1e-12))


def test_the_jitter_is_full() -> None:
    """The luckiest draw waits next to nothing even after many failures: callers spread over the whole range."""
    assert FLOOR_MS == backoff_ms(9, random=always(0.0))
    assert 128_000 == pytest.approx(backoff_ms(9, random=always(0.5)), rel=0.01)


@given(attempts, draws)
def test_a_wait_is_never_a_busy_loop_nor_beyond_the_cap(attempt: int, draw: float) -> None:
    assert FLOOR_MS <= backoff_ms(attempt, random=always(draw)) <= 300_000


@given(attempts, draws, st.integers(min_value=0, max_value=10**8))
def test_retry_after_is_the_least_even_above_the_cap(attempt: int, draw: float, asked_ms: int) -> None:
    waited_ms = backoff_ms(attempt, random=always(draw), retry_after_ms=asked_ms)

    assert max(asked_ms, backoff_ms(attempt, random=always(draw))) == waited_ms


def test_a_tiny_base_and_cap_still_leave_the_floor() -> None:
    assert FLOOR_MS == backoff_ms(1, base_ms=1, cap_ms=1, random=always(0.9))


def test_random_numbers_of_the_standard_library_will_do() -> None:
    assert 50 <= backoff_ms(1, random=Random(7).random) <= 1_000


# --- breaker ----------------------------------------------------------------------------------------------------------


def after_failures(times: int, breaker: Breaker | None = None) -> Breaker:
    breaker = breaker or Closed()
    for _ in range(times):
        breaker = failed(breaker, now_ms=NOW_MS, policy=POLICY)
    return breaker


def test_a_closed_breaker_lets_every_call_through() -> None:
    assert (Closed(2), True) == ask(Closed(2), now_ms=NOW_MS, policy=POLICY)
    assert 0 == wait_ms(Closed(2), now_ms=NOW_MS)


def test_failures_in_a_row_open_it() -> None:
    assert Closed(2) == after_failures(2)
    assert Open(NOW_MS + 1_000) == after_failures(3)


def test_a_success_between_failures_keeps_it_closed() -> None:
    assert Closed(2) == after_failures(2, succeeded(after_failures(2)))


def test_an_open_breaker_holds_calls_back_until_its_time() -> None:
    opened = Open(NOW_MS + 1_000)

    assert (opened, False) == ask(opened, now_ms=NOW_MS + 999, policy=POLICY)
    assert 1 == wait_ms(opened, now_ms=NOW_MS + 999)


def test_after_its_time_exactly_one_probe_goes_out() -> None:
    breaker, may_call = ask(Open(NOW_MS, openings=2), now_ms=NOW_MS, policy=POLICY)

    assert (HalfOpen(NOW_MS + 10_000, 2), True) == (breaker, may_call)
    assert (breaker, False) == ask(breaker, now_ms=NOW_MS + 1, policy=POLICY)


def test_a_probe_that_is_never_heard_of_makes_room_for_another() -> None:
    assert (HalfOpen(NOW_MS + 10_000, 2), True) == ask(HalfOpen(NOW_MS, 2), now_ms=NOW_MS, policy=POLICY)


def test_a_probe_that_succeeds_closes_it() -> None:
    assert Closed() == succeeded(HalfOpen(NOW_MS, 4))


@pytest.mark.parametrize(("openings", "open_ms"), [(1, 2_000), (2, 4_000), (3, 6_000), (1_000_000, 6_000)])
def test_each_probe_that_fails_doubles_the_wait_up_to_the_cap(openings: int, open_ms: int) -> None:
    assert Open(NOW_MS + open_ms, openings + 1) == failed(HalfOpen(NOW_MS, openings), now_ms=NOW_MS, policy=POLICY)


def test_retry_after_opens_it_at_the_first_failure() -> None:
    assert Open(NOW_MS + 5_000) == failed(Closed(), now_ms=NOW_MS, policy=POLICY, retry_after_ms=5_000)


@pytest.mark.parametrize("breaker", [Closed(2), Open(NOW_MS, 2), HalfOpen(NOW_MS, 2)])
def test_retry_after_holds_back_every_call_in_any_state(breaker: Breaker) -> None:
    opened = failed(breaker, now_ms=NOW_MS, policy=POLICY, retry_after_ms=60_000)

    assert 60_000 == wait_ms(opened, now_ms=NOW_MS)


def test_a_call_that_was_under_way_when_it_opened_is_no_second_punishment() -> None:
    assert Open(NOW_MS + 700, 2) == failed(Open(NOW_MS + 700, 2), now_ms=NOW_MS, policy=POLICY)


class BreakerStory(RuleBasedStateMachine):
    """Any order of calls, answers and passing time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker: Breaker = Closed()
        self.now_ms = NOW_MS
        self.not_before_ms = NOW_MS
        self.under_way = 0

    @rule(by_ms=st.integers(min_value=0, max_value=20_000))
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule()
    def somebody_asks(self) -> None:
        self.breaker, may_call = ask(self.breaker, now_ms=self.now_ms, policy=POLICY)
        if may_call:
            assert self.now_ms >= self.not_before_ms
            self.under_way += 1

    @precondition(lambda self: self.under_way)
    @rule()
    def a_call_succeeds(self) -> None:
        self.under_way -= 1
        self.not_before_ms = self.now_ms
        self.breaker = succeeded(self.breaker)
        assert Closed() == self.breaker

    @precondition(lambda self: self.under_way)
    @rule(asked_ms=st.none() | st.integers(min_value=0, max_value=100_000))
    def a_call_fails(self, asked_ms: int | None) -> None:
        self.under_way -= 1
        self.not_before_ms = max(self.not_before_ms, self.now_ms + (asked_ms or 0))
        self.breaker = failed(self.breaker, now_ms=self.now_ms, policy=POLICY, retry_after_ms=asked_ms)

    @invariant()
    def it_always_lets_a_call_through_in_the_end(self) -> None:
        longest_ms = max(POLICY.cap_ms, POLICY.probe_ms, 100_000)
        assert 0 <= wait_ms(self.breaker, now_ms=self.now_ms) <= longest_ms
        assert ask(self.breaker, now_ms=self.now_ms + longest_ms, policy=POLICY)[1]


TestBreakerStory = BreakerStory.TestCase
