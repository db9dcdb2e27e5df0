"""A kernel that was built for aarch64 hosts on this machine does what the native one does, call for call.

Both blobs have the same cubin. Each is loaded by a program for its processor, aarch64's under qemu, with a run time
that has no GPU and records what is asked of it: cubins, attributes, each byte of a launch, errors (`hosts/`). What this
can't show: that the run-time libraries for aarch64 do with it what those for x86_64 do.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from host_blobs import SPECS, Built, build_for_both, lacking
from host_mistakes import failing_calls, good_calls, wrong_calls
from host_records import COMPILERS, Host, Record, loads, parameter_sizes
from host_values import Call, tensors_of

from fa4_precompile.products.cubin import read_cubin
from product import cuobjdump

_LACKING = lacking()
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(bool(_LACKING), reason=f"it takes what is not here: {_LACKING}"),
]

_NATIVE, _CROSS = COMPILERS

# What the calls of each spec launch, in their order.
_KERNELS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "training": ("training fwd", "training bwd_pre", "training bwd", "training bwd_post"),
        "kernels": (
            *("two-launches fwd", "two-launches bwd_pre", "two-launches bwd"),
            *("split scheduler_metadata", "split fwd", "split fwd_combine"),
            *("packed tile_cumsum", "packed blocks_to_batch", "packed fwd", "paged fwd"),
            *("masked compute_block_sparsity", "masked fwd"),
        ),
    }
)
_MARKS = MappingProxyType({"training": (), "kernels": (pytest.mark.long,)})
_EACH_SPEC = pytest.mark.parametrize("spec", [pytest.param(spec, marks=_MARKS[spec]) for spec in _KERNELS])
_EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=_MARKS[spec]) for spec, names in _KERNELS.items() for name in names]
)
_LAUNCHES = {"two-launches bwd": 2}
_NOT_PASSED_ON = {
    "packed fwd": {"#21", "#23"}
}  # tensors that FlashAttention hands over, and whose scheduler is another

# Dividing by zero ends a process on x86, and gives zero on aarch64; the DSL's code leaves it to the processor.
_DIVIDED = "killed by signal 8"


class _Kernels:
    """The kernels of both hosts, each spec built when it is asked for, and the programs that call them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, dict[str, Built]] = {}
        self.hosts = {machine: Host.make(machine, folder) for machine in COMPILERS}

    def of(self, spec: str) -> dict[str, Built]:
        """Return the kernels of a spec by their names."""
        if spec not in self._built:
            built = build_for_both(SPECS / f"{spec}.yaml", self._folder / spec)
            self._built[spec] = {one.launch.name: one for one in built}
        return self._built[spec]

    def find(self, name: str) -> Built:
        """Return a kernel by its name."""
        (spec,) = (spec for spec, names in _KERNELS.items() if name in names)
        return self.of(spec)[name]

    def records(self, built: Built, machine: str, calls: Sequence[Call]) -> list[Record]:
        """Return what calls of a kernel do on a host."""
        blob = built.blobs[machine]
        return self.hosts[machine].records(blob.path, blob.symbol, calls)

    def compared(self, built: Built, calls: Sequence[Call]) -> tuple[list[Record], dict[str, tuple[Record, Record]]]:
        """Return what calls do here, and by their names those that do something else on the other host, with both."""
        native, cross = (self.records(built, machine, calls) for machine in (_NATIVE, _CROSS))
        names = [call.name for call in calls]
        assert len(set(names)) == len(names)
        return native, {name: (a, b) for name, a, b in zip(names, native, cross, strict=True) if a != b}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> _Kernels:
    """The kernels, built once."""
    return _Kernels(tmp_path_factory.mktemp("hosts"))


def _launched(record: Record) -> int:
    return sum(line.startswith("launch ") for line in record)


def _raised(record: Record) -> list[str]:
    return [line for line in record if line.startswith("raised ")]


def _first_difference(found: Mapping[str, tuple[Record, Record]]) -> dict[str, tuple[str, str]]:
    """Return the first line of each record that is another: all of them are more than anybody reads."""
    return {
        name: next((x, y) for x, y in zip((*a, "its end"), (*b, "its end"), strict=False) if x != y)
        for name, (a, b) in found.items()
    }


@_EACH_SPEC
def test_kernels_of_the_spec_are_those_that_are_compared(kernels: _Kernels, spec: str) -> None:
    assert tuple(kernels.of(spec)) == _KERNELS[spec]


