"""The settings of a process: what the environment says, and what holds where it says nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fa4_precompile.cache.config import Config
from fa4_precompile.cache.trust import Trust


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_from_env_nothing_set_is_the_users_cache_folder(home: Path) -> None:
    assert Config.from_env({"HOME": str(home)}).roots == (home / ".cache" / "fa4-precompile",)


def test_from_env_xdg_cache_home_moves_the_default() -> None:
    assert Config.from_env({"XDG_CACHE_HOME": "/var/cache/me"}).roots == (Path("/var/cache/me/fa4-precompile"),)


@pytest.mark.parametrize("value", ["", "relative/folder", "."])
def test_from_env_xdg_cache_home_that_is_not_absolute_is_ignored(home: Path, value: str) -> None:
    assert Config.from_env({"XDG_CACHE_HOME": value}).roots == (home / ".cache" / "fa4-precompile",)


@pytest.mark.parametrize(
    ("value", "roots"),
    [
        ("/opt/kernels", ["/opt/kernels"]),
        ("/opt/kernels:/mine", ["/opt/kernels", "/mine"]),
        ("/mine:/opt/kernels", ["/mine", "/opt/kernels"]),
        (":/opt/kernels::", ["/opt/kernels"]),
        ("/with space:/b", ["/with space", "/b"]),
    ],
)
def test_from_env_named_roots_are_searched_in_their_order(value: str, roots: list[str]) -> None:
    environment = {"FA4_PRECOMPILE_CACHE": value, "XDG_CACHE_HOME": "/unused"}
    assert Config.from_env(environment).roots == tuple(map(Path, roots))


@pytest.mark.parametrize("value", ["", ":", "::"])
def test_from_env_no_root_named_is_as_if_unset(home: Path, value: str) -> None:
    assert Config.from_env({"FA4_PRECOMPILE_CACHE": value}).roots == (home / ".cache" / "fa4-precompile",)


def test_from_env_reads_the_process_where_no_mapping_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4_PRECOMPILE_CACHE", "/set/later")
    assert Config.from_env().roots == (Path("/set/later"),)


def test_from_env_reads_home_from_the_mapping_that_is_given() -> None:
    assert Config.from_env({"HOME": "/home/other"}).roots == (Path("/home/other/.cache/fa4-precompile"),)


def test_config_trusts_its_own_files_only_unless_told_otherwise() -> None:
    assert Config.from_env({}).trust is Trust.OWN


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.from_env({}).roots = ()  # type: ignore[misc]
