"""Jobs that are recorded with no GPU: scripts as people write them, whose tensors lie on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from example_files import blocks

from fa4_precompile.cache.recording import Lookup
from fa4_precompile.errors import UsageError
from fa4_precompile.loader.config import Config
from fa4_precompile.precompile.recorded.reading import read_recordings
from product import Finished, run
from support import make_target

_IMPORTS = "import torch\nfrom flash_attn.cute import flash_attn_func, flash_attn_varlen_func\n"
_TENSORS = """
def tensor(*size):
    return torch.randn(*size, dtype=torch.bfloat16, requires_grad=True)
q, k, v = tensor(2, 300, 8, 64), tensor(2, 300, 2, 64), tensor(2, 300, 2, 64)
"""
_DEEP = f"{_IMPORTS}{_TENSORS}\n"


def _run(folder: Path, code: str, *options: object, target: str = "b200") -> Finished:
    (folder / "job.py").write_text(code)
    record = ["--record", folder / "record", "--fake", "--target", target]
    return run("run", *record, *options, "--", sys.executable, folder / "job.py", environment={"HOME": str(folder)})


def _lookups(folder: Path) -> list[Lookup]:
    (found,) = read_recordings([folder / "record"]).processes
    assert found.is_complete
    return [*found.lookups]


def test_training_script_is_recorded_as_it_is(tmp_path: Path) -> None:
    code = f"""{_DEEP}
out, lse = flash_attn_func(q, k, v, causal=True)
out.float().sum().backward()
print(out.shape == q.shape, out.device, q.grad.shape == q.shape, k.grad.shape == k.shape)
lengths = torch.tensor([0, 100, 300], dtype=torch.int32)
packed = [one.detach().flatten(0, 1)[:300] for one in (q, k, v)]
with torch.no_grad():
    flash_attn_varlen_func(*packed, cu_seqlens_q=lengths, cu_seqlens_k=lengths, max_seqlen_q=200, max_seqlen_k=200)
print(torch.randn(3).sum().isfinite().item())
"""
    done = _run(tmp_path, code)
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["True cpu True True", "True"]
    lookups = _lookups(tmp_path)
    assert [one.slot for one in lookups] == ["fwd", "bwd_pre", "bwd", "bwd_post", "fwd"]
    training = {"pass": "bwd", "dtype": "bf16", "head_dim": 64, "causal": True, "qheads_per_kvhead": 4}
    assert lookups[0].axes == {**training, "shape": {"seqlen_q": 300, "seqlen_k": 300}}
    assert lookups[-1].axes == {
        **{"pass": "fwd", "dtype": "bf16", "head_dim": 64, "qheads_per_kvhead": 4, "varlen": True},
        "shape": {"seqlen_q": 200, "seqlen_k": 200},
    }


def test_job_is_as_on_its_target_and_keeps_the_switches_that_it_sets(tmp_path: Path) -> None:
    code = f"""import os
os.environ["FLASH_ATTENTION_HD256_GENERIC_BWD"] = "1"
{_IMPORTS}
print(torch.cuda.get_device_capability(), torch.version.cuda)
q = torch.randn(1, 64, 2, 256, dtype=torch.bfloat16)
flash_attn_func(q, q.clone(), q.clone())
"""
    done = _run(tmp_path, code, target="h100")
    assert done.code == 0, done.err
    assert done.out == "(9, 0) 13.0\n"
    (lookup,) = _lookups(tmp_path)
    assert lookup.axes is not None
    assert lookup.axes["job_env"] == {"FLASH_ATTENTION_HD256_GENERIC_BWD": "1"}
    (found,) = read_recordings([tmp_path / "record"]).processes
    (served,) = found.served.values()
    assert (served.target.name, served.target.arch) == ("h100", "sm_90a")


def test_call_of_the_jobs_that_needs_a_gpu_is_named(tmp_path: Path) -> None:
    code = f"{_IMPORTS}\ndef to_the_gpu(tensor):\n    return tensor.cuda()\n\nto_the_gpu(torch.ones(1))\n"
    done = _run(tmp_path, code)
    assert done.code == 1
    assert "fa4-precompile: `job.py:5` (`to_the_gpu`) asks for a GPU" in done.err
    assert "Traceback" in done.err, "what Python says stays"


@pytest.mark.parametrize(
    ("how", "place"),
    [
        pytest.param("ctypes.CDLL('libcuda.so.1')", "`job.py:7` (`<module>`)", marks=pytest.mark.long),
        ("raise_like_an_extension()", "`job.py:6` (`raise_like_an_extension`)"),
    ],
    ids=["ctypes", "import"],
)
def test_library_of_the_driver_that_is_not_there_is_told_how_to_be_done_without(
    tmp_path: Path, how: str, place: str
) -> None:
    code = f"""{_IMPORTS}
