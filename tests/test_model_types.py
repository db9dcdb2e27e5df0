"""How each type of model is read: which layers attend, and by which heads; what single layers have of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_configs import CONFIGS, Config, config_error, read_config

from fa4_precompile.precompile.models.attention import Layers
from fa4_precompile.providers.layers import Attention, Latent

_LLAMA = CONFIGS["Llama-3.1-8B"]


_HYBRID = {
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "max_position_embeddings": 262144,
}


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ({}, 12),
        ({"full_attention_interval": 6}, 8),
        ({"layer_types": ["linear_attention", "full_attention"] * 24}, 24),
    ],
    ids=["default", "interval", "types"],
)
def test_linear_attention_between_is_noted(tmp_path: Path, said: Config, full: int) -> None:
    model = read_config(tmp_path, {**_HYBRID, **said})
    assert model.layers == [Layers("a-model", full, Attention(16, 2, 256, 256, longest=262144))]
    (note,) = model.notes
    assert f"{48 - full} layers of `linear_attention` are no attention" in note
    assert not model.left_out


_GEMMA_4 = {
    "model_type": "gemma4_text",
    "hidden_size": 2304,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


@pytest.mark.parametrize(
    ("said", "heads", "dim"),
    [
        ({}, 4, 512),
        ({"global_head_dim": 128, "num_global_key_value_heads": None, "attention_k_eq_v": True}, 4, 128),
        ({"num_global_key_value_heads": 1, "attention_k_eq_v": True}, 1, 512),
        ({"num_global_key_value_heads": 1, "attention_k_eq_v": False}, 4, 512),
        ({"per_layer_config": {layer: {"head_dim": 64, "num_key_value_heads": 2} for layer in ("05", "11")}}, 2, 64),
    ],
    ids=["default", "head_dim", "heads", "no flag", "by layer"],
)
def test_layers_without_a_window_have_heads_of_their_own(tmp_path: Path, said: Config, heads: int, dim: int) -> None:
    model = read_config(tmp_path, {**_GEMMA_4, **said})
    assert model.layers == [
        Layers("a-model", 2, Attention(8, heads, dim, dim)),
        Layers("a-model", 10, Attention(8, 4, 256, 256, window=(511, 0))),
    ]
    assert not model.notes


def test_layers_of_one_kind_with_fields_of_their_own_are_two(tmp_path: Path) -> None:
    changed = {
        "1": {"num_key_value_heads": 4},
        "2": {"num_attention_heads": 16, "head_dim": 64},
        "4": {"sliding_window": 9},
    }
    mistral = {**_LLAMA, "model_type": "mistral", "sliding_window": 99, "num_hidden_layers": 5}
    model = read_config(tmp_path, {**mistral, "per_layer_config": changed})
    found = {
        (one.number, one.attention.heads, one.attention.kv_heads, one.attention.head_dim, one.attention.window)
        for one in model.layers
    }
    assert found == {
        (2, 32, 8, 128, (98, 0)),
        (1, 32, 4, 128, (98, 0)),
        (1, 16, 8, 64, (98, 0)),
        (1, 32, 8, 128, (8, 0)),
    }


@pytest.mark.parametrize("value", [1, {"x": {}}, {"1": 2}], ids=repr)
def test_fields_by_layer_that_can_not_be_meant_are_named(tmp_path: Path, value: object) -> None:
    error = config_error(tmp_path, {**_LLAMA, "per_layer_config": value})
    assert error.message.startswith("`per_layer_config` can't be")


def test_heads_of_their_own_that_can_not_be_divided_are_named(tmp_path: Path) -> None:
    error = config_error(tmp_path, {**_LLAMA, "per_layer_config": {"3": {"num_key_value_heads": 5}}})
    assert error.message == "`num_attention_heads` 32 is no multiple of `num_key_value_heads` 5"


_TYPES: dict[str, tuple[Config, list[tuple[int, Attention]]]] = {
    "qwen3_5_text": ({}, [(3, Attention(16, 4, 256, 256))]),
    "qwen3_5_moe_text": ({}, [(3, Attention(16, 2, 256, 256))]),
    "qwen3_vl_text": ({"num_attention_heads": 32}, [(12, Attention(32, 32, 128, 128))]),
    "qwen3_vl_moe_text": ({"hidden_size": 1024}, [(12, Attention(16, 16, 64, 64))]),
    "qwen2_moe": ({"use_sliding_window": False, "sliding_window": 4096}, [(12, Attention(16, 16, 128, 128))]),
    "smollm3": ({"layer_types": ["full_attention"] * 12}, [(12, Attention(16, 4, 128, 128))]),
    "minimax_m2": ({}, [(12, Attention(16, 8, 128, 128))]),
    "seed_oss": ({}, [(12, Attention(16, 8, 128, 128))]),
    "ernie4_5": ({"hidden_size": 1024}, [(12, Attention(16, 2, 128, 128))]),
    "phimoe": ({}, [(12, Attention(16, 8, 128, 128))]),
    "ministral3": ({"sliding_window": 4096}, [(12, Attention(16, 8, 128, 128, window=(4095, 0)))]),
    "gemma4_unified_text": (
        {"num_attention_heads": 8, "global_head_dim": 256},
        [(2, Attention(8, 4, 256, 256)), (10, Attention(8, 4, 256, 256, window=(1023, 0)))],
    ),
    "exaone4": ({}, [(3, Attention(16, 16, 128, 128)), (9, Attention(16, 16, 128, 128, window=(4095, 0)))]),
    "granitemoehybrid": (
        {"layer_types": ["mamba", "attention"] * 6, "mamba_d_head": 64},
        [(6, Attention(16, 16, 128, 128))],
    ),
    "glm4_moe_lite": ({}, [(12, Attention(16, 16, 256, 256, latent=Latent(512, 64)))]),
    "qwen3_5_vision": (
        {"num_heads": 16, "depth": 27, "hidden_size": 1152},
        [(27, Attention(16, 16, 72, 72, causal=False, is_encoder=True, is_packed=True))],
    ),
    "gemma4_vision": (
        {"num_attention_heads": 12, "hidden_size": 768},
        [(12, Attention(12, 12, 64, 64, causal=False, is_encoder=True, is_packed=True))],
    ),
}


@pytest.mark.parametrize("kind", _TYPES)
def test_type_is_read_as_its_class_is(tmp_path: Path, kind: str) -> None:
    said, layers = _TYPES[kind]
    heads = {} if kind == "qwen3_5_vision" else {"num_attention_heads": 16}
    model = read_config(tmp_path, {"hidden_size": 2048, "num_hidden_layers": 12, **heads, "model_type": kind, **said})
    assert model.layers == [Layers("a-model", number, attention) for number, attention in layers]
    assert [note for note in model.notes if "are no attention that a spec has" not in note] == []
    assert not model.left_out


def test_kimi_is_deepseek_with_a_tower_for_images(tmp_path: Path) -> None:
    text = {"model_type": "kimi_k2", "num_attention_heads": 64, "num_hidden_layers": 61, "kv_lora_rank": 512}
    dims = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    model = read_config(tmp_path, {"model_type": "kimi_k25", "text_config": {**text, **dims}, "vision_config": {}})
    assert [(layers.number, layers.attention) for layers in model.layers] == [
        (61, Attention(64, 64, 192, 128, latent=Latent(512, 64))),
        (27, Attention(16, 16, 72, 72, causal=False, is_encoder=True, is_packed=True)),
    ]


def test_window_of_layers_that_nothing_names_is_an_error(tmp_path: Path) -> None:
    error = config_error(
        tmp_path, {**_LLAMA, "model_type": "qwen2_moe", "use_sliding_window": True, "sliding_window": 4096}
    )
    assert error.message == "`use_sliding_window` is true, and nothing says which layers have a window"
    assert "add `layer_types`" in error.hint


def test_type_whose_layers_only_a_file_can_say_wants_them(tmp_path: Path) -> None:
    error = config_error(tmp_path, {**_LLAMA, "model_type": "granitemoehybrid"})
    assert error.message.startswith("there is no `layer_types`")


@pytest.mark.parametrize(("said", "sees_all"), [(True, True), ("all", True), ("vision", False), (False, False)])
def test_decoder_that_sees_all_is_read_as_an_encoder(tmp_path: Path, said: object, sees_all: bool) -> None:
    model = read_config(tmp_path, {**_GEMMA_4, "use_bidirectional_attention": said})
    window = (256, 256) if sees_all else (511, 0)
    assert [(one.attention.causal, one.attention.is_encoder, one.attention.window) for one in model.layers] == [
        (not sees_all, sees_all, None),
        (not sees_all, sees_all, window),
    ]
    assert bool(model.notes) == (said == "vision")


def test_layer_types_count_where_a_type_has_no_windows_of_its_own(tmp_path: Path) -> None:
    granite = {
        **_LLAMA,
        "model_type": "granitemoehybrid",
        "num_hidden_layers": 4,
        "layer_types": ["mamba"] * 3 + ["attention"],
    }
    model = read_config(tmp_path, granite)
    assert [layers.number for layers in model.layers] == [1]
    assert "3 layers of `mamba` are no attention" in model.notes[0]


@pytest.mark.parametrize(("whole", "read_as"), [("qwen3_vl", None), ("my_vl", "qwen3_vl")])
def test_part_that_is_called_as_the_whole_is_read_as_the_usual_one(
    tmp_path: Path, whole: str, read_as: str | None
) -> None:
    vision = {"model_type": whole, "depth": 27, "hidden_size": 1152, "num_heads": 16}
    text = {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    model = read_config(tmp_path, {"model_type": whole, "text_config": text, "vision_config": vision}, read_as)
    assert [layers.attention for layers in model.layers] == [
        Attention(32, 8, 128, 128),
        Attention(16, 16, 72, 72, causal=False, is_encoder=True, is_packed=True),
    ]
