"""Planning by asking: FlashAttention-4's own keys, choices and refusals, on a machine with no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product import run

pytestmark = pytest.mark.compiles

Spec = Callable[[str], Path]


def _plan(spec: Path, *options: str) -> Any:
    done = run("plan", spec, "--json", *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


def _selections(plan: Any, slot: str) -> set[str]:
    return {json.dumps(kernel["selection"]) for kernel in plan["kernels"] if kernel["slot"] == slot}


@pytest.fixture(scope="module")
def hd256(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plan for head_dim 256: dense, block-sparse, and what can't be had."""
    spec = tmp_path_factory.mktemp("specs") / "hd256.yaml"
    spec.write_text(
        """
version: 1
provider: flash-attn-4
targets: [b200]
defaults: {dtype: bf16, head_dim: 256}
kernels:
- {name: dense, pass: [fwd, bwd], causal: [false, true], tile: {fwd: [128, 128], bwd: [128, 64]}, cluster_size: 2}
- {name: one-cta, pass: fwd, cluster_size: 1}
- name: sparse
  pass: [fwd, bwd]
  sparse: [{q_block: 128, kv_block: 128}, {q_block: 256, kv_block: 128}]
  backend: {bwd: [generic]}
""".replace("[generic]", "generic")
    )
    return _plan(spec)


def test_dense_head_dim_256_is_2cta_with_the_tiles_that_masks_must_agree_with(hd256: Any) -> None:
    dense = [kernel for kernel in hd256["kernels"] if kernel["variant"].get("cluster_size") == 2]
    forward = [kernel["selection"] for kernel in dense if kernel["slot"] == "fwd"]
    backward = [kernel["selection"] for kernel in dense if kernel["slot"] == "bwd"]
    assert {json.dumps(selection["tiles"]) for selection in forward} == {'{"main": [128, 128]}'}
    assert {selection["cluster_size"] for selection in forward + backward} == {2}
    assert [selection["tiles"] for selection in backward] == [{"dq": [128, 128], "dkdv": [128, 64]}] * 2
    assert {selection["backend"] for selection in backward} == {"dedicated"}


def test_demand_that_fa4_has_a_switch_for_is_met_by_it_and_the_job_is_told(hd256: Any) -> None:
    (one_cta,) = [kernel for kernel in hd256["kernels"] if kernel["variant"].get("cluster_size") == 1]
    assert one_cta["selection"]["cluster_size"] == 1
    assert one_cta["runtime_env"] == {"FA_DISABLE_2CTA": "1"}


def test_block_sparse_backward_of_head_dim_256_is_2cta_on_the_generic_kernel(hd256: Any) -> None:
    sparse = [k for k in hd256["kernels"] if k["slot"] == "bwd" and "sparse" in k["variant"]]
    assert len(sparse) == 2
    for kernel in sparse:
        assert kernel["selection"]["cluster_size"] == 2
        assert kernel["selection"]["tiles"] == {"main": [128, 64]}
        assert kernel["runtime_env"] == {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}


def test_every_call_is_planned_or_excluded_and_reaches_its_kernels(hd256: Any) -> None:
    assert len(hd256["calls"]) + len(hd256["excluded"]) == hd256["variants"]
    reached = {index for call in hd256["calls"] for index in call["kernels"]}
    assert reached == set(range(len(hd256["kernels"])))


def test_call_that_fa4_refuses_is_excluded_with_its_own_words_and_counted(write_spec: Spec) -> None:
    spec = write_spec(
        "targets: [b200]\n"
        "kernels:\n"
        "- {name: mixed, pass: bwd, dtype: bf16, head_dim: 256, sparse: [null, {q_block: 128, kv_block: 128}]}\n"
    )
    plan = _plan(spec)
    (excluded,) = plan["excluded"]
    assert excluded["reason"] == "SM100 backward with head_dim=256 does not support block sparsity"
    assert excluded["variant"]["sparse"] == {"q_block": 128, "kv_block": 128}
    explained = run("plan", spec, "--explain")
    assert "does not support block sparsity" in explained.out
    assert "2 calls" in explained.err
    assert "1 calls excluded" in explained.err


