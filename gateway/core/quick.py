"""Calls whose request is there whole and goes on as it is, made without a task each: what is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.core.call import Begun
from gateway.core.reason import Reason
from gateway.wire.http.messages import Pairs


class AnswerHead:
    """The head of an answer, as the backend sent it.

    Attributes:
        shown: What whoever shows it to clients made of it; kept with it, as the same head may come again.
    """

    __slots__ = ("headers", "reason", "shown", "status")

    def __init__(self, status: int, reason: str | None, headers: Pairs) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.shown: dict[object, object] = {}


class Listener(Protocol):
    """Whoever waits for the answer to a quick call. After `failed`, `cut`, or the end it hears no more."""

    def answered(self, head: AnswerHead, body: bytes, is_end: bool) -> None:
        """The head has come, and some of the body."""

    def received(self, body: bytes, is_end: bool) -> None:
        """More of the body has come, or its end."""

    def failed(self, begun: Begun | None) -> None:
        """There is no answer.

        Args:
            begun: What came of it; None if the call may be made as if it had not been.
        """

    def cut(self, reason: Reason) -> None:
        """The answer had begun, and broke off: `CUT` or `TIMEOUT`."""


class QuickCall(Protocol):
    """A call under way."""

    def pause(self) -> None:
        """Take no more of the answer for now."""

    def resume(self) -> None:
        """Go on."""

    def drop(self) -> None:
        """Nobody waits for it any more: the backend is told so, by the end of its connection."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The head of a request, made ready for a backend: pieces between which a name and an id are missing.

    Attributes:
        line: Up to the server's name.
        before, after: Up to the request's id, and behind it.
    """

    method: str
    line: bytes
    before: bytes
    after: bytes
