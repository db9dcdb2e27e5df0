"""The import watcher: it says what was imported, and nobody can tell that it was there. With packages made up here."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fa4_precompile.loader.imports import ImportWatcher, call_when_executed
from fa4_precompile.providers.loaded import is_executing

# Nobody else's names begin like this.
_SHOP = "madeupshop"
_FILES = {
    f"{_SHOP}/__init__.py": "",
    f"{_SHOP}/bread.py": "def bake():\n    return 'bread'  # warm\n",
    f"{_SHOP}/data.txt": "flour",
    f"{_SHOP}/deep/__init__.py": "",
    f"{_SHOP}/deep/cellar.py": "WINE = 1\n",
    f"{_SHOP}/bare/shelf.py": "EMPTY = True\n",
    f"{_SHOP}/broken.py": "before = 1\nraise ZeroDivisionError('while it is executed')\n",
    f"{_SHOP}/around.py": "import madeuphook\nmadeuphook.start()\nend = True\n",
    f"{_SHOP}/around_broken.py": "import madeuphook\nmadeuphook.start()\nraise ZeroDivisionError('later')\n",
    f"{_SHOP}/main.py": "print(__name__)\n",
    f"{_SHOP}keeper.py": "",
    "madeupother.py": "",
}

Watch = Callable[..., list[ModuleType]]


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Packages on `sys.path` that nobody has imported yet."""
    for name, text in _FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("madeup")]:
        del sys.modules[name]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Install a watcher, and return the list that it fills."""
    before = list(sys.meta_path)

    def install(*prefixes: str) -> list[ModuleType]:
        executed: list[ModuleType] = []
        sys.meta_path.insert(0, ImportWatcher(prefixes or [f"{_SHOP}."], executed.append))
        return executed

    yield install
    sys.meta_path[:] = before


def _import(name: str) -> ModuleType:
    return importlib.import_module(f"{_SHOP}.{name}")


# What it says


def test_watcher_is_told_of_a_module_after_it_was_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    watcher = ImportWatcher([f"{_SHOP}."], lambda module: seen.append(module.bake()))
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])
    _import("bread")
    assert seen == ["bread"]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """What is told of modules that start something which wants to know when they are executed; they are told twice."""
    told: list[ModuleType] = []

    def start() -> None:
        module = sys.modules[sys._getframe(1).f_globals["__name__"]]
        assert is_executing(module)
        for _ in range(2):
            call_when_executed(module, told.append)

    hook = ModuleType("madeuphook")
    hook.start = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "madeuphook", hook)
    return told


@pytest.mark.parametrize("is_watched", [False, True])
def test_module_in_the_middle_of_its_import_calls_back_at_the_end_of_it(
    ended: list[ModuleType], watch: Watch, is_watched: bool
) -> None:
    if is_watched:
        watch()
    module = _import("around")
    assert ended == [module, module]
    assert module.end
    assert not is_executing(module)
    assert type(module.__spec__) is ModuleSpec
    assert vars(module.__spec__).keys() == vars(_import("bread").__spec__).keys()


def test_module_whose_import_fails_later_does_not_call_back(ended: list[ModuleType]) -> None:
    with pytest.raises(ZeroDivisionError):
        _import("around_broken")
    assert ended == []


def test_watcher_is_told_of_each_module_once(watch: Watch) -> None:
    executed = watch()
    assert [_import("bread"), _import("bread")] == executed * 2
    assert len(executed) == 1


def test_watcher_is_told_of_submodules_and_not_of_what_only_sounds_alike(watch: Watch) -> None:
    executed = watch()
    for name in (_SHOP, f"{_SHOP}.deep.cellar", f"{_SHOP}keeper", "madeupother"):
        importlib.import_module(name)
    assert [module.__name__ for module in executed] == [f"{_SHOP}.deep", f"{_SHOP}.deep.cellar"]


def test_watcher_of_several_prefixes_is_told_of_all_of_them(watch: Watch) -> None:
    executed = watch(f"{_SHOP}.deep.", "madeupother")
    for name in (f"{_SHOP}.bread", f"{_SHOP}.deep.cellar", "madeupother"):
        importlib.import_module(name)
    assert [module.__name__ for module in executed] == [f"{_SHOP}.deep.cellar", "madeupother"]


def test_watcher_is_told_of_a_namespace_packages_modules(watch: Watch) -> None:
    executed = watch()
    shelf = _import("bare.shelf")
    assert executed == [shelf]
    assert list(_import("bare").__path__)


def test_watcher_is_told_again_of_a_module_that_is_reloaded(watch: Watch) -> None:
    executed = watch()
    bread = _import("bread")
    assert importlib.reload(bread) is bread
    assert executed == [bread, bread]
    assert type(bread.__loader__) is importlib.machinery.SourceFileLoader


def test_watcher_is_told_once_by_threads_that_import_at_once(watch: Watch) -> None:
    executed = watch()
    threads = [threading.Thread(target=_import, args=("bread",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [module.__name__ for module in executed] == [f"{_SHOP}.bread"]


def test_watcher_that_raises_keeps_the_module_from_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: ModuleType) -> None:
        raise LookupError(module.__name__)

    monkeypatch.setattr(sys, "meta_path", [ImportWatcher([f"{_SHOP}."], refuse), *sys.meta_path])
    with pytest.raises(LookupError, match=f"{_SHOP}.bread"):
        _import("bread")
    assert f"{_SHOP}.bread" not in sys.modules


# What nobody can tell


def test_watched_module_has_the_loader_and_spec_that_it_would_have(watch: Watch) -> None:
    watch()
    watched = _import("bread")
    sys.meta_path.pop(0)
    del sys.modules[f"{_SHOP}.bread"]
    plain = _import("bread")
    for module in (watched, plain):
        assert module.__spec__ is not None
        assert module.__spec__.loader is module.__loader__
        assert type(module.__loader__) is importlib.machinery.SourceFileLoader
    assert watched.__spec__ == plain.__spec__
    assert (watched.__file__, watched.__cached__) == (plain.__file__, plain.__cached__)
    assert vars(watched).keys() == vars(plain).keys()


def test_module_that_looks_at_its_loader_while_it_is_executed_finds_the_real_one(watch: Watch, shop: Path) -> None:
    (shop / _SHOP / "curious.py").write_text("KINDS = type(__loader__).__name__, type(__spec__.loader).__name__\n")
    watch()
    assert _import("curious").KINDS == ("SourceFileLoader", "SourceFileLoader")


def test_source_and_resources_of_a_watched_module_can_be_read(watch: Watch) -> None:
    watch(_SHOP)
    bread = _import("bread")
    assert inspect.getsource(bread.bake) == _FILES[f"{_SHOP}/bread.py"]
    assert importlib.resources.files(_SHOP).joinpath("data.txt").read_text() == "flour"


def test_module_that_is_found_and_not_imported_can_be_asked_what_its_loader_knows(watch: Watch) -> None:
    watch()
    spec = importlib.util.find_spec(f"{_SHOP}.bread")
    assert spec is not None
    loader: Any = spec.loader
    assert loader.get_source(f"{_SHOP}.bread") == _FILES[f"{_SHOP}/bread.py"]
    assert not loader.is_package(f"{_SHOP}.bread")


def test_module_of_a_watched_package_can_be_run_as_a_program(shop: Path) -> None:
    # As in `python -m flash_attn.cute.benchmark`: importing the package starts torch, and torch the watcher.
    (shop / _SHOP / "__init__.py").write_text(
        "import sys\nfrom fa4_precompile.loader.imports import ImportWatcher\n"
        f"sys.meta_path.insert(0, ImportWatcher(['{_SHOP}.'], print))\n"
    )
    line = [sys.executable, "-m", f"{_SHOP}.main"]
    done = subprocess.run(line, cwd=shop, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "__main__\n", "")


def test_module_that_raises_while_it_is_executed_is_as_without_the_watcher(watch: Watch) -> None:
    executed = watch()
    for _ in range(2):  # the second time finds nothing left over from the first
        with pytest.raises(ZeroDivisionError, match="while it is executed") as caught:
            _import("broken")
        last = traceback.extract_tb(caught.value.__traceback__)[-1]
        assert (Path(last.filename).name, last.lineno) == ("broken.py", 2)
        assert f"{_SHOP}.broken" not in sys.modules
    assert executed == []
    assert _import("bread") in executed


def test_module_that_does_not_exist_is_as_without_the_watcher(watch: Watch) -> None:
    watch()
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{_SHOP}.cake'") as caught:
        _import("cake")
    assert caught.value.name == f"{_SHOP}.cake"
    assert importlib.util.find_spec(f"{_SHOP}.cake") is None


def test_loader_that_cannot_execute_modules_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    loader: Any = object()
    finder: Any = type("Finder", (), {"find_spec": lambda *_: ModuleSpec(f"{_SHOP}.old", loader)})()
    watcher = ImportWatcher([f"{_SHOP}."], lambda module: None)
    monkeypatch.setattr(sys, "meta_path", [watcher, finder])
    spec = watcher.find_spec(f"{_SHOP}.old", None)
    assert spec is not None
    assert spec.loader is loader


# Others that do the same


@pytest.mark.parametrize("prefixes", [[f"{_SHOP}."] * 2, [f"{_SHOP}.", f"{_SHOP}.bread"]], ids=str)
def test_two_watchers_are_both_told_and_leave_no_trace(watch: Watch, prefixes: Sequence[str]) -> None:
    lists = [watch(prefix) for prefix in prefixes]
    bread = _import("bread")
    assert lists == [[bread], [bread]]
    assert type(bread.__loader__) is importlib.machinery.SourceFileLoader
    assert bread.__spec__ is not None
    assert bread.__spec__.loader is bread.__loader__


def test_watcher_that_is_no_longer_the_first_finder_is_told(watch: Watch) -> None:
    executed = watch()
    sys.meta_path.insert(0, type("Finder", (), {"find_spec": lambda *_: None})())
    sys.meta_path.insert(0, type("OldFinder", (), {"find_module": lambda *_: None})())
    assert executed == [] != [_import("bread")]
    assert len(executed) == 1
