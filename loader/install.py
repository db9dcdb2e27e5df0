"""The loader's public functions: `install`, `uninstall`, `preload`, `stats`."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from ..cache.fit import Fit
from ..errors import UsageError
from ..providers.dsl.installation import IMPORTED_AS
from ..providers.registry import DEFAULT, carried_in, provider_carried_by, provider_of
from .absence import Absence, is_absent_already, is_to_be_absent, require_no_store
from .behavior import Behavior, Keeper
from .choices import Compiler, OnMiss, allowed
from .config import Config
from .kernel import Kernel
from .loader import Loader, installed_loader
from .presence import leave_sign
from .resolve import Cache
from .stats import Counts, Stats, report_at_exit
from .voice import set_level, warn
from .wanted import Preloading, Wanted, When

if TYPE_CHECKING:
    from ..providers.protocol import Provider

_Choice = TypeVar("_Choice", bound=enum.Enum)


def install(
    *roots: str | os.PathLike[str],
    on_miss: str | None = None,
    toolchain: str | None = None,
    allow_untrusted: bool | None = None,
    expect: str | Sequence[str] | None = None,
    trust_key: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    report: bool | str | os.PathLike[str] | None = None,
    module: str | Sequence[str] | None = None,
    compiler: str | None = None,
    dsl_users: Sequence[str] | None = None,
    preload: str | os.PathLike[str] | bool | None = None,
    record: str | os.PathLike[str] | None = None,
) -> None:
    """Make FlashAttention-4 take its kernels from a cache, in this process. It can be imported before or after.

    What is not given is taken from the environment (docs/reference/environment.md). A second call replaces the first.

    Args:
        roots: cache directories in the order of search.
        on_miss: `error`, `warn`, `compile` or `store`: what happens where the cache does not have a kernel. `error`
            also forbids every other compile through the DSL.
        toolchain: `exact` or `compatible`: whether a kernel is taken that was built with another DSL, other libraries
            that are traced into it, or other code-generation variables than are here. By default `exact` if `on_miss`
            is `error`, else `compatible`, which says once what differs.
        allow_untrusted: load from folders that others can write.
        expect: fingerprints; every root must be sealed and have one of them, whoever owns it.
        trust_key: PEM files of public keys; every root must be sealed and signed by one of them, whoever owns it.
        report: print a summary when the process ends (True), or append it to a file as a line of JSON.
        module: the package to serve, or several: FlashAttention-4's own, of its lineage, another provider's. By default
            all of FlashAttention-4's lineage that the process imports are served.
        compiler: `present`, `absent`, or `auto` (absent where the DSL is not installed): whether FlashAttention-4 is
            imported with the DSL that compiles its kernels, or with stand-ins for it, which takes a fraction of the
            time. What the cache does not have raises then, whatever `on_miss` is.
        dsl_users: modules of the job's own that import the DSL (for a `mask_mod`, say), which find the same stand-ins.
        preload: load kernels before they are looked up: `background`, in a thread, from FlashAttention-4's import on;
            `1` or True, before that import ends; `0` or False, none. The name of a spec, or of a report that earlier
            runs wrote, is the background with these kernels only.
        record: folder in which to write down which kernels are looked up, and by which calls, a file a process; it is
            made if it is not there. `fa4-precompile spec from-record` makes a spec of it.

    Raises:
        UsageError: if a setting can't be meant.
        CacheError, UntrustedError: with `on_miss="error"`, if none of the roots is a cache that can be used.
        MachineError, LoadError: with `on_miss="error"`, if FlashAttention-4 is imported already and something that
            its kernels need is not installed.
    """
    config = Config.for_job(
        roots=[_folder(root) for root in roots],
        record=record is not None and on_miss in (None, OnMiss.WARN.value, OnMiss.COMPILE.value),
    )
    install_config(
        config.override(
            on_miss=None if on_miss is None else _choice(OnMiss, "on_miss", on_miss),
            toolchain=None if toolchain is None else _choice(Fit, "toolchain", toolchain),
            compiler=None if compiler is None else _choice(Compiler, "compiler", compiler),
            dsl_users=dsl_users,
            allow_untrusted=allow_untrusted,
            expect=[expect] if isinstance(expect, str) else expect,
            trust_keys=_paths(trust_key),
            report=report if report is None or isinstance(report, bool) else Path(report),
            modules=None if module is None else [module] if isinstance(module, str) else module,
            preloading=None if preload is None else _preloading(preload),
            record=None if record is None else _folder(record),
        )
    )


def install_config(config: Config) -> None:
    """Install with settings that are known already. If that fails, the loader that was there stays."""

    def cache(provider: Provider) -> Cache:
        return Cache(config.roots, config.trust, provider, config.vouchers, config.wheels, config.fit)

    def discover(module: ModuleType) -> Cache | None:
        provider = provider_carried_by(module, folders)
        return None if provider is None else cache(provider)

    def without_compiler(package: str, folder: Path | None) -> Provider | None:
        if not is_to_be:  # what is so already needs no asking
            return None
        provider = next((one for one in providers if one.package == package), None)
        if provider is None and is_open and folder is not None:
            provider = carried_in(package, folder, folders)
        if provider is None or config.compiler is Compiler.ABSENT:
            return provider
        if shortfall := cache(provider).shortfall():  # then it fails as it would without us
            warn(f"`{IMPORTED_AS}` is not installed, and the cache does not make up for it: {shortfall}")
            return None
        return provider

    providers = [provider_of(module) for module in config.modules] or [DEFAULT]
    folders = [one.folder for one in providers if one.passing and one.folder is not None]
    is_open = bool(folders) or not config.modules
    absence = None
    is_to_be = is_to_be_absent(config.compiler, warn)
    if is_to_be or is_absent_already(warn):
        require_no_store(config.on_miss)
        traced = dict.fromkeys(library for provider in providers for library in provider.traced)
        absence = Absence(config.dsl_users, list(traced), without_compiler)
    behavior = Behavior(
        on_miss=config.on_miss,
        environment=os.environ,
        attached=functools.partial(_attached, config),
        keeper=_keeper if config.on_miss is OnMiss.STORE else None,
        absence=absence,
        preloading=config.preloading,
        known_bad=config.known_bad,
        record=config.record,
        fake=config.fake,
    )
    loader = Loader([cache(provider) for provider in providers], behavior, discover if is_open else None)
    loader.require_ready()
    set_level(config.log_level)
    uninstall()
    loader.start()


def _attached(config: Config, counts: Counts) -> None:
    leave_sign(config.presence)
    if config.report or config.report_file:
        report_at_exit(counts, config.report_file)


def uninstall() -> None:
    """Give FlashAttention-4 its own compile caches back. Nothing happens if no loader is installed."""
    loader = installed_loader()
    if loader is not None:
        loader.stop()


def preload(spec: str | os.PathLike[str] | None = None) -> Sequence[Kernel]:
    """Load all kernels that were built for this device, and load their cubins onto the GPU; return when that is done.

    With the name of a spec its kernels only; with that of a report (`report=FILE`) those that earlier runs used. The
    first step of a job, and the capture of a CUDA graph, then meet loaded code.

    Raises:
        UsageError: if no loader is installed.
        CacheError: with `on_miss="error"`, if there is no manifest for this device, or a kernel of it can't be loaded.
        MachineError: if there is no GPU, or GPUs that differ.
    """
    loader = installed_loader()
    if loader is None:
        raise UsageError("no loader is installed in this process", "call `fa4_precompile.install` first")
    return loader.preload(Wanted() if spec is None else _wanted(spec))


def stats() -> Stats:
    """Return what the loader of this process did so far; all zero if none is installed."""
    loader = installed_loader()
    return (loader.counts if loader is not None else Counts()).stats()


def _folder(root: str | os.PathLike[str]) -> Path:
    if root == "":  # to `Path` it is the working folder
        raise UsageError("the name of a root is empty", "is a variable not set? The working folder is `.`")
    return Path(root)


def _paths(names: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> list[Path] | None:
    if names is None:
        return None
    named = [names] if isinstance(names, (str, os.PathLike)) else names
    if "" in named:
        raise UsageError("the name of a key is empty", "is a variable not set?")
    return [Path(name) for name in named]


def _choice(kind: type[_Choice], name: str, word: str) -> _Choice:
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"`{name}={word!r}` can't be meant", allowed(word, kind)) from None


def _wanted(name: str | os.PathLike[str]) -> Wanted:
    """Return what is named; a path is a report, whatever it is called."""
    return Wanted.parse(name) if isinstance(name, str) else Wanted(report=Path(name).absolute())


def _preloading(word: str | os.PathLike[str] | bool) -> Preloading:
    if isinstance(word, bool):
        return Preloading(When.ATTACHED if word else When.NEEDED)
    return Preloading.parse(word, "preload") if isinstance(word, str) else Preloading(When.BACKGROUND, _wanted(word))


def _keeper(cache: Cache) -> Keeper:
    from .keep import JobKeeper

    return JobKeeper(cache)
