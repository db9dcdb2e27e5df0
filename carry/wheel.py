"""A cache as a pip wheel: installed, it is a sealed root that jobs find with no setting.

Guarantees
    Equal contents make equal bytes, with one version of zlib and of this package, where what they were built of is
    installed. Each file has the bytes that the list states, and a wheel is whole by itself. It is for the platform that
    its kernels need, and requires what must fit them.
Security
    The wheel's module names the fingerprint of the root beside it. So a root is as trustworthy as the code that a job
    imports from the same place, whatever modes and owners an installer gave it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.kinds import MANIFEST, TOOLCHAIN
from ..cache.toolchain import Toolchain, abi
from ..errors import MachineError, UsageError
from ..text.words import lacking
from .placed import placed
from .receive import read_verified, require_sound
from .source import Source

FOLDER = "root"
"""The folder of a wheel's module that is a root."""

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # a zip can't tell of an earlier one
_GLIBC = re.compile(rb"GLIBC_2\.(\d{1,3})\0")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_LEAST_GLIBC = 17  # what pip calls the oldest `manylinux_2_*`
_INSTALL = "`pip install 'fa4-precompile[ship]'`"

_MODULE = '''"""Kernels that were built ahead of time, by fa4-precompile."""

from pathlib import Path

CACHE = Path(__file__).with_name("{folder}"), "{fingerprint}"


def activate():
    """Start the loader, if the process does not have one: called at the end of `import torch`."""
    try:
        from fa4_precompile.activate import activate_wheels
    except ImportError:  # installed without what it requires
        return
    activate_wheels()
'''


