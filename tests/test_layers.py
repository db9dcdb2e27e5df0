"""The house: imports go one way, nothing changes at module level, and the environment is read in one place."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fa4_precompile

_ROOT = Path(fa4_precompile.__file__).resolve().parent
_LAYERS = ("errors", "cache", "precompile", "runtime", "activate", "cli")
_SOURCES = {
    path.relative_to(_ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for pattern in ("*.py", "cache/*.py", "precompile/*.py", "kernel_specs/*.py")
    for path in sorted(_ROOT.glob(pattern))
}
_EACH = pytest.mark.parametrize("name", _SOURCES)
_HEAVY = {"torch", "cutlass", "flash_attn", "quack", "triton", "numpy", "tvm_ffi"}
_NOT_FOR_THE_CLI = _HEAVY | {"yaml", "tqdm", "filelock", "elftools"}

# Tables and settings that nobody changes; everything else at module level is a constant or a definition.
_TABLES = {("__init__.py", "__all__"), ("precompile/axes.py", "AXES")}
_IMMUTABLE_MAKERS = {
    "MappingProxyType",
    "json.JSONDecoder",
    "json.JSONEncoder",
    "NewType",
    "ProviderSource",
    "TypeVar",
    "_count",
    "click.argument",
    "frozenset",
    "logging.getLogger",
    "re.compile",
    "tuple",
}

# Who reads the environment besides `Config.from_env`, and what for. None of it is a setting of ours.
_ENVIRONMENT_READERS = {
    "activate.py": "whether there is anything to do",
    "cache/config.py": "our settings",
    "cache/device.py": "what a job tells the DSL of a GPU that is not there",
    "cache/toolchain.py": "what changes the DSL's code: part of a kernel's identity",
    "precompile/keep.py": "the switches that a job has set, for the record of what it compiled",
    "precompile/link.py": "$CC",
    "precompile/pool.py": "the whole of it, handed to the fork server",
    "precompile/run.py": "the whole of it, handed to the job",
    "runtime.py": "the switches that a job has set, for explanations",
}


def _layer(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what runs when a module is imported: not the bodies of functions, not what is for type checkers only."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))


def _imports(name: str, nodes: Iterator[ast.AST] | Iterator[ast.stmt]) -> Iterator[str]:
    """Yield `.LAYER` for what is imported of this package, else the top-level package."""
    here = name.split("/")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            module = (node.module or "").split(".") if node.module else []
            for alias in node.names:
                yield "." + [*base, *module, alias.name][0]


def _at_import(name: str) -> set[str]:
    return set(_imports(name, _statements(_SOURCES[name].body)))


def _anywhere(name: str) -> set[str]:
    return set(_imports(name, ast.walk(_SOURCES[name])))


@_EACH
def test_layers_nothing_imports_a_higher_layer(name: str) -> None:
    layer = _layer(name)
    if layer not in _LAYERS:
        return
    allowed = {f".{lower}" for lower in _LAYERS[: _LAYERS.index(layer) + 1]} | {".__version__"}
    assert {item for item in _anywhere(name) if item.startswith(".")} <= allowed
    assert "fa4_precompile" not in _anywhere(name), "inside the package, imports are relative"


@pytest.mark.parametrize("name", [name for name in _SOURCES if _layer(name) in ("errors", "cache")])
def test_layers_the_cache_imports_only_the_standard_library(name: str) -> None:
    assert {item for item in _at_import(name) if not item.startswith(".")} <= sys.stdlib_module_names


@_EACH
def test_layers_nothing_heavy_is_imported_at_module_level(name: str) -> None:
    assert not _at_import(name) & _HEAVY


def _mutable(value: ast.expr | None) -> bool:
    if isinstance(value, (ast.Dict, ast.List, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
        return True
    return isinstance(value, ast.Call) and ast.unparse(value.func) not in _IMMUTABLE_MAKERS


@_EACH
def test_layers_no_module_holds_mutable_state(name: str) -> None:
    found = []
    for statement in _SOURCES[name].body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            targets, value = [statement.target], statement.value
        else:
            continue
        found += [ast.unparse(target) for target in targets if _mutable(value)]
    assert {(name, variable) for variable in found} <= _TABLES


@_EACH
def test_layers_no_function_changes_a_module(name: str) -> None:
    assert not [node for node in ast.walk(_SOURCES[name]) if isinstance(node, ast.Global)]


def test_layers_environment_is_read_where_it_is_documented_and_nowhere_else() -> None:
    readers = {
        name
        for name, tree in _SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
    }
    assert readers == set(_ENVIRONMENT_READERS)


def test_layers_our_settings_are_named_in_the_config_and_where_nothing_may_be_imported() -> None:
    named = {
        name
        for name, tree in _SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"FA4_PRECOMPILE_\w+", node.value)
    }
    assert named == {"cache/config.py", "activate.py"}


def _loaded(code: str, folder: Path) -> set[str]:
    program = f"import json, sys; {code}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_of_the_package_loads_the_standard_library_only(tmp_path: Path) -> None:
    loaded = _loaded("import fa4_precompile", tmp_path) - _loaded("pass", tmp_path)
    assert loaded - sys.stdlib_module_names == {"fa4_precompile"}


def test_import_of_the_cache_loads_the_standard_library_only(tmp_path: Path) -> None:
    modules = ", ".join(
        f"fa4_precompile.cache.{Path(name).stem}" for name in _SOURCES if name.startswith("cache/") and "__" not in name
    )
    loaded = _loaded(f"import {modules}", tmp_path) - _loaded("pass", tmp_path)
    assert loaded - sys.stdlib_module_names == {"fa4_precompile"}


def test_import_of_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = _loaded("import fa4_precompile.cli", tmp_path)
    assert "click" in loaded
    assert not loaded & _NOT_FOR_THE_CLI
