"""Searching a box of sizes: askers that are made up, with thresholds that nobody has told the search."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fa4_precompile.precompile.compile.search import Point, Search, Things
from fa4_precompile.providers.call import Range

_BATCH = Range(1, 256, 2)
_HEADS = Range(4, 128, 8, 4)
_ROWS = Range(1, 131072, 4096)
_BOX = {"rows": _ROWS, "keys": _ROWS, "batch": _BATCH, "heads": _HEADS}

_Asker = Callable[[int, int, int, int], str]


def _search(asker: _Asker, box: dict[str, Range] | None = None) -> Search:
    def ask(point: Point) -> Things:
        return frozenset(("slot", word) for word in asker(*point).split())

    search = Search(ask, box or _BOX)
    search.run()
    return search


def _found(search: Search) -> set[str]:
    return {word for _, word in search.found}


def _band(rows: int, keys: int, batch: int, heads: int) -> str:
    return "few" if rows < 1000 else "between" if rows < 1003 else "many"


def _ladder(rows: int, keys: int, batch: int, heads: int) -> str:
    return f"step{sum(rows >= step for step in (100, 104, 113, 700, 701, 90001))}"


def _waves(rows: int, keys: int, batch: int, heads: int) -> str:
    return "wave" if 2 * batch * heads <= 148 else "waves"


def _splits(rows: int, keys: int, batch: int, heads: int) -> str:
    tiles = batch * heads * -(-rows // 256)
    blocks = -(-keys // 128)
    splits = max(1, min(148 // tiles, 128, blocks)) if blocks > 4 else 1
    return f"split{splits.bit_length()}"


def _corner(rows: int, keys: int, batch: int, heads: int) -> str:
    return "corner" if rows <= 77 and keys > 3000 and batch * heads > 500 else "rest"


def _single(rows: int, keys: int, batch: int, heads: int) -> str:
    return " ".join(["one" if rows <= 128 else "all", "lonely" if batch == 1 and heads == 4 else "more"])


def _behind(rows: int, keys: int, batch: int, heads: int) -> str:
    """Hide a threshold of one size behind those of two others, in a band that is a hundredth of each."""
    if rows > 128 or batch <= 200:
        return "usual"
    return "hidden" if 5000 <= keys < 5050 else "seldom" if keys < 5000 else "other"


def _four(rows: int, keys: int, batch: int, heads: int) -> str:
    """Hide a kernel where four thresholds meet of which each is seen alone, far from both corners."""
    here = rows < 700, keys >= 6000, batch == 1, heads >= 100
    return " ".join(["usual", *(f"alone{place}" for place in range(4) if here[place]), *(["all"] if all(here) else [])])


def _island(rows: int, keys: int, batch: int, heads: int) -> str:
    return "island" if 260 <= rows < 510 else "sea"


@pytest.mark.parametrize(
    ("asker", "words"),
    [
        (_four, {"usual", "alone0", "alone1", "alone2", "alone3", "all"}),
        (_island, {"island", "sea"}),
        (_band, {"few", "between", "many"}),
        (_ladder, {f"step{number}" for number in range(7)}),
        (_waves, {"wave", "waves"}),
        (_splits, {f"split{number}" for number in range(1, 7)}),
        (_corner, {"corner", "rest"}),
        (_single, {"one", "all", "lonely", "more"}),
        (_behind, {"usual", "hidden", "seldom", "other"}),
    ],
    ids=lambda item: item.__name__[1:] if callable(item) else None,
)
def test_search_finds_what_any_point_has(asker: _Asker, words: set[str]) -> None:
    search = _search(asker)
    assert _found(search) == words
    assert len(search.asked) < 1500


def test_search_of_what_depends_on_nothing_asks_little() -> None:
    assert len(_search(lambda *_: "same").asked) < 350


def test_search_of_a_range_a_thousand_times_as_long_asks_little_more() -> None:
    long = {**_BOX, "rows": Range(1, 2**27, 4096), "keys": Range(1, 2**27, 4096)}
    assert len(_search(_band, long).asked) < 1.6 * len(_search(_band).asked)


def test_search_asks_the_same_each_time_and_no_point_twice() -> None:
    points: list[Point] = []

    def asker(*point: int) -> str:
        points.append(point)
        return _splits(*point)

    first = list(_search(asker).asked)
    assert points == first
    assert list(_search(_splits).asked) == first


def test_search_stays_in_the_box_and_on_its_steps() -> None:
    box = {"rows": Range(3, 11, 5), "keys": Range(7, 7, 7), "batch": Range(1, 2, 1), "heads": Range(15, 45, 30, 15)}
    for rows, keys, batch, heads in _search(_splits, box).asked:
        assert 3 <= rows <= 11
        assert keys == 7
        assert batch in (1, 2)
        assert heads in (15, 30, 45)


def test_search_of_a_small_box_asks_about_all_of_it() -> None:
    box = {"rows": Range(1, 3, 2), "keys": Range(1, 2, 1), "batch": Range(1, 1, 1), "heads": Range(4, 4, 4, 4)}
    assert len(_search(lambda rows, keys, *_: f"{rows}-{keys}", box).asked) == 6


def test_search_tells_which_size_reaches_what() -> None:
    def asker(rows: int, keys: int, batch: int, heads: int) -> str:
        words = ["base"]
        if rows < 100:
            words.append("rows")
        if batch > 9:
            words.append("batch")
        if rows < 100 and batch > 9:
            words.append("both")
        return " ".join(words)

    by = {word: size for (_, word), size in _search(asker).by.items()}
    assert by == {"base": "", "rows": "rows", "batch": "batch", "both": None}


def test_fewest_points_have_all_that_was_found_and_are_small() -> None:
    search = _search(_single)
    points = search.fewest(search.asked.__getitem__)
    assert points[0] == (4096, 4096, 2, 8)
    assert frozenset().union(*(search.asked[point] for point in points)) == search.found
    assert points[1:] == [(1, 1, 1, 4)]


def test_point_that_has_nothing_is_none_of_the_fewest() -> None:
    search = _search(lambda rows, *_: "" if rows > 100 else "small")
    assert search.fewest(search.asked.__getitem__) == [(1, 1, 1, 4)]


def test_points_that_have_something_else_alone_are_taken_for_that() -> None:
    """As one that is refused by itself, and was answered by what another one had compiled."""
    search = _search(_single)

    def alone(point: Point) -> Things:
        is_refused = point[0] < 100
        return frozenset({("", "too few rows")}) if is_refused else search.asked[point]

    points = search.fewest(alone)
    answers = [alone(point) for point in points]
    assert frozenset({("", "too few rows")}) in answers
    assert frozenset().union(*answers) == search.found


def test_what_no_point_has_alone_is_left_out() -> None:
    search = _search(_single)
    refused: Things = frozenset({("", "refused")})
    points = search.fewest(lambda _: refused)
    assert {search.asked[point] for point in points} == {refused}
