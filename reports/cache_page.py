"""A cache as a page: what it covers, how long each kernel took to build, and what it needs of a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cache.certificate import Certificate
from ..cache.manifest import Manifest
from ..cache.origin import Origin
from ..cache.record import Record
from ..text.words import count, megabytes, one_line
from .coverage import matrices
from .html import Content, Html, bar, element, join, page, section, table, tiles
from .job_page import faults_section, verdict
from .matrix import coverage_section

_FIRST, _MOST_ROWS = 30, 5000


@dataclass(frozen=True)
class Row:
    """What the page says of a kernel: all of a record would be too much to keep of twenty thousand.

    `what` is its slot, where it runs, and what the provider chose; `registers` and `stack_bytes` are the largest of its
    functions; `seconds` is what compiling it took, None if that is not known.
    """

    kernel: str
    what: str
    call: str
    blob_bytes: int
    registers: int
    stack_bytes: int
    seconds: float | None
    ran: str

    @classmethod
    def of(cls, record: Record, origin: Origin | None, certificates: Sequence[Certificate]) -> Row:
        """Return the row of a kernel."""
        where = " ".join([record.arch, *(f"{fact}={value}" for fact, value in record.device_facts.items())])
        chosen = f"{record.selection.cluster_size}-CTA {record.selection.shown_tiles}".strip()
        return cls(
            kernel=record.id[:12],
            what=f"{record.slot} for {where}, {chosen}",
            call=one_line(origin.variant) if origin else "",
            blob_bytes=record.blob_bytes,
            registers=max((function.registers for function in record.functions), default=0),
            stack_bytes=max((function.stack_bytes for function in record.functions), default=0),
            seconds=origin.compile_seconds if origin else None,
            ran=str(certificates[0]) if certificates else "",
        )


@dataclass(frozen=True)
class CachePage:
    """What there is to say of a cache: its name is empty if it is not whole enough to have one."""

    path: str
    fingerprint: str
    rows: Sequence[Row]
    manifests: Sequence[Manifest]
    findings: Sequence[str]

    def render(self) -> Html:
        """Return the page."""
        name = element("p", "fingerprint ", element("code", self.fingerprint), class_="where")
        return page(
            f"Kernel cache {self.path}",
            element("h1", "Kernel cache"),
            element("p", element("code", self.path), class_="where"),
            name if self.fingerprint else None,
            verdict(self._problems(), f"{count(len(self.rows), 'kernel')}, all builds complete."),
            tiles(self._facts()),
            coverage_section(matrices(self.manifests)),
            self._builds(),
            self._kernels(),
            faults_section(self.findings),
        )

    def _problems(self) -> list[str]:
        found = []
        for manifest in self.manifests:
            what = f"{manifest.spec} for {manifest.target.name}"
            if manifest.failed:
                found.append(f"of {what}, {count(len(manifest.failed), 'kernel')} failed when it was built")
            if manifest.left:
                left = len(manifest.left)
                found.append(f"of {what}, {count(left, 'kernel')} {'is' if left == 1 else 'are'} left to other shards")
        if self.findings:
            found.append(
                f"{count(len(self.findings), 'file')} of the cache can't be used, the first: {self.findings[0]}"
            )
        if not self.rows:
            found.append("there is no kernel")
        return found

    def _facts(self) -> Iterator[tuple[str, Content, str]]:
        seconds = [row.seconds for row in self.rows if row.seconds is not None]
        spilling = sum(row.stack_bytes > 0 for row in self.rows)
        yield "kernels", f"{len(self.rows):,}", ""
        yield "size", megabytes(sum(row.blob_bytes for row in self.rows)), ""
        yield "builds", f"{len(self.manifests):,}", ""
        yield "compiling took", f"{sum(seconds):,.0f} s" if seconds else "not known", ""
        yield "most registers", f"{max((row.registers for row in self.rows), default=0):,}", ""
        yield "with spills", f"{spilling:,}", ""
        yield "calls excluded", f"{sum(len(manifest.excluded) for manifest in self.manifests):,}", ""
        yield "ran on a GPU", f"{sum(bool(row.ran) for row in self.rows):,}", ""

    def _builds(self) -> Html | None:
        if not self.manifests:
            return None
        rows: list[list[Content]] = [
            [
                manifest.spec,
                f"{manifest.target.name} ({manifest.target.arch}, {manifest.target.sms} SMs)",
                f"{manifest.variants:,}",
                f"{len(manifest.kernels):,}",
                f"{len(manifest.excluded):,}",
                f"{len(manifest.failed):,}",
                f"{len(manifest.left):,}",
            ]
            for manifest in self.manifests
        ]
        heads = ["spec", "target", "calls", "kernels", "excluded", "failed", "left"]
        failures: list[list[Content]] = [
            [element("code", label), why.strip().splitlines()[-1] if why.strip() else ""]
            for manifest in self.manifests
            for label, why in manifest.failed.items()
        ]
        failed = [element("h3", "Failed"), table(["kernel", "why"], failures[:_MOST_ROWS])] if failures else []
        return section("Builds", table(heads, rows), *failed)

    def _kernels(self) -> Html | None:
        if not self.rows:
            return None
        ordered = sorted(self.rows, key=lambda row: (-(row.seconds or 0.0), -row.blob_bytes, row.kernel))
        shown, rest = ordered[:_FIRST], ordered[_FIRST:_MOST_ROWS]
        left = len(ordered) - len(shown) - len(rest)
        note = "Those that took longest to build come first. Registers and spilled bytes are a thread's."
        more = None
        if rest:
            more = element("details", element("summary", f"{len(rest):,} more"), self._table(rest))
        lost = element("p", f"and {left:,} more, which `ls` lists", class_="note") if left else None
        return section("Kernels", self._table(shown), more, lost, note=note)

    def _table(self, rows: Sequence[Row]) -> Html:
        longest = max((row.seconds or 0.0 for row in self.rows), default=0.0) or 1.0
        largest = max((row.blob_bytes for row in self.rows), default=0) or 1
        heads = ["kernel", "call", "build time", "size", "registers", "spills", "on a GPU"]
        return table(
            heads,
            (
                [
                    join(element("code", row.kernel), element("div", row.what, class_="note")),
                    element("div", element("code", row.call or "not known"), class_="wide"),
                    bar(row.seconds / longest, f"{row.seconds:.1f} s") if row.seconds is not None else "\N{EM DASH}",
                    bar(row.blob_bytes / largest, f"{row.blob_bytes / 1000:,.0f} kB"),
                    f"{row.registers:,}",
                    f"{row.stack_bytes:,} B" if row.stack_bytes else "0",
                    element("div", row.ran, class_="words") if row.ran else "\N{EM DASH}",
                ]
                for row in rows
            ),
        )
