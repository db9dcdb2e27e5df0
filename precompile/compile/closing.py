"""Calls whose sizes are open: all that the provider answers at any of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import UsageError
from ...providers.call import Call
from ...providers.protocol import Provider
from .answers import Answer, Closed, Taken, objection
from .search import Point, Search, Thing, Things

_NUMBER = re.compile(r"\d+")

_Ask = Callable[[Call], Answer]


@dataclass(frozen=True)
class _Searched:
    """What a search has found: few points that have all, the things there in their order, and what reaches each."""

    points: Mapping[Point, Sequence[Thing]]
    by: Mapping[Thing, str | None]


class Closer:
    """Searches the sizes that calls leave open for all that is looked up there.

    Of calls with one `pattern` the first is searched. The others are asked where that had something to show; if they
    answer alike at all of these points, what it reached elsewhere is known of them, too.

    Args:
        provider: whose calls they are.
        ask: what a call comes to.
        ask_quickly: the same, or what it comes to after others that look the same keys up: a search asks thousands.
        pattern: equal for calls that are expected to answer alike.
    """

    def __init__(self, provider: Provider, ask: _Ask, ask_quickly: _Ask, pattern: Callable[[Call], Hashable]) -> None:
        self._provider = provider
        self._ask = ask
        self._ask_quickly = ask_quickly
        self._pattern = pattern
        self._searched: dict[Hashable, _Searched] = {}

    def close(self, call: Call) -> Closed:
        """Return what comes of a call at any of its sizes."""
        pattern = self._pattern(call)
        known = self._searched.get(pattern)
        followed = self._follow(call, known) if known is not None else None
        if followed is not None:
            return followed
        return self._search(call, pattern)

    def _search(self, call: Call, pattern: Hashable) -> Closed:
        ranges = self._provider.ranges(call.variant)
        answers: dict[Point, tuple[Call, Answer]] = {}

        def look(point: Point, ask: _Ask) -> Things:
            try:
                answers[point] = self._ask_at(call, point, ask)
            except UsageError:  # too large for any call: nothing is there
                return frozenset()
            return frozenset(_things(*answers[point]))

        search = Search(lambda point: look(point, self._ask_quickly), ranges)
        search.run()
        points = search.fewest(lambda point: look(point, self._ask))
        things = {point: _things(*answers[point]) for point in points}
        by = {one: search.by.get(one) for one in dict.fromkeys(itertools.chain.from_iterable(things.values()))}
        self._searched[pattern] = _Searched(things, by)
        return _closed([answers[point] for point in points], by, len(answers))

    def _follow(self, call: Call, known: _Searched) -> Closed | None:
        """Return what comes of a call that answers as the one that was searched, None if it does not."""
        answers, same = [], dict[Thing, Thing]()
        for point, theirs in known.points.items():
            answers.append(self._ask_at(call, point, self._ask))
            own = _things(*answers[-1])
            if [slot for slot, *_ in own] != [slot for slot, *_ in theirs]:
                return None
            for one, other in zip(theirs, own, strict=True):
                if same.setdefault(one, other) != other or (one != other and not one[0]):
                    return None
        if len(set(same.values())) < len(same):
            return None
        return _closed(answers, {same[one]: size for one, size in known.by.items()}, len(answers))

    def _ask_at(self, call: Call, point: Point, ask: _Ask) -> tuple[Call, Answer]:
        sizes = dict(zip(self._provider.ranges(call.variant), point, strict=True))
        one = replace(call, variant=self._provider.sized(call.variant, sizes))
        return one, ask(one)


def _closed(answers: Sequence[tuple[Call, Answer]], by: Mapping[Thing, str | None], asked: int) -> Closed:
    return Closed(answers, {(slot, *rest): size for (slot, *rest), size in by.items() if slot}, asked)


def _things(call: Call, answer: Answer) -> list[Thing]:
    against = objection(call.variant, answer)
    if against is not None:  # a reason that says the sizes is one reason
        return [("", _NUMBER.sub("0", against.reason))]
    if isinstance(answer, Taken):
        return [kernel.identity for kernel in answer.reached]
    return [("", "could not be asked about")]
