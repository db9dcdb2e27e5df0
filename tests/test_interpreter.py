"""What `run` finds out before it starts a command: whether the Python that the command will use has this package."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from command_line import Cli
from fa4_precompile.commands.asking import answer_of
from fa4_precompile.commands.interpreter import interpreter_of
from product import command
from support import deadline

Start = Callable[..., list[str]]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has nothing installed."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with what there has to be of the package. What is imported of it, or of torch beside it, is noted."""
    folder = tmp_path / "packages"
    for name in ("fa4_precompile", "torch"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("open(__file__ + '.imported', 'w')\n")
    information = folder / "fa4_precompile-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fa4-precompile\nVersion: 0\n")
    (information / "entry_points.txt").write_text(
        "[torch.backends]\nfa4_precompile = fa4_precompile.activate:activate\n"
    )
    return folder


@pytest.fixture
def strict(cli: Cli, synthetic: Path, tmp_path: Path) -> Callable[..., str]:
    """Return what is said of a command in strict mode; nothing if it was started."""

    def said(*line: object, **environment: str) -> str:
        done = cli("run", "--cache", synthetic, "--strict", "--no-require-report", "--", *line, **environment)
        started = (tmp_path / "started").exists()
        assert (done.code, started) in ((0, True), (3, False)), done.err
        return done.err if done.code else ""

    return said


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A program that leaves a file."""
    path = tmp_path / "job" / "job.py"
    path.parent.mkdir()
    path.write_text(_program(tmp_path))
    return path


def _program(folder: Path) -> str:
    return f"open({os.fspath(folder / 'started')!r}, 'w')"


def _script(job: Path, first_lines: str, name: str = "start") -> Path:
    script = job.parent / name
    script.write_text(f"{first_lines}\n{job.read_text()}\n")
    script.chmod(0o755)
    return script


# Seen through

_LINES: dict[str, Callable[[str, Path], Sequence[object]]] = {
    "a program": lambda python, job: [python, job],
    "a module": lambda python, job: ["env", f"PYTHONPATH={job.parent}", python, "-u", "-m", "job"],
    "a text": lambda python, job: [python, "-Wignore", "-X", "utf8", "-c", job.read_text()],
    "flags": lambda python, job: [python, "-Es", "-u", "--check-hash-based-pycs", "default", "--", job],
    "isolated": lambda python, job: [python, "-I", job],
    "a variable": lambda python, job: ["env", "-u", "NONE", "A=b", python, job],
    "no variable": lambda python, job: ["env", "-i", f"PATH={os.environ['PATH']}", python, job],
    "split words": lambda python, job: ["/usr/bin/env", f"-S{python} -u", job],
    "a script": lambda python, job: [_script(job, f"#!{python}")],
    "a script with a flag": lambda python, job: [_script(job, f"#! {python} -E")],
    "a script by `env`": lambda python, job: [
        "env",
        f"PATH={Path(python).parent}:{os.environ['PATH']}",
        _script(job, "#!/usr/bin/env python3"),
    ],
    "a script by `env -S`": lambda python, job: [_script(job, f"#!/usr/bin/env -S {python} -u")],
    "a long path": lambda python, job: [_script(job, f"#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''")],
    "a long path of conda's": lambda python, job: [
        _script(job, f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\" #'''\n'''ends'''")
    ],
}


@pytest.mark.parametrize("how", _LINES)
def test_run_strict_whose_python_lacks_the_package_is_refused_and_named(
    strict: Callable[..., str], bare: str, job: Path, how: str
) -> None:
    said = strict(*_LINES[how](bare, job))
    assert said.startswith("error: `" + os.path.dirname(bare))
    assert "has no `fa4-precompile` with its entry point for PyTorch" in said
    assert "-m pip install fa4-precompile`" in said


@pytest.mark.parametrize("how", _LINES)
def test_run_strict_whose_python_has_the_package_is_started(strict: Callable[..., str], job: Path, how: str) -> None:
    assert strict(*_LINES[how](sys.executable, job)) == ""


def test_run_strict_script_on_the_path_is_found_there(strict: Callable[..., str], bare: str, job: Path) -> None:
    _script(job, f"#!{bare}", "torchrun")
    path = f"{job.parent}:{os.environ['PATH']}"
    assert f"`{bare} -m pip install fa4-precompile`" in strict("torchrun", "--nproc-per-node", "2", "x.py", PATH=path)


def test_run_strict_flag_that_hides_the_package_is_named(strict: Callable[..., str], job: Path) -> None:
    said = strict(sys.executable, "-uS", job)
    assert f"`{sys.executable} -S` has no `fa4-precompile`" in said
    assert "or leave out `-S`" in said


@pytest.mark.parametrize(("flags", "is_there"), [([], True), (["-s"], True), (["-E"], False), (["-I"], False)])
def test_run_strict_package_that_a_variable_shows_is_there_unless_python_is_told_not_to_look(
    strict: Callable[..., str], bare: str, job: Path, package: Path, flags: list[str], is_there: bool
) -> None:
    assert (strict("env", f"PYTHONPATH={package}", bare, *flags, job) == "") == is_there


def test_run_strict_package_beside_the_program_is_there(
    strict: Callable[..., str], bare: str, job: Path, package: Path
) -> None:
    program = package / "job.py"
    program.write_text(job.read_text())
    assert strict(bare, program) == ""


@pytest.mark.parametrize(("line", "is_there"), [(["-c", "pass"], True), (["-m", "job"], True), (["{job}"], False)])
def test_package_in_the_working_folder_is_there_for_a_module_and_a_text_only(
    bare: str, job: Path, package: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], is_there: bool
) -> None:
    monkeypatch.chdir(package)
    interpreter = interpreter_of([bare, *(word.format(job=job) for word in line)], os.environ)
    assert interpreter is not None
    assert interpreter.lacks_us() != is_there


def test_run_strict_package_without_its_entry_point_is_not_there(
    strict: Callable[..., str], bare: str, job: Path, package: Path
) -> None:
    (package / "fa4_precompile-0.dist-info" / "entry_points.txt").unlink()
    said = strict("env", f"PYTHONPATH={package}", bare, job)
    assert "has no `fa4-precompile` with its entry point" in said


def test_run_asks_without_importing_torch_or_the_package(
    strict: Callable[..., str], bare: str, job: Path, package: Path
) -> None:
    assert strict("env", f"PYTHONPATH={package}", bare, job) == ""
    assert not list(package.glob("*/*.imported"))


def test_run_that_is_not_strict_warns_and_goes_on(cli: Cli, synthetic: Path, bare: str) -> None:
    done = cli("run", "--cache", synthetic, "--", bare, "-c", "print('it ran')")
    assert (done.code, done.out) == (0, "it ran\n")
    assert done.err.startswith(f"warning: `{bare}` has no `fa4-precompile`")
    assert f"hint: `{bare} -m pip install fa4-precompile`" in done.err


def test_run_leaves_the_input_to_the_command(synthetic: Path, tmp_path: Path) -> None:
    line = command("run", "--cache", synthetic, "--", sys.executable, "-c", "print(input())")
    done = subprocess.run(line, input="all of it\n", capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "all of it\n"


# Not seen through


def test_run_strict_shell_is_not_asked(strict: Callable[..., str], bare: str, job: Path) -> None:
    assert strict("sh", "-c", shlex.join([bare, os.fspath(job)])) == ""


def test_run_strict_program_that_starts_another_python_is_not_asked(
    strict: Callable[..., str], bare: str, job: Path
) -> None:
    assert strict(_script(job, f"#!{bare}", "poetry"), "run", "python", "x.py") == ""


def test_run_strict_python_that_does_not_answer_is_started(strict: Callable[..., str], job: Path) -> None:
    # It does not know `-B`, as a program would that is called so and is none.
    script = job.parent / "python3"
    script.write_text(f'#!/bin/sh\n[ "$1" = -B ] && exit 1\nexec {sys.executable} {job}\n')
    script.chmod(0o755)
    assert strict(script) == ""


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["no-such-command-anywhere"],
        ["env"],
        ["env", "--unknown", "python3"],
        ["env", "-S"],
        ["env", "-S'"],
        ["sh", "-c", "python3"],
        ["{folder}/circle"],
        ["{folder}/nothing"],
        ["{folder}/quote"],
        ["{folder}/binary"],
    ],
    ids=" ".join,
)
def test_interpreter_of_what_cannot_be_seen_through_is_none(tmp_path: Path, line: list[str]) -> None:
    contents = {"circle": f"#!{tmp_path}/circle", "nothing": "#!", "quote": "#!/bin/sh\n'''exec' '", "binary": "\0\xff"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    assert interpreter_of([word.format(folder=tmp_path) for word in line], os.environ) is None


def test_answer_of_a_program_that_hangs_is_none_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    hangs = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    assert answer_of(["sh", "-c", hangs], most_seconds=1) is None
    child = int((tmp_path / "child").read_text())
    with deadline(60):  # it was killed, and is gone as soon as the system comes to it
        while _is_alive(child):
            time.sleep(0.01)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_answer_of_a_program_that_leaves_a_daemon_is_there_at_once() -> None:
    # The daemon holds the program's output open.
    assert answer_of(["sh", "-c", "sleep 5 & echo answer"], most_seconds=600) == "answer\n"
