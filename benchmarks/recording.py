"""Whether a spec comes back from a recording: its calls are made as a job makes them, recorded, made a spec, planned.

    python benchmarks/recording.py [SPEC...]

For each spec and each of its targets a line: how many kernels its calls look up, how many of them the recorded spec
reaches, how many more, and how many entries it has. Without a SPEC the shipped ones, the GPU suite's, and the one of
every axis. There is no GPU: the calls are made with tensors that have no memory. Ends with 1 if a spec does not come
back.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_precompile.cache.target import Target
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.install import install_config
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.pool import default_jobs
from fa4_precompile.precompile.compile.worker import Pinned, _live
from fa4_precompile.precompile.plan import Plan, make_plan
from fa4_precompile.precompile.recorded.made import Made, make
from fa4_precompile.precompile.recorded.reading import read_recordings
from fa4_precompile.precompile.recorded.writing import spec_text, written_target
from fa4_precompile.precompile.spec.spec import Spec, find_spec, parse_spec, read_spec, shipped_specs, target_book
from fa4_precompile.providers.call import Call, Identity
from fa4_precompile.providers.installed import installed_toolchain

_TESTS = Path(__file__).resolve().parents[1] / "tests"
_OTHERS = (_TESTS / "gpu" / "kernels.yaml", _TESTS / "gpu" / "segments.yaml", _TESTS / "every_axis.yaml")
_NAMED_NOWHERE = ("b200", "h100")  # the targets of a spec that names none


@dataclass(frozen=True)
class Again:
    """What came of recording a spec's calls.

    Attributes:
        planned: the kernels of the spec itself.
        recorded: those that its calls looked up, made as a job makes them.
        reached: those of the spec that was made of the recording.
        made: how it was made.
        text: that spec.
    """

    planned: frozenset[Identity]
    recorded: frozenset[Identity]
    reached: frozenset[Identity]
    made: Made
    text: str

    @property
    def is_same(self) -> bool:
        """Whether all three are the same kernels."""
        return self.planned == self.recorded == self.reached


def record_calls(pinned: Pinned, calls: Sequence[Call], folder: Path) -> None:
    """Make calls with a loader that records, in a child of a fork server."""
    install_config(Config(roots=(), record=folder, fake=pinned.target, on_miss=OnMiss.COMPILE))
    for call in calls:
        _live(pinned).call(call)


def record(calls: Sequence[Call], compilers: Compilers, folder: Path) -> None:
    """Make calls, those of one set of switches in a process of their own, and record what they look up."""
    ordered = sorted(calls, key=lambda call: call.environment)
    groups = [(name, list(group)) for name, group in itertools.groupby(ordered, lambda call: call.environment)]
    for environment, group in groups:
        compilers.pool(environment).submit(record_calls, compilers.pinned, group, folder).result()


def again(spec: Spec, target: Target, folder: Path) -> Again:
    """Plan a spec, record its calls, make a spec of the recording, and plan that."""
    toolchain = installed_toolchain(spec.provider)
    with Compilers(spec.provider, target, toolchain, default_jobs()) as compilers:
        planned = make_plan(spec, compilers)
        record([call for call, _ in planned.calls], compilers, folder)
        lookups = [(one, lookup) for one in read_recordings([folder]).processes for lookup in one.lookups]
        made = make(lookups, spec.provider, compilers, is_other=False, closure=False)
        text = spec_text(made, spec.provider, written_target(target, target.name), [])
        reached = make_plan(parse_spec("recorded", text, target_book()), compilers)
    return Again(_identities(planned), made.wanted, _identities(reached), made, text)


def _identities(plan: Plan) -> frozenset[Identity]:
    return frozenset(kernel.reached.identity for kernel in plan.kernels)


def main() -> None:
    """Print a line for each spec and target."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(_TESTS)])
    show = "--show" in sys.argv
    names = [name for name in sys.argv[1:] if name != "--show"]
    paths = list(map(find_spec, names)) or [*shipped_specs().values(), *_OTHERS]
    is_same = True
    print(f"{'spec':18} {'target':8} {'planned':>8} {'recorded':>8} {'missing':>8} {'more':>5} {'entries':>8} {'s':>6}")
    for path in paths:
        spec = read_spec(path, target_book())
        for target in spec.targets or tuple(map(target_book().get, _NAMED_NOWHERE)):
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                found = again(spec, target, Path(folder))
            is_same = is_same and found.is_same
            print(
                f"{spec.name:18} {target.name:8} {len(found.planned):8} {len(found.recorded):8} "
                f"{len(found.recorded - found.reached):8} {len(found.reached - found.recorded):5} "
                f"{len(found.made.entries):8} {time.monotonic() - start:6.1f}",
                flush=True,
            )
            for identity in sorted(found.reached - found.recorded)[:4]:
                print(f"  more: {identity[0]} {identity[1]}")
            for line in found.made.unreached:
                print(f"  {line.kernels} kernels not reached: {line.reason}")
            if show:
                print(found.text)
    sys.exit(not is_same)


if __name__ == "__main__":
    from recording import main as main_of_the_module  # by the name that a child finds its task by

    main_of_the_module()
