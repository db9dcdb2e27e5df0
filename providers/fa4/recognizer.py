"""The `mask_mod`s and `score_mod`s of a process, told apart by all that they do; docs/decisions/0032 says why.

FA4 keys a kernel by a hash of each: of its source text, and of the `repr` of what it captures and of its defaults. That
leaves out what it reads of its module, joins what it captures without a border, and for a captured object that has no
text of its own holds an address, by which no other process finds the kernel. So what a function does is a fact of its
kernels, and where FA4's hash would not do, it is given one that does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from ...cache.description import Description
from ...errors import Unidentifiable, UsageError
from ..packages import is_in
from ..recognizer import Recognized, Recognizer
from .variant import MODIFIERS

if TYPE_CHECKING:
    from ..functions.describe import Describer
    from ..functions.pinned import Pinned

_UTILITIES = "utils"
_HASH = "hash_callable"  # of a function, for a key
_FIRST_HASH = "_compute_base_hash"  # of one that has no hash yet
_KEPT = "__cute_hash__"
_PLAIN = (type(None), bool, int, float, str, bytes)
_PINNED = "flash_attn.cute", "quack"  # the masks of this package read the first, whichever package is the provider


class FlashRecognizer(Recognizer):
    """Tells the functions of FA4's keys, and sees to it that two of them have two hashes.

    Guarantees
        What `recognize` tells of a function is what any process would tell of one that does the same.
    Not guaranteed
        That FA4 tells two functions of one hash apart which it had hashed before `watch`, or in a release that
        hashes otherwise.
    """

    def __init__(self, package: str, passing: str = "", tell_apart: bool = True) -> None:
        self._package = package
        self._passing = passing
        self._describer: Describer | None = None
        self._tell_apart = tell_apart
        self._watched: list[tuple[Any, str, Any, Any]] = []
        self._first: dict[str, str] = {}  # by FA4's hash, the digest of the function that had it first
        self._instead: dict[str, str] = {}  # FA4's hash, by the one that another function of it was given

    @property
    def describer(self) -> Describer:
        """Who tells what a function does. Most jobs have no such function, and don't import what reads them."""
        if self._describer is None:
            from ..functions.describe import Describer

            self._describer = Describer([*_PINNED, self._package], self._passing)
        return self._describer

    def watch(self) -> None:
        """Take part in FA4's hashing of functions, where it has a function for that."""
        utilities: Any = sys.modules.get(f"{self._package}.{_UTILITIES}")
        first, every = getattr(utilities, _FIRST_HASH, None), getattr(utilities, _HASH, None)
        if self._watched or first is None or every is None:
            return

        def hash_all(function: Any, *arguments: Any, **options: Any) -> Any:
            if hasattr(function, "__wrapped__") and self._watched and not (arguments or options):
                self._see_to_wrapper(first, function)
            return every(function, *arguments, **options)

        ours = {_FIRST_HASH: lambda function: self._hash(first, function), _HASH: hash_all}
        self._watched = [(utilities, name, getattr(utilities, name), one) for name, one in ours.items()]
        for name, one in ours.items():
            setattr(utilities, name, one)

    def close(self) -> None:
        """Let FA4 hash alone, also where somebody else takes part meanwhile and still asks us."""
        watched, self._watched = self._watched, []
        for utilities, name, real, ours in watched:
            if getattr(utilities, name, None) is ours:
                setattr(utilities, name, real)

    def recognize(self, key: object, frame: FrameType | None) -> Recognized:
        """Return what a lookup is about, by the arguments of the innermost function of FA4's that has such."""
        try:
            return self._recognized(key, frame)
        except Exception as error:  # of what functions are that are none
            what = f"the functions of a call can't be recognized: {type(error).__name__}: {error}"
            return Recognized(key, problem=UsageError(what, "pass functions that are defined in a file"))

    def _recognized(self, key: object, frame: FrameType | None) -> Recognized:
        found: dict[str, Description] = {}
        strings, hashed = _strings(key), self._hashed
        if hashed is not None and not strings:  # most keys, and their call's variables take longer to read
            return Recognized(key)
        for name, function in self._given(frame).items():
            own = None if hashed is None else str(hashed(function))
            if own is not None and own not in strings:
                continue
            try:
                found[name] = self.describer.describe(function)
            except Unidentifiable as error:
                return Recognized(key, problem=_problem(name, error))
            if hashed is not None and own is not None:
                key = _replaced(key, own, self._stock_hash(function, hashed) or own)
        return Recognized(key, found)

    # FA4's hash

    def _hash(self, real: Any, function: Any) -> str:
        """Return the hash of a function that FA4 has none of yet: FA4's own, where that tells it from others."""
        stock: str = real(function)
        return self._mended(stock, function, function) if self._watched else stock

    def _mended(self, stock: str, hashed: Any, function: Any) -> str:
        """Return the hash of a function, where FA4's is that of `hashed`."""
        try:
            digest = self.describer.describe(function).digest
        except Unidentifiable:
            return stock
        if not _is_told_by_text(hashed, self.describer.pinned):
            return digest
        if not self._tell_apart or self._first.setdefault(stock, digest) == digest:
            return stock
        other = hashlib.sha256(f"{stock} {digest}".encode()).hexdigest()
        self._instead[other] = stock
        return other

    def _see_to_wrapper(self, real: Any, function: Any) -> None:
        """Give a function that wraps another one a hash of its own: FA4 takes that of the other one."""
        wrapped, own = function.__wrapped__, getattr(function, _KEPT, None)
        of_wrapped = getattr(wrapped, _KEPT, None)
        if own is not None and own != of_wrapped:  # has it already, or the user vouches for it; else it was copied
            return
        is_compiled = type(function) is FunctionType and self.describer.pinned.is_decorator(
            str(function.__globals__.get("__name__"))
        )
        if is_compiled and hasattr(wrapped, "__wrapped__"):  # what was compiled is a wrapper itself
            self._see_to_wrapper(real, wrapped)
            given = getattr(wrapped, _KEPT, None)
        elif is_compiled:
            return
        elif of_wrapped is None:
            given = self._mended(str(real(wrapped)), wrapped, function)
        elif not isinstance(of_wrapped, str):
            return
        else:
            stock = self._instead.get(of_wrapped, of_wrapped)
            self._mended(stock, wrapped, wrapped)
            given = self._mended(stock, wrapped, function)
        with contextlib.suppress(AttributeError, TypeError):
            setattr(function, _KEPT, given)

    @property
    def _hashed(self) -> Callable[[Any], object] | None:
        """FA4's function that says what stands for another one in keys; None if there is none of that name."""
        return getattr(sys.modules.get(f"{self._package}.{_UTILITIES}"), _HASH, None)

    def _stock_hash(self, function: Any, hashed: Callable[[Any], object]) -> str | None:
        """Return what would stand for a function that was given another hash, had it been alone; else None."""
        kept = getattr(function, _KEPT, None) or getattr(getattr(function, "__wrapped__", function), _KEPT, None)
        stock = self._instead.get(kept) if isinstance(kept, str) else None
        if stock is None:
            return None
        alone = SimpleNamespace(**{name: value for name, value in vars(function).items() if name != "__wrapped__"})
        setattr(alone, _KEPT, stock)
        return str(hashed(alone))

    def _given(self, frame: FrameType | None) -> Mapping[str, Any]:
        while frame is not None:
            if is_in(str(frame.f_globals.get("__name__", "")), self._package):
                given = {name: frame.f_locals.get(name) for name in MODIFIERS if name in frame.f_code.co_varnames}
                if functions := {name: function for name, function in given.items() if callable(function)}:
                    return functions
            frame = frame.f_back
        return {}


