"""What the tests of recordings run in processes of their own."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import fa4_precompile
import fake_job
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.install import install_config
from fa4_precompile.loader.recording import Recording
from fa4_precompile.providers.dsl.driver import Device
from fa4_precompile.providers.recognizer import Recognized
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call
from support import make_target

DEVICE = Device(0, "a made-up B200", "sm_100a", 148)


def recording(folder: Path, warnings: list[str] | None = None, **environment: str) -> Recording:
    """Return a recording of this process."""
    return Recording(folder, None, environment, ([] if warnings is None else warnings).append)


def look(one: Recording, number: int, slot: str = "fwd") -> None:
    """Write a lookup down whose key is a number."""
    one.look(DEFAULT, lambda: DEVICE, slot, Recognized((number,)), None, "absent")


def rank(folder: Path, host: str, number: int, lookups: int, together: Any, killed: bool) -> None:
    """Record as a rank of a job on a host; one that is to be killed is so in the middle, at no special place."""
    socket.gethostname = lambda: host
    one = recording(folder, RANK=str(number))
    together.wait()
    for key in range(lookups):
        look(one, key)
        if killed and key == lookups // 2:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(folder: Path) -> list[int]:
    """Record, fork, record in both, and return the ids of parent and child."""
    one = recording(folder)
    look(one, 1)
    child = os.fork()
    if child == 0:
        look(one, 2)
        os._exit(0)
    os.waitpid(child, 0)
    look(one, 3)
    return [os.getpid(), child]


def recorded_job(calls: Sequence[Call], folder: Path, roots: Sequence[Path], on_miss: str) -> fake_job.Report:
    """Make calls with a loader that records."""
    fa4_precompile.install(*roots, on_miss=on_miss, record=folder)
    return fake_job.report_on(calls)


def faked_job(calls: Sequence[Call], folder: Path) -> fake_job.Report:
    """Make calls for a B200 with a loader that records and asks no cache."""
    install_config(Config((), record=folder, fake=make_target(), on_miss=OnMiss.COMPILE))
    return fake_job.report_on(calls)


def functions_of_steady_call(folder: Path) -> list[Counter[str]]:
    """Return which Python functions run in a steady call, and how often: without a recording, and with one."""
    ran: list[Counter[str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            ran[-1][f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"] += 1

    for record in (None, folder):
        install_config(Config((), record=record, fake=make_target(), on_miss=OnMiss.COMPILE))
        for _ in range(3):  # the first records, which reads files
            fake_job.make(Call())
        ran.append(Counter())
        gc.disable()  # what it ends runs when it comes
        sys.setprofile(note)
        try:
            fake_job.make(Call())
        finally:
            sys.setprofile(None)
            gc.enable()
    return ran
