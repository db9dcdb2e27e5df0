"""What this machine gives a build: cores and memory, with the limits of all control groups that the process is in.

A process in a nested group (a job of Slurm's, a unit of systemd's) is held by that group's limits and by those of every
group above it. They are files: version 2 of the kernel's interface has one tree for all, version 1 one for each kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cores(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may use, at least 1."""
    quotas = [quota for folder in _folders("cpu", proc, groups) if (quota := _quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes this process may still use before the system or one of its groups runs out."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    return max(0, min([free, *(left for folder in _folders("memory", proc, groups) for left in _left(folder))]))


def _folders(controller: str, proc: Path, groups: Path) -> Iterator[Path]:
    """Yield the folders of the groups that limit this process: its own, and each above it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = groups / controller if controllers else groups
        # In a container the path can be the host's, and the tree begin at the container's own group: what of the path
        # is not there is left out.
        own = tree.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        yield from (folder for folder in [own, *own.parents] if folder.is_relative_to(tree) and folder.is_dir())


def _quota(folder: Path) -> float | None:
    """Return how many cores' time a group has, None if it has no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _left(folder: Path) -> Iterator[int]:
    """Yield what a group has left of its memory, if it has a limit. What it caches of files is given back."""
    try:
        statistics = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines())
        if (folder / "memory.max").exists():
            limits, used, prefix = ["max", "high"], "current", ""
        else:
            limits, used, prefix = ["limit_in_bytes"], "usage_in_bytes", "total_"
        cached = sum(int(statistics[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
        for limit in (_text(folder / f"memory.{name}") for name in limits):
            if limit != "max":
                yield int(limit) - int(_text(folder / f"memory.{used}")) + cached
    except (OSError, ValueError, KeyError):
        return


def _text(path: Path) -> str:
    return path.read_text().strip()
