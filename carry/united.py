"""Putting together the manifests of one build that was made in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from ..cache.manifest import Excluded, Manifest, Reaching
from ..text.words import one_line


def difference(one: Manifest, other: Manifest) -> str:
    """Return in what the plans of two manifests of one spec, target and toolchain differ; nothing if they are alike."""
    if one.variants != other.variants:
        return f"one has {one.variants:,} calls, the other {other.variants:,}"
    for ours, theirs in zip_longest(one.calls, other.calls):
        if not (ours and theirs and _call(ours) == _call(theirs)):
            return f"one reaches kernels by `{_shown(ours)}` where the other does by `{_shown(theirs)}`"
    for here, there in zip_longest(one.excluded, other.excluded):
        if here != there:
            return f"one excludes `{_shown(here)}` where the other does `{_shown(there)}`"
    return ""


def unaccounted(manifests: Sequence[Manifest]) -> str:
    """Return in what manifests that are planned alike contradict each other; nothing if they don't.

    Each kernel that one has left, and all together don't lack, must be among those that the others bring. Else they
    call kernels by different labels, and together they would seem to be complete.
    """
    whole = united(manifests)
    for manifest in manifests:
        found = len(manifest.left.keys() - whole.left.keys() - whole.failed.keys())
        came = len(set(whole.kernels) - set(manifest.kernels))
        if found > came:
            return f"it has left {found:,} kernels that no other lacks, and the others have just {came:,} for it"
    return ""


def united(manifests: Sequence[Manifest]) -> Manifest:
    """Return the manifest of all that some manifests, which are planned alike, say is there.

    In whatever order they come, and however often, it is the same. All call a kernel by the same label: what is not
    there is what each of them lacks. Of that, what one has tried in vain has failed.
    """
    first = min(manifests, key=lambda manifest: manifest.spec)
    lacking = set.intersection(*({*manifest.left, *manifest.failed} for manifest in manifests))
    failed = _least(lacking, [manifest.failed for manifest in manifests])
    return replace(
        first,
        kernels=sorted({kernel for manifest in manifests for kernel in manifest.kernels}),
        calls=[_together(parts) for parts in zip(*(manifest.calls for manifest in manifests), strict=True)],
        failed=failed,
        left=_least(lacking - failed.keys(), [manifest.left for manifest in manifests]),
    )


def _least(labels: set[str], said: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return for each label the first by the alphabet of what is said of it, if something is."""
    found = {label: [words[label] for words in said if label in words] for label in sorted(labels)}
    return {label: min(words) for label, words in found.items() if words}


def _together(parts: Sequence[Reaching]) -> Reaching:
    return replace(parts[0], kernels=sorted({kernel for part in parts for kernel in part.kernels}))


def _call(reaching: Reaching) -> tuple[object, object]:
    return reaching.variant, reaching.runtime_env


def _shown(item: Reaching | Excluded | None) -> str:
    if item is None:
        return "nothing"
    words = one_line(item.variant)
    if isinstance(item, Excluded):
        return f"{words}: {item.reason}"
    return " ".join([*(f"{name}={value}" for name, value in item.runtime_env.items()), words])
