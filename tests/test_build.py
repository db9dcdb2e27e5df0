"""Real builds: FlashAttention-4's kernels, compiled here for GPUs that this machine does not have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_precompile.products.cubin import exported_symbols, read_cubin
from fa4_precompile.products.load import INITIALIZER_SUFFIX, SYMBOL_PREFIX
from product import SMALL_SPEC, origin, records, run
from support import blob_file

pytestmark = pytest.mark.compiles

Spec = Callable[[str], Path]


def _blobs(cache: Path) -> dict[str, str]:
    return {record.id: record.blob for record in records(cache)}


def test_build_of_the_small_spec_publishes_every_kernel_and_counts_them(small_cache: Path, small_spec: Path) -> None:
    done = run("build", small_spec, "--cache", small_cache, "--json")
    report = json.loads(done.out)
    assert report["kernels"] == report["cached"] == len(records(small_cache)) == 6
    assert (report["built"], report["failed"], report["excluded"], report["variants"]) == (0, [], [], 3)
    assert sorted(record.slot for record in records(small_cache)) == ["bwd", "bwd_post", "bwd_pre", "fwd", "fwd", "fwd"]
    assert Path(report["manifest"]).is_file()


def test_each_blob_holds_a_cubin_of_the_target_and_exports_its_own_two_symbols_only(small_cache: Path) -> None:
    symbols = set()
    for record in records(small_cache):
        blob = next(small_cache.glob(f"blobs/sha256/*/{record.blob}")).read_bytes()
        cubin = read_cubin(blob)
        assert cubin.sm == 100
        assert exported_symbols(blob) == {SYMBOL_PREFIX + record.symbol, record.symbol + INITIALIZER_SUFFIX}
        assert len(cubin.image) == record.cubin_bytes
        assert [function.registers for function in cubin.functions] == [f.registers for f in record.functions]
        assert all(0 < function.registers <= 255 for function in record.functions)
        symbols.add(record.symbol)
    assert len(symbols) == 6


def test_each_blob_loads_in_a_fresh_process_that_imports_no_compiler(small_cache: Path) -> None:
    program = (
        "import sys; from fa4_precompile.products import load; "
        "load.open_run_time(); load.open_blob(sys.stdin.buffer.read(), sys.argv[1], sys.argv[2]); "
        "assert not {'torch', 'cutlass', 'flash_attn'} & set(sys.modules)"
    )
    for record in records(small_cache):
        blob = next(small_cache.glob(f"blobs/sha256/*/{record.blob}")).read_bytes()
        subprocess.run([sys.executable, "-c", program, record.blob, record.symbol], input=blob, check=True)


def test_all_blobs_load_into_one_process_each_with_its_own_function(small_cache: Path) -> None:
    # glibc returns the library that it loaded before from a path, and the numbers of closed descriptors come again.
    program = (
        "import sys; from pathlib import Path; from fa4_precompile.cache import store; "
        "from fa4_precompile.products import load; load.open_run_time(); "
        "root = store.Root(Path(sys.argv[1])); "
        "print(len({load.open_blob(root.blob(r), r.blob, r.symbol)[1] for r in root.records()}))"
    )
    done = subprocess.run([sys.executable, "-c", program, small_cache], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "6", done.stderr


def test_record_says_what_was_compiled_and_names_the_keys_positions(small_cache: Path) -> None:
    backward = next(record for record in records(small_cache) if record.slot == "bwd")
    assert backward.selection.kernel_class == "FlashAttentionBackwardSm100"
    assert (backward.selection.cluster_size, backward.selection.backend) == (1, "generic")
    assert backward.selection.tiles == {"main": (128, 128)}
    assert backward.key_fields["head_dim"] == 64
    assert backward.key_fields["causal"] is True
    spent = origin(small_cache, backward)
    assert (spent.compile_seconds or 0) > 0
    assert (spent.peak_bytes or 0) > 100_000_000


def test_time_of_a_child_is_noted_unless_it_was_the_first_of_its_kind(small_cache: Path) -> None:
    seconds = [origin(small_cache, record).cpu_seconds for record in records(small_cache)]
    assert None in seconds  # that of the first says little of its kernel: it imports for all others
    assert all(0.1 < one < 600 for one in seconds if one is not None)  # of one child, not of the fork server as well


def test_persistent_kernels_record_that_they_asked_for_the_sms_and_others_do_not(small_cache: Path) -> None:
    facts = {
        (r.slot, str(call.get("causal", False)), str(call["pass"])): dict(r.facts)
        for r in records(small_cache)
        for call in [origin(small_cache, r).variant]
    }
    assert facts["fwd", "False", "fwd"] == {"sms": 148}
    assert facts["fwd", "True", "fwd"] == {}
    assert facts["bwd", "True", "bwd"] == {}


@pytest.mark.long
def test_build_for_a_device_of_other_sms_compiles_only_what_depends_on_them(small_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SMALL_SPEC.replace("[b200]", "[{base: b200, name: b200-slice, sms: 70}]"))
    report = json.loads(run("build", spec, "--cache", cache, "--json").out)
    assert (report["built"], report["cached"]) == (1, 5)
    assert sorted(dict(record.facts).get("sms", 0) for record in records(cache)) == [0, 0, 0, 0, 0, 70, 148]


@pytest.mark.long
def test_build_again_from_nothing_in_another_order_with_other_jobs_gives_the_same_bytes(
    small_cache: Path, tmp_path: Path
) -> None:
    lines = SMALL_SPEC.strip().splitlines()
    spec = tmp_path / "reversed.yaml"
    spec.write_text("\n".join([*lines[:4], lines[5], lines[4].replace("[false, true]", "[true, false]")]))
    done = run("build", spec, "--cache", tmp_path / "cache", "--jobs", "1")
    assert done.code == 0, done.err
    assert _blobs(tmp_path / "cache") == _blobs(small_cache)


@pytest.mark.long
def test_one_key_is_one_kernel_whatever_call_it_is_reached_from(
    small_cache: Path, write_spec: Spec, tmp_path: Path
) -> None:
    # A key that left something out would give a job a kernel that was compiled for another call (flash-attention#2645).
    spec = write_spec(
        "targets: [b200]\n"
        "kernels:\n"
        "- name: other-sizes\n"
        "  pass: bwd\n"
        "  dtype: bf16\n"
        "  head_dim: 64\n"
        "  causal: true\n"
        "  shape: {batch: 3, heads: 5, seqlen_q: 1000, seqlen_k: 3000}\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    assert _blobs(tmp_path / "cache").items() <= _blobs(small_cache).items()


def test_build_with_nothing_to_do_imports_neither_torch_nor_the_dsl(small_cache: Path, small_spec: Path) -> None:
    program = (
        "import sys; from fa4_precompile.cli import cli; cli(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'cutlass', 'flash_attn', 'triton', 'numpy', 'elftools'} & set(sys.modules)))"
    )
    arguments = ["build", str(small_spec), "--cache", str(small_cache)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert "0 built, 6 already there" in done.stderr
    assert done.stdout.strip() == "[]"


def test_build_on_a_read_only_cache_with_nothing_to_do_succeeds(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    for path in sorted(cache.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (manifest,) = cache.glob("manifests/*/*")  # which its owner can confirm, whatever its mode
    before = sorted((str(path), path.stat().st_mtime_ns) for path in cache.rglob("*") if path != manifest)
    said = manifest.stat().st_ino, manifest.read_bytes()
    assert run("build", small_spec, "--cache", cache).code == 0
    assert sorted((str(path), path.stat().st_mtime_ns) for path in cache.rglob("*") if path != manifest) == before
    assert (manifest.stat().st_ino, manifest.read_bytes()) == said


def test_build_replaces_a_damaged_kernel_and_no_other(small_cache: Path, small_spec: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    victim = next(record for record in records(cache) if record.slot == "bwd_post")
    blob = next(cache.glob(f"blobs/sha256/*/{victim.blob}"))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1])
    assert run("verify", "--cache", cache).code == 1
    report = json.loads(run("build", small_spec, "--cache", cache, "--json").out)
    assert (report["built"], report["cached"]) == (1, 5)
    assert run("verify", "--cache", cache).code == 0
    assert _blobs(cache) == _blobs(small_cache)


def test_check_finds_a_finished_build_and_names_what_is_missing(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    assert run("check", small_spec, "--cache", cache).code == 0
    victim = records(cache)[0]
    next(cache.glob(f"records/*/*/{victim.id}.json")).unlink()
    done = run("check", small_spec, "--cache", cache)
    assert done.code == 1
    assert victim.id[:12] in done.out


def test_check_names_the_field_by_which_toolchains_differ(small_cache: Path, small_spec: Path) -> None:
    done = run("check", small_spec, "--cache", small_cache, environment={"CUTE_DSL_LINEINFO": "1"})
    assert done.code == 1
    assert "environment.CUTE_DSL_LINEINFO absent there, 1 here" in done.out


@pytest.mark.long
def test_build_for_sm_90a_gives_a_cubin_of_sm_90(write_spec: Spec, tmp_path: Path) -> None:
    spec = write_spec("kernels: [{name: hopper, pass: fwd, dtype: fp16, head_dim: 128, causal: true}]\n")
    done = run("build", spec, "--target", "h100", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    (record,) = records(tmp_path / "cache")
    assert record.selection.kernel_class == "FlashAttentionForwardSm90"
    assert read_cubin(blob_file(tmp_path / "cache", record).read_bytes()).sm == 90


@pytest.mark.long
def test_head_dim_256_backward_takes_block_sparsity_and_2cta_on_the_generic_kernel(
    write_spec: Spec, tmp_path: Path
) -> None:
    spec = write_spec(
        "targets: [b200]\n"
        "kernels:\n"
        "- name: sparse\n"
        "  pass: bwd\n"
        "  dtype: bf16\n"
        "  head_dim: 256\n"
        "  sparse: {q_block: 256, kv_block: 128}\n"
        "  backend: generic\n"
        "  cluster_size: 2\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    backward = next(record for record in records(tmp_path / "cache") if record.slot == "bwd")
    assert origin(tmp_path / "cache", backward).runtime_env == {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}
    assert backward.selection.render() == {
        "kernel_class": "FlashAttentionBackwardSm100",
        "backend": "generic",
        "cluster_size": 2,
        "tiles": {"main": [128, 64]},
    }


def test_build_for_an_sm_that_the_dsl_gets_wrong_is_refused_before_anything_is_compiled(
    write_spec: Spec, tmp_path: Path
) -> None:
    spec = write_spec(
        "targets: [{base: thor, machine: x86_64}]\nkernels: [{name: thor, pass: fwd, dtype: bf16, head_dim: 64}]\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache")
    assert done.code == 3
    assert "compiles sm_110a for SM 101" in done.err
    assert "fa4-precompile[build,cu13]" in done.err
    assert not list((tmp_path / "cache").glob("blobs/*/*/*"))


@pytest.mark.long
def test_kernel_that_takes_too_long_is_reported_with_its_variant_and_the_others_are_built(
    write_spec: Spec, tmp_path: Path
) -> None:
    spec = write_spec("""targets: [b200]
