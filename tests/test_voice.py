"""Who speaks: of many ranks one, and the others to who asks for them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Cli
from fa4_precompile.errors import UsageError
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.voice import is_heard, warn
from product import Finished

_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "LOCAL_RANK")
_OURS = ("FA4_PRECOMPILE_", *_RANKS)

# A loader that is installed, warns, and reports when the process ends.
_JOB = """
import sys
from fa4_precompile.loader import report, stats, voice
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.install import install_config
config = Config.from_env()
install_config(config)
counts = stats.Counts()
counts.missed("absent")
report.report_at_exit(counts, config.report_file)
voice.warn("a kernel is missing")
"""


@pytest.fixture(autouse=True)
def no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no rank."""
    for name in _RANKS:
        monkeypatch.delenv(name, raising=False)


def _job(folder: Path, program: str = _JOB, **environment: str) -> Finished:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    line = [sys.executable, "-c", program]
    settings = {**clean, "FA4_PRECOMPILE_CACHE": "kernels", "FA4_PRECOMPILE_REPORT": "1", **environment}
    done = subprocess.run(line, env=settings, cwd=folder, capture_output=True, text=True, check=True)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("ranks", "speaks"),
    [
        ({}, True),
        ({"RANK": ""}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "0", "LOCAL_RANK": "3"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"RANK": "8", "SLURM_PROCID": "0"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"OMPI_COMM_WORLD_RANK": "3"}, False),
        ({"PMI_RANK": "3"}, False),
        ({"RANK": "three"}, True),
    ],
    ids=str,
)
def test_rank_0_speaks_and_who_has_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ranks: dict[str, str], speaks: bool
) -> None:
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert is_heard() == speaks
    with caplog.at_level(logging.INFO, "fa4_precompile"):
        warn("what")
        assert is_heard()
    assert [record.levelno for record in caplog.records] == [logging.WARNING if speaks else logging.INFO]


def test_process_that_speaks_warns_and_sums_up(tmp_path: Path) -> None:
    warned, summary = _job(tmp_path, RANK="0").err.splitlines()
    assert warned == "fa4-precompile: a kernel is missing"
    assert "1 missed (1 absent)" in summary


def test_other_rank_is_silent_unless_it_is_asked(tmp_path: Path) -> None:
    assert _job(tmp_path, RANK="5").err == ""
    warned, summary = _job(tmp_path, RANK="5", FA4_PRECOMPILE_LOG_LEVEL="info").err.splitlines()
    assert warned == "fa4-precompile: rank 5: a kernel is missing"
    assert "1 missed (1 absent)" in summary


def test_other_rank_that_learns_its_rank_after_the_loader_is_installed_is_silent(tmp_path: Path) -> None:
    # As a child of `torch.multiprocessing.spawn`.
    program = _JOB.replace("voice.warn", "import os; os.environ['RANK'] = '1'; voice.warn")
    assert _job(tmp_path, program).err == ""


def test_other_rank_writes_its_line_of_a_report_file(tmp_path: Path) -> None:
    for rank in ("0", "5"):
        _job(tmp_path, RANK=rank, FA4_PRECOMPILE_REPORT="report.jsonl")
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    assert [json.loads(line)["missed"] for line in lines] == [{"absent": 1}] * 2


def test_other_rank_leaves_it_to_rank_0_that_a_setting_cannot_be_meant(tmp_path: Path) -> None:
    program = "from fa4_precompile.activate import activate; activate()"
    assert _job(tmp_path, program, RANK="5", FA4_PRECOMPILE_ON_MISS="eror").err == ""
    assert "`FA4_PRECOMPILE_ON_MISS=eror`" in _job(tmp_path, program, RANK="0", FA4_PRECOMPILE_ON_MISS="eror").err


@pytest.mark.parametrize(("level", "lines"), [("warning", 1), ("error", 0), ("debug", 1)])
def test_level_of_a_job_says_what_is_logged(tmp_path: Path, level: str, lines: int) -> None:
    done = _job(tmp_path, FA4_PRECOMPILE_LOG_LEVEL=level, FA4_PRECOMPILE_REPORT="0")
    said = [line for line in done.err.splitlines() if "a kernel is missing" in line]
    assert len(said) == lines


def test_job_with_logging_of_its_own_gets_each_message_once(tmp_path: Path) -> None:
    program = f"{_JOB}\nimport logging\nlogging.basicConfig(format='mine: %(message)s')\nvoice.warn('after')"
    done = _job(tmp_path, program, FA4_PRECOMPILE_LOG_LEVEL="info")
    assert [line for line in done.err.splitlines() if "after" in line] == ["mine: fa4-precompile: after"]


@pytest.mark.parametrize("value", ["loud", "INFO", "10"])
def test_level_that_cannot_be_meant_is_a_usage_error(value: str) -> None:
    with pytest.raises(UsageError, match=f"`FA4_PRECOMPILE_LOG_LEVEL={value}` can't be meant"):
        Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", "FA4_PRECOMPILE_LOG_LEVEL": value})


def test_level_of_the_command_line_is_handed_on_to_the_job(cli: Cli, synthetic: Path) -> None:
    job = ("sh", "-c", 'echo "$FA4_PRECOMPILE_LOG_LEVEL"')
    assert cli("--log-level", "info", "run", "--cache", synthetic, "--", *job).out == "info\n"
    assert cli("run", "--cache", synthetic, "--", *job, FA4_PRECOMPILE_LOG_LEVEL="error").out == "error\n"
    assert cli("--log-level", "loud", "targets").code == 2


def test_level_of_the_command_line_says_what_is_logged(cli: Cli, synthetic: Path) -> None:
    line = ("run", "--cache", synthetic, "--", sys.executable, "-c", "pass")
    assert cli(*line).err == ""
    assert "fa4-precompile is there" in cli("--log-level", "debug", *line).err
