"""Where reports are: a file that all processes of a job append to, or a file for each, in a folder or by a pattern."""

from __future__ import annotations

import glob
import json
import os
import re
from pathlib import Path

from ..errors import UsageError
from .ending import is_child
from .ranks import Placement

HOST, RANK, PROCESS = "{host}", "{rank}", "{process}"

_EACH = f"{HOST}-{RANK}.jsonl"
"""The file of a process in a folder that is named."""

_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_MOST_BYTES = 64 << 20  # of one file's line that is looked at to find out whose it is


def report_path(name: str) -> Path:
    """Return the absolute path of a report that is named: a file, a folder with a `/` behind it, a pattern.

    Raises `UsageError` for a pattern of other words than there are, and for what is no name.
    """
    if not name or "\0" in name:
        raise UsageError(f"{name!r} is no name that a report can have", "is a variable not set?")
    for word in _PLACEHOLDER.findall(name):
        if word not in (HOST, RANK, PROCESS):
            raise UsageError(f"`{name}` has `{word}`, which stands for nothing", f"allowed: {HOST}, {RANK}, {PROCESS}")
    path = Path(name).absolute()
    return path / _EACH if name.endswith(os.sep) else path


def is_for_each(path: Path) -> bool:
    """Return whether each process has a file of its own there: it is a pattern, or a folder."""
    return _is_pattern(path) or path.is_dir()


def fixed_folder(path: Path) -> Path:
    """Return the innermost folder of a report whose name depends on no process."""
    if not _is_pattern(path):
        return path if path.is_dir() else path.parent
    return next(folder for folder in path.parents if not _is_pattern(folder))


def file_of(path: Path, placement: Placement, process: int) -> Path:
    """Return the file of a process for a pattern or a folder. It makes no folder.

    A rank is one process, and what it starts can import the provider, too: a child of Python's, and a process while
    another of this name runs here, have a file beside it, with their number.
    """
    pattern = path if _is_pattern(path) else path / _EACH
    rank = f"process-{process}" if placement.rank is None else str(placement.rank)
    words = {HOST: _ODD.sub("_", placement.host).lstrip(".") or "_", RANK: rank, PROCESS: str(process)}
    named = Path(_PLACEHOLDER.sub(lambda match: words[match[0]], str(pattern)))
    is_told_apart = PROCESS in str(pattern) or (RANK in str(pattern) and placement.rank is None)
    if is_told_apart:
        return named
    if RANK not in str(pattern) or is_child() or _is_of_another(named, placement.host, process):
        return named.with_name(f"{named.stem}-{process}{named.suffix}")
    return named


def files_of(path: Path) -> list[Path]:
    """Return the files of a report that is named, the newest first. Raises `OSError` for a folder that can't be read.

    In a folder these are those that end with `.jsonl`; of a pattern, all that it can have made. A single file may not
    be there: that is for who reads it to find out.
    """
    if path.name == _EACH and not _is_pattern(path.parent):  # named by its folder, which can have others
        path = path.parent
    if _is_pattern(path):
        parts = _PLACEHOLDER.split(str(path))
        found = [Path(name) for name in glob.glob("*".join(map(glob.escape, parts)))]  # none that begins with a `.`
    elif path.is_dir():
        entries = os.listdir(path)
        found = [path / name for name in entries if name.endswith(".jsonl") and not name.startswith(".")]
    else:
        return [path]
    return sorted(found, key=lambda file: (-_changed(file), file))


def _is_pattern(path: Path) -> bool:
    return any(word in str(path) for word in (HOST, RANK, PROCESS))


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _is_of_another(file: Path, host: str, process: int) -> bool:
    """Return whether a file is that of another process of this host, which still runs."""
    try:
        with open(file, "rb", opener=open_without_waiting) as opened:
            line = json.loads((opened.read(_MOST_BYTES) or b"").splitlines()[-1])
        other = line["process"]
        if line["host"] != host or line["ended"] or other == process or not isinstance(other, int) or other <= 0:
            return False
        os.kill(other, 0)
    except PermissionError:
        return True  # somebody else's process
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return False
    return True


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file: a FIFO in its place must not hang the job."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
