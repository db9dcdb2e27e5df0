"""On a Hopper or Blackwell GPU: segment masks with block sparsity, against a mask written out. See test_gpu.py."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import fa4_precompile
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.fa4.variant import Variant, own
from gpu_cache import excluded_calls, gpu, gpu_marks, kernels_for

_SPEC = Path(__file__).parent / "segments.yaml"
_TOLERANCE = 5e-3
_VARIANTS = [own(variant) for variant in read_spec(_SPEC, target_book()).variants]
_MASKS = {"1": ["causal"], "3": ["documents", "causal documents", "window", "rows that see nothing"], "7": ["random"]}
_CASES = [(variant, mask) for variant in _VARIANTS for mask in _MASKS[str(variant.mask_mod).rpartition("_")[2]]]

pytestmark = gpu_marks()


@pytest.fixture(scope="module")
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the masks' spec for this GPU."""
    return kernels_for(_SPEC, request, tmp_path_factory)


@pytest.fixture(scope="module")
def excluded(kernels: Path) -> dict[str, str]:
    """Why a call is not in the cache, by the call."""
    return excluded_calls(kernels)


@pytest.fixture(scope="module", autouse=True)
def strict(kernels: Path) -> Iterator[None]:
    """Nothing may be compiled in this process; and the switch is set that block-sparse head_dim 256 needs on SM100."""
    device = gpu()
    assert device is not None
    with pytest.MonkeyPatch.context() as patch:
        if device.arch.startswith("sm_10"):
            patch.setenv("FLASH_ATTENTION_HD256_GENERIC_BWD", "1")
        fa4_precompile.install(kernels, on_miss="error")
        yield
        fa4_precompile.uninstall()
    assert os.environ.get("FA4_PRECOMPILE_CACHE") is None


@pytest.mark.parametrize(("variant", "mask"), _CASES, ids=lambda value: str(value))
def test_mask_is_within_tolerance_of_the_mask_written_out(
    variant: Variant, mask: str, excluded: dict[str, str]
) -> None:
    import torch

    import gpu_masks
    from fa4_precompile.providers.fa4.reference import distance

    reason = excluded.get(json.dumps(variant.render()))
    if reason:
        pytest.skip(f"FlashAttention does not take it: {reason}")
    case = gpu_masks.make(variant, mask)
    found, expected = case.run(), case.reference()
    assert distance(found, expected) < _TOLERANCE
    gradient = torch.randn_like(found)
    inputs = (case.q, case.k, case.v)
    found_grads = torch.autograd.grad(found, inputs, gradient)
    expected_grads = torch.autograd.grad(expected, inputs, gradient.float())
    for one, other in zip(found_grads, expected_grads, strict=True):
        assert distance(one, other.float()) < _TOLERANCE


def test_everything_was_resolved_and_nothing_compiled() -> None:
    """Last of what is called above: the counts of this process."""
    stats = fa4_precompile.stats()
    print(stats)  # noqa: T201
    assert stats.resolved >= 1
    assert (stats.missed, stats.compiled, stats.refused) == ({}, 0, 0)
