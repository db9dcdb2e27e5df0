"""The settings of a process: what the environment says, and what holds where it says nothing."""

from __future__ import annotations

import dataclasses
import os
import pwd
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fa4_precompile
from fa4_precompile import install
from fa4_precompile.cache.fit import Fit
from fa4_precompile.cache.seal import Vouchers
from fa4_precompile.cache.trust import Trust
from fa4_precompile.errors import UsageError
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters=":/\0"), min_size=1, max_size=20)
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(lambda names: Path("/", *names))
_REPORTS = st.one_of(
    st.just((False, None)), st.just((True, None)), _PATHS.filter(lambda path: path.name != "").map(lambda p: (False, p))
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _no_account(number: int) -> NoReturn:
    raise KeyError(f"getpwuid(): uid not found: {number}")


# Roots


def test_from_env_nothing_set_is_the_users_cache_folder(home: Path) -> None:
    assert Config.from_env({"HOME": str(home)}).roots == (home / ".cache" / "fa4-precompile",)


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("below", ["", "gone", "gone/deeper"])
def test_from_env_default_where_anybody_can_be_first_is_an_error(tmp_path: Path, variable: str, below: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)  # as /tmp is
    base = tmp_path / "shared" / below
    with pytest.raises(UsageError, match="where anybody can be first"):
        Config.from_env({variable: str(base)})
    assert Config.from_env({variable: str(base), "FA4_PRECOMPILE_CACHE": "/a"}).roots == (Path("/a"),)
    if not below:
        (base / "mine").mkdir()
        assert Config.from_env({variable: str(base / "mine")}).roots[0].is_relative_to(base / "mine")


def test_from_env_root_with_a_nul_is_an_error() -> None:
    with pytest.raises(UsageError, match="no name that a folder can have"):
        Config.from_env({}, roots=[Path("a\0b")])


def test_from_env_xdg_cache_home_moves_the_default() -> None:
    assert Config.from_env({"XDG_CACHE_HOME": "/var/cache/me"}).roots == (Path("/var/cache/me/fa4-precompile"),)


@pytest.mark.parametrize("value", ["", "relative/folder", "."])
def test_from_env_xdg_cache_home_that_is_not_absolute_is_ignored(home: Path, value: str) -> None:
    environment = {"XDG_CACHE_HOME": value, "HOME": str(home)}
    assert Config.from_env(environment).roots == (home / ".cache" / "fa4-precompile",)


@pytest.mark.parametrize(
    ("value", "roots"),
    [
        ("/opt/kernels", ["/opt/kernels"]),
        ("/opt/kernels:/mine", ["/opt/kernels", "/mine"]),
        ("/mine:/opt/kernels", ["/mine", "/opt/kernels"]),
        ("/a:/b:/c:/a", ["/a", "/b", "/c", "/a"]),
        (":/opt/kernels::", ["/opt/kernels"]),
        ("/with space:/b", ["/with space", "/b"]),
    ],
)
def test_from_env_named_roots_are_searched_in_their_order(value: str, roots: list[str]) -> None:
    environment = {"FA4_PRECOMPILE_CACHE": value, "XDG_CACHE_HOME": "/unused"}
    assert Config.from_env(environment).roots == tuple(map(Path, roots))


@pytest.mark.parametrize("value", ["", ":", "::"])
def test_from_env_no_root_named_is_as_if_unset(home: Path, value: str) -> None:
    environment = {"FA4_PRECOMPILE_CACHE": value, "HOME": str(home)}
    assert Config.from_env(environment).roots == (home / ".cache" / "fa4-precompile",)


def test_from_env_relative_roots_stay_what_they_are_when_the_job_changes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.from_env({"FA4_PRECOMPILE_CACHE": "kernels:/opt/kernels:a/b"})
    assert config.roots == (tmp_path / "kernels", Path("/opt/kernels"), tmp_path / "a" / "b")


def test_from_env_reads_the_process_where_no_mapping_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4_PRECOMPILE_CACHE", "/set/later")
    assert Config.from_env().roots == (Path("/set/later"),)


def test_from_env_user_without_a_home_folder_is_told_to_name_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", _no_account)
    with pytest.raises(UsageError, match="no home folder") as caught:
        Config.from_env({})
    assert "--cache DIR" in caught.value.hint
    assert Config.from_env({"FA4_PRECOMPILE_CACHE": "/opt/kernels"}).roots == (Path("/opt/kernels"),)


def test_install_with_a_root_needs_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", _no_account)
    for name in ("HOME", "XDG_CACHE_HOME", "FA4_PRECOMPILE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    fa4_precompile.install(tmp_path / "kernels")
    fa4_precompile.uninstall()


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}], ids=["unset", "empty"])
def test_from_env_without_a_home_takes_the_accounts(environment: dict[str, str]) -> None:
    folder = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert Config.from_env(environment).roots == (folder / ".cache" / "fa4-precompile",)


