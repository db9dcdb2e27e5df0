"""vLLM's own warm-up, asked with no GPU, becomes a spec, and `spec from-model` has all of it.

`FA4_TEST_VLLM_PYTHON` names a Python that has vLLM with all it needs, and this package. vLLM's libraries want
`libcuda.so.1`: without a driver a folder on `LD_LIBRARY_PATH` has a stub (examples/vllm/README.md).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from model_configs import CONFIGS, write_config

from checkout import ROOT
from product import Finished

_PYTHON = os.environ.get("FA4_TEST_VLLM_PYTHON", "")
_MODULE = "vllm.vllm_flash_attn.cute"
_EXAMPLE = ROOT / "examples/vllm"

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(not Path(_PYTHON).is_file(), reason="FA4_TEST_VLLM_PYTHON names no Python with vLLM"),
]

# As Gemma 4 has them: layers with a window and head_dim 256, and some with 512, which FlashAttention-4 does not take.
_TWO_WIDTHS: Mapping[str, Any] = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text",
        "hidden_size": 2560,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 512,
        "max_position_embeddings": 8192,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"],
        "dtype": "bfloat16",
    },
}
_ONE_WIDTH: Mapping[str, Any] = {**_TWO_WIDTHS["text_config"], "model_type": "gemma3_text"}
# Heads of 128 and 128, which vLLM lets FlashAttention-4 prefill on Blackwell; of 192 and 128, DeepSeek's, it does not.
_LATENT: Mapping[str, Any] = {
    **CONFIGS["DeepSeek-V3"],
    "architectures": ["DeepseekV3ForCausalLM"],
    "qk_nope_head_dim": 64,
}


def _run(*arguments: object) -> Finished:
    command = [_PYTHON, "-m", "fa4_precompile", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return Finished(done.returncode, done.stdout, done.stderr)


def _warmed(folder: Path, model: Path, *arguments: str) -> Finished:
    record = ("run", "--record", folder / "record", "--fake", "--target", "b200", "--module", _MODULE, "--", _PYTHON)
    return _run(*record, _EXAMPLE / "warmup.py", "--model", model, "--skip-tokenizer-init", *arguments)


@pytest.mark.parametrize(
    ("config", "serve", "alike", "uses"),
    [
        (_TWO_WIDTHS, ("--attention-backend", "FLASH_ATTN"), _ONE_WIDTH, ("prefill", "decode")),
        (_LATENT, (), _LATENT, ("prefill",)),
    ],
    ids=["head_dim 256", "MLA"],
)
def test_warm_up_of_vllm_is_recorded_and_from_model_has_all_of_it(
    tmp_path: Path, config: Mapping[str, Any], serve: tuple[str, ...], alike: Mapping[str, Any], uses: tuple[str, ...]
) -> None:
    model = write_config(tmp_path, "model", config)
    warmed = _warmed(tmp_path, model, *serve)
    assert warmed.code == 0, warmed.err
    assert "kinds of layers that vLLM warms up for: 1\n" in warmed.out
    recorded = _run("spec", "from-record", tmp_path / "record")
    assert recorded.code == 0, recorded.err
    assert " and none more" in recorded.err
    (tmp_path / "recorded.yaml").write_text(recorded.out)
    made = (word for use in uses for word in ("--for", use))
    spec = _run("spec", "from-model", write_config(tmp_path, "alike", alike), *made, "--framework", "vllm")
    assert spec.code == 0, spec.err
    (tmp_path / "made.yaml").write_text(spec.out)
    compared = _run("spec", "diff", tmp_path / "made.yaml", tmp_path / "recorded.yaml")
    assert ", 0 only in " in compared.err.splitlines()[-1].partition("made.yaml")[2], compared.err


def test_model_for_which_vllm_takes_something_else_ends_with_one_and_says_what(tmp_path: Path) -> None:
    done = _warmed(tmp_path, write_config(tmp_path, "model", _TWO_WIDTHS))
    assert done.code == 1
    assert "layers with head_dim 256: vLLM takes FLASHINFER\n" in done.out
    assert "kinds of layers that vLLM warms up for: 0\n" in done.out
