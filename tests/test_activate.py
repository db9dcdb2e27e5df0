"""What `import torch` does in a job: nothing that is not asked for, and nothing that can keep it from working.

Through the installed entry point, in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fa4_precompile
from support import publish_synthetic

_TORCH = "import torch"
# The same without the seconds that torch takes: what it does with the entry points of its group.
_LIKE_TORCH = "from importlib.metadata import entry_points\nfor e in entry_points(group='torch.backends'): e.load()()"
_PRINT_STATE = """
import json, sys
ours = sorted(name for name in sys.modules if name.split('.')[0] == 'fa4_precompile')
finders = [getattr(f, '__module__', '') for f in sys.meta_path]
print(json.dumps({
    'ours': ours,
    'finders': [name for name in finders if name.startswith('fa4_precompile')],
    'heavy': sorted({'flash_attn', 'cutlass', 'tvm_ffi', 'quack', 'yaml', 'click', 'filelock'} & sys.modules.keys()),
}))
"""
_TORCH_WORKS = "import torch; print(torch.ones(2).sum().item())"


@dataclass(frozen=True)
class _Job:
    """A Python process that has ended."""

    code: int
    out: str
    err: str

    @property
    def state(self) -> Any:
        return json.loads(self.out)


Job = Callable[..., _Job]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Run a program as a job would be, with nothing set but what is given."""

    def run(*program: str, **environment: str) -> _Job:
        settings = ("FA4_PRECOMPILE_", "TORCH_DEVICE_BACKEND_AUTOLOAD")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(program)],
            env=clean | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return _Job(done.returncode, done.stdout, done.stderr)

    return run


def _only_line(done: _Job) -> str:
    """Return what was said: one line of ours, in a job that goes on."""
    assert done.code == 0, done.err
    (line,) = done.err.splitlines()
    assert line.startswith("fa4-precompile: ")
    return line


# Nothing is asked for


def test_torch_alone_loads_nothing_of_ours_but_the_entry_point(job: Job) -> None:
    done = job(_TORCH, _PRINT_STATE)
    assert done.code == 0, done.err
    assert done.state["ours"] == ["fa4_precompile", "fa4_precompile.activate"]
    assert done.state["finders"] == []
    assert "fa4-precompile" not in done.err


@pytest.mark.parametrize(
    "environment",
    [{"FA4_PRECOMPILE_CACHE": ""}, {"FA4_PRECOMPILE_REPORT": "1"}, {"FA4_PRECOMPILE_ON_MISS": ""}],
    ids=str,
)
def test_torch_with_no_cache_named_gets_no_loader(job: Job, environment: dict[str, str]) -> None:
    done = job(_LIKE_TORCH, _PRINT_STATE, **environment)
    assert (done.code, done.err) == (0, "")
    assert done.state["ours"] == ["fa4_precompile", "fa4_precompile.activate"]
    assert done.state["finders"] == []


def test_torch_that_is_told_to_load_no_plugins_does_not_ask_us(job: Job) -> None:
    settings = {"FA4_PRECOMPILE_CACHE": "kernels", "FA4_PRECOMPILE_ON_MISS": "eror"}
    done = job(_TORCH, _PRINT_STATE, TORCH_DEVICE_BACKEND_AUTOLOAD="0", **settings)
    assert done.code == 0, done.err
    assert (done.state["ours"], done.state["finders"]) == ([], [])
    assert "fa4-precompile" not in done.err


# A cache is named


def test_torch_with_a_cache_watches_for_flash_attention_and_imports_none_of_it(job: Job) -> None:
    done = job(_TORCH, _PRINT_STATE, FA4_PRECOMPILE_CACHE="kernels")
    assert done.code == 0, done.err
    assert done.state["finders"] == ["fa4_precompile.loader.loader"]
    assert not {"flash_attn", "cutlass", "quack"} & set(done.state["heavy"])
    assert "fa4-precompile" not in done.err


def test_activation_imports_the_standard_library_only(job: Job, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "kernels")
    done = job(_LIKE_TORCH, _PRINT_STATE, FA4_PRECOMPILE_CACHE="kernels", FA4_PRECOMPILE_ON_MISS="error")
    assert (done.code, done.err) == (0, "")
    assert done.state["finders"] == ["fa4_precompile.loader.loader"]
    assert done.state["heavy"] == []


def test_activation_takes_each_setting_from_the_environment(job: Job, tmp_path: Path) -> None:
    show = """
from fa4_precompile.loader.loader import installed_loader
loader = installed_loader()
cache = loader.served[0].cache
print([str(root) for root in cache.roots], cache.trust.value, loader.strict)
"""
    publish_synthetic(tmp_path / "one")
    done = job(
        _LIKE_TORCH,
        show,
        FA4_PRECOMPILE_CACHE="one:/opt/two",
        FA4_PRECOMPILE_ON_MISS="error",
        FA4_PRECOMPILE_ALLOW_UNTRUSTED="1",
    )
    assert done.out == f"{[str(tmp_path / 'one'), '/opt/two']} any True\n"


