"""A plain request that goes on from our turns: these are told the backend in a form that it accepts, and in
another one if its refusal says what was wrong. All else of the request is the client's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.api.ports import Backend
from gateway.core.refusal import lesson, may_teach
from gateway.wire import requests
from gateway.wire.conversation import items
from gateway.wire.speech import Speech


class ChainedCall:
    """The earlier turns and the new input, as often as they have to be told.

    Args:
        request: As the client sent it.
        adapt: Makes of a body what this backend is sent.
    """

    def __init__(
        self,
        backend: Backend,
        request: dict[str, Any],
        turns: list[items.Turn],
        adapt: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._backend = backend
        self._request = request
        self._turns = turns
        self._adapt = adapt
        self._speech = backend.speech.to(request.get("model"))
        self._calls = 0

    async def body(self) -> bytes:
        """The body of the next call. Raises: Refusal."""
        self._calls += 1
        return await self._adapt(self._told(self._speech))

    def _told(self, speech: Speech) -> bytes:
        told = items.context(self._turns, self._request.get("input"), speech.replay_target)
        request, told = speech.formed(self._request, told)
        return requests.chained_body(request, input=told)

    def may_learn(self, status: int) -> bool:
        """Whether an answer may be a refusal that says how the call should have been made."""
        return may_teach(status, self._calls)

    async def otherwise(self, said: bytes) -> bytes | None:
        """The body of another call, if a refusal has taught what to change; None: it stands."""
        found = lesson(self._speech, said, self._told(self._speech), self._told)
        if found is None:
            return None
        name, self._speech = found
        self._backend.learned(name)
        return await self.body()

    def answered(self) -> None:
        """The backend has taken the call."""
        self._backend.remember(self._request.get("model"), self._speech)
