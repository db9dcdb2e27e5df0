"""FlashAttention-4 as published compiles the calls of a spec: in one process, with its own disk cache, and without us.

    python benchmarks/stock.py SPEC FOLDER

What `building.py` compares builds with. The calls are the spec's, under fake tensors, made by the same code as in a
build; what compiles, keeps and writes is FlashAttention's. The spec's first target says what the device is.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.spec.spec import find_spec, read_spec, target_book


def main(spec_name: str, folder: str) -> None:
    """Print how many kernels are in FlashAttention's cache."""
    spec = read_spec(find_spec(spec_name), target_book())
    for name, value in fork_server_environment(spec.provider, spec.targets[0]).items():
        for known in [one for one in os.environ if one == name or (name.endswith("*") and one.startswith(name[:-1]))]:
            del os.environ[known]
        if value is not None:
            os.environ[name] = value
    os.environ.update(
        FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED="1",
        FLASH_ATTENTION_CUTE_DSL_CACHE_DIR=folder,
    )
    live = spec.provider.go_live(spec.targets[0])
    gc.enable()
    for variant in spec.variants:
        live.call(spec.provider.calls(variant)[0])
    print(len(list(Path(folder).rglob("*.o"))), flush=True)
    os._exit(0)  # as a build's processes end: the libraries' own end takes a second


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("spec")
    parser.add_argument("folder", help="where FlashAttention keeps its cache")
    arguments = parser.parse_args()
    main(arguments.spec, arguments.folder)
