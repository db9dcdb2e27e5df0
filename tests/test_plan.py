"""Planning by asking: FlashAttention-4's own keys, choices and refusals, on a machine with no GPU."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.key import digest_json
from fa4_precompile.errors import SpecError
from fa4_precompile.precompile import asking
from fa4_precompile.precompile import plan as plan_module
from fa4_precompile.precompile.compile.answers import Broken, NotTaken
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.spec.spec import find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.call import Call, Environment
from fa4_precompile.providers.fa4.switches import calls
from fa4_precompile.providers.fa4.variant import Variant, own
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import run

pytestmark = pytest.mark.compiles

Planner = Callable[[str], Any]


@pytest.fixture(scope="module")
def compilers() -> Iterator[Compilers]:
    """Fork servers for b200 that all plans of this module share."""
    with Compilers(DEFAULT, target_book().get("b200"), installed_toolchain(DEFAULT), 2) as shared:
        yield shared


@pytest.fixture(scope="module")
def ask(compilers: Compilers) -> Planner:
    """Plan the `kernels` of a spec and return what `plan --json` prints."""

    def plan(kernels: str) -> Any:
        text = f"version: 1\nprovider: flash-attn-4\nkernels:\n{textwrap.dedent(kernels)}"
        return make_plan(parse_spec("spec.yaml", text, target_book()), compilers).render()

    return plan


@pytest.fixture(scope="module")
def hd256(ask: Planner) -> Any:
    """The plan for head_dim 256: dense, 1-CTA, and block-sparse."""
    return ask("""
        - name: dense
          dtype: bf16
          head_dim: 256
          pass: [fwd, bwd]
          causal: [false, true]
          tile: {fwd: [128, 128], bwd: [128, 64]}
          cluster_size: 2
        - {name: one-cta, dtype: bf16, head_dim: 256, pass: fwd, cluster_size: 1}
        - name: sparse
          dtype: bf16
          head_dim: 256
          pass: [fwd, bwd]
          sparse: [{q_block: 128, kv_block: 128}, {q_block: 256, kv_block: 128}]
          backend: {bwd: generic}
    """)


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


def test_call_that_fa4_refuses_is_excluded_with_its_own_words_and_counted(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("""
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: mixed, pass: bwd, dtype: bf16, head_dim: 256, sparse: [null, {q_block: 128, kv_block: 128}]}
""")
    explained = run("plan", spec, "--explain")
    assert explained.code == 0
    (line,) = [line for line in explained.out.splitlines() if line.startswith("excluded: ")]
    assert "sparse={q_block: 128, kv_block: 128}" in line
    assert line.endswith(": SM100 backward with head_dim=256 does not support block sparsity")
    assert "2 calls, 3 kernels, 1 call excluded" in explained.err


def test_plan_of_excluded_calls_ends_with_one_where_that_is_asked_for_and_asks_about_the_list(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    entry = "{name: a, pass: fwd, dtype: bf16, head_dim: [192, 128]}"
    spec.write_text(f"version: 1\nprovider: flash-attn-4\ntargets: [b200]\nkernels:\n- {entry}\n")
    done = run("plan", spec, "--fail-on-excluded")
    assert done.code == 1
    assert "1 call is excluded" in done.err
    assert f"note: {spec}:5:47: " in done.err
    spec.write_text(spec.read_text().replace("[192, 128]", "[[192, 128], 64]"))
    done = run("plan", spec, "--fail-on-excluded")
    assert (done.code, "did you mean" in done.err) == (0, False)


def test_entry_of_which_nothing_is_left_asks_whether_its_list_was_meant_as_a_pair(ask: Planner) -> None:
    with pytest.raises(SpecError) as caught:
        ask("- {name: a, pass: fwd, dtype: bf16, head_dim: [192, 144]}")
    assert caught.value.hint.startswith("did you mean `head_dim: [[192, 144]]`?")


def test_softcaps_that_python_takes_for_equal_are_two_kernels_as_they_are_to_fa4(ask: Planner) -> None:
    plan = ask("""
        - {name: one, pass: fwd, dtype: bf16, head_dim: 64, softcap: 15}
        - {name: two, pass: fwd, dtype: bf16, head_dim: 64, softcap: 15.0}
    """)
    assert len({kernel["key"] for kernel in plan["kernels"]}) == plan["variants"] == 2
    assert [repr(call["variant"]["softcap"]) for call in plan["calls"]] == ["15", "15.0"]
    assert [call["kernels"] for call in plan["calls"]] == [[0], [1]]


def test_unmet_demand_says_what_fa4_selects_instead(ask: Planner) -> None:
    plan = ask("- {name: a, pass: fwd, dtype: bf16, head_dim: 128, causal: [false, true], cluster_size: 2}")
    (excluded,) = plan["excluded"]
    assert excluded["variant"]["causal"] is True
    assert excluded["reason"].startswith("demands cluster_size 2; the provider selects cluster_size 1, backend generic")


def test_entry_of_which_nothing_is_left_is_an_error_at_its_place(ask: Planner) -> None:
    with pytest.raises(SpecError) as caught:
        ask("""\
            - {name: fine, pass: fwd, dtype: bf16, head_dim: 128}
            - {name: impossible, pass: fwd, dtype: bf16, head_dim: 128, causal: true, cluster_size: 2}
        """)
    assert (caught.value.line, caught.value.column) == (5, 3)
    assert "entry `impossible` has nothing to build: demands cluster_size 2" in caught.value.message


def test_what_is_excluded_does_not_depend_on_the_order_of_calls_or_on_how_they_are_shared_out(
    ask: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gradient of the log-sum-exp is not in the backward's key: FA4 refuses it only where it has to compile.
    axes = "pass: bwd, dtype: bf16, head_dim: 256, causal: [false, true], qheads_per_kvhead: [1, 4]"
    plans = [ask(f"- {{name: a, {axes}, return_lse: {values}}}") for values in ("[false, grad]", "[grad, false]")]
    monkeypatch.setattr(asking, "_MIN_CALLS_PER_TASK", 1)
    plans.append(ask(f"- {{name: a, {axes}, return_lse: [grad, false]}}"))
    reasons = [sorted(json.dumps(excluded) for excluded in plan["excluded"]) for plan in plans]
    assert reasons[0] == reasons[1] == reasons[2]
    assert len(reasons[0]) == 4
    assert all("does not support dlse" in reason for reason in reasons[0])
    keys = [sorted(kernel["key"] for kernel in plan["kernels"]) for plan in plans]
    assert keys[0] == keys[1] == keys[2]


def test_key_depends_on_the_cuda_version_of_the_job_where_fa4_looks_at_it(tmp_path: Path, ask: Planner) -> None:
    entry = "- {name: a, pass: fwd, dtype: bf16, head_dim: 128}\n"
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"version: 1\nprovider: flash-attn-4\ntargets: [{{base: b200, cuda: 12}}]\nkernels:\n{entry}")
    (twelve,) = json.loads(run("plan", spec, "--json").out)["kernels"]
    (thirteen,) = ask(entry)["kernels"]
    assert (twelve["selection"]["cluster_size"], thirteen["selection"]["cluster_size"]) == (1, 2)


def test_switches_in_the_builders_environment_do_not_leak_into_the_plan(
    ask: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "- {name: a, pass: fwd, dtype: bf16, head_dim: 128, causal: true, qheads_per_kvhead: 4, varlen: true}"
    for name in ("FA_DISABLE_2CTA", "FA_CLC", "FA_DISABLE_S_PING_PONG", "FA_LOG_LEVEL"):
        monkeypatch.setenv(name, "1")
    text = f"version: 1\nprovider: flash-attn-4\nkernels:\n{entry}\n"
    with Compilers(DEFAULT, target_book().get("b200"), installed_toolchain(DEFAULT), 1) as started_with_switches:
        leaky = make_plan(parse_spec("spec.yaml", text, target_book()), started_with_switches)
    assert leaky.render()["kernels"] == ask(entry)["kernels"]


@pytest.mark.parametrize("varlen", ["true", "q", "k"])
def test_varlen_calls_have_keys_of_their_own(ask: Planner, varlen: str) -> None:
    body = "- {name: a, pass: [fwd, bwd], dtype: bf16, head_dim: 64, varlen: VALUES}"
    dense = ask(body.replace("VALUES", "false"))
    both = ask(body.replace("VALUES", f"[false, {varlen}]"))
    assert len(both["kernels"]) > len(dense["kernels"])
    assert not both["excluded"]


def test_mask_that_is_shared_or_of_each_and_one_without_full_blocks_are_other_kernels(ask: Planner) -> None:
    entry = "- {name: a, pass: fwd, dtype: bf16, head_dim: 128, sparse: {q_block: 256, kv_block: 128, WHOSE}}"
    choices = ("batch: shared", "batch: each", "batch: each, heads: each", "full_blocks: false")
    keys = [ask(entry.replace("WHOSE", choice))["kernels"][0]["key"] for choice in choices]
    assert len(set(keys)) == 4
    assert keys[0] == ask(entry.replace(", WHOSE", ""))["kernels"][0]["key"]


def test_log_sum_exp_that_is_returned_and_that_has_a_gradient_are_other_backwards(ask: Planner) -> None:
    entry = "- {name: a, pass: bwd, dtype: bf16, head_dim: 64, return_lse: VALUE}"
    plain, returned, gradient = (ask(entry.replace("VALUE", value))["kernels"] for value in ("false", "true", "grad"))
    assert [kernel["key"] for kernel in plain] == [kernel["key"] for kernel in returned]
    assert {k["slot"] for k in gradient if k["key"] not in {kernel["key"] for kernel in plain}} == {"bwd_pre"}


def test_varlen_backward_of_head_dim_256_without_max_seqlen_is_another_kernel(ask: Planner) -> None:
    plan = ask("- {name: a, pass: bwd, dtype: bf16, head_dim: 256, varlen: true, max_seqlen: [given, omitted]}")
    assert len([kernel for kernel in plan["kernels"] if kernel["slot"] == "bwd"]) == 2


def test_deterministic_backward_is_planned_for_every_head_dim(ask: Planner) -> None:
    plan = ask("- {name: a, pass: bwd, dtype: bf16, head_dim: [64, 128, 256], deterministic: true}")
    assert not plan["excluded"]
    assert [k["slot"] for k in plan["kernels"]].count("bwd") == 3


def test_cluster_size_is_that_of_the_kernels_inside_a_dedicated_backward(ask: Planner) -> None:
    # FA_DISABLE_2CTA changes the key of the head_dim 256 backward, but not its kernels.
    plan = ask("- {name: a, pass: bwd, dtype: bf16, head_dim: 256, cluster_size: [1, 2]}")
    (excluded,) = plan["excluded"]
    assert excluded["variant"]["cluster_size"] == 1
    assert "the provider selects cluster_size 2, backend dedicated" in excluded["reason"]


def test_kernels_that_need_no_switch_do_not_tell_the_job_of_one(ask: Planner) -> None:
    plan = ask("- {name: a, pass: bwd, dtype: bf16, head_dim: 128, tile: [[128, 64]]}")
    environments = {kernel["slot"]: kernel["runtime_env"] for kernel in plan["kernels"]}
    assert environments == {"fwd": {}, "bwd_pre": {}, "bwd": {"FLASH_ATTENTION_BWD_TILE_N": "64"}, "bwd_post": {}}


def test_demands_are_met_with_the_fewest_switches_that_do(ask: Planner) -> None:
    plan = ask("""
        - {name: backward, pass: bwd, dtype: bf16, head_dim: 128, backend: generic, tile: [[128, 64]]}
        - {name: forward, pass: fwd, dtype: bf16, head_dim: 64, cluster_size: 1, tile: [[128, 128]]}
    """)
    assert not plan["excluded"]
    environments = {(kernel["variant"]["pass"], kernel["slot"]): kernel["runtime_env"] for kernel in plan["kernels"]}
    assert environments["bwd", "bwd"] == {"FLASH_ATTENTION_BWD_TILE_N": "64"}
    assert environments["fwd", "fwd"] == {}


def test_switches_are_tried_in_every_combination_the_fewest_first() -> None:
    variant = Variant("bwd", "bf16", 256, 256, tile=(128, 64), cluster_size=1, backend="generic")
    tried = [call.environment for call in calls(variant)[1:]]
    assert [len(environment) for environment in tried] == [1, 1, 1, 2, 2, 2, 3]
    assert len(set(tried)) == len(tried)
    forward = [call.environment for call in calls(replace(variant, pass_="fwd"))[1:]]
    assert forward == [(), (("FA_DISABLE_2CTA", "1"),)]


def test_variable_that_fa4_does_not_read_is_excluded_by_name(ask: Planner) -> None:
    plan = ask("- {name: a, pass: fwd, dtype: bf16, head_dim: 128, job_env: [{FA_CLC: 1}, {FA_CLCC: 1}]}")
    (excluded,) = plan["excluded"]
    assert excluded["variant"]["job_env"] == {"FA_CLCC": "1"}
    assert excluded["reason"] == "the installed FlashAttention reads no variable `FA_CLCC`"


@pytest.mark.parametrize("pass_", ["fwd", "bwd"])
@pytest.mark.parametrize("lengths", ["seqused: k", "varlen: k"])
def test_mask_is_packed_only_where_queries_are(ask: Planner, lengths: str, pass_: str) -> None:
    # FA4 takes one block of rows of Q where they are packed, and multiples where they are not.
    sparse = "sparse: {q_block: 512, kv_block: 128}"
    plan = ask(f"- {{name: a, pass: {pass_}, dtype: bf16, head_dim: 128, {lengths}, {sparse}}}")
    assert (len(plan["calls"]), plan["excluded"]) == (1, [])
    with pytest.raises(SpecError, match=r"requires sparse_block_size\[0\]=256"):
        ask(f"- {{name: a, pass: {pass_}, dtype: bf16, head_dim: 128, {lengths[:-1]}q, {sparse}}}")


def test_fault_of_ours_is_no_refusal_of_fa4s_but_a_failure_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A release that uses more of autograd's context than ours has.
    (tmp_path / "sitecustomize.py").write_text(
        "import fa4_precompile.providers.fa4.live as adapter\ndel adapter._Context.save_for_backward\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: bwd, dtype: bf16, head_dim: 64}]\n"
    with Compilers(DEFAULT, target_book().get("b200"), installed_toolchain(DEFAULT), 1) as compilers:
        plan = make_plan(parse_spec("spec.yaml", text, target_book()), compilers)
    assert not plan.excluded
    ((variant, report),) = plan.broken
    assert own(variant).head_dim == 64
    assert "no attribute 'save_for_backward'" in report


def test_call_that_breaks_down_with_switches_is_broken_and_not_excluded_too() -> None:
    survey = plan_module.Survey()
    variant = Variant("fwd", "bf16", 64, 64, cluster_size=1)
    survey.file(Call(variant), NotTaken("not so"))
    survey.file(Call(variant, (("A", "1"),)), Broken("Traceback"))
    assert survey.outcomes == {variant: Broken("Traceback")}


def test_quickstart_comes_to_the_calls_that_its_digest_vouches_for(compilers: Compilers) -> None:
    # If this fails because calls are made otherwise than before, change `meaning` in providers/fa4/provider.py too:
    # manifests of the old meaning must not vouch for the new one. A new FA4 changes the keys, and the toolchain too.
    spec = read_spec(find_spec("quickstart"), target_book())
    plan = make_plan(spec, compilers)
    keys = digest_json(sorted([kernel.reached.slot, kernel.reached.key] for kernel in plan.kernels))
    assert (spec.digest[:16], keys[:16]) == ("9bd58ab2fc97682d", "aff99bfd9ced5734")


class _Asked(Exception):
    """A question was about to be asked."""


class _NoServers(Compilers):
    """Takes note of the fork servers that are started, and asks none."""

    def __init__(self) -> None:
        super().__init__(DEFAULT, target_book().get("b200"), installed_toolchain(DEFAULT), 2)
        self.started: list[Environment] = []

    def pool(self, environment: Environment = ()) -> Executor:
        self.started.append(environment)
        return _AsksNothing()


class _AsksNothing(Executor):
    def submit(self, *_: object, **__: object) -> Any:
        raise _Asked


def test_plan_starts_the_servers_of_all_switches_before_it_asks_one() -> None:
    entry = "{name: e, pass: fwd, dtype: bf16, head_dim: 256, cluster_size: 1, shapes: closure}"
    text = f"version: 1\nprovider: flash-attn-4\nkernels:\n- {entry}\n"
    compilers = _NoServers()
    with pytest.raises(_Asked):
        make_plan(parse_spec("spec.yaml", text, target_book()), compilers)
    assert compilers.started[:2] == [(), (("FA_DISABLE_2CTA", "1"),)]
