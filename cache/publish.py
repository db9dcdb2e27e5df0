"""Publishing into one cache directory.

Guarantees
    A record or blob appears under its name whole and synced to disk, or not at all.
Not guaranteed
    That a published kernel survives a power loss before `sync` was called, or that two builders don't do work twice.
Concurrency
    Any number of builders beside any number of readers, in any processes, on any POSIX filesystem: publishing is write,
    fsync, rename. Files are never changed in place and never deleted here. Who relies on a file that was there already
    confirms it, so that `gc` leaves it alone; folders that `gc` takes away, as they are empty, are made again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import CacheError, MachineError, RecordError, UntrustedError
from . import layout
from .certificate import Certificate
from .contents import Entry
from .crew import Crew
from .descriptors import opened
from .key import BlobDigest, digest_json
from .kinds import CERTIFICATE
from .library import Library
from .manifest import Manifest
from .origin import Origin
from .record import Record
from .refused import refused
from .store import Root
from .toolchain import Toolchain
from .trust import Folder, opened_folder

# Of files that come by the hundred, so many are written and synced at a time, by so many threads: on an ext4 disk 400
# files of 140 kB took 0.77 s one by one, 0.15 s by two threads, 0.12 s by eight. One `syncfs` for all took 0.1 s, but
# it waits for whatever others are writing to the filesystem.
_WRITERS = 8
_AHEAD = 64
_AHEAD_BYTES = 64 << 20


class _Pending(NamedTuple):
    """A file that is being written, and has not its name yet."""

    entry: Entry
    data: bytes
    temporary: Path
    written: int


# So often a folder that was just made can be taken away before there is something in it.
_MOST_FOLDERS = 20


class Publisher:
    """Writes into one cache directory. Creating the object touches nothing; `create` makes the directory.

    A sealed one is not added to, unless another seal `is_to_come`: until then nobody reads what is published.
    """

    def __init__(self, root: Root, is_to_come: bool = False) -> None:
        self.root = root
        self._is_to_come = is_to_come
        self._touched: set[Path] = set()

    def create(self) -> None:
        """Make the directory, if it is not there, and check that it is one of ours.

        Raises `CacheError` for a folder that holds something else, `UntrustedError`, or `MachineError` if the
        operating system refuses.
        """
        self._in_folder(self.root.path, lambda: None)
        try:
            with opened_folder(self.root.path, self.root.trust) as folder:
                present = [name for name in os.listdir(folder.descriptor) if not name.startswith(layout.TEMPORARY)]
                finished = layout.FORMAT in present
                ours = finished or not present or _has_our_tag(folder)
        except OSError as error:
            raise self._refused(error, self.root.path) from None
        if not finished:
            if not ours:
                raise CacheError(str(self.root.path), "holds files, but is no kernel cache", "name an empty folder")
            for name, content in layout.TOP:
                self._publish(name, content)
        self.root.require_layout()
        self._require_open()

    def require_writable(self, toolchain: str, *names: str) -> None:
        """Raise `MachineError` unless a toolchain's kernels can be published, before hours are spent on compiling them.

        Tried in each folder that they go to, as far as it is there, with a name as long as the longest of those that
        the build is going to write. `UntrustedError` is raised for one that others can write.
        """
        length = max(map(len, names), default=0)
        for folder in dict.fromkeys(self._lowest(relative) for relative in layout.folders(toolchain)):
            self._in_folder(folder, partial(self._try_to_write, folder, length))

    def publish(self, record: Record, blob: bytes, origin: Origin | None = None) -> None:
        """Publish a kernel: its blob, its record, and then where it comes from, which nothing depends on.

        Raises `MachineError` if it can't be written.
        """
        digest = BlobDigest(hashlib.sha256(blob).hexdigest())
        if digest != record.blob or len(blob) != record.blob_bytes:
            raise ValueError("the record describes another blob")
        self._publish(layout.blob_path(digest), blob)
        self._publish(layout.record_path(record.toolchain, record.id), record.render_file())
        if origin is not None:
            self._publish(layout.origin_path(origin.toolchain, origin.kernel), origin.render_file())

    def publish_toolchain(self, toolchain: Toolchain) -> None:
        """Publish what a build is made with."""
        self._publish(layout.toolchain_path(toolchain.id), toolchain.render_file())

    def publish_library(self, toolchain: str, path: Path) -> None:
        """Publish the run-time library that a toolchain's kernels need, unless it is there.

        Raises `MachineError` if it can't be read or written.
        """
        if self.root.has_library(toolchain) and self.confirm(layout.library_path(toolchain)):
            return
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MachineError(f"`{path}` can't be read: {error.strerror}", "let this user read it") from None
        library = Library(toolchain, path.name, BlobDigest(hashlib.sha256(data).hexdigest()), len(data))
        self._publish(layout.blob_path(library.blob), data)
        self._publish(layout.library_path(toolchain), library.render_file())

    def publish_files(
        self, files: Iterable[tuple[Entry, bytes]], published: Callable[[Entry], None] = lambda entry: None
    ) -> None:
        """Publish files of another cache, whose bytes have been verified, in their order; `published` is told of each.

        All is synced, also the folders. If getting them fails half-way, those before are published. Raises
        `MachineError` if one can't be written.
        """
        pending: deque[_Pending] = deque()
        half_done: set[Path] = set()
        failures: list[Exception] = []
        ahead = 0
        try:
            with Crew(_WRITERS) as writers:
                for entry, data in _until_it_fails(files, failures):
                    folder = (self.root.path / entry.path).parent
                    if folder not in self._touched:
                        self._in_folder(folder, lambda: None)
                    temporary = self._temporary(folder)
                    half_done.add(temporary)
                    written = writers.give(partial(self._write, temporary, data))
                    pending.append(_Pending(entry, data, temporary, written))
                    ahead += entry.size
                    while len(pending) > _AHEAD or ahead > _AHEAD_BYTES:
                        ahead -= pending[0].entry.size
                        self._finish(writers, pending.popleft(), half_done, published)
                while pending:
                    self._finish(writers, pending.popleft(), half_done, published)
                synced = [writers.give(partial(self._sync_folder, folder)) for folder in sorted(self._touched)]
                for number in synced:
                    writers.result(number)
                self._touched.clear()
        finally:  # also after a signal, which can raise between any two steps
            for temporary in half_done:
                self._unlink(temporary)
        for failure in failures:
            raise failure

    def publish_seal(self, contents: bytes, signature: bytes = b"") -> None:
        """Publish the list of contents of a root that is complete: nothing can be published into it from now on.

        Raises `MachineError` if it can't be written.
        """
        if signature:
            self._publish(layout.SIGNATURE, signature)
        self._publish(layout.SEAL, contents)
        if not signature:  # one over the seal that was there before
            self._unlink(self.root.path / layout.SIGNATURE)

    def publish_signature(self, signature: bytes) -> None:
        """Publish signatures over the seal that is there. Raises `MachineError` if it can't be written."""
        self._rename_into_place(layout.SIGNATURE, signature)

    def publish_certificate(self, certificate: Certificate) -> None:
        """Publish how a kernel ran, also beside a seal, which says nothing of it. A later one of there replaces it.

        Raises `MachineError` if it can't be written.
        """
        self._rename_into_place(CERTIFICATE.place(certificate), certificate.render_file())

    def publish_manifest(self, manifest: Manifest) -> Path:
        """Publish a manifest and return its path. A later build of the same spec replaces it."""
        path = self.root.manifest_path(manifest)
        self._publish(path.relative_to(self.root.path).as_posix(), manifest.render_file())
        return path

    def confirm(self, relative: str) -> bool:
        """Say that a file is needed, which sets its time to now, and return whether it is there.

        Then `gc` leaves it alone for an hour, and all that it names. Best effort: of a cache that can't be written
        nothing can be deleted either, but for somebody else who can.
        """
        try:
            os.utime(self.root.path / relative, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def lock_path(self, *parts: str) -> Path:
        """Return the lock file of some work on this cache. The folder is made; nothing but builders looks there."""
        self._in_folder(self.root.path / "locks", lambda: None)
        return self.root.path / "locks" / f"{digest_json(parts)[:32]}.lock"

    def sync(self) -> None:
        """Sync the folders that were published into; once a build."""
        for folder in sorted(self._touched):
            self._sync_folder(folder)
        self._touched.clear()

    # How it is done

    def _publish(self, relative: str, data: bytes) -> None:
        self._require_open()
        self._rename_into_place(relative, data)

    def _require_open(self) -> None:
        """Raise `CacheError` if the root is sealed, by now: another process may have done it."""
        path = self.root.path
        if self.root.is_sealed and not self._is_to_come:
            raise CacheError(
                str(path),
                "is sealed, so nothing is added to it",
                f"build into another folder, with `--from {path}`; or delete `{path / layout.SEAL}`, and seal it again",
            )

    def _rename_into_place(self, relative: str, data: bytes) -> None:
        path = self.root.path / relative
        self._in_folder(path.parent, lambda: self._put(path, data))
        self._touched.add(path.parent)

    def _put(self, path: Path, data: bytes) -> None:
        temporary = self._temporary(path.parent)
        try:
            self._write(temporary, data)
            os.rename(temporary, path)
        except BaseException:  # also a signal's: nothing half-done stays
            self._unlink(temporary)
            raise

    def _in_folder(self, folder: Path, act: Callable[[], None]) -> None:
        """Do something in a folder, which is made if it is not there. Raises `MachineError` if the system refuses."""
        for _ in range(_MOST_FOLDERS):
            try:
                self._make_folders(folder)
                act()
                return
            except FileNotFoundError as error:  # it was empty, and `gc` has taken it away
                gone = error
            except OSError as error:
                raise self._refused(error, folder) from None
        raise self._refused(gone, folder)

    def _finish(self, writers: Crew, one: _Pending, half_done: set[Path], published: Callable[[Entry], None]) -> None:
        """Give a file its name, once it is synced."""
        path = self.root.path / one.entry.path
        self._require_open()
        try:
            writers.result(one.written)
            os.rename(one.temporary, path)
        except FileNotFoundError:  # the folder was empty, and `gc` has taken it away
            self._in_folder(path.parent, lambda: self._put(path, one.data))
        except OSError as error:
            raise self._refused(error, path.parent) from None
        half_done.discard(one.temporary)
        self._touched.add(path.parent)
        published(one.entry)

    def _sync_folder(self, folder: Path) -> None:
        try:
            with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
                os.fsync(descriptor)
        except OSError as error:
            # Some network filesystems can't sync a folder; one that is gone was empty.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise self._refused(error, folder) from None

    def _lowest(self, relative: str) -> Path:
        """Return a path below the root as far as it is there."""
        path = self.root.path / relative
        while path != self.root.path and not os.path.lexists(path):
            path = path.parent
        return path

    def _try_to_write(self, folder: Path, length: int) -> None:
        temporary = self._temporary(folder, length)
        try:
            self._write(temporary, b"?")
        finally:
            self._unlink(temporary)
        for prefix in folder.glob(layout.PREFIX):  # of another user, say, who has built here as root
            if not os.access(prefix, os.W_OK | os.X_OK, effective_ids=True) and prefix.exists():
                raise self._refused(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), prefix)

    def _temporary(self, folder: Path, length: int = 0) -> Path:
        return folder / f"{layout.TEMPORARY}{secrets.token_hex(8)}".ljust(length, "0")

    def _write(self, path: Path, data: bytes) -> None:
        with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444) as descriptor:
            os.fchmod(descriptor, 0o444)  # whatever the umask
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)

    def _make_folders(self, folder: Path) -> None:
        for path in reversed([folder, *folder.parents]):
            if path.is_relative_to(self.root.path):
                self._make_one_folder(path)
            elif not path.exists():
                _make_parent(path)

    def _make_one_folder(self, path: Path) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            # What is put where others can write, or behind a symlink, would be refused when it is read.
            if path.is_symlink() and path != self.root.path:
                raise UntrustedError(str(path), "it is a symlink") from None
            with opened_folder(path, self.root.trust):
                return
        # Set, not left to the umask: a folder that the group can write would not be trusted.
        os.chmod(path, 0o755)
        self._touched.update({path, path.parent} if path != self.root.path else {path})

    def _unlink(self, path: Path) -> None:
        try:
            os.unlink(path)
        except OSError:
            pass

    def _refused(self, error: OSError, folder: Path) -> MachineError:
        return refused(error, folder, self.root.path)


def _has_our_tag(folder: Folder) -> bool:
    """Return whether a folder is a cache that a killed builder began. Others write a `CACHEDIR.TAG`, too."""
    try:
        return folder.read(layout.TAG, len(layout.TAG_CONTENT)) == layout.TAG_CONTENT
    except (FileNotFoundError, PermissionError, RecordError, UntrustedError):
        return False
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            return False
        raise


def _until_it_fails(files: Iterable[tuple[Entry, bytes]], failures: list[Exception]) -> Iterator[tuple[Entry, bytes]]:
    """Yield files until getting the next one fails, and tell that in a list."""
    try:
        yield from files
    except Exception as error:
        failures.append(error)


def _make_parent(path: Path) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:  # another builder was faster
        return
    os.chmod(path, 0o755)  # whatever the umask
