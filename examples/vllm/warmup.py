"""Have vLLM make the calls of FlashAttention-4 that it warms up with before it serves a model, with no GPU.

Under `fa4-precompile run --record FOLDER --fake --target NAME`, of which `spec from-record` makes a spec. vLLM itself
says which models it warms up for, which kernels, and makes the calls, which compile nothing there. The arguments are
those of `vllm serve`: `python warmup.py --model MODEL --tensor-parallel-size 2`. Weights are not read. vLLM's libraries
want `libcuda.so.1`, which an image that is built with no GPU has as a stub (README.md).
"""

# ruff: noqa: E402  vLLM's modules ask for the platform when they are imported, so that is set before.

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
import vllm.platforms
from vllm.platforms.cuda import NonNvmlCudaPlatform


class Target(NonNvmlCudaPlatform):
    """The platform that vLLM finds where there is a GPU. It asks torch, and torch answers for the target."""

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """Return a name that says nothing: no target has one."""
        return "a target"


vllm.platforms.current_platform = Target()  # before vLLM's modules ask

from vllm.config import set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention.mla_attention import get_mla_dims
from vllm.model_executor.warmup.jit_warmup import JitWarmupRegistry
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend, FlashAttentionMetadataBuilder
from vllm.v1.attention.backends.mla.prefill import get_mla_prefill_backend
from vllm.v1.attention.backends.mla.prefill.flash_attn import FlashAttnPrefillBackend
from vllm.v1.attention.selector import get_attn_backend


def attention_layers(config: Any) -> Iterator[Any]:
    """Yield vLLM's own layer for each kind of attention layers in the model that it takes FlashAttention for."""
    model, parallel, said = config.model_config, config.parallel_config, set()
    layers, window = model.model_arch_config, model.get_sliding_window()
    kinds = getattr(model.hf_text_config, "layer_types", None) or ["sliding_attention"] * layers.total_num_hidden_layers
    for number, kind in enumerate(kinds):
        layer = layers[number]
        heads, kv_heads = (get(parallel, layer) for get in (model.get_num_attention_heads, model.get_num_kv_heads))
        sizes = (heads, layer.head_size, kv_heads, window if kind == "sliding_attention" else None)
        if sizes in said:
            continue
        said.add(sizes)
        is_windowed, kv_dtype = sizes[-1] is not None, config.cache_config.cache_dtype
        backend = get_attn_backend(layer.head_size, model.dtype, kv_dtype, has_sliding_window=is_windowed)
        if backend is not FlashAttentionBackend:
            sys.stdout.write(f"layers with head_dim {layer.head_size}: vLLM takes {backend.get_name()}\n")
            continue
        yield Attention(
            num_heads=heads,
            head_size=layer.head_size,
            scale=layer.head_size**-0.5,
            num_kv_heads=kv_heads,
            cache_config=config.cache_config,
            per_layer_sliding_window=sizes[-1],
            prefix=f"layers.{number}",
        )


def register(config: Any) -> None:
    """Make what registers warm-ups when vLLM sets a model up: it says itself for which models, and of what."""
    model = config.model_config
    if model.use_mla:
        if get_mla_prefill_backend(config) is FlashAttnPrefillBackend:
            dims, heads = get_mla_dims(model), model.get_num_attention_heads(config.parallel_config)
            columns = {name: getattr(dims, name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
            FlashAttnPrefillBackend(
                num_heads=heads, scale=1.0, kv_lora_rank=dims.kv_lora_rank, **columns, vllm_config=config
            )
        return
    for layer in attention_layers(config):
        FlashAttentionMetadataBuilder(layer.get_kv_cache_spec(config), [layer.layer_name], config, torch.device("cpu"))


def main() -> int:
    """Make the calls, and return 1 if there are none: vLLM warms FlashAttention-4 up for few models."""
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description=__doc__))
    config = EngineArgs.from_cli_args(parser.parse_args()).create_engine_config()
    torch.set_default_dtype(config.model_config.dtype)  # as where vLLM makes a model
    registry = JitWarmupRegistry(config)
    with set_current_vllm_config(config):
        with registry.activate():
            register(config)
        registry.warmup()
    sys.stdout.write(f"kinds of layers that vLLM warms up for: {len(registry)}\n")
    return 0 if len(registry) else 1


if __name__ == "__main__":
    sys.exit(main())
