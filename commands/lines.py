"""What the commands print, as lines of text. Prints nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..cache.certificate import Certificate
from ..cache.origin import Origin
from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..providers.known_bad.entry import Entry
from ..text.words import count, megabytes, one_line

if TYPE_CHECKING:  # what a build needs is imported by those who build
    from ..precompile.closure import Growth
    from ..precompile.known_bad import Doubt
    from ..precompile.plan import Plan
    from ..precompile.report import BuildReport


_MOST_MACHINES = 3
_NOT_KNOWN = "not known: the cache was carried, or built in part"


def report_lines(report: BuildReport, root: Root) -> Iterator[str]:
    """Yield what a build says at its end: what failed, then a sentence that counts."""
    for failure in report.failed:
        yield f"\nfailed: {failure.kernel}\n{_indent(failure.report or failure.error)}"
    counts = [
        count(report.variants, "call"),
        count(report.kernels, "kernel"),
        f"{report.built} built{_on(report.machines)}",
        *([f"{report.linked} linked"] if report.linked else []),
        *([f"{report.taken} taken"] if report.taken else []),
        f"{report.cached} already there",
        *([f"{report.left} left to other shards"] if report.left else []),
        f"{count(len(report.excluded), 'call')} excluded",
        f"{len(report.failed)} failed",
    ]
    size = f"{report.seconds:.1f} s, {megabytes(report.bytes)} in `{root.path}`"
    yield f"{report.spec} for {report.target.name}: {', '.join(counts)}; {size}"
    if report.excluded:
        yield "`fa4-precompile plan SPEC --explain` gives the reasons for what is excluded"


def _on(machines: Mapping[str, int]) -> str:
    """Return on which machines, as far as that is short."""
    if len(machines) > _MOST_MACHINES:
        return f" on {len(machines)} machines"
    return f" ({', '.join(f'{host}: {kernels}' for host, kernels in sorted(machines.items()))})" if machines else ""


def plan_lines(plan: Plan, explain: bool, doubts: Sequence[Doubt]) -> Iterator[str]:
    """Yield a line for each kernel of a plan, with what is known against it, and if asked to for each excluded call."""
    for place, kernel in enumerate(plan.kernels):
        environment = "".join(f"  [job sets {name}={value}]" for name, value in kernel.call.environment)
        known = "".join(f"  [known bad: {doubt.entry.id}]" for doubt in doubts if place in doubt.kernels)
        yield f"{kernel.label}: {kernel.reached.selection}{environment}{known}"
    for excluded in plan.excluded if explain else ():
        yield f"excluded: {one_line(excluded.variant)}: {excluded.reason}"


def plan_summary(plan: Plan, explain: bool, seconds: float) -> Iterator[str]:
    """Yield what could not be asked about, what ranges of sizes add to each entry, then a sentence that counts."""
    for variant, report in plan.broken:
        yield f"\ncould not ask about {variant}\n{_indent(report)}"
    for entry in plan.growth:
        yield _growth_line(entry)
    counts = [
        count(len(plan.spec.variants), "call"),
        count(len(plan.kernels), "kernel"),
        f"{count(len(plan.excluded), 'call')} excluded",
        *([f"{count(len(plan.broken), 'call')} broken"] if plan.broken else []),
    ]
    yield f"{plan.spec.name} for {plan.target.name}: {', '.join(counts)}; {seconds:.1f} s"
    if plan.excluded and not explain:
        yield "`--explain` gives the reasons for what is excluded"


def _growth_line(growth: Growth) -> str:
    added = [f"{number} more by {size}" for size, number in growth.by.items() if number]
    if growth.together:
        added.append(f"{growth.together} more by several sizes at once")
    why = ", ".join(added) or "no more at any size in its ranges"
    total = f", {growth.total} in all" if added else ""
    return f"entry `{growth.entry}`: {count(growth.ordinary, 'kernel')} at ordinary sizes, {why}{total}"


def record_line(record: Record, origin: Origin | None, certificates: Sequence[Certificate]) -> str:
    """Return a kernel as the one line of `ls`."""
    registers = max([function.registers for function in record.functions], default=0)
    stack = max([function.stack_bytes for function in record.functions], default=0)
    usage = f"{registers} regs" + (f" {stack} B stack" if stack else "")
    size = f"{record.blob_bytes / 1000:.0f} kB"
    name = origin.target.name if origin else record.arch
    device = " ".join([name, *(f"{fact}={value}" for fact, value in record.device_facts.items())])
    chosen = f"{record.selection.cluster_size}-CTA {record.selection.shown_tiles}"
    call = one_line(origin.variant) if origin else ""
    settings = origin.runtime_env if origin else {}
    environment = "".join(f" [job sets {name}={value}]" for name, value in settings.items())
    what = f"{device:14} {record.slot:9} {chosen:32} {size:>7}  {usage:22}"
    ran = f"  [{certificates[0]}]" if certificates else ""
    return f"{record.id[:12]}  {what}  {call}{environment}{ran}".rstrip()


def record_document(record: Record, origin: Origin | None, certificates: Sequence[Certificate]) -> dict[str, object]:
    """Return a kernel as JSON: its record, and what is known of where it comes from and how it ran."""
    ran = {"certificates": [one.render() for one in certificates]} if certificates else {}
    return {**record.render(), **(origin.render() if origin else {}), **ran}


def _hosts(toolchain: Toolchain) -> str:
    compilers = " ".join(f"{name} {version}" for name, version in toolchain.host_compiler.items())
    return toolchain.machine + (f"; their code was compiled elsewhere, by {compilers}" if compilers else "")


def record_lines(
    record: Record,
    origin: Origin | None,
    certificates: Sequence[Certificate],
    root: Root,
    known: Sequence[Entry] = (),
    toolchain: Toolchain | None = None,
) -> Iterator[str]:
    """Yield all that is known of a kernel, for `show`; `known` is what is known to go wrong with it."""
    seconds = origin.compile_seconds if origin else None
    facts = {
        "kernel": record.id,
        "slot": record.slot,
        "call": one_line(origin.variant) if origin else _NOT_KNOWN,
        "target": _target(origin.target) if origin else record.arch,
        "selected": str(record.selection),
        "asked device": one_line(record.device_facts) or "nothing: runs on any device of this arch",
        "job sets": (one_line(origin.runtime_env) or "nothing") if origin else _NOT_KNOWN,
        "toolchain": record.toolchain,
        "hosts": _hosts(toolchain) if toolchain else "not known: the toolchain's file is gone",
        "blob": f"{root.blob_path(record)} ({record.blob_bytes} bytes)",
        "cubin": f"sha256 {record.cubin} ({record.cubin_bytes} bytes)",
        "symbol": f"__tvm_ffi_{record.symbol}",
        "compiled in": _NOT_KNOWN if seconds is None else f"{seconds:.1f} s",
        "spec": origin.spec if origin else _NOT_KNOWN,
    }
    for name, value in facts.items():
        yield f"{name + ':':14}{value}"
    for number, one in enumerate(certificates):
        yield f"{'' if number else 'canary:':14}{one} ({one.when[:10]}, {one.where.arch}, torch {one.where.torch})"
        yield f"{'':14}{one_line(one.variant)}"
    if not certificates:
        yield f"{'canary:':14}has not run, as far as is known here"
    for entry in known:
        yield f"known bad:    {entry}"
    for told in origin.allowed.values() if origin else ():
        yield f"allowed:      when it was built it was known: {told}"
    for function in record.functions:
        yield f"function:     {function.name}"
        usage = f"{function.registers} registers, {function.stack_bytes} bytes of stack (spills)"
        yield f"              {usage}, {function.shared_bytes} bytes of static shared memory"
    for name, description in record.modifiers.items():
        yield f"{name}:"
        for where, what in description.parts:
            yield f"  {where or '(itself)'}: {what}"
    yield "key:"
    for position, held in record.key_fields.items():
        yield f"  {position} = {json.dumps(held)}"


def _target(target: Target) -> str:
    return f"{target.name} ({target.arch}, {target.sms} SMs, CUDA {target.cuda})"


def finding_line(finding: Finding) -> str:
    """Return what is wrong in a cache as one line."""
    return f"{finding.path}: {finding.problem}"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
