"""Writing a spec as a person would: entries with names, what all have in common once, and whose they are above them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from ...cache.target import Target
from ...providers.protocol import Provider
from ...text.words import count
from .asking import Axes
from .folding import Box
from .made import Made, MadeEntry

_WIDTH = 10_000
_FEW = 2  # entries, for which nothing is worth saying once
_MOST_LETTERS = 110

Values = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Entry:
    """An entry of a spec to write, and the line that stands above it."""

    box: Box
    comment: str


def spec_text(made: Made, provider: Provider, target: str, comments: Sequence[str]) -> str:
    """Return the YAML of a spec. `target` is an item of its `targets`, as YAML; `comments` stand at its top."""
    entries = [Entry(entry.box, _whose(entry)) for entry in made.entries]
    return entries_text(entries, made.open_axes, provider, [target], comments)


def entries_text(
    written: Sequence[Entry],
    open_axes: Mapping[str, object],
    provider: Provider,
    targets: Sequence[str],
    comments: Sequence[str],
) -> str:
    """Return the YAML of entries. `open_axes` is what each has besides its own; `targets` are items as YAML."""
    axes = Axes(provider)
    entries = [_values(entry.box, axes) for entry in written]
    common = _common(entries, axes) if len(entries) > _FEW else {}
    own = dict(open_axes) if len(entries) <= _FEW else {}
    shared = {**common, **({} if own else {name: [value] for name, value in open_axes.items()})}
    names = _names(entries, provider)
    lines = [f"# {line}" if line else "#" for line in comments]
    lines += ["version: 1", f"provider: {_provider(provider)}", f"targets: [{', '.join(targets)}]"]
    if shared:
        lines += _block("defaults:", shared, "  ")
    lines.append("kernels:")
    for entry, values, name in zip(written, entries, names, strict=True):
        lines.append(f"# {entry.comment}")
        kept = {axis: found for axis, found in values.items() if axis not in common}
        lines += _block(f"- name: {name}", {**kept, **{axis: [value] for axis, value in own.items()}}, "  ")
    return "\n".join(lines) + "\n"


def written_target(target: Target, name: str | None) -> str:
    """Return an item of a spec's `targets`: the name of a shipped profile, else all of it."""
    return name or _flow(dict(target.render()))


def _values(box: Box, axes: Axes) -> dict[str, list[object]]:
    """Return the values of an entry, but for axes at their default."""
    return {
        name: sorted(map(json.loads, texts), key=_rank)
        for name, texts in box.axes
        if not all(text == axes.default(name) for text in texts)
    }


def _rank(value: object) -> tuple[int, float, str]:
    """Return what orders values: none first, then booleans, numbers, words, lists."""
    if value is None or isinstance(value, bool):
        return 0 if value is None else 1, float(bool(value)), ""
    if isinstance(value, (int, float)):
        return 2, float(value), ""
    return (3 if isinstance(value, str) else 4), 0.0, json.dumps(value)


def _common(entries: Sequence[Values], axes: Axes) -> dict[str, Sequence[object]]:
    """Return what all entries have in common."""
    first = entries[0]
    return {
        name: first[name]
        for name in sorted(first, key=axes.place)
        if name != "pass" and all(entry.get(name) == first[name] for entry in entries)
    }


def _names(entries: Sequence[Values], provider: Provider) -> list[str]:
    """Return a name for each entry: as few words as tell it from the others; numbers, where words don't."""
    words = [list(provider.entry_words(entry)) or ["calls"] for entry in entries]
    told = Counter(word for of_one in words for word in of_one[1:])
    names = [of_one[0] for of_one in words]
    # Words that all entries have tell nothing.
    rest = [[word for word in of_one[1:] if told[word] < len(entries) or len(entries) == 1] for of_one in words]
    for place in range(max(map(len, rest), default=0)):
        taken = Counter(names)
        names = [
            f"{name}-{more[place]}" if place < len(more) and (taken[name] > 1 or place == 0) else name
            for name, more in zip(names, rest, strict=True)
        ]
    return list(_numbered(names))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    taken, seen = Counter(names), Counter[str]()
    for name in names:
        seen[name] += 1
        yield name if taken[name] == 1 else f"{name}-{seen[name]}"


def _whose(entry: MadeEntry) -> str:
    """Return who looked kernels of an entry up."""
    first, *others = entry.processes
    who = f"{count(len(others) + 1, 'process').replace('processs', 'processes')}, first {first.process}"
    return f"{count(len(entry.reached), 'kernel')}; {who if others else first.process}"


def _provider(provider: Provider) -> str:
    return provider.name if provider.is_default else _flow({"name": provider.name, "module": provider.package})


def _block(head: str, values: Values, indent: str) -> list[str]:
    """Return a mapping in lines: each axis on its own, long lists one value a line."""
    lines = [head]
    for name, found in values.items():
        text = f"{indent}{name}: {_shown(found)}"
        if len(found) > 1 and len(text) > _MOST_LETTERS:
            lines.append(f"{indent}{name}:")
            lines += [f"{indent}- {_flow(value)}" for value in found]
        else:
            lines.append(text)
    return lines


def _shown(values: Sequence[object]) -> str:
    if len(values) > 1:
        return _flow(list(values))
    (value,) = values
    if isinstance(value, list):
        is_one = len(value) == 1 and isinstance(value[0], dict)  # a tensor by itself is a list of one
        return _flow(value[0] if is_one else [value])
    return _flow(value)


def _flow(value: object) -> str:
    text = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=_WIDTH, allow_unicode=True).strip()
    return text[1:-1]
