"""The command line as its users meet it: exit codes, what goes where, and what it must not touch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile import __version__
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import host_machine
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.cli import cli as group
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import Finished, command, run
from support import (
    blob_file,
    make_manifest,
    numbered_record,
    overwrite,
    publish_synthetic,
    record_file,
    snapshot,
    synthetic_blob,
)

Cli = Callable[..., Finished]

_SPEC = """version: 1
provider: flash-attn-4
targets: [{targets}]
kernels:
- {{name: one, pass: fwd, dtype: bf16, head_dim: 64}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the command line in an empty folder, for a user whose home is empty too."""
    work = tmp_path / "work"
    home = tmp_path / "home"
    work.mkdir()
    home.mkdir()
    clean = {"HOME": str(home), "XDG_CACHE_HOME": "", "FA4_PRECOMPILE_CACHE": ""}

    def call(*arguments: object, **environment: str) -> Finished:
        done = run(*arguments, environment=clean | environment, cwd=work)
        assert "Traceback" not in done.err
        return done

    return call


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of two synthetic kernels."""
    publish_synthetic(tmp_path / "cache", 2)
    return tmp_path / "cache"


def _write_spec(folder: Path, targets: str = "b200") -> Path:
    path = folder / "spec.yaml"
    path.write_text(_SPEC.format(targets=targets))
    return path


def _finished_cache(path: Path, spec: Path, toolchain: Toolchain, *targets: str, **changes: Any) -> list[Record]:
    """Make a cache in which a spec is built for targets, as far as anybody can tell who does not load the kernels."""
    root = Root(path)
    Publisher(root).create()
    Publisher(root).publish_toolchain(toolchain)
    records = [numbered_record(number, toolchain=toolchain.id) for number in range(2)]
    for number, record in enumerate(records):
        Publisher(root).publish(record, synthetic_blob(number))
    for target in targets:
        manifest = make_manifest(
            *records,
            spec="spec",
            spec_digest=read_spec(spec, target_book()).digest,
            target=target_book().get(target),
            toolchain=toolchain.id,
            **changes,
        )
        Publisher(root).publish_manifest(manifest)
    return records


def _error(done: Finished, code: int) -> str:
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    return done.err


def _documents(done: Finished) -> Any:
    return json.loads(done.out)


# Help and wrong use


@pytest.mark.parametrize("name", sorted(group.commands))
def test_help_of_each_command_goes_to_standard_output(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: fa4-precompile {name} ")
    assert name == "run" or "--json" in done.out  # what `run` prints is its command's


def test_help_of_the_whole_lists_commands_and_exit_codes(cli: Cli) -> None:
    done = cli("-h")
    assert done.code == 0
    assert all(f"\n  {name} " in done.out for name in group.commands)
    assert "130 interrupted" in " ".join(done.out.split())


def test_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").out == f"fa4-precompile, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bulid",),
        ("build", "quickstart", "--jbos", "1"),
        ("build", "quickstart", "-j", "0"),
        ("build", "quickstart", "--time-limit", "0"),
        ("ls", "unexpected"),
        ("show",),
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_two_and_says_so_on_standard_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: fa4-precompile" in done.err


# Specs and targets


@pytest.mark.parametrize("name", ["build", "plan", "check"])
def test_spec_that_is_wrong_ends_with_two_and_its_place_and_touches_nothing(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    spec = _write_spec(tmp_path)
    spec.write_text(spec.read_text().replace("head_dim", "haed_dim"))
    before = snapshot(tmp_path)
    place = () if name == "plan" else ("--cache", tmp_path / "made")
    error = _error(cli(name, spec, *place), 2)
    assert error.startswith(f"error: {spec}:5:39: unknown key `haed_dim`")
    assert "hint: did you mean `head_dim`?" in error
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("text", ["", "a: [", "\0", "version: !!bool maybe"])
def test_spec_that_is_no_spec_ends_with_two(cli: Cli, tmp_path: Path, text: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"{text}\nprovider: flash-attn-4\nkernels: []\n" if "version" in text else text)
    assert f"error: {spec}:" in _error(cli("build", spec, "--cache", tmp_path / "made"), 2)
    assert not (tmp_path / "made").exists()


def test_spec_that_is_not_there_ends_with_two_and_lists_the_shipped_ones(cli: Cli, tmp_path: Path) -> None:
    error = _error(cli("build", "nowhere.yaml", "--cache", tmp_path / "made"), 2)
    assert "nowhere.yaml" in error
    assert "quickstart" in error
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["build", "plan"])
def test_target_that_is_unknown_ends_with_two_and_the_nearest_spelling(cli: Cli, tmp_path: Path, name: str) -> None:
    error = _error(cli(name, _write_spec(tmp_path), "--target", "b20"), 2)
    assert "there is no target `b20`" in error
    assert "did you mean `b200`?" in error


def test_target_with_an_unknown_number_of_sms_ends_with_two_and_asks_for_it(cli: Cli, tmp_path: Path) -> None:
    assert "sms: NUMBER" in _error(cli("build", _write_spec(tmp_path), "--target", "gh200"), 2)


def test_spec_without_targets_ends_with_two_and_asks_for_one(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    spec.write_text(spec.read_text().replace("targets: [b200]\n", ""))
    assert "--target NAME" in _error(cli("build", spec), 2)


def test_targets_lists_the_shipped_profiles(cli: Cli) -> None:
    done = cli("targets")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == list(target_book().profiles)
    assert {profile["name"] for profile in _documents(cli("targets", "--json"))} == set(target_book().profiles)


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a GPU driver here")
def test_targets_detect_without_a_gpu_ends_with_three(cli: Cli) -> None:
    assert "no NVIDIA GPU" in _error(cli("targets", "--detect", "--json"), 3)


# Building, as far as it goes without compiling


def test_build_without_a_c_compiler_ends_with_three_before_anything_is_compiled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "work" / "torch.py").write_text("raise SystemExit('the compiler was started')")
    error = _error(cli("build", _write_spec(tmp_path), "--cache", tmp_path / "made", CC="/nonexistent/cc"), 3)
    assert "`CC=/nonexistent/cc` is no command here" in error
    assert "hint: " in error
    assert list(Root(tmp_path / "made").records()) == []


_OTHER_MACHINE = "aarch64" if host_machine() == "x86_64" else "x86_64"


@pytest.mark.parametrize("base", ["thor", "gb200"])
def test_build_for_hosts_of_another_processor_ends_with_three(cli: Cli, tmp_path: Path, base: str) -> None:
    target = base if target_book().get(base).machine == _OTHER_MACHINE else f"{{base: {base}, machine: x86_64}}"
    error = _error(cli("build", _write_spec(tmp_path, target), "--cache", tmp_path / "made"), 3)
    assert f"{_OTHER_MACHINE} hosts" in error
    assert f"build on an {_OTHER_MACHINE} machine" in error


def test_build_into_a_folder_of_other_files_ends_with_two_and_leaves_it_alone(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    before = snapshot(folder)
    assert "holds files" in _error(cli("build", _write_spec(tmp_path), "--cache", folder), 2)
    assert snapshot(folder) == before


def test_build_into_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    assert cli("build", spec, "--cache", spec).code in (2, 3)
    assert spec.read_text() == _SPEC.format(targets="b200")


def test_build_into_a_cache_that_others_can_write_ends_with_four(cli: Cli, tmp_path: Path, cache: Path) -> None:
    cache.chmod(0o775)
    before = snapshot(cache)
    error = _error(cli("build", _write_spec(tmp_path), "--cache", cache), 4)
    assert f"chmod go-w {cache}" in error
    assert snapshot(cache) == before


def test_build_with_nothing_to_do_says_so_and_starts_no_compiler(cli: Cli, tmp_path: Path) -> None:
    for name in ("torch", "cutlass", "triton", "numpy"):
        (tmp_path / "work" / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    spec, toolchain = _write_spec(tmp_path), installed_toolchain(DEFAULT)
    _finished_cache(tmp_path / "full", spec, toolchain, "b200")
    before = snapshot(tmp_path / "full")
    done = cli("build", spec, "--cache", tmp_path / "full", "--json", "--quiet", CC="/nonexistent/cc")
    assert (done.code, done.err) == (0, "")
    report = _documents(done)
    assert (report["kernels"], report["built"], report["cached"], report["failed"]) == (2, 0, 2, [])
    assert report["spec"] == "spec"
    assert report["toolchain"] == toolchain.id
    assert report["excluded"] == [
        {"variant": {"pass": "bwd", "head_dim": 96}, "reason": "the provider's synthetic reason"}
    ]
    assert report["bytes"] == sum(len(synthetic_blob(number)) for number in range(2))
    assert Path(report["manifest"]).is_file()
    assert snapshot(tmp_path / "full") == before


def test_build_with_nothing_to_do_counts_in_one_sentence_on_standard_error(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    _finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200")
    done = cli("build", spec, "--cache", tmp_path / "full")
    assert (done.code, done.out) == (0, "")
    for count in ("2 kernels", "0 built", "2 already there", "1 call", "0 failed"):
        assert count in done.err


@pytest.mark.parametrize("damage", ["blob", "record", "manifest"])
def test_build_of_a_damaged_cache_is_not_nothing_to_do(cli: Cli, tmp_path: Path, damage: str) -> None:
    spec = _write_spec(tmp_path)
    path = tmp_path / "full"
    record, _ = _finished_cache(path, spec, installed_toolchain(DEFAULT), "b200")
    (manifest,) = path.glob("manifests/*/*")
    overwrite({"blob": blob_file(path, record), "record": record_file(path, record), "manifest": manifest}[damage], b"")
    _error(cli("build", spec, "--cache", path, CC="/nonexistent/cc"), 3)


def test_build_that_failed_before_is_not_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    _finished_cache(
        tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", failed={"f" * 64: "ran out of memory"}
    )
    _error(cli("build", spec, "--cache", tmp_path / "full", CC="/nonexistent/cc"), 3)


def test_build_json_of_two_targets_is_one_document(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path, "b200, b300")
    _finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", "b300")
    done = cli("build", spec, "--cache", tmp_path / "full", "--json")
    assert done.code == 0
    _documents(done)


# Checking


def test_check_of_a_whole_build_ends_with_zero(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    _finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200")
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert (done.code, done.err) == (0, "")
    result = _documents(cli("check", spec, "--cache", tmp_path / "full", "--json"))
    assert (result["kernels"], result["findings"]) == (2, [])


def test_check_names_each_kernel_that_is_missing_or_damaged(cli: Cli, tmp_path: Path) -> None:
    spec, path = _write_spec(tmp_path), tmp_path / "full"
    one, other = _finished_cache(
        path, spec, installed_toolchain(DEFAULT), "b200", failed={"f" * 64: "ran out of memory"}
    )
    record_file(path, one).unlink()
    overwrite(blob_file(path, other), b"")
    done = cli("check", spec, "--cache", path, "--json")
    assert done.code == 1
    findings = "\n".join(_documents(done)["findings"])
    assert f"kernel {one.id[:12]} is absent" in findings
    assert f"kernel {other.id[:12]} is damaged" in findings
    assert "ran out of memory" in findings


def test_check_of_a_spec_that_was_never_built_ends_with_one(cli: Cli, tmp_path: Path, cache: Path) -> None:
    done = cli("check", _write_spec(tmp_path), "--cache", cache)
    assert done.code == 1
    assert "was not built for b200" in done.out


def test_check_names_what_differs_from_the_toolchain_that_built_it(cli: Cli, tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    other = Toolchain(**{**vars(installed_toolchain(DEFAULT)), "tvm_ffi": "0.0-synthetic"})
    _finished_cache(tmp_path / "full", spec, other, "b200")
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert done.code == 1
    assert "tvm_ffi is " in done.out
    assert "`0.0-synthetic` in the cache" in done.out


# Looking into a cache


_READERS = pytest.mark.parametrize(
    "arguments", [("ls",), ("verify",), ("show", "0"), ("check", "quickstart")], ids=" ".join
)


@_READERS
def test_cache_that_is_none_ends_with_two_and_is_not_made(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    before = snapshot(tmp_path)
    assert "does not exist" in _error(cli(*arguments, "--cache", tmp_path / "nowhere"), 2)
    assert "is no kernel cache" in _error(cli(*arguments, "--cache", tmp_path), 2)
    assert snapshot(tmp_path) == before


@_READERS
def test_cache_that_others_can_write_ends_with_four(cli: Cli, cache: Path, arguments: tuple[str, ...]) -> None:
    cache.chmod(0o775)
    error = _error(cli(*arguments, "--cache", cache, "--json"), 4)
    assert f"`{cache}` is not trusted" in error
    assert "chmod go-w" in error


def test_cache_of_an_unknown_layout_ends_with_two(cli: Cli, cache: Path) -> None:
    overwrite(cache / "format.json", b'{"layout": 2}')
    assert "layout 1" in _error(cli("ls", "--cache", cache, "--json"), 2)


def test_cache_that_others_can_write_is_read_where_that_is_allowed(cli: Cli, cache: Path) -> None:
    cache.chmod(0o775)
    assert len(_documents(cli("ls", "--cache", cache, "--allow-untrusted", "--json"))) == 2
    assert cli("verify", "--cache", cache, "--allow-untrusted").code == 0


def test_cache_is_the_first_that_the_environment_names(cli: Cli, cache: Path, tmp_path: Path) -> None:
    assert len(_documents(cli("ls", "--json", FA4_PRECOMPILE_CACHE=f"{cache}:/nowhere"))) == 2
    assert "/nowhere" in _error(cli("ls", "--json", FA4_PRECOMPILE_CACHE=f"/nowhere:{cache}"), 2)
    assert f"{tmp_path}/home/.cache/fa4-precompile" in _error(cli("ls"), 2)


def test_ls_json_is_the_list_of_records(cli: Cli, cache: Path) -> None:
    done = cli("ls", "--cache", cache, "--json")
    assert done.code == 0
    written = [json.loads(path.read_text()) for path in sorted(cache.glob("records/*/*/*.json"))]
    assert _documents(done) == [{k: v for k, v in content.items() if k != "self_sha256"} for content in written]


def test_ls_prints_a_line_a_kernel_and_counts_on_standard_error(cli: Cli, cache: Path) -> None:
    done = cli("ls", "--cache", cache)
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()} == {numbered_record(n).id[:12] for n in range(2)}
    assert "2 kernels" in done.err


def test_ls_damaged_record_is_a_finding_and_the_rest_is_listed(cli: Cli, cache: Path) -> None:
    damaged = record_file(cache, numbered_record(0))
    overwrite(damaged, b"{")
    done = cli("ls", "--cache", cache, "--json")
    assert done.code == 1
    assert [record["kernel"] for record in _documents(done)] == [numbered_record(1).id]
    assert damaged.relative_to(cache).as_posix() in done.err


def test_show_takes_an_id_or_its_first_digits(cli: Cli, cache: Path) -> None:
    kernel = numbered_record(0).id
    for prefix in (kernel, kernel[:12], kernel[:12].upper()):
        done = cli("show", prefix, "--cache", cache, "--json")
        assert (done.code, done.err) == (0, "")
        assert _documents(done)["kernel"] == kernel
    text = cli("show", kernel, "--cache", cache)
    assert text.code == 0
    assert str(blob_file(cache, numbered_record(0))) in text.out


def test_show_prefix_of_none_or_of_several_ends_with_two(cli: Cli, cache: Path) -> None:
    assert "no kernel of" in _error(cli("show", "0" * 64, "--cache", cache), 2)
    assert "no kernel of" in _error(cli("show", "", "--cache", cache), 2)
    digits = "".join(record.id[0] for record in publish_synthetic(cache, 17))
    ambiguous = next(digit for digit in digits if digits.count(digit) > 1)
    assert "give more digits" in _error(cli("show", ambiguous, "--cache", cache), 2)


def test_verify_whole_cache_ends_with_zero(cli: Cli, cache: Path) -> None:
    done = cli("verify", "--cache", cache)
    assert (done.code, done.out) == (0, "")
    assert "is whole: 2 " in done.err
    assert _documents(cli("verify", "--cache", cache, "--json"))["findings"] == []


def test_verify_damage_ends_with_one_and_names_the_file(cli: Cli, cache: Path) -> None:
    record = numbered_record(0)
    overwrite(blob_file(cache, record), b"damage")
    done = cli("verify", "--cache", cache)
    assert done.code == 1
    assert record.blob in done.out
    assert "is not whole; as it should be: 1 kernel" in done.err
    report = cli("verify", "--cache", cache, "--json")
    assert report.code == 1
    paths = [finding["path"] for finding in _documents(report)["findings"]]
    assert record_file(cache, record).relative_to(cache).as_posix() in paths


def test_doctor_prints_what_it_found_and_makes_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--json", CC="/nonexistent/cc")
    assert done.code == 1
    checks = {item["what"]: item for item in _documents(done)}
    assert not checks["linker"]["ok"]
    assert "CC" in checks["linker"]["mend"]
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("--help",)], ids=" ".join)
def test_reader_that_has_seen_enough_is_no_error(cache: Path, arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            command(*arguments),
            env={**os.environ, "FA4_PRECOMPILE_CACHE": str(cache)},
            cwd=cache.parent,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert done.returncode == 0
