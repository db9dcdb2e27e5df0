"""The matrix of what is supported, and the block sizes for masks: from the installed FlashAttention, for two archs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import fa4_precompile
from fa4_precompile.errors import MachineError, UsageError
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import select, selector
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.providers.call import Refused, Selected, Unmet
from fa4_precompile.providers.fa4.blocks import most_telling, smallest_blocks
from fa4_precompile.providers.fa4.variant import Sparse, Variant
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import run

pytestmark = pytest.mark.compiles

Points = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["b200", pytest.param("h100", marks=pytest.mark.long)])
def compilers(request: pytest.FixtureRequest) -> Iterator[Compilers]:
    """The installed FlashAttention, for a target."""
    with Compilers(DEFAULT, target_book().get(request.param), installed_toolchain(DEFAULT), 2) as started:
        yield started


@pytest.fixture(scope="module")
def printed() -> Callable[[str], Points]:
    """What `plan --matrix` prints for a target, asked once."""
    known: dict[str, Points] = {}

    def matrix(target: str) -> Points:
        if target not in known:
            named = () if target == "b200" else ("--target", target)  # the default
            done = run("plan", "--matrix", *named, "--json")
            assert done.code == 0, done.err
            known[target] = json.loads(done.out)
        return known[target]

    return matrix


def test_block_sizes_are_what_the_kernels_were_compiled_with(compilers: Compilers) -> None:
    variants = [
        Variant(pass_, "bf16", *dims, causal=causal, qheads_per_kvhead=ratio)
        for pass_ in ("fwd", "bwd")
        for dims in ((64, 64), (96, 96), (128, 128), (192, 128), (256, 256))
        for causal, ratio in ((False, 1), (True, 4))
    ]
    variants = [
        replace(variant, backend="generic") if (variant.pass_, variant.head_dim) == ("bwd", 256) else variant
        for variant in variants
    ]
    dense = select(variants, compilers)
    taken = [variant for variant in variants if isinstance(dense[variant], Selected)]
    assert len(taken) >= 18  # one head_dim of SM90 has no backward for GQA
    found = smallest_blocks(taken, selector(compilers), dense)
    assert set(found) == set(taken)
    for variant, (size, answer) in found.items():
        assert isinstance(answer, Selected), (variant, answer)
        _require_compiled_with(variant, size, answer)


@pytest.mark.long
def test_block_sizes_of_the_matrix_are_what_the_kernels_were_compiled_with(
    compilers: Compilers, printed: Callable[[str], Points]
) -> None:
    points = [point for point in printed(compilers.target.name) if point["sparse"] and point["supported"]]
    assert len(points) >= 10
    variants = [_with_both_blocks(point, points) for point in points]
    answers = select(variants, compilers)
    for variant, point in zip(variants, points, strict=True):
        answer = answers[variant]
        assert isinstance(answer, Selected), (variant, answer)
        _require_compiled_with(variant, tuple(point["block_size"]), answer)


def _with_both_blocks(point: dict[str, Any], points: Points) -> Variant:
    """Return the variant of a point; of a backward with the blocks of the forward of the same head_dim, too."""
    dims = point["head_dim"] if isinstance(point["head_dim"], list) else [point["head_dim"]] * 2
    rows, columns = point["block_size"]
    demanded = Variant(
        point["pass"], "bf16", dims[0], dims[1], cluster_size=point["cluster_size"], backend=point["backend"]
    )
    variant = replace(demanded, sparse=Sparse(rows, columns))
    if variant.pass_ == "fwd":
        return variant
    forward = next(one for one in points if (one["pass"], one["head_dim"]) == ("fwd", point["head_dim"]))
    first, second = forward["block_size"]
    return replace(variant, sparse=Sparse(first, second, bwd_q_block=rows, bwd_kv_block=columns))


def _require_compiled_with(variant: Variant, size: tuple[int, int] | None, answer: Selected) -> None:
    key = answer.kernel.key_fields
    rows, columns = ("tile_m", "tile_n") if variant.pass_ == "fwd" else ("m_block_size", "n_block_size")
    q_rows = _number(key[rows]) * _number(key.get("q_stage", 1)) * _number(key["q_subtile_factor"])
    kv_rows = _number(key[columns]) * _number(key.get("kv_subtile_factor", 1))
    assert size == (q_rows, kv_rows), variant


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _point(
    points: list[dict[str, Any]], pass_: str, head_dim: int, sparse: bool, cluster_size: int, backend: str
) -> dict[str, Any]:
    wanted = {
        "pass": pass_,
        "head_dim": head_dim,
        "sparse": sparse,
        "cluster_size": cluster_size,
        "backend": backend,
    }
    (found,) = [point for point in points if {name: point[name] for name in wanted} == wanted]
    return found


@pytest.mark.long
def test_matrix_of_b200_answers_the_question_of_2_cta_against_sparsity(printed: Callable[[str], Points]) -> None:
    points = printed("b200")
    assert len(points) == 80
    assert all(point["supported"] == (point["reason"] == "") for point in points)
    dedicated = _point(points, "bwd", 256, False, 2, "dedicated")
    assert dedicated["selection"]["tiles"] == {"dq": [128, 128], "dkdv": [128, 64]}
    assert dedicated["runtime_env"] == {}
    refused = _point(points, "bwd", 256, True, 2, "dedicated")
    assert refused["reason"] == "SM100 backward with head_dim=256 does not support block sparsity"
    both = _point(points, "bwd", 256, True, 2, "generic")
    assert (both["selection"]["cluster_size"], both["block_size"]) == (2, [128, 128])
    assert both["runtime_env"] == {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}
    assert _point(points, "fwd", 256, False, 2, "generic")["selection"]["tiles"] == {"main": [128, 128]}
    assert not _point(points, "fwd", 256, True, 2, "generic")["supported"]
    # A switch that changes nothing is not asked of the job.
    assert _point(points, "bwd", 128, False, 1, "generic")["runtime_env"] == {"FA_DISABLE_2CTA": "1"}


def test_block_sizes_for_callers_need_no_spec_and_no_gpu() -> None:
    sizes = fa4_precompile.block_sizes(256, backend="generic", cluster_size=2)
    assert (sizes.forward, sizes.backward) == ((128, 128), (128, 128))
    assert sizes.job_env == {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}
    with pytest.raises(UsageError, match=r"no profile .* has arch `sm_12`"):
        fa4_precompile.block_sizes(64, arch="sm_12")


def test_dense_tiles_of_head_dim_256_are_the_dedicated_kernels() -> None:
    sizes = fa4_precompile.block_sizes(256, sparse=False)
    assert (sizes.forward, sizes.backward, dict(sizes.job_env)) == ((128, 128), (128, 64), {})


@pytest.mark.parametrize(("arguments", "message"), [((), "there is no SPEC"), (("quickstart", "--matrix"), "SPEC")])
def test_plan_wants_a_spec_or_the_matrix(arguments: tuple[str, ...], message: str) -> None:
    done = run("plan", *arguments)
    assert done.code == 2
    assert message in done.err


def test_reason_against_block_sparsity_is_not_that_most_sizes_are_wrong_ones() -> None:
    sizes = [Refused(f"requires sparse_block_size[1]={size} to match tile_n.") for size in (64, 80, 96, 128)]
    itself = [Refused("SM100 forward with head_dim=256 does not support block sparsity")]
    assert most_telling([*sizes[:2], *itself, *sizes[2:]]) == itself[0]
    assert most_telling([*sizes[:1], *itself]) == itself[0]  # as often as another: the one against the largest blocks
    unmet = Unmet("demands cluster_size 2; the provider selects 1")
    assert most_telling([*itself, *sizes, unmet]) == unmet


def test_block_sizes_of_a_package_that_is_not_installed_are_an_error_and_not_flash_attentions() -> None:
    with pytest.raises(MachineError, match="nowhere_at_all"):
        fa4_precompile.block_sizes(64, module="nowhere_at_all")
