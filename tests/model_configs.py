"""What published `config.json` files say of attention, written down for tests; no file was copied.

Each has the fields that attention depends on, some that it doesn't, and no other. Whose values they are stands above
it; they were compared with the files as others quote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from fa4_precompile.errors import SpecError
from fa4_precompile.precompile.models.attention import Model, read_model
from fa4_precompile.precompile.models.config import read_models

Config = Mapping[str, object]

_DECODER = {"attention_bias": False, "attention_dropout": 0.0, "rms_norm_eps": 1e-05, "use_cache": True}

CONFIGS: Mapping[str, Config] = MappingProxyType(
    {
        # meta-llama/Llama-3.1-8B
        "Llama-3.1-8B": {
            **_DECODER,
            "model_type": "llama",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
            "torch_dtype": "bfloat16",
        },
        # meta-llama/Llama-3.1-70B
        "Llama-3.1-70B": {
            **_DECODER,
            "model_type": "llama",
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "torch_dtype": "bfloat16",
        },
        # Qwen/Qwen2.5-7B: it says a window, and that it is not used
        "Qwen2.5-7B": {
            **_DECODER,
            "model_type": "qwen2",
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131072,
            "max_window_layers": 28,
            "sliding_window": 131072,
            "use_sliding_window": False,
            "torch_dtype": "bfloat16",
        },
        # Qwen/Qwen3-8B
        "Qwen3-8B": {
            **_DECODER,
            "model_type": "qwen3",
            "head_dim": 128,
            "hidden_size": 4096,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 40960,
            "max_window_layers": 36,
            "sliding_window": None,
            "use_sliding_window": False,
            "torch_dtype": "bfloat16",
        },
        # Qwen/Qwen3-32B: more columns in its heads than in its hidden state
        "Qwen3-32B": {
            **_DECODER,
            "model_type": "qwen3",
            "head_dim": 128,
            "hidden_size": 5120,
            "num_hidden_layers": 64,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 40960,
            "sliding_window": None,
            "use_sliding_window": False,
            "torch_dtype": "bfloat16",
        },
        # mistralai/Mistral-7B-v0.1
        "Mistral-7B-v0.1": {
            **_DECODER,
            "model_type": "mistral",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "torch_dtype": "bfloat16",
        },
        # google/gemma-2-9b
        "gemma-2-9b": {
            **_DECODER,
            "model_type": "gemma2",
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "query_pre_attn_scalar": 256,
            "head_dim": 256,
            "hidden_size": 3584,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
            "torch_dtype": "float32",
        },
        # google/gemma-3-12b-it: its text leaves out what is as in the class
        "gemma-3-12b-it": {
            "model_type": "gemma3",
            "mm_tokens_per_image": 256,
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 3840,
                "num_hidden_layers": 48,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "sliding_window": 1024,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "image_size": 896,
                "patch_size": 14,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "vision_use_head": False,
            },
            "torch_dtype": "bfloat16",
        },
        # deepseek-ai/DeepSeek-V3
        "DeepSeek-V3": {
            **_DECODER,
            "model_type": "deepseek_v3",
            "hidden_size": 7168,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "max_position_embeddings": 163840,
            "topk_method": "noaux_tc",
            "torch_dtype": "bfloat16",
        },
        # openai/gpt-oss-20b: it says no type but that of what is not quantized
        "gpt-oss-20b": {
            "model_type": "gpt_oss",
            "attention_bias": True,
            "attention_dropout": 0.0,
            "head_dim": 64,
            "hidden_size": 2880,
            "layer_types": ["sliding_attention", "full_attention"] * 12,
            "num_hidden_layers": 24,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "initial_context_length": 4096,
            "sliding_window": 128,
            "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
        },
        # microsoft/Phi-3-mini-4k-instruct
        "Phi-3-mini-4k-instruct": {
            **_DECODER,
            "model_type": "phi3",
            "hidden_size": 3072,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "sliding_window": 2047,
            "torch_dtype": "bfloat16",
        },
        # allenai/OLMo-2-1124-7B
        "OLMo-2-1124-7B": {
            **_DECODER,
            "model_type": "olmo2",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "torch_dtype": "float32",
        },
    }
)


def write_config(folder: Path, name: str, config: Config | None = None) -> Path:
    """Write a published configuration, or another one under a name, into a folder of that name; return that."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIGS[name] if config is None else config))
    return path


def read_config(folder: Path, config: Config, read_as: str | None = None) -> Model:
    """Return what is read of a configuration, of a model called `a-model`."""
    (file,) = read_models([write_config(folder, "a-model", config)])
    return read_model(file, read_as)


def config_error(folder: Path, config: Config) -> SpecError:
    """Return the error that a configuration is, which names its file."""
    with pytest.raises(SpecError) as caught:
        read_config(folder, config)
    assert caught.value.source == str(folder / "a-model" / "config.json")
    return caught.value
