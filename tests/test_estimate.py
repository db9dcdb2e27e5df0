"""What a build is going to take: the order's makespan, the model, what is known exactly, and what `plan` prints."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.commands import plan as command
from fa4_precompile.errors import UsageError
from fa4_precompile.precompile.estimate import Basis, Estimate, Job
from fa4_precompile.precompile.model import Model, Traits, traits
from fa4_precompile.precompile.order import in_order, makespan, with_flow
from fa4_precompile.precompile.plan import Plan, PlannedKernel
from fa4_precompile.precompile.seen import Seen, Table, seen_in
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.call import Call, Reached
from support import SYNTHETIC_BLOB, make_origin, make_record, make_target, publish_synthetic, synthetic_blob

_TABLE = Table("a machine", "a toolchain", 7, Model(math.log(4)), Model(math.log(1000)), 10**9, 0.5, 2.0, 0.0, 0.0, 0.0)


def _built(root: Root, number: int, **spent: float | int | None) -> Record:
    """Publish a kernel that took so long; another toolchain than the installed one made it."""
    record = make_record(synthetic_blob(number), key=encode_key((number,)), key_fields={"number": number})
    Publisher(root).publish(record, synthetic_blob(number), make_origin(record, **spent))
    return record


# The order


def test_makespan_is_that_of_a_list_in_which_each_free_job_takes_the_next() -> None:
    assert makespan([], 4) == 0
    assert makespan([1, 5, 4, 3, 3], 1) == 16
    assert makespan([1, 5, 4, 3, 3], 2) == 8  # 1 4 3, and 5 3
    assert makespan([1, 5, 4, 3, 3], 100) == 5


def test_in_order_has_the_quickest_and_then_the_longest_first() -> None:
    assert in_order([3, 1, 4, 1, 5], lambda one: one) == [1, 5, 4, 3, 1]
    assert in_order([], lambda one: one) == []


def test_order_for_many_cores_begins_with_what_they_make_quicker_than_it_is_taken_in() -> None:
    ordered = in_order([5, 1, 3, 9, 2, 7], float)
    assert ordered == [1, 9, 7, 5, 3, 2]
    assert with_flow(ordered, float, 0.05, 10) == ordered
    assert with_flow(ordered, float, 0.35, 10) == [1, 2, 3, 9, 7, 5]
    assert with_flow(ordered, float, 0.35, 4) == ordered


# The model


def _synthetic(head_dim: int, causal: bool, slot: str) -> tuple[Traits, float]:
    selection = make_record().selection
    seconds = 0.1 * head_dim**0.5 * (1.4 if causal else 1) * (3 if slot == "bwd" else 1)
    return traits(slot, {"head_dim": head_dim, "causal": causal, "mask": "f" * 64}, selection), seconds


def _all_of(*head_dims: int) -> list[tuple[Traits, float]]:
    return [_synthetic(*one) for one in itertools.product(head_dims, (False, True), ("fwd", "bwd"))]


def test_model_of_some_kernels_tells_what_others_of_the_same_law_take() -> None:
    kernels = _all_of(32, 64, 96, 128, 192, 256)
    random.Random(1).shuffle(kernels)
    known, others = kernels[:16], kernels[16:]
    model = Model().fitted(known)
    assert sum(model.expect(one) for one, _ in others) == pytest.approx(sum(took for _, took in others), rel=0.1)
    for one, took in others:
        assert model.expect(one) == pytest.approx(took, rel=0.25)


def test_model_that_is_corrected_keeps_what_it_knew_and_takes_the_speed_of_the_new_machine() -> None:
    table = Model().fitted(_all_of(64, 128, 256))
    here = [_synthetic(64, False, "fwd"), _synthetic(128, True, "fwd"), _synthetic(128, False, "bwd")]
    slower = table.fitted([(one, 2 * table.expect(one)) for one, _ in here])
    other, _ = _synthetic(256, True, "bwd")
    assert slower.expect(other) == pytest.approx(2 * table.expect(other), rel=0.1)
    assert table.fitted([]) == table


def test_model_reads_what_it_writes() -> None:
    model = Model().fitted([_synthetic(64, False, "fwd"), _synthetic(128, True, "bwd")])
    again = Model.parse(json.loads(json.dumps(model.render())))
    one, _ = _synthetic(128, False, "fwd")
    assert again.expect(one) == pytest.approx(model.expect(one), rel=0.01)


def test_shipped_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    table = Table.read()
    assert table.kernels > 100
    assert 0 < table.driver_seconds < table.kernel_seconds < table.start_seconds
    (tmp_path / "table.json").write_text(json.dumps(table.render()))
    assert Table.read(tmp_path / "table.json") == table


# What was seen


def test_seen_has_cpu_seconds_or_else_the_compilers_or_none(root: Root) -> None:
    _built(root, 1, cpu_seconds=3.0, peak_bytes=600)
    _built(root, 2, compile_seconds=8.0)
    Publisher(root).publish(make_record(synthetic_blob(3), key=encode_key((3,))), synthetic_blob(3))
    _built(root, 4, compile_seconds=8.0, peak_bytes=500)  # its process had more to do than this kernel
    seen = {one.which[2]: one for one in seen_in([root], _TABLE)}
    of_numbers = [seen[encode_key((number,))] for number in (1, 2, 3, 4)]
    assert [one.seconds for one in of_numbers] == [3.0, 4.0, None, None]
    assert [one.peak_bytes for one in of_numbers] == [600, None, None, 500]
    assert [one.bytes for one in of_numbers] == [len(synthetic_blob(number)) for number in (1, 2, 3, 4)]


def test_origin_without_the_fields_of_today_is_read() -> None:
    origin = make_origin(make_record())
    assert "cpu_seconds" not in origin.render()
    assert Origin.parse_file("", origin.render_file()) == origin
    spent = replace(origin, cpu_seconds=3.5, peak_bytes=12)
    assert Origin.parse_file("", spent.render_file()) == spent


# The estimate


def _plan(*numbers: int) -> Plan:
    text = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 64}]\n"
    spec = parse_spec("synthetic.yaml", text, target_book())
    selection, call = make_record().selection, Call(spec.variants[0])
    reached = [Reached("fwd", encode_key((number,)), {"number": number}, selection) for number in numbers]
    return Plan(spec, make_target(), [PlannedKernel(one, call) for one in reached], [], [], [])


@pytest.fixture
def estimated(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Return what `plan --estimate` prints of kernels with these numbers; only the provider's answers are made up."""

    def estimated(*numbers: int, as_json: bool = False, cache: Path = root.path) -> tuple[str, str]:
        monkeypatch.setattr(command, "make_plan", lambda *_: _plan(*numbers))
        monkeypatch.setattr(Table, "read", classmethod(lambda _: _TABLE))
        monkeypatch.setattr(command, "cpu_seconds", lambda: 0.0)
        command.plan("quickstart", None, 1, False, False, None, False, as_json, True, cache)
        said = capsys.readouterr()
        return said.out, said.err

    return estimated


