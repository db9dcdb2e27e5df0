"""One cache directory: layout, publish and read.

Guarantees
    A record or blob appears under its name whole and synced to disk, or not at all. A kernel that `find` returns has
    the bytes that its record states, and the record the fields that were asked for.
Not guaranteed
    That a published kernel survives a power loss before `sync` was called, or that two builders don't do work twice.
Concurrency
    Any number of readers and builders, in any processes, on any POSIX filesystem: publishing is write, fsync, rename.
    Readers take no lock and write nothing. Files are never changed in place and never deleted here.
Security
    Integrity, not authenticity: who can write the cache can replace kernels. So files that others could have written
    are refused (`trust`).
"""

from __future__ import annotations

import enum
import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CacheError, MachineError, RecordError, UntrustedError
from .key import BlobDigest, KernelId, digest_json
from .manifest import Manifest
from .record import Record, Reference
from .target import Target
from .toolchain import Toolchain
from .trust import Trust, opened_folder, read_file

LAYOUT = 1

_TEMPORARY = ".tmp-"
# A builder holds a temporary file for milliseconds; one this old belongs to a builder that was killed.
_TEMPORARY_MAX_AGE_S = 3600

# https://bford.info/cachedir/
_CACHEDIR_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Written by fa4-precompile. Backups can leave it out.\n"
_README = b"""This folder is a kernel cache of fa4-precompile, layout 1.

records/    what is here: a JSON file a kernel, named by its kernel id
blobs/      the kernels: shared objects, named by their SHA-256; objdump works on them
toolchains/ what built them
manifests/  which kernels one build of a spec is made of

`fa4-precompile ls --cache THIS_FOLDER` lists the kernels, `verify` checks every byte. The folder can be copied, moved
and mounted read-only. Nothing in it is ever changed in place.
"""


class MissReason(enum.Enum):
    """Why there is no kernel. docs/reference/miss-reasons.md has the remedy for each."""

    ABSENT = "absent"
    """There is no record of this kernel."""

    DAMAGED = "damaged"
    """There is a record or blob, but it is not what it states to be."""

    UNTRUSTED = "untrusted"
    """Somebody else could have written it."""

    UNREADABLE = "unreadable"
    """The operating system does not let us read it."""

    LAYOUT = "layout"
    """The folder is not there, is no cache, or is one of a layout that this version does not know."""

    TOOLCHAIN = "toolchain"
    """There is a kernel, built from another provider, for another TVM-FFI or another kind of host."""

    ARCH = "arch"
    """There is a kernel, for GPUs of another arch."""

    SM_COUNT = "sm-count"
    """There is a kernel, for GPUs with another number of SMs, which is compiled in."""

    ENVIRONMENT = "environment"
    """There is a kernel, for jobs that set variables which this one does not set."""

    DEVICE = "device"
    """There is no GPU, or GPUs that differ, so it is not known what to look for."""

    KEY = "key"
    """The key holds a value that can't be written down, so nothing can be found by it."""

    LOAD = "load"
    """The bytes are right, and do not load into this process."""


@dataclass(frozen=True)
class Hit:
    """A kernel was found, and its bytes are those that its record states."""

    record: Record
    blob: bytes


@dataclass(frozen=True)
class Fetched:
    """A kernel was found, and its bytes are those that its record states; the record is read as far as it is needed."""

    reference: Reference
    blob: bytes


