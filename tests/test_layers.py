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

# Every room, with those whose doors it may open. Down only: `products -> providers -> cache -> errors`; a build
# (`precompile`) and a job (`loader`) stand side by side and don't know each other.
_ROOMS = {
    "errors": set[str](),
    "text": {"errors"},
    "cache": {"errors"},
    "carry": {"cache", "text", "errors"},
    "providers": {"cache", "text", "errors"},
    "products": {"providers", "cache", "errors"},
    "loader": {"products", "providers", "cache", "errors"},
    "precompile": {"products", "providers", "carry", "cache", "text", "errors"},
    "canary": {"loader", "providers", "cache", "text", "errors"},
    "reports": {"loader", "cache", "text", "errors"},
    "commands": {
        "reports",
        "canary",
        "precompile",
        "loader",
        "carry",
        "products",
        "providers",
        "cache",
        "text",
        "errors",
        "__version__",
    },
    "masks": {"errors"},
    "kernel_specs": set[str](),
    "activate": {"loader", "errors"},
    "cli": {"commands", "loader", "errors", "__version__"},
    "__main__": {"cli"},
    "__init__": {"precompile", "loader", "providers", "cache", "errors"},
}
_NOT_OURS = ("tests", "benchmarks", "examples", "docs", "build", "dist", ".venv", "setup.py")
_SOURCES = {
    path.relative_to(_ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(_ROOT.rglob("*.py"))
    if path.relative_to(_ROOT).parts[0] not in _NOT_OURS
}
_EACH = pytest.mark.parametrize("name", _SOURCES)
_HEAVY = {"torch", "cutlass", "flash_attn", "quack", "triton", "numpy", "tvm_ffi"}
_NOT_FOR_THE_CLI = _HEAVY | {"yaml", "tqdm", "filelock", "elftools", "dataclasses", "logging", "traceback"}

# The one room that knows FlashAttention-4, and what of it must be said nowhere else. Its masks are for users of it.
_FA4 = "providers/fa4/"
_FA4_WORDS = re.compile(r"flash_attn|FlashAttention|FLASH_ATTENTION|\bFA_|quack|compile_cache|hd256")
_SAYS_FA4 = {
    "masks/segment_mods.py": "a mask of FlashAttention's: its own helper makes the result",
    "masks/segments.py": "block lists as FlashAttention takes them",
    "precompile/spec/spec.py": "an example in a message",
}

# Tables and settings that nobody changes; everything else at module level is a constant or a definition.
_TABLES = {
    ("__init__.py", "__all__"),
    ("precompile/engines/worker.py", "_WORKER"),  # an engine's process: what it calls has to find its fork servers
}
_IMMUTABLE_MAKERS = {
    "Family",
    "FlashAttn4",
    "Guard",
    "MappingProxyType",
    "NewType",
    "Patience",
    "TypeVar",
    "Kind",
    "KnownBad",
    "Vouchers",
    "bytes",
    "_of_libc",
    "bytes.maketrans",
    "click.argument",
    "count",
    "frozenset",
    "json.JSONDecoder",
    "json.JSONEncoder",
    "logging.getLogger",
    "option",
    "re.compile",
    "tuple",
}

# State that hides: what a process remembers outside its objects, and why it may.
_REMEMBERED = {
    ("cache/contents.py", "functools.cached_property"): "the digest of a frozen list, which is long",
    ("cache/record.py", "functools.cached_property"): "the id of a frozen object, which each step of a reader asks for",
    ("loader/absence.py", "sys.meta_path"): "finds stand-ins for a package in the middle of its import",
    ("providers/dsl/absent.py", "sys.meta_path"): "is taken out when that import has ended",
    ("loader/imports.py", "sys.meta_path"): "asks the finders behind it",
    ("loader/keep.py", "threading.local"): "what a thread compiles just now",
    ("loader/served.py", "threading.local"): "what a thread has just been told",
    ("loader/loader.py", "sys.meta_path"): "takes note of the provider's import; by it a process knows its loader",
    ("masks/segment_mods.py", "globals"): "a mask is made once, and is then a name of the module as any other",
    ("precompile/compile/worker.py", "functools.cache"): "the fork server's one provider, which its children find",
    ("precompile/engines/ourselves.py", "functools.cache"): "what this process has imported stays as it is",
    ("precompile/sizes.py", "functools.cache"): "an answer of ten seconds, promised to be remembered",
    ("precompile/spec/spec.py", "functools.cached_property"): "of a frozen object that no job has",
    ("providers/fa4/beside.py", "functools.cache"): "an installed package's neighbours stay, and each key asks",
    ("providers/functions/describe.py", "functools.cached_property"): "nothing: classes of the user's can have one",
    ("providers/loaded.py", "sys.meta_path"): "asks the finders whether a package's name leads to its folder",
    ("providers/fa4/declared.py", "functools.cache"): "one parse for all that is asked of a text, in each child too",
    ("providers/fa4/keys.py", "functools.cache"): "a loaded module's source does not change",
    ("providers/fa4/launches.py", "functools.cache"): "a loaded module's source does not change",
    ("reports/job.py", "functools.cached_property"): "of a frozen report, and each of a thousand ranks asks",
    ("providers/fa4/slots.py", "functools.cache"): "a loaded module's source does not change",
}
_HIDING_PLACES = re.compile(
    r"functools\.(cache|lru_cache|cached_property)|sys\.(meta_path|path_hooks)|globals|threading\.local"
)

# Who reads the environment besides `Config.from_env`, and what for. None of it is a setting of ours.
_ENVIRONMENT_READERS = {
    "activate.py": "whether there is anything to do",
    "canary/children.py": "the whole of it, handed to the processes that make calls",
    "carry/wire.py": "where Docker's settings are, as Docker has it",
    "commands/run.py": "the whole of it, handed to the job",
    "loader/config.py": "our settings",
    "loader/device.py": "what a job tells the DSL of a GPU that is not there",
    "loader/install.py": "the switches that a job has set, for explanations",
    "loader/keep.py": "the switches that a job has set, for the record of what it compiled",
    "precompile/audit/steady.py": "the whole of it, handed to a build",
    "precompile/compile/pool.py": "the whole of it, handed to the fork server",
    "loader/ranks.py": "which rank of a job this process is",
    "products/link.py": "$CC, and the few that the C compiler needs to run",
    "providers/dsl/installation.py": "what changes the DSL's code: part of a kernel's identity",
}

_MOST_LINES = 400


def _room(name: str) -> str:
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
    """Yield `.ROOM` for what is imported of this package, else the top-level package."""
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


def _target(node: ast.ImportFrom) -> list[str]:
    """Return the parts of the names that an import of this package brings."""
    parts = (node.module or "").split(".") if node.level else []
    return [*parts, *(alias.name for alias in node.names)] if node.level else []


def _texts(tree: ast.Module) -> Iterator[str]:
    """Yield the strings of a module, but for the docstrings."""
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    strings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told | strings:
            yield node.value
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield ast.unparse(node)


def _places(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module uses, those that it has from another module with that in front."""
    origin = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            yield origin.get(ast.unparse(node), ast.unparse(node))


def _at_import(name: str) -> set[str]:
    return set(_imports(name, _statements(_SOURCES[name].body)))


def _anywhere(name: str) -> set[str]:
    return set(_imports(name, ast.walk(_SOURCES[name])))


@_EACH
def test_layers_a_room_opens_the_doors_below_it_only(name: str) -> None:
    allowed = {f".{room}" for room in {_room(name), *_ROOMS[_room(name)]}}
    assert {item for item in _anywhere(name) if item.startswith(".")} <= allowed
    assert "fa4_precompile" not in _anywhere(name), "inside the package, imports are relative"


def test_layers_every_room_is_known() -> None:
    assert {_room(name) for name in _SOURCES} == set(_ROOMS)


def test_layers_nobody_goes_around_the_seam() -> None:
    around = {
        name
        for name, tree in _SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not name.startswith(_FA4) and "fa4" in _target(node)
    }
    assert around == {"providers/registry.py"}


def test_layers_what_is_known_of_fa4_is_said_in_its_room_only() -> None:
    saying = {
        name
        for name, tree in _SOURCES.items()
        if not name.startswith(_FA4) and any(_FA4_WORDS.search(text) for text in _texts(tree))
    }
    assert saying == set(_SAYS_FA4)


@pytest.mark.parametrize("name", [name for name in _SOURCES if _room(name) in ("errors", "cache", "loader")])
def test_layers_what_a_job_imports_is_the_standard_library(name: str) -> None:
    outside = {item for item in _at_import(name) if not item.startswith(".")} - sys.stdlib_module_names
    assert not outside


@pytest.mark.parametrize("name", [name for name in _SOURCES if _room(name) != "masks"])
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


def test_layers_what_a_process_remembers_outside_its_objects_has_a_reason() -> None:
    found = {
        (name, place) for name, tree in _SOURCES.items() for place in _places(tree) if _HIDING_PLACES.fullmatch(place)
    }
    assert found == set(_REMEMBERED)


@_EACH
def test_layers_no_module_is_longer_than_400_lines(name: str) -> None:
    assert len((_ROOT / name).read_text(encoding="utf-8").splitlines()) <= _MOST_LINES


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
    assert named == {"loader/config.py", "activate.py"}


def _loaded(code: str, folder: Path) -> set[str]:
    program = f"import json, sys; {code}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_of_the_package_loads_the_standard_library_only(tmp_path: Path) -> None:
    loaded = _loaded("import fa4_precompile", tmp_path) - _loaded("pass", tmp_path)
    assert loaded - sys.stdlib_module_names == {"fa4_precompile"}


def test_import_of_what_a_job_needs_loads_the_standard_library_only(tmp_path: Path) -> None:
    names = [name for name in _SOURCES if _room(name) in ("cache", "loader")]
    modules = ", ".join("fa4_precompile." + name.removesuffix(".py").replace("/", ".") for name in names)
    loaded = _loaded(f"import {modules}", tmp_path) - _loaded("pass", tmp_path)
    assert loaded - sys.stdlib_module_names == {"fa4_precompile"}


def test_import_of_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = _loaded("import fa4_precompile.cli", tmp_path)
    assert "click" in loaded
    assert not loaded & _NOT_FOR_THE_CLI


def test_import_of_the_build_command_loads_nothing_that_builds(tmp_path: Path) -> None:
    loaded = _loaded("import fa4_precompile.commands.build", tmp_path)
    assert "yaml" in loaded
    assert not loaded & {*_HEAVY, "tqdm", "elftools", "multiprocessing", "concurrent"}
