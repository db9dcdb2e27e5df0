"""Compile caches under other names, of modules, kept by functions, and beside the package: found as they are written.

The package is made up; the shapes are those of packages that carry FlashAttention-4's code.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from fa4_precompile.errors import ProductError
from fa4_precompile.precompile.compile.worker import require_source
from fa4_precompile.providers.fa4.declared import declared, launched_by_name, unfound
from fa4_precompile.providers.fa4.keys import key_names
from fa4_precompile.providers.fa4.provider import FlashAttn4
from fa4_precompile.providers.fa4.slots import slots_of
from fa4_precompile.providers.fa4.written import written
from fa4_precompile.providers.installed import installed_run_time
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.packages import package_folder, source_digest
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.slots import KeptSlot, StandInSlot

_PACKAGE = "madeupengine.ops.attention.cute"
_HEAD = """
from functools import lru_cache

class cute:
    @staticmethod
    def compile(*arguments):
        return arguments

def get_jit_cache(name=None):
    return {}

def _get_jit_cache(name):
    return get_jit_cache(name)
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Write a module into the made-up package, or a folder around it, and import it."""
    folder = tmp_path / "madeupengine" / "ops" / "attention" / "cute"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str, name: str = "interface", levels: int = 0) -> ModuleType:
        package = ".".join(_PACKAGE.split(".")[: 4 - levels])
        path = [folder, *folder.parents][levels] / f"{name}.py"
        path.write_text(dedent(_HEAD) + dedent(text))
        return importlib.import_module(f"{package}.{name}")

    yield write
    for name in [name for name in sys.modules if name.startswith("madeupengine")]:
        del sys.modules[name]


_SHAPES = {
    "an attribute of a function": (
        """
        def _fwd(key):
            _fwd.kernels[key] = cute.compile(key)
        _fwd.kernels = {}
        """,
        ["fwd"],
    ),
    "several attributes": (
        """
        def _fwd(key):
            _fwd.compile_cache[key] = cute.compile(key)
            _fwd.compile_cache_pre[key] = cute.compile(key)
            _fwd.shear[
                key
            ] = cute.compile(
                key,
            )
        _fwd.compile_cache = {}
        _fwd.compile_cache_pre = _get_jit_cache(
            "fwd_pre"
        )
        _fwd.shear = get_jit_cache(name="fwd_shear")
        """,
        ["fwd", "fwd_pre", "fwd_shear"],
    ),
    "several attributes without names": (
        """
        def _bwd(key):
            _bwd.compile_cache[key] = cute.compile(key)
            _bwd.compile_cache_post[key, (1, [2])] = cute.compile(key)
        _bwd.compile_cache = {}
        _bwd.compile_cache_post = {}
        """,
        ["bwd", "bwd.compile_cache_post"],
    ),
    "a module's variable": (
        """
        _cache: dict = {}
        def run(key):
            _cache[key] = cute.compile(key)
        """,
        ["interface.cache"],
    ),
    "a module's variable with a name": (
        """
        _cache = get_jit_cache("combine")
        def run(key):
            kernel = _cache[key] = cute.compile(key)
            return kernel
        """,
        ["combine"],
    ),
    "a function that keeps it": (
        """
        @lru_cache(maxsize=1)
        def _get_cache():
            return _get_jit_cache("fwd_gqa")
        def run(key):
            cache = _get_cache()
            if key not in cache:
                cache[key] = cute.compile(key)
            return cache[key]
        """,
        ["fwd_gqa"],
    ),
    "a function that keeps it without a name": (
        """
        @lru_cache
        def _kernels():
            return {}
        def run(key):
            _kernels()[key] = cute.compile(key)
        """,
        ["kernels"],
    ),
    "a local name of it": (
        """
        def _fwd(key):
            cache = _fwd.kernels  # in its place each time
            cache[key] = cute.compile(key)
        _fwd.kernels = {}
        """,
        ["fwd"],
    ),
    "a function that compiles": (
        """
        def _make(key):
            return cute.compile(key)
        def _make_in_two_steps(key):
            made = cute.compile(key)
            return made
        def _make_by_another(key):
            return _make(key)
        def _fwd(key):
            _fwd.one[key] = _make(*key)
            _fwd.two[key] = _make_in_two_steps(key)
            _fwd.three[key] = _make_by_another(key)
        _fwd.one, _fwd.two, _fwd.three = {}, {}, {}
        """,
        ["fwd.one", "fwd.three", "fwd.two"],
    ),
    "a name of what was compiled": (
        """
        def _fwd(key):
            kernel = cute.compile[1](key)
            _fwd.kernels[key] = kernel
        _fwd.kernels = {}
        """,
        ["fwd"],
    ),
    "a class": (
        """
        class Step:
            kernels = {}
            def run(self, key):
                Step.kernels[key] = cute.compile(key)
        """,
        ["Step"],
    ),
    "nothing": (
        """
        def bench(key):
            results = {}
            kernel = cute.compile(key)
            results[key] = kernel
            other = {}
            other[key] = len(key)
        """,
        [],
    ),
}


# As releases of FA4 up to 4.0.0b15 have in a module of kernels.
_SCRIPT = """
def benchmark(key, compile_cache=dict()):
    compile_cache[key] = cute.compile(key)
{call}
if __name__ == "__main__":
    benchmark(1, {{}})
