"""What the tests of strict mode run in jobs: compiles that have nothing to do with FlashAttention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fa4_precompile
from fa4_precompile import CompileForbidden, Stats


def compile_beside_flash_attention(root: Path, on_miss: str) -> tuple[list[CompileForbidden | None], Stats]:
    """Compile an empty kernel of our own in each way that there is; return what was raised."""
    fa4_precompile.install(root, on_miss=on_miss)
    import cutlass.cute as cute

    launch = _empty(cute)
    ways: list[Callable[[], object]] = [lambda: cute.compile(launch, options="--enable-tvm-ffi")]
    if on_miss == "error":  # without a tripwire, it would go on to launch
        ways += [launch, lambda: cute.compile[cute.KeepPTX(False)](launch)]
    return [_raised(way) for way in ways], fa4_precompile.stats()


def compile_after_uninstall(root: Path) -> list[CompileForbidden | None]:
    """Compile an empty kernel in strict mode, and after it."""
    import cutlass.cute as cute

    launch = _empty(cute)
    fa4_precompile.install(root, on_miss="error")
    found = [_raised(lambda: cute.compile(launch, options="--enable-tvm-ffi"))]
    fa4_precompile.uninstall()
    return [*found, _raised(lambda: cute.compile(launch, options="--enable-tvm-ffi"))]


def _empty(cute: Any) -> Any:
    @cute.kernel  # type: ignore[untyped-decorator]
    def empty() -> None:
        pass

    @cute.jit  # type: ignore[untyped-decorator]
    def launch() -> None:
        empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

    return launch


def _raised(way: Callable[[], object]) -> CompileForbidden | None:
    try:
        way()
    except CompileForbidden as error:
        return error
    return None
