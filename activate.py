"""What PyTorch calls at the end of `import torch`: the entry point in the group `torch.backends`.

It costs nothing where our variables are not set, and never keeps torch from being imported.
"""

from __future__ import annotations

import os

_CACHE = "FA4_PRECOMPILE_CACHE"
_ON_MISS = "FA4_PRECOMPILE_ON_MISS"


def activate() -> None:
    """Install the loader as the environment says. A setting that can't be meant is said in a sentence."""
    if not os.environ.get(_CACHE):
        if os.environ.get(_ON_MISS):
            _say(f"`{_ON_MISS}` is set, and `{_CACHE}` is not: kernels are compiled in this process")
        return
    from .errors import Fa4PrecompileError

    try:
        from .loader.config import Config
        from .loader.install import install_config

        install_config(Config.from_env())
    except Fa4PrecompileError as error:
        _say(f"{error}{f' ({error.hint})' if error.hint else ''}; kernels are compiled in this process")
    except Exception as error:
        _say(f"the loader can't be started: {type(error).__name__}: {error}; kernels are compiled in this process")


def _say(message: str) -> None:
    from .loader.stats import say

    say(message)