"""


def test_mapping_that_only_a_modules_script_hands_on_is_no_jobs(engine: Callable[..., ModuleType]) -> None:
    assert unfound(engine(_SCRIPT.format(call=""))) == []
    called = unfound(engine(_SCRIPT.format(call="def run(key):\n    benchmark(key)\n")))
    assert [line.partition(": ")[2] for line in called] == ["`compile_cache[key]`"]


@pytest.mark.parametrize("shape", _SHAPES)
def test_slots_of_a_shape_are_found_by_pattern_as_by_a_parser(engine: Callable[..., ModuleType], shape: str) -> None:
    text, names = _SHAPES[shape]
    module = engine(text)
    assert sorted(slot.name for slot in slots_of(module)) == names
    assert unfound(module) == []


_NOT_FOUND = {
    "an object's own": (
        """
        class Engine:
            def __init__(self):
                self.kernels = {}
            def run(self, key):
                self.kernels[key] = cute.compile(key)
        """,
        "self.kernels[key]",
    ),
    "a closure's": (
        """
        def make():
            kept = {}
            def run(key):
                kept[key] = cute.compile(key)
            return run
        """,
        "kept[key]",
    ),
    "an argument": (
        """
        def run(cache, key):
            cache[key] = cute.compile(key)
        """,
        "cache[key]",
    ),
    "a function that makes a new one": (
        """
        def run(key):
            cache = get_jit_cache()
            cache[key] = cute.compile(key)
        """,
        "cache[key]",
    ),
    "a compiled function inside of something": (
        """
        _cache = {}
        def run(key):
            _cache[key] = {"compiled": cute.compile(key), "sms": 148}
        """,
        "_cache[key]",
    ),
    "a method of the mapping": (
        """
        _cache = {}
        def run(key):
            return _cache.setdefault(key, cute.compile(key))
        """,
        "_cache.setdefault",
    ),
}


@pytest.mark.parametrize("shape", _NOT_FOUND)
def test_unfound_names_line_and_expression_of_what_nobody_can_stand_in_for(
    engine: Callable[..., ModuleType], shape: str
) -> None:
    text, expression = _NOT_FOUND[shape]
    module = engine(text)
    line = next(number for number, line in enumerate(_source(module).splitlines(), 1) if expression in line)
    assert unfound(module) == [f"interface.py:{line}: `{expression}`"]


def test_kept_slot_is_put_in_the_place_of_the_functions_mapping_and_taken_back(
    engine: Callable[..., ModuleType],
) -> None:
    module: Any = engine(_SHAPES["a function that keeps it"][0])
    (slot,) = slots_of(module)
    function, original = module._get_cache, slot.cache
    assert isinstance(slot, KeptSlot)
    mine: dict[str, object] = {}
    slot.put(mine)
    module.run("key")
    assert (list(mine), original, slot.cache is mine) == (["key"], {}, True)
    assert [found.name for found in slots_of(module)] == ["fwd_gqa"]
    slot.put(original)
    assert module._get_cache is function
    assert slot.cache is original


def test_stand_in_for_a_cache_can_be_launched_from_and_nothing_happens() -> None:
    stand_in = StandInSlot(lambda key: True, lambda key, kernel: None)
    assert stand_in["key"]("q", "k", stream=None) is stand_in.get("key")("q") is None  # type: ignore[operator]


# Names of keys


def test_key_names_follow_what_the_source_adds_to_a_key_in_branches(engine: Callable[..., ModuleType]) -> None:
    engine(
        """
        def _fwd(dtype, wide, deep):
            compile_key = (dtype, wide is None)
            if wide:
                compile_key += (wide.l2, wide.mask)
                if deep:
                    compile_key = compile_key + (deep,)
            _fwd.compile_cache[compile_key] = cute.compile(compile_key)
        _fwd.compile_cache = get_jit_cache("fwd")
        """
    )
    assert list(key_names(_PACKAGE, "fwd", 2)) == ["dtype", "wide is None"]
    assert list(key_names(_PACKAGE, "fwd", 4)) == ["dtype", "wide is None", "wide.l2", "wide.mask"]
    assert list(key_names(_PACKAGE, "fwd", 5)) == ["dtype", "wide is None", "wide.l2", "wide.mask", "deep"]
    assert list(key_names(_PACKAGE, "fwd", 3)) == ["0", "1", "2"]


def test_key_names_are_found_whatever_the_key_is_called_and_wherever_it_is_made(
    engine: Callable[..., ModuleType],
) -> None:
    engine(
        """
        def _make_key(a, b):
            head = (a, a.dtype)
            return (*head, b if b else None)
        def _fwd(q, k):
            shear = _make_key(q, k)
            _fwd.shear[shear] = cute.compile(shear)
            _fwd.plain[q.dtype, k.dtype] = cute.compile(q)
        _fwd.shear, _fwd.plain = {}, {}
        @lru_cache
        def _get():
            return get_jit_cache("kept")
        def run(q):
            cache = _get()
            key = (q.device, q.ndim)
            cache[key] = cute.compile(q)
        """
    )
    assert list(key_names(_PACKAGE, "fwd.shear", 3)) == ["a", "a.dtype", "b if b else None"]
    assert list(key_names(_PACKAGE, "fwd.plain", 2)) == ["q.dtype", "k.dtype"]
    assert list(key_names(_PACKAGE, "kept", 2)) == ["q.device", "q.ndim"]


# Beside the package

_BESIDE = f"""
from {_PACKAGE} import interface
_cache = get_jit_cache("outside")
def run(key):
    _cache[key] = cute.compile(interface.Kernel)