def require_identifiable(name: str, function: Any, recognizer: FlashRecognizer) -> None:
    """Raise `UsageError` for a function of a spec's that can't be recognized in another process, with the part."""
    try:
        recognizer.describer.describe(function)
    except Unidentifiable as error:
        raise _problem(name, error) from None


def _problem(name: str, error: Unidentifiable) -> UsageError:
    return UsageError(f"`{name}` can't be recognized in another process: {error}", error.hint)


def _is_told_by_text(function: Any, pinned: Pinned) -> bool:
    """Return whether FA4's hash of a function has nothing in it that is of this process."""
    if type(function) is not FunctionType:
        return False
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return all(_is_plain(value, pinned) for value in held)


def _is_plain(value: Any, pinned: Pinned) -> bool:
    if type(value) in (tuple, list):
        return all(_is_plain(item, pinned) for item in value)
    return type(value) in _PLAIN or (isinstance(value, type) and pinned.name_of(value) is not None)


def _strings(value: Any) -> set[str]:
    found, met, left = set[str](), set[int](), [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.add(one)
        elif isinstance(one, tuple):
            left.extend(one)
        elif hasattr(type(one), "__dataclass_fields__") and id(one) not in met:  # it may be in itself
            met.add(id(one))
            left.extend(getattr(one, field.name) for field in dataclasses.fields(one))
    return found


def _replaced(value: Any, old: str, new: str) -> Any:
    """Return a key with one string in the place of another."""
    if isinstance(value, str):
        return new if value == old else value
    if isinstance(value, tuple):
        items = [_replaced(item, old, new) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: _replaced(getattr(value, one.name), old, new) for one in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    return value
