"""Taking kernels that others have built already, instead of compiling them: `build --from` and `check --from`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fa4_precompile.cache.contents import Contents, Entry
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import CarryError, RefusedError
from fa4_precompile.precompile.lending import Borrower, Lender
from fa4_precompile.products.trial import Trial
from product import SMALL_SPEC, records, run
from support import blob_file, make_target, make_toolchain, numbered_record, overwrite, publish_synthetic, record_file

pytestmark = pytest.mark.compiles


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The spec of the small cache."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_SPEC)
    return path


def _build(spec: Path, cache: Path, *more: object) -> tuple[int, int, int]:
    done = run("build", spec, "--cache", cache, "--json", "-q", *more)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    return report["built"], report["taken"], report["cached"]


def _manifest(cache: Path) -> Manifest:
    (found,) = Root(cache).manifests()
    assert isinstance(found, Manifest)
    return found


def test_build_that_another_cache_has_whole_is_taken_and_has_the_same_fingerprint(
    small_cache: Path, spec: Path, tmp_path: Path
) -> None:
    cache, number = tmp_path / "mine", len(records(small_cache))
    done = run("build", spec, "--cache", cache, "--from", small_cache)
    assert done.code == 0, done.err
    assert f"{number} kernels, 0 built, {number} taken, 0 already there" in done.err
    assert "asking" not in done.err  # nothing was planned
    assert list_contents(Root(cache)).fingerprint == list_contents(Root(small_cache)).fingerprint
    assert run("verify", "--cache", cache).code == 0
    assert run("check", spec, "--cache", cache).code == 0
    assert _build(spec, cache, "--from", small_cache) == (0, 0, number)


def test_build_takes_what_several_places_have_and_compiles_the_rest(
    small_cache: Path, spec: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    there = sorted(records(small_cache), key=lambda record: record.slot == "bwd_post")
    *taken, compiled = there  # the quickest
    for place, lacks in ((one, taken[:2]), (other, taken[2:])):
        shutil.copytree(small_cache, place)
        shutil.rmtree(place / "manifests")
        for record in [compiled, *lacks]:
            record_file(place, record).unlink()
    assert _build(spec, tmp_path / "mine", "--from", one, "--from", other) == (1, len(taken), 0)
    fingerprint = list_contents(Root(tmp_path / "mine")).fingerprint
    assert fingerprint == list_contents(Root(small_cache)).fingerprint


def test_check_counts_what_could_be_taken_as_there(small_cache: Path, spec: Path, tmp_path: Path) -> None:
    empty, lacking = tmp_path / "empty", tmp_path / "lacking"
    Publisher(Root(empty)).create()
    shutil.copytree(small_cache, lacking)
    record_file(lacking, records(lacking)[0]).unlink()
    assert run("check", spec, "--cache", empty).code == 1
    assert run("check", spec, "--cache", empty, "--from", small_cache).code == 0
    assert run("check", spec, "--cache", tmp_path / "not there yet", "--from", small_cache).code == 0
    assert run("check", spec, "--cache", empty, "--from", lacking).code == 1
    assert run("check", spec, "--cache", lacking, "--from", small_cache).code == 0
    assert run("check", spec, "--cache", lacking, "--from", lacking).code == 1


def test_place_that_is_another_than_expected_is_refused_before_anything_is_taken(
    small_cache: Path, spec: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed"
    shutil.copytree(small_cache, sealed)
    fingerprint = run("seal", "--cache", sealed).out.strip()
    wrong = run("build", spec, "--cache", tmp_path / "mine", "--from", sealed, "--expect", "0" * 64)
    assert (wrong.code, "its fingerprint is" in wrong.err) == (4, True)
    assert not (tmp_path / "mine").exists()
    _build(spec, tmp_path / "mine", "--from", sealed, "--expect", fingerprint)
    into = run("build", "quickstart", "--cache", sealed)
    assert (into.code, "is sealed, so nothing is added to it" in into.err) == (2, True)


# One lender, without a build


class _Lost:
    """A source whose connection breaks after some files."""

    name = "a place"

    def __init__(self, source: RootSource, most: int) -> None:
        self._source = source
        self._left = most

    def contents(self) -> Contents:
        return self._source.contents()

    def signature(self) -> bytes:
        return b""

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        for entry, data in self._source.read(entries):
            if not self._left:
                raise CarryError(self.name, "the connection was lost")
            self._left -= 1
            yield entry, data

    def close(self) -> None:
        pass


@pytest.fixture
def said() -> list[str]:
    """What a borrower said."""
    return []


@pytest.fixture
def trial() -> Iterator[Trial]:
    """What tries blobs."""
    with Trial() as trial:
        yield trial


def test_lender_that_is_lost_is_told_of_and_not_asked_again(
    small_cache: Path, tmp_path: Path, trial: Trial, said: list[str]
) -> None:
    manifest = _manifest(small_cache)
    toolchain = next(item for item in Root(small_cache).toolchains())
    lost = Lender(_Lost(RootSource(Root(small_cache)), len(manifest.kernels) + 1), list_contents(Root(small_cache)))
    publisher = Publisher(Root(tmp_path / "mine"))
    publisher.create()
    borrower = Borrower([lost], publisher, manifest.target, trial, said.append)
    assert len(borrower.take(toolchain, manifest.kernels)) == 1  # type: ignore[arg-type]
    assert said == ["`a place`: the connection was lost; what it has is compiled"]
    assert borrower.take(toolchain, manifest.kernels) == {}  # type: ignore[arg-type]
    assert len(said) == 1
    assert len(records(tmp_path / "mine")) == 1


def test_blob_that_is_no_kernel_is_not_taken_though_its_digest_is_right(
    tmp_path: Path, trial: Trial, said: list[str]
) -> None:
    publish_synthetic(tmp_path / "theirs", 1)
    lender = Lender(RootSource(Root(tmp_path / "theirs")), list_contents(Root(tmp_path / "theirs")))
    publisher = Publisher(Root(tmp_path / "mine"))
    publisher.create()
    borrower = Borrower([lender], publisher, make_target(), trial, said.append)
    assert borrower.take(make_toolchain(), [numbered_record(0).id]) == {}
    assert "is not taken" in said[0]
    assert records(tmp_path / "mine") == []


def test_lender_whose_bytes_are_not_those_of_its_list_ends_the_build(
    tmp_path: Path, trial: Trial, said: list[str]
) -> None:
    publish_synthetic(tmp_path / "theirs", 1)
    contents = list_contents(Root(tmp_path / "theirs"))
    overwrite(blob_file(tmp_path / "theirs", numbered_record(0)), b"x" * numbered_record(0).blob_bytes)
    publisher = Publisher(Root(tmp_path / "mine"))
    borrower = Borrower(
        [Lender(RootSource(Root(tmp_path / "theirs")), contents)], publisher, make_target(), trial, said.append
    )
    with pytest.raises(RefusedError, match="does not have the bytes"):
        borrower.take(make_toolchain(), [numbered_record(0).id])