"""


def test_module_beside_the_package_that_compiles_its_kernels_is_the_providers(
    engine: Callable[..., ModuleType],
) -> None:
    engine("class Kernel: pass")
    engine(_BESIDE, "wide_heads", levels=2)
    engine(_BESIDE.replace("outside", "next"), "next", levels=1)
    provider = FlashAttn4(_PACKAGE)
    assert provider.beside == ("madeupengine.ops.attention.next", "madeupengine.ops.wide_heads")
    assert sorted(slot.name for slot in loaded_slots(provider)) == ["next", "outside"]


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (_BESIDE, 3),  # not so far away
        (_BESIDE.replace(_PACKAGE, "madeupengine.other.cute"), 2),
        (_BESIDE.replace("cute.compile(", "print("), 2),
        ("from somewhere import _cache\ndef run(key):\n    _cache[key] = 1", 1),
    ],
)
def test_module_that_is_not_beside_the_package_or_does_not_compile_its_kernels_is_not_the_providers(
    engine: Callable[..., ModuleType], tmp_path: Path, text: str, levels: int
) -> None:
    engine("class Kernel: pass")
    folder = tmp_path / "madeupengine" / "ops" / "attention" / "cute"
    folder.parents[levels - 1].joinpath("other.py").write_text(dedent(_HEAD) + text)
    assert FlashAttn4(_PACKAGE).beside == ()


def test_source_digest_knows_the_modules_beside_a_package_and_nothing_changes_without(
    engine: Callable[..., ModuleType], tmp_path: Path
) -> None:
    engine("class Kernel: pass")
    alone = source_digest(_PACKAGE)
    assert source_digest(_PACKAGE, ()) == alone == installed_run_time(FlashAttn4(_PACKAGE)).provider_source
    outside = tmp_path / "madeupengine" / "ops" / "wide_heads.py"
    outside.write_text(_HEAD + _BESIDE)
    one = source_digest(_PACKAGE, ["madeupengine.ops.wide_heads"])
    outside.write_text(_HEAD + _BESIDE + "\n")
    assert len({alone, one, source_digest(_PACKAGE, ["madeupengine.ops.wide_heads"])}) == 3


def test_kernel_of_a_module_around_the_package_that_no_digest_knows_is_no_product(
    engine: Callable[..., ModuleType],
) -> None:
    own: Any = engine("class Kernel: pass")
    beside: Any = engine(_BESIDE + "\nclass Kernel:\n    def forward(self): pass\n", "wide_heads", levels=2)
    around: Any = engine("class Kernel:\n    def forward(self): pass\n", "sm120", levels=2)
    provider = FlashAttn4(_PACKAGE)
    for kernel in (own.Kernel(), beside.Kernel(), beside.Kernel().forward, len):
        require_source(provider, kernel)
    for kernel in (around.Kernel(), around.Kernel().forward):
        with pytest.raises(ProductError, match=r"of `madeupengine\.ops\.sm120`, whose source is not a part of"):
            require_source(provider, kernel)


def test_installed_flash_attention_has_nothing_beside_it() -> None:
    assert DEFAULT.beside == ()


# Which of them are launched with arguments by name

_LAUNCHES = {
    "_fwd.kernels[key](q, k, scale=1.0)": True,
    "_fwd.kernels[key](q, **more)": True,
    "_fwd.kernels.get(key)(q=q)": True,
    "launch = _fwd.kernels[key]\n    launch(q=q)": True,
    "(launch := _fwd.kernels[key])\n    launch(q=q)": True,
    "kernels = _fwd.kernels\n    kernels[key](q=q)": True,
    "_fwd.kernels[key](q, k, 1.0)": False,
    "_fwd.others[key](q=q)": False,
    "launch = _fwd.kernels[key]\n    launch(helper(q=q))": False,
    "_fwd.kernels[make(key=key)](q)": False,
}


@pytest.mark.parametrize(("launch", "by_name"), _LAUNCHES.items(), ids=list(_LAUNCHES))
def test_launch_by_name_is_seen_in_the_source(engine: Callable[..., ModuleType], launch: str, by_name: bool) -> None:
    engine(
        f"""