def test_unmet_demand_says_what_fa4_selects_instead(write_spec: Spec) -> None:
    spec = write_spec(
        "targets: [b200]\n"
        "kernels: [{name: hd128, pass: fwd, dtype: bf16, head_dim: 128, causal: [false, true], cluster_size: 2}]\n"
    )
    (excluded,) = _plan(spec)["excluded"]
    assert excluded["variant"]["causal"] is True
    assert excluded["reason"].startswith("demands cluster_size 2; the provider selects cluster_size 1, backend generic")


def test_entry_of_which_nothing_is_left_is_an_error_at_its_line_and_nothing_is_built(
    write_spec: Spec, tmp_path: Path
) -> None:
    spec = write_spec(
        "targets: [b200]\n"
        "kernels:\n"
        "- {name: fine, pass: fwd, dtype: bf16, head_dim: 128}\n"
        "- {name: impossible, pass: fwd, dtype: bf16, head_dim: 128, causal: true, cluster_size: 2}\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache")
    assert done.code == 2
    assert f"{spec}:6:3: entry `impossible` has nothing to build: demands cluster_size 2" in done.err
    assert not list((tmp_path / "cache").glob("blobs/*/*/*"))


def test_what_is_excluded_does_not_depend_on_order_or_on_the_number_of_jobs(write_spec: Spec) -> None:
    # The gradient of the log-sum-exp is not in the backward's key: FA4 refuses it only where it has to compile.
    axes = "pass: bwd, dtype: bf16, head_dim: 256, causal: [false, true], qheads_per_kvhead: [1, 4]"
    plans = [
        _plan(write_spec(f"targets: [b200]\nkernels: [{{name: lse, {axes}, return_lse: {values}}}]\n"), "--jobs", jobs)
        for values, jobs in (("[false, true]", "1"), ("[true, false]", "2"))
    ]
    reasons = [sorted(json.dumps(excluded) for excluded in plan["excluded"]) for plan in plans]
    assert reasons[0] == reasons[1]
    assert len(reasons[0]) == 4
    assert all("does not support dlse" in reason for reason in reasons[0])


def test_key_depends_on_the_cuda_version_of_the_job_where_fa4_looks_at_it(write_spec: Spec) -> None:
    body = "kernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 128}]\n"
    thirteen = _plan(write_spec("targets: [b200]\n" + body))
    twelve = _plan(write_spec("targets: [{base: b200, cuda: 12}]\n" + body))
    assert [kernel["selection"]["cluster_size"] for kernel in thirteen["kernels"]] == [2]
    assert [kernel["selection"]["cluster_size"] for kernel in twelve["kernels"]] == [1]


def test_switches_in_the_builders_environment_do_not_leak_into_the_plan(
    write_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec("targets: [b200]\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 128}]\n")
    clean = _plan(spec)
    for name in ("FA_DISABLE_2CTA", "FA_CLC", "FA_LOG_LEVEL", "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"):
        monkeypatch.setenv(name, "1")
    assert _plan(spec)["kernels"] == clean["kernels"]


@pytest.mark.parametrize("varlen", ["true", "q", "k"])
def test_varlen_calls_have_keys_of_their_own(write_spec: Spec, varlen: str) -> None:
    body = "targets: [b200]\nkernels: [{name: a, pass: [fwd, bwd], dtype: bf16, head_dim: 64, varlen: VALUES}]\n"
    dense = _plan(write_spec(body.replace("VALUES", "false")))
    both = _plan(write_spec(body.replace("VALUES", f"[false, {varlen}]")))
    assert len(both["kernels"]) > len(dense["kernels"])
    assert not both["excluded"]
