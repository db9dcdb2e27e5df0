"""Storing what jobs compile: each kernel once, as a build would have made it, and never at the price of the job."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, wait
from pathlib import Path

import filelock
import pytest

import install_tasks
import keep_tasks
import loader_tasks
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call, Report
from jobs import Jobs
from product import copy_cache, origin, records, run

pytestmark = pytest.mark.compiles

FORWARD, TRAINING = Call(causal=True), Call(causal=True, training=True)

# The postprocessing of a backward compiles fastest.
_QUICK = "bwd_post"


@pytest.fixture
def lacking(small_cache: Path, tmp_path: Path) -> Path:
    """A cache that has all of a training step but one kernel."""
    return copy_cache(small_cache, tmp_path / "lacking", without=_QUICK)


def _built(small_cache: Path, stored: Record) -> Record:
    """Return the kernel that `build` made for the key of one that a job stored."""
    (found,) = [record for record in records(small_cache) if (record.slot, record.key) == (stored.slot, stored.key)]
    return found


def test_job_stores_what_it_compiles_as_a_build_would_and_the_next_job_finds_it(
    jobs: Jobs, small_cache: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    report = jobs.run(loader_tasks.job, [FORWARD, FORWARD], [cache], "store")
    assert (report.stats["compiled"], report.stats["stored"], report.stats["resolved"]) == (1, 1, 0)
    assert report.warnings == []

    assert run("verify", "--cache", cache).code == 0
    (listed,) = json.loads(run("ls", "--cache", cache, "--json").out)
    (stored,) = records(cache)
    built = _built(small_cache, stored)
    assert listed["kernel"] == stored.id
    assert listed["selection"] == built.selection.render()
    assert listed["key_fields"] == json.loads(json.dumps(dict(built.key_fields)))
    assert listed["spec"] == "(a job)"
    assert (listed["variant"]["pass"], listed["variant"]["head_dim"], listed["variant"]["causal"]) == ("fwd", 64, True)
    assert (origin(cache, stored).compile_seconds or 0) > 0
    # FlashAttention's code and the DSL's are the same; host code around it carries the kernel's own symbol.
    assert (stored.cubin, stored.functions) == (built.cubin, built.functions)

    next_report = jobs.run(loader_tasks.job, [FORWARD], [cache], "error")
    assert (next_report.stats["resolved"], next_report.stats["missed"]) == (1, {})


def test_job_stores_in_the_first_root_that_it_can_write_and_finds_the_rest_in_all(
    jobs: Jobs, lacking: Path, small_cache: Path, tmp_path: Path
) -> None:
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_bytes(b"")
    before = len(records(lacking))
    report = jobs.run(loader_tasks.job, [TRAINING], [file, new, lacking], "store")
    assert (report.stats["compiled"], report.stats["stored"], report.stats["resolved"]) == (1, 1, 3)
    assert [record.slot for record in records(new)] == [_QUICK]
    assert len(records(lacking)) == before


def test_kernel_that_a_job_stored_is_for_devices_with_its_number_of_sms(jobs: Jobs, lacking: Path) -> None:
    jobs.run(loader_tasks.job, [TRAINING], [lacking], "store")
    (stored,) = [record for record in records(lacking) if record.slot == _QUICK]
    assert dict(stored.facts) == {"sms": 148}
    elsewhere = jobs.run(loader_tasks.job, [TRAINING], [lacking], "error", {"FLASH_ATTENTION_NUM_SMS": "132"})
    assert [missing.reason for missing in elsewhere.missing] == ["sm-count"]


@pytest.mark.chance
def test_of_four_jobs_that_miss_a_kernel_at_once_one_compiles_it(jobs: Jobs, lacking: Path, tmp_path: Path) -> None:
    company = tmp_path / "company"
    company.mkdir()
    started = [jobs.start(keep_tasks.job_in_company, company, 4, TRAINING, lacking) for _ in range(4)]
    reports = [future.result() for future in started]
    assert sorted(report.stats["compiled"] for report in reports) == [0, 0, 0, 1]
    assert sorted(report.stats["stored"] for report in reports) == [0, 0, 0, 1]
    assert sorted(report.stats["resolved"] for report in reports) == [3, 4, 4, 4]
    assert [report.warnings for report in reports] == [[]] * 4
    assert [record.slot for record in records(lacking)].count(_QUICK) == 1


def _lock(cache: Path, record: Record) -> filelock.BaseFileLock:
    """Return the lock that a job holds while it compiles the kernel of a key."""
    path = Publisher(Root(cache)).lock_path(
        "job", installed_toolchain(DEFAULT).id, record.arch, record.slot, record.key
    )
    return filelock.FileLock(path)


def _quick(small_cache: Path) -> Record:
    (found,) = [record for record in records(small_cache) if record.slot == _QUICK]
    return found


def test_job_does_not_wait_for_ever_for_another_that_hangs(jobs: Jobs, small_cache: Path, lacking: Path) -> None:
    with _lock(lacking, _quick(small_cache)):
        report = jobs.run(keep_tasks.job_that_waits, lacking, TRAINING, 0.5)
    assert (report.stats["compiled"], report.stats["stored"]) == (1, 1)
    (warning,) = report.warnings
    assert f"another process is compiling a kernel of slot `{_QUICK}`, which was waited for for" in warning
    assert "it is compiled here" in warning


def test_job_where_there_are_no_locks_says_so_once_and_stores_what_it_compiles(
    jobs: Jobs, small_cache: Path, tmp_path: Path
) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache", without=_QUICK)
    for record in records(cache):
        if record.slot == "bwd_pre":
            next(cache.glob(f"records/*/*/{record.id}.json")).unlink()
    report = jobs.run(keep_tasks.job_without_locks, cache, TRAINING)
    assert (report.stats["compiled"], report.stats["stored"]) == (2, 2)
    (warning,) = report.warnings
    assert f"no lock can be had in `{cache / 'locks'}`: No locks available (ENOLCK)" in warning


def test_job_that_waits_takes_what_another_publishes(jobs: Jobs, small_cache: Path, lacking: Path) -> None:
    record = _quick(small_cache)
    with _lock(lacking, record):
        waiting = jobs.start(keep_tasks.job_that_waits, lacking, TRAINING, 120.0)
        assert not wait([waiting], timeout=2).done
        Publisher(Root(lacking)).publish(record, Root(small_cache).blob(record))
    report = waiting.result()
    assert (report.stats["compiled"], report.stats["resolved"], report.warnings) == (0, 4, [])


def test_compile_that_raises_leaves_no_lock_for_the_next_lookup(jobs: Jobs, small_cache: Path, lacking: Path) -> None:
    first, is_own, report = jobs.run(keep_tasks.job_whose_compiler_fails_once, lacking, TRAINING)
    assert first == "MemoryError: no memory to compile in"
    assert is_own
    assert (report.stats["compiled"], report.stats["stored"], report.warnings) == (1, 1, [])
    with _lock(lacking, _quick(small_cache)).acquire(timeout=0):
        pass


@pytest.mark.chance
def test_threads_that_compile_at_once_store_what_each_of_them_compiled(jobs: Jobs, tmp_path: Path) -> None:
    noted, is_given_back = jobs.run(install_tasks.kernels_of_two_threads, tmp_path / "cache")
    assert noted == {"first": "kernel of first", "second": "kernel of second"}
    assert is_given_back


@pytest.fixture(scope="module")
def unlucky(jobs: Jobs, small_cache: Path, open_folder: Path) -> dict[str, Future[Report]]:
    """Jobs that can't publish what they compile, all started at once."""
    caches = {
        name: copy_cache(small_cache, open_folder / name, without=_QUICK)
        for name in ("read-only", "full disk", "no such compiler", "no compiler")
    }
    caches["read-only"].chmod(0o555)
    return {
        "read-only": jobs.start(loader_tasks.job, [TRAINING], [caches["read-only"]], "store", {}, True),
        "full disk": jobs.start(keep_tasks.job_with_a_full_disk, caches["full disk"], TRAINING),
        "no such compiler": jobs.start(
            loader_tasks.job, [TRAINING], [caches["no such compiler"]], "store", {"CC": "/nonexistent"}
        ),
        "no compiler": jobs.start(
            loader_tasks.job, [TRAINING], [caches["no compiler"]], "store", {"PATH": str(open_folder), "CC": None}
        ),
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("read-only", "no root can be written, so what is compiled is not stored"),
        ("full disk", "can't be stored: can't write to the cache"),
        ("no such compiler", "can't be stored: `CC=/nonexistent` is no command here"),
        ("no compiler", "can't be stored: no C compiler was found"),
    ],
)
def test_job_that_cannot_publish_goes_on_and_says_so_once(
    unlucky: dict[str, Future[Report]], name: str, words: str
) -> None:
    report = unlucky[name].result()
    assert (report.stats["compiled"], report.stats["stored"], report.stats["resolved"]) == (1, 0, 3)
    (warning,) = report.warnings
    assert words in warning


