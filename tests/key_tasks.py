"""What the tests of odd keys run in jobs: numbers that come as tensors, and what can't be written down at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_job
from fake_job import Call, Report
from loader_tasks import slots

import fa4_precompile
from fa4_precompile import Stats

_SLOT = "fwd"
_CALL = Call(causal=True)


@dataclass(frozen=True)
class Looked:
    """What came of a task's lookups."""

    answers: list[bool]
    same: list[bool]
    size: int
    warnings: list[str]
    stats: Stats


def pass_tensor_to_flash_attention(root: Path, times: int) -> Report:
    """Call FlashAttention with a tensor for the number of threads, which gets into the key as it is."""
    fa4_precompile.install(root, on_miss="error")
    interface = fake_job.load()
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

    class Unfaked:
        """Asks the loader's slot outside of FakeTensorMode, in which no tensor can be read."""

        def __init__(self, slot: Any) -> None:
            self.slot = slot

        def __contains__(self, key: object) -> bool:
            with unset_fake_temporarily():
                return key in self.slot

    interface._flash_attn_fwd.compile_cache = Unfaked(slots()[_SLOT])
    with fake_job.collected_warnings() as warnings:
        for _ in range(times):
            with FakeTensorMode(), torch.no_grad():
                q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
            number = torch.tensor(384)
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                interface._flash_attn_fwd(q, k, v, causal=True, num_threads=number)
    return Report(fake_job.stats(), (), warnings)
