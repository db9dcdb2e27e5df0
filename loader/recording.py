"""Writing down which kernels a job looks up, and by which calls: `spec from-record` makes a spec of it.

A process has a file of its own in a folder that any number of ranks and hosts share, and appends a line to it when it
first looks a kernel up. So there is no lock, and a lookup that is answered from memory costs what it always does.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..cache.key import KeyText, encode_key
from ..cache.recording import ENDING, End, Line, Lookup, Process, Served, render_line
from ..cache.target import Target, host_machine
from ..errors import Fa4PrecompileError, MachineError, UnstableKey
from ..providers.dsl.driver import Device
from ..providers.packages import source_digest
from ..providers.recognizer import Recognized
from .ending import when_process_ends
from .ranks import placement

if TYPE_CHECKING:
    from ..providers.protocol import Provider

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOST = "what this process looks up is not recorded from here on"


@dataclass
class _File:
    path: Path
    lookups: int = 0
    is_lost: bool = False


class Recording:
    """The recording of a process, and of those that are forked from it, which have their own files.

    Guarantees
        A line is in the file whole, or it can be told that it is not. Nothing of ours raises into the job: what can't
        be written is said once.
    Concurrency
        Any number of processes, hosts and threads at once.
    """

    def __init__(
        self, folder: Path, fake: Target | None, environment: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.fake = fake
        self._environment = environment
        self._warn = warn
        self._files: dict[int, _File] = {}
        self._told: set[tuple[int, str]] = set()

    def look(
        self,
        provider: Provider,
        device: Callable[[], Device],
        slot: str,
        recognized: Recognized,
        frame: FrameType | None,
        answer: str,
    ) -> None:
        """Write down a kernel that was looked up. `frame` is in the call that asks for it."""
        try:
            seen = provider.seen(frame, self._environment)
            unsaid = [*seen.unsaid, *([str(recognized.problem)] if recognized.problem else [])]
            try:
                key = encode_key(recognized.key, passing=provider.passing)
            except UnstableKey as error:
                key, unsaid = KeyText(""), [*unsaid, str(error)]
            file = self._file()
            if (os.getpid(), provider.package) not in self._told:
                self._told.add((os.getpid(), provider.package))
                self._write(file, self._served(provider, device))
            file.lookups += 1
            self._write(file, Lookup(provider.package, slot, key, recognized.facts, seen.axes, unsaid, answer))
        except Exception as error:  # whatever a call is made of: the job is worth more
            what = str(error) if isinstance(error, Fa4PrecompileError) else f"{type(error).__name__}: {error}"
            self._warn(f"a lookup in slot `{slot}` can't be recorded: {what}")

    def _file(self) -> _File:
        """Return the file of this process, begun."""
        process = os.getpid()
        if process not in self._files:
            host = socket.gethostname()
            name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in host)[:64] or "host"
            file = _File(self.folder / f"{name}-{process}-{secrets.token_hex(4)}{ENDING}")
            if self._files.setdefault(process, file) is file:  # else another thread was first
                self._make_folder()
                place = placement(self._environment)
                rank = "" if place.rank is None else str(place.rank)
                started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                self._write(file, Process(host, process, rank, started))
                when_process_ends(lambda: self._write(file, End(file.lookups)))
        return self._files[process]

    def _served(self, provider: Provider, device: Callable[[], Device]) -> Served:
        try:
            source = source_digest(provider.package, provider.beside, provider.folder)
        except MachineError:
            source = ""
        return Served(provider.package, provider.name, provider.version(), source, self._target(device))

    def _target(self, device: Callable[[], Device]) -> Target:
        if self.fake is not None:
            return self.fake
        torch: Any = sys.modules.get("torch")
        cuda = str(getattr(getattr(torch, "version", None), "cuda", None) or "")
        found = device()
        return Target("recorded", found.arch, found.sms, 12 if cuda.startswith("12") else 13, host_machine())

    def _make_folder(self) -> None:
        with suppress(OSError):  # said by who writes there
            self.folder.mkdir(parents=True, exist_ok=True)

    def _write(self, file: _File, line: Line) -> None:
        if file.is_lost:
            return
        data = render_line(line)
        try:
            # Opened anew each time: no descriptor of ours for a fork, or for who closes all that it does not know.
            descriptor = os.open(file.path, _FLAGS, 0o644)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            file.is_lost = True
            self._warn(f"can't write `{file.path}`: {error.strerror}; {_LOST}")
