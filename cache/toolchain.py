"""Everything that shapes a kernel's bytes, read without importing any of it. Standard library only.

What is in the identity and what is not is explained in docs/decisions/0003-toolchain-identity.md.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import MachineError
from .json_fields import Fields, parse_file, render_file
from .key import digest_json
from .target import host_machine

SCHEMA = "fa4-precompile/toolchain/2"

_PTXAS = "CUTE_DSL_PTXAS_PATH"
CODEGEN_ENVIRONMENT = (
    "CUTE_DSL_AUTO_M2S",
    "CUTE_DSL_COMPILER_BACKEND",
    "CUTE_DSL_COMPILER_OPT",
    "CUTE_DSL_DEBUG",
    "CUTE_DSL_DRYRUN",
    "CUTE_DSL_ENABLE_ASSERTIONS",
    "CUTE_DSL_ENABLE_PYIR",
    "CUTE_DSL_LINEINFO",
    "CUTE_DSL_LOC_TRACEBACKS",
    _PTXAS,
    "CUTE_DSL_TOLERATE_M2M",
    "CUTE_DSL_USE_EXTENSION_COMPILER",
    "CUTE_DSL_WARNINGS_AS_ERRORS",
)
"""Environment variables that change what the DSL generates: those that it marks `affects_compile` itself (a test
compares), less the arch, which is in the kernel id, TVM-FFI, which is always on, and paths; and the one that makes FA4
and quack assemble with another ptxas, which is recorded by that program's digest."""

_DSL = "nvidia-cutlass-dsl"
_RUNTIME = "libcute_dsl_runtime.so"
_BUILD_HINT = "`pip install 'fa4-precompile[build]'`"


@dataclass(frozen=True)
class ProviderSource:
    """Where a provider's code is: which distribution, and the package folder whose source is traced into kernels."""

    name: str
    distribution: str
    package: str


FLASH_ATTN_4 = ProviderSource("flash-attn-4", "flash-attn-4", "flash_attn.cute")


def provider_of(package: str) -> ProviderSource:
    """Return where the code of a package of FA4's lineage is, which may be called otherwise."""
    if package == FLASH_ATTN_4.package:
        return FLASH_ATTN_4
    top = package.split(".")[0]
    distributions = importlib.metadata.packages_distributions().get(top, [top])
    return ProviderSource(FLASH_ATTN_4.name, distributions[0], package)


@dataclass(frozen=True)
class Toolchain:
    """The toolchain that built a kernel, each field with its value, so that a mismatch can be named.

    Attributes:
        provider: name of the provider.
        provider_version: its version, for people.
        provider_source: SHA-256 over its Python source.
        traced_libraries: SHA-256 over the source of each library that is traced into kernels (quack).
        dsl: version of every installed `nvidia-cutlass-dsl*` distribution.
        dsl_cuda: CUDA major of the DSL's libraries in use, 12 or 13.
        tvm_ffi: version of apache-tvm-ffi.
        machine: processor of the host.
        environment: the variables of `CODEGEN_ENVIRONMENT` that are set; a program by its digest.
    """

    provider: str
    provider_version: str
    provider_source: str
    traced_libraries: Mapping[str, str]
    dsl: Mapping[str, str]
    dsl_cuda: int
    tvm_ffi: str
    machine: str
    environment: Mapping[str, str]

    @property
    def id(self) -> str:
        """Return the toolchain's id, 32 hexadecimal digits."""
        return digest_json(self.render())[:32]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "schema": SCHEMA,
            "provider": self.provider,
            "provider_version": self.provider_version,
            "provider_source": self.provider_source,
            "traced_libraries": dict(self.traced_libraries),
            "dsl": dict(self.dsl),
            "dsl_cuda": self.dsl_cuda,
            "tvm_ffi": self.tvm_ffi,
            "machine": self.machine,
            "environment": dict(self.environment),
        }

    def render_file(self) -> bytes:
        """Return the bytes of `toolchains/<id>.json`."""
        return render_file(self.render())

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Toolchain:
        """Read what `render_file` wrote. Raises `RecordError`."""
        return cls._parse(parse_file(source, data, SCHEMA))

    @classmethod
    def _parse(cls, fields: Fields) -> Toolchain:
        return cls(
            provider=fields.string("provider"),
            provider_version=fields.string("provider_version"),
            provider_source=fields.string("provider_source"),
            traced_libraries=fields.strings("traced_libraries"),
            dsl=fields.strings("dsl"),
            dsl_cuda=fields.integer("dsl_cuda"),
            tvm_ffi=fields.string("tvm_ffi"),
            machine=fields.string("machine"),
            environment=fields.strings("environment"),
        )

    def differences(self, other: Toolchain) -> list[tuple[str, object, object]]:
        """Return (field, mine, other's) for each field that differs, one entry a library or variable."""
        found: list[tuple[str, object, object]] = []
        mine, theirs = self.render(), other.render()
        for name, value in mine.items():
            if isinstance(value, dict):
                inner = theirs[name]
                assert isinstance(inner, dict)
                for key in sorted(value.keys() | inner.keys()):
                    if value.get(key) != inner.get(key):
                        found.append((f"{name}.{key}", value.get(key), inner.get(key)))
            elif value != theirs[name]:
                found.append((name, value, theirs[name]))
        return found


