"""Tensors that have no memory, made fast. Imports torch when it is asked for one.

Most of the time of a question goes into torch's own answer to what a new tensor of some size would be like, which it
works out in general. For a plain one there is nothing to work out; all others go torch's way.
"""

from __future__ import annotations

from typing import Any

_PLAIN = frozenset(("dtype", "device", "pin_memory"))

_Layout = tuple[Any, ...]


def fake_mode() -> Any:
    """Return a `FakeTensorMode` in which new tensors, and those expanded from others, take a fraction of the time."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    aten = torch.ops.aten

    class FastMode(FakeTensorMode):  # type: ignore[misc]  # torch is not typed here
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # what would be compiled is compiled by nobody here, and asking takes as long as answering

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            fast = answers.get(func)
            made = fast(args, kwargs or {}) if fast is not None else None
            return self.dispatch(func, types, args, kwargs or {}) if made is None else made

    class FastTensor(FakeTensor):  # type: ignore[misc]
        @property
        def is_cuda(self) -> bool:
            return bool(self.device.type == "cuda")  # torch's own asks the dispatcher for the device

        def expand(self, *size: Any) -> Any:
            elem = None if self.requires_grad else layouts.get(_expansion(self, size))
            return super().expand(*size) if elem is None else fake(elem, self.device)

    mode = FastMode()
    # Of each layout the memoryless tensor that fake ones are made of, and for each device one to take the rest from.
    layouts: dict[_Layout, Any] = {}
    examples: dict[Any, Any] = {}

    def fake(elem: Any, device: Any) -> Any:
        if device not in examples:
            examples[device] = FastTensor(mode, elem, torch.device(device))
        example = examples[device]
        tensor = torch.Tensor._make_subclass(
            FastTensor, elem, False, dispatch_device=True, device_for_backend_keys=example.device
        )
        vars(tensor).update(vars(example))
        return tensor

    def plain(size: Any, dtype: Any, device: Any) -> Any:
        layout = (*size, dtype or torch.get_default_dtype())
        if layout not in layouts:
            layouts[layout] = torch.empty(size, dtype=dtype, device="meta")
        return fake(layouts[layout], device)

    def new(args: Any, options: Any) -> Any:
        if len(args) == 1 and _is_plain(options) and options.get("device") is not None:
            return plain(args[0], options.get("dtype"), options["device"])
        return None

    def new_like(args: Any, options: Any) -> Any:
        like = args[0]
        if len(args) == 1 and _is_plain(options) and isinstance(like, FakeTensor) and like.is_contiguous():
            return plain(like.shape, options.get("dtype") or like.dtype, options.get("device") or like.device)
        return None

    def expanded(args: Any, options: Any) -> Any:
        base, size = args
        if options or not isinstance(base, FakeTensor) or base.storage_offset() or base.layout is not torch.strided:
            return None
        layout = _expansion(base, size)
        if layout not in layouts:
            elem = torch.empty_strided(base.shape, base.stride(), dtype=base.dtype, device="meta")
            layouts[layout] = elem.expand(size)
        return fake(layouts[layout], base.device)

    def device_of(args: Any, options: Any) -> Any:
        return args[0].device if isinstance(args[0], FakeTensor) else None

    answers = {
        aten.empty.memory_format: new,
        aten.zeros.default: new,
        aten.empty_like.default: new_like,
        aten.detach.default: new_like,
        aten.expand.default: expanded,
        torch.ops.prim.device.default: device_of,
    }
    return mode


def _is_plain(options: Any) -> bool:
    return _PLAIN.issuperset(options) and not options.get("pin_memory")


def _expansion(base: Any, size: Any) -> _Layout:
    return base.shape, base.stride(), base.storage_offset(), base.dtype, tuple(size)
