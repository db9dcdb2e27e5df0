"""FlashAttention-4, imported: in the fork server only. Imports torch, the DSL and FA4 when it is made.

Nothing here says what FA4 supports or selects: the calls go to FA4's public functions, and what it refuses, chooses and
looks up is read off. What is restated is how to call it.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...cache.target import Target
from ...errors import MachineError, UsageError
from ..call import Call
from ..call import Variant as AnyVariant
from ..dsl.live import Dsl
from ..loaded import loaded_modules
from ..packages import is_in
from .arguments import Arguments, CallBuilder, Lacking
from .beside import beside
from .callers import Tensors, fault_of, find_caller, keywords
from .device import answer_for
from .fake import fake_mode
from .indexing import indexed
from .parents import import_module
from .placed import load
from .recognizer import FlashRecognizer
from .switches import variables_of
from .variant import Variant, own
from .written import source_files, written

_CONVERT = "to_cute_tensor"
_PLAIN = (type(None), bool, int, float, str)
_REFUSALS = (AssertionError, ValueError, NotImplementedError)


class LiveFlashAttn4:
    """FA4, imported in a process whose environment is that of `pinned_environment`."""

    def __init__(self, target: Target, package: str, folder: Path | None = None) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        # FA4 reads the job's CUDA version from torch; a CPU build of torch has none.
        torch.version.cuda = f"{target.cuda}.0"
        self.dsl = Dsl(target)
        self._package = package
        self._torch: Any = torch
        answer_for(target, self.dsl.facts, torch)
        if folder is not None:
            load(package, folder)
        self._interface: Any = import_module(f"{package}.interface", package)
        self._import_slots()
        self._fake = fake_mode()
        FakeTensor.__getitem__ = indexed(torch.ops.aten)
        self.recognizer = FlashRecognizer(package, package if folder is not None else "", tell_apart=False)
        self.recognizer.watch()
        self._builder = CallBuilder(torch, package, self.recognizer)
        self._steps: list[tuple[Any, _Context]] = []
        self._variables: frozenset[str] = frozenset()
        for item in vars(self._interface).values():
            if inspect.isclass(item) and issubclass(item, torch.autograd.Function):
                self._step_without_autograd(item)

    def main_slot(self, variant: AnyVariant) -> str:
        """Return `fwd` or `bwd`."""
        return own(variant).pass_

    def first_call(self) -> Variant:
        """Return a training step, whose first call imports 1.5 s more of torch."""
        return Variant("bwd", "bf16", 64, 64)

    def pattern(self, variant: AnyVariant) -> Hashable:
        """Return the call without its functions: FA4 takes their hashes into its keys, and only the compiler runs them.

        What it could read off a function besides is part of the pattern. A caller can look at all, so each is its own.
        """
        call = own(variant)
        if call.caller is not None:
            return call
        try:
            functions = self._builder.functions(call)
        except UsageError:  # who asks about it is told
            return call
        seen = tuple((name, _outside(function)) for name, function in functions.items())
        return replace(call, mask_mod=None, score_mod=None, score_mod_bwd=None), seen

    def call(self, call: Call) -> None:
        """Call FA4 as a job would: its public functions, and for `bwd` the backward of what they return."""
        variant = own(call.variant)
        self._require_read([name for name, _ in variant.job_env])
        self._steps.clear()
        with self._fake:
            name, arguments = self._builder.build(variant, call.pass_tile, dict(call.runtime))
            if variant.caller is not None:
                self._leave_to(variant.caller, variant, arguments)
                return
            result = getattr(self._interface, name)(**arguments)
            if variant.pass_ == "bwd":
                out, lse = result
                self._backward(out, lse if variant.return_lse == "grad" else None)

    def _leave_to(self, caller: str, variant: Variant, arguments: Arguments) -> None:
        """Let the user's function make the call. Raises `UsageError` if it fails on its own account."""
        function = find_caller(caller)
        given = keywords(function, variant, self._builder)
        try:
            with self._torch.no_grad():  # as in the `forward` of a job's own autograd function
                function(self._interface, Tensors(self._torch, arguments, self._backward), **given)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, Exception) and self.refusal(error) is not None:
                raise
            raise fault_of(caller, function, error) from error

    def _backward(self, out: Any, lse: Any) -> None:
        if not self._steps:
            raise ValueError("there is no call of a public function whose backward could be made")
        autograd, context = self._steps[-1]
        with self._torch.no_grad():  # as torch calls it
            gradients = [None if one is None else self._torch.empty_like(one) for one in (out, lse)]
            autograd.backward(context, *gradients)

    def refusal(self, error: Exception) -> str | None:
        """Return what FA4 says: in one of its three kinds of refusal, or that it has no such argument."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())
        if isinstance(error, Lacking):
            return message
        *_, (innermost, _line) = traceback.walk_tb(error.__traceback__)
        module = str(innermost.f_globals.get("__name__", ""))
        where = f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
        if module == __name__ and isinstance(error, TypeError) and "unexpected keyword argument" in message:
            return f"TypeError: {message} ({where})"  # a release that does not have the argument
        if isinstance(error, _REFUSALS) and any(is_in(module, package) for package in (self._package, "quack")):
            return message or f"{type(error).__name__}: no message ({where})"
        return None

    def _import_slots(self) -> None:
        """Import the modules that have compile caches: nobody stands in for one that a call imports first.

        Raises `MachineError` for one that can't be imported here.
        """
        folder = Path(self._interface.__file__).parent
        names = [f"{self._package}.{name}" for name, source in source_files(folder) if written(source)]
        for name in [*names, *beside(self._package)]:
            try:
                import_module(name, package=self._package)
            except Exception as error:
                raise MachineError(
                    f"`{name}` has compile caches and can't be imported here: {type(error).__name__}: {error}",
                    "install what it needs",
                ) from error

    @contextmanager
    def looking_only(self) -> Iterator[None]:
        """Convert each layout of a tensor for the compiler once.

        Half the time of a plan goes there, for a compiler that only looks. A real compile must not have it: two
        arguments of one layout would become one.
        """
        modules = [module for module in loaded_modules(self._package) if hasattr(module, _CONVERT)]
        originals = [(module, getattr(module, _CONVERT)) for module in modules]
        try:
            for module, convert in originals:
                setattr(module, _CONVERT, _remembered(convert))
            yield
        finally:
            for module, convert in originals:
                setattr(module, _CONVERT, convert)

    def _require_read(self, variables: Sequence[str]) -> None:
        """Raise `Lacking` for a variable that FA4's source does not name: it would change nothing."""
        if variables and not self._variables:
            self._variables = variables_of(Path(self._interface.__file__).parent)
        for name in variables:
            if name not in self._variables:
                raise Lacking(f"the installed FlashAttention reads no variable `{name}`")

    def _step_without_autograd(self, function: Any) -> None:
        # torch's autograd engine aborts the process for CUDA tensors without a CUDA build; the two halves of the
        # function are called as it would call them.
        def apply(*arguments: object) -> object:
            context = _Context()
            self._steps.append((function, context))
            with self._torch.no_grad():  # as torch calls it
                return function.forward(context, *arguments)

        function.apply = apply


def _outside(function: Any) -> Hashable:
    """Return what can be read off a function without its code."""
    attributes = sorted(
        (name, repr(value) if isinstance(value, _PLAIN) else "") for name, value in vars(function).items()
    )
    return str(inspect.signature(function)), tuple(attributes)


class _Context:
    """What FA4 uses of torch's autograd context."""

    saved_tensors: tuple[object, ...] = ()

    def save_for_backward(self, *tensors: object) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Take note of nothing: gradients are handed over as they are."""

    def mark_non_differentiable(self, *tensors: object) -> None:
        """Take note of nothing: no graph is built."""


def _remembered(convert: Any) -> Any:
    found: dict[tuple[object, ...], object] = {}

    @functools.wraps(convert)
    def convert_layout(tensor: Any, *arguments: Any, **options: Any) -> Any:
        if tensor is None:
            return None
        layout = (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.storage_offset(),
            arguments,
            tuple(options.items()),
        )
        if layout not in found:
            found[layout] = convert(tensor, *arguments, **options)
        return found[layout]

    return convert_layout
