"""Reading a spec: YAML to the variants that it enumerates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..cache.key import digest_json
from ..cache.target import Target
from ..cache.toolchain import FLASH_ATTN_4, ProviderSource, provider_of
from ..errors import SpecError, UsageError
from .axes import AXES, PerPass, make_variant
from .masks import modifier_sources
from .targets import TargetBook
from .variant import Variant
from .yaml_source import Value, read_yaml

SHIPPED = Path(__file__).resolve().parent.parent / "kernel_specs"
MAX_VARIANTS = 1_000_000

_VERSION = 1
_TOP = ("version", "provider", "targets", "defaults", "kernels", "exclude")
# Changes when the same YAML comes to other calls, or a call to other arguments, so that a manifest of the old meaning
# does not vouch for the new one. A test pins it together with a plan.
_MEANING = "fa4-precompile/spec/4"


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
    provider: ProviderSource
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
        provider = (
            [self.provider.name] if self.provider == FLASH_ATTN_4 else [self.provider.name, self.provider.package]
        )
        return digest_json([_MEANING, *provider, variants, modifier_sources(self.variants)])


def find_spec(argument: str) -> Path:
    """Return the file of a spec: a path, or the name of one that is shipped. Raises `UsageError`."""
    path = Path(argument)
    try:
        if path.is_file():
            return path
    except OSError:
        pass  # a name that no file can have
    names = sorted(file.stem for file in SHIPPED.glob("*.yaml") if file.stem != "targets")
    if argument in names:
        return SHIPPED / f"{argument}.yaml"
    hint = f"name a YAML file, or one of the shipped specs: {', '.join(names)}"
    raise UsageError(f"there is no spec `{argument}`", hint)


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
    defaults = _read_axes(top["defaults"], "`defaults`") if "defaults" in top else {}
    rules = [_Rule(item) for item in top["exclude"].items("`exclude`")] if "exclude" in top else []
    entries = tuple(_read_entries(top["kernels"], defaults, rules))
    for rule in rules:
        if not rule.used:
            raise rule.place.error("this exclude rule matches no variant", "correct it, or take it out")
    return Spec(source, Path(source).stem, provider, tuple(targets), entries)


def _read_provider(place: Value) -> ProviderSource:
    """Read `flash-attn-4`, or a package of its lineage under another name: {name: flash-attn-4, module: NAME}."""
    fields = place.mapping(("name", "module"), "`provider`") if place.is_mapping else {"name": place}
    if "name" not in fields or fields["name"].scalar() != FLASH_ATTN_4.name:
        found = fields.get("name", place)
        raise found.error(f"provider {found.kind} is unknown", f"allowed: {FLASH_ATTN_4.name}")
    if "module" not in fields:
        return FLASH_ATTN_4
    module = fields["module"].scalar()
    if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
        raise fields["module"].error(f"`module` can't be {fields['module'].kind}", "name a package, `flash_attn_cute`")
    return provider_of(module)


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

    def __init__(self, place: Value) -> None:
        self.place = place
        self.used = False
        self._values = _read_axes(place, "an exclude rule")
        if not self._values:
            raise place.error("an exclude rule without an axis would drop everything")
        for name, values in self._values.items():
            if any(isinstance(value, PerPass) for value in values):
                raise place.error(f"an exclude rule takes plain values of `{name}`", "name the `pass` beside it")

    def drops(self, point: Mapping[str, object]) -> bool:
        drops = all(point[name] in values for name, values in self._values.items())
        self.used = self.used or drops
        return drops


def _read_axes(place: Value, what: str) -> dict[str, list[object]]:
    return {name: AXES[name].values(value) for name, value in place.mapping(AXES, what).items()}


def _read_entries(kernels: Value, defaults: Mapping[str, list[object]], rules: list[_Rule]) -> Iterator[Entry]:
    names: dict[str, int] = {}
    total = 0
    for place in kernels.items("`kernels`"):
        values = place.mapping(("name", *AXES), "an entry of `kernels`")
        if "name" not in values or not isinstance(name := values.pop("name").scalar(), str):
            raise place.error("an entry of `kernels` needs a name", "add `name: WORD`")
        if name in names:
            raise place.error(f"the name `{name}` is taken by the entry at line {names[name]}")
        names[name] = place.line
        own = {axis: AXES[axis].values(value) for axis, value in values.items()}
        matrix = {axis: own.get(axis) or defaults.get(axis) or [AXES[axis].default] for axis in AXES}
        for axis, choices in matrix.items():
            if choices == [...]:
                raise place.error(f"entry `{name}` has no `{axis}`", "give it here or in `defaults`")
        for axis, value in values.items():
            _require_passes(value, own[axis], matrix["pass"])
        total += math.prod(len(choices) for choices in matrix.values())
        if total > MAX_VARIANTS:
            raise place.error(f"with this entry the spec enumerates {total:,} variants; the limit is {MAX_VARIANTS:,}")
        yield Entry(name, place, _expand(name, place, matrix, rules))


def _require_passes(place: Value, choices: list[object], passes: list[object]) -> None:
    for choice in choices:
        for name in dict(choice.by_pass) if isinstance(choice, PerPass) else ():
            if name not in passes:
                raise place.error(f"this names the pass `{name}`, which the entry does not have")


def _expand(name: str, place: Value, matrix: Mapping[str, list[object]], rules: list[_Rule]) -> tuple[Variant, ...]:
    found = []
    for choice in itertools.product(*matrix.values()):
        point = dict(zip(matrix, choice, strict=True))
        for axis, value in point.items():
            if isinstance(value, PerPass):
                point[axis] = value.resolve(point["pass"], AXES[axis].default)
        dropped_by = [rule for rule in rules if rule.drops(point)]  # all of them: each is to be marked as used
        if dropped_by:
            continue
        variant = make_variant(point)
        if variant.heads % variant.qheads_per_kvhead:
            ratio = variant.qheads_per_kvhead
            raise place.error(f"entry `{name}`: {variant.heads} heads are no multiple of qheads_per_kvhead {ratio}")
        if variant.sparse is not None and variant.sparse.computed and variant.mask_mod is None:
            raise place.error(
                f"entry `{name}`: a mask that is `computed` is computed from a `mask_mod`, and there is none",
                "add `mask_mod: module:attribute`, or take `computed` out",
            )
        found.append(variant)
    if not found:
        raise place.error(f"entry `{name}` enumerates nothing: `exclude` drops all of it")
    return tuple(found)
