"""The steps of a CI workflow, run here: its own shell lines, each job in a folder of its own.

A stand-in for GitHub and GitLab, as far as their workflows here go: jobs one after another, a matrix, artifacts,
caches, outputs and secrets. What installs something is left out, as what runs the tests has it already. Of GitHub's
actions those that carry files do so; those that log in and prepare the machine do nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EXPRESSION = re.compile(r"\$\{\{\s*(?P<path>[\w.-]+)\s*\}\}")
_NOTHING = ("actions/setup-python", "docker/login-action")
_GITHUB_SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")  # of `shell: bash`
_GITLAB_SHELL = ("bash", "-eo", "pipefail")


@dataclass(frozen=True)
class Ran:
    """A step that was run: its job, its name or first line, and what it printed on both streams."""

    job: str
    step: str
    output: str


@dataclass
class Ci:
    """Where a workflow runs: `source` is the checkout, `work` an empty folder.

    `caches` are the CI caches: a folder that may have some from the last run.
    """

    source: Path
    work: Path
    caches: Path
    ran: list[Ran] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """Where artifacts are."""
        return self.work / "artifacts"

    def checkout(self, job: str) -> Path:
        """Return a new folder of a job, with what is checked out."""
        return shutil.copytree(self.source, self.work / "jobs" / job.replace(" ", "-").replace("/", "-of-"))

    def call(self, job: str, step: str, shell: Sequence[str], script: str, folder: Path, **more: str) -> None:
        """Run a script; fail as the job would."""
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "HOME": str(self.work), **more}
        done = subprocess.run(
            [*shell, "-c", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.ran.append(Ran(job, step, done.stdout))
        assert done.returncode == 0, f"{job}, {step}:\n{done.stdout}"

    def output(self, step: str) -> str:
        """Return what the steps of a name, or whose line has it, have printed."""
        return "".join(ran.output for ran in self.ran if step in ran.step)


def run_github(ci: Ci, workflow: Mapping[str, Any], contexts: Mapping[str, str]) -> None:
    """Run a workflow of GitHub's. `contexts` has what the runner would know, by its path: `github.ref_name`."""
    for name, job in workflow["jobs"].items():
        shards = job.get("strategy", {}).get("matrix", {"shard": [None]})["shard"]
        for shard in shards:
            known = {**contexts, "matrix.shard": str(shard), "strategy.job-total": str(len(shards))}
            machine = _Machine(ci, f"{name} {shard}" if shard else name, known)
            machine.setting = machine.filled(workflow.get("env", {}))
            for step in job["steps"]:
                machine.take(step)


class _Machine:
    """A machine of GitHub's that runs one job."""

    def __init__(self, ci: Ci, job: str, known: dict[str, str]) -> None:
        self._ci, self._job, self._known = ci, job, known
        self.setting: dict[str, str] = {}
        self._folder = ci.work
        self._temporary = ci.work / "temporary"
        self._temporary.mkdir(exist_ok=True)

    def filled(self, values: Mapping[str, object]) -> dict[str, str]:
        """Return texts with their expressions' values in place. Raises `KeyError` for one that is not known."""
        known = {**self._known, **{f"env.{name}": value for name, value in self.setting.items()}}
        return {name: _EXPRESSION.sub(lambda found: known[found["path"]], str(value)) for name, value in values.items()}

    def take(self, step: Mapping[str, Any]) -> None:
        """Do a step."""
        if "uses" in step:
            self._act(step["uses"].partition("@")[0], self.filled(step.get("with", {})))
        elif step["name"] != "Install":
            self._run(step)

    def _run(self, step: Mapping[str, Any]) -> None:
        outputs = self._temporary / "outputs"
        outputs.write_text("")
        known = {"RUNNER_TEMP": str(self._temporary), "GITHUB_OUTPUT": str(outputs)}
        known |= {"GITHUB_STEP_SUMMARY": str(self._temporary / "summary")} | self.setting
        self._ci.call(
            self._job,
            step["name"],
            _GITHUB_SHELL,
            step["run"],
            self._folder,
            **known,
            **self.filled(step.get("env", {})),
        )
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            self._known[f"steps.{step['id']}.outputs.{name}"] = value

    def _act(self, action: str, given: Mapping[str, str]) -> None:
        if action in _NOTHING:
            return
        if action == "actions/checkout":
            self._folder = self._ci.checkout(self._job)
        elif action == "actions/cache/restore":
            for kept in sorted(self._ci.caches.glob(f"{given['restore-keys']}*"))[-1:]:
                shutil.copytree(kept, self._folder / given["path"])
        elif action == "actions/cache/save":
            shutil.copytree(self._folder / given["path"], self._ci.caches / given["key"], dirs_exist_ok=True)
        elif action == "actions/upload-artifact":
            _copy([self._folder / given["path"]], self._ci.artifacts / given["name"])
        elif action == "actions/download-artifact":
            assert given["merge-multiple"] == "True"
            _copy(sorted(self._ci.artifacts.glob(f"{given['pattern']}/*")), self._folder / given["path"])
        else:
            raise NotImplementedError(action)


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)


def run_gitlab(ci: Ci, workflow: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    """Run a pipeline of GitLab's. `variables` are those that the server and the project would have."""
    for stage in workflow["stages"]:
        for name, job in _of_stage(workflow, stage):
            total = job.get("parallel", 1)
            for index in range(1, total + 1):
                node = {"CI_NODE_INDEX": str(index), "CI_NODE_TOTAL": str(total)} if total > 1 else {}
                _gitlab_job(ci, f"{name} {index}/{total}" if node else name, job, {**variables, **node})


def _of_stage(workflow: Mapping[str, Any], stage: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((name, job) for name, job in workflow.items() if isinstance(job, dict) and job.get("stage") == stage)


def _gitlab_job(ci: Ci, name: str, job: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    folder = ci.checkout(name)
    if ci.artifacts.exists():  # a job has those of all stages before
        shutil.copytree(ci.artifacts, folder, dirs_exist_ok=True)
    cache = job.get("cache", {"paths": [], "key": {"prefix": ""}})
    kept = ci.caches / re.sub(r"\$(\w+)", lambda found: variables[found[1]], cache["key"]["prefix"])
    for path in cache["paths"]:
        if (kept / path).exists():
            shutil.copytree(kept / path, folder / path)
    # One shell for all lines, so that one that sets a variable does so for those after it.
    ci.call(name, name, _GITLAB_SHELL, "\n".join(job["script"]), folder, **variables)
    for path in cache["paths"]:
        shutil.copytree(folder / path, kept / path, dirs_exist_ok=True)
    for path in job.get("artifacts", {}).get("paths", ()):
        shutil.copytree(folder / path, ci.artifacts / path, dirs_exist_ok=True)
