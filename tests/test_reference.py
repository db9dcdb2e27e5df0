"""The canary's reference and the values of its calls, on a CPU: against torch's own attention, and read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fa4_precompile.canary.due import variant_of
from fa4_precompile.precompile.spec.spec import read_spec, shipped_specs, target_book
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.fa4.arguments import Arguments, CallBuilder
from fa4_precompile.providers.fa4.expected import Expected
from fa4_precompile.providers.fa4.real import RealFlashAttn4
from fa4_precompile.providers.fa4.recognizer import FlashRecognizer
from fa4_precompile.providers.fa4.reference import SMALLEST, distance, visible
from fa4_precompile.providers.fa4.values import Values
from fa4_precompile.providers.fa4.variant import AuxTensor, Shape, Sparse, Variant
from fa4_precompile.providers.registry import DEFAULT

Tensor = Any

_PACKAGE = "flash_attn.cute"
_DENSE = Variant("bwd", "bf16", 64, 64, shape=Shape(2, 4, 150, 150))
_EXACT = 2e-6


def _call(variant: Variant) -> tuple[Values, Arguments]:
    values = Values(torch, _PACKAGE, variant, 0, "cpu")
    _, arguments = values.build(variant, pass_tile=False)
    return values, arguments


def _results(variant: Variant, gradient: bool = True) -> tuple[Values, Arguments, dict[str, Tensor], Tensor]:
    values, arguments = _call(variant)
    dout = torch.randn(*arguments["q"].shape[:-1], variant.head_dim_v)
    return values, arguments, Expected(variant, arguments, values).results(dout if gradient else None, None), dout


def _torchs(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Return torch's attention of (batch, seqlen, heads, head_dim) tensors."""
    ratio = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    k, v = k.repeat_interleave(ratio, 1), v.repeat_interleave(ratio, 1)
    return scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


def _leaves(arguments: Arguments, *names: str) -> list[Tensor]:
    return [arguments[name].detach().float().requires_grad_() for name in names]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ratio", [1, 4])
def test_reference_of_a_training_step_is_torchs_own(causal: bool, ratio: int) -> None:
    _, arguments, found, dout = _results(replace(_DENSE, causal=causal, qheads_per_kvhead=ratio))
    q, k, v = _leaves(arguments, "q", "k", "v")
    out = _torchs(q, k, v, is_causal=causal)
    out.backward(dout)
    for name, expected in {"out": out.detach(), "q": q.grad, "k": k.grad, "v": v.grad}.items():
        assert distance(found[name], expected) < _EXACT, name


def test_reference_with_a_window_and_other_lengths_is_torchs_with_the_mask_written_out() -> None:
    shape = Shape(2, 2, 90, 150)
    _, arguments, found, _ = _results(replace(_DENSE, window=(40, 7), shape=shape), gradient=False)
    mask = torch.zeros(90, 150, dtype=torch.bool)
    for row in range(90):
        mask[row, max(0, row + 60 - 40) : row + 60 + 7 + 1] = True
    assert distance(found["out"], _torchs(*(arguments[name].float() for name in "qkv"), attn_mask=mask)) < _EXACT


def test_reference_with_a_sink_is_torchs_with_one_more_key_of_no_value() -> None:
    _, arguments, found, dout = _results(replace(_DENSE, sink="fp32"))
    q, k, v, sink = _leaves(arguments, "q", "k", "v", "learnable_sink")
    none = torch.zeros(2, 1, 4, 64)
    bias = torch.cat([torch.zeros(4, 150, 150), sink[:, None, None].expand(4, 150, 1)], -1)
    out = _torchs(q, torch.cat([k, none], 1), torch.cat([v, none], 1), attn_mask=bias)
    out.backward(dout)
    assert distance(found["out"], out.detach()) < _EXACT
    assert distance(found["learnable_sink"], sink.grad) < 1e-5
    assert distance(found["k"], k.grad) < _EXACT


def test_reference_with_a_softcap_bounds_the_scores() -> None:
    _, arguments, found, _ = _results(replace(_DENSE, softcap=2.0), gradient=False)
    q, k, v = (arguments[name].float().transpose(1, 2) for name in "qkv")
    weights = (2 * ((q @ k.transpose(-1, -2)) / 8 / 2).tanh()).softmax(-1)
    assert distance(found["out"], (weights @ v).transpose(1, 2)) < _EXACT


