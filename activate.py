"""What PyTorch calls at the end of `import torch`: the entry point in the group `torch.backends`.

It costs nothing where our variables are not set, and keeps torch from being imported in strict mode only.
"""

from __future__ import annotations

import os

_CACHE = "FA4_PRECOMPILE_CACHE"
_ON_MISS = "FA4_PRECOMPILE_ON_MISS"
_ERROR = "error"


def activate() -> None:
    """Install the loader as the environment says. A setting that can't be meant is said in a sentence.

    Where nothing may be compiled, what keeps the loader from starting ends the process: later, it would be found out
    by the first kernel.
    """
    if not os.environ.get(_CACHE):
        if os.environ.get(_ON_MISS):
            _say_or_end(f"`{_ON_MISS}` is set, and `{_CACHE}` is not", 2)
        return
    from .errors import Fa4PrecompileError

    try:
        from .loader.config import Config
        from .loader.install import install_config

        install_config(Config.from_env())
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
