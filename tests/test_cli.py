"""The command line as its users meet it: help, wrong use, specs and targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Cli, documents, require_error, write_spec
from fa4_precompile import __version__
from fa4_precompile.cli import cli as group
from fa4_precompile.precompile.spec.spec import shipped_specs, target_book
from support import (
    snapshot,
)

# Help and wrong use


@pytest.mark.parametrize("name", sorted(group.commands))
def test_help_of_each_command_goes_to_standard_output(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: fa4-precompile {name} ")
    assert name in ("run", "spec") or "--json" in done.out  # what `run` prints is its command's; `spec` has commands


def test_help_of_the_whole_lists_commands_and_exit_codes(cli: Cli) -> None:
    done = cli("-h")
    assert done.code == 0
    assert all(f"\n  {name} " in done.out for name in group.commands)
    assert "130 interrupted" in " ".join(done.out.split())


def test_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").out == f"fa4-precompile, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bulid",),
        ("build", "quickstart", "--jbos", "1"),
        ("build", "quickstart", "-j", "0"),
        ("build", "quickstart", "--time-limit", "0"),
        ("ls", "unexpected"),
        ("show",),
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_two_and_says_so_on_standard_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: fa4-precompile" in done.err


def test_command_with_a_typo_is_told_the_nearest(cli: Cli) -> None:
    assert "Did you mean 'build'?" in cli("biuld").err
    assert "Did you mean 'show'?" in cli("spec", "shwo").err


def test_package_as_a_program_is_the_command_line(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "fa4_precompile", "targets", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert {profile["name"] for profile in json.loads(done.stdout)} == set(target_book().profiles)


# Specs and targets


def test_spec_show_prints_a_shipped_spec_as_it_is(cli: Cli) -> None:
    for name, path in shipped_specs().items():
        done = cli("spec", "show", name)
        assert (done.code, done.out, done.err) == (0, path.read_text(), "")


def test_spec_list_names_what_spec_show_takes(cli: Cli) -> None:
    assert [line.split()[0] for line in cli("spec", "list").out.splitlines()] == list(shipped_specs())
    assert {item["name"]: item["path"] for item in documents(cli("spec", "list", "--json"))} == {
        name: str(path) for name, path in shipped_specs().items()
    }


@pytest.mark.parametrize("name", ["quikstart", "targets", "../kernel_specs/quickstart"])
def test_spec_show_of_another_name_ends_with_two(cli: Cli, name: str) -> None:
    error = require_error(cli("spec", "show", name), 2)
    assert f"there is no shipped spec `{name}`" in error
    assert "quickstart" in error


@pytest.mark.parametrize("name", ["build", "plan", "check"])
def test_spec_that_is_wrong_ends_with_two_and_its_place_and_touches_nothing(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    spec = write_spec(tmp_path)
    spec.write_text(spec.read_text().replace("head_dim", "haed_dim"))
    before = snapshot(tmp_path)
    place = () if name == "plan" else ("--cache", tmp_path / "made")
    error = require_error(cli(name, spec, *place), 2)
    assert error.startswith(f"error: {spec}:5:39: unknown key `haed_dim`")
    assert "hint: did you mean `head_dim`?" in error
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("text", ["", "a: [", "\0", "version: !!bool maybe"])
def test_spec_that_is_no_spec_ends_with_two(cli: Cli, tmp_path: Path, text: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"{text}\nprovider: flash-attn-4\nkernels: []\n" if "version" in text else text)
    assert f"error: {spec}:" in require_error(cli("build", spec, "--cache", tmp_path / "made"), 2)
    assert not (tmp_path / "made").exists()


def test_spec_that_is_not_there_ends_with_two_and_lists_the_shipped_ones(cli: Cli, tmp_path: Path) -> None:
    error = require_error(cli("build", "nowhere.yaml", "--cache", tmp_path / "made"), 2)
    assert "nowhere.yaml" in error
    assert "quickstart" in error
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["build", "plan"])
def test_target_that_is_unknown_ends_with_two_and_the_nearest_spelling(cli: Cli, tmp_path: Path, name: str) -> None:
    error = require_error(cli(name, write_spec(tmp_path), "--target", "b20"), 2)
    assert "there is no target `b20`" in error
    assert "did you mean `b200`?" in error


def test_target_with_an_unknown_number_of_sms_ends_with_two_and_asks_for_it(cli: Cli, tmp_path: Path) -> None:
    assert "sms: NUMBER" in require_error(cli("build", write_spec(tmp_path), "--target", "h100-pcie"), 2)


def test_spec_without_targets_ends_with_two_and_asks_for_one(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    spec.write_text(spec.read_text().replace("targets: [b200]\n", ""))
    assert "--target NAME" in require_error(cli("build", spec), 2)


def test_targets_lists_the_shipped_profiles(cli: Cli) -> None:
    done = cli("targets")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == list(target_book().profiles)
    assert {profile["name"] for profile in documents(cli("targets", "--json"))} == set(target_book().profiles)


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a GPU driver here")
def test_targets_detect_without_a_gpu_ends_with_three(cli: Cli) -> None:
    assert "no NVIDIA GPU" in require_error(cli("targets", "--detect", "--json"), 3)
