"""`report`: exit codes, what it prints, what it refuses; and what `run --report` takes for a place."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from reported import MISSED, make_line, varied_cache, write_lines

from command_line import Cli, documents, require_error
from fa4_precompile.loader.stats import Missed


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A report of four ranks that were served."""
    return write_lines(tmp_path / "served.jsonl", [make_line(rank, 4, job="8123") for rank in range(4)])


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    """A folder of reports: of eight ranks one is missing, two missed a kernel, one was killed; a file is damaged."""
    folder = tmp_path / "troubled"
    folder.mkdir()
    for rank in (0, 1, 2, 3, 4, 6, 7):
        changes: dict[str, Any] = {"ended": rank != 7, "process": 2000 + rank}
        if rank in (1, 2):
            changes |= {"missed": {"absent": 1}, "misses": [MISSED]}
        write_lines(folder / f"node-0-{rank}.jsonl", [make_line(rank, 8, job="8124", **changes)])
    (folder / "node-0-9.jsonl").write_text('{"torn')
    return folder


def test_job_that_was_served_ends_with_0_and_is_summed_up(cli: Cli, served: Path) -> None:
    done = cli("report", served)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "job 8123: 4 ranks, 4 heard from, 0 not",
        "4 processes on 1 host, strict: 68 kernels resolved in 49.2 ms, 0 missed, 0 compiled, "
        "145.2 s of compiling saved",
        "first lookup after 4.5 s (median), 4.5 s at most (rank 0)",
        f"`/opt/kernels` has fingerprint {'f' * 64} (told by 4 processes)",
        "slow to load: 4.0 ms, fwd aaaaaaaaaaaa in rank 0",
        "slow to load: 4.0 ms, fwd aaaaaaaaaaaa in rank 1",
        "slow to load: 4.0 ms, fwd aaaaaaaaaaaa in rank 2",
        "every rank was served from the cache",
    ]


def test_job_that_was_not_served_ends_with_1_and_says_which_rank_and_why(cli: Cli, troubled: Path) -> None:
    done = cli("report", troubled)
    assert done.code == 1
    assert done.out.splitlines()[0] == "job 8124: 8 ranks, 7 heard from, 1 not"
    assert "missed by ranks 1-2 (absent): bwd of pass=bwd dtype=bf16 head_dim=96 causal" in done.out
    assert [line for line in done.out.splitlines() if line.startswith("finding: ")][:3] == [
        "finding: 1 of 8 ranks is not heard from: 5",
        "finding: 2 of 7 processes missed a kernel: ranks 1-2",
        "finding: 1 of 7 processes ended without saying so (killed, or still running): rank 7",
    ]
    assert f"{troubled / 'node-0-9.jsonl'}:1: is no line of a report: is damaged" in done.err
    assert done.err.splitlines()[-1].startswith("hint: ")


def test_json_has_all_of_it(cli: Cli, troubled: Path) -> None:
    done = cli("report", troubled, "--json")
    assert done.code == 1
    document = documents(done)
    assert document["served"] is False
    assert document["ranks"] == {
        "expected": 8,
        "heard": [0, 1, 2, 3, 4, 6, 7],
        "missing": [5],
        "unexpected": [],
        "idle": [],
    }
    assert [one["rank"] for one in document["incomplete"]] == [7]
    (miss,) = document["misses"]
    assert (miss["call"]["head_dim"], [one["rank"] for one in miss["processes"]]) == (96, [1, 2])
    assert document["faults"][0]["line"] == 1


def test_ranks_that_the_user_counts_are_those_that_are_looked_for(cli: Cli, served: Path) -> None:
    assert cli("report", served, "--ranks", 4).code == 0
    done = cli("report", served, "--ranks", 6)
    assert done.code == 1
    assert "finding: 2 of 6 ranks are not heard from: 4-5" in done.out


