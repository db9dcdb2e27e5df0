"""Files that are whole by their own word and can't be meant are damage, found in bounded time and memory."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.hostile import MANIFESTS, RECORD, RECORDS, TOOLCHAINS, Harm

from fa4_precompile.cache import layout
from fa4_precompile.cache import record as record_module
from fa4_precompile.cache.outcome import Finding, Hit, Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.commands.lines import record_line, record_lines
from fa4_precompile.loader.resolve import Cache
from loadable import B200
from product import run
from support import join, make_manifest, make_toolchain, publish_synthetic, start, synthetic_blob

# What a reader may take beyond what its process has, for files of some kilobytes.
_MOST_MEMORY = 600 << 20
_MOST_SECONDS = 60


def _bounded(function: Callable[[Path], None], path: Path) -> None:
    """Run a function in a process with little memory and time; it fails as the function does."""

    def work() -> None:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_MEMORY, used + _MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
        function(path)

    join(start(work))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of one synthetic kernel, of what is installed here."""
    publish_synthetic(tmp_path / "cache", 1)
    return tmp_path / "cache"


def _parametrize(harms: dict[str, Harm]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("harm", harms.values(), ids=harms.keys())


def _require_damaged_record(path: Path) -> None:
    root = Root(path)
    found = root.find_record(RECORD.toolchain, RECORD.id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.DAMAGED
    loaded = root.find(RECORD.toolchain, RECORD.id)
    if isinstance(loaded, Hit):  # what is wrong, a job does not need
        assert loaded.blob == synthetic_blob(0)
        assert loaded.reference.symbol == RECORD.symbol
    items = [*root.records(), *root.records_like(RECORD.id[:4])]
    for item in items:
        if isinstance(item, Record):  # its blob is another
            assert json.dumps(item.render())
            assert record_line(item, None, []).encode()
            assert "\n".join(record_lines(item, None, [], root)).encode()
    assert verify_root(root).findings


@_parametrize(RECORDS)
def test_record_that_cannot_be_meant_is_damaged(path: Path, harm: Harm) -> None:
    harm(path)
    _bounded(_require_damaged_record, path)


@_parametrize(RECORDS)
def test_record_that_cannot_be_meant_is_passed_by_for_that_of_the_next_root_and_replaced_by_a_build(
    path: Path, tmp_path: Path, harm: Harm
) -> None:
    harm(path)
    publish_synthetic(tmp_path / "next", 1)
    assert isinstance(Root(tmp_path / "next").find(RECORD.toolchain, RECORD.id), Hit)
    Publisher(Root(path)).publish(RECORD, synthetic_blob(0))
    assert isinstance(Root(path).find(RECORD.toolchain, RECORD.id), Hit)
    assert verify_root(Root(path)).findings == []


def _require_damaged_manifest(path: Path) -> None:
    root = Root(path)
    (finding,) = root.manifests()
    assert isinstance(finding, Finding)
    assert finding.reason is MissReason.DAMAGED
    assert verify_root(root).findings == [finding]


@_parametrize(MANIFESTS)
def test_manifest_that_cannot_be_meant_is_damaged_and_replaced_by_a_build(path: Path, harm: Harm) -> None:
    harm(path)
    _bounded(_require_damaged_manifest, path)
    Publisher(Root(path)).publish_manifest(make_manifest(RECORD))
    assert verify_root(Root(path)).findings == []


def _require_damaged_toolchain(path: Path) -> None:
    root = Root(path)
    (finding,) = root.toolchains()
    assert isinstance(finding, Finding)
    assert finding.reason is MissReason.DAMAGED
    miss = Cache([path]).resolve("fwd", (1,), B200)
    assert isinstance(miss, Miss)
    assert miss.reason is MissReason.DAMAGED
    assert list(Cache([path]).catalog)


@_parametrize(TOOLCHAINS)
def test_toolchain_that_cannot_be_meant_is_damaged_and_replaced_by_a_build(path: Path, harm: Harm) -> None:
    harm(path)
    _bounded(_require_damaged_toolchain, path)
    Publisher(Root(path)).publish_toolchain(make_toolchain())
    assert verify_root(Root(path)).findings == []


@_parametrize({**RECORDS, **MANIFESTS, **TOOLCHAINS})
def test_command_line_says_what_is_damaged(path: Path, harm: Harm) -> None:
    harm(path)
    done = run("verify", "--cache", path, "--json")
    assert done.code == 1
    assert json.loads(done.out)["findings"]
    assert "Traceback" not in done.err


def test_every_byte_of_a_record_that_is_flipped_is_a_miss(path: Path) -> None:
    file = path / layout.record_path(RECORD.toolchain, RECORD.id)
    content = file.read_bytes()
    file.chmod(0o644)
    for position in range(len(content)):
        for bit in (1, 128):
            file.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            assert isinstance(Root(path).find(RECORD.toolchain, RECORD.id), Miss)
            assert isinstance(Root(path).find_record(RECORD.toolchain, RECORD.id), Miss)
    file.write_bytes(content)
    assert isinstance(Root(path).find(RECORD.toolchain, RECORD.id), Hit)


# A broken reader shows


@pytest.mark.parametrize("harm", ["blob_bytes of a terabyte", "record of a terabyte"])
def test_reader_that_believes_any_size_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    monkeypatch.setattr(record_module, "MOST_BLOB_BYTES", 1 << 60)
    monkeypatch.setattr(layout, "MOST_BYTES", 1 << 60)
    RECORDS[harm](path)
    with pytest.raises(AssertionError):
        _bounded(_require_damaged_record, path)