def test_reference_of_a_gradient_of_the_log_sum_exp_is_that_of_autograd() -> None:
    variant = replace(_DENSE, return_lse="grad")
    values, arguments = _call(variant)
    dout, dlse = torch.randn(2, 150, 4, 64), torch.randn(2, 4, 150)
    found = Expected(variant, arguments, values).results(dout, dlse)
    q, k, v = _leaves(arguments, "q", "k", "v")
    scores = q.transpose(1, 2) @ k.transpose(1, 2).transpose(-1, -2) / 8
    torch.autograd.backward([_torchs(q, k, v), scores.logsumexp(-1)], [dout, dlse])
    assert distance(found["q"], q.grad) < _EXACT
    assert distance(found["k"], k.grad) < _EXACT


def _sequences(values: Values) -> Iterator[tuple[slice, slice]]:
    first_q = first_k = 0
    for q, k in zip(values.lengths_q, values.lengths_k, strict=True):
        yield slice(first_q, first_q + q), slice(first_k, first_k + k)
        first_q, first_k = first_q + q, first_k + k


def test_reference_of_packed_sequences_is_torchs_of_each() -> None:
    values, arguments, found, dout = _results(replace(_DENSE, varlen=True, shape=Shape(3, 2, 150, 150)))
    assert values.lengths_q == [150, 113, 76]
    assert arguments["cu_seqlens_q"].tolist() == [0, 150, 263, 339]
    q, k, v = _leaves(arguments, "q", "k", "v")
    out = torch.cat([_torchs(q[i][None], k[j][None], v[j][None])[0] for i, j in _sequences(values)])
    out.backward(dout)
    assert distance(found["out"], out.detach()) < _EXACT
    assert distance(found["v"], v.grad) < _EXACT


def test_reference_of_pages_and_used_rows_is_torchs_of_what_the_table_names() -> None:
    variant = replace(_DENSE, pass_="fwd", paged_kv=16, seqused="k", causal=True, shape=Shape(2, 2, 5, 150))
    values, arguments, found, _ = _results(variant, gradient=False)
    assert values.used_k == arguments["seqused_k"].tolist() == [113, 76]
    assert sorted(arguments["page_table"].flatten().tolist()) == list(range(20))
    for place, used in enumerate(values.used_k):
        pages = [arguments[name][arguments["page_table"][place].long()].reshape(-1, 2, 64)[:used] for name in "kv"]
        mask = visible(5, used, True, None, "cpu")
        q = arguments["q"][place][None].float()
        assert (
            distance(found["out"][place], _torchs(q, *(one[None].float() for one in pages), attn_mask=mask)[0]) < 1e-5
        )


def test_reference_of_scaled_fp8_is_torchs_of_what_the_numbers_mean() -> None:
    variant = Variant("fwd", "fp8_e4m3", 64, 64, descale="qkv", qheads_per_kvhead=2, shape=Shape(2, 4, 60, 60))
    _, arguments, found, _ = _results(variant, gradient=False)
    scales = {name: arguments[f"{name}_descale"][:, None, :, None] for name in "qkv"}
    q = arguments["q"].float() * scales["q"].repeat_interleave(2, 2)
    k, v = (arguments[name].float() * scales[name] for name in "kv")
    assert distance(found["out"], _torchs(q, k, v)) < 1e-5


def test_reference_of_absorbed_mla_sees_the_rows_that_are_gathered() -> None:
    shape = Shape(2, 4, 3, 300)
    variant = Variant("fwd", "bf16", 64, 512, qv="with-q", gather_kv=128, qheads_per_kvhead=4, shape=shape)
    _, arguments, found, _ = _results(variant, gradient=False)
    q = torch.cat([arguments["q"], arguments["qv"]], -1).float()
    k = torch.cat([arguments["k"], arguments["v"]], -1).float()
    mask = torch.zeros(2, 1, 3, 300, dtype=torch.bool)
    for place in range(2):
        for row in range(3):
            chosen = arguments["gather_kv_indices"][place, row].tolist()
            assert len(set(chosen)) == 128
            mask[place, 0, row, chosen] = True
    assert distance(found["out"], _torchs(q, k, arguments["v"].float(), attn_mask=mask)) < 1e-5


def test_row_that_sees_nothing_is_zero_and_has_no_gradient() -> None:
    _, _, found, _ = _results(replace(_DENSE, causal=True, shape=Shape(1, 2, 150, 90)))
    assert found["out"][:, :60].abs().max() == 0
    assert found["q"][:, :60].abs().max() == 0
    assert found["out"][:, 60:].abs().min() > 0
    assert all(torch.isfinite(one).all() for one in found.values())


def test_error_is_relative_and_infinite_for_what_is_no_number() -> None:
    ones = torch.ones(100)
    assert distance(1.01 * ones, ones) == pytest.approx(0.01, rel=1e-4)
    assert distance(torch.full((100,), float("nan")), ones) == math.inf
    assert distance(torch.full((100,), SMALLEST / 10), torch.zeros(100)) == pytest.approx(0.1, rel=1e-4)


