"""What a function does, part by part: its text, and recursively the values, helpers and classes that it reads.

Two processes in which a function does the same describe it in the same words; nothing of a process (an address, a
path, the name of the module, the version of Python) gets in.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from ...cache.description import Description
from ...errors import Unidentifiable
from .classes import fields, members
from .origin import absolute, imported_as
from .pinned import HEAP_TYPE, Pinned
from .source import Chain, NoSource, Sources
from .values import held_plainly, is_in_pythons_hands, known, of_member, of_wrapper, plain, state

# A mask that holds more is one by accident.
_MOST_PARTS = 10_000
_LONGEST = 1_000

# Builtins that lead to what no text names.
_WAYS_AROUND = ("__import__", "compile", "eval", "exec", "globals", "input", "locals", "open", "vars")
# Attributes that do.
_ATTRIBUTES_AROUND = ("__builtins__", "__closure__", "__globals__", "f_builtins", "f_globals", "f_locals")

_METHODS = (staticmethod, classmethod)
_TUPLE_GETTER = "_tuplegetter"  # of a named tuple
# Attributes of functions that compilers set, and that tell nothing of the function.
_OF_COMPILERS = ("__cute_hash__", "__pyir_native__", "__pyir_rewritten__", "set_name_prefix")
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
            walk.all_of(function)
        except Unidentifiable:
            raise
        except Exception as error:  # of properties and the like of the user's, and of what is nested without end
            what = f"can't be read: {type(error).__name__}: {error}"
            raise Unidentifiable(walk.parts[-1][0] if walk.parts else "", what, "write it in a simpler way") from error
        return Description(tuple(walk.parts))


class _Walk:
    """One description in the making: what was met is told once, and named where it is met again."""

    def __init__(self, pinned: Pinned, sources: Sources, left: list[int] | None = None) -> None:
        self.parts: list[tuple[str, str]] = []
        self._pinned = pinned
        self._sources = sources
        self._left = [_MOST_PARTS] if left is None else left  # one number, of all that is told
        self._met: dict[int, str] = {}
        self._kept: list[Any] = []  # what was met must live: another one could get its address
        self._read_names: set[str] = set()
        self._private: list[tuple[str, str, Any]] = []

    def all_of(self, value: Any) -> None:
        """Add what a value is, and all that it holds."""
        self.value("", value)
        # Compilers keep private attributes at functions: only those are told that somebody reads.
        while read := [one for one in self._private if one[1] in self._read_names]:
            self._private = [one for one in self._private if one[1] not in self._read_names]
            for path, name, held in read:
                self.value(_at(path, f"attribute {name}"), held)

    def value(self, path: str, value: Any) -> None:
        """Add what a value is, and all that it holds but for private attributes of functions.

        By its type, and not by what it says of itself: a proxy says that it is what it stands for.
        """
        kind = type(value)
        if (text := plain(value)) is not None:
            return self._add(path, text)
        if kind in (tuple, frozenset, slice):  # whether two equal ones are one is Python's business
            return self._object(path, value)
        if id(value) in self._met:
            return self._add(path, f"as {self._met[id(value)]}")
        self._met[id(value)] = path
        self._kept.append(value)
        if kind is FunctionType:
            return self._function(path, value)
        if issubclass(kind, enum.Enum):
            return self._enum_member(path, value)
        if (name := self._pinned.name_of(value)) is not None:
            self._refuse_way_around(path, name)
            return self._add(path, f"name {name}")
        if issubclass(kind, type):
            return self._class(path, value)
        if issubclass(kind, ModuleType):
            hint = f"read what is needed of it, as in `{value.__name__}.NAME`"
            raise Unidentifiable(path, f"is the module `{value.__name__}` as a value", hint)
        if not self._callable(path, value):
            self._object(path, value)
        return None

    def _callable(self, path: str, value: Any) -> bool:
        """Add what calls another function, and return whether it is such a thing."""
        kind = type(value)
        if kind is MethodType:
            self._add(path, f"method {value.__func__.__name__}")
            self._named(path, {"self": value.__self__, "function": value.__func__})
        elif kind in (BuiltinFunctionType, MethodWrapperType):
            self._add(path, f"method {value.__name__}")
            self.value(_at(path, "self"), value.__self__)
        elif kind is functools.partial:
            self._add(path, f"partial of {len(value.args)}")
            self.value(_at(path, "func"), value.func)
            self._items(path, value.args)
            self._named(path, value.keywords)
            self._named(_at(path, "attributes"), dict(of_wrapper(value)))
        elif kind is functools._lru_cache_wrapper:
            self._add(path, "cached")
            self.value(_at(path, "function"), value.__wrapped__)
            self._named(_at(path, "attributes"), dict(of_wrapper(value)))
        else:
            return False
        return True

    def _refuse_way_around(self, path: str, name: str) -> None:
        module, _, last = name.rpartition(".")
        if module == "builtins" and last in _WAYS_AROUND:
            raise Unidentifiable(path, "reads what no text names", "name what it reads")

    def _add(self, path: str, what: str) -> None:
        if not self._left[0]:
            hint = "pass what is large as `aux_tensors`"
            raise Unidentifiable(path, f"is one of more than {_MOST_PARTS:,} values that are read", hint)
        self._left[0] -= 1
        if len(what) > _LONGEST:
            digest = hashlib.sha256(what.encode()).hexdigest()
            what = f"{what[: _LONGEST // 10]}... {len(what)} {digest}"
        self.parts.append((path, what))

    # Functions

    def _function(self, path: str, function: FunctionType) -> None:
        module, wrapped = str(function.__globals__.get("__name__")), getattr(function, "__wrapped__", None)
        if wrapped is not None and self._pinned.is_decorator(module):
            unprocessed = getattr(wrapped, _UNPROCESSED, True) is False
            self._add(_at(path, "decorated"), "jit, not preprocessed" if unprocessed else "jit")
            self.value(path, wrapped)
            return self._attributes(path, function, but=wrapped)
        name = self._pinned.name_of(function)
        if name is not None and self._pinned.has(module):
            self._add(path, f"name {name}")
            if "<" in name:  # made in a call, of what was given there
                self._held(path, function)
            if not name.endswith("<lambda>"):  # which is what all of them are called
                return None
        try:
            source = self._sources.of(function)
        except NoSource as error:
            hint = "define it in a file, by a `def` of its own"
            raise Unidentifiable(path or function.__name__, str(error), hint) from None
        self._add(path, f"text {hashlib.sha256(source.text.encode()).hexdigest()}")
        if name is not None and self._pinned.has(module):  # and a toolchain pins what it reads
            return None
        self._read_names |= source.reads.attributes
        if around := sorted(source.reads.attributes.intersection(_ATTRIBUTES_AROUND)):
            raise Unidentifiable(_at(path, around[0]), "reads what no text names", "name what it reads")
        captured = self._held(path, function)
        self._attributes(path, function)
        for read, chains in source.reads.chains.items():
            if read not in captured or read in source.reads.declared:
                self._read(path, function, read, chains)
        for imported, read in source.reads.imports:
            self._import(path, function, imported, read)
        return None

    def _attributes(self, path: str, function: FunctionType, but: Any = None) -> None:
        """Add the attributes of a function, but those that another one has, too: it was copied."""
        others = getattr(but, "__dict__", {})
        for name, value in sorted(vars(function).items()):
            if name in _OF_COMPILERS or value is but or (name in others and others[name] is value):
                continue
            if name.startswith("_") and not name.startswith("__"):
                self._private.append((path, name, value))
            else:
                self.value(_at(path, f"attribute {name}"), value)

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

    def _read(self, path: str, function: FunctionType, name: str, chains: Sequence[Chain]) -> None:
        if name not in function.__globals__:
            return self._builtin(_at(path, name), name)
        value = function.__globals__[name]
        if not issubclass(type(value), ModuleType):
            own = imported_as(self._pinned, self._sources, function, name, value)
            if own is None:
                return self.value(_at(path, name), value)
            self._refuse_way_around(_at(path, name), own)
            return self._add(_at(path, name), f"name {own}")
        if (pinned := self._pinned.name_of(value)) is not None:
            for chain in chains:
                self._refuse_way_around(_at(path, name), ".".join([pinned, *chain[:1]]))
            return self._add(_at(path, name), f"name {pinned}")
        for chain in chains:
            self._attribute(_at(path, name), value, chain)
        return None

    def _builtin(self, path: str, name: str) -> None:
        if name not in vars(builtins):
            return self._nothing(path, name)
        self._refuse_way_around(path, f"builtins.{name}")
        value = vars(builtins)[name]
        if self._pinned.name_of(value) == f"builtins.{name}":
            return self._add(path, "builtin")
        return self.value(path, value)  # somebody has put it there

    def _nothing(self, path: str, name: str) -> None:
        if name.startswith("__") and not name.endswith("__"):  # in a class it has another one
            raise Unidentifiable(path, "is a private name of a class", "give it a name with no `__`")
        return self._add(path, "nothing")

    def _attribute(self, path: str, module: ModuleType, chain: Chain) -> None:
        """Add what is read of a module by its attributes."""
        value: Any = module
        for name in chain:
            path = _at(path, name)
            if not hasattr(value, name):
                return self._nothing(path, name)
            value = getattr(value, name)
            if not issubclass(type(value), ModuleType) or self._pinned.name_of(value) is not None:
                break
        return self.value(path, value)

    def _import(self, path: str, function: FunctionType, module: str, name: str) -> None:
        """Add what a function imports when it is called; only what is imported already can be told."""
        whole = absolute(module, function.__globals__)
        if self._pinned.has(whole):
            if whole == "builtins":
                raise Unidentifiable(_at(path, f"import {module}"), "reads what no text names", "name what it reads")
            return self._add(_at(path, f"import {module}"), f"name {whole}.{name}")
        found = sys.modules.get(whole)
        if name == "*" or found is None or not hasattr(found, name):
            hint = "import it at the top of the module"
            raise Unidentifiable(_at(path, f"import {module}"), "is imported when the function is called", hint)
        return self.value(_at(path, f"import {module}.{name}"), getattr(found, name))

    # Classes, and what is made of them

    def _class(self, path: str, cls: type) -> None:
        if not cls.__flags__ & HEAP_TYPE:
            if self._pinned.is_standard(cls.__module__):
                hint = "read what is needed of it where the module is imported"
                raise Unidentifiable(path, f"is the class {cls.__module__}.{cls.__qualname__}", hint)
            return self._add(path, f"name {cls.__module__}.{cls.__qualname__}")
        self._add(path, f"class {cls.__name__}")
        for position, base in enumerate(cls.__bases__):
            if base is not object:
                self.value(_at(path, f"base {position}"), base)
        if not self._pinned.is_of_standard(type(cls)):
            self.value(_at(path, "metaclass"), type(cls))
        if issubclass(cls, enum.Enum):
            for name, member in cls._member_map_.items():
                own = member._name_
                self.value(_at(path, name), member._value_ if own == name else f"as {own}")
        if "__dataclass_fields__" in vars(cls):
            given, told = fields(cls)
            for name, defaults in given:
                for value in defaults:
                    self.value(_at(path, f"field {name}"), value)
            self._add(_at(path, "fields"), told)
        for name, value in members(cls):
            self._member(_at(path, name), value)
        return None

    def _member(self, path: str, value: Any) -> None:
        kind = type(value)
        if kind in _METHODS:
            self._add(path, kind.__name__)
            return self.value(_at(path, "function"), value.__func__)
        if kind is property:
            functions = {"get": value.fget, "set": value.fset, "delete": value.fdel}
            self._add(path, "property")
            return self._named(path, {name: one for name, one in functions.items() if one is not None})
        if kind is functools.cached_property:
            self._add(path, "cached property")
            return self.value(_at(path, "get"), value.func)
        if kind in (MemberDescriptorType, GetSetDescriptorType) or kind.__qualname__ == _TUPLE_GETTER:
            return None  # how the state is reached, not what it is
        return self.value(path, value)

    def _enum_member(self, path: str, value: enum.Enum) -> None:
        cls: Any = type(value)
        name = value._name_
        self._add(path, f"member {name}" if name in cls._member_map_ else "member of value")
        self.value(_at(path, "value"), value._value_)
        if self._pinned.name_of(cls) is None:
            self._named(path, dict(of_member(value)))
        return self.value(_at(path, "class"), cls)

    def _object(self, path: str, value: Any) -> None:
        cls = type(value)
        if cls is slice:
            self._add(path, "slice")
            return self._items(path, (value.start, value.stop, value.step))
        if cls in (tuple, list):
            self._add(path, f"{cls.__name__} of {len(value)}")
            return self._items(path, value)
        if cls in (set, frozenset):
            told = []
            for item in value:
                walk = _Walk(self._pinned, self._sources, self._left)
                walk.all_of(item)
                told.append(walk.parts)
            return self._add(path, f"{cls.__name__} {json.dumps(sorted(told))}")
        if cls in (dict, MappingProxyType, OrderedDict):
            self._add(path, f"{cls.__name__} of {len(value)}")
            for position, (key, item) in enumerate(value.items()):
                self.value(_at(path, f"key {position}"), key)
                self.value(_at(path, f"[{plain(key) or position}]"), item)
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
        if (name := known(value)) is not None:
            return self._add(path, name)
        if self._pinned.is_of_standard(cls) or not all(map(is_in_pythons_hands, cls.__mro__)):
            kind = f"{cls.__module__}.{cls.__qualname__}"
            hint = "capture numbers and strings, and what is made of them; pass tensors as `aux_tensors`"
            raise Unidentifiable(path, f"is {_a(kind)}", hint)
        self._add(path, "instance")
        if (held := held_plainly(value)) is not None:
            self.value(_at(path, "value"), held)
        self._named(path, dict(sorted(state(value))))
        return self.value(_at(path, "class"), cls)

    def _items(self, path: str, items: Sequence[Any]) -> None:
        for position, item in enumerate(items):
            self.value(_at(path, f"[{position}]"), item)

    def _named(self, path: str, items: Mapping[str, Any]) -> None:
        for name, item in items.items():
            self.value(_at(path, name if name.isidentifier() else ascii(name)), item)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
