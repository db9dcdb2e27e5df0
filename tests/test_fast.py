"""What makes builds fast, on FlashAttention's own kernels: less work for the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import fast_tasks
import pytest

from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.dsl import lean as lean_module
from fa4_precompile.providers.dsl.lean import Lean, OtherFrontend
from fa4_precompile.providers.dsl.rewriting import Rewriting
from fa4_precompile.providers.installed import installed_toolchain

_SPEC = """
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: all, pass: bwd, dtype: bf16, head_dim: 64, causal: true}
"""


@pytest.fixture(scope="module")
def compilers() -> Iterator[Compilers]:
    """The fork servers of a build with one job."""
    spec = parse_spec("spec.yaml", _SPEC, target_book())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with Compilers(spec.provider, spec.targets[0], installed_toolchain(spec.provider), 1) as compilers:
            yield compilers


@pytest.mark.compiles
def test_kernel_is_rewritten_once_and_made_for_export_only_with_the_bytes_of_the_dsls_own_way(
    compilers: Compilers,
) -> None:
    call = Call(parse_spec("spec.yaml", _SPEC, target_book()).variants[0])
    results = [
        compilers.pool().submit(fast_tasks.compile_one, compilers.pinned, call, "bwd_pre", lean).result(300)
        for lean in (True, True, False)
    ]
    (blob, rewritten, engine, wrappers), (again, nothing, _, _), (own, _, _, none) = results
    assert blob == again == own
    assert "FlashAttentionBackwardPreprocess.kernel" in rewritten
    assert nothing == []
    assert not engine
    assert none == 0
    # For another release, read what its `dsl_user_op` does around an operation, and add its digest.
    assert wrappers > 500 or not version("nvidia-cutlass-dsl").startswith("4.8.")


@pytest.mark.compiles
def test_kernel_that_fails_lean_is_made_the_dsls_way_and_all_that_was_asked_of_the_device_is_recorded(
    compilers: Compilers,
) -> None:
    call = Call(parse_spec("spec.yaml", _SPEC, target_book()).variants[0])
    submit = compilers.pool().submit
    blob, *_ = submit(fast_tasks.compile_one, compilers.pinned, call, "bwd_post", False).result(300)
    again, tries, facts = submit(fast_tasks.compile_with_a_fault, compilers.pinned, call, "bwd_post").result(300)
    assert tries == 2
    assert facts == {"sms": 148}  # another kernel id, so another symbol in the blob
    assert len(again) == len(blob)


def _operations(source: str) -> ModuleType:
    """Return a module that marks its functions as the DSL does."""
    module = ModuleType("operations")
    exec(compile(source, __file__, "exec"), module.__dict__)
    return module


_MARKING = """
_ENABLE_FRAME_FILTERING = False
class _LOC_TRANSFORMS:
    get = staticmethod(lambda: ())
calls = []
def dsl_user_op(opFunc):
    def wrapper(*args, **kwargs):
        calls.append(opFunc.__name__)
        kwargs.setdefault("loc", "found")
        return opFunc(*args, **kwargs)
    return wrapper
@dsl_user_op
def add(a, b, *, loc=None):
    return a + b, loc
"""


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Such a module, whose way to mark functions is one that was read."""
    module = _operations(_MARKING)
    monkeypatch.setattr(lean_module, "source_digest", lambda function: "read" if function else "")
    monkeypatch.setattr(lean_module, "_READ", frozenset(["read"]))
    return module


def test_wrappers_stand_aside_while_a_kernel_is_traced_and_no_longer(operations: Any) -> None:
    lean = Lean(operations, _Dsl)
    lean.find_wrappers()
    with lean.tracing():
        assert operations.add(1, b=2) == (3, None)
        assert operations.add(1, 2, loc="given") == (3, "given")
        assert operations.calls == []
    assert operations.add(1, 2) == (3, "found")
    assert operations.calls == ["add"]


def test_wrappers_do_all_that_they_did_where_a_compile_asks_for_source_locations(operations: Any) -> None:
    lean = Lean(operations, _Dsl)
    lean.find_wrappers()
    operations._ENABLE_FRAME_FILTERING = True
    with lean.tracing():
        assert operations.add(1, 2) == (3, "found")
    assert operations.calls == ["add"]


def test_compile_that_asks_for_the_dsls_other_frontend_is_not_made_lean(operations: Any) -> None:
    lean = Lean(operations, _Dsl)
    lean.find_wrappers()
    with pytest.raises(OtherFrontend), lean.tracing():
        _Dsl.enable_pyir()
    assert _Dsl.enable_pyir() == "other"
    assert operations.add(1, 2) == (3, "found")


def test_wrappers_of_a_release_that_was_not_read_are_left_alone() -> None:
    operations: Any = _operations(_MARKING)
    for module in (operations, ModuleType("empty"), None):
        lean = Lean(module, _Dsl)
        lean.find_wrappers()
        assert not lean.is_known
        with lean.tracing():
            assert operations.add(1, 2) == (3, "found")
    assert operations.calls == ["add"] * 3


class _Dsl:
    """Rewrites functions as the DSL does, by a mark."""

    rewritten: list[str]

    @classmethod
    def enable_pyir(cls) -> str:
        return "other"

    def run_preprocessor(self, function: Any) -> None:
        self.rewritten.append(function.__qualname__)
        if function.__name__ == "broken":
            raise ValueError("no code")

    @staticmethod
    def _preprocess_and_replace_code(function: Any) -> None:
        _Dsl().run_preprocessor(function)


class _Kernel:
    @property
    def count(self) -> int:
        return 1

    def broken(self) -> None: ...


def test_what_was_rewritten_elsewhere_is_rewritten_here_as_far_as_it_is_here() -> None:
    _Dsl.rewritten = []
    rewriting = Rewriting(_Dsl)
    names = ["_Kernel.broken", "_Kernel.count", "_Kernel.gone", "make.<locals>.inner", "_operations"]
    rewriting.repeat([(__name__, name) for name in names] + [("no.module", "function")])
    assert _Dsl.rewritten == ["_Kernel.broken", "_Kernel.count", "_operations"]
    assert rewriting.done() == []  # children report what they had to do, not what was done for them
    _Dsl().run_preprocessor(_operations)
    assert rewriting.done() == [(__name__, "_operations")]


def test_dsl_without_a_rewriter_is_left_as_it_is() -> None:
    class Other:
        pass

    rewriting = Rewriting(Other)
    rewriting.repeat([(__name__, "_operations")])
    assert rewriting.done() == []
    assert not hasattr(Other, "run_preprocessor")
