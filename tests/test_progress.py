"""How a build is shown: in a log, and as a bar on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from fa4_precompile.commands.progress import BarProgress, LogProgress


def test_log_names_each_kernel_how_many_are_left_and_what_failed() -> None:
    out = io.StringIO()
    progress = LogProgress(out)
    progress.start(2, 1)
    progress.done("bwd of a", 2.5)
    progress.failed("fwd of b", "first line\nsecond line")
    lines = out.getvalue().splitlines()
    assert lines[0] == "compiling 2 kernels, 1 at a time"
    assert lines[1].startswith("[1/2, ")
    assert lines[1].endswith("built in 2.5 s: bwd of a")
    assert lines[2].endswith("FAILED: fwd of b: first line")


def test_bar_counts_kernels_and_those_that_run_and_names_what_failed(capfd: pytest.CaptureFixture[str]) -> None:
    progress = BarProgress()
    progress.start(3, 2)
    progress.done("bwd of a", 2.5)
    progress.failed("fwd of b", "why")
    progress.finish()
    shown = capfd.readouterr().err
    assert "2/3" in shown
    assert "1 running" in shown
    assert "FAILED: fwd of b: why" in shown


def test_bar_is_shown_on_a_terminal_that_does_not_know_its_size() -> None:
    # As `docker run -t` can give: a new pseudo-terminal has 0 rows and 0 columns.
    ours, theirs = pty.openpty()
    program = (
        "from fa4_precompile.commands.progress import BarProgress as Bar; "
        "bar = Bar(); bar.start(2, 1); bar.done('a', 1.0); bar.finish()"
    )
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    os.close(theirs)
    assert b"1/2" in os.read(ours, 65536)
    os.close(ours)
