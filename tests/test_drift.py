"""A release of FlashAttention that gets a new position in a key must not pass unnoticed.

Calls of tests/every_axis.yaml are planned, and each position of each slot's key has to take more than one value, or to
be explained here. What is explained and varies after all, or is gone, fails too.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fa4_precompile.precompile import plan
from fa4_precompile.precompile.compile.answers import Broken, WrongSpec
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.packages import package_folder
from fa4_precompile.providers.registry import DEFAULT

_HERE = Path(__file__).parent
_TARGETS = ("b200", "h100")

_ONE_TYPE = "FlashAttention refuses other types of the top-k backward, or has one only"
_NO_ARGUMENT = "the public functions have no argument for it"
_FIXED = "a constant of the installed release on the archs that are planned here"

_SM90_OR_SM120 = "FlashAttention's table of SM90 backwards has one value; SM120 has others"

_EXPLAINED: dict[tuple[str, str], str] = {
    ("bwd", "AtomLayoutMSdP"): _SM90_OR_SM120,
    ("bwd", "num_threads"): _SM90_OR_SM120,
    ("bwd", "V_in_regs"): _SM90_OR_SM120,
    ("bwd", "num_stages_Q"): _SM90_OR_SM120,
    ("bwd", "pack_gqa"): "set to false whatever the call says: not supported in the backward yet",
    ("bwd_dsa", "disable_sparse_kv_bitmask"): _FIXED,
    ("bwd_dsa", "dtype"): _ONE_TYPE,
    ("bwd_dsa", "head_dim_v"): "512 is the only one of absorbed MLA",
    ("bwd_dsa", "seqused_k is None"): _NO_ARGUMENT,
    ("bwd_dsa", "seqused_q is None"): _NO_ARGUMENT,
    ("bwd_pre", "nheads_kv"): "more than one KV head only with absorbed MLA, whose backward has one",
    ("compute_block_sparsity", "cu_seqlens_k is None"): "reads the lengths, which tensors without memory don't have",
    ("compute_block_sparsity", "cu_seqlens_q is None"): "reads the lengths, which tensors without memory don't have",
    ("dk_gemm", "dtype_acc_cute"): _FIXED,
    ("dk_gemm", "dtype_cute"): _ONE_TYPE,
    ("dk_gemm", "head_dim"): "64 is the only one of absorbed MLA with a rope part",
    ("dq_dqv_gemm", "dtype_cute"): _ONE_TYPE,
    ("dq_dqv_gemm", "head_dim_v"): "512 is the only one of absorbed MLA",
    ("fwd", "intra_wg_overlap"): _NO_ARGUMENT,
    ("fwd", "num_threads"): _SM90_OR_SM120,
    ("fwd", "virtual_batch_idx is not None"): "sorting batches is not implemented in FlashAttention yet",
    ("fwd_combine", "_get_device_arch() if _arch is None else _arch"): "split-KV is for SM100 only, of what is planned",
    ("fwd_combine", "dtype_partial"): "partial results are float32",
    ("fwd_combine", "semaphore_to_reset is not None"): _NO_ARGUMENT,
    ("fwd_combine", "virtual_batch_idx is not None"): "sorting batches is not implemented in FlashAttention yet",
    ("scheduler_metadata", "cu_seqlens_k_new is not None"): "appending to a KV cache is not implemented in `fwd`",
    ("scheduler_metadata", "enable_pdl"): "overridden: not supported yet",
    ("scheduler_metadata", "leftpad_k is not None"): "left padding is not implemented in `fwd`",
    ("scheduler_metadata", "num_m_blocks is not None"): _FIXED,
    ("scheduler_metadata", "num_splits_dynamic is not None"): _FIXED,
    ("scheduler_metadata", "sort"): "sorting batches is not implemented in FlashAttention yet",
    ("scheduler_metadata", "tile_m"): "128 wherever a call is split",
    ("scheduler_metadata", "tile_n"): "128 wherever a call is split",
    ("scheduler_metadata", "virtual_batch_idx is not None"): "sorting batches is not implemented in FlashAttention yet",
    ("scheduler_metadata", "zfill_padded_output"): _NO_ARGUMENT,
    ("tile_cumsum", "virtual_batch_idx is not None"): "sorting batches is not implemented in FlashAttention yet",
}


Reached = Mapping[str, Mapping[str, set[str]]]


def _reach() -> Reached:
    spec = read_spec(_HERE / "every_axis.yaml", target_book())
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in _TARGETS:
        with Compilers(DEFAULT, target_book().get(name), installed_toolchain(DEFAULT), 2) as compilers:
            survey = plan.take_survey(spec.variants, compilers)
        assert not [outcome for outcome in survey.outcomes.values() if isinstance(outcome, (Broken, WrongSpec))]
        for kernel in survey.kernels:
            slot = found[kernel.reached.slot]
            for position, value in kernel.reached.key_fields.items():
                slot[position].add(json.dumps(value))
    return found


@pytest.fixture(scope="module")
def reached() -> Iterator[Reached]:
    """By slot, the positions of its keys, and the values that each takes."""
    with pytest.MonkeyPatch.context() as patch:  # where the spec's score_mods are
        patch.setenv("PYTHONPATH", os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")]))
        yield _reach()


def _constant(reached: Reached) -> dict[tuple[str, str], set[str]]:
    return {
        (slot, position): values
        for slot, positions in reached.items()
        for position, values in positions.items()
        if len(values) == 1
    }


@pytest.mark.long
def test_every_position_of_every_key_is_reached_by_an_axis_or_explained(reached: Reached) -> None:
    assert {name: values for name, values in _constant(reached).items() if name not in _EXPLAINED} == {}


@pytest.mark.long
def test_no_explanation_is_out_of_date(reached: Reached) -> None:
    assert set(_EXPLAINED) - set(_constant(reached)) == set()


@pytest.mark.long
def test_every_position_has_a_name(reached: Reached) -> None:
    """Numbers stand for names that were not found: the source has another form than is read."""
    assert {slot for slot, positions in reached.items() for name in positions if name.isdecimal()} == set()


@pytest.mark.long
def test_every_slot_of_the_installed_release_is_reached(reached: Reached) -> None:
    folder = package_folder(DEFAULT.package)
    assert folder is not None
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    assigned = re.compile(r"^(\w+)\.compile_cache = (?:get_jit_cache\(\"(\w+)\"\)|\{\})", re.MULTILINE)
    slots = {name or function for source in sources for function, name in assigned.findall(source)}
    assert len(slots) >= 12
    assert slots == set(reached)
