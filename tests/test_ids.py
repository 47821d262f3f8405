from relay.ids import RowIds, first_at, made_at_ms
from tests.things import NOON, Clock


def test_ids_grow_even_within_a_millisecond_and_when_the_clock_goes_back(clock: Clock) -> None:
    ids = RowIds(clock)
    made = [ids.next() for _ in range(1000)]
    clock.advance(ms=-5000)
    made += [ids.next() for _ in range(1000)]

    assert made == sorted(set(made))


def test_an_id_says_when_it_was_made(clock: Clock) -> None:
    made = RowIds(clock).next()

    assert made_at_ms(made) == NOON
    assert first_at(NOON) <= made < first_at(NOON + 1)


def test_ids_fit_a_signed_64_bit_integer_for_a_long_time() -> None:
    assert RowIds(lambda: 4_102_444_800_000).next() < 2**63  # the year 2100


def test_two_processes_hardly_ever_meet(clock: Clock) -> None:
    assert len({RowIds(clock).next() for _ in range(200)}) >= 195
