"""FlashAttention as published finds what was exported for it: without us in the process, and without a compiler."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from stock_job import report_of_stock

from fa4_precompile.cache.key import BlobDigest, encode_key
from fa4_precompile.cache.store import Root
from fa4_precompile.commands.export_stock import export_stock
from fa4_precompile.errors import UsageError
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.own_disk import entries_of
from fa4_precompile.precompile.export_stock import StockExport, tried
from fa4_precompile.precompile.export_stock import export_stock as export
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.products.forwarding import forwarding_object
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.disk import NoEntry
from fa4_precompile.providers.fa4.disk_cache import FlashAttentionDiskCache
from fa4_precompile.providers.fa4.variant import Variant
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.recognizer import Recognizer
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.slots import Slot
from fake_job import Call as JobCall
from product import SMALL_SPEC, Finished

_MEMORY_ONLY = "in memory only"

# What the small cache has, and a call that computes its block lists: with a slot that has no disk cache.
_SPEC = SMALL_SPEC + (
    "- {name: computed, pass: fwd, dtype: bf16, head_dim: 64, sparse: {q_block: 256, kv_block: 128, computed: exact},"
    ' mask_mod: "fa4_precompile.masks.segment_mods:mask_1",'
    " aux_tensors: {dtype: int32, shape: [batch, heads, 1, seqlen_q]}}\n"
)

_MAIN = """
import json, sys
from pathlib import Path
from fa4_precompile.commands.export_stock import export_stock
spec, folder, cache = sys.argv[1:]
export_stock(spec, Path(folder), Path(cache), None, 2, False, True)
"""

# A blob: its function answers a number.
_BLOB = """
int __tvm_ffi_SYMBOL(void *self, void *arguments, int count, long *result)
{
    *(int *)result = 1;
    result[1] = NUMBER;
    return 0;
}
"""

# The forwarding function's caller: what is said of an error is kept for the test.
_ERRORS = "const char *said; void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *why) { said = why; }"


@dataclass(frozen=True)
class Exported:
    """An export that the command line made, and its JSON."""

    done: Finished
    folder: Path
    spec: Path

    @property
    def content(self) -> dict[str, Any]:
        """What it printed."""
        content: dict[str, Any] = json.loads(self.done.out)
        return content


@pytest.fixture(scope="module")
def exported(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small cache's kernels in FlashAttention's layout, and what was said of two that it does not have."""
    home = tmp_path_factory.mktemp("stock")
    spec, folder = home / "spec.yaml", home / "made" / "kernels"
    spec.write_text(_SPEC)
    command = [sys.executable, "-c", _MAIN, str(spec), str(folder), str(small_cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=home)
    moved = home / "elsewhere"
    folder.rename(moved)
    return Exported(Finished(done.returncode, done.stdout, done.stderr), moved, spec)


@pytest.mark.compiles
def test_export_stock_says_of_each_kernel_whether_a_job_finds_it(exported: Exported) -> None:
    content = exported.content
    met = Counter(kernel["slot"] for kernel in content["kernels"] if not kernel["reason"])
    assert met == {"fwd": 3, "bwd_pre": 1, "bwd": 1, "bwd_post": 1}
    reasons = {kernel["slot"]: kernel["reason"] for kernel in content["kernels"] if kernel["reason"]}
    assert set(reasons) == {"fwd", "compute_block_sparsity"}
    assert reasons["fwd"] == "the cache does not have it; `fa4-precompile build` makes it"
    assert _MEMORY_ONLY in reasons["compute_block_sparsity"]
    assert exported.done.code == 1
    assert content["facts"] == {"sms": 148}
    assert len(list(exported.folder.rglob("*.o"))) == sum(met.values())
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in [exported.folder, *exported.folder.rglob("*")]}
    assert modes == {"": 0o755, ".o": 0o444, ".lock": 0o644}, "a job of another user can read all, and makes no lock"


