"""Stand-ins for the DSL: true where they answer, and no value anywhere else."""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.errors import CompilerAbsent, UnstableKey
from fa4_precompile.providers.dsl.absent import StandIns

pytestmark = pytest.mark.compiles  # the DSL itself is asked


def _executed(source: str, **names: object) -> Any:
    """Execute the source of a module that is given stand-ins."""
    module = ModuleType("some.module")
    vars(module).update(names)
    StandIns(["quack"]).give(module, ["einops"])
    exec(compile(source, "module.py", "exec", dont_inherit=True), vars(module))
    return module


_MODULE = """
import cutlass
import cutlass.cute as cute
import cutlass.utils.blackwell_helpers as helpers
from cutlass import Int32, const_expr
from cutlass.cute.typing import Int32 as Same
from quack.cute_dsl_utils import ParamsBase
"""


def test_types_of_numbers_are_named_as_the_dsl_names_them() -> None:
    import cutlass
    from cutlass.base_dsl import typing as real

    stand_in = _executed(_MODULE)
    names = [name for name, one in vars(real).items() if isinstance(one, type) and issubclass(one, real.Numeric)]
    compared = 0
    for name in names:
        own = getattr(stand_in.cutlass, name)
        if isinstance(own, type):
            compared += 1
            assert encode_key((own,)) == encode_key((getattr(cutlass, name),))
            assert repr(own) == repr(getattr(cutlass, name))
    assert compared >= 25
    assert stand_in.Int32 is stand_in.Same
    assert stand_in.Int32 != stand_in.cutlass.Int64


def test_every_type_that_is_answered_is_one_of_the_dsls() -> None:
    import cutlass

    from fa4_precompile.providers.dsl import absent

    for name, own in absent._TYPES.items():
        real = getattr(cutlass, name)
        assert (own.__module__, own.__qualname__) == (real.__module__, real.__qualname__)


@pytest.mark.parametrize("numbers", [(7, 2), (8, 2), (0, 5), (1, 128), (131072, 80), (True, 2)])
def test_ceil_div_of_integers_is_the_dsls(numbers: tuple[int, int]) -> None:
    import cutlass.cute

    assert _executed(_MODULE).cute.ceil_div(*numbers) == cutlass.cute.ceil_div(*numbers)


def test_definitions_of_all_kinds_can_be_made() -> None:
    module = _executed(
        _MODULE
        + """
from dataclasses import dataclass
from functools import partial
from typing import Callable, NamedTuple, Optional, Protocol, Tuple, Type, Union

@dataclass
class Params(ParamsBase):
    tile: cutlass.Constexpr[Tuple[int, int]]
    rows: Int32 | None = None
    scale: Optional[cutlass.Float32] = None
    start: Int32 = Int32(-1)

class Pair(NamedTuple):
    layout: cute.Layout | cute.ComposedLayout
    kind: Type[cutlass.Numeric] = cutlass.BFloat16

class Storage(cutlass.pipeline.PipelineAsync):
    @staticmethod
    @cute.jit
    def create(a: cute.Tensor, b: Int32 = Int32(0)) -> Union[cute.Tensor, None]:
        return a

    @cute.jit(preprocess=False)
    def step(self): ...

@cute.kernel
def kernel(a): ...

class Several(cutlass.First, cutlass.Second): ...

counts = [Int32(i) for i in range(2)]
fast = partial(cute.arch.fma, rnd="rn")
Operand: Callable[[cute.Tensor], Int32]
"""
    )
    assert module.kernel.__wrapped__.__name__ == "kernel"
    assert module.Pair(1).kind is module.cutlass.BFloat16