@dataclass(frozen=True)
class RunTime:
    """What of a toolchain has to be the same where its kernels run; all else is recorded and shown.

    Attributes:
        provider_source: as in `Toolchain`: the provider calls the kernel as its source says.
        tvm_ffi_abi: major and minor version of TVM-FFI, the interface of a kernel's function.
        machine: processor of the host.
    """

    provider_source: str
    tvm_ffi_abi: str
    machine: str

    def differences(self, toolchain: Toolchain) -> list[str]:
        """Return what a toolchain's kernels were built for that is not so here, in words."""
        mine = {
            "provider source": self.provider_source,
            "TVM-FFI": self.tvm_ffi_abi,
            "host": self.machine,
        }
        theirs = {
            "provider source": toolchain.provider_source,
            "TVM-FFI": _abi(toolchain.tvm_ffi),
            "host": toolchain.machine,
        }
        return [
            f"{name} {_short(theirs[name])} there, {_short(value)} here"
            for name, value in mine.items()
            if value != theirs[name]
        ]


def installed_run_time(provider: ProviderSource = FLASH_ATTN_4) -> RunTime:
    """Read what is installed here. Imports none of it; takes some 10 ms. Raises `MachineError` if a part is missing."""
    return RunTime(_source_digest(provider.package), _abi(_version("apache-tvm-ffi")), host_machine())


def _abi(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _short(value: str) -> str:
    return value[:12]


def installed_toolchain(provider: ProviderSource = FLASH_ATTN_4) -> Toolchain:
    """Read the toolchain that is installed here. Imports none of it; takes some 30 ms.

    Raises `MachineError` if a part is missing, with the command that installs it.
    """
    dsl = _dsl_distributions()
    if _DSL not in dsl:
        raise MachineError(f"`{_DSL}` is not installed, so nothing can be compiled here", _BUILD_HINT)
    return Toolchain(
        provider=provider.name,
        provider_version=_provider_version(provider),
        provider_source=_source_digest(provider.package),
        traced_libraries={"quack": _source_digest("quack")},
        dsl=dsl,
        dsl_cuda=dsl_cuda_in_use(),
        tvm_ffi=_version("apache-tvm-ffi"),
        machine=host_machine(),
        environment=_codegen_environment(),
    )


def codegen_variables() -> dict[str, str]:
    """Return the variables of `CODEGEN_ENVIRONMENT` that are set in this process."""
    return {name: os.environ[name] for name in CODEGEN_ENVIRONMENT if os.environ.get(name)}


def _codegen_environment() -> dict[str, str]:
    variables = codegen_variables()
    if path := variables.get(_PTXAS):
        try:  # what it does matters, not where it is
            variables[_PTXAS] = f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        except OSError as error:
            raise MachineError(f"`{_PTXAS}={path}` can't be read: {error.strerror}", f"unset {_PTXAS}") from None
    return variables


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, or None. Imports nothing, not even the parent package."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, *rest)
        if folder.is_dir():
            return folder
    return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MachineError(f"`{distribution}` is not installed", _BUILD_HINT) from None


def _provider_version(provider: ProviderSource) -> str:
    try:
        return importlib.metadata.version(provider.distribution)
    except importlib.metadata.PackageNotFoundError:
        if provider != FLASH_ATTN_4 and package_folder(provider.package):
            return "unknown"  # a folder on the path; its source is what identifies it
        return _version(provider.distribution)


def _dsl_distributions() -> dict[str, str]:
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(_DSL):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def _source_digest(package: str) -> str:
    folder = package_folder(package)
    if folder is None:
        raise MachineError(f"package `{package}` is not installed", _BUILD_HINT)
    digest = hashlib.sha256()
    for path in sorted(_python_files(folder)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _python_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())


def dsl_cuda_flavors() -> list[int]:
    """Return the CUDA majors of the DSL's installed libraries, newest first."""
    return sorted(_runtime_libraries(), reverse=True)


def _runtime_libraries() -> dict[int, Path]:
    folder = package_folder("nvidia_cutlass_dsl")
    if folder is None:
        return {}
    found = {
        int(path.parts[-3][2:]): path for path in folder.glob(f"cu*/lib/{_RUNTIME}") if path.parts[-3][2:].isdigit()
    }
    plain = folder / "lib" / _RUNTIME
    if not found and plain.is_file():  # up to 4.6 there was one place for either
        cuda_13 = any(name.endswith("cu13") for name in _dsl_distributions())
        found = {13 if cuda_13 else 12: plain}
    return found


def dsl_cuda_in_use() -> int:
    """Return the CUDA major of the libraries that the DSL will load: the newest that the driver, if any, knows.

    The builder compares this with what the DSL says of itself once it is imported.
    """
    driver = _driver_cuda_major()
    for flavor in dsl_cuda_flavors():
        if driver is None or flavor <= driver:
            return flavor
    raise MachineError(
        "the DSL's libraries for CUDA are not installed, or are newer than this machine's driver", _BUILD_HINT
    )


def runtime_library() -> Path | None:
    """Return the DSL's run-time library that kernels need, or None if it is not installed."""
    libraries = _runtime_libraries()
    return libraries[dsl_cuda_in_use()] if libraries else None


def _driver_cuda_major() -> int | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        return version.value // 1000 if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None
