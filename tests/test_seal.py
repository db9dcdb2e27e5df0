"""The name of a cache, its seal, and who vouches for it. The kernels are synthetic, the keys are real."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from fa4_precompile.cache import layout
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.kinds import parse_file
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import Finding, Hit, Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.seal import Vouchers
from fa4_precompile.cache.signature import is_signed_by, sign
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.commands.seal import seal
from fa4_precompile.errors import CacheError, NotVouchedFor, RecordError, UsageError
from fa4_precompile.loader.resolve import Cache
from product import run
from support import (
    blob_file,
    make_manifest,
    make_origin,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    publish_synthetic,
    record_file,
    synthetic_blob,
)

_STRANGER = 12345


def _no_password() -> str:
    raise AssertionError("no key here is encrypted")


def _seal(path: Path, signature: bytes = b"") -> str:
    contents = list_contents(Root(path))
    Publisher(Root(path)).publish_seal(contents.render(), signature)
    return contents.fingerprint


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, as the documentation has them made: NAME.pem and NAME.pub."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make keys")
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in {"ours": "ed25519", "other": "ed25519", "curve": "EC"}.items():
        options = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "EC" else []
        _openssl("genpkey", "-algorithm", kind, *options, "-out", folder / f"{name}.pem")
        _openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    _openssl("pkey", "-in", folder / "ours.pem", "-aes256", "-passout", "pass:word", "-out", folder / "locked.pem")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of three kernels."""
    publish_synthetic(tmp_path / "cache", 3)
    return tmp_path / "cache"


@pytest.fixture
def sealed(path: Path) -> Path:
    """The same, sealed."""
    _seal(path)
    return path


# The name of all that is in a cache


def test_fingerprint_is_the_same_in_whatever_order_folder_and_umask_a_cache_was_built(tmp_path: Path) -> None:
    first, second = Publisher(Root(tmp_path / "a")), Publisher(Root(tmp_path / "elsewhere" / "b"))
    records = [numbered_record(number) for number in range(4)]
    manifests = [make_manifest(*records[:2]), make_manifest(*records[2:], spec="other", spec_digest="e" * 64)]
    for publisher, order, umask in ((first, records, 0o022), (second, records[::-1], 0o077)):
        before = os.umask(umask)
        try:
            publisher.create()
            for record in order:
                seconds = float(order.index(record))
                blob = synthetic_blob(records.index(record))
                publisher.publish(record, blob, make_origin(record, compile_seconds=seconds))
            for manifest in manifests if order is records else manifests[::-1]:
                publisher.publish_manifest(manifest)
            publisher.publish_toolchain(make_toolchain())
            publish_library(publisher, make_toolchain())
        finally:
            os.umask(before)
    one, other = list_contents(first.root), list_contents(second.root)
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert len(one.entries) == 4 + 4 + 2 + 1 + 1 + 1


@pytest.mark.parametrize("what", ["record", "manifest", "kernel more"])
def test_fingerprint_is_another_if_anything_that_counts_is(path: Path, what: str) -> None:
    before = list_contents(Root(path)).fingerprint
    publisher = Publisher(Root(path))
    if what == "record":
        publisher.publish(numbered_record(0, cubin_bytes=513), synthetic_blob(0))
    elif what == "manifest":
        publisher.publish_manifest(make_manifest(numbered_record(0)))
    else:
        publisher.publish(numbered_record(9), synthetic_blob(9))
    assert list_contents(Root(path)).fingerprint != before


def test_fingerprint_does_not_count_where_kernels_come_from_nor_what_others_put_there(path: Path) -> None:
    before = list_contents(Root(path)).fingerprint
    shutil.rmtree(path / "origins")
    (path / "notes.txt").write_text("mine")
    (path / "records" / ".tmp-0000").write_text("half")
    assert list_contents(Root(path)).fingerprint == before


