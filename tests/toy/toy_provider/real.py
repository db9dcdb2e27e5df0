"""Fake: calls of the library as if they were made on a GPU. Kernels are looked up and not launched, results made up.

What becomes of a call is said by its width, in the variable `FAKE_TOY`, `{"256": "hang"}`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from typing import Any

from fa4_precompile.providers.call import Call
from fa4_precompile.providers.real import Outcome

from .variant import DTYPES, own

_ROWS = 64


class FakeRealToyKernels:
    """Calls that end as they are told to."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._library: Any = importlib.import_module("toy_kernels")
        self._fake: Any = importlib.import_module("torch._subclasses.fake_tensor").FakeTensorMode()
        self._fates = json.loads(os.environ.get("FAKE_TOY", "{}"))
        self._is_sound = True
        self._made = 0

    def is_sound(self) -> bool:
        """Return whether no call has spoiled this process."""
        return self._is_sound

    def make(self, call: Call, seed: int) -> Outcome:
        """Look the kernel up, and end as the width says. How many calls this process made is in the time."""
        variant = own(call.variant)
        self._made += 1
        with self._fake:
            x = self._torch.empty(
                _ROWS, variant.width, dtype=getattr(self._torch, DTYPES[variant.dtype]), device="cuda"
            )
            self._library.scale(x, 2.0) if variant.op == "scale" else self._library.add(x, x)
        fate = self._fates.get(str(variant.width), "")
        if fate == "crash":
            sys.stderr.write("the last words\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "hang":
            time.sleep(600)
        if fate == "spoil":
            self._is_sound = False
            raise RuntimeError(f"an illegal access, seed {seed}, in call {self._made} of this process")
        if variant.op == "add":
            return Outcome({}, None, "nobody can add", "", float(self._made))
        error = 0.5 if fate == "differ" else 1e-3
        return Outcome({"y": error}, 5e-3, "", "y is off by 5.0e-01" if fate == "differ" else "", float(self._made))
