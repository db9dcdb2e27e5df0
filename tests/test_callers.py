"""Callers: functions of the user's that make the calls of a spec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.errors import SpecError
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.spec.sources import Sources, function_sources
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from fa4_precompile.providers.fa4.variant import Variant, own
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import origin, records, run
from specs import HEAD, error_of, spec_of

TESTS = Path(__file__).parent
_PATH = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}

_ENTRY = "- {name: a, pass: fwd, dtype: bf16, head_dim: 64, "


def _spec(entry: str, callers: str = "") -> Spec:
    return spec_of(f"{HEAD}{callers}kernels:\n{_ENTRY}{entry}}}\n")


# What a spec says


def test_name_of_a_caller_stands_for_its_function() -> None:
    spec = _spec("caller: mine", 'callers: {mine: "my_calls:step"}\n')
    assert [own(variant).caller for variant in spec.variants] == ["my_calls:step"]
    assert spec.digest == _spec('caller: "my_calls:step"').digest


def test_arguments_multiply_and_are_named_in_the_call() -> None:
    spec = _spec('caller: "m:f", arguments: {n: [1, 3], mode: [a, null], pair: [[1, 2]]}')
    assert [own(variant).render()["arguments"] for variant in spec.variants] == [
        {"mode": "a", "n": 1, "pair": [1, 2]},
        {"mode": "a", "n": 3, "pair": [1, 2]},
        {"mode": None, "n": 1, "pair": [1, 2]},
        {"mode": None, "n": 3, "pair": [1, 2]},
    ]
    json.dumps([variant.render() for variant in spec.variants])


def test_arguments_that_python_finds_equal_are_several_calls() -> None:
    assert len(_spec('caller: "m:f", arguments: {n: [1, 1.0, true]}').variants) == 3
    assert _spec('caller: "m:f", arguments: {n: 1}').digest != _spec('caller: "m:f", arguments: {n: 1.0}').digest


_MISTAKES = [
    ("caller: mien", 'callers: {mine: "m:f"}\n', "mien", "`callers` has no `mien`", "did you mean `mine`?"),
    ("caller: mine", "", "mine", "`callers` has no `mine`", "name a function, `module:function`"),
    ("causal: true", 'callers: {mine: "m:f"}\n', '"m:f"', "no entry has `caller: mine`", "take it out"),
    ("caller: mine", "callers: {mine: mm}\n", "mm", "`mine` can't be `mm`", "`module:attribute`"),
    ("caller: 3", "", "3", "`caller` can't be `3`", "`module:attribute`"),
    ("caller: {a: b}", "", "{a: b}", "expected one value, found a mapping", ""),
    ("arguments: {n: 1}", "", "{name", "entry `a`: `arguments` are what a caller is given", "add `caller:"),
    ('caller: "m:f", arguments: {n: .nan}', "", ".nan", "an argument can't be `.nan`", "finite numbers"),
    ('caller: "m:f", arguments: {n: [5, 5]}', "", "5]", "`n` has the value `5` twice", ""),
    ('caller: "m:f", arguments: {n-1: 5}', "", "5}", "`n-1` is no name of an argument", "letters"),
    ('caller: "m:f", arguments: {class: 5}', "", "5}", "`class` is no name of an argument", "letters"),
    ('caller: "m:f", arguments: {causal: true}', "", "true", "`causal` is told to every caller", "axis"),
    ('caller: "m:f", arguments: {seqlen_q: 5}', "", "5}", "`seqlen_q` is told to every caller", "`shape`"),
    ('caller: "m:f", arguments: [5]', "", "5]", "`arguments` must be a mapping, found `5`", ""),
]


@pytest.mark.parametrize(("entry", "callers", "at", "message", "hint"), _MISTAKES)
def test_mistake_about_a_caller_names_its_place(entry: str, callers: str, at: str, message: str, hint: str) -> None:
    text = f"{HEAD}{callers}kernels:\n{_ENTRY}{entry}}}\n"
    before = text[: text.rindex(at)]
    error = error_of(text)
    assert (error.line, error.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert error.message.startswith(message)
    assert hint in error.hint


# What its digest is made of


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write modules into a package, another one for each test, whose name stands for TOP in their texts."""
    top = f"callers_{abs(hash(str(tmp_path)))}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> str:
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / top / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("TOP", top))
        return top

    return write


