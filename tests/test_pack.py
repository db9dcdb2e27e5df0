"""`pack` and `unpack`: a cache as one file, and back."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from command_line import Cli, finished_cache, write_spec
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.chosen import ChosenSource, Part
from fa4_precompile.carry.pack import write_pack
from fa4_precompile.carry.packed import PackSource
from fa4_precompile.carry.ranged import RangedFile
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import CarryError, MachineError, RefusedError, UsageError
from packs import contents_of, other_cache, pack_file, pack_root, split, unpack_file
from support import (
    always,
    blob_file,
    fail_call,
    make_manifest,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_synthetic,
    synthetic_blob,
)


def _chosen(path: Path, part: Part) -> Contents:
    source = RootSource(Root(path))
    return ChosenSource(source, source.contents(), part).wanted


# What a pack is


def test_pack_of_equal_contents_is_equal_whatever_the_order_the_folder_and_the_umask(tmp_path: Path) -> None:
    packs = []
    for umask, numbers in ((0o022, range(5)), (0o077, range(4, -1, -1))):
        before = os.umask(umask)
        try:
            other_cache(tmp_path / str(umask) / "cache", numbers)
            file = pack_file(tmp_path / str(umask) / "cache", tmp_path / f"{umask}.tar.zst")
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
    file = pack_file(tmp_path / "cache", tmp_path / "pack")
    assert contents_of(unpack_file(file, tmp_path / "new")) == contents_of(tmp_path / "cache")
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
    ranged = _Counting(pack_file(tmp_path / "cache", tmp_path / "pack"))
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
    file, folder = pack_file(synthetic, tmp_path / "pack.tar.zst"), tmp_path / "by-tar"
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
        pack_file(synthetic, file)
    assert file.read_text() == "mine"
    assert pack_file(synthetic, file, is_replacing=True).read_bytes() == pack_root(synthetic)


def test_pack_of_a_damaged_cache_is_refused_and_leaves_the_old_one(synthetic: Path, tmp_path: Path) -> None:
    file = pack_file(synthetic, tmp_path / "pack")
    before = file.read_bytes()
    blob = blob_file(synthetic, numbered_record(0))
    overwrite(blob, blob.read_bytes()[::-1])
    with pytest.raises(RefusedError, match=f"`{blob.relative_to(synthetic)}` does not have the bytes"):
        pack_file(synthetic, file, is_replacing=True)
    assert file.read_bytes() == before
    blob.unlink()
    with pytest.raises(CarryError, match="can't be read"):
        pack_file(synthetic, file, is_replacing=True)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "pack"]


def test_pack_of_a_cache_whose_build_lacks_a_kernel_is_refused(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache")
    publisher = Publisher(Root(tmp_path / "cache"))
    publisher.publish_manifest(make_manifest(numbered_record(0), numbered_record(1)))
    with pytest.raises(RefusedError, match=r"names `records/.*`, which is not in its list of contents"):
        pack_file(tmp_path / "cache", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_pack_that_can_not_be_written_leaves_nothing(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fail_call(monkeypatch, call, errno.ENOSPC, always)
    with pytest.raises(MachineError, match=r"can't write `.*pack`: No space left"):
        pack_file(synthetic, tmp_path / "pack")
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
        pack_file(synthetic, tmp_path / "pack")
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
    unpack_file(tmp_path / "work" / "part", tmp_path / "new")
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
