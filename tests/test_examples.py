"""The examples: each is in the index, its files are what the tools that read them take, and its commands are ours."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ci_steps import Ci, run_github, run_gitlab
from example_files import commands_of, documents, example_files, kind, understood

from checkout import ROOT
from fa4_precompile.cache.manifest import Reaching
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import Finished, run
from registries import Registry
from support import make_manifest, numbered_record, publish_library, synthetic_blob

_FILES = example_files()
_FOLDERS = sorted({name.split("/")[1] for name in _FILES if name.count("/") > 1})
_SETTING = re.compile(r"FA4_PRECOMPILE_[A-Z_]*[A-Z]")
_EXPRESSION = "${{"

# Two kernels, one for each of two shards.
_SPEC = """version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: two, pass: fwd, dtype: bf16, head_dim: 64, causal: [false, true]}
"""


def _of(*kinds: str) -> list[str]:
    found = [name for name in _FILES if kind(name) in kinds]
    assert found
    return found


def _tool(name: str, *arguments: object, text: str | None = None) -> str:
    """Return what a tool of the extra `dev` says; nothing if it has found nothing."""
    program = Path(sysconfig.get_path("scripts"), name)
    done = subprocess.run(
        [str(program), *map(str, arguments)], cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr or "failed") if done.returncode else ""


# What is in each


def test_each_example_has_a_readme_and_is_in_the_index() -> None:
    index = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    assert _FOLDERS
    assert [name for name in _FOLDERS if f"examples/{name}/README.md" not in _FILES] == []
    assert [name for name in _FOLDERS if f"]({name}/README.md)" not in index] == []


def test_pins_of_the_examples_are_those_that_are_tested() -> None:
    ours = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [name for name in _FILES if name.endswith("/constraints.txt")]
    assert pins
    assert [name for name in pins if (ROOT / name).read_text(encoding="utf-8") != ours] == []


@pytest.mark.parametrize("name", _of("spec"))
def test_spec_of_an_example_is_one(name: str) -> None:
    read_spec(ROOT / name, target_book())


@pytest.mark.parametrize("name", [name for name in _FILES if kind(name) != "document" and commands_of(name)])
def test_command_of_an_example_is_understood(name: str) -> None:
    for words in commands_of(name):
        understood(words)


def test_settings_of_the_examples_are_those_that_are_documented() -> None:
    known = {*_SETTING.findall((ROOT / "docs/reference/environment.md").read_text(encoding="utf-8"))}
    named = {found: name for name in _FILES for found in _SETTING.findall((ROOT / name).read_text(encoding="utf-8"))}
    assert named
    assert {found: name for found, name in named.items() if found not in known} == {}


# What reads them


@pytest.mark.parametrize(("of", "schema"), [("github", "vendor.github-workflows"), ("gitlab", "vendor.gitlab-ci")])
def test_workflow_is_of_the_schema(of: str, schema: str) -> None:
    assert _tool("check-jsonschema", "--builtin-schema", schema, *_of(of)) == ""


@pytest.mark.parametrize("name", _of("dockerfile"))
def test_dockerfile_passes_hadolint_and_pins_its_base(name: str) -> None:
    assert _tool("hadolint", name) == ""
    bases = re.findall(r"^(?:FROM|ARG BASE=)\s*(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert [base for base in bases if base != "${BASE}" and not re.search(r"@sha256:[0-9a-f]{64}$", base)] == []


def _scripts() -> Iterator[tuple[str, str]]:
    """Yield each script of the examples, with where it is."""
    for name in _FILES:
        if kind(name) == "shell":
            yield name, (ROOT / name).read_text(encoding="utf-8")
        elif kind(name) == "github":
            (workflow,) = documents(name)
            steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
            yield from ((f"{name}: {step['name']}", step["run"]) for step in steps)
        elif kind(name) == "gitlab":
            (workflow,) = documents(name)
            jobs = [job for job in workflow.values() if isinstance(job, dict)]
            lines = [job[part] for job in jobs for part in ("before_script", "script") if part in job]
            yield from ((name, "\n".join(each)) for each in lines)


_SCRIPTS = list(_scripts())


@pytest.mark.parametrize("script", [script for _, script in _SCRIPTS], ids=[where for where, _ in _SCRIPTS])
def test_script_passes_shellcheck(script: str) -> None:
    assert _tool("shellcheck", "--shell", "bash", "-", text=script) == ""
    assert _EXPRESSION not in script  # what GitHub would paste into it could be a command


@pytest.mark.parametrize("name", _of("github"))
def test_actions_are_pinned_by_their_commits(name: str) -> None:
    used = re.findall(r"uses: (.*)", (ROOT / name).read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"\S+@[0-9a-f]{40}  # v[0-9.]+", line)] == []


# Their steps


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a small spec and a key, in `source`; and in `kernels-K` what shard K of two has built.

    So the shards have nothing to build, which tests of theirs do.
    """
    folder = tmp_path_factory.mktemp("shards")
    source = folder / "source"
    source.mkdir()
    (source / "kernels.yaml").write_text(_SPEC)
    for command in ("genpkey -algorithm ed25519 -out team.pem", "pkey -in team.pem -pubout -out source/kernels.pub"):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    for shard in (1, 2):
        _built(source / "kernels.yaml", shard, folder / f"kernels-{shard}")
    return folder