def test_estimate_takes_what_was_built_before_as_it_was_and_models_the_rest(
    root: Root, estimated: Callable[..., tuple[str, str]]
) -> None:
    for number, seconds in ((1, 30.0), (2, 8.0)):
        _built(root, number, cpu_seconds=seconds, peak_bytes=1_100_000_000)
    found = json.loads(estimated(1, 2, 3, as_json=True)[0])
    assert found["spec"] == "synthetic"
    told = found["estimate"]
    assert (told["to_compile"], told["known"], told["modelled"], told["records"]) == (3, 2, 1, 2)
    assert told["longest"]["seconds"] == 30.0
    modelled = told["cpu_seconds"] - 38.0
    assert 8.0 < modelled < 30.0
    by_cores = {row["cores"]: row for row in told["cores"]}
    assert by_cores[1]["seconds"] >= told["cpu_seconds"]
    assert by_cores[64]["seconds"] == pytest.approx(30.0, abs=10)  # the longest, and the start on a slower machine
    assert by_cores[4]["assumed_bytes"] == 6_000_000_000
    assert by_cores[4]["seen_bytes"] == 4_400_000_000


def test_estimate_counts_what_the_cache_has_as_done(root: Root, estimated: Callable[..., tuple[str, str]]) -> None:
    from fa4_precompile.providers.installed import installed_toolchain
    from fa4_precompile.providers.registry import DEFAULT

    toolchain = installed_toolchain(DEFAULT).id
    record = make_record(toolchain=toolchain, key=encode_key((1,)), facts={})
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    told = json.loads(estimated(1, 2, as_json=True)[0])["estimate"]
    assert (told["kernels"], told["present"], told["to_compile"]) == (2, 1, 1)


def test_estimate_with_nothing_built_before_says_that_it_is_the_shipped_tables(
    tmp_path: Path, estimated: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FA4_PRECOMPILE_CACHE", str(tmp_path / "none"))
    out, _ = estimated(1, 2, cache=tmp_path / "none")
    assert "all by the shipped table (7 kernels, measured on a machine)" in out
    assert "other machines are faster or slower" in out
    assert "CPU time: 8.0 s" in out
    assert not (tmp_path / "none").exists()


def test_estimate_waits_for_each_set_of_switches_in_turn() -> None:
    jobs = [Job("a", (("A", "1"),), 5.0, 1, True), Job("b", (), 7.0, 1, True), Job("c", (), 3.0, 1, True)]
    basis = Basis.of(replace(_TABLE, start_seconds=0.0), [])
    assert Estimate("s", make_target(), 3, 0, jobs, basis, 0.0).wall_seconds(8) == 12.0


def test_basis_of_a_faster_machine_says_so() -> None:
    kernels = [Seen(("sm_100a", "fwd", encode_key((n,))), {f"n={n}": 1.0}, 2.0, 500, None) for n in range(5)]
    basis = Basis.of(_TABLE, kernels)
    assert basis.records == 5
    assert basis.speed == pytest.approx(0.5)
    assert basis.seconds.expect({}) == pytest.approx(2.0, rel=0.05)
    assert basis.peak_job_bytes == _TABLE.peak_job_bytes


@pytest.mark.parametrize(
    ("as_matrix", "with_estimate"), [(True, True), (False, False)], ids=["of a matrix", "a cache for no estimate"]
)
def test_plan_refuses_an_estimate(as_matrix: bool, with_estimate: bool, tmp_path: Path) -> None:
    spec = None if as_matrix else "quickstart"
    with pytest.raises(UsageError, match="--estimate"):
        command.plan(spec, None, 1, False, as_matrix, None, False, False, with_estimate, tmp_path)


def test_kernels_of_another_provider_say_nothing(tmp_path: Path) -> None:
    publish_synthetic(tmp_path, 1)
    assert len(seen_in([Root(tmp_path)], _TABLE)) == 1
    assert seen_in([Root(tmp_path)], _TABLE, "toy-kernels") == []
