"""`shapes: closure`: FlashAttention-4 is asked for the kernels of all shapes in the ranges, with no GPU."""

from __future__ import annotations

import functools
import json
import math
import random
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli
from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.closure import close_variants
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import make_plan, take_survey
from fa4_precompile.precompile.spec.spec import find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.call import Range, Variant
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT

pytestmark = pytest.mark.compiles

_HEAD = "version: 1\nprovider: flash-attn-4\n"

Planner = Callable[[str], Any]


@pytest.fixture(scope="module")
def compilers() -> Iterator[Callable[[str], Compilers]]:
    """Fork servers by target, which all plans of this module share."""
    toolchain = installed_toolchain(DEFAULT)
    made: dict[str, Compilers] = {}

    def of(target: str) -> Compilers:
        if target not in made:
            made[target] = Compilers(DEFAULT, target_book().get(target), toolchain, 2)
        return made[target]

    yield of
    for each in made.values():
        with each:
            pass


@pytest.fixture(scope="module")
def ask(compilers: Callable[[str], Compilers]) -> Planner:
    """Plan the `kernels` of a spec for b200 and return what `plan --json` prints."""

    @functools.cache
    def plan(kernels: str) -> Any:
        return make_plan(
            parse_spec("spec.yaml", f"{_HEAD}kernels:\n{textwrap.dedent(kernels)}", target_book()), compilers("b200")
        ).render()

    return plan


def _keys(plan: Any) -> set[tuple[str, str]]:
    return {(kernel["slot"], kernel["key"]) for kernel in plan["kernels"]}


_DECODE = "{name: e, pass: fwd, dtype: bf16, head_dim: 128, num_splits: 0"
_ANY_LENGTHS = f"- {_DECODE}, shapes: closure, shape: {{heads: 4}}}}"


def test_closure_has_the_kernels_that_a_list_of_shapes_would_have(ask: Planner) -> None:
    lengths = "[1, 128, 129, 257, 4096]"
    listed = ask(f"- {_DECODE}, shape: {{heads: 4, batch: [1, 64], seqlen_q: {lengths}, seqlen_k: {lengths}}}}}")
    assert len(_keys(listed)) > 3
    assert _keys(listed) <= _keys(ask(_ANY_LENGTHS))


def test_closure_has_few_calls_each_of_which_reaches_its_kernels(ask: Planner) -> None:
    plan = ask(_ANY_LENGTHS)
    assert plan["variants"] == 1
    assert len(plan["calls"]) <= len(plan["kernels"])
    assert {index for call in plan["calls"] for index in call["kernels"]} == set(range(len(plan["kernels"])))
    assert "shape" not in plan["calls"][0]["variant"] or plan["calls"][0]["variant"]["shape"] == {"heads": 4}
    assert all("shapes" not in call["variant"] for call in plan["calls"])


def test_closure_of_one_size_leaves_the_others_where_they_are(ask: Planner) -> None:
    plan = ask(
        f"- {_DECODE}, shapes: closure, shape: {{heads: 4, batch: 3, seqlen_q: 1..300, seqlen_k: [512, 1024]}}}}"
    )
    shapes = [call["variant"]["shape"] for call in plan["calls"]]
    assert {(one["heads"], one["batch"]) for one in shapes} == {(4, 3)}
    assert {one["seqlen_k"] for one in shapes} == {512, 1024}
    assert plan["variants"] == 2


def test_closure_of_two_masks_has_the_kernels_that_each_alone_has(ask: Planner) -> None:
    masks = [f"fa4_precompile.masks.segment_mods:mask_{bounds}" for bounds in (1, 3)]
    aux = "{dtype: int32, shape: [batch, heads, 3, seqlen_q]}"

    def of(chosen: str) -> Any:
        entry = f"{{name: e, pass: bwd, dtype: bf16, head_dim: 64, mask_mod: {chosen}, aux_tensors: {aux}"
        return ask(f"- {entry}, shapes: closure, shape: {{batch: 1, heads: 2, seqlen_k: 256}}}}")

    both, first, second = of(f"[{', '.join(masks)}]"), of(masks[0]), of(masks[1])
    assert _keys(both) == _keys(first) | _keys(second)
    assert _keys(first) != _keys(second)
    assert both["growth"][0]["by"]["seqlen_q"] > 0
    assert [call["variant"] for call in both["calls"]] == [
        call["variant"] for plan in (first, second) for call in plan["calls"]
    ]


