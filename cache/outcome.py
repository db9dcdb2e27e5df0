"""What comes of looking into a cache, and the one way from an error to it: `Hit`, `Miss` or `Finding`."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import CacheError, RecordError, UntrustedError
from .record import Record, Reference

FAULTS = (RecordError, UntrustedError, CacheError, OSError)
"""What reading a cache raises for what is on disk; nothing else."""


class MissReason(enum.Enum):
    """Why there is no kernel. docs/reference/miss-reasons.md has the remedy for each.

    The first five are what one cache directory can answer; the others are found by a job, which knows its device, its
    key and its process.
    """

    ABSENT = "absent"
    """There is no record of this kernel."""

    DAMAGED = "damaged"
    """There is a record or blob, but it is not what it states to be."""

    UNTRUSTED = "untrusted"
    """Somebody else could have written it."""

    UNREADABLE = "unreadable"
    """The operating system does not let us read it."""

    LAYOUT = "layout"
    """The folder is not there, is no cache, or is one of a layout that this version does not know."""

    TOOLCHAIN = "toolchain"
    """There is a kernel, built from another provider, for another TVM-FFI or another kind of host."""

    ARCH = "arch"
    """There is a kernel, for GPUs of another arch."""

    SM_COUNT = "sm-count"
    """There is a kernel, for GPUs with another number of SMs, which is compiled in."""

    ENVIRONMENT = "environment"
    """There is a kernel, for jobs that set variables which this one does not set."""

    DEVICE = "device"
    """There is no GPU, or GPUs that differ, so it is not known what to look for."""

    FUNCTION = "function"
    """A function of the job's in the key can't be recognized, or the kernels of the key are for others."""

    KEY = "key"
    """The key holds a value that can't be written down, so nothing can be found by it."""

    LOAD = "load"
    """The bytes are right, and do not load into this process."""


@dataclass(frozen=True)
class Hit:
    """A kernel was found, and its bytes are those that its record states; the record is read as far as it is needed."""

    reference: Reference
    blob: bytes

    @property
    def record(self) -> Record:
        """The whole record. Raises `RecordError` if what a job does not need of it is not as it must be."""
        return self.reference.record


@dataclass(frozen=True)
class Miss:
    """There is no usable kernel. `path` is what is not trusted, where that is the reason.

    `others` are further reasons, of other roots.
    """

    reason: MissReason
    detail: str
    path: str = ""
    others: tuple[Miss, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something in a cache that is not as it should be.

    `path` is relative to the root. `untrusted` is the full path of what others could have written, if that is it.
    """

    path: str
    reason: MissReason
    problem: str
    untrusted: str = ""


def miss_of(error: RecordError | UntrustedError | CacheError | OSError, root: Path, wanted: str) -> Miss:
    """Return the miss that an error means, for somebody who wanted `wanted` of a root. Raises nothing itself."""
    match error:
        case RecordError():
            return Miss(MissReason.DAMAGED, f"`{root}/{error.path}`: {error.reason}")
        case UntrustedError():
            return Miss(MissReason.UNTRUSTED, error.reason, error.path)
        case CacheError():
            return Miss(MissReason.LAYOUT, f"`{error.path}` {error.message}")
        case FileNotFoundError() if os.path.exists(root):
            return Miss(MissReason.ABSENT, f"`{root}` has no {wanted}")
        case FileNotFoundError():
            return Miss(MissReason.LAYOUT, f"`{root}` does not exist")
        case _:
            is_file = isinstance(error, NotADirectoryError) and not os.path.isdir(root)
            where = f" ({error.filename})" if error.filename and error.filename != str(root) else ""
            reason = MissReason.LAYOUT if is_file else MissReason.UNREADABLE
            return Miss(reason, f"`{root}`: {_said_by_system(error)}{where}")


def finding_of(error: RecordError | UntrustedError | CacheError | OSError, root: Path, path: str) -> Finding:
    """Return the finding that an error means, for somebody who looked at `path` below a root."""
    match error:
        case RecordError():
            return Finding(path, MissReason.DAMAGED, error.reason)
        case UntrustedError():  # of a folder: one finding, however many files are in it
            where = Path(error.path)
            inside = where.relative_to(root).as_posix() if where.is_relative_to(root) else str(where)
            return Finding(inside, MissReason.UNTRUSTED, f"{_UNTRUSTED}{error.reason}", error.path)
        case CacheError():
            return Finding(path, MissReason.LAYOUT, error.message)
        case _:
            return Finding(path, MissReason.UNREADABLE, f"can't be read: {_said_by_system(error)}")


def miss_from(finding: Finding, root: Path) -> Miss:
    """Return what a finding means for somebody who wants a kernel of a root."""
    problem = finding.problem.removeprefix(_UNTRUSTED) if finding.untrusted else finding.problem
    return Miss(
        finding.reason, problem if finding.untrusted else f"`{root / finding.path}`: {problem}", finding.untrusted
    )


def error_of(finding: Finding) -> RecordError | UntrustedError:
    """Return the error that a finding is to somebody who can't go on with it."""
    if finding.untrusted:
        return UntrustedError(finding.untrusted, finding.problem.removeprefix(_UNTRUSTED))
    if finding.reason is MissReason.UNREADABLE:
        return RecordError(finding.path, finding.problem, "let your user read it")
    return RecordError(finding.path, finding.problem)


_UNTRUSTED = "is not trusted: "


def _said_by_system(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