import ctypes
def raise_like_an_extension():
    raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
{how}
"""
    done = _run(tmp_path, code)
    assert done.code == 1
    assert f"fa4-precompile: {place} asks" in done.err
    assert "asks for the driver's library, and a recording with `--fake` has none" in done.err
    assert "lib64/stubs/libcuda.so" in done.err


def test_error_of_the_jobs_own_is_its_own(tmp_path: Path) -> None:
    done = _run(tmp_path, "import torch\nraise ValueError('mine')\n")
    assert done.code == 1
    assert "fa4-precompile" not in done.err


@pytest.mark.long
def test_refusal_is_the_providers_own(tmp_path: Path) -> None:
    done = _run(tmp_path, f"{_DEEP}\nflash_attn_func(q, k[..., :40], v)\n")
    assert done.code == 1
    assert "interface.py" in done.err


@pytest.mark.long
def test_function_without_q_k_and_v_is_named_and_a_caller_says_it(tmp_path: Path) -> None:
    code = """import torch
from flash_attn.cute.interface import flash_attn_combine
flash_attn_combine(torch.empty(5, 2, 300, 8, 64), torch.empty(5, 2, 8, 300).transpose(-1, -2), out_dtype=torch.bfloat16)
"""
    done = _run(tmp_path, code, target="h100")
    assert done.code == 0, done.err
    said = run("spec", "from-record", tmp_path / "record")
    assert said.code == 2, "it is all that was recorded"
    assert "slot `fwd_combine`: no axis says `flash_attn_combine()` of the call" in said.err
    (lookup,) = _lookups(tmp_path)
    for name, language in {"my_calls.py": "python", "combine.yaml": "yaml"}.items():
        (text,) = blocks("docs/how-to/callers.md", "A function of FA4's that is given no Q, K and V", language)
        (tmp_path / name).write_text(text)
    planned = run("plan", tmp_path / "combine.yaml", "--json", environment={"PYTHONPATH": str(tmp_path)})
    assert planned.code == 0, planned.err
    assert lookup.key in {kernel["key"] for kernel in json.loads(planned.out)["kernels"]}


def test_call_with_a_function_of_the_script_is_recorded_and_said_to_have_no_name(tmp_path: Path) -> None:
    code = f"""{_DEEP}
import cutlass.cute as cute
@cute.jit
def mine(score, *_):
    return score
with torch.no_grad():
    flash_attn_func(q, k, v, score_mod=mine)
"""
    done = _run(tmp_path, code)
    assert done.code == 0, done.err
    (lookup,) = _lookups(tmp_path)
    assert "score_mod" in lookup.unsaid


# What can't be meant


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fake", "--target", "b200"], "`--fake` is about a recording"),
        (["--record", "r", "--fake"], "`--fake` needs to know the device"),
        (["--record", "r", "--target", "b200"], "`--target` is about `--fake`"),
        (["--record", "r", "--fake", "--target", "b20"], "there is no target `b20`"),
        (["--record", "r", "--fake", "--target", "b200", "--strict"], "with `--fake` no cache is asked"),
        (["--record", "r", "--fake", "--target", "b200", "--cache", "."], "with `--fake` no cache is asked"),
        (["--record", "r", "--fake", "--target", "b200", "--no-compiler"], "with `--fake` no cache is asked"),
        (["--record", ""], "the name is empty"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_start_nothing(tmp_path: Path, options: list[str], said: str) -> None:
    environment = {"HOME": str(tmp_path), "FA4_PRECOMPILE_RECORD": ""}
    done = run("run", *options, "--", "touch", tmp_path / "started", environment=environment, cwd=tmp_path)
    assert done.code == 2, done.err
    assert said in done.err
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "r").exists()


def test_folder_that_can_not_be_made_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("run", "--record", tmp_path / "file" / "r", "--", "touch", tmp_path / "started")
    assert done.code == 2
    assert "can't be made, so nothing can be recorded there" in done.err
    assert not (tmp_path / "started").exists()


def test_settings_are_read_by_the_job_as_they_were_meant() -> None:
    config = Config((), record=Path("/a/folder"), fake=make_target())
    assert Config.without_roots(config.render()) == config


@pytest.mark.parametrize("value", ["b200", "b200:sm_100a:148:13", "b200:gpu:148:13:x86_64", "b200:sm_100a:many:13:x86"])
def test_variable_that_is_no_target_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="can't be meant") as caught:
        Config.from_env({"FA4_PRECOMPILE_FAKE": value, "FA4_PRECOMPILE_CACHE": "/a"})
    assert "--fake" in caught.value.hint
