"""What the tests of other hosts run in a process that has FlashAttention-4: its calls, as they reach the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from host_values import Value, described

from fa4_precompile.cache.key import KeyText, encode_key
from fa4_precompile.cache.target import Target
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.slots import StandInSlot, slots_replaced


@dataclass(frozen=True)
class Launch:
    """A call of a kernel: the slot and key that FlashAttention has it under, and the arguments that it passes.

    `name` is of the spec's entry and the slot.
    """

    name: str
    slot: str
    key: KeyText
    values: tuple[Value, ...]


def launches_of(spec: Path, target: Target) -> list[Launch]:
    """Return what the calls of a spec launch, in their order, each key once. Compiles nothing."""
    live = DEFAULT.go_live(target)
    found: dict[tuple[str, KeyText], Launch] = {}
    for entry in read_spec(spec, target_book()).entries:

        def note(slot: str, key: object, arguments: Sequence[Any], entry: str = entry.name) -> None:
            encoded = encode_key(key, passing=DEFAULT.passing)
            found.setdefault((slot, encoded), Launch(f"{entry} {slot}", slot, encoded, described(arguments)))

        for variant in entry.variants:
            with _launching(note):
                live.call(Call(variant))
    return list(found.values())


class _Slot(StandInSlot):
    """Has every key, and tells what its kernel is called with."""

    def __init__(self, name: str, note: Callable[[str, object, Sequence[Any]], None]) -> None:
        super().__init__(lambda key: True, lambda key, kernel: None)
        self._name = name
        self._note = note

    def __getitem__(self, key: object) -> object:
        return lambda *arguments: self._note(self._name, key, arguments)


@contextmanager
def _launching(note: Callable[[str, object, Sequence[Any]], None]) -> Iterator[None]:
    """Let FlashAttention launch its kernels, though its tensors have no memory: `note` gets slot, key and arguments."""
    from flash_attn.cute import compute_block_sparsity, interface

    with (
        slots_replaced(loaded_slots(DEFAULT), lambda name: _Slot(name, note)),
        mock.patch.object(interface, "is_fake_mode", return_value=False),
        mock.patch.object(compute_block_sparsity, "is_fake_mode", return_value=False),
    ):
        yield
