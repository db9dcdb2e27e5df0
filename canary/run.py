"""Making the calls of a canary, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..cache.certificate import Where
from ..errors import Fa4PrecompileError
from .answer import Answer, Ready
from .children import Children
from .due import Found
from .tried import Clerk, Tried

MOST_STARTS_IN_VAIN = 3
"""In a row, after a process that could be started: then the GPU is gone, and each try costs the imports."""


class Calls:
    """The calls that are made. `tried` are those that were, so far; `where` is known once a process has started."""

    def __init__(self, found: Found, place: Callable[[Ready], Where]) -> None:
        self.tried: list[Tried] = []
        self.where: Where | None = None
        self._found = found
        self._place = place

    def make(self, children: Children) -> Iterator[Tried]:
        """Make them, and yield what became of each. Raises what `Children.ready` does if no process can be had."""
        clerk: Clerk | None = None
        in_vain = 0
        for due in self._found.calls:
            try:
                ready = children.ready(due.runtime_env)
            except Fa4PrecompileError as error:
                in_vain += 1
                if clerk is None or in_vain == MOST_STARTS_IN_VAIN:
                    raise
                failure = f"no process for it: {str(error).splitlines()[0]}"
                answer = Answer(failure=failure, report=str(error), is_made=False)
            else:
                in_vain = 0
                self.where = self.where or self._place(ready)
                clerk = clerk or Clerk(self.where, self._found.records)
                answer = children.make(due)
            self.tried.append(clerk.tried(due, answer))
            yield self.tried[-1]
