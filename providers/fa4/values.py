"""Arguments of calls with values: random Q, K and V, and integers that are right for the sizes. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .arguments import AS_USUAL, Arguments, CallBuilder
from .block_lists import BlockLists, chosen_blocks
from .recognizer import FlashRecognizer
from .variant import Sparse, Variant

_SHORTER = 37
"""By how much each sequence of a batch is shorter than the one before: no multiple of a tile."""


class Values(CallBuilder):
    """Makes the arguments of one call on a device, the same ones for the same seed.

    What no axis says the meaning of, the tensors of a `mask_mod` say, is random if it is a fraction, else zero.

    Attributes:
        lengths_q, lengths_k: rows of each sequence.
        used_q, used_k: how many of them, from the first on, a call looks at.
        seen: the mask (batch or 1, heads or 1, seqlen_q, seqlen_k) of what block sparsity lets through; None without.
    """

    def __init__(self, torch: Any, package: str, variant: Variant, seed: int, device: str = "cuda") -> None:
        super().__init__(torch, package, FlashRecognizer(package), device)
        self._variant = variant
        self._random = torch.Generator(device).manual_seed(seed)
        shape = variant.shape
        # Lists of blocks and of rows are made for whole sequences.
        shorter = 0 if variant.sparse or variant.gather_kv else _SHORTER
        rows_k = math.ceil(shape.seqlen_k / variant.paged_kv) * variant.paged_kv if variant.paged_kv else shape.seqlen_k
        self.lengths_q = self._lengths(shape.seqlen_q, shorter if variant.varlen in (True, "q") else 0)
        self.lengths_k = self._lengths(rows_k, shorter if variant.varlen in (True, "k") else 0)
        self.used_q = self._used(self.lengths_q, shape.seqlen_q, shorter, variant.seqused in (True, "q"))
        self.used_k = self._used(self.lengths_k, shape.seqlen_k, shorter, variant.seqused in (True, "k"))
        self.seen: Any = None
        self._contents: dict[str, Any] = {}

    def _lengths(self, rows: int, shorter: int) -> list[int]:
        return [max(1, rows - shorter * place) for place in range(self._variant.shape.batch)]

    def _used(self, lengths: list[int], most: int, shorter: int, is_said: bool) -> list[int]:
        if not is_said:
            return lengths
        return [max(1, min(length, most) - shorter * (place + 1)) for place, length in enumerate(lengths)]

    def build(
        self, variant: Variant, pass_tile: bool, runtime: Mapping[str, object] = AS_USUAL
    ) -> tuple[str, Arguments]:
        """Return the name of FA4's function, and its arguments by name, as `CallBuilder` does."""
        batch = variant.shape.batch
        self._contents = {
            "cu_seqlens_q": self._ends(self.lengths_q),
            "cu_seqlens_k": self._ends(self.lengths_k),
            "seqused_q": self._tensor_of(self.used_q),
            "seqused_k": self._tensor_of(self.used_k),
        }
        if variant.paged_kv:
            pages = math.ceil(variant.shape.seqlen_k / variant.paged_kv)
            self._contents["page_table"] = self._shuffled(batch * pages).view(batch, pages)
        if variant.gather_kv:
            self._contents["gather_kv_indices"] = self._gathered(variant, variant.gather_kv)
        return super().build(variant, pass_tile, runtime)

    # What differs from tensors that have no memory

    def _packed_rows(self, variant: Variant, side: str) -> tuple[int, ...]:
        return (sum(self.lengths_q if side == "q" else self.lengths_k),)

    def _new(self, name: str, size: tuple[int, ...], dtype: Any, training: bool) -> Any:
        torch = self._torch
        if not dtype.is_floating_point:
            return torch.zeros(size, dtype=dtype, device=self._device)
        if name.startswith("descale"):
            return torch.rand(size, generator=self._random, device=self._device) + 0.5
        values = torch.randn(size, generator=self._random, device=self._device)
        return values.to(dtype).requires_grad_(training)

    def _integers(self, name: str, *size: int) -> Any:
        content = self._contents.get(name)
        if content is None:
            return super()._integers(name, *size)
        assert tuple(content.shape) == size, f"{name} is {tuple(content.shape)}, not {size}"
        return content

    def _sparse_arguments(self, variant: Variant, sparse: Sparse) -> Arguments:
        is_packed = variant.varlen in (True, "q") or variant.seqused in (True, "q")
        batch = variant.shape.batch if is_packed or sparse.batch == "each" else 1
        heads = variant.heads if sparse.heads == "each" else 1
        self.seen = chosen_blocks(self._torch, variant, sparse, (batch, heads), self._random, self._device)
        lists = BlockLists(self._torch, variant, sparse, self.seen, self._block_sparsity)
        self._contents |= lists.packed() if is_packed else lists.both_ways()
        return super()._sparse_arguments(variant, sparse)

    # Integers

    def _tensor_of(self, numbers: list[int]) -> Any:
        return self._torch.tensor(numbers, dtype=self._torch.int32, device=self._device)

    def _ends(self, lengths: list[int]) -> Any:
        return self._tensor_of([0, *lengths]).cumsum(0, dtype=self._torch.int32)

    def _shuffled(self, number: int) -> Any:
        order = self._torch.randperm(number, generator=self._random, device=self._device)
        return order.to(self._torch.int32)

    def _gathered(self, variant: Variant, width: int) -> Any:
        """Return for each row of Q which rows of K and V it sees, each once; -1 is none."""
        shape, torch = variant.shape, self._torch
        rows = shape.batch * shape.seqlen_q
        order = torch.rand((rows, shape.seqlen_k), generator=self._random, device=self._device).argsort(-1)[:, :width]
        found = torch.full((rows, width), -1, dtype=torch.int32, device=self._device)
        found[:, : order.shape[1]] = order.to(torch.int32)
        return found if variant.varlen in (True, "q") else found.view(shape.batch, shape.seqlen_q, width)
