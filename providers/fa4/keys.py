"""The names of the positions of FlashAttention-4's keys, from its source; for people only. Standard library only."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from types import ModuleType

from ..loaded import loaded_modules
from .declared import declared
from .slots import ATTRIBUTE, slot_names
from .written import source_of

_GETTER = re.compile(r"(?:\w+\.)*get_(\w+)\(\)")
_KEY_VARIABLES = ("compile_key", "cache_key")
_MOST_FORMS = 64

Form = tuple[str, ...] | str
"""What an expression comes to: the names of a tuple's items, or a name if it is no tuple."""


def key_names(packages: str | Sequence[str], slot: str, length: int) -> Sequence[str]:
    """Return the expressions that a slot's key is built from, or numbers if the source has none of that length.

    For people only. A setting that is read by a call, `get_fa_log_level()`, is named as one: `FA_LOG_LEVEL`.
    """
    try:
        return _written_names((packages,) if isinstance(packages, str) else tuple(packages), slot, length)
    except LookupError:
        return [str(position) for position in range(length)]


@functools.cache  # a plan asks for each of hundreds of keys; what is not found yet may be imported later
def _written_names(packages: Sequence[str], slot: str, length: int) -> Sequence[str]:
    for package in packages:
        for module in loaded_modules(package):
            for names in _key_expressions(module).get(slot, ()):
                if len(names) == length == len(set(names)):
                    return names
    raise LookupError(slot)


def named_key(packages: Sequence[str], slot: str, key: object) -> dict[str, object]:
    """Return the values of a slot's key by the names of its positions, in their order; of a dataclass, its fields."""
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        return {field.name: getattr(key, field.name) for field in dataclasses.fields(key) if field.compare}
    values = key if isinstance(key, tuple) else (key,)
    return dict(zip(key_names(packages, slot, len(values)), values, strict=True))


@functools.cache
def _key_expressions(module: ModuleType) -> Mapping[str, Sequence[Sequence[str]]]:
    source = source_of(module)
    slots = slot_names(module)
    if not slots and ATTRIBUTE not in source:  # most of the provider's modules; a job should not wait for a parser
        return {}
    kept = {one.line: slots[one.place] for one in declared(source) if one.place is not None and one.place in slots}
    functions = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    found: dict[str, list[Sequence[str]]] = {}
    for function in functions.values():
        own = slots.get(f"{function.name}.{ATTRIBUTE}", function.name.strip("_"))
        for slot, form in _Reading(functions, kept, own).keys(function):
            found.setdefault(slot, []).append((form,) if isinstance(form, str) else form)
    return found


_State = dict[str, list[Form]]


class _Reading:
    """Follows a function's statements, and takes note of each key that it builds.

    A branch adds forms: a key that is extended in one has both lengths after it.
    """

    def __init__(self, functions: Mapping[str, ast.FunctionDef], kept: Mapping[int, str], own: str) -> None:
        self._functions = functions
        self._kept = kept
        self._own = own
        self._found: list[tuple[str, Form]] = []
        self._returned: list[Form] = []
        self._calling: set[str] = set()

    def keys(self, function: ast.FunctionDef) -> list[tuple[str, Form]]:
        """Return the slots whose keys a function builds, each with a form that its key can have."""
        self._calling.add(function.name)
        self._block(function.body, {})
        return list(dict.fromkeys(self._found))

    def _block(self, statements: Sequence[ast.stmt], state: _State) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        self._assign(target, value, state)
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self._assign(target, value, state)
                case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                    self._set(name, self._added(state.get(name, [name]), self._forms(value, state)), state)
                case ast.Return(value=ast.expr() as value):
                    self._returned += self._forms(value, state)
                case ast.If(body=body, orelse=orelse):
                    self._either([body, orelse], state)
                case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                    self._either([[*body, *orelse], *(handler.body for handler in handlers)], state)
                    self._block(final, state)
                case ast.Match(cases=cases):
                    self._either([[], *(case.body for case in cases)], state)
                case ast.For(body=body) | ast.While(body=body) | ast.With(body=body):
                    self._block(body, state)

    def _either(self, branches: Sequence[Sequence[ast.stmt]], state: _State) -> None:
        states = [dict(state) for _ in branches]
        for branch, own in zip(branches, states, strict=True):
            self._block(branch, own)
        for name in dict.fromkeys(itertools.chain.from_iterable(states)):
            forms = itertools.chain.from_iterable(own.get(name, []) for own in states)
            state[name] = list(dict.fromkeys(forms))[:_MOST_FORMS]

    def _assign(self, target: ast.expr, value: ast.expr, state: _State) -> None:
        if isinstance(target, ast.Name):
            self._set(target.id, self._forms(value, state), state)
        elif isinstance(target, ast.Subscript) and target.lineno in self._kept:
            self._found += [(self._kept[target.lineno], form) for form in self._forms(target.slice, state)]

    def _set(self, name: str, forms: list[Form], state: _State) -> None:
        state[name] = forms[:_MOST_FORMS]
        if name in _KEY_VARIABLES:
            self._found += [(self._own, form) for form in state[name]]

    def _forms(self, value: ast.expr, state: _State) -> list[Form]:
        match value:
            case ast.Tuple(elts=elements):
                forms: list[Form] = [()]
                for element in elements:
                    item = element.value if isinstance(element, ast.Starred) else None
                    forms = self._added(forms, self._forms(item, state) if item else [(_name(element),)])
                return forms
            case ast.Name(id=name) if name in state:
                return state[name]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._added(self._forms(left, state), self._forms(right, state), _name(value))
            case ast.IfExp(body=one, orelse=other):
                forms = [*self._forms(one, state), *self._forms(other, state)]
                return forms if all(isinstance(form, tuple) for form in forms) else [_name(value)]
            case ast.Call(func=ast.Name(id=name)) if name in self._functions and name not in self._calling:
                return self._results(name) or [_name(value)]
        return [_name(value)]

    def _results(self, name: str) -> list[Form]:
        """Return the tuples that a function of the module can return."""
        reading = _Reading(self._functions, {}, "")
        reading._calling = {*self._calling, name}
        reading._block(self._functions[name].body, {})
        return [form for form in reading._returned if isinstance(form, tuple)]

    def _added(self, left: Sequence[Form], right: Sequence[Form], else_: str = "") -> list[Form]:
        """Return each of the left with each of the right behind it."""
        found: list[Form] = []
        for one, other in itertools.product(left, right):
            if isinstance(one, str):
                found.append(else_ or one)
            else:
                found.append((*one, f"*{other}") if isinstance(other, str) else (*one, *other))
        return list(dict.fromkeys(found))[:_MOST_FORMS]


def _name(element: ast.expr) -> str:
    expression = " ".join(ast.unparse(element).split())
    getter = _GETTER.fullmatch(expression)
    return getter[1].upper() if getter else expression