@_EACH
def test_good_call_launches_the_same_with_every_byte(kernels: _Kernels, name: str) -> None:
    built = kernels.find(name)
    calls = list(good_calls(built.launch.values))
    native, different = kernels.compared(built, calls)
    assert _first_difference(different) == {}
    cubins = [loads(blob.path) for blob in built.blobs.values()]
    for call, record in zip(calls, native, strict=True):
        assert _raised(record) == []
        assert _launched(record) == call.times * _LAUNCHES.get(name, 1)
        assert [line for line in record if line.startswith("cudaLibraryLoadData")] == cubins[:1]
        passed = {word for line in record if line.startswith("  parameter") for word in line.split()}
        assert {place for place, _ in tensors_of(call.values)} - passed == _NOT_PASSED_ON.get(name, set())
    assert len(set(cubins)) == 1


@_EACH
def test_wrong_call_is_refused_in_the_same_words_or_launches_the_same(kernels: _Kernels, name: str) -> None:
    built = kernels.find(name)
    calls = list(wrong_calls(built.launch.values))
    native, different = kernels.compared(built, calls)
    divided = {call for call, (a, b) in different.items() if a[-1] == _DIVIDED and b[: len(a) - 1] == a[:-1]}
    assert _first_difference({call: pair for call, pair in different.items() if call not in divided}) == {}
    assert [call for call in divided if not re.search(r"size|negative", call)] == []
    refused = [record for record in native if _raised(record)]
    assert len(refused) > len(calls) / 2
    assert [record for record in refused if _launched(record) or "returned -1 result type 0" not in record] == []
    assert len({re.sub(r"#\d+|\d+", "", call.name) for call in calls if _raised(native[calls.index(call)])}) >= 20


@_EACH
def test_error_of_the_run_time_comes_back_the_same(kernels: _Kernels, name: str) -> None:
    built = kernels.find(name)
    calls = list(failing_calls(built.launch.values))
    native, different = kernels.compared(built, calls)
    assert _first_difference(different) == {}
    told = Counter(line for record in native for line in _raised(record))
    assert told["raised RuntimeError: CUDA error 719"] >= 3
    assert told["raised RuntimeError: the library is not loaded: CUDA error 2"] >= 5


def _any(kernels: _Kernels) -> tuple[Built, Call]:
    built = kernels.find("training bwd_post")
    return built, next(good_calls(built.launch.values))


def test_record_tells_of_a_parameter_that_is_another(kernels: _Kernels) -> None:
    built, call = _any(kernels)
    values = tuple(math.nextafter(one, 1) + 2**-20 if isinstance(one, float) else one for one in call.values)
    (native,), (cross,) = (
        kernels.records(built, machine, [Call("", given)])
        for machine, given in ((_NATIVE, call.values), (_CROSS, values))
    )
    different = [(a, b) for a, b in zip(native, cross, strict=True) if a != b]
    assert len(different) == 1
    assert different[0][0].startswith("  parameter ")


@pytest.mark.parametrize(
    ("text", "other", "name"),
    [(b"Mismatched type", b"Mismatched kind", "#0: None"), (b"\x50\xed\x55\xba\x01", b"\x50\xed\x55\xba\x02", "twice")],
    ids=["words of an error", "a byte of what the cubin is in"],
)
def test_record_tells_of_a_blob_that_has_another_byte(
    kernels: _Kernels, tmp_path: Path, text: bytes, other: bytes, name: str
) -> None:
    built, call = _any(kernels)
    blob = built.blobs[_CROSS]
    data = blob.path.read_bytes()
    assert data.count(text) == 1
    path = tmp_path / "other.so"
    path.write_bytes(data.replace(text, other))
    (chosen,) = (one for one in (*good_calls(call.values), *wrong_calls(call.values)) if one.name == name)
    assert kernels.records(built, _CROSS, [chosen]) != kernels.hosts[_CROSS].records(path, blob.symbol, [chosen])


@_EACH
def test_parameters_have_the_sizes_that_cuobjdump_prints(kernels: _Kernels, name: str, tmp_path: Path) -> None:
    blob = kernels.find(name).blobs[_NATIVE].path
    path = tmp_path / "kernel.cubin"
    path.write_bytes(read_cubin(blob.read_bytes()).image)
    printed = subprocess.run([cuobjdump(), "-elf", path], capture_output=True, text=True, check=True).stdout
    found = {}
    for part in re.split(r"^\.nv\.info\.", printed, flags=re.MULTILINE)[1:]:
        places = re.findall(r"Ordinal : (0x\w+)\s+Offset\s+: 0x\w+\s+Size\s+: (0x\w+)", part)
        if places:
            found[part.split()[0]] = [int(size, 16) for _, size in sorted(places, key=lambda pair: int(pair[0], 16))]
    assert found == parameter_sizes(blob)
