"""What a build answers a package: torch's device, which is not there, and parents that can't be imported."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fa4_precompile.errors import Fa4PrecompileError
from fa4_precompile.providers.dsl.device_facts import DeviceFacts
from fa4_precompile.providers.fa4.device import answer_for
from fa4_precompile.providers.fa4.parents import import_module
from support import make_target

_TARGET = make_target(arch="sm_103a", sms=160)


@pytest.fixture
def facts() -> DeviceFacts:
    """The facts of a kernel that has asked nothing."""
    return DeviceFacts(_TARGET)


def _torch(facts: DeviceFacts, **has: Any) -> Any:
    torch = SimpleNamespace(cuda=SimpleNamespace(), _C=SimpleNamespace(**has))
    answer_for(_TARGET, facts, torch)
    return torch


def test_torch_says_of_the_device_what_the_target_says(facts: DeviceFacts) -> None:
    cuda = _torch(facts).cuda
    assert cuda.get_device_capability() == cuda.get_device_capability("cuda:3") == (10, 3)
    properties = cuda.get_device_properties(0)
    assert (properties.major, properties.minor, properties.multi_processor_count) == (10, 3, 160)
    assert (cuda.current_device(), cuda.is_current_stream_capturing()) == (0, False)
    assert facts.asked == {}


def test_torch_refuses_what_no_target_says(facts: DeviceFacts) -> None:
    properties = _torch(facts).cuda.get_device_properties()
    with pytest.raises(Fa4PrecompileError, match="asks torch for the device's `L2_cache_size`"):
        _ = properties.L2_cache_size


def test_raw_stream_is_there_for_a_build_of_torch_that_lacks_it_and_is_left_where_it_is(facts: DeviceFacts) -> None:
    assert _torch(facts)._C._cuda_getCurrentRawStream(0) == 0
    real = _torch(facts, _cuda_getCurrentRawStream=len)._C._cuda_getCurrentRawStream
    assert real is len


def test_sm_count_that_a_traced_kernel_asks_torch_for_is_one_of_its_facts(facts: DeviceFacts) -> None:
    properties = _torch(facts).cuda.get_device_properties()
    traced: Any = ModuleType("cutlass.base_dsl.made_up_here")
    exec("def trace(kernel):\n    return kernel()", vars(traced))
    assert traced.trace(lambda: properties.multi_processor_count) == 160
    assert facts.asked == {"sms": 160}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An inference engine's folders, whose top can be imported and whose second package can't."""
    folder = tmp_path / "brokenengine" / "attention" / "cute"
    folder.mkdir(parents=True)
    (tmp_path / "brokenengine" / "__init__.py").write_text("executed = True")
    (tmp_path / "brokenengine" / "attention" / "__init__.py").write_text("raise ImportError('no libcuda.so.1')")
    (folder / "__init__.py").write_text("")
    (folder / "interface.py").write_text("import brokenengine\nfrom brokenengine.attention.cute import tiles\n")
    (folder / "tiles.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("brokenengine")]:
        del sys.modules[name]


_ENGINE = "brokenengine.attention.cute"


def test_parent_that_can_not_be_imported_is_a_bare_package_and_said_once(
    engine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ImportError, match="no libcuda"):
        importlib.import_module(f"{_ENGINE}.interface")
    with caplog.at_level(logging.WARNING):
        interface: Any = import_module(f"{_ENGINE}.interface", _ENGINE)
        import_module(f"{_ENGINE}.tiles", _ENGINE)
    assert interface.brokenengine.executed
    assert interface.brokenengine.attention.cute.tiles is interface.tiles
    assert [record.getMessage() for record in caplog.records] == [
        "fa4-precompile: package `brokenengine.attention` can't be imported here (ImportError: no libcuda.so.1); "
        "`brokenengine.attention.cute.interface` is imported without it"
    ]


def test_package_that_fails_itself_is_not_said_to_be_its_parents(
    engine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (engine / "__init__.py").write_text("from .interface import nothing")
    (engine.parent / "__init__.py").write_text("")
    with pytest.raises(ImportError, match="nothing"):
        import_module(f"{_ENGINE}.interface", _ENGINE)
    assert caplog.records == []


@pytest.mark.usefixtures("engine")
def test_package_that_is_not_there_is_not_made_up() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        import_module("brokenengine.nowhere.cute.interface", "brokenengine.nowhere.cute")