# Block sparsity: what FlashAttention's lists say is the mask of the reference


def _read(lists: Any, way: int, causal: bool, rows: int, columns: int) -> Tensor:
    """Return the mask (batch, heads, rows, columns) that lists of blocks mean; `way` 1 are those from K to Q."""
    height, width = lists.block_size
    seen = torch.zeros(*lists.mask_block_cnt.shape[:2], rows, columns, dtype=torch.bool)
    own = visible(rows, columns, causal, None, "cpu")
    for name in ("mask", "full"):
        counts, indices = getattr(lists, f"{name}_block_cnt"), getattr(lists, f"{name}_block_idx")
        for batch, head, line in (
            torch.cartesian_prod(*map(torch.arange, counts.shape)).tolist() if counts is not None else []
        ):
            for other in indices[batch, head, line, : counts[batch, head, line]].tolist():
                row, column = (other, line) if way else (line, other)
                place = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
                seen[batch, head][place] = own[place] if name == "mask" else True
    return seen


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "sparse",
    [
        Sparse(128, 64),
        Sparse(128, 64, full_blocks=False),
        Sparse(256, 128, batch="each", heads="each"),
        Sparse(128, 64, bwd_q_block=64, bwd_kv_block=128),
    ],
    ids=str,
)
def test_lists_of_blocks_say_what_the_reference_sees(sparse: Sparse, causal: bool) -> None:
    values, arguments = _call(replace(_DENSE, causal=causal, sparse=sparse, shape=Shape(2, 2, 500, 500)))
    assert 0 < values.seen.float().mean() < 1
    assert torch.equal(_read(arguments["block_sparse_tensors"], 0, causal, 500, 500), values.seen)
    assert torch.equal(_read(arguments["block_sparse_tensors_bwd"], 1, causal, 500, 500), values.seen)
    assert causal or values.seen.any(-1).all()


def test_lists_of_packed_sequences_say_what_the_reference_sees() -> None:
    variant = replace(
        _DENSE, pass_="fwd", varlen=True, sparse=Sparse(128, 64, heads="each"), shape=Shape(2, 2, 256, 320)
    )
    values, arguments = _call(variant)
    lists = arguments["block_sparse_tensors"]
    assert lists.cu_total_m_blocks.tolist() == [0, 2, 4]
    assert lists.cu_block_idx_offsets.tolist() == [0, 10, 20]
    seen = torch.zeros(2, 2, 256, 320, dtype=torch.bool)
    for batch, head, line in torch.cartesian_prod(*(torch.arange(2),) * 3).tolist():
        begin = batch * 10 + line * 5
        number = lists.full_block_cnt[head, batch * 2 + line]
        for other in lists.full_block_idx[head, begin : begin + number].tolist():
            seen[batch, head, line * 128 : (line + 1) * 128, other * 64 : (other + 1) * 64] = True
    assert torch.equal(seen, values.seen)
    assert lists.mask_block_cnt.sum() == 0


def test_order_of_a_deterministic_backward_counts_up_for_each_block_of_queries() -> None:
    variant = replace(_DENSE, deterministic=True, sparse=Sparse(128, 128), shape=Shape(1, 2, 512, 512))
    _, arguments = _call(variant)
    lists = arguments["block_sparse_tensors_bwd"]
    ranks: dict[int, list[int]] = {}
    for line in range(4):
        for position in range(int(lists.full_block_cnt[0, 0, line])):
            block = int(lists.full_block_idx[0, 0, line, position])
            ranks.setdefault(block, []).append(int(lists.dq_write_order_full[0, 0, line, position]))
    assert ranks
    assert all(one == list(range(len(one))) for one in ranks.values())


# The arguments are those that a plan asks with


_KINDS = [
    _DENSE,
    replace(_DENSE, head_dim=192, head_dim_v=128, causal=True, qheads_per_kvhead=2, pack_gqa=False),
    replace(_DENSE, sink="bf16", window=(10, None), deterministic=True),
    replace(_DENSE, deterministic=True, sparse=Sparse(128, 64, descending=True)),
    replace(_DENSE, sparse=Sparse(256, 128, batch="each", full_blocks=False)),
    replace(_DENSE, pass_="fwd", paged_kv=64, seqused=True, num_splits=4),
    replace(_DENSE, pass_="fwd", seqused="q", sparse=Sparse(128, 64)),
    Variant("fwd", "fp8_e5m2", 128, 128, descale="kv", tile=(128, 128), shape=Shape(2, 2, 150, 150)),
    Variant("bwd", "bf16", 64, 512, qv="with-q", gather_kv=128, qheads_per_kvhead=2, shape=Shape(1, 2, 20, 200)),
    Variant("fwd", "fp16", 512, 512, qv="alone", qheads_per_kvhead=2, shape=Shape(1, 2, 20, 200)),
    replace(_DENSE, aux_tensors=(AuxTensor("int32", ("batch", "heads", "seqlen_q"), (0,)),), aux_scalars=("int",)),
]


