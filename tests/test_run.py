"""`fa4-precompile run`: the command gets the settings, and everything else is as if it had been started itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.commands.run import job_environment
from fa4_precompile.errors import CacheError
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config
from product import Finished, command, run
from support import join, publish_synthetic, start

Cli = Callable[..., Finished]

_SETTINGS = (
    "FA4_PRECOMPILE_CACHE",
    "FA4_PRECOMPILE_ON_MISS",
    "FA4_PRECOMPILE_REPORT",
    "FA4_PRECOMPILE_ALLOW_UNTRUSTED",
    "FA4_PRECOMPILE_MODULE",
    "FA4_PRECOMPILE_PRELOAD",
)
_PRINT = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user whose home is empty, and who has set nothing of ours."""
    for name in (*_SETTINGS, "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}


@pytest.fixture
def cli(tmp_path: Path, clean: dict[str, str]) -> Cli:
    """Call `run` of the command line in an empty folder."""
    work = tmp_path / "work"
    work.mkdir()

    def call(*arguments: object, **environment: str) -> Finished:
        done = run("run", *arguments, environment=clean | environment, cwd=work)
        assert "Traceback" not in done.err
        return done

    return call


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that can be used."""
    publish_synthetic(tmp_path / "cache")
    return tmp_path / "cache"


def _printed(cli: Cli, *options: object, arguments: Sequence[str] = (), **environment: str) -> tuple[Any, Any]:
    """Return the arguments and the environment that the command got."""
    done = cli(*options, "--", sys.executable, "-c", _PRINT, *arguments, **environment)
    assert (done.code, done.err) == (0, "")
    got, variables = json.loads(done.out)
    return got, variables


def _refused(cli: Cli, tmp_path: Path, code: int, *options: object, **environment: str) -> str:
    """Return what was said of options with which nothing may be started."""
    started = tmp_path / "started"
    done = cli(*options, "--", "touch", started, **environment)
    assert done.code == code, done.err
    assert not started.exists()
    assert done.out == ""
    assert done.err.startswith("error: ")
    return done.err


# What the command gets


def test_command_gets_the_settings_and_the_rest_of_the_environment(cli: Cli, cache: Path, tmp_path: Path) -> None:
    options = ("--cache", cache, "--strict", "--no-require-report", "--report", tmp_path / "out.jsonl")
    _, variables = _printed(cli, *options, MINE="kept")
    assert {name: variables.get(name) for name in (*_SETTINGS, "MINE")} == {
        "FA4_PRECOMPILE_CACHE": str(cache),
        "FA4_PRECOMPILE_ON_MISS": "error",
        "FA4_PRECOMPILE_REPORT": str(tmp_path / "out.jsonl"),
        "FA4_PRECOMPILE_ALLOW_UNTRUSTED": "0",
        "FA4_PRECOMPILE_MODULE": "",
        "FA4_PRECOMPILE_PRELOAD": "background",
        "MINE": "kept",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--preload"], "1"),
        (["--preload=0"], "0"),
        (["--preload", "background"], "background"),
        (["--preload=quickstart"], "quickstart"),
        ([], "inherited"),
    ],
    ids=str,
)
def test_command_gets_what_is_to_be_preloaded(cli: Cli, cache: Path, options: list[str], expected: str) -> None:
    _, variables = _printed(cli, "--cache", cache, *options, FA4_PRECOMPILE_PRELOAD="inherited")
    assert variables["FA4_PRECOMPILE_PRELOAD"] == expected


@pytest.mark.parametrize(
    ("options", "expected"), [(["--toolchain", "compatible"], "compatible"), (["--strict", "--no-require-report"], "")]
)
def test_command_gets_what_toolchain_is_asked_for_and_nothing_where_none_is(
    cli: Cli, cache: Path, options: list[str], expected: str
) -> None:
    _, variables = _printed(cli, "--cache", cache, *options)
    assert variables["FA4_PRECOMPILE_TOOLCHAIN"] == expected


def test_command_in_another_folder_finds_a_report_that_was_named_from_here(cli: Cli, cache: Path) -> None:
    _, variables = _printed(cli, "--cache", cache, "--preload", "last.jsonl")
    assert variables["FA4_PRECOMPILE_PRELOAD"] == str(cache.parent / "work" / "last.jsonl")


@pytest.mark.parametrize("value", ["yes", "2", ""])
def test_preload_that_can_not_be_meant_is_refused(cli: Cli, cache: Path, tmp_path: Path, value: str) -> None:
    said = _refused(cli, tmp_path, 2, "--cache", cache, f"--preload={value}")
    assert f"`--preload={value}` can't be meant" in said
    assert "allowed: 0, background, 1, the name of a spec, or a report" in said


def test_command_gets_the_packages_that_were_named(cli: Cli, cache: Path) -> None:
    options = ("--cache", cache, "--module", "flash_attn_cute", "--module", "vllm.vllm_flash_attn.cute")
    _, variables = _printed(cli, *options, FA4_PRECOMPILE_MODULE="another")
    assert variables["FA4_PRECOMPILE_MODULE"] == "flash_attn_cute,vllm.vllm_flash_attn.cute"
    _, variables = _printed(cli, "--cache", cache, FA4_PRECOMPILE_MODULE="another")
    assert variables["FA4_PRECOMPILE_MODULE"] == "another"


def test_command_gets_several_caches_in_their_order(cli: Cli, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("b", "a", "c")]
    for root in roots:
        publish_synthetic(root)
    options = [word for root in roots for word in ("--cache", root)]
    _, variables = _printed(cli, *options, FA4_PRECOMPILE_CACHE="/elsewhere")
    assert variables["FA4_PRECOMPILE_CACHE"] == ":".join(map(str, roots))


def test_command_in_another_folder_finds_a_cache_that_was_named_from_here(cli: Cli, cache: Path) -> None:
    _, variables = _printed(cli, "--cache", "../cache", "--report", "out.jsonl")
    named = Path(variables["FA4_PRECOMPILE_CACHE"])
    assert named.is_absolute()
    assert named.resolve() == cache.resolve()
    assert variables["FA4_PRECOMPILE_REPORT"] == str(cache.parent / "work" / "out.jsonl")


def test_what_is_not_given_is_taken_from_the_environment(cli: Cli, cache: Path) -> None:
    settings = {"FA4_PRECOMPILE_CACHE": str(cache), "FA4_PRECOMPILE_ON_MISS": "compile", "FA4_PRECOMPILE_REPORT": "1"}
    _, variables = _printed(cli, **settings)
    assert {name: variables[name] for name in settings} == settings
    _, variables = _printed(cli, "--on-miss", "warn", **settings)
    assert variables["FA4_PRECOMPILE_ON_MISS"] == "warn"


def test_nothing_given_at_all_is_the_users_own_cache_and_warn(cli: Cli, clean: dict[str, str]) -> None:
    root = Path(clean["HOME"], ".cache", "fa4-precompile")
    publish_synthetic(root)
    _, variables = _printed(cli)
    assert variables["FA4_PRECOMPILE_CACHE"] == str(root)
    assert variables["FA4_PRECOMPILE_ON_MISS"] == "warn"


def test_options_of_the_command_are_left_alone(cli: Cli, cache: Path) -> None:
    words = ["--strict", "-x", "--cache", "/elsewhere", "--", "--help", "a b", ""]
    got, variables = _printed(cli, "--cache", cache, arguments=words)
    assert got == words
    assert variables["FA4_PRECOMPILE_CACHE"] == str(cache)
    assert variables["FA4_PRECOMPILE_ON_MISS"] == "warn"


def test_command_needs_no_dashes_before_it(cli: Cli, cache: Path) -> None:
    done = cli("--cache", cache, "printf", "%s|", "--strict", "-x")
    assert (done.code, done.out) == (0, "--strict|-x|")


# It is the command from then on


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_that_of_the_command(cli: Cli, cache: Path, code: int) -> None:
    assert cli("--cache", cache, "--", "sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_signal_meets_the_command_itself(
    cache: Path, clean: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    line = command("run", "--cache", cache, "--", "sh", "-c", "echo $$; exec sleep 60")
    with subprocess.Popen(line, env={**os.environ, **clean}, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as job:
        assert job.stdout is not None
        assert int(job.stdout.readline()) == job.pid
        job.send_signal(number)
        assert job.wait(300) == -number


def test_signals_that_python_ignores_are_as_they_were(
    cli: Cli, cache: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    # With SIGPIPE ignored, `job | head` never ends the job.
    status = ["grep", "^SigIgn", "/proc/self/status"]
    alone = subprocess.run(status, capture_output=True, text=True, check=True)
    assert cli("--cache", cache, "--", *status).out == alone.stdout


def test_input_goes_to_the_command(cache: Path, clean: dict[str, str], tmp_path: Path) -> None:
    line = command("run", "--cache", cache, "--", "cat")
    done = subprocess.run(line, env={**os.environ, **clean}, input=b"\0\xff", capture_output=True, check=True)
    assert done.stdout == b"\0\xff"


# Refused before anything is started


def test_strict_and_another_wish_for_a_miss_contradict_each_other(cli: Cli, cache: Path, tmp_path: Path) -> None:
    said = _refused(cli, tmp_path, 2, "--cache", cache, "--strict", "--on-miss", "warn")
    assert "`--strict` and `--on-miss warn` contradict each other" in said
    _, variables = _printed(cli, "--cache", cache, "--strict", "--on-miss", "error", "--no-require-report")
    assert variables["FA4_PRECOMPILE_ON_MISS"] == "error"


def test_root_that_does_not_exist_is_refused(cli: Cli, cache: Path, tmp_path: Path) -> None:
    said = _refused(cli, tmp_path, 2, "--cache", cache, "--cache", tmp_path / "nowhere")
    assert f"`{tmp_path / 'nowhere'}`: does not exist" in said
    assert "hint: `fa4-precompile build SPEC --cache DIR` makes one" in said
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "file"])
@pytest.mark.parametrize("on_miss", ["error", "warn", "store"])
def test_root_that_holds_something_else_is_refused(cli: Cli, tmp_path: Path, is_folder: bool, on_miss: str) -> None:
    path = tmp_path / "photos"
    if is_folder:
        path.mkdir()
        (path / "cat.jpeg").write_bytes(b"no kernel")
    else:
        path.write_text("no folder")
    assert f"`{path}`: " in _refused(cli, tmp_path, 2, "--cache", path, "--on-miss", on_miss)


def test_root_that_others_can_write_is_refused_unless_allowed(cli: Cli, cache: Path, tmp_path: Path) -> None:
    cache.chmod(0o777)
    said = _refused(cli, tmp_path, 4, "--cache", cache)
    assert f"`{cache}` is not trusted" in said
    assert f"hint: `chmod go-w {cache}`" in said
    _, variables = _printed(cli, "--cache", cache, "--allow-untrusted")
    assert variables["FA4_PRECOMPILE_ALLOW_UNTRUSTED"] == "1"


def test_root_with_the_separator_in_its_name_is_refused(cli: Cli, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "a:b")
    assert "`:` separates the folders" in _refused(cli, tmp_path, 2, "--cache", tmp_path / "a:b")


@pytest.mark.parametrize("is_there", [False, True], ids=["not there yet", "empty"])
def test_store_makes_the_root_with_the_first_kernel_so_it_need_not_be_there(
    cli: Cli, tmp_path: Path, is_there: bool
) -> None:
    # Empty is what a volume is that was just mounted into a container.
    root = tmp_path / "new"
    if is_there:
        root.mkdir()
    _, variables = _printed(cli, "--cache", root, "--on-miss", "store")
    assert variables["FA4_PRECOMPILE_CACHE"] == str(root)
    assert variables["FA4_PRECOMPILE_ON_MISS"] == "store"
    assert root.exists() == is_there


def _run_for_somebody_who_cannot_look_there(root: Path) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(CacheError, match="Permission denied"):
        job_environment(Config((root,), on_miss=OnMiss.STORE))


def test_store_in_a_folder_that_the_user_cannot_look_into_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        join(start(_run_for_somebody_who_cannot_look_there, closed / "root"))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_job_whose_torch_loads_no_plugins_is_refused(cli: Cli, cache: Path, tmp_path: Path, value: str) -> None:
    # torch loads them where the variable is not set, or is "1".
    said = _refused(cli, tmp_path, 2, "--cache", cache, TORCH_DEVICE_BACKEND_AUTOLOAD=value)
    assert f"`TORCH_DEVICE_BACKEND_AUTOLOAD={value}` keeps PyTorch from starting the loader" in said
    assert "hint: unset it" in said


def test_job_whose_torch_is_told_to_load_plugins_is_started(cli: Cli, cache: Path) -> None:
    _, variables = _printed(cli, "--cache", cache, TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert variables["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "1"


def test_report_into_a_folder_that_does_not_exist_is_refused(cli: Cli, cache: Path, tmp_path: Path) -> None:
    said = _refused(cli, tmp_path, 2, "--cache", cache, "--report", tmp_path / "nowhere" / "out.jsonl")
    assert f"`{tmp_path / 'nowhere'}`: is no folder" in said


def test_setting_of_the_environment_that_cannot_be_meant_is_refused(cli: Cli, cache: Path, tmp_path: Path) -> None:
    said = _refused(cli, tmp_path, 2, "--cache", cache, FA4_PRECOMPILE_ON_MISS="eror")
    assert "hint: did you mean `error`? allowed: error, warn, compile, store" in said


# The command itself


def test_no_command_is_wrong_use(cli: Cli, cache: Path) -> None:
    for dashes in ([], ["--"]):
        done = cli("--cache", cache, *dashes)
        assert (done.code, done.out) == (2, "")
        assert "COMMAND" in done.err


def test_command_that_is_not_there_is_a_sentence(cli: Cli, cache: Path) -> None:
    done = cli("--cache", cache, "--", "no-such-command-anywhere", "-x")
    assert (done.code, done.out) == (2, "")
    assert "error: `no-such-command-anywhere` can't be started: No such file or directory" in done.err


@pytest.mark.parametrize("option", ["--strict", "--on-miss=warn"])
def test_command_that_is_an_unset_variable_is_wrong_use(cli: Cli, cache: Path, option: str) -> None:
    done = cli("--cache", cache, option, "--", "", "train.py")
    assert (done.code, done.out) == (2, "")
    assert "error: the name of the command is empty" in done.err


def test_command_that_is_no_program_is_a_sentence(cli: Cli, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("print('without a shebang, and no x bit')")
    done = cli("--cache", cache, "--", tmp_path / "job.py")
    assert (done.code, done.out) == (2, "")
    assert f"error: `{tmp_path / 'job.py'}` can't be started: Permission denied" in done.err


def test_option_with_a_typo_is_not_taken_for_the_command(cli: Cli, cache: Path) -> None:
    done = cli("--cache", cache, "--stric", "--", "true")
    assert (done.code, done.out) == (2, "")
    assert "No such option" in done.err
    assert "--stric" in done.err
