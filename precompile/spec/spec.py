"""Reading a spec: YAML to the variants that it enumerates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...cache.key import digest_json
from ...cache.target import Target
from ...errors import SpecError, UsageError
from ...providers.axes import Axis, PerPass
from ...providers.call import Variant
from ...providers.protocol import Provider
from ...providers.registry import find_provider, provider_names
from ...text.yaml_source import Value, read_yaml
from .sources import Sources, function_sources
from .targets import TargetBook

SHIPPED = Path(__file__).resolve().parents[2] / "kernel_specs"
MAX_VARIANTS = 1_000_000

_VERSION = 1
_TOP = ("version", "provider", "targets", "defaults", "kernels", "exclude")


@dataclass(frozen=True)
class Entry:
    """One entry of a spec's `kernels`: its variants, and its place in the file for complaints."""

    name: str
    place: Value
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Spec:
    """A spec. `targets` is what it names itself; a build can name others."""

    source: str
    name: str
    provider: Provider
    targets: tuple[Target, ...]
    entries: tuple[Entry, ...]

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Return the calls that the spec enumerates, each once, in its order."""
        return tuple(dict.fromkeys(variant for entry in self.entries for variant in entry.variants))

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of what the spec enumerates: comments, order and layout don't count."""
        variants = sorted((variant.render() for variant in self.variants), key=digest_json)
        carrier = [] if self.provider.is_default else [self.provider.package]
        sources = dict(self.sources.digests)
        return digest_json([self.provider.meaning, self.provider.name, *carrier, variants, sources])

    @cached_property
    def sources(self) -> Sources:
        """Return the files that the spec's functions are made of; where they don't tell, nor does the digest."""
        return function_sources(self.variants, (self.provider.package, *self.provider.traced, "cutlass"))


def find_spec(argument: str) -> Path:
    """Return the file of a spec: a path, or the name of one that is shipped. Raises `UsageError`."""
    path = Path(argument)
    try:
        if path.is_file():
            return path
    except OSError:
        pass  # a name that no file can have
    specs = shipped_specs()
    if argument in specs:
        return specs[argument]
    hint = f"name a YAML file, or one of the shipped specs: {', '.join(specs)}"
    raise UsageError(f"there is no spec `{argument}`", hint)


def shipped_specs() -> dict[str, Path]:
    """Return the files of the specs that are shipped, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml")) if file.stem != "targets"}


def target_book() -> TargetBook:
    """Return the shipped device profiles."""
    return TargetBook(SHIPPED / "targets.yaml")


def read_spec(path: Path, book: TargetBook) -> Spec:
    """Read a spec file. Raises `SpecError` with file, line and column."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), 0, 0, f"can't be read: {error}") from None
    return parse_spec(str(path), text, book)


def parse_spec(source: str, text: str, book: TargetBook) -> Spec:
    """Read a spec from its text. Raises `SpecError`."""
    root = read_yaml(source, text)
    top = root.mapping(_TOP, "a spec")
    for name in ("version", "provider", "kernels"):
        if name not in top:
            raise root.error(f"the spec has no `{name}`", f"a spec has {', '.join(_TOP)}")
    version = top["version"].scalar()
    if type(version) is not int or version != _VERSION:
        raise top["version"].error(
            f"version {top['version'].kind} is unknown", f"this release reads version {_VERSION}"
        )
    provider = _read_provider(top["provider"])
    targets = list(_read_targets(top["targets"], book)) if "targets" in top else []
    axes = provider.axes
    defaults = _read_axes(top["defaults"], axes, "`defaults`") if "defaults" in top else {}
    rules = [_Rule(item, axes) for item in top["exclude"].items("`exclude`")] if "exclude" in top else []
    entries = tuple(_read_entries(top["kernels"], provider, defaults, rules))
    for rule in rules:
        if not rule.used:
            raise rule.place.error("this exclude rule matches no variant", "correct it, or take it out")
    return Spec(source, Path(source).stem, provider, tuple(targets), entries)


