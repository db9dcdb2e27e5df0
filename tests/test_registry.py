"""Which providers there are, and whose a package is."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fa4_precompile.errors import MachineError
from fa4_precompile.providers.registry import (
    DEFAULT,
    GROUP,
    find_provider,
    provider_carried_by,
    provider_names,
    provider_of,
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that registers what can't be imported, beside one that takes the default's name."""
    entries = [EntryPoint("broken", "nowhere.at:all", GROUP), EntryPoint(DEFAULT.name, "nowhere.at:all", GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == GROUP else [])


def test_default_is_found_by_its_name_and_by_its_package() -> None:
    assert find_provider("flash-attn-4") is DEFAULT
    assert provider_of("flash_attn.cute") is DEFAULT
    assert DEFAULT.is_default
    assert find_provider("flash-attn-5") is None


def test_package_that_nobody_claims_carries_the_defaults_code() -> None:
    provider = provider_of("vllm.vllm_flash_attn.cute")
    assert (provider.name, provider.package, provider.is_default) == (
        "flash-attn-4",
        "vllm.vllm_flash_attn.cute",
        False,
    )
    assert provider == DEFAULT.under("vllm.vllm_flash_attn.cute")


def test_provider_travels_to_a_fork_server() -> None:
    provider = DEFAULT.under("flash_attn_cute")
    assert pickle.loads(pickle.dumps(provider)) == provider


@pytest.mark.usefixtures("broken")
def test_provider_that_can_not_be_imported_is_an_error_that_names_it_where_it_is_asked_for() -> None:
    assert provider_names() == ["broken", "flash-attn-4"]
    with pytest.raises(MachineError, match=r"provider `broken` can't be imported from `nowhere\.at:all`"):
        find_provider("broken")


@pytest.mark.usefixtures("broken")
def test_broken_registration_does_not_keep_a_package_from_its_provider() -> None:
    assert provider_of("flash_attn_cute") == DEFAULT.under("flash_attn_cute")


def test_provider_that_calls_itself_otherwise_is_refused_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "fa4_precompile.providers.registry:DEFAULT", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    with pytest.raises(MachineError, match=r"`mine` is registered as .* calls itself `flash-attn-4`"):
        find_provider("mine")


@pytest.mark.usefixtures("broken")
def test_registration_of_others_does_not_reach_the_default() -> None:
    assert find_provider(DEFAULT.name) is DEFAULT
    assert provider_of(DEFAULT.package) is DEFAULT


def test_job_is_told_of_a_provider_that_can_not_be_imported(broken: None, caplog: pytest.LogCaptureFixture) -> None:
    provider_of("bk_kernels")
    assert "provider `broken` can't be imported" in caplog.text
    assert "if `bk_kernels` is its package" in caplog.text


_SOURCE = b"def flash_attn_func(): ...\n"


def _install(site: Path, name: str, source: bytes) -> None:
    """Lay down what pip would of a distribution that has the default's package."""
    (site / "flash_attn" / "cute").mkdir(parents=True, exist_ok=True)
    (site / "flash_attn" / "cute" / "interface.py").write_bytes(source)
    folder = site / f"{name.replace('-', '_')}-4.0.0.post7.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.0.0.post7\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(source).digest()).decode().rstrip("=")
    (folder / "RECORD").write_text(
        f"flash_attn/cute/interface.pyi,,\nflash_attn/cute/interface.py,sha256={digest},{len(source)}\n"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_version_is_that_of_the_distribution_that_has_the_package_whatever_its_name(site: Path) -> None:
    _install(site, "tokenspeed-fa4", _SOURCE)
    assert (DEFAULT.distribution, DEFAULT.version()) == ("tokenspeed-fa4", "4.0.0.post7")


def test_distribution_that_was_installed_over_another_is_the_one_whose_file_is_there(site: Path) -> None:
    for name in ("zz-first", "aa-second", "mm-last"):
        _install(site, name, _SOURCE + name.encode())
    assert DEFAULT.distribution == "mm-last"


def test_broken_metadata_of_others_does_not_keep_the_version(site: Path) -> None:
    _install(site, "tokenspeed-fa4", _SOURCE)
    (site / "aaa-1.dist-info").mkdir()
    (site / "aaa-1.dist-info" / "RECORD").write_bytes(b"flash_attn/cute/interface.py,,\n\xff")
    assert DEFAULT.distribution == "tokenspeed-fa4"


def test_package_that_no_distribution_lists_is_the_default_or_unknown(site: Path) -> None:
    (site / "flash_attn_cute").mkdir()
    (site / "flash_attn_cute" / "interface.py").write_bytes(_SOURCE)
    assert provider_of("flash_attn_cute").version() == "unknown"
    with pytest.raises(MachineError, match="`nowhere` is not installed"):
        provider_of("nowhere.cute").version()


def test_interface_that_is_loaded_when_it_is_first_used_is_not_woken(tmp_path: Path) -> None:
    (tmp_path / "interface.py").write_text("raise AssertionError('nobody has used it')\n")
    spec = importlib.util.spec_from_file_location("madeup.interface", tmp_path / "interface.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    importlib.util.LazyLoader(spec.loader).exec_module(module)
    assert not DEFAULT.is_interface(module)
    assert provider_carried_by(module) is None
