"""What a person is told of a miss: the reason that says most, the nearest kernels, and what to do about it.

The records are synthetic, in real roots; nothing is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.key import display, encode_key
from fa4_precompile.cache.outcome import Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.errors import KernelMissing
from fa4_precompile.loader import device as device_module
from fa4_precompile.loader.explain import Explanation, explain
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.registry import DEFAULT
from loadable import fitting_toolchain
from support import make_origin, make_record, make_toolchain, synthetic_blob, write_distribution

_NAMES = ("arch", "dtype", "head_dim", "causal", "window", "use_2cta", "FA_LOG_LEVEL")
_KEY = (100, "bf16", 128, True, None, True, 0)
_CALL = {"pass": "fwd", "head_dim": 128}
_ABSENT = Miss(MissReason.ABSENT, "the root has no record")

Publish = Callable[..., Record]


@pytest.fixture(autouse=True)
def _b200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a machine whose environment speaks of a B200."""
    monkeypatch.setattr(device_module, "detect_driver", lambda: None)
    monkeypatch.setenv("CUTE_DSL_ARCH", "sm_100a")
    monkeypatch.setenv("FLASH_ATTENTION_NUM_SMS", "148")


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Publish a synthetic kernel, given by what differs from the key that is asked for."""
    root = Root(tmp_path / "root")
    Publisher(root).create()
    Publisher(root).publish_toolchain(fitting_toolchain())

    def make(**changes: Any) -> Record:
        values = {name: changes.pop(name, value) for name, value in zip(_NAMES, _KEY, strict=True)}
        blob = synthetic_blob(len(list(tmp_path.rglob("*.json"))))
        fields: dict[str, Any] = {
            "toolchain": fitting_toolchain().id,
            "key": encode_key(tuple(values.values())),
            "key_fields": {name: display(value) for name, value in values.items()},
            "facts": {},
            "arch": changes.pop("target_arch", "sm_100a"),
        }
        told = {name: changes.pop(name, value) for name, value in {"runtime_env": {}, "variant": _CALL}.items()}
        record = make_record(blob, **(fields | changes))
        Publisher(root).publish(record, blob, make_origin(record, **told))
        return record

    return make


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Explanation]:
    """Explain why the key was not found."""

    def call(
        miss: Miss = _ABSENT, slot: str = "fwd", axes: Mapping[str, object] | None = _CALL, **environment: str
    ) -> Explanation:
        fields = dict(zip(_NAMES, _KEY, strict=True))
        return explain(Cache([tmp_path / "root"]), miss, slot, encode_key(_KEY), fields, environment, axes)

    return call


Ask = Callable[..., Explanation]


# Nearest


def test_nearest_kernels_come_first_with_what_differs(publish: Publish, ask: Ask) -> None:
    far = publish(head_dim=64, causal=False, dtype="fp16")
    near = publish(causal=False)
    middle = publish(causal=False, window=(127, 0))
    found = ask()
    assert found.reason is MissReason.ABSENT
    assert found.details == ["the root has no record"]
    assert found.nearest == [
        f"{near.id[:12]} for sm_100a: causal false -> true",
        f"{middle.id[:12]} for sm_100a: causal false -> true, window [127, 0] -> none",
        f"{far.id[:12]} for sm_100a: dtype fp16 -> bf16, head_dim 64 -> 128, causal false -> true",
    ]


def test_nearest_kernels_are_three_at_most(publish: Publish, ask: Ask) -> None:
    for head_dim in (32, 64, 96, 192, 256):
        publish(head_dim=head_dim)
    assert len(ask().nearest) == 3


def test_nearest_kernel_that_fits_comes_before_one_of_another_installation(
    tmp_path: Path, publish: Publish, ask: Ask
) -> None:
    other = replace(fitting_toolchain(), machine="pdp11")
    Publisher(Root(tmp_path / "root")).publish_toolchain(other)
    for head_dim in (32, 64, 96):
        publish(head_dim=head_dim, toolchain=other.id)
    fits = publish(head_dim=256)
    assert ask().nearest[0].startswith(fits.id[:12])


def test_nearest_kernel_has_the_first_digits_of_a_digest(publish: Publish, ask: Ask) -> None:
    publish(dtype="0123456789ab" + "c" * 52)
    (line,) = ask().nearest
    assert "dtype 0123456789ab -> " in line


def test_nearest_kernel_that_differs_in_much_is_cut_short(publish: Publish, ask: Ask) -> None:
    values = {f"position {number}": number for number in range(20)}
    publish(key=encode_key(tuple(values.values())), key_fields=values)
    (line,) = ask().nearest
    assert line.count("->") == 6
    assert line.endswith(f"and {len(values) + len(_NAMES) - 6} more")
    assert "(nothing)" in line


def test_kernels_of_other_slots_are_not_near(publish: Publish, ask: Ask) -> None:
    publish(slot="bwd")
    found = ask()
    assert found.nearest == []
    assert found.details[-1] == "no root has any kernel of slot `fwd`"


def test_nothing_at_all_is_said_so(tmp_path: Path, ask: Ask) -> None:
    found = ask()
    assert (found.reason, found.nearest, found.missing_env) == (MissReason.ABSENT, [], {})
    assert found.details[-1] == "no root has any kernel of slot `fwd`"
    assert not (tmp_path / "root").exists()


# The very key, for somebody else


def test_same_key_for_another_number_of_sms_is_said(publish: Publish, ask: Ask) -> None:
    record = publish(facts={"sms": 132})
    found = ask()
    assert found.reason is MissReason.SM_COUNT
    assert found.details[0] == f"kernel {record.id[:12]} is for GPUs with 132 SMs; this one has 148"
    assert found.nearest == [f"{record.id[:12]} for sm_100a: the same key"]


def test_same_key_for_another_arch_is_said(publish: Publish, ask: Ask) -> None:
    record = publish(target_arch="sm_103a")
    found = ask()
    assert found.reason is MissReason.ARCH
    assert found.details[0] == f"kernel {record.id[:12]} is for sm_103a; this GPU is sm_100a"


def test_same_key_of_another_toolchain_is_said_with_the_difference(tmp_path: Path, publish: Publish, ask: Ask) -> None:
    other = replace(fitting_toolchain(), provider_source="f" * 64)
    Publisher(Root(tmp_path / "root")).publish_toolchain(other)
    record = publish(toolchain=other.id)
    found = ask()
    assert found.reason is MissReason.TOOLCHAIN
    assert found.details[0].startswith(f"kernel {record.id[:12]} was built for another installation: provider source")


def test_same_key_whose_toolchain_is_lost_is_said(publish: Publish, ask: Ask) -> None:
    publish(toolchain=make_toolchain(provider_version="lost").id)
    found = ask()
    assert found.reason is MissReason.TOOLCHAIN
    assert found.details[0].endswith("no toolchain file")


# Nearly the same key, for somebody else


def test_arch_is_the_reason_where_all_kernels_of_the_slot_are_for_other_gpus(publish: Publish, ask: Ask) -> None:
    record = publish(arch=90, target_arch="sm_90a")
    publish(arch=90, causal=False, target_arch="sm_90a")
    publish(slot="bwd")
    found = ask()
    assert found.reason is MissReason.ARCH
    assert found.details[0] == f"kernel {record.id[:12]} is for sm_90a; this GPU is sm_100a"
    assert found.nearest[0] == f"{record.id[:12]} for sm_90a: arch 90 -> 100"


def test_arch_is_not_the_reason_where_there_are_kernels_for_this_gpu(publish: Publish, ask: Ask) -> None:
    near = publish(head_dim=64, target_arch="sm_90a")
    publish(head_dim=64, causal=False)
    found = ask()
    assert found.reason is MissReason.ABSENT
    assert found.nearest[0] == f"{near.id[:12]} for sm_90a: head_dim 64 -> 128"


def test_difference_in_settings_only_is_the_environments(publish: Publish, ask: Ask) -> None:
    record = publish(FA_LOG_LEVEL=2)
    found = ask(FA_LOG_LEVEL="0")
    assert found.reason is MissReason.ENVIRONMENT
    assert found.missing_env == {"FA_LOG_LEVEL": "2"}
    assert found.details[0] == f"kernel {record.id[:12]} is for jobs that set FA_LOG_LEVEL=2"


def test_setting_that_makes_the_provider_choose_otherwise_is_told_from_the_record(publish: Publish, ask: Ask) -> None:
    settings = {"FA_DISABLE_2CTA": "1", "FLASH_ATTENTION_BWD_TILE_N": "64"}
    publish(use_2cta=False, runtime_env=settings)
    found = ask(FLASH_ATTENTION_BWD_TILE_N="64")
    assert found.reason is MissReason.ENVIRONMENT
    assert found.missing_env == {"FA_DISABLE_2CTA": "1"}


def test_setting_that_the_job_has_is_not_what_is_missing(publish: Publish, ask: Ask) -> None:
    publish(use_2cta=False, runtime_env={"FA_DISABLE_2CTA": "1"})
    found = ask(FA_DISABLE_2CTA="1")
    assert (found.reason, found.missing_env) == (MissReason.ABSENT, {})


def test_setting_of_a_kernel_of_the_same_call_is_told_though_others_are_nearer(publish: Publish, ask: Ask) -> None:
    demands = {"cluster_size": 1, "tile": [128, 64], "shape": {"batch": 1}, "job_env": {"FA_CLC": "1"}}
    settings = {"FA_DISABLE_2CTA": "1"}
    record = publish(causal=False, window=(1, 0), use_2cta=False, runtime_env=settings, variant=_CALL | demands)
    publish(causal=False, variant={**_CALL, "head_dim": 64})
    found = ask()
    assert (found.reason, found.missing_env) == (MissReason.ENVIRONMENT, settings)
    assert found.details[0] == f"kernel {record.id[:12]} is for jobs that set FA_DISABLE_2CTA=1"


def test_setting_of_a_kernel_for_another_gpu_is_not_what_is_missing(publish: Publish, ask: Ask) -> None:
    publish(use_2cta=False, runtime_env={"FA_DISABLE_2CTA": "1"}, target_arch="sm_103a")
    publish(FA_LOG_LEVEL=2, target_arch="sm_103a")
    publish(causal=False, head_dim=64)
    found = ask()
    assert (found.reason, found.missing_env) == (MissReason.ABSENT, {})


@pytest.mark.parametrize("axes", [None, {**_CALL, "causal": True}, {"pass": "fwd"}], ids=["unknown", "more", "less"])
def test_setting_that_other_calls_need_is_not_what_is_missing(
    publish: Publish, ask: Ask, axes: Mapping[str, object] | None
) -> None:
    publish(use_2cta=False, runtime_env={"FA_DISABLE_2CTA": "1"})
    found = ask(axes=axes)
    assert (found.reason, found.missing_env) == (MissReason.ABSENT, {})


# Other reasons stay what they are


@pytest.mark.parametrize("reason", [MissReason.DAMAGED, MissReason.UNTRUSTED, MissReason.LOAD, MissReason.LAYOUT])
def test_reason_that_was_found_is_kept(publish: Publish, ask: Ask, reason: MissReason) -> None:
    publish(facts={"sms": 132})
    publish(FA_LOG_LEVEL=2)
    publish(arch=90, target_arch="sm_90a")
    found = ask(Miss(reason, "first", others=(Miss(MissReason.TOOLCHAIN, "second"),)))
    assert found.reason is reason
    assert list(found.details) == ["first", "second"]
    assert found.missing_env == {}
    assert len(found.nearest) == 3


@pytest.mark.parametrize("reason", [MissReason.KEY, MissReason.DEVICE])
def test_reason_that_leaves_nothing_to_compare_is_told_alone(
    publish: Publish, ask: Ask, monkeypatch: pytest.MonkeyPatch, reason: MissReason
) -> None:
    publish()
    monkeypatch.delenv("CUTE_DSL_ARCH")  # there may be no device to compare with
    assert ask(Miss(reason, "why")) == Explanation(reason, ["why"])


def test_damaged_record_does_not_keep_the_others_from_being_told(tmp_path: Path, publish: Publish, ask: Ask) -> None:
    near = publish(causal=False)
    broken = publish(causal=False, head_dim=64)
    (path,) = tmp_path.glob(f"root/records/*/*/{broken.id}.json")
    path.unlink()
    path.write_bytes(b"no JSON")
    assert [line[:12] for line in ask().nearest] == [near.id[:12]]


# What the person reads


def _missing(**changes: Any) -> KernelMissing:
    fields: Mapping[str, Any] = {
        "slot": "fwd",
        "key_fields": {"head_dim": 64},
        "reason": "absent",
        "details": ["`/opt/kernels` has no record"],
        "nearest": ["0123 for sm_100a: causal false -> true", "4567 for sm_100a: head_dim 64 -> 128"],
        "spec_lines": "- {pass: fwd, dtype: bf16,\n   head_dim: 64}",
    }
    return KernelMissing(**{**fields, **changes})


def test_message_has_the_reason_the_nearest_the_spec_lines_and_what_to_do() -> None:
    assert str(_missing()).splitlines() == [
        "no kernel for a call of slot `fwd` (absent)",
        "  `/opt/kernels` has no record",
        "  nearest: 0123 for sm_100a: causal false -> true",
        "  nearest: 4567 for sm_100a: head_dim 64 -> 128",
        "  the spec lines that add it:",
        "    - {pass: fwd, dtype: bf16,",
        "       head_dim: 64}",
        "  hint: add the call to a spec and build it",
    ]


def test_message_of_a_function_that_nobody_recognizes_does_not_say_to_build_it() -> None:
    assert _missing(reason="function").hint == "build the spec with the function as the job has it"
    assert _missing(reason="function", nearest=[]).hint == "write the function as the details say"


def test_message_without_spec_lines_does_not_speak_of_them() -> None:
    assert "spec lines" not in str(_missing(spec_lines=""))


@pytest.mark.parametrize("reason", MissReason, ids=lambda reason: reason.value)
def test_every_reason_has_a_hint_of_its_own(reason: MissReason) -> None:
    environment = {"FA_DISABLE_2CTA": "1", "FA_LOG_LEVEL": "0"} if reason is MissReason.ENVIRONMENT else {}
    error = _missing(reason=reason.value, missing_env=environment)
    assert error.hint
    assert "see docs" not in error.hint
    assert str(error).endswith(f"hint: {error.hint}")


def test_hint_of_a_setting_can_be_put_before_a_command() -> None:
    error = _missing(reason="environment", missing_env={"FA_DISABLE_2CTA": "1", "FA_LOG_LEVEL": "0"})
    assert error.hint == "set in the job: FA_DISABLE_2CTA=1 FA_LOG_LEVEL=0"


# Files of others


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache as a job sees it whose package has a file of another distribution, so that its source is another."""
    site = tmp_path / "site"
    write_distribution(site, "made-up-4", "4.0", {"made_up_attention/__init__.py": "", "made_up_attention/new.py": ""})
    write_distribution(site, "made-up", "2.8.3", {"made_up_attention/old.py": ""})
    monkeypatch.syspath_prepend(os.fspath(site))
    return Cache([tmp_path / "root"], provider=DEFAULT.under("made_up_attention"))


def test_miss_by_the_providers_source_names_the_files_that_others_put_there(
    tmp_path: Path, publish: Publish, other_package: Cache
) -> None:
    publish()
    miss = other_package.resolve("fwd", _KEY)
    assert isinstance(miss, Miss)
    found = explain(other_package, miss, "fwd", encode_key(_KEY), {}, {})
    assert found.reason is MissReason.TOOLCHAIN
    old = tmp_path / "site" / "made_up_attention" / "old.py"
    assert found.details[-1] == f"others have put files into `made_up_attention` here: `{old}` (of made-up 2.8.3)"


def test_miss_for_another_cause_does_not_speak_of_files_of_others(other_package: Cache) -> None:
    miss = other_package.resolve("fwd", _KEY)
    assert isinstance(miss, Miss)
    found = explain(other_package, miss, "fwd", encode_key(_KEY), {}, {})
    assert found.reason is MissReason.LAYOUT
    assert not [detail for detail in found.details if "files" in detail]
