"""Model types: which layers have a window, and what a configuration means by what it does not say.

Values are those of the configuration classes of Hugging Face's `transformers`, which read such files; who has a window,
a cap or sinks is what its modeling code hands to its attention function. docs/reference/models.md shows this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Windows = Literal["none", "all", "pattern", "late", "flagged"]
"""Layers that have a window, where `layer_types` does not say: none; all, if there is a `sliding_window`; all but each
`pattern`-th; those from `max_window_layers` on, if `use_sliding_window` is true; all, if that is."""


@dataclass(frozen=True)
class Family:
    """How the configurations of a model type are read.

    Attributes:
        windows: which layers have a window.
        pattern: of `pattern`: each how many-th layer has none.
        pattern_field: the field that may say another number.
        window_field: the field that says how wide a window is.
        has_softcap, has_sinks, has_latent: whether `attn_logit_softcapping` caps scores; there are sinks; K and V are
            made of a compressed part.
        causal, is_encoder, is_packed: as `Attention` has them.
        heads, hidden, layers: names of the fields of heads, of the model's width, and of the number of layers.
        defaults: what fields are that a file may leave out.
    """

    windows: Windows = "none"
    pattern: int = 1
    pattern_field: str = ""
    window_field: str = "sliding_window"
    has_softcap: bool = False
    has_sinks: bool = False
    has_latent: bool = False
    causal: bool = True
    is_encoder: bool = False
    is_packed: bool = False
    heads: str = "num_attention_heads"
    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    defaults: Mapping[str, object] = field(default_factory=dict)


_PLAIN = Family()
_ALL = Family(windows="all")
_LATE = Family(windows="late", defaults={"sliding_window": 4096, "max_window_layers": 28})
_LATE_80 = Family(windows="late", defaults={"sliding_window": 4096, "max_window_layers": 80})
_LATENT = Family(has_latent=True)  # `kimi_k2` is DeepSeek-V3's model under a name of its own
_ENCODER = Family(causal=False, is_encoder=True)
_GEMMA = MappingProxyType({"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096})
_VISION = Family(causal=False, is_encoder=True, is_packed=True, heads="num_heads", layers="depth")

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _PLAIN,
        "phi": _PLAIN,
        "olmo": _PLAIN,
        "olmo2": _PLAIN,
        "granite": _PLAIN,
        "cohere": _PLAIN,
        "glm4": Family(defaults={"head_dim": 128, "num_key_value_heads": 2}),
        "glm4_moe": Family(defaults={"num_key_value_heads": 8}),
        "gemma": Family(defaults={"head_dim": 256, "num_key_value_heads": 16}),
        "mistral": Family(windows="all", defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
        "mixtral": Family(windows="all", defaults={"num_key_value_heads": 8}),
        "starcoder2": Family(windows="all", defaults={"num_key_value_heads": 2}),
        "phi3": _ALL,
        "qwen2": _LATE,
        "qwen2_vl_text": _LATE_80,
        "qwen2_5_vl_text": _LATE_80,
        "qwen3": Family(windows="late", defaults={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}),
        "qwen3_moe": Family(windows="flagged", defaults={"num_key_value_heads": 4, "sliding_window": 4096}),
        "gemma2": Family(
            windows="pattern", pattern=2, has_softcap=True, defaults={**_GEMMA, "attn_logit_softcapping": 50.0}
        ),
        "gemma3_text": Family(windows="pattern", pattern=6, pattern_field="sliding_window_pattern", defaults=_GEMMA),
        "cohere2": Family(
            windows="pattern",
            pattern=4,
            pattern_field="sliding_window_pattern",
            defaults={"sliding_window": 4096},
        ),
        "olmo3": Family(windows="pattern", pattern=4, defaults={"sliding_window": 4096}),
        "gpt_oss": Family(
            windows="pattern",
            pattern=2,
            has_sinks=True,
            defaults={"head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128},
        ),
        "deepseek_v2": _LATENT,
        "deepseek_v3": _LATENT,
        "kimi_k2": _LATENT,
        "bert": _ENCODER,
        "roberta": _ENCODER,
        "vit": _ENCODER,
        "dinov2": _ENCODER,
        "clip_vision_model": _ENCODER,
        "siglip_vision_model": _ENCODER,
        "siglip_text_model": _ENCODER,
        "clip_text_model": Family(is_encoder=True),
        "pixtral": Family(
            causal=False,
            is_encoder=True,
            is_packed=True,
            defaults={"num_attention_heads": 16, "hidden_size": 1024, "num_hidden_layers": 24},
        ),
        "modernbert": Family(
            windows="pattern",
            pattern=3,
            pattern_field="global_attn_every_n_layers",
            window_field="local_attention",
            causal=False,
            is_encoder=True,
            defaults={"local_attention": 128},
        ),
        "qwen2_vl_vision": Family(
            causal=False, is_encoder=True, is_packed=True, heads="num_heads", hidden="embed_dim", layers="depth"
        ),
        "qwen2_5_vl_vision": _VISION,
    }
)

PARTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "gemma3": {"text_config": "gemma3_text", "vision_config": "siglip_vision_model"},
        "mistral3": {"text_config": "mistral", "vision_config": "pixtral"},
        "llava": {"text_config": "llama", "vision_config": "clip_vision_model"},
        "llava_next": {"text_config": "llama", "vision_config": "clip_vision_model"},
        "clip": {"text_config": "clip_text_model", "vision_config": "clip_vision_model"},
        "siglip": {"text_config": "siglip_text_model", "vision_config": "siglip_vision_model"},
        "qwen2_vl": {"text_config": "qwen2_vl_text", "vision_config": "qwen2_vl_vision"},
        "qwen2_5_vl": {"text_config": "qwen2_5_vl_text", "vision_config": "qwen2_5_vl_vision"},
    }
)
"""Models that are made of others: the field that each is in, and the type of one that names none."""