def test_install_with_a_root_that_is_an_unset_variable_does_not_take_the_working_folder() -> None:
    with pytest.raises(UsageError, match="the name of a root is empty"):
        fa4_precompile.install("", on_miss="store")


def test_from_env_reads_home_from_the_mapping_that_is_given() -> None:
    assert Config.from_env({"HOME": "/home/other"}).roots == (Path("/home/other/.cache/fa4-precompile"),)


# What a miss does


@pytest.mark.parametrize("choice", OnMiss, ids=lambda choice: choice.value)
def test_from_env_on_miss_takes_each_of_its_words(choice: OnMiss) -> None:
    assert Config.from_env({"FA4_PRECOMPILE_ON_MISS": choice.value}).on_miss is choice


@pytest.mark.parametrize("environment", [{}, {"FA4_PRECOMPILE_ON_MISS": ""}], ids=["unset", "empty"])
def test_from_env_on_miss_that_is_not_set_is_warn(environment: dict[str, str]) -> None:
    assert Config.from_env(environment).on_miss is OnMiss.WARN


@pytest.mark.parametrize("value", ["eror", "ERROR", " error", "1", "strict"])
def test_from_env_on_miss_with_another_word_names_the_variable_and_what_is_allowed(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_env({"FA4_PRECOMPILE_ON_MISS": value})
    assert f"FA4_PRECOMPILE_ON_MISS={value}" in str(caught.value)
    nearest = "did you mean `error`? " if value in ("eror", " error") else ""
    assert caught.value.hint == f"{nearest}allowed: error, warn, compile, store"


@pytest.mark.parametrize(
    ("environment", "fit"),
    [
        ({}, Fit.COMPATIBLE),
        ({"FA4_PRECOMPILE_ON_MISS": "store", "FA4_PRECOMPILE_TOOLCHAIN": ""}, Fit.COMPATIBLE),
        ({"FA4_PRECOMPILE_ON_MISS": "error"}, Fit.EXACT),
        ({"FA4_PRECOMPILE_ON_MISS": "error", "FA4_PRECOMPILE_TOOLCHAIN": "compatible"}, Fit.COMPATIBLE),
        ({"FA4_PRECOMPILE_TOOLCHAIN": "exact"}, Fit.EXACT),
    ],
    ids=str,
)
def test_from_env_toolchain_has_to_be_exact_where_nothing_may_be_compiled_unless_it_is_said(
    environment: dict[str, str], fit: Fit
) -> None:
    assert Config.from_env(environment).fit is fit


def test_override_of_on_miss_brings_its_toolchain_along_and_one_that_is_chosen_stays() -> None:
    assert Config.from_env({}).override(on_miss=OnMiss.ERROR).fit is Fit.EXACT
    chosen = Config.from_env({}).override(toolchain=Fit.COMPATIBLE)
    assert chosen.override(on_miss=OnMiss.ERROR).fit is Fit.COMPATIBLE


def test_toolchain_that_is_misspelt_is_answered_with_the_nearest() -> None:
    for ask in (
        lambda: Config.from_env({"FA4_PRECOMPILE_TOOLCHAIN": "exct"}),
        lambda: fa4_precompile.install("/opt/kernels", toolchain="exct"),
    ):
        with pytest.raises(UsageError, match=r"exct'?` can't be meant") as caught:
            ask()
        assert caught.value.hint == "did you mean `exact`? allowed: exact, compatible"


# Settings that are chosen by other means than the environment


def test_override_changes_what_is_given_and_nothing_else() -> None:
    config = Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", "FA4_PRECOMPILE_REPORT": "1"})
    assert config.override() == config
    changed = config.override(on_miss=OnMiss.ERROR, allow_untrusted=True, modules=["flash_attn_cute"])
    assert (changed.on_miss, changed.trust, changed.modules) == (OnMiss.ERROR, Trust.ANY, ("flash_attn_cute",))
    assert (changed.roots, changed.report) == (config.roots, True)
    assert changed.override(allow_untrusted=False).trust is Trust.OWN


@pytest.mark.parametrize(
    ("report", "expected"),
    [(True, (True, None)), (False, (False, None)), (Path("/report"), (False, Path("/report")))],
    ids=str,
)
def test_override_of_the_report_is_a_sentence_a_file_or_none(
    report: bool | Path, expected: tuple[bool, Path | None]
) -> None:
    for environment in ({}, {"FA4_PRECOMPILE_REPORT": "1"}, {"FA4_PRECOMPILE_REPORT": "/other"}):
        config = Config.from_env(environment).override(report=report)
        assert (config.report, config.report_file) == expected


def test_override_with_no_package_is_refused() -> None:
    with pytest.raises(UsageError, match="names no package"):
        Config.from_env({}).override(modules="")


# The report


@pytest.mark.parametrize("environment", [{}, {"FA4_PRECOMPILE_REPORT": ""}, {"FA4_PRECOMPILE_REPORT": "0"}], ids=str)
def test_from_env_there_is_no_report_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    config = Config.from_env(environment)
    assert (config.report, config.report_file) == (False, None)


def test_from_env_report_one_is_a_sentence_and_no_file() -> None:
    config = Config.from_env({"FA4_PRECOMPILE_REPORT": "1"})
    assert (config.report, config.report_file) == (True, None)


def test_from_env_report_that_is_a_path_is_a_file_wherever_the_job_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value, file in [("/var/log/fa4.jsonl", Path("/var/log/fa4.jsonl")), ("fa4.jsonl", tmp_path / "fa4.jsonl")]:
        config = Config.from_env({"FA4_PRECOMPILE_REPORT": value})
        assert (config.report, config.report_file) == (False, file)


# The provider's package


@pytest.mark.parametrize(
    ("value", "modules"),
    [
        ("", ()),
        ("flash_attn_cute", ("flash_attn_cute",)),
        ("flash_attn.cute, vllm.vllm_flash_attn.cute,", ("flash_attn.cute", "vllm.vllm_flash_attn.cute")),
        ("flash_attn_cute,flash_attn_cute", ("flash_attn_cute",)),
    ],
)
def test_from_env_modules_are_a_list_and_none_for_all_that_the_process_imports(
    value: str, modules: tuple[str, ...]
) -> None:
    assert Config.from_env({"FA4_PRECOMPILE_MODULE": value}).modules == modules


def test_from_env_module_with_a_slash_is_a_folder_wherever_the_job_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.from_env({"FA4_PRECOMPILE_MODULE": "./cuda,/opt/kernels/cuda,flash_attn.cute"})
    assert config.modules == (str(tmp_path / "cuda"), "/opt/kernels/cuda", "flash_attn.cute")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FA4_PRECOMPILE_COMPILER", "none", "`FA4_PRECOMPILE_COMPILER=none` can't be meant"),
        ("FA4_PRECOMPILE_DSL_USERS", "my-masks", "no module can be called `my-masks`"),
    ],
)
def test_from_env_setting_of_a_job_without_the_compiler_that_cannot_be_meant_is_refused(
    name: str, value: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Config.from_env({name: value})


@pytest.mark.parametrize("value", ["flash-attn-4", "flash_attn.cute:flash_attn_cute", "a..b", "a b"])
def test_from_env_module_that_no_package_can_be_called_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="no package can be called"):
        Config.from_env({"FA4_PRECOMPILE_MODULE": value})


