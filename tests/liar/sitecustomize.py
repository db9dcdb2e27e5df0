"""Makes a liar of an engine's worker that starts with this folder on its path: a byte of each kernel is another one.

Where it is flipped, `LIAR` says: `wire`, after the digest was taken; or `worker`, before the worker's process sees it.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_WORKER = "fa4_precompile.precompile.engines.worker"


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _lie(module: Any) -> None:
    real = module.Worker._done

    def done(self: Any, where: str, errand: Any) -> Any:
        answer = real(self, where, errand)
        if errand.function.__name__ != "compile_kernel":
            return answer
        if os.environ["LIAR"] == "wire":
            return dataclasses.replace(answer, value=_flipped(answer.value, len(answer.value) // 2))
        product = pickle.loads(answer.value)
        at = product.blob.index(b"\x7fELF", 4) + 4096  # in the cubin
        value, digest = module.digested(dataclasses.replace(product, blob=_flipped(product.blob, at)))
        return dataclasses.replace(answer, value=value, digest=digest)

    module.Worker._done = done


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _lie(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
