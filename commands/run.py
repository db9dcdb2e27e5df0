"""Starting a job whose processes take their kernels from a cache."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..cache.store import Root
from ..errors import CacheError, UsageError
from ..loader.config import Config, OnMiss

# With SIGPIPE ignored, `job | head` would never end the job. What is ignored stays so in what a process becomes.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def run(
    caches: Sequence[Path],
    strict: bool,
    on_miss: str | None,
    report: Path | None,
    allow_untrusted: bool,
    command: Sequence[str],
) -> NoReturn:
    """Become the command, with the settings that are given, else those of the environment."""
    if strict and on_miss not in (None, OnMiss.ERROR.value):
        raise UsageError(f"`--strict` and `--on-miss {on_miss}` contradict each other", "leave one out")
    word = OnMiss.ERROR.value if strict else on_miss
    config = Config.from_env(roots=caches).override(
        on_miss=OnMiss(word) if word else None,
        allow_untrusted=True if allow_untrusted else None,
        report=report,
    )
    replace_process(config, command)


def replace_process(config: Config, command: Sequence[str]) -> NoReturn:
    """Become the command, with an environment that makes its processes use the loader.

    Raises `CacheError` or `UntrustedError` for a root that no process could use, which each of a thousand ranks would
    otherwise say for itself; `UsageError` if the command can't be started.
    """
    for path in config.roots:
        if config.on_miss is OnMiss.STORE and _can_become_a_cache(path):
            continue  # the first kernel makes it
        Root(path, config.trust).require_layout()
    environment = {**os.environ, **config.render()}
    autoload = environment.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1")
    if autoload != "1":  # what PyTorch compares it with
        raise UsageError(
            f"`TORCH_DEVICE_BACKEND_AUTOLOAD={autoload}` keeps PyTorch from starting the loader",
            "unset it, or call `fa4_precompile.install()` in the job",
        )
    if config.report_file is not None and not config.report_file.parent.is_dir():
        raise CacheError(str(config.report_file.parent), "is no folder, so no report can be written there")
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        raise UsageError(f"`{command[0]}` can't be started: {error.strerror}", "name a command after `--`") from None


def _can_become_a_cache(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False  # said by `require_layout`, with its reason
