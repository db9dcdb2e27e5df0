"""What a call's results and gradients should be, in float32, sequence by sequence. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .arguments import Arguments
from .reference import attend, visible
from .values import Values
from .variant import Variant

Tensor = Any

MOST_SCORES = 1 << 30
"""How many scores a sequence's heads may have at a time: with gradients they take about 25 bytes each."""

INPUTS = ("q", "k", "v", "qv", "learnable_sink")
"""What a call can have gradients of, by its arguments."""


def why_not(variant: Variant) -> str:
    """Return why there is no reference for a call, in words; nothing if there is one."""
    if variant.caller is not None:
        return "a caller makes the call"
    if variant.functions:
        return f"`{variant.functions[0]}` is code for the GPU"
    shape = variant.shape
    if variant.qheads_per_kvhead * shape.seqlen_q * shape.seqlen_k > MOST_SCORES:
        return "a reference in float32 would take too much memory"
    return ""


class Expected:
    """The reference of one call, for the arguments that it was made with."""

    def __init__(self, variant: Variant, arguments: Arguments, values: Values) -> None:
        self._variant = variant
        self._arguments = arguments
        self._values = values
        self.rows_q, self.rows_k = list(self._rows("q")), list(self._rows("k"))
        given = {name: arguments.get(name) for name in INPUTS}
        if given["k"] is given["v"]:
            del given["k"]
        # The whole of each in float32, so that gradients add up there.
        self._leaves = {
            name: one.detach().float().requires_grad_(variant.pass_ == "bwd")
            for name, one in given.items()
            if one is not None
        }

    def results(self, gradient: Tensor | None, lse_gradient: Tensor | None) -> dict[str, Tensor]:
        """Return `out`, and with the gradient of that (and of the log-sum-exp) those of the inputs, by argument.

        All are in the layout of what FlashAttention returns. Rows that no sequence uses are zero.
        """
        import torch

        q = self._leaves["q"]
        out = torch.zeros((*q.shape[:-1], self._leaves["v"].shape[-1]), device=q.device)
        for place, (rows, columns) in enumerate(zip(self.rows_q, self.rows_k, strict=True)):
            for heads, kv_head in self._groups():
                part, lse = self._attend(place, rows, columns, heads, kv_head)
                _flat(out)[rows[:, None], heads] = part.detach()
                if gradient is not None:
                    wanted = [(part, _flat(gradient).float()[rows[:, None], heads])]
                    if lse_gradient is not None:
                        wanted.append((lse, self._of_lse(lse_gradient, place, rows, heads)))
                    torch.autograd.backward([one for one, _ in wanted], [grad for _, grad in wanted])
        return {"out": out, **{name: one.grad for name, one in self._leaves.items() if one.grad is not None}}

    def used(self, name: str, result: Tensor) -> Tensor:
        """Return the rows of a result that sequences use; the others can hold anything."""
        import torch

        if name == "learnable_sink":
            return result
        rows = self.rows_k if name in ("k", "v") else self.rows_q
        return _flat(result)[torch.cat(rows).unique()]

    def _attend(self, place: int, rows: Tensor, columns: Tensor, heads: Tensor, kv_head: int) -> tuple[Tensor, Tensor]:
        leaves, variant = self._leaves, self._variant
        v = _flat(leaves["v"])[columns, kv_head] * self._scale("v", place, kv_head)
        k = v if "k" not in leaves else _flat(leaves["k"])[columns, kv_head] * self._scale("k", place, kv_head)
        q = _flat(leaves["q"])[rows[:, None], heads] * self._scale("q", place, kv_head)
        qv, sink = leaves.get("qv"), leaves.get("learnable_sink")
        return attend(
            q,
            k,
            v,
            self._seen(place, len(rows), columns, heads),
            qv=None if qv is None else _flat(qv)[rows[:, None], heads],
            softcap=variant.softcap,
            sink=None if sink is None else sink[heads],
        )

    def _seen(self, place: int, rows: int, columns: Tensor, heads: Tensor) -> Tensor:
        variant, blocks = self._variant, self._values.seen
        seen = visible(rows, len(columns), variant.causal, variant.window, columns.device)
        if blocks is not None:
            own = blocks[place if blocks.shape[0] > 1 else 0]
            seen = seen & (own[heads] if own.shape[0] > 1 else own)[..., :rows, : len(columns)]
        indices = self._arguments.get("gather_kv_indices")
        if indices is not None:
            chosen = seen.new_zeros(rows, len(columns) + 1)
            mine = indices.view(-1, indices.shape[-1])[self.rows_q[place]].long()
            chosen.scatter_(1, mine.masked_fill(mine < 0, len(columns)), True)
            seen = seen & chosen[:, :-1]
        return seen

    def _groups(self) -> Iterator[tuple[Tensor, int]]:
        """Yield the query heads that share a head of K and V, and which that is."""
        import torch

        ratio, device = self._variant.qheads_per_kvhead, self._leaves["q"].device
        for kv_head in range(self._variant.kv_heads):
            yield torch.arange(kv_head * ratio, (kv_head + 1) * ratio, device=device), kv_head

    def _scale(self, name: str, place: int, kv_head: int) -> Tensor | float:
        scale = self._arguments.get(f"{name}_descale")
        return 1.0 if scale is None else scale[place, kv_head]

    def _of_lse(self, gradient: Tensor, place: int, rows: Tensor, heads: Tensor) -> Tensor:
        if gradient.dim() == 2:  # (heads, rows) of packed sequences
            return gradient.t()[rows[:, None], heads]
        return gradient[place].t()[: len(rows)][:, heads]

    def _rows(self, side: str) -> Iterator[Tensor]:
        """Yield the rows of each sequence that the call looks at, as they are counted through the whole tensor."""
        import torch

        values, variant, arguments = self._values, self._variant, self._arguments
        lengths, used = (values.lengths_q, values.used_q) if side == "q" else (values.lengths_k, values.used_k)
        device = arguments["q"].device
        pages = arguments.get("page_table") if side == "k" else None
        step = variant.shape.seqlen_q if side == "q" else variant.shape.seqlen_k
        begin = 0
        for place, (length, number) in enumerate(zip(lengths, used, strict=True)):
            if pages is not None:
                within = torch.arange(variant.paged_kv or 0, device=device)
                yield (pages[place].long()[:, None] * len(within) + within).flatten()[:number]
                continue
            yield torch.arange(begin, begin + number, device=device)
            begin += length if variant.varlen in (True, side) else step


def _flat(tensor: Tensor) -> Tensor:
    """Return (rows, heads, head_dim) of a tensor that may have a batch in front."""
    return tensor.reshape(-1, *tensor.shape[-2:])


def names_of(variant: Variant, arguments: Mapping[str, Tensor]) -> list[str]:
    """Return which inputs of a training step have gradients, by argument."""
    names = [name for name in INPUTS if arguments.get(name) is not None]
    return [name for name in names if not (name == "k" and variant.qv == "alone")]
