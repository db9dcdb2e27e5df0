"""Going through the folders of a cache, and what is wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from . import layout
from .kinds import Kind
from .outcome import FAULTS, Finding, finding_of
from .trust import Folder

_Found = TypeVar("_Found")

_ENDING = ".json"


def walk(folder: Folder, parts: Sequence[str], kind: Kind[_Found], digits: str = "") -> Iterator[_Found | Finding]:
    """Yield the files of a kind below a folder, by the parts of their pattern, and findings for what can't be read.

    `digits` are those that the names of the files begin with. Raises one of `FAULTS` if the folder can't be listed.
    """
    first, *rest = parts
    names = folder.names() if first == "*" else [first]
    if not rest:
        names = [name for name in names if name.startswith(digits) and name.endswith(_ENDING)]
    for name in names:
        relative = f"{folder.relative}/{name}".removeprefix("/")
        try:
            if rest:
                with folder.folder(name) as inner:
                    yield from walk(inner, rest, kind, digits)
            else:
                yield kind.read(folder, name, relative)
        except FileNotFoundError:  # never made, or deleted since it was listed
            continue
        except NotADirectoryError as error:
            if layout.is_ours(relative):
                yield finding_of(error, Path(folder.root), relative)
        except FAULTS as error:
            yield finding_of(error, Path(folder.root), relative)
