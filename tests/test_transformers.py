"""What `transformers` itself calls of FlashAttention-4 is what a spec of the model's configuration says.

Skipped where it is not installed; it is no dependency of these tests. Models have few layers, random weights, and the
heads of the published ones.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from model_configs import CONFIGS, Config, write_config

from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.models.attention import read_model
from fa4_precompile.precompile.models.config import read_models
from fa4_precompile.precompile.models.families import FAMILIES
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.recorded.reading import identity_of, read_recordings
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.call import Identity
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from jobs import run_from_scratch
from product import run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs `transformers`")

_TINY = {"hidden_size": 64, "intermediate_size": 64, "vocab_size": 32, "num_hidden_layers": 2}
_TYPES = ["sliding_attention", "full_attention"]
_EXPERTS = {"num_experts_per_tok": 1, "moe_intermediate_size": 32}
# Types of which no published configuration is written down here: two layers, and heads as in the published models.
_MADE: dict[str, Config] = {
    "qwen3_next": {
        **{"num_attention_heads": 16, "num_key_value_heads": 2, "layer_types": ["linear_attention", "full_attention"]},
        **{**_EXPERTS, "num_experts": 2, "shared_expert_intermediate_size": 32},
    },
    "gemma4_text": {
        **{"num_attention_heads": 8, "num_key_value_heads": 4, "layer_types": _TYPES, "sliding_window": 300},
        **{"global_head_dim": 128, "vocab_size_per_layer_input": 32, "hidden_size_per_layer_input": 16},
    },
    "phimoe": {
        **{"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 1024, "sliding_window": 300},
        **{"num_local_experts": 2, "num_experts_per_tok": 1},
    },
    "minimax_m2": {"num_attention_heads": 48, "num_local_experts": 2, "num_experts_per_tok": 1},
    "exaone4": {
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        **{"layer_types": _TYPES, "sliding_window": 300},
    },
    "ministral3": {"num_attention_heads": 32, "sliding_window": 300},
    "glm4_moe_lite": {"num_attention_heads": 20, **_EXPERTS, "n_routed_experts": 2, "q_lora_rank": 32},
    "qwen2_moe": {
        **{"num_attention_heads": 16, "hidden_size": 2048, "layer_types": _TYPES, "sliding_window": 300},
        **{**_EXPERTS, "use_sliding_window": True, "num_experts": 2, "shared_expert_intermediate_size": 32},
    },
}
_GENERIC = {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}
_JOB = Path(__file__).with_name("transformers_job.py")
_SIZES = [(2, 200), (1, 600)]  # batch, rows


def _tiny(name: str, **changes: object) -> Config:
    """Return a published configuration with small layers, whose heads are as large and as many."""
    config = CONFIGS[name]
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    assert isinstance(heads, int)
    assert isinstance(hidden, int)
    dims = {} if "kv_lora_rank" in config else {"head_dim": config.get("head_dim", hidden // heads)}
    kinds = {"layer_types": ["sliding_attention", "full_attention"]} if "layer_types" in config else {}
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "rope_scaling")}
    return {**plain, **dims, **kinds, **_TINY, "pad_token_id": 0, "torch_dtype": "bfloat16", **changes}


def _reached(place: Path, purposes: Sequence[str]) -> set[Identity]:
    """Return the kernels of the spec of a model, as `transformers` uses it."""
    uses = [word for purpose in dict.fromkeys(purposes) for word in ("--for", purpose)]
    lengths = [length for _, rows in _SIZES for length in (rows, rows - 1)]
    options = ["--packing", "both", "--batch", "1,2", "--seqlen", ",".join(map(str, lengths))]
    done = run("spec", "from-model", place, *uses, *options, "--framework", "transformers")
    assert done.code == 0, done.err
    spec = parse_spec("spec.yaml", done.out, target_book())
    with Compilers(DEFAULT, spec.targets[0], installed_toolchain(DEFAULT), 2) as compilers:
        return {kernel.reached.identity for kernel in make_plan(spec, compilers).kernels}


def _looked_up(place: Path, steps: Sequence[tuple[str, int, int]], environment: dict[str, str]) -> set[Identity]:
    """Return the kernels that a job with the model looks up."""
    folder = place / "record"
    job = [sys.executable, str(_JOB), str(place / "config.json"), json.dumps(steps)]
    tool = [sys.executable, "-m", "fa4_precompile", "run", "--record", str(folder), "--fake", "--target", "b200", "--"]
    done = run_from_scratch([*tool, *job], HF_HUB_OFFLINE="1", **environment)
    assert done.code == 0, done.err[-3000:]
    (process,) = read_recordings([folder]).processes
    return {identity_of(one.slot, one.key, one.facts) for one in process.lookups}


@pytest.mark.parametrize(
    ("name", "changes", "environment"),
    [
        ("Llama-3.1-8B", {}, {}),
        ("Qwen3-8B", {}, {}),
        ("Mistral-7B-v0.1", {"sliding_window": 300}, {}),
        ("gemma-2-9b", {"sliding_window": 300}, _GENERIC),
        ("gpt-oss-20b", {"num_local_experts": 2, "num_experts_per_tok": 1}, {}),
    ],
)
def test_calls_of_transformers_are_those_of_the_spec(
    tmp_path: Path, name: str, changes: Config, environment: dict[str, str]
) -> None:
    _compare(write_config(tmp_path, name, _tiny(name, **changes)), environment)


@pytest.mark.parametrize("kind", _MADE)
def test_calls_of_a_type_are_those_of_the_spec(tmp_path: Path, kind: str) -> None:
    sizes = {**_TINY, "pad_token_id": 0, "torch_dtype": "bfloat16", "max_position_embeddings": 8192}
    config = {"model_type": kind, **sizes, **_MADE[kind]}
    _compare(write_config(tmp_path, kind, config), _GENERIC if kind == "gemma4_text" else {})


def _compare(place: Path, environment: dict[str, str]) -> None:
    purposes = ["training", "evaluation", "prefill", "decode"]
    steps = [(purpose, *size) for size in _SIZES for purpose in ("training", "evaluation", "padded", "decode")]
    looked_up, reached = _looked_up(place, steps, environment), _reached(place, purposes)
    assert len(looked_up) > 4
    assert looked_up - reached == set()


# The first is read as `deepseek_v3` there; the other's 4096 columns are no multiple of its 96 heads.
_NO_DEFAULTS = ("kimi_k2", "glm4_moe")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in _NO_DEFAULTS])
def test_what_a_file_leaves_out_is_what_the_class_has(kind: str, times: int, tmp_path: Path) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = FAMILIES[kind]
    plain = CONFIG_MAPPING[kind]()
    config = CONFIG_MAPPING[kind](**{family.hidden: times * getattr(plain, family.hidden)})
    whole = {**config.to_dict(), "dtype": "bfloat16"}
    size = "max_position_embeddings", "image_size", "patch_size"
    latent = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank") if family.has_latent else ()
    types = ["layer_types"] if family.windows == "listed" else []
    kept = {"model_type", "dtype", family.heads, family.hidden, family.layers, *size, *latent, *types}
    read = [
        read_model(file).layers
        for file in read_models(
            [
                write_config(tmp_path, "model", {name: value for name, value in whole.items() if value is not None}),
                write_config(tmp_path / "part", "model", {name: whole[name] for name in kept & whole.keys()}),
            ]
        )
    ]
    assert read[0] == read[1]
    if whole.get("layer_types"):
        kinds = {"full_attention": False, "sliding_attention": True}
        said = Counter(kinds[one] for one in whole["layer_types"] if one in kinds)
        assert said == Counter(
            {
                has_window: sum(one.number for one in read[0] if (one.attention.window is not None) == has_window)
                for has_window in set(said)
            }
        )
    if not family.has_latent and not whole.get("per_layer_config"):
        head_dim = whole.get("head_dim") or whole[family.hidden] // whole[family.heads]
        assert {one.attention.head_dim for one in read[0]} <= {head_dim}
