"""`build`, as far as it goes without compiling, and `check`: exit codes, what goes where, what is not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import SPEC, Cli, documents, finished_cache, require_error, write_spec
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.manifest import Excluded
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from support import (
    blob_file,
    overwrite,
    record_file,
    snapshot,
    synthetic_blob,
)

# Building, as far as it goes without compiling


def test_build_without_a_c_compiler_ends_with_three_before_anything_is_compiled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "work" / "torch.py").write_text("raise SystemExit('the compiler was started')")
    error = require_error(cli("build", write_spec(tmp_path), "--cache", tmp_path / "made", CC="/nonexistent/cc"), 3)
    assert "`CC=/nonexistent/cc` is no command here" in error
    assert "hint: " in error
    assert not (tmp_path / "made").exists()


def test_build_into_a_folder_of_other_files_ends_with_two_and_leaves_it_alone(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    before = snapshot(folder)
    assert "holds files" in require_error(cli("build", write_spec(tmp_path), "--cache", folder), 2)
    assert snapshot(folder) == before


def test_build_into_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    assert cli("build", spec, "--cache", spec).code in (2, 3)
    assert spec.read_text() == SPEC.format(targets="b200")


def test_build_into_a_cache_that_others_can_write_ends_with_four(cli: Cli, tmp_path: Path, synthetic: Path) -> None:
    synthetic.chmod(0o775)
    before = snapshot(synthetic)
    error = require_error(cli("build", write_spec(tmp_path), "--cache", synthetic), 4)
    assert f"chmod go-w {synthetic}" in error
    assert snapshot(synthetic) == before


def test_build_with_nothing_to_do_says_so_and_starts_no_compiler(cli: Cli, tmp_path: Path) -> None:
    for name in ("torch", "cutlass", "triton", "numpy"):
        (tmp_path / "work" / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    spec, toolchain = write_spec(tmp_path), installed_toolchain(DEFAULT)
    finished_cache(tmp_path / "full", spec, toolchain, "b200")
    before = snapshot(tmp_path / "full")
    done = cli("build", spec, "--cache", tmp_path / "full", "--json", "--quiet", CC="/nonexistent/cc")
    assert (done.code, done.err) == (0, "")
    report = documents(done)
    assert (report["kernels"], report["built"], report["cached"], report["failed"]) == (2, 0, 2, [])
    assert report["spec"] == "spec"
    assert report["toolchain"] == toolchain.id
    assert report["excluded"] == [
        {"variant": {"pass": "bwd", "head_dim": 96}, "reason": "the provider's synthetic reason"}
    ]
    assert report["bytes"] == sum(len(synthetic_blob(number)) for number in range(2))
    after, manifest = snapshot(tmp_path / "full"), Path(report["manifest"]).relative_to(tmp_path / "full")
    assert after.pop(str(manifest))[-1] == before.pop(str(manifest))[-1], "it is confirmed, so it is younger"
    assert after == before


def test_build_with_nothing_to_do_counts_in_one_sentence_on_standard_error(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200")
    done = cli("build", spec, "--cache", tmp_path / "full")
    assert (done.code, done.out) == (0, "")
    for count in ("2 kernels", "0 built", "2 already there", "1 call", "0 failed"):
        assert count in done.err


@pytest.mark.parametrize("damage", ["blob", "record", "manifest"])
def test_build_of_a_damaged_cache_is_not_nothing_to_do(cli: Cli, tmp_path: Path, damage: str) -> None:
    spec = write_spec(tmp_path)
    path = tmp_path / "full"
    record, _ = finished_cache(path, spec, installed_toolchain(DEFAULT), "b200")
    (manifest,) = path.glob("manifests/*/*")
    overwrite({"blob": blob_file(path, record), "record": record_file(path, record), "manifest": manifest}[damage], b"")
    require_error(cli("build", spec, "--cache", path, CC="/nonexistent/cc"), 3)


def test_build_that_failed_before_is_not_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(
        tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", failed={"f" * 64: "ran out of memory"}
    )
    require_error(cli("build", spec, "--cache", tmp_path / "full", CC="/nonexistent/cc"), 3)


def test_build_json_of_two_targets_is_one_document(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "b200, b300")
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", "b300")
    done = cli("build", spec, "--cache", tmp_path / "full", "--json")
    assert done.code == 0
    documents(done)


# Checking


def test_check_of_a_whole_build_ends_with_zero(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200")
    done = cli("check", spec, "--cache", tmp_path / "full")
    fingerprint = list_contents(Root(tmp_path / "full")).fingerprint
    assert (done.code, done.err) == (0, f"`{tmp_path / 'full'}` has fingerprint {fingerprint}\n")
    result = documents(cli("check", spec, "--cache", tmp_path / "full", "--json"))
    assert (result["kernels"], result["findings"], result["fingerprint"]) == (2, [], fingerprint)


def test_check_names_each_kernel_that_is_missing_or_damaged(cli: Cli, tmp_path: Path) -> None:
    spec, path = write_spec(tmp_path), tmp_path / "full"
    one, other = finished_cache(
        path, spec, installed_toolchain(DEFAULT), "b200", failed={"f" * 64: "ran out of memory"}
    )
    record_file(path, one).unlink()
    overwrite(blob_file(path, other), b"")
    done = cli("check", spec, "--cache", path, "--json")
    assert done.code == 1
    findings = "\n".join(documents(done)["findings"])
    assert f"kernel {one.id[:12]} is absent" in findings
    assert f"kernel {other.id[:12]} is damaged" in findings
    assert "ran out of memory" in findings


def test_check_of_one_shard_says_what_is_left_unless_it_can_be_taken(cli: Cli, tmp_path: Path) -> None:
    spec, part, other = write_spec(tmp_path), tmp_path / "part", tmp_path / "other"
    toolchain = installed_toolchain(DEFAULT)
    finished_cache(part, spec, toolchain, "b200", left={"a": "2/3", "b": "3/3", "c": "2/3"}, excluded=[])
    done = cli("check", spec, "--cache", part)
    assert (done.code, done.out) == (1, "b200: 2 kernels left to shard 2/3\nb200: 1 kernel left to shard 3/3\n")
    assert "hint: `fa4-precompile merge` puts the other shards in" in done.err
    finished_cache(other, spec, toolchain, "b200", left={"b": "3/3", "d": "1/3"}, excluded=[])
    both = cli("check", spec, "--cache", part, "--from", other)
    assert (both.code, both.out) == (1, "b200: 1 kernel left to shard 3/3\n")
    finished_cache(other, spec, toolchain, "b200", excluded=[])
    assert cli("check", spec, "--cache", part, "--from", other).code == 0


def test_build_of_a_shard_that_is_there_has_nothing_to_do_and_the_whole_build_has(cli: Cli, tmp_path: Path) -> None:
    spec, part = write_spec(tmp_path), tmp_path / "part"
    finished_cache(part, spec, installed_toolchain(DEFAULT), "b200", left={"a": "2/3", "b": "3/3", "c": "2/3"})
    done = cli("build", spec, "--cache", part, "--shard", "1/3", CC="/nonexistent/cc")
    assert done.code == 0
    assert "5 kernels, 0 built, 2 already there, 3 left to other shards, 1 call excluded, 0 failed" in done.err
    require_error(cli("build", spec, "--cache", part, "--shard", "2/3", CC="/nonexistent/cc"), 3)
    require_error(cli("build", spec, "--cache", part, CC="/nonexistent/cc"), 3)


def test_check_of_a_spec_that_was_never_built_ends_with_one(cli: Cli, tmp_path: Path, synthetic: Path) -> None:
    done = cli("check", write_spec(tmp_path), "--cache", synthetic)
    assert done.code == 1
    assert "was not built for b200" in done.out


def test_check_names_what_differs_from_the_toolchain_that_built_it(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    other = Toolchain(**{**vars(installed_toolchain(DEFAULT)), "tvm_ffi": "0.0-synthetic"})
    finished_cache(tmp_path / "full", spec, other, "b200")
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert done.code == 1
    assert "it was built for another installation: TVM-FFI 0.0-synthetic there, " in done.out


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        (Path.unlink, 1, "is not there, so no job can tell that the kernels fit"),
        (lambda file: overwrite(file, file.read_bytes().replace(b"flash-attn-4", b"flash-attn-5")), 1, "is damaged"),
        (lambda file: file.chmod(0o666), 4, "others can write it"),
        (lambda file: file.parent.chmod(0o777), 4, "others can write it"),
    ],
    ids=["deleted", "damaged", "file of everybody", "folder of everybody"],
)
def test_check_finds_what_keeps_a_job_from_the_toolchain(
    cli: Cli, tmp_path: Path, harm: Callable[[Path], object], code: int, words: str
) -> None:
    spec, toolchain = write_spec(tmp_path), installed_toolchain(DEFAULT)
    finished_cache(tmp_path / "full", spec, toolchain, "b200")
    harm(tmp_path / "full" / "toolchains" / f"{toolchain.id}.json")
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert done.code == code
    assert "toolchains" in done.out
    assert words in done.out


# What the provider does not take


_REFUSED = [Excluded({"pass": "fwd", "dtype": "bf16", "head_dim": dim}, "too odd") for dim in (192, 7)]


def test_check_names_what_is_excluded_by_reason_and_it_is_no_finding(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", excluded=_REFUSED)
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert (done.code, len(done.err.splitlines())) == (0, 1)  # the fingerprint
    assert "b200: 2 calls excluded: too odd (such as pass=fwd dtype=bf16 head_dim=192)" in done.out.splitlines()
    result = documents(cli("check", spec, "--cache", tmp_path / "full", "--json"))
    assert result["findings"] == []
    assert result["excluded"] == [excluded.render() for excluded in _REFUSED]


@pytest.mark.parametrize(
    ("name", "options"),
    [("build", ()), ("build", ("--quiet",)), ("build", ("--json",)), ("check", ()), ("check", ("--json",))],
)
def test_excluded_call_ends_with_one_where_that_is_asked_for(
    cli: Cli, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", excluded=_REFUSED)
    arguments = (name, spec, "--cache", tmp_path / "full", *options)
    assert cli(*arguments).code == 0
    done = cli(*arguments, "--fail-on-excluded")
    assert done.code == 1
    assert "2 calls are excluded" in done.err
    assert "plan SPEC --explain" in done.err


@pytest.mark.parametrize("name", ["build", "check"])
def test_build_in_which_nothing_is_excluded_ends_with_zero_whatever_is_asked_for(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", excluded=[])
    done = cli(name, spec, "--cache", tmp_path / "full", "--fail-on-excluded")
    assert done.code == 0
    assert "fail-on-excluded" not in done.err


@pytest.mark.parametrize("name", ["build", "check"])
def test_list_that_looks_like_a_pair_is_asked_about_where_it_stands(cli: Cli, tmp_path: Path, name: str) -> None:
    spec = write_spec(tmp_path)
    spec.write_text(spec.read_text().replace("head_dim: 64", "head_dim: [192, 128]"))
    finished_cache(tmp_path / "full", spec, installed_toolchain(DEFAULT), "b200", excluded=_REFUSED)
    done = cli(name, spec, "--cache", tmp_path / "full")
    assert done.code == 0
    assert f"note: {spec}:5:49: `head_dim: [192, 128]` is 2 values" in done.err
    assert "did you mean `head_dim: [[192, 128]]`?" in done.err
