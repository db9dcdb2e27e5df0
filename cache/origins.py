"""Where the kernels of a root come from, as far as it is known: from their own files, else from the manifests."""

from __future__ import annotations

from collections.abc import Iterator

from .key import KernelId
from .origin import Origin
from .outcome import Finding
from .record import Record
from .store import Root

_Identity = tuple[str, KernelId]


class Origins:
    """The origins of a root's kernels. The manifests are read once, when the first is asked for.

    `findings` are what was wrong with the files that were read, so far.
    """

    def __init__(self, root: Root) -> None:
        self.findings: list[Finding] = []
        self._root = root
        self._by_manifests: dict[_Identity, Origin] | None = None

    def of(self, record: Record) -> Origin | None:
        """Return where a kernel comes from; None if nothing says it. Never raises for what is on disk.

        What a manifest says costs no file of its own to read, but not how long compiling took.
        """
        if self._by_manifests is None:
            self._by_manifests = dict(self._told_by_manifests())
        return self._by_manifests.get((record.toolchain, record.id)) or self._own(record)

    def whole(self, record: Record) -> Origin | None:
        """Return the same with how long compiling took, if that is known."""
        return self._own(record) or self.of(record)

    def _own(self, record: Record) -> Origin | None:
        found = self._root.origin(record.toolchain, record.id)
        if isinstance(found, Finding):
            if found not in self.findings:
                self.findings.append(found)
            return None
        return found

    def _told_by_manifests(self) -> Iterator[tuple[_Identity, Origin]]:
        for manifest in self._root.manifests():
            if isinstance(manifest, Finding):
                self.findings.append(manifest)
                continue
            for call in manifest.calls:
                for kernel in call.kernels:
                    yield (
                        (manifest.toolchain, kernel),
                        Origin(
                            toolchain=manifest.toolchain,
                            kernel=kernel,
                            target=manifest.target,
                            spec=manifest.spec,
                            variant=call.variant,
                            runtime_env=call.runtime_env,
                            compile_seconds=None,
                        ),
                    )
