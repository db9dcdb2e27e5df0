"""Model types: which layers have a window, and what a configuration means by what it does not say.

Values are those of the configuration classes of Hugging Face's `transformers`, which read such files; who has a window,
a cap or sinks is what its modeling code hands to its attention function. docs/reference/models.md shows this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Windows = Literal["none", "all", "pattern", "late", "flagged", "hybrid", "listed"]
"""Layers that have a window, where `layer_types` does not say: none; all, if there is a `sliding_window`; all but each
`pattern`-th; those from `max_window_layers` on, if `use_sliding_window` is true; all, if that is. Of `hybrid` none has
one, and but for each `pattern`-th they are linear attention; of `listed` a file must say it."""


@dataclass(frozen=True)
class Family:
    """How the configurations of a model type are read.

    Attributes:
        windows: which layers have a window.
        pattern: of `pattern` and `hybrid`: each how many-th layer is another.
        pattern_field: the field that may say another number.
        window_field: the field that says how wide a window is.
        of_full: by the field, the one that stands for it in layers with no window, and a flag that must be true for
            that, or none.
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
    of_full: Mapping[str, tuple[str, str]] = field(default_factory=dict)
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
_LATE_80 = Family(windows="late", defaults={"sliding_window": 4096, "max_window_layers": 80, "num_key_value_heads": 8})
_LATENT = Family(has_latent=True)  # `kimi_k2` is DeepSeek-V3's model under a name of its own
_ENCODER = Family(causal=False, is_encoder=True)
_GEMMA = MappingProxyType({"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096})
_VISION = Family(causal=False, is_encoder=True, is_packed=True, heads="num_heads", layers="depth")
_FOURTH = Family(
    windows="pattern", pattern=4, pattern_field="sliding_window_pattern", defaults={"sliding_window": 4096}
)


def _plain(kv_heads: int, head_dim: int | None = None) -> Family:
    """Return a decoder with no windows, and what its files may leave out."""
    dims = {} if head_dim is None else {"head_dim": head_dim}
    return Family(defaults={"num_key_value_heads": kv_heads, **dims})


def _hybrid(kv_heads: int) -> Family:
    """Return a decoder of Qwen's whose attention is linear in three of four layers."""
    defaults = {"head_dim": 256, "num_key_value_heads": kv_heads}
    return Family(windows="hybrid", pattern=4, pattern_field="full_attention_interval", defaults=defaults)


def _gemma_4(window: int) -> Family:
    """Return a decoder of Gemma 4, whose layers with no window have heads of their own."""
    of_full = {
        "head_dim": ("global_head_dim", ""),
        "num_key_value_heads": ("num_global_key_value_heads", "attention_k_eq_v"),
    }
    defaults = {**_GEMMA, "sliding_window": window, "global_head_dim": 512}
    return Family(windows="pattern", pattern=6, of_full=of_full, defaults=defaults)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _PLAIN,
        "phi": _PLAIN,
        "olmo": _PLAIN,
        "olmo2": _PLAIN,
        "granite": _PLAIN,
        "cohere": _PLAIN,
        "olmoe": _PLAIN,
        "granitemoe": _PLAIN,
        "granitemoehybrid": Family(windows="listed"),
        "apertus": _PLAIN,
        "arcee": _PLAIN,
        "hunyuan_v1_dense": _PLAIN,
        "hunyuan_v1_moe": _PLAIN,
        "smollm3": _plain(4),
        "ernie4_5": _plain(2, 128),
        "ernie4_5_moe": _plain(4),
        "glm": _plain(2, 128),
        "glm4": _plain(2, 128),
        "glm4_moe": _plain(8),
        "gemma": _plain(16, 256),
        "minimax_m2": _plain(8, 128),
        "hy_v3": _plain(8, 128),
        "seed_oss": _plain(8, 128),
        "qwen2_moe": _plain(16),
        "qwen3_vl_text": _plain(32, 128),
        "qwen3_vl_moe_text": _plain(16),
        "qwen3_next": _hybrid(2),
        "qwen3_5_text": _hybrid(4),
        "qwen3_5_moe_text": _hybrid(2),
        "mistral": Family(windows="all", defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
        "mixtral": Family(windows="all", defaults={"num_key_value_heads": 8}),
        "ministral3": Family(windows="all", defaults={"num_key_value_heads": 8, "head_dim": 128}),
        "phimoe": _plain(8),  # its window is in the mask of other attention functions only
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
        "gemma4_text": _gemma_4(512),
        "gemma4_unified_text": _gemma_4(1024),
        "exaone4": _FOURTH,
        "cohere2": _FOURTH,
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
        "glm4_moe_lite": Family(
            has_latent=True,
            defaults={"qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "kv_lora_rank": 512},
        ),
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
        "kimi_k25_vision": Family(
            causal=False,
            is_encoder=True,
            is_packed=True,
            defaults={"num_attention_heads": 16, "hidden_size": 1152, "num_hidden_layers": 27},
        ),
        "qwen3_vl_vision": _VISION,
        "qwen3_vl_moe_vision": _VISION,
        "qwen3_5_vision": _VISION,
        "qwen3_5_moe_vision": _VISION,
        "gemma4_vision": Family(causal=False, is_encoder=True, is_packed=True, defaults={"head_dim": 64}),
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
        "qwen3_vl": {"text_config": "qwen3_vl_text", "vision_config": "qwen3_vl_vision"},
        "qwen3_vl_moe": {"text_config": "qwen3_vl_moe_text", "vision_config": "qwen3_vl_moe_vision"},
        "qwen3_5": {"text_config": "qwen3_5_text", "vision_config": "qwen3_5_vision"},
        "qwen3_5_moe": {"text_config": "qwen3_5_moe_text", "vision_config": "qwen3_5_moe_vision"},
        "gemma4": {"text_config": "gemma4_text", "vision_config": "gemma4_vision"},
        "kimi_k25": {"text_config": "kimi_k2", "vision_config": "kimi_k25_vision"},
        "gemma4_unified": {"text_config": "gemma4_unified_text"},
    }
)
"""Models that are made of others: the field that each is in, and the type of one that names none."""
