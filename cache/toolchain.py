"""What shaped a kernel's bytes. Data only; `cache/compared.py` says what of it may differ where the kernel runs.

What is in the identity and what is not is explained in docs/decisions/0003-toolchain-identity.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .codec import Fields, parse_file, render_file
from .key import digest_json

SCHEMA = "fa4-precompile/toolchain/3"


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
        host_compiler: version of what compiled the host code for another machine than the builder's, by its name; empty
            where the DSL did.
        environment: the code-generation variables that are set; a program by its digest.
    """

    provider: str
    provider_version: str
    provider_source: str
    traced_libraries: Mapping[str, str]
    dsl: Mapping[str, str]
    dsl_cuda: int
    tvm_ffi: str
    machine: str
    host_compiler: Mapping[str, str]
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
            "host_compiler": dict(self.host_compiler),
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
            host_compiler=fields.strings("host_compiler"),
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


def abi(version: str) -> str:
    """Return major and minor of a TVM-FFI version, which kernels depend on."""
    return ".".join(version.split(".")[:2])
