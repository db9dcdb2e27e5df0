"""`canary --take`: keep in a cache how its kernels ran elsewhere, as a report that was sent back tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..cache.certificate import Certificate
from ..cache.certificates import Certificates
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..canary.report import read_certificates
from ..errors import RecordError, UsageError
from ..text.words import count
from .inputs import existing_root
from .output import conclude, print_json, print_lines

_KEPT, _KNOWN, _OTHER, _ABSENT = "kept", "known already", "of other bytes than are here", "of kernels that are not here"
_MOST_BYTES = 1 << 28


def take(files: Sequence[Path], cache: Path | None, allow_untrusted: bool, as_json: bool, is_run_too: bool) -> None:
    """Keep the certificates of reports, and print what became of them. A report of another cache is a finding."""
    if is_run_too:
        raise UsageError("`--take` runs nothing", "leave SPEC, `--sample` and `--out` out")
    read = [(file, _read(file)) for file in files]  # nothing is kept of some if another can't be read
    root = existing_root(cache, allow_untrusted)
    taker = _Taker(root)
    done = [(file, found, Counter(map(taker.take, found))) for file, found in read]
    taker.end()
    if as_json:
        print_json(
            [{"file": str(file), "devices": _devices(found), "certificates": dict(of)} for file, found, of in done]
        )
    else:
        print_lines(
            f"{file}: {', '.join(_devices(found)) or 'no device'}, {count(len(found), 'certificate')}: "
            + ", ".join(f"{number} {what}" for what, number in of.items())
            for file, found, of in done
        )
    strange = [str(file) for file, _, of in done if not (of[_KEPT] or of[_KNOWN])]
    conclude(
        bool(strange),
        hint=f"of {', '.join(strange)} nothing is of `{root.path}`: name the cache that ran there, or its copy",
    )


def _read(file: Path) -> list[Certificate]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"`{file}`: can't be read: {error.strerror}", "name a report of `canary --out`") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"`{file}`: has more than {_MOST_BYTES:,} bytes", "name a report of `canary --out`")
    try:
        return read_certificates(str(file), data)
    except RecordError as error:
        raise UsageError(str(error), "name a report of `canary --out`, as it was written") from None


def _devices(found: Sequence[Certificate]) -> list[str]:
    return list(dict.fromkeys(f"{one.where.device} ({one.where.arch})" for one in found))


class _Taker:
    """Publishes certificates of a root's kernels, those that are newer than what it has from the same place."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._publisher = Publisher(root)
        self._certificates = Certificates(root)

    def take(self, one: Certificate) -> str:
        """Publish a certificate if it says something of this root, and return what became of it."""
        record = self._root.find_record(one.toolchain, one.kernel)
        if not isinstance(record, Record):
            return _ABSENT
        if record.blob != one.blob:
            return _OTHER
        if any(mine.where == one.where and mine.when >= one.when for mine in self._certificates.of(record)):
            return _KNOWN
        self._publisher.publish_certificate(one)
        return _KEPT

    def end(self) -> None:
        """See to it that what was published outlasts a crash."""
        self._publisher.sync()
