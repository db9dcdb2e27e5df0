"""How a variant is said to FA4: the function that takes such calls, and its arguments.

The tensors have the sizes, types and layouts that a job's would have; under FakeTensorMode they have no memory. An
argument is passed only where the variant asks for it, so that a release that does not have it is asked for what it has.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .modifiers import find_modifier
from .recognizer import FlashRecognizer
from .relatives import HEADS_FIRST, LAYOUT, SCALE
from .variant import MODIFIERS, AuxTensor, Sparse, Variant

Arguments = dict[str, Any]

AS_USUAL: Mapping[str, object] = MappingProxyType({})

# What the public functions call otherwise, or don't have, when a call goes to `_flash_attn_fwd`.
_PUBLIC_ONLY = ("window_size", "deterministic", "block_sparse_tensors_bwd", "score_mod_bwd")


class Lacking(NotImplementedError):
    """The installed release does not have what a variant names."""


class CallBuilder:
    """Makes the arguments of calls. Tensors of one name and size are made once."""

    def __init__(self, torch: Any, package: str, recognizer: FlashRecognizer, device: str = "cuda") -> None:
        self._torch = torch
        self._device = device
        self._package = package
        self._recognizer = recognizer
        self._interface: Any = importlib.import_module(f"{package}.interface")
        self._block_sparsity: Any = importlib.import_module(f"{package}.block_sparsity")
        self._tensors: dict[tuple[object, ...], Any] = {}
        self._functions: dict[str, Any] = {}
        self._dtypes: Mapping[str, Any] = {
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
            "fp32": torch.float32,
            "fp8_e4m3": torch.float8_e4m3fn,
            "fp8_e5m2": torch.float8_e5m2,
        }

    def build(
        self, variant: Variant, pass_tile: bool, runtime: Mapping[str, object] = AS_USUAL
    ) -> tuple[str, Arguments]:
        """Return the name of FA4's function, and its arguments by name; `runtime` is what no axis says (`Call`).

        A tile and the scales of fp8 are arguments of `_flash_attn_fwd` only, so a call that has them goes there.
        Raises `UsageError` for a `mask_mod` or `score_mod` that can't be imported or identified.
        """
        arguments = self._tensor_arguments(variant)
        arguments.update(self._settings(variant))
        arguments.update(self.functions(variant))
        if SCALE in runtime:
            arguments[SCALE] = runtime[SCALE]
        if LAYOUT in runtime:
            arguments.update(self._laid_out(arguments, str(runtime[LAYOUT])))
        if variant.sparse is not None and variant.sparse.computed:
            arguments["block_sparse_tensors"] = self._computed_mask(variant, variant.sparse, arguments)
        if pass_tile or variant.descale:
            left, right = variant.window or (None, None)
            arguments = {name: value for name, value in arguments.items() if name not in _PUBLIC_ONLY}
            arguments.update(window_size_left=left, window_size_right=right)
            if pass_tile:
                arguments["tile_mn"] = variant.tile
            for name in variant.descale or "":
                arguments[f"{name}_descale"] = self._descale(variant, name)
            return "_flash_attn_fwd", arguments
        return "flash_attn_varlen_func" if _takes_lengths(variant) else "flash_attn_func", arguments

    def _tensor_arguments(self, variant: Variant) -> Arguments:
        shape, heads, kv_heads = variant.shape, variant.heads, variant.kv_heads
        packed_q, packed_k = variant.varlen in (True, "q"), variant.varlen in (True, "k")
        rows_q = self._packed_rows(variant, "q") if packed_q else (shape.batch, shape.seqlen_q)
        rows_k = self._packed_rows(variant, "k") if packed_k else (shape.batch, shape.seqlen_k)
        if variant.paged_kv:
            pages = math.ceil(shape.seqlen_k / variant.paged_kv)
            rows_k = (shape.batch * pages, variant.paged_kv)
        arguments = {
            "q": self._tensor("q", variant, *rows_q, heads, variant.head_dim),
            "k": self._tensor("k", variant, *rows_k, kv_heads, variant.head_dim),
            "v": self._tensor("v", variant, *rows_k, kv_heads, variant.head_dim_v),
        }
        if variant.qv == "with-q":
            arguments["qv"] = self._tensor("qv", variant, *rows_q, heads, variant.head_dim_v)
        if variant.qv == "alone":  # FA4 takes K and V that are one tensor for this kind of attention
            arguments["k"] = arguments["v"]
        if packed_q:
            arguments["cu_seqlens_q"] = self._integers("cu_seqlens_q", shape.batch + 1)
        if packed_k:
            arguments["cu_seqlens_k"] = self._integers("cu_seqlens_k", shape.batch + 1)
        if variant.seqused in (True, "q"):
            arguments["seqused_q"] = self._integers("seqused_q", shape.batch)
        if variant.seqused in (True, "k"):
            arguments["seqused_k"] = self._integers("seqused_k", shape.batch)
        if variant.paged_kv:
            pages = math.ceil(shape.seqlen_k / variant.paged_kv)
            arguments["page_table"] = self._integers("page_table", shape.batch, pages)
        if variant.gather_kv:
            arguments["gather_kv_indices"] = self._integers("gather_kv_indices", *rows_q, variant.gather_kv)
        if variant.sink:
            arguments["learnable_sink"] = self._kept(
                "sink", (heads,), self._dtypes[variant.sink], variant.pass_ == "bwd"
            )
        if variant.sparse is not None:
            arguments.update(self._sparse_arguments(variant, variant.sparse))
        if variant.aux_tensors:
            arguments["aux_tensors"] = [
                self._aux_tensor(variant, position, tensor) for position, tensor in enumerate(variant.aux_tensors)
            ]
        if variant.aux_scalars:
            arguments["aux_scalars"] = tuple({"int": 1, "float": 1.0}[kind] for kind in variant.aux_scalars)
        return arguments

    def _packed_rows(self, variant: Variant, side: str) -> tuple[int, ...]:
        """Return how many rows the packed sequences of Q or of K and V have."""
        return (variant.shape.batch * (variant.shape.seqlen_q if side == "q" else variant.shape.seqlen_k),)

    def _laid_out(self, arguments: Arguments, layout: str) -> Arguments:
        """Return Q, K and V with other strides: of parts of a larger tensor, or of tensors with heads before rows.

        K and V that are one tensor stay one.
        """
        found = {id(arguments[name]): self._strided(arguments[name], layout) for name in ("q", "k", "v")}
        return {name: found[id(arguments[name])] for name in ("q", "k", "v")}

    def _strided(self, tensor: Any, layout: str) -> Any:
        *lead, rows, heads, width = tensor.shape
        if layout == HEADS_FIRST:
            strides = [*[rows * heads * width] * len(lead), width, rows * width, 1]
        else:  # of a tensor with three times as many heads
            strides = [*[3 * rows * heads * width] * len(lead), 3 * heads * width, width, 1]
        empty = self._torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype, device=self._device)
        return empty.requires_grad_(tensor.requires_grad)

    def _settings(self, variant: Variant) -> Arguments:
        shape = variant.shape
        settings: Arguments = {"causal": variant.causal}
        if variant.window is not None:
            settings["window_size"] = variant.window
        if variant.deterministic:
            settings["deterministic"] = True
        if variant.return_lse:
            settings["return_lse"] = True
        if variant.softcap is not None:
            settings["softcap"] = variant.softcap
        if variant.pack_gqa is not None:
            settings["pack_gqa"] = variant.pack_gqa
        if variant.num_splits != 1:
            settings["num_splits"] = variant.num_splits
        if variant.seqlen_k_per_split is not None:
            settings["seqlen_k_per_split"] = variant.seqlen_k_per_split
        if variant.gather_bwd == "recomputed-p":
            settings["gather_bwd_recompute_p"] = True
        if variant.varlen and variant.max_seqlen == "given":
            settings.update(max_seqlen_q=shape.seqlen_q, max_seqlen_k=shape.seqlen_k)
        if variant.scheduler_metadata == "given":
            settings["scheduler_metadata"] = self._scheduler_metadata(variant)
        if variant.scheduler_metadata == "off":
            settings["disable_scheduler_metadata"] = True
        return settings

    def functions(self, variant: Variant) -> Arguments:
        """Return the `mask_mod` and `score_mod`s of a call. Raises `UsageError`."""
        found = {}
        for name in MODIFIERS:
            reference = getattr(variant, name)
            if reference is None:
                continue
            if reference not in self._functions:
                self._functions[reference] = find_modifier(reference, self._recognizer)
            found[name] = self._functions[reference]
        return found

    def _scheduler_metadata(self, variant: Variant) -> Any:
        shape = variant.shape
        left, right = variant.window or (None, None)
        packed_q, packed_k = variant.varlen in (True, "q"), variant.varlen in (True, "k")
        return self._interface.get_scheduler_metadata(
            shape.seqlen_q,
            shape.seqlen_k,
            variant.heads,
            variant.kv_heads,
            variant.head_dim,
            variant.num_splits,
            headdim_v=variant.head_dim_v,
            pack_gqa=variant.pack_gqa,
            causal=variant.causal,
            window_size_left=left,
            window_size_right=right,
            cu_seqlens_q=self._integers("cu_seqlens_q", shape.batch + 1) if packed_q else None,
            cu_seqlens_k=self._integers("cu_seqlens_k", shape.batch + 1) if packed_k else None,
            seqused_q=self._integers("seqused_q", shape.batch) if variant.seqused in (True, "q") else None,
            seqused_k=self._integers("seqused_k", shape.batch) if variant.seqused in (True, "k") else None,
            seqlen_k_per_split=variant.seqlen_k_per_split,
        )

    def _sparse_arguments(self, variant: Variant, sparse: Sparse) -> Arguments:
        forward = sparse.q_block, sparse.kv_block
        backward = sparse.bwd_q_block or sparse.q_block, sparse.bwd_kv_block or sparse.kv_block
        if variant.varlen in (True, "q") or variant.seqused in (True, "q"):  # queries of different lengths
            return {"block_sparse_tensors": self._packed_mask(variant, sparse, forward)}
        found = {"block_sparse_tensors": self._mask("forward", variant, sparse, forward, _blocks(variant, forward))}
        if variant.pass_ == "bwd" and not _takes_lengths(variant):  # that function has a mask for the forward only
            queries, keys = _blocks(variant, backward)
            found["block_sparse_tensors_bwd"] = self._mask("backward", variant, sparse, backward, (keys, queries))
        return found

    def _mask(self, of: str, variant: Variant, sparse: Sparse, size: tuple[int, int], blocks: tuple[int, int]) -> Any:
        lead = variant.shape.batch if sparse.batch == "each" else 1, variant.heads if sparse.heads == "each" else 1
        order: Arguments = {}
        if variant.deterministic and variant.pass_ == "bwd":
            order = {"dq_write_order": self._integers(f"{of} order", *lead, *blocks), "spt": sparse.descending}
            if sparse.full_blocks:
                order["dq_write_order_full"] = self._integers(f"{of} full order", *lead, *blocks)
        return self._block_sparsity.BlockSparseTensorsTorch(
            mask_block_cnt=self._integers(f"{of} mask_block_cnt", *lead, blocks[0]),
            mask_block_idx=self._integers(f"{of} mask_block_idx", *lead, *blocks),
            full_block_cnt=self._integers(f"{of} full_block_cnt", *lead, blocks[0]) if sparse.full_blocks else None,
            full_block_idx=self._integers(f"{of} full_block_idx", *lead, *blocks) if sparse.full_blocks else None,
            block_size=size,
            **order,
        )

    def _computed_mask(self, variant: Variant, sparse: Sparse, arguments: Arguments) -> Any:
        shape = variant.shape
        return self._module("compute_block_sparsity").compute_block_sparsity(
            sparse.q_block,
            sparse.kv_block,
            shape.batch if sparse.batch == "each" else 1,
            variant.heads if sparse.heads == "each" else 1,
            shape.seqlen_q,
            shape.seqlen_k,
            arguments.get("mask_mod"),
            arguments.get("aux_tensors"),
            self._device,
            compute_full_blocks=sparse.full_blocks,
            use_fast_sampling=sparse.computed == "sampled",
            **{name: arguments[name] for name in ("aux_scalars", "seqused_q", "seqused_k") if name in arguments},
        )

    def _module(self, name: str) -> Any:
        """Return a module of the package. Raises `Lacking` if it has none of that name."""
        try:
            return importlib.import_module(f"{self._package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{self._package}.{name}":
                raise
            raise Lacking(f"`{self._package}` has no module `{name}`") from None

    def _packed_mask(self, variant: Variant, sparse: Sparse, size: tuple[int, int]) -> Any:
        """Return a mask of packed sequences: the blocks of all of them in one row for each head."""
        batch = variant.shape.batch
        rows, columns = _blocks(variant, size)
        heads = variant.heads if sparse.heads == "each" else 1
        cnt, idx = (heads, batch * rows), (heads, batch * rows * columns)
        own_lengths_of_k = variant.varlen in (True, "k") or variant.seqused in (True, "k")
        return self._block_sparsity.BlockSparseTensorsTorch(
            mask_block_cnt=self._integers("mask_block_cnt", *cnt),
            mask_block_idx=self._integers("mask_block_idx", *idx),
            full_block_cnt=self._integers("full_block_cnt", *cnt) if sparse.full_blocks else None,
            full_block_idx=self._integers("full_block_idx", *idx) if sparse.full_blocks else None,
            cu_total_m_blocks=self._integers("cu_total_m_blocks", batch + 1),
            cu_block_idx_offsets=self._integers("cu_block_idx_offsets", batch + 1) if own_lengths_of_k else None,
            block_size=size,
        )

    def _aux_tensor(self, variant: Variant, position: int, tensor: AuxTensor) -> Any:
        sizes = variant.sizes
        size = [sizes[item] if isinstance(item, str) else item for item in tensor.shape]
        own = [1 if position in tensor.shared else length for position, length in enumerate(size)]
        return self._kept(f"aux {position}", tuple(own), getattr(self._torch, tensor.dtype), False).expand(*size)

    def _descale(self, variant: Variant, name: str) -> Any:
        # K and V of one tensor share one scale, and FA4 wants that to be one tensor, too.
        identity = "k or v" if variant.qv and name in "kv" else name
        size = variant.shape.batch, variant.kv_heads
        return self._kept(f"descale of {identity}", size, self._torch.float32, False)

    def _tensor(self, name: str, variant: Variant, *size: int) -> Any:
        return self._kept(name, size, self._dtypes[variant.dtype], variant.pass_ == "bwd")

    def _kept(self, name: str, size: tuple[int, ...], dtype: Any, training: bool) -> Any:
        # By name, as FA4 takes K and V that are one tensor for another kind of attention.
        identity = name, size, dtype, training
        if identity not in self._tensors:
            self._tensors[identity] = self._new(name, size, dtype, training)
        return self._tensors[identity]

    def _new(self, _name: str, size: tuple[int, ...], dtype: Any, training: bool) -> Any:
        """Return a tensor of a name, with whatever values."""
        return self._torch.empty(*size, dtype=dtype, device=self._device, requires_grad=training)

    def _integers(self, name: str, *size: int) -> Any:
        return self._kept(name, size, self._torch.int32, False)


def _takes_lengths(variant: Variant) -> bool:
    """Return whether a call needs an argument that only FA4's `flash_attn_varlen_func` has."""
    packed = variant.varlen or variant.seqused or variant.paged_kv
    return bool(packed or variant.scheduler_metadata != "auto" or variant.seqlen_k_per_split)


def _blocks(variant: Variant, size: tuple[int, int]) -> tuple[int, int]:
    return math.ceil(variant.shape.seqlen_q / size[0]), math.ceil(variant.shape.seqlen_k / size[1])
