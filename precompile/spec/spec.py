"""Reading a spec: YAML to the variants that it enumerates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...cache.key import digest_json
from ...cache.manifest import Excluded
from ...cache.target import Target
from ...errors import SpecError, UsageError
from ...providers.axes import Axis, PerPass, identity
from ...providers.call import Variant
from ...providers.protocol import Provider
from ...providers.registry import find_provider, provider_names
from ...text.yaml_source import MAX_BYTES, Value, decode, did_you_mean, read_yaml
from .callers import Callers
from .exclude import Rules
from .lists import OpenList
from .sources import Sources, function_sources
from .targets import TargetBook

SHIPPED = Path(__file__).resolve().parents[2] / "kernel_specs"
_NO_SPECS = "known_bad", "targets"
MAX_VARIANTS = 50_000
"""Most calls of a spec: as many take some seconds to read, and minutes to plan."""

_VERSION = 1
_TOP = ("version", "provider", "targets", "callers", "defaults", "kernels", "exclude")


@dataclass(frozen=True)
class Entry:
    """One entry of a spec's `kernels`: its variants, and for complaints its place in the file and its open lists."""

    name: str
    place: Value
    variants: tuple[Variant, ...]
    lists: tuple[OpenList, ...] = ()


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

    def doubts(self, excluded: Sequence[Excluded]) -> list[str]:
        """Return a sentence for each list that was probably meant as one value, by which calls are excluded."""
        texts = {digest_json(dict(one.variant)) for one in excluded}
        if not texts:
            return []
        lists = [one for entry in self.entries for one in entry.lists]
        found = [one.doubt(lambda variant: digest_json(variant.render()) in texts) for one in lists]
        return list(dict.fromkeys(filter(None, found)))  # a list of `defaults` is in many entries

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
    nearest = did_you_mean(path.stem, list(specs))
    hint = f"{nearest}name a YAML file, or one of the shipped specs: {', '.join(specs)}"
    raise UsageError(f"there is no spec `{argument}`", hint)


def shipped_specs() -> dict[str, Path]:
    """Return the files of the specs that are shipped, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml")) if file.stem not in _NO_SPECS}


def target_book() -> TargetBook:
    """Return the shipped device profiles."""
    return TargetBook(SHIPPED / "targets.yaml")


def read_spec(path: Path, book: TargetBook) -> Spec:
    """Read a spec file. Raises `SpecError` with file, line and column."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(str(path), 0, 0, f"can't be read: {error}") from None
    return parse_spec(str(path), decode(str(path), data), book)


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
    callers = Callers(top.get("callers"), provider)
    axes = callers.axes
    defaults = _read_axes(top["defaults"].mapping(axes, "`defaults`"), axes) if "defaults" in top else {}
    rules = Rules(top["exclude"].items("`exclude`") if "exclude" in top else [], axes)
    entries = tuple(_read_entries(top["kernels"], provider, axes, defaults, rules))
    rules.require_used()
    callers.require_used()
    return Spec(source, Path(source).stem, provider, tuple(targets), entries)


def _read_provider(place: Value) -> Provider:
    """Read a provider's name, or one for a package that carries its code.

    `{name: flash-attn-4, module: NAME}`, or `folder: PATH`, seen from where the spec is, for one that is on no path.
    """
    fields = place.mapping(("name", "module", "folder"), "`provider`") if place.is_mapping else {"name": place}
    found = fields.get("name", place)
    name = found.scalar() if "name" in fields else None
    provider = find_provider(name) if isinstance(name, str) else None
    if provider is None:
        raise found.error(f"provider {found.kind} is unknown", f"allowed: {', '.join(provider_names())}")
    if "module" in fields and "folder" in fields:
        raise fields["folder"].error("a package is named by its `module` or by its `folder`, not by both")
    for field in ("module", "folder"):
        if field in fields:
            return _read_carrier(fields[field], field, provider)
    return provider


