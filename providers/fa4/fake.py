"""Tensors that have no memory, made fast. Imports torch when it is asked for one.

Most of the time of a question goes into torch's own answer to what a new tensor of some size would be like, which it
works out in general. For a plain one there is nothing to work out; all others go torch's way.
"""

from __future__ import annotations

from typing import Any

_PLAIN = frozenset(("dtype", "device", "pin_memory"))


def fake_mode() -> Any:
    """Return a `FakeTensorMode` in which `torch.empty` and `torch.empty_like` take a fraction of the time."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    empty, empty_like = torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default

    class FastMode(FakeTensorMode):  # type: ignore[misc]  # torch is not typed here
        def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            options = kwargs or {}
            if len(args) == 1 and _PLAIN.issuperset(options) and not options.get("pin_memory"):
                if func is empty and options.get("device") is not None:
                    return plain(args[0], options.get("dtype"), options["device"])
                if func is empty_like and isinstance(args[0], FakeTensor) and args[0].is_contiguous():
                    like = args[0]
                    return plain(like.shape, options.get("dtype") or like.dtype, options.get("device") or like.device)
            return super().dispatch(func, types, args, kwargs)

    mode = FastMode()

    def plain(size: Any, dtype: Any, device: Any) -> Any:
        return FakeTensor(mode, torch.empty(size, dtype=dtype, device="meta"), torch.device(device))

    return mode
