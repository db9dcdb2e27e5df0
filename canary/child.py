"""The process that makes calls: with the loader in strict mode on the cache, one call after the other.

Its environment is that of a job; which calls, it is told by a connection.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection

from ..errors import Fa4PrecompileError, KernelMissing
from ..loader.config import Config
from ..loader.install import install_config
from ..loader.loader import Loader, installed_loader
from ..loader.slot import ServedSlot
from ..providers.call import Call
from ..providers.loaded import loaded_slots
from ..providers.protocol import Provider
from ..providers.real import RealCalls
from .answer import Answer, Ready, Setting, Taken
from .due import Due, ways

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve calls until the other end closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of a process with a GPU's memory in it
    parent = Connection(descriptor)
    setting: Setting = parent.recv()
    try:
        install_config(Config.from_env())
        torch = importlib.import_module("torch")  # which may have started the loader anew
        real = setting.provider.real_calls()
        _require_loader()
    except Fa4PrecompileError as error:
        parent.send(error)
        return
    faulthandler.enable(file=sys.stderr)  # after the imports, some of which take the signals for a slower report
    parent.send(Ready(str(torch.__version__), str(torch.version.cuda)))
    try:
        while True:
            due: Due = parent.recv()
            parent.send(_answer(setting, real, due))
    except (EOFError, OSError):
        sys.stderr.flush()
        os._exit(0)  # what a call has left behind in the GPU's driver can hang an orderly end


def _require_loader() -> Loader:
    loader = installed_loader()
    assert loader is not None, "something has taken the loader out"
    return loader


def _answer(setting: Setting, real: RealCalls, due: Due) -> Answer:
    """Make a call in the way by which it takes the kernels that it is due for, if there is one."""
    provider = setting.provider
    try:
        every = ways(provider, due)
    except Fa4PrecompileError as error:
        return Answer(failure=f"this release does not understand the call: {error}", is_made=False)
    if not every:
        failure = "this release knows no way to make the call with the variables that it was built for"
        return Answer(failure=failure, is_made=False)
    answers = []
    for call in every:
        answer = _made(provider, real, call, setting.seed)
        if answer.outcome is not None and _has_all(answer, due):
            return answer
        answers.append(answer)
        if not answer.is_sound:
            break
    return answers[-1] if not answers[-1].is_sound else max(answers, key=lambda one: one.outcome is not None)


def _has_all(answer: Answer, due: Due) -> bool:
    return {(one.toolchain, one.kernel) for one in answer.taken} >= set(due.kernels)


def _made(provider: Provider, real: RealCalls, call: Call, seed: int) -> Answer:
    for slot in loaded_slots(provider):
        slot.cache.clear()  # so that what is in there afterwards is this call's
    try:
        outcome = real.make(call, seed)
    except KernelMissing as error:
        failure = str(error).splitlines()[0]
        return Answer(taken=tuple(_taken()), failure=failure, report=str(error), is_made=False)
    except Exception as error:
        words = " ".join(str(error).split())[:500]
        failure = f"raises {type(error).__name__}: {words}"
        report, is_sound = traceback.format_exc(), real.is_sound()
        return Answer(taken=tuple(_taken()), failure=failure, report=report, is_sound=is_sound)
    return Answer(outcome, tuple(_taken()), is_sound=real.is_sound())


def _taken() -> Iterator[Taken]:
    """Yield the kernels that are in the memory of the slots."""
    for served in _require_loader().served:
        for slot in loaded_slots(served.cache.provider) if served.is_attached else ():
            for function in list(slot.cache.values()) if isinstance(slot.cache, ServedSlot) else ():
                if (found := served.cache.kernel_of(function)) is not None:
                    reference = found.reference
                    yield Taken(reference.toolchain, reference.id, reference.blob)
