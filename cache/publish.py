"""Publishing into one cache directory.

Guarantees
    A record or blob appears under its name whole and synced to disk, or not at all.
Not guaranteed
    That a published kernel survives a power loss before `sync` was called, or that two builders don't do work twice.
Concurrency
    Any number of builders beside any number of readers, in any processes, on any POSIX filesystem: publishing is write,
    fsync, rename. Files are never changed in place and never deleted here, but for what killed builders left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from pathlib import Path

from ..errors import CacheError, MachineError, UntrustedError
from . import layout
from .key import BlobDigest, digest_json
from .manifest import Manifest
from .record import Record
from .store import Root
from .toolchain import Toolchain
from .trust import opened_folder

# A builder holds a temporary file for milliseconds; one this old belongs to a builder that was killed.
_TEMPORARY_MAX_AGE_S = 3600


class Publisher:
    """Writes into one cache directory. Creating the object touches nothing; `create` makes the directory."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._touched: set[Path] = set()

    def create(self) -> None:
        """Make the directory, if it is not there, and check that it is one of ours.

        Raises `CacheError` for a folder that holds something else, `UntrustedError`, or `MachineError` if the
        operating system refuses.
        """
        self._make_folder(self.root.path)
        try:
            with opened_folder(self.root.path, self.root.trust):
                present = any(not path.name.startswith(layout.TEMPORARY) for path in self.root.path.iterdir())
        except OSError as error:
            raise self._refused(error) from None
        if not (self.root.path / layout.FORMAT).exists():
            if present and not (self.root.path / layout.TAG).exists():
                raise CacheError(str(self.root.path), "holds files, but is no kernel cache", "name an empty folder")
            self._publish(layout.TAG, layout.TAG_CONTENT)
            self._publish(layout.README, layout.README_CONTENT)
            self._publish(layout.FORMAT, layout.FORMAT_CONTENT)
        self.root.require_layout()

    def require_writable(self) -> None:
        """Raise `MachineError` unless kernels can be published, before hours are spent on compiling them."""
        temporary = self._write_temporary(self.root.path, b"?")
        self._unlink(temporary)

    def publish(self, record: Record, blob: bytes) -> None:
        """Publish a kernel: first its blob, then its record. Raises `MachineError` if it can't be written."""
        digest = BlobDigest(hashlib.sha256(blob).hexdigest())
        if digest != record.blob or len(blob) != record.blob_bytes:
            raise ValueError("the record describes another blob")
        self._publish(layout.blob_path(digest), blob)
        self._publish(layout.record_path(record.toolchain, record.id), record.render_file())

    def publish_toolchain(self, toolchain: Toolchain) -> None:
        """Publish what a build is made with."""
        self._publish(layout.toolchain_path(toolchain.id), toolchain.render_file())

    def publish_manifest(self, manifest: Manifest) -> Path:
        """Publish a manifest and return its path. A later build of the same spec replaces it."""
        path = self.root.manifest_path(manifest)
        self._publish(path.relative_to(self.root.path).as_posix(), manifest.render_file())
        return path

    def lock_path(self, *parts: str) -> Path:
        """Return the lock file of some work on this cache. The folder is made; nothing but builders looks there."""
        self._make_folder(self.root.path / "locks")
        return self.root.path / "locks" / f"{digest_json(parts)[:32]}.lock"

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
        for path in self.root.path.rglob(f"{layout.TEMPORARY}*"):
            try:
                if path.lstat().st_mtime < oldest:
                    path.unlink()
                    swept += 1
            except OSError:
                continue
        return swept

    # How it is done

    def _publish(self, relative: str, data: bytes) -> None:
        path = self.root.path / relative
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
        path = folder / f"{layout.TEMPORARY}{secrets.token_hex(8)}"
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
            self.root.path.parent.mkdir(parents=True, exist_ok=True)
            for path in reversed([folder, *folder.parents]):
                if path.is_relative_to(self.root.path):
                    self._make_one_folder(path)
        except OSError as error:
            raise self._refused(error) from None

    def _make_one_folder(self, path: Path) -> None:
        try:
            path.mkdir(0o755)
        except FileExistsError:
            # What is put where others can write, or behind a symlink, would be refused when it is read.
            if path.is_symlink() and path != self.root.path:
                raise UntrustedError(str(path), "it is a symlink") from None
            with opened_folder(path, self.root.trust):
                return
        # Set, not left to the umask: a folder that the group can write would not be trusted.
        path.chmod(0o755)
        self._touched.update({path, path.parent} if path != self.root.path else {path})

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
            f"can't write to the cache `{self.root.path}`: {error.strerror}",
            hints.get(error.errno or 0, "name another folder with `--cache DIR`"),
        )
