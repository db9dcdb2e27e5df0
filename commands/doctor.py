"""What this machine has for building and loading kernels, what is wrong, and how to mend it."""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache.fit import Fit
from ..cache.layout import FORMAT
from ..cache.store import Root
from ..cache.target import MACHINES, host_machine
from ..cache.trust import Trust, opened_folder
from ..errors import CacheError, Fa4PrecompileError, MachineError, RecordError, UntrustedError, UsageError
from ..loader.config import Config
from ..loader.resolve import Cache
from ..loader.wheels import Wheel, installed_wheels
from ..products.link import find_linker
from ..products.load import open_run_time
from ..providers.dsl.cross import CROSS_COMPILER, cross_compiler
from ..providers.dsl.driver import detect_driver
from ..providers.dsl.installation import (
    RUNTIME_LIBRARY,
    codegen_environment,
    dsl_cuda_flavors,
    dsl_cuda_in_use,
    dsl_distributions,
    dsl_parts,
    runtime_library,
)
from ..providers.foreign import foreign_files, foreign_words
from ..providers.installed import installed_toolchain
from ..providers.known_bad.listed import KnownBad
from ..providers.packages import BUILD_HINT, package_folder, source_digest, version
from ..providers.registry import DEFAULT, installed_carriers, provider_of
from ..text.words import count, megabytes
from .asking import answer_of
from .image import Installed, droppable, installed
from .inputs import named_root, vouchers
from .known_bad import list_of, suspicions
from .output import conclude, print_json, print_lines

# What of the extra `build` nothing else brings along: where it is installed, the machine is meant to build.
_SIGN_OF_A_BUILDER = "elftools"

# What lies at the top of a cache, beside its `format.json`. Who can write there can put kernels of his own below.
_CACHE_FOLDERS = ("records", "blobs", "blobs/sha256", "toolchains", "manifests", "libraries")

_COMPILER_SECONDS = 10.0

_OF_A_JOB = ("torch", "apache-tvm-ffi", "fa4-precompile")


class Role(enum.Enum):
    """What a machine is for."""

    BUILD = "build"
    JOB = "job"


@dataclass(frozen=True)
class Item:
    """One thing that was looked at. `mend` says what to do, or what follows from it."""

    what: str
    ok: bool
    found: str
    mend: str = ""

    @property
    def word(self) -> str:
        """Whether it is as it should be, in a word."""
        return "ok  " if self.ok else "FAIL"

    def excused(self) -> Item:
        """Return the same where only a build would need it."""
        return self if self.ok else replace(self, ok=True, mend=f"only a build needs it; {self.mend}".rstrip("; "))


class Doubtful(Item):
    """A thing that is as it should be, and may not be what is wanted."""

    word = "warn"


def doctor(cache: Path | None, role: str | None, modules: Sequence[str], as_json: bool) -> None:
    """Print what was looked at; end with findings if something is wrong."""
    items = examine(cache, Role(role) if role else None, modules or _named_modules())
    if as_json:
        print_json([vars(item) for item in items])
    else:
        print_lines(line for item in items for line in _lines(item))
    conclude(not all(item.ok for item in items))


def _lines(item: Item) -> Iterator[str]:
    yield f"{item.word} {item.what}: {item.found}"
    if item.mend:
        yield f"     {item.mend}"


def examine(cache: Path | None, role: Role | None, modules: Sequence[str] = ()) -> list[Item]:
    """Look at everything that a role needs. Imports neither torch nor the DSL; writes nothing; does not raise.

    The cache is the one that is named, else the environment's. Without a role all is looked at, and what only a build
    needs is wrong only where the extra `build` is installed. `modules` are the packages that are to be there; none for
    those that are.
    """
    for_builds = [
        *_seen("DSL", _dsl),
        *_seen("packages", lambda: map(_package, ("triton", "numpy", "elftools"))),
        *_seen("linker", _linker),
        *_seen("other hosts", lambda: [_cross(machine) for machine in MACHINES if machine != host_machine()]),
        *(item for item in _seen("toolchain", _toolchain) if item.ok),  # what it lacks is said by its parts
    ]
    if role is Role.JOB:
        for_builds = []
    elif _is_for_jobs_only(role):
        for_builds = [item.excused() for item in for_builds]
    settings = _seen("settings", _settings)
    items = [
        *(item for module in modules or installed_carriers() for item in _provider(module)),
        *_seen("TVM-FFI", lambda: [Item("TVM-FFI", True, version("apache-tvm-ffi"))]),
        *_seen("torch", lambda: [_package("torch")]),
        *for_builds,
        *_seen("run-time libraries", lambda: _run_time(_root(cache))),
        *(_seen("compiler", lambda: _compiler(_root(cache))) if role is Role.JOB else ()),
        *_seen("cache", lambda: _cache(_root(cache), role)),
        *_seen("kernels", lambda: _kernels(_root(cache), role, modules)),
        *_seen("known bad", lambda: _known_bad(_root(cache), role)),
        *_seen("wheels", lambda: [item for wheel in installed_wheels() for item in _wheel(wheel, role, modules)]),
        *_seen("GPU", lambda: [_device(role)]),
    ]
    return [*settings, *(item for item in items if item.found not in {one.found for one in settings})]


