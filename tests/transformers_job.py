"""A job that runs a tiny model of Hugging Face's `transformers` with its FlashAttention-4 path, on the CPU.

It is started by `run --record FOLDER --fake`: the kernels of FlashAttention's calls are looked up, and the calls give
tensors of zeros. As a script it takes a `config.json` and what to do, as JSON: `[["training", BATCH, ROWS], ...]`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers


def _model(file: str) -> Any:
    config = transformers.AutoConfig.from_pretrained(file)
    model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # As `attn_implementation="flash_attention_4"` does on a machine with a GPU; without one it is refused.
    model.config._attn_implementation_internal = "flash_attention_4"
    return model


def _do(model: Any, purpose: str, batch: int, rows: int) -> None:
    ids = torch.zeros(batch, rows, dtype=torch.long)
    if purpose == "training":
        model(input_ids=ids, use_cache=False).logits.float().sum().backward()
        return
    with torch.no_grad():
        if purpose == "padded":
            mask = torch.ones(batch, rows, dtype=torch.long)
            mask[0, : rows // 2] = 0
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        elif purpose == "evaluation":
            model(input_ids=ids, use_cache=False)
        else:
            cache = model(input_ids=ids[:, : rows - 1], use_cache=True).past_key_values
            model(input_ids=ids[:, rows - 1 :], past_key_values=cache, use_cache=True)


if __name__ == "__main__":
    made = _model(sys.argv[1])
    for purpose_, batch_, rows_ in json.loads(sys.argv[2]):
        _do(made, purpose_, batch_, rows_)
