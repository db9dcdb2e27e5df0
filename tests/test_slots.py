"""Finding a provider's compile caches and the names of their keys: in a package made up here, and in the real FA4."""

from __future__ import annotations

import ast
import importlib
import json
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fa4_precompile.providers.fa4.keys import key_names
from fa4_precompile.providers.fa4.provider import FlashAttn4
from fa4_precompile.providers.fa4.slots import slots_of
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.slots import Slot

_PACKAGE = "madeupattention.cute"
_CACHES = """
def get_jit_cache(name=None):
    return {"made by": name}
"""
_INTERFACE = f"""
from {_PACKAGE}.caches import get_jit_cache
from {_PACKAGE}.masks import block_mask
from {_PACKAGE} import masks
import logging as fa_logging


def _attention_fwd(q, causal, window):
    compile_key = (
        q.dtype,
        causal,
        window   is not   None,
        fa_logging.get_fa_log_level(),
    )
    return compile_key


def _attention_bwd(q, cluster):
    if cluster > 1:
        compile_key = (q.dtype, cluster, "two")
    else:
        compile_key = (q.dtype, cluster)
    return compile_key


def _sink(sink):
    compile_key = sink.dtype
    return compile_key


def _twice(a):
    compile_key = (a, a)
    return compile_key


def _plain_function(a):
    compile_key = (a, 1)
    return compile_key


class Step:
    '''No function, and it has a cache all the same.'''


_attention_fwd.compile_cache = get_jit_cache("fwd")
_attention_bwd.compile_cache = get_jit_cache(
    'bwd'
)
_sink.compile_cache = get_jit_cache("bwd_sink")
_twice.compile_cache = get_jit_cache("twice")
Step.compile_cache = get_jit_cache("step")
"""
_MASKS = """
def block_mask(rows, columns):
    cache_key = (rows, columns)
    return cache_key


def __hidden__(a):
    return a


block_mask.compile_cache = {}
__hidden__.compile_cache = {}
"""


@pytest.fixture
def attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of a package that keeps what it compiled as FA4 does."""
    folder = tmp_path / "madeupattention" / "cute"
    folder.mkdir(parents=True)
    for name, text in {"caches": _CACHES, "interface": _INTERFACE, "masks": _MASKS, "__init__": ""}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"{_PACKAGE}.{name}")
    for name in [name for name in sys.modules if name.startswith("madeupattention")]:
        del sys.modules[name]


def _owners(slots: Iterable[Slot]) -> dict[str, Any]:
    """Return who keeps each slot, by its name."""
    return {slot.name: slot.owner for slot in slots}


def _find(package: str) -> dict[str, Any]:
    return _owners(loaded_slots(FlashAttn4(package)))


# Finding


def test_loaded_slots_has_every_cache_by_the_name_that_the_source_gives_it(
    attention: Callable[[str], ModuleType],
) -> None:
    interface: Any = attention("interface")
    masks: Any = attention("masks")
    assert _find(_PACKAGE) == {
        "fwd": interface._attention_fwd,
        "bwd": interface._attention_bwd,
        "bwd_sink": interface._sink,
        "twice": interface._twice,
        "step": interface.Step,
        "block_mask": masks.block_mask,
        "hidden": masks.__hidden__,
    }


def test_loaded_slots_looks_at_loaded_modules_only(attention: Callable[[str], ModuleType]) -> None:
    assert _find(_PACKAGE) == {}
    attention("masks")
    assert sorted(_find(_PACKAGE)) == ["block_mask", "hidden"]
    assert f"{_PACKAGE}.interface" not in sys.modules


def test_loaded_slots_of_another_package_whose_name_begins_alike_are_not_found(
    attention: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = attention("masks")
    monkeypatch.setitem(sys.modules, f"{_PACKAGE}s.masks", masks)
    assert _find(f"{_PACKAGE}s") != {}
    assert _find(_PACKAGE[:-1]) == {}


def test_slots_of_a_module_are_not_those_that_it_imports(attention: Callable[[str], ModuleType]) -> None:
    interface: Any = attention("interface")
    assert interface.block_mask.compile_cache is not None
    assert "block_mask" not in _owners(slots_of(interface))
    assert len(_owners(slots_of(interface))) == 5
    assert _owners(slots_of(attention("caches"))) == {}


def test_slots_of_a_module_under_two_names_in_it_are_one(attention: Callable[[str], ModuleType]) -> None:
    masks: Any = attention("masks")
    masks.another_name = masks.block_mask
    assert sorted(_owners(slots_of(masks))) == ["block_mask", "hidden"]


def test_slots_of_a_module_without_source_are_found_by_function() -> None:
    module: Any = ModuleType("madeupattention.cute.frozen")
    exec("def _run(): pass\n_run.compile_cache = {}", vars(module))
    assert _owners(slots_of(module)) == {"run": module._run}


def test_slots_of_a_module_whose_source_is_gone_are_found_by_function(
    attention: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    interface = attention("interface")
    for path in tmp_path.rglob("*.py"):
        path.unlink()
    linecache.clearcache()
    assert sorted(_owners(slots_of(interface))) == ["Step", "attention_bwd", "attention_fwd", "sink", "twice"]
    assert list(key_names(_PACKAGE, "attention_bwd", 2)) == ["0", "1"]


def test_loaded_slots_survives_what_sys_modules_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    # None is what keeps a module from being imported.
    monkeypatch.setitem(sys.modules, f"{_PACKAGE}.forbidden", None)
    assert _find(_PACKAGE) == {}


# Names of a key's positions


def test_key_names_are_the_expressions_of_the_source(attention: Callable[[str], ModuleType]) -> None:
    attention("interface")
    assert list(key_names(_PACKAGE, "fwd", 4)) == ["q.dtype", "causal", "window is not None", "FA_LOG_LEVEL"]


def test_key_names_of_a_single_value_is_one(attention: Callable[[str], ModuleType]) -> None:
    attention("interface")
    assert list(key_names(_PACKAGE, "bwd_sink", 1)) == ["sink.dtype"]


def test_key_names_of_a_slot_with_two_keys_are_those_of_that_length(attention: Callable[[str], ModuleType]) -> None:
    attention("interface")
    assert list(key_names(_PACKAGE, "bwd", 2)) == ["q.dtype", "cluster"]
    assert list(key_names(_PACKAGE, "bwd", 3)) == ["q.dtype", "cluster", "'two'"]


def test_key_names_may_be_called_cache_key_in_the_source(attention: Callable[[str], ModuleType]) -> None:
    attention("masks")
    assert list(key_names(_PACKAGE, "block_mask", 2)) == ["rows", "columns"]


@pytest.mark.parametrize(
    ("slot", "length"), [("fwd", 5), ("bwd", 4), ("twice", 2), ("no such slot", 3), ("hidden", 1), ("fwd", 0)]
)
def test_key_names_that_do_not_fit_are_numbers(attention: Callable[[str], ModuleType], slot: str, length: int) -> None:
    attention("interface")
    assert list(key_names(_PACKAGE, slot, length)) == [str(number) for number in range(length)]


def test_key_names_of_a_module_without_source_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(f"{_PACKAGE}.frozen")
    exec("def _run(a):\n    compile_key = (a, 1)\n    return compile_key\n_run.compile_cache = {}", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert list(key_names(_PACKAGE, "run", 2)) == ["0", "1"]


# The real FA4: what would show first if a release kept its kernels elsewhere

_ASK = """
import importlib, json, sys
from pathlib import Path
import flash_attn.cute
from fa4_precompile.providers.fa4.keys import key_names
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.loaded import loaded_slots

