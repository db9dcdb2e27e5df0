"""Taking a pack in: beside what is there, over what is sealed, again, and killed half-way."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli
from fa4_precompile.cache.outcome import FAULTS
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import MachineError
from packs import contents_of, files_of, other_cache, pack_file, pack_root, unpack_file
from support import (
    blob_file,
    numbered_record,
    overwrite,
    publish_synthetic,
    snapshot,
    start,
    synthetic_blob,
    temporaries,
)

# Unpacking


def test_unpack_makes_a_cache_that_is_whole_and_sealed(synthetic: Path, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_bytes(pack_root(synthetic, signature=b"{}\n"))
    new = unpack_file(file, tmp_path / "deep" / "new")
    assert files_of(new) == files_of(synthetic)
    assert (new / "seal").read_bytes() == contents_of(synthetic).render()
    assert (new / "seal.dsse.json").read_bytes() == b"{}\n"
    assert verify_root(Root(new)).findings == []


def test_unpack_beside_other_kernels_keeps_them_writes_nothing_twice_and_seals_nothing(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache", 3)
    file = pack_file(tmp_path / "cache", tmp_path / "pack")
    other_cache(tmp_path / "other", range(2, 5))
    before = {path: path.stat().st_ino for path in tmp_path.glob("other/blobs/sha256/*/*")}
    unpack_file(file, tmp_path / "other")
    assert {path: path.stat().st_ino for path in before} == before
    assert verify_root(Root(tmp_path / "other")).records == 5
    assert not (tmp_path / "other" / "seal").exists()


def test_unpack_over_a_sealed_cache_leaves_it_as_it_was_until_the_new_seal_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_synthetic(tmp_path / "old", 3)
    other_cache(tmp_path / "new", range(1, 6))
    root = unpack_file(pack_file(tmp_path / "old", tmp_path / "a"), tmp_path / "root")
    before = contents_of(tmp_path / "old")
    file = pack_file(tmp_path / "new", tmp_path / "b")

    def fail(*_arguments: object) -> None:
        raise MachineError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish_seal", fail)
        with pytest.raises(MachineError, match="no space"):
            unpack_file(file, root)
    assert contents_of(root) == before
    assert len(list(Root(root).records())) == 3
    unpack_file(file, root)
    assert contents_of(root) == contents_of(tmp_path / "new")
    assert {record.id for record in Root(root).records()} == {numbered_record(n).id for n in range(1, 6)}  # type: ignore[union-attr]
    assert verify_root(Root(root)).findings == []


def test_unpack_over_a_sealed_cache_replaces_what_both_have_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_synthetic(tmp_path / "old", 3)
    publish_synthetic(tmp_path / "new", 6)
    changed = numbered_record(0, cubin_bytes=1)  # the same kernel, of another linker say
    Publisher(Root(tmp_path / "new")).publish(changed, synthetic_blob(0))
    root = unpack_file(pack_file(tmp_path / "old", tmp_path / "a"), tmp_path / "root")
    file = pack_file(tmp_path / "new", tmp_path / "b")
    order: list[str] = []
    real = Publisher._require_open

    def note(self: Publisher) -> None:
        order.append(Root(root).find_record(changed.toolchain, changed.id).__class__.__name__)
        real(self)

    monkeypatch.setattr(Publisher, "_require_open", note)
    unpack_file(file, root)
    assert order.count("Miss") <= 3  # the record, its manifest, the seal
    assert order[:-3] == ["Record"] * len(order[:-3])
    assert verify_root(Root(root)).findings == []


def test_unpack_brings_a_signature_that_was_made_later(synthetic: Path, tmp_path: Path) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    root = unpack_file(file, tmp_path / "root")
    Publisher(Root(synthetic)).publish_seal(contents_of(synthetic).render(), b"{}\n")
    unpack_file(pack_file(synthetic, tmp_path / "signed"), root)
    assert (root / "seal.dsse.json").read_bytes() == b"{}\n"


def test_unpack_beside_other_kernels_says_that_it_is_not_sealed_and_is_refused_where_it_must_be(
    cli: Cli, tmp_path: Path
) -> None:
    publish_synthetic(tmp_path / "cache", 3)
    file = pack_file(tmp_path / "cache", tmp_path / "pack")
    other_cache(tmp_path / "other", range(2, 5))
    done = cli("unpack", file, "--cache", tmp_path / "other")
    assert (done.code, "so it is not sealed" in done.err) == (0, True)
    fingerprint = contents_of(tmp_path / "cache").fingerprint
    assert cli("unpack", file, "--cache", tmp_path / "other", "--expect", fingerprint).code == 4


def test_unpack_again_over_what_it_has_sealed_writes_nothing(synthetic: Path, tmp_path: Path) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    root = unpack_file(file, tmp_path / "root")
    before = {path: path.stat().st_ino for path in root.rglob("*")}
    unpack_file(file, root)
    assert {path: path.stat().st_ino for path in root.rglob("*")} == before


def test_unpack_with_another_fingerprint_than_expected_is_refused(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    done = cli("unpack", file, "--cache", tmp_path / "new", "--expect", "0" * 64)
    assert (done.code, contents_of(synthetic).fingerprint[:12] in done.err) == (4, True)
    assert not (tmp_path / "new").exists()


def test_unpack_into_a_folder_of_something_else_leaves_it(synthetic: Path, tmp_path: Path, cli: Cli) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    before = snapshot(tmp_path / "mine")
    assert cli("unpack", file, "--cache", tmp_path / "mine").code == 2
    assert snapshot(tmp_path / "mine") == before


def test_unpack_of_a_file_that_is_not_there_is_said(cli: Cli, tmp_path: Path) -> None:
    done = cli("unpack", tmp_path / "nowhere", "--cache", tmp_path / "new")
    assert (done.code, "can't be opened: No such file" in done.err) == (3, True)
    assert not (tmp_path / "new").exists()


def test_unpack_mends_what_is_damaged(synthetic: Path, tmp_path: Path) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    overwrite(blob_file(synthetic, numbered_record(1)), b"no kernel")
    unpack_file(file, synthetic)
    assert verify_root(Root(synthetic)).findings == []


# Killed


def _require_whole(root: Path, whole: Callable[[], object]) -> None:
    """Fail if a root reads as what it is not: after whatever moment."""
    try:
        Root(root).require_layout()
    except FAULTS:
        assert not (root / "seal").exists()
        return
    assert verify_root(Root(root)).findings == []
    if (root / "seal").exists():
        assert contents_of(root) == whole()


@pytest.mark.chance
def test_unpack_killed_at_any_moment_leaves_a_cache_that_the_next_one_completes(tmp_path: Path, attempt: int) -> None:
    publish_synthetic(tmp_path / "cache", 40)
    file = pack_file(tmp_path / "cache", tmp_path / "pack")
    whole = contents_of(tmp_path / "cache")
    begun = time.monotonic()
    unpack_file(file, tmp_path / "usual")
    usual = time.monotonic() - begun
    moments, ended = random.Random(attempt), 0
    for number in range(12):
        root = tmp_path / f"new{number}"
        process = start(unpack_file, file, root)
        time.sleep(moments.uniform(0, usual * 1.2))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        ended += process.exitcode == 0
        _require_whole(root, lambda: whole)
        unpack_file(file, root)
        assert contents_of(root) == whole
        assert (root / "seal").read_bytes() == whole.render()
    assert ended < 12


@pytest.mark.chance
def test_pack_killed_at_any_moment_leaves_the_old_pack_or_the_new(tmp_path: Path, attempt: int) -> None:
    publish_synthetic(tmp_path / "cache", 20)
    file = pack_file(tmp_path / "cache", tmp_path / "pack")
    old = file.read_bytes()
    Publisher(Root(tmp_path / "cache")).publish(numbered_record(99), synthetic_blob(99))
    new = pack_root(tmp_path / "cache")
    moments = random.Random(attempt)
    for _ in range(12):
        process = start(pack_file, tmp_path / "cache", file, True)
        time.sleep(moments.uniform(0, 0.2))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert file.read_bytes() in (old, new)


def test_unpack_interrupted_half_way_leaves_no_temporaries(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    renamed = os.rename

    def interrupt(old: Path, new: Path) -> None:
        if "records" in str(new):
            raise KeyboardInterrupt
        renamed(old, new)

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack_file(file, tmp_path / "new")
    assert temporaries(tmp_path) == []
    monkeypatch.undo()
    unpack_file(file, tmp_path / "new")
    assert contents_of(tmp_path / "new") == contents_of(synthetic)
    assert RootSource(Root(tmp_path / "new")).contents().fingerprint == contents_of(synthetic).fingerprint