def _settings() -> Sequence[Item]:
    """Return nothing: a setting that can't be meant raises, here and wherever settings are looked at."""
    Config.without_roots()
    return ()


def _root(cache: Path | None) -> Root:
    """Return the cache as a job would see it: whoever must vouch for it by the environment."""
    return replace(named_root(cache), vouchers=vouchers())


def _wheel(wheel: Wheel, role: Role | None, modules: Sequence[str]) -> Iterator[Item]:
    root = wheel.root(Trust.OWN, vouchers())
    kernels = sum(1 for _ in root.records())
    yield Item("wheel", True, f"{count(kernels, 'kernel')} in `{wheel.folder}`, fingerprint {wheel.fingerprint}")
    yield from _kernels(root, role, modules)


def _named_modules() -> Sequence[str]:
    try:
        return Config.without_roots().modules
    except UsageError:  # said as `settings`
        return ()


def _is_for_jobs_only(role: Role | None) -> bool:
    """Return whether nobody says that the machine is to build, and it does not look so."""
    return role is None and package_folder(_SIGN_OF_A_BUILDER) is None


def _seen(what: str, look: Callable[[], Iterable[Item]]) -> list[Item]:
    """Return what a look gives; as one thing that is wrong, if it raises: a machine can be broken in any way."""
    try:
        return list(look())
    except Fa4PrecompileError as error:
        return [Item(what, False, str(error), error.hint)]
    except Exception as error:
        return [Item(what, False, f"can't be looked at: {type(error).__name__}: {error}")]


def _provider(module: str) -> list[Item]:
    def look() -> list[Item]:
        provider = provider_of(module)
        found = f"{provider.distribution} {provider.version()}"
        source = source_digest(provider.package, provider.beside, provider.folder)
        return [
            Item("provider", True, f"{found}, `{provider.package}`, source {source[:12]}"),
            *_foreign(provider.package, *provider.traced),
        ]

    return _seen("provider", look)


def _foreign(*packages: str) -> Iterator[Item]:
    """Say which files in the folders of packages are not of their distributions; nothing where there are none."""
    for package in packages:
        files = foreign_files(package)
        replaced = [file for file in files if file.replaces]
        if replaced:
            found = f"others have replaced files of `{package}`: {foreign_words(replaced)}"
            yield Item("provider's files", False, found, "install its distribution again, with `--force-reinstall`")
        if added := [file for file in files if not file.replaces]:
            found = f"others have put files into `{package}`: {foreign_words(added)}"
            mend = "delete them, or have the same ones where kernels are built and where they are loaded: its source, "
            yield Item("provider's files", True, found, mend + "with theirs, is in the toolchain")


def _dsl() -> Iterator[Item]:
    distributions = dsl_distributions()
    if not distributions:
        yield Item("DSL", False, "not installed", BUILD_HINT)
        return
    is_one = len({*distributions.values()}) == 1
    yield Item(
        "DSL versions",
        is_one,
        ", ".join(f"{name} {version}" for name, version in distributions.items()),
        "" if is_one else "its distributions must have one version: install nvidia-cutlass-dsl again",
    )
    flavors = dsl_cuda_flavors()
    thor = "" if 13 in flavors else "sm_110a (thor) needs the CUDA 13 ones: `pip install 'fa4-precompile[build,cu13]'`"
    names = ", ".join(f"CUDA {flavor}" for flavor in flavors)
    yield Item("DSL libraries", True, f"{names}; CUDA {dsl_cuda_in_use()} in use", thor)
    if variables := codegen_environment():
        names = ", ".join(f"{name}={value}" for name, value in variables.items())
        yield Item("code generation", True, names, "these variables change the kernels; they are in the toolchain's id")


