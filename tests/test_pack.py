"""`pack` and `unpack`: a cache as one file, and back."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli, finished_cache, write_spec
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.outcome import FAULTS
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.chosen import ChosenSource, Part
from fa4_precompile.carry.pack import write_pack
from fa4_precompile.carry.packed import PackSource
from fa4_precompile.carry.ranged import RangedFile
from fa4_precompile.carry.root import RootSource
from fa4_precompile.commands.pack import pack
from fa4_precompile.commands.unpack import unpack
from fa4_precompile.errors import CarryError, MachineError, RefusedError, UsageError
from packs import contents_of, files_of, pack_root, split
from support import (
    always,
    blob_file,
    fail_call,
    make_manifest,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    publish_synthetic,
    snapshot,
    start,
    synthetic_blob,
    temporaries,
)


def _pack(root: Path, file: Path, is_replacing: bool = False) -> Path:
    pack(file, root, None, None, None, is_replacing, False, False)
    return file


def _unpack(file: Path, root: Path) -> Path:
    unpack(file, root, (), (), False)
    return root


def _chosen(path: Path, part: Part) -> Contents:
    source = RootSource(Root(path))
    return ChosenSource(source, source.contents(), part).wanted


def _other_cache(path: Path, numbers: range) -> None:
    """Make a cache of synthetic kernels by hand, in an order of one's own."""
    publisher = Publisher(Root(path))
    publisher.create()
    for number in numbers:
        publisher.publish(numbered_record(number), synthetic_blob(number))
    publish_library(publisher, make_toolchain())
    publisher.publish_toolchain(make_toolchain())
    publisher.publish_manifest(make_manifest(*map(numbered_record, sorted(numbers))))


# What a pack is


def test_pack_of_equal_contents_is_equal_whatever_the_order_the_folder_and_the_umask(tmp_path: Path) -> None:
    packs = []
    for umask, numbers in ((0o022, range(5)), (0o077, range(4, -1, -1))):
        before = os.umask(umask)
        try:
            _other_cache(tmp_path / str(umask) / "cache", numbers)
            file = _pack(tmp_path / str(umask) / "cache", tmp_path / f"{umask}.tar.zst")
        finally:
            os.umask(before)
        packs.append(file.read_bytes())
    assert packs[0] == packs[1]


def test_pack_has_a_frame_for_each_member_and_a_table_of_them(synthetic: Path) -> None:
    _, members = split(pack_root(synthetic))
    names = []
    for number, content in enumerate(members[:-1]):
        with tarfile.open(fileobj=io.BytesIO(content + members[-1])) as archive:
            (one,) = archive.getmembers()
            stated = (one.mode, one.uid, one.gid, one.uname, one.gname, one.mtime, one.isreg())
            assert stated == (0o444, 0, 0, "", "", 0, True), number
            names.append(one.name)
    top = ["seal", "format.json", "CACHEDIR.TAG", "README"]
    assert names == top + [entry.path for entry in contents_of(synthetic).in_order()]
    assert members[-1] == bytes(1024)


def test_pack_bytes_stay_what_they_are_from_release_to_release(tmp_path: Path) -> None:
    """A pack of an older release must be one to a newer one: what is compared when it is read is its headers."""
    from fa4_precompile.carry.members import END, Member, constants

    always = b"".join(Member.of(name, len(content)).render(content) for name, content in constants()) + END
    assert hashlib.sha256(always).hexdigest() == "1faaa84d91a1f152cc8657e5d683cece0735d06db9be9436fd218a911bfa7a91"

    header = Member.of("records/" + "a" * 32 + "/bb/" + "c" * 64 + ".json", 1000).header
    entry = tarfile.TarInfo("records/" + "a" * 32 + "/bb/" + "c" * 64 + ".json")
    entry.size, entry.mode = 1000, 0o444
    assert header == entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@pytest.mark.parametrize("name", ["n" * 64, "ünïcødé", "字" * 20], ids=["long", "letters", "wide"])
