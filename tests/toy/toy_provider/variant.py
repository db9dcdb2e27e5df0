"""The variant of `toy_kernels`: one call, in words of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fa4_precompile.providers.call import Demands, Environment
from fa4_precompile.providers.call import Variant as AnyVariant
from fa4_precompile.text.words import one_line

OPS = ("scale", "add")
DTYPES: Mapping[str, str] = MappingProxyType({"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"})
"""A spec's word for each type, and torch's."""


@dataclass(frozen=True)
class Variant:
    """A call of one of the two functions, for tensors of any number of rows.

    `tile` is a demand on the kernel: threads of a block, and values that each handles; None takes the library's choice.
    """

    op: str
    dtype: str
    width: int
    tile: tuple[int, int] | None = None

    @property
    def demands(self) -> Demands:
        """Return what is demanded of the kernel."""
        return Demands(tile=self.tile)

    @property
    def caller(self) -> None:
        """Return None: all calls are the library's own."""

    @property
    def job_env(self) -> Environment:
        """Return nothing: what a job sets follows from the demands."""
        return ()

    @property
    def functions(self) -> tuple[str, ...]:
        """Return nothing: no function of a user's gets into these kernels."""
        return ()

    def render(self) -> dict[str, object]:
        """Return the axes that are not at their default, by their names in a spec, as JSON."""
        tile = {} if self.tile is None else {"tile": list(self.tile)}
        return {"op": self.op, "dtype": self.dtype, "width": self.width, **tile}

    def __str__(self) -> str:
        """Return the axes as one line for people."""
        return one_line(self.render())


def own(variant: AnyVariant) -> Variant:
    """Return a variant that was handed to this provider, which has made it."""
    assert isinstance(variant, Variant)
    return variant
