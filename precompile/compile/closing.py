"""A call whose sizes are open: all that the provider answers at any of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ...cache.key import KeyText
from ...errors import UsageError
from ...providers.call import Call
from ...providers.protocol import Provider
from .answers import Answer, Closed, Taken, objection
from .search import Point, Search, Things

_NUMBER = re.compile(r"\d+")


def close_call(provider: Provider, call: Call, ask: Callable[[Call], Answer]) -> Closed:
    """Search the sizes that a call leaves open for all that is looked up there."""
    ranges = provider.ranges(call.variant)
    names = list(ranges)
    answers: dict[Point, tuple[Call, Answer]] = {}

    def look(point: Point) -> Things:
        try:
            variant = provider.sized(call.variant, dict(zip(names, point, strict=True)))
        except UsageError:  # too large for any call: nothing is there
            return frozenset()
        one = replace(call, variant=variant)
        answers[point] = one, ask(one)
        return _things(*answers[point])

    search = Search(look, ranges)
    search.run()
    kernels = {(slot, KeyText(key)): size for (slot, key), size in search.by.items() if slot}
    return Closed([answers[point] for point in search.fewest()], kernels, len(answers))


def _things(call: Call, answer: Answer) -> Things:
    against = objection(call.variant, answer)
    if against is not None:  # a reason that says the sizes is one reason
        return frozenset({("", _NUMBER.sub("0", against.reason))})
    if isinstance(answer, Taken):
        return frozenset((kernel.slot, kernel.key) for kernel in answer.reached)
    return frozenset({("", "could not be asked about")})