def test_what_is_damaged_has_no_name(path: Path) -> None:
    overwrite(record_file(path, numbered_record(1)), b"{")
    with pytest.raises(RecordError, match="is damaged"):
        list_contents(Root(path))


def test_list_of_contents_is_read_back_as_it_was_and_is_what_the_fingerprint_digests(path: Path) -> None:
    contents = list_contents(Root(path))
    assert Contents.parse("seal", contents.render()) == contents
    assert {entry.kind for entry in contents.in_order()[:4]} == {"blobs"}
    assert contents.in_order()[-1].kind == "manifests"
    for entry in contents.of_kind("records"):
        assert isinstance(parse_file(entry.path, (path / entry.path).read_bytes()), Record)


def _path(line: bytes) -> bytes:
    return line.split(b" ")[2]


def _line(text: str) -> Callable[[bytes], bytes]:
    """Return what puts a line where it belongs by its path: it is not its place that keeps it out."""

    def put(data: bytes) -> bytes:
        schema, *lines = data.splitlines(keepends=True)
        lines.append(text.encode() + b"\n")
        lines.sort(key=_path)
        return schema + b"".join(lines)

    return put


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"contents/1", b"contents/2"),
        lambda data: b"\xff" + data,
        lambda data: data + data.splitlines(keepends=True)[-1],
        lambda data: b"".join([*data.splitlines(keepends=True)[:1], *sorted(data.splitlines(keepends=True)[1:])[::-1]]),
        lambda data: data.replace(b" blobs/", b"  blobs/"),
        _line(f"{'a' * 64} 1 ../../etc/passwd"),
        _line(f"{'a' * 64} 1 /etc/passwd"),
        _line(f"{'a' * 64} 1 toolchains/../../{'a' * 32}.json"),
        _line(f"{'a' * 64} 1 seal"),
        _line(f"{'a' * 64} 1 format.json"),
        _line(f"{'a' * 64} 1 origins/{'a' * 32}/aa/{'a' * 64}.json"),
        _line(f"{'a' * 64} 1 blobs/sha256/bb/{'b' * 64}"),
        _line(f"{'a' * 64} 1 blobs/sha256/ba/{'a' * 64}"),
        _line(f"{'a' * 64} {1 << 40} blobs/sha256/aa/{'a' * 64}"),
        _line(f"{'a' * 64} -1 toolchains/{'a' * 32}.json"),
        _line(f"{'a' * 64} 01 toolchains/{'a' * 32}.json"),
        _line(f"{'A' * 64} 1 toolchains/{'a' * 32}.json"),
        _line(f"{'a' * 64} 1 toolchains/{'a' * 32}.json "),
    ],
)
def test_list_that_is_not_as_it_is_written_is_refused(path: Path, harm: Callable[[bytes], bytes]) -> None:
    data = list_contents(Root(path)).render()
    good = _line(f"{'a' * 64} 1 toolchains/{'a' * 32}.json")(data)
    assert Contents.parse("seal", good).render() == good
    with pytest.raises(RecordError):
        Contents.parse("seal", harm(data))


# A sealed root


def test_sealed_cache_answers_as_before_and_verifies_and_has_its_fingerprint_at_once(sealed: Path) -> None:
    root = Root(sealed)
    assert [type(root.find(make_toolchain().id, numbered_record(n).id)) for n in range(3)] == [Hit] * 3
    absent = root.find(make_toolchain().id, numbered_record(7).id)
    assert isinstance(absent, Miss)
    assert absent.reason is MissReason.ABSENT
    assert verify_root(root).findings == []
    assert list_contents(root).render() == (sealed / layout.SEAL).read_bytes()
    assert len(list(root.records())) == 3
    assert list(root.records_like(numbered_record(1).id[:9])) == [numbered_record(1)]


def test_sealed_cache_is_added_to_by_nobody(sealed: Path) -> None:
    publisher = Publisher(Root(sealed))
    for publish in (
        publisher.create,
        lambda: publisher.publish(numbered_record(8), synthetic_blob(8)),
        lambda: publisher.publish_toolchain(make_toolchain()),
        lambda: publisher.publish_manifest(make_manifest()),
    ):
        with pytest.raises(CacheError, match="is sealed") as caught:
            publish()
        assert f"--from {sealed}" in caught.value.hint


