"""From calls to few entries: nothing is lost, and nothing comes in that reaches a kernel which nobody asked for."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_precompile.cache.key import KeyText
from fa4_precompile.precompile.recorded.asking import Axes, Point
from fa4_precompile.precompile.recorded.covering import cover, needed
from fa4_precompile.precompile.recorded.folding import Box, Folder
from fa4_precompile.providers.call import Identity
from fa4_precompile.providers.registry import DEFAULT

_AXES = Axes(DEFAULT)
_DIMS, _RATIOS = [64, 96, 128, [192, 128], 256], [1, 2, 4, 8]
_GRID = st.lists(
    st.tuples(st.sampled_from(["fwd", "bwd"]), st.sampled_from(_DIMS), st.booleans(), st.sampled_from(_RATIOS)),
    min_size=1,
    max_size=40,
)


def _point(pass_: str, dim: object, causal: bool, ratio: int) -> Point:
    axes = {"pass": pass_, "dtype": "bf16", "head_dim": dim}
    axes |= {"causal": True} if causal else {}
    axes |= {"qheads_per_kvhead": ratio} if ratio != 1 else {}
    return _AXES.point(axes)


def _fold(points: Sequence[Point], fine: Iterable[Point] = ()) -> tuple[list[Box], list[Point]]:
    """Return entries, and the calls in them; of calls that are not among the points those are fine that are named."""
    allowed = {*points, *fine}
    folder = Folder(_AXES, lambda others: [one in allowed for one in others])
    boxes = folder.fold(points)
    return boxes, [point for box in boxes for point in folder.points(box)]


@given(_GRID)
@settings(deadline=None)
def test_fold_has_each_call_and_no_other(grid: list[tuple[str, object, bool, int]]) -> None:
    points = list(dict.fromkeys(_point(*one) for one in grid))
    boxes, found = _fold(points)
    assert set(found) == set(points)
    assert len(boxes) <= len(points)


@pytest.mark.parametrize("seed", range(5))
def test_fold_of_a_whole_product_is_one_entry_in_whatever_order(seed: int) -> None:
    points = [_point(*one) for one in itertools.product(["fwd", "bwd"], _DIMS, [False, True], _RATIOS)]
    random.Random(seed).shuffle(points)
    (box,), found = _fold(points)
    assert box.size == len(found) == 80


def test_fold_takes_calls_in_that_nobody_made_if_they_are_fine() -> None:
    points = [_point("bwd", 64, False, 1), _point("bwd", 128, True, 1)]
    assert len(_fold(points)[0]) == 2
    (_,), found = _fold(points, [_point("bwd", 64, True, 1), _point("bwd", 128, False, 1)])
    assert len(found) == 4
    assert len(_fold(points, [_point("bwd", 64, True, 1)])[0]) == 2, "one of the two that it takes is not fine"


def test_point_leads_back_to_its_call() -> None:
    axes: dict[str, object] = {
        "pass": "bwd",
        "dtype": "bf16",
        "head_dim": [192, 128],
        "window": [127, 0],
        "sparse": {"q_block": 256, "kv_block": 128},
        "softcap": 15.0,
        "aux_tensors": [{"dtype": "int32", "shape": ["batch", 3]}],
        "job_env": {"FA_CLC": "1"},
        "shape": {"heads": 4, "seqlen_q": 1},
    }
    variant = _AXES.variant(_AXES.point(axes))
    assert variant.render() == axes


# Covering


def _reach(*numbers: int) -> frozenset[Identity]:
    return frozenset(("fwd", KeyText(str(number)), ()) for number in numbers)


def _named(name: str) -> Point:
    return (("name", name),)


def test_cover_takes_few_calls_and_of_equal_ones_the_one_that_is_easier_to_say() -> None:
    reaching = {
        _named("all"): _reach(1, 2, 3),
        _named("one"): _reach(1),
        _named("long to say"): _reach(4),
        _named("short"): _reach(4),
    }
    found = cover(_reach(1, 2, 3, 4), reaching, lambda point: (len(point[0][1]),))
    assert set(found) == {_named("all"), _named("short")}


def test_cover_leaves_what_nothing_reaches() -> None:
    assert cover(_reach(1, 2), {_named("one"): _reach(1)}, lambda _: (0,)) == [_named("one")]
    assert cover(_reach(1), {}, lambda _: (0,)) == []


def test_needed_drops_what_the_others_reach() -> None:
    reaching = {_named("a"): _reach(1, 2), _named("b"): _reach(2, 3), _named("c"): _reach(3, 4)}
    assert needed(list(reaching), reaching) == [_named("a"), _named("c")]


@given(st.lists(st.frozensets(st.integers(0, 12), min_size=1), min_size=1, max_size=12))
def test_cover_reaches_all_that_can_be_and_each_call_is_needed(sets: list[frozenset[int]]) -> None:
    reaching = {_named(str(place)): _reach(*numbers) for place, numbers in enumerate(sets)}
    wanted = frozenset[Identity]().union(*reaching.values())
    found = cover(wanted, reaching, lambda _: (0,))
    assert frozenset[Identity]().union(*(reaching[point] for point in found)) == wanted
    assert needed(found, reaching) == found
