"""From what jobs looked up to a spec: the recorded kernels and no others, in few entries; what can't be had is said."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from recording import again, record

from fa4_precompile.cache.key import canonical_json
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.spec.spec import Spec, find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import Finished, run

_HERE = Path(__file__).parent
_MASK = "fa4_precompile.masks.segment_mods:mask_3"
# Calls of each kind that a recording has to tell by more than plain arguments.
_KINDS = f"""
- {{name: sink, pass: bwd, head_dim: 128, sink: bf16, return_lse: grad}}
- {{name: forward-alone, pass: fwd, head_dim: 128, return_lse: true}}
- {{name: deterministic, pass: bwd, head_dim: 128, deterministic: true, qheads_per_kvhead: 4}}
- {{name: split, pass: fwd, head_dim: 128, num_splits: 4, varlen: true, scheduler_metadata: given, shape: {{batch: 9}}}}
- {{name: no-metadata, pass: fwd, head_dim: 128, num_splits: 4, varlen: true, scheduler_metadata: "off"}}
- {{name: fp8, pass: fwd, dtype: fp8_e4m3, head_dim: 128, descale: qk}}
- {{name: paged, pass: fwd, head_dim: 128, paged_kv: 16, seqused: k}}
- {{name: tile, pass: fwd, head_dim: 128, tile: [[128, 64]]}}
- {{name: mla, pass: fwd, head_dim: 512, qv: alone, qheads_per_kvhead: 128, shape: {{heads: 128}}}}
- {{name: top-k, pass: bwd, head_dim: [[64, 512]], qv: with-q, gather_kv: 2048, qheads_per_kvhead: 64,
   shape: {{heads: 64}}}}
- {{name: score, pass: bwd, head_dim: 64, score_mod: "score_mods:times_two", score_mod_bwd: "score_mods:times_two_bwd",
   aux_scalars: [[int, float]]}}
- {{name: generic, pass: bwd, head_dim: 256, backend: generic}}
- name: mask
  pass: bwd
  head_dim: 64
  mask_mod: "{_MASK}"
  aux_tensors: {{dtype: int32, shape: [batch, heads, 3, seqlen_q], shared: [1]}}
  sparse: {{q_block: 256, kv_block: 128, bwd_q_block: 128, bwd_kv_block: 128, heads: each, batch: each}}
- name: computed
  pass: fwd
  head_dim: 128
  mask_mod: "{_MASK}"
  aux_tensors: {{dtype: int32, shape: [batch, heads, 3, seqlen_q]}}
  sparse: {{q_block: 256, kv_block: 128, computed: sampled, full_blocks: false}}
"""
_300 = """
- name: all
  pass: [fwd, bwd]
  dtype: [bf16, fp16]
  head_dim: [64, 96, 128, [192, 128], 256]
  causal: [false, true]
  qheads_per_kvhead: [1, 4, 8]
  varlen: [false, true]
  shape: [{}, {batch: 1}, {seqlen_q: 17}]
- {name: window, pass: bwd, dtype: bf16, head_dim: 128, window: [[127, 0]], varlen: [false, true]}
- {name: sink, pass: bwd, dtype: bf16, head_dim: 64, sink: bf16, qheads_per_kvhead: [1, 8]}
"""


@pytest.fixture(scope="module", autouse=True)
def _path() -> Iterator[None]:
    """Let fork servers find the tasks and functions of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(_HERE), str(_HERE.parent / "benchmarks")]))
        yield


def _spec(kernels: str, defaults: str = "{dtype: bf16}") -> Spec:
    text = f"version: 1\nprovider: flash-attn-4\ntargets: [b200]\ndefaults: {defaults}\nkernels:\n{kernels}"
    return parse_spec("spec.yaml", text, target_book())


def _record(spec: Spec, folder: Path, *targets: str) -> None:
    """Record all calls of a spec for targets."""
    for name in targets or ("b200",):
        target = target_book().get(name)
        with Compilers(spec.provider, target, installed_toolchain(spec.provider), 2) as compilers:
            record([call for call, _ in make_plan(spec, compilers).calls], compilers, folder)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of four kinds of call for b200."""
    folder = tmp_path_factory.mktemp("recorded")
    _record(_spec("- {name: dense, pass: bwd, head_dim: [64, 128], causal: [false, true]}\n"), folder)
    return folder


def _from_record(*arguments: object) -> Finished:
    return run("spec", "from-record", *arguments)


def _changed(folder: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a recording with its lines changed, and their digests made good."""
    copy.mkdir(exist_ok=True)
    for file in folder.iterdir():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            del line["sha256"]
            change(line)
            line["sha256"] = hashlib.sha256(canonical_json(line)).hexdigest()
        (copy / file.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return copy


# Back again


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "target", "entries"),
    [("quickstart", "b200", 2), ("tests/gpu/kernels.yaml", "h100", 8), ("tests/gpu/segments.yaml", "b200", 5)],
)
def test_spec_comes_back_from_a_recording_of_its_calls(tmp_path: Path, name: str, target: str, entries: int) -> None:
    path = _HERE.parent / name if "/" in name else find_spec(name)
    found = again(read_spec(path, target_book()), target_book().get(target), tmp_path)
    assert found.recorded == found.planned
    assert found.reached == found.recorded
    assert found.made.unreached == []
    assert len(found.made.entries) <= entries


