"""Which kernels a call speaks for, and which calls are made."""

from __future__ import annotations

from fa4_precompile.canary.answer import Answer, Taken
from fa4_precompile.canary.due import Due, Found
from fa4_precompile.canary.tried import Clerk
from fa4_precompile.providers.real import Outcome
from support import make_where, numbered_record


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
