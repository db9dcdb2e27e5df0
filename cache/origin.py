"""Where a kernel comes from, for people: the build, the call that reaches it, and how long compiling it took.

It differs from build to build of the same bytes, so it is beside the record and in no list of contents. A cache that
was carried has none of these files; what calls reach its kernels is in its manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .codec import Fields, parse_file, render_file
from .key import KernelId
from .target import Target

SCHEMA = "fa4-precompile/origin/1"


@dataclass(frozen=True)
class Origin:
    """What is known of a kernel that says nothing of its bytes.

    Attributes:
        toolchain, kernel: whose origin it is.
        target: the device profile that it was built for.
        spec, variant: the spec's name, and the call that reaches the key.
        runtime_env: variables that a job must set for the provider to look this key up.
        compile_seconds: what a job saves that need not compile it; None if only a manifest tells of the kernel.
        cpu_seconds, peak_bytes: what the process spent and needed that a build had for this kernel alone, from its fork
            to the blob that was checked; None if no such process made it, or that was before there were these fields.
            `cpu_seconds` is None, too, if it had to do once what those after it found done: imports, rewriting.
        allowed: what was known to go wrong with the kernel when it was built all the same, by id of the list's entry.
    """

    toolchain: str
    kernel: KernelId
    target: Target
    spec: str
    variant: Mapping[str, object]
    runtime_env: Mapping[str, str]
    compile_seconds: float | None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    allowed: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> dict[str, object]:
        """Return the fields that say something of the kernel, as JSON."""
        return {
            "target": self.target.render(),
            "spec": self.spec,
            "variant": dict(self.variant),
            "runtime_env": dict(self.runtime_env),
            "compile_seconds": self.compile_seconds,
            **({"cpu_seconds": self.cpu_seconds} if self.cpu_seconds is not None else {}),
            **({"peak_bytes": self.peak_bytes} if self.peak_bytes is not None else {}),
            **({"allowed": dict(self.allowed)} if self.allowed else {}),
        }

    def render_file(self) -> bytes:
        """Return the bytes of `origins/<toolchain>/<aa>/<kernel id>.json`."""
        return render_file({"schema": SCHEMA, "toolchain": self.toolchain, "kernel": self.kernel, **self.render()})

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Origin:
        """Read what `render_file` wrote. Raises `RecordError`."""
        fields: Fields = parse_file(source, data, SCHEMA)
        return cls(
            toolchain=fields.digest("toolchain", 32),
            kernel=KernelId(fields.digest("kernel")),
            target=Target.parse(fields.object("target")),
            spec=fields.string("spec"),
            variant=fields.free("variant"),
            runtime_env=fields.strings("runtime_env"),
            compile_seconds=fields.number("compile_seconds"),
            cpu_seconds=fields.number("cpu_seconds") if "cpu_seconds" in fields.content else None,
            peak_bytes=fields.integer("peak_bytes") if "peak_bytes" in fields.content else None,
            allowed=fields.strings("allowed") if "allowed" in fields.content else {},
        )
