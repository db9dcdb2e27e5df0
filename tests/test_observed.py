"""From a call that a job makes to the lines of a spec that enumerate it.

The functions are made up here, in modules named as the provider's; the tensors are torch's, on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.fa4.observed import observe, spec_lines
from fa4_precompile.providers.fa4.variant import AuxTensor, Shape, Sparse, Variant
from fa4_precompile.providers.registry import DEFAULT

torch: Any = pytest.importorskip("torch")

_MODULE = f"{DEFAULT.package}.madeup"


@dataclass(frozen=True)
class _Seen:
    """What was made of a call."""

    lines: str
    variant: Variant | None


def _look(frame: FrameType | None, **job_env: str) -> _Seen:
    return _Seen(spec_lines(frame, DEFAULT.package, job_env), observe(frame, DEFAULT.package))


def _function(arguments: str, module: str = _MODULE, body: str = "return look()", **names: Any) -> Callable[..., Any]:
    """Make a function of a module that does what its body says, usually to look at its own call."""
    namespace: dict[str, Any] = {"__name__": module, "look": lambda: _look(sys._getframe(1)), **names}
    exec(f"def call({arguments}):\n    {body}\n", namespace)
    function: Callable[..., Any] = namespace["call"]
    return function


def _call(**arguments: Any) -> _Seen:
    """Make a call with these arguments, and look at it."""
    seen: _Seen = _function(", ".join(arguments))(**arguments)
    return seen


def _qkv(*sizes: tuple[int, ...], dtype: str = "bfloat16", training: bool = False) -> dict[str, Any]:
    return {
        name: torch.empty(*size, dtype=getattr(torch, dtype), requires_grad=training)
        for name, size in zip("qkv", sizes, strict=True)
    }


def _dense(**options: Any) -> dict[str, Any]:
    return _qkv(*[(2, 256, 4, 64)] * 3, **options)


def _offsets(batch: int) -> Any:
    return torch.zeros(batch + 1, dtype=torch.int32)


def _block_mask(*lead: int, full: bool = True, size: tuple[int, int] | None = (256, 128)) -> SimpleNamespace:
    """Return what FA4 takes as `block_sparse_tensors`, as far as it is looked at."""
    counts = torch.zeros(*lead, 1, dtype=torch.int32)
    return SimpleNamespace(
        mask_block_cnt=counts,
        mask_block_idx=counts,
        full_block_cnt=counts if full else None,
        full_block_idx=counts if full else None,
        cu_total_m_blocks=None,
        cu_block_idx_offsets=None,
        block_size=size,
        dq_write_order=None,
        dq_write_order_full=None,
        spt=None,
    )


_SHAPE = Shape(batch=2, heads=4, seqlen_q=256, seqlen_k=256)
_FWD = Variant("fwd", "bf16", 64, 64, shape=_SHAPE)


def _with(variant: Variant = _FWD, **changes: Any) -> Variant:
    return Variant(**{**vars(variant), **changes})


_CALLS: dict[str, tuple[dict[str, Any], Variant]] = {
    "dense": (_dense(), _FWD),
    "fp16": (_dense(dtype="float16"), _with(dtype="fp16")),
    "causal": (_dense() | {"causal": True}, _with(causal=True)),
    "neutral values": (
        _dense() | {"softcap": 0.0, "num_splits": 1, "learnable_sink": None, "mask_mod": None, "aux_tensors": None},
        _FWD,
    ),
    "head_dim of V": (
        _qkv((2, 256, 4, 192), (2, 256, 4, 192), (2, 256, 4, 128)),
        _with(head_dim=192, head_dim_v=128),
    ),
    "GQA, and K of another length": (
        _qkv((2, 1, 8, 128), (2, 512, 2, 128), (2, 512, 2, 128)),
        _with(head_dim=128, head_dim_v=128, qheads_per_kvhead=4, shape=Shape(2, None, 1, 512)),
    ),
    "window": (_dense() | {"window_size_left": 127, "window_size_right": 0}, _with(window=(127, 0))),
    "window of one side": (
        _dense() | {"window_size_left": None, "window_size_right": 0},
        _with(window=(None, 0)),
    ),
    "no window": (_dense() | {"window_size_left": None, "window_size_right": None}, _FWD),
    "return_lse": (_dense() | {"return_lse": True}, _with(return_lse=True)),
    "training forward": (_dense(training=True) | {"return_lse": True}, _with(pass_="bwd")),
    "backward": (_dense() | {"dout": 1, "deterministic": True}, _with(pass_="bwd", deterministic=True)),
    "backward with a gradient of the LSE": (_dense() | {"dout": 1, "dlse": 1}, _with(pass_="bwd", return_lse="grad")),
    "backward without one": (_dense() | {"dout": 1, "dlse": None}, _with(pass_="bwd")),
    "varlen": (
        _qkv(*[(700, 4, 64)] * 3)
        | {"cu_seqlens_q": _offsets(3), "cu_seqlens_k": _offsets(3), "max_seqlen_q": 512, "max_seqlen_k": 512},
        _with(varlen=True, shape=Shape(3, 4, 512, 512)),
    ),
    "varlen with no lengths given": (
        _qkv(*[(600, 4, 64)] * 3)
        | {"cu_seqlens_q": _offsets(3), "cu_seqlens_k": _offsets(3), "max_seqlen_q": None, "max_seqlen_k": None},
        _with(varlen=True, max_seqlen="omitted", shape=Shape(3, 4, 200, 200)),
    ),
    "varlen of Q": (
        _qkv((700, 4, 64), (3, 256, 4, 64), (3, 256, 4, 64))
        | {"cu_seqlens_q": _offsets(3), "cu_seqlens_k": None, "max_seqlen_q": 512},
        _with(varlen="q", shape=Shape(3, 4, 512, 256)),
    ),
    "varlen of K": (
        _qkv((3, 256, 4, 64), (700, 4, 64), (700, 4, 64))
        | {"cu_seqlens_q": None, "cu_seqlens_k": _offsets(3), "max_seqlen_q": 256, "max_seqlen_k": 512},
        _with(varlen="k", shape=Shape(3, 4, 256, 512)),
    ),
    "block sparse": (
        _dense() | {"block_sparse_tensors": _block_mask(1, 1)},
        _with(sparse=Sparse(256, 128)),
    ),
    "block sparse for each": (
        _dense() | {"block_sparse_tensors": _block_mask(2, 4, full=False)},
        _with(sparse=Sparse(256, 128, batch="each", heads="each", full_blocks=False)),
    ),
    "softcap": (_dense() | {"softcap": 15.0}, _with(softcap=15.0)),
    "sink": (_dense() | {"learnable_sink": torch.empty(4, dtype=torch.bfloat16)}, _with(sink="bf16")),
    "lengths of K in use": (_dense() | {"seqused_q": None, "seqused_k": _offsets(1)}, _with(seqused="k")),
    "paged KV": (
        _qkv((2, 1, 4, 64), (16, 128, 4, 64), (16, 128, 4, 64)) | {"page_table": torch.zeros(2, 8, dtype=torch.int32)},
        _with(paged_kv=128, shape=Shape(2, 4, 1, 1024)),
    ),
    "split KV": (_dense() | {"num_splits": 4}, _with(num_splits=4)),
    "no block mask": (_dense() | {"block_sparse_tensors": None}, _FWD),
}


@pytest.mark.parametrize("name", _CALLS)
def test_call_is_seen_as_the_variant_that_makes_it(name: str) -> None:
    arguments, variant = _CALLS[name]
    assert _call(**arguments).variant == variant


@pytest.mark.parametrize("name", _CALLS)
def test_lines_that_are_put_into_a_spec_enumerate_the_call(name: str) -> None:
    arguments, variant = _CALLS[name]
    text = f"version: 1\nprovider: flash-attn-4\nkernels:\n{_call(**arguments).lines}\n"
    assert parse_spec("spec.yaml", text, target_book()).variants == (variant,)


def test_lines_of_several_calls_can_stand_in_one_spec() -> None:
    seen = [_call(**arguments) for arguments, _ in _CALLS.values()]
    text = "version: 1\nprovider: flash-attn-4\nkernels:\n" + "\n".join(dict.fromkeys(one.lines for one in seen))
    found = parse_spec("spec.yaml", text, target_book()).variants
    assert set(found) == {one.variant for one in seen}


def test_lines_have_the_variables_that_the_job_has_set() -> None:
    switches = {"FLASH_ATTENTION_BWD_TILE_N": "64", "FA_DISABLE_2CTA": "1"}
    seen = _function("q, k, v", body="return see()", see=lambda: _look(sys._getframe(1), **switches))(**_dense())
    text = f"version: 1\nprovider: flash-attn-4\nkernels:\n{seen.lines}\n"
    (variant,) = parse_spec("spec.yaml", text, target_book()).variants
    assert variant == _with(job_env=(("FA_DISABLE_2CTA", "1"), ("FLASH_ATTENTION_BWD_TILE_N", "64")))


_MADE = {"mask": lambda *_: True}


def score(*_: object) -> float:
    """Stand for a `score_mod` that other processes find by its name."""
    return 0.0


def test_function_that_a_module_has_is_told_by_its_name() -> None:
    seen = _call(**_dense(), score_mod=score, score_mod_bwd=score)
    assert seen.variant == _with(score_mod=f"{__name__}:score", score_mod_bwd=f"{__name__}:score")
    module = SimpleNamespace(made=_MADE["mask"])
    made = _MADE["mask"]
    made.__module__ = "a_module_that_makes_masks"
    sys.modules[made.__module__] = module  # type: ignore[assignment]
    try:
        assert _call(**_dense(), mask_mod=made).variant == _with(mask_mod="a_module_that_makes_masks:made")
    finally:
        del sys.modules[made.__module__]


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ({"q_descale": 1, "v_descale": 1}, {"descale": "qv"}),
        ({"tile_mn": (128, 64)}, {"tile": (128, 64)}),
        ({"tile_mn": None}, {}),
        ({"scheduler_metadata": "a tensor"}, {"scheduler_metadata": "given"}),
        ({"disable_scheduler_metadata": True}, {"scheduler_metadata": "off"}),
        ({"seqlen_k_per_split": 128}, {"seqlen_k_per_split": 128}),
        ({"aux_scalars": (1, 2.0)}, {"aux_scalars": ("int", "float")}),
        ({"aux_scalars": ()}, {}),
    ],
    ids=str,
)
def test_argument_is_told_by_its_axis(arguments: dict[str, Any], changes: dict[str, Any]) -> None:
    assert _call(**_dense(), **arguments).variant == _with(**changes)


def test_auxiliary_tensors_are_told_by_their_sizes_and_strides() -> None:
    whole = torch.zeros(2, 4, 3, 256, dtype=torch.int32)
    shared = torch.zeros(1, 1, 3, 256, dtype=torch.int32).expand(2, 4, 3, 256)
    lengths = torch.zeros(2, dtype=torch.int32)
    shape = ("batch", "heads", 3, "seqlen_q")
    assert _call(**_dense(), aux_tensors=[whole, shared, lengths]).variant == _with(
        aux_tensors=(AuxTensor("int32", shape), AuxTensor("int32", shape, (0, 1)), AuxTensor("int32", ("batch",)))
    )


def test_scalar_of_another_kind_is_named() -> None:
    seen = _call(**_dense(), aux_scalars=("word",))
    assert seen.lines.startswith("# no axis says `aux_scalars of type str` of this call")


def test_mask_of_the_backward_is_told_with_the_forwards() -> None:
    backward = _block_mask(1, 1, size=(128, 64))
    backward.spt = True
    seen = _call(**_dense(), block_sparse_tensors=_block_mask(1, 1), block_sparse_tensors_bwd=backward)
    assert seen.variant == _with(sparse=Sparse(256, 128, bwd_q_block=128, bwd_kv_block=64, descending=True))


def test_setting_of_the_backward_is_told_where_the_forward_is_looked_up() -> None:
    inner = _function("q, k, v")
    outer = _function("q, k, v, deterministic", body="return inner(q, k, v)", inner=inner)
    assert outer(**_dense(training=True), deterministic=True).variant == _with(pass_="bwd", deterministic=True)


def test_backward_says_nothing_of_how_the_job_has_heads_packed() -> None:
    grouped = _qkv((2, 256, 4, 64), (2, 256, 2, 64), (2, 256, 2, 64))
    seen = _call(**grouped, dout=1, pack_gqa=False)
    assert seen.variant == _with(pass_="bwd", qheads_per_kvhead=2, shape=Shape(2, None, 256, 256))


@pytest.mark.parametrize(
    ("name", "value"), [("mask_mod", lambda *_: True), ("score_mod", lambda *_: 0.0)], ids=["mask_mod", "score_mod"]
)
def test_what_can_not_be_told_from_a_call_is_named_above_the_lines(name: str, value: object) -> None:
    seen = _call(**_dense(), **{name: value})
    comment, entry = seen.lines.splitlines()
    assert comment == f"# and, as only the job's code can tell: `{name}`"
    assert entry == _call(**_dense()).lines
    assert seen.variant is None


def test_call_of_a_dtype_that_no_spec_can_say_is_a_comment() -> None:
    seen = _call(**_dense(dtype="float32"))
    assert seen.lines.startswith("#")
    assert seen.variant is None


def test_block_mask_that_does_not_say_its_block_size_is_a_comment() -> None:
    # FA4 takes one, and infers the size.
    seen = _call(**_dense(), block_sparse_tensors=_block_mask(1, 1, size=None))
    assert seen.lines.startswith("#")
    assert seen.variant is None


@pytest.mark.parametrize("value", [True, 3, "word", object(), (1, 2)])
def test_argument_that_no_axis_says_is_named_and_no_entry_is_printed(value: object) -> None:
    seen = _call(**_dense(), causal=True, arbitrary=value)
    assert seen.lines.startswith("# no axis says `arbitrary` of this call")
    assert "\n" not in seen.lines
    assert seen.variant is None


@pytest.mark.parametrize("value", [None, False])
def test_argument_that_no_axis_says_and_that_is_not_given_is_nothing(value: object) -> None:
    assert _call(**_dense(), arbitrary=value).variant == _FWD


def test_argument_that_no_axis_says_at_its_default_is_nothing() -> None:
    assert _function("q, k, v, stages=2, order=(1, 0)")(**_dense()).variant == _FWD
    seen = _function("q, k, v, stages=2, order=(1, 0)")(**_dense(), stages=3)
    assert seen.lines.startswith("# no axis says `stages` of this call")


def test_number_that_the_provider_puts_in_an_arguments_place_says_nothing_of_the_call() -> None:
    assert _function("q, k, v, m_block_size=64", body="m_block_size = 128; return look()")(**_dense()).variant == _FWD
    csr = _function("q, k, v, csr=None", body="csr = csr or object(); return look()")(**_dense())
    assert csr.lines.startswith("# no axis says `csr` of this call")


def test_argument_of_the_function_that_the_job_called_counts_too() -> None:
    inner = _function("q, k, v")
    seen = _function("q, k, v, arbitrary", body="return inner(q, k, v)", inner=inner)(**_dense(), arbitrary=True)
    assert seen.lines.startswith("# no axis says `arbitrary` of this call")


def test_function_without_q_k_and_v_is_named_by_what_the_job_called() -> None:
    inner = _function("out_partial, lse_partial")
    operator = _function("", module="torch.ops", body="return inner(1, 2)", inner=inner)
    outer = _function("out_partial, lse_partial", body="return operator()", operator=operator)
    outer.__code__ = outer.__code__.replace(co_name="combine")
    seen = _function("", module="job", body="return outer(1, 2)", outer=outer)()
    assert seen.lines.startswith("# no axis says `combine()` of this call")
    assert seen.variant is None


def test_module_of_the_providers_that_the_job_runs_is_no_call() -> None:
    namespace: dict[str, Any] = {"__name__": _MODULE, "look": lambda: _look(sys._getframe(1))}
    exec("seen = look()", namespace)
    assert namespace["seen"] == _Seen("", None)


# Which call


def test_score_mod_that_the_provider_makes_of_a_softcap_is_not_the_jobs() -> None:
    seen = _call(**_dense(), softcap=15.0, score_mod=lambda *_: 0.0)
    assert seen.variant == _with(softcap=15.0)
    assert "#" not in seen.lines


def test_packing_of_heads_is_told_where_there_are_several() -> None:
    grouped = _qkv((2, 256, 4, 64), (2, 256, 2, 64), (2, 256, 2, 64))
    of_two = _with(qheads_per_kvhead=2, shape=Shape(2, None, 256, 256))
    assert _call(**grouped, pack_gqa=False).variant == _with(of_two, pack_gqa=False)
    assert _call(**grouped, pack_gqa=None).variant == of_two
    assert _call(**_dense(), pack_gqa=False).variant == _FWD


def test_what_the_job_gave_counts_and_not_what_the_provider_made_of_it() -> None:
    names = "q, k, v, num_splits, pack_gqa, scheduler_metadata, score_mod"
    inner = _function(names)
    outer = _function(names, body="return inner(q, k, v, 8, True, object(), lambda *_: 0)", inner=inner)
    grouped = _qkv((2, 256, 4, 64), (2, 256, 2, 64), (2, 256, 2, 64))
    seen = outer(**grouped, num_splits=0, pack_gqa=None, scheduler_metadata=None, score_mod=None)
    assert seen.variant == _with(qheads_per_kvhead=2, num_splits=0, shape=Shape(2, None, 256, 256))


def test_innermost_function_with_q_k_and_v_is_the_call() -> None:
    inner = _function("q, k, v, causal")
    causal = _dense() | {"causal": True}
    step = _function("out, dout", body="return inner(**given)", inner=inner, given=causal)
    outer = _function("q, k, v, causal", body="return step(None, None)", step=step)
    seen = outer(**_dense(), causal=False)
    assert seen.variant == _with(causal=True)


def test_function_of_the_provider_without_q_k_and_v_is_looked_past() -> None:
    step = _function("out, dout")
    outer = _function("q, k, v", body="return step(None, None)", step=step)
    seen = outer(**_dense())
    assert seen.variant == _FWD


def test_longest_sequence_is_what_the_job_gave_and_not_what_the_provider_made_of_it() -> None:
    names = "q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
    inner = _function(names)
    outer = _function(names, body="return inner(q, k, v, cu_seqlens_q, cu_seqlens_k, 512, 512)", inner=inner)
    packed = {**_qkv(*[(600, 4, 64)] * 3), "cu_seqlens_q": _offsets(3), "cu_seqlens_k": _offsets(3)}
    seen = outer(**packed, max_seqlen_q=None, max_seqlen_k=None)
    assert seen.variant.max_seqlen == "omitted"
    assert outer(**packed, max_seqlen_q=512, max_seqlen_k=512).variant.max_seqlen == "given"


def test_arguments_that_can_only_be_named_are_seen() -> None:
    seen = _function("q, k, v, *, causal")(**_dense(), causal=True)
    assert seen.variant == _with(causal=True)


def test_local_variables_are_no_arguments() -> None:
    seen = _function("q, k, v", body="dout = causal = 1; return look()")(**_dense())
    assert seen.variant == _FWD


@pytest.mark.parametrize("module", ["job", f"{DEFAULT.package}s.madeup", "flash_attn.madeup"])
def test_call_of_somebody_elses_function_is_nothing(module: str) -> None:
    seen = _function("q, k, v", module=module)(**_dense())
    assert (seen.lines, seen.variant) == ("", None)


def test_call_whose_q_is_no_tensor_is_named_by_its_function() -> None:
    seen = _call(q=None, k=None, v=torch.empty(1))
    assert seen.lines.startswith("# no axis says `call()` of this call")
    assert seen.variant is None


def test_no_frame_is_nothing() -> None:
    assert spec_lines(None, DEFAULT.package) == ""
    assert observe(None, DEFAULT.package) is None
