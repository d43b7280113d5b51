"""Bells: whoever waits for something in the store is told that there may be some.

A ring has a topic and no data. It may be lost, or come twice: whoever hears it looks, and polls besides.
The store rings after the commit, for what its own verbs have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NewType, Protocol

Topic = NewType("Topic", str)

OUTBOX = Topic("outbox")
"""There may be an event to tell."""


def queue(backend: str) -> Topic:
    """A job may wait for a backend."""
    return Topic(f"queue:{backend}")


def note(kind: str) -> Topic:
    """A note of a kind may have been written, or taken away."""
    return Topic(f"note:{kind}")


def claim(response_id: str) -> Topic:
    """Somebody may have taken a job from its run: the epoch says whether."""
    return Topic(f"claim:{response_id}")


def response(response_id: str) -> Topic:
    """Another gateway may have written events of a response, or its end."""
    return Topic(f"response:{response_id}")


def wanted(response_id: str) -> Topic:
    """A follower at another gateway wants events of a response, and none did a moment ago."""
    return Topic(f"wanted:{response_id}")


class Bells(Protocol):
    """The bells of one store, for all of its gateways."""

    @property
    def look_s(self) -> float | None:
        """Seconds between two polls, in case a ring of another gateway is lost. None: there is no other."""

    def is_wanted(self, response_id: str) -> bool:
        """Whether a response has followers at other gateways, who wait for its events."""

    def ring(self, topic: Topic) -> None:
        """Wake whoever listens."""

    def listen(self, wake: Callable[[], object], *topics: Topic) -> AbstractContextManager[None]:
        """Call `wake` at each ring of these, from now to the end of the block. It must not raise."""


class LocalBells:
    """Bells within one process."""

    look_s: float | None = None

    def __init__(self) -> None:
        self._listening: dict[Topic, list[Callable[[], object]]] = {}

    def is_wanted(self, response_id: str) -> bool:
        return False

    @property
    def topics(self) -> list[Topic]:
        """To which somebody listens."""
        return list(self._listening)

    def ring(self, topic: Topic) -> None:
        for wake in self._listening.get(topic, ())[:]:
            wake()

    @contextmanager
    def listen(self, wake: Callable[[], object], *topics: Topic) -> Iterator[None]:
        for topic in topics:
            self._listening.setdefault(topic, []).append(wake)
        try:
            yield
        finally:
            for topic in topics:
                self._listening[topic].remove(wake)
                if not self._listening[topic]:
                    del self._listening[topic]