def test_pack_of_a_target_with_a_long_or_foreign_name_comes_back(tmp_path: Path, name: str) -> None:
    publish_synthetic(tmp_path / "cache")
    publisher = Publisher(Root(tmp_path / "cache"))
    publisher.publish_manifest(make_manifest(numbered_record(0), target=make_target(name=name)))
    file = _pack(tmp_path / "cache", tmp_path / "pack")
    assert contents_of(_unpack(file, tmp_path / "new")) == contents_of(tmp_path / "cache")
    plain = b"".join(split(file.read_bytes())[1])
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert {entry.path for entry in contents_of(tmp_path / "cache").in_order()} < set(archive.getnames())


def test_pack_of_a_pack_is_the_same_pack(synthetic: Path, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_bytes(pack_root(synthetic, signature=b'{"signed": true}\n'))
    source = PackSource(RangedFile(file))
    assert source.signature() == b'{"signed": true}\n'
    source.require_canonical()
    out = io.BytesIO()
    write_pack(source, source.contents(), out, source.signature())
    assert out.getvalue() == file.read_bytes()
    source.close()


def test_pack_with_a_signature_that_is_no_text_is_refused(synthetic: Path) -> None:
    with pytest.raises(RefusedError, match="its signature is damaged"):
        pack_root(synthetic, signature=b"{}\0")


class _Counting:
    """A file of which it is known what was read."""

    def __init__(self, path: Path) -> None:
        self._file = RangedFile(path)
        self.name = self._file.name
        self.reads: list[tuple[int, int]] = []

    def size(self) -> int:
        return self._file.size()

    def read(self, begin: int, length: int) -> bytes:
        self.reads.append((begin, length))
        return self._file.read(begin, length)

    def close(self) -> None:
        self._file.close()


def test_pack_of_which_some_files_are_wanted_is_read_there_only(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache", 40)
    ranged = _Counting(_pack(tmp_path / "cache", tmp_path / "pack"))
    source = PackSource(ranged)
    opening = len(ranged.reads)
    records = list(source.contents().of_kind("records"))
    assert opening == 3  # the end of the table, the table, and the list of contents
    assert {entry for entry, _ in source.read(records)} == set(records)
    assert len(ranged.reads) == opening + 1, "records lie together"
    assert [entry for entry, _ in source.read([records[3]])] == [records[3]]
    assert ranged.reads[-1][1] < 2 * records[3].size
    source.close()


@pytest.mark.skipif(not (shutil.which("tar") and shutil.which("zstd")), reason="needs `tar` and `zstd`")
def test_pack_unpacked_by_tar_is_a_cache_that_is_whole(synthetic: Path, tmp_path: Path) -> None:
    file, folder = _pack(synthetic, tmp_path / "pack.tar.zst"), tmp_path / "by-tar"
    folder.mkdir()
    subprocess.run(["zstd", "-q", "-t", file], check=True)
    subprocess.run(f"umask 022; zstd -qdc {file} | tar -C {folder} -xf -", shell=True, check=True)
    result = verify_root(Root(folder))
    assert (result.records, result.findings) == (2, [])
    assert contents_of(folder) == contents_of(synthetic)
    assert (folder / "seal").read_bytes() == contents_of(synthetic).render()


# Writing one


def test_pack_file_that_is_there_is_replaced_only_if_that_is_said(synthetic: Path, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        _pack(synthetic, file)
    assert file.read_text() == "mine"
    assert _pack(synthetic, file, is_replacing=True).read_bytes() == pack_root(synthetic)


def test_pack_of_a_damaged_cache_is_refused_and_leaves_the_old_one(synthetic: Path, tmp_path: Path) -> None:
    file = _pack(synthetic, tmp_path / "pack")
    before = file.read_bytes()
    blob = blob_file(synthetic, numbered_record(0))
    overwrite(blob, blob.read_bytes()[::-1])
    with pytest.raises(RefusedError, match=f"`{blob.relative_to(synthetic)}` does not have the bytes"):
        _pack(synthetic, file, is_replacing=True)
    assert file.read_bytes() == before
    blob.unlink()
    with pytest.raises(CarryError, match="can't be read"):
        _pack(synthetic, file, is_replacing=True)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "pack"]


def test_pack_of_a_cache_whose_build_lacks_a_kernel_is_refused(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache")
    publisher = Publisher(Root(tmp_path / "cache"))
    publisher.publish_manifest(make_manifest(numbered_record(0), numbered_record(1)))
    with pytest.raises(RefusedError, match=r"names `records/.*`, which is not in its list of contents"):
        _pack(tmp_path / "cache", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_pack_that_can_not_be_written_leaves_nothing(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fail_call(monkeypatch, call, errno.ENOSPC, always)
    with pytest.raises(MachineError, match=r"can't write `.*pack`: No space left"):
        _pack(synthetic, tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_pack_into_a_folder_that_is_not_there_is_a_machine_error(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    done = cli("pack", tmp_path / "no" / "pack", "--cache", synthetic)
    assert done.code == 3
    assert "No such file or directory" in done.err


def test_pack_without_zstandard_says_what_to_install(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MachineError, match="zstandard") as caught:
        _pack(synthetic, tmp_path / "pack")
    assert caught.value.hint == "`pip install 'fa4-precompile[ship]'`"


# Parts of a cache


def _two_builds(path: Path) -> None:
    """Make a cache with two builds of a kernel each, and a kernel in none."""
    publish_synthetic(path)
    publisher = Publisher(Root(path))
    for number in (1, 2):
        publisher.publish(numbered_record(number), synthetic_blob(number))
    hopper = make_target(name="h100", arch="sm_90a", sms=132)
    publisher.publish_manifest(make_manifest(numbered_record(1), spec="other", spec_digest="e" * 64, target=hopper))


@pytest.mark.parametrize(
    ("part", "kernels"),
    [
        ({}, [0, 1, 2]),
        ({"spec": "synthetic"}, [0]),
        ({"spec": "e" * 64}, [1]),
        ({"target": "h100"}, [1]),
        ({"arch": "sm_100a"}, [0]),
        ({"spec": "other", "target": "h100", "arch": "sm_90a"}, [1]),
    ],
    ids=str,
)
def test_part_of_a_cache_is_that_of_the_builds_that_are_asked_for(
    tmp_path: Path, part: dict[str, str], kernels: list[int]
) -> None:
    _two_builds(tmp_path / "cache")
    contents = _chosen(tmp_path / "cache", Part(**part))
    records = {Path(entry.path).stem for entry in contents.of_kind("records")}
    assert records == {numbered_record(number).id for number in kernels}
    assert len(list(contents.of_kind("blobs"))) == len(kernels) + 1  # with the run-time library
    assert len(list(contents.of_kind("toolchains"))) == len(list(contents.of_kind("libraries"))) == 1


def test_part_of_a_cache_comes_back_as_a_cache_that_is_whole(cli: Cli, tmp_path: Path) -> None:
    _two_builds(tmp_path / "cache")
    done = cli("pack", "part", "--cache", tmp_path / "cache", "--arch", "sm_90a", "--json")
    told = json.loads(done.out)
    assert (told["files"], told["kernels"], told["pack"]) == (6, 1, "part")
    _unpack(tmp_path / "work" / "part", tmp_path / "new")
    assert contents_of(tmp_path / "new").fingerprint == told["fingerprint"]
    assert verify_root(Root(tmp_path / "new")).findings == []


def test_part_of_a_cache_that_it_does_not_have_is_said_with_what_there_is(tmp_path: Path) -> None:
    _two_builds(tmp_path / "cache")
    with pytest.raises(UsageError, match="has no build of spec `synthetic`, target `h100`") as caught:
        _chosen(tmp_path / "cache", Part("synthetic", "h100"))
    assert "other for h100 (sm_90a), synthetic for b200 (sm_100a)" in caught.value.hint


def test_part_of_a_cache_by_a_spec_file_is_found_by_what_it_enumerates(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "cache", spec, make_toolchain(), "b200")
    assert cli("pack", "part", "--cache", tmp_path / "cache", "--spec", spec).code == 0
    spec.write_text(spec.read_text().replace("64", "128"))
    done = cli("pack", "part2", "--cache", tmp_path / "cache", "--spec", spec)
    assert (done.code, "there are: spec for b200" in done.err) == (2, True)


def test_pack_of_a_spec_imports_nothing_that_only_builds_need(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "cache", spec, make_toolchain(), "b200")
    program = f"""
import json, sys
from pathlib import Path
from fa4_precompile.commands.pack import pack
pack(Path("pack"), Path("cache"), "{spec}", None, None, False, False, False)
print(json.dumps(sorted(name.split(".")[0] for name in sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "cutlass", "flash_attn", "quack", "triton", "elftools", "tqdm"}


# The commands


def test_pack_and_unpack_say_what_they_did_in_a_sentence(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    fingerprint = contents_of(synthetic).fingerprint
    done = cli("pack", "kernels.tar.zst", "--cache", synthetic)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("packed 8 files, 2 kernels, 0.0 MB as 0.0 MB: `kernels.tar.zst`")
    assert done.out.endswith(f"{fingerprint}\n")
    done = cli("unpack", "kernels.tar.zst", "--cache", tmp_path / "new", "--expect", fingerprint)
    assert (done.code, done.err) == (0, "")
    assert "unpacked 8 files, 2 kernels, 0.0 MB (8 new files" in done.out
    done = cli("unpack", "kernels.tar.zst", "--cache", tmp_path / "new", "--json")
    assert json.loads(done.out) == {
        "fingerprint": fingerprint,
        "files": 8,
        "kernels": 2,
        "bytes": contents_of(synthetic).size,
        "cache": str(tmp_path / "new"),
        "new_files": 0,
        "new_bytes": 0,
    }


def test_pack_to_standard_output_is_the_pack(synthetic: Path, tmp_path: Path) -> None:
    program = "from fa4_precompile.cli import main; main()"
    command = [sys.executable, "-c", program, "pack", "-", "--cache", str(synthetic)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == pack_root(synthetic)
    assert b"packed 8 files" in done.stderr
    refused = subprocess.run([*command, "--json"], capture_output=True, check=False, cwd=tmp_path)
    assert refused.returncode == 2


def test_pack_of_what_is_no_cache_is_wrong(cli: Cli, tmp_path: Path) -> None:
    assert cli("pack", "pack", "--cache", tmp_path / "nowhere").code == 2
    assert not (tmp_path / "work" / "pack").exists()


# Unpacking


def test_unpack_makes_a_cache_that_is_whole_and_sealed(synthetic: Path, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_bytes(pack_root(synthetic, signature=b"{}\n"))
    new = _unpack(file, tmp_path / "deep" / "new")
    assert files_of(new) == files_of(synthetic)
    assert (new / "seal").read_bytes() == contents_of(synthetic).render()
    assert (new / "seal.dsse.json").read_bytes() == b"{}\n"
    assert verify_root(Root(new)).findings == []


def test_unpack_beside_other_kernels_keeps_them_writes_nothing_twice_and_seals_nothing(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache", 3)
    file = _pack(tmp_path / "cache", tmp_path / "pack")
    _other_cache(tmp_path / "other", range(2, 5))
    before = {path: path.stat().st_ino for path in tmp_path.glob("other/blobs/sha256/*/*")}
    _unpack(file, tmp_path / "other")
    assert {path: path.stat().st_ino for path in before} == before
    assert verify_root(Root(tmp_path / "other")).records == 5
    assert not (tmp_path / "other" / "seal").exists()


def test_unpack_over_a_sealed_cache_leaves_it_as_it_was_until_the_new_seal_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_synthetic(tmp_path / "old", 3)
    _other_cache(tmp_path / "new", range(1, 6))
    root = _unpack(_pack(tmp_path / "old", tmp_path / "a"), tmp_path / "root")
    before = contents_of(tmp_path / "old")
    file = _pack(tmp_path / "new", tmp_path / "b")

    def fail(*_arguments: object) -> None:
        raise MachineError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish_seal", fail)
        with pytest.raises(MachineError, match="no space"):
            _unpack(file, root)
    assert contents_of(root) == before
    assert len(list(Root(root).records())) == 3
    _unpack(file, root)
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
    root = _unpack(_pack(tmp_path / "old", tmp_path / "a"), tmp_path / "root")
    file = _pack(tmp_path / "new", tmp_path / "b")
    order: list[str] = []
    real = Publisher._require_open

    def note(self: Publisher) -> None:
        order.append(Root(root).find_record(changed.toolchain, changed.id).__class__.__name__)
        real(self)

    monkeypatch.setattr(Publisher, "_require_open", note)
    _unpack(file, root)
    assert order.count("Miss") <= 3  # the record, its manifest, the seal
    assert order[:-3] == ["Record"] * len(order[:-3])
    assert verify_root(Root(root)).findings == []


def test_unpack_brings_a_signature_that_was_made_later(synthetic: Path, tmp_path: Path) -> None:
    file = _pack(synthetic, tmp_path / "pack")
    root = _unpack(file, tmp_path / "root")
    Publisher(Root(synthetic)).publish_seal(contents_of(synthetic).render(), b"{}\n")
    _unpack(_pack(synthetic, tmp_path / "signed"), root)
    assert (root / "seal.dsse.json").read_bytes() == b"{}\n"


def test_unpack_beside_other_kernels_says_that_it_is_not_sealed_and_is_refused_where_it_must_be(
    cli: Cli, tmp_path: Path
) -> None:
    publish_synthetic(tmp_path / "cache", 3)
    file = _pack(tmp_path / "cache", tmp_path / "pack")
    _other_cache(tmp_path / "other", range(2, 5))
    done = cli("unpack", file, "--cache", tmp_path / "other")
    assert (done.code, "so it is not sealed" in done.err) == (0, True)
    fingerprint = contents_of(tmp_path / "cache").fingerprint
    assert cli("unpack", file, "--cache", tmp_path / "other", "--expect", fingerprint).code == 4


def test_unpack_again_over_what_it_has_sealed_writes_nothing(synthetic: Path, tmp_path: Path) -> None:
    file = _pack(synthetic, tmp_path / "pack")
    root = _unpack(file, tmp_path / "root")
    before = {path: path.stat().st_ino for path in root.rglob("*")}
    _unpack(file, root)
    assert {path: path.stat().st_ino for path in root.rglob("*")} == before


def test_unpack_with_another_fingerprint_than_expected_is_refused(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    file = _pack(synthetic, tmp_path / "pack")
    done = cli("unpack", file, "--cache", tmp_path / "new", "--expect", "0" * 64)
    assert (done.code, contents_of(synthetic).fingerprint[:12] in done.err) == (4, True)
    assert not (tmp_path / "new").exists()


def test_unpack_into_a_folder_of_something_else_leaves_it(synthetic: Path, tmp_path: Path, cli: Cli) -> None:
    file = _pack(synthetic, tmp_path / "pack")
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
    file = _pack(synthetic, tmp_path / "pack")
    overwrite(blob_file(synthetic, numbered_record(1)), b"no kernel")
    _unpack(file, synthetic)
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
    file = _pack(tmp_path / "cache", tmp_path / "pack")
    whole = contents_of(tmp_path / "cache")
    begun = time.monotonic()
    _unpack(file, tmp_path / "usual")
    usual = time.monotonic() - begun
    moments, ended = random.Random(attempt), 0
    for number in range(12):
        root = tmp_path / f"new{number}"
        process = start(_unpack, file, root)
        time.sleep(moments.uniform(0, usual * 1.2))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        ended += process.exitcode == 0
        _require_whole(root, lambda: whole)
        _unpack(file, root)
        assert contents_of(root) == whole
        assert (root / "seal").read_bytes() == whole.render()
    assert ended < 12


@pytest.mark.chance
def test_pack_killed_at_any_moment_leaves_the_old_pack_or_the_new(tmp_path: Path, attempt: int) -> None:
    publish_synthetic(tmp_path / "cache", 20)
    file = _pack(tmp_path / "cache", tmp_path / "pack")
    old = file.read_bytes()
    Publisher(Root(tmp_path / "cache")).publish(numbered_record(99), synthetic_blob(99))
    new = pack_root(tmp_path / "cache")
    moments = random.Random(attempt)
    for _ in range(12):
        process = start(_pack, tmp_path / "cache", file, True)
        time.sleep(moments.uniform(0, 0.2))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert file.read_bytes() in (old, new)


def test_unpack_interrupted_half_way_leaves_no_temporaries(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _pack(synthetic, tmp_path / "pack")
    renamed = os.rename

    def interrupt(old: Path, new: Path) -> None:
        if "records" in str(new):
            raise KeyboardInterrupt
        renamed(old, new)

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _unpack(file, tmp_path / "new")
    assert temporaries(tmp_path) == []
    monkeypatch.undo()
    _unpack(file, tmp_path / "new")
    assert contents_of(tmp_path / "new") == contents_of(synthetic)
    assert RootSource(Root(tmp_path / "new")).contents().fingerprint == contents_of(synthetic).fingerprint
