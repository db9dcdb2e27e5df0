"""Which files of a root are carried: all, or those of some builds."""

from __future__ import annotations

from collections.abc import Iterable

from ..cache import layout
from ..cache.contents import Contents
from ..cache.listing import list_builds, list_contents
from ..cache.manifest import Manifest
from ..cache.outcome import Finding, error_of
from ..cache.store import Root
from ..errors import UsageError


def chosen_contents(
    root: Root, *, spec: str | None = None, target: str | None = None, arch: str | None = None
) -> Contents:
    """Return what is in a root, or only the builds of a spec, for a target's name, for an arch.

    `spec` is the name of one, or the digest of what it enumerates. A kernel that is in no build, such as one that a job
    stored, comes with the whole root only. Raises `UsageError` if no build is chosen, else as `list_contents`.
    """
    if spec is target is arch is None:
        return list_contents(root)
    root.require_layout()
    builds = list(_builds(root))
    chosen = {
        (build.toolchain, layout.manifest_path(build.toolchain, build.spec_digest, build.target))
        for build in builds
        if spec in (None, build.spec, build.spec_digest)
        and target in (None, build.target.name)
        and arch in (None, build.target.arch)
    }
    if not chosen:
        asked = [f"of `{spec}`"] * bool(spec) + [f"for `{target}`"] * bool(target) + [f"for {arch}"] * bool(arch)
        raise UsageError(f"`{root.path}` has no build {' '.join(asked)}", f"there {_listing(builds)}")
    return list_builds(root, chosen)


def _builds(root: Root) -> Iterable[Manifest]:
    for item in root.manifests():
        if isinstance(item, Finding):
            raise error_of(item)
        yield item


def _listing(builds: Iterable[Manifest]) -> str:
    found = sorted(
        {f"`{one.spec}` ({one.spec_digest[:8]}) for `{one.target.name}`, {one.target.arch}" for one in builds}
    )
    return f"are: {'; '.join(found)}" if found else "is none: build a spec, or carry the whole cache"
