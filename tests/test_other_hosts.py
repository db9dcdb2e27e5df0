"""Kernels for hosts of another kind than this machine's: built here, in a cache beside those for this one's."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from command_line import Cli, documents
from fa4_precompile.cache.fit import Fit
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import MACHINES, host_machine
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.errors import MachineError, ProductError
from fa4_precompile.products import foreign, retarget
from fa4_precompile.products.cubin import exported_symbols, imported_symbols, read_cubin
from fa4_precompile.products.foreign import machine_of
from fa4_precompile.products.trial import Trial
from fa4_precompile.providers.dsl import cross
from fa4_precompile.providers.dsl.host_code import on_another_host
from fa4_precompile.providers.installed import installed_run_time, installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import records, run

_HERE = host_machine()
_THERE = next(machine for machine in MACHINES if machine != _HERE)

_EXECUTED, _WRITTEN = 1, 2  # PF_X and PF_W of the ELF standard

_SPEC = f"""\
version: 1
provider: flash-attn-4
targets:
- {{name: here, arch: sm_100a, sms: 152, machine: {_HERE}}}
- {{name: there, arch: sm_100a, sms: 152, machine: {_THERE}}}
defaults: {{pass: bwd, dtype: bf16, causal: true, shape: {{batch: 2, heads: 8, seqlen_q: 4096, seqlen_k: 4096}}}}
kernels:
- {{name: both, head_dim: 64}}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of four kernels for one GPU beside two kinds of hosts."""
    path = tmp_path_factory.mktemp("spec") / "both.yaml"
    path.write_text(_SPEC)
    return path


@pytest.fixture(scope="module")
def both(spec: Path) -> Path:
    """A cache of that spec."""
    done = run("build", spec, "--cache", spec.parent / "both")
    assert done.code == 0, done.err
    assert "both for here: 1 call, 4 kernels, 4 built, 0 already there" in done.err
    assert "both for there: 1 call, 4 kernels, 0 built, 4 linked, 0 already there" in done.err
    return spec.parent / "both"


def _blob(cache: Path, record: Record) -> bytes:
    (path,) = cache.glob(f"blobs/sha256/*/{record.blob}")
    return path.read_bytes()


def _toolchains(cache: Path) -> dict[str, Toolchain]:
    return {item.id: item for item in Root(cache).toolchains() if isinstance(item, Toolchain)}


def _pairs(cache: Path) -> list[tuple[Record, Record]]:
    """Return the records of each kernel for the two kinds of hosts."""
    toolchains = _toolchains(cache)
    found: dict[str, dict[tuple[str, str], Record]] = {_HERE: {}, _THERE: {}}
    for record in records(cache):
        found[toolchains[record.toolchain].machine][record.slot, record.key] = record
    assert found[_HERE].keys() == found[_THERE].keys()
    return [(record, found[_THERE][name]) for name, record in found[_HERE].items()]


# What is built


def test_kernel_has_the_same_cubin_beside_either_kind_of_hosts(both: Path) -> None:
    pairs = _pairs(both)
    assert len(pairs) == 4
    for here, there in pairs:
        assert here.cubin == there.cubin
        assert hashlib.sha256(read_cubin(_blob(both, there)).image).hexdigest() == here.cubin
        assert here.id != there.id
        same = ("slot", "key", "facts", "selection", "functions", "keywords", "modifiers")
        assert [getattr(here, name) for name in same] == [getattr(there, name) for name in same]


def test_blob_is_for_its_targets_hosts_and_needs_what_the_other_needs(both: Path) -> None:
    for here, there in _pairs(both):
        mine, other = _blob(both, here), _blob(both, there)
        assert [machine_of(mine), machine_of(other)] == [_HERE, _THERE]
        assert len(exported_symbols(other)) == 2
        assert there.symbol in "".join(exported_symbols(other))
        assert imported_symbols(other) - foreign._OF_LIBC == imported_symbols(mine) - foreign._OF_LIBC


def test_blobs_load_where_pages_are_large_and_no_stack_may_be_executed(both: Path) -> None:
    """Kernels of Linux that are built for Grace have pages of 64 KiB: none of a blob may be written and executed."""
    page = 64 * 1024
    for pair in _pairs(both):
        (blob,) = [_blob(both, record) for record in pair if machine_of(_blob(both, record)) == "aarch64"]
        segments = [segment.header for segment in ELFFile(io.BytesIO(blob)).iter_segments()]
        loaded = [one for one in segments if one["p_type"] == "PT_LOAD"]
        assert loaded
        pages: dict[int, set[int]] = {_EXECUTED: set(), _WRITTEN: set()}
        for one in loaded:
            assert one["p_align"] % page == 0
            assert (one["p_vaddr"] - one["p_offset"]) % page == 0
            for flag, found in pages.items():
                if one["p_flags"] & flag:
                    found.update(range(one["p_vaddr"] // page, (one["p_vaddr"] + one["p_memsz"] - 1) // page + 1))
        assert not pages[_EXECUTED] & pages[_WRITTEN]
        (stack,) = [one for one in segments if one["p_type"] == "PT_GNU_STACK"]
        assert not stack["p_flags"] & _EXECUTED


def test_toolchain_names_the_hosts_and_what_compiled_for_them(both: Path) -> None:
    by_machine = {item.machine: item for item in _toolchains(both).values()}
    assert by_machine[_HERE] == installed_toolchain(DEFAULT)
    assert by_machine[_THERE] == installed_toolchain(DEFAULT, _THERE)
    names = {name for name, _, _ in by_machine[_HERE].differences(by_machine[_THERE])}
    assert names == {"machine", "host_compiler.ziglang"}


def test_cache_of_both_is_whole_and_says_what_is_for_whom(cli: Cli, both: Path, spec: Path) -> None:
    assert cli("verify", "--cache", both).code == 0
    done = cli("check", spec, "--cache", both)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"{name}: both is here whole and fits: 4 kernels" for name in ("here", "there")]
    _, there = _pairs(both)[0]
    (hosts,) = [line for line in cli("show", there.id, "--cache", both).out.splitlines() if line.startswith("hosts:")]
    assert hosts.split(None, 1)[1].startswith(f"{_THERE}; their code was compiled elsewhere, by ziglang ")


@pytest.mark.long
def test_build_of_one_target_alone_has_the_same_bytes(both: Path, spec: Path, tmp_path: Path) -> None:
    done = run("build", spec, "--target", "there", "--cache", tmp_path / "alone", "-q")
    assert done.code == 0, done.err
    alone = {record.id: record.blob for record in records(tmp_path / "alone")}
    assert alone == {there.id: there.blob for _, there in _pairs(both)}


@pytest.mark.long
def test_kernel_that_asks_for_the_number_of_sms_is_no_twin_where_it_differs(spec: Path, tmp_path: Path) -> None:
    other = spec.read_text().replace("pass: bwd", "pass: fwd").replace("causal: true", "causal: false")
    (tmp_path / "two.yaml").write_text(other.replace(f"sms: 152, machine: {_THERE}", f"sms: 148, machine: {_THERE}"))
    done = run("build", tmp_path / "two.yaml", "--cache", tmp_path / "cache", "--json")
    assert done.code == 0, done.err
    reports = documents(done)
    assert [(report["built"], report["linked"]) for report in reports] == [(1, 0), (1, 0)]
    assert sorted(record.device_facts["sms"] for record in records(tmp_path / "cache")) == [148, 152]


# Jobs


def test_job_is_told_for_which_hosts_kernels_are_and_takes_those_for_its_own(both: Path) -> None:
    there = next(item for item in _toolchains(both).values() if item.machine == _THERE)
    run_time = installed_run_time(DEFAULT)
    words = run_time.differences(there, Fit.EXACT)
    assert words == [f"host {_THERE} there, {_HERE} here"]
    on_such_a_host = dataclasses.replace(run_time, machine=_THERE)
    assert on_such_a_host.differences(there, Fit.EXACT) == []


# What is wrong


def test_target_whose_hosts_cannot_be_built_for_is_said_before_anything_is_compiled(
    cli: Cli, spec: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'ziglang' else find(name, package)\n"
    )
    done = run("build", spec, "--cache", tmp_path / "cache", environment={"PYTHONPATH": str(tmp_path)})
    assert done.code == 3
    assert f"host code for {_THERE} hosts is compiled on this {_HERE} machine by `ziglang`" in done.err
    assert "pip install 'fa4-precompile[cross]'" in done.err
    assert not list((tmp_path / "cache").glob("records/**/*.json"))


def test_program_that_is_missing_from_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MachineError, match=r"zig` is missing"):
        cross.cross_compiler(_THERE)


def test_hosts_of_a_kind_that_nothing_is_known_of_are_refused() -> None:
    with pytest.raises(MachineError, match="riscv64"):
        cross.cross_compiler("riscv64")


def _ir(tmp_path: Path, body: str) -> Path:
    told = '"target-cpu"="x86-64" "target-features"="+sse2"' if _HERE == "x86_64" else _TOLD_ARM
    path = tmp_path / "kernel.ll"
    path.write_text(f"{body}\nattributes #0 = {{ {told} }}\n")
    return path


_TOLD_ARM = '"target-cpu"="generic" "target-features"="+neon"'


def test_ir_that_the_compiler_does_not_take_is_an_error_with_both_versions(tmp_path: Path) -> None:
    ir = _ir(tmp_path, "define void @__tvm_ffi_x() of_a_later_release #0 { ret void }")
    with pytest.raises(ProductError) as caught:
        retarget.retarget(ir, "x", _THERE)
    installed = installed_toolchain(DEFAULT, _THERE)
    assert f"ziglang {installed.host_compiler['ziglang']} does not take the LLVM IR of the DSL" in str(caught.value)
    assert installed.dsl["nvidia-cutlass-dsl"] in str(caught.value)
    assert "of_a_later_release" in str(caught.value)


def test_ir_with_an_operation_of_one_processor_is_refused(tmp_path: Path) -> None:
    ir = _ir(tmp_path, "declare void @llvm.x86.sse2.pause()\ndefine void @__tvm_ffi_x() #0 { ret void }")
    with pytest.raises(ProductError, match=r"llvm\.x86\.sse2\.pause"):
        retarget.retarget(ir, "x", _THERE)


def test_ir_that_does_not_say_its_processor_is_refused() -> None:
    with pytest.raises(ProductError, match="target-cpu"):
        on_another_host("define void @f() { ret void }", _THERE)


def test_blob_that_needs_what_no_library_has_is_not_taken(both: Path) -> None:
    _, there = _pairs(both)[0]
    blob = _blob(both, there)
    with Trial() as trial:
        trial.require_loads(blob, there.symbol)
        with pytest.raises(ProductError, match="`cuda_dialect_init_library_onee`"):
            trial.require_loads(
                blob.replace(b"\0cuda_dialect_init_library_once\0", b"\0cuda_dialect_init_library_onee\0"), there.symbol
            )


def test_stocks_disk_cache_is_not_written_for_other_hosts(cli: Cli, both: Path, spec: Path, tmp_path: Path) -> None:
    done = cli("export", spec, "--to-flash-attention", tmp_path / "stock", "--cache", both, "--target", "there")
    assert done.code == 3
    assert f"has {_THERE} hosts, and this machine is {_HERE}" in done.err