def _package(name: str) -> Item:
    is_there = package_folder(name) is not None
    return Item(name, is_there, "installed" if is_there else "not installed", "" if is_there else BUILD_HINT)


def _linker() -> Iterator[Item]:
    linker = find_linker()
    answer = answer_of([*linker, "--version"], most_seconds=_COMPILER_SECONDS)
    if answer is None:
        what = f"`{shlex.join([*linker, '--version'])}` fails, or does not end"
        yield Item("linker", False, what, "set `CC` to a C compiler that works")
        return
    yield Item("linker", True, next(iter(answer.splitlines()), f"`{shlex.join(linker)}`, which names no version"))


def _cross(machine: str) -> Item:
    try:
        found = cross_compiler(machine)
    except MachineError as error:
        return Item(f"{machine} hosts", True, "not built for here", f"for targets with such hosts {error.hint}")
    return Item(f"{machine} hosts", True, f"built for with {CROSS_COMPILER} {found.version}")


def _toolchain() -> Iterator[Item]:
    yield Item("toolchain", True, installed_toolchain(DEFAULT).id, "all that shapes a kernel has this one name")


def _known_bad(root: Root, role: Role | None) -> Iterator[Item]:
    listed = list_of()
    if role is not Role.JOB:
        yield from _known_bad_builds(listed)
    try:
        found = [] if root.is_new else list(suspicions(root, listed))
    except (CacheError, RecordError, UntrustedError):  # said where the cache is looked at
        return
    for toolchain, target, doubts in found:
        for doubt in doubts:
            whose = f"{count(len(doubt.kernels), 'kernel')} for {target.name} of toolchain {toolchain[:12]}"
            mend = "a job warns, and uses them; build with other releases"
            yield Doubtful("known bad", True, f"{whose}: {doubt.entry}", mend)


def _known_bad_builds(listed: KnownBad) -> Iterator[Item]:
    try:
        toolchain = installed_toolchain(DEFAULT)
    except MachineError:  # said where its parts are looked at
        return
    for entry in listed.entries:
        if entry.is_of(toolchain):
            where = f" ({entry.kernels})" if entry.kernels else ""
            mend = "`fa4-precompile build` refuses these kernels"
            yield Doubtful("known bad", True, f"what is installed makes bad kernels{where}: {entry}", mend)


def _run_time(root: Root) -> Iterator[Item]:
    cached = Cache([root.path], root.trust, vouchers=root.vouchers).library
    try:
        open_run_time(cached)
    except Fa4PrecompileError as error:
        mend = "`pip install apache-tvm-ffi nvidia-cutlass-dsl`; a build on such a host puts the latter's into a cache"
        yield Item("run-time libraries", False, str(error), mend)
    else:
        where = "" if runtime_library() else ", the latter from the cache"
        yield Item("run-time libraries", True, f"libtvm_ffi.so and {RUNTIME_LIBRARY} load{where}")


def _compiler(root: Root) -> Iterator[Item]:
    """Say whether jobs have the DSL, what that costs, and whether they could do without."""
    parts = dsl_parts()
    here = [part for part, is_there in parts.items() if is_there]
    if not here:
        yield Item("compiler", True, "not installed; what the cache does not have raises in a job")
    elif len(here) < len(parts):
        missing = ", ".join(part for part in parts if part not in here)
        mend = "install nvidia-cutlass-dsl again, or set `FA4_PRECOMPILE_COMPILER=absent` in jobs"
        yield Item("compiler", False, f"installed in part, without {missing}", mend)
    else:
        yield Item("compiler", True, "installed", "`FA4_PRECOMPILE_COMPILER=absent` keeps jobs from importing it")
    all_ = installed()
    stays = [all_[name] for name in (*_OF_A_JOB, DEFAULT.distribution) if name in all_]
    yield Item("a job needs", True, _sizes(stays), "and what torch needs")
    could_go = droppable(all_, DEFAULT.distribution, _OF_A_JOB)
    if could_go:
        mend = f"if the job itself does not import them: `pip uninstall {' '.join(one.name for one in could_go)}`"
        if Cache([root.path], root.trust, vouchers=root.vouchers).library() is None:
            mend = f"first build into `{root.path}` again, which has no run-time library that fits"
        yield Item("an image could drop", True, _sizes(could_go), mend)


