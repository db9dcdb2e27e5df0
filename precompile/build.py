"""From a spec to a verified cache: plan, compile what is missing, publish, and prove it with a manifest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..cache import layout
from ..cache.deleter import sweep_temporaries
from ..cache.key import KernelId
from ..cache.manifest import Manifest, Reaching
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..cache.turns import one_build_at_a_time, one_manifest_at_a_time
from ..errors import ProductError
from ..products.product import Product
from ..products.trial import Trial
from ..providers.call import Call, Variant
from ..text.words import count
from .buildable import require_buildable
from .compile.compilers import Compilers
from .compile.pool import TaskFailed, default_jobs
from .compile.worker import compile_kernel
from .engines.choice import EngineChoice, host
from .engines.compilers import EngineCompilers
from .engines.pool import PlacedFuture
from .inventory import candidate_ids, find_planned
from .known_bad import UNGUARDED, Guard
from .lending import Borrower, Lender
from .lent import lent_build
from .order import in_order, with_flow
from .plan import Plan, PlannedKernel, make_plan
from .progress import Progress
from .publication import Published, library_paths, origin_of, publish_library, record_of
from .report import BuildReport, Failure, blob_bytes, finished_report
from .seen import Table
from .shard import Shard
from .spec.spec import Spec
from .twins import Twins

# Kernels that were deleted meanwhile are compiled again, so often at most; what `gc` finds confirmed it leaves alone.
_MOST_ROUNDS = 3

# How often the progress is told what runs, if nothing ends.
_LOOK_S = 1.0


def build(
    spec: Spec,
    target: Target,
    toolchain: Toolchain,
    root: Root,
    progress: Progress,
    jobs: int | None,
    time_limit: float | None = None,
    lenders: Sequence[Lender] = (),
    engine: EngineChoice | None = None,
    shard: Shard | None = None,
    guard: Guard = UNGUARDED,
    twins: Twins | None = None,
) -> BuildReport:
    """Build all kernels of a spec that the cache does not have, and publish each as soon as it is checked.

    What one of the `lenders` has is taken and checked, not compiled. What is left is compiled by `jobs` processes at a
    time, here, or by an engine's workers. Kernels that fail are reported, the others are built. With a `shard`, all of
    the spec is planned, and of what is not there just the shard's kernels are taken or built; the others are left. Of
    `twins`, what a compile for an earlier target made for this one is taken, and what is made here for later ones kept;
    not by an engine, whose workers need not have what links for other hosts.

    Raises `SpecError` if an entry comes to nothing, `MachineError` if this machine can't build for the target or the
    cache can't be written, `UntrustedError` and `CacheError` for a root that is refused, `KnownBadError` as the guard.
    """
    start = time.monotonic()
    if finished := finished_report(root, spec, target, toolchain, start, shard):
        return finished
    require_buildable(target)
    publisher = Publisher(root)
    publisher.create()
    publisher.require_writable(toolchain.id, Path(layout.manifest_path(toolchain.id, spec.digest, target)).name)
    with one_build_at_a_time(publisher, spec.digest, target, toolchain.id, progress.note, str(shard or "")):
        # Another process may have done it all while this one waited.
        if finished := finished_report(root, spec, target, toolchain, start, shard):
            return finished
        with Trial() as trial:
            borrower = Borrower(lenders, publisher, target, trial, progress.note)
            whole = lenders and not shard and guard.has_no_doubt
            if whole and (lent := lent_build(borrower, publisher, spec, target, toolchain, start)):
                return lent
            with _compilers(spec, target, toolchain, root, progress, jobs, time_limit, engine, guard) as compilers:
                known = twins if twins and not engine else Twins()
                build = _Build(publisher, compilers, trial, borrower, progress, shard, guard, known)
                return build.run(spec, start)


def _compilers(
    spec: Spec,
    target: Target,
    toolchain: Toolchain,
    root: Root,
    progress: Progress,
    jobs: int | None,
    time_limit: float | None,
    engine: EngineChoice | None,
    guard: Guard,
) -> Compilers:
    if engine is None:
        return Compilers(spec.provider, target, toolchain, jobs or default_jobs(), time_limit)
    return EngineCompilers(engine, spec, target, toolchain, root, jobs, time_limit, progress.note, guard)


class _Build:
    def __init__(
        self,
        publisher: Publisher,
        compilers: Compilers,
        trial: Trial,
        borrower: Borrower,
        progress: Progress,
        shard: Shard | None,
        guard: Guard,
        twins: Twins,
    ) -> None:
        self._publisher = publisher
        self._compilers = compilers
        self._trial = trial
        self._borrower = borrower
        self._progress = progress
        self._shard = shard
        self._guard = guard
        self._twins = twins
        self._labels: Mapping[int, str] = {}
        self._records: dict[KernelId, Record] = {}
        self._planned: dict[KernelId, PlannedKernel] = {}
        self._built: set[KernelId] = set()
        self._linked: set[KernelId] = set()
        self._machines: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._peak = 0

    def run(self, spec: Spec, start: float) -> BuildReport:
        for function, reason in spec.sources.untold.items():
            self._progress.note(f"`{function}` can change unseen, so it is asked about in every build: {reason}")
        self._progress.note(f"asking {self._compilers.toolchain.provider} about {count(len(spec.variants), 'call')}")
        plan = make_plan(spec, self._compilers)
        self._labels = plan.labels()
        self._failures += [_breakdown(variant, report) for variant, report in plan.broken]
        missing = self._ours(self._guard.good(plan.target, self._find_missing(plan.kernels)))
        self._publisher.publish_toolchain(self._compilers.toolchain)
        missing = self._link_twins(spec, self._take(missing))
        if missing:
            self._compilers.require_arch()
        publish_library(self._publisher, self._compilers.toolchain)
        if missing:
            sweep_temporaries(self._publisher.root)
            self._compile(spec, missing)
        self._replace_what_is_gone(spec)
        manifest = self._publish_manifest(plan)
        path = self._publisher.root.manifest_path(manifest)
        taken = len(self._borrower.taken.keys() & self._records.keys() - self._built)
        return BuildReport(
            spec=spec.name,
            target=plan.target,
            toolchain=self._compilers.toolchain.id,
            variants=len(spec.variants),
            kernels=len(plan.kernels),
            built=len(self._built),
            taken=taken,
            linked=len(self._linked),
            cached=len(self._records) - len(self._built) - len(self._linked) - taken,
            excluded=plan.excluded,
            failed=self._failures,
            seconds=time.monotonic() - start,
            bytes=blob_bytes(list(self._records.values())),
            manifest=path,
            peak_job_bytes=self._peak,
            machines=dict(self._machines),
            left=len(manifest.left),
        )

    def _shard_of(self, planned: PlannedKernel) -> Shard | None:
        """Return the shard that builds a kernel; None if this build makes all."""
        return self._shard and self._shard.that_builds(self._compilers.toolchain, self._compilers.target, planned)

    def _ours(self, kernels: Sequence[PlannedKernel]) -> list[PlannedKernel]:
        return [planned for planned in kernels if self._shard_of(planned) == self._shard]

    def _find_missing(self, kernels: Sequence[PlannedKernel]) -> list[PlannedKernel]:
        missing = []
        for planned in kernels:
            record = find_planned(self._publisher.root, self._compilers.toolchain, self._compilers.target, planned)
            if record is None or not self._confirm(record):
                missing.append(planned)
            else:
                self._records[record.id], self._planned[record.id] = record, planned
        return missing

    def _take(self, missing: list[PlannedKernel]) -> list[PlannedKernel]:
        """Take what lenders have, and return what is left to compile."""
        toolchain, target = self._compilers.toolchain, self._compilers.target
        candidates = {id(planned): candidate_ids(toolchain, target, planned) for planned in missing}
        found = self._borrower.take(toolchain, [kernel for ids in candidates.values() for kernel in ids])
        left = []
        for planned in missing:
            record = next((found[kernel] for kernel in candidates[id(planned)] if kernel in found), None)
            if record is None:
                left.append(planned)
            else:
                self._records[record.id], self._planned[record.id] = record, planned
        return left

    def _link_twins(self, spec: Spec, missing: Sequence[PlannedKernel]) -> list[PlannedKernel]:
        """Publish what other targets' compiles have made for this one, and return what is left to compile."""
        left = []
        for planned in missing:
            twin = self._twins.take(candidate_ids(self._compilers.toolchain, self._compilers.target, planned))
            if twin is None:
                left.append(planned)
                continue
            record = self._publish(spec, planned, twin)
            self._records[record.id], self._planned[record.id] = record, planned
            self._linked.add(record.id)
        return left

    def _confirm(self, record: Record) -> bool:
        return self._publisher.confirm(layout.record_path(record.toolchain, record.id))

    def _replace_what_is_gone(self, spec: Spec) -> None:
        """Confirm all that the manifest is going to name, hours after it was found or made perhaps."""
        for _ in range(_MOST_ROUNDS):
            if not (gone := self._ours(self._take_gone())):
                break
            self._progress.note(f"{count(len(gone), 'kernel')} to compile again: deleted meanwhile")
            self._compile(spec, gone)
        for planned in self._ours(self._take_gone()):
            self._fail(planned, "it was deleted again and again while this build went on", "")
        toolchain = self._compilers.toolchain
        if not self._publisher.confirm(layout.toolchain_path(toolchain.id)):
            self._publisher.publish_toolchain(toolchain)
        if not all(map(self._publisher.confirm, library_paths(toolchain))):
            publish_library(self._publisher, toolchain)

    def _take_gone(self) -> list[PlannedKernel]:
        """Return the kernels that were found or made, and are not there any more, and count them no longer."""
        gone = [kernel for kernel, record in self._records.items() if not self._confirm(record)]
        for kernel in gone:
            del self._records[kernel]
        self._built.difference_update(gone)
        self._linked.difference_update(gone)
        return [self._planned.pop(kernel) for kernel in gone]

    def _compile(self, spec: Spec, missing: Sequence[PlannedKernel]) -> None:
        self._progress.start(len(missing), self._compilers.jobs)
        try:
            for environments in self._compilers.rounds(planned.call.environment for planned in missing):
                self._compile_round(spec, [one for one in missing if one.call.environment in environments])
        finally:
            self._progress.finish()
            self._publisher.sync()

    def _compile_round(self, spec: Spec, missing: Sequence[PlannedKernel]) -> None:
        ended: SimpleQueue[Future[Any]] = SimpleQueue()
        futures = self._submitted(missing, ended)
        shown = 0.0
        while futures:
            with suppress(Empty):
                self._collect_next(spec, futures, ended)
            if time.monotonic() - shown >= _LOOK_S or not futures:  # to ask all of ten thousand takes a while
                shown = time.monotonic()
                self._progress.running([planned.label for one, planned in futures.items() if one.running()])

    def _submitted(
        self, missing: Sequence[PlannedKernel], ended: SimpleQueue[Future[Any]]
    ) -> dict[Future[Any], PlannedKernel]:
        compilers, beside = self._compilers, self._twins.beside(self._compilers.target)
        futures: dict[Future[Any], PlannedKernel] = {}
        for planned in self._in_order(missing):
            future: Future[Any] = compilers.pool(planned.call.environment).submit(
                compile_kernel, compilers.pinned, compilers.toolchain.id, planned.call, planned.reached, beside
            )
            futures[future] = planned
            future.add_done_callback(ended.put)
        return futures

    def _in_order(self, missing: Sequence[PlannedKernel]) -> list[PlannedKernel]:
        ordered = in_order(missing, self._cost)
        if not self._compilers.products_come_here:
            return ordered
        table = Table.read()
        return with_flow(ordered, table.expected_seconds, table.driver_seconds, self._compilers.jobs)

    def _collect_next(
        self,
        spec: Spec,
        futures: dict[Future[Any], PlannedKernel],
        ended: SimpleQueue[Future[Any]],
    ) -> None:
        """Collect what has ended, and keep nothing of it: a spec's blobs together may need more memory than there is.

        Raises `Empty` if nothing ends for a while.
        """
        future = ended.get(timeout=_LOOK_S)
        self._collect(spec, futures.pop(future), future)

    def _collect(self, spec: Spec, planned: PlannedKernel, future: Future[Any]) -> None:
        where = future.where if isinstance(future, PlacedFuture) else ""
        try:
            answer = future.result()
            # What a worker has published was read here when its answer came.
            record = answer.record if isinstance(answer, Published) else self._publish(spec, planned, answer)
            self._twins.keep(answer.twins if isinstance(answer, Product) else ())
        except TaskFailed as error:
            self._fail(planned, error.reason, error.report)
            return
        except ProductError as error:
            built_at = f" (built by worker {where})" if where else ""
            self._fail(planned, f"{error}{built_at}", str(error))
            return
        self._records[record.id], self._planned[record.id] = record, planned
        self._built.add(record.id)
        self._peak = max(self._peak, answer.peak_bytes)
        if where:
            self._machines[host(where)] += 1
        self._progress.done(planned.label, answer.compile_seconds, where)

    def _publish(self, spec: Spec, planned: PlannedKernel, product: Product) -> Record:
        toolchain, target = self._compilers.toolchain.id, self._compilers.target
        record = record_of(product, toolchain, target, planned.reached)
        self._trial.require_loads(product.blob, record.symbol)
        known = self._guard.told_of(planned.reached)
        origin = origin_of(product, toolchain, target, planned.call, spec.name, known)
        self._publisher.publish(record, product.blob, origin)
        return record

    def _fail(self, planned: PlannedKernel, reason: str, report: str) -> None:
        self._failures.append(Failure(self._labels[id(planned)], planned.call.variant.render(), reason, report.strip()))
        self._progress.failed(planned.label, reason)

    def _cost(self, planned: PlannedKernel) -> tuple[int, ...]:
        return self._compilers.provider.expected_cost(planned.call.variant, planned.reached.slot)

    def _publish_manifest(self, plan: Plan) -> Manifest:
        toolchain, others = self._compilers.toolchain.id, [] if self._shard is None else plan.kernels
        with one_manifest_at_a_time(self._publisher, plan.spec.digest, plan.target, toolchain, self._progress.note):
            # Other shards have built meanwhile perhaps: who comes last finds all, and says that the build is complete.
            here = {id(planned) for planned in self._planned.values()}
            away = [one for one in others if id(one) not in here and self._shard_of(one) != self._shard]
            left = self._find_missing(away)
            manifest = Manifest(
                spec=plan.spec.name,
                spec_digest=plan.spec.digest,
                target=plan.target,
                toolchain=toolchain,
                variants=len(plan.spec.variants),
                kernels=list(self._records),
                excluded=plan.excluded,
                failed={failure.kernel: failure.error for failure in self._failures},
                calls=self._calls(plan),
                left={self._labels[id(planned)]: str(self._shard_of(planned)) for planned in left},
            )
            self._publisher.publish_manifest(manifest)
            self._publisher.sync()
        return manifest

    def _calls(self, plan: Plan) -> list[Reaching]:
        """Return the calls that reach something first, in the order of the plan, with the kernels that there are.

        Also those of whose kernels none is there: so shards have the same calls, which are put together as they are.
        """
        ids = {id(planned): kernel for kernel, planned in self._planned.items()}
        by_call: dict[Call, list[KernelId]] = {planned.call: [] for planned in plan.kernels}
        for planned in plan.kernels:
            if id(planned) in ids:
                by_call[planned.call].append(ids[id(planned)])
        return [Reaching(call.variant.render(), dict(call.environment), kernels) for call, kernels in by_call.items()]


def _breakdown(variant: Variant, report: str) -> Failure:
    """Return the failure of a call whose kernels are not known, as it could not be asked about."""
    reason = report.strip().splitlines()[-1]
    return Failure(f"asking about {variant}", variant.render(), reason, report.strip())