def test_builder_that_was_at_work_before_the_seal_adds_nothing_after_it(path: Path) -> None:
    publisher = Publisher(Root(path))
    publisher.create()
    fingerprint = _seal(path)
    with pytest.raises(CacheError, match="is sealed"):
        publisher.publish(numbered_record(8), synthetic_blob(8))
    assert list_contents(Root(path)).fingerprint == fingerprint
    assert verify_root(Root(path)).findings == []


def _delete_record_and_manifest(path: Path) -> None:
    """Delete what without a seal would read as whole."""
    record_file(path, numbered_record(1)).unlink()
    shutil.rmtree(path / "manifests")


@pytest.mark.parametrize(
    "harm",
    [
        _delete_record_and_manifest,
        lambda path: record_file(path, numbered_record(1)).unlink(),
        lambda path: blob_file(path, numbered_record(1)).unlink(),
        lambda path: overwrite(blob_file(path, numbered_record(1)), b"x"),
        lambda path: shutil.rmtree(path / "libraries"),
        lambda path: shutil.rmtree(path / "toolchains"),
        lambda path: overwrite(record_file(path, numbered_record(1)), numbered_record(1, cubin_bytes=1).render_file()),
    ],
)
def test_verify_finds_what_is_missing_of_a_sealed_cache_or_was_made_anew(
    sealed: Path, harm: Callable[[Path], object]
) -> None:
    harm(sealed)
    assert verify_root(Root(sealed)).findings


