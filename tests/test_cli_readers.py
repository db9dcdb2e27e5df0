"""What a command ends with must not depend on who reads it: a gate's exit code is all that a script looks at."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from command_line import SPEC, Cli, documents, finished_cache, require_error, write_spec
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import command, records, run
from support import blob_file, numbered_record, overwrite

_SPOILED: list[tuple[tuple[str, ...], int]] = [
    (("verify",), 1),
    (("verify", "--json"), 1),
    (("ls",), 1),
    (("check", "quickstart"), 1),
    (("check", "quickstart", "--json"), 1),
    (("doctor",), 1),
    (("show", "no-such-id"), 2),
    (("targets",), 0),
]


def _end(folder: Path, *arguments: str, **streams: object) -> int:
    environment = {**os.environ, "FA4_PRECOMPILE_CACHE": str(folder / "cache"), "CC": "/nonexistent/cc"}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command(*arguments), env=environment, cwd=folder, check=False, timeout=300, **streams
    ).returncode


@pytest.fixture
def spoiled(synthetic: Path) -> Path:
    """The folder of a cache that is damaged."""
    overwrite(blob_file(synthetic, numbered_record(0)), b"other bytes")
    return synthetic.parent


@pytest.mark.parametrize(("arguments", "code"), _SPOILED, ids=[" ".join(words) for words, _ in _SPOILED])
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_exit_code_is_the_same_whoever_has_stopped_reading(
    spoiled: Path, arguments: tuple[str, ...], code: int, which: str
) -> None:
    read, write = os.pipe()
    os.close(read)
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    streams |= {name: write for name in streams if which in (name, "both")}
    try:
        assert _end(spoiled, *arguments, **streams) == code
    finally:
        os.close(write)


@pytest.mark.parametrize("arguments", [("verify",), ("ls",)], ids=" ".join)
def test_exit_code_is_the_same_where_the_streams_are_closed(spoiled: Path, arguments: tuple[str, ...]) -> None:
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command(*arguments)]
    environment = {**os.environ, "FA4_PRECOMPILE_CACHE": str(spoiled / "cache")}
    assert subprocess.run(closing, env=environment, cwd=spoiled, check=False, timeout=300).returncode == 1


def test_build_needs_no_standard_error(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "cache", spec, installed_toolchain(DEFAULT), "b200")
    closing = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("build", spec, "--cache", tmp_path / "cache")]
    assert subprocess.run(closing, check=False, timeout=300).returncode == 0


@pytest.mark.parametrize("arguments", [("ls",), ("verify", "--json"), ("targets",), ("--help",)], ids=" ".join)
def test_result_that_cannot_be_printed_ends_with_three(synthetic: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*arguments),
            env={**os.environ, "FA4_PRECOMPILE_CACHE": str(synthetic)},
            cwd=synthetic.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 3
    assert "standard output can't be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.compiles
def test_build_goes_on_when_its_reader_goes(tmp_path: Path) -> None:
    spec = tmp_path / "one.yaml"
    spec.write_text(SPEC.format(targets="b200"))
    build = subprocess.Popen(
        command("build", spec, "--cache", tmp_path / "cache"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert build.stdout is not None
    assert b"asking" in build.stdout.readline()
    build.stdout.close()
    assert build.wait(600) == 0
    assert len(records(tmp_path / "cache")) == 1
    assert run("verify", "--cache", tmp_path / "cache").code == 0


# Errors as JSON


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ls", "--cache", "nowhere"), 2),
        (("verify", "--cache", "nowhere"), 2),
        (("show", "abc", "--cache", "nowhere"), 2),
        (("ls", "--cache", "run"), 2),
        (("check", "no-such-spec"), 2),
        (("plan", "no-such-spec"), 2),
        (("build", "quickstart", "--target", "no-such"), 2),
        (("targets", "--no-such-option"), 2),
        (("targets", "--detect"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_error_is_a_json_object_where_json_is_asked_for(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    done = cli(*arguments, "--json", CUDA_VISIBLE_DEVICES="")
    assert done.code == code
    error = documents(done)["error"]
    assert error["exit_code"] == code
    assert error["message"] in done.err.replace("Error: ", "error: ")
    assert json.loads(done.out).keys() == {"error"}


# What can't be meant


def test_cache_that_is_an_unset_variable_is_not_the_working_folder(cli: Cli, tmp_path: Path) -> None:
    for words in (("build", "quickstart"), ("ls",), ("verify",), ("check", "quickstart"), ("doctor",)):
        done = cli(*words, "--cache", "")
        assert done.code == 2
        assert "the name is empty" in done.err
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--cache", "a", "--cache", "b"),
        ("check", "quickstart", "--target", "b200", "--target", "b300"),
        ("build", "quickstart", "-j", "1", "-j", "2"),
        ("build", "quickstart", "--time-limit", "1", "--time-limit", "2"),
        ("run", "--on-miss", "warn", "--on-miss", "error", "--", "true"),
        ("run", "--report", "a", "--report", "b", "--", "true"),
        ("--log-level", "info", "--log-level", "debug", "ls"),
    ],
    ids=lambda words: words[0] + words[-2],
)
def test_option_that_is_given_twice_is_an_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert "is given 2 times" in done.err


def test_error_that_is_no_word_of_ours_is_not_taken_for_findings(cli: Cli, tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "yaml.py").write_text("raise LookupError('a broken installation')\n")
    done = run("check", spec, environment={"PYTHONPATH": str(broken)}, cwd=tmp_path)
    assert done.code == 3
    assert "a broken installation" in done.err


def test_error_without_json_prints_nothing_on_standard_output(cli: Cli) -> None:
    assert "does not exist" in require_error(cli("ls", "--cache", "nowhere"), 2)
