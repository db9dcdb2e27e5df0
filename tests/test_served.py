"""What is published of a key: what its functions did when it was looked up."""

from __future__ import annotations

from typing import Any, cast

from fa4_precompile.cache.description import Description
from fa4_precompile.cache.outcome import Miss, MissReason
from fa4_precompile.loader.behavior import Behavior, Shared
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.served import Served
from fa4_precompile.loader.slot import ServedSlot
from fa4_precompile.providers.recognizer import Recognized, Recognizer


class _Counting(Recognizer):
    """Tells of a function that does something else each time."""

    def __init__(self) -> None:
        self.times = 0

    def recognize(self, key: object, frame: object) -> Recognized:
        self.times += 1
        return Recognized(key, {"mask_mod": Description((("N", f"int {self.times}"),))})


class _Cache:
    """A cache that has nothing; it is its own provider."""

    package = "rvserved"

    def __init__(self) -> None:
        self.provider = self
        self.counting = _Counting()

    def recognizer(self) -> Recognizer:
        return self.counting

    def resolve(self, *_: object, **__: object) -> Miss:
        return Miss(MissReason.ABSENT, "")


class _Keeper:
    def __init__(self, cache: object) -> None:
        self.kept: list[Recognized] = []

    def wait(self, slot: str, recognized: Recognized) -> None:
        return None

    def keep(self, slot: str, recognized: Recognized, function: Any, seconds: float) -> None:
        self.kept.append(recognized)


def _published(look_up: bool) -> str:
    behavior = Behavior(OnMiss.STORE, {}, keeper=cast(Any, _Keeper))
    served = Served(cast(Any, _Cache()), Shared(behavior))
    slot, key = ServedSlot(served, "fwd", {}), (64, "hash")
    if look_up:
        assert key not in slot
    slot[key] = print
    ((kept),) = cast(Any, served)._keeper.kept
    return str(kept.modifiers["mask_mod"].parts[0][1])


def test_what_a_compile_has_changed_is_published_as_it_was_looked_up() -> None:
    assert _published(look_up=True) == "int 1"


def test_what_nobody_looked_up_is_published_as_it_is() -> None:
    assert _published(look_up=False) == "int 1"
