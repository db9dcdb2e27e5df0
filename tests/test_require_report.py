"""`run --require-report`: a job that ends well without us fails; all else is as if it had been started itself."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command_line import Cli
from fa4_precompile.loader.presence import has_sign, leave_sign
from product import Finished, command

Run = Callable[..., Finished]

# `torch` starts the loader, which waits for the import of a library whose compile caches it serves.
_WAIT = "import torch\n"
_ATTACH = f"{_WAIT}import toy_kernels\n"
_TOY = {
    "CUTE_DSL_ARCH": "sm_100a",
    "FA4_PRECOMPILE_MODULE": "toy_kernels",
    "PYTHONPATH": os.pathsep.join(
        filter(None, [os.fspath(Path(__file__).parent / "toy"), os.environ.get("PYTHONPATH", "")])
    ),
}

# Says each signal that it gets, in a line, until SIGTERM has come. Takes them at once, so that two are not one.
_LISTENER = """
import signal, sys
names = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGTERM"]
heard = [getattr(signal, name) for name in names]
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
print("ready", flush=True)
got = None
while got != signal.SIGTERM:
    got = signal.sigwait(heard)
    print(got.name, flush=True)
sys.exit(7)
"""


@pytest.fixture
def required(cli: Cli, synthetic: Path) -> Run:
    """Run a command whose processes have to report."""

    def call(*line: object, options: tuple[object, ...] = (), **environment: str) -> Finished:
        return cli("run", "--cache", synthetic, "--require-report", *options, "--", *line, **environment)

    return call


@pytest.fixture
def start(synthetic: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start such a command, in a process group of its own, with its output to be read."""
    started = []

    def call(*line: str, **options: object) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            command("run", "--cache", synthetic, "--require-report", "--", *line),
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            preexec_fn=os.setpgrp,
            **options,  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# Who has reported


def test_job_that_ends_well_without_a_loader_fails_and_is_told_why_and_what_to_do(required: Run) -> None:
    done = required("sh", "-c", "echo result")
    assert (done.code, done.out) == (1, "result\n")
    assert done.err.startswith("error: `sh -c 'echo result'` ended well, and none of its processes reported: ")
    assert "`flash_attn.cute`" in done.err
    assert all(word in done.err for word in ("hint: ", "`env -i`", "`--report FILE`", "`--no-require-report`"))


@pytest.mark.compiles
@pytest.mark.parametrize("end", ["", "import os; os._exit(0)"], ids=["as ever", "without a report at exit"])
def test_job_with_a_loader_in_one_of_its_processes_ends_well(required: Run, end: str) -> None:
    done = required("sh", "-c", '"$0" -c "$1"; true', sys.executable, _ATTACH + end, **_TOY)
    assert (done.code, done.err) == (0, "")


@pytest.mark.compiles
def test_job_in_a_job_has_reported_for_both(required: Run, synthetic: Path) -> None:
    inner = command("run", "--cache", synthetic, "--require-report", "--", sys.executable, "-c", _ATTACH)
    done = required(*inner, **_TOY)
    assert (done.code, done.err) == (0, "")


def test_process_without_the_environment_has_not_reported(required: Run) -> None:
    assert required("env", "-i", sys.executable, "-c", _WAIT).code == 1


def test_loader_that_waits_for_an_import_that_does_not_come_has_not_reported(required: Run) -> None:
    assert required(sys.executable, "-c", _WAIT).code == 1


@pytest.mark.parametrize(("appended", "code"), [("", 1), ("a line of a process on another machine", 0)], ids=str)
def test_report_file_that_has_grown_counts(required: Run, tmp_path: Path, appended: str, code: int) -> None:
    report = tmp_path / "report.jsonl"
    report.write_text("an earlier job's line\n")
    done = required("sh", "-c", f"printf '{appended}' >> {report}", options=("--report", report))
    assert done.code == code, done.err


def test_job_that_fails_is_told_nothing_more(required: Run) -> None:
    done = required("sh", "-c", "echo why >&2; exit 7")
    assert (done.code, done.err) == (7, "why\n")


def test_nothing_is_left_behind(required: Run, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    done = required("sh", "-c", 'test -d "$FA4_PRECOMPILE_PRESENCE" && ls "$TMPDIR"', TMPDIR=os.fspath(folder))
    assert done.out.startswith("fa4-run-")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("option", ["--strict", "--on-miss=error"])
def test_strict_job_has_to_report_unless_it_is_said_otherwise(cli: Cli, synthetic: Path, option: str) -> None:
    assert cli("run", "--cache", synthetic, option, "--", "true").code == 1
    assert cli("run", "--cache", synthetic, "--", "true", FA4_PRECOMPILE_ON_MISS="error").code == 1
    assert cli("run", "--cache", synthetic, option, "--no-require-report", "--", "true").code == 0
    assert cli("run", "--cache", synthetic, "--", "true").code == 0


def test_sign_that_cannot_be_left_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (None, tmp_path / "nowhere", tmp_path / "file"):
        leave_sign(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sign_is_there_once_it_was_left(tmp_path: Path) -> None:
    assert not has_sign(tmp_path)
    leave_sign(tmp_path)
    leave_sign(tmp_path)
    assert has_sign(tmp_path)


# It ends as the command does


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT, signal.SIGINT, signal.SIGUSR1])
def test_command_that_a_signal_ends_ends_us_by_the_same(required: Run, number: signal.Signals) -> None:
    done = required("sh", "-c", f"kill -{number} $$")
    assert (done.code, done.err) == (-number, "")


