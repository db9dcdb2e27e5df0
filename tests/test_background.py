"""The thread that loads kernels while the job does other things: what it may do, when, and what becomes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import background_tasks
import pytest
from cuda_stub import INITIALIZER, with_stub

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from loadable import fitting_toolchain, loadable_source, publish_loadable
from support import blob_file, make_manifest, make_target, overwrite

_COUNT = 5

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the driver's stub."""
    return tmp_path_factory.mktemp("stub")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the cache is."""
    return tmp_path / "cache"


@pytest.fixture
def records(root: Path) -> list[Record]:
    """A cache of kernels for a B200, each of which answers its number, with a manifest of theirs."""
    return _publish(root, "spec", range(_COUNT))


@pytest.fixture
def run(root: Path, tmp_path: Path, stub: Path) -> Run:
    """Run a task in a process with the stub, and return what it found."""

    def run(task: Callable[..., object], *arguments: object, says: str = "", **environment: str) -> Any:
        command = [sys.executable, background_tasks.__file__, task.__name__, str(root), *map(json.dumps, arguments)]
        environment = with_stub(stub, tmp_path / "notes", **environment)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, done.stderr) == (0, says)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def _publish(root: Path, spec: str, numbers: range, **target: Any) -> list[Record]:
    of_build = {"target": make_target(**target)} if target else {}
    of_record = {"arch": target["arch"]} if "arch" in target else {}
    records = [
        publish_loadable(
            root,
            number,
            source=loadable_source(number, initializer=INITIALIZER.format(number=number)),
            key=encode_key((number,)),
            **of_record,
        )
        for number in numbers
    ]
    toolchain = fitting_toolchain().id
    manifest = make_manifest(*records, spec=spec, spec_digest=f"{numbers.start:0<64d}", toolchain=toolchain, **of_build)
    Publisher(Root(root)).publish_manifest(manifest)
    return records


def _loads(notes: list[str]) -> list[int]:
    return [int(note.split()[-1]) for note in notes if " load " in note]


def test_thread_opens_at_once_and_loads_onto_the_gpu_when_there_is_a_context(run: Run, records: list[Record]) -> None:
    found = run(background_tasks.load_then_start, len(records))
    assert (found["opened"], found["said"]) == (_COUNT, [])
    assert found["before"] == found["without"] == []  # nothing was asked of the driver that does anything
    assert sorted(_loads(found["after"])) == list(range(_COUNT))


def test_thread_joins_the_context_that_there_is_and_leaves_it_as_it_was(run: Run, records: list[Record]) -> None:
    """And it is out of the way of captures (mode 2, relaxed) before it loads anything."""
    notes = run(background_tasks.load_then_start, len(records))["after"]
    notes = [note for note in notes if "cuInit" not in note]  # of who asks for the device, when all is started
    assert notes[:3] == ["thread retain 1", f"thread current {0x7E57}", "thread mode 2"]
    assert notes[-3:] == ["thread mode 0", "thread current 0", "thread release 0"]
    assert all(note.startswith("thread load ") for note in notes[3:-3])


def test_thread_of_a_process_that_never_uses_cuda_never_starts_it(run: Run, records: list[Record]) -> None:
    assert records
    assert run(background_tasks.stop) == {"running": 1, "after": []}


@pytest.mark.parametrize("is_capturing", [False, True])
def test_kernel_whose_first_call_is_captured_is_loaded_before_it_and_outside_the_capture(
    run: Run, records: list[Record], is_capturing: bool
) -> None:
    assert records
    expected = ["main mode 2", "main load 3", "main mode 0"] if is_capturing else []
    assert run(background_tasks.capture, 3, is_capturing) == expected


def test_kernels_for_two_kinds_of_device_are_opened_when_it_is_known_which_there_is(run: Run, root: Path) -> None:
    _publish(root, "here", range(2))
    _publish(root, "elsewhere", range(2, 4), name="b300", arch="sm_103a")
    found = run(background_tasks.load_then_start, 0)
    assert found["opened"] == 2
    assert sorted(_loads(found["after"])) == [0, 1]


def test_kernels_for_another_device_are_not_loaded_onto_this_one(run: Run, root: Path) -> None:
    _publish(root, "elsewhere", range(2), name="b300", arch="sm_103a")
    assert _loads(run(background_tasks.load_then_start, 2)["after"]) == []


def test_arch_that_the_environment_names_tells_which_are_opened_at_once(run: Run, root: Path) -> None:
    _publish(root, "here", range(2))
    _publish(root, "elsewhere", range(2, 5), name="b300", arch="sm_103a")
    assert run(background_tasks.load_then_start, 2, CUTE_DSL_ARCH="sm_100a")["opened"] == 2


def test_spec_that_is_named_is_all_that_is_loaded(run: Run, root: Path) -> None:
    _publish(root, "wanted", range(2))
    _publish(root, "other", range(2, 5))
    found = run(background_tasks.load_then_start, 2, "wanted")
    assert sorted(_loads(found["after"])) == [0, 1]


def test_report_that_is_named_tells_what_is_loaded(run: Run, root: Path, tmp_path: Path) -> None:
    """Also what no manifest has; and what is not there, or was another device's, is left out."""
    here, other = _publish(root, "spec", range(3)), _publish(root, "other", range(3, 4), name="b300", arch="sm_103a")
    report = tmp_path / "report.jsonl"
    kernels = [here[2].id, here[0].id, other[0].id, "0" * 64]
    report.write_text(json.dumps({"process": 1, "kernels": kernels}) + "\n")
    for manifest in root.glob("manifests/*/*"):
        manifest.unlink()
    found = run(background_tasks.load_then_start, 3, str(report))
    assert (_loads(found["after"]), found["said"]) == ([2, 0], [])


