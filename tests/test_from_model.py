"""`spec from-model`: a spec that plans whole, and that reaches what jobs of such models look up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from model_configs import CONFIGS, Config, write_config
from model_tasks import LayerCall, recorded

from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.plan import Plan, make_plan
from fa4_precompile.precompile.recorded.reading import identity_of, read_recordings
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call
from jobs import Jobs, command, report_of, run_from_scratch
from product import Finished, run

_SMALL = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
}
_GENERIC = "FLASH_ATTENTION_HD256_GENERIC_BWD"


def _from_model(folder: Path, names: Sequence[str], *options: object) -> Finished:
    return run("spec", "from-model", *(write_config(folder, name) for name in names), "--dtype", "bf16", *options)


def _small(folder: Path, *options: object, **changes: object) -> Finished:
    return run("spec", "from-model", write_config(folder, "small", {**_SMALL, **changes}), *options)


def _plan(text: str) -> Plan:
    spec = parse_spec("spec.yaml", text, target_book())
    (target,) = spec.targets
    with Compilers(DEFAULT, target, installed_toolchain(DEFAULT), 2) as compilers:
        return make_plan(spec, compilers)


# Plans


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The spec of training all published configurations, at two lengths: open ones take a minute to plan."""
    return _from_model(tmp_path_factory.mktemp("models"), list(CONFIGS), "--seqlen", "200,4096", "--batch", 2)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The spec of serving them from pages, on eight GPUs each."""
    folder = tmp_path_factory.mktemp("models")
    names = [name for name in CONFIGS if name != "Qwen2.5-7B"]  # 28 heads are for four GPUs
    uses = ["--for", "prefill", "--for", "decode", "--page-size", 128, "--tensor-parallel", 8]
    return _from_model(folder, names, *uses, "--seqlen", "200,4096", "--batch", 2)


@pytest.mark.long
@pytest.mark.parametrize("name", ["training", "serving"])
def test_published_models_plan_with_nothing_excluded(name: str, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(name)
    assert done.code == 0, done.err
    planned = _plan(done.out)
    assert (list(planned.excluded), list(planned.broken)) == ([], [])
    assert planned.kernels
    assert all(f"#   {model}: " in done.out for model in CONFIGS if name == "training" or model != "Qwen2.5-7B")


@pytest.mark.long
def test_call_that_is_refused_is_made_in_another_way_and_so_are_others_of_the_job(training: Finished) -> None:
    notes = [line for line in training.err.splitlines() if line.startswith("note: ")]
    refused = "not taken as it is, b200: SM100 backward with head_dim=256 does not support"
    here = "it is here with `backend: generic`, and `plan` says what the job sets"
    assert notes == [
        f"note: gemma-2-9b, 21 layers, training: {refused} softcap; {here}",
        "note: gemma-3-12b-it, 8 layers, training: what the job sets for other layers is for these, too; " + here,
        f"note: gemma-3-12b-it, 40 layers, training: {refused} local attention; {here}",
    ]


@pytest.mark.long
def test_layers_that_make_no_call_are_said(serving: Finished) -> None:
    assert "note: gemma-3-12b-it: 27 layers of head_dim 72 make no call in decode\n" in serving.err


@pytest.mark.long
def test_models_with_the_same_calls_share_an_entry(training: Finished) -> None:
    entries = [line for line in training.out.splitlines() if line.startswith("# Llama-3.1-8B")]
    assert entries == ["# Llama-3.1-8B, 32 layers; Qwen3-8B, 36 layers; Mistral-7B-v0.1, 32 layers"]


@pytest.mark.long
def test_call_that_is_refused_in_each_way_is_left_out(tmp_path: Path) -> None:
    done = _from_model(tmp_path, ["Llama-3.1-8B", "DeepSeek-V3"], "--framework", "transformers", "--seqlen", 4096)
    assert done.code == 1
    assert "left out: DeepSeek-V3, 61 layers, training: not taken, b200: (head_dim, head_dim_v)=(192, 192)" in done.err
    assert list(_plan(done.out).excluded) == []
    alone = _from_model(tmp_path, ["DeepSeek-V3"], "--framework", "transformers", "--seqlen", 4096)
    assert alone.code == 2
    assert alone.err.partition("error: ")[2].startswith(
        "no call of these models is taken\nhint: DeepSeek-V3, 61 layers"
    )


@pytest.mark.long
def test_call_that_one_of_several_targets_refuses_is_left_out(tmp_path: Path) -> None:
    config = {**CONFIGS["DeepSeek-V3"], "kv_lora_rank": 512}
    place = write_config(tmp_path, "latent", config)
    done = run(
        "spec", "from-model", place, "--for", "decode", "--for", "evaluation", "--target", "b200", "--target", "h100"
    )
    assert done.code == 1
    assert "targets: [b200, h100]" in done.out
    assert "left out: latent, 61 layers, decode: not taken, h100: " in done.err


# What jobs look up

_LLAMA = LayerCall(32, 8, 128, 128)
_QWEN = LayerCall(7, 1, 128, 128)  # of one of four GPUs
_DEEPSEEK = LayerCall(16, 16, 192, 128)  # of one of eight
_GEMMA = LayerCall(16, 8, 256, 256)


def _steps(call: LayerCall) -> list[LayerCall]:
    """Return training steps of several sizes."""
    sizes = [(2, 4096), (1, 1), (64, 200), (1, 100_000)]
    return [replace(call, is_training=True, batch=batch, seqlen_q=rows, seqlen_k=rows) for batch, rows in sizes]


def _serving(call: LayerCall) -> list[LayerCall]:
    """Return a prefill, and steps of decoding."""
    sizes = [(3, 5000, 5000), (1, 128, 9000), (1, 1, 1), (200, 1, 3000), (8, 1, 100_000)]
    return [replace(call, page=128, batch=batch, seqlen_q=q, seqlen_k=k) for batch, q, k in sizes]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "gpus", "layers", "environment"),
    [
        ("Llama-3.1-8B", 1, [_LLAMA], {}),
        ("Qwen2.5-7B", 4, [_QWEN], {}),
        ("DeepSeek-V3", 8, [_DEEPSEEK], {}),
        ("gemma-3-12b-it", 1, [_GEMMA, replace(_GEMMA, window=(1023, 0))], {_GENERIC: "1"}),
    ],
)
def test_jobs_of_a_model_look_up_what_its_spec_reaches(
    tmp_path: Path, jobs: Jobs, name: str, gpus: int, layers: list[LayerCall], environment: dict[str, str]
) -> None:
    uses = [word for use in ("training", "prefill", "decode") for word in ("--for", use)]
    done = _from_model(tmp_path, [name], *uses, "--page-size", 128, "--tensor-parallel", gpus)
    assert done.code == 0, done.err
    reached = {kernel.reached.identity for kernel in _plan(done.out).kernels}
    calls = [call for layer in layers for call in _steps(layer) + (_serving(layer) if name != "DeepSeek-V3" else [])]
    jobs.run(recorded, calls, tmp_path / "record", environment)
    (process,) = read_recordings([tmp_path / "record"]).processes
    looked_up = {identity_of(one.slot, one.key, one.facts) for one in process.lookups}
    assert len(looked_up) > 4
    assert looked_up - reached == set()


@pytest.mark.long
@pytest.mark.compiles
def test_strict_job_of_a_model_is_served_by_a_cache_of_its_spec(tmp_path: Path) -> None:
    done = _small(tmp_path, "--for", "evaluation", "--batch", 2, "--seqlen", 4096)
    assert done.code == 0, done.err
    (tmp_path / "spec.yaml").write_text(done.out)
    built = run("build", tmp_path / "spec.yaml", "--cache", tmp_path / "cache")
    assert "1 kernel, 1 built" in built.err
    calls = [Call(heads=8, kv_heads=2), Call(heads=8, kv_heads=2, batch=4)]
    report = report_of(
        run_from_scratch(command(calls), FA4_PRECOMPILE_CACHE=str(tmp_path / "cache"), FA4_PRECOMPILE_ON_MISS="error")
    )
    assert (report.missing, report.stats["resolved"], report.stats["compiled"]) == ([], 1, 0)


# The command line


def test_json_has_the_spec_and_what_was_read(tmp_path: Path) -> None:
    done = _small(tmp_path, "--seqlen", "4096", "--json", attention_dropout=0.5)
    document = json.loads(done.out)
    assert "head_dim: 64" in document["spec"]
    assert document["left_out"] == []
    assert document["notes"] == [f"`{tmp_path}/small/config.json`: `attention_dropout` is 0.5: no call has dropout"]
    (model,) = document["models"]
    (layers,) = model["layers"]
    assert (model["name"], layers["number"], layers["heads"], layers["window"]) == ("small", 2, 8, None)


def test_open_sizes_that_are_within_those_of_another_model_are_not_said_again(tmp_path: Path) -> None:
    places = [
        write_config(tmp_path, name, {**_SMALL, "max_position_embeddings": longest})
        for name, longest in (("short", 1024), ("long", 2048), ("longer", 2048))
    ]
    done = run("spec", "from-model", *places, "--for", "decode", "--for", "prefill")
    assert done.code == 0, done.err
    assert "# long, 2 layers; longer, 2 layers; short, 2 layers" in done.out.splitlines()
    shapes = [line.strip("- ") for line in done.out.splitlines() if "seqlen_k" in line]
    assert shapes == [
        "{batch: 1..256, heads: 8, seqlen_q: 1..2048, seqlen_k: 1..2048}",
        "{batch: 1..256, heads: 8, seqlen_q: 1, seqlen_k: 1..2048}",
    ]


def test_sizes_are_those_that_are_said(tmp_path: Path) -> None:
    done = _small(tmp_path, "--batch", "1,8", "--seqlen", "1..512, 4096")
    shapes = [line.strip("- ") for line in done.out.splitlines() if "seqlen_k" in line]
    assert sorted(shapes) == sorted(
        f"{{batch: {batch}, heads: 8, seqlen_q: {rows}, seqlen_k: {rows}}}"
        for batch in (1, 8)
        for rows in ("1..512", 4096)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seqlen", "4k"), "`--seqlen` can't be `4k`"),
        (("--seqlen", "8..1"), "`--seqlen` can't be `8..1`"),
        (("--batch", "0"), "`--batch` can't be `0`"),
        (("--batch", ""), "`--batch` can't be ``"),
        (("--num-splits", "257"), "`--num-splits` can't be `257`"),
        (("--tensor-parallel", "3"), "small: 8 heads can't be divided among 3 GPUs"),
        (("--page-size", "16"), "`--page-size` is about prefill and decode"),
        (("--framework", "vllm"), "vLLM makes no training steps"),
        (("--target", "b2000"), "there is no target `b2000`"),
        (("--as", "lama"), "the model type `lama` is not known"),
    ],
)
def test_option_that_can_not_be_meant_is_named(tmp_path: Path, options: Sequence[str], message: str) -> None:
    done = _small(tmp_path, *options)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 4096}, "small, 2 layers, training: no spec can say its calls: `head_dim` can't be `4096`"),
        ({"model_type": "unheard-of"}, "the model type `unheard-of` is not known"),
        ({"torch_dtype": "float32"}, "no `dtype` or `torch_dtype` of 16 bits"),
    ],
)
def test_configuration_that_no_spec_can_say_is_an_error(tmp_path: Path, changes: Config, message: str) -> None:
    done = _small(tmp_path, **changes)
    assert done.code == 2
    assert message in done.err
