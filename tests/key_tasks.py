"""What the tests of odd keys run in jobs: numbers that come as tensors, and what can't be written down at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fa4_precompile
import fake_job
from fa4_precompile import KernelMissing, Stats
from fake_job import Report
from loader_tasks import keys_of_small, slots


class _Unprintable:
    """What a tensor of a GPU is while a graph is captured: to print it is an error."""

    def __str__(self) -> str:
        raise RuntimeError("operation not permitted when stream is capturing")

    __repr__ = __str__


@dataclass(frozen=True)
class Lookups:
    """What came of lookups: whether each found the kernel of the plain key, and what is left of them."""

    found: Sequence[bool]
    size: int
    warnings: Sequence[str]
    stats: Stats


def pass_tensors_to_flash_attention(root: Path, argument: str, number: int, times: int) -> Report:
    """Call FlashAttention with a tensor where it wants a number."""
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

    interface._flash_attn_fwd.compile_cache = Unfaked(slots()["fwd"])
    with fake_job.warnings_of_the_loader() as warnings:
        for _ in range(times):
            tensor = {argument: torch.tensor(number)}
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
                interface._flash_attn_fwd(q, k, v, causal=True, **tensor)
    return Report(asdict(fa4_precompile.stats()), (), warnings)


def look_up_by_tensors(root: Path, times: int) -> Lookups:
    """Look up a key whose numbers are tensors, another object each time, also of a tuple inside it."""
    import torch

    key = _key(root)
    fa4_precompile.install(root, on_miss="error")
    slot, found = slots()["fwd"], []
    with fake_job.warnings_of_the_loader() as warnings:
        for _ in range(times):
            tensors = _with_tensors(torch, key)
            assert tensors in slot
            found.append(slot[tensors] is slot[key])
            # Without a question before it, as FlashAttention does where it knows the answer.
            found.append(slot[_with_tensors(torch, key)] is slot[key])
    return Lookups(found, len(slot), warnings, fa4_precompile.stats())


def compile_by_tensors(root: Path, times: int) -> Lookups:
    """Have something compiled for such a key, which the cache does not have, and look it up again."""
    import torch

    key = tuple(96 if item == 64 else item for item in _key(root))
    own = slots()["fwd"]
    fa4_precompile.install(root, on_miss="warn")
    slot = slots()["fwd"]
    compiled = object()
    with fake_job.warnings_of_the_loader() as warnings:
        first = _with_tensors(torch, key)
        assert first not in slot
        slot[first] = compiled
        found = [slot[first] is compiled]
        for _ in range(times):
            tensors = _with_tensors(torch, key)
            found += [tensors in slot, slot[tensors] is compiled]
    found += [key in slot, slot[key] is compiled]
    lookups = Lookups(found, len(slot), warnings, fa4_precompile.stats())
    fa4_precompile.uninstall()
    return Lookups([*lookups.found, slots()["fwd"] is own, own[key] is compiled], len(slot), warnings, lookups.stats)


def look_up_what_cannot_be_written_down(root: Path, on_miss: str, kind: str) -> tuple[Lookups, KernelMissing | None]:
    """Look up keys with an object or a tensor of several numbers in them, and take what is compiled for them."""
    import torch

    key = _key(root)
    fa4_precompile.install(root, on_miss=on_miss)
    slot = slots()["fwd"]
    found: list[bool] = []
    with fake_job.warnings_of_the_loader() as warnings:
        for _ in range(2):
            odd = {"object": object, "tensor": lambda: torch.zeros(3), "unprintable": _Unprintable}[kind]()
            asked = tuple(odd if item == 384 else item for item in key)
            try:
                assert asked not in slot
            except KernelMissing as error:
                return Lookups(found, len(slot), warnings, fa4_precompile.stats()), error
            compiled = object()
            slot[asked] = compiled
            found += [asked in slot, slot[asked] is compiled]
    return Lookups(found, len(slot), warnings, fa4_precompile.stats()), None


def _key(root: Path) -> tuple[Any, ...]:
    found: Any = [key for name, key in keys_of_small(root) if name == "fwd"][1]
    fa4_precompile.uninstall()
    return tuple(found)


def _with_tensors(torch: Any, value: Any) -> Any:
    """Return a key with tensors for all its numbers, those that are true or false too."""
    if isinstance(value, tuple):
        return tuple(_with_tensors(torch, item) for item in value)
    return torch.tensor(value) if isinstance(value, (bool, int, float)) else value
