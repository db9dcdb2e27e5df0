"""What PyTorch calls at the end of `import torch`: the entry point in the group `torch.backends`.

It costs nothing where our variables are not set, and keeps torch from being imported in strict mode only.
"""

from __future__ import annotations

import os

_CACHE = "FA4_PRECOMPILE_CACHE"
_ON_MISS = "FA4_PRECOMPILE_ON_MISS"
_RECORD = "FA4_PRECOMPILE_RECORD"
_ERROR = "error"


def activate() -> None:
    """Install the loader as the environment says. A setting that can't be meant is said in a sentence.

    Where nothing may be compiled, what keeps the loader from starting ends the process: later, it would be found out
    by the first kernel.
    """
    if _is_asked_for():
        _start()


def activate_wheels() -> None:
    """Do the same where nothing is set, for a wheel of kernels: by being installed it says where they are.

    Every wheel calls this; the first call takes the kernels of all.
    """
    from .loader.loader import installed_loader

    if not _is_asked_for() and installed_loader() is None:
        _start()


def _is_asked_for() -> bool:
    return any(map(os.environ.get, (_CACHE, _ON_MISS, _RECORD)))


def _start() -> None:
    from .errors import Fa4PrecompileError

    try:
        from .loader.config import Config
        from .loader.install import install_config
        from .loader.wheels import installed_wheels

        wheels = None if os.environ.get(_CACHE) else installed_wheels()
        if wheels == () and not os.environ.get(_RECORD):
            _say_or_end(f"`{_ON_MISS}` is set, and `{_CACHE}` is not, nor is a wheel of kernels installed", 2)
            return
        install_config(Config.for_job(wheels=wheels))
    except Fa4PrecompileError as error:
        _say_or_end(f"{error}{f' ({error.hint})' if error.hint else ''}", error.exit_code)
    except Exception as error:
        _say_or_end(f"the loader can't be started: {type(error).__name__}: {error}", 3)


def _say_or_end(message: str, exit_code: int) -> None:
    from .loader.stats import say
    from .loader.voice import is_heard

    if os.environ.get(_ON_MISS) == _ERROR:
        say(f"{message}; `{_ON_MISS}={_ERROR}` forbids to compile, so this process ends")
        raise SystemExit(exit_code)  # no `Exception`, which torch would take for one of a plug-in's faults
    if is_heard():
        say(f"{message}; kernels are compiled in this process")
