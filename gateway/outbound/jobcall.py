"""One call that the gateway itself makes, on a connection of its own, which ends with it.

No connection is kept for the next one: it might just have died, and then nobody could say whether the backend
has begun to work; such calls are few and long. The body of the answer is either read, chunk by chunk, or
pushed to whoever takes it, which costs no turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from multidict import CIMultiDict
from yarl import URL

from gateway.core.quick import AnswerHead
from gateway.outbound.client import checked_target
from gateway.outbound.connection import HttpConnection
from gateway.outbound.connector import BackendConnector
from gateway.wire.http.messages import serialised

_UNREAD_BYTES_MAX: Final = 2**17
"""Unread bytes of an answer above which its socket is not read, until somebody reads on."""
_PUSHED_BYTES_MAX: Final = 2**10
"""Largest chunk that is pushed, in bytes. A larger one is read, so that other tasks get their turns
meanwhile."""

Push = Callable[[bytes], bool]


class JobCall:
    """Makes it by `post`, and is its answer then.

    Attributes:
        status, headers: Of the answer.
    """

    def __init__(self) -> None:
        self._wire: HttpConnection | None = None
        self._chunks: list[bytes] = []
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._push: Push | None = None
        self._may_push: Callable[[], bool] = bool
        self._is_end = False
        self._has_pushed = False
        self._broken: Exception | None = None
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()

    @classmethod
    async def post(
        cls, connector: BackendConnector, origin: URL, target: str, headers: Mapping[str, str], body: bytes
    ) -> JobCall:
        """Send a request, and wait for the head of its answer.

        Raises:
            Refusal: See `checked_target`.
            FAILURES: See there.
        """
        call = cls()
        head = {
            "Host": str(origin.host_port_subcomponent),
            **headers,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        request = serialised(f"POST {checked_target(target)} HTTP/1.1", head.items()) + b"\r\n" + body
        try:
            call._wire = await connector.connect(origin)
            call._wire.send(call, request, shows_bodies=True)
            while not call.status:
                await call._wait()
                if call._broken is not None:
                    raise call._broken
        except BaseException:
            call.close()
            raise
        return call

    def push_to(self, push: Push, may_push: Callable[[], bool]) -> None:
        """Have small chunks pushed for as long as `next` is waited for.

        Args:
            push: Takes a chunk, and says whether that was all: if not, `next` returns None.
            may_push: Whether it would take one now; otherwise the chunk is for `next`.
        """
        self._push, self._may_push = push, may_push

    async def next(self) -> bytes | None:
        """What has come and was not pushed; b"" at the end. Raises: see `client.FAILURES`, and what `push`
        has raised."""
        while True:
            if self._has_pushed:
                self._has_pushed = False
                return None
            if self._chunks:
                chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks, self._unread_bytes = [], 0
                if self._wire is not None:
                    self._wire.resume()
                return chunk
            if self._broken is not None:
                raise self._broken
            if self._is_end:
                return b""
            await self._wait()

    def close(self) -> None:
        """End the call: a model server sees that nobody waits for it any more."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- for the connection

    def answered(self, head: AnswerHead, body: bytes, is_end: bool) -> None:
        self.headers.extend(head.headers)
        self.status = head.status
        self.received(body, is_end)
        self._wake()

    def received(self, body: bytes, is_end: bool) -> None:
        if body and not self._is_taken(body):
            self._chunks.append(body)
            self._unread_bytes += len(body)
            self._wake()
            if self._unread_bytes > _UNREAD_BYTES_MAX and self._wire is not None:
                self._wire.pause()
        if is_end:
            self._is_end = True
            self.close()
            self._wake()

    def broke(self, error: Exception, *, is_unsent: bool) -> None:
        self._broken = error
        self.close()
        self._wake()

    def _is_taken(self, chunk: bytes) -> bool:
        """Whether it was pushed. It is not before what came earlier, nor while that is being worked off."""
        push, is_waited_for = self._push, self._waiter is not None and not self._waiter.done()
        if push is None or not is_waited_for or len(chunk) > _PUSHED_BYTES_MAX or not self._may_push():
            return False
        try:
            self._has_pushed = not push(chunk)
        except Exception as error:  # it is for whoever reads
            self._broken = error
            self.close()
        if self._has_pushed or self._broken is not None:
            self._wake()
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