def test_initializer_that_fails_leaves_the_others_their_turn(run: Run, records: list[Record]) -> None:
    found = run(background_tasks.load_then_start, len(records), STUB_FAILS="1")
    assert sorted(_loads(found["after"])) == list(range(_COUNT))


def test_kernel_that_is_damaged_is_left_to_its_lookup(run: Run, root: Path, records: list[Record]) -> None:
    overwrite(blob_file(root, records[0]), b"damaged")
    found = run(background_tasks.load_then_start, _COUNT - 1)
    assert sorted(_loads(found["after"])) == list(range(1, _COUNT))


@pytest.mark.chance
def test_lookup_takes_over_what_the_thread_has_and_the_thread_what_a_lookup_has(
    run: Run, records: list[Record], effort: int
) -> None:
    """Each kernel is loaded onto the GPU once: there are no two of it."""
    assert len(records) == _COUNT
    for seed in range(3 * effort):
        found = run(background_tasks.look_up_meanwhile, _COUNT, seed)
        assert (found["answers"], found["agree"]) == (list(range(_COUNT)), True)
        assert sorted(_loads(found["after"])[-_COUNT:]) == list(range(_COUNT))


@pytest.mark.chance
@pytest.mark.parametrize("has_context", [False, pytest.param(True, marks=pytest.mark.long)])
def test_fork_at_any_moment_gives_a_child_that_finds_all_and_ends(
    run: Run, records: list[Record], has_context: bool, effort: int
) -> None:
    assert len(records) == _COUNT
    for seed in range(2 * effort):
        found = run(background_tasks.fork, _COUNT, seed, has_context, STUB_PAUSE_US="20000")
        assert found == {"child": 7, "parent": _COUNT}


@pytest.mark.chance
@pytest.mark.parametrize("has_context", [False, pytest.param(True, marks=pytest.mark.long)])
def test_process_that_ends_while_the_thread_is_at_work_ends_well(
    run: Run, records: list[Record], has_context: bool, effort: int
) -> None:
    assert records
    for seed in range(10 * effort):
        assert run(background_tasks.end, seed, has_context, STUB_PAUSE_US="50000") == {}
