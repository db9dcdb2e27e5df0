"""Which calls of FlashAttention a model's layers come to, by the use of a job; nothing is asked."""

from __future__ import annotations

from typing import Any

import pytest

from fa4_precompile.errors import UsageError
from fa4_precompile.providers.layers import Attention, Latent, Purpose, Use
from fa4_precompile.providers.registry import DEFAULT

_LLAMA = Attention(32, 8, 128, 128, longest=131072)
_MISTRAL = Attention(32, 8, 128, 128, window=(4095, 0), longest=32768)
_DEEPSEEK = Attention(128, 128, 192, 128, latent=Latent(512, 64), longest=163840)
_TOWER = Attention(16, 16, 72, 72, causal=False, is_encoder=True, longest=4097)


def _calls(attention: Attention, purpose: Purpose = "training", dtype: str = "bf16", **changes: Any) -> list[Any]:
    """Return calls without what is at its default."""
    calls = DEFAULT.calls_of(attention, Use(purpose, dtype, **changes))
    return [
        {
            name: value
            for name, value in call.items()
            if value is not None and value is not False and (name, value) != ("num_splits", 1)
        }
        for call in calls
    ]


def _shape(heads: int, q: object, k: object, batch: object = "1..256") -> dict[str, object]:
    return {"batch": batch, "heads": heads, "seqlen_q": q, "seqlen_k": k}


def test_training_step_of_a_decoder_leaves_sizes_open_up_to_what_the_model_takes() -> None:
    assert _calls(_MISTRAL) == [
        {
            "pass": "bwd",
            "dtype": "bf16",
            "head_dim": 128,
            "causal": True,
            "qheads_per_kvhead": 4,
            "window": [4095, 0],
            "shape": _shape(32, "1..32768", "1..32768"),
            "shapes": "closure",
        }
    ]


def test_sizes_that_are_said_are_listed() -> None:
    calls = _calls(_LLAMA, batch=(1, 8), seqlen=(4096,))
    assert [call["shape"] for call in calls] == [_shape(32, 4096, 4096, 1), _shape(32, 4096, 4096, 8)]
    assert not any("shapes" in call for call in calls)


def test_length_of_a_model_that_takes_more_ends_at_the_open_range_of_a_spec() -> None:
    (call,) = _calls(_DEEPSEEK)
    assert call["shape"] == _shape(128, "1..131072", "1..131072")


@pytest.mark.parametrize(
    ("packing", "varlen"), [("no", [None]), ("yes", [True]), ("both", [None, True])], ids=["no", "yes", "both"]
)
def test_packing_is_varlen(packing: str, varlen: list[object]) -> None:
    assert [call.get("varlen") for call in _calls(_LLAMA, packing=packing)] == varlen


@pytest.mark.parametrize(("gpus", "heads", "ratio"), [(1, 32, 4), (2, 16, 4), (8, 4, 4), (16, 2, 2), (32, 1, 1)])
def test_tensor_parallel_divides_heads_and_repeats_those_of_k(gpus: int, heads: int, ratio: int) -> None:
    (call,) = _calls(_LLAMA, tensor_parallel=gpus)
    assert (call["shape"]["heads"], call["qheads_per_kvhead"]) == (heads, ratio)


@pytest.mark.parametrize(("gpus", "heads"), [(3, 32), (64, 32)])
def test_tensor_parallel_that_heads_can_not_be_divided_among_is_an_error(gpus: int, heads: int) -> None:
    with pytest.raises(UsageError, match=f"{heads} heads can't be divided among {gpus} GPUs"):
        _calls(_LLAMA, tensor_parallel=gpus)


def test_heads_of_k_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(UsageError, match="8 heads can't be divided among 12 GPUs"):
        _calls(Attention(48, 8, 128, 128), tensor_parallel=12)


def test_decode_has_one_row_of_q_and_prefill_fewer_than_k_or_as_many() -> None:
    (prefill,) = _calls(_LLAMA, "prefill", seqlen=("512..8192",))
    (decode,) = _calls(_LLAMA, "decode", seqlen=("512..8192",))
    assert prefill["shape"] == _shape(32, "1..8192", "512..8192")
    assert decode["shape"] == _shape(32, 1, "512..8192")
    assert {prefill["pass"], decode["pass"]} == {"fwd"}


@pytest.mark.parametrize(("packing", "varlen"), [("yes", "q"), ("no", None)])
def test_pages_have_lengths_of_k_in_a_tensor(packing: str, varlen: str | None) -> None:
    for purpose in ("prefill", "decode"):
        (call,) = _calls(_LLAMA, purpose, packing=packing, page=64)
        assert (call.get("varlen"), call["seqused"], call["paged_kv"]) == (varlen, "k", 64)


def test_pages_and_splits_are_for_serving_only() -> None:
    assert _calls(_LLAMA, page=64, num_splits=(0, 4)) == _calls(_LLAMA)
    assert [call["num_splits"] for call in _calls(_LLAMA, "decode", num_splits=(0, 4))] == [0, 4]


