"""What may differ between the toolchain that built a kernel and what is installed where it runs: one table.

docs/reference/versions.md has the same rows; a test compares them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .fit import Fit
from .toolchain import Toolchain, abi

PROVIDER_SOURCE = "provider source"
"""What messages call the digest of the provider's source."""

_ADVICE = "`FA4_PRECOMPILE_TOOLCHAIN=compatible` takes it all the same"
_ABSENT = "absent"


class Rule(enum.Enum):
    """How a field of a toolchain is compared; its value is what the documents say."""

    EQUAL = "equal"
    SAME_ABI = "equal in major and minor version"
    DRIVER = "no newer than the driver's"
    FREE = "may differ"


@dataclass(frozen=True)
class Row:
    """A field of `Toolchain`.

    Attributes:
        field: its name.
        called: what messages call it.
        always: what must be so wherever a kernel runs.
        exact: what else must be so under `Fit.EXACT`.
        because: why it is so.
        test: the file and the name of the test that holds it.
    """

    field: str
    called: str
    always: Rule
    exact: Rule
    because: str
    test: str

    def render(self) -> str:
        """Return the row as the documents have it."""
        rules = f"{self.always.value} | {self.exact.value}"
        return f"| `{self.field}` | {rules} | {self.because} | `{self.test}` |"


COMPARED = (
    Row(
        "provider",
        "provider",
        Rule.EQUAL,
        Rule.EQUAL,
        "a slot and a key mean what this provider means by them",
        "test_compared.py::test_field_that_must_always_be_equal_is_a_miss_under_either_setting",
    ),
    Row(
        "provider_version",
        "provider version",
        Rule.FREE,
        Rule.FREE,
        "for people: a patched FA4 keeps its version, and its source is compared",
        "test_compared.py::test_field_that_may_differ_is_served_under_either_setting_and_is_nothing_to_say",
    ),
    Row(
        "provider_source",
        PROVIDER_SOURCE,
        Rule.EQUAL,
        Rule.EQUAL,
        "FA4 finds a kernel by the key, and calls it with the arguments, that its source says",
        "test_compared.py::test_field_that_must_always_be_equal_is_a_miss_under_either_setting",
    ),
    Row(
        "traced_libraries",
        "traced_libraries",
        Rule.FREE,
        Rule.EQUAL,
        "a library's code is in the bytes already; another release would have given other bytes",
        "test_compared.py::test_field_that_changes_what_is_compiled_is_a_miss_under_exact_only",
    ),
    Row(
        "dsl",
        "dsl",
        Rule.FREE,
        Rule.EQUAL,
        "the compiler has done its work; another one would have given other bytes",
        "test_compared.py::test_field_that_changes_what_is_compiled_is_a_miss_under_exact_only",
    ),
    Row(
        "dsl_cuda",
        "CUDA",
        Rule.DRIVER,
        Rule.EQUAL,
        "a driver loads no cubin of a later CUDA major; the DSL's libraries for another one are another compiler",
        "test_compared.py::test_cubin_of_a_cuda_that_the_driver_cannot_take_is_a_miss_that_names_both",
    ),
    Row(
        "tvm_ffi",
        "TVM-FFI",
        Rule.SAME_ABI,
        Rule.SAME_ABI,
        "it is the binary interface of the call, and changes no code",
        "test_compared.py::test_tvm_ffi_is_compared_by_major_and_minor_version",
    ),
    Row(
        "machine",
        "host",
        Rule.EQUAL,
        Rule.EQUAL,
        "a blob holds host code",
        "test_compared.py::test_field_that_must_always_be_equal_is_a_miss_under_either_setting",
    ),
    Row(
        "host_compiler",
        "host compiler",
        Rule.FREE,
        Rule.FREE,
        "host code that was compiled on another kind of machine does what a build on this one's does",
        "test_compared.py::test_field_that_may_differ_is_served_under_either_setting_and_is_nothing_to_say",
    ),
    Row(
        "environment",
        "environment",
        Rule.FREE,
        Rule.EQUAL,
        "the variables have done their work; a compile in this job would follow its own",
        "test_compared.py::test_field_that_changes_what_is_compiled_is_a_miss_under_exact_only",
    ),
)
"""All fields of a toolchain. What is not installed is not compared: nothing else could compile there."""


@dataclass(frozen=True)
class RunTime:
    """What is installed where kernels are to run. What is None is not there, or is not known, and is not compared.

    Attributes:
        provider, provider_source, tvm_ffi, machine, environment: as in `Toolchain`.
        traced_libraries, dsl, dsl_cuda: as in `Toolchain`, where something is installed that could compile.
        driver_cuda: CUDA major that the driver knows, where there is one.
    """

    provider: str
    provider_source: str
    tvm_ffi: str
    machine: str
    environment: Mapping[str, str]
    traced_libraries: Mapping[str, str] | None = None
    dsl: Mapping[str, str] | None = None
    dsl_cuda: int | None = None
    driver_cuda: int | None = None

    def differences(self, toolchain: Toolchain, fit: Fit) -> list[str]:
        """Return what keeps a toolchain's kernels from being taken here, in words; the last may be what helps."""
        found, inexact = list[str](), list[str]()
        for row in COMPARED:
            of_row = list(self._differences(row, row.always, toolchain))
            found += of_row
            inexact += [] if of_row else self._differences(row, row.exact, toolchain)
        if fit is Fit.COMPATIBLE or not inexact:
            return found
        return [*found, *inexact] if found else [*inexact, _ADVICE]

    def inexact(self, toolchain: Toolchain) -> list[str]:
        """Return what a compile here would do with another toolchain than this one, in words."""
        return [words for row in COMPARED for words in self._differences(row, row.exact, toolchain)]

    def _differences(self, row: Row, rule: Rule, toolchain: Toolchain) -> Iterator[str]:
        there: object = getattr(toolchain, row.field)
        match rule:
            case Rule.FREE:
                return
            case Rule.DRIVER:
                if self.driver_cuda is not None and toolchain.dsl_cuda > self.driver_cuda:
                    yield f"{row.called} {there} there, {self.driver_cuda} is the driver's here"
            case Rule.SAME_ABI:
                if abi(toolchain.tvm_ffi) != abi(self.tvm_ffi):
                    yield f"{row.called} {abi(toolchain.tvm_ffi)} there, {abi(self.tvm_ffi)} here"
            case Rule.EQUAL:
                here: object = getattr(self, row.field)
                if isinstance(here, Mapping) and isinstance(there, Mapping):
                    yield from _unequal(row.called, there, here)
                elif here is not None and here != there:
                    yield f"{row.called} {_shown(there)} there, {_shown(here)} here"


def _unequal(called: str, there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """Yield what differs, once for all names with the same two values: the DSL's distributions have one version."""
    names: dict[tuple[str | None, str | None], list[str]] = {}
    for name in sorted({*there, *here}):
        names.setdefault((there.get(name), here.get(name)), []).append(name)
    for (mine, other), (first, *more) in names.items():
        if mine != other:
            among = f" and {len(more)} more" if more else ""
            yield f"{called}.{first}{among} {_shown(mine)} there, {_shown(other)} here"


def _shown(value: object) -> str:
    if value is None:
        return _ABSENT
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a digest