def _layouts(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.requires_grad
    return tuple(map(_layouts, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("variant", _KINDS, ids=str)
def test_arguments_with_values_have_the_layouts_that_a_plan_asks_with(variant: Variant) -> None:
    name, planned = CallBuilder(torch, _PACKAGE, FlashRecognizer(_PACKAGE), "meta").build(
        variant, variant.tile is not None
    )
    other, made = Values(torch, _PACKAGE, variant, 0, "cpu").build(variant, variant.tile is not None)
    assert other == name
    assert {key: _layouts(value) for key, value in made.items()} == {key: _layouts(one) for key, one in planned.items()}


def test_values_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    one, same, other = (Values(torch, _PACKAGE, _DENSE, seed, "cpu").build(_DENSE, False)[1]["q"] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_call_of_a_manifest_is_the_call_of_the_spec_again() -> None:
    seen = 0
    for path in shipped_specs().values():
        for variant in read_spec(path, target_book()).variants:
            call = DEFAULT.sized(variant, {}) if DEFAULT.ranges(variant) else variant
            assert variant_of(DEFAULT, call.render()) == call
            seen += 1
    for variant in _KINDS:
        assert variant_of(DEFAULT, variant.render()) == variant
    assert seen > 500


# A call, compared: FlashAttention is a fake that torch's own attention stands in for


class _OnCpu(RealFlashAttn4):
    device = "cpu"


class _FakeFlashAttention:
    """Fake: attention by torch on the CPU, rounded to the type of the call, and spoiled as a test says."""

    def __init__(self, **spoiled: Any) -> None:
        self._spoiled = spoiled
        self.calls = 0

    def flash_attn_func(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, None]:
        self.calls += 1
        if self.calls in self._spoiled.get("calls", (1, 2)):
            k = self._spoiled.get("k", lambda one: one)(k)
        out = _torchs(q.float(), k.float(), v.float(), is_causal=causal).to(q.dtype)
        return self._spoiled.get("out", lambda one: one)(out), None


def _outcome(patch: pytest.MonkeyPatch, fake: _FakeFlashAttention, variant: Variant = _DENSE) -> Any:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "synchronize", lambda: None)
    real = _OnCpu(_PACKAGE)
    patch.setattr(real, "_interface", fake)
    return real.make(Call(variant), 0)


def test_call_that_is_right_is_within_the_tolerance_and_was_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _FakeFlashAttention()
    outcome = _outcome(monkeypatch, fake)
    assert outcome.errors.keys() == {"out", "dq", "dk", "dv"}
    assert 1e-4 < max(outcome.errors.values()) < outcome.tolerance == 5e-3
    assert (outcome.fault, outcome.not_compared, fake.calls) == ("", "", 2)


@pytest.mark.parametrize("calls", [(1,), (2,)])
def test_call_that_is_wrong_once_is_off_by_its_error(monkeypatch: pytest.MonkeyPatch, calls: tuple[int, ...]) -> None:
    fake = _FakeFlashAttention(calls=calls, k=lambda k: k.flip(1))
    outcome = _outcome(monkeypatch, fake)
    assert "out is off by" in outcome.fault
    assert "dk is off by" in outcome.fault
    assert outcome.errors["out"] > 0.1


def test_call_whose_gradient_alone_is_wrong_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _FakeFlashAttention(k=lambda k: k + 0.5 * (k - k.detach()))
    outcome = _outcome(monkeypatch, fake)
    assert outcome.fault.startswith("dk is off by 5.0e-01")
    assert ";" not in outcome.fault


def test_call_that_returns_no_number_is_at_fault_compared_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _FakeFlashAttention(out=lambda out: out.index_fill(1, torch.tensor([7]), float("nan")))
    assert "out is not finite" in _outcome(monkeypatch, fake).fault
    monkeypatch.setattr("fa4_precompile.providers.fa4.expected.MOST_SCORES", 10)
    outcome = _outcome(monkeypatch, _FakeFlashAttention(out=lambda out: out * float("inf")))
    assert "out is not finite" in outcome.fault
    assert outcome.errors == {}


def test_call_that_is_too_large_for_a_reference_runs_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fa4_precompile.providers.fa4.expected.MOST_SCORES", 10)
    outcome = _outcome(monkeypatch, _FakeFlashAttention())
    assert (outcome.errors, outcome.tolerance, outcome.fault) == ({}, None, "")
    assert "memory" in outcome.not_compared
