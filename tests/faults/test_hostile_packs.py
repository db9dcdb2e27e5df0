"""Packs that `pack` does not write: each is refused with a sentence before anything is published, or is harmless."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import socket
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import zstandard

from fa4_precompile.cache.layout import blob_path, manifest_path, record_path
from fa4_precompile.carry.members import END, Member
from fa4_precompile.commands.unpack import unpack
from fa4_precompile.errors import RefusedError
from packs import (
    File,
    assemble,
    contents_of,
    files_of,
    frame,
    member,
    pack_of,
    pack_root,
    rendered,
    seal_of,
    split,
    table,
)
from product import run
from support import (
    deadline,
    make_manifest,
    make_record,
    numbered_record,
    publish_synthetic,
    snapshot,
    synthetic_blob,
)

_TOP = 4
"""How many members are in front of the first file: the list, and what every pack has."""


@dataclass(frozen=True)
class _Good:
    """A pack that nothing is wrong with."""

    pack: bytes
    files: list[File]

    @property
    def contents(self) -> list[bytes]:
        """What is in its frames."""
        return split(self.pack)[1]


Harm = Callable[[_Good], bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> _Good:
    path = tmp_path_factory.mktemp("good") / "cache"
    publish_synthetic(path, 3)
    pack = pack_root(path)
    assert assemble(rendered(files_of(path)), dict(enumerate(split(pack)[0]))) == pack
    return _Good(pack, files_of(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a cache of another kernel, and something beside it."""
    publish_synthetic(tmp_path / "cache", 1)
    (tmp_path / "passwd").write_text("root")
    return tmp_path


# Members that are none


