"""What an audit found, in a form that can be put into an issue of whoever makes the kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...cache.target import Target
from ...cache.toolchain import Toolchain
from ...providers.call import Call
from ...providers.packages import version
from .artifact import Artifact

_OURS = "fa4-precompile"


@dataclass(frozen=True)
class Made:
    """One side of a comparison: who made it, of which call, and what came of it; no digest if nothing did."""

    by: str
    spec_line: str
    digest: str

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {"by": self.by, "spec_line": self.spec_line, "digest": self.digest}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be.

    Attributes:
        problem: what is wrong, in a sentence.
        slot, key: the kernel, the key by the names of its positions.
        sides: what was compared.
        differs: in what, a phrase each; the reasons where something could not be compared.
        is_ambiguous: whether one key stands for several artifacts: then no cache can be trusted with it.
    """

    problem: str
    slot: str
    key: Mapping[str, object]
    sides: Sequence[Made]
    differs: Sequence[str]
    is_ambiguous: bool = False

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "problem": self.problem,
            "slot": self.slot,
            "key": dict(self.key),
            "sides": [side.render() for side in self.sides],
            "differs": list(self.differs),
            "is_ambiguous": self.is_ambiguous,
        }


@dataclass(frozen=True)
class Part:
    """What one part of an audit did: `counts` by what was counted, in words; and what it found."""

    name: str
    counts: Mapping[str, int]
    findings: Sequence[Finding]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        findings = [finding.render() for finding in self.findings]
        return {"part": self.name, "counts": dict(self.counts), "findings": findings}


def made(by: str, call: Call, artifact: Artifact | None) -> Made:
    """Return one side of a comparison."""
    return Made(by, spec_line(call), artifact.digest if artifact else "")


def spec_line(call: Call) -> str:
    """Return a call as an entry of a spec, with what no axis says after it."""
    beside = " ".join(f"{name}={value}" for name, value in (*call.runtime, *call.environment))
    return entry_line(call.variant.render()) + (f"  # {beside}" if beside else "")


def entry_line(axes: Mapping[str, object]) -> str:
    """Return the axes of a call as an entry of a spec."""
    # A list stands for several values, so that a pair is a list in a list.
    values = {name: [one] if isinstance(one, list) else one for name, one in axes.items()}
    return f"- {json.dumps({'name': 'call', **values})}"


def issue_lines(finding: Finding, toolchain: Toolchain, target: Target) -> Iterator[str]:
    """Yield a finding as text that can be pasted into an issue."""
    yield finding.problem
    yield f"  versions: {', '.join(_versions(toolchain))}"
    yield f"  target: {target.name} ({target.arch}, {target.sms} SMs, CUDA {target.cuda})"
    yield f"  slot: {finding.slot}"
    yield f"  key: {', '.join(f'{name}={json.dumps(value)}' for name, value in finding.key.items())}"
    for side in finding.sides:
        yield f"  {side.by}: {f'cubin sha256 {side.digest}' if side.digest else 'no kernel'}"
        yield f"    {side.spec_line}"
    for difference in finding.differs:
        yield f"  differs in: {difference}"
    if finding.is_ambiguous:
        yield "  one key, several kernels: it belongs into `kernel_specs/known_bad.yaml`"


def _versions(toolchain: Toolchain) -> list[str]:
    dsl = [f"{name} {number}" for name, number in sorted(toolchain.dsl.items())]
    provider = f"{toolchain.provider} {toolchain.provider_version} (source {toolchain.provider_source[:12]})"
    return [provider, *dsl, f"apache-tvm-ffi {toolchain.tvm_ffi}", f"{_OURS} {version(_OURS)}"]
