"""Segment masks: bounds, and the lists of blocks made from them, against masks written out. Real torch, on the CPU."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_precompile.errors import UsageError
from fa4_precompile.masks import segments

pytestmark = pytest.mark.compiles  # FlashAttention's tuple of lists comes with its compiler


def _written_out(bounds: Any, seqlen_k: int) -> Any:
    """Return the mask (batch, heads, seqlen_q, seqlen_k) of bounds."""
    key = torch.arange(seqlen_k)
    seen = key < bounds[:, :, 0, :, None]
    for i in range(1, bounds.shape[2], 2):
        seen = seen | ((key >= bounds[:, :, i, :, None]) & (key < bounds[:, :, i + 1, :, None]))
    return seen


def _random_bounds(batch: int, heads: int, n_func: int, seqlen_q: int, seqlen_k: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    size = batch, heads, n_func, seqlen_q
    return torch.randint(0, seqlen_k + 1, size, generator=generator, dtype=torch.int32).sort(dim=2).values


def _members(count: Any, index: Any, row: tuple[int, ...]) -> set[int]:
    return {int(block) for block in index[row][: int(count[row])]}


def _require_lists_of(lists: Any, seen: Any, q_block: int, kv_block: int, by_key: bool) -> None:
    batch, heads, seqlen_q, seqlen_k = seen.shape
    q_blocks, kv_blocks = -(-seqlen_q // q_block), -(-seqlen_k // kv_block)
    assert lists.block_size == (q_block, kv_block)
    assert lists.mask_block_cnt.dtype == lists.full_block_idx.dtype == torch.int32
    for b in range(batch):
        for h in range(heads):
            for i in range(kv_blocks if by_key else q_blocks):
                full, partial = set(), set()
                for j in range(q_blocks if by_key else kv_blocks):
                    q, k = (j, i) if by_key else (i, j)
                    block = seen[b, h, q * q_block : (q + 1) * q_block, k * kv_block : (k + 1) * kv_block]
                    if block.all():
                        full.add(j)
                    elif block.any():
                        partial.add(j)
                assert _members(lists.full_block_cnt, lists.full_block_idx, (b, h, i)) == full
                assert _members(lists.mask_block_cnt, lists.mask_block_idx, (b, h, i)) == partial


@settings(max_examples=40, deadline=None)
@given(
    n_func=st.sampled_from([1, 3, 5, 7]),
    seqlen_q=st.integers(1, 50),
    seqlen_k=st.integers(1, 50),
    sizes=st.tuples(*[st.integers(1, 20)] * 4),
    seed=st.integers(0, 2**31),
)
def test_lists_of_random_segments_are_those_of_the_mask_written_out(
    n_func: int, seqlen_q: int, seqlen_k: int, sizes: tuple[int, int, int, int], seed: int
) -> None:
    bounds = _random_bounds(2, 2, n_func, seqlen_q, seqlen_k, seed)
    masks = segments.block_masks(bounds, seqlen_k, forward=sizes[:2], backward=sizes[2:])
    seen = _written_out(bounds, seqlen_k)
    _require_lists_of(masks.forward, seen, *sizes[:2], by_key=False)
    _require_lists_of(masks.backward, seen, *sizes[2:], by_key=True)


def test_lists_in_several_pieces_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = _random_bounds(1, 2, 3, 100, 90, 0)
    whole = segments.block_masks(bounds, 90, forward=(16, 8))
    monkeypatch.setattr(segments, "_PIECE", 1)
    pieces = segments.block_masks(bounds, 90, forward=(16, 8))
    for one, other in zip(whole.forward[:4], pieces.forward[:4], strict=True):
        assert torch.equal(one, other)


def test_lists_are_made_as_the_package_that_is_named_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = ModuleType("madeup.attention.block_sparsity")
    making = {"__new__": lambda cls, *lists, **_: tuple.__new__(cls, lists)}
    other.BlockSparseTensorsTorch = type("Theirs", (tuple,), making)
    for name in ("madeup", "madeup.attention"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, other.__name__, other)
    bounds = segments.causal(256, 256, device="cpu")
    made = segments.block_masks(bounds, 256, (128, 128), (128, 128), module="madeup.attention")
    own = segments.block_masks(bounds, 256, (128, 128), (128, 128))
    for theirs, ours in ((made.forward, own.forward), (made.backward, own.backward)):
        assert type(theirs).__name__ == "Theirs"
        assert all(torch.equal(one, another) for one, another in zip(theirs, ours[:4], strict=True))


@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(7, 7), (5, 9), (9, 5)])
def test_causal_bounds_let_the_last_query_see_the_last_key(seqlen_q: int, seqlen_k: int) -> None:
    seen = _written_out(segments.causal(seqlen_q, seqlen_k, "cpu"), seqlen_k)[0, 0]
    rows, columns = torch.arange(seqlen_q)[:, None], torch.arange(seqlen_k)[None, :]
    assert torch.equal(seen, columns <= rows + seqlen_k - seqlen_q)


def test_window_bounds_show_a_query_itself_and_so_many_keys_before() -> None:
    seen = _written_out(segments.sliding_window(8, 10, 3, "cpu"), 10)[0, 0]
    rows, columns = torch.arange(8)[:, None] + 2, torch.arange(10)[None, :]
    assert torch.equal(seen, (columns <= rows) & (columns >= rows - 3))


@pytest.mark.parametrize("is_causal", [False, True])
def test_document_bounds_hide_the_other_documents(is_causal: bool) -> None:
    lengths = torch.tensor([3, 1, 4])
    seen = _written_out(segments.documents(lengths, is_causal), 8)[0, 0]
    document = torch.repeat_interleave(torch.arange(3), lengths)
    expected = document[:, None] == document[None, :]
    if is_causal:
        expected &= torch.arange(8)[None, :] <= torch.arange(8)[:, None]
    assert torch.equal(seen, expected)


def test_aux_tensor_of_a_shared_mask_copies_nothing() -> None:
    bounds = segments.causal(4, 4, "cpu")
    aux = segments.aux_tensor(bounds, 2, 3)
    assert tuple(aux.shape) == (2, 3, 1, 4)
    assert aux.data_ptr() == bounds.data_ptr()
    assert aux.stride()[:2] == (0, 0)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.int32), "an odd n_func"),
        (torch.zeros(1, 1, 2, 4, dtype=torch.int32), "an odd n_func"),
        (torch.zeros(1, 1, 1, 4), "int32, not torch.float32"),
        (torch.zeros(1, 1, 1, 4, dtype=torch.int64), "int32, not torch.int64"),
        (torch.zeros(1, 1, 1, 0, dtype=torch.int32), "are empty"),
        (torch.tensor([[[[1, 1], [5, 3], [6, 2]]]], dtype=torch.int32), r"query 1 .* are \[1, 3, 2\]"),
        (torch.tensor([[[[1, -1]]]], dtype=torch.int32), r"query 1 .* are \[-1\]"),
        (torch.tensor([[[[9, 1]]]], dtype=torch.int32), r"query 0 .* ascend from 0 to 8"),
    ],
)
def test_bounds_that_can_not_be_meant_are_refused_with_the_place(bounds: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        segments.block_masks(bounds, 8, forward=(4, 4))


def test_each_number_of_bounds_has_a_mask_of_its_own_that_is_made_once() -> None:
    from flash_attn.cute.utils import hash_callable

    from fa4_precompile.masks import segment_mods

    masks = [getattr(segment_mods, f"mask_{n}") for n in range(1, 33, 2)]
    assert len({hash_callable(mask) for mask in masks}) == 16
    assert masks[0] is segment_mods.mask_1
    for name in ("mask_2", "mask_33", "mask_x", "mask_"):
        with pytest.raises(AttributeError):
            getattr(segment_mods, name)
    with pytest.raises(ValueError, match="odd"):
        segment_mods.make_mask(4)


def test_mask_mod_is_the_one_with_as_many_bounds() -> None:
    from fa4_precompile.masks import segment_mods

    assert segments.mask_mod(segments.causal(4, 4, "cpu")) is segment_mods.mask_1
    assert segments.mask_mod(segments.sliding_window(4, 4, 1, "cpu")) is segment_mods.mask_3
    assert segments.mask_mod(torch.zeros(1, 1, 31, 4)) is segment_mods.mask_31


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 2, 4), "are (batch, heads, an odd n_func, seqlen_q), not (1, 1, 2, 4)"),
        ((3, 4), "are (batch, heads, an odd n_func, seqlen_q), not (3, 4)"),
        ((1, 1, 33, 4), "are 33, and there are masks for up to 31"),
    ],
)
def test_bounds_that_no_mask_fits_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        segments.mask_mod(torch.zeros(shape))
    assert str(caught.value) == f"bounds of segments {message}"