package = "flash_attn.cute"
for path in sorted(Path(flash_attn.cute.__path__[0]).glob("*.py")):
    if "compile_cache" in path.read_text():
        importlib.import_module(f"{package}.{path.stem}")
modules = [module for name, module in sys.modules.items() if name.startswith(f"{package}.")]
owners = {
    id(value): f"{value.__module__}.{value.__name__}"
    for module in modules
    for value in vars(module).values()
    if str(getattr(value, "__module__", "")).startswith("flash_attn.") and hasattr(value, "compile_cache")
}
slots = {slot.name: slot.owner for slot in loaded_slots(DEFAULT)}
names = {
    slot: [found for n in range(1, 200) if "1" not in (found := list(key_names(package, slot, n))) or n == 1]
    for slot in slots
}
print(json.dumps({
    "owners": sorted(owners.values()),
    "found": sorted(f"{owner.__module__}.{owner.__name__}" for owner in slots.values()),
    "slots": sorted(slots),
    "names": names,
    "sources": {module.__name__: module.__file__ for module in modules},
}))
"""


@dataclass(frozen=True)
class _Fa4:
    """What is in the installed FA4, asked in a process of its own."""

    owners: list[str]
    found: list[str]
    slots: list[str]
    names: dict[str, list[list[str]]]
    sources: dict[str, str]


@pytest.fixture(scope="module")
def fa4(tmp_path_factory: pytest.TempPathFactory) -> _Fa4:
    """The installed FA4, with every module imported that has a compile cache."""
    folder = tmp_path_factory.mktemp("ask")
    done = subprocess.run([sys.executable, "-c", _ASK], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return _Fa4(**json.loads(done.stdout.splitlines()[-1]))


def test_every_object_of_fa4_with_a_compile_cache_is_found_once(fa4: _Fa4) -> None:
    assert fa4.found == fa4.owners
    assert len(fa4.owners) > 5


def test_every_slot_that_fa4_names_is_found_and_every_assignment_is_a_slot(fa4: _Fa4) -> None:
    named: set[str] = set()
    assigned = 0
    for path in fa4.sources.values():
        for node in ast.walk(ast.parse(Path(path).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_jit_cache"):
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                named |= {str(value.value) for value in values if isinstance(value, ast.Constant)}
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(".compile_cache"):
                assigned += 1
    assert {"fwd", "bwd", "bwd_pre", "bwd_post"} <= named
    assert named <= set(fa4.slots)
    assert assigned == len(fa4.slots)


@pytest.mark.parametrize("slot", ["fwd", "bwd", "bwd_pre", "bwd_post"])
def test_fa4s_keys_have_names_that_people_know(fa4: _Fa4, slot: str) -> None:
    tuples = [names for names in fa4.names[slot] if names != ["0"]]
    assert tuples
    for names in tuples:
        assert "dtype" in names
        assert len(set(names)) == len(names)


def test_fa4s_log_level_is_named_as_the_variable_that_sets_it(fa4: _Fa4) -> None:
    assert any("FA_LOG_LEVEL" in names for names in fa4.names["fwd"])
    assert '"FA_LOG_LEVEL"' in Path(fa4.sources["flash_attn.cute.fa_logging"]).read_text()
