"""Linking: what a blob exports, and that its initializer and its kernel's first call do one and the same thing.

The object files are made up here and compiled from C: they play the DSL's part, as do the functions of a made-up
run-time library, which count what they are asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.target import host_machine
from fa4_precompile.errors import Fa4PrecompileError, MachineError
from fa4_precompile.products.cubin import exported_symbols
from fa4_precompile.products.link import find_linker, link

_SYMBOL = "fa4_madeup"

# What the DSL makes of a kernel, as far as linking has to do with it: the state of what is loaded is its own, its
# functions' names have the kernel's in them, and it unloads when the library is closed.
_DSL = f"""
typedef void function(void);
extern int cuda_dialect_init_library_once(long *, function *, function *, function *);
extern void cuda_dialect_unload_library_once(long *);
extern function TVMFFIErrorSetRaisedFromCStr;
extern int initialized, loaded;
static long own_state;

void __cute_internal_{_SYMBOL}_cuda_init(void) {{ initialized++; }}
void __cute_internal_{_SYMBOL}_cuda_load_to_device(void) {{ loaded++; }}
int something_that_every_kernel_has(void) {{ return 7; }}

int __tvm_ffi_{_SYMBOL}(void *self, void *arguments, int count, void *result)
{{
    return cuda_dialect_init_library_once(
        &own_state,
        __cute_internal_{_SYMBOL}_cuda_init,
        __cute_internal_{_SYMBOL}_cuda_load_to_device,
        TVMFFIErrorSetRaisedFromCStr);
}}

__attribute__((destructor)) static void close(void) {{ cuda_dialect_unload_library_once(&own_state); }}
"""

_RUN_TIME = """
typedef void function(void);
int initialized, loaded, calls, unloads, fails;
long *states[16];
function *raisers[16];

void TVMFFIErrorSetRaisedFromCStr(void) {}

int cuda_dialect_init_library_once(long *state, function *init, function *load, function *raise)
{
    raisers[calls] = raise;
    states[calls++] = state;
    if (fails)
        return 1;
    if (!*state) {
        *state = 1;
        init();
        load();
    }
    return 0;
}

void cuda_dialect_unload_library_once(long *state)
{
    unloads++;
    if (state != states[0] || !*state)
        unloads = -99;
    *state = 0;
}
"""

# Says what a run-time library has counted after each step.
_JOB = f"""
import _ctypes, ctypes, json, sys
run_time = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
blobs = [ctypes.CDLL(path) for path in sys.argv[3:]]
def number(name): return ctypes.c_int.in_dll(run_time, name).value
def state():
    calls = number("calls")
    states = (ctypes.c_void_p * 16).in_dll(run_time, "states")[:calls]
    raisers = set((ctypes.c_void_p * 16).in_dll(run_time, "raisers")[:calls])
    own = {{ctypes.cast(run_time.TVMFFIErrorSetRaisedFromCStr, ctypes.c_void_p).value}}
    return [number("initialized"), number("loaded"), calls, len(set(states)), number("unloads"), raisers <= own]
steps = []
for step in sys.argv[2].split(","):
    what, _, which = step.partition(":")
    blob, code = blobs[int(which or 0)], None
    if what == "fail":
        ctypes.c_int.in_dll(run_time, "fails").value = 1
    elif what == "close":
        _ctypes.dlclose(blob._handle)
    else:
        code = (blob.{_SYMBOL}_init if what == "initialize" else blob["__tvm_ffi_{_SYMBOL}"])(None, None, 0, None)
    steps.append([code, *state()])