def _sources(reference: str) -> Sources:
    return function_sources([Variant("fwd", "bf16", 64, 64, caller=reference)], ("flash_attn.cute", "cutlass"))


_STEP = "def step(interface, tensors):\n    interface.flash_attn_func(*tensors)\n"


@pytest.mark.parametrize(
    "imports",
    [
        "from .helper import make\n",
        "from TOP import helper\n",
        "import TOP.helper\n",
        "def step_of(x):\n    from .helper import make\n    return make(x)\n",
        "from .between import other\n",
        "try:\n    from .helper import make\nexcept ImportError:\n    from .nowhere import make\n",
    ],
)
def test_what_a_caller_imports_is_part_of_what_the_spec_means(write: Callable[..., str], imports: str) -> None:
    files = {"helper": "def make(x):\n    return x\n", "between": "from . import helper\n\ndef other(): ...\n"}
    top = write(m=f"import math\nimport torch\n{imports}\n{_STEP}", **files)
    before = _sources(f"{top}.m:step")
    write(m=f"import math\nimport torch\n{imports}\n{_STEP}", **files | {"helper": "def make(x):\n    return -x\n"})
    after = _sources(f"{top}.m:step")
    assert before.untold == after.untold == {}
    assert before.digests != after.digests
    assert before.digests.keys() == after.digests.keys()


@pytest.mark.parametrize(
    "imports", ["import os\n", "from random import choice\n", "from .helper import make\n", "import numpy\n"]
)
def test_caller_that_can_read_what_no_file_tells_is_asked_about_in_each_build(
    write: Callable[..., str], imports: str
) -> None:
    top = write(m=f"{imports}\n{_STEP}", helper="import time\n\ndef make(x): ...\n")
    (reason,) = _sources(f"{top}.m:step").untold.values()
    assert "imports" in reason


def test_caller_that_is_made_by_a_call_is_asked_about_in_each_build(write: Callable[..., str]) -> None:
    top = write(m=f"{_STEP}\ndef make(n):\n    return step\n\nmade = make(1)\n")
    assert _sources(f"{top}.m:made").untold


# What comes of it, with FlashAttention-4


Planner = Callable[[str], Any]


@pytest.fixture(scope="module")
def planned() -> Iterator[Planner]:
    """Plan one entry, whose caller is a function of the tests, for b200; return what `plan --json` prints."""
    book = target_book()
    with (
        pytest.MonkeyPatch.context() as patch,
        Compilers(DEFAULT, book.get("b200"), installed_toolchain(DEFAULT), 1) as compilers,
    ):
        for name, value in _PATH.items():
            patch.setenv(name, value)

        def plan(entry: str) -> Any:
            text = f"version: 1\nprovider: flash-attn-4\nkernels:\n- {{name: a, dtype: bf16, {entry}}}\n"
            return make_plan(parse_spec("spec.yaml", text, book), compilers).render()

        yield plan


@pytest.mark.compiles
def test_what_a_caller_looks_up_is_the_plan(planned: Planner) -> None:
    plan = planned('caller: "some_callers:step", pass: bwd, head_dim: 256, qheads_per_kvhead: 4')
    chosen = {kernel["slot"]: kernel["selection"] for kernel in plan["kernels"]}
    assert chosen["fwd"]["cluster_size"] == chosen["bwd"]["cluster_size"] == 2
    assert chosen["bwd"]["tiles"] == {"dq": [128, 128], "dkdv": [128, 64]}
    assert plan["calls"][0]["variant"]["caller"] == "some_callers:step"


@pytest.mark.compiles
def test_caller_that_makes_the_built_in_call_reaches_the_same_keys(planned: Planner) -> None:
    axes = "pass: bwd, head_dim: [[192, 128]], causal: true, shape: {batch: 1}"
    keys = [
        [(kernel["slot"], kernel["key"]) for kernel in planned(entry)["kernels"]]
        for entry in (axes, f'{axes}, caller: "some_callers:public"')
    ]
    assert keys[0] == keys[1]
    assert {slot for slot, _ in keys[0]} >= {"fwd", "bwd", "bwd_pre", "bwd_post"}


@pytest.mark.compiles
def test_caller_is_told_axes_sizes_and_arguments_by_name(planned: Planner) -> None:
    plan = planned(
        'caller: "some_callers:told", pass: fwd, head_dim: [[192, 128]], qheads_per_kvhead: 4, '
        "shape: {batch: 1, seqlen_q: 7}, arguments: {words: [[a, 1, null]]}"
    )
    assert len(plan["kernels"]) == 1


