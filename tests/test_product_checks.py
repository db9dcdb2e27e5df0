"""What the builder refuses to publish, and how it shows what it does. No compiling."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.commands.progress import BarProgress, LogProgress
from fa4_precompile.errors import ProductError
from fa4_precompile.precompile import build as build_module
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from fa4_precompile.products import product
from support import SYNTHETIC_BLOB, make_record, make_target, make_toolchain

_SPEC = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 64}]\n"


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
    record = make_record()
    words = {
        name: getattr(record, name)
        for name in ("toolchain", "target", "slot", "key", "key_fields", "runtime_env", "spec", "variant")
    }
    made = {
        name: getattr(record, name) for name in ("symbol", "facts", "selection", "cubin", "cubin_bytes", "functions")
    }
    compiled = product.Product(
        kernel=record.id, blob=SYNTHETIC_BLOB, **made, compile_seconds=record.compile_seconds, peak_bytes=1
    )
    assert compiled.record(**words) == record
    for changed in ({"slot": "bwd"}, {"key": encode_key((1,))}, {"toolchain": "0" * 32}):
        with pytest.raises(ProductError, match=f"kernel {record.id} was compiled where .* was asked for"):
            compiled.record(**(words | changed))


def test_product_that_does_not_load_in_a_fresh_process_is_refused(tmp_path: Path) -> None:
    source, output = tmp_path / "b.c", tmp_path / "b.so"
    initializer = "int fa4_right_init(void) { return 0; }\n"
    source.write_text(f"int nowhere(void); int __tvm_ffi_fa4_right(void) {{ return nowhere(); }}\n{initializer}")
    subprocess.run(["cc", "-shared", "-fPIC", "-nostartfiles", "-o", output, source], check=True)
    with pytest.raises(ProductError, match="a fresh process can't load it"):
        product.require_sound(output.read_bytes(), "fa4_right", 100, make_target())


class _Notes:
    """Takes notes of progress."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@contextmanager
def _locked(root: Root, spec: Spec, toolchain: Toolchain) -> Iterator[_Notes]:
    notes = _Notes()
    with build_module._one_build_at_a_time(Publisher(root), spec, make_target(), toolchain, notes):  # type: ignore[arg-type]
        yield notes


def test_build_whose_lock_never_comes_free_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, spec = Root(tmp_path / "cache"), parse_spec("spec.yaml", _SPEC, target_book())
    Publisher(root).create()
    monkeypatch.setattr(build_module, "_LOCK_TIMEOUT_S", 0.2)
    with _locked(root, spec, make_toolchain()) as first, _locked(root, spec, make_toolchain()) as second:
        assert first.notes == []
        assert len(second.notes) == 2
        assert "waiting" in second.notes[0]
        assert "building without" in second.notes[1]


def test_build_where_locks_do_not_work_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, spec = Root(tmp_path / "cache"), parse_spec("spec.yaml", _SPEC, target_book())
    Publisher(root).create()

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("this filesystem has no locks")

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with _locked(root, spec, make_toolchain()) as notes:
        assert notes.notes == ["no lock on the cache could be had; building without"]


def test_log_names_each_kernel_how_many_are_left_and_what_failed() -> None:
    out = io.StringIO()
    progress = LogProgress(out)
    progress.start(2, 1)
    progress.done("bwd of a", 2.5)
    progress.failed("fwd of b", "first line\nsecond line")
    lines = out.getvalue().splitlines()
    assert lines[0] == "compiling 2 kernels, 1 at a time"
    assert lines[1].startswith("[1/2, ")
    assert lines[1].endswith("built in 2.5 s: bwd of a")
    assert lines[2].endswith("FAILED: fwd of b: first line")


def test_bar_counts_kernels_and_those_that_run_and_names_what_failed(capfd: pytest.CaptureFixture[str]) -> None:
    progress = BarProgress()
    progress.start(3, 2)
    progress.done("bwd of a", 2.5)
    progress.failed("fwd of b", "why")
    progress.finish()
    shown = capfd.readouterr().err
    assert "2/3" in shown
    assert "1 running" in shown
    assert "FAILED: fwd of b: why" in shown


def test_bar_is_shown_on_a_terminal_that_does_not_know_its_size() -> None:
    # As `docker run -t` can give: a new pseudo-terminal has 0 rows and 0 columns.
    ours, theirs = pty.openpty()
    program = (
        "from fa4_precompile.commands.progress import BarProgress as Bar; "
        "bar = Bar(); bar.start(2, 1); bar.done('a', 1.0); bar.finish()"
    )
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    os.close(theirs)
    assert b"1/2" in os.read(ours, 65536)
    os.close(ours)