@pytest.mark.compiles
def test_export_stock_serves_a_job_that_has_neither_us_nor_a_compiler(exported: Exported) -> None:
    before = sorted(exported.folder.rglob("*"))
    calls = [JobCall(causal=False), JobCall(causal=True, batch=3, seqlen_q=500), JobCall(training=True)]
    report = report_of_stock(calls, exported.folder)
    assert (report.forbidden, report.ours) == ([], [])
    assert Counter(slot for slot, _ in report.loaded) == {"fwd": 3, "bwd_pre": 1, "bwd": 1, "bwd_post": 1}
    named = {"fwd": "mQ", "bwd_pre": "mdO", "bwd": "mdK", "bwd_post": "mdQ"}  # each is the kernel of its own slot
    assert all(named[slot] in words for slot, words in report.loaded)
    assert sorted(exported.folder.rglob("*")) == before, "it wrote something, which a read-only mount forbids"


@pytest.mark.compiles
def test_export_stock_tries_what_it_has_written_and_finds_what_is_gone_or_damaged(
    exported: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported.folder, folder)
    post, bwd = next(folder.glob("*/bwd_post/*.o")), next(folder.glob("*/bwd/*.o"))
    post.unlink()
    content = bwd.read_bytes()
    bwd.chmod(0o644)
    bwd.write_bytes(content[:4] + content[4:].replace(b"\x7fELF", b"\x7fXXX", 1))  # the blob in it, not itself
    spec = read_spec(exported.spec, target_book())
    (call,) = [Call(variant) for variant in spec.variants if variant.render().get("pass", "fwd") == "bwd"]
    with Compilers(spec.provider, spec.targets[0], installed_toolchain(spec.provider), 1) as compilers:
        answers = tried(compilers, FlashAttentionDiskCache(), folder, {(): [call]})
    reasons = {slot: reason for (slot, *_), reason in answers.items() if reason}
    assert set(reasons) == {"bwd", "bwd_post"}
    assert reasons["bwd_post"] == "it is not found there, or is no object file that loads"
    assert "does not load" in reasons["bwd"]


def test_export_stock_into_a_folder_with_something_in_it_is_refused(root: Root, small_spec: Path) -> None:
    target = target_book().get("b200")
    spec = read_spec(small_spec, target_book())
    there = sorted(root.path.rglob("*"))
    with pytest.raises(UsageError, match="is there and not empty"):
        export(root, spec, target, installed_toolchain(DEFAULT), root.path, print, 1)
    assert sorted(root.path.rglob("*")) == there


def test_export_stock_for_several_targets_is_refused(root: Root, write_spec: Callable[[str], Path]) -> None:
    spec = write_spec("targets: [b200, h100]\nkernels: [{name: one, pass: fwd, dtype: bf16, head_dim: 64}]\n")
    with pytest.raises(UsageError, match="one folder is for one"):
        export_stock(str(spec), root.path.parent / "new", root.path, None, 1, False, False)


def test_export_stock_of_a_provider_without_a_disk_cache_is_refused(root: Root, small_spec: Path) -> None:
    @dataclass(frozen=True)
    class Other:
        provider: Any
        name: str = "other"

    spec: Any = Other(DEFAULT.under("wild_attn.cute"))
    with pytest.raises(UsageError, match=r"`wild_attn\.cute` has no disk cache"):
        export(root, spec, target_book().get("b200"), installed_toolchain(DEFAULT), root.path / "new", print, 1)


def test_disk_cache_of_a_slot_that_is_a_plain_mapping_has_no_entry(tmp_path: Path) -> None:
    found = FlashAttentionDiskCache().entry({}, (1, 2), tmp_path)
    assert isinstance(found, NoEntry)
    assert _MEMORY_ONLY in found.reason


def test_disk_cache_of_a_key_that_can_t_be_pickled_has_no_entry(tmp_path: Path) -> None:
    class Unpicklable:
        cache_path, EXPORT_FUNCTION_PREFIX, _lock_path = tmp_path, "func", None

        def _key_to_hash(self, key: object) -> str:
            raise TypeError(f"cannot pickle {key}")

    found = FlashAttentionDiskCache().entry(Unpicklable(), (1, 2), tmp_path)
    assert isinstance(found, NoEntry)
    assert "TypeError: cannot pickle (1, 2)" in found.reason