@pytest.mark.long
def test_every_kind_of_call_comes_back(tmp_path: Path) -> None:
    found = again(_spec(_KINDS), target_book().get("b200"), tmp_path)
    assert found.recorded == found.planned
    assert found.reached == found.recorded, found.text
    assert found.made.unreached == []


@pytest.mark.long
def test_recording_of_three_hundred_calls_is_few_entries_a_person_could_have_written(tmp_path: Path) -> None:
    spec = _spec(_300, "{}")
    assert len(spec.variants) > 300
    found = again(spec, target_book().get("b200"), tmp_path)
    assert found.reached == found.recorded == found.planned
    assert len(found.made.entries) <= 10
    lines = [line for line in found.text.splitlines() if not line.startswith("#")]
    assert len(lines) <= 100
    names = [line.removeprefix("- name: ") for line in lines if line.startswith("- name: ")]
    assert len(set(names)) == len(found.made.entries)
    assert any(name.startswith("training") or name.startswith("all") for name in names)


# The command


def test_from_record_prints_a_spec_and_says_what_it_reaches(recorded: Path, tmp_path: Path) -> None:
    done = _from_record(recorded)
    assert done.code == 0, done.err
    assert "they reach" in done.err
    assert done.err.rstrip().endswith("recorded kernels and none more")
    (tmp_path / "my.yaml").write_text(done.out)
    spec = read_spec(tmp_path / "my.yaml", target_book())
    (entry,) = spec.entries
    assert entry.name == "training"
    assert [target.name for target in spec.targets] == ["b200"]
    assert {str(one.render()) for one in spec.variants} == {
        str({"pass": "bwd", "dtype": "bf16", "head_dim": dim} | ({"causal": True} if causal else {}))
        for dim in (64, 128)
        for causal in (False, True)
    }
    assert done.out.startswith("# Recorded ")
    assert "process" in done.out.splitlines()[5]


@pytest.mark.long
def test_from_record_of_several_recordings_is_of_all(recorded: Path, tmp_path: Path) -> None:
    _record(_spec("- {name: more, pass: fwd, head_dim: 256}\n"), tmp_path / "more")
    done = _from_record(recorded, tmp_path / "more", "--json")
    document = json.loads(done.out)
    assert (document["missing"], document["more"], document["findings"]) == (0, 0, [])
    assert "256" in document["spec"]
    assert document["processes"] == 2


def test_from_record_with_closure_leaves_sizes_open_and_says_what_is_more(recorded: Path) -> None:
    done = _from_record(recorded, "--closure")
    assert done.code == 0, done.err
    assert "shapes: closure" in done.out
    assert "seqlen_q: 1..4096" in done.out
    assert "recorded kernels and " in done.err
    assert "none more" not in done.err


def test_call_that_no_axis_says_is_named_in_the_spec_and_is_a_finding(recorded: Path, tmp_path: Path) -> None:
    def unsay(line: dict[str, Any]) -> None:
        if line["kind"] == "lookup" and line["axes"]["head_dim"] == 128:
            line["unsaid"] = ["arbitrary"]

    done = _from_record(_changed(recorded, tmp_path / "changed", unsay))
    assert done.code == 1
    assert "no axis says `arbitrary` of the call" in done.err
    comments = [line for line in done.out.splitlines() if line.startswith("#")]
    assert any("slot `bwd`: no axis says `arbitrary` of the call" in line for line in comments)
    assert read_spec(_written(tmp_path, done.out), target_book()).variants, "the rest is a spec"


def _written(folder: Path, text: str) -> Path:
    (folder / "written.yaml").write_text(text)
    return folder / "written.yaml"


def test_call_that_was_not_seen_is_reached_by_another_of_the_same_job(recorded: Path, tmp_path: Path) -> None:
    def forget(line: dict[str, Any]) -> None:
        if line["kind"] == "lookup" and line["slot"] != "fwd":
            line["axes"] = None

    done = _from_record(_changed(recorded, tmp_path / "changed", forget))
    assert done.code == 0, done.err
    assert "none more" in done.err


