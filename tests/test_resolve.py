"""From a key to a loaded kernel, over several roots and toolchains.

What is loaded are shared objects that the C compiler makes: functions that return a number, and no kernels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.codec import render_file
from fa4_precompile.cache.fit import Fit
from fa4_precompile.cache.key import BlobDigest, encode_key
from fa4_precompile.cache.outcome import Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record, Reference
from fa4_precompile.cache.seal import NOBODY
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.errors import LoadError, RecordError
from fa4_precompile.loader import resolve as resolve_module
from fa4_precompile.loader.kernel import Kernel
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.products import load
from fa4_precompile.providers.dsl.driver import Device
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT, provider_of
from loadable import B200, KEY, find_kernel, find_miss, fitting_toolchain, loadable_source, publish_loadable
from support import (
    make_manifest,
    make_record,
    make_target,
    overwrite,
    snapshot,
)

# Found


def test_kernel_is_loaded_with_its_record_and_answers(tmp_path: Path) -> None:
    record = publish_loadable(tmp_path / "root", 42)
    kernel = find_kernel(Cache([tmp_path / "root"]))
    assert kernel.function() == 42
    assert kernel.root == tmp_path / "root"
    assert kernel.reference.id == record.id
    assert kernel.reference.record == record
    assert kernel.load_seconds > 0


def test_keys_that_python_finds_equal_find_one_kernel(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "root", 1)
    cache = Cache([tmp_path / "root"])
    assert find_kernel(cache, (64.0, 1, "made up")) is find_kernel(cache, KEY)


def test_roots_are_asked_in_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    publish_loadable(first, 1)
    publish_loadable(second, 2)
    publish_loadable(second, 3, key=encode_key((128,)))
    assert find_kernel(Cache([first, second])).function() == 1
    assert find_kernel(Cache([second, first])).function() == 2
    assert find_kernel(Cache([first, second]), (128,)).function() == 3


def test_kernel_that_asked_the_device_for_nothing_comes_before_one_that_did(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "root", 148, facts={"sms": 148})
    assert find_kernel(Cache([tmp_path / "root"])).function() == 148
    publish_loadable(tmp_path / "root", 1, facts={})
    assert find_kernel(Cache([tmp_path / "root"])).function() == 1


@pytest.mark.parametrize(
    "device",
    [replace(B200, sms=132), replace(B200, sms=0), replace(B200, arch="sm_90a"), replace(B200, arch="sm_100f")],
    ids=["other SMs", "SMs not known", "other arch", "other suffix"],
)
def test_kernel_for_another_device_is_not_found(tmp_path: Path, device: Device) -> None:
    publish_loadable(tmp_path / "root", 1, facts={"sms": 148})
    assert find_miss(Cache([tmp_path / "root"]), device=device).reason is MissReason.ABSENT


def test_device_is_that_of_the_process_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_loadable(tmp_path / "root", 1, facts={"sms": 148})
    asked: list[int] = []

    def ask(sms_variable: str) -> Device:
        asked.append(1)
        return B200

    monkeypatch.setattr(resolve_module, "job_device", ask)
    cache = Cache([tmp_path / "root"])
    assert isinstance(cache.resolve("fwd", KEY), Kernel)
    assert isinstance(cache.resolve("bwd", KEY), Miss)
    assert asked == [1]


def test_kernel_that_is_asked_for_twice_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = publish_loadable(tmp_path / "root", 1)
    opened: list[str] = []
    real = load.open_blob

    def note(blob: bytes, digest: BlobDigest, symbol: str) -> Any:
        opened.append(symbol)
        return real(blob, digest, symbol)

    monkeypatch.setattr(load, "open_blob", note)
    cache = Cache([tmp_path / "root"])
    kernel = find_kernel(cache)
    assert find_kernel(cache) is kernel
    assert cache.load(Root(tmp_path / "root"), record.toolchain, record.id) is kernel
    assert opened == [record.symbol]


def test_load_finds_a_kernel_by_its_id(tmp_path: Path) -> None:
    record = publish_loadable(tmp_path / "root", 5)
    cache, root = Cache([tmp_path / "root"]), Root(tmp_path / "root")
    kernel = cache.load(root, record.toolchain, record.id)
    assert isinstance(kernel, Kernel)
    assert kernel.function() == 5
    other = cache.load(root, record.toolchain, make_record().id)
    assert isinstance(other, Miss)
    assert other.reason is MissReason.ABSENT


# Toolchains


def test_toolchain_that_differs_in_what_does_not_matter_at_run_time_fits(tmp_path: Path) -> None:
    other = replace(fitting_toolchain(), dsl={"nvidia-cutlass-dsl": "9"}, provider_version="9")
    publish_loadable(tmp_path / "root", 7, toolchain=other)
    assert find_kernel(Cache([tmp_path / "root"])).function() == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider_source": "f" * 64}, "provider source ffffffffffff there"),
        ({"tvm_ffi": "99.0.1"}, "TVM-FFI 99.0 there"),
        ({"machine": "pdp11"}, "host pdp11 there"),
    ],
    ids=lambda value: "",
)
def test_toolchain_that_does_not_fit_is_a_miss_that_names_the_difference(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    publish_loadable(tmp_path / "root", 1, toolchain=replace(fitting_toolchain(), **change))
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is MissReason.TOOLCHAIN
    assert words in miss.detail
    assert str(tmp_path / "root") in miss.detail


def test_toolchain_that_does_not_fit_does_not_hide_one_that_does(tmp_path: Path) -> None:
    for number in range(4):
        other = replace(fitting_toolchain(), provider_source=f"{number}" * 64)
        publish_loadable(tmp_path / "root", number, toolchain=other)
    publish_loadable(tmp_path / "root", 42)
    assert find_kernel(Cache([tmp_path / "root"])).function() == 42


def test_toolchain_that_is_installed_is_preferred(tmp_path: Path) -> None:
    installed = installed_toolchain(DEFAULT)
    for number in range(6):  # by their ids alone, one of these would be the first
        other = replace(installed, dsl={"nvidia-cutlass-dsl": f"0.{number}"})
        publish_loadable(tmp_path / "root", number, toolchain=other)
    publish_loadable(tmp_path / "root", 42, toolchain=installed)
    assert find_kernel(Cache([tmp_path / "root"])).function() == 42


def test_toolchain_that_is_published_later_is_seen_after_refresh(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "root", 1, key=encode_key((1,)))
    cache = Cache([tmp_path / "root"])
    assert find_miss(cache).reason is MissReason.ABSENT
    publish_loadable(tmp_path / "root", 2, toolchain=replace(fitting_toolchain(), provider_version="later"))
    cache.refresh()
    assert find_kernel(cache).function() == 2


def test_root_that_is_made_later_is_seen(tmp_path: Path) -> None:
    cache = Cache([tmp_path / "root"])
    assert find_miss(cache).reason is MissReason.LAYOUT
    publish_loadable(tmp_path / "root", 2)
    assert find_kernel(cache).function() == 2


# Manifests


def test_manifests_are_those_of_the_device_and_of_what_is_installed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    here = publish_loadable(one, 1)
    elsewhere = publish_loadable(one, 2, toolchain=replace(fitting_toolchain(), provider_source="f" * 64))
    there = publish_loadable(two, 3)
    builds: list[tuple[Path, Record, dict[str, Any]]] = [
        (one, here, {"spec": "right"}),
        (one, here, {"target": make_target(sms=132)}),
        (one, here, {"target": make_target(arch="sm_90a")}),
        (one, elsewhere, {}),
        (two, there, {"spec": "also right", "spec_digest": "e" * 64}),
    ]
    for root, record, changes in builds:
        Publisher(Root(root)).publish_manifest(make_manifest(record, toolchain=record.toolchain, **changes))
    overwrite(Publisher(Root(two)).publish_manifest(make_manifest(there, toolchain=there.toolchain)), b"damaged")
    found = Cache([one, two, tmp_path / "gone"]).manifests(B200)
    assert [(root.path, manifest.spec) for root, manifest in found] == [(one, "right"), (two, "also right")]


# Initializers


def test_initialize_calls_the_kernels_own_initializer(tmp_path: Path) -> None:
    # It makes the function answer another number, as loading a cubin makes it able to run.
    source = loadable_source("number", initializer="number = 2; return 0;")
    publish_loadable(tmp_path / "root", 1, source=f"static long number = 1;\n{source}")
    kernel = find_kernel(Cache([tmp_path / "root"]))
    assert kernel.function() == 1
    kernel.initialize()
    assert kernel.function() == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (loadable_source(1, initializer="return 1;"), "the driver does not take its cubin"),
        (loadable_source(1).replace("SYMBOL_init", "SYMBOL_other"), "it has no initializer"),
    ],
    ids=["returns an error", "is not there"],
)
def test_initialize_that_fails_is_a_load_error(tmp_path: Path, source: str, words: str) -> None:
    record = publish_loadable(tmp_path / "root", 1, source=source)
    with pytest.raises(LoadError, match=f"`{record.symbol}` does not load: {words}"):
        find_kernel(Cache([tmp_path / "root"])).initialize()


# Promises


def test_nothing_is_written_whatever_is_asked(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    record = publish_loadable(good, 1)
    Publisher(Root(good)).publish_manifest(make_manifest(record, toolchain=record.toolchain))
    publish_loadable(bad, 2, toolchain=replace(fitting_toolchain(), machine="pdp11"))
    before = snapshot(good), snapshot(bad)
    cache = Cache([tmp_path / "gone", bad, good])
    cache.prepare()
    find_kernel(cache).initialize()
    find_miss(cache, (1, 2, 3))
    assert cache.manifests(B200)
    assert len(cache.catalog) == 2
    cache.load(Root(good), record.toolchain, record.id)
    cache.refresh()
    assert (snapshot(good), snapshot(bad)) == before
    assert not (tmp_path / "gone").exists()


def test_catalog_has_every_record_and_what_keeps_it_from_running_here(tmp_path: Path) -> None:
    fits = publish_loadable(tmp_path / "a", 1)
    unfit = publish_loadable(tmp_path / "b", 2, toolchain=replace(fitting_toolchain(), machine="pdp11"))
    lost = publish_loadable(tmp_path / "c", 3, key=encode_key((3,)))
    (tmp_path / "c" / "toolchains" / f"{lost.toolchain}.json").unlink()
    catalog = Cache([tmp_path / name for name in ("a", "b", "c", "gone")]).catalog
    assert [record for record, _, _ in catalog] == [fits, unfit, lost]
    assert [bool(differences) for _, _, differences in catalog] == [False, True, True]


def test_catalog_has_a_kernel_of_several_roots_once(tmp_path: Path) -> None:
    record = publish_loadable(tmp_path / "a", 1)
    publish_loadable(tmp_path / "b", 1)
    assert [found for found, _, _ in Cache([tmp_path / "a", tmp_path / "b"]).catalog] == [record]


def test_prepare_says_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "runtime_library", lambda: None)
    with pytest.raises(LoadError, match=r"`libcute_dsl_runtime\.so` does not load: the run-time library is not"):
        Cache([tmp_path / "root"]).prepare()


def test_reference_of_a_record_that_states_another_id_is_refused() -> None:
    content = {**make_record().render(), "kernel": "0" * 64}
    with pytest.raises(RecordError, match="names another kernel than its content does"):
        Reference.parse_file("made-up.json", render_file(content))


def test_reference_reads_what_a_load_needs_and_leaves_the_rest_for_who_asks() -> None:
    record = make_record()
    reference = Reference.parse_file("made-up.json", record.render_file())
    assert (reference.id, reference.blob, reference.symbol) == (record.id, record.blob, record.symbol)
    assert reference.record == record
    without = render_file({name: value for name, value in record.render().items() if name != "key_fields"})
    with pytest.raises(RecordError, match="has no field `key_fields`"):
        _ = Reference.parse_file("made-up.json", without).record


def test_caches_of_the_same_roots_are_equal_whatever_one_has_found_out(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "root", 1)
    used, fresh = Cache([tmp_path / "root"]), Cache([tmp_path / "root"])
    assert isinstance(used.resolve("fwd", KEY, B200), Kernel)
    assert used == fresh
    assert repr(used) == repr(fresh)
    assert used != Cache([tmp_path / "root"], provider=provider_of("flash_attn_cute"))
    with pytest.raises(TypeError):
        Cache([tmp_path / "root"], Trust.OWN, DEFAULT, NOBODY, (), Fit.EXACT, {})  # type: ignore[call-arg]
