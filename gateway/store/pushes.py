"""Pushes: events of a response that another replica runs, as it commits them.

They are what the table has, sooner, and without a read. They may begin late, stop, or leave some out: whoever
takes them also listens to the bells, and reads what is missing from the table.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Take = Callable[[int, int, bytes, bool], object]
"""Is given the numbers of the first and the last event, the events, and whether the job is over."""


class Pushes(Protocol):
    """Those of one store, for all of its replicas."""

    def listen(self, response_id: str, take: Take) -> AbstractContextManager[None]:
        """Hand over what is pushed of a response, from now to the end of the block. `take` must not raise."""


class NoPushes:
    """Of a store that has one replica."""

    def listen(self, response_id: str, take: Take) -> AbstractContextManager[None]:
        return nullcontext()
