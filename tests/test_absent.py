"""A job without the compiler: FlashAttention is imported with stand-ins for the DSL, in a venv that has none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import absent_tasks
import pytest
from absent_tasks import calls_of
from fa4_copies import HUB_ID, copy_as_module, copy_as_of_the_hub
from job_venv import make_job_venv

import jobs
from product import Finished, command, copy_cache, run
from support import overwrite, write_distribution

pytestmark = pytest.mark.compiles

_CALL = """
import importlib, json, sys, torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
import fa4_precompile
torch.version.cuda = "13.0"

def call(package="flash_attn.cute", head_dim=64, causal=True, **options):
    with FakeTensorMode(), torch.no_grad():
        q, k, v = (torch.empty(2, 4096, 2, head_dim, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        return importlib.import_module(package + ".interface").flash_attn_func(q, k, v, causal=causal, **options)

def tell(*more):
    stats = asdict(fa4_precompile.stats())
    print(json.dumps([stats["resolved"], stats["missed"], stats["compiled"], *more]))

def seen():
    return [name for name in sys.modules if name.partition(".")[0] in ("cutlass", "quack")]
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an image with no DSL, quack, triton, numpy, einops or bindings of CUDA."""
    return make_job_venv(tmp_path_factory.mktemp("bare") / "venv")


def _job(python: Path | str, cache: Path, *program: str, **environment: str) -> Finished:
    return jobs.run_from_scratch(
        [str(python), "-c", "\n".join(program)], **{"FA4_PRECOMPILE_CACHE": str(cache), **environment}
    )


def _told(done: Finished) -> list[object]:
    assert done.code == 0, done.err
    told: list[object] = json.loads(done.out.splitlines()[-1])
    return told


# Keys


_EVERY_AXIS = str(Path(__file__).with_name("every_axis.yaml"))
_SPECS = {"b200": ["quickstart", "fa4_sm100", "fa4_hd256", "magi_attention", _EVERY_AXIS], "h100": ["fa4_sm90"]}


@pytest.mark.long
@pytest.mark.parametrize("target", _SPECS)
def test_keys_of_a_spec_are_the_same_with_stand_ins_as_with_the_dsl(target: str, effort: int) -> None:
    calls = {spec: calls_of(spec)[1] for spec in _SPECS[target]}
    # The environment with most calls; a switch is read with the DSL or without.
    for environment in sorted(set().union(*calls.values())) if effort > 1 else [()]:
        specs = [spec for spec in calls if environment in calls[spec]]
        arguments = target, json.dumps(environment), *specs
        present, absent = (_looked_up(way, *arguments) for way in ("present", "absent"))
        for spec in specs:
            lines = present[spec]
            assert len(lines) >= len(calls[spec][environment])
            assert absent[spec] == lines
            assert any("class" in line for line in lines) or all("refused" in line for line in lines)


def _looked_up(way: str, *arguments: str) -> dict[str, list[str]]:
    """Return what the calls of each spec look up: all in one process, which pays its imports once."""
    done = jobs.run_from_scratch([sys.executable, absent_tasks.__file__, way, *arguments])
    assert done.code == 0, done.err
    found: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        spec, _, looked_up = line.partition(" ")
        found.setdefault(spec, []).append(looked_up)
    return found


# What a job without the DSL does


@pytest.mark.parametrize(
    "first", ["import torch", pytest.param("import flash_attn.cute.interface", marks=pytest.mark.long)]
)
def test_job_in_a_venv_without_the_dsl_resolves_what_its_cache_has_and_tells_nobody_else_that_the_dsl_is_there(
    bare: Path, small_cache: Path, first: str
) -> None:
    """Also where it is FlashAttention that imports torch, and so the loader."""
    program = """
import importlib.util
stand_ins, found = seen(), []
for name in ("cutlass", "cutlass.cute", "quack"):
    try:
        importlib.import_module(name)
        found.append(name)
    except ModuleNotFoundError:
        pass
tell(stand_ins, found, importlib.util.find_spec("cutlass") is None)
"""
    told = _told(_job(bare, small_cache, first, _CALL, "call()", program, FA4_PRECOMPILE_ON_MISS="error"))
    assert told == [1, {}, 0, [], [], True]


def test_job_without_the_dsl_compares_its_variables_and_not_what_is_not_installed(
    bare: Path, small_cache: Path
) -> None:
    program = f"""
from pathlib import Path
from fa4_precompile.cache.fit import Fit
from fa4_precompile.loader.resolve import Cache
cache = Cache([Path({str(small_cache)!r})], fit=Fit.EXACT)
print(cache.has_toolchain or cache.why_unfit)
"""
    assert _job(bare, small_cache, program).out.strip() == "True"
    said = _job(bare, small_cache, program, CUTE_DSL_LINEINFO="1").out
    assert ": environment.CUTE_DSL_LINEINFO absent there, 1 here; `FA4_PRECOMPILE_TOOLCHAIN=compatible` takes" in said


def test_miss_in_a_job_without_the_dsl_raises_with_the_usual_reasons(bare: Path, small_cache: Path) -> None:
    program = f"""
told = []
for on_miss in ("error", "warn", "compile"):
    fa4_precompile.install({str(small_cache)!r}, on_miss=on_miss)
    try: call(head_dim=128)
    except fa4_precompile.KernelMissing as error:
        stats = fa4_precompile.stats()
        told.append([stats.resolved, stats.missed, stats.compiled, str(error)])
tell(told)
"""
    first = f"import fa4_precompile; fa4_precompile.install({str(small_cache)!r})"
    told = _told(_job(bare, small_cache, first, _CALL, program, FA4_PRECOMPILE_CACHE=""))[-1]
    assert isinstance(told, list)
    assert len(told) == 3
    for resolved, missed, compiled, error in told:
        assert (resolved, missed, compiled) == (0, {"absent": 1}, 0)
        assert "this job runs without the compiler, so nothing else can answer" in error
        assert "nearest: " in error
        assert "head_dim: 128" in error  # the lines of a spec that add it


def test_job_without_the_dsl_that_is_to_store_is_told_that_it_can_not(bare: Path, small_cache: Path) -> None:
    done = _job(bare, small_cache, "import torch", FA4_PRECOMPILE_ON_MISS="store")
    assert done.code == 0
    assert "`on_miss=store` compiles, and this job runs without the compiler" in done.err


def test_import_of_flash_attention_that_fails_half_way_leaves_no_stand_in_behind(
    bare: Path, small_cache: Path, tmp_path: Path
) -> None:
    copy_as_module(tmp_path, "broken.cute")
    interface = tmp_path / "broken" / "cute" / "interface.py"
    interface.write_text(interface.read_text() + "\nraise OSError('half way')\n")
    program = "\ntry: import broken.cute.interface\nexcept OSError as error: said = str(error)\n"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    variables = {"PYTHONPATH": path, "FA4_PRECOMPILE_COMPILER": "absent"}
    told = _told(_job(bare, small_cache, program, _CALL, "tell(said, seen())", **variables))
    assert told == [0, {}, 0, "half way", []]


def test_compiler_that_is_installed_is_not_imported_by_a_job_that_asks_for_none(small_cache: Path) -> None:
    program = (_CALL, "call()", "tell(seen())")
    assert _told(_job(sys.executable, small_cache, *program, FA4_PRECOMPILE_COMPILER="absent")) == [1, {}, 0, []]


def test_run_without_the_compiler_sets_it_for_the_job(small_cache: Path) -> None:
    arguments = (
        "run",
        "--cache",
        small_cache,
        "--no-compiler",
        "--",
        sys.executable,
        "-c",
        _CALL + "call()\ntell(seen())",
    )
    assert _told(jobs.run_from_scratch(command(*arguments))) == [1, {}, 0, []]
    refused = run("run", "--cache", small_cache, "--no-compiler", "--on-miss", "store", "--", "true")
    assert refused.code == 2
    assert "`--no-compiler` and `--on-miss store` contradict each other" in refused.err


@pytest.mark.long
def test_dsl_that_is_installed_in_part_is_said_and_counts_as_absent_if_that_is_asked(
    bare: Path, small_cache: Path, tmp_path: Path
) -> None:
    write_distribution(tmp_path, "nvidia-cutlass-dsl", "4.8.1", {})
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])}
    done = _job(bare, small_cache, _CALL, "call()", **path)
    said = "the DSL is installed in part, without the package `cutlass`, the library `libcute_dsl_runtime.so`"
    assert said in done.err
    assert "No module named 'cutlass'" in done.err
    done = _job(bare, small_cache, _CALL, "call()", "tell(seen())", FA4_PRECOMPILE_COMPILER="absent", **path)
    assert _told(done) == [1, {}, 0, []]
    assert "in part" not in done.err


@pytest.mark.long
def test_flash_attention_that_was_imported_with_its_compiler_keeps_it(small_cache: Path) -> None:
    program = (
        "import fa4_precompile, flash_attn.cute.interface, logging",
        "logging.basicConfig()",
        f"fa4_precompile.install({str(small_cache)!r}, compiler='absent')",
        _CALL,
        "call()",
        "tell('cutlass' in sys.modules)",
    )
    done = _job(sys.executable, small_cache, *program, FA4_PRECOMPILE_CACHE="")
    assert _told(done) == [1, {}, 0, True]
    assert "`flash_attn.cute` was imported before the loader, with its compiler, and keeps it" in done.err


@pytest.mark.long
def test_miss_of_what_keeps_its_compiler_is_compiled(small_cache: Path) -> None:
    program = (
        "import fa4_precompile, flash_attn.cute.interface",
        f"fa4_precompile.install({str(small_cache)!r}, compiler='absent')",
        "import cutlass.cute",
        "cutlass.cute.compile = lambda *_, **__: lambda *_, **__: None",  # fake tensors launch nothing
        _CALL,
        "call(head_dim=128)",
        "tell()",
    )
    done = _job(sys.executable, small_cache, *program, FA4_PRECOMPILE_CACHE="")
    assert _told(done) == [0, {"absent": 1}, 1]


@pytest.mark.long
def test_compile_of_another_package_goes_on_beside_one_without_its_compiler(small_cache: Path, tmp_path: Path) -> None:
    program = (
        _CALL,
        "call()",
        "import mine",
        "mine.compile_empty()",
        "tell(seen() != [])",
    )
    (tmp_path / "mine.py").write_text("""
import cutlass.cute as cute

@cute.kernel
def empty(): pass

@cute.jit
def launch(): empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

def compile_empty(): return cute.compile(launch, options="--enable-tvm-ffi")
""")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    done = _job(sys.executable, small_cache, *program, FA4_PRECOMPILE_COMPILER="absent", PYTHONPATH=path)
    assert _told(done) == [1, {}, 0, True]
    strict = {"FA4_PRECOMPILE_COMPILER": "absent", "FA4_PRECOMPILE_ON_MISS": "error", "PYTHONPATH": path}
    assert "CompileForbidden" in _job(sys.executable, small_cache, *program, **strict).err


def test_job_that_can_do_without_flash_attention_does_so_where_no_cache_makes_up_for_the_dsl(
    bare: Path, small_cache: Path, tmp_path: Path
) -> None:
    program = """
import torch
try: import flash_attn.cute
except ImportError as error: print("without", error)
"""
    (tmp_path / "empty").mkdir()
    both = {"FA4_PRECOMPILE_CACHE": f"{tmp_path / 'empty'}:{tmp_path / 'nowhere'}"}
    done = _job(bare, tmp_path, program, **both)
    assert (done.code, done.out) == (0, "without No module named 'cutlass'\n"), done.err
    assert "`cutlass` is not installed, and the cache does not make up for it" in done.err


@pytest.mark.long
def test_second_install_goes_on_with_what_was_imported_without_the_compiler(bare: Path, small_cache: Path) -> None:
    program = (
        _CALL,
        "call()",
        f"fa4_precompile.install({str(small_cache)!r})",
        "import flash_attn.cute.compute_block_sparsity",
        "call()",
        "try: call(head_dim=128)",
        "except fa4_precompile.KernelMissing as error: tell(str(error))",
    )
    done = _job(bare, small_cache, *program)
    resolved, missed, compiled, error = _told(done)
    assert (resolved, missed, compiled) == (1, {"absent": 1}, 0)
    assert "this job runs without the compiler" in str(error)
    assert "keeps it" not in done.err


@pytest.mark.long
def test_compiler_is_not_to_be_had_again_in_a_process(small_cache: Path) -> None:
    program = f"""
call()
said = []
for on_miss in ("store", "warn"):
    try:
        fa4_precompile.install({str(small_cache)!r}, compiler='present', on_miss=on_miss)
        call(head_dim=128)
    except fa4_precompile.Fa4PrecompileError as error: said.append([type(error).__name__, str(error)])
tell(said)
"""
    done = _job(sys.executable, small_cache, _CALL, program, FA4_PRECOMPILE_COMPILER="absent")
    assert "what was imported without the compiler in this process stays so" in done.err
    store, warn = json.loads(done.out.splitlines()[-1])[-1]
    assert store[0] == "UsageError"
    assert warn[0] == "KernelMissing"
    assert "this job runs without the compiler" in store[1]
    assert "this job runs without the compiler" in warn[1]


@pytest.mark.long
def test_mask_of_ours_has_the_compiler_where_flash_attention_keeps_it(small_cache: Path) -> None:
    program = (
        "import fa4_precompile, flash_attn.cute.interface",
        f"fa4_precompile.install({str(small_cache)!r}, compiler='absent')",
        _CALL,
        "from fa4_precompile.masks import segment_mods",
        "tell(type(segment_mods.cutlass).__name__)",
    )
    assert _told(_job(sys.executable, small_cache, *program, FA4_PRECOMPILE_CACHE=""))[3] == "module"


def test_module_that_is_loaded_when_it_is_first_used_is_left_so(bare: Path, small_cache: Path) -> None:
    program = """
import torch, fa4_precompile, importlib.util, sys
spec = importlib.util.find_spec("colorsys")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["colorsys"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
fa4_precompile.install("{root}")
fa4_precompile.install("{root}", compiler="present")
print(object.__getattribute__(module, "__class__").__name__)
"""
    for python in (str(bare), sys.executable):
        done = _job(python, small_cache, program.replace("{root}", str(small_cache)))
        assert (done.code, done.out) == (0, "_LazyModule\n"), done.err


@pytest.mark.long
def test_mask_in_a_module_of_the_jobs_own_finds_the_stand_ins_if_it_is_named(bare: Path, small_cache: Path) -> None:
    program = (
        "import score_mods\ntry: call(mask_mod=score_mods.all_visible)\nexcept fa4_precompile.KernelMissing: tell()\n"
    )
    named = _job(bare, small_cache, _CALL, program, FA4_PRECOMPILE_DSL_USERS="score_mods")
    assert _told(named) == [0, {"absent": 1}, 0]
    unnamed = _job(bare, small_cache, _CALL, program)
    assert "No module named 'cutlass'" in unnamed.err


@pytest.mark.long
@pytest.mark.parametrize("name", ["madeup.attention.cute", HUB_ID])
def test_packages_of_the_lineage_under_other_names_are_served_without_the_dsl(
    name: str, bare: Path, tmp_path: Path
) -> None:
    modules, load = [""], ""
    words = f"module: {name}"
    if name == HUB_ID:
        folder = copy_as_of_the_hub(tmp_path)
        modules, words = ["", str(folder)], f"folder: {folder}"
        load = f"""
import importlib.util
spec = importlib.util.spec_from_file_location({name!r}, {str(folder / "__init__.py")!r})
sys.modules[{name!r}] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
    else:
        copy_as_module(tmp_path, name)
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"""
version: 1
provider: {{name: flash-attn-4, {words}}}
targets: [b200]
kernels:
- {{name: a, pass: fwd, dtype: bf16, head_dim: 64, causal: true}}
""")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    built = run("build", spec, "--cache", tmp_path / "cache", environment={"PYTHONPATH": path})
    assert built.code == 0, built.err
    program = (_CALL, load, f"call({name!r})", "tell(seen())")
    for module in modules:
        done = _job(bare, tmp_path / "cache", *program, PYTHONPATH=path, FA4_PRECOMPILE_MODULE=module)
        assert _told(done) == [1, {}, 0, []]


# The run-time library


def test_run_time_library_is_verified_before_it_is_loaded(bare: Path, small_cache: Path, tmp_path: Path) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache")
    library = max((cache / "blobs").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(library.read_bytes())
    data[20_000_000] ^= 1
    overwrite(library, bytes(data))
    told = _told(_job(bare, cache, _CALL, "try: call()", "except Exception as error: tell(repr(error), str(error))"))
    assert told[:3] == [0, {}, 0]
    assert "LoadError" in str(told[3])
    assert "libcute_dsl_runtime.so" in str(told[4])
    verified = run("verify", "--cache", cache)
    assert verified.code == 1
    assert "libraries/" in verified.out
    assert library.name in verified.out


@pytest.mark.long
def test_run_time_library_that_is_gone_is_put_into_the_cache_by_the_next_build(
    bare: Path, small_spec: Path, small_cache: Path, tmp_path: Path
) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache")
    (library,) = (cache / "libraries").iterdir()
    library.unlink()
    without = _job(bare, cache, _CALL, "call()")
    assert without.code == 1
    assert "no root has the run-time library that its kernels need; building into it again adds that" in without.err
    assert "No module named 'cutlass'" in without.err
    built = run("build", small_spec, "--cache", cache)
    assert "0 built" in built.err
    assert library.exists()
    assert _told(_job(bare, cache, _CALL, "call()", "tell()")) == [1, {}, 0]


def test_run_time_library_is_one_blob_whatever_number_of_builds(small_spec: Path, small_cache: Path) -> None:
    again = run("build", small_spec, "--cache", small_cache)
    assert "0 built" in again.err
    assert len([path for path in (small_cache / "blobs").rglob("*") if path.stat().st_size > 10_000_000]) == 1


# The commands in an image without the DSL


def _command(python: Path, *arguments: object) -> Finished:
    return jobs.run_from_scratch([str(python), "-m", "fa4_precompile", *map(str, arguments)])


def test_check_in_an_image_without_the_dsl_compares_with_what_jobs_need(
    bare: Path, small_spec: Path, small_cache: Path, tmp_path: Path
) -> None:
    done = _command(bare, "check", small_spec, "--cache", small_cache)
    assert (done.code, done.out) == (0, "b200: small is here whole and fits: 6 kernels\n"), done.err
    cache = copy_cache(small_cache, tmp_path / "cache")
    (library,) = (cache / "libraries").iterdir()
    library.unlink()
    done = _command(bare, "check", small_spec, "--cache", cache)
    assert done.code == 1
    assert "the run-time library is not in the cache as it should be, nor is the DSL installed" in done.out


def test_doctor_of_an_image_says_what_it_has_and_what_it_could_drop(bare: Path, small_cache: Path) -> None:
    done = _command(bare, "doctor", "--role", "job", "--cache", small_cache)
    assert done.code == 0, done.out
    assert "libcute_dsl_runtime.so load, the latter from the cache" in done.out
    assert "compiler: not installed; what the cache does not have raises in a job" in done.out
    assert "could drop" not in done.out
    here = run("doctor", "--role", "job", "--cache", small_cache)
    (line,) = [line for line in here.out.splitlines() if "could drop" in line]
    assert "nvidia-cutlass-dsl-libs-base" in line
    assert "quack-kernels" in line
    assert "torch " not in line


def test_commands_that_compile_say_that_there_is_no_dsl(bare: Path, small_spec: Path, tmp_path: Path) -> None:
    done = _command(bare, "build", small_spec, "--cache", tmp_path / "cache")
    assert done.code == 3
    assert "`nvidia-cutlass-dsl` is not installed, so nothing can be compiled here" in done.err
