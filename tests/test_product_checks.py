"""What the builder refuses to publish. No compiling."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.errors import ProductError
from fa4_precompile.products import product
from support import SYNTHETIC_BLOB, make_record, make_target


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
    words = {
        name: getattr(record, name)
        for name in ("toolchain", "target", "slot", "key", "key_fields", "runtime_env", "spec", "variant")
    }
    names = ("facts", "selection", "cubin", "cubin_bytes", "functions", "compile_seconds", "keywords")
    made = {name: getattr(record, name) for name in names}
    compiled = product.Product(kernel=record.id, blob=SYNTHETIC_BLOB, **made, peak_bytes=1)
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
