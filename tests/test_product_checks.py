"""What the builder refuses to publish. No compiling."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.errors import ProductError
from fa4_precompile.products import product
from fa4_precompile.products.trial import Trial
from support import SYNTHETIC_BLOB, make_record, make_target

_INITIALIZER = "int fa4_right_init(void) { return 0; }\n"


def _built(folder: Path, source: str) -> bytes:
    text, output = folder / "b.c", folder / "b.so"
    text.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-nostartfiles", "-o", output, text], check=True)
    return output.read_bytes()


@pytest.fixture
def shared_object(tmp_path: Path) -> bytes:
    """A shared object that exports a kernel's two symbols and is no kernel."""
    source, output = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text("int __tvm_ffi_fa4_right(void) { return 0; }\nint fa4_right_init(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-nostartfiles", "-o", output, source], check=True)
    return output.read_bytes()


def test_product_of_another_sm_is_refused(shared_object: bytes) -> None:
    with pytest.raises(ProductError, match="for SM 101, not for SM 100"):
        product.require_sound(shared_object, "fa4_right", 101, make_target())


def test_product_without_its_own_symbols_is_refused(shared_object: bytes) -> None:
    with pytest.raises(ProductError, match="instead of its own two symbols only"):
        product.require_sound(shared_object, "fa4_other", 100, make_target())


def test_product_that_loads_passes(shared_object: bytes) -> None:
    product.require_sound(shared_object, "fa4_right", 100, make_target())


def test_product_asked_for_in_words_that_describe_another_kernel_is_refused() -> None:
    record = make_record(keywords={"x": True, "y": False})
    words = {name: getattr(record, name) for name in ("toolchain", "arch", "slot", "key", "key_fields", "modifiers")}
    names = ("facts", "selection", "cubin", "cubin_bytes", "functions", "keywords")
    made = {name: getattr(record, name) for name in names}
    compiled = product.Product(
        kernel=record.id, blob=SYNTHETIC_BLOB, **made, compile_seconds=1.0, cpu_seconds=2.0, peak_bytes=1
    )
    assert compiled.record(**words) == record
    for changed in ({"slot": "bwd"}, {"key": encode_key((1,))}, {"toolchain": "0" * 32}):
        with pytest.raises(ProductError, match=f"kernel {record.id} was compiled where .* was asked for"):
            compiled.record(**(words | changed))


def test_blobs_that_do_not_load_are_told_from_those_that_do_by_one_process(
    shared_object: bytes, tmp_path: Path
) -> None:
    unresolved = _built(
        tmp_path, "int nowhere(void);\nint __tvm_ffi_fa4_right(void) { return nowhere(); }\n" + _INITIALIZER
    )
    crashing = _built(
        tmp_path,
        "__attribute__((constructor)) static void fall(void) { __builtin_trap(); }\n"
        "int __tvm_ffi_fa4_right(void) { return 0; }\n" + _INITIALIZER,
    )
    with Trial() as trial:
        trial.require_loads(shared_object, "fa4_right")
        for blob, why in (
            (unresolved, "nowhere"),
            (crashing, "killed by SIG(ILL|TRAP)"),
            (b"no library", "fa4_right"),
            (b"", "fa4_right"),
        ):
            with pytest.raises(ProductError, match=f"a fresh process can't load it: .*{why}"):
                trial.require_loads(blob, "fa4_right")
        with pytest.raises(ProductError, match=r"a fresh process can't load it: .*fa4_other"):
            trial.require_loads(shared_object, "fa4_other")
        trial.require_loads(shared_object, "fa4_right")


def test_trial_of_a_blob_that_hangs_ends_with_all_that_it_started(
    shared_object: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fa4_precompile.products.trial._TIME_LIMIT_S", 2)
    mark = tmp_path / "pid"
    hanging = _built(
        tmp_path,
        "#include <stdio.h>\n#include <unistd.h>\n"
        "__attribute__((constructor)) static void hang(void)\n"
        f'{{ FILE *file = fopen("{mark}", "w"); fprintf(file, "%d", getpid()); fclose(file); for (;;) pause(); }}\n'
        "int __tvm_ffi_fa4_right(void) { return 0; }\n" + _INITIALIZER,
    )
    with Trial() as trial:
        with pytest.raises(ProductError, match="did not load it within 2 s"):
            trial.require_loads(hanging, "fa4_right")
        while _is_alive(int(mark.read_text())):
            time.sleep(0.01)
        trial.require_loads(shared_object, "fa4_right")


def test_trial_whose_process_does_not_start_says_its_last_words(
    shared_object: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fa4_precompile.products.trial._LOAD", "import sys; sys.exit('no run-time library here')")
    with Trial() as trial:
        for _ in range(2):
            with pytest.raises(ProductError, match="a fresh process can't load it: no run-time library here"):
                trial.require_loads(shared_object, "fa4_right")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
