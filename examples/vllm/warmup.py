"""Ask vLLM which FlashAttention-4 kernels it compiles before it serves a model, and make those calls with no GPU.

Under `fa4-precompile run --record FOLDER --fake --target NAME`, of which `spec from-record` makes a spec. vLLM's own
`get_warmup_keys` says the kernels and its own `compile` makes the calls, which compile nothing there. The arguments are
those of `vllm serve`: `python warmup.py --model MODEL --tensor-parallel-size 2`. Weights are not read. vLLM's libraries
want `libcuda.so.1`, which an image that is built with no GPU has as a stub (README.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import vllm.platforms
from vllm.platforms.cuda import NonNvmlCudaPlatform

# Before vLLM's modules ask: with no GPU it finds no platform. This one asks torch, and torch answers for the target.
vllm.platforms.current_platform = NonNvmlCudaPlatform()

from vllm.config import set_current_vllm_config  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402
from vllm.v1.attention.backends.flash_attn import FA4DenseAttentionKernel, FlashAttentionBackend  # noqa: E402
from vllm.v1.attention.backends.mla.prefill.flash_attn import FA4MLAPrefillKernel  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec  # noqa: E402


def kv_caches(config: Any) -> Iterator[Any]:
    """Yield what describes the KV cache of each kind of layers: those that see all, and those with a window."""
    model, cache = config.model_config, config.cache_config
    block = FlashAttentionBackend.get_preferred_block_size(cache.block_size)
    sizes = {
        "block_size": block,
        "num_kv_heads": model.get_num_kv_heads(config.parallel_config),
        "head_size": model.get_head_size(),
        "dtype": model.dtype,
    }
    window = model.get_sliding_window()
    kinds = set(getattr(model.hf_text_config, "layer_types", None) or ["sliding_attention"])
    if window is not None and "sliding_attention" in kinds:
        yield SlidingWindowSpec(**sizes, sliding_window=window)
    if window is None or kinds != {"sliding_attention"}:
        yield FullAttentionSpec(**sizes)


def warm_ups(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield vLLM's kernels with the keys that it compiles of them."""
    if config.model_config.use_mla:
        mla = FA4MLAPrefillKernel()
        yield from ((mla, key) for key in mla.get_warmup_keys(config))
        return
    dense, heads = FA4DenseAttentionKernel(), config.model_config.get_num_attention_heads(config.parallel_config)
    for kv_cache in kv_caches(config):
        keys = dense.get_warmup_keys(vllm_config=config, kv_cache_spec=kv_cache, num_qo_heads=heads)
        yield from ((dense, key) for key in keys)


def main() -> int:
    """Make the calls, and return 1 if vLLM compiles nothing of FlashAttention-4 for the model."""
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description=__doc__))
    config = EngineArgs.from_cli_args(parser.parse_args()).create_engine_config()
    made = 0
    with set_current_vllm_config(config):
        for kernel, key in warm_ups(config):
            kernel.compile(key)
            made += 1
    sys.stdout.write(f"{made} calls of vLLM's warm-up\n")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
