"""What is read of a model's `config.json`, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_configs import CONFIGS, Config, config_error, read_config, write_config

from checkout import ROOT
from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.models.attention import Layers, Model, dtype_of, read_model
from fa4_precompile.precompile.models.config import MAX_BYTES, read_models
from fa4_precompile.precompile.models.families import FAMILIES, PARTS
from fa4_precompile.providers.layers import Attention, Latent

_LLAMA = CONFIGS["Llama-3.1-8B"]


def _without(config: Config, *names: str, **changes: object) -> dict[str, object]:
    return {name: value for name, value in config.items() if name not in names} | changes


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
    model = read_config(tmp_path, _without(CONFIGS["gemma-2-9b"], attn_logit_softcapping=50))
    assert [type(layers.attention.softcap) for layers in model.layers] == [int, int]


def test_model_is_called_by_its_folder_or_by_the_name_that_the_file_says(tmp_path: Path) -> None:
    assert read_config(tmp_path, _LLAMA).name == "a-model"
    assert read_config(tmp_path, {**_LLAMA, "_name_or_path": "meta-llama/Llama-3.1-8B/"}).name == "Llama-3.1-8B"
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
    assert _windows(read_config(tmp_path, {**CONFIGS["Qwen2.5-7B"], **changes})) == windows


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
    assert _windows(read_config(tmp_path, {**config, **said})) == windows


def test_window_of_an_encoder_goes_to_both_sides(tmp_path: Path) -> None:
    config = {"model_type": "modernbert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 22}
    model = read_config(tmp_path, config)
    assert _windows(model) == [(8, None), (14, (64, 64))]
    assert not any(layers.attention.causal for layers in model.layers)


def test_window_that_is_not_said_is_an_error_where_layers_have_one(tmp_path: Path) -> None:
    error = config_error(tmp_path, _without(CONFIGS["gpt-oss-20b"], sliding_window=None))
    assert error.message == "`sliding_window` is not there or null, and 12 layers have a window"


def test_layers_of_other_kinds_are_noted_or_left_out(tmp_path: Path) -> None:
    kinds = ["linear_attention"] * 20 + ["chunked_attention"] * 5 + ["full_attention"] * 3
    model = read_config(tmp_path, {**CONFIGS["Qwen2.5-7B"], "layer_types": kinds})
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
    error = config_error(tmp_path, _without(CONFIGS[name], field))
    kind = CONFIGS[name]["model_type"]
    assert error.message == f"there is no `{field}`, {what}, which nothing else tells for the model type `{kind}`"
    assert "use_diff=False" in error.hint


def test_field_that_is_missing_in_a_part_is_named_with_the_part(tmp_path: Path) -> None:
    vision = {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_hidden_layers": 27}
    config = {**CONFIGS["gemma-3-12b-it"], "vision_config": vision}
    assert (
        "there is no `vision_config.num_attention_heads`, the number of heads" in config_error(tmp_path, config).message
    )


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
    assert config_error(tmp_path, {**_LLAMA, field: value}).message == message


@pytest.mark.parametrize(("field", "value"), [("attn_logit_softcapping", -1), ("layer_types", "full_attention")])
def test_field_of_gemma_that_can_not_be_meant_is_named(tmp_path: Path, field: str, value: object) -> None:
    error = config_error(tmp_path, {**CONFIGS["gemma-2-9b"], field: value})
    assert error.message == f"`{field}` can't be `{json.dumps(value)}`"


def test_part_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    assert (
        config_error(tmp_path, {**CONFIGS["gemma-3-12b-it"], "text_config": 3}).message == "`text_config` can't be `3`"
    )


def test_model_type_that_is_not_known_is_named_with_the_nearest(tmp_path: Path) -> None:
    error = config_error(tmp_path, {**_LLAMA, "model_type": "llamma"})
    assert error.message == "the model type `llamma` is not known"
    assert error.hint.startswith("if it attends as a known one, say `--as MODEL_TYPE`; did you mean `llama`?")


def test_model_type_that_is_not_known_is_read_as_one_that_is_said(tmp_path: Path) -> None:
    config = {**_LLAMA, "model_type": "mine"}
    assert read_config(tmp_path, config, "llama").layers == [Layers("a-model", 32, _LLAMA_8B)]


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
    model = read_config(tmp_path, {**_LLAMA, field: value})
    file = tmp_path / "a-model" / "config.json"
    assert model.notes == [f"`{file}`: not read, and it may matter: {field}: `{json.dumps(value)}`"]


@pytest.mark.parametrize("value", [None, False, 0, [], {}, ""], ids=str)
def test_field_that_says_nothing_is_not_mentioned(tmp_path: Path, value: object) -> None:
    assert read_config(tmp_path, {**_LLAMA, "sliding_window": value}).notes == []


@pytest.mark.parametrize("field", ["attention_dropout", "attention_probs_dropout_prob"])
def test_dropout_is_said(tmp_path: Path, field: str) -> None:
    file = tmp_path / "a-model" / "config.json"
    assert read_config(tmp_path, {**_LLAMA, field: 0.1}).notes == [f"`{file}`: `{field}` is 0.1: no call has dropout"]


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
    llama = read_config(tmp_path, _LLAMA)
    assert dtype_of([llama, llama]) == "bf16"
    half = read_config(tmp_path, _without(_LLAMA, "torch_dtype", dtype="float16"))
    with pytest.raises(SpecError, match="its type is fp16, and that of"):
        dtype_of([llama, half])


@pytest.mark.parametrize("said", [{}, {"torch_dtype": "float32"}, {"torch_dtype": None}], ids=str)
def test_dtype_that_no_kernel_has_is_to_be_said(tmp_path: Path, said: Config) -> None:
    with pytest.raises(SpecError, match="no `dtype` or `torch_dtype` of 16 bits") as caught:
        dtype_of([read_config(tmp_path, _without(_LLAMA, "torch_dtype", **said))])
    assert caught.value.hint == "say it: `--dtype bf16`"


def test_dtype_of_a_part_is_taken_where_the_whole_says_none(tmp_path: Path) -> None:
    config = CONFIGS["gemma-3-12b-it"]
    text = config["text_config"]
    assert isinstance(text, dict)
    inner = _without(config, "torch_dtype", text_config={**text, "torch_dtype": "float16"})
    assert read_config(tmp_path, inner).dtype == "fp16"


# The table


def test_families_of_which_models_are_made_are_there() -> None:
    assert {kind for parts in PARTS.values() for kind in parts.values()} <= FAMILIES.keys()


def test_late_layers_are_known_where_a_file_does_not_say_which(tmp_path: Path) -> None:
    config = _without(CONFIGS["Qwen2.5-7B"], "max_window_layers", num_hidden_layers=30, use_sliding_window=True)
    assert _windows(read_config(tmp_path, config)) == [(28, None), (2, (131071, 0))]


def test_document_has_each_model_type() -> None:
    page = (ROOT / "docs" / "reference" / "models.md").read_text()
    assert [kind for kind in [*FAMILIES, *PARTS] if f"`{kind}`" not in page] == []