def _fwd(key, q, k=None, **more):
    _fwd.kernels[key] = cute.compile(key)
    {launch}
_fwd.kernels = {{}}
_fwd.others = {{}}
"""
    )
    assert FlashAttn4(_PACKAGE).launches_by_name("fwd") is by_name


# The installed FlashAttention-4: the pattern and the parser read the same


def test_pattern_reads_of_the_installed_release_what_a_parser_reads() -> None:
    folder = package_folder(DEFAULT.package)
    assert folder is not None
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    by_parser = [(one.line, one.place) for source in sources for one in declared(source)]
    assert len(by_parser) > 12
    assert sorted(map(str, by_parser)) == sorted(
        str((one.line, one.place)) for source in sources for one in written(source)
    )


def test_installed_release_launches_no_kernel_by_name() -> None:
    folder = package_folder(DEFAULT.package)
    assert folder is not None
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    places = {one.place for source in sources for one in declared(source)}
    assert "_flash_attn_fwd.compile_cache" in places
    assert not [places & launched_by_name(source) for source in sources if places & launched_by_name(source)]


_JOB = """
import sys
from pathlib import Path
import flash_attn.cute.interface
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.registry import DEFAULT
import ast
parsed = []
real = ast.parse
ast.parse = lambda *arguments, **options: parsed.append(arguments) or real(*arguments, **options)
assert loaded_slots(DEFAULT)
print(len(parsed))
"""


def test_job_finds_its_slots_without_a_parser(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _JOB], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "0"


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")
