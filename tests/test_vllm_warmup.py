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

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(not Path(_PYTHON).is_file(), reason="FA4_TEST_VLLM_PYTHON names no Python with vLLM"),
]

# Heads of 128 and 128, which vLLM lets FlashAttention-4 prefill on Blackwell; of 192 and 128 it does not.
_LATENT: Mapping[str, Any] = {
    **CONFIGS["DeepSeek-V3"],
    "architectures": ["DeepseekV3ForCausalLM"],
    "qk_nope_head_dim": 64,
}
_WIDE: Mapping[str, Any] = {
    **CONFIGS["gemma-2-9b"],
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": None,
    "torch_dtype": "bfloat16",
}


def _run(*arguments: object) -> Finished:
    done = subprocess.run(
        [_PYTHON, "-m", "fa4_precompile", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "config", "calls", "uses"),
    [
        ("wide", _WIDE, 8, ("prefill", "decode")),
        ("latent", _LATENT, 16, ("prefill",)),
    ],
    ids=["head_dim 256", "MLA"],
)
def test_warm_up_of_vllm_is_recorded_and_from_model_has_all_of_it(
    tmp_path: Path, name: str, config: Mapping[str, Any], calls: int, uses: tuple[str, ...]
) -> None:
    model = write_config(tmp_path, name, config)
    record = ("run", "--record", tmp_path / "record", "--fake", "--target", "b200", "--module", _MODULE, "--", _PYTHON)
    warmed = _run(*record, ROOT / "examples/vllm/warmup.py", "--model", model, "--skip-tokenizer-init")
    assert warmed.code == 0, warmed.err
    assert f"{calls} calls of vLLM's warm-up" in warmed.out
    recorded = _run("spec", "from-record", tmp_path / "record")
    assert recorded.code == 0, recorded.err
    assert " and none more" in recorded.err
    (tmp_path / "recorded.yaml").write_text(recorded.out)
    made = _run("spec", "from-model", model, *(word for use in uses for word in ("--for", use)), "--framework", "vllm")
    assert made.code == 0, made.err
    (tmp_path / "made.yaml").write_text(made.out)
    compared = _run("spec", "diff", tmp_path / "made.yaml", tmp_path / "recorded.yaml")
    assert ", 0 only in " in compared.err.splitlines()[-1].partition("made.yaml")[2], compared.err