def test_process_that_never_imports_flash_attention_reports_nothing(job: Job, tmp_path: Path) -> None:
    for report in ("1", "report.jsonl"):
        done = job(_LIKE_TORCH, FA4_PRECOMPILE_CACHE="kernels", FA4_PRECOMPILE_REPORT=report)
        assert (done.code, done.out, done.err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# Something is wrong


def test_torch_with_a_setting_that_cannot_be_meant_works_and_says_so_in_one_line(job: Job) -> None:
    line = _only_line(job(_TORCH_WORKS, FA4_PRECOMPILE_CACHE="kernels", FA4_PRECOMPILE_ON_MISS="eror"))
    assert "`FA4_PRECOMPILE_ON_MISS=eror`" in line
    assert "allowed: error, warn, compile, store" in line
    assert "kernels are compiled in this process" in line


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FA4_PRECOMPILE_ON_MISS": "warn"}, "`FA4_PRECOMPILE_CACHE` is not"),
        ({"FA4_PRECOMPILE_ON_MISS": "eror"}, "`FA4_PRECOMPILE_CACHE` is not"),
        (
            {"FA4_PRECOMPILE_CACHE": "kernels", "FA4_PRECOMPILE_ALLOW_UNTRUSTED": "maybe"},
            "`FA4_PRECOMPILE_ALLOW_UNTRUSTED=maybe`",
        ),
    ],
    ids=str,
)
def test_setting_that_cannot_be_meant_is_one_line_and_no_loader(
    job: Job, environment: dict[str, str], words: str
) -> None:
    done = job(_LIKE_TORCH, _PRINT_STATE, **environment)
    line = _only_line(done)
    assert words in line
    assert "kernels are compiled in this process" in line
    assert done.state["finders"] == []


@pytest.mark.parametrize(
    ("environment", "words", "code"),
    [
        ({}, "`FA4_PRECOMPILE_CACHE` is not", 2),
        ({"FA4_PRECOMPILE_CACHE": "kernels", "FA4_PRECOMPILE_ALLOW_UNTRUSTED": "yes"}, "UNTRUSTED=yes`", 2),
        ({"FA4_PRECOMPILE_CACHE": "nowhere"}, "nowhere`: does not exist", 2),
        ({"FA4_PRECOMPILE_CACHE": "shared"}, "others can write it", 4),
    ],
    ids=lambda value: "" if isinstance(value, (str, int)) else str(value),
)
@pytest.mark.parametrize("like_torch", [False, True], ids=["torch", "like torch"])
def test_strict_job_that_cannot_be_strict_ends_before_it_begins(
    job: Job, tmp_path: Path, environment: dict[str, str], words: str, code: int, like_torch: bool
) -> None:
    publish_synthetic(tmp_path / "kernels")
    publish_synthetic(tmp_path / "shared")
    (tmp_path / "shared").chmod(0o777)
    program = f"try:\n    {_TORCH}\nexcept Exception: pass\nprint('it goes on')"
    done = job(_LIKE_TORCH if like_torch else program, FA4_PRECOMPILE_ON_MISS="error", **environment)
    assert (done.code, done.out) == (code, "")
    (line,) = done.err.splitlines()
    assert line.startswith("fa4-precompile: ")
    assert words in line


def test_strict_job_with_one_root_of_use_begins(job: Job, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "kernels")
    done = job(_LIKE_TORCH, _PRINT_STATE, FA4_PRECOMPILE_ON_MISS="error", FA4_PRECOMPILE_CACHE="nowhere:kernels")
    assert done.state["finders"] == ["fa4_precompile.loader.loader"]


@pytest.mark.parametrize("stream", ["/dev/full", pytest.param("&-", marks=pytest.mark.long)])
def test_setting_that_cannot_be_meant_where_nothing_can_be_said_is_no_reason_to_fail(
    tmp_path: Path, stream: str
) -> None:
    environment = os.environ | {"FA4_PRECOMPILE_CACHE": "kernels", "FA4_PRECOMPILE_ON_MISS": "eror"}
    shell = ["sh", "-c", f'exec "$@" 2>{stream}', "sh", sys.executable, "-c", _TORCH_WORKS]
    done = subprocess.run(
        shell, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "2.0\n")


def test_fault_of_our_own_is_one_line_and_torch_works(job: Job) -> None:
    broken = """
import fa4_precompile.loader.install
def install_config(config):
    raise ZeroDivisionError("a fault of ours")
fa4_precompile.loader.install.install_config = install_config
"""
    done = job(broken, _TORCH_WORKS, FA4_PRECOMPILE_CACHE="kernels")
    assert "ZeroDivisionError: a fault of ours" in _only_line(done)
    assert done.out == "2.0\n"


def test_folder_of_ours_that_does_not_import_is_one_line(job: Job) -> None:
    # As a half-finished upgrade leaves it.
    done = job("import sys; sys.modules['fa4_precompile.loader.config'] = None", _LIKE_TORCH, FA4_PRECOMPILE_CACHE="k")
    assert "ModuleNotFoundError" in _only_line(done)


# The package


def test_package_has_every_name_that_it_lists_and_lists_no_other() -> None:
    assert dir(fa4_precompile) == sorted(fa4_precompile.__all__)
    for name in fa4_precompile.__all__:
        assert getattr(fa4_precompile, name) is not None


def test_package_attribute_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fa4_precompile' has no attribute 'instal'"):
        fa4_precompile.instal  # noqa: B018
    assert not hasattr(fa4_precompile, "instal")


def test_package_imports_what_an_attribute_needs_when_it_is_asked_for(job: Job) -> None:
    program = """
import json, sys
def ours(): return sorted(name for name in sys.modules if name.startswith('fa4_precompile'))
import fa4_precompile
steps = [ours()]
fa4_precompile.KernelMissing
steps.append(ours())
fa4_precompile.install
steps.append(ours())
print(json.dumps(steps))
"""
    nothing, error, loader = job(program).state
    assert nothing == ["fa4_precompile"]
    assert error == ["fa4_precompile", "fa4_precompile.errors"]
    assert "fa4_precompile.loader.install" in loader


def test_package_can_be_imported_with_a_star() -> None:
    names: dict[str, object] = {}
    exec("from fa4_precompile import *", names)
    assert set(fa4_precompile.__all__) <= names.keys()
