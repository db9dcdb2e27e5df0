"""Factories of synthetic data. None of these blobs is a kernel: no test that uses them may load one."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fa4_precompile.cache.certificate import Certificate, Where
from fa4_precompile.cache.key import BlobDigest, encode_key
from fa4_precompile.cache.manifest import Excluded, Manifest, Reaching
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.outcome import Hit, Miss
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Function, Record, Selection
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import Target, host_machine
from fa4_precompile.cache.toolchain import Toolchain

SYNTHETIC_BLOB = b"synthetic bytes, no kernel\n" * 40
SYNTHETIC_LIBRARY = b"synthetic bytes, no library\n" * 40

_FORK = multiprocessing.get_context("fork")


def synthetic_blob(number: int) -> bytes:
    """Return bytes that differ by number."""
    return b"%d: %s" % (number, SYNTHETIC_BLOB)


def make_target(**changes: Any) -> Target:
    """Return a device profile."""
    return replace(Target("b200", "sm_100a", 148, 13, host_machine()), **changes)


def make_toolchain(**changes: Any) -> Toolchain:
    """Return a toolchain that is installed nowhere."""
    toolchain = Toolchain(
        provider="flash-attn-4",
        provider_version="0.0-synthetic",
        provider_source="a" * 64,
        traced_libraries={"quack": "b" * 64},
        dsl={"nvidia-cutlass-dsl": "0.0-synthetic"},
        dsl_cuda=12,
        tvm_ffi="0.0-synthetic",
        machine=host_machine(),
        host_compiler={},
        environment={},
    )
    return replace(toolchain, **changes)


def make_record(blob: bytes = SYNTHETIC_BLOB, **changes: Any) -> Record:
    """Return the record of a synthetic blob."""
    record = Record(
        toolchain=make_toolchain().id,
        arch="sm_100a",
        slot="fwd",
        key=encode_key((64, 64, True, "synthetic")),
        key_fields={"head_dim": 64, "head_dim_v": 64, "causal": True, "name": "synthetic"},
        facts={"sms": 148},
        selection=Selection("SyntheticForward", "generic", 2, {"main": (128, 128)}),
        blob=BlobDigest(hashlib.sha256(blob).hexdigest()),
        blob_bytes=len(blob),
        cubin="c" * 64,
        cubin_bytes=512,
        functions=[Function("_Zsynthetic", 168, 0, 1024)],
    )
    return replace(record, **changes)


def make_origin(record: Record, **changes: Any) -> Origin:
    """Return where a synthetic kernel comes from."""
    origin = Origin(
        toolchain=record.toolchain,
        kernel=record.id,
        target=make_target(),
        spec="synthetic",
        variant={"pass": "fwd", "dtype": "bf16", "head_dim": 64, "causal": True},
        runtime_env={"FLASH_ATTENTION_SYNTHETIC": "1"},
        compile_seconds=9.512,
    )
    return replace(origin, **changes)


def make_where(**changes: Any) -> Where:
    """Return where a kernel is said to have run."""
    where = Where("a made-up B200", "sm_100a", 148, "580.1", "13.0", "2.13.0", "flash-attn-4", "4.0", "0.1.0")
    return replace(where, **changes)


def make_certificate(record: Record, **changes: Any) -> Certificate:
    """Return how a synthetic kernel is said to have run."""
    certificate = Certificate(
        toolchain=record.toolchain,
        kernel=record.id,
        blob=record.blob,
        variant={"pass": "fwd", "head_dim": 64},
        runtime_env={"FLASH_ATTENTION_SYNTHETIC": "1"},
        verdict="compared",
        error=1.23e-3,
        tolerance=5e-3,
        words="",
        seconds=0.001,
        when="2026-11-29T12:00:00.000000Z",
        where=make_where(),
    )
    return replace(certificate, **changes)


def numbered_record(number: int, **changes: Any) -> Record:
    """Return a record whose kernel id and blob differ by number."""
    return make_record(synthetic_blob(number), key=encode_key((number,)), **changes)


def make_manifest(*records: Record, **changes: Any) -> Manifest:
    """Return the manifest of a complete build that made these records."""
    manifest = Manifest(
        spec="synthetic",
        spec_digest="d" * 64,
        target=make_target(),
        toolchain=make_toolchain().id,
        variants=len(records),
        kernels=sorted(record.id for record in records),
        excluded=[Excluded({"pass": "bwd", "head_dim": 96}, "the provider's synthetic reason")],
        failed={},
        calls=[Reaching({"pass": "fwd", "head_dim": 64}, {}, [record.id]) for record in records],
    )
    return replace(manifest, **changes)


def publish_synthetic(path: Path, count: int = 1) -> list[Record]:
    """Make a whole cache of synthetic kernels: toolchain, records, blobs and manifest."""
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.publish_toolchain(make_toolchain())
    publish_library(publisher, make_toolchain())
    records = [numbered_record(number) for number in range(count)]
    for number, record in enumerate(records):
        publisher.publish(record, synthetic_blob(number), make_origin(record))
    publisher.publish_manifest(make_manifest(*records))
    publisher.sync()
    return records


def publish_library(publisher: Publisher, toolchain: Toolchain) -> None:
    """Publish a run-time library that is none, for a toolchain."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "libcute_dsl_runtime.so")
        path.write_bytes(SYNTHETIC_LIBRARY)
        publisher.publish_library(toolchain.id, path)


