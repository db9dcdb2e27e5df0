"""Stand-ins for the DSL in a job that compiles nothing: a kernel library is imported without its compiler.

Such a library imports the DSL to define its kernels, and asks it nothing once they are built, but for the names of
types that get into its keys. So modules of the library, and no others, find stand-ins where they import the DSL
(`StandIns`): nobody else in the process is told that it is there. A stand-in takes part in definitions (a decorator, a
base, an annotation), and whatever else is done with it raises `CompilerAbsent`.

What is answered truthfully is `_TYPES` and `_ANSWERS`; a test compares them with the DSL.
"""

from __future__ import annotations

import builtins
import functools
import importlib.abc
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import FrameType, MappingProxyType, ModuleType
from typing import Any

from ...errors import CompilerAbsent
from ..loaded import plain_names
from ..packages import is_in
from .installation import IMPORTED_AS

_MARK = "__fa4_precompile__"  # by which the builtins of a module that has them are known
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")  # functions of their own, up to Python 3.11
_DECORATORS = ("jit", "kernel")  # what may decorate a function that a function makes


class _Type(type):
    """The class of the types of numbers, which are told apart and named, and make defaults of arguments."""

    def __call__(cls, *_: object, **__: object) -> Any:
        return _made(f"{cls.__module__}.{cls.__qualname__}", sys._getframe(1))

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise CompilerAbsent(f"{cls.__module__}.{cls.__qualname__}.{name}", _place(sys._getframe(1)))


_TYPES: Mapping[str, type] = MappingProxyType(
    {
        name: _Type(name, (), {"__module__": f"{IMPORTED_AS}.base_dsl.typing", "__qualname__": name})
        for name in (
            *("BFloat16", "Boolean", "Float16", "Float32", "Float4E2M1FN", "Float64", "Float6E2M3FN", "Float6E3M2FN"),
            *("Float8E4M3", "Float8E4M3B11FNUZ", "Float8E4M3FN", "Float8E5M2", "Float8E8M0FNU", "TFloat32"),
            *("Int4", "Int8", "Int16", "Int32", "Int64", "Int128"),
            *("Uint8", "Uint16", "Uint32", "Uint64", "Uint128"),
        )
    }
)
"""The types of numbers, which all of the DSL's modules have by these names."""


def _ceil_div(number: object, divisor: object) -> int:
    if isinstance(number, int) and isinstance(divisor, int) and number >= 0 and divisor > 0:
        return -(-number // divisor)
    raise CompilerAbsent(f"{IMPORTED_AS}.cute.ceil_div({number!r}, {divisor!r})", _place(sys._getframe(1)))


def _no_libraries(**_: object) -> list[str]:
    return []  # the loader opens those that kernels need


_ANSWERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"cutlass.cute.ceil_div": _ceil_div, "cutlass.cute.runtime.find_runtime_libraries": _no_libraries}
)


# What describes an argument to the compiler, which some releases and forks make before they look a kernel up.
_DESCRIPTIONS = frozenset(
    f"{IMPORTED_AS}.cute.{name}"
    for name in ("sym_int", "sym_int32", "sym_int64", "runtime.make_fake_stream", "runtime.make_fake_tensor")
)


class StandIns:
    """The stand-ins of a process, for the DSL and for the libraries that are traced with it.

    Guarantees
        Only the modules that they are given to import them, by an `__import__` of their own. While a module is in the
        middle of its import when the loader starts, `finder_for` serves it, and only then are they in `sys.modules`.
    """

    def __init__(self, traced: Sequence[str]) -> None:
        self._always = {name: StandIn(name) for name in (IMPORTED_AS, *traced)}
        self._more: dict[str, StandIn] = {}

    def give(self, module: ModuleType, more: Sequence[str] = ()) -> None:
        """Let a module that is about to be executed import them, and stand-ins for `more` packages."""
        importing = functools.partial(_import, self._with(more))
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": importing, _MARK: self}

    def finder_for(self, package: str, more: Sequence[str]) -> StandInFinder:
        """Return what finds them for modules of a package that are in the middle of their own import."""
        return StandInFinder(self._with(more), package)

    def _with(self, more: Sequence[str]) -> Mapping[str, StandIn]:
        return {**self._always, **{name: self._more.setdefault(name, StandIn(name)) for name in more}}


def stand_ins_of(module: ModuleType) -> StandIns | None:
    """Return the stand-ins that were given to a module; None if it has none."""
    names = plain_names(module).get("__builtins__")
    found = names.get(_MARK) if isinstance(names, dict) else None
    return found if isinstance(found, StandIns) else None