@pytest.mark.compiles
def test_demand_on_a_callers_kernel_is_checked(planned: Planner) -> None:
    entry = 'caller: "some_callers:step", pass: fwd, head_dim: 64'
    assert planned(f"{entry}, cluster_size: 1")["kernels"]
    with pytest.raises(SpecError, match="demands tile 64x64; the provider selects"):
        planned(f"{entry}, tile: [[64, 64]]")


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("caller", "more", "messages"),
    [
        ("some_callers:nowhere", "", ["`some_callers:nowhere` can't be imported: AttributeError"]),
        ("no_module_of_that_name:f", "", ["can't be imported: ModuleNotFoundError"]),
        ("some_callers:not_a_function", "", ["is of type `int`, not a function of a module"]),
        ("some_callers:raising", "", ["raises RuntimeError: no step for", "in raising\n", "in _help\n"]),
        ("some_callers:leaving", "", ["raises SystemExit: no", "in leaving\n"]),
        ("some_callers:nothing", "", ["`some_callers:nothing` looks up no kernel in any of"]),
        (
            "some_callers:unidentifiable",
            "",
            ["`mask_mod` can't be recognized", "`held` is a builtins.tuple_iterator"],
        ),
        ("some_callers:step", ", arguments: {n_func: 1}", ["caller `some_callers:step` takes no argument `n_func`"]),
        ("some_callers:step", ", arguments: {stages: 3}", ["raises AssertionError", "assert stages in (1, 2)"]),
    ],
)
def test_caller_that_can_not_be_used_is_an_error_of_the_spec(
    planned: Planner, caller: str, more: str, messages: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        planned(f'caller: "{caller}", pass: fwd, head_dim: 64{more}')
    error = caught.value
    assert (error.line, error.column) == (4, 3)
    assert error.message.startswith("entry `a`: ")
    for message in messages:
        assert message in error.message
    assert "Traceback" not in error.message
    assert "fa4_precompile/" not in error.message  # no frames but the caller's own


@pytest.mark.compiles
def test_what_flash_attention_says_against_a_callers_call_excludes_it(planned: Planner) -> None:
    (excluded,) = planned('caller: "some_callers:step", pass: fwd, head_dim: [64, 1000]')["excluded"]
    assert "1000" in excluded["reason"]
    assert excluded["variant"]["caller"] == "some_callers:step"


_JOB = """
import json
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
from flash_attn.cute import interface
import fa4_precompile
with FakeTensorMode():
    q, k, v = (torch.empty(1, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    interface._flash_attn_fwd(q, k, v, causal=True, return_lse=True, pack_gqa=False)
print(json.dumps(asdict(fa4_precompile.stats())))
"""


@pytest.mark.long
@pytest.mark.compiles
def test_kernel_of_a_caller_is_built_named_and_served(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    entry = "pass: fwd, dtype: bf16, head_dim: 64, causal: true, shape: {batch: 1}, arguments: {stages: [1, 2]}"
    spec.write_text(
        "version: 1\nprovider: flash-attn-4\ntargets: [b200]\ncallers: {mine: 'some_callers:step'}\n"
        f"kernels:\n- {{name: a, caller: mine, {entry}}}\n"
    )
    cache = tmp_path / "kernels"
    built = run("build", spec, "--cache", cache, environment=_PATH)
    assert built.code == 0, built.err
    (record,) = records(cache)  # both calls reach one kernel
    assert origin(cache, record).variant["caller"] == "some_callers:step"
    assert origin(cache, record).variant["arguments"] == {"stages": 1}
    again = run("build", spec, "--cache", cache, environment=_PATH)
    assert "0 built, 1 already there" in again.out + again.err
    environment = {
        "CUTE_DSL_ARCH": "sm_100a",
        "FLASH_ATTENTION_ARCH": "sm_100",
        "FLASH_ATTENTION_NUM_SMS": "148",
        "FA4_PRECOMPILE_CACHE": str(cache),
        "FA4_PRECOMPILE_ON_MISS": "error",
    }
    job = subprocess.run(
        [sys.executable, "-c", _JOB], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    stats = json.loads(job.stdout.splitlines()[-1])
    assert (stats["resolved"], stats["compiled"], stats["missed"]) == (1, 0, {})