def test_what_is_put_into_a_sealed_cache_by_hand_is_not_there(sealed: Path, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "other", 5)
    shutil.copytree(tmp_path / "other", sealed, dirs_exist_ok=True, ignore=lambda _folder, names: [layout.SEAL])
    root = Root(sealed)
    assert len(list(root.records())) == 3
    assert isinstance(root.find(make_toolchain().id, numbered_record(4).id), Miss)
    # A whole and fitting record in the place of one that is listed is not the one that was sealed.
    changed = numbered_record(0, cubin_bytes=1)
    overwrite(record_file(sealed, changed), changed.render_file())
    found = root.find(make_toolchain().id, changed.id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.DAMAGED
    assert "not those that the seal lists" in found.detail


def test_seal_that_is_damaged_is_a_finding_and_a_miss_and_no_name(sealed: Path) -> None:
    overwrite(sealed / layout.SEAL, b"nothing of the kind\n")
    root = Root(sealed)
    found = root.find(make_toolchain().id, numbered_record(0).id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.DAMAGED
    assert any(finding.path == layout.SEAL for finding in verify_root(root).findings)
    with pytest.raises(RecordError):
        list_contents(root)


def test_lookup_through_kept_folders_reads_the_seal_of_what_was_put_in_the_place(sealed: Path, tmp_path: Path) -> None:
    root = Root(sealed)
    root.keep_folders()
    assert isinstance(root.find(make_toolchain().id, numbered_record(2).id), Hit)
    publish_synthetic(tmp_path / "larger", 5)
    sealed.rename(tmp_path / "old")
    (tmp_path / "larger").rename(sealed)
    assert isinstance(root.find(make_toolchain().id, numbered_record(4).id), Hit)


# Who vouches


def test_root_of_a_stranger_is_read_if_its_fingerprint_is_expected(sealed: Path) -> None:
    fingerprint = list_contents(Root(sealed)).fingerprint
    _give_away(sealed)
    assert isinstance(Root(sealed).find(make_toolchain().id, numbered_record(0).id), Miss)
    root = Root(sealed, vouchers=Vouchers(frozenset({fingerprint})))
    assert isinstance(root.find(make_toolchain().id, numbered_record(0).id), Hit)
    root.keep_folders()
    assert isinstance(root.find(make_toolchain().id, numbered_record(1).id), Hit)
    assert verify_root(root).findings == []


def test_root_of_a_stranger_who_changes_a_kernel_after_its_seal_was_read_is_a_miss(sealed: Path) -> None:
    root = Root(sealed, vouchers=Vouchers(frozenset({list_contents(Root(sealed)).fingerprint})))
    root.require_layout()
    record = numbered_record(0)
    _give_away(sealed)
    overwrite(record_file(sealed, record), numbered_record(0, cubin_bytes=77).render_file())
    overwrite(blob_file(sealed, numbered_record(1)), synthetic_blob(1)[:-1] + b"!")
    for changed in (record, numbered_record(1)):
        found = root.find(make_toolchain().id, changed.id)
        assert isinstance(found, Miss)
        assert found.reason is MissReason.DAMAGED
    assert isinstance(root.find(make_toolchain().id, numbered_record(2).id), Hit)


def _give_away(path: Path) -> None:
    """Give a cache to another user, or if this one can't, let all write it."""
    for item in [path, *path.rglob("*")]:
        if os.geteuid() == 0:
            os.chown(item, _STRANGER, _STRANGER)
        else:
            item.chmod(0o777 if item.is_dir() else 0o666)


def test_cache_of_another_fingerprint_is_refused_and_says_what_was_expected(sealed: Path) -> None:
    root = Root(sealed, vouchers=Vouchers(frozenset({"0" * 64})))
    with pytest.raises(NotVouchedFor, match="000000000000 is expected"):
        root.require_layout()
    found = root.find(make_toolchain().id, numbered_record(0).id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.UNTRUSTED
    (finding,) = root.records()
    assert isinstance(finding, Finding)
    assert finding.reason is MissReason.UNTRUSTED


def test_cache_without_a_seal_is_refused_where_somebody_must_vouch(path: Path, keys: Path) -> None:
    for vouchers in (Vouchers(frozenset({list_contents(Root(path)).fingerprint})), Vouchers(keys=(keys / "ours.pub",))):
        with pytest.raises(NotVouchedFor, match="not sealed"):
            Root(path, Trust.ANY, vouchers).require_layout()


@pytest.mark.parametrize("kind", ["ours", "curve"])
def test_cache_that_is_signed_is_read_with_the_key_and_refused_with_another(path: Path, keys: Path, kind: str) -> None:
    fingerprint = list_contents(Root(path)).fingerprint
    _seal(path, sign(fingerprint, keys / f"{kind}.pem", _no_password))
    _give_away(path)
    trusted = Root(path, vouchers=Vouchers(keys=(keys / "other.pub", keys / f"{kind}.pub")))
    assert isinstance(trusted.find(make_toolchain().id, numbered_record(0).id), Hit)
    with pytest.raises(NotVouchedFor, match=r"not signed by `.*other\.pub`"):
        Root(path, vouchers=Vouchers(keys=(keys / "other.pub",))).require_layout()


def test_signature_of_another_cache_is_none(path: Path, keys: Path, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "other", 1)
    _seal(path, sign(list_contents(Root(tmp_path / "other")).fingerprint, keys / "ours.pem", _no_password))
    with pytest.raises(NotVouchedFor):
        Root(path, vouchers=Vouchers(keys=(keys / "ours.pub",))).require_layout()


def test_signatures_add_up(keys: Path) -> None:
    one = sign("a" * 64, keys / "ours.pem", _no_password)
    both = sign("a" * 64, keys / "other.pem", _no_password, one)
    for name in ("ours", "other"):
        assert is_signed_by(both, "a" * 64, [keys / f"{name}.pub"])
    assert not is_signed_by(one, "a" * 64, [keys / "other.pub"])
    assert not is_signed_by(both, "b" * 64, [keys / "ours.pub"])
    anew = sign("b" * 64, keys / "ours.pem", _no_password, both)
    assert not is_signed_by(anew, "b" * 64, [keys / "other.pub"])


def test_statement_of_somebody_else_is_not_signed(keys: Path) -> None:
    payload = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "seal", "digest": {"sha256": "a" * 64}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"builder": "theirs"},
    }
    theirs = {
        "payload": base64.b64encode(json.dumps(payload).encode()).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [],
    }
    made = json.loads(sign("a" * 64, keys / "ours.pem", _no_password, json.dumps(theirs).encode()))
    assert b"theirs" not in base64.b64decode(made["payload"])
    assert is_signed_by(json.dumps(made).encode(), "a" * 64, [keys / "ours.pub"])


def test_what_securesystemslib_verifies_is_signed_and_what_it_signs_is_verified(keys: Path) -> None:
    made = json.loads(sign("a" * 64, keys / "curve.pem", _no_password))
    public = SSlibKey.from_crypto(load_pem_public_key((keys / "curve.pub").read_bytes()))
    assert Envelope.from_dict(made).verify([public], 1)
    made = json.loads(sign("a" * 64, keys / "curve.pem", _no_password))
    url_safe = made["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    named_otherwise = {**made, "signatures": [{"keyid": "another", "sig": url_safe}]}
    assert is_signed_by(json.dumps(named_otherwise).encode(), "a" * 64, [keys / "curve.pub"])


def test_seal_is_taken_back_if_the_cache_was_changed_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Publisher.publish_seal

    def publish_seal(self: Publisher, contents: bytes, signature: bytes = b"") -> None:
        real(self, contents, signature)
        blob_file(path, numbered_record(0)).unlink()  # as a builder, or `gc`, in its last step

    monkeypatch.setattr(Publisher, "publish_seal", publish_seal)
    with pytest.raises(CacheError, match="was changed while it was sealed"):
        seal(path, (), False)
    assert not (path / layout.SEAL).exists()


def test_key_that_is_encrypted_is_opened_by_its_password(keys: Path) -> None:
    assert is_signed_by(sign("a" * 64, keys / "locked.pem", lambda: "word"), "a" * 64, [keys / "ours.pub"])
    with pytest.raises(UsageError, match="can't sign"):
        sign("a" * 64, keys / "locked.pem", lambda: "wrong")


def _without_signature(envelope: dict[str, object]) -> object:
    return {**envelope, "signatures": []}


@pytest.mark.parametrize(
    "harm",
    [
        _without_signature,
        lambda envelope: {**envelope, "signatures": [{**envelope["signatures"][0], "sig": "AAAA"}]},
        lambda envelope: {**envelope, "signatures": [{**envelope["signatures"][0], "sig": "no base 64"}]},
        lambda envelope: {**envelope, "signatures": 7},
        lambda envelope: {**envelope, "payload": ""},
        lambda envelope: {**envelope, "payload": "e30="},
        lambda envelope: {**envelope, "payloadType": "text/plain"},
        lambda envelope: [envelope],
        lambda envelope: "x",
    ],
)
def test_envelope_that_was_changed_is_signed_by_nobody(keys: Path, harm: Callable[[object], object]) -> None:
    envelope = json.loads(sign("a" * 64, keys / "ours.pem", _no_password))
    assert is_signed_by(json.dumps(envelope).encode(), "a" * 64, [keys / "ours.pub"])
    assert not is_signed_by(json.dumps(harm(envelope)).encode(), "a" * 64, [keys / "ours.pub"])


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_bytes_that_are_no_envelope_are_signed_by_nobody(keys: Path, data: bytes) -> None:
    assert not is_signed_by(data, "a" * 64, [keys / "ours.pub"])


@pytest.mark.parametrize(
    ("name", "words"), [("ours.pem", "private key"), ("gone.pub", "can't be read"), ("junk.pub", "can't be trusted")]
)
def test_key_that_cannot_be_trusted_is_said(keys: Path, name: str, words: str) -> None:
    (keys / "junk.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match=words):
        is_signed_by(b"{}", "a" * 64, [keys / name])


def test_cache_of_several_roots_takes_only_those_that_are_vouched_for(path: Path, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "other", 1)
    _seal(tmp_path / "other")
    fingerprint = _seal(path)
    cache = Cache([tmp_path / "other", path], vouchers=Vouchers(frozenset({fingerprint})))
    cache.require_a_root()
    with pytest.raises(NotVouchedFor):
        Cache([tmp_path / "other"], vouchers=Vouchers(frozenset({fingerprint}))).require_a_root()


# The commands


def test_commands_say_the_fingerprint_and_seal_and_sign_and_verify(path: Path, keys: Path) -> None:
    (printed,) = run("fingerprint", "--cache", path).out.split()
    assert printed == list_contents(Root(path)).fingerprint
    assert printed in run("ls", "--cache", path).err
    assert run("verify", "--cache", path, "--expect", printed).code == 0
    wrong = run("verify", "--cache", path, "--expect", "0" * 64)
    assert (wrong.code, "another one is expected" in wrong.err) == (4, True)
    for expected, code in ((printed, 0), ("0" * 64, 4)):  # by the environment, as by the option
        done = run("verify", "--cache", path, environment={"FA4_PRECOMPILE_EXPECT": expected})
        assert done.code == code, done.err

    assert run("verify", "--cache", path, "--trust-key", keys / "ours.pub").code == 4
    done = run("seal", "--cache", path, "--sign", keys / "ours.pem")
    assert (done.code, done.out.strip()) == (0, printed), done.err
    assert "sealed and signed: " in done.err
    assert run("verify", "--cache", path, "--trust-key", keys / "ours.pub").code == 0
    assert run("verify", "--cache", path, "--trust-key", keys / "other.pub").code == 4
    again = run("seal", "--cache", path, "--sign", keys / "other.pem")
    assert (again.code, again.out.strip()) == (0, printed), again.err
    for name in ("ours", "other"):
        assert run("verify", "--cache", path, "--trust-key", keys / f"{name}.pub", "--expect", printed).code == 0
    environment = {"FA4_PRECOMPILE_TRUST_KEY": str(keys / "curve.pub")}
    assert run("ls", "--cache", path, environment=environment).code == 4


def test_list_that_is_printed_checks_with_sha256sum_and_has_the_fingerprint(path: Path) -> None:
    printed = run("fingerprint", "--list", "--cache", path).out
    lines = printed.splitlines()[1:]
    sums = "".join(f"{digest}  {name}\n" for digest, _size, name in map(str.split, lines))
    subprocess.run(["sha256sum", "--check", "--strict", "-"], input=sums.encode(), cwd=path, check=True)
    digest = subprocess.run(["sha256sum"], input=printed.encode(), capture_output=True, check=True).stdout.split()[0]
    assert digest.decode() == run("fingerprint", "--cache", path).out.strip()


def test_seal_of_a_cache_that_is_not_whole_is_refused(path: Path) -> None:
    blob_file(path, numbered_record(0)).unlink()
    done = run("seal", "--cache", path)
    assert done.code == 1
    assert "is missing" in done.out
    assert not (path / layout.SEAL).exists()


def test_seal_says_which_build_is_not_complete(path: Path) -> None:
    Publisher(Root(path)).publish_manifest(make_manifest(numbered_record(0), failed={"bwd of a call": "why"}))
    done = run("seal", "--cache", path)
    assert done.code == 0
    assert "synthetic for b200 is not complete: 1 kernel failed" in done.err
    (path / layout.SEAL).unlink()
    left = {f"fwd of call {number}": f"{number}/10" for number in range(1, 11)}
    Publisher(Root(path)).publish_manifest(make_manifest(numbered_record(0), left=left))
    done = run("seal", "--cache", path)
    shards = ", ".join(f"{number}/10" for number in range(1, 9))
    assert f"is not complete: 10 kernels left to shards {shards} and 2 more" in done.err
