"""The tripwire: whatever compiles raises, and says who asked. With a DSL made up here, and once with the real one."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fa4_precompile.errors import CompileForbidden, MachineError
from fa4_precompile.loader import tripwire
from fa4_precompile.loader.tripwire import Tripwire

# What is true of the real one: `compile` comes by other functions of the DSL to `BaseDSL.generate_mlir`.
_MADE_UP_DSL = """
class BaseDSL:
    def generate_mlir(self, body, name, *arguments, **options):
        '''Make code.'''
        return f"code of {name}"

class OtherDSL(BaseDSL):
    pass

def compile(body, dsl=OtherDSL):
    return _inner(body, dsl)

def _inner(body, dsl):
    return dsl().generate_mlir(body, body.__name__, 1, two=2)
"""


@pytest.fixture
def dsl() -> Iterator[ModuleType]:
    """A module that has what the tripwire is set in."""
    module = ModuleType("madeupdsl.base")
    exec(compile(_MADE_UP_DSL, "madeupdsl.py", "exec"), vars(module))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
def forbidden() -> list[CompileForbidden]:
    """What the tripwire has reported."""
    return []


@pytest.fixture
def wire(forbidden: list[CompileForbidden]) -> Tripwire:
    """A tripwire that is not set yet."""
    return Tripwire(forbidden.append)


def kernel() -> None:
    """A function that is to be compiled."""


def a_step_of_the_job(dsl: Any) -> object:
    return dsl.compile(kernel)


def test_set_compile_raises_and_is_recorded(dsl: ModuleType, wire: Tripwire, forbidden: list[CompileForbidden]) -> None:
    wire.set(dsl)
    with pytest.raises(CompileForbidden) as caught:
        a_step_of_the_job(dsl)
    assert forbidden == [caught.value]


def test_error_names_the_function_and_who_asked_for_it(dsl: ModuleType, wire: Tripwire) -> None:
    wire.set(dsl)
    with pytest.raises(CompileForbidden) as caught:
        a_step_of_the_job(dsl)
    error = caught.value
    assert error.function == f"{__name__}.kernel"
    assert str(error).startswith(
        f"`{__name__}.kernel` is about to be compiled, which strict mode forbids; asked for by"
    )
    assert "in a_step_of_the_job" in error.stack[-1]
    assert "return dsl.compile(kernel)" in str(error)
    assert "in test_error_names_the_function_and_who_asked_for_it" in error.stack[-2]
    assert error.hint


def test_error_shows_neither_the_dsls_frames_nor_ours_and_not_the_whole_stack(dsl: ModuleType, wire: Tripwire) -> None:
    wire.set(dsl)

    def call(depth: int) -> object:
        return call(depth - 1) if depth else a_step_of_the_job(dsl)

    with pytest.raises(CompileForbidden) as caught:
        call(30)
    shown = "".join(caught.value.stack)
    assert "madeupdsl.py" not in shown
    assert inspect.getfile(tripwire) not in shown
    assert 1 < len(caught.value.stack) < 15


def test_set_what_is_no_function_is_named_too(dsl: Any, wire: Tripwire) -> None:
    wire.set(dsl)
    with pytest.raises(CompileForbidden, match="a made-up body"):
        dsl.BaseDSL().generate_mlir("a made-up body", "name")


def test_nothing_is_made_before_it_raises(dsl: Any, wire: Tripwire, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(dsl.BaseDSL, "generate_mlir", lambda *_, **__: made.append(1))
    wire.set(dsl)
    with pytest.raises(CompileForbidden):
        a_step_of_the_job(dsl)
    assert made == []


def test_remove_puts_the_very_same_function_back(dsl: Any, wire: Tripwire, forbidden: list[CompileForbidden]) -> None:
    original = vars(dsl.BaseDSL)["generate_mlir"]
    wire.set(dsl)
    assert vars(dsl.BaseDSL)["generate_mlir"] is not original
    assert dsl.BaseDSL.generate_mlir.__doc__ == "Make code."
    wire.remove()
    assert vars(dsl.BaseDSL)["generate_mlir"] is original
    assert a_step_of_the_job(dsl) == "code of kernel"
    assert forbidden == []


def test_set_twice_is_set_once(dsl: Any, wire: Tripwire) -> None:
    original = vars(dsl.BaseDSL)["generate_mlir"]
    wire.set(dsl)
    wire.set(dsl)
    wire.remove()
    assert vars(dsl.BaseDSL)["generate_mlir"] is original


def test_remove_and_set_again_work(dsl: Any, wire: Tripwire) -> None:
    wire.remove()
    wire.set(dsl)
    wire.remove()
    wire.set(dsl)
    with pytest.raises(CompileForbidden):
        a_step_of_the_job(dsl)


@pytest.mark.parametrize("left", ["class BaseDSL: pass", "class AnotherName: generate_mlir = 1", ""])
def test_release_of_the_dsl_that_has_no_such_method_is_a_machine_error(wire: Tripwire, left: str) -> None:
    # Strict mode must not promise what it can't hold.
    module = ModuleType("madeupdsl.base")
    exec(left, vars(module))
    with pytest.raises(MachineError, match=r"`cutlass\.base_dsl\.dsl\.BaseDSL\.generate_mlir` is not there") as caught:
        wire.set(module)
    assert "`on_miss`" in caught.value.hint
    wire.remove()


_REAL = """
import cutlass
import cutlass.cute as cute
import importlib, sys
from fa4_precompile.loader import tripwire
from fa4_precompile.errors import CompileForbidden

module = sys.modules[tripwire.MODULE]
original = vars(module.BaseDSL)["generate_mlir"]
def all_below(cls):
    return [cls, *(item for child in cls.__subclasses__() for item in all_below(child))]
assert [cls for cls in all_below(module.BaseDSL) if "generate_mlir" in vars(cls)] == [module.BaseDSL]

found = []
wire = tripwire.Tripwire(found.append)
wire.set(module)

@cute.jit
def function(number: cutlass.Int32):
    pass

def compiled(): cute.compile(function, cutlass.Int32(1))
def compiled_with_options(): cute.compile[cute.EnableTVMFFI](function, cutlass.Int32(1))
def called(): function(cutlass.Int32(1))
for way in (compiled, compiled_with_options, called):
    try:
        way()
    except CompileForbidden as error:
        assert error.function.endswith("function"), error.function
        assert f"in {way.__name__}" in error.stack[-1], error.stack
    else:
        raise AssertionError(f"{way.__name__} got by")
assert len(found) == 3
wire.remove()
assert vars(module.BaseDSL)["generate_mlir"] is original
print("held")
"""


def test_real_dsl_every_way_to_compile_comes_by_the_method_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(_REAL)
    environment = os.environ | {"CUTE_DSL_ARCH": "sm_100a"}
    line = [sys.executable, str(tmp_path / "job.py")]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
