"""Starting a job whose processes take their kernels from a cache."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from ..cache.fit import Fit
from ..cache.store import Root
from ..cache.target import Target
from ..errors import CacheError, MachineError, NothingReported, UsageError
from ..loader.choices import Compiler, OnMiss
from ..loader.config import Config
from ..loader.presence import has_sign, leave_sign
from ..loader.wanted import Preloading
from ..providers.dsl.installation import pinned_environment as dsl_environment
from ..providers.known_bad.listed import known_bad
from ..providers.registry import DEFAULT, provider_of
from .child import PYTHON_IGNORES, end_as, run_child
from .interpreter import interpreter_of
from .output import note


def run(
    caches: Sequence[Path],
    strict: bool,
    on_miss: str | None,
    toolchain: str | None,
    no_compiler: bool,
    report: Path | None,
    require_report: bool | None,
    modules: Sequence[str],
    allow_untrusted: bool,
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    log_level: str | None,
    preload: str | None,
    record: Path | None,
    fake: bool,
    target_name: str | None,
    command: Sequence[str],
) -> NoReturn:
    """Run the command with the settings that are given, else those of the environment, and end as it does."""
    if not command[0]:
        raise UsageError("the name of the command is empty; is a variable not set?", "name a command after `--`")
    if strict and on_miss not in (None, OnMiss.ERROR.value):
        raise UsageError(f"`--strict` and `--on-miss {on_miss}` contradict each other", "leave one out")
    if no_compiler and on_miss == OnMiss.STORE.value:
        raise UsageError("`--no-compiler` and `--on-miss store` contradict each other", "leave one out")
    word = OnMiss.ERROR.value if strict else on_miss
    pretended = _fake_target(fake, target_name, caches, word, no_compiler)
    takes_no_cache = record is not None and word in (None, OnMiss.WARN.value, OnMiss.COMPILE.value)
    config = Config.for_job(roots=caches, record=takes_no_cache).override(
        on_miss=OnMiss(word) if word else None,
        toolchain=Fit(toolchain) if toolchain else None,
        allow_untrusted=True if allow_untrusted else None,
        expect=expect or None,
        trust_keys=trust_keys or None,
        report=report,
        modules=modules or None,
        compiler=Compiler.ABSENT if no_compiler else None,
        log_level=log_level,
        preloading=None if preload is None else Preloading.parse(preload, "--preload"),
        record=record,
        fake=pretended,
    )
    if pretended is not None:
        if config.record is None:
            raise UsageError("`--fake` is about a recording", "say where it goes with `--record FOLDER`")
        config = replace(config, roots=(), wheels=(), on_miss=OnMiss.COMPILE)
    environment = job_environment(config)
    is_strict = config.on_miss is OnMiss.ERROR
    _require_package(command, environment, is_strict)
    if is_strict if require_report is None else require_report:
        end_as(_run_and_require_report(config, command, environment))
    with _said_if_it_cannot_start(command):
        _become(command, environment)


def job_environment(config: Config) -> dict[str, str]:
    """Return an environment that makes processes use the loader.

    Raises `CacheError` or `UntrustedError` for a root that no process could use, `SpecError` for a list of known-bad
    toolchains that can't be meant: each of a thousand ranks would otherwise say so for itself.
    """
    for path in config.roots:
        root = Root(path, config.trust, config.vouchers)
        if config.on_miss is OnMiss.STORE and root.is_new:
            continue  # the first kernel makes it
        root.require_layout()
    if config.known_bad is not None:
        known_bad(config.known_bad)
    if config.record is not None:
        _make_folder(config.record)
    environment = {**_pinned(os.environ, config), **config.render()}
    autoload = environment.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1")
    if autoload != "1":  # what PyTorch compares it with
        raise UsageError(
            f"`TORCH_DEVICE_BACKEND_AUTOLOAD={autoload}` keeps PyTorch from starting the loader",
            "unset it, or call `fa4_precompile.install()` in the job",
        )
    if config.report_file is not None and not config.report_file.parent.is_dir():
        raise CacheError(str(config.report_file.parent), "is no folder, so no report can be written there")
    return environment


def _fake_target(
    fake: bool, name: str | None, caches: Sequence[Path], on_miss: str | None, no_compiler: bool
) -> Target | None:
    """Return the target that calls are made for with no GPU, if they are."""
    if not fake:
        if name is not None:
            raise UsageError("`--target` is about `--fake`", "a job with a GPU is recorded for that")
        return None
    if name is None:
        raise UsageError("`--fake` needs to know the device", "name one with `--target NAME`, see `targets`")
    if caches or no_compiler or on_miss not in (None, OnMiss.COMPILE.value):
        raise UsageError(
            "with `--fake` no cache is asked and nothing is compiled",
            "leave out `--cache`, `--strict`, `--on-miss`, `--no-compiler`",
        )
    from ..precompile.spec.spec import target_book  # which reads YAML: few runs need it

    return target_book().get(name)


def _pinned(environment: Mapping[str, str], config: Config) -> dict[str, str]:
    """Return an environment in which providers and the DSL take a target for the device, if calls are faked.

    The switches that the job sets for itself stay.
    """
    if config.fake is None:
        return dict(environment)
    providers = [provider_of(module) for module in config.modules] or [DEFAULT]
    pinned = dict(dsl_environment(config.fake))
    for provider in providers:
        pinned |= provider.pinned_environment(config.fake)
    return {**environment, **{name: value for name, value in pinned.items() if value is not None and "*" not in name}}


def _make_folder(folder: Path) -> None:
    """Make the folder of a recording. Raises `CacheError`: each of a thousand ranks would otherwise say so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(str(folder), f"can't be made, so nothing can be recorded there: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CacheError(str(folder), "can't be written, so nothing can be recorded there")


def _require_package(command: Sequence[str], environment: Mapping[str, str], is_strict: bool) -> None:
    """Raise `MachineError`, or without strict mode say, that the command's Python can't have a loader."""
    interpreter = interpreter_of(command, environment)
    if interpreter is None or not interpreter.lacks_us():
        return
    what = f"`{interpreter}` has no `fa4-precompile` with its entry point for PyTorch, so it starts no loader"
    install = shlex.join([interpreter.program, "-m", "pip", "install", "fa4-precompile"])
    mend = f"`{install}`" + (f", or leave out `{' '.join(interpreter.flags)}`" if interpreter.flags else "")
    if is_strict:
        raise MachineError(what, mend)
    note(f"warning: {what}: the job compiles its kernels as without us\nhint: {mend}")


def _become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    for number in PYTHON_IGNORES:
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(command[0], list(command), environment)


def _run_and_require_report(config: Config, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command as a child and return its exit code. Raises `NothingReported` if all went well without us."""
    before = _size(config.report_file)
    try:
        folder = tempfile.TemporaryDirectory(prefix="fa4-run-")
    except OSError as error:
        raise MachineError(
            f"there is no temporary folder in which the job could leave a sign: {error.strerror}",
            "name one that can be written with `TMPDIR`, or do without: `--no-require-report`",
        ) from None
    with folder as name:
        signs = Path(name)
        with _said_if_it_cannot_start(command):
            code = run_child(command, {**environment, **replace(config, presence=signs).render()})
        has_reported = has_sign(signs) or _size(config.report_file) > before
    if has_reported:
        leave_sign(config.presence)  # for the `run` that started this one
    elif code == 0:
        raise NothingReported(shlex.join(command), config.modules or (DEFAULT.package,))
    return code


def _size(file: Path | None) -> int:
    try:
        return file.stat().st_size if file is not None else 0
    except OSError:
        return 0


@contextmanager
def _said_if_it_cannot_start(command: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"`{command[0]}` can't be started: {error.strerror}", "name a command after `--`") from None