def _read_provider(place: Value) -> Provider:
    """Read a provider's name, or one for a package that carries its code: `{name: flash-attn-4, module: NAME}`."""
    fields = place.mapping(("name", "module"), "`provider`") if place.is_mapping else {"name": place}
    found = fields.get("name", place)
    name = found.scalar() if "name" in fields else None
    provider = find_provider(name) if isinstance(name, str) else None
    if provider is None:
        raise found.error(f"provider {found.kind} is unknown", f"allowed: {', '.join(provider_names())}")
    if "module" not in fields:
        return provider
    module = fields["module"].scalar()
    if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
        raise fields["module"].error(f"`module` can't be {fields['module'].kind}", "name a package, `flash_attn_cute`")
    try:
        return provider.under(module)
    except UsageError as error:
        raise fields["module"].error(str(error), error.hint) from None


def _read_targets(place: Value, book: TargetBook) -> Iterator[Target]:
    seen = set()
    for item in place.items("`targets`"):
        target = book.parse(item)
        if target in seen:
            raise item.error(f"the target `{target.name}` stands here twice")
        seen.add(target)
        yield target


class _Rule:
    """One entry of `exclude`: drops the variants that have one of its values on every axis that it names."""

    def __init__(self, place: Value, axes: Mapping[str, Axis]) -> None:
        self.place = place
        self.used = False
        self._values = _read_axes(place, axes, "an exclude rule")
        if not self._values:
            raise place.error("an exclude rule without an axis would drop everything")
        for name, values in self._values.items():
            if any(isinstance(value, PerPass) for value in values):
                raise place.error(f"an exclude rule takes plain values of `{name}`", "name the `pass` beside it")

    def drops(self, point: Mapping[str, object]) -> bool:
        drops = all(point[name] in values for name, values in self._values.items())
        self.used = self.used or drops
        return drops


def _read_axes(place: Value, axes: Mapping[str, Axis], what: str) -> dict[str, list[object]]:
    return {name: axes[name].values(value) for name, value in place.mapping(axes, what).items()}


def _read_entries(
    kernels: Value, provider: Provider, defaults: Mapping[str, list[object]], rules: list[_Rule]
) -> Iterator[Entry]:
    axes = provider.axes
    names: dict[str, int] = {}
    total = 0
    for place in kernels.items("`kernels`"):
        values = place.mapping(("name", *axes), "an entry of `kernels`")
        if "name" not in values or not isinstance(name := values.pop("name").scalar(), str):
            raise place.error("an entry of `kernels` needs a name", "add `name: WORD`")
        if name in names:
            raise place.error(f"the name `{name}` is taken by the entry at line {names[name]}")
        names[name] = place.line
        own = {axis: axes[axis].values(value) for axis, value in values.items()}
        matrix = {axis: own.get(axis) or defaults.get(axis) or [axes[axis].default] for axis in axes}
        for axis, choices in matrix.items():
            if choices == [...]:
                raise place.error(f"entry `{name}` has no `{axis}`", "give it here or in `defaults`")
        for axis, value in values.items():
            _require_passes(value, own[axis], matrix.get("pass", []))
        total += math.prod(len(choices) for choices in matrix.values())
        if total > MAX_VARIANTS:
            raise place.error(f"with this entry the spec enumerates {total:,} variants; the limit is {MAX_VARIANTS:,}")
        yield Entry(name, place, _expand(name, place, provider, matrix, rules))


def _require_passes(place: Value, choices: list[object], passes: list[object]) -> None:
    for choice in choices:
        for name in dict(choice.by_pass) if isinstance(choice, PerPass) else ():
            if name not in passes:
                raise place.error(f"this names the pass `{name}`, which the entry does not have")


def _expand(
    name: str, place: Value, provider: Provider, matrix: Mapping[str, list[object]], rules: list[_Rule]
) -> tuple[Variant, ...]:
    found, axes = [], provider.axes
    for choice in itertools.product(*matrix.values()):
        point = dict(zip(matrix, choice, strict=True))
        for axis, value in point.items():
            if isinstance(value, PerPass):
                point[axis] = value.resolve(point["pass"], axes[axis].default)
        dropped_by = [rule for rule in rules if rule.drops(point)]  # all of them: each is to be marked as used
        if dropped_by:
            continue
        try:
            found.append(provider.variant(point))
        except UsageError as error:
            raise place.error(f"entry `{name}`: {error}", error.hint) from None
    if not found:
        raise place.error(f"entry `{name}` enumerates nothing: `exclude` drops all of it")
    return tuple(found)
