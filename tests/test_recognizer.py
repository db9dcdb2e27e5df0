"""Functions in keys: FlashAttention's hash of each, mended where it would not do; jobs that get the right kernel."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fa4_precompile.providers.fa4.recognizer import FlashRecognizer
from jobs import run_from_scratch
from product import records, run

_PACKAGE = "flash_attn.cute"
_MASK = "WIDTH = {}\n\n\ndef near(b, h, q, k):\n    return q - k < WIDTH\n"

_OF_HELPER = "def make(f):\n    def mask(b, h, q, k):\n        return f(q) < k\n    return mask\n\n\n"


@pytest.fixture
def hashing() -> ModuleType:
    """FlashAttention's own module that hashes functions."""
    pytest.importorskip("flash_attn.cute.interface")
    return importlib.import_module(f"{_PACKAGE}.utils")


@pytest.fixture
def recognizer(hashing: ModuleType) -> Iterator[FlashRecognizer]:
    own = FlashRecognizer(_PACKAGE)
    own.watch()
    yield own
    own.close()


Load = Callable[[str, str], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Returns the module of some name and text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(name: str, text: str) -> ModuleType:
        unique = f"{name}_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
        (tmp_path / f"{unique}.py").write_text(text)
        return importlib.import_module(unique)

    return load


def _lookup(recognizer: FlashRecognizer, key: object, mask_mod: Any, score_mod: Any = None) -> Any:
    """Look a key up from a function of the package's that has the functions in its variables."""
    names: dict[str, Any] = {"__name__": f"{_PACKAGE}.interface", "sys": sys}
    exec("def fwd(recognizer, key, mask_mod, score_mod):\n    return recognizer(key, sys._getframe())\n", names)
    return names["fwd"](recognizer.recognize, key, mask_mod, score_mod)


def test_function_is_a_fact_of_a_key_that_has_its_hash_and_of_no_other(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    near = load("masks", _MASK.format(3)).near
    key = 64, (hashing.hash_callable(near), False)
    found = _lookup(recognizer, key, near)
    assert found.key == key
    assert found.facts == {"mask_mod": recognizer.describer.describe(near).digest}
    assert _lookup(recognizer, (64, "of another kernel"), near).facts == {}


def test_two_functions_of_one_hash_have_two_in_the_process_and_are_looked_up_by_the_first(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    narrow, wide = (load(f"masks{width}", _MASK.format(width)).near for width in (3, 4))
    again = load("again", _MASK.format(3)).near
    hashes = [hashing.hash_callable(mask) for mask in (narrow, wide, again)]
    assert hashes[0] == hashes[2] == hashing.hash_callable(again)
    assert hashes[1] not in (hashes[0], hashlib.sha256(inspect.getsource(wide).encode()).hexdigest())
    first, second = (_lookup(recognizer, (64, one), mask) for one, mask in zip(hashes, (narrow, wide), strict=False))
    assert first.key == second.key == (64, hashes[0])
    assert first.facts != second.facts


def test_two_functions_of_one_hash_have_two_with_what_the_library_mixes_in(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    narrow, wide = (load(f"masks{width}", _MASK.format(width)).near for width in (3, 4))
    narrow.__vec_size__ = wide.__vec_size__ = 2
    hashes = [hashing.hash_callable(mask) for mask in (narrow, wide)]
    assert hashes[0] != hashes[1]
    assert _lookup(recognizer, (64, hashes[1]), wide).key == (64, hashes[0])


def test_function_that_captures_a_helper_has_a_hash_without_an_address(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    def masks(name: str, sign: str) -> Any:
        return load(name, f"def near(q):\n    return {sign}q\n\n\n{_OF_HELPER}mask = make(near)\n").mask

    one, other, again = masks("one", ""), masks("other", "-"), masks("again", "")
    hashes = [hashing.hash_callable(mask) for mask in (one, other, again)]
    assert hashes[0] == hashes[2] != hashes[1]
    assert _lookup(recognizer, (hashes[0],), again) == _lookup(recognizer, (hashes[0],), one)


_WRAPPERS = """import functools


def near(b, h, q, k):
    return q < k


def shifted(f, n):
    @functools.wraps(f)
    def mask(b, h, q, k):
        return f(b, h, q - n, k)
    return mask


class Shifted:
    def __init__(self, f, n):
        functools.update_wrapper(self, f)
        self.f, self.n = f, n

    def __call__(self, b, h, q, k):
        return self.f(b, h, q - self.n, k)
"""


@pytest.mark.parametrize("kind", ["shifted", "Shifted"])
@pytest.mark.parametrize("is_hashed", [False, True])
def test_wrappers_of_one_function_have_hashes_of_their_own(
    recognizer: FlashRecognizer, hashing: Any, load: Load, kind: str, is_hashed: bool
) -> None:
    module = load("wrappers", _WRAPPERS)
    if is_hashed:  # so that wrappers copy its hash
        hashing.hash_callable(module.near)
    wrap = getattr(module, kind)
    masks = [wrap(module.near, 3), wrap(module.near, 4), module.near, wrap(wrap(module.near, 3), 4)]
    hashes = [hashing.hash_callable(mask) for mask in masks]
    assert len(set(hashes)) == len(masks)
    assert [hashing.hash_callable(mask) for mask in masks] == hashes
    found = [_lookup(recognizer, (64, one), mask) for one, mask in zip(hashes, masks, strict=True)]
    assert len({one.facts["mask_mod"] for one in found}) == len(masks)
    assert found[0].key == found[1].key == found[2].key


def test_wrappers_that_are_compiled_have_hashes_of_their_own(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    cute = pytest.importorskip("cutlass.cute")
    module = load("wrappers", _WRAPPERS)
    alone = hashing.hash_callable(module.near)
    masks = [cute.jit(module.shifted(module.near, n)) for n in (3, 4)]
    assert len({alone, *map(hashing.hash_callable, masks)}) == 3


def test_hash_that_the_user_vouches_for_is_kept(recognizer: FlashRecognizer, hashing: Any, load: Load) -> None:
    module = load("wrappers", _WRAPPERS)
    mask = module.shifted(module.near, 3)
    mask.__cute_hash__ = "mine"
    assert hashing.hash_callable(mask) == "mine"


def test_object_that_is_called_does_the_same_after_it_was_hashed(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    mask = load("wrappers", _WRAPPERS).Shifted(len, 3)
    before = recognizer.describer.describe(mask)
    hashing.hash_callable(mask)
    assert mask.__cute_hash__
    assert recognizer.describer.describe(mask) == before


def test_object_that_has_code_and_is_no_function_breaks_nothing(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    mask = load(
        "wrappers", f"{_WRAPPERS}\n\nclass Coded:\n    __code__ = property(lambda one: near.__code__)\n"
    ).Coded()
    assert hashing.hash_callable(mask)


def test_fault_while_a_function_is_looked_at_is_a_problem_of_the_lookup(
    recognizer: FlashRecognizer, hashing: Any, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = load("masks", _MASK.format(3)).near
    monkeypatch.setattr(hashing, "hash_callable", lambda function: function.hash)
    assert "can't be recognized: AttributeError" in str(_lookup(recognizer, (64, "a"), near).problem)


def test_one_that_is_closed_hashes_nothing_though_somebody_else_took_part_meanwhile(hashing: Any, load: Load) -> None:
    real = hashing._compute_base_hash
    own = FlashRecognizer(_PACKAGE)
    own.watch()
    ours = hashing._compute_base_hash
    hashing._compute_base_hash = lambda function: ours(function)
    try:
        own.close()
        narrow, wide = (load(f"masks{width}", _MASK.format(width)).near for width in (3, 4))
        assert hashing.hash_callable(narrow) == hashing.hash_callable(wide)
    finally:
        hashing._compute_base_hash = real


def test_library_hashes_alone_before_and_after(hashing: Any, load: Load) -> None:
    near = load("masks", _MASK.format(3)).near
    own = FlashRecognizer(_PACKAGE)
    real, every = hashing._compute_base_hash, hashing.hash_callable
    own.watch()
    assert hashing._compute_base_hash is not real
    assert hashing._compute_base_hash(near) == real(near)
    own.close()
    assert (hashing._compute_base_hash, hashing.hash_callable) == (real, every)


def test_function_that_no_process_recognizes_is_a_problem_of_the_lookup(
    recognizer: FlashRecognizer, hashing: Any, load: Load
) -> None:
    near = load("masks", f"WIDTH = iter(())\n{_MASK.partition(chr(10))[2]}").near
    found = _lookup(recognizer, (64, hashing.hash_callable(near)), near)
    assert "`mask_mod` can't be recognized in another process: `WIDTH` is a builtins.tuple_iterator" in str(
        found.problem
    )


def test_package_that_hashes_otherwise_has_all_functions_of_the_call_in_its_keys(load: Load) -> None:
    near = load("masks", _MASK.format(3)).near
    other = FlashRecognizer("rvother.cute")
    other.watch()
    frame = SimpleNamespace(
        f_globals={"__name__": "rvother.cute.interface"},
        f_locals={"mask_mod": near},
        f_code=SimpleNamespace(co_varnames=("mask_mod",)),
        f_back=None,
    )
    assert set(other.recognize((64,), frame).facts) == {"mask_mod"}  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.compiles
def test_jobs_get_the_kernel_of_their_own_function_though_the_library_takes_them_for_one(tmp_path: Path) -> None:
    text = (
        "import cutlass\nimport cutlass.cute as cute\nfrom flash_attn.cute import utils\n\nWIDTH = {}\n\n\n@cute.jit\n"
        "def near(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):\n"
        "    return q_idx - kv_idx < utils.scalar_to_ssa(WIDTH, cutlass.Int32)\n"
    )
    for name, width in (("narrow", 512), ("wide", 1024)):
        (tmp_path / f"{name}.py").write_text(text.format(width))
    spec, cache, job = tmp_path / "spec.yaml", tmp_path / "kernels", tmp_path / "job.py"
    spec.write_text(
        "version: 1\nprovider: flash-attn-4\ntargets: [b200]\nkernels:\n"
        "- {name: a, pass: fwd, dtype: bf16, head_dim: 64, mask_mod: ['narrow:near', 'wide:near']}\n"
    )
    job.write_text(
        "import importlib, sys\nimport narrow, wide\n"
        "import torch\nfrom torch._subclasses.fake_tensor import FakeTensorMode\n"
        "interface = importlib.import_module('flash_attn.cute.interface')\n"
        "narrow.WIDTH = int(sys.argv[1])\n"
        "with FakeTensorMode():\n"
        "    q = torch.empty(2, 4096, 16, 64, dtype=torch.bfloat16, device='cuda')\n"
        "    for module in (narrow, wide):\n"
        "        interface.flash_attn_func(q, q, q, mask_mod=module.near)\n"
        "import fa4_precompile\n"
        "from fa4_precompile.canary import child\n"
        "taken = {one.kernel for one in child._taken()}\n"
        "print(fa4_precompile.stats().resolved, fa4_precompile.stats().compiled, *sorted(taken))\n"
    )
    paths = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent}"}
    done = run("build", spec, "--cache", cache, environment=paths)
    assert done.code == 0, done.err
    built = records(cache)
    assert len(built) == 2
    assert built[0].key == built[1].key
    assert built[0].cubin != built[1].cubin
    ids = sorted(record.id for record in built)
    strict = {"FA4_PRECOMPILE_CACHE": str(cache), "FA4_PRECOMPILE_ON_MISS": "error", **paths}
    served = run_from_scratch([sys.executable, str(job), "512"], **strict)
    assert served.out.split() == ["2", "0", *ids], served.err
    missed = run_from_scratch([sys.executable, str(job), "2048"], **strict)
    assert "no kernel for a call of slot `fwd` (function)" in missed.err
    assert "there, `int 2048` here" in missed.err
    absent = {**strict, "FA4_PRECOMPILE_COMPILER": "absent", "FA4_PRECOMPILE_DSL_USERS": "narrow,wide"}
    without = run_from_scratch([sys.executable, str(job), "512"], **absent)
    assert without.out.split() == ["2", "0", *ids], without.err
