"""Every reason why a key finds no kernel, and that a root which can't answer falls through to the next."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_precompile.cache.outcome import Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.errors import MachineError
from fa4_precompile.loader import resolve as resolve_module
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.dsl.driver import Device
from loadable import B200, KEY, find_kernel, find_miss, fitting_toolchain, loadable_source, publish_loadable
from support import always, blob_file, fail_call, overwrite, record_file


def test_record_whose_arguments_have_names_that_no_function_can_have_is_a_miss(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "kernels", 1, keywords={"x": True, "print('y')": True})
    miss = find_miss(Cache([tmp_path / "kernels"]))
    assert miss.reason is MissReason.LOAD
    assert "no function can take arguments by these names" in miss.detail


def _damage(root: Path, record: Record) -> None:
    overwrite(blob_file(root, record), b"other bytes")


def _damage_record(root: Path, record: Record) -> None:
    path = record_file(root, record)
    overwrite(path, path.read_bytes().replace(b'"cubin_bytes": 5', b'"cubin_bytes": 4'))


def _share(root: Path, record: Record) -> None:
    blob_file(root, record).chmod(0o666)


def _share_toolchains(root: Path, record: Record) -> None:
    (root / "toolchains").chmod(0o777)


def _damage_toolchain(root: Path, record: Record) -> None:
    overwrite(root / "toolchains" / f"{record.toolchain}.json", b"{}")


def _hide(root: Path, record: Record) -> None:
    shutil.rmtree(root / "records")
    (root / "records").write_text("no folder")


def _renumber(root: Path, record: Record) -> None:
    overwrite(root / "format.json", b'{"layout": 2}\n')


def _remove(root: Path, record: Record) -> None:
    shutil.rmtree(root)


def _build_elsewhere(root: Path, record: Record) -> None:
    shutil.rmtree(root)
    publish_loadable(root, 1, toolchain=replace(fitting_toolchain(), machine="pdp11"))


def _remove_record(root: Path, record: Record) -> None:
    record_file(root, record).unlink()


_FAULTS = [
    (_remove_record, MissReason.ABSENT, "has no record of kernel"),
    (_damage, MissReason.DAMAGED, "is damaged: its bytes do not have the digest"),
    (_damage_record, MissReason.DAMAGED, "is damaged: its content does not have the digest"),
    (_damage_toolchain, MissReason.DAMAGED, "/toolchains/"),
    (_share, MissReason.UNTRUSTED, "others can write it"),
    (_share_toolchains, MissReason.UNTRUSTED, "others can write it"),
    (_hide, MissReason.UNREADABLE, "Not a directory"),
    (_renumber, MissReason.LAYOUT, "does not say layout 1"),
    (_remove, MissReason.LAYOUT, "does not exist"),
    (_build_elsewhere, MissReason.TOOLCHAIN, "host pdp11 there"),
]


@pytest.mark.parametrize(("fault", "reason", "words"), _FAULTS, ids=[fault[0].__name__ for fault in _FAULTS])
def test_fault_of_the_only_root_is_a_miss_with_its_reason(
    tmp_path: Path, fault: Callable[[Path, Record], None], reason: MissReason, words: str
) -> None:
    fault(tmp_path / "root", publish_loadable(tmp_path / "root", 1))
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is reason
    assert words in miss.detail
    assert str(tmp_path / "root") in miss.path + miss.detail  # which of several layers it is


def test_kernel_that_needs_a_newer_run_time_library_is_a_miss_that_names_what_to_install(tmp_path: Path) -> None:
    source = f"void CuteDSLRT_Newer(void);\n{loadable_source(1, 'CuteDSLRT_Newer();')}"
    publish_loadable(tmp_path / "root", 1, source=source)
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is MissReason.LOAD
    assert "the run-time libraries that are here don't have `CuteDSLRT_Newer`" in miss.detail
    assert "install the DSL and TVM-FFI that built it, or newer ones" in miss.detail


@pytest.mark.parametrize("fault", [fault[0] for fault in _FAULTS])
def test_fault_of_the_first_root_falls_through_to_the_second(
    tmp_path: Path, fault: Callable[[Path, Record], None]
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    fault(bad, publish_loadable(bad, 1))
    publish_loadable(good, 2)
    assert find_kernel(Cache([bad, good])).function() == 2


def test_faults_of_all_roots_are_told_when_nothing_is_found(tmp_path: Path) -> None:
    gone, other, damaged = tmp_path / "gone", tmp_path / "other", tmp_path / "damaged"
    publish_loadable(other, 1, toolchain=replace(fitting_toolchain(), machine="pdp11"))
    _damage(damaged, publish_loadable(damaged, 2))
    miss = find_miss(Cache([gone, other, damaged]))
    told = {one.reason: one.detail for one in (miss, *miss.others)}
    assert miss.reason is not MissReason.ABSENT
    assert told.keys() >= {MissReason.LAYOUT, MissReason.TOOLCHAIN, MissReason.DAMAGED}
    assert str(gone) in told[MissReason.LAYOUT]
    assert str(other) in told[MissReason.TOOLCHAIN]


def test_root_that_the_system_does_not_let_us_list_makes_no_method_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_loadable(tmp_path / "root", 1)
    cache = Cache([tmp_path / "root"])

    cache.prepare()
    cache.refresh()
    fail_call(monkeypatch, "listdir", errno.EACCES, always)
    assert find_miss(cache).reason is MissReason.UNREADABLE
    assert list(cache.catalog) == []
    assert list(cache.manifests(B200)) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["root", "format.json"])
def test_root_that_the_system_does_not_let_us_open_is_unreadable_and_not_of_another_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    publish_loadable(tmp_path / "root", 1)
    fail_call(monkeypatch, "open", number, lambda path, *_: Path(path).name == name)
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is MissReason.UNREADABLE
    assert os.strerror(number) in miss.detail


def test_untrusted_kernel_is_loaded_where_that_is_allowed(tmp_path: Path) -> None:
    _share(tmp_path / "root", publish_loadable(tmp_path / "root", 1))
    assert find_kernel(Cache([tmp_path / "root"], Trust.ANY)).function() == 1


def test_fault_of_a_later_root_is_the_reason_and_that_the_first_has_no_such_kernel_is_told_too(tmp_path: Path) -> None:
    publish_loadable(tmp_path / "whole", 1)
    miss = find_miss(Cache([tmp_path / "whole", tmp_path / "gone"]), (1, 2))
    assert miss.reason is MissReason.LAYOUT
    assert {other.reason for other in miss.others} == {MissReason.ABSENT}
    assert str(tmp_path / "whole") in miss.others[0].detail


def test_kernel_that_no_root_has_is_told_once_for_each_root(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    publish_loadable(one, 1)
    publish_loadable(one, 2, toolchain=replace(fitting_toolchain(), provider_version="another that fits"))
    publish_loadable(other, 3)
    miss = find_miss(Cache([one, other]), (1, 2))
    told = [each.detail.split("`")[1] for each in (miss, *miss.others)]
    assert told == [str(one), str(other)]


def test_cache_of_no_roots_is_empty() -> None:
    miss = find_miss(Cache([]))
    assert (miss.reason, miss.others) == (MissReason.ABSENT, ())
    assert miss.detail


def test_key_that_cannot_be_written_down_is_a_miss_that_says_where(tmp_path: Path) -> None:
    miss = find_miss(Cache([tmp_path / "root"]), (64, object()))
    assert miss.reason is MissReason.KEY
    assert "position `1` holds a builtins.object" in miss.detail


def test_process_without_a_device_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(sms_variable: str) -> Device:
        raise MachineError("the GPUs of this process differ", "")

    publish_loadable(tmp_path / "root", 1)
    monkeypatch.setattr(resolve_module, "job_device", no_device)
    assert Cache([tmp_path / "root"]).resolve("fwd", KEY) == Miss(MissReason.DEVICE, "the GPUs of this process differ")


def test_bytes_that_are_right_and_do_not_load_are_a_miss_that_names_what_is_missing(tmp_path: Path) -> None:
    call = loadable_source(1, body="int nowhere_at_all(void); nowhere_at_all();")
    publish_loadable(tmp_path / "root", 1, source=call)
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is MissReason.LOAD
    assert "nowhere_at_all" in miss.detail


def test_bytes_without_the_symbol_are_a_miss(tmp_path: Path) -> None:
    record = publish_loadable(tmp_path / "root", 1, source=loadable_source(1).replace("SYMBOL", "fa4_other"))
    miss = find_miss(Cache([tmp_path / "root"]))
    assert miss.reason is MissReason.LOAD
    assert record.symbol in miss.detail


def test_toolchain_that_is_published_while_a_key_is_looked_up_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Publisher(Root(tmp_path / "root")).create()
    real = os.listdir

    def publish_afterwards(folder: int) -> list[str]:
        names = real(folder)
        monkeypatch.setattr(os, "listdir", real)
        publish_loadable(tmp_path / "root", 1)
        return names

    Publisher(Root(tmp_path / "root")).publish_toolchain(replace(fitting_toolchain(), machine="pdp11"))
    monkeypatch.setattr(os, "listdir", publish_afterwards)
    cache = Cache([tmp_path / "root"])
    miss = find_miss(cache)
    assert "host pdp11 there" in miss.detail
    assert not any(one.detail.endswith(": ") for one in (miss, *miss.others))
    assert find_kernel(cache).function() == 1
