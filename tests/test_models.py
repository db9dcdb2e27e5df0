"""What is read of a model's `config.json`, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_configs import CONFIGS, Config, write_config

from checkout import ROOT
from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.models.attention import Layers, Model, dtype_of, read_model
from fa4_precompile.precompile.models.config import MAX_BYTES, read_models
from fa4_precompile.precompile.models.families import FAMILIES, PARTS
from fa4_precompile.providers.layers import Attention, Latent

_LLAMA = CONFIGS["Llama-3.1-8B"]


def _read(folder: Path, config: Config, read_as: str | None = None) -> Model:
    (file,) = read_models([write_config(folder, "a-model", config)])
    return read_model(file, read_as)


def _without(config: Config, *names: str, **changes: object) -> dict[str, object]:
    return {name: value for name, value in config.items() if name not in names} | changes


def _error(folder: Path, config: Config) -> SpecError:
    with pytest.raises(SpecError) as caught:
        _read(folder, config)
    assert caught.value.source == str(folder / "a-model" / "config.json")
    return caught.value


def _windows(model: Model) -> list[tuple[int, object]]:
    return [(layers.number, layers.attention.window) for layers in model.layers]


# Published configurations

_LLAMA_8B = Attention(32, 8, 128, 128, longest=131072)
_GEMMA_2 = Attention(16, 8, 256, 256, softcap=50.0, longest=8192)
_GEMMA_3 = Attention(16, 8, 256, 256)
_GPT_OSS = Attention(64, 8, 64, 64, sink=True, longest=131072)

_PUBLISHED = {
    "Llama-3.1-8B": [(32, _LLAMA_8B)],
    "Llama-3.1-70B": [(80, Attention(64, 8, 128, 128, longest=131072))],
    "Qwen2.5-7B": [(28, Attention(28, 4, 128, 128, longest=131072))],
    "Qwen3-8B": [(36, Attention(32, 8, 128, 128, longest=40960))],
    "Qwen3-32B": [(64, Attention(64, 8, 128, 128, longest=40960))],
    "Mistral-7B-v0.1": [(32, Attention(32, 8, 128, 128, window=(4095, 0), longest=32768))],
    "gemma-2-9b": [
        (21, _GEMMA_2),
        (21, Attention(16, 8, 256, 256, window=(4095, 0), softcap=50.0, longest=8192)),
    ],
    "gemma-3-12b-it": [
        (8, _GEMMA_3),
        (40, Attention(16, 8, 256, 256, window=(1023, 0))),
        (27, Attention(16, 16, 72, 72, causal=False, is_encoder=True, longest=64 * 64 + 1)),
    ],
    "DeepSeek-V3": [(61, Attention(128, 128, 192, 128, latent=Latent(512, 64), longest=163840))],
    "gpt-oss-20b": [
        (12, _GPT_OSS),
        (12, Attention(64, 8, 64, 64, window=(127, 0), sink=True, longest=131072)),
    ],
    "Phi-3-mini-4k-instruct": [(32, Attention(32, 32, 96, 96, window=(2046, 0), longest=4096))],
    "OLMo-2-1124-7B": [(32, Attention(32, 32, 128, 128, longest=4096))],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_configuration_is_read_whole(tmp_path: Path, name: str) -> None:
    (file,) = read_models([write_config(tmp_path, name)])
    model = read_model(file)
    assert model.layers == [Layers(name, number, attention) for number, attention in _PUBLISHED[name]]
    assert (model.notes, model.left_out) == ([], [])


def test_softcap_is_the_number_that_the_file_has(tmp_path: Path) -> None:
    model = _read(tmp_path, _without(CONFIGS["gemma-2-9b"], attn_logit_softcapping=50))
    assert [type(layers.attention.softcap) for layers in model.layers] == [int, int]


def test_model_is_called_by_its_folder_or_by_the_name_that_the_file_says(tmp_path: Path) -> None:
    assert _read(tmp_path, _LLAMA).name == "a-model"
    assert _read(tmp_path, {**_LLAMA, "_name_or_path": "meta-llama/Llama-3.1-8B/"}).name == "Llama-3.1-8B"
    (tmp_path / "mine.json").write_text(json.dumps(_LLAMA))
    assert read_models([tmp_path / "mine.json"])[0].name == "mine"


# Windows


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 20}, [(20, None), (8, (99, 0))]),
        ({"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 28}, [(28, None)]),
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 2}, [(28, None)]),
        ({"use_sliding_window": True, "sliding_window": 9, "max_window_layers": None}, [(28, (8, 0))]),
        ({"use_sliding_window": False, "sliding_window": 100, "max_window_layers": 2}, [(28, None)]),
        ({"sliding_window": 9, "layer_types": ["sliding_attention"] * 28}, [(28, (8, 0))]),
    ],
    ids=str,
)
def test_window_of_qwen_is_that_of_the_late_layers_if_it_is_used(
    tmp_path: Path, changes: Config, windows: list[tuple[int, object]]
) -> None:
    assert _windows(_read(tmp_path, {**CONFIGS["Qwen2.5-7B"], **changes})) == windows


@pytest.mark.parametrize(
    ("layers", "pattern", "windows"),
    [
        (12, None, [(2, None), (10, (4095, 0))]),
        (5, None, [(5, (4095, 0))]),
        (6, 2, [(3, None), (3, (4095, 0))]),
        (3, 1, [(3, None)]),
    ],
)
def test_window_by_a_pattern_leaves_each_sixth_layer_of_gemma_3(
    tmp_path: Path, layers: int, pattern: int | None, windows: list[tuple[int, object]]
) -> None:
    config = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": layers}
    said = {} if pattern is None else {"sliding_window_pattern": pattern}
    assert _windows(_read(tmp_path, {**config, **said})) == windows


def test_window_of_an_encoder_goes_to_both_sides(tmp_path: Path) -> None:
    config = {"model_type": "modernbert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 22}
    model = _read(tmp_path, config)
    assert _windows(model) == [(8, None), (14, (64, 64))]
    assert not any(layers.attention.causal for layers in model.layers)


def test_window_that_is_not_said_is_an_error_where_layers_have_one(tmp_path: Path) -> None:
    error = _error(tmp_path, _without(CONFIGS["gpt-oss-20b"], sliding_window=None))
    assert error.message == "`sliding_window` is not there or null, and 12 layers have a window"


def test_layers_of_other_kinds_are_noted_or_left_out(tmp_path: Path) -> None:
    kinds = ["linear_attention"] * 20 + ["chunked_attention"] * 5 + ["full_attention"] * 3
    model = _read(tmp_path, {**CONFIGS["Qwen2.5-7B"], "layer_types": kinds})
    file = tmp_path / "a-model" / "config.json"
    assert _windows(model) == [(3, None)]
    assert model.notes == [f"`{file}`: 20 layers of `linear_attention` are no attention that a spec has"]
    assert model.left_out == [f"`{file}`: 5 layers of `chunked_attention`: no axis says that"]


# What is missing, odd, unknown


@pytest.mark.parametrize(
    ("name", "field", "what"),
    [
        ("Llama-3.1-8B", "num_attention_heads", "the number of heads of Q"),
        ("Llama-3.1-8B", "num_hidden_layers", "the number of layers"),
        ("Llama-3.1-8B", "hidden_size", "by which and the number of heads a head has its columns"),
        ("DeepSeek-V3", "kv_lora_rank", "of which columns of Q, K and V are made"),
        ("DeepSeek-V3", "v_head_dim", "of which columns of Q, K and V are made"),
    ],
)
def test_field_that_is_missing_is_named_with_its_file(tmp_path: Path, name: str, field: str, what: str) -> None:
    error = _error(tmp_path, _without(CONFIGS[name], field))
    kind = CONFIGS[name]["model_type"]
    assert error.message == f"there is no `{field}`, {what}, which nothing else tells for the model type `{kind}`"
    assert "use_diff=False" in error.hint


def test_field_that_is_missing_in_a_part_is_named_with_the_part(tmp_path: Path) -> None:
    vision = {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_hidden_layers": 27}
    config = {**CONFIGS["gemma-3-12b-it"], "vision_config": vision}
    assert "there is no `vision_config.num_attention_heads`, the number of heads" in _error(tmp_path, config).message


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_attention_heads", 0, "`num_attention_heads` can't be `0`"),
        ("num_attention_heads", "32", '`num_attention_heads` can\'t be `"32"`'),
        ("num_attention_heads", True, "`num_attention_heads` can't be `true`"),
        ("num_key_value_heads", 5, "`num_attention_heads` 32 is no multiple of `num_key_value_heads` 5"),
        (
            "hidden_size",
            4100,
            "`hidden_size` 4100 is no multiple of `num_attention_heads` 32, and there is no `head_dim`",
        ),
        ("model_type", None, "there is no `model_type`"),
        ("attention_dropout", "none", '`attention_dropout` can\'t be `"none"`'),
    ],
)
def test_field_that_can_not_be_meant_is_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    assert _error(tmp_path, {**_LLAMA, field: value}).message == message


@pytest.mark.parametrize(("field", "value"), [("attn_logit_softcapping", -1), ("layer_types", "full_attention")])
def test_field_of_gemma_that_can_not_be_meant_is_named(tmp_path: Path, field: str, value: object) -> None:
    error = _error(tmp_path, {**CONFIGS["gemma-2-9b"], field: value})
    assert error.message == f"`{field}` can't be `{json.dumps(value)}`"


def test_part_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    assert _error(tmp_path, {**CONFIGS["gemma-3-12b-it"], "text_config": 3}).message == "`text_config` can't be `3`"


def test_model_type_that_is_not_known_is_named_with_the_nearest(tmp_path: Path) -> None:
    error = _error(tmp_path, {**_LLAMA, "model_type": "llamma"})
    assert error.message == "the model type `llamma` is not known"
    assert error.hint.startswith("if it attends as a known one, say `--as MODEL_TYPE`; did you mean `llama`?")


def test_model_type_that_is_not_known_is_read_as_one_that_is_said(tmp_path: Path) -> None:
    config = {**_LLAMA, "model_type": "mine"}
    assert _read(tmp_path, config, "llama").layers == [Layers("a-model", 32, _LLAMA_8B)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_sinks", 4),
        ("sliding_window", 512),
        ("index_topk", 2048),
        ("alibi", True),
        ("audio_config", {"a": 1}),
    ],
)
def test_field_that_is_not_read_and_sounds_as_if_it_mattered_is_said(tmp_path: Path, field: str, value: object) -> None:
    model = _read(tmp_path, {**_LLAMA, field: value})
    file = tmp_path / "a-model" / "config.json"
    assert model.notes == [f"`{file}`: not read, and it may matter: {field}: `{json.dumps(value)}`"]


@pytest.mark.parametrize("value", [None, False, 0, [], {}, ""], ids=str)
def test_field_that_says_nothing_is_not_mentioned(tmp_path: Path, value: object) -> None:
    assert _read(tmp_path, {**_LLAMA, "sliding_window": value}).notes == []


@pytest.mark.parametrize("field", ["attention_dropout", "attention_probs_dropout_prob"])
def test_dropout_is_said(tmp_path: Path, field: str) -> None:
    file = tmp_path / "a-model" / "config.json"
    assert _read(tmp_path, {**_LLAMA, field: 0.1}).notes == [f"`{file}`: `{field}` is 0.1: no call has dropout"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "this is not JSON: Expecting property name enclosed in double quotes"),
        (b'{\n"a": 1\n"b"', "this is not JSON: Expecting ',' delimiter"),
        (b"[1]", "a configuration is a JSON object, found `[1]`"),
        (b"\xff\xfe\xff", "this is not JSON"),
        (b"[" * 100_000, "this is not JSON"),
        (b" " * (MAX_BYTES + 1), f"has more than {MAX_BYTES:,} bytes, which no configuration has"),
    ],
    ids=["brace", "comma", "list", "bytes", "depth", "size"],
)
def test_file_that_is_no_configuration_is_an_error(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(SpecError) as caught:
        read_models([tmp_path])
    assert caught.value.message == message


def test_place_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read: No such file"):
        read_models([tmp_path])


# Types


def test_dtype_is_that_of_all_models(tmp_path: Path) -> None:
    llama = _read(tmp_path, _LLAMA)
    assert dtype_of([llama, llama]) == "bf16"
    half = _read(tmp_path, _without(_LLAMA, "torch_dtype", dtype="float16"))
    with pytest.raises(SpecError, match="its type is fp16, and that of"):
        dtype_of([llama, half])


@pytest.mark.parametrize("said", [{}, {"torch_dtype": "float32"}, {"torch_dtype": None}], ids=str)
def test_dtype_that_no_kernel_has_is_to_be_said(tmp_path: Path, said: Config) -> None:
    with pytest.raises(SpecError, match="no `dtype` or `torch_dtype` of 16 bits") as caught:
        dtype_of([_read(tmp_path, _without(_LLAMA, "torch_dtype", **said))])
    assert caught.value.hint == "say it: `--dtype bf16`"


def test_dtype_of_a_part_is_taken_where_the_whole_says_none(tmp_path: Path) -> None:
    config = CONFIGS["gemma-3-12b-it"]
    text = config["text_config"]
    assert isinstance(text, dict)
    inner = _without(config, "torch_dtype", text_config={**text, "torch_dtype": "float16"})
    assert _read(tmp_path, inner).dtype == "fp16"


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
    model = _read(tmp_path, {**_HYBRID, **said})
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
    model = _read(tmp_path, {**_GEMMA_4, **said})
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
    model = _read(tmp_path, {**mistral, "per_layer_config": changed})
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
    error = _error(tmp_path, {**_LLAMA, "per_layer_config": value})
    assert error.message.startswith("`per_layer_config` can't be")


def test_heads_of_their_own_that_can_not_be_divided_are_named(tmp_path: Path) -> None:
    error = _error(tmp_path, {**_LLAMA, "per_layer_config": {"3": {"num_key_value_heads": 5}}})
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
    model = _read(tmp_path, {"hidden_size": 2048, "num_hidden_layers": 12, **heads, "model_type": kind, **said})
    assert model.layers == [Layers("a-model", number, attention) for number, attention in layers]
    assert [note for note in model.notes if "are no attention that a spec has" not in note] == []
    assert not model.left_out


def test_kimi_is_deepseek_with_a_tower_for_images(tmp_path: Path) -> None:
    text = {"model_type": "kimi_k2", "num_attention_heads": 64, "num_hidden_layers": 61, "kv_lora_rank": 512}
    dims = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    model = _read(tmp_path, {"model_type": "kimi_k25", "text_config": {**text, **dims}, "vision_config": {}})
    assert [(layers.number, layers.attention) for layers in model.layers] == [
        (61, Attention(64, 64, 192, 128, latent=Latent(512, 64))),
        (27, Attention(16, 16, 72, 72, causal=False, is_encoder=True, is_packed=True)),
    ]


def test_window_of_layers_that_nothing_names_is_an_error(tmp_path: Path) -> None:
    error = _error(tmp_path, {**_LLAMA, "model_type": "qwen2_moe", "use_sliding_window": True, "sliding_window": 4096})
    assert error.message == "`use_sliding_window` is true, and nothing says which layers have a window"
    assert "add `layer_types`" in error.hint


def test_type_whose_layers_only_a_file_can_say_wants_them(tmp_path: Path) -> None:
    error = _error(tmp_path, {**_LLAMA, "model_type": "granitemoehybrid"})
    assert error.message.startswith("there is no `layer_types`")


@pytest.mark.parametrize(("said", "sees_all"), [(True, True), ("all", True), ("vision", False), (False, False)])
def test_decoder_that_sees_all_is_read_as_an_encoder(tmp_path: Path, said: object, sees_all: bool) -> None:
    model = _read(tmp_path, {**_GEMMA_4, "use_bidirectional_attention": said})
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
    model = _read(tmp_path, granite)
    assert [layers.number for layers in model.layers] == [1]
    assert "3 layers of `mamba` are no attention" in model.notes[0]


@pytest.mark.parametrize(("whole", "read_as"), [("qwen3_vl", None), ("my_vl", "qwen3_vl")])
def test_part_that_is_called_as_the_whole_is_read_as_the_usual_one(
    tmp_path: Path, whole: str, read_as: str | None
) -> None:
    vision = {"model_type": whole, "depth": 27, "hidden_size": 1152, "num_heads": 16}
    text = {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    model = _read(tmp_path, {"model_type": whole, "text_config": text, "vision_config": vision}, read_as)
    assert [layers.attention for layers in model.layers] == [
        Attention(32, 8, 128, 128),
        Attention(16, 16, 72, 72, causal=False, is_encoder=True, is_packed=True),
    ]


# The table


def test_families_of_which_models_are_made_are_there() -> None:
    assert {kind for parts in PARTS.values() for kind in parts.values()} <= FAMILIES.keys()


def test_late_layers_are_known_where_a_file_does_not_say_which(tmp_path: Path) -> None:
    config = _without(CONFIGS["Qwen2.5-7B"], "max_window_layers", num_hidden_layers=30, use_sliding_window=True)
    assert _windows(_read(tmp_path, config)) == [(28, None), (2, (131071, 0))]


def test_document_has_each_model_type() -> None:
    page = (ROOT / "docs" / "reference" / "models.md").read_text()
    assert [kind for kind in [*FAMILIES, *PARTS] if f"`{kind}`" not in page] == []
