"""What a function does, part by part: its text, and recursively the values, helpers and classes that it reads.

Two processes in which a function does the same describe it in the same words; nothing of a process (an address, a
path, the name of the module, the version of Python) gets in.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from types import BuiltinMethodType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from ...cache.description import Description
from ...errors import Unidentifiable
from .pinned import Pinned
from .source import Chain, NoSource, Source, Sources

# A mask that holds more is one by accident.
_MOST_PARTS = 10_000

# Builtins that lead to what no text names.
_WAYS_AROUND = ("__import__", "compile", "eval", "exec", "globals", "input", "locals", "open", "vars")

# What a class has besides what its author wrote, under some Pythons more than under others.
_OF_ALL_CLASSES = frozenset(
    f"__{name}__"
    for name in (
        *("abstractmethods", "annotate", "annotate_func", "annotations", "annotations_cache", "classdictcell"),
        *("dataclass_fields", "dataclass_params", "dict", "doc", "firstlineno", "match_args", "module", "orig_bases"),
        *("parameters", "qualname", "slots", "static_attributes", "type_params", "weakref"),
    )
) | {"_abc_impl"}
# What the standard library makes for dataclasses and named tuples, of what their author wrote.
_MADE = frozenset(
    f"__{name}__"
    for name in (
        *("delattr", "eq", "ge", "getnewargs", "getstate", "gt", "hash", "init", "le", "lt", "ne", "new", "replace"),
        *("repr", "setattr", "setstate"),
    )
) | {"_asdict", "_make", "_replace"}
_PLAIN_BASES = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, object)
_METHODS = (staticmethod, classmethod)
_MAKERS = "collections", "dataclasses", "enum", "reprlib", "typing"
_HEAP_TYPE = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE: a class that is no part of a library in C
# Attributes of functions that compilers set, and that tell nothing of the function.
_OF_COMPILERS = ("__wrapped__", "__cute_hash__", "__pyir_native__", "__pyir_rewritten__", "set_name_prefix")
_UNPROCESSED = "_preprocess_enabled"


class Describer:
    """Describes the functions of a process; `packages` are those that a toolchain pins.

    `passing` is a package whose name was made for this process.
    """

    def __init__(self, packages: Sequence[str], passing: str = "") -> None:
        self.pinned = Pinned(packages, passing)
        self._sources = Sources()

    def describe(self, function: Any) -> Description:
        """Return what a function does, as it is now. Raises `Unidentifiable`."""
        walk = _Walk(self.pinned, self._sources)
        try:
            walk.value("", function)
        except Unidentifiable:
            raise
        except Exception as error:  # of properties and the like of the user's, and of what is nested without end
            what = f"can't be read: {type(error).__name__}: {error}"
            raise Unidentifiable(walk.parts[-1][0] if walk.parts else "", what, "write it in a simpler way") from error
        return Description(tuple(walk.parts))


class _Walk:
    """One description in the making: what was met is told once, and named where it is met again."""

    def __init__(self, pinned: Pinned, sources: Sources) -> None:
        self.parts: list[tuple[str, str]] = []
        self._pinned = pinned
        self._sources = sources
        self._met: dict[int, str] = {}
        self._kept: list[Any] = []  # what was met must live: another one could get its address

    def value(self, path: str, value: Any) -> None:
        """Add what a value is, and all that it holds."""
        if (plain := _plain(value)) is not None:
            return self._add(path, plain)
        if type(value) in (tuple, frozenset):  # whether two equal ones are one is Python's business
            return self._object(path, value)
        if id(value) in self._met:
            return self._add(path, f"as {self._met[id(value)]}")
        self._met[id(value)] = path
        self._kept.append(value)
        if isinstance(value, FunctionType):
            return self._function(path, value)
        if isinstance(value, enum.Enum):
            self._add(path, f"member {value.name}")
            return self.value(_at(path, "class"), type(value))
        if (name := self._pinned.name_of(value)) is not None:
            return self._add(path, f"name {name}")
        if isinstance(value, type):
            return self._class(path, value)
        if isinstance(value, ModuleType):
            hint = f"read what is needed of it, as in `{value.__name__}.NAME`"
            raise Unidentifiable(path, f"is the module `{value.__name__}` as a value", hint)
        if not self._callable(path, value):
            self._object(path, value)
        return None

    def _callable(self, path: str, value: Any) -> bool:
        """Add what calls another function, and return whether it is such a thing."""
        if isinstance(value, MethodType):
            self._add(path, f"method {value.__func__.__name__}")
            self._named(path, {"self": value.__self__, "function": value.__func__})
        elif isinstance(value, BuiltinMethodType):
            self._add(path, f"method {value.__name__}")
            self.value(_at(path, "self"), value.__self__)
        elif isinstance(value, functools.partial):
            self._add(path, f"partial of {len(value.args)}")
            self.value(_at(path, "func"), value.func)
            self._items(path, value.args)
            self._named(path, value.keywords)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._add(path, "cached")
            self.value(_at(path, "function"), value.__wrapped__)
        else:
            return False
        return True

    def _add(self, path: str, what: str) -> None:
        if len(self.parts) >= _MOST_PARTS:
            hint = "pass what is large as `aux_tensors`"
            raise Unidentifiable(path, f"is one of more than {_MOST_PARTS:,} values that are read", hint)
        self.parts.append((path, what))

    # Functions

    def _function(self, path: str, function: FunctionType) -> None:
        module, wrapped = str(function.__globals__.get("__name__")), getattr(function, "__wrapped__", None)
        if wrapped is not None and self._pinned.is_decorator(module):
            unprocessed = getattr(wrapped, _UNPROCESSED, True) is False
            self._add(_at(path, "decorated"), "jit, not preprocessed" if unprocessed else "jit")
            return self.value(path, wrapped)
        name = self._pinned.name_of(function)
        if name is not None and self._pinned.has(module):
            self._add(path, f"name {name}")
            if "<locals>" in name:  # made in a call, of what was given there
                self._held(path, function)
            return None
        try:
            source = self._sources.of(function)
        except NoSource as error:
            hint = "define it in a file, by a `def` of its own"
            raise Unidentifiable(path or function.__name__, str(error), hint) from None
        self._add(path, f"text {hashlib.sha256(source.text.encode()).hexdigest()}")
        captured = self._held(path, function)
        for attribute, value in sorted(vars(function).items()):
            if attribute not in _OF_COMPILERS and not (attribute.startswith("_") and not attribute.startswith("__")):
                self.value(_at(path, f"attribute {attribute}"), value)
        for read in source.names:
            if read not in captured:
                self._read(path, function, read, source)
        for imported, read in source.imports:
            self._import(path, function, imported, read)
        return None

    def _held(self, path: str, function: FunctionType) -> Sequence[str]:
        """Add what a function captures and its defaults, and return the names of the former."""
        captured = function.__code__.co_freevars
        for name, cell in zip(captured, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:
                raise Unidentifiable(_at(path, name), "has no value yet", "give it one before the call") from None
            self.value(_at(path, name), held)
        for position, value in enumerate(function.__defaults__ or ()):
            self.value(_at(path, f"default {position}"), value)
        for name, value in (function.__kwdefaults__ or {}).items():
            self.value(_at(path, f"default {name}"), value)
        return captured

    def _read(self, path: str, function: FunctionType, name: str, source: Source) -> None:
        if name not in function.__globals__:
            if name in _WAYS_AROUND and hasattr(builtins, name):
                raise Unidentifiable(_at(path, name), "reads what no text names", "name what it reads")
            return self._add(_at(path, name), "builtin" if hasattr(builtins, name) else "nothing")
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):
            own = self._imported(function, name, value)
            return self._add(_at(path, name), f"name {own}") if own else self.value(_at(path, name), value)
        if (pinned := self._pinned.name_of(value)) is not None:
            return self._add(_at(path, name), f"name {pinned}")
        for chain in source.chains_of(name):
            self._attribute(_at(path, name), value, chain)
        return None

    def _imported(self, function: FunctionType, name: str, value: Any) -> str | None:
        """Return what a pinned value of a module is imported as, by the module's text.

        The DSL's functions say where they are defined, and stand-ins for them don't: the text says the same of both.
        """
        own = self._pinned.name_of(value)
        if own is None or isinstance(value, enum.Enum):
            return None
        try:
            found = self._sources.imported_as(function, name)
        except NoSource:
            return None
        return found if found is not None and found.rpartition(".")[2] == own.rpartition(".")[2] else None

    def _attribute(self, path: str, module: ModuleType, chain: Chain) -> None:
        """Add what is read of a module by its attributes."""
        value: Any = module
        for name in chain:
            path = _at(path, name)
            if not hasattr(value, name):
                return self._add(path, "nothing")
            value = getattr(value, name)
            if not isinstance(value, ModuleType) or self._pinned.name_of(value) is not None:
                break
        return self.value(path, value)

    def _import(self, path: str, function: FunctionType, module: str, name: str) -> None:
        """Add what a function imports when it is called; only what is imported already can be told."""
        whole = module
        if module.startswith("."):
            package = str(function.__globals__.get("__package__") or "").split(".")
            level = len(module) - len(module.lstrip("."))
            whole = ".".join([*package[: len(package) - level + 1], *filter(None, [module.lstrip(".")])])
        if self._pinned.has(whole):
            return self._add(_at(path, f"import {module}"), f"name {whole}.{name}")
        found = sys.modules.get(whole)
        if name == "*" or found is None or not hasattr(found, name):
            hint = "import it at the top of the module"
            raise Unidentifiable(_at(path, f"import {module}"), "is imported when the function is called", hint)
        return self.value(_at(path, f"import {module}.{name}"), getattr(found, name))

    # Classes, and what is made of them

    def _class(self, path: str, cls: type) -> None:
        if not cls.__flags__ & _HEAP_TYPE:
            if self._pinned.is_standard(cls.__module__):
                hint = "read what is needed of it where the module is imported"
                raise Unidentifiable(path, f"is the class {cls.__module__}.{cls.__qualname__}", hint)
            return self._add(path, f"name {cls.__module__}.{cls.__qualname__}")
        self._add(path, f"class {cls.__name__}")
        for position, base in enumerate(cls.__bases__):
            if base is not object:
                self.value(_at(path, f"base {position}"), base)
        if isinstance(cls, enum.EnumMeta):
            members: Iterable[Any] = cls
            self._named(path, {member.name: member.value for member in members})
        if hasattr(cls, "__dataclass_fields__"):
            self._fields(path, cls)
        for name, value in sorted(vars(cls).items()):
            if name not in _OF_ALL_CLASSES and not _is_made(cls, name, value):
                self._member(_at(path, name), value)
        return None

    def _fields(self, path: str, cls: Any) -> None:
        for field in dataclasses.fields(cls):
            given = [one for one in (field.default, field.default_factory) if one is not dataclasses.MISSING]
            for value in given:
                self.value(_at(path, f"field {field.name}"), value)
            if not given:
                self._add(_at(path, f"field {field.name}"), "no default")

    def _member(self, path: str, value: Any) -> None:
        if isinstance(value, _METHODS):
            self._add(path, type(value).__name__)
            return self.value(_at(path, "function"), value.__func__)
        if isinstance(value, property):
            functions = {"get": value.fget, "set": value.fset, "delete": value.fdel}
            self._add(path, "property")
            return self._named(path, {name: one for name, one in functions.items() if one is not None})
        if type(value).__name__ in ("member_descriptor", "getset_descriptor", "_tuplegetter"):
            return None  # how the state is reached, not what it is
        return self.value(path, value)

    def _object(self, path: str, value: Any) -> None:
        cls = type(value)
        if cls in (tuple, list):
            self._add(path, f"{cls.__name__} of {len(value)}")
            return self._items(path, value)
        if cls in (set, frozenset):
            told = [_Walk(self._pinned, self._sources) for _ in value]
            for walk, item in zip(told, value, strict=True):
                walk.value("", item)
            return self._add(path, f"{cls.__name__} {json.dumps(sorted(walk.parts for walk in told))}")
        if cls in (dict, MappingProxyType, OrderedDict):
            self._add(path, f"{cls.__name__} of {len(value)}")
            for position, (key, item) in enumerate(value.items()):
                self.value(_at(path, f"key {position}"), key)
                self.value(_at(path, f"[{_plain(key) or position}]"), item)
            return None
        if cls is SimpleNamespace:
            self._add(path, "namespace")
            return self._named(path, dict(sorted(vars(value).items())))
        if cls is Fraction:
            return self._add(path, f"fraction {value}")
        return self._instance(path, value)

    def _instance(self, path: str, value: Any) -> None:
        """Add an instance whose state is all in Python's hands."""
        cls = type(value)
        if (name := _known(value)) is not None:
            return self._add(path, name)
        bases = [base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE and base not in _PLAIN_BASES]
        if bases or not cls.__flags__ & _HEAP_TYPE or self._pinned.is_standard(cls.__module__):
            kind = f"{cls.__module__}.{cls.__qualname__}"
            hint = "capture numbers and strings, and what is made of them; pass tensors as `aux_tensors`"
            raise Unidentifiable(path, f"is {_a(kind)}", hint)
        self._add(path, "instance")
        base: Any = next(base for base in _PLAIN_BASES if isinstance(value, base))
        if base is not object:
            self.value(_at(path, "value"), base(value))
        self._named(path, dict(sorted(_state(value))))
        return self.value(_at(path, "class"), cls)

    def _items(self, path: str, items: Sequence[Any]) -> None:
        for position, item in enumerate(items):
            self.value(_at(path, f"[{position}]"), item)

    def _named(self, path: str, items: Mapping[str, Any]) -> None:
        for name, item in items.items():
            self.value(_at(path, name), item)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(value: object) -> str | None:
    """Return the text of a value that holds nothing else, by its exact type: `True` is not 1 to a kernel."""
    if value is None or value is Ellipsis or value is NotImplemented:
        return repr(value)
    kind = type(value)
    if kind in (bool, int):
        return f"{kind.__name__} {value}"
    if kind is float:
        assert isinstance(value, float)
        return f"float {value.hex()}"
    if kind is complex:
        assert isinstance(value, complex)
        return f"complex {value.real.hex()} {value.imag.hex()}"
    if kind is str:
        return f"str {value!a}"
    if kind is bytes:
        assert isinstance(value, bytes)
        return f"bytes {value.hex()}"
    if kind in (range, slice):
        return repr(value)
    return None


def _known(value: Any) -> str | None:
    """Return the text of a number or type of torch's or numpy's."""
    cls = type(value)
    kind = f"{cls.__module__}.{cls.__qualname__}"
    if kind in ("torch.dtype", "numpy.dtype"):
        return f"{kind} {value}"
    if cls.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "shape", None) == ():
        plain = _plain(value.item())
        return f"{kind} {plain}" if plain is not None and cls.__name__ != "ndarray" else None
    return None


def _is_made(cls: type, name: str, value: Any) -> bool:
    """Return whether a member of a class was made by the standard library, of what its author wrote."""
    value = value.__func__ if isinstance(value, _METHODS) else value
    if issubclass(cls, enum.Enum):
        return not (isinstance(value, property) or (isinstance(value, FunctionType) and _has_own_text(value)))
    is_of_fields = hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")
    return is_of_fields and name in _MADE and isinstance(value, FunctionType) and not _has_own_text(value)


def _has_own_text(function: FunctionType) -> bool:
    made_by = str(function.__globals__.get("__name__", ""))
    return made_by not in _MAKERS and not function.__code__.co_filename.startswith("<")


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