@dataclass(frozen=True)
class Miss:
    """There is no usable kernel. `path` is what is not trusted, where that is the reason.

    `others` are further reasons, of other roots.
    """

    reason: MissReason
    detail: str
    path: str = ""
    others: tuple[Miss, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something in a cache that is not as it should be.

    `path` is relative to the root. `untrusted` is the full path of what others could have written, if that is it;
    `unreadable` that the operating system does not let us read it.
    """

    path: str
    problem: str
    untrusted: str = ""
    unreadable: bool = False


@dataclass
class Root:
    """One cache directory. Creating the object touches nothing; `create` makes the directory."""

    path: Path
    trust: Trust = Trust.OWN
    _touched: set[Path] = field(default_factory=set, repr=False)
    _layout_is_known: bool = field(default=False, repr=False)

    # Reading

    def find(self, toolchain: str, kernel: KernelId) -> Hit | Miss:
        """Return a kernel with its verified bytes, or why there is none. Never raises for what is on disk."""
        found = self.fetch(toolchain, kernel)
        if isinstance(found, Miss):
            return found
        try:
            return Hit(found.reference.record, found.blob)
        except RecordError as error:
            return Miss(MissReason.DAMAGED, str(error))

    def fetch(self, toolchain: str, kernel: KernelId) -> Fetched | Miss:
        """Return as much of a kernel as loading it needs, or why there is none. Never raises for what is on disk."""
        try:
            with opened_folder(self.path, self.trust) as descriptor:
                if not self._knows_layout(descriptor):
                    return Miss(MissReason.LAYOUT, f"`{self.path}` is no cache of layout {LAYOUT}")
                relative = _record_path(toolchain, kernel)
                reference = Reference.parse_file(relative, read_file(self.path, descriptor, relative, self.trust))
                if reference.id != kernel or reference.toolchain != toolchain:
                    return Miss(MissReason.DAMAGED, f"the record of {kernel} describes {reference.id}")
                return Fetched(reference, self._read_blob(descriptor, reference))
        except FileNotFoundError:
            if not self.path.exists():
                return Miss(MissReason.LAYOUT, f"`{self.path}` does not exist")
            return Miss(MissReason.ABSENT, f"`{self.path}` has no record of kernel {kernel[:12]}")
        except RecordError as error:
            return Miss(MissReason.DAMAGED, str(error))
        except UntrustedError as error:
            return Miss(MissReason.UNTRUSTED, error.reason, error.path)
        except OSError as error:
            is_file = isinstance(error, NotADirectoryError) and not self.path.is_dir()
            where = f" ({error.filename})" if error.filename and error.filename != str(self.path) else ""
            detail = f"`{self.path}`: {error.strerror}{where}"
            return Miss(MissReason.LAYOUT if is_file else MissReason.UNREADABLE, detail)

    def require_layout(self) -> None:
        """Raise `CacheError` unless this is a cache of a layout that is known, `UntrustedError` if it is refused."""
        try:
            data = self._read("format.json")
        except FileNotFoundError:
            there = self.path.is_dir()
            raise CacheError(
                str(self.path),
                "is no kernel cache" if there else "does not exist",
                "`fa4-precompile build SPEC --cache DIR` makes one",
            ) from None
        except OSError as error:
            raise CacheError(str(self.path), f"can't be read: {error.strerror}") from None
        if _layout(data) != LAYOUT:
            raise CacheError(
                str(self.path),
                f"its `format.json` does not say layout {LAYOUT}, the one that this version reads",
                "use the version of fa4-precompile that built it, or build a new cache",
            )

    def records(self) -> Iterator[Record | Finding]:
        """Yield every record by toolchain and kernel id; a `Finding` for one that is damaged or not trusted."""
        for relative in self._files("records/*/*/*.json"):
            try:
                with opened_folder(self.path, self.trust) as descriptor:
                    record = self._read_record(descriptor, relative)
            except (RecordError, UntrustedError, OSError) as error:
                yield self._finding(relative, error)
                continue
            if relative != _record_path(record.toolchain, record.id):
                yield Finding(relative, f"describes the kernel {record.id}, which belongs elsewhere")
                continue
            yield record

    def toolchains(self) -> Iterator[Toolchain | Finding]:
        """Yield every toolchain that has built into this cache; a `Finding` for one that is damaged or not trusted."""
        for relative in self._files("toolchains/*.json"):
            try:
                toolchain = Toolchain.parse_file(relative, self._read(relative))
            except (RecordError, UntrustedError, OSError) as error:
                yield self._finding(relative, error)
                continue
            yield (
                toolchain
                if relative == _toolchain_path(toolchain.id)
                else Finding(relative, f"describes toolchain {toolchain.id}")
            )

    def manifests(self) -> Iterator[Manifest | Finding]:
        """Yield every manifest; a `Finding` for one that is damaged or not trusted."""
        for relative in self._files("manifests/*/*.json"):
            try:
                manifest = Manifest.parse_file(relative, self._read(relative))
            except (RecordError, UntrustedError, OSError) as error:
                yield self._finding(relative, error)
                continue
            if relative != _manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target):
                yield Finding(relative, f"describes a build of {manifest.spec} that belongs elsewhere")
                continue
            yield manifest

    def manifest(self, toolchain: str, spec_digest: str, target: Target) -> Manifest | Finding | None:
        """Return a spec's manifest, None if there is none, or a `Finding` for one that is damaged or not trusted."""
        relative = _manifest_path(toolchain, spec_digest, target)
        try:
            manifest = Manifest.parse_file(relative, self._read(relative))
        except FileNotFoundError:
            return None
        except (RecordError, UntrustedError, OSError) as error:
            return self._finding(relative, error)
        if (manifest.toolchain, manifest.spec_digest, manifest.target) != (toolchain, spec_digest, target):
            return Finding(relative, f"describes a build of {manifest.spec} that belongs elsewhere")
        return manifest

    def blob(self, record: Record) -> bytes:
        """Return a record's blob, checked. Raises `RecordError`, `UntrustedError` or `OSError`."""
        with opened_folder(self.path, self.trust) as descriptor:
            return self._read_blob(descriptor, record)

    # Publishing

    def create(self) -> None:
        """Make the directory, if it is not there, and check that it is one of ours.

        Raises `CacheError` for a folder that holds something else, `UntrustedError`, or `MachineError` if the
        operating system refuses.
        """
        self._make_folder(self.path)
        try:
            with opened_folder(self.path, self.trust):
                present = any(not path.name.startswith(_TEMPORARY) for path in self.path.iterdir())
        except OSError as error:
            raise self._refused(error) from None
        if not (self.path / "format.json").exists():
            if present and not (self.path / "CACHEDIR.TAG").exists():
                raise CacheError(str(self.path), "holds files, but is no kernel cache", "name an empty folder")
            self._publish("CACHEDIR.TAG", _CACHEDIR_TAG)
            self._publish("README", _README)
            self._publish("format.json", b'{"layout": %d}\n' % LAYOUT)
        self.require_layout()

    def require_writable(self) -> None:
        """Raise `MachineError` unless kernels can be published, before hours are spent on compiling them."""
        temporary = self._write_temporary(self.path, b"?")
        self._unlink(temporary)

    def publish(self, record: Record, blob: bytes) -> None:
        """Publish a kernel: first its blob, then its record. Raises `MachineError` if it can't be written."""
        digest = BlobDigest(hashlib.sha256(blob).hexdigest())
        if digest != record.blob or len(blob) != record.blob_bytes:
            raise ValueError("the record describes another blob")
        self._publish(_blob_path(digest), blob)
        self._publish(_record_path(record.toolchain, record.id), record.render_file())

    def publish_toolchain(self, toolchain: Toolchain) -> None:
        """Publish what a build is made with."""
        self._publish(_toolchain_path(toolchain.id), toolchain.render_file())

    def publish_manifest(self, manifest: Manifest) -> Path:
        """Publish a manifest and return its path. A later build of the same spec replaces it."""
        path = self.manifest_path(manifest)
        self._publish(path.relative_to(self.path).as_posix(), manifest.render_file())
        return path

    def manifest_path(self, manifest: Manifest) -> Path:
        """Return where a manifest is."""
        return self.path / _manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)

    def blob_path(self, record: Record) -> Path:
        """Return where a record's blob is."""
        return self.path / _blob_path(record.blob)

    def lock_path(self, *parts: str) -> Path:
        """Return the lock file of some work on this cache. The folder is made; nothing but builders looks there."""
        self._make_folder(self.path / "locks")
        return self.path / "locks" / f"{digest_json(parts)[:32]}.lock"

    def sync(self) -> None:
        """Sync the folders that were published into; once a build."""
        for folder in sorted(self._touched):
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some network filesystems can't sync a folder
                    raise self._refused(error) from None
        self._touched.clear()

    def sweep_temporaries(self) -> int:
        """Delete what killed builders left half-written, and return how many files. Best effort."""
        oldest = time.time() - _TEMPORARY_MAX_AGE_S
        swept = 0
        for path in self.path.rglob(f"{_TEMPORARY}*"):
            try:
                if path.lstat().st_mtime < oldest:
                    path.unlink()
                    swept += 1
            except OSError:
                continue
        return swept

    # How it is done

    def _files(self, pattern: str) -> list[str]:
        paths = (path for path in self.path.glob(pattern) if not path.name.startswith("."))
        return sorted(path.relative_to(self.path).as_posix() for path in paths)

    def _knows_layout(self, descriptor: int) -> bool:
        if not self._layout_is_known:
            try:
                format_file = read_file(self.path, descriptor, "format.json", self.trust)
            except FileNotFoundError:
                return False
            self._layout_is_known = _layout(format_file) == LAYOUT
        return self._layout_is_known

    def _finding(self, path: str, error: RecordError | UntrustedError | OSError) -> Finding:
        if isinstance(error, RecordError):
            return Finding(path, error.reason)
        if isinstance(error, UntrustedError):  # of a folder: one finding, however many files are in it
            where = Path(error.path)
            inside = where.relative_to(self.path).as_posix() if where.is_relative_to(self.path) else str(where)
            return Finding(inside, f"is not trusted: {error.reason}", error.path)
        return Finding(path, str(error.strerror), unreadable=True)

    def _read(self, relative: str) -> bytes:
        with opened_folder(self.path, self.trust) as descriptor:
            return read_file(self.path, descriptor, relative, self.trust)

    def _read_record(self, descriptor: int, relative: str) -> Record:
        return Record.parse_file(relative, read_file(self.path, descriptor, relative, self.trust))

    def _read_blob(self, descriptor: int, record: Record | Reference) -> bytes:
        relative = _blob_path(record.blob)
        try:
            blob = read_file(self.path, descriptor, relative, self.trust)
        except FileNotFoundError:
            raise RecordError(relative, "is missing, though a record names it") from None
        if len(blob) != record.blob_bytes or hashlib.sha256(blob).hexdigest() != record.blob:
            raise RecordError(relative, "is damaged: its bytes do not have the digest that is its name")
        return blob

    def _publish(self, relative: str, data: bytes) -> None:
        path = self.path / relative
        self._make_folder(path.parent)
        temporary = self._write_temporary(path.parent, data)
        try:
            os.rename(temporary, path)
        except BaseException as error:  # also a signal's: nothing half-done stays
            self._unlink(temporary)
            if isinstance(error, OSError):
                raise self._refused(error) from None
            raise
        self._touched.add(path.parent)

    def _write_temporary(self, folder: Path, data: bytes) -> Path:
        path = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        except OSError as error:
            raise self._refused(error) from None
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                os.fchmod(descriptor, 0o444)  # whatever the umask
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(descriptor)
        except BaseException as error:
            self._unlink(path)
            if isinstance(error, OSError):
                raise self._refused(error) from None
            raise
        return path

    def _make_folder(self, folder: Path) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for path in reversed([folder, *folder.parents]):
                if path.is_relative_to(self.path):
                    self._make_one_folder(path)
        except OSError as error:
            raise self._refused(error) from None

    def _make_one_folder(self, path: Path) -> None:
        try:
            path.mkdir(0o755)
        except FileExistsError:
            # What is put where others can write, or behind a symlink, would be refused when it is read.
            if path.is_symlink() and path != self.path:
                raise UntrustedError(str(path), "it is a symlink") from None
            with opened_folder(path, self.trust):
                return
        # Set, not left to the umask: a folder that the group can write would not be trusted.
        path.chmod(0o755)
        self._touched.update({path, path.parent} if path != self.path else {path})

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            pass

    def _refused(self, error: OSError) -> MachineError:
        hints = {
            errno.ENOSPC: "free some space and build again: what is published is kept",
            errno.EDQUOT: "free some space and build again: what is published is kept",
            errno.EROFS: "the cache is on a read-only filesystem; name another folder with `--cache DIR`",
            errno.EACCES: "name a folder that you can write with `--cache DIR`",
        }
        return MachineError(
            f"can't write to the cache `{self.path}`: {error.strerror}",
            hints.get(error.errno or 0, "name another folder with `--cache DIR`"),
        )


def _layout(data: bytes) -> object:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    layout = content.get("layout") if isinstance(content, dict) else None
    return layout if type(layout) is int else None


def _record_path(toolchain: str, kernel: KernelId) -> str:
    return f"records/{toolchain}/{kernel[:2]}/{kernel}.json"


def _blob_path(digest: BlobDigest) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _toolchain_path(toolchain: str) -> str:
    return f"toolchains/{toolchain}.json"


def _manifest_path(toolchain: str, spec_digest: str, target: Target) -> str:
    return f"manifests/{toolchain}/{spec_digest[:32]}.{target.label}.json"