def _header(path: str, length: int, **changes: object) -> bytes:
    """Return a header as `tarfile` writes it, of any kind of member."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = length, 0o444
    for name, value in changes.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _with_header(path: str | None = None, **changes: object) -> Harm:
    """Return a harm: the first file has another header, and all else fits."""

    def harm(good: _Good) -> bytes:
        contents = good.contents
        real, data = good.files[0]
        header = _header(real if path is None else path, len(data), **changes)
        assert _header(real, len(data)) == contents[_TOP][:512], "without changes it is the right one"
        contents[_TOP] = header + contents[_TOP][512:]
        return assemble(contents)

    return harm


def _with_file(path: str, data: bytes = b"root::0:0::/:/bin/sh\n") -> Harm:
    """Return a harm: a file more, which is in the list of contents too."""
    return lambda good: pack_of([*good.files, (path, data)])


def _with_contents(change: Callable[[list[bytes]], object]) -> Harm:
    """Return a harm: other frames, and a table that fits."""

    def harm(good: _Good) -> bytes:
        contents = good.contents
        change(contents)
        return assemble(contents)

    return harm


def _with_seal(change: Callable[[bytes], bytes]) -> Harm:
    return lambda good: pack_of(good.files, change(seal_of(good.files)))


def _swapped(contents: list[bytes]) -> None:
    contents[_TOP], contents[_TOP + 1] = contents[_TOP + 1], contents[_TOP]


def _lines(change: Callable[[list[bytes]], object]) -> Harm:
    def changed(seal: bytes) -> bytes:
        lines = seal.splitlines(keepends=True)
        change(lines)
        return b"".join(lines)

    return _with_seal(changed)


def _changed_line(old: bytes, new: bytes) -> Harm:
    def change(seal: bytes) -> bytes:
        assert old in seal
        return seal.replace(old, new, 1)

    return _with_seal(change)


def _size_of_the_first_file(good: _Good) -> bytes:
    """State a size in the list that is one too few, and let nothing else show it."""
    path, data = good.files[0]
    seal = seal_of(good.files).replace(f" {len(data)} {path}".encode(), f" {len(data) - 1} {path}".encode())
    return pack_of(good.files, seal)


def _other_bytes(good: _Good) -> bytes:
    """Give the first file other bytes of the same size."""
    path, data = good.files[0]
    return pack_of([(path, data[::-1]), *good.files[1:]], seal_of(good.files))


def _sparse(good: _Good) -> bytes:
    """Write the first file as an old GNU `tar` writes one with holes."""
    contents = good.contents
    path, data = good.files[0]
    header = bytearray(_header(path, len(data), type=tarfile.GNUTYPE_SPARSE))
    header[257:265] = b"ustar  \0"
    contents[_TOP] = bytes(header) + contents[_TOP][512:]
    return assemble(contents)


# Files that belong elsewhere, and those that name others


def _renamed(good: _Good, wanted: Callable[[str], bool], name: str) -> list[File]:
    (old,) = [path for path, _ in good.files if wanted(path)][:1]
    return [(name if path == old else path, data) for path, data in good.files]


def _another_kernels_record(good: _Good) -> bytes:
    record = numbered_record(7)
    path = record_path(record.toolchain, record.id)
    return pack_of(_in_order(_renamed(good, lambda path: path.startswith("records/"), path)))


def _record_without_blob(good: _Good) -> bytes:
    record = numbered_record(7)
    return pack_of(_in_order([*good.files, (record_path(record.toolchain, record.id), record.render_file())]))


def _record_without_toolchain(good: _Good) -> bytes:
    record = numbered_record(7, toolchain="f" * 32)
    blob = synthetic_blob(7)
    more = [(blob_path(record.blob), blob), (record_path(record.toolchain, record.id), record.render_file())]
    return pack_of(_in_order([*good.files, *more]))


def _manifest_of_what_is_not_there(good: _Good) -> bytes:
    manifest = make_manifest(numbered_record(0), numbered_record(9), spec_digest="e" * 64)
    path = manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)
    return pack_of(_in_order([*good.files, (path, manifest.render_file())]))


def _record_of_another_size(good: _Good) -> bytes:
    """Let a record be right by itself, but for a size that its blob does not have."""
    record = replace(numbered_record(0), blob_bytes=5)
    path = record_path(record.toolchain, record.id)
    return pack_of([(name, record.render_file() if name == path else data) for name, data in good.files])


def _record_of_a_flipped_bit(good: _Good) -> bytes:
    (path, record), *_ = [one for one in good.files if one[0].startswith("records/")]
    return pack_of([(name, _flip(record, 300) if name == path else data) for name, data in good.files])


def _no_json(good: _Good) -> bytes:
    return pack_of([(path, b"{}" if path.startswith("records/") else data) for path, data in good.files])


def _in_order(files: list[File]) -> list[File]:
    kinds = ["blobs", "toolchains", "libraries", "records", "manifests"]
    return sorted(files, key=lambda one: (kinds.index(one[0].split("/")[0]), one[0]))


# Frames and tables that are none


def _zeros(claimed: int, length: int) -> bytes:
    """Return a frame that states a size, and comes to another: blocks of a zero that is repeated."""
    blocks = length // (128 << 10)
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1).to_bytes(3, "little")
    return zstandard.FRAME_HEADER + b"\xe0" + claimed.to_bytes(8, "little") + block * blocks + last


_MEGABYTE, _TEN_GIGABYTES = 1 << 20, 10 << 30


def _bomb(claimed: int, stated: int = 0) -> Harm:
    """Return a harm: ten gigabytes of zeros for a blob of one megabyte, and what the frame and the table say of it."""

    def harm(good: _Good) -> bytes:
        zeros = bytes(_MEGABYTE)
        path = blob_path(make_record(zeros).blob)
        files = _in_order([*good.files, (path, zeros)])
        contents = rendered(files)
        number = _TOP + files.index((path, zeros))
        size = stated or len(contents[number])
        frames = [frame(content) for content in contents]
        frames[number] = _zeros(claimed or size, _TEN_GIGABYTES)
        sizes = [(len(one), len(content)) for one, content in zip(frames, contents, strict=True)]
        sizes[number] = len(frames[number]), size
        return b"".join(frames) + table(sizes)

    return harm


def _packed(number: int, pack: Callable[[bytes], bytes]) -> Harm:
    """Return a harm: a frame of the right content that was made in another way."""
    return lambda good: assemble(good.contents, {number: pack(good.contents[number])})


def _with_a_dictionary(content: bytes) -> bytes:
    samples: list[bytes | bytearray | memoryview] = [
        content[start : start + 64] + bytes(str(start), "ascii") for start in range(0, 1000)
    ]
    return zstandard.ZstdCompressor(dict_data=zstandard.train_dictionary(4096, samples)).compress(content)


def _without_a_size(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


def _padded(content: bytes) -> bytes:
    """Return a frame with ten thousand blocks of nothing."""
    plain = zstandard.ZstdCompressor(level=1, write_checksum=False).compress(content)
    start = zstandard.get_frame_parameters(plain)
    assert start.content_size == len(content)
    head = 4 + zstandard.frame_header_size(plain) - 4
    return plain[:head] + bytes(3) * 10_000 + plain[head:]


def _skipped(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, 4) + b"evil" + frame(content)


def _with_table(change: Callable[[list[tuple[int, int]]], object]) -> Harm:
    def harm(good: _Good) -> bytes:
        frames, contents = split(good.pack)
        sizes = [(len(one), len(content)) for one, content in zip(frames, contents, strict=True)]
        change(sizes)
        return b"".join(frames) + table(sizes)

    return harm


def _footer(number: int, descriptor: int = 0) -> Harm:
    return lambda good: good.pack[:-9] + struct.pack("<IBI", number, descriptor, 0x8F92EAB1)


def _moved(sizes: list[tuple[int, int]]) -> None:
    """Let a frame begin a byte late."""
    sizes[5] = sizes[5][0] + 1, sizes[5][1]
    sizes[6] = sizes[6][0] - 1, sizes[6][1]


def _longer(sizes: list[tuple[int, int]]) -> None:
    sizes[5] = sizes[5][0] + 1, sizes[5][1]


def _huge_table(_good: _Good) -> bytes:
    """Tell of two million frames, all in the file."""
    one = frame(bytes(512))
    return one * 2_000_000 + table([(len(one), 512)] * 2_000_000)


def _tar(mode: Literal["w", "w:gz"]) -> Harm:
    def harm(good: _Good) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:
            for path, data in good.files:
                info = tarfile.TarInfo(path)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    return harm


_MEMBER, _LIST = "is not as `pack` writes it", "is damaged"
_NO_PACK, _COUNT = "it is no pack, or not all of one", "does not have the members"

_HARMS: dict[str, tuple[Harm, str]] = {
    "absolute name": (_with_header("/etc/passwd"), _MEMBER),
    "name that leads out": (_with_header("../passwd"), _MEMBER),
    "symlink": (_with_header(type=tarfile.SYMTYPE, linkname="../passwd"), _MEMBER),
    "hard link": (_with_header(type=tarfile.LNKTYPE, linkname="../passwd"), _MEMBER),
    "device": (_with_header(type=tarfile.CHRTYPE, devmajor=1, devminor=5), _MEMBER),
    "FIFO": (_with_header(type=tarfile.FIFOTYPE), _MEMBER),
    "folder": (_with_header(type=tarfile.DIRTYPE), _MEMBER),
    "sparse file": (_sparse, _MEMBER),
    "set-uid bit": (_with_header(mode=0o4755), _MEMBER),
    "mode that others can write": (_with_header(mode=0o666), _MEMBER),
    "owner": (_with_header(uid=1000, gid=1000), _MEMBER),
    "owner's name": (_with_header(uname="root"), _MEMBER),
    "time": (_with_header(mtime=1_700_000_000), _MEMBER),
    "size in the header": (_with_header(size=3), _MEMBER),
    "checksum of the header": (_with_contents(lambda all_: all_.__setitem__(4, _flip(all_[4], 148))), _MEMBER),
    "padding that is not zero": (_with_contents(lambda all_: all_.__setitem__(4, _flip(all_[4], -1))), _MEMBER),
    "end that is not zero": (_with_contents(lambda all_: all_.__setitem__(-1, _flip(END, 700))), _MEMBER),
    "end that is longer": (_with_contents(lambda all_: all_.__setitem__(-1, END * 10)), _MEMBER),
    "format of another layout": (
        _with_contents(lambda all_: all_.__setitem__(1, member("format.json", b'{"layout": 2}\n'))),
        _MEMBER,
    ),
    "README of its own": (_with_contents(lambda all_: all_.__setitem__(3, member("README", b"run me"))), _MEMBER),
    "duplicate": (_with_contents(lambda all_: all_.insert(_TOP, all_[_TOP])), _MEMBER),
    "other order": (_with_contents(_swapped), _MEMBER),
    "extra member": (_with_contents(lambda all_: all_.insert(-1, member("run-me.sh", b"rm -rf /\n"))), _MEMBER),
    "extra members": (_with_contents(lambda all_: all_.extend([member("run-me.sh", b"")] * 3)), _COUNT),
    "missing member": (_with_contents(lambda all_: all_.pop(_TOP)), _COUNT),
    "missing end": (_with_contents(lambda all_: all_.pop()), _COUNT),
    "missing list": (_with_contents(lambda all_: all_.pop(0)), "is no `seal`|is not as `pack` writes it"),
    "list with a header of its own": (
        _with_contents(lambda all_: all_.__setitem__(0, _header("seal", len(all_[0]) - 512) + all_[0][512:])),
        _MEMBER,
    ),
    "no frames": (lambda good: table([]), "no `seal`"),
    "wrong digest": (_other_bytes, "does not have the bytes that the list of contents states"),
    "wrong size": (_size_of_the_first_file, _MEMBER),
    "path not of the layout": (_with_file("blobs/sha256/passwd"), _LIST),
    "path that leads out": (_with_file("blobs/sha256/../../../passwd"), _LIST),
    "path that is absolute": (_with_file("/etc/passwd"), _LIST),
    "path with a NUL": (_with_file("toolchains/\0.json"), _LIST),
    "locks": (_with_file("locks/0.lock"), _LIST),
    "blob not named by its digest": (_with_file("blobs/sha256/aa/" + "a" * 64), _LIST),
    "blob that is larger than one can be": (
        _lines(lambda lines: lines.insert(1, b"%064x 999999999999 blobs/sha256/00/%064x\n" % (0, 0))),
        "more than .* bytes",
    ),
    "record of another kernel": (_another_kernels_record, "describes what belongs elsewhere"),
    "record that is none": (_no_json, "records/"),
    "record of a blob that is not listed": (_record_without_blob, "names `blobs/"),
    "record of a toolchain that is not listed": (_record_without_toolchain, "names `toolchains/"),
    "record of a blob of another size": (_record_of_another_size, "of 5 bytes, which is not in its list"),
    "record whose own digest is wrong": (_record_of_a_flipped_bit, "`records/.*is damaged"),
    "manifest of kernels that are not listed": (_manifest_of_what_is_not_there, "names `records/"),
    "list not sorted": (_lines(lambda lines: lines.insert(1, lines.pop(2))), _LIST),
    "list with a line twice": (_lines(lambda lines: lines.insert(1, lines[1])), _LIST),
    "list without its last line": (_lines(lambda lines: lines.pop()), _MEMBER),
    "list without its last newline": (_with_seal(lambda seal: seal[:-1]), _LIST),
    "list with CRLF": (_with_seal(lambda seal: seal.replace(b"\n", b"\r\n")), "does not begin|is damaged"),
    "list that is not UTF-8": (_with_seal(lambda seal: seal + b"\xff\n"), _LIST),
    "list of another schema": (_changed_line(b"contents/1", b"contents/9"), "does not begin with"),
    "list with a size of leading zeros": (_changed_line(b" 10", b" 010"), _LIST),
    "list with digits of another alphabet": (_changed_line(b" 1", " \u0661".encode()), _LIST),
    "list of nothing": (lambda good: pack_of(good.files, b""), "is not as|does not begin"),
    "bomb that says so": (_bomb(_TEN_GIGABYTES), "does not state that it has"),
    "bomb that says it is small": (_bomb(0), "is damaged"),
    "bomb that the table tells of": (_bomb(3 << 30, 3 << 30), _MEMBER),
    "dictionary that is not known": (_packed(_TOP + 1, _with_a_dictionary), "needs a dictionary"),
    "frame without a size": (_packed(_TOP, _without_a_size), "does not state that it has"),
    "frame with ten thousand blocks of nothing": (_packed(_TOP, _padded), _MEMBER),
    "frame with a skipped one in front": (_packed(_TOP, _skipped), "does not state|is damaged"),
    "frame with bytes behind it": (_packed(_TOP, lambda content: frame(content) + b"!"), "is damaged"),
    "two frames for a member": (
        _packed(_TOP, lambda content: frame(content[:512]) + frame(content[512:])),
        "does not state that it has",
    ),
    "frame that is none": (_packed(_TOP, lambda content: b"not zstd"), "is damaged"),
    "frame that ends early": (_packed(_TOP, lambda content: frame(content)[:-7]), "is damaged"),
    "table of a huge number": (_footer(0xFFFFFFFF), "more than there can be"),
    "table of two million frames": (_huge_table, "more than there can be"),
    "table of more than there are": (_footer(18), _NO_PACK),
    "table with checksums": (_footer(17, 0x80), _NO_PACK),
    "table of another file": (
        _with_table(lambda sizes: sizes.__setitem__(1, (sizes[1][0] + 1, sizes[1][1]))),
        _NO_PACK,
    ),
    "table whose frames begin elsewhere": (_with_table(_moved), "is damaged|does not state"),
    "table of other sizes": (_with_table(lambda sizes: sizes.__setitem__(5, (sizes[5][0], 512))), _MEMBER),
    "table of a list of four gigabytes": (
        _with_table(lambda sizes: sizes.__setitem__(0, (sizes[0][0], 0xFFFFFFFF))),
        "no `seal`",
    ),
    "table twice": (lambda good: good.pack + good.pack[-9 - 8 * 17 - 8 :], _NO_PACK),
    "trailing garbage": (lambda good: good.pack + b"garbage", _NO_PACK),
    "garbage in front": (lambda good: b"garbage" + good.pack, _NO_PACK),
    "second pack behind it": (lambda good: good.pack + good.pack, _NO_PACK),
    "empty file": (lambda good: b"", "too short"),
    "one byte": (lambda good: b"\0", "too short"),
    "a megabyte of zeros": (lambda good: bytes(_MEGABYTE), _NO_PACK),
    "plain tar": (_tar("w"), _NO_PACK),
    "gzip tar": (_tar("w:gz"), _NO_PACK),
    "gzip": (lambda good: gzip.compress(good.pack), _NO_PACK),
    "tar.zst without a table": (lambda good: b"".join(split(good.pack)[0]), _NO_PACK),
    "one frame for all": (lambda good: assemble([b"".join(good.contents)]), "no `seal`|is not as `pack` writes it"),
}


def _flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def _require_refused(folder: Path, pack: bytes | None, sentence: str, file: Path | None = None) -> None:
    """Fail unless a pack is refused, by a sentence, and nothing has changed anywhere."""
    named = file or folder / "pack"
    if pack is not None:
        named.write_bytes(pack)
    before = snapshot(folder)
    for root in ("cache", "new"):
        with deadline(60), pytest.raises(RefusedError, match=sentence) as caught:
            unpack(named, folder / root, (), (), False)
        assert str(caught.value).startswith(f"refused, `{named}`: ")
        assert "\n" not in str(caught.value)
        assert caught.value.hint
        assert snapshot(folder) == before


@pytest.mark.parametrize("name", _HARMS)
def test_unpack_hostile_pack_is_refused_and_nothing_changes(good: _Good, folder: Path, name: str) -> None:
    harm, sentence = _HARMS[name]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pack = harm(good)
    assert pack != good.pack
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _require_refused(folder, pack, sentence)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(used, made) < 256 << 10, "took 256 MB"


def test_unpack_good_pack_is_not_refused(good: _Good, folder: Path) -> None:
    for number, pack in enumerate((good.pack, pack_of(good.files))):
        (folder / "pack").write_bytes(pack)
        unpack(folder / "pack", folder / f"new{number}", (), (), False)
        assert files_of(folder / f"new{number}") == good.files


def test_unpack_pack_that_is_cut_anywhere_is_refused(good: _Good, folder: Path) -> None:
    ends = [0]
    for one in split(good.pack)[0]:
        ends.append(ends[-1] + len(one))
    places = {end + more for end in ends for more in (-1, 0, 1)} | set(range(0, len(good.pack), 97))
    places |= set(range(len(good.pack) - 30, len(good.pack)))
    for place in sorted(places & set(range(len(good.pack)))):
        (folder / "pack").write_bytes(good.pack[:place])
        with pytest.raises(RefusedError):
            unpack(folder / "pack", folder / "new", (), (), False)
    assert sorted(path.name for path in folder.iterdir()) == ["cache", "pack", "passwd"]


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "socket"])
def test_unpack_what_is_no_file_is_refused_at_once(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("/dev/zero") if kind == "device" else folder / "odd"
    if kind == "folder":
        file.mkdir()
    elif kind == "FIFO":
        os.mkfifo(file)
    elif kind == "socket":
        monkeypatch.chdir(folder)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("odd")
        done = run("unpack", file, "--cache", folder / "new")
        assert (done.code, "can't be opened" in done.err) == (3, True)
        return
    _require_refused(folder, None, "it is no regular file", file)


def test_unpack_hostile_pack_ends_the_command_with_4_and_a_hint(good: _Good, folder: Path) -> None:
    (folder / "pack").write_bytes(_HARMS["symlink"][0](good))
    done = run("unpack", folder / "pack", "--cache", folder / "new")
    assert done.code == 4
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]
    assert not (folder / "new").exists()


@pytest.mark.chance
def test_unpack_pack_with_a_byte_changed_is_refused_or_gives_what_it_was(
    good: _Good, folder: Path, attempt: int
) -> None:
    chance, refused = random.Random(attempt), 0
    for number in range(150):
        changed = bytearray(good.pack)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
        (folder / "pack").write_bytes(changed)
        root = folder / f"new{number}"
        try:
            unpack(folder / "pack", root, (), (), False)
        except RefusedError:
            refused += 1
            assert not root.exists()
        else:
            assert files_of(root) == good.files
            assert contents_of(root).render() == (root / "seal").read_bytes() == seal_of(good.files)
    assert refused > 100


def test_members_of_any_path_are_as_tar_has_them() -> None:
    for path in ("a" * 100, "a" * 101, "a/" + "b" * 100, "a" * 155 + "/" + "b" * 100, "a" * 156 + "/" + "b" * 100, "é"):
        one = Member.of(path, 3).render(b"abc") + END
        with tarfile.open(fileobj=io.BytesIO(one)) as archive:
            (info,) = archive.getmembers()
            read = archive.extractfile(info)
            assert (info.name, info.mode, read and read.read()) == (path, 0o444, b"abc")