def test_forward_of_a_training_step_without_its_backward_does_not_bring_one(recorded: Path, tmp_path: Path) -> None:
    changed = _changed(recorded, tmp_path / "changed", lambda line: None)
    for file in changed.iterdir():
        lines = file.read_text().splitlines(keepends=True)
        kept = [one for one in lines if json.loads(one).get("slot", "fwd") == "fwd"]
        file.write_text("".join(kept))
    done = _from_record(changed)
    assert done.code == 0, done.err
    assert "none more" in done.err
    assert "return_lse: true" in done.out
    assert "pass: fwd" in done.out


def test_recording_of_another_release_is_said_and_planned_with_this_one(recorded: Path, tmp_path: Path) -> None:
    def age(line: dict[str, Any]) -> None:
        if line["kind"] == "provider":
            line.update(version="4.0.0b1", source="0" * 64)
        if line["kind"] == "lookup":
            line["key"] = line["key"].replace("none", "i0", 1)

    done = _from_record(_changed(recorded, tmp_path / "changed", age))
    assert done.code == 0, done.err
    assert "recorded with flash-attn-4 4.0.0b1, planned with" in done.err
    assert "they look up" in done.err
    assert done.out.startswith("# Recorded ")
    assert "4.0.0b1" in done.out.splitlines()[0]


@pytest.mark.long
def test_recordings_of_several_devices_take_a_choice(recorded: Path, tmp_path: Path) -> None:
    def move(line: dict[str, Any]) -> None:
        if line["kind"] == "provider":
            line["target"].update(name="recorded", sms=132)

    changed = _changed(recorded, tmp_path / "changed", move)
    done = _from_record(recorded, changed)
    assert done.code == 2
    assert "these recordings are for b200, sm_100a with 132 SMs" in done.err
    assert _from_record(recorded, changed, "--target", "b200").code == 0
    alone = _from_record(changed)
    assert alone.code == 0, alone.err
    assert "targets: [{name: recorded, arch: sm_100a, sms: 132" in alone.out


def test_recordings_of_several_packages_take_a_choice(recorded: Path, tmp_path: Path) -> None:
    def rename(line: dict[str, Any]) -> None:
        if "package" in line:
            line["package"] = "other_attn.cute"

    changed = _changed(recorded, tmp_path / "changed", rename)
    done = _from_record(recorded, changed)
    assert done.code == 2
    assert "several packages: flash_attn.cute, other_attn.cute" in done.err
    assert _from_record(recorded, changed, "--module", DEFAULT.package).code == 0


def test_damaged_recording_is_a_finding_and_the_rest_is_used(recorded: Path, tmp_path: Path) -> None:
    changed = _changed(recorded, tmp_path / "changed", lambda line: None)
    (file,) = changed.iterdir()
    with file.open("a") as opened:
        opened.write('{"kind": "look')
    done = _from_record(changed)
    assert done.code == 1
    assert f"`{file}:" in done.err
    assert "is torn" in done.err
    assert read_spec(_written(tmp_path, done.out), target_book()).variants


@pytest.mark.parametrize("empty", [True, False])
def test_recording_of_nothing_is_an_error(tmp_path: Path, recorded: Path, empty: bool) -> None:
    if not empty:
        for file in recorded.iterdir():
            first = file.read_text().splitlines(keepends=True)[0]
            (tmp_path / file.name).write_text(first)
    done = _from_record(tmp_path)
    assert done.code == 2
    assert ("has no recording" if empty else "no kernel was looked up") in done.err


# Comparing


def _kernels(lines: Sequence[str]) -> set[str]:
    return {line.partition(": ")[2].partition(" of ")[0] for line in lines}


@pytest.mark.long
def test_diff_of_a_recording_and_its_spec_is_nothing(recorded: Path, tmp_path: Path) -> None:
    spec = _written(tmp_path, _from_record(recorded).out)
    done = run("spec", "diff", recorded, spec)
    assert (done.code, done.out) == (0, ""), done.err
    assert "0 only in" in done.err


@pytest.mark.long
def test_diff_names_the_kernels_that_only_one_side_reaches(tmp_path: Path) -> None:
    text = "version: 1\nprovider: flash-attn-4\ntargets: [b200]\nkernels:\n"
    text += "- {{name: a, pass: {}, dtype: bf16, head_dim: 64}}\n"
    for name, pass_ in (("a", "fwd"), ("b", "bwd")):
        (tmp_path / f"{name}.yaml").write_text(text.format(pass_))
    done = run("spec", "diff", tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert done.code == 1
    ours = [line for line in done.out.splitlines() if line.startswith(f"only in {tmp_path / 'a.yaml'}")]
    theirs = [line for line in done.out.splitlines() if line.startswith(f"only in {tmp_path / 'b.yaml'}")]
    assert _kernels(ours) == {"fwd"}
    assert _kernels(theirs) == {"fwd", "bwd", "bwd_pre", "bwd_post"}
