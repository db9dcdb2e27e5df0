"""How a build is shown: in a log, and as a bar on a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from fa4_precompile.commands.progress import BarProgress, LogProgress


def test_log_names_each_kernel_how_many_are_left_and_what_failed() -> None:
    out = io.StringIO()
    progress = LogProgress(out)
    progress.start(2, 1)
    progress.done("bwd of a", 2.5, "")
    progress.failed("fwd of b", "first line\nsecond line")
    lines = out.getvalue().splitlines()
    assert lines[0] == "compiling 2 kernels, 1 at a time"
    assert lines[1].startswith("[1/2, ")
    assert lines[1].endswith("built in 2.5 s: bwd of a")
    assert lines[2].endswith("FAILED: fwd of b: first line")


def test_log_and_bar_that_start_again_count_from_one(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    for progress in (LogProgress(out), BarProgress()):
        for _ in range(2):
            progress.start(1, 1)
            progress.done("bwd of a", 2.5, "")
            progress.finish()
    assert out.getvalue().splitlines()[-1].startswith("[1/1, 0 s left]")
    assert capfd.readouterr().err.split("\r")[-1].strip() == "1/1"


def test_log_names_the_worker_and_the_bar_counts_what_each_machine_has_done(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    log = LogProgress(out)
    log.start(2, 2)
    log.done("bwd of a", 2.5, "node7:123")
    assert out.getvalue().endswith("built in 2.5 s by node7:123: bwd of a\n")
    bar = BarProgress()
    bar.start(9, 2)
    for where in ("node7:123", "node7:124", "node8:9", "node9:1", "node10:1", "node11:1"):
        bar.done("bwd of a", 2.5, where)
    bar.finish()
    assert "node7 2, node8 1, node9 1, node10 1, 1 more machine" in capfd.readouterr().err


def test_bar_names_kernels_that_run_and_counts_those_that_are_done_and_failed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    progress = BarProgress()
    progress.start(4, 2)
    progress.running(["bwd of a", "fwd of b"])
    progress.done("bwd of a", 2.5, "")
    progress.failed("fwd of b", "why")
    progress.running(["fwd of c"])
    progress.finish()
    shown = capfd.readouterr().err
    assert "0/4: bwd of a; fwd of b" in shown
    assert "1/4, 00:00 left" in shown
    assert "2/4, 1 failed, 00:00 left: fwd of c" in shown
    assert "FAILED: fwd of b: why" in shown
    assert shown.split("\r")[-1].strip() == "2/4, 1 failed, 00:00 left"


_CALL = "pass=bwd dtype=bf16 head_dim=256 causal"
_BUILD = f"""
from fa4_precompile.commands.progress import BarProgress
bar = BarProgress()
bar.start(12, 3)
names = [f"{{slot}} of {_CALL}" for slot in ("bwd", "bwd_pre", "fwd")]
bar.running(names)
bar.done(names[0], 1.0, "")
bar.failed(names[1], "why")
bar.running(names[2:])
bar.finish()
"""


def _lines_on_a_terminal(columns: int, program: str = _BUILD, rows: int = 24) -> list[str]:
    """Return what a terminal of so many columns is made to show in its line, one after the other."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # Standard output is a file, as with `--json > FILE`: it knows no size.
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    return [line for line in re.split("[\r\n]+", shown) if not line.startswith("FAILED: ")]


@pytest.mark.parametrize("columns", [1, 3, 10, 40, 80, 200])
def test_bar_is_never_wider_than_its_terminal(columns: int) -> None:
    assert max(len(line) for line in _lines_on_a_terminal(columns)) < max(columns, 2)


def test_bar_on_a_wide_terminal_names_all_that_run() -> None:
    names = "; ".join(f"{slot} of {_CALL}" for slot in ("bwd", "bwd_pre", "fwd"))
    assert f"0/12: {names}" in _lines_on_a_terminal(200)


def test_bar_on_a_narrow_terminal_names_what_it_has_room_for_and_keeps_its_counts() -> None:
    lines = _lines_on_a_terminal(40)
    assert "0/12: bwd of pass=bwd dtype=bf16 hea..." in lines
    assert "2/12, 1 failed, 00:00 left: fwd of p..." in lines
    assert f"0/12: bwd of {_CALL}; +2" in _lines_on_a_terminal(64)


def test_bar_on_a_terminal_with_no_room_for_names_has_no_pieces_of_them() -> None:
    assert {line.strip() for line in _lines_on_a_terminal(10)} == {"", "0/12", "1/12", "2/12"}


@pytest.mark.parametrize("rows", [0, 24])
def test_bar_is_shown_whole_on_a_terminal_that_does_not_know_its_size(rows: int) -> None:
    # As `docker run -t` and `script` can give: a new pseudo-terminal has 0 rows and 0 columns.
    lines = [line.strip() for line in _lines_on_a_terminal(0, rows=rows)]
    assert f"0/12: bwd of {_CALL}; +2" in lines
    assert lines[-2:] == ["2/12, 1 failed, 00:00 left", ""]
