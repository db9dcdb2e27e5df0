"""Tensors that have no memory: those that are made fast are what torch makes in its own time."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fa4_precompile.providers.fa4.fake import fake_mode


def _made(mode: Any) -> list[dict[str, object]]:
    with mode:
        plain = torch.empty(2, 3, 4, dtype=torch.bfloat16, device="cuda")
        tensors = [
            plain,
            torch.empty(2, 3, dtype=torch.bfloat16, device="cuda", requires_grad=True),
            torch.empty((2, 1), dtype=torch.float32, device=torch.device("cuda", 0)),
            torch.empty(0, 4, device="cuda"),
            torch.empty(4),
            torch.empty(2, 2, dtype=torch.int8, device="cpu"),
            torch.empty(1, 2, 3, 4, device="cuda", memory_format=torch.channels_last),
            torch.empty_like(plain),
            torch.empty_like(plain, dtype=torch.float32, requires_grad=True),
            torch.empty_like(plain, device="cpu"),
            torch.empty_like(plain.transpose(0, 1)),
            torch.empty_like(plain.transpose(0, 1), memory_format=torch.contiguous_format),
            torch.empty_like(torch.empty(1, dtype=torch.int32, device="cuda").expand(3, 4)),
            torch.zeros(3, 2, dtype=torch.float32, device=plain.device),
            torch.empty(3, 1, 1, dtype=torch.int32, device="cuda").expand(3, 4, 1),
            torch.empty(3, 1, dtype=torch.int32, device="cuda").expand((2, 3, 5)),
            torch.empty(3, 1, dtype=torch.int32, device="cuda").expand(-1, 5),
            plain.transpose(0, 1).expand(2, 3, 2, 4),
            torch.ones(3, 2, device="cuda"),
        ]
    return [
        {
            "type": isinstance(tensor, FakeTensor),
            "shape": tensor.shape,
            "strides": tensor.stride(),
            "dtype": tensor.dtype,
            "device": tensor.device,
            "is_cuda": tensor.is_cuda,
            "requires_grad": tensor.requires_grad,
            "layout": tensor.layout,
            "offset": tensor.storage_offset(),
        }
        for tensor in tensors
    ]


def test_fake_tensor_that_is_made_fast_is_what_torch_makes() -> None:
    assert _made(fake_mode()) == _made(FakeTensorMode())


def test_fake_tensor_of_a_new_size_asks_torch_nothing() -> None:
    mode = fake_mode()
    before = FakeTensorMode.cache_info()
    with mode:
        for size in range(1, 9):
            torch.empty_like(torch.empty(size, 911, device="cuda", dtype=torch.bfloat16))
            lists = torch.zeros(1, 911, device="cuda", dtype=torch.int32).expand(size, 911)
            assert lists.is_cuda
    assert FakeTensorMode.cache_info() == before
