"""What a strict job is told of a kernel that it misses: what is nearest, and the spec lines that add it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import loader_tasks
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fake_job import Call, Missing
from jobs import Jobs
from product import origin, records, run
from support import blob_file

pytestmark = pytest.mark.compiles

# Each misses in the small cache; a training step of head_dim 64 finds its forward there, and misses in the backward.
MISSED = {
    "head_dim": Call(head_dim=96),
    "dtype": Call(dtype="float16"),
    "not causal": Call(causal=False, return_lse=True),
    "window": Call(causal=False, window=(256, 0)),
    "window to the left": Call(causal=False, window=(256, None)),
    "GQA": Call(heads=8, kv_heads=2),
    "MQA": Call(heads=6, kv_heads=1),
    "varlen": Call(varlen=True),
    "varlen, not causal": Call(varlen=True, causal=False),
    "sizes": Call(batch=1, seqlen_q=1, seqlen_k=777),
    "training": Call(head_dim=128, training=True),
    "training, varlen, GQA": Call(varlen=True, heads=4, training=True),
    "backward": Call(training=True, deterministic=True),
}


@pytest.fixture(scope="module")
def missed(jobs: Jobs, small_cache: Path) -> dict[str, Missing]:
    """What a strict job is told of each of these calls."""
    report = jobs.run(loader_tasks.job, list(MISSED.values()), [small_cache])
    assert report.stats["missed"] == {"absent": len(MISSED)}
    return dict(zip(MISSED, report.missing, strict=True))


def test_nearest_kernels_are_named_with_what_differs(missed: dict[str, Missing]) -> None:
    nearest = missed["head_dim"].nearest
    assert len(nearest) == 3
    assert nearest[0].endswith(" for sm_100a: head_dim 64 -> 96, head_dim_v 64 -> 96")
    assert f"nearest: {nearest[0]}" in missed["head_dim"].text
    assert missed["not causal"].nearest[0].endswith(": lse is None true -> false")
    assert missed["backward"].nearest[0].endswith(": deterministic false -> true, spt false -> true")


def test_text_has_the_reason_the_spec_lines_and_what_to_do(missed: dict[str, Missing]) -> None:
    text = missed["head_dim"].text
    assert text.startswith("no kernel for a call of slot `fwd` (absent)\n")
    assert f"the spec lines that add it:\n    {missed['head_dim'].spec_lines}\n" in text
    assert text.endswith("hint: add the call to a spec and build it")


def _spec(lines: Sequence[str]) -> str:
    return "\n".join(["version: 1", "provider: flash-attn-4", "targets: [b200]", "kernels:", *lines])


@pytest.fixture(scope="module")
def planned(missed: dict[str, Missing], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """The keys, by slot, that a plan has for the spec lines of each of these calls."""
    spec = tmp_path_factory.mktemp("specs") / "missed.yaml"
    spec.write_text(_spec([missing.spec_lines for missing in missed.values()]))
    done = run("plan", spec, "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    keys = [(kernel["slot"], kernel["key"]) for kernel in plan["kernels"]]
    return {
        name: {keys[kernel] for kernel in call["kernels"]} for name, call in zip(missed, plan["calls"], strict=True)
    }


@pytest.mark.parametrize("name", MISSED)
def test_spec_lines_plan_the_very_key_that_was_missed(
    missed: dict[str, Missing], planned: dict[str, set[tuple[str, str]]], name: str
) -> None:
    assert missed[name].slot == ("bwd" if name == "backward" else "fwd")
    assert (missed[name].slot, missed[name].key) in planned[name]


def test_setting_that_only_other_calls_need_is_not_asked_for(jobs: Jobs, small_cache: Path, tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    for toolchain in Root(small_cache).toolchains():
        assert isinstance(toolchain, Toolchain)
        Publisher(root).publish_toolchain(toolchain)
    # As if the causal backward needed a setting: one that is deterministic would not be there with it, either.
    for record in records(small_cache):
        needs = {"FLASH_ATTENTION_BWD_TILE_N": "64"} if record.slot == "bwd" else {}
        needing = dataclasses.replace(origin(small_cache, record), runtime_env=needs)
        Publisher(root).publish(record, blob_file(small_cache, record).read_bytes(), needing)
    (missing,) = jobs.run(loader_tasks.job, [MISSED["backward"]], [root.path]).missing
    assert (missing.reason, missing.missing_env) == ("absent", {})
