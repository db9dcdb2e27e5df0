"""The calls that an audit asks about: near a call in what is in no key, or changed in one argument."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Cli, require_error
from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.record import Selection
from fa4_precompile.precompile.audit.findings import Finding, Made, issue_lines, spec_line
from fa4_precompile.precompile.audit.near import consider, most_different
from fa4_precompile.precompile.audit.sample import Sample
from fa4_precompile.precompile.compile.answers import Answer, NotTaken, Taken
from fa4_precompile.precompile.plan import PlannedKernel
from fa4_precompile.precompile.spec.spec import find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.call import Call, Reached
from fa4_precompile.providers.fa4.relatives import others, perturbed
from fa4_precompile.providers.fa4.variant import Shape, Sparse, Variant, own
from support import make_target, make_toolchain

_HEAD = "version: 1\nprovider: flash-attn-4\nkernels:\n"
_PLAIN = Call(Variant("fwd", "bf16", 192, 128))
_PACKED = Call(Variant("fwd", "bf16", 128, 128, window=(127, 0), varlen=True, paged_kv=64, num_splits=4))
_SPARSE = Call(Variant("bwd", "bf16", 256, 256, sparse=Sparse(256, 128), qheads_per_kvhead=4, shape=Shape(1, 8)))


def _axes(call: Call) -> dict[str, object]:
    return {name: value for name, value in vars(own(call.variant)).items() if name != "shape"}


@pytest.mark.parametrize("call", [_PLAIN, _PACKED, _SPARSE], ids=["plain", "packed", "sparse"])
def test_others_differ_in_what_should_be_in_no_key_only(call: Call) -> None:
    found = others(call, 60, seed=0)
    assert len(found) > 40
    assert call not in found
    changed = {name for one in found for name, value in _axes(one).items() if value != _axes(call)[name]}
    assert changed == ({"window", "paged_kv", "num_splits"} if call is _PACKED else set())
    shapes = {own(one.variant).shape for one in found}
    assert len(shapes) > 10
    assert all(own(one.variant).heads % own(one.variant).qheads_per_kvhead == 0 for one in found)
    assert {name for one in found for name, _ in one.runtime} == {"softmax_scale", "layout"}
    assert others(call, 60, seed=0) == found
    assert others(call, 60, seed=1) != found


def test_perturbed_differ_in_one_axis_each_and_in_each_axis_once(calls: Sequence[Call]) -> None:
    found = perturbed(calls, 400, seed=0)
    assert len(found) == 400
    assert not {other for _, _, other in found} & set(calls)
    for name, call, other in found:
        before, after = _axes(call), _axes(other)
        axes = {axis.rstrip("_").removesuffix("_v") for axis in before if repr(before[axis]) != repr(after[axis])}
        assert axes == {name}
    names = {name for name, _, _ in found}
    assert names >= {"window", "softcap", "dtype", "pack_gqa", "deterministic", "varlen", "seqused", "num_splits"}
    assert names >= {"sink", "return_lse", "tile", "head_dim", "causal", "sparse", "paged_kv", "pass"}


@pytest.fixture
def calls() -> list[Call]:
    """The calls of a shipped spec, and a sparse one."""
    spec = read_spec(find_spec("quickstart"), target_book())
    return [*map(Call, spec.variants), _SPARSE]


def test_spec_line_of_a_call_is_that_call_in_a_spec(calls: Sequence[Call]) -> None:
    for _, _, call in perturbed([*calls, _PACKED, _PLAIN], 200, seed=3):
        assert parse_spec("issue.yaml", _HEAD + spec_line(call), target_book()).variants == (call.variant,)


def test_most_different_takes_its_own_call_and_then_the_farthest() -> None:
    near = replace(_PLAIN, runtime=(("softmax_scale", 1.0),))
    far = replace(
        _PLAIN, variant=replace(own(_PLAIN.variant), shape=Shape(1, 2, 64, 64)), runtime=(("layout", "heads-first"),)
    )
    assert most_different([_PLAIN, near, far], 2) == [_PLAIN, far]
    assert most_different([_PLAIN, near, far], 5) == [_PLAIN, far, near]
    assert most_different([], 2) == []


def test_considered_are_calls_that_reach_the_kernel_taken_or_refused_as_its_own_is() -> None:
    reached = Reached("fwd", encode_key((64,)), {}, Selection("Forward", "generic", 1, {}))
    alike, unlike, taken, elsewhere = (replace(_PLAIN, runtime=(("softmax_scale", scale),)) for scale in range(4))
    answers: dict[Call, Answer] = {
        _PLAIN: NotTaken("the backward is refused", [reached]),
        alike: NotTaken("the backward is refused", [reached]),
        unlike: NotTaken("the forward is refused", [reached]),
        taken: Taken([reached], None),
        elsewhere: Taken([replace(reached, slot="bwd")], None),
    }

    def submit(_function: object, _pinned: object, calls: Sequence[Call]) -> Future[list[Answer]]:
        future: Future[list[Answer]] = Future()
        future.set_result([answers[call] for call in calls])
        return future

    provider = SimpleNamespace(others=lambda call, number, seed: [alike, unlike, taken, elsewhere])
    compilers: Any = SimpleNamespace(
        provider=provider, pool=lambda environment: SimpleNamespace(submit=submit), jobs=1, pinned=None
    )
    considered = consider(Sample([_PLAIN], [PlannedKernel(reached, _PLAIN)]), compilers, 10, 0)
    assert considered.calls == {("fwd", encode_key((64,)), ()): [_PLAIN, alike, taken]}
    assert (considered.fewest, considered.total) == (3, 3)


def test_finding_is_text_for_an_issue_with_all_that_repeats_it() -> None:
    call = replace(_PACKED, runtime=(("softmax_scale", 0.5),))
    finding = Finding(
        "two calls of one key need two kernels",
        "fwd",
        {"head_dim": 128, "causal": True},
        [Made("call 1", spec_line(_PACKED), "a" * 64), Made("call 2", spec_line(call), "b" * 64)],
        ["168 and 128 registers in `kernel`"],
        is_ambiguous=True,
    )
    text = "\n".join(issue_lines(finding, make_toolchain(), make_target()))
    for words in ("flash-attn-4 0.0-synthetic", "nvidia-cutlass-dsl 0.0-synthetic", "fa4-precompile 0.1.0", "sm_100a"):
        assert words in text
    assert "key: head_dim=128, causal=true" in text
    assert "a" * 64 in text
    assert f"{spec_line(_PACKED)}  # softmax_scale=0.5" in text
    assert "`kernel_specs/known_bad.yaml`" in text
    assert "known_bad" not in "\n".join(
        issue_lines(replace(finding, is_ambiguous=False), make_toolchain(), make_target())
    )


def test_audit_of_a_part_that_there_is_not_is_refused(cli: Cli) -> None:
    done = cli("audit", "quickstart", "--only", "stock,sounds")
    assert done.code == 2
    assert "`--only` can't be `sounds`" in done.err
    assert "stock, sound, steady" in done.err


def test_audit_of_what_is_no_cache_is_refused_before_anything_is_compiled(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"`{file}`: can't be read: Not a directory" in require_error(cli("audit", "quickstart", "--cache", file), 2)
