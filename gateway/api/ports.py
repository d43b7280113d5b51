"""What handlers need of the backends; `gateway.outbound` has it, and is not imported here."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp

from gateway.config import UpstreamSettings
from gateway.core import backends
from gateway.core.call import PlainCall
from gateway.core.quick import Listener, Prepared, QuickCall
from gateway.wire.http.head import Head
from gateway.wire.speech import Api


class PlainCalls(Protocol):
    """Calls for requests that clients wait for."""

    def open(self, call: PlainCall) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request on its way, up to the head of the answer; leaving the block ends the call. Another
        server is asked only while none has answered a byte, and the body is still there to be sent again.

        Raises:
            Refusal: By entering the block; nothing was answered.
        """

    async def look_up(self, call: PlainCall, *, bytes_max: int = 0) -> tuple[int, bytes] | None:
        """Status of an answer and, of a 200, the beginning of its body; None if there is no answer."""


class QuickCalls(Protocol):
    """Calls whose request is there whole, without a task or a timer for each."""

    def prepare(self, head: Head, size: int | None = None) -> Prepared:
        """What a backend is sent of a request's head; it may be used again for the same head.

        Args:
            size: Of a body that is not sent as it came.
        """

    def call(self, prepared: Prepared, body: bytes, request_id: str, listener: Listener) -> QuickCall | None:
        """Make one; None if there is no server to call. The listener is not called before this returns."""


class Backend(backends.JobBackend, Protocol):
    """A model server, or several that serve the same models, as clients' requests see it."""

    @property
    def settings(self) -> UpstreamSettings: ...

    @property
    def withheld(self) -> frozenset[str]:
        """Names, in lower case, of headers of the caller that it does not get."""

    def learn(self, api: Api) -> None:
        """It has shown which API it speaks."""

    @property
    def plain(self) -> PlainCalls:
        """Calls for requests that clients wait for."""

    @property
    def quick(self) -> QuickCalls:
        """The same for the fast lane."""


class Backends(Protocol):
    """All model servers."""

    @property
    def all(self) -> Collection[Backend]: ...

    @property
    def default(self) -> Backend | None:
        """For requests that name no model; None if there are several and none was chosen."""

    @property
    def reads_bodies(self) -> bool:
        """Whether a request's model decides anything, so that bodies must be read to pass them on."""

    @property
    def renames(self) -> bool:
        """Whether clients know a model by another name than a backend does."""

    def get(self, name: str) -> Backend | None:
        """The one of this name; None if the settings no longer have it."""

    def of_model(self, model: str) -> Backend | None:
        """The one that serves a model; else the default one."""
