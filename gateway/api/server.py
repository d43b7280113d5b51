"""aiohttp's low-level server, with nothing in its error answers and its log that a client has sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.api.errors import error_response
from gateway.config import ServerSettings
from gateway.observe import line
from gateway.wire.errors import Fault, Refusal, invalid

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server(web.Server):
    """A server for one handler."""

    def __init__(self, handler: Handler, settings: ServerSettings) -> None:
        super().__init__(handler, handler_cancellation=True)  # who hangs up ends what is done for it
        self._settings = settings

    def __call__(self) -> RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,  # bodies pass as they are
            keepalive_timeout=self._settings.keepalive_timeout_s,
            access_log=None,  # type: ignore[arg-type]  # None is how it is turned off
        )


class _Connection(RequestHandler):
    """One client's connection.

    aiohttp answers a malformed request with its bytes, and logs them: in `Authorization : Bearer …` the stray
    blank is the error, and the key is what gets quoted.
    """

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer is not None and request.writer.output_size > 0:
            raise ConnectionError("The answer had begun: it cannot be turned into an error.")
        if status < 500:
            refusal = invalid("The request is not well-formed HTTP.", code="invalid_http")
        else:
            refusal = Refusal(Fault.INTERNAL, "The gateway failed.", code="internal_error")
        response = error_response(refusal)
        response.headers["Server"] = "backburner"
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        error = kwargs.get("exc_info")
        line("connection_failed", level=logging.DEBUG, error=type(error).__name__)