@pytest.mark.parametrize("code", [1, 2, 130, 255])
def test_command_that_fails_gives_its_exit_code(required: Run, code: int) -> None:
    assert required("sh", "-c", f"exit {code}").code == code


def test_command_that_is_not_there_is_a_sentence(required: Run) -> None:
    done = required("no-such-command-anywhere")
    assert (done.code, done.out) == (2, "")
    assert "error: `no-such-command-anywhere` can't be started: No such file or directory" in done.err


def test_temporary_folder_that_cannot_be_made_is_a_sentence(required: Run, tmp_path: Path) -> None:
    program = "import tempfile; tempfile.tempdir = '/nowhere'; from fa4_precompile.cli import main; main()"
    line = [sys.executable, "-c", program, *command("run", "--cache", tmp_path / "cache", "--strict", "--", "true")[3:]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert "error: there is no temporary folder in which the job could leave a sign" in done.stderr
    assert "`--no-require-report`" in done.stderr


# What the command has is what it would have alone


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP, signal.SIGINT)], ids=["by nobody", "as `nohup` does"])
def test_signals_that_are_blocked_and_ignored_are_as_they_were(
    synthetic: Path, tmp_path: Path, ignored: tuple[signal.Signals, ...]
) -> None:
    def ignore() -> None:
        os.setpgrp()
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    show = "import re; print(*re.findall('Sig(?:Blk|Ign).*', open('/proc/self/status').read()))"
    line = [sys.executable, "-c", show]
    alone = subprocess.run(line, capture_output=True, text=True, check=True, preexec_fn=ignore)
    run = command("run", "--cache", synthetic, "--require-report", "--", *line)
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path, preexec_fn=ignore)
    assert _masks(done.stdout) == _masks(alone.stdout)


def _masks(shown: str) -> list[int]:
    """Return masks of signals, without the two that are the C library's own."""
    return [int(mask, 16) & ~(3 << 31) for mask in re.findall(r":\s*([0-9a-f]+)", shown)]


def test_descriptors_that_were_handed_on_are_there(synthetic: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    line = command(
        "run", "--cache", synthetic, "--require-report", "--", "sh", "-c", f"cat; echo there > /proc/self/fd/{writer}"
    )
    done = subprocess.run(line, input=b"\0\xff", capture_output=True, pass_fds=[writer], cwd=tmp_path)
    os.close(writer)
    assert done.stdout == b"\0\xff"
    with os.fdopen(reader) as said:
        assert said.read() == "there\n"


# Signals


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT"])
def test_signal_that_we_get_is_the_commands_once(start: Callable[..., subprocess.Popen[str]], name: str) -> None:
    job = start(sys.executable, "-c", _LISTENER)
    assert _line(job) == "ready"
    job.send_signal(getattr(signal, name))
    assert _line(job) == name
    job.send_signal(signal.SIGTERM)
    assert _line(job) == "SIGTERM"
    assert job.wait(300) == 7


def test_command_that_a_shell_stops_and_continues_takes_us_with_it(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    job = start("sh", "-c", "echo ready; read line; echo $line; exit 7", stdin=subprocess.PIPE)
    assert _line(job) == "ready"
    job.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    job.send_signal(signal.SIGCONT)
    assert job.stdin is not None
    job.stdin.write("goes on\n")
    job.stdin.close()
    assert _line(job) == "goes on"
    assert job.wait(300) == 7


def test_command_that_somebody_stops_by_its_number_and_continues_ends_as_ever(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    # As a debugger does, which continues what it has stopped and knows nothing of us.
    job = start("sh", "-c", "echo $$; kill -STOP $$; exit 7")
    child = int(_line(job))
    while Path(f"/proc/{child}/stat").read_text().split()[2] != "T":
        time.sleep(0.01)
    os.kill(child, signal.SIGCONT)
    assert job.wait(300) == 7


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")], ids=["Ctrl-C", "Ctrl-\\"])
def test_key_of_the_terminal_reaches_the_command_once(synthetic: Path, key: bytes, name: str) -> None:
    line = command("run", "--cache", synthetic, "--require-report", "--", sys.executable, "-c", _LISTENER)
    process, terminal = pty.fork()
    if process == 0:
        os.execv(line[0], line)
    shown = _read_until(terminal, "ready")
    os.write(terminal, key)
    shown = _read_until(terminal, name)
    os.kill(process, signal.SIGTERM)
    shown += _read_until(terminal, "SIGTERM")
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 7
    assert shown.count(name) == 1


def _read_until(terminal: int, word: str) -> str:
    shown = ""
    while word not in shown:
        shown += os.read(terminal, 1024).decode()
    return shown


def test_first_process_of_a_container_ends_with_the_signals_number(tmp_path: Path) -> None:
    # Which is not killed by a signal that it sends itself.
    program = textwrap.dedent("""
        import os, signal
        os.kill = lambda process, number: None
        from fa4_precompile.commands.child import end_as
        end_as(-signal.SIGTERM)
    """)
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False).returncode == 128 + 15
