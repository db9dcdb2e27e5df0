"""The places that `--from` names: opened when something is to be taken from them, and vouched for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CarryError
from .inputs import vouchers
from .output import note

if TYPE_CHECKING:  # what a build with nothing to do does without
    from ..cache.seal import Vouchers
    from ..precompile.lending import Lender


@contextmanager
def lenders(
    places: Sequence[str], expect: Sequence[str], trust_keys: Sequence[Path]
) -> Iterator[Callable[[], Sequence[Lender]]]:
    """Yield what opens the places, to be called once; they are closed at the end.

    A place that can't be reached is told of and passed over. Raises `RefusedError` or `UntrustedError` for one that
    is not what it must be, as the environment has it or as is said here.
    """
    believed = vouchers(expect, trust_keys)
    with ExitStack() as opened:
        yield lambda: list(_opened(places, believed, opened))


def _opened(places: Sequence[str], believed: Vouchers, opened: ExitStack) -> Iterator[Lender]:
    from ..carry.vouched import open_vouched
    from ..precompile.lending import Lender

    for place in places:
        try:
            source, contents, _ = open_vouched(place, believed)
        except CarryError as error:
            note(f"warning: {error}; what it has is compiled")
            continue
        opened.callback(source.close)
        yield Lender(source, contents)
