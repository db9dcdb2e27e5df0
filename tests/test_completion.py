"""What a shell offers: asked as bash asks, by the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli, write_spec
from fa4_precompile.precompile.spec.spec import shipped_specs, target_book
from support import numbered_record, overwrite, publish_synthetic, record_file

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(cli: Cli) -> Offered:
    """Return what is offered for the last word of a line; `file` for whatever files the shell finds."""

    def offer(line: str, **environment: str) -> list[str]:
        words = ["fa4-precompile", *line.split(" ")]
        asked = {"_FA4_PRECOMPILE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
        done = cli(**asked, COMP_CWORD=str(len(words) - 1), **environment)
        assert (done.code, done.err) == (0, "")
        kinds = [one.split(",", 1) for one in done.out.split()]
        return [word if kind == "plain" else kind for kind, word in kinds]

    return offer


@pytest.fixture
def ids(synthetic: Path) -> list[str]:
    """The first digits of the kernels of the cache."""
    return sorted(numbered_record(number).id[:12] for number in range(2))


def test_command_is_offered(offered: Offered) -> None:
    assert offered("bui") == ["build"]
    assert offered("spec s") == ["show"]


@pytest.mark.parametrize("command", ["build", "plan", "check"])
def test_spec_is_offered_by_name_and_as_a_file_that_is_here(offered: Offered, tmp_path: Path, command: str) -> None:
    write_spec(tmp_path / "work")
    (tmp_path / "work" / "notes.txt").write_text("no spec")
    assert offered(f"{command} ") == [*shipped_specs(), "spec.yaml"]
    assert offered(f"{command} q") == ["quickstart"]
    assert offered(f"{command} s") == ["spec.yaml"]


@pytest.mark.parametrize("typed", ["../", "work/s", "n"])
def test_spec_that_is_none_of_these_is_left_to_the_shell(offered: Offered, typed: str) -> None:
    assert offered(f"build {typed}") == ["file"]


def test_spec_show_offers_the_shipped_ones_only(offered: Offered, tmp_path: Path) -> None:
    write_spec(tmp_path / "work")
    assert offered("spec show ") == [*shipped_specs()]


def test_target_is_offered(offered: Offered) -> None:
    assert offered("build quickstart --target ") == [
        "b200",
        *(name for name in target_book().profiles if name != "b200"),
    ]
    assert set(offered("plan --target b")) == {name for name in target_book().profiles if name.startswith("b")}


def test_target_that_only_the_spec_names_is_offered(offered: Offered, tmp_path: Path) -> None:
    write_spec(tmp_path / "work", targets="{name: mine, base: b200, sms: 18}")
    assert offered("build spec.yaml --target m") == ["mine"]
    (tmp_path / "work" / "spec.yaml").write_text("no: [spec")
    assert offered("build spec.yaml --target m") == []


def test_kernel_is_offered_from_the_cache_that_is_named(offered: Offered, synthetic: Path, ids: list[str]) -> None:
    assert sorted(offered(f"show --cache {synthetic} ")) == ids
    assert offered(f"show --cache {synthetic} {ids[0][:6]}") == [ids[0]]
    assert offered(f"show --cache {synthetic} {ids[0][:6].upper()}") == [ids[0]]
    assert len(offered(f"show --cache {synthetic} {ids[0]}")[0]) == 12


def test_kernel_is_offered_from_the_default_cache(offered: Offered, tmp_path: Path) -> None:
    (record,) = publish_synthetic(tmp_path / "home" / ".cache" / "fa4-precompile")
    assert offered("show ") == [record.id[:12]]


def test_kernel_of_a_cache_that_is_broken_is_offered_or_not_and_nothing_is_said(
    offered: Offered, synthetic: Path, ids: list[str], tmp_path: Path
) -> None:
    overwrite(record_file(synthetic, numbered_record(0)), b"damage")
    assert sorted(offered(f"show --cache {synthetic} ")) == ids
    assert offered(f"show --cache {synthetic} */") == []
    synthetic.chmod(0o777)
    assert offered(f"show --cache {synthetic} ") == []
    assert sorted(offered(f"show --allow-untrusted --cache {synthetic} ")) == ids
    synthetic.chmod(0o755)
    (synthetic / "format.json").write_text("{")
    assert offered(f"show --cache {synthetic} ") == []
    assert offered(f"show --cache {tmp_path / 'nowhere'} ") == []
    assert offered("show ", FA4_PRECOMPILE_ON_MISS="eror") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_for_a_shell_is_printed(cli: Cli, shell: str) -> None:
    done = cli(_FA4_PRECOMPILE_COMPLETE=f"{shell}_source")
    assert done.code == 0
    assert f"_FA4_PRECOMPILE_COMPLETE={shell}_complete" in done.out
