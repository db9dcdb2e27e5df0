"""Answering the DSL's questions about the device from the target, on a machine that has no device, nor a driver.

Kernels with a persistent scheduler ask for the number of SMs while they are traced and bake it in; it is not in FA4's
key. So the answer comes from the target, and who asked is recorded.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ...cache.target import Target
from ...errors import Fa4PrecompileError

DRIVER_CHECKER = "cutlass.base_dsl.compiler"
"""The module of the DSL whose compiler looks for a driver, in releases that do."""

_DRIVER_CHECK = "_check_cuda_dependencies_once"


class DeviceFacts:
    """Stands in for the driver behind `cutlass.utils.HardwareInfo`.

    `asked` is what was asked and answered since the process was forked. A question that the target has no answer to
    raises, so that a kernel fails instead of getting a guess.
    """

    def __init__(self, target: Target) -> None:
        self.asked: dict[str, int] = {}
        self._target = target

    def sms(self) -> int:
        """Return the number of SMs to who asks while a kernel is compiled: from now on it is one of its facts."""
        self.asked["sms"] = self._target.sms
        return self._target.sms

    def hold_for(self, target: Target) -> bool:
        """Return whether all that was asked has the same answer for another target."""
        return all(getattr(target, name) == answer for name, answer in self.asked.items())

    def install(self, hardware_info: type) -> None:
        """Answer for a class, for all that have imported it already: its methods are replaced, not the class."""
        facts = self

        def answer_sms(_: object) -> int:
            return facts.sms()

        def no_device(_: object, device_id: int = 0) -> None:
            del device_id

        answers = {"get_device_multiprocessor_count": answer_sms}
        for name in [name for name in vars(hardware_info) if name.startswith("get_")]:
            setattr(hardware_info, name, answers.get(name) or _unanswered(name, self._target))
        hardware_info.__init__ = no_device  # type: ignore[misc]  # the DSL's class, not ours


def answer_driver_check(compilers: ModuleType | None) -> None:
    """Let a module's `Compiler` do without a driver: the DSL 4.4 looks for one before it compiles, and asks it nothing.

    Later releases don't look; what they don't have is left as it is.
    """
    compiler = getattr(compilers, "Compiler", None)
    if hasattr(compiler, _DRIVER_CHECK):
        setattr(compiler, _DRIVER_CHECK, lambda *_: None)


def _unanswered(question: str, target: Target) -> Any:
    def refuse(*_: object, **__: object) -> int:
        raise Fa4PrecompileError(
            f"the kernel asks the device for `{question}`, which target {target.name} does not say"
        )

    return refuse
