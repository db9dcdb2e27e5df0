"""The whole command line as a user who is not root, whoever the cache belongs to and whatever may be read of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import SPEC, documents, finished_cache, require_error, write_spec
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from ordinary import IS_ROOT, NO_ACCOUNT, OrdinaryUser, ordinary_user
from product import Finished
from support import snapshot

only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can make files of somebody else")

_READS = ("ls", "show", "verify", "check", "doctor", "run")


@pytest.fixture(scope="module")
def user(open_folder: Path) -> OrdinaryUser:
    """Somebody who is not root."""
    return ordinary_user(open_folder)


@pytest.fixture(scope="module")
def spec(open_folder: Path, user: OrdinaryUser) -> Path:
    """A spec of one kernel that they can read."""
    return write_spec(open_folder)


@pytest.fixture
def cache(open_folder: Path, spec: Path) -> Path:
    """A cache of whoever runs these tests, of the installed toolchain and of kernels that nobody can load."""
    path = open_folder / f"cache-{len(os.listdir(open_folder))}"
    finished_cache(path, spec, installed_toolchain(DEFAULT), "b200")
    return path


def _read(user: OrdinaryUser, what: str, cache: Path, spec: Path) -> Finished:
    """Do with a cache what needs no write."""
    arguments = {
        "show": ("show", _any_kernel(cache)),
        "check": ("check", spec),
        "run": ("run", "--cache", cache, "--", "true"),
    }.get(what, (what,))
    return user.call(*arguments, *([] if what == "run" else ["--cache", cache]))


def _any_kernel(cache: Path) -> str:
    return next(cache.glob("records/*/*/*.json")).stem


@contextmanager
def _closed(path: Path) -> Iterator[None]:
    """Let nobody but root look into a folder for a while."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)


# Without a cache