def _refused() -> dict[str, Callable[[Any], object]]:
    return {
        "true or false": lambda module: bool(module.cute.arch),
        "counted": lambda module: len(module.cute.arch),
        "walked through": lambda module: list(module.cute.arch),
        "a number": lambda module: int(module.cute.arch),
        "an index": lambda module: [1][module.cute.arch],
        "a path": lambda module: open(module.cute.arch),
        "added": lambda module: 1 + module.cute.arch,
        "divided": lambda module: module.cute.arch // 2,
        "ordered": lambda module: module.cute.arch < 2,
        "called": lambda module: module.cute.make_layout((1, 2)),
        "called with a class": lambda module: module.cutlass.sizeof(int),
        "called with a name": lambda module: module.cute.compile(tile=1),
        "a number made of a type": lambda module: module.Int32(5),
        "a type's attribute": lambda module: module.cutlass.BFloat16.width,
        "an equal of a type": lambda module: module.quack.Int32 == module.Int32,
        "a function handed over": lambda module: module.hand_over(),
        "inverted": lambda module: ~module.cute.arch,
        "a block": lambda module: module.block(),
        "ceil_div of a negative number": lambda module: module.cute.ceil_div(7, -2),
        "a base's subclass": lambda module: issubclass(module.Storage, module.cutlass.pipeline.PipelineAsync),
        "a base's instance": lambda module: isinstance(object.__new__(module.Storage), module.cutlass.pipeline.Any),
        "ceil_div of layouts": lambda module: module.cute.ceil_div(module.cute.a, 2),
        "a jit function called": lambda module: module.jitted(1),
        "a class with such a base": lambda module: module.Storage(),
        "the same name elsewhere": lambda module: module.cute.Tensor == module.cutlass.Tensor,
    }


@pytest.mark.parametrize("use", _refused())
def test_whatever_else_is_done_with_a_stand_in_raises(use: str) -> None:
    module = _executed(
        _MODULE
        + """
import quack

@cute.jit
def jitted(a): return a

def hand_over(): return cute.compile(jitted.__wrapped__)

def block():
    with cute.arch: pass

class Storage(cutlass.pipeline.PipelineAsync): ...
"""
    )
    with pytest.raises(CompilerAbsent) as caught:
        _refused()[use](module)
    assert "needs the compiler, which this job runs without" in str(caught.value)


def test_function_that_is_decorated_at_run_time_is_one_by_its_text_and_can_not_be_called() -> None:
    module = _executed(_MODULE + "\ndef make(scale):\n    @cute.jit\n    def f(a): return a * scale\n    return f\n")
    made = module.make(2)
    assert made.__wrapped__.__closure__[0].cell_contents == 2
    with pytest.raises(CompilerAbsent, match=r"make\.<locals>\.f"):
        made(1)


def test_description_for_the_compiler_can_be_made_and_is_no_value() -> None:
    module = _executed(_MODULE + "\ndef describe(): return cute.runtime.make_fake_tensor(Int32, (cute.sym_int(), 8))\n")
    described = module.describe()
    for use in (bool, int, len, lambda one: one * 2, lambda one: one(1)):
        with pytest.raises(CompilerAbsent):
            use(described)


def test_stand_in_in_a_key_is_no_key() -> None:
    with pytest.raises(UnstableKey, match="StandIn"):
        encode_key((_executed(_MODULE).cute.Tensor,))


def test_nothing_but_a_stand_in_could_be_an_instance_of_what_is_not_there() -> None:
    module = _executed(_MODULE)
    assert not isinstance(1, module.cute.Tensor)
    assert not issubclass(int, module.cute.Tensor)
    with pytest.raises(CompilerAbsent):
        isinstance(module.cute.arch, module.cute.Tensor)
    with pytest.raises(CompilerAbsent):
        issubclass(module.Int32, module.cutlass.Numeric)  # it is


def test_other_imports_of_a_module_are_python_s_own() -> None:
    module = _executed(
        "import os.path, json as j\nfrom enum import IntEnum\nimport einops\nfrom einops import rearrange\n"
    )
    assert (module.os, module.IntEnum) == (sys.modules["os"], enum.IntEnum)
    assert "json" in module.j.__name__
    with pytest.raises(CompilerAbsent):
        module.rearrange(1, "a -> a")
    with pytest.raises(ModuleNotFoundError):
        _executed("import a_module_that_is_not_there")


def test_annotations_of_typing_take_a_stand_in() -> None:
    tensor = _executed(_MODULE).cute.Tensor
    optional: Any = typing.Optional
    assert typing.get_args(optional[tensor])[0] is tensor
    assert partial(tensor, 1).func is tensor
