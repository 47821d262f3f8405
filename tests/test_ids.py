import pytest

from relay.ids import GIVEN_NODES, RowIds, first_at, made_at_ms
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


def test_processes_with_nodes_of_their_own_never_meet(clock: Clock) -> None:
    made: list[int] = []
    for node in range(GIVEN_NODES):
        ids = RowIds(clock, node=node)
        made += [ids.next() for _ in range(2000)]

    assert len(made) == len(set(made))


@pytest.mark.parametrize("number", [0, 1, 7, 40_000])
def test_several_at_once_are_ids_like_all_others(clock: Clock, number: int) -> None:
    ids = RowIds(clock, node=3)
    made = [ids.next(), *ids.several(number), ids.next(), *ids.several(number), ids.next()]

    assert len(made) == 3 + 2 * number
    assert made == sorted(set(made))
    assert {3} == {row_id >> 15 & 63 for row_id in made}


def test_a_node_that_is_drawn_is_none_that_is_given(clock: Clock) -> None:
    drawn = {RowIds(clock).next() >> 15 & 63 for _ in range(500)}

    assert GIVEN_NODES <= min(drawn)
    assert max(drawn) <= 63


def test_a_millisecond_with_more_ids_than_it_has_begins_the_next_one(clock: Clock) -> None:
    ids = RowIds(clock, node=3)
    made = [ids.next() for _ in range(100_000)]
    clock.advance(ms=1)
    made.append(ids.next())

    assert made == sorted(set(made))
    assert {3} == {row_id >> 15 & 63 for row_id in made}
    assert NOON <= made_at_ms(made[0]) <= made_at_ms(made[-1]) <= NOON + 5