def test_job_that_still_runs_has_no_findings_for_that(cli: Cli, tmp_path: Path) -> None:
    write_lines(tmp_path / "out.jsonl", [make_line(0, 1, ended=False)])
    assert cli("report", tmp_path / "out.jsonl").code == 1
    assert cli("report", tmp_path / "out.jsonl", "--running").code == 0


def test_of_several_jobs_one_can_be_named(cli: Cli, served: Path, troubled: Path) -> None:
    assert "lines of other jobs are left out" in cli("report", served, troubled).out
    assert "job 8123: " in cli("report", served, troubled, "--job", "8123").out
    error = require_error(cli("report", served, "--job", "9", "--json"), 2)
    assert "no process of job `9` has reported" in error
    assert "jobs that have: `8123`" in error


def test_report_that_is_not_there_is_a_finding_as_nobody_has_written_it(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", tmp_path / "nowhere.jsonl", "--ranks", 8)
    assert done.code == 1
    assert "finding: none of 8 ranks is heard from" in done.out
    assert "is not there: no process has written it" in done.err


def test_pattern_is_what_run_took(cli: Cli, troubled: Path, served: Path) -> None:
    assert "7 heard from" in cli("report", f"{troubled}/{{host}}-{{rank}}.jsonl").out
    (troubled / "node-0-4.jsonl").rename(troubled / "4.jsonl")
    assert "7 heard from" in cli("report", f"{troubled}/").out
    assert f"{troubled}/none: is not there" in cli("report", f"{troubled}/none/").err
    error = require_error(cli("report", f"{troubled}/{{node}}.jsonl"), 2)
    assert "`{node}`, which stands for nothing" in error
    assert "the name is empty" in cli("report", "").err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--json", "--prometheus"], 2, "contradict each other"),
        (["--cache", "kernels"], 2, "`--html FILE`"),
        (["--html", "nowhere/page.html"], 3, "can't write `nowhere/page.html`: No such file or directory"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    cli: Cli, served: Path, options: list[str], code: int, said: str
) -> None:
    done = cli("report", served, *options)
    assert done.code == code
    assert said in done.err


# Prometheus

_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'\{(?P<labels>(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\} (?P<value>[0-9.e+-]+)'
)


def _samples(text: str) -> dict[str, list[tuple[str, float]]]:
    """Read the text format: every sample stands below the type of its name."""
    found: dict[str, list[tuple[str, float]]] = {}
    known = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            known = line.split()[2]
            assert line.split()[3] == "gauge"
            assert known not in found
            found[known] = []
        elif not line.startswith("# HELP "):
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            assert sample["name"] == known
            found[known].append((sample["labels"], float(sample["value"])))
    return found


def test_prometheus_reads_the_figures_of_the_job_and_of_each_process(cli: Cli, troubled: Path) -> None:
    done = cli("report", troubled, "--prometheus")
    assert done.code == 1
    samples = _samples(done.out)
    assert samples["fa4_precompile_served"] == [('job_id="8124"', 0.0)]
    assert samples["fa4_precompile_ranks_missing"] == [('job_id="8124"', 1.0)]
    assert samples["fa4_precompile_processes_not_ended"] == [('job_id="8124"', 1.0)]
    assert len(samples["fa4_precompile_process_resolved"]) == 7
    assert samples["fa4_precompile_process_missed"] == [
        (f'job_id="8124",host="node-0",rank="{rank}",process="{2000 + rank}",reason="absent"', 1.0) for rank in (1, 2)
    ]


def test_prometheus_is_not_misled_by_a_name(cli: Cli, tmp_path: Path) -> None:
    odd = 'a"} 1\nfa4_precompile_served{x="\\'
    write_lines(tmp_path / "out.jsonl", [make_line(None, host=odd, job=odd, missed={odd: 1})])
    samples = _samples(cli("report", tmp_path / "out.jsonl", "--prometheus").out)
    assert len(samples["fa4_precompile_served"]) == len(samples["fa4_precompile_process_missed"]) == 1
    assert "fa4_precompile_ranks_expected" not in samples


# Pages


