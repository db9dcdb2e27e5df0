"""Indexing tensors that have no memory, where torch has no CUDA. Imports no torch."""

from __future__ import annotations

from typing import Any


def indexed(aten: Any) -> Any:
    """Return an indexing of tensors that needs no device.

    A CPU build of torch does not index a CUDA tensor, though it has no memory. The operators below do.
    """

    def index(tensor: Any, indices: Any) -> Any:
        indices = list(indices) if isinstance(indices, tuple) else [indices]
        if Ellipsis in indices:
            position = indices.index(Ellipsis)
            named = sum(item is not None for item in indices) - 1
            indices[position : position + 1] = [slice(None)] * (tensor.ndim - named)
        dimension = 0
        for item in indices:
            if item is None:
                tensor = aten.unsqueeze.default(tensor, dimension)
            elif isinstance(item, slice):
                start, stop, step = item.indices(tensor.shape[dimension])
                tensor = aten.slice.Tensor(tensor, dimension, start, stop, step)
            else:
                tensor = aten.select.int(tensor, dimension, item)
                continue
            dimension += 1
        return tensor

    return index