def test_plan_says_what_each_size_adds(ask: Planner) -> None:
    entries = """
        - {name: open, pass: fwd, dtype: bf16, head_dim: 64, causal: true, shapes: closure, shape: {batch: 2, heads: 2}}
        - {name: listed, pass: fwd, dtype: bf16, head_dim: 64, causal: true, shape: {seqlen_q: [1, 200, 4096]}}
    """
    plan = ask(entries)
    assert plan["growth"] == [{"entry": "open", "ordinary": 1, "by": {"seqlen_q": 2}, "together": 0, "total": 3}]
    assert len(plan["kernels"]) == 3


def test_closure_excludes_shapes_that_miss_a_demand_once_a_reason(ask: Planner) -> None:
    entry = "- {name: e, pass: fwd, dtype: bf16, head_dim: 256, cluster_size: 2, shapes: closure}"
    plan = ask(entry)
    assert {kernel["selection"]["cluster_size"] for kernel in plan["kernels"]} == {2}
    (excluded,) = plan["excluded"]
    assert excluded["reason"].startswith("demands cluster_size 2; the provider selects cluster_size 1")
    assert excluded["reason"].endswith("(this is one of the shapes in the ranges that get this answer)")
    assert set(excluded["variant"]["shape"]) <= {"batch", "heads", "seqlen_q", "seqlen_k"}


def test_closure_of_a_demand_asks_with_switches_where_it_takes_them(ask: Planner) -> None:
    entry = "{name: e, pass: fwd, dtype: bf16, head_dim: 256, cluster_size: 1"
    plan = ask(f"- {entry}, shapes: closure}}")
    assert {kernel["selection"]["cluster_size"] for kernel in plan["kernels"]} == {1}
    assert plan["excluded"] == []
    ordinary, short = ask(f"- {entry}}}"), ask(f"- {entry}, shape: {{seqlen_q: 1}}}}")
    assert [kernel["runtime_env"] for kernel in ordinary["kernels"]] == [{"FA_DISABLE_2CTA": "1"}]
    assert _keys(ordinary) | _keys(short) <= _keys(plan)


def test_closure_of_what_is_not_taken_at_any_size_is_excluded_as_it_was_written(ask: Planner) -> None:
    plan = ask("- {name: e, pass: bwd, dtype: bf16, head_dim: [64, 256], sink: bf16, shapes: closure}")
    (excluded,) = plan["excluded"]
    assert excluded["variant"]["shapes"] == "closure"
    assert excluded["variant"]["shape"]["seqlen_q"] == "1..131072"
    assert excluded["reason"] == "SM100 backward with head_dim=256 does not support learnable_sink"
    with pytest.raises(SpecError, match=r"spec.yaml:4:3: entry `e` has nothing to build: SM100 backward with"):
        ask("- {name: e, pass: bwd, dtype: bf16, head_dim: 256, sink: bf16, shapes: closure}")


def test_closure_of_a_function_that_is_not_there_names_the_entry(ask: Planner) -> None:
    with pytest.raises(SpecError, match=r"spec.yaml:4:3: entry `e`: .*no_such_module"):
        ask('- {name: e, pass: fwd, dtype: bf16, head_dim: 64, mask_mod: "no_such_module:mask", shapes: closure}')


# Random shapes of what is shipped