def _read_carrier(place: Value, field: str, provider: Provider) -> Provider:
    package = place.scalar()
    if field == "module" and not (isinstance(package, str) and all(map(str.isidentifier, package.split(".")))):
        raise place.error(f"`module` can't be {place.kind}", "name a package, `flash_attn_cute`")
    if not isinstance(package, str) or not package:
        raise place.error(f"`{field}` can't be {place.kind}", "name the folder of a package")
    try:
        return provider.under(package if field == "module" else str(Path(place.source).absolute().parent / package))
    except UsageError as error:
        raise place.error(str(error), error.hint) from None


def _read_targets(place: Value, book: TargetBook) -> Iterator[Target]:
    seen = set()
    for item in place.items("`targets`"):
        target = book.parse(item)
        if target in seen:
            raise item.error(f"the target `{target.name}` stands here twice")
        seen.add(target)
        yield target


@dataclass(frozen=True)
class _Choices:
    """What an entry has on an axis, and where it says so; no place where the axis is at its default."""

    values: Sequence[object]
    place: Value | None = None


def _read_axes(places: Mapping[str, Value], axes: Mapping[str, Axis]) -> dict[str, _Choices]:
    return {name: _Choices(axes[name].values(place), place) for name, place in places.items()}


def _read_entries(
    kernels: Value, provider: Provider, axes: Mapping[str, Axis], defaults: Mapping[str, _Choices], rules: Rules
) -> Iterator[Entry]:
    names: dict[str, int] = {}
    total = 0
    for place in kernels.items("`kernels`"):
        values = place.mapping(("name", *axes), "an entry of `kernels`")
        if "name" not in values or not isinstance(name := values.pop("name").scalar(), str):
            raise place.error("an entry of `kernels` needs a name", "add `name: WORD`")
        if name in names:
            raise place.error(f"the name `{name}` is taken by the entry at line {names[name]}")
        names[name] = place.line
        own = _read_axes(values, axes)
        matrix = {axis: own.get(axis) or defaults.get(axis) or _Choices([axes[axis].default]) for axis in axes}
        for axis, choices in matrix.items():
            if choices.values == [...]:
                raise place.error(f"entry `{name}` has no `{axis}`", "give it here or in `defaults`")
        for axis, value in values.items():
            _require_passes(value, own[axis].values, matrix["pass"].values if "pass" in matrix else [])
        total += math.prod(len(choices.values) for choices in matrix.values())
        if total > MAX_VARIANTS:
            raise place.error(f"with this entry the spec enumerates {total:,} variants; the limit is {MAX_VARIANTS:,}")
        yield _expand(name, place, provider, matrix, rules)


def _require_passes(place: Value, choices: Sequence[object], passes: Sequence[object]) -> None:
    for choice in choices:
        for name in dict(choice.by_pass) if isinstance(choice, PerPass) else ():
            if name not in passes:
                raise place.error(f"this names the pass `{name}`, which the entry does not have")


def _expand(name: str, place: Value, provider: Provider, matrix: Mapping[str, _Choices], rules: Rules) -> Entry:
    found, axes = [], provider.axes
    lists = {
        axis: {identity(value): list[Variant]() for value in choices.values}
        for axis, choices in matrix.items()
        if choices.place is not None and axes[axis].takes_whole(choices.place)
    }
    for choice in itertools.product(*(choices.values for choices in matrix.values())):
        point = dict(zip(matrix, choice, strict=True))
        for axis, value in point.items():
            if isinstance(value, PerPass):
                point[axis] = value.resolve(point["pass"], axes[axis].default)
        if rules.drop(point):
            continue
        try:
            variant = provider.variant(point)
        except UsageError as error:
            blamed = matrix[error.axis].place if error.axis else None
            raise (blamed or place).error(f"entry `{name}`: {error}", error.hint) from None
        found.append(variant)
        for axis, calls in lists.items():
            calls[identity(point[axis])].append(variant)
    if not found:
        raise place.error(f"entry `{name}` enumerates nothing: `exclude` drops all of it")
    places = {axis: choices.place for axis, choices in matrix.items() if choices.place is not None}
    lists_of = tuple(OpenList(axis, places[axis], list(calls.values())) for axis, calls in lists.items())
    return Entry(name, place, tuple(found), lists_of)