def _import(
    roots: Mapping[str, StandIn],
    name: str,
    names: Mapping[str, object] | None = None,
    inner: Mapping[str, object] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> Any:
    """Import as Python does, but for what is stood in for."""
    package = str((names or {}).get("__package__"))
    wanted = importlib.util.resolve_name("." * level + name, package) if level else name
    root = next((root for root in roots if is_in(wanted, root)), None)
    if root is None or ("." in root and not fromlist):  # which asks for the package that it is in
        return builtins.__import__(name, names, inner, fromlist, level)
    rest = wanted[len(root) + 1 :].split(".") if fromlist and wanted != root else ()
    return functools.reduce(getattr, rest, roots[root])


class StandIn:
    """A name of the DSL's, by its dotted path: a module, a class, a function, whichever is asked for."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self._path}.{name}"
        found: Any = _ANSWERS.get(path)
        if found is None:
            is_type = name in _TYPES and is_in(path, IMPORTED_AS)
            found = _TYPES[name] if is_type else StandIn(path)
        self.__dict__[name] = found
        return found

    def __repr__(self) -> str:
        return f"<stand-in for {self._path}>"

    # What takes part in definitions

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Decorate: a function so that it can't be called; a class as it is, where one is being defined."""
        is_one = len(arguments) == 1 and not options
        is_function = is_one and inspect.isfunction(arguments[0])
        if is_function and _last(self) in _DECORATORS:
            return _not_to_be_called(self._path, arguments[0])
        if self._path in _DESCRIPTIONS:
            return StandIn(f"{self._path}(...)")
        made = _made(self._path, sys._getframe(1))
        if is_function:
            return _not_to_be_called(self._path, arguments[0])
        return arguments[0] if is_one and isinstance(arguments[0], type) else made

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (type(_last(self), (_WithoutBase,), {}),)  # one of its own: a class can have several

    def __getitem__(self, item: object) -> StandIn:
        return self  # in annotations

    def __or__(self, other: object) -> StandIn:
        return self

    __ror__ = __or__

    def __instancecheck__(self, instance: object) -> bool:
        return self._has(instance)

    def __subclasscheck__(self, subclass: object) -> bool:
        return self._has(subclass)

    def _has(self, one: object) -> bool:
        """Say that nothing is of the DSL's; what stands for something of it, or is made of that, could be."""
        made_of_it = issubclass(one if isinstance(one, type) else type(one), _WithoutBase)
        if isinstance(one, _Type) or type(one) is StandIn or made_of_it:
            raise CompilerAbsent(f"{one!r} is {self._path}", _place(sys._getframe(2)))
        return False

    # What would be a value

    def __eq__(self, other: object) -> bool:
        known = other.__name__ if isinstance(other, _Type) else _last(other) if type(other) is StandIn else None
        if self is other or known != _last(self):
            return self is other
        raise CompilerAbsent(f"{self._path} == {other!r}", _place(sys._getframe(1)))

    __hash__ = object.__hash__


def path_of(one: StandIn) -> str:
    """Return what a stand-in is called in what it stands for: `cutlass.cute.math.exp2`."""
    return one._path


def _refuse(operation: str) -> Callable[..., Any]:
    def refuse(one: StandIn, *_: object) -> Any:
        raise CompilerAbsent(f"{one._path}.{operation}", _place(sys._getframe(1)))

    return refuse


for _operation in (
    *("bool", "len", "iter", "index", "int", "float", "fspath", "enter", "exit", "lt", "gt", "le", "ge", "neg", "pos"),
    *("abs", "invert", "contains", "setitem", "delitem"),
):
    setattr(StandIn, f"__{_operation}__", _refuse(f"__{_operation}__"))
for _operation in (
    "add",
    "sub",
    "mul",
    "matmul",
    "floordiv",
    "truediv",
    "mod",
    "and",
    "xor",
    "lshift",
    "rshift",
    "pow",
):
    setattr(StandIn, f"__{_operation}__", _refuse(f"__{_operation}__"))
    setattr(StandIn, f"__r{_operation}__", _refuse(f"__r{_operation}__"))


class _WithoutBase:
    """What a class is whose base is not there. It can be defined, and not made."""

    def __new__(cls, *_: object, **__: object) -> Any:
        raise CompilerAbsent(f"{cls.__module__}.{cls.__qualname__}(...)", _place(sys._getframe(1)))


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for one package's modules, by the frame that imports; nothing for all others.

    For a module that is in the middle of its own import when the loader starts, as importing torch started it: what
    it imports next can't be given to it by other means. `forget` has to be called when that import ends.
    """

    def __init__(self, roots: Mapping[str, StandIn], package: str) -> None:
        self._roots = roots
        self._package = package

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a stand-in, if it is the package that asks."""
        if fullname.partition(".")[0] not in self._roots or not is_in(_importer(), self._package):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> Any:
        """Return the stand-in itself."""
        top, *rest = spec.name.split(".")
        return functools.reduce(getattr, rest, self._roots[top])

    def exec_module(self, module: object) -> None:
        """Do nothing: a stand-in has all its names."""

    def forget(self) -> None:
        """Take the stand-ins out of what others import."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        modules: list[tuple[str, object]] = list(sys.modules.items())
        for name in [name for name, module in modules if type(module) is StandIn]:
            del sys.modules[name]


def _importer() -> str:
    """Return the name of the module that is importing: that of the innermost frame outside the import system."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""


def _not_to_be_called(path: str, function: Any) -> Any:
    @functools.wraps(function)
    def absent(*_: object, **__: object) -> Any:
        raise CompilerAbsent(f"{path} of {function.__module__}.{function.__qualname__}", _place(sys._getframe(1)))

    return absent


def _made(path: str, frame: FrameType) -> StandIn:
    """Return what a call gives while a module or a class is being defined; in a function it raises."""
    defining: FrameType | None = frame
    while defining is not None and defining.f_code.co_name in _COMPREHENSIONS:
        defining = defining.f_back
    if defining is None or defining.f_code.co_flags & inspect.CO_OPTIMIZED:
        raise CompilerAbsent(f"{path}(...)", _place(frame))
    return StandIn(f"{path}(...)")


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _last(one: StandIn) -> str:
    return one._path.rpartition(".")[2]