def _size(one: Range, chance: random.Random) -> int:
    """Return a size: as a rule by its order of magnitude, else anywhere, or by where kernels like to change."""
    how = chance.random()
    if how < 0.5:
        value = math.exp(chance.uniform(math.log(one.low), math.log(one.high)))
    elif how < 0.7:
        value = chance.uniform(one.low, one.high)
    else:
        value = chance.choice((1, 26, 37, 64, 74, 128, 148, 256, 512, 1024, 8192)) + chance.choice((-1, 0, 1))
    steps = round((value - one.low) / one.step)
    return max(one.low, min(one.high, one.low + steps * one.step))


def _random_calls(variant: Variant, number: int, chance: random.Random) -> Iterator[Variant]:
    ranges = DEFAULT.ranges(variant)
    while number:
        try:
            yield DEFAULT.sized(variant, {name: _size(one, chance) for name, one in ranges.items()})
        except UsageError:  # larger than any tensor
            continue
        number -= 1


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fa4_hd256", "b300"),
        *(
            pytest.param(name, target, marks=pytest.mark.long)
            for name, target in [("fa4_sm100", "b200"), ("fa4_sm90", "h100"), ("magi_attention", "b200")]
        ),
    ],
)
def test_random_shapes_reach_no_kernel_that_a_shipped_spec_does_not_plan(
    name: str, target: str, compilers: Callable[[str], Compilers], effort: int
) -> None:
    chance = random.Random(effort)
    found = [one for one in read_spec(find_spec(name), target_book()).variants if DEFAULT.ranges(one)]
    sample = found if effort > 1 else chance.sample(found, 4)
    closures = close_variants(sample, compilers(target))
    for variant, closure in closures.items():
        calls = list(dict.fromkeys(_random_calls(variant, min(500, 100 * effort), chance)))
        survey = take_survey(calls, compilers(target))
        reached = {kernel.reached.identity for kernel in survey.kernels}
        assert reached
        assert reached <= closure.by.keys(), f"{variant}: {len(reached - closure.by.keys())} of {len(reached)} kernels"


# The commands


@pytest.mark.long
def test_closure_spec_is_built_once_checked_and_shown(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "open.yaml"
    shape = "{batch: 1, heads: 2, seqlen_q: 1..512, seqlen_k: 128}"
    entry = f"{{name: e, pass: fwd, dtype: bf16, head_dim: 64, shapes: closure, shape: {shape}}}"
    spec.write_text(f"{_HEAD}targets: [b200]\nkernels:\n- {entry}\n")
    cache = ("--cache", tmp_path / "cache")

    planned = cli("plan", spec)
    assert "entry `e`: 1 kernel at ordinary sizes, 1 more by seqlen_q, 2 in all" in planned.err
    built = json.loads(cli("build", spec, *cache, "--json").out)
    assert (built["variants"], built["kernels"], built["built"], built["excluded"]) == (1, 2, 2, [])
    again = json.loads(cli("build", spec, *cache, "--json").out)
    assert (again["variants"], again["built"], again["cached"]) == (1, 0, 2)
    assert cli("check", spec, *cache).code == 0
    assert cli("verify", *cache).code == 0
    assert "shape={batch: 1, seqlen_q: " in cli("ls", *cache).out

    spec.write_text(spec.read_text().replace("1..512", "1..256"))
    assert cli("check", spec, *cache).code == 1


def test_closure_variant_is_what_it_was_made_of() -> None:
    spec = parse_spec(
        "s.yaml",
        f"{_HEAD}kernels:\n- {{name: e, pass: fwd, dtype: bf16, head_dim: 64, shapes: closure, shape: {{heads: 5..9}}, "
        "qheads_per_kvhead: 3}\n",
        target_book(),
    )
    (variant,) = spec.variants
    assert DEFAULT.ranges(variant)["heads"] == Range(6, 9, 6, 3)
    call = DEFAULT.sized(variant, {"heads": 6, "batch": 2, "seqlen_q": 4096, "seqlen_k": 4096})
    assert call.render() == {"pass": "fwd", "dtype": "bf16", "head_dim": 64, "qheads_per_kvhead": 3}