def _compiled(source: str, folder: Path, name: str) -> Path:
    (folder / f"{name}.c").write_text(source)
    path = folder / f"{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(folder / f"{name}.c")], check=True)
    return path


def _forwarded(blob: bytes, folder: Path, name: str) -> Path:
    """Return a shared object of a forwarding object file, as its JIT linker would have it in memory."""
    digest = BlobDigest(hashlib.sha256(blob).hexdigest())
    (folder / f"{name}.o").write_bytes(forwarding_object(blob, digest, "fa4_made_up", "func"))
    (folder / "errors.c").write_text(_ERRORS)
    path = folder / f"{name}.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(path), str(folder / f"{name}.o"), str(folder / "errors.c")]
    subprocess.run(command, check=True)
    return path


# In a process of its own: others may have loaded TVM-FFI into this one, for all to see, and it would be told of errors.
_CALLS = """
import ctypes, json, sys
answers = []
for path in sys.argv[1:]:
    library = ctypes.CDLL(path)
    result = (ctypes.c_long * 2)()
    codes = [library.__getattr__("__tvm_ffi_func")(None, None, 0, result) for _ in range(2)]
    said = ctypes.c_char_p.in_dll(library, "said").value
    answers.append([codes, result[1], said and said.decode()])
print(json.dumps(answers))
"""


def _called(*libraries: Path) -> Any:
    """Return what two calls of each library return, what they leave, and what they say."""
    done = subprocess.run([sys.executable, "-c", _CALLS, *libraries], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_forwarding_objects_of_one_name_each_pass_calls_on_to_their_own_blob(tmp_path: Path) -> None:
    libraries: list[Path] = []
    for number in (3, 4, 3):
        source = _BLOB.replace("SYMBOL", "fa4_made_up").replace("NUMBER", str(number))
        blob = _compiled(source, tmp_path, f"blob{number}").read_bytes()
        libraries.append(_forwarded(blob, tmp_path, f"forward{len(libraries)}"))
    assert _called(*libraries) == [[[0, 0], number, None] for number in (3, 4, 3)]


def test_forwarding_object_of_a_blob_that_does_not_load_says_so_in_the_call(tmp_path: Path) -> None:
    ((codes, _, said),) = _called(_forwarded(b"no shared object", tmp_path, "forward"))
    assert codes == [-1, -1]
    assert said.startswith("kernel fa4_made_up does not load: ")


def test_export_stock_renders_what_a_job_must_set_and_have() -> None:
    disk = FlashAttentionDiskCache()
    done = StockExport(
        spec="mine",
        target=target_book().get("b200"),
        folder=Path("/opt/kernels"),
        python="3.11",
        environment=disk.environment(Path("/opt/kernels")),
        conditions=disk.conditions,
        facts={},
        kernels=[],
        excluded=[],
        broken=[],
        bytes=0,
    )
    assert done.render()["environment"] == {
        "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1",
        "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": "/opt/kernels",
    }
    assert not done.unmet


def test_places_of_a_call_that_is_refused_are_those_that_it_looks_up_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("refusing_kernels")
    module.kernels = {}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    provider: Any = SimpleNamespace(
        package=module.__name__, beside=(), passing="", slots_of=lambda found: [Slot("fwd", found, "kernels")]
    )
    wrong = [ValueError("not supported"), KeyError("a fault")]

    def call(_: object) -> None:
        assert "key" in module.kernels
        raise wrong[0]

    def refusal(error: Exception) -> str | None:
        return str(error) if isinstance(error, ValueError) else None

    dsl = SimpleNamespace(cute=SimpleNamespace(compile=None))
    live: Any = SimpleNamespace(dsl=dsl, call=call, refusal=refusal, recognizer=Recognizer())
    asked = [Call(Variant("fwd", "bf16", 64, 64))]
    assert entries_of(provider, live, asked, lambda cache, key: NoEntry(str(key))) == {
        ("fwd", encode_key("key"), ()): {NoEntry("key")}
    }
    wrong.pop(0)
    with pytest.raises(KeyError):
        entries_of(provider, live, asked, lambda cache, key: NoEntry(str(key)))