def test_deterministic_is_of_the_backward() -> None:
    assert _calls(_LLAMA, deterministic=True)[0]["deterministic"]
    assert _calls(_LLAMA, "evaluation", deterministic=True) == _calls(_LLAMA, "evaluation")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sinks_have_the_type_of_q(dtype: str) -> None:
    (call,) = _calls(Attention(64, 8, 64, 64, sink=True), dtype=dtype)
    assert call["sink"] == dtype


def test_latent_attention_is_expanded_but_for_decoding() -> None:
    for purpose in ("training", "evaluation", "prefill"):
        (call,) = _calls(_DEEPSEEK, purpose, tensor_parallel=8)
        assert (call["head_dim"], call["qheads_per_kvhead"], call["shape"]["heads"]) == ([192, 128], 1, 16)
    (decode,) = _calls(_DEEPSEEK, "decode", tensor_parallel=8)
    assert (decode["head_dim"], decode["qv"]) == ([64, 512], "with-q")
    assert (decode["qheads_per_kvhead"], decode["shape"]) == (16, _shape(16, 1, "1..131072"))


def test_encoder_has_no_cache() -> None:
    assert _calls(_TOWER, "decode") == []
    assert _calls(_TOWER, "prefill", page=64, num_splits=(0,)) == _calls(_TOWER, "evaluation")
    (call,) = _calls(_TOWER, "evaluation")
    assert "causal" not in call
    assert call["shape"] == _shape(16, "1..4097", "1..4097")


def test_encoder_of_images_of_several_sizes_is_packed() -> None:
    packed = Attention(16, 16, 80, 80, causal=False, is_encoder=True, is_packed=True)
    assert [call["varlen"] for call in _calls(packed)] == [True]


# Who makes the calls


def test_transformers_leaves_a_window_out_that_no_sequence_is_longer_than() -> None:
    wide, narrow = _calls(_MISTRAL, framework="transformers")
    assert (wide["window"], wide["shape"]["seqlen_k"]) == ([4095, 0], "4097..32768")
    assert ("window" in narrow, narrow["shape"]["seqlen_k"]) == (False, "1..4096")
    short, long = (_calls(_MISTRAL, framework="transformers", seqlen=(size,)) for size in (4096, 4097))
    assert ["window" in call for call in [*short, *long]] == [False, True]


def test_transformers_may_want_the_gradient_of_sinks_in_a_forward_alone() -> None:
    sinks = Attention(64, 8, 64, 64, sink=True)
    for purpose in ("evaluation", "prefill", "decode"):
        assert [call.get("return_lse") for call in _calls(sinks, purpose, framework="transformers")] == [None, True]
        assert [call.get("return_lse") for call in _calls(sinks, purpose)] == [None]
    assert [call.get("return_lse") for call in _calls(sinks, framework="transformers")] == [None]


def test_transformers_keeps_as_many_rows_as_a_window_sees() -> None:
    calls = _calls(_MISTRAL, "decode", framework="transformers", seqlen=(1000, 8192, 10000))
    assert [(call["shape"]["seqlen_k"], "window" in call) for call in calls] == [
        *((8192, True), (10000, True)),
        *((1000, False), (4096, False)),
    ]


def test_transformers_pads_v_and_expands_latent_attention_in_decoding_too() -> None:
    for purpose in ("training", "decode"):
        (call,) = _calls(_DEEPSEEK, purpose, framework="transformers")
        assert call["head_dim"] == 192
        assert "qv" not in call


def test_vllm_serves_in_pages_with_splits_of_its_own() -> None:
    calls = _calls(_LLAMA, "decode", framework="vllm")
    assert [(call["varlen"], call["seqused"], call["paged_kv"], call["num_splits"]) for call in calls] == [
        ("q", "k", 16, 0),
        ("q", "k", 16, 32),
    ]
    assert {call["paged_kv"] for call in _calls(_LLAMA, "decode", framework="vllm", page=64)} == {64}
    assert {call["paged_kv"] for call in _calls(Attention(16, 8, 256, 256), "decode", framework="vllm")} == {128}


def test_vllm_prefills_latent_attention_in_parts_and_decodes_it_elsewhere() -> None:
    calls = _calls(_DEEPSEEK, "prefill", framework="vllm")
    ways = [(call.get("causal", False), call.get("return_lse", False)) for call in calls]
    assert sorted(ways) == [(False, False), (False, True), (True, False), (True, True)]
    assert {(tuple(call["head_dim"]), call["varlen"], call["num_splits"]) for call in calls} == {((192, 128), True, 0)}
    assert _calls(_DEEPSEEK, "decode", framework="vllm") == []


def test_what_is_refused_is_tried_with_the_backward_for_all_head_dims() -> None:
    (step,) = DEFAULT.calls_of(_LLAMA, Use("training", "bf16"))
    (forward,) = DEFAULT.calls_of(_LLAMA, Use("evaluation", "bf16"))
    assert DEFAULT.instead(step) == [{**step, "backend": "generic"}]
    assert DEFAULT.instead(DEFAULT.instead(step)[0]) == []
    assert DEFAULT.instead(forward) == []