def test_kernel_is_stored_with_what_its_mask_does_and_not_at_all_if_no_process_recognizes_that(
    jobs: Jobs, tmp_path: Path
) -> None:
    calls = [Call(causal=False, varlen=True, mask_mod=name) for name in ("below_the_limit", "holding")]
    report = jobs.run(loader_tasks.job, calls, [tmp_path / "cache"], "store")
    assert (report.stats["compiled"], report.stats["stored"]) == (2, 1)
    (warning,) = report.warnings
    assert (
        "can't be stored: `mask_mod` can't be recognized in another process: `_HELD` is a builtins.tuple_it" in warning
    )
    (stored,) = records(tmp_path / "cache")
    assert any(where == "LIMIT" for where, _ in stored.modifiers["mask_mod"].parts)
    again = jobs.run(loader_tasks.job, calls[:1], [tmp_path / "cache"], "error")
    assert (again.stats["resolved"], again.stats["compiled"]) == (1, 0)


def test_job_does_not_store_in_a_root_of_somebody_else(jobs: Jobs, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Publisher(Root(cache)).create()
    if os.geteuid() == 0:
        os.chown(cache, loader_tasks.NOBODY, -1)
    else:
        cache.chmod(0o777)
    report = jobs.run(loader_tasks.job, [FORWARD, FORWARD], [cache], "store")
    assert (report.stats["compiled"], report.stats["stored"]) == (1, 0)
    (warning,) = report.warnings
    assert f"`{cache}` is not trusted" in warning
    assert not list(cache.glob("records/**/*.json"))
