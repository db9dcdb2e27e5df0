"""Files in a package's folder that its distribution did not put there. Imports none of it.

An installer lays a distribution over what is there: one that has modules of another's name leaves its own among them.
Each `.py` below the folder is part of the provider's source digest, so that a single one makes a whole cache miss.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .packages import package_folder, python_files

_MOST_NAMED = 3


@dataclass(frozen=True)
class ForeignFile:
    """A file that the owner of a package's folder did not install there.

    Attributes:
        path: where it is.
        distribution: name and version of the one that installed it, empty if none says so.
        replaces: whether the owner has a file of this name, which has gone.
    """

    path: Path
    distribution: str
    replaces: bool

    def __str__(self) -> str:
        return f"`{self.path}`" + (f" (of {self.distribution})" if self.distribution else "")


@dataclass(frozen=True)
class _Claim:
    """What a distribution's RECORD says of a package's folder: each file with its hash, as it is written there."""

    distribution: str
    hashes: Mapping[str, str]


def foreign_files(package: str) -> list[ForeignFile]:
    """Return the Python files below a package's folder that are not those of the distribution that owns it, by path.

    The owner is the one that has most of the files that are there. Nothing is foreign where nobody is: the folder of an
    editable install, or one that was copied, is in no RECORD. Some 10 ms: all RECORDs are read.
    """
    folder = package_folder(package)
    if folder is None:
        return []
    files = {path.relative_to(folder).as_posix(): path for path in sorted(python_files(folder))}
    claims = list(_claims(folder))
    owner = max(claims, key=lambda claim: len(files.keys() & claim.hashes.keys()), default=None)
    if owner is None:
        return []
    others = [claim for claim in claims if claim is not owner]
    return [file for name, path in files.items() if (file := _judged(name, path, owner, others)) is not None]


def foreign_words(files: Sequence[ForeignFile]) -> str:
    """Return the first few, and how many more there are."""
    named = [str(file) for file in files[:_MOST_NAMED]]
    more = [f"{len(files) - len(named)} more"] if len(files) > len(named) else []
    return ", ".join([*named, *more])


def _judged(name: str, path: Path, owner: _Claim, others: Sequence[_Claim]) -> ForeignFile | None:
    claiming = [claim for claim in others if name in claim.hashes]
    if name not in owner.hashes:
        return ForeignFile(path, claiming[0].distribution if claiming else "", replaces=False)
    # What a person has changed is his own; what two distributions claim is that of the one whose bytes it has.
    if claiming and not _has_hash(path, owner.hashes[name]):
        return ForeignFile(path, claiming[0].distribution, replaces=True)
    return None


def _claims(folder: Path) -> Iterator[_Claim]:
    for distribution in importlib.metadata.distributions():
        try:
            claim = _claim(distribution, os.path.realpath(folder))
        except Exception:  # whatever is wrong with somebody's metadata
            continue
        if claim.hashes:
            yield claim


def _claim(distribution: importlib.metadata.Distribution, folder: str) -> _Claim:
    below = os.path.relpath(folder, os.path.realpath(str(distribution.locate_file("")))) + "/"
    record = distribution.read_text("RECORD") or ""
    if below not in record:
        return _Claim("", {})
    rows = [row for row in csv.reader(record.splitlines()) if row and row[0].startswith(below)]
    name = f"{distribution.metadata['Name']} {distribution.version}"
    return _Claim(name, {row[0][len(below) :]: row[1] if len(row) > 1 else "" for row in rows})


def _has_hash(path: Path, recorded: str) -> bool:
    """Return whether a file has the hash of a RECORD's row; it has, where the row has none that can be told."""
    kind, _, digest = recorded.partition("=")
    if kind != "sha256":
        return True
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    return found.rstrip("=") == digest
