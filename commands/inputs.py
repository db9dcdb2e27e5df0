"""What the arguments of commands name: caches, specs, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.listing import list_contents
from ..cache.outcome import FAULTS
from ..cache.seal import Vouchers
from ..cache.store import Root
from ..cache.trust import Trust
from ..errors import UsageError
from ..loader.config import Config

if TYPE_CHECKING:
    from ..cache.target import Target
    from ..carry.chosen import ChosenSource
    from ..precompile.spec.spec import Spec


def named_root(cache: Path | None, allow_untrusted: bool = False) -> Root:
    """Return the cache directory that is named, else the first of the environment's; it need not be there."""
    path = cache or Config.from_env().roots[0]
    return Root(path.absolute(), Trust.ANY if allow_untrusted else Trust.OWN)


def existing_root(
    cache: Path | None, allow_untrusted: bool, expect: Sequence[str] = (), trust_keys: Sequence[Path] = ()
) -> Root:
    """Return the same, if it is a cache, and is vouched for as is said here, else in the environment.

    Raises `CacheError` or `UntrustedError`.
    """
    root = replace(named_root(cache, allow_untrusted), vouchers=vouchers(expect, trust_keys))
    root.require_layout()
    return root


def chosen(root: Root, spec: str | None, target: str | None, arch: str | None) -> ChosenSource:
    """Return what is wanted of a root: all, or the builds of a spec, for a target, for an arch.

    Raises `UsageError` if it has no such build, and what listing a cache raises.
    """
    from ..carry.chosen import ChosenSource, Part
    from ..carry.root import RootSource

    source = RootSource(root)
    return ChosenSource(source, source.contents(), Part(spec_digest(spec), target, arch))


def fingerprint_of(root: Root) -> str:
    """Return a root's fingerprint; nothing for one that is not whole enough to have one."""
    try:
        return list_contents(root).fingerprint
    except FAULTS:
        return ""


def vouchers(expect: Sequence[str] = (), trust_keys: Sequence[Path] = ()) -> Vouchers:
    """Return what is believed of a cache: what is said here, else in the environment. Raises `UsageError`."""
    return Config.without_roots().override(expect=expect or None, trust_keys=trust_keys or None).vouchers


def root_to_fill(cache: Path | None, expect: Sequence[str], trust_keys: Sequence[Path]) -> Root:
    """Return the cache directory that is named, as a place to put what is carried.

    Where somebody vouches for that, others may write there, as in the volumes of a cluster: who reads it compares.
    """
    root = named_root(cache)
    return replace(root, trust=Trust.ANY) if vouchers(expect, trust_keys) else root


def spec_digest(argument: str | None) -> str | None:
    """Return the digest of the spec that is named, or the name itself if there is no such spec here."""
    from ..precompile.spec.spec import find_spec, read_spec, target_book

    if argument is None:
        return None
    try:
        path = find_spec(argument)
    except UsageError:  # a cache may have builds of one
        return argument
    return read_spec(path, target_book()).digest


def spec_and_targets(argument: str, target_name: str | None) -> tuple[Spec, list[Target]]:
    """Return the spec that is named, and the targets that it names or the one that is named beside it."""
    from ..precompile.spec.spec import find_spec, read_spec, target_book

    book = target_book()
    spec = read_spec(find_spec(argument), book)
    if target_name is None:
        if not spec.targets:
            raise UsageError(f"`{spec.source}` names no targets", "name one with `--target NAME`, see `targets`")
        return spec, list(spec.targets)
    named = [target for target in spec.targets if target.name == target_name]
    return spec, named or [book.get(target_name)]
