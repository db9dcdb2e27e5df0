"""Which releases of the DSL build, and which run-time libraries load what they built. Needs no GPU.

    python benchmarks/toolchains.py --dsl 4.7.1 4.8.1 --tvm-ffi 0.1.14 newest

Builds a training step of head_dim 64 for SM100 with each DSL, the newest FA4 that pip takes with it, and the newest of
the TVM-FFI releases that it works with. Then loads each cache in processes that have each of the DSL's run-time
libraries and each TVM-FFI, FA4 as it was: verified, symbol found, function made, and called without arguments, which
raises a TypeError with the kernel's signature, so that caller and kernel understand each other. No kernel is launched.
Beside it stands what a strict job says, in which the toolchain has to be exact.

Five DSLs and five TVM-FFIs take some eight minutes on two cores, and 6 GB of disk while they run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layers import Failed, add_layer, pins, pip, resolve, run, say

_REPOSITORY = Path(__file__).resolve().parent.parent
_DSL = ("4.4.2", "4.5.3", "4.6.3", "4.7.1", "4.8.1")
_NEWEST = "newest"
_TVM_FFI = ("0.1.11", "0.1.12", "0.1.13", "0.1.14", _NEWEST)

# `torch` first, by itself: a CPU build is enough, where pip finds one.
_FOR_BUILDS = ("triton", "numpy", "pyelftools", "click", "PyYAML", "filelock", "tqdm", "typing_extensions")
_FOR_JOBS = ("typing_extensions",)
_PROVIDER = ("flash-attn-4", "quack-kernels")
_FFI = "apache-tvm-ffi"

_SPEC = """version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: small, pass: bwd, dtype: bf16, head_dim: 64}
"""

# What a job does for each kernel of the manifests that fit: `refused` says why none does, `exact` why none does to a
# strict job.
_LOAD = """
import json, sys
from pathlib import Path
from fa4_precompile.cache.fit import Fit
from fa4_precompile.loader.kernel import Kernel
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.dsl.driver import Device

def fault(kernel):
    if not isinstance(kernel, Kernel):
        return kernel.detail
    try:
        kernel.function()
    except TypeError as error:
        return "" if "__call__(" in str(error) else f"an error without a signature: {error}"
    return "called without arguments, it did not object"

device = Device(0, "a made-up B200", "sm_100a", 148)
cache = Cache([Path(sys.argv[1])])
cache.prepare()
fitting = cache.manifests(device)
faults = [
    fault(cache.load(root, manifest.toolchain, kernel)) for root, manifest in fitting for kernel in manifest.kernels
]
refused = "" if fitting else cache.resolve("fwd", (), device).detail
strict = Cache([Path(sys.argv[1])], fit=Fit.EXACT)
exact = "" if strict.has_toolchain else strict.why_unfit
print(json.dumps({"refused": refused, "faults": faults, "exact": exact}))
"""


@dataclass(frozen=True)
class _Toolchain:
    """A DSL, with the FA4 and quack that pip takes with it, as layers."""

    dsl: str
    provider: Mapping[str, str]
    provider_layer: Path
    dsl_layer: Path


@dataclass(frozen=True)
class _Built:
    """What came of building with a toolchain. `tvm_ffi` is empty, and `problem` not, if nothing was built."""

    toolchain: _Toolchain
    cache: Path
    tvm_ffi: str = ""
    kernels: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Loaded:
    """What came of loading a cache: `refused` or `fails` with why, nothing if it loads; and what a strict job says."""

    word: str
    reason: str
    exact: str = ""


class _Workshop:
    """A folder with a Python that builds, one that has nothing, and layers for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        say("installing torch and the others for builds")
        venv.create(folder / "builds", with_pip=True)
        venv.create(folder / "jobs")
        self.builder, self.job = folder / "builds/bin/python", folder / "jobs/bin/python"
        pip(self.builder, "install", "-c", _REPOSITORY / "constraints.txt", "torch")
        pip(self.builder, "install", *_FOR_BUILDS)
        self._ours = folder / "ours"
        pip(self.builder, "install", "--no-deps", "--target", self._ours, _REPOSITORY, *_FOR_JOBS)
        (folder / "small.yaml").write_text(_SPEC)

    def toolchain(self, dsl: str) -> _Toolchain:
        """Install a DSL, and the newest FA4 that pip takes with it. Raises `Failed`."""
        say(f"asking which FA4 goes with DSL {dsl}")
        # A pre-release in the requirement lets pip take them, of this distribution only.
        found = pins(resolve(self.builder, f"nvidia-cutlass-dsl=={dsl}", "flash-attn-4>=4.0.0b1"))
        provider = {name: found[name] for name in _PROVIDER}
        others = {name: version for name, version in found.items() if name not in (*_PROVIDER, _FFI)}
        name = "-".join(provider.values())
        return _Toolchain(
            dsl,
            provider,
            add_layer(self.builder, self.folder / f"provider-{name}", provider),
            add_layer(self.builder, self.folder / f"dsl-{dsl}", others),
        )

    def tvm_ffi(self, version: str) -> tuple[str, Path]:
        """Install the newest post-release of a TVM-FFI, or the newest at all; return its version. Raises `Failed`."""
        wanted = _FFI if version == _NEWEST else f"{_FFI}=={version}.*"
        (found,) = pins(resolve(self.builder, wanted, options=("--no-deps",))).values()
        return found, add_layer(self.builder, self.folder / f"tvm-ffi-{found}", {_FFI: found})

    def build(self, toolchain: _Toolchain, releases: Mapping[str, Path]) -> _Built:
        """Build the small spec with the newest TVM-FFI that it works with."""
        cache = self.folder / f"cache-{toolchain.dsl}"
        problem = "there is no TVM-FFI to build with"
        for version, layer in reversed(list(releases.items())):
            say(f"building with DSL {toolchain.dsl}, FA4 {toolchain.provider['flash-attn-4']}, TVM-FFI {version}")
            layers = (self._ours, toolchain.provider_layer, toolchain.dsl_layer, layer)
            command = (self.builder, "-m", "fa4_precompile", "build", self.folder / "small.yaml", "--cache", cache)
            try:
                done = json.loads(run([*command, "--json", "-q"], layers))
            except Failed as error:
                problem = str(error)
            else:
                return _Built(toolchain, cache, version, done["kernels"])
        return _Built(toolchain, cache, problem=problem)

    def load(self, built: _Built, provider: Path, dsl: Path, tvm_ffi: Path) -> _Loaded:
        """Load a cache with these layers."""
        try:
            output = run([self.job, "-c", _LOAD, built.cache], (self._ours, provider, dsl, tvm_ffi))
        except Failed as error:
            return _Loaded("fails", str(error))
        answer = json.loads(output)
        exact = answer["exact"]
        if answer["refused"]:
            return _Loaded("refused", answer["refused"], exact)
        if len(answer["faults"]) != built.kernels:
            return _Loaded("fails", f"{built.kernels} kernels were built, {len(answer['faults'])} are there", exact)
        fault = next(filter(None, answer["faults"]), "")
        return _Loaded("fails" if fault else "", fault, exact)


