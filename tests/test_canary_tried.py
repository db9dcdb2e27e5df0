"""Which kernels a call speaks for, and which calls are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import finished_cache, write_spec
from fa4_precompile.cache.key import KernelId
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.canary.answer import Answer, Ready, Taken
from fa4_precompile.canary.children import Children
from fa4_precompile.canary.due import Due, Found, find_due
from fa4_precompile.canary.run import Calls
from fa4_precompile.canary.tried import Clerk
from fa4_precompile.errors import MachineError
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.real import Outcome
from fa4_precompile.providers.registry import DEFAULT
from support import make_where, numbered_record, record_file, synthetic_blob


def _answered(*numbers: int, fault: str = "") -> Answer:
    taken = [Taken(one.toolchain, one.id, one.blob) for one in map(numbered_record, numbers)]
    return Answer(Outcome({"out": 1e-3}, 5e-3, "", fault, 1.0), taken)


def _due(*numbers: int) -> Due:
    return Due("made up", {}, {}, [(one.toolchain, one.id) for one in map(numbered_record, numbers)])


def _clerk() -> Clerk:
    return Clerk(make_where(), {(one.toolchain, one.id): one for one in map(numbered_record, range(4))})


def _said(clerk: Clerk, due: Due, answer: Answer) -> dict[str, str]:
    return {one.kernel: one.verdict for one in clerk.tried(due, answer).certificates}


def test_call_that_is_wrong_speaks_against_the_kernels_that_no_other_has_vouched_for() -> None:
    ids, clerk = [numbered_record(number).id for number in range(4)], _clerk()
    assert _said(clerk, _due(0), _answered(0)) == {ids[0]: "compared"}
    assert _said(clerk, _due(1), _answered(0, 1, fault="dq is off")) == {ids[1]: "failed"}
    assert _said(clerk, _due(2), Answer(failure="was killed by SIGSEGV")) == {ids[2]: "failed"}
    assert _said(clerk, _due(3), _answered(0, 3)) == {ids[3]: "compared"}


def test_call_that_is_wrong_speaks_against_all_if_each_was_right_in_another() -> None:
    ids, clerk = [numbered_record(number).id for number in range(2)], _clerk()
    _said(clerk, _due(0), _answered(0))
    _said(clerk, _due(1), _answered(1))
    assert _said(clerk, _due(), _answered(0, 1, fault="dq is off")) == {ids[0]: "failed", ids[1]: "failed"}


def test_sample_is_the_same_for_the_same_seed_and_keeps_the_order() -> None:
    found = Found([_due(number) for number in range(4)], {}, 0, 0)
    samples = [[found.calls.index(one) for one in found.sample(2, seed).calls] for seed in range(20)]
    assert samples == [[found.calls.index(one) for one in found.sample(2, seed).calls] for seed in range(20)]
    assert len({tuple(one) for one in samples}) > 1
    assert all(one == sorted(one) for one in samples)
    assert found.sample(4, 0) == found


def test_call_that_was_not_made_is_a_finding_and_says_nothing_of_kernels() -> None:
    tried = _clerk().tried(_due(0), Answer(failure="no kernel for a call", is_made=False))
    assert (tried.verdict, tried.certificates) == ("failed", [])


def test_call_that_takes_other_kernels_is_a_finding_unless_they_are_served_in_the_place_of_its_own() -> None:
    clerk = _clerk()
    assert clerk.tried(_due(0), _answered(1)).words.startswith("the call takes other kernels")
    mine = numbered_record(0)
    instead = numbered_record(0, toolchain="b" * 32)
    clerk = Clerk(make_where(), {(one.toolchain, one.id): one for one in (mine, instead)})
    taken = [Taken(instead.toolchain, instead.id, instead.blob)]
    tried = clerk.tried(_due(0), Answer(Outcome({"out": 1e-3}, 5e-3, "", "", 1.0), taken))
    assert tried.verdict == "compared"
    assert [one.kernel for one in tried.certificates] == [instead.id]


# Where processes can't be had


class _FakeChildren(Children):
    """Fake: processes of which some can't be started, by their place in the order."""

    def __init__(self, *in_vain: int) -> None:
        self._in_vain = in_vain
        self._starts = -1

    def ready(self, runtime_env: Mapping[str, str]) -> Ready:
        self._starts += 1
        if self._starts in self._in_vain:
            raise MachineError("torch sees no GPU\nand more words")
        return Ready("2.13.0", "13.0")

    def make(self, due: Due) -> Answer:
        return _answered(0)


def _made(*in_vain: int) -> list[str]:
    due = replace(_due(), variant={"pass": "fwd"})
    calls = Calls(Found([due] * 6, {}, 0, 0), lambda _: make_where())
    try:
        return [one.words for one in calls.make(_FakeChildren(*in_vain))]
    except MachineError:
        return [one.words for one in calls.tried] + ["the end"]


def test_process_that_can_not_be_had_costs_its_call_and_three_in_a_row_are_the_end() -> None:
    lost = "no process for it: torch sees no GPU"
    assert _made() == [""] * 6
    assert _made(1, 2, 4, 5) == ["", lost, lost, "", lost, lost]
    assert _made(1, 2, 3) == ["", lost, lost, "the end"]
    assert _made(0) == ["the end"]


# Which calls are made


def _found(path: Path, patch: pytest.MonkeyPatch, sms: int = 148, digest: str | None = None) -> Found:
    """Return what a job for a device that is not there would have to try."""
    patch.setenv("CUTE_DSL_ARCH", "sm_100a")
    patch.setenv("FLASH_ATTENTION_NUM_SMS", str(sms))
    return find_due(Root(path), Cache([path]), digest)


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, list[KernelId]]:
    """A cache with two kernels of a spec for two targets, and one kernel of no build."""
    cache, toolchain = tmp_path / "cache", installed_toolchain(DEFAULT)
    records = finished_cache(cache, write_spec(tmp_path, "b200, h100"), toolchain, "b200", "h100")
    Publisher(Root(cache)).publish(numbered_record(7, toolchain=toolchain.id), synthetic_blob(7))
    return cache, [record.id for record in records]


def test_calls_are_those_of_builds_for_the_device_each_once(
    built: tuple[Path, list[KernelId]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _found(built[0], monkeypatch)
    assert [kernel for call in found.calls for _, kernel in call.kernels] == built[1]
    assert (found.elsewhere, found.loose) == (0, 1)
    assert _found(built[0], monkeypatch, digest="0" * 64).calls == []


def test_kernels_for_another_number_of_sms_are_not_tried(
    built: tuple[Path, list[KernelId]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _found(built[0], monkeypatch, sms=132)
    assert (found.calls, found.elsewhere) == ([], 2)


def test_kernel_whose_record_is_gone_is_tried_and_gets_no_certificate(
    built: tuple[Path, list[KernelId]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, (first, _) = built
    lost = next(one for one in Root(cache).records() if getattr(one, "id", "") == first)
    record_file(cache, lost).unlink()  # type: ignore[arg-type]
    found = _found(cache, monkeypatch)
    call = next(call for call in found.calls if call.kernels[0][1] == first)
    tried = Clerk(make_where(), found.records).tried(call, Answer(failure="was killed by SIGSEGV"))
    assert (tried.verdict, tried.certificates) == ("failed", [])
