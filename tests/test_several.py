"""Doing things side by side: how many at a time, how many bytes, and what an error does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fa4_precompile.carry.several import Several
from support import deadline


def _doubled(number: int) -> int:
    return number * 2


def _ten(_number: int) -> int:
    return 10


def test_several_yields_each_thing_with_what_came_of_it() -> None:
    done = dict(Several(_doubled, _ten, at_a_time=3).each(range(50)))
    assert done == {number: number * 2 for number in range(50)}


@pytest.mark.parametrize(("at_a_time", "most_bytes", "most"), [(4, 1000, 4), (100, 30, 3), (100, 5, 1)])
def test_several_begins_no_more_than_there_is_room_for(at_a_time: int, most_bytes: int, most: int) -> None:
    begun: list[int] = []

    def things() -> Iterator[int]:
        for number in range(20):
            yield number
            begun.append(number)

    taken = 0
    for _ in Several(_doubled, _ten, at_a_time, most_bytes).each(things()):
        taken += 1
        assert len(begun) - taken < most
    assert taken == 20


def test_several_goes_on_side_by_side() -> None:
    meeting = threading.Barrier(4)

    def meet(_number: int) -> int:
        return meeting.wait()

    with deadline(60):
        assert len(list(Several(meet, _ten, at_a_time=4).each(range(8)))) == 8


def test_several_ends_with_the_first_error_and_begins_nothing_more() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise KeyError(number)
        return number

    with pytest.raises(KeyError):
        list(Several(work, _ten, at_a_time=2).each(range(1000)))
    assert len(begun) < 10