def test_render_of_a_folder_with_the_separator_in_its_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`/opt/a,b` can't be named to a job: `,` separates what FA4_PRECOMPILE_MODU"):
        Config((Path("/mine"),), modules=("/opt/a,b",)).render()


def test_from_env_without_a_module_names_none() -> None:
    assert Config.from_env({}).modules == ()


# Trust


@pytest.mark.parametrize(("value", "trust"), [("1", Trust.ANY), ("0", Trust.OWN), ("", Trust.OWN)])
def test_from_env_allow_untrusted_is_a_flag(value: str, trust: Trust) -> None:
    assert Config.from_env({"FA4_PRECOMPILE_ALLOW_UNTRUSTED": value}).trust is trust


@pytest.mark.parametrize("value", ["yes", "true", "2", "01", " 1"])
def test_from_env_allow_untrusted_that_is_no_flag_is_refused_not_guessed(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_env({"FA4_PRECOMPILE_ALLOW_UNTRUSTED": value})
    assert f"FA4_PRECOMPILE_ALLOW_UNTRUSTED={value}" in str(caught.value)
    assert caught.value.hint == "allowed: 0, 1"


def test_config_trusts_its_own_files_only_unless_told_otherwise() -> None:
    assert Config.from_env({}).trust is Trust.OWN


# To another process


@given(
    roots=st.lists(_PATHS, min_size=1, max_size=4).map(tuple),
    trust=st.sampled_from(Trust),
    on_miss=st.sampled_from(OnMiss),
    report=_REPORTS,
    modules=st.sampled_from([(), ("flash_attn.cute",), ("flash_attn_cute", "vllm.vllm_flash_attn.cute")]),
    vouchers=st.builds(
        Vouchers,
        st.frozensets(st.sampled_from(["a" * 64, "0" * 64]), max_size=2),
        st.lists(_PATHS.filter(lambda path: str(path) == str(path).strip()), max_size=2, unique=True).map(tuple),
    ),
    toolchain=st.sampled_from([None, *Fit]),
)
def test_render_is_read_by_another_process_as_the_same_settings(
    roots: tuple[Path, ...],
    trust: Trust,
    on_miss: OnMiss,
    report: tuple[bool, Path | None],
    modules: tuple[str, ...],
    vouchers: Vouchers,
    toolchain: Fit | None,
) -> None:
    config = Config(roots, trust, on_miss, *report, modules, vouchers=vouchers, toolchain=toolchain)
    assert Config.from_env(config.render()) == config


def test_render_says_every_setting_so_that_nothing_is_inherited_from_around_it() -> None:
    inherited = Config(
        (Path("/other"),),
        Trust.ANY,
        OnMiss.STORE,
        False,
        Path("/other.jsonl"),
        ("other",),
        vouchers=Vouchers(frozenset({"a" * 64}), (Path("/key.pem"),)),
        toolchain=Fit.EXACT,
    ).render()
    config = Config((Path("/mine"),))
    assert Config.from_env({**inherited, **config.render()}) == config


def test_render_of_a_root_with_the_separator_in_its_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`/opt/a:b` can't be named to a job: `:` separates .* FA4_PRECOMPILE_CACHE"):
        Config((Path("/mine"), Path("/opt/a:b"))).render()


def test_words_that_are_no_fingerprint_are_refused() -> None:
    with pytest.raises(UsageError, match="`latest` is no fingerprint"):
        Config.from_env({"FA4_PRECOMPILE_EXPECT": "latest"})
    with pytest.raises(UsageError, match="`sha256:"):
        Config((Path("/mine"),)).override(expect=["sha256:" + "a" * 64])


@pytest.mark.parametrize(
    ("name", "value"),
    [("FA4_PRECOMPILE_EXPECT", " , "), ("FA4_PRECOMPILE_EXPECT", ","), ("FA4_PRECOMPILE_TRUST_KEY", ":")],
)
def test_variable_that_keeps_others_out_and_names_nothing_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="names nothing"):
        Config.from_env({name: value})


def test_word_that_is_empty_takes_the_place_of_no_fingerprint_or_key() -> None:
    config = Config((Path("/mine"),), vouchers=Vouchers(frozenset({"a" * 64})))
    with pytest.raises(UsageError) as caught:
        config.override(expect=[""])
    assert "is a variable not set?" in caught.value.hint
    with pytest.raises(UsageError, match="name of a key is empty"):
        install(trust_key="")
    with pytest.raises(UsageError, match="is no fingerprint"):
        install(expect="")


def test_key_with_the_separator_in_its_name_can_not_be_told_to_a_job() -> None:
    with pytest.raises(UsageError, match="separates the keys"):
        Config((Path("/mine"),), vouchers=Vouchers(keys=(Path("/a:b.pub"),))).render()


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.from_env({}).roots = ()  # type: ignore[misc]