print(json.dumps(steps))
"""


def _compile(path: Path, source: str, *options: str) -> Path:
    path.with_suffix(".c").write_text(source)
    command = [*find_linker(), "-fPIC", *options, "-o", str(path), str(path.with_suffix(".c"))]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def object_file(tmp_path: Path) -> Path:
    """What the DSL would have exported."""
    return _compile(tmp_path / "kernel.o", _DSL, "-c")


@pytest.fixture
def blob(tmp_path: Path, object_file: Path) -> Path:
    """What is made of it."""
    path = tmp_path / "blob.so"
    path.write_bytes(link(object_file, _SYMBOL))
    return path


def _steps(tmp_path: Path, steps: str, *blobs: Path) -> Any:
    """Return what is counted after each step: [returned, initialized, loaded, calls, states, unloads, reports]."""
    run_time = _compile(tmp_path / "run_time.so", _RUN_TIME, "-shared")
    line = [sys.executable, "-c", _JOB, str(run_time), steps, *map(str, blobs)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# What it exports


def test_blob_exports_the_kernels_function_and_its_initializer_and_nothing_else(blob: Path) -> None:
    assert exported_symbols(blob.read_bytes()) == {f"__tvm_ffi_{_SYMBOL}", f"{_SYMBOL}_init"}


def test_blob_of_the_same_object_has_the_same_bytes(object_file: Path, blob: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "kernel.o"
    copy.parent.mkdir()
    shutil.copy(object_file, copy)
    assert link(copy, _SYMBOL) == blob.read_bytes()


def test_object_that_is_named_from_here_is_found(
    object_file: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(object_file.parent)
    assert link(Path(object_file.name), _SYMBOL) == blob.read_bytes()


def test_blob_does_not_depend_on_what_the_environment_tells_the_compiler(
    object_file: Path, blob: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "stdio.h").write_text("#error\n")
    for name in ("LD_RUN_PATH", "LIBRARY_PATH", "CPATH", "GCC_EXEC_PREFIX", "COMPILER_PATH", "C_INCLUDE_PATH"):
        monkeypatch.setenv(name, str(libraries))
    for name in ("NIX_LDFLAGS", "LDFLAGS", "CFLAGS", "NIX_CFLAGS_COMPILE"):
        monkeypatch.setenv(name, f"-L{libraries} -Wl,-rpath,{libraries} -g")
    assert link(object_file, _SYMBOL) == blob.read_bytes()


def test_compiler_finds_programs_libraries_and_temporary_files_where_this_process_does(
    object_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nenv >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    expected = {"TMPDIR": str(tmp_path), "LD_LIBRARY_PATH": "/opt/gcc/lib64", "LC_ALL": "C"}
    for name in ("TMPDIR", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, expected[name])
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with pytest.raises(Fa4PrecompileError) as caught:
        link(object_file, _SYMBOL)
    for name, value in {**expected, "PATH": os.environ["PATH"]}.items():
        assert f"\n{name}={value}" in str(caught.value)


# What its initializer does


@pytest.mark.skipif(host_machine() != "x86_64", reason="the options are of x86_64")
def test_blob_has_the_same_bytes_whatever_a_distribution_turns_on_by_itself(
    object_file: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardened = [
        *find_linker(),
        "-fcf-protection=full",
        "-fstack-protector-all",
        "-fident",
        "-fasynchronous-unwind-tables",
    ]
    monkeypatch.setenv("CC", " ".join(hardened))
    assert link(object_file, _SYMBOL) == blob.read_bytes()


def test_initializer_and_then_the_kernels_first_call_load_the_cubin_once(tmp_path: Path, blob: Path) -> None:
    first, second = _steps(tmp_path, "initialize,call", blob)
    assert first == [0, 1, 1, 1, 1, 0, True]
    assert second == [0, 1, 1, 2, 1, 0, True]


def test_kernels_first_call_and_then_the_initializer_load_the_cubin_once(tmp_path: Path, blob: Path) -> None:
    *_, last = _steps(tmp_path, "call,call,initialize,initialize", blob)
    assert last == [0, 1, 1, 4, 1, 0, True]


def test_blob_that_is_closed_unloads_what_the_initializer_has_loaded(tmp_path: Path, blob: Path) -> None:
    *_, last = _steps(tmp_path, "initialize,close", blob)
    assert last == [None, 1, 1, 1, 1, 1, True]


def test_initializer_returns_what_the_driver_says(tmp_path: Path, blob: Path) -> None:
    _, refused = _steps(tmp_path, "fail,initialize", blob)
    assert refused[:3] == [1, 0, 0]


def test_blobs_do_not_share_what_they_have_loaded(tmp_path: Path, blob: Path) -> None:
    # Two of the same symbols, as two toolchains' builds of one kernel could be.
    other = tmp_path / "other.so"
    shutil.copy(blob, other)
    *_, last = _steps(tmp_path, "initialize:0,initialize:1,call:0,call:1", blob, other)
    assert last == [0, 2, 2, 4, 2, 0, True]


# What goes wrong


def test_object_that_is_none_is_an_error_with_the_linkers_words(tmp_path: Path) -> None:
    (tmp_path / "kernel.o").write_text("no object file")
    with pytest.raises(Fa4PrecompileError) as caught:
        link(tmp_path / "kernel.o", _SYMBOL)
    assert "failed:\n" in str(caught.value)
    assert f"-Wl,--version-script=exports -o kernel.so {tmp_path / 'kernel.o'}" in str(caught.value)
    assert len(str(caught.value).split("failed:\n")[1]) > 20


def test_object_that_defines_what_we_add_is_an_error_and_not_a_guess(tmp_path: Path) -> None:
    source = f"{_DSL}\nint {_SYMBOL}_init(void) {{ return 0; }}\n"
    with pytest.raises(Fa4PrecompileError, match=f"{_SYMBOL}_init"):
        link(_compile(tmp_path / "kernel.o", source, "-c"), _SYMBOL)


def test_compiler_that_the_user_names_is_used(object_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false --as-it-is")
    with pytest.raises(Fa4PrecompileError, match="`false --as-it-is -shared"):
        link(object_file, _SYMBOL)


def test_compiler_that_the_user_names_and_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(MachineError, match="`CC=no-such-compiler -O2` is no command here") as caught:
        find_linker()
    assert "set `CC`" in caught.value.hint


def test_machine_without_a_compiler_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"no C compiler was found \(cc, gcc, clang\)") as caught:
        find_linker()
    assert "apt-get install gcc" in caught.value.hint


def test_first_compiler_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    for name in ("clang", "gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert find_linker() == ["gcc"]