@dataclass(frozen=True)
class Wheel:
    """What a wheel is called and for whom it is.

    Attributes:
        spec, arch: of the builds in it.
        version: by PEP 440.
        platform: by PEP 600, for example `manylinux_2_27_x86_64`.
        requires: what must fit, as pip's requirements.
        incomplete: what builds that are not complete lack, in words.
    """

    spec: str
    arch: str
    version: str
    platform: str
    requires: tuple[str, ...]
    incomplete: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The name of its module, and of its distribution but for the hyphens."""
        return re.sub(r"[^a-z0-9]+", "_", f"fa4_kernels_{self.spec}_{self.arch}".lower())

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.module}-{self.version}-py3-none-{self.platform}.whl"

    @property
    def summary(self) -> str:
        """What it is, in words."""
        return f"Kernels that were built ahead of time: {self.spec} for {self.arch}"


def describe_wheel(
    source: Source,
    contents: Contents,
    ours: str,
    distribution_of: Callable[[Toolchain], str],
    version: str | None = None,
) -> Wheel:
    """Return the wheel that builds of one spec, arch and toolchain make.

    `ours` is the version of this tool, `distribution_of` says what the provider is installed by, nothing if that is not
    known. By default its version is the provider's, with the first digits of the fingerprint. Raises `UsageError` if
    the builds are of several specs, archs or toolchains, or the version is none, `MachineError` without `packaging`.
    """
    manifests = [MANIFEST.parsed(entry.path, data) for entry, data in _read(source, contents, "manifests")]
    toolchains = [TOOLCHAIN.parsed(entry.path, data) for entry, data in _read(source, contents, "toolchains")]
    spec = _only("specs", {one.spec for one in manifests})
    if not _NAME.fullmatch(spec):  # part of names, and of lines that pip reads
        raise UsageError(
            f"no wheel can be called after the spec {spec!r}", "ASCII letters, digits, `-`, `_` and `.` can be"
        )
    arch = _only("archs", {one.target.arch for one in manifests})
    _only("toolchains", {one.id for one in toolchains})
    (toolchain,) = toolchains
    return Wheel(
        spec=spec,
        arch=arch,
        version=_version(version, toolchain, contents.fingerprint),
        platform=f"manylinux_2_{_glibc(source, contents)}_{toolchain.machine}",
        requires=tuple(_requirements(toolchain, ours, distribution_of(toolchain))),
        incomplete=tuple(
            f"{one.spec} for {one.target.name} is not complete: {lacking(one.failed, one.left)}"
            for one in manifests
            if not one.complete
        ),
    )


def write_wheel(
    wheel: Wheel,
    source: Source,
    contents: Contents,
    signature: bytes,
    folder: Path,
    is_replacing: bool,
    arrived: Callable[[int], None] = lambda size: None,
) -> Path:
    """Write a wheel into a folder, and return its path. `arrived` is told the size of each file that is in it.

    Raises `RefusedError` for what is not as the list says, `UsageError` if it is there and is not to be replaced, and
    what the source raises.
    """
    path = folder / wheel.file_name
    with placed(path, is_replacing) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        rows: list[tuple[str, str, int]] = []
        for name, data in _files(wheel, source, contents, signature, arrived):
            _put(archive, name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", len(data)))
        record = f"{_information(wheel)}/RECORD"
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([*rows, (record, "", "")])
        _put(archive, record, lines.getvalue().encode())
    return path


def _files(
    wheel: Wheel, source: Source, contents: Contents, signature: bytes, arrived: Callable[[int], None]
) -> Iterator[tuple[str, bytes]]:
    """Yield what is in a wheel, in order; what pip reads first comes last, as its specification has it."""
    module = {"folder": FOLDER, "fingerprint": contents.fingerprint}
    yield f"{wheel.module}/__init__.py", _MODULE.format_map(module).encode()
    root = f"{wheel.module}/{FOLDER}"
    top = {
        **dict(layout.TOP),
        layout.SEAL: contents.render(),
        **({layout.SIGNATURE: signature} if signature else {}),
    }
    yield from ((f"{root}/{name}", data) for name, data in top.items())
    for entry in contents.in_order():
        for _, data in read_verified(source, [entry]):
            if entry.kind != "blobs":
                require_sound(source.name, entry, data, contents.has)
            yield f"{root}/{entry.path}", data
            arrived(entry.size)
    for name, text in _metadata(wheel).items():
        yield f"{_information(wheel)}/{name}", text.encode()


def _metadata(wheel: Wheel) -> Mapping[str, str]:
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {wheel.module.replace('_', '-')}",
        f"Version: {wheel.version}",
        f"Summary: {wheel.summary}",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in wheel.requires),
    ]
    tag = f"py3-none-{wheel.platform}"
    about = ["Wheel-Version: 1.0", "Generator: fa4-precompile", "Root-Is-Purelib: false", f"Tag: {tag}"]
    points = [
        f"[{layout.ENTRY_POINTS}]",
        f"{wheel.module} = {wheel.module}:CACHE",
        "",
        "[torch.backends]",
        f"{wheel.module} = {wheel.module}:activate",
    ]
    files = {"METADATA": metadata, "WHEEL": about, "entry_points.txt": points, "top_level.txt": [wheel.module]}
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}


def _information(wheel: Wheel) -> str:
    return f"{wheel.module}-{wheel.version}.dist-info"


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _NO_TIME)
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def _read(source: Source, contents: Contents, kind: str) -> Iterator[tuple[Entry, bytes]]:
    return read_verified(source, list(contents.of_kind(kind)))


def _only(what: str, found: set[str]) -> str:
    if len(found) != 1:
        words = ", ".join(sorted(found)) or "none"
        raise UsageError(
            f"a wheel has builds of one of the {what}, and these are of {len(found)}: {words}",
            "choose with `--arch`, or build into a cache of its own; with no build there is nothing to be chosen",
        )
    return found.pop()


def _version(wanted: str | None, toolchain: Toolchain, fingerprint: str) -> str:
    """Return the version that is wanted, else the provider's with the fingerprint's first digits as its local part."""
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError as error:
        raise MachineError(f"a wheel needs {error.name}, which is not installed", _INSTALL) from None
    try:
        base = Version(wanted or toolchain.provider_version)
    except InvalidVersion:
        if wanted:
            raise UsageError(f"`{wanted}` is no version that pip takes", "give one such as `1.0`") from None
        base = Version("0")  # a checkout's
    local = ".".join(filter(None, [base.local, f"f{fingerprint[:8]}"]))
    return str(base) if wanted else f"{base.public}+{local}"


def _glibc(source: Source, contents: Contents) -> int:
    """Return the minor version of the glibc 2 that the host code of all blobs needs, by the symbols that they name."""
    blobs = read_verified(source, list(contents.of_kind("blobs")))
    return max((int(minor) for _, data in blobs for minor in _GLIBC.findall(data)), default=_LEAST_GLIBC)


def _requirements(toolchain: Toolchain, ours: str, distribution: str) -> Iterator[str]:
    """Yield what must fit where the kernels run: what `RunTime` compares."""
    yield f"fa4-precompile>={ours}"
    if distribution:
        yield f"{distribution}=={toolchain.provider_version}"
    yield f"apache-tvm-ffi=={abi(toolchain.tvm_ffi)}.*"
