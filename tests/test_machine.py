"""What a build may use of a machine: limits of control groups, laid out as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fa4_precompile.precompile.compile import machine
from fa4_precompile.precompile.compile.machine import cores, free_memory

_GB = 1_000_000_000


class _Machine:
    """The files of a machine with 64 GB free and 16 cores."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.groups = folder / "proc", folder / "cgroup"
        self.groups.mkdir()
        _write(self.proc / "meminfo", f"MemTotal: 1 kB\nMemAvailable:   {64 * _GB // 1024} kB\n")
        self.put_into("0::/")

    def put_into(self, *lines: str) -> None:
        """Say which groups the process is in."""
        _write(self.proc / "self" / "cgroup", "".join(f"{line}\n" for line in lines))

    def limit(self, group: str, maximum: object, used: int = 0, high: object = "max") -> None:
        """Limit a group's memory, with version 2 of the interface; 1 GB of what it uses is cache."""
        folder = self.groups / group
        _write(folder / "memory.max", f"{maximum}\n")
        _write(folder / "memory.high", f"{high}\n")
        _write(folder / "memory.current", f"{used + _GB}\n")
        _write(folder / "memory.stat", f"anon {used}\ninactive_file {_GB // 4}\nactive_file {_GB * 3 // 4}\n")

    def limit_version_1(self, group: str, maximum: int, used: int) -> None:
        """Limit a group's memory, with version 1 of the interface; 1 GB of what it uses is cache."""
        folder = self.groups / "memory" / group
        _write(folder / "memory.limit_in_bytes", f"{maximum}\n")
        _write(folder / "memory.usage_in_bytes", f"{used + _GB}\n")
        _write(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {_GB}\ntotal_active_file 0\n")

    @property
    def free(self) -> int:
        return free_memory(self.proc, self.groups)

    @property
    def cores(self) -> int:
        return cores(self.proc, self.groups)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Machine:
    """A machine without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return _Machine(tmp_path)


def test_machine_without_groups_gives_all_that_is_free(here: _Machine) -> None:
    (here.proc / "self" / "cgroup").unlink()
    assert (here.free, here.cores) == (64 * _GB, 16)


def test_memory_limit_at_the_top_of_the_tree_counts_as_in_a_container(here: _Machine) -> None:
    here.limit("", 8 * _GB, used=3 * _GB)
    assert here.free == 5 * _GB


@pytest.mark.parametrize("limited", ["slurm", "slurm/job_7", "slurm/job_7/step_0"])
def test_memory_limit_of_any_group_above_the_process_counts(here: _Machine, limited: str) -> None:
    here.put_into("0::/slurm/job_7/step_0")
    for group in ("slurm", "slurm/job_7", "slurm/job_7/step_0"):
        here.limit(group, 8 * _GB if group == limited else "max", used=3 * _GB)
    assert here.free == 5 * _GB


def test_memory_smallest_of_many_limits_counts_each_with_its_own_use(here: _Machine) -> None:
    here.put_into("0::/user.slice/build.scope")
    here.limit("user.slice", 32 * _GB, used=30 * _GB)
    here.limit("user.slice/build.scope", 8 * _GB, used=_GB)
    assert here.free == 2 * _GB


def test_memory_limit_from_which_on_a_group_is_slowed_down_counts(here: _Machine) -> None:
    here.put_into("0::/build.scope")
    here.limit("build.scope", 32 * _GB, used=_GB, high=8 * _GB)
    assert here.free == 7 * _GB


def test_memory_limit_of_another_group_does_not_count(here: _Machine) -> None:
    here.put_into("0::/user.slice")
    here.limit("system.slice", _GB)
    assert here.free == 64 * _GB


def test_memory_group_that_a_container_does_not_see_is_limited_by_what_it_sees(here: _Machine) -> None:
    here.put_into("0::/kubepods/pod1/abc")
    here.limit("", 8 * _GB, used=3 * _GB)
    assert here.free == 5 * _GB


def test_memory_that_is_used_beyond_the_limit_is_none_left(here: _Machine) -> None:
    here.limit("", 8 * _GB, used=9 * _GB)
    assert here.free == 0


def test_memory_limit_of_version_1_counts_for_every_group_above_the_process(here: _Machine) -> None:
    here.put_into("5:cpu,cpuacct:/other", "4:memory:/slurm/job_7", "0::/")
    here.limit_version_1("slurm/job_7", 2**63 - 4096, used=_GB)
    here.limit_version_1("slurm", 8 * _GB, used=3 * _GB)
    assert here.free == 5 * _GB


def test_memory_files_that_can_not_be_read_limit_nothing(here: _Machine) -> None:
    _write(here.groups / "memory.max", "many\n")
    assert here.free == 64 * _GB


@pytest.mark.parametrize(("quotas", "expected"), [(("max 100000", "350000 100000"), 3), (("50000 100000", "max 1"), 1)])
def test_cores_smallest_quota_of_all_groups_above_the_process_counts(
    here: _Machine, quotas: tuple[str, str], expected: int
) -> None:
    here.put_into("0::/slurm/job_7")
    for group, quota in zip(("slurm", "slurm/job_7"), quotas, strict=True):
        _write(here.groups / group / "cpu.max", f"{quota}\n")
    assert here.cores == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("200000", 2)])
def test_cores_quota_of_version_1_counts(here: _Machine, quota: str, expected: int) -> None:
    here.put_into("2:cpu,cpuacct:/slurm", "0::/")
    _write(here.groups / "cpu" / "slurm" / "cpu.cfs_quota_us", f"{quota}\n")
    _write(here.groups / "cpu" / "slurm" / "cpu.cfs_period_us", "100000\n")
    assert here.cores == expected


def test_machine_that_this_is_has_a_core_and_memory() -> None:
    assert 1 <= machine.cores() <= len(os.sched_getaffinity(0))
    assert machine.free_memory() > 0
