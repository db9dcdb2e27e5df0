"""`canary --take`: keep in a cache how its kernels ran elsewhere, as a report that was sent back tells it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..cache.certificate import Certificate
from ..cache.kinds import CERTIFICATE
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..canary.report import read_certificates
from ..errors import RecordError, UsageError
from ..text.words import count
from .inputs import existing_root
from .output import conclude, print_json, print_lines

_MOST_BYTES = 1 << 28
_HINT = "name a report of `canary --out`, as it was written"


class _Fate(enum.Enum):
    KEPT = "kept"
    KNOWN = "known already"
    OTHER_BYTES = "of other bytes than are here"
    ABSENT = "of kernels that are not here"


def take(
    files: Sequence[Path],
    cache: Path | None,
    allow_untrusted: bool,
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    as_json: bool,
) -> None:
    """Keep the certificates of reports, and print what became of them. A report of another cache is a finding."""
    read = [(file, _read(file)) for file in files]  # nothing is kept of some if another can't be read
    root = existing_root(cache, allow_untrusted, expect, trust_keys)
    taker = _Taker(root)
    try:
        done = [(file, found, Counter(map(taker.take, found))) for file, found in read]
    finally:
        taker.end()
    if as_json:
        print_json([_document(*one) for one in done])
    else:
        print_lines(_line(*one) for one in done)
    empty = [str(file) for file, found, _ in done if not found]
    strange = [str(file) for file, found, of in done if found and not (of[_Fate.KEPT] or of[_Fate.KNOWN])]
    hints = [
        *([f"no kernel ran to its end in {', '.join(empty)}"] if empty else []),
        *([f"of {', '.join(strange)} nothing is of `{root.path}`: name the cache that ran there"] if strange else []),
    ]
    conclude(bool(hints), hint="; ".join(hints))


def _read(file: Path) -> list[Certificate]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"`{file}`: can't be read: {error.strerror}", _HINT) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"`{file}`: has more than {_MOST_BYTES:,} bytes", _HINT)
    try:
        return read_certificates(str(file), data)
    except RecordError as error:
        raise UsageError(str(error), _HINT) from None


def _devices(found: Sequence[Certificate]) -> list[str]:
    return list(dict.fromkeys(f"{one.where.device} ({one.where.arch})" for one in found))


def _line(file: Path, found: Sequence[Certificate], fates: Counter[_Fate]) -> str:
    if not found:
        return f"{file}: no certificates"
    parts = ", ".join(f"{number} {fate.value}" for fate, number in fates.items())
    return f"{file}: {', '.join(_devices(found))}, {count(len(found), 'certificate')}: {parts}"


def _document(file: Path, found: Sequence[Certificate], fates: Counter[_Fate]) -> dict[str, object]:
    return {"file": str(file), "devices": _devices(found), **{fate.name.lower(): fates[fate] for fate in _Fate}}


class _Taker:
    """Publishes certificates of a root's kernels; of one place the last run stays, whatever the order."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._publisher = Publisher(root)
        # Also where somebody has to vouch for kernels: there readers ask for no certificates, and files are there.
        here = Root(root.path, root.trust).certificates()
        self._last = {CERTIFICATE.place(one): one.when for one in here if isinstance(one, Certificate)}

    def take(self, one: Certificate) -> _Fate:
        """Publish a certificate if it says something of this root, and return what became of it."""
        record = self._root.find_record(one.toolchain, one.kernel)
        if not isinstance(record, Record):
            return _Fate.ABSENT
        if record.blob != one.blob:
            return _Fate.OTHER_BYTES
        place = CERTIFICATE.place(one)
        if one.when <= self._last.get(place, ""):
            return _Fate.KNOWN
        self._publisher.publish_certificate(one)
        self._last[place] = one.when
        return _Fate.KEPT

    def end(self) -> None:
        """See to it that what was published outlasts a crash."""
        self._publisher.sync()
