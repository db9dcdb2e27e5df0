"""A whole build that a lender has: taken as it is, with nothing planned."""

from __future__ import annotations

from dataclasses import replace

from ..cache import layout
from ..cache.outcome import Miss
from ..cache.publish import Publisher
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..cache.turns import one_manifest_at_a_time
from .lending import Borrower
from .publication import library_paths, publish_library
from .report import BuildReport, finished_report
from .spec.spec import Spec


def lent_build(
    borrower: Borrower, publisher: Publisher, spec: Spec, target: Target, toolchain: Toolchain, start: float
) -> BuildReport | None:
    """Take a whole build if a lender has it, and return its report: nothing needs to be planned. None if none has."""
    if spec.sources.untold:
        return None
    manifest = borrower.manifest(toolchain, spec.digest)
    if manifest is None:
        return None
    root = publisher.root
    missing = [kernel for kernel in manifest.kernels if isinstance(root.find(toolchain.id, kernel), Miss)]
    publisher.publish_toolchain(toolchain)
    publish_library(publisher, toolchain)
    borrower.take(toolchain, missing)
    if any(isinstance(root.find(toolchain.id, kernel), Miss) for kernel in manifest.kernels):
        return None
    named = [layout.record_path(toolchain.id, kernel) for kernel in manifest.kernels]
    named += [layout.toolchain_path(toolchain.id), *library_paths(toolchain)]
    if not all(map(publisher.confirm, named)):
        return None
    with one_manifest_at_a_time(publisher, spec.digest, target, toolchain.id, borrower.say):
        publisher.publish_manifest(manifest)
        publisher.sync()
    report = finished_report(root, spec, target, toolchain, start)
    taken = len(borrower.taken)
    return report and replace(report, taken=taken, cached=report.cached - taken)