def test_page_is_written_whole_beside_the_other_output(cli: Cli, troubled: Path, tmp_path: Path) -> None:
    varied_cache(tmp_path / "kernels")
    page = tmp_path / "page.html"
    done = cli("report", troubled, "--json", "--html", page, "--cache", tmp_path / "kernels")
    assert (done.code, documents(done)["job"]) == (1, "8124")
    assert "rank 5: not heard from" in page.read_text()
    assert f"the page is `{page}`" in done.err
    assert [one.name for one in tmp_path.iterdir() if "page" in one.name] == ["page.html"]


def test_ls_writes_a_page_beside_the_list(cli: Cli, tmp_path: Path) -> None:
    records = varied_cache(tmp_path / "kernels")
    done = cli("ls", "--cache", tmp_path / "kernels", "--html", tmp_path / "page.html", "--json")
    assert (done.code, len(documents(done))) == (0, len(records))
    page = (tmp_path / "page.html").read_text()
    assert all(record.id[:12] in page for record in records)
    (fingerprint,) = re.findall("fingerprint ([0-9a-f]{64})", done.err)
    assert fingerprint in page


def test_ls_of_a_damaged_cache_says_so_on_the_page(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    for blob in synthetic.glob("blobs/sha256/*/*"):
        blob.unlink()
    done = cli("ls", "--cache", synthetic, "--html", tmp_path / "page.html")
    assert done.code == 1
    assert "can&#x27;t be used" in (tmp_path / "page.html").read_text()


# What `run` takes


def test_run_makes_the_folder_of_reports_and_hands_the_pattern_on(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", "import os; print(os.environ['FA4_PRECOMPILE_REPORT'])"]
    done = cli("run", "--cache", synthetic, "--report", f"{tmp_path}/a/b/", "--", *line)
    assert done.out.strip() == f"{tmp_path}/a/b/{{host}}-{{rank}}.jsonl"
    assert (tmp_path / "a" / "b").is_dir()
    done = cli("run", "--cache", synthetic, "--report", f"{tmp_path}/c/{{host}}/{{rank}}.jsonl", "--", *line)
    assert done.code == 0
    assert list((tmp_path / "c").iterdir()) == []


def test_run_refuses_a_place_of_reports_that_cannot_be_made(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cli("run", "--cache", synthetic, "--report", f"{tmp_path}/file/runs/", "--", "echo", "started")
    assert (done.code, done.out) == (2, "")
    assert "can't be made, so no report can be written there: Not a directory" in done.err
    done = cli("run", "--cache", synthetic, "--report", f"{tmp_path}/{{pid}}.jsonl", "--", "echo", "started")
    assert (done.code, done.out) == (2, "")
    assert "hint: allowed: {host}, {rank}, {process}" in done.err


@pytest.mark.parametrize("written", [True, False])
def test_file_that_a_process_elsewhere_writes_into_the_folder_is_its_report(
    cli: Cli, synthetic: Path, tmp_path: Path, written: bool
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    write_lines(folder / "h-0.jsonl", [make_line(0)])
    again = f"cp {folder}/h-0.jsonl {folder}/new && mv {folder}/new {folder}/h-0.jsonl" if written else "true"
    options = ("--cache", synthetic, "--require-report", "--report", f"{folder}/")
    assert cli("run", *options, "--", "sh", "-c", again).code == (0 if written else 1)


def test_miss_whose_call_can_not_be_told_is_told_as_that(cli: Cli, tmp_path: Path) -> None:
    miss = Missed("fwd", "key", "", None, "key position `max_seqlen` holds a Tensor", 3)
    file = write_lines(tmp_path / "out.jsonl", [make_line(0, 1, missed={"key": 3}, misses=[miss])])
    out = cli("report", file).out
    assert "missed by rank 0 (key): fwd of a call whose axes can't be told" in out
    assert "holds a Tensor" in out
    assert json.loads(cli("report", file, "--json").out)["misses"][0]["call"] is None
