"""What the DSL asks about the device and the driver, answered where there is neither."""

from __future__ import annotations

from types import ModuleType

from fa4_precompile.providers.dsl.device_facts import answer_driver_check


class _CompilerOf44:
    """A compiler that looks for a driver before it compiles, as that of the DSL 4.4 does."""

    def compile(self, code: str) -> str:
        self._check_cuda_dependencies_once([])
        return f"compiled {code}"

    def _check_cuda_dependencies_once(self, shared_libs: list[str]) -> None:
        raise RuntimeError(f"no driver, asked for {shared_libs}")


class _LaterCompiler:
    """One that does not."""

    def compile(self, code: str) -> str:
        return f"compiled {code}"


def _module(compiler: type) -> ModuleType:
    module = ModuleType("compiler")
    vars(module)["Compiler"] = compiler
    return module


def test_driver_check_of_a_compiler_that_looks_for_one_is_answered() -> None:
    answer_driver_check(_module(_CompilerOf44))
    assert _CompilerOf44().compile("a kernel") == "compiled a kernel"


def test_driver_check_that_a_compiler_does_not_make_adds_nothing_to_it() -> None:
    before = dict(vars(_LaterCompiler))
    answer_driver_check(_module(_LaterCompiler))
    assert dict(vars(_LaterCompiler)) == before


def test_driver_check_of_a_dsl_without_such_a_module_changes_nothing() -> None:
    empty = ModuleType("compiler")
    before = dict(vars(empty))
    answer_driver_check(None)
    answer_driver_check(empty)
    assert dict(vars(empty)) == before
