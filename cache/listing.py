"""The list of contents of a cache that is there, and of parts of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from . import layout
from .contents import Contents, Entry
from .kinds import Listed
from .library import Library
from .manifest import Manifest
from .outcome import Finding, error_of
from .record import Record
from .store import Root


def list_contents(root: Root) -> Contents:
    """Return the list of contents of a cache: its seal if it has one. Of blobs, what records say; all else is read.

    Raises `RecordError` or `UntrustedError` for the first file that can't be listed, and what `require_layout` raises:
    what is not whole has no name.
    """
    root.require_layout()
    if (sealed := root.sealed) is not None:
        return sealed
    return Contents.of(_entries(_sound(root.listed())))


def list_builds(root: Root, manifests: Collection[tuple[str, str]]) -> Contents:
    """Return the list of what some builds are made of: a manifest is named by its toolchain and path.

    With their toolchains and run-time libraries. Raises as `list_contents`.
    """
    wanted = {path for _, path in manifests}
    toolchains = {toolchain for toolchain, _ in manifests}
    found = list(_sound(root.listed()))
    kernels = {
        (one.item.toolchain, kernel)
        for one in found
        if isinstance(one.item, Manifest) and one.entry.path in wanted
        for kernel in one.item.kernels
    }

    def belongs(one: Listed[Any]) -> bool:
        match one.item:
            case Manifest():
                return one.entry.path in wanted
            case Record():
                return (one.item.toolchain, one.item.id) in kernels
            case Library():
                return one.item.toolchain in toolchains
        return one.item.id in toolchains

    return Contents.of(_entries(filter(belongs, found)))


def _sound(found: Iterable[Listed[Any] | Finding]) -> Iterator[Listed[Any]]:
    for one in found:
        if isinstance(one, Finding):
            raise error_of(one)
        yield one


def _entries(found: Iterable[Listed[Any]]) -> Iterator[Entry]:
    for one in found:
        yield one.entry
        if isinstance(one.item, (Record, Library)):
            yield blob_entry(one.item)


def blob_entry(item: Record | Library) -> Entry:
    """Return the line of a blob, as what names it says."""
    return Entry(layout.blob_path(item.blob), item.blob, item.blob_bytes)
