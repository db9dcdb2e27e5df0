"""The manifest: what one spec's build is made of, and the proof that it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .codec import Fields, parse_file, render_file
from .key import KernelId
from .target import Target

SCHEMA = "fa4-precompile/manifest/3"


@dataclass(frozen=True)
class Excluded:
    """A variant that the provider does not support, in the provider's own words."""

    variant: Mapping[str, object]
    reason: str

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {"variant": dict(self.variant), "reason": self.reason}

    @classmethod
    def parse(cls, fields: Fields) -> Excluded:
        """Read what `render` wrote. Raises `RecordError`."""
        return cls(variant=fields.free("variant"), reason=fields.string("reason"))


@dataclass(frozen=True)
class Reaching:
    """A call of the spec, and those kernels that it is the first to reach.

    Attributes:
        variant: the call, by axes that are not at their default.
        runtime_env: variables that a job must set for the provider to look these keys up.
        kernels: their ids.
    """

    variant: Mapping[str, object]
    runtime_env: Mapping[str, str]
    kernels: Sequence[KernelId]


@dataclass(frozen=True)
class Manifest:
    """One spec's build for one target by one toolchain.

    Attributes:
        spec: name of the spec.
        spec_digest: SHA-256 of what the spec enumerates; comments, order and layout of the YAML don't count.
        target, toolchain: what it was built for, and by what.
        variants: calls that the spec enumerates.
        kernels: ids of all kernels that these calls reach and that are in the cache.
        calls: how each of them is reached, in the order of the spec. That some kernels are not there does not change
            which calls these are, nor their order.
        excluded: calls that the provider does not support.
        failed: kernels that did not compile, in words, with the reason. Empty if the build is complete.
        left: kernels that other shards of the build make, in words, with the shard. Empty if the build is complete.
    """

    spec: str
    spec_digest: str
    target: Target
    toolchain: str
    variants: int
    kernels: Sequence[KernelId]
    excluded: Sequence[Excluded]
    failed: Mapping[str, str]
    calls: Sequence[Reaching] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Return whether every kernel of the spec was built."""
        return not self.failed and not self.left

    def render_file(self) -> bytes:
        """Return the bytes of the manifest's file. Of a call, kernels are their places in the list of all."""
        kernels = sorted(self.kernels)
        places = {kernel: place for place, kernel in enumerate(kernels)}
        return render_file(
            {
                "schema": SCHEMA,
                "spec": self.spec,
                "spec_digest": self.spec_digest,
                "target": self.target.render(),
                "toolchain": self.toolchain,
                "variants": self.variants,
                "kernels": kernels,
                "calls": [
                    {
                        "variant": dict(call.variant),
                        "runtime_env": dict(call.runtime_env),
                        "kernels": sorted(places[kernel] for kernel in call.kernels),
                    }
                    for call in self.calls
                ],
                "excluded": [excluded.render() for excluded in self.excluded],
                # By label: which failed first, or was looked at first, is no matter of the build.
                "failed": dict(sorted(self.failed.items())),
                **({"left": dict(sorted(self.left.items()))} if self.left else {}),
            }
        )

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Manifest:
        """Read what `render_file` wrote. Raises `RecordError`."""
        fields = parse_file(source, data, SCHEMA)
        kernels = [KernelId(kernel) for kernel in fields.digests("kernels")]
        return cls(
            spec=fields.string("spec"),
            spec_digest=fields.digest("spec_digest"),
            target=Target.parse(fields.object("target")),
            toolchain=fields.digest("toolchain", 32),
            variants=fields.integer("variants"),
            kernels=kernels,
            excluded=[Excluded.parse(excluded) for excluded in fields.objects("excluded")],
            failed=fields.strings("failed"),
            calls=[_parse_call(call, kernels) for call in fields.objects("calls")],
            left=fields.strings("left") if "left" in fields.content else {},
        )


def _parse_call(fields: Fields, kernels: Sequence[KernelId]) -> Reaching:
    places = fields.places("kernels", len(kernels))
    return Reaching(fields.free("variant"), fields.strings("runtime_env"), [kernels[place] for place in places])