def record_file(root: Path, record: Record) -> Path:
    """Return where a record is, as the documented layout says."""
    return root / "records" / record.toolchain / record.id[:2] / f"{record.id}.json"


def blob_file(root: Path, record: Record) -> Path:
    """Return where a blob is, as the documented layout says."""
    return root / "blobs" / "sha256" / record.blob[:2] / record.blob


def overwrite(path: Path, data: bytes) -> None:
    """Change a file in place, as a failing disk would, and leave its mode."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below a folder that a reader must not change: names, modes, times, bytes."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


def temporaries(folder: Path) -> list[Path]:
    """Return the half-written files below a folder."""
    return list(folder.rglob(".tmp-*"))


def give_away(path: Path) -> Callable[[], int]:
    """Make a path belong to a user that is neither root nor the one that `os.geteuid` is to be replaced to return.

    Root can't lose trust in its own files, so there the file gets another owner; anybody else changes who they are.
    """
    if os.geteuid() != 0:
        other = os.geteuid() + 1
        return lambda: other
    os.chown(path, 12345, -1)
    return lambda: 0


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Run a function in a forked process; an exception shows in its exit code."""
    process = _FORK.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def join(*processes: BaseProcess) -> None:
    """Wait for processes that must all succeed."""
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def barrier(parties: int) -> Any:
    """Return a barrier for forked processes."""
    return _FORK.Barrier(parties)


def event() -> Any:
    """Return an event for forked processes."""
    return _FORK.Event()


def lock() -> Any:
    """Return a lock for forked processes."""
    return _FORK.Lock()


def shared_queue() -> Any:
    """Return a queue for forked processes."""
    return _FORK.Queue()


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail what would hang."""

    def expire(_number: int, _frame: object) -> NoReturn:
        raise TimeoutError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def find_whole(root: Root, record: Record) -> tuple[Record, bytes] | Miss:
    """Return all of a kernel, as a reader that has found nothing out yet."""
    fresh = Root(root.path)
    whole = fresh.find_record(record.toolchain, record.id)
    if isinstance(whole, Miss):
        return whole
    found = fresh.find(record.toolchain, record.id)
    assert isinstance(found, Hit)
    return whole, found.blob


def require_miss(root: Root, record: Record) -> Miss:
    found = find_whole(root, record)
    assert isinstance(found, Miss)
    return found


def fail_call(monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]) -> None:
    real = getattr(os, function)

    def refuse(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, function, refuse)


def always(*_arguments: object) -> bool:
    return True


def write_distribution(site: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    """Write files to a site folder, and the metadata that an installer leaves of the distribution that has them."""
    rows = []
    for path, content in files.items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    information = site / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (information / "RECORD").write_text("".join(rows))