def _built(spec: Path, shard: int, cache: Path) -> None:
    """Make the cache of a shard that has built its one kernel, as far as anybody can tell who does not load it."""
    toolchain = installed_toolchain(DEFAULT)
    publisher = Publisher(Root(cache))
    publisher.create()
    publisher.publish_toolchain(toolchain)
    publish_library(publisher, toolchain)
    record = numbered_record(shard, toolchain=toolchain.id)
    publisher.publish(record, synthetic_blob(shard))
    read = read_spec(spec, target_book())
    publisher.publish_manifest(
        make_manifest(
            record,
            spec=read.name,
            spec_digest=read.digest,
            target=target_book().get("b200"),
            toolchain=toolchain.id,
            variants=2,
            excluded=[],
            calls=[Reaching({"shard": number}, {}, [record.id] if number == shard else []) for number in (1, 2)],
            left={f"fwd of call {3 - shard}": f"{3 - shard}/2"},
        )
    )


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry in this process."""
    server = Registry()
    yield server
    server.shutdown()


def _ci(shards: Path, folder: Path, caches: Mapping[int, str]) -> Ci:
    """Return a CI whose last run has built the shards, and left their caches under these names."""
    for shard, name in caches.items():
        _link(shards / f"kernels-{shard}", folder / "caches" / name)
    (folder / "work").mkdir()
    return Ci(shards / "source", folder / "work", folder / "caches")


def _link(kernels: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    there.symlink_to(kernels)


def _pulled(place: str, key: Path, folder: Path) -> Finished:
    done = run("pull", place, "--cache", folder, "--trust-key", key)
    assert done.code == 0, done.err
    return run("check", key.parent / "kernels.yaml", "--cache", folder)


@pytest.mark.long
def test_github_workflow_builds_merges_signs_and_pushes(shards: Path, tmp_path: Path, registry: Registry) -> None:
    workflow = _workflow("examples/github-actions/.github/workflows/kernels.yml")
    workflow["jobs"]["build"]["strategy"]["matrix"]["shard"] = [1, 2]
    workflow["env"]["REGISTRY"] = registry.registry
    toolchain = next((shards / "kernels-1/toolchains").iterdir()).stem
    ci = _ci(shards, tmp_path, {shard: f"fa4-{toolchain}-{shard}-of-2-7" for shard in (1, 2)})
    contexts = {
        "github.run_id": "8",
        "github.ref_name": "feature/kernels",
        "github.repository": "Team/Repository",
        "github.actor": "somebody",
        "github.token": "a-token",
        "secrets.KERNELS_SIGNING_KEY": (shards / "team.pem").read_text(),
        "vars.PIP_EXTRA_INDEX_URL": "",
    }
    run_github(ci, workflow, contexts)
    assert "2 kernels, complete" in ci.output("Put the shards together")
    place = f"oci://{registry.registry}/team/repository/kernels:feature-kernels"
    assert "is here whole and fits: 2 kernels" in _pulled(place, shards / "source/kernels.pub", tmp_path / "pulled").out
    assert Root(tmp_path / "pulled").sealed is not None
    assert not list((tmp_path / "work/temporary").glob("*.pem"))
    assert (ci.caches / f"fa4-{toolchain}-2-of-2-8").is_dir()


@pytest.mark.long
def test_gitlab_pipeline_builds_merges_signs_and_pushes(shards: Path, tmp_path: Path, registry: Registry) -> None:
    workflow = _workflow("examples/gitlab-ci/.gitlab-ci.yml")
    workflow["build"]["parallel"] = 2
    ci = _ci(shards, tmp_path, {shard: f"fa4-{shard}-of-2/kernels" for shard in (1, 2)})
    variables = {
        "CI_REGISTRY": registry.registry,
        "CI_REGISTRY_IMAGE": f"{registry.registry}/team/repository",
        "CI_REGISTRY_USER": "somebody",
        "CI_REGISTRY_PASSWORD": "a-token",
        "CI_COMMIT_REF_SLUG": "feature-kernels",
        "KERNELS_SIGNING_KEY": str(shards / "team.pem"),
    }
    run_gitlab(ci, workflow, variables)
    assert "2 kernels, complete" in ci.output("release")
    place = f"oci://{registry.registry}/team/repository/kernels:feature-kernels"
    assert "is here whole and fits: 2 kernels" in _pulled(place, shards / "source/kernels.pub", tmp_path / "pulled").out
    login = json.loads((tmp_path / "work/.docker/config.json").read_text())
    assert login == {"auths": {registry.registry: {"auth": "c29tZWJvZHk6YS10b2tlbg=="}}}


def _workflow(name: str) -> Any:
    (workflow,) = documents(name)
    return workflow
