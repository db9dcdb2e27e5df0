"""`ls`, `show`, `verify`: exit codes and what they print."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli, documents, require_error
from fa4_precompile.cache import layout
from fa4_precompile.cache.contents import Contents, Entry
from fa4_precompile.cache.key import BlobDigest
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from product import command
from support import (
    blob_file,
    numbered_record,
    overwrite,
    publish_synthetic,
    record_file,
    snapshot,
)

# Looking into a cache


_READERS = pytest.mark.parametrize(
    "arguments", [("ls",), ("verify",), ("show", "0"), ("check", "quickstart")], ids=" ".join
)


@_READERS
def test_cache_that_is_none_ends_with_two_and_is_not_made(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    before = snapshot(tmp_path)
    assert "does not exist" in require_error(cli(*arguments, "--cache", tmp_path / "nowhere"), 2)
    assert "is no kernel cache" in require_error(cli(*arguments, "--cache", tmp_path), 2)
    assert snapshot(tmp_path) == before


@_READERS
def test_cache_that_others_can_write_ends_with_four(cli: Cli, synthetic: Path, arguments: tuple[str, ...]) -> None:
    synthetic.chmod(0o775)
    error = require_error(cli(*arguments, "--cache", synthetic, "--json"), 4)
    assert f"`{synthetic}` is not trusted" in error
    assert "chmod go-w" in error


def test_cache_of_an_unknown_layout_ends_with_two(cli: Cli, synthetic: Path) -> None:
    overwrite(synthetic / "format.json", b'{"layout": 2}')
    assert "layout 1" in require_error(cli("ls", "--cache", synthetic, "--json"), 2)


def test_cache_that_others_can_write_is_read_where_that_is_allowed(cli: Cli, synthetic: Path) -> None:
    synthetic.chmod(0o775)
    assert len(documents(cli("ls", "--cache", synthetic, "--allow-untrusted", "--json"))) == 2
    assert cli("verify", "--cache", synthetic, "--allow-untrusted").code == 0


def test_cache_is_the_first_that_the_environment_names(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    assert len(documents(cli("ls", "--json", FA4_PRECOMPILE_CACHE=f"{synthetic}:/nowhere"))) == 2
    assert "/nowhere" in require_error(cli("ls", "--json", FA4_PRECOMPILE_CACHE=f"/nowhere:{synthetic}"), 2)
    assert f"{tmp_path}/home/.cache/fa4-precompile" in require_error(cli("ls"), 2)


def test_ls_json_is_the_list_of_records(cli: Cli, synthetic: Path) -> None:
    done = cli("ls", "--cache", synthetic, "--json")
    assert done.code == 0
    written = [json.loads(path.read_text()) for path in sorted(synthetic.glob("records/*/*/*.json"))]
    origins = [json.loads(path.read_text()) for path in sorted(synthetic.glob("origins/*/*/*.json"))]
    unsaid = {"self_sha256": None, "schema": written[0]["schema"]}
    whole = [{**origin, **record, **unsaid} for origin, record in zip(origins, written, strict=True)]
    assert documents(done) == [{k: v for k, v in content.items() if k != "self_sha256"} for content in whole]


def test_ls_of_a_cache_that_was_carried_says_the_calls_of_its_manifests_and_not_what_they_took(
    cli: Cli, synthetic: Path
) -> None:
    shutil.rmtree(synthetic / "origins")
    listed = documents(cli("ls", "--cache", synthetic, "--json"))
    assert [(one["variant"], one["compile_seconds"]) for one in listed] == [({"pass": "fwd", "head_dim": 64}, None)] * 2
    assert all(line.endswith("pass=fwd head_dim=64") for line in cli("ls", "--cache", synthetic).out.splitlines())
    shutil.rmtree(synthetic / "manifests")
    lines = cli("ls", "--cache", synthetic).out.splitlines()
    assert [line.split()[1] for line in lines] == ["sm_100a"] * 2
    assert "not known" in cli("show", listed[0]["kernel"], "--cache", synthetic).out


def test_ls_prints_a_line_a_kernel_and_counts_on_standard_error(cli: Cli, synthetic: Path) -> None:
    done = cli("ls", "--cache", synthetic)
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()} == {numbered_record(n).id[:12] for n in range(2)}
    assert "2 kernels" in done.err


@pytest.mark.parametrize("command_", ["ls", "verify", "fingerprint"])
def test_cache_that_is_named_is_read_wherever_the_users_own_would_be(
    cli: Cli, synthetic: Path, tmp_path: Path, command_: str
) -> None:
    anybodys = tmp_path / "anybodys"
    anybodys.mkdir()
    anybodys.chmod(0o1777)
    assert "anybody can be first" in require_error(cli(command_, XDG_CACHE_HOME=str(anybodys)), 2)
    assert cli(command_, "--cache", synthetic, XDG_CACHE_HOME=str(anybodys)).code == 0


def test_ls_of_a_sealed_cache_has_the_fingerprint_of_its_seal_whatever_that_lists(cli: Cli, synthetic: Path) -> None:
    blob = b"a blob that no record names"
    digest = hashlib.sha256(blob).hexdigest()
    beside = Entry(layout.blob_path(BlobDigest(digest)), digest, len(blob))
    contents = Contents.of([*list_contents(Root(synthetic)).entries.values(), beside])
    (synthetic / beside.path).parent.mkdir(exist_ok=True)
    (synthetic / beside.path).write_bytes(blob)
    Publisher(Root(synthetic)).publish_seal(contents.render())
    assert f"fingerprint {contents.fingerprint}" in cli("ls", "--cache", synthetic).err


def test_ls_damaged_record_is_a_finding_and_the_rest_is_listed(cli: Cli, synthetic: Path) -> None:
    damaged = record_file(synthetic, numbered_record(0))
    overwrite(damaged, b"{")
    done = cli("ls", "--cache", synthetic, "--json")
    assert done.code == 1
    assert [record["kernel"] for record in documents(done)] == [numbered_record(1).id]
    assert damaged.relative_to(synthetic).as_posix() in done.err


def test_show_takes_an_id_or_its_first_digits(cli: Cli, synthetic: Path) -> None:
    kernel = numbered_record(0).id
    for prefix in (kernel, kernel[:12], kernel[:12].upper()):
        done = cli("show", prefix, "--cache", synthetic, "--json")
        assert (done.code, done.err) == (0, "")
        assert documents(done)["kernel"] == kernel
    text = cli("show", kernel, "--cache", synthetic)
    assert text.code == 0
    assert str(blob_file(synthetic, numbered_record(0))) in text.out


def test_show_prefix_of_none_or_of_several_ends_with_two(cli: Cli, synthetic: Path) -> None:
    assert "no kernel of" in require_error(cli("show", "0" * 64, "--cache", synthetic), 2)
    assert "no kernel of" in require_error(cli("show", "", "--cache", synthetic), 2)
    digits = "".join(record.id[0] for record in publish_synthetic(synthetic, 17))
    ambiguous = next(digit for digit in digits if digits.count(digit) > 1)
    assert "give more digits" in require_error(cli("show", ambiguous, "--cache", synthetic), 2)


def test_show_record_of_another_kernel_under_its_name_is_damage(cli: Cli, synthetic: Path) -> None:
    mine, other = numbered_record(0), numbered_record(1)
    overwrite(record_file(synthetic, mine), record_file(synthetic, other).read_bytes())
    assert "belongs elsewhere" in require_error(cli("show", mine.id, "--cache", synthetic), 1)


@pytest.mark.parametrize("mode", [0o775, 0o757], ids=oct)
def test_show_record_in_a_folder_that_others_can_write_ends_with_four(cli: Cli, synthetic: Path, mode: int) -> None:
    record = numbered_record(0)
    record_file(synthetic, record).parent.chmod(mode)
    assert "others can write it" in require_error(cli("show", record.id, "--cache", synthetic), 4)


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        (lambda blob: blob.chmod(0o666), 4, "others can write it"),
        (lambda blob: blob.parent.chmod(0o777), 4, "others can write it"),
        (Path.unlink, 1, "is missing, though a record names it"),
        (lambda blob: overwrite(blob, blob.read_bytes()[:-1]), 1, "is damaged"),
    ],
    ids=["blob of everybody", "folder of everybody", "deleted", "shorter"],
)
@pytest.mark.parametrize("arguments", [("ls",), ("show", numbered_record(0).id)], ids=["ls", "show"])
def test_blob_of_a_kernel_that_is_listed_is_looked_at(
    cli: Cli, synthetic: Path, arguments: tuple[str, ...], harm: Callable[[Path], object], code: int, words: str
) -> None:
    harm(blob_file(synthetic, numbered_record(0)))
    done = cli(*arguments, "--cache", synthetic)
    assert done.code == code
    assert numbered_record(0).id[:12] in done.out
    assert words in done.err


def test_verify_whole_cache_ends_with_zero(cli: Cli, synthetic: Path) -> None:
    done = cli("verify", "--cache", synthetic)
    assert (done.code, done.out) == (0, "")
    assert "is whole: 2 " in done.err
    assert documents(cli("verify", "--cache", synthetic, "--json"))["findings"] == []


def test_verify_damage_ends_with_one_and_names_the_file(cli: Cli, synthetic: Path) -> None:
    record = numbered_record(0)
    overwrite(blob_file(synthetic, record), b"damage")
    done = cli("verify", "--cache", synthetic)
    assert done.code == 1
    assert record.blob in done.out
    assert "is not whole; as it should be: 1 kernel" in done.err
    report = cli("verify", "--cache", synthetic, "--json")
    assert report.code == 1
    paths = [finding["path"] for finding in documents(report)["findings"]]
    assert record_file(synthetic, record).relative_to(synthetic).as_posix() in paths


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("--help",)], ids=" ".join)
def test_reader_that_has_seen_enough_is_no_error(synthetic: Path, arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            command(*arguments),
            env={**os.environ, "FA4_PRECOMPILE_CACHE": str(synthetic)},
            cwd=synthetic.parent,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert done.returncode == 0
