"""Mending a cache: what is bad goes, what is good stays, and it is told what has to be built again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, documents, require_error
from fa4_precompile.cache import layout
from fa4_precompile.cache import repair as repair_module
from fa4_precompile.cache.contents import Contents, Entry
from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.library import Library
from fa4_precompile.cache.outcome import Finding, Hit, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.repair import Repaired, repair_root
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.commands import repair as command_module
from fa4_precompile.errors import CacheError
from fa4_precompile.precompile.spec.spec import find_spec, read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from failing import die_before
from support import (
    blob_file,
    fail_call,
    give_away,
    make_manifest,
    make_origin,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    record_file,
    snapshot,
    start,
    synthetic_blob,
)

_OTHER = make_toolchain(provider_version="0.1-synthetic")
_QUICKSTART = "quickstart"
_ANOTHER_NAME = f"{'f' * 32}.b200-01234567.json"


def _publish(path: Path, toolchain: Any = None) -> None:
    """Publish two builds of one toolchain, of the kernels 0, 1, 2 and 2, 3, and each kernel's origin."""
    toolchain = toolchain or make_toolchain()
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.publish_toolchain(toolchain)
    publish_library(publisher, toolchain)
    records = [numbered_record(number, toolchain=toolchain.id) for number in range(4)]
    for number, record in enumerate(records):
        publisher.publish(record, synthetic_blob(number), make_origin(record))
    digest = read_spec(find_spec(_QUICKSTART), target_book()).digest
    of = {"toolchain": toolchain.id}
    publisher.publish_manifest(make_manifest(*records[:3], spec=_QUICKSTART, spec_digest=digest, **of))
    publisher.publish_manifest(make_manifest(*records[2:], spec="mine", spec_digest="e" * 64, **of))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of two toolchains, two builds each; the blobs are the same."""
    _publish(tmp_path / "cache")
    _publish(tmp_path / "cache", _OTHER)
    return tmp_path / "cache"


def _files(path: Path) -> set[str]:
    return set(find_holdings(Root(path)).files)


def _flip(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, data[:40] + bytes([data[40] ^ 1]) + data[41:])


def _record(number: int, toolchain: str = make_toolchain().id) -> Record:
    return numbered_record(number, toolchain=toolchain)


def _manifest(path: Path, spec: str, toolchain: str = make_toolchain().id) -> Path:
    digest = read_spec(find_spec(spec), target_book()).digest if spec == _QUICKSTART else "e" * 64
    return path / layout.manifest_path(toolchain, digest, make_target())


def _parts(path: Path, number: int, toolchain: str = make_toolchain().id) -> set[str]:
    kernel = _record(number, toolchain).id
    return {layout.record_path(toolchain, kernel), layout.origin_path(toolchain, kernel)}


def _library(path: Path) -> Library:
    (found,) = {item.blob: item for item in Root(path).libraries() if isinstance(item, Library)}.values()
    return found


def _all_of(path: Path, toolchain: str) -> set[str]:
    return {file for file in _files(path) if toolchain in file and not file.startswith(("toolchains", "libraries"))}


def _relative(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix()


_FAULTS: dict[str, tuple[Callable[[Path], object], Callable[[Path], set[str]], set[str]]] = {
    # What is done, what goes then beside it, and the specs to be built again.
    "record damaged": (
        lambda path: _flip(record_file(path, _record(0))),
        lambda path: _parts(path, 0) | {_relative(path, _manifest(path, _QUICKSTART))},
        {"quickstart b200"},
    ),
    "record gone": (
        lambda path: record_file(path, _record(3)).unlink(),
        lambda path: {min(_parts(path, 3)), _relative(path, _manifest(path, "mine"))},
        {"mine b200"},
    ),
    "record of two builds damaged": (
        lambda path: _flip(record_file(path, _record(2))),
        lambda path: _parts(path, 2) | {_relative(path, _manifest(path, spec)) for spec in (_QUICKSTART, "mine")},
        {"quickstart b200", "mine b200"},
    ),
    "origin damaged": (
        lambda path: _flip(path / max(_parts(path, 0), key=lambda part: part.startswith("origins"))),
        lambda path: {max(_parts(path, 0), key=lambda part: part.startswith("origins"))},
        set(),
    ),
    "manifest damaged": (
        lambda path: _flip(_manifest(path, _QUICKSTART)),
        lambda path: {_relative(path, _manifest(path, _QUICKSTART))},
        {"quickstart b200"},
    ),
    "manifest of another name": (
        lambda path: _manifest(path, _QUICKSTART).rename(
            _manifest(path, _QUICKSTART).with_name(f"{'f' * 32}.b200-01234567.json")
        ),
        lambda path: {f"manifests/{make_toolchain().id}/{'f' * 32}.b200-01234567.json"},
        {" b200"},
    ),
    "toolchain damaged": (
        lambda path: _flip(path / layout.toolchain_path(_OTHER.id)),
        lambda path: _all_of(path, _OTHER.id) | {layout.toolchain_path(_OTHER.id)},
        {"quickstart b200", "mine b200"},
    ),
    "toolchain gone": (
        lambda path: (path / layout.toolchain_path(_OTHER.id)).unlink(),
        lambda path: _all_of(path, _OTHER.id),
        {"quickstart b200", "mine b200"},
    ),
    "library damaged": (
        lambda path: _flip(path / layout.library_path(_OTHER.id)),
        lambda path: {layout.library_path(_OTHER.id)},
        set(),
    ),
    "library's blob damaged": (
        lambda path: _flip(path / layout.blob_path(_library(path).blob)),
        lambda path: {
            layout.library_path(_OTHER.id),
            layout.library_path(make_toolchain().id),
            layout.blob_path(_library(path).blob),
        },
        set(),
    ),
}


@pytest.mark.parametrize("name", _FAULTS)
@pytest.mark.parametrize("is_real", [True, False])
def test_repair_drops_what_is_bad_and_nothing_else_and_says_what_to_build(path: Path, name: str, is_real: bool) -> None:
    harm, bad, rebuild = _FAULTS[name]
    library = layout.blob_path(_library(path).blob)
    assert library in _files(path)
    expected = bad(path)
    harm(path)
    before = snapshot(path)
    whole = _files(path)
    done = repair_root(Root(path), is_real)
    assert {one.path for one in done.dropped} == expected & whole
    assert {f"{build.spec} {build.target}" for build in done.rebuild} == rebuild
    assert (done.remaining, done.changed) == ((), ())
    assert done.kernels == len([file for file in expected & whole if file.startswith("records/")])
    if is_real:
        assert _files(path) == whole - expected
        assert verify_root(Root(path)).findings == []
        assert repair_root(Root(path), True).dropped == ()
    else:
        assert snapshot(path) == before
        assert verify_root(Root(path)).findings != []


@pytest.mark.parametrize("how", ["damaged", "shorter", "longer", "gone"])
def test_repair_of_a_bad_blob_drops_the_records_of_all_toolchains_that_name_it(path: Path, how: str) -> None:
    blob = blob_file(path, _record(0))
    if how == "gone":
        blob.unlink()
    else:
        data = {"damaged": b"?" * 1000, "shorter": b"?", "longer": b"?" * 100_000}[how]
        overwrite(blob, data)
    done = repair_root(Root(path), is_real=True)
    gone = {one.path for one in done.dropped}
    assert gone >= _parts(path, 0) | _parts(path, 0, _OTHER.id)
    assert (layout.blob_path(_record(0).blob) in gone) == (how != "gone")
    assert {(build.spec, build.toolchain) for build in done.rebuild} == {
        (_QUICKSTART, toolchain) for toolchain in (make_toolchain().id, _OTHER.id)
    }
    assert done.kernels == 2
    assert verify_root(Root(path)).findings == []
    assert isinstance(Root(path).find(make_toolchain().id, _record(1).id), Hit)


def test_repair_of_a_record_that_lies_about_a_good_blob_keeps_the_blob(path: Path) -> None:
    liar = numbered_record(0, blob_bytes=17)
    data = liar.render_file()
    Publisher(Root(path)).publish_files([(Entry(layout.record_path(liar.toolchain, liar.id), "", len(data)), data)])
    done = repair_root(Root(path), is_real=True)
    assert layout.blob_path(liar.blob) not in {one.path for one in done.dropped}
    assert isinstance(Root(path).find(_OTHER.id, _record(0, _OTHER.id).id), Hit)
    assert verify_root(Root(path)).findings == []


def test_repair_drops_damaged_blobs_that_nothing_names_and_keeps_good_ones(path: Path) -> None:
    for number in (7, 8):
        Publisher(Root(path)).publish(_record(number), synthetic_blob(number))
        record_file(path, _record(number)).unlink()
    _flip(blob_file(path, _record(7)))
    done = repair_root(Root(path), is_real=True)
    assert [one.path for one in done.dropped] == [layout.blob_path(_record(7).blob)]


def test_repair_drops_what_readers_take_for_a_record_and_is_none(path: Path) -> None:
    """A copy beside a record is damage to `verify`, as it belongs elsewhere."""
    record = record_file(path, _record(0))
    for copy in (
        record.with_name("copy.json"),
        path / "records" / "x" / "y" / "z.json",
        path / "origins" / "x" / "y" / "z.json",
        path / "toolchains" / "a.json",
    ):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record, copy)
    assert len(verify_root(Root(path)).findings) == 4
    assert len(repair_root(Root(path), is_real=True).dropped) == 4
    assert verify_root(Root(path)).findings == []


def test_repair_of_a_whole_cache_changes_nothing(path: Path) -> None:
    before = snapshot(path)
    done = repair_root(Root(path), is_real=True)
    assert (done.dropped, done.rebuild, done.remaining, done.changed, done.written) == ((), (), (), (), ())
    assert snapshot(path) == before


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_repair_writes_the_file_of_a_lost_toolchain_that_it_knows_and_keeps_its_kernels(path: Path, how: str) -> None:
    file = path / layout.toolchain_path(_OTHER.id)
    data, before = file.read_bytes(), _files(path)
    _flip(file) if how == "damaged" else file.unlink()
    assert repair_root(Root(path), False, [_OTHER]).written == (_OTHER.id,)
    done = repair_root(Root(path), True, [make_toolchain(), _OTHER])
    assert (done.written, done.dropped, done.changed) == ((_OTHER.id,), (), ())
    assert file.read_bytes() == data
    assert _files(path) == before
    assert verify_root(Root(path)).findings == []


# What stays


@pytest.mark.parametrize("what", ["record", "blob", "manifest", "toolchain", "records folder", "blobs folder"])
@pytest.mark.parametrize("how", ["open to others", "somebody else's", "unreadable"])
def test_repair_leaves_what_it_can_not_judge_and_what_depends_on_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    file = {
        "record": record_file(path, _record(0)),
        "blob": blob_file(path, _record(0)),
        "manifest": _manifest(path, _QUICKSTART),
        "toolchain": path / layout.toolchain_path(make_toolchain().id),
        "records folder": record_file(path, _record(0)).parent,
        "blobs folder": path / "blobs" / "sha256",
    }[what]
    before = {file.relative_to(path) for file in path.rglob("*")}
    if how == "open to others":
        file.chmod(0o775 if file.is_dir() else 0o664)
    elif how == "unreadable":
        fail_call(monkeypatch, "open", 13, lambda name, *_: str(name) == file.name)
    else:
        monkeypatch.setattr(os, "geteuid", give_away(file))
    done = repair_root(Root(path), is_real=True)
    assert {file.relative_to(path) for file in path.rglob("*")} == before
    assert done.remaining
    reason = MissReason.UNREADABLE if how == "unreadable" else MissReason.UNTRUSTED
    assert {finding.reason for finding in done.remaining} == {reason}
    assert not done.rebuild


def test_repair_drops_damage_beside_what_it_can_not_judge(path: Path) -> None:
    record_file(path, _record(0)).chmod(0o666)
    _flip(record_file(path, _record(3)))
    done = repair_root(Root(path), is_real=True)
    assert {build.spec for build in done.rebuild} == {"mine"}
    assert record_file(path, _record(0)).exists()
    left = {(finding.reason, finding.path.partition("/")[0]) for finding in verify_root(Root(path)).findings}
    # A build that names the record which can't be judged has not all of its kernels, as far as that can be known.
    assert left == {(MissReason.UNTRUSTED, "records"), (MissReason.DAMAGED, "manifests")}
    record_file(path, _record(0)).chmod(0o444)
    assert verify_root(Root(path)).findings == []


def test_repair_of_a_sealed_cache_is_refused(path: Path) -> None:
    _flip(record_file(path, _record(0)))
    (path / layout.SEAL).write_text("sealed")
    before = snapshot(path)
    with pytest.raises(CacheError, match="is sealed, so nothing of it may go") as caught:
        repair_root(Root(path), is_real=True)
    assert "pull it again, or build it anew" in caught.value.hint
    assert snapshot(path) == before


def test_repair_keeps_what_a_builder_has_replaced_since_it_was_found_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flip(blob_file(path, _record(0)))
    _flip(record_file(path, _record(1)))
    real = repair_module._Diagnosis.look

    def look(diagnosis: Any) -> None:
        real(diagnosis)
        for number in (0, 1):
            Publisher(Root(path)).publish(_record(number), synthetic_blob(number))

    monkeypatch.setattr(repair_module._Diagnosis, "look", look)
    done = repair_root(Root(path), is_real=True)
    assert layout.blob_path(_record(0).blob) in done.changed
    for number in (0, 1):
        assert isinstance(Root(path).find(make_toolchain().id, _record(number).id), Hit)
        assert layout.record_path(make_toolchain().id, _record(number).id) in done.changed
    monkeypatch.undo()
    repair_root(Root(path), is_real=True)
    assert verify_root(Root(path)).findings == []


# Killed


def _harm(path: Path) -> None:
    _flip(blob_file(path, _record(0)))
    _flip(record_file(path, _record(2)))
    _flip(path / layout.toolchain_path(_OTHER.id))


def test_repair_killed_at_each_step_is_gone_on_with_and_nothing_gets_worse(path: Path, tmp_path: Path) -> None:
    _harm(path)
    findings = verify_root(Root(path)).findings
    manifests = len(_manifests(findings))
    killed = 0
    for step in range(60):
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(path, copy)
        process = start(_repair_and_die, copy, step)
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
        left = verify_root(Root(copy)).findings
        assert len(left) <= len(findings), f"killed at step {step}"
        assert not _manifests(left) or step < 2 * manifests, "a rename and an unlink for each, before all others"
        repair_root(Root(copy), is_real=True)
        assert verify_root(Root(copy)).findings == []
        assert isinstance(Root(copy).find(make_toolchain().id, _record(1).id), Hit)
        shutil.rmtree(copy)
    assert killed >= 20


def _manifests(findings: Sequence[Finding]) -> list[str]:
    return [finding.path for finding in findings if finding.path.startswith("manifests/")]


def _repair_and_die(path: Path, step: int) -> None:
    die_before(step, "rename", "unlink")
    repair_root(Root(path), is_real=True)


@pytest.mark.chance
def test_repair_killed_at_any_moment_is_gone_on_with(path: Path) -> None:
    seed = random.randrange(2**32)
    _harm(path)
    process = start(repair_root, Root(path), True)
    time.sleep(random.Random(seed).uniform(0, 0.05))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    repair_root(Root(path), is_real=True)
    assert verify_root(Root(path)).findings == [], f"seed {seed}"
    assert isinstance(Root(path).find(make_toolchain().id, _record(1).id), Hit)


# The command


def test_repair_command_says_what_went_and_the_commands_that_build_it_again(cli: Cli, path: Path) -> None:
    _flip(record_file(path, _record(2)))
    done = cli("repair", "--cache", path)
    assert done.code == 0, done.err
    assert f"{layout.record_path(make_toolchain().id, _record(2).id)}: is damaged" in done.out
    assert "2 builds to be made again" in done.err
    assert f"fa4-precompile build quickstart --target b200 --cache {path}\n" in done.err
    assert f"fa4-precompile build mine.yaml --target b200 --cache {path}\n" in done.err
    assert cli("verify", "--cache", path).code == 0
    assert "nothing is damaged" in cli("repair", "--cache", path).err


def test_repair_command_of_a_damaged_manifest_goes_by_its_name(cli: Cli, path: Path) -> None:
    for toolchain in (make_toolchain().id, _OTHER.id):
        _flip(_manifest(path, "mine", toolchain))
    done = cli("repair", "--cache", path)
    assert f"a spec whose digest begins with {'e' * 12} for b200" in done.err
    assert f"fa4-precompile build SPEC --target b200 --cache {path}\n" in done.err


def test_repair_command_dry_run_ends_with_one_and_changes_nothing(cli: Cli, path: Path) -> None:
    _flip(record_file(path, _record(2)))
    before = snapshot(path)
    done = cli("repair", "--cache", path, "--dry-run", "--json")
    assert done.code == 1
    assert snapshot(path) == before
    report = documents(done)
    assert (report["dry_run"], report["kernels"], len(report["rebuild"]), report["built"]) == (True, 1, 2, [])
    assert report["bytes"] == sum(one["bytes"] for one in report["dropped"])
    assert cli("repair", "--cache", path, "--dry-run", "--build", "quickstart").code == 2


def test_repair_command_ends_as_verify_does_with_what_stays(cli: Cli, path: Path) -> None:
    _flip(record_file(path, _record(3)))
    record_file(path, _record(0)).chmod(0o666)
    done = cli("repair", "--cache", path, "--json")
    assert done.code == 4
    assert "others can write it" in done.err
    assert [one["path"] for one in documents(done)["remaining"]] == [_relative(path, record_file(path, _record(0)))]
    assert not _manifest(path, "mine").exists()
    Publisher(Root(path)).publish_seal(Contents({}).render())
    assert "is sealed" in require_error(cli("repair", "--cache", path, "--json"), 2)


def test_repair_command_builds_what_is_named_when_all_is_mended(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a build does has its own tests."""
    _flip(record_file(path, _record(2)))
    built: list[str] = []

    def build_all(spec: Any, targets: Any, root: Root, *_: Any, **__: Any) -> list[Any]:
        assert verify_root(root).findings == []
        built.append(f"{spec.name} {targets[0].name}")
        return []

    monkeypatch.setattr("fa4_precompile.commands.build.build_all", build_all)
    command_module.repair(path, ["quickstart", "fa4_hd256"], dry_run=False, as_json=True)
    assert [line.split()[0] for line in built] == ["quickstart", "fa4_hd256"]
    assert '"built": []' in capsys.readouterr().out


def test_repair_command_writes_the_file_of_the_installed_toolchain_again(cli: Cli, tmp_path: Path) -> None:
    installed = installed_toolchain(DEFAULT)
    _publish(tmp_path / "cache", installed)
    (tmp_path / "cache" / layout.toolchain_path(installed.id)).unlink()
    done = cli("repair", "--cache", tmp_path / "cache")
    assert (done.code, done.out) == (0, "")
    assert "1 lost toolchain written again" in done.err
    assert cli("verify", "--cache", tmp_path / "cache").code == 0


def test_gc_after_repair_takes_what_nothing_names_any_more(path: Path) -> None:
    _flip(record_file(path, _record(0)))
    _flip(record_file(path, _record(0, _OTHER.id)))
    repair_root(Root(path), is_real=True)
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (0, 0))
    assert [one.path for one in collect(Root(path), Limits(), is_real=True).dropped] == [
        layout.blob_path(_record(0).blob)
    ]


def test_repaired_counts_bytes(path: Path) -> None:
    size = record_file(path, _record(0)).stat().st_size
    _flip(record_file(path, _record(0)))
    done: Repaired = repair_root(Root(path), is_real=False)
    assert done.bytes >= size
