"""What a function does, told in the words of any process: what differs shows, and what is the same is the same."""

from __future__ import annotations

import importlib.util
import json
import linecache
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from function_pairs import PAIRS, Pair

from fa4_precompile.cache.description import Description
from fa4_precompile.errors import Unidentifiable
from fa4_precompile.providers.functions.describe import Describer

_PYTHONS = [f"python3.{minor}" for minor in (10, 11, 12, 13)]
_TELL = """
import importlib, json, sys
sys.path[:0] = sys.argv[1:]
from fa4_precompile.providers.functions.describe import Describer
from function_pairs import PAIRS
masks = [importlib.import_module(f"pair{number}").mask for number in range(len(PAIRS))]
print(json.dumps([Describer([]).describe(mask).parts for mask in masks]))
"""


def _told(function: Any) -> Description:
    return Describer([]).describe(function)


def _module(folder: Path, name: str, text: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Load = Callable[[str, str], Any]


@pytest.fixture
def mask(tmp_path: Path) -> Load:
    """Returns the function `mask` of a module of some name and text."""
    return lambda name, text: _module(tmp_path, name, text).mask


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
def test_functions_that_differ_in_one_thing_have_two_digests(mask: Load, pair: Pair) -> None:
    one = _told(mask("one", pair.text.replace("$", pair.one)))
    other = _told(mask("other", pair.text.replace("$", pair.other)))
    assert one.digest != other.digest
    assert one.differences(other)


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
def test_function_of_a_module_of_another_name_in_another_place_has_the_same_digest(mask: Load, pair: Pair) -> None:
    text = pair.text.replace("$", pair.one)
    one, again = _told(mask("one", text)), _told(mask("again", f"# moved\n\nUNREAD = 5\n{text}"))
    assert one.parts == again.parts
    assert not one.differences(again)


def test_digest_is_the_same_in_each_python_and_under_each_hash_seed(tmp_path: Path) -> None:
    for number, pair in enumerate(PAIRS):
        (tmp_path / f"pair{number}.py").write_text(pair.text.replace("$", pair.one))
    package = tmp_path / "package"
    package.mkdir()
    (package / "fa4_precompile").symlink_to(Path(__file__).parents[1])
    paths = str(package), str(tmp_path), str(Path(__file__).parent)
    told = {}
    pythons = [python for python in map(shutil.which, _PYTHONS) if python is not None]
    for python, seed in [*((one, "0") for one in pythons), (sys.executable, "1"), (sys.executable, "2")]:
        if subprocess.run([python, "-c", ""], capture_output=True).returncode:  # a shim of one that is not there
            continue
        done = subprocess.run(
            [python, "-c", _TELL, *paths], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        told[python, seed] = json.loads(done.stdout)
    first = told[sys.executable, "1"]
    for at, parts in told.items():
        assert parts == first, at


_UNIDENTIFIABLE = {
    "file": ("TABLE = open(__file__)\ndef mask(q):\n    return TABLE\n", "`TABLE` is a _io.TextIOWrapper"),
    "lock": ("import threading\nL = threading.Lock()\ndef mask(q):\n    return L\n", "`L` is a _thread.lock"),
    "generator": ("G = iter([1])\ndef mask(q):\n    return next(G)\n", "`G` is a builtins.list_iterator"),
    "no text": ("exec('def mask(q): return q')\n", "has no source text"),
    "no text of a helper": ("exec('def f(q): return q')\ndef mask(q):\n    return f(q)\n", "`f` has no source text"),
    "globals": ("N = 1\ndef mask(q):\n    return globals()['N']\n", "`globals` reads what no text names"),
    "eval": ("N = 1\ndef mask(q):\n    return eval('N')\n", "`eval` reads what no text names"),
    "module as a value": (
        "import sys\nM = sys.modules[__name__]\ndef mask(q):\n    return getattr(M, 'N')\n",
        "`M` is the module",
    ),
    "import in a call": ("def mask(q):\n    import xmlrpclib2\n    return q\n", "`import xmlrpclib2` is imported when"),
    "no value yet": (
        "def make():\n    def mask(q):\n        return n\n    return mask\n    n = 1\nmask = make()\n",
        "`n` has no value yet",
    ),
    "object of a library in C": (
        "import random\nR = random.Random(3)\ndef mask(q):\n    return R.random()\n",
        "`R` is a random.Random",
    ),
    "variable of the environment": (
        "import os\ndef mask(q):\n    return os.getenv('WIDTH')\n",
        "`os.getenv",
    ),
    "clock": ("import time\ndef mask(q):\n    return time.time()\n", "`time.time.self` is the module `time`"),
    "date": ("from datetime import date\ndef mask(q):\n    return date.today()\n", "`date` is the class datetime.date"),
    "nested without end": (
        "N = []\nfor _ in range(5000):\n    N = [N]\ndef mask(q):\n    return N\n",
        "can't be read: RecursionError",
    ),
    "hidden behind a method": (
        "import random\nuse = random.Random(3).random\ndef mask(q):\n    return use()\n",
        "`use.self` is a random.Random",
    ),
    "eval by another name": ("use = eval\ndef mask(q):\n    return use('N')\n", "`use` reads what no text names"),
    "eval of the module": (
        "import builtins\ndef mask(q):\n    return builtins.eval('N')\n",
        "`builtins` reads what no",
    ),
    "eval that is imported": ("from builtins import eval as e\ndef mask(q):\n    return e('N')\n", "`e` reads what no"),
    "attribute that leads to globals": (
        "N = 1\ndef mask(q):\n    return mask.__globals__['N']\n",
        "`__globals__` reads what no text names",
    ),
    "partial of one's own": (
        "import functools\nclass P(functools.partial):\n    pass\nuse = P(abs)\ndef mask(q):\n    return use(q)\n",
        "`use` is a made.P",
    ),
    "property of one's own": (
        "class P(property):\n    pass\nclass S:\n    n = P(abs)\nS = S()\ndef mask(q):\n    return S.n\n",
        "`S.class.n` is a made.P",
    ),
    "state that is hidden": (
        "class S:\n    @property\n    def __dict__(self):\n        return {}\nS = S()\ndef mask(q):\n    return S.n\n",
        "`S` is a made.S",
    ),
    "private name in a class": (
        "_S__N = 3\nclass S:\n    def near(self, q):\n        return q < __N\nmask = S().near\n",
        "`self.class.near.__N` is a private name",
    ),
    "class of a library in C": (
        "import ctypes\nclass S(ctypes.Structure):\n    _fields_ = [('n', ctypes.c_int)]\nS = S(3)\n"
        "def mask(q):\n    return S.n\n",
        "`S` is a made.S",
    ),
    "too much in a set": ("T = {*range(20_000)}\ndef mask(q):\n    return T\n", "is one of more than 10,000 values"),
    "too much in sets of sets": (
        "T = frozenset()\nfor _ in range(60):\n    T = frozenset([(T, 1), (T, 2)])\ndef mask(q):\n    return T\n",
        "is one of more than 10,000 values",
    ),
    "too much": ("T = list(range(20_000))\ndef mask(q):\n    return T[0]\n", "is one of more than 10,000 values"),
}


@pytest.mark.parametrize("what", _UNIDENTIFIABLE)
def test_what_can_not_be_recognized_is_refused_with_the_part(tmp_path: Path, what: str) -> None:
    text, words = _UNIDENTIFIABLE[what]
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("made", None))  # type: ignore[arg-type]
    if what != "no text":
        module = _module(tmp_path, "made", text)
    else:
        exec(text, vars(module))
    with pytest.raises(Unidentifiable) as caught:
        _told(module.mask)
    assert words in str(caught.value)
    assert caught.value.hint


def test_tensor_is_refused_and_torchs_types_are_told() -> None:
    torch = pytest.importorskip("torch")
    kept: dict[str, Any] = {"what": torch.zeros(3)}

    def mask(q: object) -> object:
        return q, kept

    with pytest.raises(Unidentifiable, match=r"`kept\.\[str 'what'\]` is a torch.Tensor"):
        _told(mask)
    digests = set()
    for kept["what"] in (torch.float16, torch.bfloat16):
        digests.add(_told(mask).digest)
    assert len(digests) == 2


def test_change_of_a_value_shows_the_next_time(mask: Load) -> None:
    function = mask("one", PAIRS[1].text.replace("$", "3"))
    describer = Describer([])
    before = describer.describe(function)
    function.__globals__["WIDTH"] = 4
    ((where, there, here),) = before.differences(describer.describe(function))
    assert (where, there, here) == ("WIDTH", "int 3", "int 4")


def test_data_of_a_module_of_the_standard_library_is_told_by_its_value(
    mask: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = mask("one", "import sys\ndef mask(q):\n    return sys.argv\n")
    monkeypatch.setattr(sys, "argv", ["a", "b"])
    assert ("sys.argv.[1]", "str 'b'") in _told(function).parts


def test_object_that_holds_itself_is_told(mask: Load) -> None:
    text = "LOOP = [$]\nLOOP.append(LOOP)\ndef mask(q):\n    return LOOP[0]\n"
    assert _told(mask("one", text.replace("$", "1"))).digest != _told(mask("two", text.replace("$", "2"))).digest


def test_pinned_function_is_told_by_the_name_that_it_is_imported_by(mask: Load) -> None:
    text = "from {} import shift\ndef mask(q):\n    return shift(q)\n"
    package = ModuleType("pinnedpackage")
    exec("def shift(q):\n    return q\nshift.__module__ = 'pinnedpackage.deep.inside'\n", vars(package))
    sys.modules["pinnedpackage"] = package
    try:
        function = mask("one", text.format("pinnedpackage"))
        told = Describer(["pinnedpackage"]).describe(function)
    finally:
        del sys.modules["pinnedpackage"]
    assert ("shift", "name pinnedpackage.shift") in told.parts
    with pytest.raises(Unidentifiable, match="`shift` has no source text"):
        Describer(["otherpackage"]).describe(function)


def test_large_text_is_told_by_its_digest(mask: Load) -> None:
    text = "T = 'a' * 100_000 + '$'\ndef mask(q):\n    return T\n"
    one, other = (_told(mask(name, text.replace("$", name))) for name in ("one", "two"))
    assert one.digest != other.digest
    assert max(map(len, one.render())) < 1_000


def test_describing_runs_no_code_of_what_is_described(mask: Load) -> None:
    text = (
        "class Dict(dict):\n    def items(self):\n        raise SystemExit\n"
        "class All:\n    def __getattribute__(self, name):\n        raise SystemExit\n"
        "class Meta(type):\n    def __getattr__(cls, name):\n        raise SystemExit\n"
        "class Class(metaclass=Meta):\n    pass\n"
        "D, A = Dict(a=1), All()\ndef mask(q):\n    return D, A, Class\n"
    )
    assert _told(mask("one", text)).digest


_NEAR = "def near(q):\n    return q < 3\n\n\ndef mask(q):\n    return near(q)\n"


def test_text_that_is_not_that_of_the_code_is_refused(tmp_path: Path) -> None:
    module = _module(tmp_path, "edited", _NEAR)
    (tmp_path / "edited.py").write_text(_NEAR.replace("3", "44"))
    with pytest.raises(Unidentifiable, match="`near` has another text than when it was imported"):
        _told(module.mask)


def test_helper_of_a_module_that_was_edited_and_imported_again_is_another_one(tmp_path: Path) -> None:
    describer = Describer([])
    told = {}
    for number in ("3", "44"):
        module = _module(tmp_path, "edited", _NEAR.replace("3", number))
        told[number] = describer.describe(module.mask).digest
    assert told["3"] != told["44"] == _told(_module(tmp_path, "other", _NEAR.replace("3", "44")).mask).digest


def test_dataclass_and_enum_of_a_notebook_are_told_by_their_own_methods() -> None:
    text = (
        "import dataclasses, enum\n@dataclasses.dataclass\nclass S:\n    n: int = 3\n"
        "    def __eq__(self, other):\n        return $\n"
        "class E(enum.Enum):\n    A = 1\n    def near(self):\n        return $\n"
        "def mask(q):\n    return S() == S() or E.A.near()\n"
    )
    digests = set()
    for number in ("3", "4"):
        name, cell = f"<ipython-input-{number}>", text.replace("$", number)
        linecache.cache[name] = len(cell), None, cell.splitlines(True), name
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(cell, name, "exec"), names)
        parts = [part for part in _told(names["mask"]).parts if part[0]]
        digests.add(str(parts))
    assert len(digests) == 2


def test_name_that_a_module_of_the_users_hands_on_is_told_by_where_it_comes_from(tmp_path: Path) -> None:
    digests = set()
    for name in ("math", "cmath"):
        _module(tmp_path, "handing", f"from {name} import sqrt\n")
        function = _module(
            tmp_path, name + "_user", "from handing import sqrt\ndef mask(q):\n    return sqrt(q)\n"
        ).mask
        assert ("sqrt", f"name {name}.sqrt") in _told(function).parts
        digests.add(_told(function).digest)
    assert len(digests) == 2


def test_what_a_pinned_package_makes_in_a_call_is_told_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "pinnedtable.py").write_text(
        "T = {'a': lambda q: q, 'b': lambda q: -q}\n\n\ndef make(n):\n    return lambda q: q < n\n\n\n"
        "def kind(n):\n    class Kind:\n        width = n\n    return Kind\n"
    )
    _module(tmp_path, "pinnedtable", (tmp_path / "pinnedtable.py").read_text())
    made = ("T['a']", "T['b']", "make(3)", "make(4)", "kind(3)", "kind(4)")
    text = "from pinnedtable import T, kind, make\nuse = $\ndef mask(q):\n    return use(q)\n"
    masks = [_module(tmp_path, f"one{number}", text.replace("$", one)).mask for number, one in enumerate(made)]
    assert len({Describer(["pinnedtable"]).describe(one).digest for one in masks}) == len(made)


@pytest.mark.parametrize("name", ["width", "_width"])
def test_attribute_of_a_function_that_the_dsl_has_decorated_is_told(mask: Load, name: str) -> None:
    pytest.importorskip("cutlass.cute")
    text = f"import cutlass.cute as cute\n@cute.jit\ndef mask(q):\n    return q < mask.{name}\nmask.{name} = $\n"
    assert _told(mask("one", text.replace("$", "3"))).digest != _told(mask("two", text.replace("$", "4"))).digest


def test_numbers_of_numpys_that_differ_in_their_unit_are_refused(mask: Load) -> None:
    pytest.importorskip("numpy")
    with pytest.raises(Unidentifiable, match=r"`N` is a numpy\.datetime64"):
        _told(mask("one", "import numpy\nN = numpy.datetime64(3, 'ns')\ndef mask(q):\n    return N\n"))
    assert _told(mask("two", "import numpy\nN = numpy.dtype('f4')\ndef mask(q):\n    return N\n")).digest