def _sizes(distributions: Sequence[Installed]) -> str:
    each = ", ".join(f"{one.name} {one.version} ({megabytes(one.bytes)})" for one in distributions)
    return f"{megabytes(sum(one.bytes for one in distributions))}: {each}"


def _cache(root: Root, role: Role | None) -> Iterator[Item]:
    if root.is_new:
        yield _no_cache_yet(root.path, role)
        return
    root.require_layout()
    sealed = root.sealed
    fingerprint = f"sealed, fingerprint {sealed.fingerprint}" if sealed is not None else ""
    if root.vouchers:
        whom = "is expected" if root.vouchers.fingerprints else "is signed by a key that is trusted"
        yield Item("cache", True, f"`{root.path}` is a cache, {fingerprint}; it {whom}, whoever owns it")
        return
    looked_at = [FORMAT]
    distrusted: list[Item] = []
    for name in _CACHE_FOLDERS:
        try:
            _require_folder(root, name)
            looked_at.append(name)
        except FileNotFoundError:
            continue  # there is nothing of the kind yet
        except UntrustedError as error:
            distrusted.append(Item("cache", False, str(error), error.hint))
        except OSError as error:
            distrusted.append(Item("cache", False, f"`{root.path / name}` can't be read: {error.strerror}"))
    if distrusted:
        yield from dict.fromkeys(distrusted)  # what is wrong with `blobs` is met on the way to what is below, too
        return
    names = ", ".join(f"`{name}`" for name in looked_at)
    yield Item(
        "cache",
        True,
        f"`{root.path}` is a cache; the folder and its {names} belong to you or root, and nobody else can write them",
        f"{fingerprint}; " * bool(fingerprint) + "what is below was not looked at; `fa4-precompile verify` does",
    )


def _kernels(root: Root, role: Role | None, modules: Sequence[str]) -> Iterator[Item]:
    """Say whether jobs here take the kernels of a root, and what differs; nothing of a root that has none."""
    if root.is_new or not any(root.toolchains()):
        return
    providers = [provider_of(module) for module in modules or installed_carriers()] or [DEFAULT]
    caches = [Cache([root.path], root.trust, provider, root.vouchers) for provider in providers]
    fitting = [cache for cache in caches if cache.has_toolchain]
    if not fitting:
        yield Item("kernels", role is not Role.JOB, caches[0].why_unfit, "build them with what is installed here")
    elif any(replace(cache, fit=Fit.EXACT).has_toolchain for cache in fitting):
        yield Item("kernels", True, f"`{root.path}` has kernels of what is installed here")
    else:
        differences = next(iter(fitting[0].inexact.values()))
        found = f"`{root.path}` was built by another toolchain than is installed here: {differences}"
        is_wanted = role is Role.JOB and Config.without_roots().fit is Fit.EXACT
        yield Item(
            "kernels", not is_wanted, found, "a strict job takes them only with `FA4_PRECOMPILE_TOOLCHAIN=compatible`"
        )


def _no_cache_yet(path: Path, role: Role | None) -> Item:
    lowest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    found = f"`{path}` {'is empty' if lowest == path else 'does not exist'}"
    if os.access(lowest, os.W_OK | os.X_OK, effective_ids=True):
        return Item("cache", role is not Role.JOB, found, "`fa4-precompile build` makes a cache there")
    found = f"{found}, and a build can't make a cache there: `{lowest}` can't be written"
    item = Item("cache", False, found, "name another folder with `--cache DIR`")
    return item.excused() if _is_for_jobs_only(role) else item


def _require_folder(root: Root, name: str) -> None:
    with opened_folder(root.path, root.trust) as top, top.below(name) as (parent, last), parent.folder(last):
        pass


def _device(role: Role | None) -> Item:
    driver = detect_driver()
    elsewhere = "a job needs one, unless its tensors are fake" if role is Role.JOB else "kernels are loaded elsewhere"
    if driver is None:
        return Item("GPU", True, "no NVIDIA driver", elsewhere)
    if not driver.devices:
        return Item("GPU", True, f"driver for CUDA {driver.cuda}, no GPU visible", elsewhere)
    names = ", ".join(f"{device.name} ({device.arch}, {device.sms} SMs)" for device in driver.devices)
    return Item("GPU", True, f"{names}; driver for CUDA {driver.cuda}")