kernels:
- {name: endless, pass: fwd, dtype: bf16, head_dim: 64, causal: true, score_mod: "score_mods:endless"}
- {name: finite, pass: fwd, dtype: bf16, head_dim: 64, causal: true}
""")
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    for limit in (12, 60, 180):  # the endless kernel meets any; the other one needs what this machine needs just now
        done = run("build", spec, "--cache", tmp_path / "cache", "--time-limit", limit, "--json", environment=path)
        report = json.loads(done.out)
        assert done.code == 1
        assert all(f"time limit of {limit} s" in failure["error"] for failure in report["failed"])
        if len(report["failed"]) == 1:
            break
    (failure,) = report["failed"]
    assert failure["kernel"].startswith("fwd of")
    assert failure["variant"]["score_mod"] == "score_mods:endless"
    assert [origin(tmp_path / "cache", record).variant for record in records(tmp_path / "cache")] == [
        {"pass": "fwd", "dtype": "bf16", "head_dim": 64, "causal": True}
    ]
    assert run("verify", "--cache", tmp_path / "cache").code == 0
    assert "failed to compile" in run("check", spec, "--cache", tmp_path / "cache", environment=path).out


def test_kernel_that_fails_to_compile_is_reported_with_fa4s_traceback_and_the_others_are_built(
    write_spec: Spec, tmp_path: Path
) -> None:
    # FA4 takes this call and selects a 2-CTA backward for it, which asserts while it is traced.
    spec = write_spec(
        "targets: [b200]\nkernels: [{name: odd, pass: bwd, dtype: bf16, head_dim: [[128, 64]], qheads_per_kvhead: 3}]\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache", "--json")
    report = json.loads(done.out)
    assert done.code == 1
    (failure,) = report["failed"]
    assert failure["kernel"].startswith("bwd of")
    assert failure["variant"] == {"pass": "bwd", "dtype": "bf16", "head_dim": [128, 64], "qheads_per_kvhead": 3}
    assert "flash_attn/cute/flash_bwd_sm100.py" in failure["report"]
    assert "AssertionError" in failure["error"]
    assert report["built"] == report["kernels"] - 1 == len(records(tmp_path / "cache"))


def test_build_into_a_folder_that_others_can_write_is_refused(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    folder = next(cache.glob("records/*/*"))
    folder.chmod(0o775)
    done = run("build", small_spec, "--cache", cache)
    assert done.code == 4
    assert f"chmod go-w {folder}" in done.err
    checked = run("check", small_spec, "--cache", cache)
    assert checked.code == 4
    assert f"chmod go-w {folder}" in checked.err


def test_build_publishes_nothing_where_others_can_write(small_cache: Path, small_spec: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    (cache / "toolchains").chmod(0o775)
    before = sorted(cache.rglob("*"))
    done = run("build", small_spec, "--cache", cache)
    assert done.code == 4
    assert f"chmod go-w {cache / 'toolchains'}" in done.err
    assert [path for path in sorted(cache.rglob("*")) if path not in before and "locks" not in path.parts] == []


def test_check_of_a_damaged_manifest_says_that_it_is_damaged(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(small_cache, cache)
    manifest = next(cache.glob("manifests/*/*.json"))
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b'"variants": 3', b'"variants": 4'))
    done = run("check", small_spec, "--cache", cache)
    assert done.code == 1
    assert "is damaged" in done.out