def _survey(workshop: _Workshop, dsls: Sequence[str], tvm_ffis: Sequence[str]) -> Iterator[str]:
    releases = dict(map(workshop.tvm_ffi, tvm_ffis))
    toolchains = [workshop.toolchain(dsl) for dsl in dsls]
    all_built = [workshop.build(toolchain, releases) for toolchain in toolchains]
    yield from _built_lines(all_built)
    reasons: dict[str, str] = {}
    usable = [built for built in all_built if built.tvm_ffi]
    yield ""
    columns = [*(f"TVM-FFI {version}" for version in releases), "exact", "its own FA4"]
    yield f"| built by DSL | DSL here | {' | '.join(columns)} |"
    yield "|---" * (len(releases) + 4) + "|"
    for built in usable:
        for here in toolchains:
            say(f"loading what DSL {built.toolchain.dsl} built with that of DSL {here.dsl}")
            mine = built.toolchain.provider_layer
            loaded = {version: workshop.load(built, mine, here.dsl_layer, layer) for version, layer in releases.items()}
            cells = [
                _cell(one.word, one.reason, reasons)
                or ("same" if (here.dsl, version) == (built.toolchain.dsl, built.tvm_ffi) else "loads")
                for version, one in loaded.items()
            ]
            exact = loaded[built.tvm_ffi].exact
            cells.append(_cell("refused", exact, reasons) if exact else "taken")
            own = workshop.load(built, here.provider_layer, here.dsl_layer, releases[built.tvm_ffi])
            cells.append(_cell(own.word, own.reason, reasons) or "loads")
            yield f"| {built.toolchain.dsl} | {here.dsl} | {' | '.join(cells)} |"
    yield ""
    yield "`same`: nothing differs from the build. `loads`: the DSL or TVM-FFI differs. `refused`: a job compares it."
    yield "`exact`: what a strict job says to it, with the TVM-FFI that built it."
    yield "Last column: with the FA4 of the DSL that is here, in place of the one that built it."
    yield from (f"{number}: {reason}" for reason, number in reasons.items())


def _built_lines(all_built: Sequence[_Built]) -> Iterator[str]:
    yield "| DSL | FA4 | quack | TVM-FFI | kernels |"
    yield "|---|---|---|---|---|"
    for built in all_built:
        fa4, quack = (built.toolchain.provider[name] for name in _PROVIDER)
        what = built.problem.splitlines()[-1] if built.problem else str(built.kernels)
        yield f"| {built.toolchain.dsl} | {fa4} | {quack} | {built.tvm_ffi or 'none'} | {what} |"


def _cell(word: str, reason: str, reasons: dict[str, str]) -> str:
    """Return what is wrong in a word, with the number of the reason; nothing if nothing is."""
    if not word:
        return ""
    told = reason.splitlines()[-1].rpartition(": ")[2]
    return f"{word} ({reasons.setdefault(told, str(len(reasons) + 1))})"


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsl", nargs="+", default=_DSL, metavar="VERSION")
    parser.add_argument("--tvm-ffi", nargs="+", default=_TVM_FFI, metavar="VERSION", help="oldest first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fa4-toolchains-") as folder:
        for line in _survey(_Workshop(Path(folder)), arguments.dsl, arguments.tvm_ffi):
            print(line, flush=True)


if __name__ == "__main__":
    _main()
