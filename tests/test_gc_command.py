"""`gc` as a command: its options, what it says, and what it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from aging import DAY, Aging, age
from command_line import Cli, documents, finished_cache, require_error
from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.commands.options import AGE_UNITS, SIZE_UNITS, Quantity
from fa4_precompile.precompile.report import finished_report
from fa4_precompile.precompile.spec.spec import find_spec, read_spec, target_book
from support import (
    make_toolchain,
    snapshot,
)

# The command


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A cache with a build of a shipped spec, and one of another, both a year old."""
    path = tmp_path / "cache"
    finished_cache(path, find_spec("quickstart"), make_toolchain(), "b200")
    cache = Aging(path)
    cache.build([5, 6], days=0)
    age(path, 365 * DAY)
    return path


def test_gc_command_says_in_a_sentence_what_went_and_what_remains(cli: Cli, quickstart: Path) -> None:
    done = cli("gc", "--cache", quickstart, "--max-age", "30d", "--keep", "quickstart")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("1 build, 2 kernels, 0.0 MB dropped; 1 build, 2 kernels, 0.0 MB remain in `")
    assert cli("verify", "--cache", quickstart).code == 0
    (manifest,) = Root(quickstart).manifests()
    assert isinstance(manifest, Manifest)
    assert manifest.spec_digest == read_spec(find_spec("quickstart"), target_book()).digest


def test_gc_command_dry_run_has_a_line_for_each_file(cli: Cli, quickstart: Path) -> None:
    before = snapshot(quickstart)
    done = cli("gc", "--cache", quickstart, "--max-age", "30d", "--dry-run")
    report = documents(cli("gc", "--cache", quickstart, "--max-age", "30d", "--dry-run", "--json"))
    assert snapshot(quickstart) == before
    assert "2 builds, 4 kernels" in done.err
    assert "would go; 0 builds, 0 kernels, 0.0 MB would remain" in done.err
    lines = done.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [file["path"] for file in report["files"]]
    assert "synthetic for b200, last built 20" in done.out
    assert (report["kernels"], report["dry_run"], len(report["builds"])) == (4, True, 2)
    assert report["bytes"] == sum(file["bytes"] for file in report["files"])


def test_gc_command_json_counts_and_that_does_not_fit_ends_with_one(cli: Cli, quickstart: Path) -> None:
    done = cli("gc", "--cache", quickstart, "--max-size", "10B", "--keep", "quickstart", "--json")
    report = documents(done)
    assert done.code == 1
    assert "more than `--max-size`" in done.err
    assert (report["fits"], report["remaining"]["builds"], report["remaining"]["kernels"]) == (False, 1, 2)


def test_gc_command_names_a_spec_to_keep_that_has_no_build(cli: Cli, quickstart: Path) -> None:
    assert "`fa4_sm90` has no build in" in cli("gc", "--cache", quickstart, "--keep", "fa4_sm90").err


@pytest.mark.parametrize(
    "option",
    [
        ("--max-size", "10"),
        ("--max-size", "1.5GB"),
        ("--max-size", "500 MiB"),
        ("--max-age", "12h"),
        ("--max-age", "2w"),
    ],
)
def test_gc_command_takes_sizes_and_ages(cli: Cli, quickstart: Path, option: tuple[str, str]) -> None:
    assert cli("gc", "--cache", quickstart, *option, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("quantity", "text", "number"),
    [
        (Quantity("size", SIZE_UNITS, ""), "10", 10),
        (Quantity("size", SIZE_UNITS, ""), "1.5GB", 1_500_000_000),
        (Quantity("size", SIZE_UNITS, ""), "500 MiB", 500 << 20),
        (Quantity("age", AGE_UNITS, ""), "12h", 43_200),
        (Quantity("age", AGE_UNITS, ""), "2w", 1_209_600),
    ],
)
def test_quantity_is_what_its_unit_says(quantity: Quantity, text: str, number: int) -> None:
    assert quantity.convert(text, None, None) == number


@pytest.mark.parametrize(
    "option",
    [
        ("--max-size", "10gigs"),
        ("--max-size", "-1GB"),
        ("--max-size", ""),
        ("--max-size", "nan"),
        ("--max-age", "30"),
        ("--max-age", "1y"),
        ("--keep-manifests", "0"),
        ("--keep", "no-such-spec"),
    ],
)
def test_gc_command_refuses_what_is_no_limit(cli: Cli, quickstart: Path, option: tuple[str, str]) -> None:
    before = snapshot(quickstart)
    assert cli("gc", "--cache", quickstart, *option).code == 2
    assert snapshot(quickstart) == before


def test_gc_command_ends_as_the_others_where_it_is_refused(cli: Cli, quickstart: Path, tmp_path: Path) -> None:
    assert "does not exist" in require_error(cli("gc", "--cache", tmp_path / "nowhere", "--json"), 2)
    Publisher(Root(quickstart)).publish_seal(list_contents(Root(quickstart)).render())
    assert "is sealed" in require_error(cli("gc", "--cache", quickstart, "--json"), 2)
    (quickstart / "seal").unlink()
    (quickstart / "blobs").chmod(0o777)
    assert "others can write it" in require_error(cli("gc", "--cache", quickstart, "--json"), 4)


def test_build_with_nothing_to_do_confirms_its_build_and_changes_nothing_else(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(find_spec("quickstart"), target_book())
    finished_cache(tmp_path / "cache", find_spec("quickstart"), make_toolchain(), "b200")
    age(tmp_path / "cache", 40 * DAY)
    before = snapshot(tmp_path / "cache")
    root = Root(tmp_path / "cache")
    assert finished_report(root, spec, target_book().get("b200"), make_toolchain(), 0.0)
    after = snapshot(tmp_path / "cache")
    assert [path for path in after if after[path] != before[path]] == [
        path for path in after if path.startswith("manifests/") and path.endswith(".json")
    ]
    assert collect(root, Limits(most_bytes=0), is_real=True).builds == ()
    monkeypatch.setattr(Publisher, "confirm", lambda *_: False)  # `gc` has dropped it meanwhile
    assert finished_report(root, spec, target_book().get("b200"), make_toolchain(), 0.0) is None