@pytest.mark.parametrize("arguments", [("targets",), ("spec", "list"), ("spec", "show", "quickstart"), ("--version",)])
def test_what_needs_no_cache_works(user: OrdinaryUser, arguments: tuple[str, ...]) -> None:
    done = user.call(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out


# A cache of their own


@pytest.mark.long
@pytest.mark.compiles
def test_whole_way_from_a_plan_to_a_job_works_in_the_default_cache(user: OrdinaryUser, spec: Path) -> None:
    planned = documents(user.call("plan", spec, "--json"))
    assert len(planned["kernels"]) == 1
    built = documents(user.call("build", spec, "--json"))
    assert (built["built"], built["failed"]) == (1, [])
    assert list((user.folder / "tmp").iterdir()) == []
    assert Path(built["manifest"]).is_relative_to(user.folder / "home" / ".cache" / "fa4-precompile")
    (listed,) = documents(user.call("ls", "--json"))
    assert f"kernel:       {listed['kernel']}" in user.call("show", listed["kernel"][:12]).out
    assert "is whole: 1 kernel" in user.call("verify").err
    assert user.call("check", spec).out == "b200: spec is here whole and fits: 1 kernel\n"
    assert user.call("doctor", "--role", "job").code == 0
    again = documents(user.call("build", spec, "--json"))
    assert (again["built"], again["cached"]) == (0, 1)

    job = "import flash_attn.cute.interface as fa4, fa4_precompile; print(fa4_precompile.stats().resolved)"
    done = user.call("run", "--strict", "--", user.python, "-c", f"import torch; {job}")
    assert (done.code, done.out) == (0, "0\n"), done.err
    assert user.call("run", "--", "sh", "-c", "exit 7").code == 7


# Caches of others


@only_root
@pytest.mark.parametrize("what", _READS)
def test_cache_of_root_is_trusted_and_read(user: OrdinaryUser, cache: Path, spec: Path, what: str) -> None:
    before = snapshot(cache)
    assert _read(user, what, cache, spec).code == 0
    assert snapshot(cache) == before


@only_root
def test_build_of_what_a_cache_of_root_has_needs_no_write_and_of_more_ends_with_three(
    user: OrdinaryUser, cache: Path, spec: Path
) -> None:
    assert "2 already there" in user.call("build", spec, "--cache", cache).err
    more = user.folder / "more.yaml"
    more.write_text(SPEC.format(targets="b200").replace("64", "128"))
    error = require_error(user.call("build", more, "--cache", cache), 3)
    assert f"can't write to the cache `{cache}`: Permission denied" in error
    assert "hint: name a folder that you can write with `--cache DIR`" in error
    assert "asking" not in error


@only_root
@pytest.mark.parametrize("what", [*_READS, "build"])
def test_cache_of_another_user_is_refused(user: OrdinaryUser, cache: Path, spec: Path, what: str) -> None:
    replace(user, who={"user": 12345, "group": 12345}).own(cache)
    done = user.call("build", spec, "--cache", cache) if what == "build" else _read(user, what, cache, spec)
    assert f"`{cache}` is not trusted: it belongs to user 12345" in done.out + done.err
    assert f"`chmod go-w {cache}`" in done.out + done.err
    assert done.code == (1 if what == "doctor" else 4)


# What may not be read

_CODES = {
    "records": {"ls": 1, "show": 1, "verify": 1, "check": 1, "doctor": 1, "run": 0},
    "blobs": {"ls": 1, "show": 1, "verify": 1, "check": 1, "doctor": 1, "run": 0},
    "toolchains": {"ls": 1, "show": 1, "verify": 1, "check": 1, "doctor": 1, "run": 0},
    "manifests": {"ls": 1, "show": 1, "verify": 1, "check": 1, "doctor": 1, "run": 0},
}


@pytest.mark.parametrize("what", _READS)
@pytest.mark.parametrize("part", _CODES)
def test_part_that_may_not_be_read_is_a_finding_of_those_who_need_it(
    user: OrdinaryUser, cache: Path, spec: Path, part: str, what: str
) -> None:
    kernel = _any_kernel(cache)
    user.own(cache)
    with _closed(cache / part):
        done = user.call("show", kernel, "--cache", cache) if what == "show" else _read(user, what, cache, spec)
    assert done.code == _CODES[part][what]
    assert ("Permission denied" in done.out + done.err) == bool(done.code)
    if done.code and what != "doctor":
        assert "hint: let your user read" in done.err


@pytest.mark.parametrize("part", ["records", "blobs", "blobs/sha256", "toolchains", "manifests", "."])
def test_build_where_a_part_may_not_be_read_ends_with_three_before_anything_is_asked(
    user: OrdinaryUser, cache: Path, spec: Path, part: str
) -> None:
    changed = user.folder / "changed.yaml"
    changed.write_text(spec.read_text().replace("64", "128"))
    user.own(cache)
    with _closed(cache / part):
        error = require_error(user.call("build", changed, "--cache", cache), 3)
    assert f"can't write to the cache `{cache}`: Permission denied" in error
    assert "hint: name a folder that you can write with `--cache DIR`" in error
    assert "asking" not in error


@only_root
@pytest.mark.parametrize("pattern", ["records/*/??", "blobs/sha256/??", "manifests/*", "toolchains"])
def test_build_after_root_has_built_into_the_same_cache_ends_with_three_before_anything_is_asked(
    user: OrdinaryUser, cache: Path, pattern: str
) -> None:
    changed = user.folder / "changed.yaml"
    changed.write_text(SPEC.format(targets="b200").replace("64", "128"))
    folder = next(cache.glob(pattern))
    user.own(cache)
    os.chown(folder, 0, 0)
    error = require_error(user.call("build", changed, "--cache", cache), 3)
    assert f"can't write to the cache `{cache}`: Permission denied (`{folder.relative_to(cache)}`)" in error
    assert "asking" not in error


def test_file_that_may_not_be_read_is_a_finding(user: OrdinaryUser, cache: Path, spec: Path) -> None:
    user.own(cache)
    with _closed(next(cache.glob("records/*/*/*.json"))) as _:
        for what in ("ls", "verify", "check"):
            done = user.call(*((what, spec) if what == "check" else (what,)), "--cache", cache)
            assert done.code == 1
            assert "Permission denied" in done.out + done.err


@pytest.mark.parametrize("what", _READS)
def test_root_that_may_not_be_read_is_one_sentence(user: OrdinaryUser, cache: Path, spec: Path, what: str) -> None:
    kernel = _any_kernel(cache)
    user.own(cache)
    with _closed(cache):
        done = user.call("show", kernel, "--cache", cache) if what == "show" else _read(user, what, cache, spec)
    assert f"`{cache}`: can't be read: Permission denied" in done.out + done.err
    assert "let your user read it, or name another with `--cache DIR`" in done.out + done.err
    assert done.code == (1 if what == "doctor" else 2)


# Homes

_HOMES = ("/nonexistent", "closed", "read-only")


@pytest.fixture(params=_HOMES)
def home(request: pytest.FixtureRequest, user: OrdinaryUser) -> Iterator[str]:
    """A home that is not there, may not be looked into, or may not be written."""
    folder = user.folder / request.param
    if request.param.startswith("/"):
        yield request.param
        return
    folder.mkdir(exist_ok=True)
    user.own(folder)
    folder.chmod(0 if request.param == "closed" else 0o555)
    yield str(folder)
    folder.chmod(0o755)


def _require_no_cache(user: OrdinaryUser, spec: Path, home: str) -> None:
    root = Path(home, ".cache", "fa4-precompile")
    for arguments in (("ls",), ("show", "abc"), ("verify",), ("check", spec), ("run", "--", "true")):
        error = require_error(user.call(*arguments, HOME=home), 2)
        assert f"`{root}`: " in error
        assert "hint: " in error
    assert user.call("targets", HOME=home).code == 0


def test_home_in_which_there_can_be_no_cache_is_one_sentence(user: OrdinaryUser, spec: Path, home: str) -> None:
    _require_no_cache(user, spec, home)
    error = require_error(user.call("build", spec, HOME=home), 3)
    assert f"can't write to the cache `{home}/.cache/fa4-precompile`: Permission denied" in error
    assert "hint: name a folder that you can write with `--cache DIR`" in error


@pytest.mark.parametrize("role", ["build", "job"])
def test_doctor_says_that_no_cache_can_be_made_in_such_a_home(user: OrdinaryUser, home: str, role: str) -> None:
    done = user.call("doctor", "--role", role, "--json", HOME=home)
    (cache,) = [item for item in documents(done) if item["what"] == "cache"]
    assert done.code == 1
    assert not cache["ok"]
    assert "can't be " in cache["found"]
    assert "name " in cache["mend"]


def test_home_without_a_cache_is_said_and_a_build_makes_one(user: OrdinaryUser, spec: Path) -> None:
    home = user.folder / "empty"
    home.mkdir()
    user.own(home)
    _require_no_cache(user, spec, str(home))
    done = user.call("doctor", "--role", "build", HOME=str(home))
    assert (done.code, "`fa4-precompile build` makes a cache there" in done.out) == (0, True)
    assert list(home.iterdir()) == []


@only_root
def test_user_id_without_an_account_and_a_home_is_told_to_name_a_cache(user: OrdinaryUser, spec: Path) -> None:
    somebody = replace(user, who=NO_ACCOUNT)
    for arguments in (("ls",), ("check", spec), ("build", spec), ("run", "--", "true")):
        error = require_error(somebody.call(*arguments, HOME=None), 2)
        assert "there is no home folder to keep a cache in" in error
        assert "hint: name one with `--cache DIR`" in error
    done = somebody.call("doctor", HOME=None)
    assert (done.code, "FAIL cache: there is no home folder" in done.out) == (1, True)
    assert somebody.call("targets", HOME=None).code == 0
