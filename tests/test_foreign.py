"""Files that other distributions have put into a package's folder, and who, as the installers recorded it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_precompile.errors import MachineError
from fa4_precompile.providers.foreign import ForeignFile, foreign_files, foreign_words
from fa4_precompile.providers.packages import source_digest, version
from support import write_distribution

_PACKAGE = "made_up_attention.cute"
_FILES = {
    "made_up_attention/cute/__init__.py": "",
    "made_up_attention/cute/interface.py": "new = 1\n",
    "made_up_attention/cute/deep/inside.py": "deep = 1\n",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, with one distribution that has all of a package."""
    site = tmp_path / "site"
    write_distribution(site, "made-up-4", "4.0", _FILES)
    monkeypatch.syspath_prepend(os.fspath(site))
    return site


@pytest.fixture
def folder(site: Path) -> Path:
    """The package's folder."""
    return site / "made_up_attention" / "cute"


def test_folder_that_is_as_it_was_installed_has_no_foreign_file(site: Path) -> None:
    assert foreign_files(_PACKAGE) == []


def test_file_that_another_distribution_added_is_named_with_it(site: Path, folder: Path) -> None:
    before = source_digest(_PACKAGE)
    write_distribution(site, "made-up", "2.8.3", {"made_up_attention/cute/old.py": "old = 1\n"})
    assert source_digest(_PACKAGE) != before
    assert foreign_files(_PACKAGE) == [ForeignFile(folder / "old.py", "made-up 2.8.3", replaces=False)]


def test_file_that_another_distribution_replaced_is_named_as_such(site: Path, folder: Path) -> None:
    write_distribution(site, "made-up", "2.8.3", {"made_up_attention/cute/interface.py": "old = 1\n"})
    assert foreign_files(_PACKAGE) == [ForeignFile(folder / "interface.py", "made-up 2.8.3", replaces=True)]


def test_file_that_the_owner_has_put_back_is_his(site: Path, folder: Path) -> None:
    write_distribution(site, "made-up", "2.8.3", {"made_up_attention/cute/interface.py": "old = 1\n"})
    (folder / "interface.py").write_text(_FILES["made_up_attention/cute/interface.py"])
    assert foreign_files(_PACKAGE) == []


def test_file_that_nobody_recorded_is_foreign_and_of_nobody(folder: Path) -> None:
    (folder / "deep" / "stray.py").write_text("")
    assert foreign_files(_PACKAGE) == [ForeignFile(folder / "deep" / "stray.py", "", replaces=False)]


def test_file_that_a_person_has_patched_is_not_foreign(folder: Path) -> None:
    (folder / "interface.py").write_text("patched = 1\n")
    assert foreign_files(_PACKAGE) == []


def test_file_that_is_no_python_source_is_not_looked_at(folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "interface.cpython-311.pyc").write_bytes(b"")
    assert foreign_files(_PACKAGE) == []


def _without_records(site: Path) -> None:
    for record in site.glob("*.dist-info/RECORD"):
        record.unlink()


def _editable(site: Path) -> None:
    for record in site.glob("*.dist-info/RECORD"):
        record.write_text("__editable__.made_up.pth,sha256=x,1\n")


@pytest.mark.parametrize("change", [_without_records, _editable], ids=["no RECORD", "editable"])
def test_folder_that_is_in_no_record_has_no_foreign_file(
    site: Path, folder: Path, change: Callable[[Path], None]
) -> None:
    (folder / "stray.py").write_text("")
    assert foreign_files(_PACKAGE) != []
    change(site)
    assert foreign_files(_PACKAGE) == []


def test_package_that_is_not_installed_has_no_foreign_file() -> None:
    assert foreign_files("not_installed_anywhere") == []


def test_metadata_that_are_damaged_hide_no_foreign_file(site: Path, folder: Path) -> None:
    (folder / "stray.py").write_text("")
    damaged = site / "damaged-1.dist-info"
    damaged.mkdir()
    (damaged / "RECORD").write_bytes(b"made_up_attention/cute/\xff")
    assert [file.path.name for file in foreign_files(_PACKAGE)] == ["stray.py"]


def test_package_behind_a_link_is_that_of_its_record(
    site: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stray.py").write_text("")
    (tmp_path / "link").symlink_to(site)
    monkeypatch.syspath_prepend(os.fspath(tmp_path / "link"))
    assert [file.path.name for file in foreign_files(_PACKAGE)] == ["stray.py"]


def test_words_name_three_files_and_count_the_others() -> None:
    files = [ForeignFile(Path(f"{number}.py"), "made-up 2" * (number == 0), replaces=False) for number in range(5)]
    assert foreign_words(files) == "`0.py` (of made-up 2), `1.py`, `2.py`, 2 more"
    assert foreign_words(files[1:3]) == "`1.py`, `2.py`"


@pytest.mark.parametrize("metadata", [None, "", "Name: apache-tvm-ffi\n"], ids=["none", "empty", "without a version"])
def test_metadata_that_are_broken_are_what_the_machine_lacks_and_nothing_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str | None
) -> None:
    broken = tmp_path / "apache_tvm_ffi-99.dist-info"
    broken.mkdir()
    if metadata is not None:
        (broken / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match="the metadata of `apache-tvm-ffi` can't be used"):
        version("apache-tvm-ffi")
